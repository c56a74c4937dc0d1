// SPDX-License-Identifier: Apache-2.0
//! Serves a directory as the replica of a primary until the program is to end.

use super::arguments::Arguments;
use super::report::{exit_of, Environment, Output, DISK, DONE, ENDPOINT, SECRET_FILE, SESSION, USAGE};
use super::report::{TLS_CA, TLS_CERT, TLS_CRL, TLS_KEY, TLS_PEER_NAME};
use super::service_manager::ServiceManager;
use super::signals::Signals;
use super::told::{After, Pending, Told};
use super::{rejoin, status};
use crate::datastore::{environment, Commit};
use crate::error::Error;
use crate::metrics::Metrics;
use crate::monitoring::settings::{metrics_endpoint, MetricsEndpoint};
use crate::monitoring::Monitoring;
use crate::replication::backup_socket::{BackupSocket, Held, Serves, Serving};
use crate::replication::compare_socket::CompareSocket;
use crate::replication::native::replica::{open, Compaction, Options, Server};
use crate::replication::net::listener;
use crate::replication::net::tls::Certificates;
use crate::replication::replica_store::{begin_backup, StandbyStore};
use crate::replication::report::Report;
use crate::replication::secret::Secret;
use crate::replication::settings::{Endpoint, Protocol, ReplicationSettings};
use crate::replication::status::{Known, LinkState, Status};
use crate::replication::upstream;
use crate::types::Epoch;
use crate::vfs::{MeteredFs, RealFs, Vfs};
use std::ffi::{OsStr, OsString};
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
        Err(Unusable::NotSet) => return output.misused(USAGE, &format!("{ENDPOINT} environment variable is not set.")),
        Err(Unusable::Listen(text)) => return output.fail(USAGE, &text),
        Err(Unusable::Endpoint) => {
            output.print("Endpoint: 0.0.0.0:0\n");
            return output.misused(USAGE, &format!("Invalid endpoint specified in {ENDPOINT}."));
        }
        Err(Unusable::Other(text)) => return output.fail(USAGE, &text),
    };
    let Served { settings, commit, compaction, secret_file, metrics } = settings;
    let metrics_at = metrics.as_ref();
    // There is at least one, or they would not be there.
    let Some(endpoint) = settings.endpoints.first() else {
        return output.misused(USAGE, &format!("{ENDPOINT} environment variable is not set."));
    };
    if until != Until::Rejoined || !output.json {
        output.print(&format!("Endpoint: {endpoint}\n"));
    }
    let rewind = arguments.rewind || until == Until::Rejoined;
    let secret_file = secret_file.as_deref();
    let how = How { settings: &settings, commit, compaction, secret_file, metrics_at, service, until, rewind };
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
    compaction: Compaction,
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
    let given = [
        (ENDPOINT, &arguments.listen),
        (SECRET_FILE, &arguments.secret_file),
        (TLS_CERT, &arguments.tls_cert),
        (TLS_KEY, &arguments.tls_key),
        (TLS_CA, &arguments.tls_ca),
        (TLS_CRL, &arguments.tls_crl),
        (TLS_PEER_NAME, &arguments.tls_peer_name),
    ];
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
    let compaction = compaction(value).map_err(|e| Unusable::Other(e.to_string()))?;
    let is_set = variables.iter().any(|(name, _)| name == OsStr::new(ENDPOINT));
    let metrics = metrics_endpoint(value).map_err(|e| Unusable::Other(e.to_string()))?;
    match ReplicationSettings::parse(variables) {
        // Replicas of its own do not say where it listens.
        Ok(Some(settings)) if settings.endpoints.is_empty() => Err(Unusable::NotSet),
        Ok(Some(settings)) => Ok(Served { settings, commit, compaction, secret_file, metrics }),
        Ok(None) if !is_set => Err(Unusable::NotSet),
        Ok(None) => Err(wrong_endpoint()),
        Err(e) if e.variable == ENDPOINT => Err(wrong_endpoint()),
        Err(e) => Err(Unusable::Other(e.to_string())),
    }
}

fn compaction(value: impl Fn(&'static str) -> Option<OsString>) -> Result<Compaction, Error> {
    let (by_itself, default) = (environment::self_compaction(&value)?, Compaction::default());
    Ok(match environment::compaction_memory_bytes(value)? {
        0 => Compaction { by_itself, ..default },
        memory_bytes => Compaction { by_itself, memory_bytes },
    })
}

fn refused_directory(e: &Error, output: &mut Output<'_>) -> i32 {
    output.fail(exit_of(e), &e.to_string())
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
    compaction: Compaction,
    secret_file: Option<&'a Path>,
    metrics_at: Option<&'a MetricsEndpoint>,
    service: ServiceManager,
    until: Until,
    rewind: bool,
}

/// Why it does not serve any more.
enum Ended {
    Exit(i32),
    /// It was told to do something to the directory that nobody may have open for that.
    Told(Pending),
}

/// Serves until it is to end. It goes on after a promotion that is refused, and after a repair.
fn native(logdir: &Path, endpoint: &Endpoint, mut how: How<'_>, signals: &Signals, output: &mut Output<'_>) -> i32 {
    let mut told = None;
    let mut endpoint = endpoint.clone();
    loop {
        match serve_once(logdir, &mut endpoint, (&mut how, &mut told), signals, output) {
            Ended::Exit(exit) => return exit,
            Ended::Told(pending) => {
                if pending.carry_out(logdir, how.settings.keep_cut_off) == After::End {
                    how.service.stopping();
                    log::info!("tgreplica ends: the directory is a primary's now");
                    return DONE;
                }
            }
        }
    }
}

fn serve_once(
    logdir: &Path,
    endpoint: &mut Endpoint,
    (how, told): (&mut How<'_>, &mut Option<Told>),
    signals: &Signals,
    output: &mut Output<'_>,
) -> Ended {
    let (disk, metrics) = metered();
    let mut server = match start((disk, metrics.clone()), logdir, (endpoint, how), output) {
        Ok(server) => server,
        Err(exit) => return Ended::Exit(exit),
    };
    let tls = how.settings.tls.as_deref();
    let note_expiry = {
        let metrics = metrics.clone();
        move |tls: &Certificates| metrics.certificate_expires.set(tls.expires())
    };
    tls.map(&note_expiry);
    let answers = answer(logdir, (how.metrics_at, metrics), server.status_source());
    let backups = let_copy(logdir, server.backup_source(), server.durable_source());
    let comparing = let_compare(logdir, &server);
    if told.is_none() {
        *told = Some(Told::listen(logdir));
        announce(output, server.address(), how.until == Until::Rejoined && output.json);
        how.service.ready();
    }
    // Whatever the system chose, it stays.
    endpoint.port = server.address().port();
    let has_ended = |server: &Server| match how.until {
        Until::Stopped => false,
        Until::FirstSession => server.first_session().is_some(),
        Until::Rejoined => matches!(server.status().state, LinkState::Streaming | LinkState::Refused),
    };
    while !signals.stop.load(SeqCst) && server.failure().is_none() && !has_ended(&server) {
        if signals.reload.swap(false, SeqCst) {
            read_secret_again(how.secret_file, |secret| server.set_secret(secret));
            tls.map(read_certificates_again);
            tls.map(&note_expiry);
        }
        tls.map(Certificates::warn_of_the_end);
        if let Some(pending) = told.as_ref().and_then(Told::next) {
            log::info!("{} is to be {}: the replica ends", logdir.display(), pending.what());
            server.stop();
            // With the last of these the lock of the directory is given back.
            drop((answers, backups, comparing, server));
            return Ended::Told(pending);
        }
        how.service.alive();
        std::thread::sleep(POLL);
    }
    how.service.stopping();
    drop((backups, comparing));
    Ended::Exit(end(logdir, server, how.until, signals, output))
}

/// Opens the directory and serves it.
fn start(
    (disk, metrics): (Arc<dyn Vfs>, Arc<Metrics>),
    logdir: &Path,
    (endpoint, how): (&Endpoint, &How<'_>),
    output: &mut Output<'_>,
) -> Result<Server, i32> {
    let options = Options {
        timeout: how.settings.timeout,
        secret: how.settings.secret.clone(),
        allow_no_secret: how.settings.allow_no_secret,
        tls: how.settings.tls.clone(),
        version_min: how.settings.version_min,
        once: how.until == Until::FirstSession,
        commit: how.commit,
        scrubbing: how.settings.scrubbing,
        compaction: how.compaction,
        metrics,
    };
    let opened = match open(disk, logdir, options) {
        Ok(opened) if how.rewind => opened.allow_rewind(how.settings.keep_cut_off),
        Ok(opened) => opened,
        Err(e) => return Err(refused_directory(&e, output)),
    };
    let listener = listen(endpoint, output)?;
    opened.serve(listener).map_err(|e| output.fail(USAGE, &format!("cannot serve: {e}")))
}

/// Ends it and says why it did.
fn end(logdir: &Path, mut server: Server, until: Until, signals: &Signals, output: &mut Output<'_>) -> i32 {
    let status = server.status();
    server.stop();
    let durable = server.durable();
    let once = until == Until::FirstSession;
    match (server.failure(), server.first_session()) {
        (Some(_), _) => end_of_store(true, durable),
        (None, Some(Err(reason))) if once && !signals.stop.load(SeqCst) => {
            log::error!("tgreplica ends, durable epoch {durable}: {reason}");
            SESSION
        }
        (None, _) if until == Until::Rejoined => rejoin::report(logdir, &status, server.rewound(), output),
        _ => end_of_store(false, durable),
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

/// Those that cannot be read leave the former ones in force.
fn read_certificates_again(certificates: &Certificates) {
    match certificates.read_again() {
        Ok(()) => log::info!("SIGHUP: the certificates were read again; they hold for connections from now on"),
        Err(e) => log::error!("SIGHUP: the former certificates stay in force: {e}"),
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

/// Lets backups be made until the result is dropped; the replica serves all the same without.
fn let_copy(
    logdir: &Path,
    begin: impl Fn() -> Result<Held, String> + Send + 'static,
    durable: impl Fn() -> Epoch + Send + 'static,
) -> Option<BackupSocket> {
    BackupSocket::start(logdir, Serving { serves: Serves::Replica, begin, durable })
        .inspect_err(|e| log::warn!("{} lets nobody make backups: {e}", logdir.display()))
        .ok()
}

/// Lets the primary be asked what it has, until the result is dropped; the replica serves all the same without.
fn let_compare(logdir: &Path, server: &Server) -> Option<CompareSocket> {
    CompareSocket::start(logdir, server.digest_source())
        .inspect_err(|e| log::warn!("{} cannot be compared with its primary: {e}", logdir.display()))
        .ok()
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
        Ok(replica) => replica,
        Err(e) => return output.fail(USAGE, &format!("cannot serve: {e}")),
    };
    let answers = answer(logdir, (metrics_at, metrics), status_of_upstream(logdir, &store, replica.held_source()));
    let backups = {
        let (store, asked) = (store.clone(), store.clone());
        let begin = move || begin_backup(&store).map_err(|e| e.to_string());
        let_copy(logdir, begin, move || asked.durable())
    };
    announce(output, replica.address(), false);
    service.ready();
    while !signals.stop.load(SeqCst) && store.failure().is_none() {
        service.alive();
        std::thread::sleep(POLL);
    }
    service.stopping();
    drop(backups);
    replica.stop();
    // A failure is kept by the store.
    let _ = store.sync();
    store.close();
    replica.say_failure();
    // Whoever asked meanwhile was answered.
    drop(answers);
    end_of_store(store.failure().is_some(), store.durable())
}

fn status_of_upstream(
    logdir: &Path,
    store: &Arc<StandbyStore>,
    held: impl Fn() -> usize + Send + Sync + 'static,
) -> impl Fn() -> Status + Send + Sync + 'static {
    let (store, logdir) = (store.clone(), logdir.to_owned());
    move || {
        let state = if held() > 0 { LinkState::Streaming } else { LinkState::Connecting };
        let known = Known { protocol: Some("upstream"), state, last_error: store.failure(), ..Known::default() };
        status::of_replica(&logdir, known, store.durable(), store.identity())
    }
}

/// The end when it is only the disk that can have failed, of which the log has a line then.
fn end_of_store(failed: bool, durable: Epoch) -> i32 {
    log::info!("tgreplica ends, durable epoch {durable}");
    if failed {
        DISK
    } else {
        DONE
    }
}
