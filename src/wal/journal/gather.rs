// SPDX-License-Identifier: Apache-2.0
//! What has ended and is not yet in the journal: sessions are added by the threads that end them, already in the form
//! of a group's body, and taken by the one that writes.

use super::format::{encode_piece, piece_bytes, Piece};
use crate::error::Result;
use crate::wal::file_sync::{FileSync, PendingSync};
use parking_lot::Mutex;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::Arc;

/// A log file whose sessions go through the journal. Its name must not change before all of it is settled.
#[derive(Debug)]
pub struct LogFile {
    pub(super) name: String,
    sync: Arc<FileSync>,
    /// What must be synced so that everything that was gathered of it is on the disk.
    changes: AtomicU64,
    /// It is among the files of what is gathered.
    gathered: AtomicBool,
    /// The last group with a piece of it; `u64::MAX` while one is gathered.
    pub(super) last: AtomicU64,
}

impl LogFile {
    /// The file that `written` is about. `name` is its name in the data directory.
    pub fn new(name: String, written: &PendingSync) -> LogFile {
        let (changes, gathered, last) = (AtomicU64::new(0), AtomicBool::new(false), AtomicU64::new(0));
        LogFile { name, sync: written.file.clone(), changes, gathered, last }
    }

    /// Whether `written` is about this file, opened once.
    pub fn is(&self, written: &PendingSync) -> bool {
        Arc::ptr_eq(&self.sync, &written.file)
    }

    /// Everything that was gathered of it is on the disk when this returns, and its name.
    pub(super) fn sync(&self) -> Result<()> {
        self.sync.content_and_name(self.changes.load(SeqCst))
    }
}

/// A session, or so much of it as the journal takes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    Bytes(&'a [u8]),
    /// The length of one that is on the disk.
    Synced(u64),
}

/// Sessions for one or more groups.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub body: Vec<u8>,
    /// Where a group ends, and how many pieces it has; the rest is the last group.
    pub cuts: Vec<(usize, u32)>,
    /// Pieces behind the last cut.
    pub pieces: u32,
    pub files: Vec<Arc<LogFile>>,
}

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }
}

#[derive(Debug, Default)]
struct State {
    batch: Batch,
    /// Bytes gathered and not yet in the journal, those of batches that were taken included.
    unwritten: usize,
    /// Nothing is taken any more.
    closed: bool,
}

/// Why a piece was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Too much is not yet in the journal.
    Full,
    /// Nothing is taken any more.
    Closed,
}

#[derive(Debug)]
pub(super) struct Gather {
    state: Mutex<State>,
    /// More is not taken.
    bytes_max: usize,
    /// No group has a larger body.
    group_bytes_max: usize,
}

impl Gather {
    pub(super) fn new(bytes_max: usize, group_bytes_max: usize) -> Gather {
        Gather { state: Mutex::default(), bytes_max, group_bytes_max }
    }

    /// Adds a piece that was written with the first `changes` changes of its file; returns how many bytes are not yet
    /// in the journal.
    pub(super) fn add(
        &self,
        file: &Arc<LogFile>,
        changes: u64,
        offset: u64,
        content: Content<'_>,
    ) -> std::result::Result<usize, Refused> {
        let (len, bytes) = match content {
            Content::Bytes(bytes) => (bytes.len() as u64, Some(bytes)),
            Content::Synced(len) => (len, None),
        };
        let piece = Piece { file: &file.name, offset, len, bytes };
        let needed = piece_bytes(&piece);
        let mut state = self.state.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if state.unwritten > 0 && state.unwritten + needed > self.bytes_max {
            return Err(Refused::Full);
        }
        state.unwritten += needed;
        let unwritten = state.unwritten;
        let batch = &mut state.batch;
        let begin = batch.cuts.last().map_or(0, |(end, _)| *end);
        if batch.pieces > 0 && batch.body.len() - begin + needed > self.group_bytes_max {
            batch.cuts.push((batch.body.len(), batch.pieces));
            batch.pieces = 0;
        }
        encode_piece(&mut batch.body, &piece);
        batch.pieces += 1;
        if !file.gathered.swap(true, SeqCst) {
            batch.files.push(file.clone());
        }
        file.changes.fetch_max(changes, SeqCst);
        file.last.store(u64::MAX, SeqCst);
        Ok(unwritten)
    }

    pub(super) fn unwritten(&self) -> usize {
        self.state.lock().unwritten
    }

    /// Takes what is there. `spare` is an empty buffer that is used again.
    pub(super) fn take(&self, spare: Vec<u8>) -> Batch {
        let mut state = self.state.lock();
        for file in &state.batch.files {
            file.gathered.store(false, SeqCst);
        }
        mem::replace(&mut state.batch, Batch { body: spare, ..Batch::default() })
    }

    /// The file's last piece is in the group `sequence`, unless another one was gathered meanwhile.
    pub(super) fn written(&self, batch: &Batch, sequence: u64) {
        let mut state = self.state.lock();
        for file in batch.files.iter().filter(|file| !file.gathered.load(SeqCst)) {
            file.last.store(sequence, SeqCst);
        }
        state.unwritten -= batch.body.len();
    }

    /// Lets nobody add anything any more.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
    }
}
