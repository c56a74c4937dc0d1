// SPDX-License-Identifier: Apache-2.0
//! Serves a directory as the replica of a primary until the program is to end.

use super::arguments::Arguments;
use super::report::{Environment, Output, DIRECTORY, DISK, DONE, ENDPOINT, IN_USE, SECRET_FILE, SESSION, USAGE};
use super::service_manager::ServiceManager;
use super::signals::Signals;
use super::{rejoin, status};
use crate::datastore::{environment, Commit};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::monitoring::settings::{metrics_endpoint, MetricsEndpoint};
use crate::monitoring::Monitoring;
use crate::replication::native::replica::{open, Options, Server};
use crate::replication::net::listener;
use crate::replication::replica_store::StandbyStore;
use crate::replication::report::Report;
use crate::replication::secret::Secret;
use crate::replication::settings::{Endpoint, Protocol, ReplicationSettings};
use crate::replication::status::{Known, LinkState, Status};
use crate::replication::upstream;
use crate::vfs::{MeteredFs, RealFs};
use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::Arc;
use std::time::Duration;

/// How often the main thread looks whether the program shall end.
const POLL: Duration = Duration::from_millis(50);

/// When it ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    Stopped,
    FirstSession,
    /// The directory has everything that the primary has stored, or the primary was refused.
    Rejoined,
}

/// Serves until it is to end.
pub fn run(
    logdir: &Path,
    arguments: &Arguments,
    until: Until,
    environment: Environment,
    signals: &Signals,
    output: &mut Output<'_>,
) -> i32 {
    let service = ServiceManager::of(&environment);
    let settings = match settings(arguments, environment) {
        Ok(settings) => settings,
        Err(Unusable::NotSet) => return output.misused(&format!("{ENDPOINT} environment variable is not set.")),
        Err(Unusable::Listen(text)) => return output.fail(USAGE, &text),
        Err(Unusable::Endpoint) => {
            output.print("Endpoint: 0.0.0.0:0\n");
            return output.misused(&format!("Invalid endpoint specified in {ENDPOINT}."));
        }
        Err(Unusable::Other(text)) => return output.fail(USAGE, &text),
    };
    let Served { settings, commit, secret_file, metrics } = settings;
    let metrics_at = metrics.as_ref();
    // There is at least one, or they would not be there.
    let Some(endpoint) = settings.endpoints.first() else {
        return output.misused(&format!("{ENDPOINT} environment variable is not set."));
    };
    if until != Until::Rejoined || !output.json {
        output.print(&format!("Endpoint: {endpoint}\n"));
    }
    let rewind = arguments.rewind || until == Until::Rejoined;
    let secret_file = secret_file.as_deref();
    let how = How { settings: &settings, commit, secret_file, metrics_at, service, until, rewind };
    match settings.protocol {
        Protocol::Native => native(logdir, endpoint, how, signals, output),
        Protocol::Upstream if until != Until::Stopped || rewind => {
            let text = "--once, --rewind and rejoin need the native protocol: the original's knows no histories";
            output.fail(USAGE, text)
        }
        Protocol::Upstream => of_upstream(logdir, endpoint, how, signals, output),
    }
}

/// How to serve.
struct Served {
    settings: ReplicationSettings,
    commit: Commit,
    secret_file: Option<PathBuf>,
    metrics: Option<MetricsEndpoint>,
}

enum Unusable {
    NotSet,
    Endpoint,
    /// What was given with `--listen`.
    Listen(String),
    Other(String),
}

fn settings(arguments: &Arguments, environment: Environment) -> Result<Served, Unusable> {
    let given = [(ENDPOINT, &arguments.listen), (SECRET_FILE, &arguments.secret_file)];
    let mut variables = environment;
    for (name, value) in given {
        if let Some(value) = value {
            variables.retain(|(known, _)| known != name);
            variables.push((name.into(), value.clone()));
        }
    }
    let secret_file = variables.iter().find(|(name, _)| name == SECRET_FILE).map(|(_, path)| PathBuf::from(path));
    let wrong_endpoint = || match &arguments.listen {
        Some(given) => Unusable::Listen(format!("--listen {}: expected tcp://HOST:PORT", given.to_string_lossy())),
        None => Unusable::Endpoint,
    };
    let value = |wanted: &str| variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let commit = environment::commit(value).map_err(|e| Unusable::Other(e.to_string()))?;
    let is_set = variables.iter().any(|(name, _)| name == OsStr::new(ENDPOINT));
    let metrics = metrics_endpoint(value).map_err(|e| Unusable::Other(e.to_string()))?;
    match ReplicationSettings::parse(variables) {
        // Replicas of its own do not say where it listens.
        Ok(Some(settings)) if settings.endpoints.is_empty() => Err(Unusable::NotSet),
        Ok(Some(settings)) => Ok(Served { settings, commit, secret_file, metrics }),
        Ok(None) if !is_set => Err(Unusable::NotSet),
        Ok(None) => Err(wrong_endpoint()),
        Err(e) if e.variable == ENDPOINT => Err(wrong_endpoint()),
        Err(e) => Err(Unusable::Other(e.to_string())),
    }
}

fn refused_directory(e: &Error, output: &mut Output<'_>) -> i32 {
    let exit = if matches!(e, Error::Locked(_)) { IN_USE } else { DIRECTORY };
    output.fail(exit, &e.to_string())
}

fn listen(endpoint: &Endpoint, output: &mut Output<'_>) -> Result<TcpListener, i32> {
    listener::listen(endpoint).map_err(|e| {
        log::error!("replication: {endpoint}: {e}");
        output.fail(USAGE, "Failed to bind socket to the specified address")
    })
}

/// How a protocol is served.
struct How<'a> {
    settings: &'a ReplicationSettings,
    commit: Commit,
    secret_file: Option<&'a Path>,
    metrics_at: Option<&'a MetricsEndpoint>,
    service: ServiceManager,
    until: Until,
    rewind: bool,
}

fn native(logdir: &Path, endpoint: &Endpoint, how: How<'_>, signals: &Signals, output: &mut Output<'_>) -> i32 {
    let How { settings, commit, secret_file, metrics_at, mut service, until, rewind } = how;
    let once = until == Until::FirstSession;
    let options = Options {
        timeout: settings.timeout,
        secret: settings.secret.clone(),
        allow_no_secret: settings.allow_no_secret,
        once,
        commit,
    };
    let (disk, metrics) = metered();
    let opened = match open(disk, logdir, options) {
        Ok(opened) if rewind => opened.allow_rewind(settings.keep_cut_off),
        Ok(opened) => opened,
        Err(e) => return refused_directory(&e, output),
    };
    let listener = match listen(endpoint, output) {
        Ok(listener) => listener,
        Err(exit) => return exit,
    };
    let mut server = match opened.serve(listener) {
        Ok(server) => server,
        Err(e) => return output.fail(USAGE, &format!("cannot serve: {e}")),
    };
    let _answers = answer(logdir, (metrics_at, metrics), server.status_source());
    announce(output, server.address(), until == Until::Rejoined && output.json);
    service.ready();
    let has_ended = |server: &Server| match until {
        Until::Stopped => false,
        Until::FirstSession => server.first_session().is_some(),
        Until::Rejoined => matches!(server.status().state, LinkState::Streaming | LinkState::Refused),
    };
    while !signals.stop.load(SeqCst) && server.failure().is_none() && !has_ended(&server) {
        if signals.reload.swap(false, SeqCst) {
            read_secret_again(secret_file, |secret| server.set_secret(secret));
        }
        service.alive();
        std::thread::sleep(POLL);
    }
    service.stopping();
    let status = server.status();
    server.stop();
    let durable = server.durable();
    match (server.failure(), server.first_session()) {
        (Some(failure), _) => {
            log::error!("tgreplica ends, durable epoch {durable}: {failure}");
            DISK
        }
        (None, Some(Err(reason))) if once && !signals.stop.load(SeqCst) => {
            log::error!("tgreplica ends, durable epoch {durable}: {reason}");
            SESSION
        }
        (None, _) if until == Until::Rejoined => rejoin::report(logdir, &status, server.rewound(), output),
        _ => {
            log::info!("tgreplica ends, durable epoch {durable}");
            DONE
        }
    }
}

fn announce(output: &mut Output<'_>, address: std::net::SocketAddr, in_the_log_only: bool) {
    log::info!("replication: listening on {address}");
    if !in_the_log_only {
        output.print("[replica] initialized and listening\n");
    }
}

/// A secret that cannot be read leaves the former one in force.
fn read_secret_again(file: Option<&Path>, set: impl FnOnce(Secret)) {
    match file.map(|file| (file.display(), Secret::read(file))) {
        None => log::info!("SIGHUP: there is no secret file to read again"),
        Some((file, Ok(secret))) => {
            set(secret);
            log::info!("SIGHUP: the secret was read again from {file}; it holds for connections from now on");
        }
        Some((_, Err(e))) => log::error!("SIGHUP: the former secret stays in force: {e}"),
    }
}

/// A disk that counts.
fn metered() -> (Arc<MeteredFs>, Arc<Metrics>) {
    let metrics = Arc::<Metrics>::default();
    (Arc::new(MeteredFs::new(Arc::new(RealFs), metrics.clone())), metrics)
}

/// Tells what `status` says and what was counted.
fn answer(
    logdir: &Path,
    (endpoint, metrics): (Option<&MetricsEndpoint>, Arc<Metrics>),
    status: impl Fn() -> Status + Send + Sync + 'static,
) -> Monitoring {
    let location = logdir.to_owned();
    Monitoring::start(logdir, endpoint, move || Report::new(status(), metrics.snapshot(), &location))
}

/// Serves a primary that speaks the protocol of the original.
fn of_upstream(logdir: &Path, endpoint: &Endpoint, how: How<'_>, signals: &Signals, output: &mut Output<'_>) -> i32 {
    let How { settings, commit, metrics_at, mut service, .. } = how;
    let (disk, metrics) = metered();
    let store = match StandbyStore::open_with(disk, logdir, commit) {
        Ok(store) => Arc::new(store),
        Err(e) => return refused_directory(&e, output),
    };
    let listener = match listen(endpoint, output) {
        Ok(listener) => listener,
        Err(exit) => return exit,
    };
    let options = upstream::replica::Options {
        timeout: settings.timeout,
        allow_remote: settings.allow_no_secret,
        ..Default::default()
    };
    let mut replica = match upstream::replica::Replica::start(listener, store.clone(), options) {
        Ok(replica) => Arc::new(replica),
        Err(e) => return output.fail(USAGE, &format!("cannot serve: {e}")),
    };
    let answers = {
        let (store, served, logdir_of) = (store.clone(), Arc::downgrade(&replica), logdir.to_owned());
        answer(logdir, (metrics_at, metrics), move || {
            let connected = served.upgrade().is_some_and(|replica| replica.held() > 0);
            let state = if connected { LinkState::Streaming } else { LinkState::Connecting };
            let known = Known { protocol: Some("upstream"), state, last_error: store.failure(), ..Known::default() };
            status::of_replica(&logdir_of, known, store.durable(), store.identity())
        })
    };
    announce(output, replica.address(), false);
    service.ready();
    while !signals.stop.load(SeqCst) && store.failure().is_none() {
        service.alive();
        std::thread::sleep(POLL);
    }
    service.stopping();
    drop(answers);
    if let Some(replica) = Arc::get_mut(&mut replica) {
        replica.stop();
    }
    let synced = store.sync();
    store.close();
    let durable = store.durable();
    match store.failure().or(synced.err().map(|e| e.to_string())) {
        Some(failure) => {
            log::error!("tgreplica ends, durable epoch {durable}: {failure}");
            DISK
        }
        None => {
            log::info!("tgreplica ends, durable epoch {durable}");
            DONE
        }
    }
}
