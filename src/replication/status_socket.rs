// SPDX-License-Identifier: Apache-2.0
//! Answers questions for the status of whoever serves a directory, an engine or a replica: a local socket in its
//! control directory, which nobody else looks at. Whoever connects gets the report, so what is shown is never stale.

use super::local_socket::{self, is_timeout, LocalSocket, Name};
use crate::replication::report::Report;
use socket2::Socket;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

const NAME: Name = Name { file: "status.sock", thread: "status", owner_only: false };
/// A larger answer is not a document.
const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// For whoever asked, to take the answer.
const SEND_TIMEOUT: Duration = Duration::from_millis(200);
/// For the whole of a question and its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers while it lives.
#[derive(Debug)]
pub struct StatusSocket {
    _socket: LocalSocket,
}

impl StatusSocket {
    /// Takes the place of what a killed process left; the caller holds the lock of the directory. `report` must not
    /// wait for anything that can take long.
    ///
    /// # Errors
    /// When the socket cannot be made; the directory can be served all the same.
    pub fn start(location: &Path, report: impl Fn() -> Report + Send + 'static) -> io::Result<StatusSocket> {
        let _socket = LocalSocket::start(location, NAME, move |mut stream| {
            stream.set_write_timeout(Some(SEND_TIMEOUT))?;
            stream.write_all(report().to_lines().as_bytes())
        })?;
        Ok(StatusSocket { _socket })
    }
}

/// Asks the process that serves the directory; `None` when none listens: it may be about to begin, or to end.
///
/// # Errors
/// [`ErrorKind::TimedOut`] when there is one and it does not answer within a second.
pub fn ask(location: &Path) -> io::Result<Option<Report>> {
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    match local_socket::connect(location, NAME, ANSWER_TIMEOUT).map_err(no_answer)? {
        Some(socket) => hear(socket, deadline),
        None => Ok(None),
    }
}

/// The answer; `None` when the process ended before it came to the question.
fn hear(socket: Socket, deadline: Instant) -> io::Result<Option<Report>> {
    let mut document = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        socket.set_read_timeout(Some(left))?;
        let mut piece = [0; 4096];
        let got = match (&socket).read(&mut piece) {
            Err(e) if e.kind() == ErrorKind::ConnectionReset => 0,
            got => got.map_err(no_answer)?,
        };
        document.extend_from_slice(&piece[..got]);
        match got {
            0 => break,
            _ if Instant::now() >= deadline => return Err(no_answer(ErrorKind::WouldBlock.into())),
            _ if document.len() > DOCUMENT_BYTES_MAX => return Err(ErrorKind::InvalidData.into()),
            _ => {}
        }
    }
    if document.is_empty() {
        return Ok(None);
    }
    Report::parse(&document).map(Some).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))
}

/// A time-out in words.
fn no_answer(error: io::Error) -> io::Error {
    match is_timeout(&error) {
        true => io::Error::new(ErrorKind::TimedOut, format!("no answer within {} ms", ANSWER_TIMEOUT.as_millis())),
        false => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Snapshot;
    use crate::replication::status::Known;
    use crate::wal::names;
    use std::sync::mpsc::{channel, Receiver, Sender};

    fn report() -> Report {
        Report::new(Known::default().document(), Snapshot { sessions: 3, ..Snapshot::default() }, Path::new("/"))
    }

    /// One that answers when what is returned with it is gone, and hears from it when it comes to a question.
    fn start_busy(location: &Path) -> (StatusSocket, Sender<()>, Receiver<()>) {
        let ((release, wait), (asked, hears)) = (channel(), channel());
        let busy = move || {
            let _ = (asked.send(()), wait.recv());
            report()
        };
        (StatusSocket::start(location, busy).unwrap(), release, hears)
    }

    #[test]
    fn whoever_asks_gets_the_report_and_nobody_is_left_when_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        assert!(ask(dir.path()).unwrap().is_none());
        let socket = StatusSocket::start(dir.path(), report).unwrap();
        let told = ask(dir.path()).unwrap().unwrap();
        assert_eq!((told.status, told.counted.unwrap().numbers.sessions), (report().status, 3));
        // The directory may be moved meanwhile.
        let moved = dir.path().with_extension("moved");
        std::fs::rename(dir.path(), &moved).unwrap();
        assert!(ask(&moved).unwrap().is_some());
        drop(socket);
        assert!(ask(&moved).unwrap().is_none());
        assert_eq!(std::fs::read_dir(moved.join(names::CONTROL_DIR)).unwrap().count(), 0);
        std::fs::rename(&moved, dir.path()).unwrap();
    }

    #[test]
    fn one_that_ends_leaves_the_socket_of_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let ending = StatusSocket::start(dir.path(), report).unwrap();
        let next = StatusSocket::start(dir.path(), report).unwrap();
        drop(ending);
        assert!(ask(dir.path()).unwrap().is_some());
        drop(next);
        assert!(ask(dir.path()).unwrap().is_none());
    }

    #[test]
    fn a_question_to_one_that_ends_before_its_turn_has_no_answer() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, release, asked) = start_busy(dir.path());
        let question = || local_socket::connect(dir.path(), NAME, ANSWER_TIMEOUT).unwrap();
        let (first, second) = (question().unwrap(), question().unwrap());
        asked.recv().unwrap();
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| drop(socket));
            while question().is_some() {
                std::thread::yield_now();
            }
            drop(release);
            ending.join().unwrap();
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        assert!(hear(first, deadline).unwrap().is_some());
        assert!(hear(second, deadline).unwrap().is_none());
    }

    #[test]
    fn one_that_does_not_answer_is_said_to_after_a_second() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, release, _asked) = start_busy(dir.path());
        let begun = Instant::now();
        let error = ask(dir.path()).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::TimedOut, "no answer within 1000 ms"));
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        drop(release);
        drop(socket);
    }
}
