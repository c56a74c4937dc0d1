// SPDX-License-Identifier: Apache-2.0
//! What signals ask for.

use std::sync::atomic::AtomicBool;
use std::sync::Arc;

/// Set when the program shall end, and when it shall read the secret again.
#[derive(Clone, Debug, Default)]
pub struct Signals {
    pub stop: Arc<AtomicBool>,
    pub reload: Arc<AtomicBool>,
}
