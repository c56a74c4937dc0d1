// SPDX-License-Identifier: Apache-2.0
//! What the machine lends to a pair: processes, a network of its own, limits.

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
