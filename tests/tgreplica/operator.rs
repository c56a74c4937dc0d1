// SPDX-License-Identifier: Apache-2.0
//! What an operator sees of a replica, and what he does to it.

use crate::primary::{identity, Primary};
use crate::program::{command, run, status, status_when, Replica, DEADLINE};
use limestone_core::replication::native::protocol::message::Code;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

fn exit_of(child: &mut Child) -> Option<i32> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < deadline, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_replica_says_streaming_and_no_lag_only_when_it_has_what_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start(dir.path());
    let mut primary = Primary::connect(replica.address, 0, 1).unwrap();
    primary.heartbeat(1000, Some(900));
    let behind = status_when(dir.path(), |status| status["stored_epoch"] == 1000);
    assert_eq!((behind["state"].as_str(), behind["lag"]["epochs"].as_u64()), (Some("catch-up"), Some(1000)));
    assert!(behind["lag"]["bytes"].is_null() && behind["lag"]["age_ms"].is_u64(), "{behind}");
    primary.session(0, 900, "k", "v");
    primary.commit(900, 0);
    let all = status_when(dir.path(), |status| status["state"] == "streaming" && status["lag"]["epochs"] == 0);
    assert_eq!((all["propagated_epoch"].as_u64(), all["lag"]["epochs"].as_u64()), (Some(900), Some(0)), "{all}");
    drop(primary);
    let lost = status_when(dir.path(), |status| status["state"] == "connecting");
    assert!(lost["lag"]["epochs"].is_null() && lost["lag"]["bytes"].is_null() && lost["lag"]["ms"].is_null(), "{lost}");
    assert_eq!((lost["stored_epoch"].as_u64(), lost["peer"].as_str()), (Some(1000), None));
    replica.stop();
}

#[test]
fn what_strangers_do_is_no_error_of_the_replica() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start(dir.path());
    for _ in 0..3 {
        let mut stranger = TcpStream::connect(replica.address).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        // Closed by the replica.
        let _ = std::io::copy(&mut stranger, &mut std::io::sink());
    }
    let shown = status(dir.path()).1;
    assert_eq!((shown["state"].as_str(), &shown["last_error"]), (Some("connecting"), &serde_json::Value::Null));
    let log = replica.stop();
    let line = log.lines().next().unwrap();
    assert!(line.as_bytes()[4] == b'-' && line.as_bytes()[10] == b'T' && line.contains("Z INFO: "), "{line}");
}

#[test]
fn a_stderr_that_nobody_reads_holds_nobody_up() {
    let dir = tempfile::tempdir().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], crate::ports::free_port()));
    let args = [dir.path().to_str().unwrap(), "--listen", &format!("tcp://{address}")];
    let mut child = command(&args, &[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    status_when(dir.path(), |status| status["state"] == "connecting");
    // More than the pipe takes, and more than waits for it.
    for _ in 0..1500 {
        if let Ok(mut stranger) = TcpStream::connect(address) {
            let _ = stranger.write_all(b"GET / HTTP/1.1\r\n\r\n");
        }
    }
    let mut primary = Primary::connect(address, 0, 1).unwrap();
    primary.session(0, 1, "k", "v");
    primary.commit(1, 0);
    primary.durable(1);
    // SAFETY: the process is a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(child.id() as i32, libc::SIGTERM) }, 0);
    assert_eq!(exit_of(&mut child), Some(0));
}

#[test]
fn a_file_that_must_not_grow_ends_it_with_a_message() {
    let dir = tempfile::tempdir().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], crate::ports::free_port()));
    let args = [dir.path().to_str().unwrap(), "--listen", &format!("tcp://{address}")];
    let mut limited = command(&args, &[]);
    let limit = libc::rlimit { rlim_cur: 100_000, rlim_max: 100_000 };
    // SAFETY: the call is allowed between fork and exec.
    unsafe {
        limited.pre_exec(move || {
            (libc::setrlimit(libc::RLIMIT_FSIZE, &limit) == 0).then_some(()).ok_or_else(std::io::Error::last_os_error)
        })
    };
    let mut child = limited.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    status_when(dir.path(), |status| status["state"] == "connecting");
    let mut primary = Primary::connect(address, 0, 1).unwrap();
    primary.session(0, 1, "k", &"v".repeat(200_000));
    assert_eq!(exit_of(&mut child), Some(4));
    let log = std::io::read_to_string(child.stderr.take().unwrap()).unwrap();
    assert!(log.contains("File too large"), "{log}");
}

#[test]
fn a_hangup_reads_the_secret_again() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().with_extension("secret");
    let write = |text: &str| {
        std::fs::write(&secret, text).unwrap();
        std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    };
    write("the first secret of it");
    let replica = Replica::start_with(dir.path(), &["--secret-file", secret.to_str().unwrap()], &[]);
    drop(Primary::connect_as(replica.address, identity(0, 1), b"the first secret of it").unwrap());
    write("the second secret of it");
    replica.signal(libc::SIGHUP);
    let deadline = Instant::now() + DEADLINE;
    while Primary::connect_as(replica.address, identity(0, 1), b"the second secret of it").is_err() {
        assert!(Instant::now() < deadline, "the new secret is not taken");
        std::thread::sleep(Duration::from_millis(20));
    }
    let former = Primary::connect_as(replica.address, identity(0, 1), b"the first secret of it").err().unwrap();
    assert_eq!(former.code, Code::BAD_SECRET);
    let log = replica.stop();
    assert!(log.contains("the secret was read again"), "{log}");
    std::fs::remove_file(secret).unwrap();
}

#[test]
fn a_process_that_has_stopped_is_said_not_to_answer() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start(dir.path());
    replica.signal(libc::SIGSTOP);
    let begun = Instant::now();
    let asked = run(&["status", dir.path().to_str().unwrap(), "--json"], &[]);
    let took = begun.elapsed();
    replica.signal(libc::SIGCONT);
    assert_eq!(asked.exit, 7, "{}", asked.stderr);
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(asked.stderr.contains("does not answer"), "{}", asked.stderr);
    let document: serde_json::Value = serde_json::from_str(&asked.stdout).unwrap();
    assert_eq!(document["exit"], 7);
    replica.stop();
}

#[test]
fn a_wrong_argument_is_blamed_and_the_version_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let wrong = run(&["--listen", "127.0.0.1:1", dir.path().to_str().unwrap()], &[]);
    assert_eq!(wrong.exit, 1);
    assert!(wrong.stderr.contains("--listen 127.0.0.1:1: expected tcp://HOST:PORT"), "{}", wrong.stderr);
    assert!(!wrong.stderr.contains("TSURUGI"), "{}", wrong.stderr);
    let version = run(&["--version"], &[]);
    assert_eq!((version.exit, version.stdout), (0, format!("tgreplica {}\n", env!("CARGO_PKG_VERSION"))));
    let nobody = run(&["--json"], &[]);
    let document: serde_json::Value = serde_json::from_str(&nobody.stdout).unwrap();
    assert_eq!((nobody.exit, document["exit"].as_i64()), (1, Some(1)));
}

#[test]
fn a_service_manager_is_told_when_it_serves_that_it_is_alive_and_that_it_ends() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().with_extension("notify");
    let manager = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(DEADLINE)).unwrap();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "100000")];
    let replica = Replica::start_with(dir.path(), &[], &variables);
    let hear = || {
        let mut heard = [0; 64];
        let len = manager.recv(&mut heard).unwrap();
        String::from_utf8(heard[..len].to_vec()).unwrap()
    };
    assert_eq!([hear(), hear(), hear()], ["READY=1\n", "WATCHDOG=1\n", "WATCHDOG=1\n"]);
    replica.signal(libc::SIGTERM);
    while hear() != "STOPPING=1\n" {}
    assert_eq!(replica.wait().0, Some(0));
    std::fs::remove_file(path).unwrap();
}
