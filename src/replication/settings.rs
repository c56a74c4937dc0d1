// SPDX-License-Identifier: Apache-2.0
//! What is set for replication: environment variables, because the engine passes nothing. A name or a value that is not
//! understood is an error that names the variable: a data store without the replica that somebody wanted is worse than
//! one that does not start.

pub use super::addresses::{parse_endpoint, Endpoint, Replica};
use super::addresses::{parse_endpoints, parse_replicas};
use super::native::protocol::message::{LANES_MAX, VERSION, VERSION_OLDEST, VERSION_USUAL};
use super::native::protocol::Millis;
use super::net::tls::{Certificates, Files, Part};
use super::policy::rule;
use super::secret::Secret;
use crate::directory::Keep;
use crate::scrub::Scrubbing;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// All variables of ours begin so.
const PREFIX: &str = "TSURUGI_REPLICATION_";
const ENDPOINT: &str = "TSURUGI_REPLICATION_ENDPOINT";
const REPLICAS: &str = "TSURUGI_REPLICATION_REPLICAS";
const QUORUM: &str = "TSURUGI_REPLICATION_QUORUM";
const PROTOCOL: &str = "TSURUGI_REPLICATION_PROTOCOL";
const MODE: &str = "TSURUGI_REPLICATION_MODE";
const TIMEOUT_MS: &str = "TSURUGI_REPLICATION_TIMEOUT_MS";
const SECRET_FILE: &str = "TSURUGI_REPLICATION_SECRET_FILE";
const LANES: &str = "TSURUGI_REPLICATION_LANES";
const ALLOW_NO_SECRET: &str = "TSURUGI_REPLICATION_ALLOW_NO_SECRET";
const RETAIN_MB: &str = "TSURUGI_REPLICATION_RETAIN_MB";
const CUT_OFF_MAX: &str = "TSURUGI_REPLICATION_CUT_OFF_MAX";
const CUT_OFF_MB: &str = "TSURUGI_REPLICATION_CUT_OFF_MB";
const SCRUB_MB_S: &str = "TSURUGI_REPLICATION_SCRUB_MB_S";
const SCRUB_PERIOD_S: &str = "TSURUGI_REPLICATION_SCRUB_PERIOD_S";
const VERSION_MIN: &str = "TSURUGI_REPLICATION_VERSION_MIN";
const TLS_CERT: &str = "TSURUGI_REPLICATION_TLS_CERT";
const TLS_KEY: &str = "TSURUGI_REPLICATION_TLS_KEY";
const TLS_CA: &str = "TSURUGI_REPLICATION_TLS_CA";
const TLS_CRL: &str = "TSURUGI_REPLICATION_TLS_CRL";
const TLS_PEER_NAME: &str = "TSURUGI_REPLICATION_TLS_PEER_NAME";
const KNOWN: [&str; 20] = [
    ENDPOINT,
    REPLICAS,
    QUORUM,
    PROTOCOL,
    MODE,
    TIMEOUT_MS,
    SECRET_FILE,
    LANES,
    ALLOW_NO_SECRET,
    RETAIN_MB,
    CUT_OFF_MAX,
    CUT_OFF_MB,
    SCRUB_MB_S,
    SCRUB_PERIOD_S,
    VERSION_MIN,
    TLS_CERT,
    TLS_KEY,
    TLS_CA,
    TLS_CRL,
    TLS_PEER_NAME,
];
/// Variables of the original; only that they are there counts.
const ASYNC_SESSION_CLOSE: &str = "REPLICATION_ASYNC_SESSION_CLOSE";
const ASYNC_GROUP_COMMIT: &str = "REPLICATION_ASYNC_GROUP_COMMIT";

const TIMEOUT_DEFAULT_MS: u64 = 10_000;
/// A day; more is a mistake.
const TIMEOUT_MAX_MS: u64 = 86_400_000;
const RETAIN_DEFAULT_MB: u64 = 4096;

/// A variable that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} is \"{value}\": {problem}")]
pub struct SettingsError {
    pub variable: String,
    pub value: String,
    /// What was expected, or what is wrong with the file that it names.
    pub problem: String,
}

/// What is spoken on the wire; both sides must be set alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// This project's own.
    #[default]
    Native,
    /// The original's.
    Upstream,
}

/// What callers at the notify level wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The replica, for as long as it takes.
    #[default]
    Strict,
    /// The replica, but after this long without it the local disk only, until it has caught up.
    Degrade(Duration),
    /// The local disk only.
    Async,
}

impl Mode {
    /// The same for the logic that carries it out.
    pub fn policy(self) -> rule::Mode {
        match self {
            Mode::Strict => rule::Mode::Strict,
            Mode::Degrade(after) => rule::Mode::Degrade { after: after.as_millis() as Millis },
            Mode::Async => rule::Mode::Async,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mode::Strict => f.write_str("strict"),
            Mode::Degrade(after) => write!(f, "degrade {}", after.as_millis()),
            Mode::Async => f.write_str("async"),
        }
    }
}

/// Everything that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicationSettings {
    /// Where the one replica is, or where it listens. Empty when several replicas are set.
    pub endpoints: Vec<Endpoint>,
    /// The replicas of a primary: at least one.
    pub replicas: Vec<Replica>,
    /// How many of them must have an epoch before it counts as propagated. Default: so many that they and the primary
    /// are a majority of all copies.
    pub quorum: usize,
    /// Default: native.
    pub protocol: Protocol,
    /// Default: strict.
    pub mode: Mode,
    /// Bounds connecting, a handshake, silence on a connection, a replica's epoch that does not move, and a shutdown.
    /// Default: 10 s.
    pub timeout: Duration,
    /// Default: none; then only peers on this machine are accepted.
    pub secret: Secret,
    /// With these, the two sides speak over TLS only. Default: none.
    pub tls: Option<Arc<Certificates>>,
    /// The oldest version of the native protocol that is spoken. Default: the present one.
    pub version_min: u16,
    /// Data connections. Default: 1.
    pub lanes: usize,
    /// Whether a peer elsewhere is accepted without a secret. Default: no.
    pub allow_no_secret: bool,
    /// How much log a connected replica that is behind keeps from being compacted. Default: 4 GiB.
    pub retain_bytes: u64,
    /// How much of what rewinds cut off a replica keeps. Default: 4 directories, 10 GiB.
    pub keep_cut_off: Keep,
    /// How a replica reads its log files again and again; `None`: it does not. Default: 8 MiB/s, each day.
    pub scrubbing: Option<Scrubbing>,
    /// Of the upstream protocol: the end of a session is sent before the local sync. Default: no.
    pub async_session_close: bool,
    /// Of the upstream protocol: a group commit is sent before the local epoch record. Default: no.
    pub async_group_commit: bool,
}

impl ReplicationSettings {
    /// How long a shutdown waits for a replica that is connected to confirm what is stored: the time-out, and a tenth
    /// of it where nobody waits for replicas.
    pub fn shutdown_patience(&self) -> Duration {
        match self.mode {
            Mode::Strict | Mode::Degrade(_) => self.timeout,
            Mode::Async => self.timeout / 10,
        }
    }

    /// What is kept of what is cut off, whether a replica is set or not.
    ///
    /// # Errors
    /// [`SettingsError`] for a value that is not understood.
    pub fn parse_keep_cut_off(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Keep, SettingsError> {
        Variables(variables.into_iter().collect()).keep_cut_off()
    }

    /// The settings of this process's environment; `None` when no replica is set.
    ///
    /// # Errors
    /// [`SettingsError`] for a name that begins like ours and is not known, and for a value that is not understood.
    pub fn from_environment() -> Result<Option<ReplicationSettings>, SettingsError> {
        ReplicationSettings::parse(std::env::vars_os())
    }

    /// The same from any set of variables.
    pub fn parse(
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Option<ReplicationSettings>, SettingsError> {
        let mut given = BTreeMap::new();
        for (name, value) in variables {
            if name.as_bytes().starts_with(PREFIX.as_bytes()) && !KNOWN.iter().any(|known| name == *known) {
                let problem = format!("there is no such variable; those are known: {}", KNOWN.join(", "));
                return Err(error(&name.to_string_lossy(), &value, problem));
            }
            given.insert(name, value);
        }
        let given = Variables(given);
        let endpoints = given.get(ENDPOINT, parse_endpoints)?.unwrap_or_default();
        let replicas = given.replicas(&endpoints)?;
        let settings = ReplicationSettings {
            quorum: given.quorum(replicas.len())?,
            endpoints,
            replicas,
            protocol: given.get(PROTOCOL, parse_protocol)?.unwrap_or_default(),
            mode: given.get(MODE, parse_mode)?.unwrap_or_default(),
            timeout: given
                .get(TIMEOUT_MS, |text| parse_number(text, 1, TIMEOUT_MAX_MS, "a number of milliseconds"))?
                .map_or(Duration::from_millis(TIMEOUT_DEFAULT_MS), Duration::from_millis),
            secret: given.secret(SECRET_FILE)?,
            tls: given.certificates()?.map(Arc::new),
            version_min: given
                .get(VERSION_MIN, |text| parse_number(text, VERSION_OLDEST.into(), VERSION.into(), "a version"))?
                .map_or(VERSION_USUAL, |version| version as u16),
            lanes: given
                .get(LANES, |text| parse_number(text, 1, LANES_MAX.into(), "a number of connections"))?
                .unwrap_or(1) as usize,
            allow_no_secret: given.get(ALLOW_NO_SECRET, parse_switch)?.unwrap_or(false),
            retain_bytes: given
                .get(RETAIN_MB, |text| parse_number(text, 0, u64::MAX >> 20, "a number of megabytes (2^20 bytes)"))?
                .unwrap_or(RETAIN_DEFAULT_MB)
                << 20,
            keep_cut_off: given.keep_cut_off()?,
            scrubbing: given.scrubbing()?,
            async_session_close: given.0.contains_key(OsStr::new(ASYNC_SESSION_CLOSE)),
            async_group_commit: given.0.contains_key(OsStr::new(ASYNC_GROUP_COMMIT)),
        };
        match settings.replicas.is_empty() {
            true => given.check_without_endpoint(settings.mode).map(|()| None),
            false => given.check_protocol(settings).map(Some),
        }
    }
}

struct Variables(BTreeMap<OsString, OsString>);

impl Variables {
    fn get<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, SettingsError> {
        let Some(value) = self.0.get(OsStr::new(name)) else {
            return Ok(None);
        };
        let text = value.to_str().ok_or_else(|| "text in UTF-8 was expected".to_owned());
        text.and_then(parse).map(Some).map_err(|problem| error(name, value, problem))
    }

    /// The replicas of a primary; the variable with one list of addresses stands for one replica.
    fn replicas(&self, endpoints: &[Endpoint]) -> Result<Vec<Replica>, SettingsError> {
        match (self.0.get(OsStr::new(REPLICAS)), endpoints.first()) {
            (Some(value), Some(_)) => {
                let problem = format!("{ENDPOINT} is set as well, which stands for one replica: set one of both");
                Err(error(REPLICAS, value, problem))
            }
            (Some(_), None) => Ok(self.get(REPLICAS, parse_replicas)?.unwrap_or_default()),
            (None, Some(first)) => Ok(vec![Replica { name: first.to_string(), endpoints: endpoints.to_vec() }]),
            (None, None) => Ok(Vec::new()),
        }
    }

    /// With the default, whatever majority of all copies is left has at least one that has everything.
    fn quorum(&self, replicas: usize) -> Result<usize, SettingsError> {
        let parse = |text: &str| match replicas {
            0 => Ok(0),
            most => parse_number(text, 1, most as u64, "a number of replicas"),
        };
        Ok(self.get(QUORUM, parse)?.map_or(replicas.div_ceil(2), |quorum| quorum as usize))
    }

    /// Something of replication is set, but not where the replica is. Who demands that replicas have everything must
    /// not get a data store that runs without; else a warning does.
    fn check_without_endpoint(&self, mode: Mode) -> Result<(), SettingsError> {
        let problem = format!("{ENDPOINT} or {REPLICAS} is not set, without which there is no replication");
        for name in KNOWN {
            let Some(value) = self.0.get(OsStr::new(name)) else { continue };
            if name == QUORUM || (name == MODE && mode != Mode::Async) {
                return Err(error(name, value, format!("{problem}: set both or none")));
            }
            log::warn!("{name} is set and does nothing: {problem}");
        }
        Ok(())
    }

    /// What a protocol cannot do must not be taken for done.
    fn check_protocol(&self, settings: ReplicationSettings) -> Result<ReplicationSettings, SettingsError> {
        let unknown = [
            (SECRET_FILE, "the upstream protocol knows no secret and would protect nothing"),
            (VERSION_MIN, "the upstream protocol has its own versions"),
            (TLS_CERT, "the upstream protocol knows no TLS"),
            (REPLICAS, "the upstream protocol knows one replica"),
            (QUORUM, "the upstream protocol knows one replica"),
        ];
        let set = unknown.into_iter().find_map(|(name, why)| Some((name, self.0.get(OsStr::new(name))?, why)));
        match set.filter(|_| settings.protocol == Protocol::Upstream) {
            None => Ok(settings),
            Some((name, value, why)) => Err(error(name, value, format!("{why}: unset it, or set {PROTOCOL}=native"))),
        }
    }

    fn keep_cut_off(&self) -> Result<Keep, SettingsError> {
        let directories = |text: &str| parse_number(text, 1, u64::MAX, "a number of directories");
        let megabytes = |text: &str| parse_number(text, 0, u64::MAX >> 20, "a number of megabytes (2^20 bytes)");
        let default = Keep::default();
        Ok(Keep {
            directories: self.get(CUT_OFF_MAX, directories)?.unwrap_or(default.directories),
            bytes: self.get(CUT_OFF_MB, megabytes)?.map_or(default.bytes, |mb| mb << 20),
        })
    }

    fn scrubbing(&self) -> Result<Option<Scrubbing>, SettingsError> {
        let expected = "a number of megabytes (2^20 bytes) per second";
        let megabytes = |text: &str| parse_number(text, 0, Scrubbing::MIB_PER_S_MAX, expected);
        let seconds = |text: &str| parse_number(text, 1, Scrubbing::PERIOD_S_MAX, "a number of seconds");
        let rate = self.get(SCRUB_MB_S, megabytes)?.unwrap_or(Scrubbing::DEFAULT_MIB_PER_S);
        Ok(Scrubbing::at(rate, self.get(SCRUB_PERIOD_S, seconds)?.unwrap_or(Scrubbing::DEFAULT_PERIOD_S)))
    }

    /// All that TLS needs, or nothing of it.
    fn certificates(&self) -> Result<Option<Certificates>, SettingsError> {
        let file = |text: &str| match text.is_empty() {
            true => Err("the path of a file was expected".to_owned()),
            false => Ok(PathBuf::from(text)),
        };
        let all = [TLS_CERT, TLS_KEY, TLS_CA, TLS_CRL, TLS_PEER_NAME];
        let Some((set, value)) = all.iter().find_map(|name| Some((name, self.0.get(OsStr::new(name))?))) else {
            return Ok(None);
        };
        let needed = |name| {
            let missing = || error(set, value, format!("{name} is not set as well, without which there is no TLS"));
            self.get(name, file)?.ok_or_else(missing)
        };
        let files = Files {
            certificate: needed(TLS_CERT)?,
            key: needed(TLS_KEY)?,
            authorities: needed(TLS_CA)?,
            revoked: self.get(TLS_CRL, file)?,
            peer_name: self.get(TLS_PEER_NAME, |text| Ok(text.to_owned()))?,
        };
        let wrong = |part| match part {
            Part::Certificate => TLS_CERT,
            Part::Key => TLS_KEY,
            Part::Authorities => TLS_CA,
            Part::Revoked => TLS_CRL,
            Part::PeerName => TLS_PEER_NAME,
        };
        let opened = Certificates::open(files);
        opened.map(Some).map_err(|e| error(wrong(e.part), OsStr::new(&e.path), e.problem))
    }

    fn secret(&self, name: &str) -> Result<Secret, SettingsError> {
        let Some(value) = self.0.get(OsStr::new(name)) else {
            return Ok(Secret::default());
        };
        if value.is_empty() {
            return Err(error(name, value, "the path of a file was expected".to_owned()));
        }
        Secret::read(Path::new(value)).map_err(|problem| error(name, value, problem.to_string()))
    }
}

fn error(variable: &str, value: &OsStr, problem: String) -> SettingsError {
    let value = value.to_string_lossy().into_owned();
    SettingsError { variable: variable.to_owned(), value, problem }
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "native" => Ok(Protocol::Native),
        "upstream" => Ok(Protocol::Upstream),
        _ => Err("native or upstream was expected".to_owned()),
    }
}

fn parse_mode(text: &str) -> Result<Mode, String> {
    let expected = || "strict, async or degrade <milliseconds> was expected".to_owned();
    match text {
        "strict" => Ok(Mode::Strict),
        "async" => Ok(Mode::Async),
        _ => {
            let after =
                text.strip_prefix("degrade").and_then(|rest| rest.strip_prefix([' ', ':'])).ok_or_else(expected)?;
            let ms =
                parse_number(after.trim(), 0, TIMEOUT_MAX_MS, "a number of milliseconds").map_err(|_| expected())?;
            Ok(Mode::Degrade(Duration::from_millis(ms)))
        }
    }
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("0 or 1 was expected".to_owned()),
    }
}

fn parse_number(text: &str, min: u64, max: u64, what: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let value = digits.then(|| text.parse().ok()).flatten().filter(|value| (min..=max).contains(value));
    value.ok_or_else(|| format!("{what} between {min} and {max} was expected"))
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
