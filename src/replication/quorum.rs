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
    /// Nothing is reached as long: too few know of the term.
    held: bool,
    /// Nothing below is reached: what the term began with.
    floor: Epoch,
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
        Quorum {
            needed,
            state: Mutex::new(Rank::Leaf, State { sessions: 0, held: false, floor: Epoch(0), places: replicas, slots }),
        }
    }

    /// The primary was promoted, and nobody may know: nothing counts before [`Self::release`], and nothing before
    /// enough replicas have everything up to `floor`, which the term began with.
    pub fn hold(&self, floor: Epoch) {
        let mut state = self.state.lock();
        (state.held, state.floor) = (true, floor);
    }

    /// Whether nothing counts yet although as many replicas as are needed have begun a session, and so have noted the
    /// term.
    pub fn can_be_released(&self) -> bool {
        let state = self.state.lock();
        state.held && state.slots.values().flatten().filter(|known| known.counts).count() >= self.needed
    }

    /// The primary has noted that enough replicas know of the term. Those that were told that it is unknown have to
    /// begin again: what they have does not count while they claim less.
    pub fn release(&self) {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.held, false) && self.needed > 1 {
            state.slots.values_mut().flatten().for_each(|known| known.counts = false);
        }
    }

    /// Whether replicas are to be told that others may have begun the term as well. One alone makes it known: whoever
    /// is promoted later hears of it from this one or from the primary.
    pub fn is_unknown(&self) -> bool {
        self.needed > 1 && self.state.lock().held
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
    /// directory was known, if it was: from there it does not count any more. `is_unknown` is what the replica was told
    /// of the term.
    pub fn begin(&self, slot: usize, directory: u64, epoch: Epoch, is_unknown: bool) -> (Seat, Option<usize>) {
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
        let counts = state.held || !is_unknown;
        state.slots.insert(slot, Some(Confirmed { session, directory, epoch, counts }));
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
        if self.held {
            return Epoch(0);
        }
        let counted = self.slots.values().flatten().filter(|known| known.counts);
        let mut epochs: Vec<Epoch> = counted.map(|known| known.epoch).collect();
        epochs.sort_unstable_by(|a, b| b.cmp(a));
        let reached = needed.checked_sub(1).and_then(|place| epochs.get(place)).copied();
        reached.filter(|epoch| *epoch >= self.floor).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replicas with directories of their own, each at its epoch.
    fn quorum(needed: usize, epochs: &[u64]) -> (Quorum, Vec<Seat>) {
        let quorum = Quorum::new(needed, epochs.len());
        let begin = |(slot, epoch): (usize, &u64)| quorum.begin(slot, slot as u64 + 1, Epoch(*epoch), false).0;
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
        let (first, other) = quorum.begin(0, 77, Epoch(10), false);
        assert_eq!(other, None);
        let (second, other) = quorum.begin(1, 77, Epoch(12), false);
        assert_eq!((other, quorum.reached()), (Some(0), Epoch(0)), "one replica");
        assert_eq!(quorum.confirm(first, Epoch(20)), Epoch(0), "the former session does not count any more");
        assert_eq!((quorum.confirmed(0), quorum.confirmed(1)), (None, Some(Epoch(12))));
        quorum.begin(2, 78, Epoch(11), false);
        assert_eq!(quorum.confirm(second, Epoch(13)), Epoch(11));
        assert!(!quorum.has_to_begin_again(first), "its directory counts from the other place");
        // Another directory stands in the other place: what the first one has is to be asked again, not assumed.
        let (third, _) = quorum.begin(1, 79, Epoch(30), false);
        assert!(quorum.has_to_begin_again(first) && !quorum.has_to_begin_again(third));
        assert_eq!((quorum.confirm(first, Epoch(40)), quorum.confirmed(0)), (Epoch(11), None));
        let (again, _) = quorum.begin(0, 77, Epoch(25), false);
        assert_eq!((quorum.has_to_begin_again(again), quorum.reached()), (false, Epoch(25)));
    }

    #[test]
    fn one_that_comes_counts_when_it_has_said_something_and_one_that_goes_never_again() {
        let (quorum, seats) = quorum(2, &[5, 9]);
        let third = quorum.admit();
        assert_eq!((third, quorum.reached()), (2, Epoch(5)));
        let (late, _) = quorum.begin(third, 3, Epoch(7), false);
        assert_eq!(quorum.reached(), Epoch(7));
        quorum.dismiss(1);
        assert_eq!((quorum.reached(), quorum.confirm(seats[1], Epoch(50))), (Epoch(5), Epoch(5)), "a late word");
        assert_eq!((quorum.begin(1, 2, Epoch(60), false).1, quorum.reached()), (None, Epoch(5)), "a late session");
        assert_eq!((quorum.confirmed(1), quorum.confirm(late, Epoch(8))), (None, Epoch(5)));
        // The place is not given again: an old seat must not speak for a new replica.
        assert_eq!(quorum.admit(), 3);
    }

    #[test]
    fn nothing_counts_before_as_many_as_are_needed_know_of_the_term_and_have_what_it_began_with() {
        let quorum = Quorum::new(2, 3);
        quorum.hold(Epoch(9));
        quorum.begin(0, 1, Epoch(9), true);
        let (first, _) = quorum.begin(1, 1, Epoch(9), true);
        assert!(!quorum.can_be_released() && quorum.is_unknown(), "one directory");
        let (second, _) = quorum.begin(2, 2, Epoch(8), true);
        assert!(quorum.can_be_released() && quorum.reached() == Epoch(0));
        assert_eq!(quorum.confirm(second, Epoch(9)), Epoch(0), "the primary has not noted that they know of it");
        quorum.release();
        assert!(!quorum.can_be_released() && !quorum.is_unknown());
        assert_eq!(quorum.confirm(second, Epoch(12)), Epoch(0), "they were told that it is unknown");
        assert!(quorum.has_to_begin_again(first) && quorum.has_to_begin_again(second));
        let (late, _) = quorum.begin(1, 1, Epoch(12), true);
        assert!(quorum.has_to_begin_again(late), "it was told so before, and answers only now");
        quorum.begin(1, 1, Epoch(12), false);
        let (second, _) = quorum.begin(2, 2, Epoch(8), false);
        assert_eq!(quorum.reached(), Epoch(0), "one of them lacks what the term began with");
        assert_eq!(quorum.confirm(second, Epoch(9)), Epoch(9));
    }

    #[test]
    fn one_replica_that_is_enough_makes_the_term_known_and_counts_at_once() {
        let quorum = Quorum::new(1, 2);
        quorum.hold(Epoch(9));
        let (seat, _) = quorum.begin(0, 1, Epoch(8), false);
        assert!(quorum.can_be_released() && !quorum.is_unknown());
        quorum.release();
        assert!(!quorum.has_to_begin_again(seat));
        assert_eq!((quorum.reached(), quorum.confirm(seat, Epoch(10))), (Epoch(0), Epoch(10)));
    }

    #[test]
    fn what_a_dismissed_place_stood_for_is_asked_again_where_it_is_reached_still() {
        let quorum = Quorum::new(1, 2);
        let (first, _) = quorum.begin(0, 77, Epoch(1), false);
        quorum.begin(1, 77, Epoch(2), false);
        assert!(!quorum.has_to_begin_again(first));
        quorum.dismiss(1);
        assert!(quorum.has_to_begin_again(first));
    }

    #[test]
    fn replicas_that_do_not_tell_their_directory_count_as_one() {
        let quorum = Quorum::new(2, 2);
        quorum.begin(0, 0, Epoch(10), false);
        quorum.begin(1, 0, Epoch(10), false);
        assert_eq!(quorum.reached(), Epoch(0));
    }

    #[test]
    fn what_a_replica_had_counts_while_it_is_away_and_not_when_it_comes_back_with_less() {
        let (quorum, seats) = quorum(2, &[10, 10]);
        assert_eq!(quorum.reached(), Epoch(10));
        // The first one lost its disk.
        let (again, _) = quorum.begin(0, 99, Epoch(0), false);
        assert_eq!(quorum.confirm(seats[0], Epoch(50)), Epoch(0), "a thread of the session that has ended");
        assert_eq!(quorum.confirm(again, Epoch(4)), Epoch(4));
    }
}
