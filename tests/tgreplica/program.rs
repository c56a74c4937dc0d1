// SPDX-License-Identifier: Apache-2.0
//! Starts and ends the program.

use limestone_core::datastore::{Datastore, Settings};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const DEADLINE: Duration = Duration::from_secs(60);

/// A running replica.
pub struct Replica {
    child: Child,
    pub address: SocketAddr,
    /// Where it serves metrics.
    pub metrics: Option<SocketAddr>,
    log: std::thread::JoinHandle<String>,
}

/// What a run that ended by itself showed.
pub struct Run {
    pub exit: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn command(args: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tgreplica"));
    command.args(args).envs(environment.iter().copied());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TSURUGI_REPLICATION_")) {
        command.env_remove(name);
    }
    command
}

/// Runs it to its end.
pub fn run(args: &[&str], environment: &[(&str, &str)]) -> Run {
    let output = command(args, environment).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    Run { exit: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

impl Replica {
    pub fn start(dir: &Path) -> Replica {
        Replica::start_with(dir, &[], &[])
    }

    /// Starts it where another one has listened.
    pub fn start_at(dir: &Path, address: SocketAddr) -> Replica {
        Replica::start_with(dir, &["--listen", &format!("tcp://{address}")], &[])
    }

    /// Starts it on a port that it can come back to, and waits until it listens.
    pub fn start_with(dir: &Path, args: &[&str], environment: &[(&str, &str)]) -> Replica {
        let listen = format!("tcp://127.0.0.1:{}", crate::ports::free_port());
        let mut all = vec![dir.to_str().unwrap(), "--listen", &listen];
        if args.contains(&"--listen") {
            all.truncate(1);
        }
        all.extend(args);
        let mut child = command(&all, environment).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        let mut metrics = None;
        let address = loop {
            let mut line = String::new();
            assert!(errors.read_line(&mut line).unwrap() > 0, "it ended: {log}");
            log.push_str(&line);
            if let Some((_, address)) = line.trim_end().split_once("metrics: listening on ") {
                metrics = Some(address.parse().unwrap());
            } else if let Some((_, address)) = line.trim_end().split_once("listening on ") {
                break address.parse().unwrap();
            }
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let lines: Vec<String> = (0..2).map(|_| lines.next().unwrap().unwrap()).collect();
        assert!(lines[0].starts_with("Endpoint: 127.0.0.1:"), "{}", lines[0]);
        assert_eq!(lines[1], "[replica] initialized and listening");
        let log = std::thread::spawn(move || {
            errors.read_to_string(&mut log).unwrap();
            log
        });
        Replica { child, address, metrics, log }
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the process is a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.child.id() as i32, signal) }, 0);
    }

    /// Waits for the end; the exit code and the log.
    pub fn wait(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        (status.code(), self.log.join().unwrap())
    }

    /// Ends it as an operator does.
    pub fn stop(self) -> String {
        self.signal(libc::SIGTERM);
        let (exit, log) = self.wait();
        assert_eq!(exit, Some(0), "{log}");
        log
    }

    pub fn kill(self) {
        self.signal(libc::SIGKILL);
        assert_eq!(self.wait().0, None);
    }
}

/// The status document; the exit code comes with it.
pub fn status(dir: &Path) -> (i32, Value) {
    let run = run(&["status", dir.to_str().unwrap(), "--json"], &[]);
    (run.exit, serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}{}", run.stdout, run.stderr)))
}

/// Waits for a status that fits.
pub fn status_when(dir: &Path, fits: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let (_, document) = status(dir);
        if fits(&document) {
            return document;
        }
        assert!(Instant::now() < deadline, "{document}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Starts an engine on the directory: what it shows, by key, and its last epoch.
pub fn take_over(dir: &Path) -> (BTreeMap<String, String>, u64) {
    let store = Datastore::open(Settings::new(dir)).unwrap();
    store.ready().unwrap();
    let mut cursor = store.snapshot().unwrap().cursor();
    let mut rows = BTreeMap::new();
    while let Some(row) = cursor.next().unwrap() {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        rows.insert(text(row.key), text(row.value));
        for id in row.blobs.iter() {
            assert!(store.blobs().file(id).1, "BLOB {id} is there");
        }
    }
    let last = store.last_epoch().0;
    store.shutdown();
    (rows, last)
}
