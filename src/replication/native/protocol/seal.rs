// SPDX-License-Identifier: Apache-2.0
//! What protects the frames behind a handshake from whoever stands between the two sides: behind each frame a MAC over
//! it and its number on the connection, with a key of this connection and direction. A frame that was changed, left
//! out, repeated or moved does not fit its number.

use crate::replication::secret::Proof;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;

/// Bytes of a MAC, the first ones of an HMAC-SHA-256.
pub const MAC_LEN: usize = 16;

/// The frames of one direction of one connection; counts them.
#[derive(Clone)]
pub struct Seal {
    keyed: Hmac<Sha256>,
    number: u64,
}

/// The key is not shown.
impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seal(.., {})", self.number)
    }
}

/// Both directions of a connection.
#[derive(Clone, Debug)]
pub struct Seals {
    /// Of what the primary sends behind Identity.
    pub of_primary: Seal,
    /// Of what the replica sends behind Challenge.
    pub of_replica: Seal,
}

impl Seal {
    /// Begins with frame 0.
    pub fn new(key: &Proof) -> Seal {
        Seal { keyed: Hmac::new_from_slice(key).expect("a key of any length is allowed"), number: 0 }
    }

    /// The number of the next frame.
    pub fn number(&self) -> u64 {
        self.number
    }

    fn next(&mut self, frame: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = self.keyed.clone();
        mac.update(&self.number.to_le_bytes());
        frame.iter().for_each(|part| mac.update(part));
        self.number += 1;
        mac
    }

    /// What stands behind the next frame that is sent; `frame` is all of it, in one part or several.
    pub fn mac(&mut self, frame: &[&[u8]]) -> [u8; MAC_LEN] {
        *self.next(frame).finalize().into_bytes().first_chunk().expect("it is longer")
    }

    /// Whether this stands behind the next frame that comes. In constant time.
    pub fn is_mac(&mut self, frame: &[&[u8]], mac: &[u8; MAC_LEN]) -> bool {
        self.next(frame).verify_truncated_left(mac).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Seal, Seal) {
        (Seal::new(&[7; 32]), Seal::new(&[7; 32]))
    }

    #[test]
    fn a_frame_fits_in_its_place_and_unchanged_only() {
        let (mut sender, receiver) = pair();
        let macs: Vec<[u8; MAC_LEN]> = [b"a", b"b", b"b"].iter().map(|frame| sender.mac(&[*frame])).collect();
        let takes = |mut seal: Seal, frames: &[(&[u8], usize)]| {
            frames.iter().all(|&(frame, number)| seal.is_mac(&[frame], &macs[number]))
        };
        assert!(takes(receiver.clone(), &[(b"a", 0), (b"b", 1), (b"b", 2)]));
        assert!(!takes(receiver.clone(), &[(b"a", 0), (b"a", 0)]), "repeated");
        assert!(!takes(receiver.clone(), &[(b"b", 1)]), "one left out");
        assert!(!takes(receiver.clone(), &[(b"a", 0), (b"b", 2), (b"b", 1)]), "the same bytes in another order");
        assert!(!takes(receiver.clone(), &[(b"b", 0)]), "changed");
        assert!(!takes(Seal::new(&[8; 32]), &[(b"a", 0)]), "another key");
    }

    #[test]
    fn a_mac_is_that_of_the_definition() {
        use crate::replication::secret::Secret;
        let key = [7; 32];
        let (mut seal, _) = pair();
        seal.mac(&[b"first"]);
        let whole = Secret::new(&key).unwrap().prove(&[&1u64.to_le_bytes(), b"sec", b"ond"]);
        assert_eq!(seal.mac(&[b"sec", b"ond"])[..], whole[..MAC_LEN]);
        assert_eq!(format!("{seal:?}"), "Seal(.., 2)");
    }
}
