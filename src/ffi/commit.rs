// SPDX-License-Identifier: Apache-2.0
//! How commits become durable, from the environment: the engine passes nothing for it.

use crate::datastore::Commit;
use crate::error::Error;
use crate::wal::journal;
use std::ffi::OsStr;

/// `direct` (default) or `journal`.
const COMMIT_VARIABLE: &str = "LIMESTONE_COMMIT";
/// Bounds the commit journal, in MiB; default 256.
const JOURNAL_VARIABLE: &str = "LIMESTONE_JOURNAL_MIB";

/// How commits become durable, as the environment says; the default is `direct`.
///
/// # Errors
/// [`Error::InvalidArgument`] names the variable.
pub(super) fn from_environment() -> Result<Commit, Error> {
    let (commit, journal_mib) = (std::env::var_os(COMMIT_VARIABLE), std::env::var_os(JOURNAL_VARIABLE));
    parse(commit.as_deref(), journal_mib.as_deref())
}

fn parse(commit: Option<&OsStr>, journal_mib: Option<&OsStr>) -> Result<Commit, Error> {
    let mut settings = journal::Settings::default();
    if let Some(value) = journal_mib {
        let parsed = value.to_str().and_then(|text| text.parse::<u64>().ok()).and_then(|mib| mib.checked_mul(1 << 20));
        settings = match parsed.filter(|bytes| *bytes > 0) {
            Some(bytes) => settings.bytes_max(bytes),
            None => {
                return Err(Error::InvalidArgument(format!(
                    "{JOURNAL_VARIABLE} is {value:?}, a positive number of MiB was expected"
                )))
            }
        };
    }
    match commit.map(|value| value.to_str()) {
        None | Some(Some("direct")) => Ok(Commit::Direct),
        Some(Some("journal")) => Ok(Commit::Journal(settings)),
        Some(_) => Err(Error::InvalidArgument(format!(
            "{COMMIT_VARIABLE} is {:?}, \"direct\" or \"journal\" was expected",
            commit.unwrap_or_default()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(commit: Option<&str>, mib: Option<&str>) -> Result<Commit, Error> {
        parse(commit.map(OsStr::new), mib.map(OsStr::new))
    }

    #[test]
    fn commits_are_direct_unless_the_journal_is_asked_for() {
        assert_eq!(given(None, None).unwrap(), Commit::Direct);
        assert_eq!(given(Some("direct"), Some("64")).unwrap(), Commit::Direct);
        let settings = journal::Settings::default();
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
