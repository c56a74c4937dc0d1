// SPDX-License-Identifier: Apache-2.0
//! Late sessions: those of an epoch that the epoch record covers before they are whole. A power cut that tears what was
//! not synced must leave each of them whole or not at all, and a directory that starts; also when a rotation moves one
//! while it is open, and when other sessions stand behind it. Whether that holds depends on which sectors of several
//! writes arrive, so many more of them are tried than elsewhere.

use super::commits::small_journal;
use super::sweep::sweep;
use limestone_core::datastore::{Commit, Datastore, Settings};
use limestone_core::error::Result;
use limestone_core::replication::replica_store::StandbyStore;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, Loss, SimFs};
use limestone_core::wal::entry::{encode_end, encode_put, marker, tag};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

const DIR: &str = "/log";
const EPOCH: Epoch = Epoch(7);
/// Larger than what a writer keeps in memory.
const LARGE: usize = 150 << 10;

/// Sessions by name: how many entries, and whether it was acknowledged.
#[derive(Clone, Debug, Default)]
struct Sessions(BTreeMap<String, (usize, bool)>);

impl Sessions {
    fn began(&mut self, name: &str, entries: usize) {
        self.0.insert(name.to_owned(), (entries, false));
    }

    fn acknowledged(&mut self, name: &str) {
        self.0.get_mut(name).expect("it began").1 = true;
    }
}

fn open(fs: &SimFs) -> Result<Arc<Datastore>> {
    Datastore::open(Settings::new(DIR).vfs(Arc::new(fs.clone())))
}

/// A directory whose epoch record covers what is written before the first switch of epochs.
fn prepared() -> SimFs {
    let fs = SimFs::new();
    let store = open(&fs).unwrap();
    let channel = store.create_channel().unwrap();
    store.ready().unwrap();
    store.switch_epoch(EPOCH).unwrap();
    channel.begin_session().unwrap();
    channel.end_session().unwrap();
    store.switch_epoch(Epoch(EPOCH.0 + 1)).unwrap();
    store.shutdown();
    fs
}

/// Cuts the power at every call of `workload` after the first `skip`, and tears what was not synced in many ways.
fn tear(skip: u64, seeds: u64, workload: fn(&SimFs, &mut Sessions) -> Result<()>) {
    let fs = prepared();
    let before = fs.operations();
    workload(&fs, &mut Sessions::default()).expect("it works without a power cut");
    let calls: Vec<u64> = (skip + 1..=fs.operations() - before).collect();
    assert!(calls.len() > 8, "only {} calls", calls.len());
    sweep(&calls, |&n| {
        let fs = prepared();
        fs.fail_at(fs.operations() + n, Fault::PowerCut);
        let mut sessions = Sessions::default();
        let _ = workload(&fs, &mut sessions);
        let torn = (0..seeds).map(|seed| Loss::Torn { seed: n * 10_000 + seed });
        let mut images = fs.reboots(torn);
        images.try_for_each(|(loss, image)| {
            check(&image, &sessions).map_err(|reason| format!("{loss:?}: {reason}; {}", fs.trace().join("\n  ")))
        })
    });
}

fn check(fs: &SimFs, sessions: &Sessions) -> std::result::Result<(), String> {
    let store = open(fs).map_err(|e| e.to_string())?;
    store.ready().map_err(|e| e.to_string())?;
    let mut found: BTreeMap<String, usize> = BTreeMap::new();
    let mut cursor = store.snapshot().map_err(|e| e.to_string())?.cursor();
    while let Some(row) = cursor.next().map_err(|e| e.to_string())? {
        let key = String::from_utf8_lossy(row.key).into_owned();
        *found.entry(key.split(' ').next().unwrap_or_default().to_owned()).or_default() += 1;
    }
    store.shutdown();
    for (name, (entries, acknowledged)) in &sessions.0 {
        match found.get(name).copied().unwrap_or(0) {
            0 if *acknowledged => return Err(format!("session {name} was acknowledged and is lost")),
            0 => {}
            found if found == *entries => {}
            found => return Err(format!("{found} of {entries} entries of session {name}")),
        }
    }
    Ok(())
}

/// An engine that writes before it switches epochs; the sizes are those of the entries of one session each.
struct Engine<'a> {
    store: Arc<Datastore>,
    channel: Arc<limestone_core::datastore::Channel>,
    sessions: &'a mut Sessions,
}

impl<'a> Engine<'a> {
    fn start(fs: &SimFs, sessions: &'a mut Sessions) -> Result<Engine<'a>> {
        let store = open(fs)?;
        let channel = store.create_channel()?;
        store.ready()?;
        Ok(Engine { store, channel, sessions })
    }

    /// Writes a session; `rotated_behind` is the entry behind which the log is rotated.
    fn session(&mut self, name: &str, sizes: &[usize], rotated_behind: Option<usize>) -> Result<()> {
        self.sessions.began(name, sizes.len());
        self.channel.begin_session()?;
        for (at, size) in sizes.iter().enumerate() {
            let version = WriteVersion { major: EPOCH.0, minor: 0 };
            self.channel.add_entry(StorageId(1), format!("{name} {at}").as_bytes(), &vec![1; *size], version, &[])?;
            if rotated_behind == Some(at) {
                self.store.rotate()?;
            }
        }
        self.channel.end_session()?;
        self.sessions.acknowledged(name);
        Ok(())
    }
}

#[test]
fn torn_late_sessions_of_a_channel_are_whole_or_gone() {
    tear(0, 64, |fs, sessions| {
        let mut engine = Engine::start(fs, sessions)?;
        engine.session("small", &[100, 700, 10], None)?;
        engine.session("tiny", &[10], None)?;
        engine.session("large", &[600, LARGE, 600], None)?;
        engine.session("last", &[900], None)?;
        engine.store.shutdown();
        Ok(())
    });
}

#[test]
fn torn_late_session_that_a_rotation_moved_is_whole_or_gone() {
    tear(8, 256, |fs, sessions| {
        let mut engine = Engine::start(fs, sessions)?;
        engine.session("first", &[10], None)?;
        engine.session("moved", &[LARGE, 9000], Some(0))?;
        engine.store.shutdown();
        Ok(())
    });
}

#[test]
fn torn_late_session_that_a_rotation_moved_out_of_the_buffer_is_whole_or_gone() {
    tear(8, 256, |fs, sessions| {
        let mut engine = Engine::start(fs, sessions)?;
        engine.session("first", &[10], None)?;
        engine.session("moved", &[700, 9000], Some(0))?;
        engine.session("behind", &[300], None)?;
        engine.store.shutdown();
        Ok(())
    });
}

/// As a replica gets them: late ones among others, several before a sync.
#[test]
fn torn_late_sessions_of_a_replica_are_whole_or_gone() {
    tear(0, 128, |fs, sessions| late_sessions_of_a_replica(fs, sessions, Commit::Direct));
}

#[test]
fn torn_late_sessions_of_a_replica_with_a_journal_are_whole_or_gone() {
    tear(0, 128, |fs, sessions| late_sessions_of_a_replica(fs, sessions, small_journal()));
}

fn late_sessions_of_a_replica(fs: &SimFs, sessions: &mut Sessions, commit: Commit) -> Result<()> {
    let store = StandbyStore::open_with(Arc::new(fs.clone()), Path::new(DIR), commit)?;
    let lane = store.lane(0);
    let late = store.durable();
    assert!(late >= EPOCH);
    let mut send = |name: &str, epoch: Epoch, sizes: &[usize]| {
        sessions.began(name, sizes.len());
        let mut bytes = marker(tag::BEGIN, epoch).to_vec();
        for (at, size) in sizes.iter().enumerate() {
            let (key, version) = (format!("{name} {at}"), WriteVersion { major: epoch.0, minor: 0 });
            encode_put(&mut bytes, StorageId(1), key.as_bytes(), &vec![1; *size], version, &[]);
        }
        encode_end(&mut bytes, epoch);
        let pieces: Vec<&[u8]> = bytes.chunks(5000).collect();
        let append = |(at, piece): (usize, &&[u8])| lane.append(epoch, at == 0, at + 1 == pieces.len(), piece);
        pieces.iter().enumerate().try_for_each(append)
    };
    send("late", late, &[600, 900])?;
    send("behind", Epoch(late.0 + 1), &[700, 2000])?;
    send("late-again", late, &[10])?;
    send("large-late", late, &[LARGE, 700])?;
    send("behind-again", Epoch(late.0 + 1), &[3000])?;
    lane.sync()?;
    ["late", "late-again", "large-late"].iter().for_each(|name| sessions.acknowledged(name));
    store.record(Epoch(late.0 + 1))?;
    ["behind", "behind-again"].iter().for_each(|name| sessions.acknowledged(name));
    Ok(())
}
