// SPDX-License-Identifier: Apache-2.0
//! Who may talk to whom: the shared secret, proofs over bytes that only those can make who know it, and what is allowed
//! without one. The secret never travels.

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

/// An HMAC-SHA-256.
pub type Proof = [u8; 32];

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
        // An HMAC fills short keys up with zeros: a key of zeros is the empty one. Blanks are a forgotten file.
        let is_blank = bytes[..end].iter().all(|b| *b == 0) || bytes[..end].iter().all(u8::is_ascii_whitespace);
        match if is_blank { 0 } else { end } {
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

    fn mac(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length is allowed");
        parts.iter().for_each(|part| mac.update(part));
        mac
    }

    /// The proof over the bytes of `parts`, one behind the other, with this secret as the key.
    pub fn prove(&self, parts: &[&[u8]]) -> Proof {
        self.mac(parts).finalize().into_bytes().into()
    }

    /// Checks a proof over the bytes of `parts` in constant time.
    pub fn is_proof(&self, parts: &[&[u8]], proof: &Proof) -> bool {
        self.mac(parts).verify_slice(proof).is_ok()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    const KEY: &[u8] = b"0123456789abcdef";

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
    fn nothing_that_is_as_good_as_none_is_a_secret() {
        for blank in [&[0; 32][..], &[b' '; 32], b"\t  \n \r            \x0c   \n"] {
            assert_eq!(Secret::new(blank), Err(0), "{blank:?}");
        }
        assert!(Secret::new(b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0x").is_ok());
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
