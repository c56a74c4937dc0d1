// SPDX-License-Identifier: Apache-2.0
//! A thread of the core panics at a call to the disk, as a defect of the program would have it. Nobody waits for ever,
//! nothing is acknowledged from then on, and what was acknowledged before is there after a power cut.

use super::commits;
use super::runner::{read, tail, LOCATION};
use limestone_core::datastore::{Channel, Commit, Datastore, Settings};
use limestone_core::engine::Engine;
use limestone_core::error::{Error, Result};
use limestone_core::replication::native::replica::{self, Options};
use limestone_core::replication::replica_store::StandbyStore;
use limestone_core::replication::settings::ReplicationSettings;
use limestone_core::types::{Durability, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, Loss, SimFs, Vfs};
use limestone_core::wal::journal;
use std::net::TcpListener;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{mpsc, Arc};
use std::time::{Duration, Instant};

/// Nothing that has to come takes longer than this.
pub const PATIENCE: Duration = Duration::from_secs(60);
const EPOCHS: u64 = 12;

/// A journal as small as it may be, with its thread.
fn journal_with_thread() -> Commit {
    Commit::Journal(journal::Settings::default().bytes_max(0).idle(Some(Duration::from_millis(1))))
}

/// Does `work` on a thread of its own, which must end.
pub fn within_patience(what: &str, work: impl FnOnce() + Send + 'static) {
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || {
        work();
        let _ = ended.send(());
    });
    end.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{what} does not end"));
}

pub fn write_epoch(store: &Datastore, channel: &Channel, epoch: u64) -> Result<()> {
    store.switch_epoch(Epoch(epoch))?;
    channel.begin_session()?;
    let key = format!("k{epoch}");
    // So large that the segments of the journal are soon full.
    channel.add_entry(StorageId(1), key.as_bytes(), &[7; 40_000], WriteVersion { major: epoch, minor: 0 }, &[])?;
    channel.end_session()
}

/// Writes epochs, each of which is waited for, until that fails.
fn write_until_refused(store: &Datastore, channel: &Channel, mut epoch: u64) -> Error {
    loop {
        let stored = write_epoch(store, channel, epoch).and_then(|()| store.switch_epoch(Epoch(epoch + 1)));
        match stored.and_then(|()| store.wait_durable(Epoch(epoch), Durability::Stored, Some(PATIENCE))) {
            Ok(reached) => assert!(reached, "epoch {epoch} is waited for in vain"),
            Err(e) => return e,
        }
        epoch += 1;
    }
}

/// What was acknowledged of a directory is there after a power cut.
fn check(fs: &SimFs, acknowledged: u64, written: u64) {
    let fs = fs.reboot(Loss::DropUnsynced);
    let store = Datastore::open(Settings::new(LOCATION).vfs(Arc::new(fs))).unwrap();
    store.ready().unwrap();
    let content = read(&store).unwrap();
    for epoch in 1..=acknowledged.min(written) {
        assert!(
            content.contains_key(&(1, format!("k{epoch}").into_bytes())),
            "epoch {epoch} of {acknowledged} is lost"
        );
    }
}

struct Primary {
    fs: SimFs,
    store: Arc<Datastore>,
    channel: Arc<Channel>,
    acknowledged: Arc<AtomicU64>,
}

impl Primary {
    fn start(commit: Commit) -> Primary {
        let fs = SimFs::new();
        let store = Datastore::open(Settings::new(LOCATION).vfs(Arc::new(fs.clone())).commit(commit)).unwrap();
        let acknowledged: Arc<AtomicU64> = Arc::default();
        let told = acknowledged.clone();
        store.set_persistent_callback(Some(Arc::new(move |event| {
            told.fetch_max(event.epoch.0, SeqCst);
        })));
        let channel = store.create_channel().unwrap();
        store.ready().unwrap();
        Primary { fs, store, channel, acknowledged }
    }

    /// Epochs up to `written` have a session.
    fn end(self, written: u64) {
        self.fs.heal();
        let store = self.store.clone();
        within_patience("the shutdown", move || store.shutdown());
        check(&self.fs, self.acknowledged.load(SeqCst), written);
    }
}

/// Returns whether there was that many calls, and whether one that panicked was made by a thread of the data store.
fn panic_in_primary(commit: Commit, nth: u64) -> (bool, bool) {
    let primary = Primary::start(commit);
    let Primary { fs, store, channel, .. } = &primary;
    fs.fail_at(fs.operations() + nth, Fault::Panic);
    let write = || (1..=EPOCHS).try_for_each(|epoch| write_epoch(store, channel, epoch));
    let own = catch_unwind(AssertUnwindSafe(write)).is_err();
    let (failed, in_background) = (fs.has_failed(), fs.has_failed() && !own);
    if in_background {
        let (store, channel, fs) = (store.clone(), channel.clone(), fs.clone());
        within_patience("writing", move || {
            let refused = write_until_refused(&store, &channel, EPOCHS + 1);
            assert!(refused.to_string().contains("panicked"), "{refused}\n  {}", tail(&fs));
        });
    }
    primary.end(u64::MAX);
    (failed, in_background)
}

#[test]
fn a_panic_of_a_thread_of_the_data_store_ends_acknowledgement_and_nobody_waits_for_it() {
    for commit in [Commit::Direct, commits::small_journal(), journal_with_thread()] {
        let (mut nth, mut in_background) = (1, 0);
        loop {
            let (failed, background) = panic_in_primary(commit, nth);
            if !failed {
                break;
            }
            in_background += u32::from(background);
            nth += 1;
        }
        assert!(nth > 30, "{commit:?}: {nth} calls");
        assert!(commit == Commit::Direct || in_background > 10, "{commit:?}: {in_background} of {nth}");
    }
}

#[test]
fn a_panic_of_the_thread_that_compacts_ends_acknowledgement() {
    for nth in [1, 4, 8] {
        let primary = Primary::start(Commit::Direct);
        let Primary { fs, store, channel, .. } = &primary;
        (1..=2).for_each(|epoch| write_epoch(store, channel, epoch).unwrap());
        store.switch_epoch(Epoch(3)).unwrap();
        // The thread looks every second. Nobody else calls the disk: epochs without writes leave no trace on it.
        fs.put(&Path::new(LOCATION).join("ctrl/start_compaction"), b"").unwrap();
        fs.fail_at(fs.operations() + nth, Fault::Panic);
        let deadline = Instant::now() + PATIENCE;
        while !fs.has_failed() {
            assert!(Instant::now() < deadline, "nobody compacts: {}", tail(fs));
            std::thread::sleep(Duration::from_millis(1));
            // Refused as soon as the thread has panicked.
            let _ = store.switch_epoch(Epoch(store.switched_epoch().0 + 1));
        }
        let (store, channel) = (store.clone(), channel.clone());
        within_patience("writing", move || {
            let refused = write_until_refused(&store, &channel, store.switched_epoch().0 + 1);
            assert!(refused.to_string().contains("panicked"), "{refused}");
        });
        primary.end(2);
    }
}

fn panic_in_replica(commit: Commit, nth: u64) {
    let (fs, near) = (SimFs::new(), tempfile::tempdir().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
    let disk: Arc<dyn Vfs> = Arc::new(fs.clone());
    let options = Options { commit, ..Options::default() };
    let mut server = replica::open(disk, Path::new(LOCATION), options).unwrap().serve(listener).unwrap();
    let variables = [("ENDPOINT", endpoint.as_str()), ("MODE", "async"), ("TIMEOUT_MS", "1000")];
    let variables = variables.map(|(name, value)| (format!("TSURUGI_REPLICATION_{name}").into(), value.into()));
    let engine = Engine::open(Settings::new(near.path()), ReplicationSettings::parse(variables).unwrap()).unwrap();
    let (store, channel) = (engine.store().clone(), engine.create_channel().unwrap());
    engine.ready().unwrap();
    write_epoch(&store, &channel, 1).unwrap();
    store.switch_epoch(Epoch(2)).unwrap();
    assert!(store.wait_durable(Epoch(1), Durability::Propagated, Some(PATIENCE)).unwrap());
    fs.fail_at(fs.operations() + nth, Fault::Panic);
    let (deadline, mut epoch) = (Instant::now() + PATIENCE, 2);
    let failure = loop {
        if let Some(failure) = server.failure() {
            break failure;
        }
        assert!(Instant::now() < deadline, "the replica goes on: {}", tail(&fs));
        write_epoch(&store, &channel, epoch).unwrap();
        epoch += 1;
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(failure.contains("panicked"), "{failure:?}");
    within_patience("the replica", move || server.stop());
    let acknowledged = store.propagated_epoch();
    within_patience("the engine", move || engine.shutdown());
    let after = fs.reboot(Loss::DropUnsynced);
    let left = StandbyStore::open(Arc::new(after.clone()), Path::new(LOCATION)).unwrap();
    assert!(left.durable() >= acknowledged, "{} of {acknowledged}", left.durable());
}

#[test]
fn a_panic_of_a_thread_of_a_replica_ends_it_as_a_failed_disk_does() {
    for commit in commits::ways() {
        // Appending, syncing and recording take turns.
        [1, 2, 3, 4, 6, 9, 14].into_iter().for_each(|nth| panic_in_replica(commit, nth));
    }
}
