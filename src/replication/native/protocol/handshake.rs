// SPDX-License-Identifier: Apache-2.0
//! The handshake of every connection: Hello, Challenge, Identity, Answer. Both sides prove that they know the secret
//! before either says anything about its data, and the replica decides how a session goes on.

use super::frame::FrameKind;
use super::message::{
    Code, ConnectionKind, Hello, Message, Nonce, Outcome, PrimaryIdentity, Reason, ReplicaIdentity, SessionId, VERSION,
};
use super::proofs::Transcript;
use crate::replication::secret::Secret;
use crate::types::Epoch;
use crate::wal::history::{Common, History};
use crate::wal::history_file::DirectoryHistory;

fn unexpected(found: &Message, expected: &str) -> Reason {
    Reason::new(Code::PROTOCOL, format!("a {} message in the handshake, expected {expected}", found.kind().name()))
}

/// Room for the message that has to come, or the reason why it does not.
fn bytes_max(expected: FrameKind) -> u32 {
    expected.payload_bounds().1.max(FrameKind::Error.payload_bounds().1)
}

/// The primary's side of one connection.
#[derive(Debug)]
pub struct PrimaryHandshake {
    secret: Secret,
    hello: Hello,
    identity: Option<PrimaryIdentity>,
    identified: bool,
}

/// What the primary does next.
#[derive(Debug, PartialEq, Eq)]
pub enum PrimaryStep {
    Send(Message),
    /// The connection is open; the replica speaks of itself on the control connection only.
    Accepted(Option<ReplicaIdentity>),
    /// The replica does not want the connection.
    Refused(Reason),
}

impl PrimaryHandshake {
    /// Begins a handshake; the magic and the returned message are to be sent. `identity` belongs to the control
    /// connection and to no other.
    pub fn start(
        kind: ConnectionKind,
        session_id: SessionId,
        nonce: Nonce,
        secret: Secret,
        identity: Option<PrimaryIdentity>,
    ) -> (PrimaryHandshake, Message) {
        debug_assert_eq!(identity.is_some(), kind == ConnectionKind::Control);
        let hello = Hello { version_min: VERSION, version_max: VERSION, kind, session_id, nonce };
        let message = Message::Hello(hello.clone());
        (PrimaryHandshake { secret, hello, identity, identified: false }, message)
    }

    /// The largest payload that the next message may have: a peer that has proved nothing gets little room.
    pub fn bytes_max(&self) -> u32 {
        let expected = if self.identified { FrameKind::Answer } else { FrameKind::Challenge };
        bytes_max(expected)
    }

    /// Takes the next message of the replica. After an error the connection is to be closed.
    pub fn on_message(&mut self, message: Message) -> Result<PrimaryStep, Reason> {
        match message {
            // It ends this primary for good: only who knows the secret may say it.
            Message::Refused(reason) if reason.code == Code::FENCED && !self.identified => {
                Err(Reason::new(Code::PROTOCOL, "a peer that has not proved that it knows the secret says fenced"))
            }
            Message::Refused(reason) => Ok(PrimaryStep::Refused(reason)),
            Message::Challenge { version, nonce, proof } if !self.identified => {
                if version != VERSION {
                    return Err(Reason::new(Code::VERSION, format!("the replica chose {version}, offered {VERSION}")));
                }
                let transcript = Transcript::new(&self.hello, version, &nonce);
                if !transcript.is_replica_proof(&self.secret, &proof) {
                    return Err(Reason::new(Code::BAD_SECRET, "the replica does not know the secret of this primary"));
                }
                self.identified = true;
                let proof = transcript.primary_proof(&self.secret, self.identity.as_ref());
                Ok(PrimaryStep::Send(Message::Identity { proof, primary: self.identity.clone() }))
            }
            Message::Answer { replica } if self.identified => match (&self.identity, &replica) {
                (None, None) => Ok(PrimaryStep::Accepted(None)),
                // Both sides come to the same from the two histories, or one of them is wrong.
                (Some(own), Some(found)) => match decide(own, &Standing::of(found))? {
                    outcome if outcome == found.outcome => Ok(PrimaryStep::Accepted(replica)),
                    outcome => {
                        let text =
                            format!("the replica answered {:?}, by its history it is {outcome:?}", found.outcome);
                        Err(Reason::new(Code::PROTOCOL, text))
                    }
                },
                _ => Err(Reason::new(Code::PROTOCOL, "an Answer for another kind of connection")),
            },
            other => Err(unexpected(&other, if self.identified { "Answer" } else { "Challenge" })),
        }
    }
}

/// The replica's side of one connection.
#[derive(Debug)]
pub struct ReplicaHandshake {
    secret: Secret,
    nonce: Nonce,
    hello: Option<Hello>,
}

/// What the replica does next.
#[derive(Debug, PartialEq, Eq)]
pub enum ReplicaStep {
    Send(Message),
    /// The peer knows the secret. The replica answers when it has decided.
    Identified(Identified),
}

/// A peer that has proved that it knows the secret.
#[derive(Debug, PartialEq, Eq)]
pub struct Identified {
    pub kind: ConnectionKind,
    pub session_id: SessionId,
    /// There on the control connection and on no other.
    pub primary: Option<PrimaryIdentity>,
}

impl ReplicaHandshake {
    /// Begins when the magic has been read.
    pub fn new(nonce: Nonce, secret: Secret) -> ReplicaHandshake {
        ReplicaHandshake { secret, nonce, hello: None }
    }

    /// The largest payload that the next message may have: a peer that has proved nothing gets little room.
    pub fn bytes_max(&self) -> u32 {
        let expected = if self.hello.is_some() { FrameKind::Identity } else { FrameKind::Hello };
        bytes_max(expected)
    }

    /// Takes the next message of the primary. An error is to be sent as [`Message::Refused`].
    pub fn on_message(&mut self, message: Message) -> Result<ReplicaStep, Reason> {
        match (message, &self.hello) {
            (Message::Hello(hello), None) => {
                if !(hello.version_min..=hello.version_max).contains(&VERSION) {
                    let (min, max) = (hello.version_min, hello.version_max);
                    let text = format!("the primary speaks versions {min} to {max}, this replica {VERSION}");
                    return Err(Reason::new(Code::VERSION, text));
                }
                let proof = Transcript::new(&hello, VERSION, &self.nonce).replica_proof(&self.secret);
                self.hello = Some(hello);
                Ok(ReplicaStep::Send(Message::Challenge { version: VERSION, nonce: self.nonce, proof }))
            }
            (Message::Identity { proof, primary }, Some(hello)) => {
                let transcript = Transcript::new(hello, VERSION, &self.nonce);
                if !transcript.is_primary_proof(&self.secret, primary.as_ref(), &proof) {
                    return Err(Reason::new(Code::BAD_SECRET, "the primary does not know the secret of this replica"));
                }
                if primary.is_some() != (hello.kind == ConnectionKind::Control) {
                    return Err(Reason::new(Code::PROTOCOL, "an Identity for another kind of connection"));
                }
                Ok(ReplicaStep::Identified(Identified { kind: hello.kind, session_id: hello.session_id, primary }))
            }
            // The primary has found the fault first, such as another secret.
            (Message::Error(reason), Some(_)) => Err(reason),
            (other, hello) => Err(unexpected(&other, if hello.is_some() { "Identity" } else { "Hello" })),
        }
    }
}

/// What a replica knows of its own directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub uuid: String,
    /// Nothing durable is in the directory.
    pub empty: bool,
    /// The largest term that it has been told of.
    pub term: u64,
    /// Which run wrote which epochs. Unknown for a replica that version 1.0.0 made.
    pub history: History,
    pub durable: Epoch,
}

impl Standing {
    /// As the primary hears it.
    fn of(replica: &ReplicaIdentity) -> Standing {
        Standing {
            uuid: replica.uuid.clone(),
            empty: replica.uuid.is_empty(),
            term: replica.term,
            history: replica.history.clone(),
            durable: replica.durable,
        }
    }
}

/// Refuses a primary of the instance `uuid` that is below a term which the replica has been told of. To be asked before
/// anything else: what a replica is busy with does not matter to a primary that was replaced.
pub fn check_term(primary: &PrimaryIdentity, uuid: &str, term: u64) -> Result<(), Reason> {
    if primary.uuid == uuid && term > primary.term {
        let text = format!("this replica has seen term {term}, the primary is in term {}", primary.term);
        return Err(Reason::new(Code::FENCED, text));
    }
    Ok(())
}

/// Whether and how a replica takes part with a primary. Epochs are compared by the runs that wrote them, never by their
/// numbers alone.
pub fn decide(primary: &PrimaryIdentity, replica: &Standing) -> Result<Outcome, Reason> {
    let refuse = |code, text: String| Err(Reason::new(code, text));
    let (durable, stored) = (replica.durable, primary.stored);
    check_term(primary, &replica.uuid, replica.term)?;
    let log_reaches = durable.next() >= primary.oldest_shippable;
    if replica.empty {
        return Ok(if log_reaches { Outcome::CatchUp } else { Outcome::BaseSync });
    }
    if replica.uuid != primary.uuid {
        let text = format!("this replica belongs to instance {}, the primary is {}", replica.uuid, primary.uuid);
        return refuse(Code::WRONG_IDENTITY, text);
    }
    let common = primary.history.common(stored, &replica.history, durable);
    let diverged = |epoch: Epoch, why: &str| {
        let text = format!(
            "this replica has epochs up to {durable}, of which those from {epoch} on are not the primary's{why}"
        );
        Err(Reason::new(Code::DIVERGED, text))
    };
    match common {
        Common::UpTo(epoch) if epoch < durable => diverged(epoch.next(), ""),
        Common::UpTo(_) if log_reaches => Ok(if durable == stored { Outcome::Stream } else { Outcome::CatchUp }),
        Common::UpTo(_) => Ok(Outcome::BaseSync),
        // Too old to be compared: all that it may lack is replaced.
        Common::Forgotten if durable <= stored => Ok(Outcome::BaseSync),
        Common::Nothing if replica.history.is_empty() && durable <= stored => Ok(Outcome::BaseSync),
        Common::Forgotten => diverged(stored.next(), ""),
        Common::Nothing => diverged(Epoch(0), ": no run of the one is in the history of the other"),
    }
}

/// What the directory of a replica says of itself before the primary gets its answer: whose it is, in which term, and
/// what it has from now on. A base sync brings the history with the files; until then what the directory has does not
/// count any more.
pub fn followed(replica: &Standing, primary: &PrimaryIdentity, outcome: Outcome) -> DirectoryHistory {
    match outcome {
        Outcome::BaseSync => {
            DirectoryHistory::following(&primary.uuid, primary.term, replica.history.clone()).awaiting_base_sync()
        }
        Outcome::Stream | Outcome::CatchUp => history_of(primary),
    }
}

/// The history of a replica that has what this primary has.
pub fn history_of(primary: &PrimaryIdentity) -> DirectoryHistory {
    DirectoryHistory::following(&primary.uuid, primary.term, primary.history.clone())
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
