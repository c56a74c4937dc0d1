// SPDX-License-Identifier: Apache-2.0
//! Asks the primary what it has, over the session that is open, for somebody who compares both sides. One question at a
//! time; of what the primary says only the last message is held.

use super::node::Node;
use super::session::Session;
use crate::replication::digests::{DigestWanted, Step, Tell};
use crate::replication::native::protocol::message::{DigestMessage, DigestPiece, Message};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Beyond the time-out, a primary that says nothing about the question for so long does not work on it.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// One that reads nothing more for so long does not get on with it.
const STILL_MAX: Duration = Duration::from_secs(600);

/// A question that is open; dropping it tells the primary that it is over.
struct Question {
    session: Arc<Session>,
    number: u64,
}

impl Question {
    fn ask(session: Arc<Session>, wanted: DigestWanted) -> Result<Question, String> {
        let number = session.machine.lock().ask()?;
        session.answers.expect(number);
        let question = Question { session, number };
        question.say(DigestMessage::Want { number, wanted })?;
        Ok(question)
    }

    fn say(&self, message: DigestMessage) -> Result<(), String> {
        self.session.send(&Message::Digest(message)).map_err(|e| format!("the primary cannot be asked: {e}"))
    }

    fn check(&self) -> Result<(), String> {
        match self.session.ended() {
            Some(_) => Err("the session with the primary has ended meanwhile: compare again".to_owned()),
            None => Ok(()),
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if self.session.ended().is_none() {
            let _ = self.say(DigestMessage::End { number: self.number });
        }
    }
}

/// Gets the document from the primary and gives it on, piece by piece. Whoever asked ends it by an error.
pub(super) fn ask(node: &Node, wanted: DigestWanted, tell: Tell<'_>) -> Result<(), String> {
    let session = node.session().ok_or("no primary is connected to this replica: compare when one is")?;
    let question = Question::ask(session, wanted)?;
    let number = question.number;
    let mut tell = |step: Step<'_>| tell(step).map_err(|e| format!("the question is over: {e}"));
    let (mut offset, mut read_last) = (0, 0);
    let (mut heard, mut moved) = (Instant::now(), Instant::now());
    loop {
        tell(Step::GoesOn)?;
        question.check()?;
        let said = question.session.answers.take();
        if said.is_some() {
            heard = Instant::now();
        }
        match said {
            Some(DigestMessage::Work { read, .. }) if read > read_last => (read_last, moved) = (read, heard),
            Some(DigestMessage::Piece { piece: DigestPiece { offset: at, last, bytes }, .. }) => {
                if at != offset {
                    return Err(format!("the primary sent the digest from {at} on, expected {offset}"));
                }
                (offset, moved) = (offset + bytes.len() as u64, heard);
                tell(Step::Piece(&bytes))?;
                if last {
                    return Ok(());
                }
                question.say(DigestMessage::Next { number, offset })?;
            }
            Some(DigestMessage::Failed { text, .. }) => return Err(format!("the primary: {}", text.escape_debug())),
            _ => {}
        }
        if heard.elapsed() > node.options.timeout + SILENCE_MAX || moved.elapsed() > STILL_MAX {
            return Err("the primary does not get on with the digest; its log may say why".to_owned());
        }
    }
}
