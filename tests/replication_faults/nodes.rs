// SPDX-License-Identifier: Apache-2.0
//! A primary and a replica as processes with a proxy between them.

use crate::journal::{check, Journal};
use crate::primary_process::{ALIVE, DIRECTORY, JOURNAL};
use crate::proxy::Proxy;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Of both sides; short, because the tests wait for it.
pub const TIMEOUT: Duration = Duration::from_millis(700);
/// Whatever should happen soon has happened by then, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
pub fn wait_until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends the process with the test.
#[derive(Debug)]
struct Process(Child);

impl Process {
    fn signal(&self, signal: i32) {
        // SAFETY: the process is a child that was not waited for yet.
        let sent = unsafe { libc::kill(self.0.id() as i32, signal) };
        assert_eq!(sent, 0, "the process is gone: {}", std::io::Error::last_os_error());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A network namespace that a pair of virtual devices connects with this one.
#[derive(Debug)]
pub struct Network {
    name: String,
    device: String,
    replica: String,
    nobody: String,
}

impl Network {
    /// `None` where the machine does not allow it.
    pub fn new() -> Option<Network> {
        let id = std::process::id() % 200 + 20;
        let network = Network {
            name: format!("lmrepl{id}"),
            device: format!("lmr{id}"),
            replica: format!("10.213.{id}.2"),
            nobody: format!("10.213.{id}.3"),
        };
        let Network { name, device, replica, .. } = &network;
        let peer = format!("{device}p");
        let made = ip(&["netns", "add", name])
            && ip(&["link", "add", device, "type", "veth", "peer", "name", &peer, "netns", name])
            && ip(&["addr", "add", &format!("10.213.{id}.1/24"), "dev", device])
            && ip(&["link", "set", device, "up"])
            && ip(&["-n", name, "addr", "add", &format!("{replica}/24"), "dev", &peer])
            && ip(&["-n", name, "link", "set", &peer, "up"]);
        made.then_some(network)
    }

    /// Pulls the cable out, or puts it in again.
    pub fn connect(&self, connect: bool) {
        assert!(ip(&["link", "set", &self.device, if connect { "up" } else { "down" }]));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        ip(&["link", "del", &self.device]);
        ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> bool {
    let run = Command::new("ip").args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).status();
    run.is_ok_and(|status| status.success())
}

fn limit_files(bytes: u64) -> std::io::Result<()> {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: plain system calls. Without the signal a write beyond the limit fails as on a full disk.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    }
}

#[derive(Debug)]
pub struct Pair {
    pub proxy: Proxy,
    replica_address: SocketAddr,
    mode: String,
    primary: Option<Process>,
    replica: Option<Process>,
    /// Bytes beyond which no file of the replica can grow.
    replica_file_limit: Option<u64>,
    /// Which of the replica's syncs fails, counted from its start.
    replica_failing_sync: Option<u64>,
    /// Where the replica lives, when not on the loopback address.
    network: Option<Network>,
    /// Removed when the processes are gone.
    home: TempDir,
}

impl Pair {
    /// Both processes run; nothing is written before the caller waits.
    pub fn start(mode: &str) -> Pair {
        Pair::start_across(None, mode)
    }

    /// The same with the replica in a network of its own, without the proxy.
    pub fn start_across(network: Option<Network>, mode: &str) -> Pair {
        let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let replica_address = SocketAddr::from(([127, 0, 0, 1], crate::ports::free_port()));
        let proxy = Proxy::start(replica_address);
        let mode = mode.to_owned();
        let (primary, replica, replica_file_limit) = (None, None, None);
        let mut pair = Pair {
            proxy,
            replica_address,
            mode,
            primary,
            replica,
            replica_file_limit,
            replica_failing_sync: None,
            network,
            home,
        };
        pair.start_replica();
        pair.start_primary();
        pair
    }

    pub fn primary_directory(&self) -> PathBuf {
        self.home.path().join("primary")
    }

    pub fn replica_directory(&self) -> PathBuf {
        self.home.path().join("replica")
    }

    pub fn network(&self) -> &Network {
        self.network.as_ref().unwrap()
    }

    pub fn replica_address(&self) -> SocketAddr {
        self.replica_address
    }

    fn alive(&self) -> PathBuf {
        self.home.path().join("alive")
    }

    fn command(mut command: Command, endpoint: &str) -> Command {
        command
            .env("TSURUGI_REPLICATION_ENDPOINT", endpoint)
            .env("TSURUGI_REPLICATION_ALLOW_NO_SECRET", "1")
            .env("TSURUGI_REPLICATION_TIMEOUT_MS", TIMEOUT.as_millis().to_string())
            .stdin(Stdio::null());
        command
    }

    pub fn start_replica(&mut self) {
        let directory = self.replica_directory();
        std::fs::create_dir_all(&directory).unwrap();
        let program = env!("CARGO_BIN_EXE_tgreplica");
        let mut command = match &self.network {
            None => Pair::command(Command::new(program), &format!("tcp://{}", self.replica_address)),
            Some(network) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &network.name, program]);
                Pair::command(command, &format!("tcp://{}:{}", network.replica, self.replica_address.port()))
            }
        };
        command.arg(&directory).stdout(Stdio::piped());
        if let Some(bytes) = self.replica_file_limit {
            // SAFETY: both calls are allowed between fork and exec.
            unsafe { command.pre_exec(move || limit_files(bytes)) };
        }
        if let Some(number) = self.replica_failing_sync {
            command.env("LD_PRELOAD", self.failing_sync_library());
            command.env("LIMESTONE_TEST_FAILING_SYNC", number.to_string());
        }
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        self.replica = Some(Process(child));
        let listens = BufReader::new(stdout).lines().any(|line| line.unwrap().contains("listening"));
        assert!(listens, "tgreplica ended before it listened");
    }

    /// The sync with this number of a replica that is started from now on fails; `None`: all work.
    pub fn fail_replica_sync(&mut self, number: Option<u64>) {
        self.replica_failing_sync = number;
    }

    fn failing_sync_library(&self) -> PathBuf {
        let library = self.home.path().join("failing_sync.so");
        if !library.exists() {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/replication_faults/failing_sync.c");
            let built =
                Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).args([source, "-ldl"]).status();
            assert!(built.expect("a C compiler").success());
        }
        library
    }

    /// Ends with the exit code of a replica that gives up by itself.
    pub fn replica_gives_up(&mut self) -> Option<i32> {
        let mut replica = self.replica.take().unwrap();
        let mut status = None;
        wait_until("the replica gives up", || {
            status = replica.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    /// A replica started from now on cannot let a file grow beyond this size.
    pub fn limit_replica_files(&mut self, bytes: u64) {
        self.replica_file_limit = Some(bytes);
    }

    pub fn lift_replica_limit(&mut self) {
        self.replica_file_limit = None;
    }

    pub fn start_primary(&mut self) {
        std::fs::write(self.alive(), "").unwrap();
        let endpoint = match &self.network {
            None => format!("tcp://{}", self.proxy.address()),
            // Nobody has the first address.
            Some(Network { nobody, replica, .. }) => {
                let port = self.replica_address.port();
                format!("tcp://{nobody}:{port},tcp://{replica}:{port}")
            }
        };
        let child = Pair::command(Command::new(std::env::current_exe().unwrap()), &endpoint)
            .args(["--exact", "be_the_primary", "--ignored", "--nocapture", "--test-threads=1"])
            .env("TSURUGI_REPLICATION_MODE", &self.mode)
            .env(DIRECTORY, self.primary_directory())
            .env(JOURNAL, self.home.path().join("journal"))
            .env(ALIVE, self.alive())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.primary = Some(Process(child));
    }

    /// What the primary was told so far.
    pub fn journal(&self) -> Journal {
        Journal::read(&self.home.path().join("journal"))
    }

    pub fn signal_primary(&self, signal: i32) {
        self.primary.as_ref().unwrap().signal(signal);
    }

    pub fn signal_replica(&self, signal: i32) {
        self.replica.as_ref().unwrap().signal(signal);
    }

    pub fn kill_primary(&mut self) {
        self.primary = None;
    }

    pub fn kill_replica(&mut self) {
        self.replica = None;
    }

    /// Whether the replica's process runs; one that has ended is forgotten.
    pub fn replica_runs(&mut self) -> bool {
        let ended = self.replica.as_mut().is_none_or(|replica| replica.0.try_wait().unwrap().is_some());
        if ended {
            self.replica = None;
        }
        !ended
    }

    /// Whether the primary's process runs; one that has ended is forgotten.
    pub fn primary_runs(&mut self) -> bool {
        let ended = self.primary.as_mut().is_none_or(|primary| primary.0.try_wait().unwrap().is_some());
        if ended {
            self.primary = None;
        }
        !ended
    }

    /// Lets the primary end in good order; gives how long the shutdown took.
    pub fn end_primary(&mut self) -> Duration {
        std::fs::remove_file(self.alive()).unwrap();
        let mut primary = self.primary.take().unwrap();
        let mut status = None;
        wait_until("the primary ends", || {
            status = primary.0.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "the primary ended with {status:?}");
        Duration::from_millis(self.journal().ended_ms.expect("the primary wrote down its end"))
    }

    /// Ends tgreplica with SIGTERM and gives its exit code.
    pub fn end_replica(&mut self) -> Option<i32> {
        let mut replica = self.replica.take().unwrap();
        replica.signal(libc::SIGTERM);
        let mut status = None;
        wait_until("tgreplica ends", || {
            status = replica.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }

    /// Waits until epochs that were not even switched to when this was called are stored.
    pub fn wait_for_stored(&self) {
        let before = self.journal().stored;
        wait_until("further epochs are stored", || self.journal().stored > before + 5);
    }

    /// Waits until what is stored when this is called is propagated, and more.
    pub fn wait_for_propagated(&self) {
        let before = self.journal().stored;
        wait_until("what is stored is propagated", || self.journal().propagated > before + 5);
    }

    /// Ends both and checks both directories.
    pub fn check(mut self) {
        self.kill_primary();
        self.kill_replica();
        let journal = self.journal();
        check(&journal, &self.primary_directory(), &journal.stored_sessions);
        check(&journal, &self.replica_directory(), &journal.propagated_sessions);
        assert!(!journal.propagated_sessions.is_empty(), "nothing was ever propagated");
    }
}
