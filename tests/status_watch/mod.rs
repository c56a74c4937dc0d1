// SPDX-License-Identifier: Apache-2.0
//! Asks both sides of a pair for their status again and again while a test does what it likes with them, and compares
//! each answer with what the directories hold, with what the engine was told, and with the answer before.

pub mod side;

use limestone_core::replication::status::{LinkState, Side, Status};
use limestone_core::replication::status_socket;
use limestone_core::vfs::{RealFs, Vfs};
use limestone_core::wal::journal::redo;
use limestone_core::wal::{epoch_file, manifest, names};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

const INTERVAL: Duration = Duration::from_millis(10);
/// A directory that changes while it is read is read again.
const READINGS: usize = 20;
const FAULTS_SHOWN: usize = 5;

/// The lives of a process.
#[derive(Debug, Default)]
pub struct Lives {
    /// Odd while it runs.
    count: AtomicU64,
    /// How many connections there were between the two when the present one began.
    connections: AtomicU64,
}

impl Lives {
    /// To be called before the process is started.
    pub fn begins(&self, connections: u64) {
        self.connections.store(connections, SeqCst);
        self.count.fetch_add(self.now() % 2 + 1, SeqCst);
    }

    /// To be called before the process is ended.
    pub fn is_over(&self) {
        self.count.fetch_add(self.now() % 2, SeqCst);
    }

    fn now(&self) -> u64 {
        self.count.load(SeqCst)
    }
}

/// What the engine was told in its present life.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// How many lives have begun so far.
    pub lives: u64,
    pub stored: u64,
    pub propagated: u64,
    /// In which sessions were begun.
    pub written: BTreeSet<u64>,
}

/// What is watched, and what the test knows.
pub struct Watched {
    pub primary: PathBuf,
    pub replica: PathBuf,
    pub primary_lives: Arc<Lives>,
    pub replica_lives: Arc<Lives>,
    /// As it stands in the status of the primary.
    pub policy: String,
    /// How many connections there were between the two.
    pub connections: Box<dyn Fn() -> u64 + Send>,
    pub told: Box<dyn FnMut() -> Told + Send>,
    /// The replica was set back: it has less than it once confirmed.
    pub set_back: Arc<AtomicBool>,
    /// Asks for the status of a replica that does not run.
    pub stopped_replica: Box<dyn Fn() -> Option<Status> + Send>,
}

/// Watches while it lives.
#[derive(Debug)]
pub struct StatusWatch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    primary_answers: u64,
    replica_answers: u64,
    faults: Vec<String>,
}

impl StatusWatch {
    pub fn start(watched: Watched) -> StatusWatch {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let mut watcher =
            Watcher { watched, seen: Seen::default(), primary_before: None, replica_before: None, on_replica: 0 };
        let thread = std::thread::spawn(move || {
            while !stopped.load(SeqCst) && watcher.seen.faults.len() < FAULTS_SHOWN {
                watcher.look();
                std::thread::sleep(INTERVAL);
            }
            watcher.seen
        });
        StatusWatch { stop, thread: Some(thread) }
    }

    /// Ends watching.
    ///
    /// # Panics
    /// When an answer was not true, or nobody ever answered.
    pub fn end(mut self) {
        let seen = self.join().expect("it is ended once");
        assert!(seen.faults.is_empty(), "the status was not true:\n{}", seen.faults.join("\n"));
        assert!(seen.primary_answers > 0 && seen.replica_answers > 0, "somebody never answered: {seen:?}");
    }

    fn join(&mut self) -> Option<Seen> {
        self.stop.store(true, SeqCst);
        self.thread.take().map(|thread| thread.join().expect("the watching thread panicked"))
    }
}

impl Drop for StatusWatch {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

struct Watcher {
    watched: Watched,
    seen: Seen,
    primary_before: Option<(u64, Status)>,
    replica_before: Option<(u64, Status)>,
    /// The largest epoch that the replica's directory was ever seen to hold.
    on_replica: u64,
}

/// What whoever serves the directory answers; nothing when nobody does or it is stopped.
fn ask(directory: &Path) -> Option<Status> {
    status_socket::ask(directory).ok().flatten().map(|report| report.status)
}

/// The epoch that a start on the directory would find to be durable; `None` while it changes.
fn durable(directory: &Path) -> Option<u64> {
    let read = |name: &str| RealFs.read(&directory.join(name), 64 << 20).ok();
    let journal = manifest::parse(&read(names::MANIFEST)?).ok()?.journal;
    let recorded = epoch_file::parse(&read(names::EPOCH)?, directory).ok()?.max.unwrap_or_default();
    let settled = match journal {
        Some(journal) => redo::read(&RealFs, directory, &journal).ok()?.epoch(),
        None => recorded,
    };
    Some(settled.max(recorded).0)
}

impl Watcher {
    fn fault(&mut self, what: &str, status: &Status) {
        self.seen.faults.push(format!("{what}: {status:?}"));
    }

    fn expect(&mut self, holds: bool, what: &str, status: &Status) {
        if !holds {
            self.fault(what, status);
        }
    }

    fn look(&mut self) {
        let told = (self.watched.told)();
        if let Some((life, status)) = self.ask_primary() {
            self.seen.primary_answers += 1;
            self.check_document(&status);
            self.check_primary(&status, life, &told);
            self.check_on_replica(
                status.propagated_epoch.unwrap_or(0),
                "more PROPAGATED than the replica has",
                &status,
            );
            if let Some((_, earlier)) = self.primary_before.take().filter(|(of, _)| *of == life) {
                self.check_growth(has_fallen(&earlier, &status), &earlier, &status);
            }
            self.primary_before = Some((life, status));
        }
        let confirmed = self.primary_before.as_ref().and_then(|(_, status)| status.propagated_epoch).unwrap_or(0);
        let life = self.watched.replica_lives.now();
        let answer = match life % 2 {
            1 => ask(&self.watched.replica),
            // It may be half deleted, also since it was asked.
            _ => (self.watched.stopped_replica)().filter(|_| !self.watched.set_back.load(SeqCst)),
        };
        let Some(status) = answer.filter(|_| self.watched.replica_lives.now() == life) else { return };
        self.seen.replica_answers += 1;
        self.check_document(&status);
        self.check_replica(&status, life % 2 == 1, confirmed);
        if life % 2 == 1 {
            self.check_on_replica(status.propagated_epoch.unwrap_or(0), "more durable than on its disk", &status);
            if let Some((_, earlier)) = self.replica_before.take().filter(|(of, _)| *of == life) {
                let has_fallen = self.has_fallen_on_replica(&earlier, &status);
                self.check_growth(has_fallen, &earlier, &status);
            }
            self.replica_before = Some((life, status));
        }
    }

    /// Within a life epochs only grow, and nothing that was known is unknown later.
    fn check_growth(&mut self, has_fallen: bool, earlier: &Status, status: &Status) {
        if has_fallen {
            self.seen.faults.push(format!("an epoch has fallen: {status:?} after {earlier:?}"));
        }
    }

    /// What the replica was told is of the primary, which may have begun again without epochs in which nothing was
    /// written.
    fn has_fallen_on_replica(&mut self, earlier: &Status, status: &Status) -> bool {
        let told = |status: &Status| status.stored_epoch.unwrap_or(0);
        let forgotten = status.switched_epoch.is_none() && earlier.switched_epoch.is_some();
        let lost = self.is_written_between(told(status), told(earlier));
        forgotten || lost || status.propagated_epoch < earlier.propagated_epoch
    }

    /// An answer of one life of the primary.
    fn ask_primary(&self) -> Option<(u64, Status)> {
        let life = self.watched.primary_lives.now();
        let status = ask(&self.watched.primary)?;
        (life % 2 == 1 && self.watched.primary_lives.now() == life).then_some((life, status))
    }

    fn check_document(&mut self, status: &Status) {
        document_faults(status).into_iter().for_each(|what| self.fault(what, status));
    }

    fn check_primary(&mut self, status: &Status, life: u64, told: &Told) {
        self.expect(status.role == Some(Side::Primary), "not a primary", status);
        self.expect(status.protocol.as_deref() == Some("native"), "another protocol", status);
        self.expect(status.policy.as_deref() == Some(&self.watched.policy), "another policy", status);
        let degrades = self.watched.policy.starts_with("degrade");
        self.expect(degrades || status.degraded_since.is_none(), "degraded, which the policy never is", status);
        if self.watched.primary_lives.connections.load(SeqCst) == (self.watched.connections)() {
            let unknown = status.propagated_epoch.is_none() && status.heard_ms.is_none() && status.peer.is_none();
            self.expect(unknown, "something of a replica that there was no connection with", status);
        }
        // The engine was told after the status could know.
        if told.lives == life.div_ceil(2) {
            self.expect(status.stored_epoch.unwrap_or(0) >= told.stored, "less STORED than was reported", status);
            let propagated = status.propagated_epoch.unwrap_or(0);
            self.expect(propagated >= told.propagated, "less PROPAGATED than was reported", status);
        }
    }

    fn check_replica(&mut self, status: &Status, runs: bool, confirmed: u64) {
        self.expect(status.role == Some(Side::Replica), "not a replica", status);
        self.expect(runs == (status.state != LinkState::Stopped), "runs, or does not", status);
        if !self.watched.set_back.load(SeqCst) {
            let lacks = self.is_written_between(status.propagated_epoch.unwrap_or(0), confirmed);
            self.expect(!lacks, &format!("less durable than it confirmed, which is {confirmed}"), status);
        }
        if matches!(status.state, LinkState::Connecting | LinkState::Stopped) {
            let lag = &status.lag;
            self.expect(lag.epochs.is_none() && lag.ms.is_none(), "a lag without a primary", status);
            self.expect(status.peer.is_none(), "a peer without a link", status);
        }
        self.expect(runs || status.stored_epoch.is_none(), "what nobody has told it", status);
    }

    /// Whether who has the one epoch lacks anything up to the other: of epochs in which nothing was written there is
    /// nothing to be had.
    fn is_written_between(&mut self, has: u64, epoch: u64) -> bool {
        has < epoch && (self.watched.told)().written.range(has + 1..=epoch).next().is_some()
    }

    /// The directory of the replica is read after the answer: what was true then is there now.
    fn check_on_replica(&mut self, epoch: u64, what: &str, status: &Status) {
        for _ in 0..READINGS {
            self.on_replica = self.on_replica.max(durable(&self.watched.replica).unwrap_or(0));
            // One that was emptied meanwhile cannot show what it had.
            let set_back = self.watched.set_back.load(SeqCst);
            if set_back || !self.is_written_between(self.on_replica, epoch) {
                return;
            }
            std::thread::sleep(INTERVAL);
        }
        self.fault(&format!("{what}, which is {}", self.on_replica), status);
    }
}

/// What holds for both sides, and does not for this one.
fn document_faults(status: &Status) -> Vec<&'static str> {
    let (switched, stored, propagated) = (status.switched_epoch, status.stored_epoch, status.propagated_epoch);
    let ordered = |above: Option<u64>, below: Option<u64>| above.is_none() || below.is_none() || above >= below;
    let lag = &status.lag;
    let left = stored.zip(propagated).map(|(stored, propagated)| stored - propagated);
    let heard = lag.age_ms.is_some() && status.heard_ms.is_some();
    let connected = !matches!(
        status.state,
        LinkState::NotReplicated | LinkState::Connecting | LinkState::Refused | LinkState::Stopped
    );
    // A session that stalled may be over.
    let has_peer = status.peer.is_some() || !connected || status.state == LinkState::Stalled;
    let expected = [
        (ordered(switched, stored) && ordered(stored, propagated), "the epochs are out of order"),
        (lag.epochs.is_none() || lag.epochs <= left, "a lag of more epochs than are left"),
        (heard || (lag.epochs.is_none() && lag.bytes.is_none()), "a lag of which nothing was heard"),
        (connected || lag.bytes.is_none(), "bytes on a link that is not there"),
        (has_peer, "connected with nobody"),
    ];
    expected.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
}

/// Whether an epoch is smaller than before, or is not known any more.
fn has_fallen(earlier: &Status, now: &Status) -> bool {
    let epochs = |status: &Status| [status.switched_epoch, status.stored_epoch, status.propagated_epoch];
    epochs(earlier).into_iter().zip(epochs(now)).any(|(earlier, now)| now < earlier)
}
