// SPDX-License-Identifier: Apache-2.0
//! What the environment sets because nobody passes it: neither an engine, nor whoever starts a replica.

use super::settings::Commit;
use crate::compaction::SelfCompaction;
use crate::error::Error;
use crate::scrub::Scrubbing;
use crate::wal::journal;
use std::ffi::{OsStr, OsString};

/// `journal` (default) or `direct`.
const COMMIT_VARIABLE: &str = "LIMESTONE_COMMIT";
/// Bounds the commit journal, in MiB; default 256.
const JOURNAL_VARIABLE: &str = "LIMESTONE_JOURNAL_MIB";

/// Bounds the memory of a recovery, in MiB, where the settings do not.
const RECOVERY_MEMORY_VARIABLE: &str = "LIMESTONE_RECOVERY_MEMORY_MIB";

/// Bounds the memory of an online compaction, in MiB, where the settings do not.
const COMPACTION_MEMORY_VARIABLE: &str = "LIMESTONE_COMPACTION_MEMORY_MIB";
/// `auto` (default) or `off`: whether the log is compacted without being asked.
const COMPACTION_VARIABLE: &str = "LIMESTONE_COMPACTION";
/// Log below which that is not worth it, in MiB; default 256.
const COMPACTION_MIN_VARIABLE: &str = "LIMESTONE_COMPACTION_MIN_MIB";
/// The share of the log in log and compacted file from which on it is, in percent; default 50.
const COMPACTION_SHARE_VARIABLE: &str = "LIMESTONE_COMPACTION_SHARE";

/// How fast log files are read again, in MiB a second, and how long after they were last, in seconds; 0 MiB: never.
const SCRUB_VARIABLE: &str = "LIMESTONE_SCRUB_MIB_S";
const SCRUB_PERIOD_VARIABLE: &str = "LIMESTONE_SCRUB_PERIOD_S";

/// How commits become durable, as these variables say; the default is a journal. `value` is for instance that of
/// [`std::env::var_os`].
///
/// # Errors
/// [`Error::InvalidArgument`] names the variable.
pub fn commit(value: impl Fn(&'static str) -> Option<OsString>) -> Result<Commit, Error> {
    parse_commit(value(COMMIT_VARIABLE).as_deref(), value(JOURNAL_VARIABLE).as_deref())
}

/// What bounds the memory of a recovery, in bytes; 0 when the environment says nothing.
///
/// # Errors
/// [`Error::InvalidArgument`] names the variable.
pub fn recovery_memory_bytes() -> Result<u64, Error> {
    let value = std::env::var_os(RECOVERY_MEMORY_VARIABLE);
    value.map_or(Ok(0), |value| parse_mib(RECOVERY_MEMORY_VARIABLE, &value))
}

/// What bounds the memory of a compaction beside writers, in bytes; 0 when the variable is not set. `value` is as for
/// [`self_compaction`].
///
/// # Errors
/// [`Error::InvalidArgument`] names the variable.
pub fn compaction_memory_bytes(value: impl Fn(&'static str) -> Option<OsString>) -> Result<u64, Error> {
    value(COMPACTION_MEMORY_VARIABLE).map_or(Ok(0), |value| parse_mib(COMPACTION_MEMORY_VARIABLE, &value))
}

/// When the log is compacted without being asked, as these variables say; `None` for never. `value` is for instance
/// that of [`std::env::var_os`].
///
/// # Errors
/// [`Error::InvalidArgument`] names the variable.
pub fn self_compaction(value: impl Fn(&'static str) -> Option<OsString>) -> Result<Option<SelfCompaction>, Error> {
    let mut rule = SelfCompaction::default();
    if let Some(mib) = value(COMPACTION_MIN_VARIABLE) {
        rule = rule.log_bytes_min(parse_mib(COMPACTION_MIN_VARIABLE, &mib)?);
    }
    if let Some(share) = value(COMPACTION_SHARE_VARIABLE) {
        let parsed = share.to_str().and_then(|text| text.parse().ok()).filter(|percent| (1..=99).contains(percent));
        rule = rule.share_percent(parsed.ok_or_else(|| {
            let expected = "a whole number of percent from 1 to 99 was expected";
            Error::InvalidArgument(format!("{COMPACTION_SHARE_VARIABLE} is {share:?}, {expected}"))
        })?);
    }
    match value(COMPACTION_VARIABLE) {
        None => Ok(Some(rule)),
        Some(text) if text == "auto" => Ok(Some(rule)),
        Some(text) if text == "off" => Ok(None),
        Some(text) => {
            Err(Error::InvalidArgument(format!("{COMPACTION_VARIABLE} is {text:?}, \"auto\" or \"off\" was expected")))
        }
    }
}

/// When log files are read again, as these variables say; `None` for never. `value` is as for [`self_compaction`].
///
/// # Errors
/// [`Error::InvalidArgument`] names the variable.
pub fn scrubbing(value: impl Fn(&'static str) -> Option<OsString>) -> Result<Option<Scrubbing>, Error> {
    let number = |variable, (min, max): (u64, u64), default| -> Result<u64, Error> {
        let Some(given) = value(variable) else { return Ok(default) };
        let parsed = given.to_str().and_then(|text| text.parse().ok()).filter(|number| (min..=max).contains(number));
        parsed.ok_or_else(|| {
            let expected = format!("a whole number from {min} to {max} was expected");
            Error::InvalidArgument(format!("{variable} is {given:?}, {expected}"))
        })
    };
    let rate = number(SCRUB_VARIABLE, (0, Scrubbing::MIB_PER_S_MAX), Scrubbing::DEFAULT_MIB_PER_S)?;
    let period = number(SCRUB_PERIOD_VARIABLE, (1, Scrubbing::PERIOD_S_MAX), Scrubbing::DEFAULT_PERIOD_S)?;
    Ok(Scrubbing::at(rate, period))
}

fn parse_commit(commit: Option<&OsStr>, journal_mib: Option<&OsStr>) -> Result<Commit, Error> {
    let mut settings = journal::Settings::default();
    if let Some(value) = journal_mib {
        settings = settings.bytes_max(parse_mib(JOURNAL_VARIABLE, value)?);
    }
    match commit.map(|value| value.to_str()) {
        None | Some(Some("journal")) => Ok(Commit::Journal(settings)),
        Some(Some("direct")) => Ok(Commit::Direct),
        Some(_) => Err(Error::InvalidArgument(format!(
            "{COMMIT_VARIABLE} is {:?}, \"journal\" or \"direct\" was expected",
            commit.unwrap_or_default()
        ))),
    }
}

/// A number of MiB, in bytes.
fn parse_mib(variable: &str, value: &OsStr) -> Result<u64, Error> {
    let parsed = value.to_str().and_then(|text| text.parse::<u64>().ok()).and_then(|mib| mib.checked_mul(1 << 20));
    parsed.filter(|bytes| *bytes > 0).ok_or_else(|| {
        Error::InvalidArgument(format!("{variable} is {value:?}, a positive number of MiB was expected"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(commit: Option<&str>, mib: Option<&str>) -> Result<Commit, Error> {
        parse_commit(commit.map(OsStr::new), mib.map(OsStr::new))
    }

    #[test]
    fn commits_go_through_a_journal_unless_direct_ones_are_asked_for() {
        assert_eq!(given(Some("direct"), Some("64")).unwrap(), Commit::Direct);
        let settings = journal::Settings::default();
        assert_eq!(given(None, None).unwrap(), Commit::Journal(settings));
        assert_eq!(given(Some("journal"), None).unwrap(), Commit::Journal(settings));
        assert_eq!(given(Some("journal"), Some("64")).unwrap(), Commit::Journal(settings.bytes_max(64 << 20)));
    }

    #[test]
    fn the_log_is_compacted_by_itself_unless_that_is_off() {
        let given = |all: &[(&str, &str)]| {
            let all: std::collections::HashMap<&str, &str> = all.iter().copied().collect();
            self_compaction(|name| all.get(name).map(OsString::from))
        };
        let default = SelfCompaction::default();
        assert_eq!(given(&[]).unwrap(), Some(default));
        assert_eq!(given(&[(COMPACTION_VARIABLE, "auto")]).unwrap(), Some(default));
        assert_eq!(given(&[(COMPACTION_VARIABLE, "off")]).unwrap(), None);
        let set = [(COMPACTION_MIN_VARIABLE, "10"), (COMPACTION_SHARE_VARIABLE, "30")];
        assert_eq!(given(&set).unwrap(), Some(default.log_bytes_min(10 << 20).share_percent(30)));
        let wrong = [(COMPACTION_VARIABLE, "on"), (COMPACTION_MIN_VARIABLE, "0"), (COMPACTION_SHARE_VARIABLE, "100")];
        for (name, value) in wrong {
            let message = given(&[(name, value)]).unwrap_err().to_string();
            assert!(message.contains(name) && message.contains(value), "{message}");
        }
    }

    #[test]
    fn log_files_are_scrubbed_each_day_unless_that_is_off() {
        let given = |rate: Option<&str>, period: Option<&str>| {
            let of = |name| if name == SCRUB_VARIABLE { rate } else { period };
            scrubbing(|name| of(name).map(OsString::from))
        };
        assert_eq!(given(None, None).unwrap(), Scrubbing::at(8, 86_400));
        assert_eq!(given(Some("20"), Some("60")).unwrap(), Scrubbing::at(20, 60));
        assert_eq!(given(Some("0"), None).unwrap(), None);
        for (rate, period) in [(Some("-1"), None), (Some("8m"), None), (None, Some("0")), (None, Some("99999999999"))] {
            let message = given(rate, period).unwrap_err().to_string();
            assert!(message.contains("LIMESTONE_SCRUB_") && message.contains("was expected"), "{message}");
        }
    }

    #[test]
    fn a_malformed_value_is_refused_and_names_its_variable() {
        for commit in ["", "Journal", "on", "journal "] {
            let message = given(Some(commit), None).unwrap_err().to_string();
            assert!(message.contains(COMMIT_VARIABLE) && message.contains(&format!("{commit:?}")), "{message}");
        }
        for mib in ["", "0", "-1", "1g", "99999999999999999999"] {
            let message = given(Some("journal"), Some(mib)).unwrap_err().to_string();
            assert!(message.contains(JOURNAL_VARIABLE) && message.contains(&format!("{mib:?}")), "{message}");
        }
    }
}
