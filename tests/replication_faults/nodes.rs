// SPDX-License-Identifier: Apache-2.0
//! A primary and a replica as processes with a proxy between them.

use crate::journal::{check, Journal, Tail};
use crate::machine::{limit_files, Network, Process, SmallDisk};
use crate::primary_process::{ALIVE, CHANNELS, DIRECTORY, JOURNAL};
use crate::proxy::Proxy;
use crate::status_watch::{Lives, StatusWatch, Watched};
use limestone_core::replication::promotion::promote;
use limestone_core::replication::status::Status;
use limestone_core::vfs::RealFs;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
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

/// Builds in `folder` what is preloaded to be the disk of a process, unless it is there.
pub fn disk_library(folder: &Path) -> PathBuf {
    let library = folder.join("disk.so");
    if !library.exists() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/replication_faults/disk.c");
        let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).args([source, "-ldl"]).status();
        assert!(built.expect("a C compiler").success());
    }
    library
}

/// What a directory that nobody serves tells.
fn status_of_stopped(replica: &Path) -> Option<Status> {
    let asked = Command::new(env!("CARGO_BIN_EXE_tgreplica")).args(["status", "--json"]).arg(replica).output().unwrap();
    (asked.status.code() == Some(6)).then(|| serde_json::from_slice(&asked.stdout).unwrap())
}

/// What a pair is set to.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub mode: &'static str,
    pub timeout: Duration,
    pub channels: u64,
    pub lanes: u64,
    /// Whether the primary has the replica.
    pub replicated: bool,
    /// How the primary commits; as the environment says unless it says something.
    pub commit: Option<&'static str>,
    /// The replica has a disk of its own with so many bytes, see [`Pair::replica_disk`].
    pub replica_disk: Option<u64>,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            mode: "strict",
            timeout: TIMEOUT,
            channels: 3,
            lanes: 1,
            replicated: true,
            commit: None,
            replica_disk: None,
        }
    }
}

#[derive(Debug)]
pub struct Pair {
    pub proxy: Arc<Proxy>,
    replica_address: SocketAddr,
    setup: Setup,
    primary: Option<Process>,
    replica: Option<Process>,
    /// Bytes beyond which no file of the replica can grow.
    replica_file_limit: Option<u64>,
    /// Which of the replica's syncs fails, counted from its start.
    replica_failing_sync: Option<u64>,
    /// The replica's syncs of BLOBs can be made slow.
    replica_may_be_slow: bool,
    /// Where the replica lives, when not on the loopback address.
    network: Option<Network>,
    primary_lives: Arc<Lives>,
    replica_lives: Arc<Lives>,
    replica_set_back: Arc<AtomicBool>,
    /// Compares what both sides say of themselves with what is known here.
    watch: Option<StatusWatch>,
    /// Where the machine allows it and one was asked for.
    replica_disk: Option<SmallDisk>,
    /// Removed when the processes are gone.
    home: TempDir,
}

impl Pair {
    /// Both processes run; nothing is written before the caller waits.
    pub fn start(mode: &'static str) -> Pair {
        Pair::start_with(Setup { mode, ..Setup::default() })
    }

    pub fn start_with(setup: Setup) -> Pair {
        Pair::start_across(None, setup)
    }

    /// The same with the replica in a network of its own, without the proxy.
    pub fn start_across(network: Option<Network>, setup: Setup) -> Pair {
        let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let replica_address = SocketAddr::from(([127, 0, 0, 1], crate::ports::free_port()));
        let proxy = Arc::new(Proxy::start(replica_address));
        let (primary, replica, replica_file_limit) = (None, None, None);
        let mut pair = Pair {
            proxy,
            replica_address,
            setup,
            primary,
            replica,
            replica_file_limit,
            replica_failing_sync: None,
            replica_may_be_slow: false,
            network,
            primary_lives: Arc::default(),
            replica_lives: Arc::default(),
            replica_set_back: Arc::default(),
            watch: None,
            replica_disk: None,
            home,
        };
        let directory = pair.replica_directory();
        pair.replica_disk = setup.replica_disk.and_then(|bytes| SmallDisk::mount(&directory, bytes));
        pair.start_replica();
        if setup.replicated {
            pair.watch_status();
        }
        pair.start_primary();
        pair
    }

    fn watch_status(&mut self) {
        let (proxy, replica) = (self.proxy.clone(), self.replica_directory());
        // Across a network of its own the proxy sees nothing.
        let unseen = self.network.is_some();
        let mut tail = Tail::of(self.home.path().join("journal"));
        self.watch = Some(StatusWatch::start(Watched {
            primary: self.primary_directory(),
            replica: replica.clone(),
            primary_lives: self.primary_lives.clone(),
            replica_lives: self.replica_lives.clone(),
            policy: self.setup.mode.to_owned(),
            connections: Box::new(move || if unseen { u64::MAX } else { proxy.accepted() }),
            told: Box::new(move || tail.told()),
            set_back: self.replica_set_back.clone(),
            stopped_replica: Box::new(move || status_of_stopped(&replica)),
        }));
    }

    /// From here on other things happen to the directories than the status is compared with.
    pub fn end_watch(&mut self) {
        if let Some(watch) = self.watch.take() {
            watch.end();
        }
    }

    /// The replica, which does not run, loses everything.
    pub fn empty_replica(&self) {
        self.replica_set_back.store(true, SeqCst);
        std::fs::remove_dir_all(self.replica_directory()).unwrap();
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

    fn command(&self, mut command: Command, endpoint: &str) -> Command {
        command
            .env("TSURUGI_REPLICATION_ENDPOINT", endpoint)
            .env("TSURUGI_REPLICATION_ALLOW_NO_SECRET", "1")
            .env("TSURUGI_REPLICATION_TIMEOUT_MS", self.setup.timeout.as_millis().to_string())
            .stdin(Stdio::null());
        command
    }

    /// The disk of the replica, if it has one of its own.
    pub fn replica_disk(&self) -> Option<&SmallDisk> {
        self.replica_disk.as_ref()
    }

    /// Starts a replica that ends before it listens; its exit code.
    pub fn replica_refuses(&self) -> Option<i32> {
        let child = self.replica_command().spawn().unwrap();
        Process(child).ends("the replica ends")
    }

    pub fn start_replica(&mut self) {
        self.replica_lives.begins(0);
        let mut child = self.replica_command().spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        self.replica = Some(Process(child));
        let listens = BufReader::new(stdout).lines().any(|line| line.unwrap().contains("listening"));
        assert!(listens, "tgreplica ended before it listened");
    }

    fn replica_command(&self) -> Command {
        let directory = self.replica_directory();
        std::fs::create_dir_all(&directory).unwrap();
        let program = env!("CARGO_BIN_EXE_tgreplica");
        let mut command = match &self.network {
            None => self.command(Command::new(program), &format!("tcp://{}", self.replica_address)),
            Some(network) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &network.name, program]);
                self.command(command, &format!("tcp://{}:{}", network.replica, self.replica_address.port()))
            }
        };
        let log = File::options().create(true).append(true).open(self.replica_log()).unwrap();
        command.arg(&directory).stdout(Stdio::piped()).stderr(log);
        if let Some(bytes) = self.replica_file_limit {
            // SAFETY: both calls are allowed between fork and exec.
            unsafe { command.pre_exec(move || limit_files(bytes)) };
        }
        if self.replica_failing_sync.is_some() || self.replica_may_be_slow {
            command.env("LD_PRELOAD", disk_library(self.home.path()));
        }
        if let Some(number) = self.replica_failing_sync {
            command.env("LIMESTONE_TEST_FAILING_SYNC", number.to_string());
        }
        if self.replica_may_be_slow {
            command.env("LIMESTONE_TEST_SLOW_SYNCS", self.slow()).env("LIMESTONE_TEST_SLOW_PART", "/blob/");
        }
        command
    }

    /// The sync with this number of a replica that is started from now on fails; `None`: all work.
    pub fn fail_replica_sync(&mut self, number: Option<u64>) {
        self.replica_failing_sync = number;
    }

    /// Syncs of BLOBs take a tenth of a second on a replica that is started from now on, when this says so.
    pub fn let_replica_be_slow(&mut self) {
        self.replica_may_be_slow = true;
    }

    pub fn slow_blob_syncs(&self, slow: bool) {
        match slow {
            true => std::fs::write(self.slow(), "").unwrap(),
            false => std::fs::remove_file(self.slow()).unwrap(),
        }
    }

    fn slow(&self) -> PathBuf {
        self.home.path().join("slow")
    }

    fn replica_log(&self) -> PathBuf {
        self.home.path().join("replica.log")
    }

    pub fn primary(&self) -> &Process {
        self.primary.as_ref().unwrap()
    }

    pub fn replica(&self) -> &Process {
        self.replica.as_ref().unwrap()
    }

    /// Ends with the exit code of a replica that gives up by itself.
    pub fn replica_gives_up(&mut self) -> Option<i32> {
        self.replica_lives.is_over();
        self.replica.take().unwrap().ends("the replica gives up")
    }

    /// The same of the primary.
    pub fn primary_gives_up(&mut self) -> Option<i32> {
        self.primary_lives.is_over();
        self.primary.take().unwrap().ends("the primary gives up")
    }

    /// The primary's disk fails as `disk.c` says from here on.
    pub fn fail_primary_disk(&self, fault: &str) {
        let new = self.home.path().join("fault.new");
        std::fs::write(&new, fault).unwrap();
        std::fs::rename(new, self.primary_fault()).unwrap();
    }

    /// The primary has another disk, or the same that works again.
    pub fn heal_primary_disk(&self) {
        std::fs::remove_file(self.primary_fault()).unwrap();
    }

    fn primary_fault(&self) -> PathBuf {
        self.home.path().join("fault")
    }

    fn primary_log(&self) -> PathBuf {
        self.home.path().join("primary.log")
    }

    /// The lines that the primary has logged, in all of its lives.
    pub fn primary_said(&self) -> Vec<String> {
        std::fs::read_to_string(self.primary_log()).unwrap().lines().map(str::to_owned).collect()
    }

    /// The same of the replica.
    pub fn replica_said(&self) -> Vec<String> {
        std::fs::read_to_string(self.replica_log()).unwrap().lines().map(str::to_owned).collect()
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
        self.primary_lives.begins(self.proxy.accepted());
        let endpoint = match &self.network {
            None => format!("tcp://{}", self.proxy.address()),
            // Nobody has the first address.
            Some(Network { nobody, replica, .. }) => {
                let port = self.replica_address.port();
                format!("tcp://{nobody}:{port},tcp://{replica}:{port}")
            }
        };
        let mut command = self.command(Command::new(std::env::current_exe().unwrap()), &endpoint);
        match self.setup.replicated {
            true => command.env("TSURUGI_REPLICATION_MODE", self.setup.mode),
            false => command.env_remove("TSURUGI_REPLICATION_ENDPOINT"),
        };
        if let Some(commit) = self.setup.commit {
            command.env("LIMESTONE_COMMIT", commit);
        }
        let log = File::options().create(true).append(true).open(self.primary_log()).unwrap();
        let child = command
            .args(["--exact", "be_the_primary", "--ignored", "--nocapture", "--test-threads=1"])
            .env("LD_PRELOAD", disk_library(self.home.path()))
            .env("LIMESTONE_TEST_DISK_FAULT", self.primary_fault())
            .env("TSURUGI_REPLICATION_LANES", self.setup.lanes.to_string())
            .env(CHANNELS, self.setup.channels.to_string())
            .env(DIRECTORY, self.primary_directory())
            .env(JOURNAL, self.home.path().join("journal"))
            .env(ALIVE, self.alive())
            .stdout(Stdio::null())
            .stderr(log)
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
        self.primary_lives.is_over();
        self.primary = None;
    }

    pub fn kill_replica(&mut self) {
        self.replica_lives.is_over();
        self.replica = None;
    }

    /// Whether the replica's process runs; one that has ended is forgotten.
    pub fn replica_runs(&mut self) -> bool {
        let ended = self.replica.as_mut().is_none_or(|replica| replica.0.try_wait().unwrap().is_some());
        if ended {
            self.replica_lives.is_over();
            self.replica = None;
        }
        !ended
    }

    /// Whether the primary's process runs; one that has ended is forgotten.
    pub fn primary_runs(&mut self) -> bool {
        let ended = self.primary.as_mut().is_none_or(|primary| primary.0.try_wait().unwrap().is_some());
        if ended {
            self.primary_lives.is_over();
            self.primary = None;
        }
        !ended
    }

    /// Lets the primary end in good order; gives how long the shutdown took.
    pub fn end_primary(&mut self) -> Duration {
        std::fs::remove_file(self.alive()).unwrap();
        self.primary_lives.is_over();
        let code = self.primary.take().unwrap().ends("the primary ends");
        assert_eq!(code, Some(0), "the primary ended");
        Duration::from_millis(self.journal().ended_ms.expect("the primary wrote down its end"))
    }

    /// Ends tgreplica with SIGTERM and gives its exit code.
    pub fn end_replica(&mut self) -> Option<i32> {
        self.replica_lives.is_over();
        let replica = self.replica.take().unwrap();
        replica.signal(libc::SIGTERM);
        replica.ends("tgreplica ends")
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
        self.end_watch();
        self.kill_primary();
        self.kill_replica();
        let journal = self.journal();
        check(&journal, &self.primary_directory(), &journal.stored_sessions);
        if self.setup.mode != "strict" {
            // The engine may have been told of more without it, so that it takes a person to let it count.
            promote(Arc::new(RealFs), &self.replica_directory(), true, None).unwrap();
        }
        check(&journal, &self.replica_directory(), &journal.propagated_sessions);
        assert!(!journal.propagated_sessions.is_empty(), "nothing was ever propagated");
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (who, log) in [("replica", self.replica_log()), ("primary", self.primary_log())] {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let lines: Vec<&str> = log.lines().collect();
                eprintln!("the last lines of the {who}:\n{}", lines[lines.len().saturating_sub(50)..].join("\n"));
            }
        }
    }
}
