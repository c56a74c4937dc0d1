// SPDX-License-Identifier: Apache-2.0
//! What a service manager is told that waits for it (the protocol of `sd_notify`): ready, alive, stopping. One datagram
//! each; whoever is not started by one tells nobody.

use super::report::Environment;
use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// Whom to tell, and how often.
#[derive(Debug)]
pub struct ServiceManager {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// Half of the time after which a service that says nothing counts as hung.
    every: Option<Duration>,
    told: Instant,
}

impl ServiceManager {
    /// As the environment says: `NOTIFY_SOCKET`, and `WATCHDOG_USEC` unless `WATCHDOG_PID` is another process.
    pub fn of(environment: &Environment) -> ServiceManager {
        let value = |wanted: &str| environment.iter().find(|(name, _)| name == wanted).map(|(_, value)| value);
        let number = |wanted: &str| value(wanted)?.to_str()?.parse::<u64>().ok();
        let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let every = number("WATCHDOG_USEC").filter(|&us| is_meant && us > 0).map(|us| Duration::from_micros(us / 2));
        ServiceManager { to: value("NOTIFY_SOCKET").and_then(open), every, told: Instant::now() }
    }

    /// It serves now.
    pub fn ready(&self) {
        self.tell("READY=1\n");
    }

    /// It is alive; to be said whenever it is known.
    pub fn alive(&mut self) {
        if self.every.is_some_and(|every| self.told.elapsed() >= every) {
            self.told = Instant::now();
            self.tell("WATCHDOG=1\n");
        }
    }

    /// It is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\n");
    }

    fn tell(&self, what: &str) {
        if let Some((socket, to)) = &self.to {
            if let Err(e) = socket.send_to_addr(what.as_bytes(), to) {
                log::warn!("the service manager is not told {}: {e}", what.trim_end());
            }
        }
    }
}

/// A name that begins with `@` is in the abstract name space.
fn open(name: &OsString) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(rest) => SocketAddr::from_abstract_name(rest),
        None => SocketAddr::from_pathname(name),
    };
    let opened = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        // A manager that does not listen must not hold the replica up.
        socket.set_nonblocking(true)?;
        Ok((socket, address))
    });
    opened.inspect_err(|e| log::warn!("NOTIFY_SOCKET={}: {e}", name.display())).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_hears_that_it_is_ready_alive_and_stopping() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let abstract_name = format!("tgreplica-{}", std::process::id());
        let listening = [
            (UnixDatagram::bind(&path).unwrap(), path.into_os_string()),
            (
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&abstract_name).unwrap()).unwrap(),
                OsString::from(format!("@{abstract_name}")),
            ),
        ];
        for (manager, name) in listening {
            manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let environment =
                vec![("NOTIFY_SOCKET".into(), name), ("WATCHDOG_USEC".into(), "2000".into())] as Environment;
            let mut service = ServiceManager::of(&environment);
            service.ready();
            std::thread::sleep(Duration::from_millis(2));
            service.alive();
            service.stopping();
            for expected in ["READY=1\n", "WATCHDOG=1\n", "STOPPING=1\n"] {
                let mut heard = [0; 64];
                let len = manager.recv(&mut heard).unwrap();
                assert_eq!(std::str::from_utf8(&heard[..len]), Ok(expected));
            }
        }
    }

    #[test]
    fn without_a_manager_nobody_is_told_and_a_watchdog_of_another_process_is_not_served() {
        let mut nobody = ServiceManager::of(&Vec::new());
        nobody.ready();
        nobody.alive();
        let other = vec![("WATCHDOG_USEC".into(), "2000".into()), ("WATCHDOG_PID".into(), "1".into())];
        assert!(nobody.to.is_none() && ServiceManager::of(&other).every.is_none());
    }
}
