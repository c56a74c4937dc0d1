// SPDX-License-Identifier: Apache-2.0
//! Carries the log lines of the library to a callback of the caller.

use super::datastore::Context;
use super::status::{guard, Failure, LIMESTONE_ERR_NOT_SUPPORTED};
use crate::lock_order::{Rank, RwLock};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

/// A person must act.
pub const LIMESTONE_LOG_ERROR: i32 = 1;
/// Something was put right or is doubtful.
pub const LIMESTONE_LOG_WARNING: i32 = 2;
/// A step of normal operation.
pub const LIMESTONE_LOG_INFO: i32 = 3;
pub const LIMESTONE_LOG_DEBUG: i32 = 4;
pub const LIMESTONE_LOG_TRACE: i32 = 5;

/// Gets one log line, `message_len` bytes of UTF-8 without a line end; not terminated by a zero. Any thread. Must not
/// throw, and must not call this library: it may
/// run under any of its locks.
#[allow(non_camel_case_types)]
pub type limestone_log_callback =
    Option<unsafe extern "C" fn(context: *mut c_void, level: i32, message: *const c_char, message_len: usize)>;

struct Bridge(RwLock<(limestone_log_callback, Context)>);

static BRIDGE: Bridge = Bridge(RwLock::new(Rank::Log, (None, Context(std::ptr::null_mut()))));
static INSTALLED: OnceLock<bool> = OnceLock::new();

impl Log for Bridge {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let target = self.0.read();
        if let Some(callback) = target.0 {
            let level = match record.level() {
                Level::Error => LIMESTONE_LOG_ERROR,
                Level::Warn => LIMESTONE_LOG_WARNING,
                Level::Info => LIMESTONE_LOG_INFO,
                Level::Debug => LIMESTONE_LOG_DEBUG,
                Level::Trace => LIMESTONE_LOG_TRACE,
            };
            let text = record.args().to_string();
            // SAFETY: whoever set the callback promised that it can be called with its context.
            unsafe { callback(target.1 .0, level, text.as_ptr().cast::<c_char>(), text.len()) }
        }
    }

    fn flush(&self) {}
}

/// Sets the callback that gets the log lines of this process's data stores; null removes it. Process-wide.
///
/// # Safety
/// The callback must be callable with `context` until it is removed.
#[no_mangle]
pub unsafe extern "C" fn limestone_set_log_callback(callback: limestone_log_callback, context: *mut c_void) -> i32 {
    guard(|| {
        if !*INSTALLED.get_or_init(|| log::set_logger(&BRIDGE).is_ok()) {
            let message = "this process already logs through another logger".to_owned();
            return Err(Failure { status: LIMESTONE_ERR_NOT_SUPPORTED, errno: 0, message });
        }
        log::set_max_level(if callback.is_some() { LevelFilter::Debug } else { LevelFilter::Off });
        *BRIDGE.0.write() = (callback, Context(context));
        Ok(())
    })
}
