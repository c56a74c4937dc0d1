// SPDX-License-Identifier: Apache-2.0
//! The proofs of a handshake: each side shows that it knows the secret. A proof is bound to one connection by the
//! nonces of both sides and everything said before it, and to its direction by a label. The keys for what follows come
//! from the same.

use super::encoding::identity_bytes;
use super::frame::MAGIC;
use super::message::{Hello, Message, Nonce, PrimaryIdentity};
use super::seal::{Seal, Seals};
use crate::replication::secret::{Proof, Secret};

/// What both sides of a connection have sent each other before the proofs.
#[derive(Clone, Debug)]
pub struct Transcript(Vec<u8>);

impl Transcript {
    /// The transcript of a connection: the magic, the whole Hello frame (versions, kind, session, nonce of the
    /// primary), the chosen version and the nonce of the replica.
    pub fn new(hello: &Hello, version: u16, nonce: &Nonce) -> Transcript {
        let mut bytes = MAGIC.to_vec();
        Message::Hello(hello.clone()).encode(&mut bytes);
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(nonce);
        Transcript(bytes)
    }

    /// The proof that the replica sends.
    pub fn replica_proof(&self, secret: &Secret) -> Proof {
        secret.prove(&[b"replica", &self.0])
    }

    /// The proof that the primary sends; it also covers what it says about itself.
    pub fn primary_proof(&self, secret: &Secret, identity: Option<&PrimaryIdentity>) -> Proof {
        secret.prove(&[b"primary", &self.0, &identity_bytes(identity)])
    }

    /// Checks a replica's proof in constant time.
    pub fn is_replica_proof(&self, secret: &Secret, proof: &Proof) -> bool {
        secret.is_proof(&[b"replica", &self.0], proof)
    }

    /// Checks a primary's proof in constant time.
    pub fn is_primary_proof(&self, secret: &Secret, identity: Option<&PrimaryIdentity>, proof: &Proof) -> bool {
        secret.is_proof(&[b"primary", &self.0, &identity_bytes(identity)], proof)
    }

    /// What protects the frames behind the proofs. Who does not know the secret cannot make them, and no other
    /// connection has the same.
    pub fn seals(&self, secret: &Secret) -> Seals {
        let seal = |label: &[u8]| Seal::new(&secret.prove(&[label, &self.0]));
        Seals { of_primary: seal(b"frames of primary"), of_replica: seal(b"frames of replica") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::native::protocol::message::ConnectionKind;
    use crate::types::Epoch;
    use crate::wal::history::History;

    const KEY: &[u8] = b"0123456789abcdef";

    fn identity(stored: u64) -> Option<PrimaryIdentity> {
        Some(PrimaryIdentity {
            uuid: "u".to_owned(),
            term: 1,
            history: History::default(),
            stored: Epoch(stored),
            oldest_shippable: Epoch(1),
            lanes: 1,
            max_channels: 1,
            capabilities: 0,
        })
    }

    fn hello() -> Hello {
        Hello { version_min: 1, version_max: 1, kind: ConnectionKind::Lane(3), session_id: [7; 16], nonce: [1; 32] }
    }

    #[test]
    fn each_connection_and_direction_has_a_key_of_its_own() {
        let secret = Secret::new(KEY).unwrap();
        let macs = |hello: Hello, version, nonce: u8| {
            let Seals { mut of_primary, mut of_replica } =
                Transcript::new(&hello, version, &[nonce; 32]).seals(&secret);
            [of_primary.mac(&[b"frame"]), of_replica.mac(&[b"frame"])]
        };
        let mut all = std::collections::BTreeSet::new();
        for (hello, version, nonce) in [
            (hello(), 3, 2),
            (hello(), 2, 2),
            (hello(), 3, 4),
            (Hello { nonce: [9; 32], ..hello() }, 3, 2),
            (Hello { version_min: 2, ..hello() }, 3, 2),
            (Hello { session_id: [9; 16], ..hello() }, 3, 2),
            (Hello { kind: ConnectionKind::Blob, ..hello() }, 3, 2),
        ] {
            all.extend(macs(hello, version, nonce));
        }
        assert_eq!(all.len(), 14);
    }

    #[test]
    fn proofs_are_bound_to_the_secret_the_direction_and_everything_said_before() {
        let (secret, other) = (Secret::new(KEY).unwrap(), Secret::new(b"0123456789abcdeF").unwrap());
        let transcript = Transcript::new(&hello(), 1, &[2; 32]);
        let proof = transcript.replica_proof(&secret);
        assert!(transcript.is_replica_proof(&secret, &proof));
        assert!(!transcript.is_replica_proof(&other, &proof));
        assert!(!transcript.is_replica_proof(&Secret::default(), &proof));
        assert!(!transcript.is_primary_proof(&secret, None, &proof), "a proof sent back proves nothing");
        for changed in [
            Transcript::new(&Hello { nonce: [9; 32], ..hello() }, 1, &[2; 32]),
            Transcript::new(&Hello { session_id: [9; 16], ..hello() }, 1, &[2; 32]),
            Transcript::new(&Hello { kind: ConnectionKind::Control, ..hello() }, 1, &[2; 32]),
            Transcript::new(&hello(), 2, &[2; 32]),
            Transcript::new(&hello(), 1, &[3; 32]),
        ] {
            assert!(!changed.is_replica_proof(&secret, &proof));
        }
        let proof = transcript.primary_proof(&secret, identity(7).as_ref());
        assert!(transcript.is_primary_proof(&secret, identity(7).as_ref(), &proof));
        assert!(!transcript.is_primary_proof(&secret, identity(8).as_ref(), &proof));
    }
}
