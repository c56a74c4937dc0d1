// SPDX-License-Identifier: Apache-2.0
//! What a primary was told, and whether a directory has it.

use crate::status_watch::Told;
use limestone_core::datastore::Settings;
use limestone_core::engine::Engine;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// Entries of each session.
pub const MARKERS: u64 = 3;

/// A line of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// A life of the primary began; whatever it does has a later epoch.
    Started {
        epoch: u64,
    },
    /// A session began.
    Session {
        worker: u64,
        session: u64,
        epoch: u64,
    },
    Stored {
        epoch: u64,
    },
    Propagated {
        epoch: u64,
    },
    /// The end in good order, and how long it took.
    Ended {
        ms: u64,
    },
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Line::Started { epoch } => writeln!(f, "started {epoch}"),
            Line::Session { worker, session, epoch } => writeln!(f, "session {worker} {session} {epoch}"),
            Line::Stored { epoch } => writeln!(f, "stored {epoch}"),
            Line::Propagated { epoch } => writeln!(f, "propagated {epoch}"),
            Line::Ended { ms } => writeln!(f, "ended {ms}"),
        }
    }
}

fn parse(line: &str) -> Line {
    let mut words = line.split(' ');
    let kind = words.next().unwrap_or_default();
    let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
    match (kind, &numbers[..]) {
        ("started", &[epoch]) => Line::Started { epoch },
        ("session", &[worker, session, epoch]) => Line::Session { worker, session, epoch },
        ("stored", &[epoch]) => Line::Stored { epoch },
        ("propagated", &[epoch]) => Line::Propagated { epoch },
        ("ended", &[ms]) => Line::Ended { ms },
        _ => panic!("not a line of a journal: {line}"),
    }
}

pub fn key(worker: u64, session: u64, marker: u64) -> String {
    format!("{worker}/{session:08}/{marker}")
}

pub fn parse_key(key: &[u8]) -> Option<(u64, u64, u64)> {
    let mut parts = std::str::from_utf8(key).ok()?.split('/').map(|part| part.parse().ok());
    Some((parts.next()??, parts.next()??, parts.next()??))
}

/// A value: the epoch of its session, then `filler` bytes.
pub fn value(epoch: u64, filler: usize) -> Vec<u8> {
    let mut value = format!("{epoch:020}").into_bytes();
    value.resize(20 + filler, b'.');
    value
}

fn value_epoch(value: &[u8]) -> u64 {
    std::str::from_utf8(&value[..20]).unwrap().parse().unwrap()
}

/// What the BLOB of a session holds.
pub fn blob_content(worker: u64, session: u64) -> Vec<u8> {
    let len = 1000 + (session * 7919 % 300_000) as usize;
    (0..len as u64).map(|i| (i.wrapping_mul(31) ^ worker ^ session) as u8).collect()
}

/// Sessions by worker and number, with their epochs.
pub type Sessions = BTreeMap<(u64, u64), u64>;

/// A journal as far as it was written.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// Every session that began; of those with the same number the last one.
    pub sessions: Sessions,
    /// Those that were reported stored, and propagated.
    pub stored_sessions: Sessions,
    pub propagated_sessions: Sessions,
    /// The last reports of the present life.
    pub stored: u64,
    pub propagated: u64,
    pub ended_ms: Option<u64>,
}

impl Journal {
    /// Reads the journal; also checks that epochs of a state only grow within a life of the primary, and that none is
    /// propagated before it is stored.
    pub fn read(path: &Path) -> Journal {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let mut journal = Journal::default();
        let (mut not_stored, mut not_propagated) = (Vec::new(), Vec::new());
        let settle = |waiting: &mut Vec<((u64, u64), u64)>, done: &mut Sessions, epoch: u64| {
            let (reached, rest) = waiting.drain(..).partition(|(_, of)| *of <= epoch);
            *waiting = rest;
            let reached: Vec<_> = reached;
            done.extend(reached);
        };
        // The last line may be half written.
        for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
            match parse(line) {
                Line::Started { epoch } => {
                    // Numbers of epochs in which nothing was written may come again, and the replica is asked anew.
                    (journal.stored, journal.propagated) = (epoch, 0);
                    not_stored.clear();
                    // What was stored by then is propagated when the replica is back.
                    not_propagated.retain(|(_, of)| *of <= epoch);
                }
                Line::Session { worker, session, epoch } => {
                    // A later life may use the number of a session that was lost.
                    journal.sessions.insert((worker, session), epoch);
                    not_stored.push(((worker, session), epoch));
                    not_propagated.push(((worker, session), epoch));
                }
                Line::Stored { epoch } => {
                    assert!(epoch > journal.stored, "stored {epoch} after {}", journal.stored);
                    journal.stored = epoch;
                    settle(&mut not_stored, &mut journal.stored_sessions, epoch);
                }
                Line::Propagated { epoch } => {
                    assert!(epoch > journal.propagated, "propagated {epoch} after {}", journal.propagated);
                    assert!(epoch <= journal.stored, "propagated {epoch}, stored {}", journal.stored);
                    journal.propagated = epoch;
                    settle(&mut not_propagated, &mut journal.propagated_sessions, epoch);
                }
                Line::Ended { ms } => journal.ended_ms = Some(ms),
            }
        }
        journal
    }
}

/// More epochs than a replica is ever behind in a test.
const WRITTEN_MAX: usize = 20_000;

/// Follows a journal for what the engine was told last.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    read: u64,
    told: Told,
}

impl Tail {
    pub fn of(path: PathBuf) -> Tail {
        Tail { path, read: 0, told: Told::default() }
    }

    /// What it was told by now.
    pub fn told(&mut self) -> Told {
        let mut new = Vec::new();
        let read = File::open(&self.path).and_then(|mut file| {
            file.seek(SeekFrom::Start(self.read))?;
            file.read_to_end(&mut new)
        });
        if read.is_err() {
            return self.told.clone();
        }
        let whole = new.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        self.read += whole as u64;
        for line in std::str::from_utf8(&new[..whole]).unwrap().lines() {
            match parse(line) {
                Line::Started { epoch } => {
                    // What the life before wrote beyond that is gone.
                    self.told.written.split_off(&(epoch + 1));
                    (self.told.lives, self.told.stored, self.told.propagated) = (self.told.lives + 1, epoch, 0);
                }
                Line::Stored { epoch } => self.told.stored = epoch,
                Line::Propagated { epoch } => self.told.propagated = epoch,
                Line::Session { epoch, .. } => {
                    self.told.written.insert(epoch);
                    if self.told.written.len() > WRITTEN_MAX {
                        self.told.written.pop_first();
                    }
                }
                Line::Ended { .. } => {}
            }
        }
        self.told.clone()
    }
}

/// The sessions in a directory, whole ones only; a session without all of its entries is an error.
pub fn recovered(directory: &Path) -> Sessions {
    let open = || {
        let engine = Engine::open(Settings::new(directory), None)?;
        engine.ready().map(|_| engine)
    };
    let engine = open().unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let store = engine.store();
    let mut markers: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    let mut sessions = BTreeMap::new();
    let mut cursor = store.snapshot().unwrap().cursor();
    while let Some(entry) = cursor.next().unwrap() {
        let (worker, session, _) = parse_key(entry.key).expect("a key of ours");
        *markers.entry((worker, session)).or_default() += 1;
        sessions.insert((worker, session), value_epoch(entry.value));
        for blob in entry.blobs.iter() {
            let path = store.blobs().file(blob).0;
            let content = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            assert!(content == blob_content(worker, session), "the BLOB of session {worker}/{session} differs");
        }
    }
    for (session, count) in markers {
        assert_eq!(count, MARKERS, "{}: session {session:?} is there in part", directory.display());
    }
    engine.shutdown();
    sessions
}

/// Checks that a directory has these sessions, and nothing that the journal does not know.
pub fn check(journal: &Journal, directory: &Path, reported: &Sessions) {
    let found = recovered(directory);
    for (session, epoch) in reported {
        assert!(found.contains_key(session), "session {session:?} of epoch {epoch} is lost in {}", directory.display());
    }
    for (session, epoch) in &found {
        assert_eq!(journal.sessions.get(session), Some(epoch), "session {session:?} is in {}", directory.display());
    }
}
