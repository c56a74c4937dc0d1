// SPDX-License-Identifier: Apache-2.0
//! The numbers that the log speaks of, each with a type of its own so that they cannot be confused.

use std::fmt;

/// A group-commit epoch. 0 means "never": the first epoch that can become durable is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct Epoch(pub u64);

/// A storage (table or index) of the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct StorageId(pub u64);

/// Names the content of one large object; ids start at 1 and are never issued twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct BlobId(pub u64);

/// Orders the writes of one key: `major` first, then `minor`, both unsigned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct WriteVersion {
    pub major: u64,
    pub minor: u64,
}

/// How safe an epoch is. No epoch is [`Durability::Propagated`] before it is [`Durability::Stored`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// On this machine's disk.
    Stored,
    /// On the disks of the configured number of replicas as well.
    Propagated,
}

impl Epoch {
    /// The epoch before this one; epoch 0 has none and stays.
    pub fn previous(self) -> Epoch {
        Epoch(self.0.saturating_sub(1))
    }

    /// The epoch after this one; the largest number has none and stays.
    pub fn next(self) -> Epoch {
        Epoch(self.0.saturating_add(1))
    }
}

/// Whether a peer that is believed may say this number of an epoch or a term, to somebody who knows of the other one.
/// One so far above leaves no room for those that follow. Captures of the original have larger ones than any engine
/// reaches, so this is no sharper.
pub(crate) fn may_come_to(known: u64, claimed: u64) -> bool {
    claimed.saturating_sub(known) <= AHEAD_MAX
}

const AHEAD_MAX: u64 = 1 << 62;

impl StorageId {
    /// Storages are ordered by the bytes of the little-endian id, not by number (disk format §6.2).
    pub fn order(self) -> u64 {
        self.0.swap_bytes()
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for StorageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
