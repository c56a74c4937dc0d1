// SPDX-License-Identifier: Apache-2.0
//! What this project must do with a directory at start: the table of `docs/recovery.md` as a plain program that shares
//! no code with the crate. It tells the entries, the epoch and the number of warnings, or why the start is refused, so
//! that tests need no hand-written expectation per directory.
#![allow(dead_code)]

use crate::golden_data::Row;
use crate::upstream_checker::format::{self, Catalog, Entry, Token};
use crate::upstream_checker::{log_files, Merge, COMPACTED};
use std::fs;
use std::path::Path;

const PREVIOUS: &str = "pwal_0000.compacted.prev";
const MANIFEST: &str = "limestone-manifest.json";
const CATALOG: &str = "compaction_catalog";

/// What a disk writes whole.
const SECTOR: usize = 512;

/// Markers further above the durable epoch than this are garbage.
const EPOCH_LEAP_MAX: u64 = 1 << 40;

/// The required outcome of a start.
#[derive(Debug)]
pub enum Outcome {
    Opens(Opened),
    Refused(Refusal),
}

/// What a start that succeeds must show.
#[derive(Debug, Default)]
pub struct Opened {
    pub rows: Vec<Row>,
    pub last_epoch: u64,
    /// Damage that must be reported, one warning each.
    pub warnings_min: usize,
    /// With harmless oddities that may be reported as well.
    pub warnings_max: usize,
}

impl Opened {
    fn must_warn(&mut self) {
        self.warnings_min += 1;
        self.warnings_max += 1;
    }

    fn may_warn(&mut self) {
        self.warnings_max += 1;
    }
}

/// What the message of a refusal must name.
#[derive(Debug, PartialEq, Eq)]
pub struct Refusal {
    pub file: String,
    pub offset: Option<usize>,
    pub epoch: Option<u64>,
    pub reason: Reason,
}

/// Why a start is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Manifest,
    Catalog,
    EpochFile,
    /// Sessions were ended but no epoch record exists: upstream would silently drop them all.
    NoEpochRecord,
    Log,
}

fn refuse<T>(file: &str, reason: Reason) -> Result<T, Refusal> {
    Err(Refusal { file: file.into(), offset: None, epoch: None, reason })
}

/// What must happen when `dir` is opened.
pub fn outcome(dir: &Path) -> Outcome {
    match start(dir) {
        Ok(opened) => Outcome::Opens(opened),
        Err(refusal) => Outcome::Refused(refusal),
    }
}

fn start(dir: &Path) -> Result<Opened, Refusal> {
    let mut opened = Opened::default();
    let version = manifest(dir, &mut opened)?;
    let catalog = catalog(dir, &mut opened)?;
    if dir.join(COMPACTED).exists() && !catalog.compacted.contains(COMPACTED) {
        opened.must_warn();
    }
    let durable = durable_epoch(dir, &mut opened)?;
    let inputs: Vec<String> = log_files(dir)
        .into_iter()
        .filter(|name| name != COMPACTED && name != PREVIOUS && !catalog.detached.contains(name))
        .collect();
    let mut scanner = Scanner {
        durable: durable.unwrap_or(0),
        old_format: version < 6,
        nothing_but_zeros: !says_that_nothing_is_durable(dir)
            && !dir.join(COMPACTED).exists()
            && !dir.join(PREVIOUS).exists()
            && inputs.iter().all(|name| fs::read(dir.join(name)).unwrap().iter().all(|b| *b == 0)),
        max_epoch: durable.unwrap_or(0),
        ended_session: false,
        merge: Merge::default(),
        opened,
    };
    for name in &inputs {
        scanner.scan(name, &fs::read(dir.join(name)).unwrap())?;
    }
    if durable.is_none() && scanner.ended_session {
        return refuse("epoch", Reason::NoEpochRecord);
    }
    let mut opened = scanner.opened;
    opened.rows = scanner.merge.rows(&compacted(dir)?, true);
    opened.last_epoch = scanner.max_epoch;
    Ok(opened)
}

fn manifest(dir: &Path, opened: &mut Opened) -> Result<i64, Refusal> {
    let main = fs::read(dir.join(MANIFEST)).ok();
    let back = fs::read(dir.join(format!("{MANIFEST}.back"))).ok().and_then(|bytes| format::manifest_version(&bytes));
    let version = match (main.as_deref().map(format::manifest_version), back) {
        (Some(Some(version)), _) => version,
        (_, Some(version)) => {
            opened.must_warn();
            version
        }
        (_, None) => return refuse(MANIFEST, Reason::Manifest),
    };
    if (1..=7).contains(&version) {
        Ok(version)
    } else {
        refuse(MANIFEST, Reason::Manifest)
    }
}

fn catalog(dir: &Path, opened: &mut Opened) -> Result<Catalog, Refusal> {
    let read = |name: &str| {
        let bytes = fs::read(dir.join(name)).ok()?;
        let mut catalog = Catalog::default();
        Some(catalog.read(&String::from_utf8_lossy(&bytes)).map(|()| catalog))
    };
    match (read(CATALOG), read("compaction_catalog.back")) {
        (Some(Ok(main)), _) => Ok(main),
        (None, None) => Ok(Catalog::default()),
        (_, Some(Ok(back))) => {
            opened.must_warn();
            Ok(back)
        }
        _ => refuse(CATALOG, Reason::Catalog),
    }
}

/// Whether the last whole record is 0.
fn says_that_nothing_is_durable(dir: &Path) -> bool {
    let bytes = fs::read(dir.join("epoch")).unwrap_or_default();
    let (mut last, mut at) = (None, 0);
    while let (Token::Durable(epoch), next) = format::token(&bytes, at) {
        (last, at) = (Some(epoch), next);
    }
    last == Some(0)
}

/// The largest record; `None` if there is no record at all.
fn durable_epoch(dir: &Path, opened: &mut Opened) -> Result<Option<u64>, Refusal> {
    let main = epoch_file(dir, "epoch", opened)?;
    if main.is_some() {
        return Ok(main);
    }
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()).collect();
    names.retain(|entry| entry.path().is_file() && entry.file_name().to_string_lossy().starts_with("epoch"));
    let mut max = None;
    for name in names.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        if name != "epoch" {
            max = max.max(epoch_file(dir, &name, opened)?);
        }
    }
    Ok(max)
}

fn epoch_file(dir: &Path, name: &str, opened: &mut Opened) -> Result<Option<u64>, Refusal> {
    let bytes = fs::read(dir.join(name)).unwrap_or_default();
    let (mut max, mut at) = (None, 0);
    loop {
        match format::token(&bytes, at) {
            (Token::Eof, _) => return Ok(max),
            (Token::Durable(epoch), next) => {
                max = max.max(Some(epoch));
                at = next;
            }
            (Token::Short(format::DURABLE), _) => {
                opened.must_warn();
                return Ok(max);
            }
            // Zeros, or a record that lies in two sectors and lost the first.
            (Token::Unknown(0), _) if bytes[at..].iter().all(|b| *b == 0) || lost_first_sector(&bytes, at) => {
                opened.must_warn();
                return Ok(max);
            }
            _ => {
                let reason = Reason::EpochFile;
                return Err(Refusal { file: name.into(), offset: Some(at), epoch: None, reason });
            }
        }
    }
}

/// Whether `bytes` end with a record at `at` of which only what lies in the second sector reached the disk.
fn lost_first_sector(bytes: &[u8], at: usize) -> bool {
    let boundary = at.next_multiple_of(SECTOR);
    (at + 1..at + 9).contains(&boundary)
        && bytes[at..].iter().enumerate().all(|(i, b)| *b == 0 || (boundary..at + 9).contains(&(at + i)))
}

struct Scanner {
    durable: u64,
    old_format: bool,
    /// No log file holds anything else, although something was durable.
    nothing_but_zeros: bool,
    max_epoch: u64,
    /// Whether some session of an epoch above 0 has its end marker.
    ended_session: bool,
    merge: Merge,
    opened: Opened,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Session {
    None,
    /// Within the durable range: its entries count.
    Durable(u64),
    /// Beyond the durable epoch, or invalidated.
    Dropped,
}

impl Scanner {
    fn scan(&mut self, name: &str, bytes: &[u8]) -> Result<(), Refusal> {
        let bad = |offset, epoch| Refusal { file: name.into(), offset: Some(offset), epoch, reason: Reason::Log };
        if !bytes.is_empty() && bytes.iter().all(|b| *b == 0) {
            if self.nothing_but_zeros && self.durable > 0 {
                return Err(bad(0, None));
            }
            self.opened.must_warn();
            return Ok(());
        }
        let active_name = name.len() <= 9;
        let (mut session, mut begun, mut ended, mut invalidated) = (Session::None, None, None, None);
        let (mut unended, mut has_end, mut at, mut begun_at) = (0, false, 0, 0);
        let mut ours = false;
        loop {
            let (token, next) = format::token(bytes, at);
            let marked = mark_at(&bytes[at..]);
            let without_end = match token {
                Token::Begin(_) | Token::Invalidated(_) | Token::Eof => true,
                Token::Short(tag) => matches!(tag, format::BEGIN | format::INVALIDATED),
                _ => false,
            };
            if let (true, true, Session::Durable(epoch)) = (ours || marked.is_some(), without_end, session) {
                return Err(bad(begun_at, Some(epoch)));
            }
            ours = marked.unwrap_or(ours);
            // A session has ended when its end marker or, from before end markers, the next session or the end of the
            // file stands behind it.
            let ends = matches!(token, Token::End { .. } | Token::Begin(_) | Token::Invalidated(_));
            let torn_marker = matches!(token, Token::Short(format::BEGIN | format::INVALIDATED));
            let may_end = self.old_format && (torn_marker || matches!(token, Token::Eof));
            if (ends || may_end) && session != Session::None && begun.is_some_and(|epoch| epoch > 0) {
                self.ended_session = true;
            }
            if self.durable == 0 && matches!(token, Token::Short(_) | Token::Unknown(_)) {
                // Without an epoch record, damage must not hide that sessions were ended.
                let own = invalidated.filter(|_| session == Session::Dropped);
                self.ended_session |= ends_session(&bytes[at..], EPOCH_LEAP_MAX, own);
            }
            match (token, session) {
                (Token::Data(_) | Token::End { .. } | Token::Durable(_), Session::None) => return Err(bad(at, None)),
                (Token::Data(entry), Session::Durable(_)) => self.merge.apply(entry),
                (Token::Data(_), Session::Dropped) => {}
                (Token::Begin(epoch), before) => {
                    unended += usize::from(matches!(before, Session::Durable(_)));
                    begun_at = at;
                    if epoch <= self.durable.saturating_add(EPOCH_LEAP_MAX) {
                        self.max_epoch = self.max_epoch.max(epoch);
                    } else {
                        self.opened.must_warn();
                    }
                    (begun, invalidated) = (Some(epoch), None);
                    session = if epoch <= self.durable { Session::Durable(epoch) } else { Session::Dropped };
                }
                (Token::Invalidated(epoch), before) => {
                    unended += usize::from(matches!(before, Session::Durable(_)));
                    if epoch <= self.durable.saturating_add(EPOCH_LEAP_MAX) {
                        self.max_epoch = self.max_epoch.max(epoch);
                    } else {
                        self.opened.must_warn();
                    }
                    begun_at = at;
                    (begun, invalidated) = (None, Some(epoch));
                    session = Session::Dropped;
                }
                (Token::End { .. }, _) => {
                    ended = begun;
                    has_end = true;
                    session = Session::None;
                }
                (Token::Durable(_) | Token::Short(format::DURABLE), _) => return Err(bad(at, begun)),
                (Token::Eof, Session::Durable(_)) => {
                    unended += 1;
                    break;
                }
                (Token::Eof, Session::None) => break,
                (Token::Eof, Session::Dropped) | (Token::Short(format::INVALIDATED), _) => {
                    self.opened.may_warn();
                    break;
                }
                (Token::Short(format::BEGIN), before) => {
                    if matches!(before, Session::Durable(_)) {
                        self.opened.may_warn();
                    }
                    self.opened.must_warn();
                    break;
                }
                (Token::Short(_) | Token::Unknown(0), Session::Durable(epoch))
                    if !ours && (epoch == 0 || ended == Some(epoch)) && is_torn_tail(&bytes[at..]) =>
                {
                    self.opened.must_warn();
                    break;
                }
                (Token::Unknown(0), Session::Durable(_))
                    if begun_at + 9 == at
                        && lost_second_sector(bytes, begun_at)
                        && !self.ends_durable_session(&bytes[at..], None) =>
                {
                    self.opened.must_warn();
                    break;
                }
                (Token::Unknown(0), Session::None) if !self.ends_durable_session(&bytes[at..], None) => {
                    self.opened.must_warn();
                    break;
                }
                (Token::Short(_) | Token::Unknown(_), Session::None) => return Err(bad(at, None)),
                (Token::Short(_) | Token::Unknown(_), Session::Durable(epoch)) => return Err(bad(at, Some(epoch))),
                (Token::Short(_) | Token::Unknown(_), Session::Dropped) => {
                    // The original opens rotated files in this state, and active ones not.
                    let refused = active_name || ours || is_damaged_mark(&bytes[begun_at..]);
                    if refused && self.ends_durable_session(&bytes[at..], invalidated) {
                        return Err(bad(at, None));
                    }
                    self.opened.must_warn();
                    break;
                }
            }
            at = next;
        }
        if unended > 0 && has_end && !self.old_format {
            self.opened.must_warn();
            self.opened.warnings_max += unended;
        }
        Ok(())
    }

    /// Whether an end marker of a durable session stands in bytes that would be cut off. A session that was
    /// `invalidated` may have been durable once, so its own end marker says nothing.
    fn ends_durable_session(&self, rest: &[u8], invalidated: Option<u64>) -> bool {
        ends_session(rest, self.durable, invalidated)
    }
}

/// Whether an end marker of a session with an epoch up to `limit` stands in these bytes, but for that of `own`.
fn ends_session(rest: &[u8], limit: u64, own: Option<u64>) -> bool {
    (0..rest.len()).any(|at| match format::token(rest, at) {
        (Token::End { epoch, crc_type: 1 }, next) => {
            let closed = matches!(rest.get(next), None | Some(&format::BEGIN) | Some(&format::INVALIDATED));
            (1..=limit).contains(&epoch) && Some(epoch) != own && closed
        }
        _ => false,
    })
}

/// Whether the marker at `begun_at` lies in two sectors and the second, which holds its upper bytes, is all zeros.
fn lost_second_sector(bytes: &[u8], begun_at: usize) -> bool {
    let boundary = (begun_at + 1).next_multiple_of(SECTOR);
    boundary < begun_at + 9 && bytes[boundary..(boundary + SECTOR).min(bytes.len())].iter().all(|b| *b == 0)
}

/// An entry that the file ends in, or zeros up to the end of the file.
fn is_torn_tail(rest: &[u8]) -> bool {
    matches!(format::token(rest, 0), (Token::Short(_), _)) || rest.iter().all(|b| *b == 0)
}

fn compacted(dir: &Path) -> Result<Vec<Entry>, Refusal> {
    let found = [COMPACTED, PREVIOUS].into_iter().find(|name| dir.join(name).exists());
    let Some(name) = found else { return Ok(Vec::new()) };
    let bytes = fs::read(dir.join(name)).unwrap();
    let (mut entries, mut at): (Vec<Entry>, usize) = (Vec::new(), 0);
    let place = |e: &Entry| (e.storage.to_le_bytes(), e.key.clone());
    loop {
        match format::token(&bytes, at) {
            (Token::Eof, _) => return Ok(entries),
            (Token::Data(entry), next) if entries.last().is_none_or(|last| place(last) <= place(&entry)) => {
                entries.push(entry);
                at = next;
            }
            (Token::Begin(_), next) => at = next,
            _ => return Err(Refusal { file: name.into(), offset: Some(at), epoch: None, reason: Reason::Log }),
        }
    }
}

/// Whether a mark stands here that says who writes from here on: this project, or somebody unknown.
fn mark_at(bytes: &[u8]) -> Option<bool> {
    [true, false].into_iter().find(|ours| bytes.starts_with(&mark(*ours)))
}

/// An invalidated session of epoch 0 in which most of a mark stands.
fn is_damaged_mark(bytes: &[u8]) -> bool {
    let expected = mark(true);
    bytes[..9] == expected[..9] && bytes[9..].iter().zip(&expected[9..]).filter(|(a, b)| a == b).count() >= 26
}

/// An invalidated session of epoch 0 that adds the storage "SESSIONS" with version (1, 1) or (1, 0).
pub fn mark(ours: bool) -> Vec<u8> {
    let zeros = [0; 8];
    let version = [1, 0, 0, 0, 0, 0, 0, 0, ours as u8, 0, 0, 0, 0, 0, 0, 0];
    [&[6], &zeros[..], &[8], b"SESSIONS", &version, &[3], &zeros, &[1]].concat()
}
