// SPDX-License-Identifier: Apache-2.0
//! Lets a person tell a running `tgreplica` what to do: a local socket in the control directory, for the owner of the
//! process only. Whoever connects sends one line, gets one line, and the connection ends.

use super::socket_place::{is_timeout, SocketPlace};
use crate::vfs::descriptor::above_standard_streams;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const NAME: &str = "control.sock";
/// For a peer to send its line, or to take one.
const LINE_TIMEOUT: Duration = Duration::from_secs(1);
/// For whoever is asked to do it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
const LINE_BYTES_MAX: usize = 1 << 16;
/// After an error of the listening socket.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes commands while it lives.
#[derive(Debug)]
pub struct ControlSocket {
    place: SocketPlace,
    listener: Arc<UnixListener>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ControlSocket {
    /// Takes the place of what a killed process left; the caller holds the lock of the directory, whose control
    /// directory is there. `carry_out` gets a line and gives the answer, both without the line end; it is called for
    /// one command at a time, and must come back before this is dropped.
    ///
    /// # Errors
    /// When the socket cannot be made; the directory can be served all the same.
    pub fn start(location: &Path, carry_out: impl Fn(&str) -> String + Send + 'static) -> io::Result<ControlSocket> {
        let place = SocketPlace::open(location, NAME)?;
        place.remove()?;
        let listener = Arc::new(above_standard_streams(UnixListener::bind(place.name())?)?);
        std::fs::set_permissions(place.name(), std::fs::Permissions::from_mode(0o600))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = {
            let (listener, stopping) = (listener.clone(), stopping.clone());
            let serve = move || {
                while !stopping.load(SeqCst) {
                    match listener.accept() {
                        // Who sends nothing, or does not wait for the answer, gets none.
                        Ok((stream, _)) => drop(serve_one(stream, &carry_out)),
                        Err(_) if stopping.load(SeqCst) => return,
                        Err(_) => std::thread::sleep(PAUSE),
                    }
                }
            };
            std::thread::Builder::new().name("control".to_owned()).spawn(serve)?
        };
        Ok(ControlSocket { place, listener, stopping, thread: Some(thread) })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // A name that stays is replaced by the next process.
        let _ = self.place.remove();
        self.stopping.store(true, SeqCst);
        // Whoever waits for a connection is woken by that.
        let _ = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve_one(stream: UnixStream, carry_out: &impl Fn(&str) -> String) -> io::Result<()> {
    let mut stream = above_standard_streams(stream)?;
    stream.set_write_timeout(Some(LINE_TIMEOUT))?;
    let read = |piece: &mut [u8], left: Duration| {
        stream.set_read_timeout(Some(left))?;
        (&stream).read(piece)
    };
    let line = read_line(read, LINE_TIMEOUT)?;
    let answer = carry_out(&line);
    stream.write_all(format!("{answer}\n").as_bytes())
}

/// Reads up to the first line end, within the time.
fn read_line(read: impl Fn(&mut [u8], Duration) -> io::Result<usize>, timeout: Duration) -> io::Result<String> {
    let deadline = Instant::now() + timeout;
    let mut line = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        let mut piece = [0; 1024];
        let got = read(&mut piece, left)?;
        line.extend_from_slice(&piece[..got]);
        if let Some(end) = line.iter().position(|&byte| byte == b'\n') {
            line.truncate(end);
            return String::from_utf8(line).map_err(|e| io::Error::new(ErrorKind::InvalidData, e));
        }
        match got {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            _ if line.len() > LINE_BYTES_MAX => return Err(ErrorKind::InvalidData.into()),
            _ => {}
        }
    }
}

/// Tells the process that serves the directory; `None` when there is none that takes commands. The answer may take ten
/// minutes.
///
/// # Errors
/// [`ErrorKind::TimedOut`] when it does not answer; [`ErrorKind::PermissionDenied`] for another user.
pub fn tell(location: &Path, command: &str) -> io::Result<Option<String>> {
    let place = match SocketPlace::open(location, NAME) {
        Ok(place) => place,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(LINE_TIMEOUT))?;
    match socket.connect(&SockAddr::unix(place.name())?) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        other => other?,
    }
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

    #[test]
    fn a_command_gets_its_answer_and_who_says_nothing_holds_nobody_up() {
        let dir = tempfile::tempdir().unwrap();
        assert!(tell(dir.path(), "x").unwrap().is_none());
        std::fs::create_dir(dir.path().join(names::CONTROL_DIR)).unwrap();
        assert!(tell(dir.path(), "x").unwrap().is_none());
        let socket = ControlSocket::start(dir.path(), |line| format!("<{line}>")).unwrap();
        let silent = UnixStream::connect(dir.path().join(names::CONTROL_DIR).join(NAME)).unwrap();
        let begun = Instant::now();
        assert_eq!(tell(dir.path(), "do it").unwrap().as_deref(), Some("<do it>"));
        assert!(begun.elapsed() < 5 * LINE_TIMEOUT, "{:?}", begun.elapsed());
        drop(silent);
        let path = dir.path().join(names::CONTROL_DIR).join(NAME);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(socket);
        assert!(!path.exists());
        assert!(tell(dir.path(), "x").unwrap().is_none());
    }
}
