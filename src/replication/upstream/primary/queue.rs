// SPDX-License-Identifier: Apache-2.0
//! What the replica does not have yet. Free of I/O. Sessions are references into log files, and neighbours in a file
//! become one reference, so that a replica that is away for long costs next to no memory. What was acknowledged is kept
//! until a group commit covers it, because a replica may forget it before.

use crate::datastore::EndedSession;
use crate::types::Epoch;
use crate::vfs::VfsFile;
use std::collections::VecDeque;
use std::sync::Arc;

/// With more references than this waiting, neighbours of different epochs are put together as well.
const RUNS_KEPT_APART: usize = 1024;
/// What an earlier run left is committed in steps of so many sessions.
const STEP_SESSIONS: usize = 64;
/// With so many group commits waiting the replica is far behind.
const COMMITS_FAR: usize = 64;

/// Sessions that stand one behind the other in a log file.
#[derive(Clone, Debug)]
pub struct Run {
    pub file: Arc<dyn VfsFile>,
    pub start: u64,
    pub end: u64,
    /// Epochs of the first and the last session.
    pub first: Epoch,
    pub last: Epoch,
}

impl Run {
    fn is_followed_by(&self, next: &Run) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.file), Arc::as_ptr(&next.file)) && self.end == next.start
    }
}

#[derive(Debug, Default)]
struct Channel {
    /// Written, but not synced on this side.
    unsynced: Option<Run>,
    /// Not acknowledged; the first session of the first run may be on its way.
    waiting: VecDeque<Run>,
    /// Acknowledged, but covered by no group commit; each run is of one epoch.
    sent: VecDeque<Run>,
}

/// A group commit to send.
#[derive(Clone, Copy, Debug)]
struct Commit {
    epoch: Epoch,
    /// The largest stored epoch before the next one with writes.
    stored: Epoch,
}

/// What is to be sent, channel by channel, and the group commits behind it.
#[derive(Debug, Default)]
pub struct Queue {
    channels: Vec<Channel>,
    commits: VecDeque<Commit>,
    /// The last epoch of which a group commit was queued.
    queued: Epoch,
    /// The last epoch of which an earlier run left sessions.
    left: Epoch,
    /// The largest epoch up to which nothing is missing on the replica.
    complete: Epoch,
    bytes: u64,
}

impl Queue {
    /// Nothing is missing up to `confirmed`; what is recorded above it has to be sent, the sessions in the order of
    /// their epochs by so many channels. The replica may have recorded epochs up to `asked` already, and takes no group
    /// commit of a lower one than it has: there is one for all of these, and from there on one for each step.
    pub fn start(
        &mut self,
        confirmed: Epoch,
        recorded: Epoch,
        asked: Epoch,
        (channels, sessions): (usize, impl IntoIterator<Item = EndedSession>),
    ) {
        self.queued = self.queued.max(recorded);
        self.complete = self.complete.max(confirmed);
        // What a tap was told of these epochs before the start.
        self.commits.clear();
        let (mut last, mut step) = (None, 0);
        for EndedSession { epoch, channel, file, start, len, .. } in sessions {
            if let Some(last) = last.filter(|last| *last < epoch && *last >= asked && step >= STEP_SESSIONS) {
                self.commits.push_back(Commit { epoch: last, stored: last });
                step = 0;
            }
            let channel = channel as usize % channels.max(1);
            self.ended(channel, file, start, len, epoch);
            self.synced(channel);
            (last, step) = (Some(epoch), step + 1);
        }
        self.left = last.unwrap_or_default();
        match last {
            Some(epoch) => self.commits.push_back(Commit { epoch, stored: recorded.max(epoch) }),
            None => self.complete = self.complete.max(recorded),
        }
    }

    /// A session has ended. Those of one channel come in the order of their epochs. It waits for [`Self::synced`].
    pub fn ended(&mut self, channel: usize, file: Arc<dyn VfsFile>, start: u64, len: u64, epoch: Epoch) {
        self.bytes += len;
        self.channel(channel).unsynced = Some(Run { file, start, end: start + len, first: epoch, last: epoch });
    }

    /// The session that ended last on the channel may be sent.
    pub fn synced(&mut self, channel: usize) {
        let Channel { waiting, unsynced, .. } = self.channel(channel);
        if let Some(run) = unsynced.take() {
            put(waiting, run);
        }
    }

    /// Queues a group commit before [`Self::stored`] would.
    pub fn recording(&mut self, epoch: Epoch) {
        if epoch > self.queued {
            self.queued = epoch;
            self.commits.push_back(Commit { epoch, stored: epoch });
        }
    }

    fn channel(&mut self, number: usize) -> &mut Channel {
        if self.channels.len() <= number {
            self.channels.resize_with(number + 1, Channel::default);
        }
        &mut self.channels[number]
    }

    /// Everything up to `stored` is on this side's disk; `last_written` is the last epoch that wrote anything.
    pub fn stored(&mut self, stored: Epoch, last_written: Option<Epoch>) {
        match (last_written, self.commits.back_mut()) {
            (Some(epoch), _) if epoch > self.queued => {
                self.queued = epoch;
                self.commits.push_back(Commit { epoch, stored });
            }
            (_, Some(last)) => last.stored = last.stored.max(stored),
            (_, None) => self.complete = self.complete.max(stored),
        }
    }

    /// The run whose first session the channel sends next.
    pub fn next(&self, channel: usize) -> Option<Run> {
        self.channels.get(channel)?.waiting.front().cloned()
    }

    /// The replica has acknowledged the first session of the channel, `len` bytes. `next` is the epoch of the session
    /// behind it, which only a run of several epochs needs.
    pub fn acknowledged(&mut self, channel: usize, len: u64, next: Option<Epoch>) {
        let Some(Channel { waiting, sent, .. }) = self.channels.get_mut(channel) else { return };
        let Some(run) = waiting.front_mut() else { return };
        let done = Run { end: run.start + len, last: run.first, ..run.clone() };
        run.start += len;
        run.first = next.unwrap_or(run.first);
        if run.start >= run.end {
            waiting.pop_front();
        }
        match sent.back_mut() {
            Some(last) if last.is_followed_by(&done) && last.last == done.first => last.end = done.end,
            _ => sent.push_back(done),
        }
    }

    /// The next group commit, when every session that it covers has been acknowledged.
    pub fn next_commit(&self) -> Option<Epoch> {
        let epoch = self.commits.front()?.epoch;
        let up_to = |run: Option<&Run>| run.is_some_and(|run| run.first <= epoch);
        let missing = |channel: &Channel| up_to(channel.waiting.front()) || up_to(channel.unsynced.as_ref());
        (!self.channels.iter().any(missing)).then_some(epoch)
    }

    /// While much waits behind the group commit of `epoch`, which is the next one: an epoch from there on of which
    /// there is one as well.
    pub fn far_commit(&self, epoch: Epoch) -> Option<Epoch> {
        match epoch < self.left {
            true => Some(epoch),
            false => self.commits.get(COMMITS_FAR).map(|commit| commit.epoch),
        }
    }

    /// The replica has acknowledged the group commit.
    pub fn committed(&mut self, epoch: Epoch) {
        while let Some(commit) = self.commits.front().filter(|commit| commit.epoch <= epoch) {
            self.complete = self.complete.max(commit.stored);
            self.commits.pop_front();
        }
        for channel in &mut self.channels {
            while let Some(run) = channel.sent.front().filter(|run| run.last <= epoch) {
                self.bytes -= run.end - run.start;
                channel.sent.pop_front();
            }
        }
    }

    /// The epoch up to which the replica has everything.
    pub fn complete(&self) -> Epoch {
        self.complete
    }

    /// Whether nothing is to be sent.
    pub fn is_drained(&self) -> bool {
        self.commits.is_empty()
            && self.channels.iter().all(|channel| channel.waiting.is_empty() && channel.unsynced.is_none())
    }

    /// Bytes of the log that the replica may still need.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The connection is lost: what no group commit has covered is sent again.
    pub fn rewind(&mut self) {
        for Channel { waiting, sent, .. } in &mut self.channels {
            while let Some(run) = sent.pop_back() {
                waiting.push_front(run);
            }
        }
    }
}

/// Puts a session behind the others. The first run may be on its way, so it grows by sessions of its one epoch only.
fn put(runs: &mut VecDeque<Run>, run: Run) {
    let len = runs.len();
    if let Some(last) = runs.back_mut().filter(|last| last.is_followed_by(&run)) {
        let same = last.first == last.last && last.last == run.first;
        if same || (len > RUNS_KEPT_APART) {
            last.end = run.end;
            last.last = run.last;
            return;
        }
    }
    runs.push_back(run);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Open, SimFs, Vfs};
    use std::path::Path;

    fn file() -> Arc<dyn VfsFile> {
        SimFs::new().open(Path::new("/f"), Open::Create).unwrap().into()
    }

    fn end(queue: &mut Queue, channel: usize, file: Arc<dyn VfsFile>, start: u64, len: u64, epoch: Epoch) {
        queue.ended(channel, file, start, len, epoch);
        queue.synced(channel);
    }

    #[test]
    fn a_group_commit_waits_for_every_session_that_it_covers() {
        let (mut queue, file) = (Queue::default(), file());
        end(&mut queue, 0, file.clone(), 0, 10, Epoch(1));
        end(&mut queue, 1, file.clone(), 100, 10, Epoch(1));
        end(&mut queue, 1, file, 110, 10, Epoch(2));
        queue.stored(Epoch(1), Some(Epoch(1)));
        assert_eq!(queue.next_commit(), None);
        queue.acknowledged(0, 10, None);
        assert_eq!(queue.next_commit(), None);
        queue.acknowledged(1, 10, None);
        assert_eq!(queue.next_commit(), Some(Epoch(1)), "a session of epoch 2 is not covered");
        assert_eq!(queue.complete(), Epoch(0));
        queue.committed(Epoch(1));
        assert_eq!(queue.complete(), Epoch(1));
        assert_eq!(queue.next_commit(), None);
    }

    #[test]
    fn epochs_without_writes_are_complete_with_the_one_before() {
        let (mut queue, file) = (Queue::default(), file());
        queue.start(Epoch(3), Epoch(3), Epoch(3), (1, []));
        queue.stored(Epoch(5), None);
        assert_eq!(queue.complete(), Epoch(5));
        end(&mut queue, 0, file, 0, 10, Epoch(6));
        queue.stored(Epoch(7), Some(Epoch(6)));
        queue.stored(Epoch(9), None);
        queue.acknowledged(0, 10, None);
        assert_eq!(queue.complete(), Epoch(5));
        queue.committed(Epoch(6));
        assert_eq!(queue.complete(), Epoch(9));
    }

    #[test]
    fn what_an_earlier_run_left_is_committed_in_steps_from_where_no_replica_can_be_further() {
        let (mut queue, file) = (Queue::default(), file());
        let left = (1..=300).map(|n| EndedSession {
            epoch: Epoch(n / 2 + 1),
            channel: n as u32 % 3,
            file: file.clone(),
            start: n * 10,
            len: 10,
            blobs: Arc::default(),
        });
        queue.start(Epoch(0), Epoch(160), Epoch(70), (2, left));
        let epochs: Vec<u64> = queue.commits.iter().map(|commit| commit.epoch.0).collect();
        assert_eq!(epochs, [70, 102, 134, 151]);
        assert_eq!(queue.next_commit(), None);
        while let Some(run) = queue.next(0).filter(|run| run.first <= Epoch(70)) {
            queue.acknowledged(0, run.end - run.start, None);
        }
        assert_eq!(queue.next_commit(), None, "the other channel sends some of them");
        while let Some(run) = queue.next(1).filter(|run| run.first <= Epoch(70)) {
            queue.acknowledged(1, run.end - run.start, None);
        }
        assert_eq!(queue.next_commit(), Some(Epoch(70)));
        queue.committed(Epoch(70));
        assert_eq!(queue.complete(), Epoch(70));
        queue.committed(Epoch(151));
        assert_eq!(queue.complete(), Epoch(160), "epochs without writes count with the last one");
    }

    #[test]
    fn what_no_group_commit_covered_is_sent_again_after_a_loss() {
        let (mut queue, file) = (Queue::default(), file());
        for at in 0..4 {
            end(&mut queue, 0, file.clone(), at * 10, 10, Epoch(1 + at / 2));
        }
        queue.stored(Epoch(1), Some(Epoch(1)));
        (0..3).for_each(|_| queue.acknowledged(0, 10, None));
        queue.committed(Epoch(1));
        assert_eq!(queue.bytes(), 20);
        queue.rewind();
        let run = queue.next(0).unwrap();
        assert_eq!((run.start, run.end, run.first), (20, 30, Epoch(2)));
        queue.acknowledged(0, 10, None);
        assert_eq!(queue.next(0).unwrap().start, 30);
    }

    #[test]
    fn a_replica_that_is_away_costs_no_memory_for_each_session() {
        let (mut queue, file) = (Queue::default(), file());
        for at in 0..100_000 {
            end(&mut queue, 0, file.clone(), at * 10, 10, Epoch(at));
        }
        assert!(queue.channels[0].waiting.len() <= RUNS_KEPT_APART + 1);
        assert_eq!(queue.bytes(), 1_000_000);
    }

    #[test]
    fn a_session_is_not_sent_before_it_is_synced_here() {
        let (mut queue, file) = (Queue::default(), file());
        queue.ended(0, file, 0, 10, Epoch(1));
        assert!(queue.next(0).is_none() && !queue.is_drained());
        queue.synced(0);
        assert!(queue.next(0).is_some());
    }

    #[test]
    fn a_group_commit_that_was_queued_before_the_record_comes_once() {
        let (mut queue, file) = (Queue::default(), file());
        end(&mut queue, 0, file, 0, 10, Epoch(1));
        queue.acknowledged(0, 10, None);
        queue.recording(Epoch(1));
        assert_eq!(queue.next_commit(), Some(Epoch(1)));
        queue.stored(Epoch(3), Some(Epoch(1)));
        queue.committed(Epoch(1));
        assert_eq!((queue.next_commit(), queue.complete()), (None, Epoch(3)));
    }
}
