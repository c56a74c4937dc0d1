// SPDX-License-Identifier: Apache-2.0
//! Cuts the power of the replica at every call that it makes to the disk. What it acknowledged is there when the engine
//! starts on its directory; a session that was not complete, or whose epoch was not committed, is not.

use crate::peer::{entry, DEADLINE};
use limestone_core::datastore::{Datastore, Settings};
use limestone_core::replication::replica_store::StandbyStore;
use limestone_core::replication::upstream::protocol::codec::{flag, Message};
use limestone_core::replication::upstream::replica::{Options, Replica};
use limestone_core::types::Epoch;
use limestone_core::vfs::{Fault, Loss, SimFs};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::Arc;

const DIR: &str = "/log";
const LARGE: usize = 40;
/// Which sectors of a late session arrive decides whether it is whole: few tries show little.
const TORN_SEEDS: u64 = 64;

/// Sends a message and waits for a reply of `len` bytes; `None` when the connection fails.
fn exchange(stream: &mut TcpStream, message: &Message, len: usize) -> Option<()> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    stream.write_all(&bytes).ok()?;
    stream.read_exact(&mut vec![0; len]).ok()
}

fn connect(address: SocketAddr, first: &Message, len: usize) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    exchange(&mut stream, first, len)?;
    Some(stream)
}

fn log_entry(log: &mut TcpStream, epoch: u64, keys: &[String], flags: u8) -> Option<()> {
    let entries = keys.iter().map(|key| entry(epoch, key, &[b'x'; 10_000])).collect();
    let reply = if flags & flag::END != 0 { 2 } else { 0 };
    exchange(log, &Message::LogEntry { epoch: Epoch(epoch), entries, flags }, reply)
}

/// What the replica has acknowledged.
#[derive(Clone, Debug, Default)]
struct Acknowledged {
    committed: u64,
    late: bool,
}

/// One life of a primary; ends early when the replica does.
fn script(address: SocketAddr, done: &mut Acknowledged) -> Option<()> {
    let one = |key: &str| vec![key.to_owned()];
    let whole = flag::BEGIN | flag::END | flag::FLUSH;
    let mut log = connect(address, &Message::log_channel_create(0), 2)?;
    let mut second = connect(address, &Message::log_channel_create(1), 2)?;
    let mut control = connect(address, &Message::session_begin(), 34)?;
    let mut commit = |epoch, done: &mut Acknowledged| {
        exchange(&mut control, &Message::GroupCommit { epoch: Epoch(epoch) }, 2)?;
        done.committed = epoch;
        Some(())
    };
    log_entry(&mut log, 1, &one("a"), whole)?;
    // Without the name of the file a power cut leaves nothing of a session behind.
    log_entry(&mut second, 1, &one("d"), whole)?;
    commit(1, done)?;
    // Ends when its epoch is recorded; too large to be kept in memory.
    log_entry(&mut second, 2, &(0..LARGE).map(|i| format!("late {i}")).collect::<Vec<_>>(), flag::BEGIN)?;
    log_entry(&mut log, 2, &one("b"), whole)?;
    commit(2, done)?;
    log_entry(&mut second, 2, &[], flag::END | flag::FLUSH)?;
    done.late = true;
    log_entry(&mut second, 3, &one("never"), flag::BEGIN)?;
    log_entry(&mut log, 3, &one("c"), whole)?;
    commit(3, done)?;
    log_entry(&mut log, 4, &one("uncommitted"), whole)
}

/// Keys that an engine recovers from the directory.
fn recovered(fs: SimFs) -> Result<BTreeSet<String>, String> {
    let store = Datastore::open(Settings::new(DIR).vfs(Arc::new(fs)).recovery_threads(1)).map_err(|e| e.to_string())?;
    store.ready().map_err(|e| e.to_string())?;
    let mut cursor = store.snapshot().unwrap().cursor();
    let mut keys = BTreeSet::new();
    while let Some(row) = cursor.next().unwrap() {
        keys.insert(String::from_utf8(row.key.to_vec()).unwrap());
    }
    store.shutdown();
    Ok(keys)
}

/// Runs the script with a power cut at call `cut`; false when it was over before.
fn cut_at(cut: u64) -> bool {
    let fs = SimFs::new();
    fs.fail_at(cut, Fault::PowerCut);
    let mut done = Acknowledged::default();
    if let Ok(store) = StandbyStore::open(Arc::new(fs.clone()), Path::new(DIR)) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut replica = Replica::start(listener, Arc::new(store), Options::default()).unwrap();
        script(replica.address(), &mut done);
        replica.stop();
    }
    let losses = [Loss::DropUnsynced, Loss::KeepUnsynced];
    for loss in losses.into_iter().chain((0..TORN_SEEDS).map(|seed| Loss::Torn { seed: cut * 1000 + seed })) {
        let keys = recovered(fs.reboot(loss)).unwrap_or_else(|e| panic!("call {cut}, {loss:?}: {e}"));
        let late = keys.iter().filter(|key| key.starts_with("late")).count();
        let name = format!("call {cut}, {loss:?}, acknowledged {done:?}, found {keys:?}");
        assert!(late == 0 || late == LARGE, "{name}: a part of a session");
        assert!(late == LARGE || !done.late, "{name}: an acknowledged session is lost");
        for (key, epoch) in [("a", 1), ("d", 1), ("b", 2), ("c", 3)] {
            assert!(keys.contains(key) || done.committed < epoch, "{name}: {key} is lost");
            assert!(!keys.contains(key) || done.committed + 1 >= epoch, "{name}: {key} was never committed");
        }
        assert!(!keys.contains("never") && !keys.contains("uncommitted"), "{name}");
    }
    fs.has_failed()
}

#[test]
fn a_power_cut_at_any_call_loses_nothing_acknowledged_and_shows_nothing_incomplete() {
    let (next, cuts) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while cut_at(next.fetch_add(1, SeqCst)) {
                    cuts.fetch_add(1, SeqCst);
                }
            });
        }
    });
    let cuts = cuts.load(SeqCst);
    assert!(cuts > 40, "only {cuts} calls");
}
