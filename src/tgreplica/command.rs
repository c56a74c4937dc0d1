// SPDX-License-Identifier: Apache-2.0
//! The program `tgreplica` (API specification §16.3): its command line, its messages and its exit codes.

use crate::error::Error;
use crate::replication::native::replica::{open, Options};
use crate::replication::net::transport;
use crate::replication::replica_store::{versions, StandbyStore};
use crate::replication::settings::{Endpoint, Protocol, ReplicationSettings};
use crate::replication::state_file::ReplicationState;
use crate::replication::status::{Known, LinkState, Side, Status};
use crate::replication::status_socket;
use crate::replication::upstream;
use crate::types::Epoch;
use crate::vfs::{FileKind, RealFs, Vfs};
use crate::wal::{epoch_file, manifest, names};
use clap::{CommandFactory, Parser};
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::Duration;

/// Ended because it was told to.
pub const DONE: i32 = 0;
/// Wrong use, a setting that is not understood, an address that cannot be listened on.
pub const USAGE: i32 = 1;
/// The directory cannot be used: damaged, of another version, unreadable.
pub const DIRECTORY: i32 = 2;
/// Another process has the directory.
pub const IN_USE: i32 = 3;
/// The disk failed while serving.
pub const DISK: i32 = 4;
/// `--once`: the session did not end in good order.
pub const SESSION: i32 = 5;
/// `--status`: nobody serves the directory.
pub const NOT_RUNNING: i32 = 6;

const ENDPOINT: &str = "TSURUGI_REPLICATION_ENDPOINT";
const SECRET_FILE: &str = "TSURUGI_REPLICATION_SECRET_FILE";
/// How often the main thread looks whether the program shall end.
const POLL: Duration = Duration::from_millis(50);

const DETAILS: &str = "\
`tgreplica status <LOGDIR>` is the same as `tgreplica --status <LOGDIR>`.

Settings come from the environment: TSURUGI_REPLICATION_ENDPOINT (tcp://host:port to listen on), \
TSURUGI_REPLICATION_PROTOCOL (native or upstream, default native), TSURUGI_REPLICATION_TIMEOUT_MS (default 10000), \
TSURUGI_REPLICATION_SECRET_FILE, TSURUGI_REPLICATION_ALLOW_NO_SECRET (1: peers on other machines need no secret).

SIGTERM and SIGINT end the program; everything received is on the disk then. To take over, stop the program and start \
the engine on the directory.

Exit codes: 0 ended by a signal or, with --once, by the primary in good order; 1 wrong use, a setting that is not \
understood, or an address that cannot be listened on; 2 the directory cannot be used, nothing was changed: see \
`tglogutil inspect`; 3 another process uses the directory; 4 the disk failed while serving, nothing was acknowledged \
since; 5 with --once, the session was lost or refused; 6 with --status, no replica serves the directory.";

/// Serves a data directory as the replica of a primary, or says how it stands.
#[derive(Debug, Parser)]
#[command(name = "tgreplica", version, disable_version_flag = true, after_help = DETAILS)]
#[command(override_usage = "tgreplica [OPTIONS] <LOGDIR>")]
struct Arguments {
    /// The data directory; it must exist and may be empty.
    #[arg(value_name = "LOGDIR", required_unless_present = "generate_man", num_args = 1..=2)]
    logdir: Vec<PathBuf>,
    /// Address to listen on, instead of TSURUGI_REPLICATION_ENDPOINT.
    #[arg(long, value_name = "tcp://HOST:PORT")]
    listen: Option<OsString>,
    /// File with the shared secret, instead of TSURUGI_REPLICATION_SECRET_FILE.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<OsString>,
    /// Serve one session of a primary and end with it.
    #[arg(long)]
    once: bool,
    /// Say how the replica that serves the directory stands, and end.
    #[arg(long)]
    status: bool,
    /// With --status: one JSON document.
    #[arg(long)]
    json: bool,
    /// Write the man page into this directory and end.
    #[arg(long = "generate_man", hide = true, value_name = "DIR")]
    generate_man: Option<PathBuf>,
}

/// Runs the program; returns its exit code. `stop` is set when it shall end.
pub fn run(
    args: impl IntoIterator<Item = OsString>,
    environment: Vec<(OsString, OsString)>,
    stop: &AtomicBool,
    out: &mut dyn Write,
) -> i32 {
    let arguments = match Arguments::try_parse_from(args) {
        Ok(arguments) => arguments,
        Err(e) if e.use_stderr() => {
            let text = e.render().to_string();
            return misused(text.trim_start_matches("error: ").lines().next().unwrap_or_default());
        }
        Err(help) => {
            print(out, &help.render().to_string());
            return DONE;
        }
    };
    if let Some(dir) = &arguments.generate_man {
        return match clap_mangen::generate_to(Arguments::command(), dir) {
            Ok(()) => DONE,
            Err(e) => fail(USAGE, &format!("cannot write the man page to {}: {e}", dir.display())),
        };
    }
    let is_status_word = arguments.logdir.len() == 2 && arguments.logdir[0] == Path::new("status");
    if arguments.logdir.len() == 2 && !is_status_word {
        return misused("expected one argument, found 2");
    }
    let Some(logdir) = arguments.logdir.last() else {
        return misused("expected one argument, found none");
    };
    match RealFs.kind(logdir) {
        Ok(Some(FileKind::Directory)) => {}
        Ok(None) => return misused(&format!("Directory does not exist: {}", logdir.display())),
        Ok(Some(_)) => return misused(&format!("Specified path is not a directory: {}", logdir.display())),
        Err(e) => return fail(DIRECTORY, &format!("cannot look at {}: {e}", logdir.display())),
    }
    if arguments.status || is_status_word {
        return status(logdir, arguments.json, out);
    }
    let settings = match settings(&arguments, environment) {
        Ok(settings) => settings,
        Err(Unusable::NotSet) => return misused(&format!("{ENDPOINT} environment variable is not set.")),
        Err(Unusable::Endpoint) => {
            print(out, "Endpoint: 0.0.0.0:0\n");
            return misused(&format!("Invalid endpoint specified in {ENDPOINT}."));
        }
        Err(Unusable::Other(text)) => return fail(USAGE, &text),
    };
    // There is at least one, or they would not be there.
    let Some(endpoint) = settings.endpoints.first() else {
        return misused(&format!("{ENDPOINT} environment variable is not set."));
    };
    print(out, &format!("Endpoint: {endpoint}\n"));
    match settings.protocol {
        Protocol::Native => native(logdir, endpoint, &settings, arguments.once, stop, out),
        Protocol::Upstream => of_upstream(logdir, endpoint, &settings, arguments.once, stop, out),
    }
}

fn print(out: &mut dyn Write, text: &str) {
    // There is nowhere to tell that stdout is gone.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn fail(exit: i32, text: &str) -> i32 {
    eprintln!("Error: {text}");
    exit
}

fn misused(text: &str) -> i32 {
    eprintln!("Error: {text}");
    eprintln!("Usage: tgreplica <logdir>");
    eprintln!("Note: The environment variable {ENDPOINT} must be set with the endpoint URL.");
    eprintln!("      For example: tcp://localhost:1234");
    eprintln!("      tgreplica --help tells more.");
    USAGE
}

enum Unusable {
    NotSet,
    Endpoint,
    Other(String),
}

fn settings(
    arguments: &Arguments,
    environment: Vec<(OsString, OsString)>,
) -> std::result::Result<ReplicationSettings, Unusable> {
    let given = [(ENDPOINT, &arguments.listen), (SECRET_FILE, &arguments.secret_file)];
    let mut variables = environment;
    for (name, value) in given {
        if let Some(value) = value {
            variables.retain(|(known, _)| known != name);
            variables.push((name.into(), value.clone()));
        }
    }
    let is_set = variables.iter().any(|(name, _)| name == OsStr::new(ENDPOINT));
    match ReplicationSettings::parse(variables) {
        Ok(Some(settings)) => Ok(settings),
        Ok(None) if !is_set => Err(Unusable::NotSet),
        Ok(None) => Err(Unusable::Endpoint),
        Err(e) if e.variable == ENDPOINT => Err(Unusable::Endpoint),
        Err(e) => Err(Unusable::Other(e.to_string())),
    }
}

fn refused_directory(e: &Error) -> i32 {
    let exit = if matches!(e, Error::Locked(_)) { IN_USE } else { DIRECTORY };
    log::error!("{e}");
    exit
}

fn listen(endpoint: &Endpoint) -> std::result::Result<TcpListener, i32> {
    transport::listen(endpoint).map_err(|e| {
        log::error!("replication: {endpoint}: {e}");
        fail(USAGE, "Failed to bind socket to the specified address")
    })
}

fn native(
    logdir: &Path,
    endpoint: &Endpoint,
    settings: &ReplicationSettings,
    once: bool,
    stop: &AtomicBool,
    out: &mut dyn Write,
) -> i32 {
    let options = Options {
        timeout: settings.timeout,
        secret: settings.secret.clone(),
        allow_no_secret: settings.allow_no_secret,
        once,
    };
    let opened = match open(Arc::new(RealFs), logdir, options) {
        Ok(opened) => opened,
        Err(e) => return refused_directory(&e),
    };
    let listener = match listen(endpoint) {
        Ok(listener) => listener,
        Err(exit) => return exit,
    };
    let mut server = match opened.serve(listener) {
        Ok(server) => server,
        Err(e) => return fail(USAGE, &format!("cannot serve: {e}")),
    };
    let _socket = answer(logdir, server.status_source());
    announce(out, server.address());
    while !stop.load(SeqCst) && server.failure().is_none() && !(once && server.first_session().is_some()) {
        std::thread::sleep(POLL);
    }
    server.stop();
    let durable = server.durable();
    match (server.failure(), server.first_session()) {
        (Some(failure), _) => {
            log::error!("tgreplica ends, durable epoch {durable}: {failure}");
            DISK
        }
        (None, Some(Err(reason))) if once && !stop.load(SeqCst) => {
            log::error!("tgreplica ends, durable epoch {durable}: {reason}");
            SESSION
        }
        _ => {
            log::info!("tgreplica ends, durable epoch {durable}");
            DONE
        }
    }
}

fn announce(out: &mut dyn Write, address: std::net::SocketAddr) {
    log::info!("replication: listening on {address}");
    print(out, "[replica] initialized and listening\n");
}

/// The status socket; a replica without one serves all the same.
fn answer(logdir: &Path, status: impl Fn() -> Status + Send + 'static) -> Option<status_socket::StatusSocket> {
    status_socket::StatusSocket::start(logdir, status)
        .inspect_err(|e| log::warn!("replication: tgreplica --status will not be answered: {e}"))
        .ok()
}

/// Serves a primary that speaks the protocol of the original.
fn of_upstream(
    logdir: &Path,
    endpoint: &Endpoint,
    settings: &ReplicationSettings,
    once: bool,
    stop: &AtomicBool,
    out: &mut dyn Write,
) -> i32 {
    if once {
        return fail(USAGE, "--once needs the native protocol: the original's has no end of a session");
    }
    let store = match StandbyStore::open(Arc::new(RealFs), logdir) {
        Ok(store) => Arc::new(store),
        Err(e) => return refused_directory(&e),
    };
    let listener = match listen(endpoint) {
        Ok(listener) => listener,
        Err(exit) => return exit,
    };
    let options = upstream::replica::Options { timeout: settings.timeout, ..Default::default() };
    let mut replica = match upstream::replica::Replica::start(listener, store.clone(), options) {
        Ok(replica) => Arc::new(replica),
        Err(e) => return fail(USAGE, &format!("cannot serve: {e}")),
    };
    let _socket = {
        let (store, served, logdir_of) = (store.clone(), Arc::downgrade(&replica), logdir.to_owned());
        answer(logdir, move || {
            let connected = served.upgrade().is_some_and(|replica| replica.held() > 0);
            let state = if connected { LinkState::Streaming } else { LinkState::Connecting };
            let known = Known { protocol: Some("upstream"), state, last_error: store.failure(), ..Known::default() };
            at_rest(&logdir_of, known, store.durable(), store.identity())
        })
    };
    announce(out, replica.address());
    while !stop.load(SeqCst) && store.failure().is_none() {
        std::thread::sleep(POLL);
    }
    drop(_socket);
    if let Some(replica) = Arc::get_mut(&mut replica) {
        replica.stop();
    }
    let synced = store.sync();
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

/// The document of a replica's directory of which only that much is known.
fn at_rest(logdir: &Path, known: Known, durable: Epoch, identity: String) -> Status {
    let terms = ReplicationState::load(&RealFs, logdir).ok().flatten();
    let found = versions::load(&RealFs, logdir, &identity);
    Known {
        role: Some(Side::Replica),
        instance_uuid: identity,
        term: terms.map(|state| state.term),
        propagated: Some(durable),
        boundary: found.boundary,
        safe_snapshot: found.safe_snapshot,
        ..known
    }
    .document()
}

fn status(logdir: &Path, json: bool, out: &mut dyn Write) -> i32 {
    let (status, exit) = match status_socket::ask(logdir) {
        Ok(Some(status)) => (status, DONE),
        Ok(None) => match stopped(logdir) {
            Ok(status) => (status, NOT_RUNNING),
            Err(e) => return fail(DIRECTORY, &e.to_string()),
        },
        Err(e) => return fail(DIRECTORY, &format!("the replica that serves the directory does not answer: {e}")),
    };
    match json {
        true => print(out, &format!("{}\n", status.to_json())),
        false => print(out, &format!("{status}\n")),
    }
    exit
}

/// What the files of a directory say that nobody serves; nothing is locked or changed.
fn stopped(logdir: &Path) -> std::result::Result<Status, Error> {
    let read = |name: &str, max: u64| match RealFs.read(&logdir.join(name), max) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other.map_err(|e| Error::io("cannot read", &logdir.join(name), e)),
    };
    let epochs = read(names::EPOCH, 1 << 20)?;
    let durable = epoch_file::parse(&epochs, &logdir.join(names::EPOCH)).map_err(Error::Corrupted)?.max;
    let manifest = manifest::parse(&read(names::MANIFEST, manifest::MAX_BYTES)?).ok();
    let identity = manifest.and_then(|manifest| manifest.instance_uuid).unwrap_or_default();
    Ok(at_rest(logdir, Known::default(), durable.unwrap_or_default(), identity))
}
