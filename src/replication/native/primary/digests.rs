// SPDX-License-Identifier: Apache-2.0
//! Answers a replica that asks what this side has, to compare it with its own: on a thread of its own, which comes with
//! the first question of a session and ends with the session. What is made is made behind all others, one digest at a
//! time for all replicas, and let go of when the replica does not take it.

use super::end::End;
use super::session::{mark_own_thread, Session};
use crate::error::catch_panic;
use crate::replication::digests::{DigestWanted, DigestWork};
use crate::replication::native::protocol::frame::DIGEST_PIECE_BYTES_MAX;
use crate::replication::native::protocol::message::{DigestMessage, DigestPiece, Message};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often the replica is told that the work goes on.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Takes what the replica says about digests.
///
/// # Errors
/// When it may not say that.
pub(super) fn hear(session: &Arc<Session>, asks: DigestMessage) -> Result<(), End> {
    match session.takes_digests() {
        true => session.digests.hear(asks, || spawn(session)),
        false => Err(End::Protocol("a question about what this side has, in a version that knows none".to_owned())),
    }
}

fn spawn(session: &Arc<Session>) -> Result<JoinHandle<()>, End> {
    let session = session.clone();
    let body = move || {
        mark_own_thread();
        while let Some((number, wanted, work)) = session.digests.next() {
            let answered = catch_panic("the thread repl_digest", || answer(&session, number, wanted, &work));
            match answered.unwrap_or_else(|panic| Err(End::Local(panic.to_string()))) {
                Ok(()) => session.digests.answered(number),
                Err(end) => session.lost(end),
            }
        }
    };
    let thread = std::thread::Builder::new().name("repl_digest".to_owned()).spawn(body);
    thread.map_err(|e| End::Local(format!("cannot start a thread: {e}")))
}

fn answer(session: &Session, number: u64, wanted: DigestWanted, work: &DigestWork) -> Result<(), End> {
    let say = |message| session.say(&Message::Digest(message));
    match make(session, number, wanted, work)? {
        Err(text) if work.stop.load(SeqCst) => {
            log::info!("{}: the digest at epoch {} is not wanted any more: {text}", session.core.label(), wanted.epoch);
            Ok(())
        }
        Err(text) => say(DigestMessage::Failed { number, text }),
        Ok(document) => {
            let mut offset = 0;
            loop {
                let rest = &document[offset..];
                let bytes = rest[..rest.len().min(DIGEST_PIECE_BYTES_MAX)].to_vec();
                let (at, last) = (offset as u64, bytes.len() == rest.len());
                offset += bytes.len();
                say(DigestMessage::Piece { number, piece: DigestPiece { offset: at, last, bytes } })?;
                if last || !session.digests.is_taken(number, offset as u64) {
                    return Ok(());
                }
            }
        }
    }
}

/// Makes the digest, and tells the replica meanwhile that it is made.
fn make(
    session: &Session,
    number: u64,
    wanted: DigestWanted,
    work: &DigestWork,
) -> Result<Result<Vec<u8>, String>, End> {
    let group = &session.core.group;
    let Some(_turn) = Turn::take(&group.making_digest) else {
        let text = "a digest is being made for another replica: compare again when that is done";
        return Ok(Err(text.to_owned()));
    };
    let (label, epoch) = (session.core.label(), wanted.epoch);
    log::info!("{label}: the replica compares: a digest of the content at epoch {epoch} is made");
    let begun = Instant::now();
    let made = std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("repl_digesting".to_owned());
        let this = std::thread::current();
        let making = builder.spawn_scoped(scope, move || {
            let made = catch_panic("the thread repl_digesting", || group.digests.make(wanted, work));
            this.unpark();
            made
        });
        let making = making.map_err(|e| End::Local(format!("cannot start a thread: {e}")))?;
        let mut told = Instant::now();
        while !making.is_finished() {
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                let said = session.say(&Message::Digest(DigestMessage::Work { number, read: work.read.load(SeqCst) }));
                said.inspect_err(|_| work.stop.store(true, SeqCst))?;
            }
            std::thread::park_timeout(TELL_EVERY / 4);
        }
        let made = making.join().unwrap_or_else(|_| Ok(Err("the thread panicked".to_owned())));
        made.map_err(|panic| End::Local(panic.to_string()))
    })?;
    if made.is_ok() {
        let (read, ms) = (work.read.load(SeqCst), begun.elapsed().as_millis());
        log::info!("{label}: the digest at epoch {epoch} is made: {read} bytes were read in {ms} ms");
    }
    Ok(made)
}

/// The turn of one digest among those of all replicas.
struct Turn<'a>(&'a AtomicBool);

impl Turn<'_> {
    fn take(making: &AtomicBool) -> Option<Turn<'_>> {
        (!making.swap(true, SeqCst)).then_some(Turn(making))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, SeqCst);
    }
}
