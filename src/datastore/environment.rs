// SPDX-License-Identifier: Apache-2.0
//! What the environment sets because nobody passes it: neither an engine, nor whoever starts a replica.

use super::settings::Commit;
use crate::error::Error;
use crate::wal::journal;
use std::ffi::{OsStr, OsString};

/// `journal` (default) or `direct`.
const COMMIT_VARIABLE: &str = "LIMESTONE_COMMIT";
/// Bounds the commit journal, in MiB; default 256.
const JOURNAL_VARIABLE: &str = "LIMESTONE_JOURNAL_MIB";

/// Bounds the memory of a recovery, in MiB, where the settings do not.
const RECOVERY_MEMORY_VARIABLE: &str = "LIMESTONE_RECOVERY_MEMORY_MIB";

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
