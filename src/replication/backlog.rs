// SPDX-License-Identifier: Apache-2.0
//! What a replica that fell behind still needs, found in the log on disk: the references of all ended sessions above
//! its durable epoch, in the order of their epochs. The log is the queue; nothing of it is copied here.

use crate::datastore::{EndedSession, Subscription, WrittenLog};
use crate::types::{BlobId, Epoch};
use crate::vfs::Mapping;
use crate::wal::entry::Entry;
use crate::wal::sessions::{Session, Step, Walk};
use std::io;
use std::sync::Arc;

/// References that are held at a time; a backlog with more sessions is read in several passes. 24 bytes each.
const WINDOW_SESSIONS: usize = 1 << 20;

/// A session in one of the logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    epoch: Epoch,
    log: u32,
    has_blobs: bool,
    start: u64,
    len: u64,
}

/// Why the log cannot bring a replica up to date; it needs a base sync.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotShippable {
    #[error("epochs up to {compacted} are compacted and the replica has {replica}")]
    Compacted { compacted: Epoch, replica: Epoch },
    #[error("{log} has a session of epoch {epoch} without an end marker at offset {offset}")]
    Unended { log: String, epoch: Epoch, offset: u64 },
    #[error("{log} has entries from before the first epoch")]
    BeforeFirstEpoch { log: String },
}

/// Why the sessions could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum BacklogError {
    #[error(transparent)]
    NotShippable(#[from] NotShippable),
    #[error("cannot read {log}: {source}")]
    Io { log: String, source: io::Error },
    #[error("{log} cannot be read at offset {offset}, although the start of this data store has read it")]
    Unreadable { log: String, offset: u64 },
}

/// The log as it was when a tap was set, to be read from some epoch on.
#[derive(Debug)]
pub struct Backlog {
    logs: Vec<(WrittenLog, Mapping)>,
    window_sessions: usize,
}

/// Sessions of consecutive epochs.
#[derive(Debug)]
pub struct Window {
    sessions: std::vec::IntoIter<Found>,
    /// Where the next window begins; `None` for the last.
    pub rest_above: Option<Epoch>,
    /// Bytes of all sessions in it.
    pub bytes: u64,
}

impl Backlog {
    /// Maps the logs of a subscription.
    ///
    /// # Errors
    /// [`BacklogError::NotShippable`] when what the replica lacks above `replica` is no longer in the log.
    pub fn new(subscription: Subscription, replica: Epoch) -> Result<Backlog, BacklogError> {
        let compacted = subscription.compacted;
        if replica < compacted {
            return Err(NotShippable::Compacted { compacted, replica }.into());
        }
        let logs = subscription.logs.into_iter().filter(|log| log.len > 0).map(|log| {
            let mapping = log.file.map().and_then(|mapping| match mapping.len() as u64 >= log.len {
                true => Ok(mapping),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            });
            let mapping = mapping.map_err(|source| BacklogError::Io { log: log.name.clone(), source })?;
            mapping.advise(true);
            Ok((log, mapping))
        });
        Ok(Backlog { logs: logs.collect::<Result<_, BacklogError>>()?, window_sessions: WINDOW_SESSIONS })
    }

    /// Whether there is any session of an epoch above `replica`, or one that no epoch covers.
    pub fn window(&self, above: Epoch) -> Result<Window, BacklogError> {
        let mut found: Vec<Found> = Vec::new();
        let mut below = u64::MAX;
        for (number, (log, mapping)) in self.logs.iter().enumerate() {
            let number = number as u32;
            walk(log, &mapping[..log.len as usize], above, |session| {
                if session.epoch.0 < below {
                    found.push(Found { log: number, ..session });
                    if found.len() >= 2 * self.window_sessions {
                        below = drop_latest(&mut found, self.window_sessions).unwrap_or(below);
                    }
                }
            })?;
        }
        // Within an epoch in the order of files and places: a channel's sessions stay in their order.
        found.sort_by_key(|session| (session.epoch, session.log, session.start));
        let rest_above = (below < u64::MAX).then(|| Epoch(below - 1));
        let bytes = found.iter().map(|session| session.len).sum();
        Ok(Window { sessions: found.into_iter(), rest_above, bytes })
    }

    /// The next session of a window with the BLOBs that it refers to.
    pub fn next(&self, window: &mut Window) -> Option<EndedSession> {
        let found = window.sessions.next()?;
        let (log, mapping) = self.logs.get(found.log as usize)?;
        let bytes = mapping.get(found.start as usize..(found.start + found.len) as usize)?;
        let blobs: Arc<[BlobId]> = if found.has_blobs { blobs_of(bytes) } else { Arc::default() };
        let (epoch, channel, file) = (found.epoch, log.channel, log.file.clone());
        Some(EndedSession { epoch, channel, file, start: found.start, len: found.len, blobs })
    }
}

/// Keeps about `wanted` sessions of the smallest epochs, whole epochs only; returns the epoch from which on sessions
/// were dropped, if any were.
fn drop_latest(found: &mut Vec<Found>, wanted: usize) -> Option<u64> {
    found.select_nth_unstable_by_key(wanted, |session| session.epoch);
    let limit = found[wanted].epoch;
    let first = found.iter().map(|session| session.epoch).min()?;
    // An epoch that is larger than a window is a window.
    let below = if limit > first { limit.0 } else { limit.0 + 1 };
    let before = found.len();
    found.retain(|session| session.epoch.0 < below);
    (found.len() < before).then_some(below)
}

/// The BLOB ids in the entries of a whole session.
fn blobs_of(bytes: &[u8]) -> Arc<[BlobId]> {
    let mut blobs = Vec::new();
    for (_, step) in Walk::new(bytes) {
        if let Ok(Step::Entry(Entry::Put { blobs: ids, .. })) = step {
            blobs.extend(ids.iter());
        }
    }
    blobs.into()
}

/// Hands out every ended session above an epoch. Sessions that a start has marked do not count.
fn walk(log: &WrittenLog, bytes: &[u8], above: Epoch, mut each: impl FnMut(Found)) -> Result<(), BacklogError> {
    let name = || log.name.clone();
    let is_wanted = |session: &Session| !session.invalidated && session.epoch > above;
    let check = |unended: Option<Session>| match unended.filter(is_wanted) {
        Some(Session { epoch, offset, .. }) => {
            Err(BacklogError::from(NotShippable::Unended { log: name(), epoch, offset: offset as u64 }))
        }
        None => Ok(()),
    };
    let mut has_blobs = false;
    let marks = log.marks.now();
    let (mut walk, mut marker) = marks.walk(bytes, marks.behind(bytes, above));
    while let Some((offset, step)) = walk.next() {
        match step {
            Ok(Step::Begin { session, unended }) => {
                marker.begin(bytes, &session, unended.is_some());
                check(unended)?;
                if !session.invalidated && session.epoch == Epoch(0) && above == Epoch(0) {
                    return Err(NotShippable::BeforeFirstEpoch { log: name() }.into());
                }
                has_blobs = false;
            }
            Ok(Step::Mark { unended }) => {
                marker.another_writer(unended.is_some());
                check(unended)?;
            }
            Ok(Step::Entry(Entry::Put { blobs, .. })) => has_blobs |= blobs.iter().next().is_some(),
            Ok(Step::Entry(_)) => {}
            Ok(Step::End { session, next }) => {
                marker.end(session);
                if is_wanted(&session) {
                    let (epoch, start, len) = (session.epoch, session.offset as u64, (next - session.offset) as u64);
                    each(Found { epoch, log: 0, has_blobs, start, len });
                }
            }
            // A start leaves such bytes in a rotated file, behind a session that does not count.
            Err(_) if walk.session().is_some_and(|session| session.invalidated) => return Ok(()),
            Err(_) => return Err(BacklogError::Unreadable { log: name(), offset: offset as u64 }),
        }
    }
    log.marks.learn(marker.done());
    check(walk.session())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::{Datastore, Settings, Tap};
    use crate::types::{StorageId, WriteVersion};
    use crate::vfs::{Open, SimFs, Vfs};
    use crate::wal::entry;
    use crate::wal::epoch_marks::FileMarks;
    use std::path::Path;

    fn session(epoch: u64, key: &str, blobs: &[BlobId], ended: bool) -> Vec<u8> {
        let mut bytes = entry::marker(entry::tag::BEGIN, Epoch(epoch)).to_vec();
        let version = WriteVersion { major: epoch, minor: 0 };
        entry::encode_put(&mut bytes, StorageId(1), key.as_bytes(), b"value", version, blobs);
        if ended {
            entry::encode_end(&mut bytes, Epoch(epoch));
        }
        bytes
    }

    fn subscription(logs: &[&[u8]]) -> Subscription {
        let fs = SimFs::new();
        fs.create_dir(Path::new("/log")).unwrap();
        let logs = logs.iter().enumerate().map(|(channel, bytes)| {
            let name = format!("pwal_{channel:04}");
            let file = fs.open(&Path::new("/log").join(&name), Open::New).unwrap();
            file.write_at(0, bytes).unwrap();
            let marks = FileMarks::default();
            WrittenLog { name, channel: channel as u32, file: file.into(), len: bytes.len() as u64, marks }
        });
        Subscription { logs: logs.collect(), stored_before: Epoch(0), compacted: Epoch(0), channels: 2 }
    }

    fn epochs(source: &Backlog, window: &mut Window) -> Vec<u64> {
        std::iter::from_fn(|| source.next(window)).map(|session| session.epoch.0).collect()
    }

    #[test]
    fn sessions_above_an_epoch_come_in_the_order_of_their_epochs_with_their_bytes_and_blobs() {
        let blobs = [BlobId(7), BlobId(9)];
        let (a, b, c) = (session(3, "a", &[], true), session(5, "b", &blobs, true), session(4, "c", &[], true));
        let mut marked = session(6, "marked", &[], true);
        marked[0] = entry::tag::INVALIDATED;
        let log = [&a[..], &marked, &b].concat();
        let source = Backlog::new(subscription(&[&log, &c]), Epoch(3)).unwrap();
        let mut window = source.window(Epoch(3)).unwrap();
        assert_eq!((window.rest_above, window.bytes), (None, (b.len() + c.len()) as u64));
        let first = source.next(&mut window).unwrap();
        assert_eq!((first.epoch, first.channel, first.start, first.len), (Epoch(4), 1, 0, c.len() as u64));
        let second = source.next(&mut window).unwrap();
        assert_eq!((second.epoch, second.channel, &second.blobs[..]), (Epoch(5), 0, &blobs[..]));
        let mut bytes = vec![0; second.len as usize];
        second.file.read_at(second.start, &mut bytes).unwrap();
        assert_eq!(bytes, b);
        assert!(source.next(&mut window).is_none());
    }

    #[test]
    fn what_is_compacted_or_was_never_ended_needs_a_base_sync() {
        let mut compacted = subscription(&[]);
        compacted.compacted = Epoch(9);
        assert!(Backlog::new(compacted.clone(), Epoch(9)).is_ok());
        let error = Backlog::new(compacted, Epoch(8)).unwrap_err();
        assert!(matches!(error, BacklogError::NotShippable(NotShippable::Compacted { .. })), "{error}");

        let unended = [session(2, "a", &[], false), session(3, "b", &[], true)].concat();
        let source = Backlog::new(subscription(&[&unended]), Epoch(1)).unwrap();
        let error = source.window(Epoch(1)).unwrap_err();
        assert!(matches!(error, BacklogError::NotShippable(NotShippable::Unended { .. })), "{error}");
        assert_eq!(epochs(&source, &mut source.window(Epoch(2)).unwrap()), [3], "a replica that has it does not care");

        let source = Backlog::new(subscription(&[&session(0, "a", &[], true)]), Epoch(0)).unwrap();
        assert!(matches!(source.window(Epoch(0)), Err(BacklogError::NotShippable(_))));
        assert!(epochs(&source, &mut source.window(Epoch(1)).unwrap()).is_empty());
    }

    #[test]
    fn many_sessions_come_in_windows_of_whole_epochs() {
        let logs: Vec<Vec<u8>> = (0..3u64)
            .map(|log| (0..50).flat_map(|n| session(1 + (n * 7 + log * 3) % 40, "k", &[], true)).collect())
            .collect();
        let logs: Vec<&[u8]> = logs.iter().map(Vec::as_slice).collect();
        let mut source = Backlog::new(subscription(&logs), Epoch(0)).unwrap();
        source.window_sessions = 10;
        let (mut all, mut above, mut windows) = (Vec::new(), Epoch(0), 0);
        loop {
            let mut window = source.window(above).unwrap();
            let epochs = epochs(&source, &mut window);
            assert!(epochs.len() < 30 && epochs.iter().all(|&epoch| epoch > above.0), "{epochs:?}");
            all.extend(epochs);
            windows += 1;
            match window.rest_above {
                Some(rest) => above = rest,
                None => break,
            }
        }
        assert_eq!(all.len(), 150);
        assert!(all.is_sorted() && windows > 5, "{windows} windows");
    }

    struct Deaf;

    impl Tap for Deaf {
        fn session_ended(&self, _: EndedSession) {}
        fn stored(&self, _: Epoch, _: Option<Epoch>) -> Option<Epoch> {
            None
        }
        fn boundary(&self, _: WriteVersion) {}
        fn safe_snapshot(&self, _: WriteVersion) {}
    }

    #[test]
    fn the_log_of_a_data_store_is_read_across_restarts_and_rotations() {
        let dir = tempfile::tempdir().unwrap();
        for start in 0..3u64 {
            let store = Datastore::open(Settings::new(dir.path()).replicated(true)).unwrap();
            let channel = store.create_channel().unwrap();
            let recovered = store.ready().unwrap().last_epoch;
            assert!(
                channel.begin_session().unwrap() > recovered,
                "a session before the first switch is in a new epoch"
            );
            channel.end_session().unwrap();
            for epoch in [1, 2, 3] {
                store.switch_epoch(Epoch(10 * start + epoch + 1)).unwrap();
                channel.begin_session().unwrap();
                channel.end_session().unwrap();
            }
            if start == 1 {
                store.rotate().unwrap();
            }
            let source = Backlog::new(store.subscribe(Arc::new(Deaf)).unwrap(), Epoch(0)).unwrap();
            let found = epochs(&source, &mut source.window(Epoch(0)).unwrap());
            assert_eq!(found.len() as u64, 4 * (start + 1) - start, "{found:?}: the last of each run was not stored");
            store.shutdown();
        }
    }
}
