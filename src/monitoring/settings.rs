// SPDX-License-Identifier: Apache-2.0
//! Where metrics are served, as the environment says.

use crate::replication::net::dial::resolve;
use crate::replication::settings::{parse_endpoint, Endpoint, SettingsError};
use std::ffi::{OsStr, OsString};
use std::fmt;

/// Where to listen, `tcp://<host>:<port>`; nowhere when it is not set.
pub const LISTEN: &str = "LIMESTONE_METRICS_LISTEN";
/// `1`: also where other machines can connect.
pub const ALLOW_REMOTE: &str = "LIMESTONE_METRICS_ALLOW_REMOTE";

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricsEndpoint(pub(super) Endpoint);

impl fmt::Display for MetricsEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What these variables say; `value` is for instance that of [`std::env::var_os`].
///
/// # Errors
/// [`SettingsError`] for a value that is not understood, and for an address that other machines can reach when that is
/// not allowed.
pub fn metrics_endpoint(
    value: impl Fn(&'static str) -> Option<OsString>,
) -> Result<Option<MetricsEndpoint>, SettingsError> {
    let allowed = match value(ALLOW_REMOTE) {
        None => false,
        Some(given) => match given.to_str() {
            Some("1") => true,
            Some("0") => false,
            _ => return Err(wrong(ALLOW_REMOTE, &given, "0 or 1 was expected".to_owned())),
        },
    };
    let Some(given) = value(LISTEN) else { return Ok(None) };
    let Some(endpoint) = given.to_str().and_then(parse_endpoint) else {
        let expected = "tcp://<host>:<port> was expected; an IPv6 address stands in brackets";
        return Err(wrong(LISTEN, &given, expected.to_owned()));
    };
    let addresses = resolve(&endpoint).map_err(|e| wrong(LISTEN, &given, e.to_string()))?;
    match addresses.iter().find(|address| !address.ip().is_loopback()) {
        Some(address) if !allowed => Err(wrong(
            LISTEN,
            &given,
            format!(
                "{address} can be reached from other machines, where anybody may read: set {ALLOW_REMOTE}=1 to allow it"
            ),
        )),
        _ => Ok(Some(MetricsEndpoint(endpoint))),
    }
}

fn wrong(variable: &str, value: &OsStr, problem: String) -> SettingsError {
    SettingsError { variable: variable.to_owned(), value: value.to_string_lossy().into_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(listen: Option<&str>, allow: Option<&str>) -> Result<Option<MetricsEndpoint>, SettingsError> {
        metrics_endpoint(|name| if name == LISTEN { listen } else { allow }.map(OsString::from))
    }

    #[test]
    fn nothing_is_served_unless_it_is_asked_for_and_to_other_machines_only_when_that_is_allowed() {
        assert_eq!(given(None, Some("1")), Ok(None));
        assert_eq!(given(Some("tcp://127.0.0.1:9"), None).unwrap().unwrap().to_string(), "127.0.0.1:9");
        assert_eq!(given(Some("tcp://[::1]:9"), Some("0")).unwrap().unwrap().to_string(), "[::1]:9");
        for address in ["tcp://0.0.0.0:9", "tcp://[::]:9", "tcp://192.0.2.1:9"] {
            let error = given(Some(address), None).unwrap_err();
            assert!(error.variable == LISTEN && error.problem.contains(ALLOW_REMOTE), "{error}");
            assert!(given(Some(address), Some("1")).unwrap().is_some());
        }
    }

    #[test]
    fn a_value_that_is_not_understood_names_its_variable() {
        for value in ["", "127.0.0.1:9", "http://127.0.0.1:9", "tcp://127.0.0.1", "tcp://127.0.0.1:x"] {
            assert_eq!(given(Some(value), None).unwrap_err().variable, LISTEN);
        }
        assert_eq!(given(None, Some("yes")).unwrap_err().variable, ALLOW_REMOTE);
    }
}
