// SPDX-License-Identifier: Apache-2.0
//! How far the epochs of a run have come. Within a run each counter only grows, and between them stands, at every
//! moment:
//!
//! ```text
//! switched ≥ ended ≥ stored ≥ propagated
//!            ended ≥ recorded      stored ≥ notified      confirmed: what replicas say, bounded by nothing here
//! ```
//!
//! *Recorded* is what the epoch file says, which grows with writes and with backups; *stored* grows with every epoch
//! that ends; *written* is the last one of these that had writes, and is raised before it.
//! Whoever leads (see the coordinator) raises all but `switched` and `confirmed`; everybody may read.

use crate::types::Epoch;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

#[derive(Debug, Default)]
pub(super) struct Epochs {
    switched: Counter,
    ended: Counter,
    recorded: Counter,
    stored: Counter,
    written: Counter,
    confirmed: Counter,
    propagated: Counter,
    notified: Counter,
}

#[derive(Default)]
struct Counter(AtomicU64);

impl Counter {
    fn get(&self) -> Epoch {
        Epoch(self.0.load(SeqCst))
    }

    fn raise(&self, epoch: Epoch) -> Epoch {
        Epoch(self.0.fetch_max(epoch.0, SeqCst))
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl Epochs {
    /// Between two runs: nothing has been switched. The smaller ones first, so that the order stands.
    pub(super) fn reset(&self) {
        let Epochs { switched, ended, recorded, stored, written, confirmed, propagated, notified } = self;
        for counter in [confirmed, propagated, notified, written, stored, recorded, ended, switched] {
            counter.0.store(0, SeqCst);
        }
    }

    /// The recovered epoch is stored and needs no notice; `recorded` is in the epoch file, and may have had writes.
    pub(super) fn start(&self, recovered: Epoch, recorded: Epoch) {
        self.switched.raise(recovered);
        self.ended.raise(recovered);
        self.recorded.raise(recorded);
        self.stored.raise(recovered);
        self.written.raise(recorded.min(recovered));
        self.notified.raise(recovered);
        self.check();
    }

    /// The current epoch: sessions that begin belong to it.
    pub(super) fn switched(&self) -> Epoch {
        self.switched.get()
    }

    /// Makes `epoch` the current one unless a later one is; returns the one before.
    pub(super) fn raise_switched(&self, epoch: Epoch) -> Epoch {
        self.switched.raise(epoch)
    }

    /// No session of this epoch, or of one before, is open or can begin. At the start, and when nobody has looked
    /// since, more may have ended.
    pub(super) fn raise_ended(&self, epoch: Epoch) -> Epoch {
        self.ended.raise(epoch).max(epoch)
    }

    /// The largest epoch in the epoch file.
    pub(super) fn recorded(&self) -> Epoch {
        self.recorded.get()
    }

    pub(super) fn raise_recorded(&self, epoch: Epoch) {
        self.recorded.raise(epoch);
        self.check();
    }

    /// Everything up to this epoch is on this machine's disk.
    pub(super) fn stored(&self) -> Epoch {
        self.stored.get()
    }

    pub(super) fn raise_stored(&self, epoch: Epoch) {
        self.stored.raise(epoch);
        self.check();
    }

    /// The last epoch with writes that is stored, or is about to be. Whoever reads it behind [`Self::stored`] misses
    /// none up to there: that a replica has everything must not be said of one that lacks such an epoch.
    pub(super) fn written(&self) -> Epoch {
        self.written.get()
    }

    /// To be called before it is stored.
    pub(super) fn raise_written(&self, epoch: Epoch) {
        self.written.raise(epoch);
    }

    /// Notes what the replicas have, which may be more than is stored here; [`Self::next_propagated`] lets it count.
    pub(super) fn confirm(&self, epoch: Epoch) {
        self.confirmed.raise(epoch);
    }

    /// Everything up to this epoch is on the replicas' disks as well.
    pub(super) fn propagated(&self) -> Epoch {
        self.propagated.get()
    }

    /// The epoch that [`Self::propagated`] can be raised to: nothing counts as propagated before it is stored.
    pub(super) fn next_propagated(&self) -> Option<Epoch> {
        let reached = self.confirmed.get().min(self.stored());
        (reached > self.propagated()).then_some(reached)
    }

    pub(super) fn raise_propagated(&self, epoch: Epoch) {
        self.propagated.raise(epoch);
        self.check();
    }

    /// The epoch that was told last at the notify level; told or about to be.
    pub(super) fn notified(&self) -> Epoch {
        self.notified.get()
    }

    pub(super) fn raise_notified(&self, epoch: Epoch) {
        self.notified.raise(epoch);
        self.check();
    }

    /// Reads the smaller one of each pair first: the larger one may only have grown since.
    #[inline]
    fn check(&self) {
        if cfg!(debug_assertions) {
            let (notified, propagated, recorded) = (self.notified(), self.propagated(), self.recorded());
            let stored = self.stored();
            let ended = self.ended.get();
            let ordered =
                stored >= propagated.max(notified) && ended >= stored.max(recorded) && self.switched() >= ended;
            assert!(ordered, "the order of the epochs is broken: {self:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_confirmation_counts_when_the_epoch_is_stored() {
        let epochs = Epochs::default();
        epochs.start(Epoch(3), Epoch(3));
        epochs.confirm(Epoch(9));
        assert_eq!(epochs.next_propagated(), Some(Epoch(3)));
        epochs.raise_propagated(Epoch(3));
        assert_eq!(epochs.raise_switched(Epoch(7)), Epoch(3));
        assert_eq!(epochs.raise_ended(Epoch(6)), Epoch(6));
        assert_eq!(epochs.raise_ended(Epoch(5)), Epoch(6), "what has ended stays so");
        assert_eq!(epochs.next_propagated(), None);
        epochs.raise_stored(Epoch(6));
        assert_eq!(epochs.next_propagated(), Some(Epoch(6)));
    }

    #[cfg(debug_assertions)]
    #[test]
    fn the_order_of_the_epochs_is_checked() {
        let raises: [fn(&Epochs, Epoch); 4] =
            [Epochs::raise_recorded, Epochs::raise_stored, Epochs::raise_propagated, Epochs::raise_notified];
        for raise in raises {
            let epochs = Epochs::default();
            epochs.start(Epoch(3), Epoch(0));
            raise(&epochs, Epoch(3));
            let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| raise(&epochs, Epoch(4))));
            assert!(broken.is_err());
        }
    }
}
