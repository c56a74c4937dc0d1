// SPDX-License-Identifier: Apache-2.0
//! A replica's directory compared with what its primary has: the `tgreplica` that serves it asks the primary, over
//! their connection, while this program reads the directory.

use crate::comparison::digest::{Digest, BYTES_MAX};
use crate::comparison::{work, How, Side};
use crate::error::{Error, Result};
use crate::replication::backup_socket::Serves;
use crate::replication::compare_socket::Asked;
use crate::replication::digests::DigestWanted;
use crate::types::Epoch;
use crate::vfs::{RealFs, Vfs};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether the program shall end.
const POLL: Duration = Duration::from_millis(100);

/// What both have at the last epoch that the replica has: the primary first.
pub fn compare(logdir: &Path, how: How, stop: &AtomicBool) -> Result<([Digest; 2], Epoch)> {
    let vfs: Arc<dyn Vfs> = Arc::new(RealFs);
    let side = Side::open(&vfs, logdir, stop)?;
    let name = logdir.display();
    let wrong = |text: String| Err(Error::WrongState(text));
    match side.served_by() {
        Some(Serves::Replica) => {}
        Some(Serves::Engine) => {
            return wrong(format!(
                "an engine serves {name}: compare on the machine of its replica, or two directories"
            ));
        }
        None => {
            return wrong(format!("no tgreplica serves {name}, which could ask the primary: start it, or name both"));
        }
    }
    let epoch = side.span.high;
    let wanted = DigestWanted { epoch, with_blobs: how.with_blobs, bytes_per_second: how.bytes_per_second };
    let failed = |source| Error::Io { message: "what the primary has is not known".to_owned(), source };
    // Before this side is read: whatever stands against it shows at once.
    let location = vfs.absolute(logdir).map_err(|e| Error::io("cannot look at", logdir, e))?;
    let Some(asked) = Asked::begin(&location, wanted, stop).map_err(failed)? else {
        return wrong(format!(
            "the tgreplica that serves {name} cannot ask its primary: it speaks the upstream protocol, is of an \
             earlier version, or ends; compare with what `tgreplica digest --json` prints on the primary's machine"
        ));
    };
    let (own, primary) = both(side, asked, (epoch, how), stop);
    // What was broken off because of the other one says nothing.
    let (own, primary) = match (own, primary) {
        (Err(e), Err(broken)) if broken.kind() == io::ErrorKind::Interrupted => return Err(e),
        (own, primary) => (own, primary.map_err(failed)?),
    };
    let primary = Digest::read(&primary[..], "what the primary has told")?;
    if primary.epoch != epoch {
        return wrong(format!("the primary has told what it had at epoch {}, expected {epoch}", primary.epoch));
    }
    let primary = Digest { directory: format!("{} of the primary", primary.directory), ..primary };
    Ok(([primary, own?.remove(0)], epoch))
}

/// Reads this side while the other one is asked for; when one cannot be had, the other is not wanted any more.
fn both(
    side: Side,
    asked: Asked,
    (epoch, how): (Epoch, How),
    stop: &AtomicBool,
) -> (Result<Vec<Digest>>, io::Result<Vec<u8>>) {
    let (ends, done) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| asked.document(BYTES_MAX, &ends).inspect_err(|_| ends.store(true, SeqCst)));
        let watching = scope.spawn(|| {
            while !done.load(SeqCst) {
                ends.fetch_or(stop.load(SeqCst), SeqCst);
                std::thread::park_timeout(POLL);
            }
        });
        let own = work(vec![side], epoch, how, &ends);
        if own.is_err() {
            ends.store(true, SeqCst);
        }
        let primary = asking.join().unwrap_or_else(|_| Err(io::Error::other("the thread that asks for it panicked")));
        done.store(true, SeqCst);
        watching.thread().unpark();
        (own, primary)
    })
}
