// SPDX-License-Identifier: Apache-2.0
//! What a run is made of: its settings, the mistakes made on purpose, random numbers, and the count of what happened.

use limestone_core::datastore::Commit;
use limestone_core::replication::native::protocol::Millis;
use limestone_core::vfs::Loss;

/// When a silent peer counts as lost.
pub const TIMEOUT: Millis = 2000;

/// A mistake made on purpose: a simulation that does not find it is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    AcknowledgeBeforeSync,
    NoDiscard,
    CommitBeforeSession,
    CommitBeforeStored,
    CommitWithoutRecord,
    SkipCatchUp,
    PropagateWhatIsStored,
    IgnoreBlobs,
    /// Histories are compared as if all runs were the same one.
    CompareNumbersOnly,
    /// A run is on the disk only when it has stored something.
    LateRun,
    /// A primary that is told that another one has taken over goes on.
    FencedGoesOn,
    /// What one replica confirms counts for two.
    CountTwice,
    /// A rewind leaves an epoch that the primary does not have.
    RewindShort,
    /// A rewind takes away an epoch that the primary has.
    RewindTooFar,
    /// The cluster manager compares epochs and no terms.
    ScoreByEpoch,
    /// The cluster manager promotes with one less than it has to hear.
    HearTooFew,
    /// What a promoted directory wrote while nobody knew of its term counts.
    ClaimUnknownTerm,
    /// Replicas are not told that others may have begun the term.
    NotToldUnknown,
    /// The cluster manager hears what a new disk has before it has everything.
    CountNewDisk,
    /// What was there before a term counts although the term does not protect it yet.
    CountFormerTerms,
}

/// What stays the same during a run.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub lanes: u32,
    pub channels: usize,
    pub piece_bytes: usize,
    /// How everybody commits.
    pub commit: Commit,
    /// How many replicas must have an epoch.
    pub quorum: usize,
    /// Replicas take back what their primary does not have.
    pub rewinds: bool,
    pub sabotage: Option<Sabotage>,
}

/// Repeatable pseudo-random numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// True once in so many times.
    pub fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub fn loss(&mut self) -> Loss {
        match self.below(3) {
            0 => Loss::DropUnsynced,
            1 => Loss::KeepUnsynced,
            _ => Loss::Torn { seed: self.next() },
        }
    }
}

/// How much of what happened in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub sessions: u64,
    pub propagated: u64,
    pub images: u64,
    pub cuts: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub wipes: u64,
    pub demotions: u64,
    pub takeovers: u64,
    pub rejoins: u64,
    pub restores: u64,
    pub copies: u64,
    pub base_syncs: u64,
    pub fenced: u64,
    pub diverged: u64,
}

impl Tally {
    fn counts(&mut self) -> [&mut u64; 15] {
        [
            &mut self.sessions,
            &mut self.propagated,
            &mut self.images,
            &mut self.cuts,
            &mut self.kills,
            &mut self.power_cuts,
            &mut self.wipes,
            &mut self.demotions,
            &mut self.takeovers,
            &mut self.rejoins,
            &mut self.restores,
            &mut self.copies,
            &mut self.base_syncs,
            &mut self.fenced,
            &mut self.diverged,
        ]
    }

    pub fn add(&mut self, other: &Tally) {
        let mut other = *other;
        self.counts().into_iter().zip(other.counts()).for_each(|(sum, more)| *sum += *more);
    }

    /// Whether everything that can happen has happened.
    pub fn is_eventful(mut self) -> bool {
        self.counts().into_iter().all(|count| *count > 0)
    }
}
