// SPDX-License-Identifier: Apache-2.0
//! Lets a person tell a running engine or `tgreplica` what to do: a local socket in the control directory, for the
//! owner of the process only. Whoever connects sends one line, gets one line, and the connection ends.

use super::local_socket::{self, is_timeout, read_line, LocalSocket, Name};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::time::Duration;

const NAME: Name = Name { file: "control.sock", thread: "control", owner_only: true };
/// For a peer to send its line, or to take one.
const LINE_TIMEOUT: Duration = Duration::from_secs(1);
/// For whoever is asked to do it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);

/// Takes commands while it lives.
#[derive(Debug)]
pub struct ControlSocket {
    _socket: LocalSocket,
}

impl ControlSocket {
    /// Takes the place of what a killed process left; the caller holds the lock of the directory. `carry_out` gets a
    /// line and gives the answer, both without the line end; it is called for one command at a time, and must come back
    /// before this is dropped.
    ///
    /// # Errors
    /// When the socket cannot be made; the directory can be served all the same.
    pub fn start(location: &Path, carry_out: impl Fn(&str) -> String + Send + 'static) -> io::Result<ControlSocket> {
        let _socket = LocalSocket::start(location, NAME, move |mut stream| {
            stream.set_write_timeout(Some(LINE_TIMEOUT))?;
            let read = |piece: &mut [u8], left: Duration| {
                stream.set_read_timeout(Some(left))?;
                (&stream).read(piece)
            };
            let line = read_line(read, LINE_TIMEOUT)?;
            let answer = carry_out(&line);
            stream.write_all(format!("{answer}\n").as_bytes())
        })?;
        Ok(ControlSocket { _socket })
    }
}

/// Tells the process that serves the directory; `None` when there is none that takes commands. The answer may take ten
/// minutes.
///
/// # Errors
/// [`ErrorKind::TimedOut`] when it does not answer; [`ErrorKind::PermissionDenied`] for another user.
pub fn tell(location: &Path, command: &str) -> io::Result<Option<String>> {
    let Some(socket) = local_socket::connect(location, NAME, LINE_TIMEOUT)? else { return Ok(None) };
    (&socket).write_all(format!("{command}\n").as_bytes())?;
    let read = |piece: &mut [u8], left: Duration| {
        socket.set_read_timeout(Some(left))?;
        (&socket).read(piece)
    };
    match read_line(read, ANSWER_TIMEOUT) {
        Err(e) if is_timeout(&e) => Err(io::Error::new(ErrorKind::TimedOut, "no answer within 10 minutes")),
        answer => answer.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::names;
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    #[test]
    fn a_command_gets_its_answer_and_who_says_nothing_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        assert!(tell(dir.path(), "x").unwrap().is_none());
        std::fs::create_dir(dir.path().join(names::CONTROL_DIR)).unwrap();
        assert!(tell(dir.path(), "x").unwrap().is_none());
        let socket = ControlSocket::start(dir.path(), |line| format!("<{line}>")).unwrap();
        let silent = UnixStream::connect(dir.path().join(names::CONTROL_DIR).join(NAME.file)).unwrap();
        let begun = Instant::now();
        assert_eq!(tell(dir.path(), "do it").unwrap().as_deref(), Some("<do it>"));
        assert!(begun.elapsed() < 5 * LINE_TIMEOUT, "{:?}", begun.elapsed());
        drop(silent);
        let path = dir.path().join(names::CONTROL_DIR).join(NAME.file);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
        assert!(tell(dir.path(), "x").unwrap().is_none());
    }
}
