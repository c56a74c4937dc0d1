// SPDX-License-Identifier: Apache-2.0
//! The content of a simulated file: what programs see, what a power cut leaves, and what lies between.

use super::faults::{Loss, Random};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The unit that a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;
/// A change of a file that no sync has confirmed yet.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Write { offset: usize, data: Vec<u8> },
    SetLen(usize),
}

impl Change {
    pub(super) fn apply(&self, bytes: &mut Arc<Vec<u8>>) {
        let bytes = Arc::make_mut(bytes);
        match self {
            Change::Write { offset, data } => {
                let end = offset + data.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[*offset..end].copy_from_slice(data);
            }
            Change::SetLen(len) => bytes.resize(*len, 0),
        }
    }
}

/// Copied when it is written to: a disk and what power cuts leave of it have most in common.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) now: Arc<Vec<u8>>,
    pub(super) durable: Arc<Vec<u8>>,
    pub(super) pending: Vec<Change>,
}

impl Content {
    pub(super) fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.pending.push(change);
    }

    /// Hashes of `survivor`, which a power cut has left of this file, whatever another power cut can leave otherwise.
    pub(super) fn hash_survivor(&self, survivor: &[u8], hasher: &mut impl Hasher) {
        survivor.len().hash(hasher);
        for change in &self.pending {
            let range = match change {
                Change::Write { offset, data } => *offset..offset + data.len(),
                // What was cut off is there or not.
                Change::SetLen(_) => 0..survivor.len(),
            };
            survivor[range.start.min(survivor.len())..range.end.min(survivor.len())].hash(hasher);
        }
    }

    pub(super) fn survive(&self, loss: Loss, random: &mut Random) -> Arc<Vec<u8>> {
        let mut bytes = self.durable.clone();
        match loss {
            Loss::DropUnsynced => {}
            Loss::KeepUnsynced => self.pending.iter().for_each(|change| change.apply(&mut bytes)),
            Loss::Torn { .. } if self.pending.is_empty() => {}
            Loss::Torn { .. } => bytes = self.tear(random),
        }
        bytes
    }

    /// A state that writing back in any order can leave: the system writes whole sectors at any moment, so each sector
    /// shows the file as it was after any one of the unsynced changes, and the size is that of any moment as well.
    fn tear(&self, random: &mut Random) -> Arc<Vec<u8>> {
        let mut versions = vec![self.durable.clone()];
        for change in &self.pending {
            let mut next = versions[versions.len() - 1].clone();
            change.apply(&mut next);
            versions.push(next);
        }
        let longest = versions.iter().map(|bytes| bytes.len()).max().unwrap_or(0);
        let shortest = versions.iter().map(|bytes| bytes.len()).min().unwrap_or(0);
        let last = versions.len() - 1;
        let len = match random.below(4) {
            0 => self.durable.len(),
            1 => versions[last].len(),
            2 => versions[random.below(versions.len() as u64) as usize].len(),
            // The size grows page by page while a long write is taken.
            _ => shortest
                .max((shortest + random.below((longest - shortest) as u64 + 1) as usize) / SECTOR_BYTES * SECTOR_BYTES),
        };
        let kept_in_8 = [2, 4, 6, 7][random.below(4) as usize];
        let mut bytes = vec![0; len];
        for start in (0..len).step_by(SECTOR_BYTES) {
            let version = match random.below(8) {
                n if n < kept_in_8 => last,
                n if n % 2 == 0 => 0,
                _ => random.below(versions.len() as u64) as usize,
            };
            let source = &versions[version];
            let end = len.min(start + SECTOR_BYTES).min(source.len());
            if start < end {
                bytes[start..end].copy_from_slice(&source[start..end]);
            }
        }
        Arc::new(bytes)
    }
}
