// SPDX-License-Identifier: Apache-2.0
//! Which epoch counts as PROPAGATED with several replicas: the one that the k-th of them has confirmed, the best first.
//! What counts is data directories: one that is reached over two entries of the settings, at a time or one after the
//! other, is one replica. Knows no connection.

use crate::lock_order::{Mutex, Rank};
use crate::types::Epoch;
use std::collections::BTreeMap;

/// What a session of a replica needs to report; no later session of it can be mistaken for this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The place of the replica.
    slot: usize,
    session: u64,
}

/// What each replica has confirmed. Usable from any thread.
#[derive(Debug)]
pub struct Quorum {
    needed: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sessions: u64,
    places: usize,
    /// By the place of the replica. What was confirmed counts as well when the replica is away.
    slots: BTreeMap<usize, Option<Confirmed>>,
}

#[derive(Clone, Copy, Debug)]
struct Confirmed {
    session: u64,
    /// The identity of its directory; 0 when it does not tell, then it may be any other that does not.
    directory: u64,
    epoch: Epoch,
    /// Not any more when the same directory was reached from another place since.
    counts: bool,
}

impl Quorum {
    /// `needed` of `replicas` must have an epoch. Their places are 0 and so on.
    pub fn new(needed: usize, replicas: usize) -> Quorum {
        let slots = (0..replicas).map(|place| (place, None)).collect();
        Quorum { needed, state: Mutex::new(Rank::Leaf, State { sessions: 0, places: replicas, slots }) }
    }

    /// One more replica; returns its place, which no other has or had.
    pub fn admit(&self) -> usize {
        let mut state = self.state.lock();
        let place = state.places;
        state.places += 1;
        state.slots.insert(place, None);
        place
    }

    /// The replica at this place does not count any more, whatever is heard of it.
    pub fn dismiss(&self, slot: usize) {
        self.state.lock().slots.remove(&slot);
    }

    /// How many replicas must have an epoch.
    pub fn needed(&self) -> usize {
        self.needed
    }

    /// A session begins with the replica at this place, whose directory has everything up to `epoch`.
    /// What was known of the place before does not count any more. Returns as well the other place from which the same
    /// directory was known, if it was: from there it does not count any more.
    pub fn begin(&self, slot: usize, directory: u64, epoch: Epoch) -> (Seat, Option<usize>) {
        let mut state = self.state.lock();
        state.sessions += 1;
        let session = state.sessions;
        let seat = Seat { slot, session };
        if !state.slots.contains_key(&slot) {
            return (seat, None);
        }
        let other = state.slots.keys().copied().find(|&place| place != slot && state.counted(place, directory));
        if let Some(Some(known)) = other.and_then(|other| state.slots.get_mut(&other)) {
            known.counts = false;
        }
        state.slots.insert(slot, Some(Confirmed { session, directory, epoch, counts: true }));
        (seat, other)
    }

    /// The replica of a session has confirmed everything up to `epoch`. Returns up to where enough of them have
    /// everything.
    pub fn confirm(&self, seat: Seat, epoch: Epoch) -> Epoch {
        let mut state = self.state.lock();
        if let Some(Some(known)) = state.slots.get_mut(&seat.slot) {
            if known.session == seat.session {
                known.epoch = known.epoch.max(epoch);
            }
        }
        state.reached(self.needed)
    }

    /// Whether a session that stopped counting has to begin again to count: its directory is not reached from elsewhere
    /// any more, and only a handshake tells what it has now.
    pub fn has_to_begin_again(&self, seat: Seat) -> bool {
        let state = self.state.lock();
        state
            .at(seat.slot)
            .filter(|known| known.session == seat.session && !known.counts)
            .is_some_and(|known| !state.slots.keys().any(|&place| state.counted(place, known.directory)))
    }

    /// The place that counts in the stead of this one, because the same directory was reached from there since.
    pub fn counted_instead(&self, slot: usize) -> Option<usize> {
        let state = self.state.lock();
        let known = state.at(slot).filter(|known| !known.counts)?;
        state.slots.keys().copied().find(|&place| state.counted(place, known.directory))
    }

    /// Up to where enough replicas have everything.
    pub fn reached(&self) -> Epoch {
        self.state.lock().reached(self.needed)
    }

    /// What the replica at this place has confirmed, when it counts.
    pub fn confirmed(&self, slot: usize) -> Option<Epoch> {
        self.state.lock().at(slot).filter(|known| known.counts).map(|known| known.epoch)
    }
}

impl State {
    fn at(&self, place: usize) -> Option<&Confirmed> {
        self.slots.get(&place)?.as_ref()
    }

    /// Whether the replica at this place counts and is this directory.
    fn counted(&self, place: usize, directory: u64) -> bool {
        self.at(place).is_some_and(|known| known.counts && known.directory == directory)
    }

    fn reached(&self, needed: usize) -> Epoch {
        let counted = self.slots.values().flatten().filter(|known| known.counts);
        let mut epochs: Vec<Epoch> = counted.map(|known| known.epoch).collect();
        epochs.sort_unstable_by(|a, b| b.cmp(a));
        needed.checked_sub(1).and_then(|place| epochs.get(place)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replicas with directories of their own, each at its epoch.
    fn quorum(needed: usize, epochs: &[u64]) -> (Quorum, Vec<Seat>) {
        let quorum = Quorum::new(needed, epochs.len());
        let begin = |(slot, epoch): (usize, &u64)| quorum.begin(slot, slot as u64 + 1, Epoch(*epoch)).0;
        let seats = epochs.iter().enumerate().map(begin).collect();
        (quorum, seats)
    }

    #[test]
    fn the_epoch_of_the_last_one_that_is_needed_counts() {
        for (needed, reached) in [(1, 30), (2, 20), (3, 10), (4, 0)] {
            assert_eq!(quorum(needed, &[20, 10, 30]).0.reached(), Epoch(reached), "{needed} of 3");
        }
        assert_eq!(Quorum::new(1, 2).reached(), Epoch(0), "nobody has said anything");
        let (quorum, seats) = quorum(2, &[5, 7]);
        assert_eq!(quorum.confirm(seats[0], Epoch(9)), Epoch(7));
        assert_eq!(quorum.confirm(seats[0], Epoch(6)), Epoch(7), "a confirmation is not taken back");
        assert_eq!(quorum.confirm(seats[1], Epoch(8)), Epoch(8));
    }

    #[test]
    fn a_directory_that_is_reached_in_two_ways_counts_once() {
        let quorum = Quorum::new(2, 3);
        let (first, other) = quorum.begin(0, 77, Epoch(10));
        assert_eq!(other, None);
        let (second, other) = quorum.begin(1, 77, Epoch(12));
        assert_eq!((other, quorum.reached()), (Some(0), Epoch(0)), "one replica");
        assert_eq!(quorum.confirm(first, Epoch(20)), Epoch(0), "the former session does not count any more");
        assert_eq!((quorum.confirmed(0), quorum.confirmed(1)), (None, Some(Epoch(12))));
        quorum.begin(2, 78, Epoch(11));
        assert_eq!(quorum.confirm(second, Epoch(13)), Epoch(11));
        assert!(!quorum.has_to_begin_again(first), "its directory counts from the other place");
        // Another directory stands in the other place: what the first one has is to be asked again, not assumed.
        let (third, _) = quorum.begin(1, 79, Epoch(30));
        assert!(quorum.has_to_begin_again(first) && !quorum.has_to_begin_again(third));
        assert_eq!((quorum.confirm(first, Epoch(40)), quorum.confirmed(0)), (Epoch(11), None));
        let (again, _) = quorum.begin(0, 77, Epoch(25));
        assert_eq!((quorum.has_to_begin_again(again), quorum.reached()), (false, Epoch(25)));
    }

    #[test]
    fn one_that_comes_counts_when_it_has_said_something_and_one_that_goes_never_again() {
        let (quorum, seats) = quorum(2, &[5, 9]);
        let third = quorum.admit();
        assert_eq!((third, quorum.reached()), (2, Epoch(5)));
        let (late, _) = quorum.begin(third, 3, Epoch(7));
        assert_eq!(quorum.reached(), Epoch(7));
        quorum.dismiss(1);
        assert_eq!((quorum.reached(), quorum.confirm(seats[1], Epoch(50))), (Epoch(5), Epoch(5)), "a late word");
        assert_eq!((quorum.begin(1, 2, Epoch(60)).1, quorum.reached()), (None, Epoch(5)), "a late session");
        assert_eq!((quorum.confirmed(1), quorum.confirm(late, Epoch(8))), (None, Epoch(5)));
        // The place is not given again: an old seat must not speak for a new replica.
        assert_eq!(quorum.admit(), 3);
    }

    #[test]
    fn what_a_dismissed_place_stood_for_is_asked_again_where_it_is_reached_still() {
        let quorum = Quorum::new(1, 2);
        let (first, _) = quorum.begin(0, 77, Epoch(1));
        quorum.begin(1, 77, Epoch(2));
        assert!(!quorum.has_to_begin_again(first));
        quorum.dismiss(1);
        assert!(quorum.has_to_begin_again(first));
    }

    #[test]
    fn replicas_that_do_not_tell_their_directory_count_as_one() {
        let quorum = Quorum::new(2, 2);
        quorum.begin(0, 0, Epoch(10));
        quorum.begin(1, 0, Epoch(10));
        assert_eq!(quorum.reached(), Epoch(0));
    }

    #[test]
    fn what_a_replica_had_counts_while_it_is_away_and_not_when_it_comes_back_with_less() {
        let (quorum, seats) = quorum(2, &[10, 10]);
        assert_eq!(quorum.reached(), Epoch(10));
        // The first one lost its disk.
        let (again, _) = quorum.begin(0, 99, Epoch(0));
        assert_eq!(quorum.confirm(seats[0], Epoch(50)), Epoch(0), "a thread of the session that has ended");
        assert_eq!(quorum.confirm(again, Epoch(4)), Epoch(4));
    }
}
