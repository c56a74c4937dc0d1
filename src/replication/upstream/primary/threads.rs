// SPDX-License-Identifier: Apache-2.0
//! What each thread of the primary does.

use super::connection::{Exchange, LinkError};
use super::core::{Phase, Shared};
use super::encode::{epoch_at, send_session, BlobFiles};
use super::record::Record;
use crate::lock_order::MutexGuard;
use crate::replication::net::backoff::Backoff;
use crate::types::Epoch;
use std::io::{self, BufWriter};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SEND_BYTES: usize = 64 << 10;

impl Shared {
    /// Sends the sessions of a channel until the link ends.
    pub(super) fn send(&self, link: u64, channel: usize, mut log: Exchange) -> Result<(), LinkError> {
        let blobs = BlobFiles { vfs: &*self.vfs, root: &self.blobs };
        loop {
            let mut state = self.state.lock();
            let run = loop {
                if state.is_over(link) {
                    return Ok(());
                }
                match state.queue.next(channel) {
                    Some(run) => break run,
                    None => self.changed.wait(&mut state),
                }
            };
            drop(state);
            let mut out = BufWriter::with_capacity(SEND_BYTES, log.out());
            let len = send_session(&*run.file, run.start, run.end, blobs, &mut out)?;
            drop(out);
            log.expect_ack("the end of a session")?;
            let more = run.first != run.last && run.start + len < run.end;
            let next = more.then(|| epoch_at(&*run.file, run.start + len)).transpose()?;
            let mut state = self.state.lock();
            if state.is_over(link) {
                return Ok(());
            }
            state.queue.acknowledged(channel, len, next);
            state.heard = Some(Instant::now());
            self.changed.notify_all();
        }
    }

    /// Sends a group commit as soon as all sessions that it covers have been acknowledged.
    pub(super) fn commit(&self, link: u64, mut control: Exchange) -> Result<(), LinkError> {
        loop {
            let mut state = self.state.lock();
            let epoch = loop {
                if state.is_over(link) {
                    return Ok(());
                }
                match state.queue.next_commit() {
                    Some(epoch) => break epoch,
                    None => self.changed.wait(&mut state),
                }
            };
            state.asked = state.asked.max(epoch);
            let far = state.queue.far_commit(epoch);
            drop(state);
            self.note_before_commit(epoch, far).map_err(io::Error::other)?;
            control.group_commit(epoch)?;
            let mut state = self.state.lock();
            if state.is_over(link) {
                return Ok(());
            }
            state.queue.committed(epoch);
            state.heard = Some(Instant::now());
            self.changed.notify_all();
        }
    }

    /// Connects again after a loss, control connection first: a replica of the original that is still the same process
    /// refuses that without harm, while a known channel id would kill it.
    pub(super) fn connect_again(self: &Arc<Shared>) {
        let mut backoff = Backoff::new(self.settings.timeout);
        loop {
            let mut state = self.state.lock();
            while !(state.phase == Phase::Lost && state.ready) {
                if state.phase == Phase::Closed {
                    return;
                }
                self.changed.wait(&mut state);
            }
            let deadline = Instant::now() + backoff.next();
            while state.phase == Phase::Lost && !self.changed.wait_until(&mut state, deadline).timed_out() {}
            if state.phase != Phase::Lost {
                continue;
            }
            let (link, channels, first_id) = (state.link, state.channels, state.first_id);
            drop(state);
            self.note_all();
            let connected = self.connect_all(link, channels, first_id);
            if connected.is_ok() {
                backoff.reset();
            }
            self.settle(link, connected);
        }
    }

    /// The control connection first, to the first address that answers as a replica does; then the logs, to the same
    /// one.
    pub(super) fn connect_all(self: &Arc<Shared>, link: u64, channels: usize, first_id: u64) -> Result<(), LinkError> {
        let timeout = self.settings.timeout;
        let opened = self.dialer.lock().open(timeout, |_, connected| match self.state.lock().is_over(link) {
            true => Err(LinkError::Source("replication ends".to_owned())),
            false => Exchange::control(connected?, timeout),
        });
        let control = opened.map_err(worst)?;
        self.state.lock().had_control = true;
        let replica = control.peer();
        let mut logs = Vec::new();
        let opened = (0..channels).try_for_each(|channel| {
            logs.push(Exchange::log(replica, first_id + channel as u64, timeout)?);
            Ok(())
        });
        // Whoever takes the control connection and no log is not the replica.
        opened.inspect_err(|_: &LinkError| self.dialer.lock().advance())?;
        for (channel, log) in logs.into_iter().enumerate() {
            self.start_log(link, channel, log)?;
        }
        self.start_control(link, control)?;
        // Channels that were made meanwhile.
        let more = self.state.lock().channels;
        for channel in channels..more {
            let log = Exchange::log(replica, first_id + channel as u64, timeout)?;
            self.start_log(link, channel, log)?;
        }
        Ok(())
    }

    /// Tells how far the replica is, and lets be seen to what the mode makes of it.
    pub(super) fn report(self: &Arc<Shared>) {
        let (mut reported, mut begun) = (Epoch(0), false);
        let mut record = Record::new(self);
        let mut told_given_up = false;
        let mut state = self.state.lock();
        loop {
            let (connected, problem) = (state.phase == Phase::Connected, state.last_error.clone());
            let wait = MutexGuard::unlocked(&mut state, || self.observer.look(connected, problem.as_deref()));
            let complete = state.queue.complete();
            // At the start as well: what the replica lacks is kept from the first moment on.
            let begins = state.ready && !begun && state.phase != Phase::GivenUp;
            if complete > reported || begins {
                begun |= begins;
                reported = complete;
                MutexGuard::unlocked(&mut state, || self.observer.propagated(complete));
            } else if state.phase == Phase::GivenUp && !told_given_up {
                told_given_up = true;
                MutexGuard::unlocked(&mut state, || self.observer.given_up());
            } else if state.phase == Phase::Closed {
                let ready = state.ready;
                drop(state);
                if ready {
                    self.note_all();
                }
                return;
            } else {
                let due = record.due(&state);
                if due == Some(Duration::ZERO) {
                    let confirmed = state.confirmed();
                    MutexGuard::unlocked(&mut state, || record.note(confirmed));
                } else if let Some(wait) = wait.into_iter().chain(due).min() {
                    self.changed.wait_for(&mut state, wait);
                } else {
                    self.changed.wait(&mut state);
                }
            }
        }
    }
}

/// Of what all addresses answered, what says most.
fn worst(mut errors: Vec<LinkError>) -> LinkError {
    let place = errors.iter().position(|e| !matches!(e, LinkError::Io(_))).unwrap_or(0);
    match errors.len() {
        0 => LinkError::Io(std::io::ErrorKind::NotConnected.into()),
        _ if matches!(errors[place], LinkError::Io(_)) => {
            let all: Vec<String> = errors.iter().map(LinkError::to_string).collect();
            LinkError::Io(std::io::Error::other(all.join("; ")))
        }
        _ => errors.swap_remove(place),
    }
}
