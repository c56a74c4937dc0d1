// SPDX-License-Identifier: Apache-2.0
//! The engine of the demo, a C++ program on the C++ headers, on disks that fail or are full: its process ends, and what
//! it wrote down as acknowledged is there when it starts again.

use crate::machine::{Process, SmallDisk};
use crate::nodes::{disk_library, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// `scripts/test.sh` builds the program first and names it here.
const MINI_ENGINE: &str = "LIMESTONE_MINI_ENGINE";
const MIB: u64 = 1 << 20;

fn program() -> Option<PathBuf> {
    let program = std::env::var_os(MINI_ENGINE).map(PathBuf::from);
    if program.is_none() {
        not_run(&format!("{MINI_ENGINE} does not name the mini engine; scripts/test.sh does"));
    }
    program
}

/// The runner of the tests hides what is printed by its own means.
fn not_run(why: &str) {
    std::io::stdout().write_all(format!("NOT RUN: {why}\n").as_bytes()).unwrap();
}

/// An engine that has its directory on one disk and what it was told on another one.
struct Engine {
    program: PathBuf,
    directory: PathBuf,
    home: tempfile::TempDir,
    commit: &'static str,
    /// Where its replica listens.
    replica: Option<String>,
}

impl Engine {
    fn new(program: PathBuf, commit: &'static str) -> Engine {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("primary");
        Engine { program, directory, home, commit, replica: None }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn start(&self, seconds: &str, value_bytes: &str) -> Process {
        let log = std::fs::File::create(self.file("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("run").arg("--dir").arg(&self.directory).arg("--ack-file").arg(self.file("stored"));
        command.args(["--workers", "3", "--epoch-ms", "5", "--records", "4", "--value-bytes", value_bytes]);
        command.args(["--seconds", seconds]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.env("LIMESTONE_COMMIT", self.commit).env("LD_PRELOAD", disk_library(self.home.path()));
        command.env("LIMESTONE_TEST_DISK_FAULT", self.file("fault")).env("GLOG_logtostderr", "1");
        if let Some(replica) = &self.replica {
            command.arg("--propagated-file").arg(self.file("propagated"));
            command.env("TSURUGI_REPLICATION_ENDPOINT", replica).env("TSURUGI_REPLICATION_TIMEOUT_MS", "2000");
        }
        Process(command.spawn().unwrap())
    }

    fn acknowledged(&self, file: &str) -> u64 {
        std::fs::metadata(self.file(file)).map_or(0, |about| about.len())
    }

    /// Ends by a signal, and the last words are about the disk.
    fn dies(&self, engine: Process, reason: &str) {
        assert_eq!(engine.ends("the engine dies"), None, "{}: {reason}", self.commit);
        let log = std::fs::read_to_string(self.file("log")).unwrap();
        let fatal = log.lines().find(|line| line.contains("Fatal error in")).unwrap_or_else(|| panic!("{log}"));
        assert!(fatal.contains(reason) && fatal.contains("/primary/"), "{fatal}");
    }

    /// Starts on a directory and looks for what a file says was acknowledged.
    fn verify(&self, directory: &Path, acknowledged: &str) {
        let mut command = Command::new(&self.program);
        command.arg("verify").arg("--dir").arg(directory).arg("--ack-file").arg(self.file(acknowledged));
        let output = command.env("LIMESTONE_COMMIT", self.commit).output().unwrap();
        assert!(output.status.success(), "{}: {acknowledged}: {output:?}", self.commit);
    }
}

/// A replica of the program, ended with the result.
fn replica_of(directory: &Path) -> (Process, String) {
    std::fs::create_dir(directory).unwrap();
    let endpoint = format!("tcp://127.0.0.1:{}", crate::ports::free_port());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tgreplica"));
    command.arg(directory).args(["--listen", &endpoint]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let stdout = child.stdout.take().unwrap();
    let replica = Process(child);
    assert!(BufReader::new(stdout).lines().any(|line| line.unwrap().contains("listening")));
    (replica, endpoint)
}

#[test]
fn a_failed_disk_ends_the_mini_engine_and_nothing_that_it_was_told_is_lost() {
    let Some(program) = program() else { return };
    for (commit, fault, replicated) in [
        ("journal", "write 5 1 /limestone-journal", false),
        ("journal", "sync 5 1 /limestone-journal", true),
        ("journal", "sync 5 1 /pwal_", true),
        ("direct", "sync 5 1 /pwal_", true),
        ("direct", "write 5 1 /epoch", false),
    ] {
        let mut engine = Engine::new(program.clone(), commit);
        let copy = engine.file("replica");
        let replica = replicated.then(|| replica_of(&copy));
        engine.replica = replica.as_ref().map(|(_, endpoint)| endpoint.clone());
        let process = engine.start("600", "2000");
        let told = if replicated { "propagated" } else { "stored" };
        wait_until("something is acknowledged", || engine.acknowledged(told) > 200);
        std::fs::write(engine.file("fault"), fault).unwrap();
        engine.dies(process, "Input/output error");
        engine.verify(&engine.directory, "stored");
        if let Some((process, _)) = replica {
            process.signal(libc::SIGTERM);
            assert_eq!(process.ends("the replica ends"), Some(0), "{commit}, {fault}");
            engine.verify(&copy, "propagated");
        }
    }
}

#[test]
fn a_full_disk_ends_the_mini_engine_which_starts_by_itself_when_there_is_room_again() {
    let Some(program) = program() else { return };
    for commit in ["journal", "direct"] {
        let mut engine = Engine::new(program.clone(), commit);
        let Some(disk) = SmallDisk::mount(&engine.file("disk"), 64 * MIB) else {
            return not_run("this machine does not allow to mount a disk");
        };
        disk.fill(32 * MIB);
        engine.directory = disk.path().join("primary");
        engine.dies(engine.start("600", "2000"), "No space left on device");
        let before = engine.acknowledged("stored");
        disk.empty();
        assert_eq!(engine.start("1", "20").ends("the engine ends"), Some(0), "{commit}: it starts and writes");
        assert!(engine.acknowledged("stored") > before, "{commit}: more is acknowledged");
        engine.verify(&engine.directory, "stored");
    }
}
