// SPDX-License-Identifier: Apache-2.0
//! The handshake of every connection: Hello, Challenge, Identity, Answer. Both sides prove that they know the secret
//! before either says anything about its data, and the replica decides how a session goes on. The proofs cover which
//! versions were offered and which was chosen, so that nobody between the two sides can have them speak an older one.

use super::frame::FrameKind;
use super::message::{
    Code, ConnectionKind, Hello, Message, Nonce, Outcome, PrimaryIdentity, Reason, ReplicaIdentity, SessionId, VERSION,
    VERSION_DIGESTS, VERSION_USUAL,
};
use super::proofs::Transcript;
use super::seal::Seals;
use crate::replication::secret::Secret;
use crate::types::{self, Epoch};
use crate::wal::claim::Claim;
use crate::wal::history::{Common, History};
use crate::wal::history_file::DirectoryHistory;

fn unexpected(found: &Message, expected: &str) -> Reason {
    Reason::new(Code::PROTOCOL, format!("a {} message in the handshake, expected {expected}", found.kind().name()))
}

/// Room for the message that has to come, or the reason why it does not.
fn bytes_max(expected: FrameKind) -> u32 {
    expected.payload_bounds().1.max(FrameKind::Error.payload_bounds().1)
}

/// What a side brings along.
#[derive(Clone, Debug)]
pub struct Terms {
    pub secret: Secret,
    /// The oldest version that is spoken, at least [`super::message::VERSION_OLDEST`].
    pub version_min: u16,
    /// The connection protects what is sent by itself.
    pub is_protected: bool,
}

/// No version that has to be allowed, on a connection that protects nothing.
impl From<Secret> for Terms {
    fn from(secret: Secret) -> Terms {
        Terms { secret, version_min: VERSION_USUAL, is_protected: false }
    }
}

/// What both sides know when the replica has chosen a version.
#[derive(Debug)]
struct Agreed {
    version: u16,
    transcript: Transcript,
}

impl Agreed {
    /// A key that anybody can compute protects nothing, and version 2 knows none.
    fn seals(&self, terms: &Terms) -> Option<Seals> {
        let is_sealed = self.version >= 3 && !terms.secret.is_none() && !terms.is_protected;
        is_sealed.then(|| self.transcript.seals(&terms.secret))
    }
}

/// Whether what follows on a connection can be changed on the way although there is a secret.
fn is_exposed(agreed: Option<&Agreed>, terms: &Terms) -> bool {
    agreed.is_some_and(|agreed| agreed.version < 3) && !terms.secret.is_none() && !terms.is_protected
}

/// The primary's side of one connection.
#[derive(Debug)]
pub struct PrimaryHandshake {
    terms: Terms,
    hello: Hello,
    identity: Option<PrimaryIdentity>,
    /// There when the replica has proved itself.
    agreed: Option<Agreed>,
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
        terms: impl Into<Terms>,
        identity: Option<PrimaryIdentity>,
    ) -> (PrimaryHandshake, Message) {
        debug_assert_eq!(identity.is_some(), kind == ConnectionKind::Control);
        let terms = terms.into();
        let hello = Hello { version_min: terms.version_min, version_max: VERSION, kind, session_id, nonce };
        let message = Message::Hello(hello.clone());
        (PrimaryHandshake { terms, hello, identity, agreed: None }, message)
    }

    /// Whether the replica knows [`Message::Reported`].
    pub fn is_told_of_reports(&self) -> bool {
        self.agreed.as_ref().is_some_and(|agreed| agreed.version >= 4)
    }

    /// Whether the replica may ask for digests.
    pub fn takes_digests(&self) -> bool {
        self.agreed.as_ref().is_some_and(|agreed| agreed.version >= VERSION_DIGESTS)
    }

    /// What protects the frames behind this side's Identity and the replica's Challenge, from there on. `None` before,
    /// and where frames are not sealed.
    pub fn seals(&self) -> Option<Seals> {
        self.agreed.as_ref()?.seals(&self.terms)
    }

    /// Whether the replica speaks a version that leaves what is sent unprotected although there is a secret.
    pub fn is_exposed(&self) -> bool {
        is_exposed(self.agreed.as_ref(), &self.terms)
    }

    /// The largest payload that the next message may have: a peer that has proved nothing gets little room.
    pub fn bytes_max(&self) -> u32 {
        let expected = if self.agreed.is_some() { FrameKind::Answer } else { FrameKind::Challenge };
        bytes_max(expected)
    }

    /// Takes the next message of the replica. After an error the connection is to be closed.
    pub fn on_message(&mut self, message: Message) -> Result<PrimaryStep, Reason> {
        match message {
            // It ends this primary for good: only who knows the secret may say it.
            Message::Refused(reason) if reason.code == Code::FENCED && self.agreed.is_none() => {
                Err(Reason::new(Code::PROTOCOL, "a peer that has not proved that it knows the secret says fenced"))
            }
            Message::Refused(reason) => Ok(PrimaryStep::Refused(reason)),
            Message::Challenge { version, nonce, proof } if self.agreed.is_none() => {
                let (min, max) = (self.hello.version_min, self.hello.version_max);
                if !(min..=max).contains(&version) {
                    let text = format!("the replica chose {version}, offered {min} to {max}");
                    return Err(Reason::new(Code::VERSION, text));
                }
                let transcript = Transcript::new(&self.hello, version, &nonce);
                if !transcript.is_replica_proof(&self.terms.secret, &proof) {
                    return Err(Reason::new(Code::BAD_SECRET, "the replica does not know the secret of this primary"));
                }
                let proof = transcript.primary_proof(&self.terms.secret, self.identity.as_ref());
                self.agreed = Some(Agreed { version, transcript });
                Ok(PrimaryStep::Send(Message::Identity { proof, primary: self.identity.clone() }))
            }
            Message::Answer { replica } if self.agreed.is_some() => match (&self.identity, &replica) {
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
            other => Err(unexpected(&other, if self.agreed.is_some() { "Answer" } else { "Challenge" })),
        }
    }
}

/// The replica's side of one connection.
#[derive(Debug)]
pub struct ReplicaHandshake {
    terms: Terms,
    nonce: Nonce,
    /// What the primary has begun with.
    begun: Option<(Hello, Agreed)>,
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
    /// The version that is spoken.
    pub version: u16,
    /// There on the control connection and on no other.
    pub primary: Option<PrimaryIdentity>,
}

impl ReplicaHandshake {
    /// Begins when the magic has been read.
    pub fn new(nonce: Nonce, terms: impl Into<Terms>) -> ReplicaHandshake {
        ReplicaHandshake { terms: terms.into(), nonce, begun: None }
    }

    /// The largest payload that the next message may have: a peer that has proved nothing gets little room.
    pub fn bytes_max(&self) -> u32 {
        let expected = if self.begun.is_some() { FrameKind::Identity } else { FrameKind::Hello };
        bytes_max(expected)
    }

    /// As [`PrimaryHandshake::seals`].
    pub fn seals(&self) -> Option<Seals> {
        self.begun.as_ref()?.1.seals(&self.terms)
    }

    /// As [`PrimaryHandshake::is_exposed`].
    pub fn is_exposed(&self) -> bool {
        is_exposed(self.begun.as_ref().map(|(_, agreed)| agreed), &self.terms)
    }

    /// Takes the next message of the primary. An error is to be sent as [`Message::Refused`].
    pub fn on_message(&mut self, message: Message) -> Result<ReplicaStep, Reason> {
        match (message, &self.begun) {
            (Message::Hello(hello), None) => {
                let (min, max) = (hello.version_min, hello.version_max);
                let version = max.min(VERSION);
                if version < min.max(self.terms.version_min) {
                    let own = self.terms.version_min;
                    let text = format!(
                        "the primary speaks versions {min} to {max}, this replica {own} to {VERSION}; \
                         TSURUGI_REPLICATION_VERSION_MIN allows an older one while both are being updated"
                    );
                    return Err(Reason::new(Code::VERSION, text));
                }
                let transcript = Transcript::new(&hello, version, &self.nonce);
                let proof = transcript.replica_proof(&self.terms.secret);
                self.begun = Some((hello, Agreed { version, transcript }));
                Ok(ReplicaStep::Send(Message::Challenge { version, nonce: self.nonce, proof }))
            }
            (Message::Identity { proof, primary }, Some((hello, agreed))) => {
                if !agreed.transcript.is_primary_proof(&self.terms.secret, primary.as_ref(), &proof) {
                    return Err(Reason::new(Code::BAD_SECRET, "the primary does not know the secret of this replica"));
                }
                if primary.is_some() != (hello.kind == ConnectionKind::Control) {
                    return Err(Reason::new(Code::PROTOCOL, "an Identity for another kind of connection"));
                }
                let (kind, session_id, version) = (hello.kind, hello.session_id, agreed.version);
                Ok(ReplicaStep::Identified(Identified { kind, session_id, version, primary }))
            }
            // The primary has found the fault first, such as another secret.
            (Message::Error(reason), Some(_)) => Err(reason),
            (other, begun) => Err(unexpected(&other, if begun.is_some() { "Identity" } else { "Hello" })),
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

/// Refuses numbers that no primary comes to: whoever notes them cannot go on from there.
fn check_plausible(primary: &PrimaryIdentity, replica: &Standing) -> Result<(), Reason> {
    let numbers =
        [("to have stored epoch", primary.stored.0, replica.durable.0), ("to be in term", primary.term, replica.term)];
    for (what, claimed, known) in numbers {
        if !types::may_come_to(known, claimed) {
            let text = format!("the primary claims {what} {claimed}, which cannot be; this replica knows of {known}");
            return Err(Reason::new(Code::PROTOCOL, text));
        }
    }
    Ok(())
}

/// Whether and how a replica takes part with a primary. Epochs are compared by the runs that wrote them, never by their
/// numbers alone.
pub fn decide(primary: &PrimaryIdentity, replica: &Standing) -> Result<Outcome, Reason> {
    let refuse = |code, text: String| Err(Reason::new(code, text));
    let (durable, stored) = (replica.durable, primary.stored);
    check_term(primary, &replica.uuid, replica.term)?;
    check_plausible(primary, replica)?;
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
/// count any more. `claim` is what it claimed before.
pub fn followed(replica: &Standing, claim: Claim, primary: &PrimaryIdentity, outcome: Outcome) -> DirectoryHistory {
    match outcome {
        Outcome::BaseSync => DirectoryHistory::following(&primary.uuid, primary.term, replica.history.clone())
            .claiming(claim)
            .awaiting_base_sync(),
        Outcome::Stream | Outcome::CatchUp if replica.empty => history_of(primary, claim).filling(primary.stored),
        Outcome::Stream | Outcome::CatchUp => history_of(primary, claim),
    }
}

/// The history of a replica that has what this primary has. While others may have begun the primary's term as well, it
/// claims no more than before.
pub fn history_of(primary: &PrimaryIdentity, claim: Claim) -> DirectoryHistory {
    let file = DirectoryHistory::following(&primary.uuid, primary.term, primary.history.clone());
    if primary.is_unknown() {
        file.claiming(claim)
    } else {
        file
    }
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
