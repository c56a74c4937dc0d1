// SPDX-License-Identifier: Apache-2.0
//! Who may talk to whom: the shared secret, the proofs that both sides know it, and what is allowed without one. The
//! secret never travels; a proof is bound to one connection by the nonces of both sides, and to its direction by a label.

use super::native::protocol::frame::MAGIC;
use super::native::protocol::message::{Hello, Message, Nonce, Proof};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

/// A secret shorter than this can be guessed.
pub const SECRET_BYTES_MIN: usize = 16;
/// A larger file is not a secret.
pub const SECRET_BYTES_MAX: usize = 4096;

/// What both sides know. Empty when none was configured.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Shows only whether there is a secret.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "Secret(none)" } else { "Secret(...)" })
    }
}

/// Why a secret cannot be used. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("the secret file cannot be read: {path}: {source}")]
    Io { path: String, source: io::Error },
    #[error("the secret file is not a regular file: {0}")]
    NotAFile(String),
    #[error("the secret file can be read or changed by others (mode {mode:04o}): {path}; run: chmod 600 {path}")]
    Mode { path: String, mode: u32 },
    #[error(
        "the secret file belongs to user {found}, expected {expected} or root: {path}; run: chown {expected} {path}"
    )]
    Owner { path: String, found: u32, expected: u32 },
    #[error(
        "the secret has {found} bytes, expected {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX}: {path}; \
         make one with: head -c 32 /dev/urandom | base64 > {path}"
    )]
    Size { path: String, found: usize },
}

impl Secret {
    /// The secret in `bytes`; line ends at the end do not belong to it.
    ///
    /// # Errors
    /// The number of bytes when it is out of bounds.
    pub fn new(bytes: &[u8]) -> Result<Secret, usize> {
        let end = bytes.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |last| last + 1);
        match end {
            SECRET_BYTES_MIN..=SECRET_BYTES_MAX => Ok(Secret(bytes[..end].to_vec())),
            other => Err(other),
        }
    }

    /// Reads a secret from a regular file that belongs to this user or root and that nobody else may read or write.
    pub fn read(path: &Path) -> Result<Secret, SecretError> {
        let name = path.display().to_string();
        let io_error = |source| SecretError::Io { path: name.clone(), source };
        // Without O_NONBLOCK the opening of a pipe would wait; what is checked is what is open, not what has the name.
        let file =
            std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(io_error)?;
        let metadata = file.metadata().map_err(io_error)?;
        if !metadata.is_file() {
            return Err(SecretError::NotAFile(name));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SecretError::Mode { path: name, mode });
        }
        // SAFETY: geteuid only returns a number.
        let expected = unsafe { libc::geteuid() };
        if metadata.uid() != expected && metadata.uid() != 0 {
            return Err(SecretError::Owner { path: name, found: metadata.uid(), expected });
        }
        // Room for a line end behind the largest secret.
        let bytes_max = SECRET_BYTES_MAX as u64 + 2;
        if metadata.len() > bytes_max {
            return Err(SecretError::Size { path: name, found: metadata.len() as usize });
        }
        let mut bytes = Vec::new();
        file.take(bytes_max).read_to_end(&mut bytes).map_err(io_error)?;
        Secret::new(&bytes).map_err(|found| SecretError::Size { path: name, found })
    }

    /// Whether no secret was configured.
    pub fn is_none(&self) -> bool {
        self.0.is_empty()
    }
}

/// Whether a peer with this address may be talked to: with a secret any, without one only this machine.
pub fn is_peer_allowed(peer: IpAddr, secret: &Secret, allow_no_secret: bool) -> bool {
    !secret.is_none() || allow_no_secret || peer.to_canonical().is_loopback()
}

/// Bytes that nobody can foresee.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(format!("the system gives no random bytes: {e}")))?;
    Ok(bytes)
}

/// What both sides of a connection have sent each other before the proofs.
#[derive(Clone, Debug)]
pub struct Transcript(Vec<u8>);

impl Transcript {
    /// The transcript of a connection: the magic, the whole Hello frame (versions, kind, session, nonce of the primary),
    /// the chosen version and the nonce of the replica.
    pub fn new(hello: &Hello, version: u16, nonce: &Nonce) -> Transcript {
        let mut bytes = MAGIC.to_vec();
        Message::Hello(hello.clone()).encode(&mut bytes);
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(nonce);
        Transcript(bytes)
    }

    fn mac(&self, secret: &Secret, label: &str, more: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret.0).expect("a key of any length is allowed");
        mac.update(label.as_bytes());
        mac.update(&self.0);
        mac.update(more);
        mac
    }

    /// The proof that the replica sends.
    pub fn replica_proof(&self, secret: &Secret) -> Proof {
        self.mac(secret, "replica", &[]).finalize().into_bytes().into()
    }

    /// The proof that the primary sends; it also covers what it says about itself (`message::identity_bytes`).
    pub fn primary_proof(&self, secret: &Secret, identity: &[u8]) -> Proof {
        self.mac(secret, "primary", identity).finalize().into_bytes().into()
    }

    /// Checks a replica's proof in constant time.
    pub fn is_replica_proof(&self, secret: &Secret, proof: &Proof) -> bool {
        self.mac(secret, "replica", &[]).verify_slice(proof).is_ok()
    }

    /// Checks a primary's proof in constant time.
    pub fn is_primary_proof(&self, secret: &Secret, identity: &[u8], proof: &Proof) -> bool {
        self.mac(secret, "primary", identity).verify_slice(proof).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::native::protocol::message::ConnectionKind;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    const KEY: &[u8] = b"0123456789abcdef";

    fn hello() -> Hello {
        Hello { version_min: 1, version_max: 1, kind: ConnectionKind::Lane(3), session_id: [7; 16], nonce: [1; 32] }
    }

    #[test]
    fn proofs_are_bound_to_the_secret_the_direction_and_everything_said_before() {
        let (secret, other) = (Secret::new(KEY).unwrap(), Secret::new(b"0123456789abcdeF").unwrap());
        let transcript = Transcript::new(&hello(), 1, &[2; 32]);
        let proof = transcript.replica_proof(&secret);
        assert!(transcript.is_replica_proof(&secret, &proof));
        assert!(!transcript.is_replica_proof(&other, &proof));
        assert!(!transcript.is_replica_proof(&Secret::default(), &proof));
        assert!(!transcript.is_primary_proof(&secret, &[], &proof), "a proof sent back proves nothing");
        for changed in [
            Transcript::new(&Hello { nonce: [9; 32], ..hello() }, 1, &[2; 32]),
            Transcript::new(&Hello { session_id: [9; 16], ..hello() }, 1, &[2; 32]),
            Transcript::new(&Hello { kind: ConnectionKind::Control, ..hello() }, 1, &[2; 32]),
            Transcript::new(&hello(), 2, &[2; 32]),
            Transcript::new(&hello(), 1, &[3; 32]),
        ] {
            assert!(!changed.is_replica_proof(&secret, &proof));
        }
        let proof = transcript.primary_proof(&secret, b"identity");
        assert!(transcript.is_primary_proof(&secret, b"identity", &proof));
        assert!(!transcript.is_primary_proof(&secret, b"identitx", &proof));
    }

    #[test]
    fn a_secret_is_read_from_a_private_regular_file_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let text = |path: &Path| Secret::read(path).unwrap_err().to_string();
        assert!(text(&path).contains("cannot be read"));
        std::fs::write(&path, [KEY, b"\r\n"].concat()).unwrap();
        for mode in [0o640, 0o604, 0o666, 0o620] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(text(&path).contains("chmod 600"), "mode {mode:o}");
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        assert_eq!(Secret::read(&path).unwrap(), Secret::new(KEY).unwrap(), "line ends are no part of the secret");
        for (len, found) in [(15, 15), (0, 0), (4097, 4097), (100_000, 100_000)] {
            std::fs::write(&path, vec![b'x'; len]).unwrap();
            assert!(text(&path).contains(&format!("has {found} bytes")), "{len} bytes");
        }
        assert!(text(folder.path()).contains("not a regular file"));
        assert_eq!(format!("{:?}", Secret::new(KEY).unwrap()), "Secret(...)");
    }

    #[test]
    fn without_a_secret_only_this_machine_may_talk() {
        let (none, some) = (Secret::default(), Secret::new(KEY).unwrap());
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_peer_allowed(address.parse().unwrap(), &none, false), "{address}");
        }
        for address in ["10.0.0.1", "0.0.0.0", "fe80::1", "::ffff:10.0.0.1"] {
            assert!(!is_peer_allowed(address.parse().unwrap(), &none, false), "{address}");
            assert!(is_peer_allowed(address.parse().unwrap(), &none, true), "{address}");
            assert!(is_peer_allowed(address.parse().unwrap(), &some, false), "{address}");
        }
    }

    #[test]
    fn nonces_differ() {
        assert_ne!(random::<32>().unwrap(), random::<32>().unwrap());
    }
}
