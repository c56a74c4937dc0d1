// SPDX-License-Identifier: Apache-2.0
//! The directory of a replica, with each way to commit: cut the power, kill the process or fail at every call that it
//! makes to the disk. What was acknowledged as durable is there afterwards, whole, and nothing beyond it, neither for
//! the replica nor for a data store that takes over.

use super::commits;
use super::faults::each_fault;
use super::power_cuts::losses;
use super::runner::tail;
use super::sweep::sweep;
use limestone_core::backup::InProgress;
use limestone_core::datastore::{Commit, Datastore, Settings};
use limestone_core::error::{Error, Result};
use limestone_core::replication::replica_store::{Outcome, StandbyStore, Work};
use limestone_core::types::{BlobId, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, Loss, SimFs};
use limestone_core::wal::entry::{encode_end, encode_put, marker, tag};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::Duration;

const DIR: &str = "/log";

/// A session that was sent, and what must become of it.
#[derive(Clone, Debug)]
struct Sent {
    epoch: u64,
    /// Sent after its epoch was recorded: counts as soon as it is synced.
    late: Late,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Late {
    No,
    Unsynced,
    Synced,
}

/// What the primary knows.
#[derive(Clone, Debug, Default)]
struct History {
    /// By number; what was discarded is taken out.
    sent: BTreeMap<usize, Sent>,
    next: usize,
    acknowledged: u64,
    /// The epoch of the last COMMIT, acknowledged or not.
    committed: u64,
    uuid: Option<String>,
    commit: Commit,
}

struct Replica<'a> {
    store: StandbyStore,
    history: &'a mut History,
}

fn entries(number: usize, epoch: u64, blob: Option<u64>, filler: usize) -> Vec<u8> {
    let mut bytes = marker(tag::BEGIN, Epoch(epoch)).to_vec();
    let blobs: Vec<BlobId> = blob.into_iter().map(BlobId).collect();
    for part in ["a", "b"] {
        let version = WriteVersion { major: epoch, minor: number as u64 };
        let key = format!("{number}{part}");
        encode_put(&mut bytes, StorageId(1), key.as_bytes(), &vec![7; filler], version, &blobs);
    }
    encode_end(&mut bytes, Epoch(epoch));
    bytes
}

impl<'a> Replica<'a> {
    fn open(fs: &SimFs, history: &'a mut History) -> Result<Replica<'a>> {
        let store = StandbyStore::open_with(Arc::new(fs.clone()), Path::new(DIR), history.commit)?;
        Ok(Replica { store, history })
    }

    /// Sends a session in pieces; only `pieces` of them when it is to stay unended.
    fn send(&mut self, lane: u32, epoch: u64, filler: usize, cut: Option<usize>, blob: Option<u64>) -> Result<()> {
        let number = self.history.next;
        self.history.next += 1;
        let late = if epoch <= self.history.acknowledged { Late::Unsynced } else { Late::No };
        let bytes = entries(number, epoch, blob, filler);
        let pieces: Vec<&[u8]> = bytes.chunks(700).collect();
        if cut.is_none() {
            self.history.sent.insert(number, Sent { epoch, late });
        }
        let log = self.store.lane(lane);
        for (at, piece) in pieces.iter().enumerate().take(cut.unwrap_or(usize::MAX)) {
            log.append(Epoch(epoch), at == 0, at + 1 == pieces.len(), piece)?;
        }
        if late == Late::Unsynced {
            log.sync()?;
            self.history.sent.get_mut(&number).expect("just sent").late = Late::Synced;
        }
        Ok(())
    }

    fn whole(&mut self, lane: u32, epoch: u64) -> Result<()> {
        self.send(lane, epoch, 20, None, None)
    }

    fn sync(&mut self, lane: u32) -> Result<()> {
        self.store.lane(lane).sync()
    }

    fn commit(&mut self, epoch: u64) -> Result<()> {
        self.history.committed = epoch;
        self.store.record(Epoch(epoch))?;
        assert_eq!(self.store.durable(), Epoch(epoch));
        self.history.acknowledged = epoch;
        Ok(())
    }

    /// The link is lost and comes back: whatever was not acknowledged is sent anew, with other content.
    fn reconnect(&mut self) -> Result<()> {
        let durable = self.store.durable().0;
        // From here on nobody asks for what is beyond.
        self.history.sent.retain(|_, sent| sent.epoch <= durable);
        self.store.discard_beyond_durable()
    }

    fn restart(self, fs: &SimFs) -> Result<Replica<'a>> {
        let Replica { store, history } = self;
        store.leave();
        let replica = Replica::open(fs, history)?;
        assert_eq!(replica.store.durable().0, replica.history.acknowledged);
        let acknowledged = replica.history.acknowledged;
        replica.history.sent.retain(|_, sent| sent.epoch <= acknowledged);
        Ok(replica)
    }

    /// Everything that has come is recorded.
    fn compact(&mut self) -> Result<()> {
        let (backups, stopping) = (InProgress::default(), AtomicBool::new(false));
        let patience = Duration::from_secs(60);
        let work = Work { backups: &backups, memory_bytes: 1 << 20, patience, stopping: &stopping };
        assert_eq!(self.store.compact(work, || Some(()))?, Outcome::Done);
        Ok(())
    }

    fn blob(&mut self, id: u64, content: &[u8]) -> Result<()> {
        let mut receiver = self.store.blob_receiver();
        let crc = crc32fast::hash(content);
        let (first, rest) = content.split_at(content.len() / 2);
        receiver.piece(BlobId(id), content.len() as u64, 0, first, None)?;
        receiver.piece(BlobId(id), content.len() as u64, first.len() as u64, rest, Some(crc))?;
        receiver.sync_names(|| {})
    }
}

fn blob_content(id: u64) -> Vec<u8> {
    vec![id as u8; 900 + id as usize]
}

/// Two lanes; sessions out of order of epochs, in pieces, unended, late; lost links; restarts; BLOBs; compactions.
fn workload(fs: &SimFs, history: &mut History) -> Result<()> {
    let mut replica = Replica::open(fs, history)?;
    replica.store.adopt_identity("01234567-89ab-cdef-0123-456789abcdef")?;
    replica.history.uuid = Some(replica.store.identity());
    replica.whole(0, 1)?;
    replica.whole(1, 1)?;
    replica.sync(0)?;
    replica.commit(1)?;
    replica.compact()?;
    // An epoch in flight beyond the committed one, before and behind a session of it.
    replica.whole(0, 3)?;
    replica.send(0, 2, 1500, None, None)?;
    replica.whole(0, 4)?;
    replica.whole(1, 4)?;
    replica.commit(2)?;
    replica.send(1, 4, 1500, Some(2), None)?;
    replica.reconnect()?;
    // The same epochs with other content.
    replica.whole(0, 3)?;
    replica.blob(5, &blob_content(5))?;
    replica.send(1, 3, 20, None, Some(5))?;
    replica.whole(0, 5)?;
    replica.commit(3)?;
    // A session that comes when its epoch has long been recorded.
    replica.send(0, 2, 700, None, None)?;
    let mut replica = replica.restart(fs)?;
    replica.whole(1, 4)?;
    replica.whole(0, 6)?;
    replica.send(0, 5, 20, None, None)?;
    replica.commit(5)?;
    replica.whole(0, 7)?;
    replica.store.sync()?;
    let mut replica = replica.restart(fs)?;
    replica.whole(0, 6)?;
    replica.send(0, 6, 1500, Some(1), None)?;
    replica.reconnect()?;
    replica.reconnect()?;
    replica.whole(0, 6)?;
    replica.commit(7)?;
    replica.compact()?;
    replica.whole(1, 8)?;
    replica.commit(8)?;
    // What the end of a replica has written down is of files that go on to grow.
    let mut replica = replica.restart(fs)?;
    replica.send(0, 9, 1500, None, None)?;
    replica.commit(9)?;
    drop(replica.store);
    Ok(())
}

/// What a data store that takes over shows: numbers of sessions, each of which must be whole.
fn take_over(fs: &SimFs) -> std::result::Result<BTreeSet<usize>, String> {
    let store = Datastore::open(Settings::new(DIR).vfs(Arc::new(fs.clone()))).map_err(|e| e.to_string())?;
    store.ready().map_err(|e| e.to_string())?;
    let mut parts: BTreeMap<usize, usize> = BTreeMap::new();
    let mut cursor = store.snapshot().map_err(|e| e.to_string())?.cursor();
    while let Some(row) = cursor.next().map_err(|e| e.to_string())? {
        let key = String::from_utf8_lossy(row.key).into_owned();
        let number = key[..key.len() - 1].parse().map_err(|_| format!("key {key}"))?;
        *parts.entry(number).or_default() += 1;
        for id in row.blobs.iter() {
            let (path, there) = store.blobs().file(id);
            let content = fs.files().remove(&path);
            if !there || content != Some(blob_content(id.0)) {
                return Err(format!("BLOB {id} of session {number} is {:?}", content.map(|bytes| bytes.len())));
            }
        }
    }
    store.shutdown();
    match parts.iter().find(|(_, parts)| **parts != 2) {
        Some((number, _)) => Err(format!("session {number} is there in part")),
        None => Ok(parts.into_keys().collect()),
    }
}

/// Opens as a replica, goes on a little, and takes over; and takes over at once.
fn check(fs: &SimFs, history: &History) -> std::result::Result<(), String> {
    let mut history = history.clone();
    let acknowledged = history.acknowledged;
    let store = match StandbyStore::open_with(Arc::new(fs.clone()), Path::new(DIR), history.commit) {
        Ok(store) => store,
        Err(e) => return Err(format!("does not open: {e}")),
    };
    let durable = store.durable().0;
    if durable != acknowledged && durable != history.committed {
        return Err(format!("durable is {durable}; acknowledged {acknowledged}, committed {}", history.committed));
    }
    if let Some(uuid) = history.uuid.as_ref().filter(|uuid| **uuid != store.identity()) {
        return Err(format!("the identity is {}, not {uuid}", store.identity()));
    }
    store.leave();
    let image = fs.reboot(Loss::DropUnsynced);
    let visible = take_over(&image)?;
    for (number, sent) in &history.sent {
        let due = sent.epoch <= durable;
        let there = visible.contains(number);
        if there != due && (sent.late == Late::No || (sent.late == Late::Synced && due)) {
            return Err(format!("session {number} of epoch {}: {there}, but durable is {durable}", sent.epoch));
        }
    }
    if let Some(number) = visible.iter().find(|number| !history.sent.contains_key(number)) {
        return Err(format!("session {number} was discarded and is there"));
    }
    // Go on as a replica: what was not acknowledged comes again.
    history.acknowledged = durable;
    history.sent.retain(|number, _| visible.contains(number));
    let mut replica = Replica::open(fs, &mut history).map_err(|e| e.to_string())?;
    let go_on = |replica: &mut Replica<'_>| {
        replica.whole(0, durable + 2)?;
        replica.whole(1, durable + 1)?;
        replica.whole(0, durable + 1)?;
        replica.commit(durable + 1)
    };
    go_on(&mut replica).map_err(|e| e.to_string())?;
    drop(replica);
    let expected: BTreeSet<usize> =
        history.sent.iter().filter(|(_, sent)| sent.epoch <= durable + 1).map(|(number, _)| *number).collect();
    let visible = take_over(&fs.reboot(Loss::DropUnsynced))?;
    match visible == expected {
        true => Ok(()),
        false => Err(format!("after going on: {visible:?} are there, expected {expected:?}")),
    }
}

/// Every call with each way to commit.
fn calls() -> Vec<(Commit, u64)> {
    let mut calls = Vec::new();
    for commit in commits::ways() {
        let fs = SimFs::new();
        let mut history = History { commit, ..History::default() };
        workload(&fs, &mut history).expect("the workload runs");
        calls.extend((1..=fs.operations()).map(|n| (commit, n)));
        check(&fs, &history).expect("and is right");
    }
    calls
}

fn faulted(commit: Commit, n: u64, fault: Fault) -> (SimFs, History) {
    let fs = SimFs::new();
    fs.fail_at(n, fault);
    let mut history = History { commit, ..History::default() };
    // The fault makes it end early, or hits a call that it can do without.
    let _ = workload(&fs, &mut history);
    (fs, history)
}

fn survive(fs: &SimFs, n: u64, history: &History) -> std::result::Result<(), String> {
    for (loss, image) in fs.reboots(losses(n)) {
        check(&image, history).map_err(|reason| format!("{loss:?}: {reason}\n  {}", tail(fs)))?;
    }
    Ok(())
}

#[test]
fn power_cut_anywhere_on_a_replica_leaves_exactly_what_was_acknowledged() {
    sweep(&calls(), |&(commit, n)| {
        let (fs, history) = faulted(commit, n, Fault::PowerCut);
        survive(&fs, n, &history)
    });
}

#[test]
fn replica_that_dies_anywhere_leaves_nothing_that_a_later_power_cut_takes() {
    sweep(&calls(), |&(commit, n)| {
        let (fs, history) = faulted(commit, n, Fault::PowerCut);
        fs.heal();
        check(&fs, &history).map_err(|reason| format!("{reason}\n  {}", tail(&fs)))
    });
}

#[test]
fn failure_of_any_call_of_a_replica_leaves_exactly_what_was_acknowledged() {
    sweep(&calls(), |&(commit, n)| {
        each_fault(&[Fault::IoError, Fault::SyncLoses, Fault::NoSpace, Fault::TornWrite], |fault| {
            let (fs, history) = faulted(commit, n, fault);
            survive(&fs, n, &history).map_err(|reason| format!("{fault:?}: {reason}"))?;
            Ok(fs)
        })
    });
}

#[test]
fn after_a_failed_sync_a_replica_acknowledges_nothing_any_more() {
    commits::ways().into_iter().for_each(nothing_is_acknowledged_after_a_failed_sync);
}

fn nothing_is_acknowledged_after_a_failed_sync(commit: Commit) {
    let fs = SimFs::new();
    let mut history = History { commit, ..History::default() };
    let mut replica = Replica::open(&fs, &mut history).unwrap();
    replica.whole(0, 1).unwrap();
    fs.fail_at(fs.operations() + 1, Fault::SyncLoses);
    assert!(matches!(replica.store.record(Epoch(1)), Err(Error::Io { .. })));
    let before = fs.operations();
    assert!(matches!(replica.store.record(Epoch(1)), Err(Error::Poisoned(_))));
    assert!(matches!(replica.store.sync(), Err(Error::Poisoned(_))));
    assert!(matches!(replica.whole(0, 2), Err(Error::Poisoned(_))));
    assert_eq!(fs.operations(), before, "the sync is not tried again");
    assert!(replica.store.failure().is_some());
}

#[test]
fn an_unended_session_can_be_neither_committed_nor_broken_into() {
    let fs = SimFs::new();
    let mut history = History::default();
    let mut replica = Replica::open(&fs, &mut history).unwrap();
    replica.send(0, 1, 1500, Some(1), None).unwrap();
    assert!(matches!(replica.store.record(Epoch(1)), Err(Error::InvalidArgument(_))));
    assert!(matches!(replica.whole(0, 1), Err(Error::InvalidArgument(_))));
    let log = replica.store.lane(0);
    assert!(matches!(log.append(Epoch(2), false, true, &[0]), Err(Error::InvalidArgument(_))));
    assert_eq!(replica.store.durable(), Epoch(0));
    replica.reconnect().unwrap();
    replica.whole(0, 1).unwrap();
    replica.commit(1).unwrap();
}
