// SPDX-License-Identifier: Apache-2.0
//! The files of the journal, used in turn. A segment is written once with zeros and synced before its first use, so
//! that the sync of a group has no metadata to write.

use super::format::{BLOCK_BYTES, HEADER_BYTES};
use super::gather::Gathered;
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::{Open, Vfs, VfsFile};
use crate::wal::names;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const BYTES_MAX_DEFAULT: u64 = 256 << 20;
const SEGMENTS_MAX: u64 = 64;
const SEGMENT_BYTES_MIN: u64 = 256 << 10;
const SEGMENT_BYTES_MAX: u64 = 4 << 20;
const LARGE_BYTES: u64 = 128 << 10;
/// Zeros are written in pieces of this size.
const ZEROS: usize = 64 << 10;

/// How large a journal may grow, and when it rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    bytes_max: u64,
    idle: Option<Duration>,
    ahead: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { bytes_max: BYTES_MAX_DEFAULT, idle: Some(Duration::from_secs(1)), ahead: true }
    }
}

impl Settings {
    /// The smallest bound: 1 MiB.
    pub const BYTES_MIN: u64 = 4 * SEGMENT_BYTES_MIN;

    /// Bytes that all segments may have together, at least [`Self::BYTES_MIN`]. Default: 256 MiB.
    pub fn bytes_max(mut self, bytes: u64) -> Settings {
        self.bytes_max = bytes.max(Self::BYTES_MIN);
        self
    }

    /// How long nothing must have been written before everything is settled; `None` is never. Default: a second.
    pub fn idle(mut self, idle: Option<Duration>) -> Settings {
        self.idle = idle;
        self
    }

    /// Whether a thread settles full segments, so that nobody waits for that but a journal as large as it may be.
    /// Without it the calls to the disk have one order. Default: yes.
    pub fn settles_ahead(mut self, ahead: bool) -> Settings {
        self.ahead = ahead;
        self
    }

    pub(super) fn has_thread(&self) -> bool {
        self.ahead
    }

    pub(super) fn idle_time(&self) -> Option<Duration> {
        self.idle
    }

    pub(super) fn segment_bytes(&self) -> u64 {
        let bytes = (self.bytes_max / SEGMENTS_MAX).clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX);
        bytes.next_multiple_of(BLOCK_BYTES as u64)
    }

    pub(super) fn segments_max(&self) -> u64 {
        self.bytes_max / self.segment_bytes()
    }

    /// A session with this many bytes is synced in its own file: to write it twice would take longer.
    pub(super) fn large_bytes(&self) -> usize {
        LARGE_BYTES.min(self.segment_bytes() / 4) as usize
    }

    /// No group has a larger body: it fits into a segment, with the word that the next one is settled.
    pub(super) fn group_bytes_max(&self) -> usize {
        self.segment_bytes() as usize - BLOCK_BYTES - HEADER_BYTES
    }

    /// No more should wait for a group.
    pub(super) fn enough_bytes_max(&self) -> usize {
        (self.segment_bytes() / 2) as usize
    }
}

/// A segment that groups are appended to, and what is in it and not yet settled.
#[derive(Debug)]
pub(super) struct Segment {
    path: PathBuf,
    file: Box<dyn VfsFile>,
    pub used: u64,
    /// The sequence of its last group.
    pub last: u64,
    pub unsettled: Unsettled,
}

/// What groups one behind the other have made durable.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// By their addresses.
    pub files: BTreeMap<usize, Gathered>,
    /// The sequence of the last group.
    pub last: u64,
    /// The epoch that is durable with it.
    pub epoch: Epoch,
}

impl Unsettled {
    /// Adds a group.
    pub(super) fn add(&mut self, files: &[Gathered], sequence: u64, epoch: Epoch) {
        self.files.extend(files.iter().map(|gathered| (Arc::as_ptr(&gathered.file) as usize, gathered.clone())));
        (self.last, self.epoch) = (sequence, epoch);
    }
}

impl Segment {
    /// Makes a file of zeros, durable but for its name.
    pub(super) fn prepare(vfs: &dyn Vfs, location: &Path, number: u32, bytes: u64) -> Result<Segment> {
        let path = location.join(names::journal_segment(number));
        let prepare = || {
            let file = vfs.open(&path, Open::Truncate)?;
            for offset in (0..bytes).step_by(ZEROS) {
                file.write_at(offset, &[0; ZEROS][..(bytes - offset).min(ZEROS as u64) as usize])?;
            }
            file.sync().map(|()| file)
        };
        let file = prepare().map_err(|e| Error::io("cannot prepare the commit journal", &path, e))?;
        Ok(Segment { path, file, used: 0, last: 0, unsettled: Unsettled::default() })
    }

    /// Writes the group `sequence` behind those that are there and syncs it.
    pub(super) fn append(&mut self, group: &[u8], sequence: u64) -> Result<()> {
        let write = self.file.write_at(self.used, group).and_then(|()| self.file.sync());
        write.map_err(|e| Error::io("cannot write to the commit journal", &self.path, e))?;
        self.used += group.len() as u64;
        self.last = sequence;
        Ok(())
    }
}
