// SPDX-License-Identifier: Apache-2.0
//! What can go wrong, sorted by what the caller can do about it. Every message says what was expected and found.

use crate::types::{BlobId, Epoch};
use std::io;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::{Path, PathBuf};

pub type Result<T> = std::result::Result<T, Error>;

/// An error of the data store. The text of each is written for an operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The call was wrong: mend the caller.
    #[error("{0}")]
    InvalidArgument(String),
    /// The call came at a time when it is not allowed.
    #[error("{0}")]
    WrongState(String),
    /// A file that was named does not exist or is no regular file.
    #[error("{0}")]
    NotFound(String),
    /// A key or value that the format cannot hold.
    #[error("{what} has {len} bytes, at most {} fit into a log entry", u32::MAX)]
    TooLarge { what: &'static str, len: usize },

    /// Somebody else has the directory open: end that process. Who it is, where the system tells.
    #[error("another process is using the log directory: {}{}", directory.display(), in_brackets(.holder))]
    Locked { directory: PathBuf, holder: Option<String> },
    /// Written by a version that this one does not know.
    #[error("{0}")]
    UnsupportedVersion(String),
    /// The manifest or the catalog cannot be used and has no usable backup: restore the file.
    #[error("{0}")]
    BrokenMetadata(String),
    /// Data that was acknowledged is damaged: repair or restore the directory.
    #[error("{0}")]
    Corrupted(Box<Damage>),

    /// The system refused an operation.
    #[error("I/O Error ({}): {message}{}", reason(.source), number(.source))]
    Io { message: String, source: io::Error },
    /// The system refused an operation on a BLOB; the data store is intact.
    #[error("Blob Error ({}): {message}{}", reason(.source), number(.source))]
    Blob { message: String, source: io::Error },
    /// No BLOB has this id.
    #[error("Invalid blob_id: {id}. Blob file does not exist: {}", path.display())]
    UnknownBlob { id: BlobId, path: PathBuf },
    /// An earlier write or sync failed; nothing is acknowledged any more. Restart the process.
    #[error("the data store stopped after a failure and acknowledges nothing any more: {0}")]
    Poisoned(String),
    /// A defect of this library; nobody knows what the thread has left. Restart the process.
    #[error("internal error: {0} panicked")]
    Panicked(String),
}

/// Does what others wait for or rely on. Whoever calls this with a thread of its own hands the error of a panic to what
/// stops acknowledgement, as that of a failed write: what the panic has left half done must never count.
///
/// # Errors
/// [`Error::Panicked`] with `what` in its text.
pub fn catch_panic<T>(what: &str, work: impl FnOnce() -> T) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Error::Panicked(what.to_owned()))
}

/// A place in the durable range of the log that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    pub file: PathBuf,
    pub offset: u64,
    /// Epoch of the session that holds the place, when it is inside one.
    pub epoch: Option<Epoch>,
    /// Short reason, as operators of the original know it (`unexpected EOF` …).
    pub reason: String,
    pub found: String,
    pub expected: String,
    pub remedy: Remedy,
}

/// What a person can do about a [`Damage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The repair tool can give up the damaged part.
    Repair,
    /// There is nothing to cut off: the file has to come from a backup.
    RestoreFile,
    /// The log itself cannot tell what is wrong: another copy of the directory has to take its place.
    OtherCopy,
    /// Nothing is wrong with the log: the epoch file has to come back.
    RestoreEpochFile,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Damage { file, offset, epoch, reason, found, expected, remedy } = self;
        write!(f, "{reason} (file \"{}\"", file.display())?;
        match epoch {
            Some(epoch) => write!(f, ", offset {offset}, epoch {epoch}")?,
            None if *remedy == Remedy::OtherCopy => {}
            None => write!(f, ", offset {offset}, outside a session")?,
        }
        write!(f, ": found {found}, expected {expected}; nothing was changed; ")?;
        let directory = file.parent().unwrap_or(Path::new("."));
        match remedy {
            Remedy::Repair => {
                write!(f, "keep a copy, then run: tglogutil repair \"{}\")", directory.display())
            }
            Remedy::RestoreFile => write!(f, "restore this file or the whole directory from a backup)"),
            Remedy::OtherCopy => {
                write!(f, "switch over to a replica or restore a backup, see \"Scrub\" in the manual)")
            }
            Remedy::RestoreEpochFile => {
                let epoch_file = directory.join("epoch");
                write!(
                    f,
                    "restore \"{}\" from where it went or from a backup; only if nothing in the directory was ever \
                     acknowledged may epoch 0 take its place, see \"the epoch file is missing or empty\" in \
                     docs/operations.md)",
                    epoch_file.display()
                )
            }
        }
    }
}

impl Error {
    /// Wraps an error of the system with what was being done to which file.
    pub fn io(action: &str, path: &Path, source: io::Error) -> Error {
        Error::Io { message: format!("{action}: {}", path.display()), source }
    }

    /// What happened first: what [`Error::Poisoned`] is about, else the error itself.
    pub fn cause(&self) -> String {
        match self {
            Error::Poisoned(first) => first.clone(),
            other => other.to_string(),
        }
    }

    /// Whether the disk has no room: with room the same can be done again.
    pub fn lacks_room(&self) -> bool {
        matches!(self.errno(), libc::ENOSPC | libc::EDQUOT)
    }

    /// Whether the system may do the same another time, before a person has looked: others make room or give back what
    /// they hold, a path to the disk is there again.
    pub fn may_pass(&self) -> bool {
        let passing = [
            libc::EIO,
            libc::EAGAIN,
            libc::EBUSY,
            libc::EINTR,
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENODEV,
            libc::ENOMEM,
            libc::ENXIO,
            libc::EREMOTEIO,
            libc::ESTALE,
            libc::ETIMEDOUT,
        ];
        self.lacks_room() || passing.contains(&self.errno())
    }

    /// The error number of the system, 0 when there is none.
    pub fn errno(&self) -> i32 {
        match self {
            Error::Io { source, .. } | Error::Blob { source, .. } => errno(source),
            _ => 0,
        }
    }
}

fn in_brackets(text: &Option<String>) -> String {
    text.as_ref().map_or_else(String::new, |text| format!(" ({text})"))
}

fn errno(source: &io::Error) -> i32 {
    source.raw_os_error().unwrap_or(0)
}

/// The number as the original shows it; an error that is not the system's has none.
fn number(source: &io::Error) -> String {
    source.raw_os_error().map_or_else(String::new, |number| format!(" (errno = {number})"))
}

/// The system's text for the error without the number that the standard library adds.
fn reason(source: &io::Error) -> String {
    let text = source.to_string();
    match text.find(" (os error") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_after_a_failure_names_the_failure_and_not_the_refusal_before() {
        let failed = Error::io("cannot sync", Path::new("/f"), io::Error::from_raw_os_error(libc::EIO));
        let refused = Error::Poisoned(failed.cause());
        assert_eq!(Error::Poisoned(refused.cause()).to_string(), refused.to_string());
        assert_eq!(refused.cause(), failed.to_string());
    }

    #[test]
    fn an_error_has_the_number_of_the_system_or_none() {
        let of = |source: fn() -> io::Error| {
            let blob = Error::Blob { message: "m".to_owned(), source: source() };
            (Error::io("cannot sync", Path::new("/f"), source()), blob)
        };
        let (io, blob) = of(|| io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(io.to_string(), "I/O Error (Input/output error): cannot sync: /f (errno = 5)");
        assert_eq!(blob.to_string(), "Blob Error (Input/output error): m (errno = 5)");
        let (io, blob) = of(|| io::Error::other("moved"));
        assert_eq!(io.to_string(), "I/O Error (moved): cannot sync: /f");
        assert_eq!((blob.to_string().as_str(), blob.errno()), ("Blob Error (moved): m", 0));
    }
}
