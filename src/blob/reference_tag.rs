// SPDX-License-Identifier: Apache-2.0
//! Tags by which a holder of a BLOB id shows that it got the id in a certain transaction (disk format §8.8).

use crate::types::BlobId;
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The secret of one data store object.
pub type ReferenceKey = [u8; 16];

/// The first eight bytes, as a little-endian number, of the HMAC-SHA-256 over both numbers.
pub fn reference_tag(key: &ReferenceKey, blob: BlobId, transaction: u64) -> u64 {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length is allowed");
    mac.update(&blob.0.to_le_bytes());
    mac.update(&transaction.to_le_bytes());
    let digest: [u8; 32] = mac.finalize().into_bytes().into();
    u64::from_le_bytes(*digest.first_chunk().expect("a digest is longer than eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: [u8; 8] = [0x96, 0x30, 0xbd, 0x62, 0xc3, 0x93, 0x4a, 0x70];

    #[test]
    fn a_tag_is_the_start_of_the_hmac() {
        // python3: hmac.new(bytes(range(16)), struct.pack('<QQ', 1, 2), 'sha256').digest()[:8]
        let key: ReferenceKey = std::array::from_fn(|i| i as u8);
        assert_eq!(reference_tag(&key, BlobId(1), 2), u64::from_le_bytes(EXPECTED));
        assert_ne!(reference_tag(&key, BlobId(2), 1), u64::from_le_bytes(EXPECTED));
    }
}
