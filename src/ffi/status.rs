// SPDX-License-Identifier: Apache-2.0
//! Status codes, the last error of each thread, and the border that catches panics.

use crate::error::Error;
use std::any::Any;
use std::cell::RefCell;
use std::ffi::{c_char, CStr, CString};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// The call did what it says.
pub const LIMESTONE_OK: i32 = 0;
/// An argument is null or out of range.
pub const LIMESTONE_ERR_INVALID_ARGUMENT: i32 = 1;
/// The handle is null, closed, or of another kind.
pub const LIMESTONE_ERR_INVALID_HANDLE: i32 = 2;
/// The call is not allowed at this time.
pub const LIMESTONE_ERR_WRONG_STATE: i32 = 3;
/// The system refused an operation; `limestone_last_error_errno` has its number.
pub const LIMESTONE_ERR_IO: i32 = 4;
/// Another process, or another data store of this one, has the directory open.
pub const LIMESTONE_ERR_LOCKED: i32 = 5;
/// The directory has no manifest, or one of a version that cannot be opened.
pub const LIMESTONE_ERR_UNSUPPORTED_VERSION: i32 = 6;
/// The manifest or the catalog cannot be used and has no usable backup.
pub const LIMESTONE_ERR_BROKEN_METADATA: i32 = 7;
/// Acknowledged data is damaged; the message names the place and what to do.
pub const LIMESTONE_ERR_CORRUPTED: i32 = 8;
/// An earlier write or sync failed; nothing is acknowledged any more.
pub const LIMESTONE_ERR_POISONED: i32 = 9;
/// A key, value or list is longer than a log entry can hold.
pub const LIMESTONE_ERR_TOO_LARGE: i32 = 10;
/// This version does not offer the function.
pub const LIMESTONE_ERR_NOT_SUPPORTED: i32 = 11;
/// What was asked for does not exist.
pub const LIMESTONE_ERR_NOT_FOUND: i32 = 12;
/// The time for a wait is over.
pub const LIMESTONE_ERR_TIMEOUT: i32 = 13;
/// A defect of this library, caught at its border.
pub const LIMESTONE_ERR_PANIC: i32 = 99;

/// A failed call: its status and the text for an operator.
pub(super) struct Failure {
    pub status: i32,
    pub errno: i32,
    pub message: String,
}

impl Failure {
    pub(super) fn argument(message: &str) -> Failure {
        Failure { status: LIMESTONE_ERR_INVALID_ARGUMENT, errno: 0, message: message.to_owned() }
    }

    /// Out of the way of calls that are made for each entry, as those below.
    #[cold]
    pub(super) fn length(what: &str, is_wrong: &str, len: usize) -> Failure {
        Failure::argument(&format!("{what} {is_wrong} {len}"))
    }

    #[cold]
    pub(super) fn null(kind: &str) -> Failure {
        Failure::handle(format!("the {kind} handle is null"))
    }

    #[cold]
    pub(super) fn kind(kind: &str) -> Failure {
        Failure::handle(format!("the handle is not a {kind}"))
    }

    pub(super) fn too_large(message: String) -> Failure {
        Failure { status: LIMESTONE_ERR_TOO_LARGE, errno: 0, message }
    }

    #[cold]
    pub(super) fn forked(kind: &str) -> Failure {
        let message =
            format!("the {kind} was made by the process that this one was forked from, and is of no use here");
        Failure { status: LIMESTONE_ERR_WRONG_STATE, errno: 0, message }
    }

    pub(super) fn handle(message: String) -> Failure {
        Failure { status: LIMESTONE_ERR_INVALID_HANDLE, errno: 0, message }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let status = match error {
            Error::InvalidArgument(_) => LIMESTONE_ERR_INVALID_ARGUMENT,
            Error::WrongState(_) => LIMESTONE_ERR_WRONG_STATE,
            Error::TooLarge { .. } => LIMESTONE_ERR_TOO_LARGE,
            Error::Locked { .. } => LIMESTONE_ERR_LOCKED,
            Error::UnsupportedVersion(_) => LIMESTONE_ERR_UNSUPPORTED_VERSION,
            Error::BrokenMetadata(_) => LIMESTONE_ERR_BROKEN_METADATA,
            Error::Corrupted(_) => LIMESTONE_ERR_CORRUPTED,
            Error::Io { .. } | Error::Blob { .. } => LIMESTONE_ERR_IO,
            Error::NotFound(_) | Error::UnknownBlob { .. } => LIMESTONE_ERR_NOT_FOUND,
            Error::Poisoned(_) => LIMESTONE_ERR_POISONED,
            Error::Panicked(_) => LIMESTONE_ERR_PANIC,
        };
        Failure { status, errno: error.errno(), message: error.to_string() }
    }
}

thread_local! {
    static LAST: RefCell<(CString, i32)> = RefCell::default();
}

/// Keeps a failure for this thread and returns its status.
#[cold]
fn remember(failure: Failure) -> i32 {
    let text = failure.message.replace('\0', "\u{fffd}");
    // In the destructors of a thread that ends there may be no place any more: the status must do.
    let _ = LAST.try_with(|last| *last.borrow_mut() = (CString::new(text).unwrap_or_default(), failure.errno));
    failure.status
}

#[cold]
fn panicked(panic: &(dyn Any + Send)) -> Failure {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
    Failure { status: LIMESTONE_ERR_PANIC, errno: 0, message: format!("internal error: {text}") }
}

/// Runs the body of an exported function: a failure is remembered for this thread, a panic becomes a status.
#[inline]
pub(super) fn guard(body: impl FnOnce() -> Result<(), Failure>) -> i32 {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => LIMESTONE_OK,
        Ok(Err(failure)) => remember(failure),
        Err(panic) => remember(panicked(&*panic)),
    }
}

/// Version of the library, `major.minor.patch`. The text lives as long as the process.
#[no_mangle]
pub extern "C" fn limestone_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("the version of the package is plain text"),
    };
    VERSION.as_ptr()
}

/// What a status code means. The text lives as long as the process.
#[no_mangle]
pub extern "C" fn limestone_status_text(status: i32) -> *const c_char {
    let text = match status {
        LIMESTONE_OK => c"ok",
        LIMESTONE_ERR_INVALID_ARGUMENT => c"invalid argument",
        LIMESTONE_ERR_INVALID_HANDLE => c"invalid handle",
        LIMESTONE_ERR_WRONG_STATE => c"not allowed in this state",
        LIMESTONE_ERR_IO => c"I/O error",
        LIMESTONE_ERR_LOCKED => c"the log directory is in use",
        LIMESTONE_ERR_UNSUPPORTED_VERSION => c"unsupported format version",
        LIMESTONE_ERR_BROKEN_METADATA => c"manifest or catalog is unusable",
        LIMESTONE_ERR_CORRUPTED => c"acknowledged data is damaged",
        LIMESTONE_ERR_POISONED => c"stopped after a failed write or sync",
        LIMESTONE_ERR_TOO_LARGE => c"too large for a log entry",
        LIMESTONE_ERR_NOT_SUPPORTED => c"not supported by this version",
        LIMESTONE_ERR_NOT_FOUND => c"not found",
        LIMESTONE_ERR_TIMEOUT => c"timed out",
        LIMESTONE_ERR_PANIC => c"internal error",
        _ => c"unknown status",
    };
    text.as_ptr()
}

/// Text of the last failed call of this thread, empty when there was none, and within the last destructors of a thread
/// that ends. Valid until the next failing call of this thread.
#[no_mangle]
pub extern "C" fn limestone_last_error_message() -> *const c_char {
    LAST.try_with(|last| last.borrow().0.as_ptr()).unwrap_or(c"".as_ptr())
}

/// Error number of the system for the last failed call of this thread, 0 when it had none.
#[no_mangle]
pub extern "C" fn limestone_last_error_errno() -> i32 {
    LAST.try_with(|last| last.borrow().1).unwrap_or(0)
}
