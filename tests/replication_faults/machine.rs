// SPDX-License-Identifier: Apache-2.0
//! What the machine lends to a pair: processes, a network of its own, limits.

use crate::nodes::wait_until;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Ends the process with the test.
#[derive(Debug)]
pub struct Process(pub Child);

impl Process {
    /// Bytes of memory that are this process's own.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a process that runs");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.0.id())).unwrap().count()
    }

    /// Waits for its end; its exit code, `None` when a signal ended it.
    pub fn ends(mut self, what: &str) -> Option<i32> {
        let mut status = None;
        wait_until(what, || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.code())
    }

    pub fn signal(&self, signal: i32) {
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
    pub name: String,
    device: String,
    pub replica: String,
    /// An address that nobody has.
    pub nobody: String,
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

/// A disk of its own, in memory, that is soon full. Gone with the last file that is open on it.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where the machine does not allow it.
    pub fn mount(path: &Path, bytes: u64) -> Option<SmallDisk> {
        std::fs::create_dir(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"]).arg(path);
        let mounted = mount.stdin(Stdio::null()).stderr(Stdio::null()).status();
        mounted.is_ok_and(|status| status.success()).then(|| SmallDisk(path.to_owned()))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }

    /// So much of it is taken by somebody else.
    pub fn fill(&self, bytes: u64) {
        std::fs::write(self.ballast(), vec![1; bytes as usize]).unwrap();
    }

    /// Somebody else takes all that is left.
    pub fn fill_up(&self) {
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        // Until that is full.
        while ballast.write_all(&[1; 4096]).is_ok() {}
    }

    /// There is room again.
    pub fn empty(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What a process has open there goes with it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

pub fn limit_files(bytes: u64) -> std::io::Result<()> {
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
