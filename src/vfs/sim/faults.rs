// SPDX-License-Identifier: Apache-2.0
//! What goes wrong on a simulated disk, and the repeatable chance that decides how.

/// What happens to the call that [`super::SimFs::fail_at`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power goes: this call and all later ones fail. The call may have been carried out in part, unsynced.
    PowerCut,
    /// The call fails and does nothing; what was unsynced stays unsynced.
    IoError,
    /// The sync of a file fails and the writes that it should have made durable never will be, though programs still
    /// see them and a later sync succeeds, as on Linux. Other calls fail as with `IoError`.
    SyncLoses,
    /// A write fails after it wrote a part. Other calls fail as with `IoError`.
    TornWrite,
    /// The disk is full: a write fails after it wrote a part; other calls that need space or write back fail and do
    /// nothing; calls that need none succeed.
    NoSpace,
    /// The process has no descriptor left: what would open a file or a directory fails and does nothing.
    NoDescriptors,
    /// The thread that makes the call panics, as by a defect of the program; the call does nothing.
    Panic,
}

/// What a power cut takes of that which was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Everything.
    DropUnsynced,
    /// Nothing.
    KeepUnsynced,
    /// Any part: single sectors of 512 bytes, sizes, names, in no order. A lost sector inside a grown file reads as
    /// zeros.
    Torn { seed: u64 },
}

/// Repeatable pseudo-random numbers (splitmix64).
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `bound`, which is not 0.
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}
