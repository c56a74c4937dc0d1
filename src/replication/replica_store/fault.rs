// SPDX-License-Identifier: Apache-2.0
//! What ends a replica: its first failure, of which the log has one line.

use crate::error::Error;
use crate::lock_order::Mutex;

/// The failure with which a replica stops acknowledging; calls may come from any thread.
#[derive(Debug, Default)]
pub struct Fault(Mutex<Option<String>>);

impl Fault {
    /// Nothing is acknowledged from now on, which the log says the first time: what comes later is a consequence.
    pub fn note(&self, error: &Error) {
        let mut first = self.0.lock();
        if first.is_none() {
            let cause = error.cause();
            log::error!("replication: {cause}; nothing is acknowledged any more, the program ends");
            *first = Some(cause);
        }
    }

    /// The same for what the store itself says has failed, which may have been in the background.
    pub fn note_of_store(&self, failure: Option<String>) {
        if let Some(failure) = failure {
            self.note(&Error::Poisoned(failure));
        }
    }

    /// What has failed first.
    pub fn get(&self) -> Option<String> {
        self.0.lock().clone()
    }
}
