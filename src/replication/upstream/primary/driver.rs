// SPDX-License-Identifier: Apache-2.0
//! The primary as the data store sees it: told of sessions and epochs, started, asked, and shut down. Its threads are
//! one for each log channel that sends sessions and waits for their acknowledgements, one for the control connection,
//! one that connects again after a loss, and one that reports progress.

use super::connection::Exchange;
use super::core::{Observer, Phase, Shared, State};
use super::queue::Queue;
use crate::datastore::{EndedSession, Subscription, Tap};
use crate::error::Result;
use crate::lock_order::{Condvar, Mutex, Rank};
use crate::replication::backlog::Backlog;
use crate::replication::net::dial::Dialer;
use crate::replication::settings::{Endpoint, ReplicationSettings};
use crate::replication::status::{Known, LinkState};
use crate::types::{Epoch, WriteVersion};
use crate::vfs::Vfs;
use crate::wal::confirmed::{self, Kept, Noted};
use crate::wal::names;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A replica that answers is always so much behind for moments.
const RETAIN_BYTES_MIN: u64 = 64 << 20;

/// How far the replica is.
#[derive(Clone, Debug)]
pub struct Status {
    pub phase: Phase,
    /// How long it has been in this phase.
    pub since: Duration,
    /// The replica's end of the control connection.
    pub peer: Option<SocketAddr>,
    pub stored: Epoch,
    pub propagated: Epoch,
    /// Bytes of the log that it may not have.
    pub behind_bytes: u64,
    /// When the replica acknowledged something last.
    pub heard: Option<Instant>,
    pub last_error: Option<String>,
}

/// Sends the log of a data store to a replica that speaks the protocol of the original. Dropping it closes the
/// connections without waiting.
pub struct Primary {
    shared: Arc<Shared>,
}

impl Primary {
    /// Connects nothing yet. The disk and the data directory are for BLOBs and for what the replica has confirmed.
    pub fn new(
        settings: ReplicationSettings,
        vfs: Arc<dyn Vfs>,
        location: &Path,
        observer: Box<dyn Observer>,
    ) -> std::io::Result<Primary> {
        let retain_bytes = settings.retain_bytes.max(RETAIN_BYTES_MIN);
        let settings = ReplicationSettings { retain_bytes, ..settings };
        let state = State {
            phase: Phase::Starting,
            since: Instant::now(),
            link: 0,
            queue: Queue::default(),
            stored: Epoch(0),
            recorded: Epoch(0),
            asked: Epoch(0),
            had_control: false,
            first_id: 0,
            channels: 0,
            ready: false,
            peer: None,
            control: None,
            logs: BTreeMap::new(),
            threads: Vec::new(),
            heard: None,
            last_error: None,
        };
        let shared = Arc::new(Shared {
            name: settings.endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(", "),
            dialer: Mutex::new(Rank::Dialer, Dialer::new(settings.endpoints.clone())),
            settings,
            vfs,
            blobs: location.join(names::BLOB_DIR),
            location: location.to_owned(),
            kept: Mutex::new(Rank::Confirmed, Kept::default()),
            observer,
            state: Mutex::new(Rank::Leaf, state),
            changed: Condvar::new(),
        });
        let primary = Primary { shared };
        primary.shared.spawn("replication-report", Shared::report)?;
        primary.shared.spawn("replication-connect", Shared::connect_again)?;
        Ok(primary)
    }

    /// Connects a log channel; to be called for each that is created, in order, without locks of the data store. Before
    /// [`Self::ready`] it is only counted: a replica of the original wants the control connection first. When the
    /// replica cannot be reached it counts as lost, and this returns all the same.
    pub fn add_channel(&self, channel: usize) {
        let shared = &self.shared;
        let (link, id, replica) = {
            let mut state = shared.state.lock();
            state.channels = state.channels.max(channel + 1);
            match (state.phase, state.peer) {
                (Phase::Connected, Some(replica)) => (state.link, state.first_id + channel as u64, replica),
                _ => return,
            }
        };
        let log = Exchange::log(replica, id, shared.settings.timeout);
        let opened = log.and_then(|log| shared.start_log(link, channel, log));
        shared.settle(link, opened);
    }

    /// Connects, the control connection first; from now on sessions are sent. What the replica has confirmed in an
    /// earlier run is in a file; what was stored since then is read from the log and sent first. When no run has
    /// replicated, the replica is taken for a copy of this directory, as in the original.
    ///
    /// # Errors
    /// [`Error::BrokenMetadata`] or [`Error::Io`] when the file cannot be read or written.
    pub fn ready(&self, recorded: Epoch, subscription: Subscription) -> Result<()> {
        let shared = &self.shared;
        let noted = match confirmed::load(&*shared.vfs, &shared.location)? {
            Some(noted) => noted,
            None => {
                if recorded > Epoch(0) {
                    log::warn!(
                        "replication: the replica is taken for a copy of this directory up to epoch {recorded}: this \
                         protocol cannot ask it. If it is none, stop both sides and copy the directory"
                    );
                }
                Noted { confirmed: recorded, ..Noted::default() }
            }
        };
        let noted = Noted {
            set_back: noted.set_back || noted.confirmed > recorded,
            // No run can have asked for more. A later run would have to take what this one records for asked for.
            asked: noted.asked.or(Some(recorded)),
            ..noted
        };
        // On the disk before anything is stored that the replica may lack.
        confirmed::save(&*shared.vfs, &shared.location, noted)?;
        shared.kept.lock().noted = noted;
        let (confirmed, asked) = (noted.confirmed, noted.asked.unwrap_or(recorded));
        let missing = match noted.set_back {
            true => Err(format!("it has epoch {confirmed}, and this directory was set back to an earlier one")),
            false => missing_sessions(subscription, confirmed, shared.settings.retain_bytes),
        };
        let (link, channels, first_id) = {
            let mut state = shared.state.lock();
            state.ready = true;
            state.stored = state.stored.max(recorded);
            state.recorded = state.recorded.max(recorded);
            state.asked = asked;
            match missing {
                Ok(sessions) => {
                    if !sessions.is_empty() {
                        let count = sessions.len();
                        log::info!("replication: {count} sessions above epoch {confirmed} are sent from the log");
                    }
                    let channels = state.channels;
                    state.queue.start(confirmed, recorded, asked, (channels, sessions));
                }
                Err(reason) => {
                    let confirmed = confirmed.min(recorded);
                    state.queue.start(confirmed, confirmed, Epoch(0), (0, []));
                    shared.give_up(&mut state, &reason);
                }
            }
            shared.changed.notify_all();
            match state.phase {
                Phase::Starting => (state.link, state.channels, state.first_id),
                _ => return Ok(()),
            }
        };
        let connected = shared.connect_all(link, channels, first_id);
        shared.settle(link, connected);
        Ok(())
    }

    /// What the replica is known to have from earlier runs, which is nothing when nobody can tell; `None` when there
    /// were none.
    pub fn confirmed_earlier(&self) -> Option<Epoch> {
        // What is wrong with the file [`Self::ready`] says.
        match confirmed::load(&*self.shared.vfs, &self.shared.location) {
            Ok(noted) => noted.map(|noted| noted.confirmed),
            Err(_) => Some(Epoch(0)),
        }
    }

    /// What is going on.
    pub fn status(&self) -> Status {
        let state = self.shared.state.lock();
        Status {
            phase: state.phase,
            since: state.since.elapsed(),
            peer: state.peer,
            stored: state.stored,
            propagated: state.queue.complete(),
            behind_bytes: state.queue.bytes(),
            heard: state.heard,
            last_error: state.last_error.clone(),
        }
    }

    /// Adds what is known of the link to what is known of the data store.
    pub fn describe(&self, known: Known) -> Known {
        let Status { phase, since, peer, behind_bytes, last_error, heard, .. } = self.status();
        Known {
            protocol: Some("upstream"),
            state: match phase {
                Phase::Starting | Phase::Lost => LinkState::Connecting,
                // There is one way to send; how much waits, the lag tells.
                Phase::Connected => LinkState::Streaming,
                Phase::GivenUp => LinkState::Refused,
                Phase::Closed => LinkState::Stopped,
            },
            state_for: Some(since),
            peer: peer.map(|peer| peer.to_string()),
            heard,
            lag_heard: heard,
            lag_bytes: (phase == Phase::Connected).then_some(behind_bytes),
            last_error,
            ..known
        }
    }

    /// Ends replication: waits until everything was sent and acknowledged, but not for a replica that is lost, and at
    /// most for `patience`. Call it before the data store is shut down, so that callbacks still hear of it. Calling it
    /// again does nothing.
    pub fn shutdown(&self, patience: Duration) {
        let shared = &self.shared;
        let deadline = Instant::now() + patience;
        let mut state = shared.state.lock();
        let busy = |state: &State| state.phase == Phase::Connected && !state.queue.is_drained();
        while busy(&state) && !shared.changed.wait_until(&mut state, deadline).timed_out() {}
        if state.phase != Phase::Closed {
            let (stored, complete) = (state.stored, state.queue.complete());
            if complete < stored {
                log::warn!(
                    "replication: at shutdown epochs {} to {stored} are stored on this machine only",
                    complete.0 + 1
                );
            }
            // What was confirmed last is reported before the threads end.
            state.end(Phase::Closed);
            shared.changed.notify_all();
        }
        // A callback on one of the threads may have called this: that one ends when it returns.
        let own = |thread: &JoinHandle<()>| thread.thread().id() == std::thread::current().id();
        let (own, others): (Vec<_>, Vec<_>) = std::mem::take(&mut state.threads).into_iter().partition(own);
        state.threads = own;
        drop(state);
        for thread in others {
            // Its panics are caught.
            let _ = thread.join();
        }
    }
}

/// The sessions above `confirmed` that the log on disk has, in the order of their epochs, or why it has not all of
/// them.
fn missing_sessions(
    subscription: Subscription,
    confirmed: Epoch,
    bytes_max: u64,
) -> std::result::Result<Vec<EndedSession>, String> {
    let backlog = Backlog::new(subscription, confirmed).map_err(|e| e.to_string())?;
    let (mut sessions, mut bytes, mut above) = (Vec::new(), 0, Some(confirmed));
    while let Some(from) = above {
        let mut window = backlog.window(from).map_err(|e| e.to_string())?;
        bytes += window.bytes;
        if bytes > bytes_max {
            return Err(format!("at least {bytes} bytes of the log are missing there, at most {bytes_max} are kept"));
        }
        above = window.rest_above;
        while let Some(session) = backlog.next(&mut window) {
            sessions.push(session);
        }
    }
    Ok(sessions)
}

impl Drop for Primary {
    fn drop(&mut self) {
        self.shutdown(Duration::ZERO);
    }
}

impl fmt::Debug for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Primary({:?})", self.status())
    }
}

impl Tap for Primary {
    fn session_ended(&self, session: EndedSession) {
        let shared = &self.shared;
        let mut state = shared.state.lock();
        if matches!(state.phase, Phase::Closed | Phase::GivenUp) {
            return;
        }
        let EndedSession { epoch, channel, file, start, len, .. } = session;
        state.queue.ended(channel as usize, file, start, len, epoch);
        if shared.settings.async_session_close {
            state.queue.synced(channel as usize);
            shared.changed.notify_all();
        }
        if state.queue.bytes() > shared.settings.retain_bytes {
            let (behind, most) = (state.queue.bytes(), shared.settings.retain_bytes);
            let reason = format!("{behind} bytes of the log are kept for it, at most {most} may be");
            shared.give_up(&mut state, &reason);
            shared.changed.notify_all();
        }
    }

    fn session_synced(&self, channel: u32) {
        let shared = &self.shared;
        if !shared.settings.async_session_close {
            shared.state.lock().queue.synced(channel as usize);
            shared.changed.notify_all();
        }
    }

    fn recording(&self, epoch: Epoch) {
        let shared = &self.shared;
        if shared.settings.async_group_commit {
            shared.state.lock().queue.recording(epoch);
            shared.changed.notify_all();
        }
    }

    fn stored(&self, stored: Epoch, last_written: Option<Epoch>) -> Option<Epoch> {
        let mut state = self.shared.state.lock();
        if state.phase == Phase::Closed {
            return None;
        }
        state.stored = state.stored.max(stored);
        state.recorded = state.recorded.max(last_written.unwrap_or_default());
        state.queue.stored(stored, last_written);
        self.shared.changed.notify_all();
        Some(state.queue.complete())
    }

    fn boundary(&self, _version: WriteVersion) {}

    fn safe_snapshot(&self, _version: WriteVersion) {}
}
