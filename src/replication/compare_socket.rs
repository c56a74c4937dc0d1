// SPDX-License-Identifier: Apache-2.0
//! Lets the owner of a `tgreplica` that serves a directory ask what its primary has: whoever connects to this socket in
//! the control directory sends one line that says which digest, and hears all the time that the answer is on its way,
//! then gets it in pieces. One is asked for at a time; it is over as soon as one of the two goes.

use super::digests::{DigestWanted, Step, Tell};
use super::local_socket::{self, is_timeout, read_line, wait_to_read, LocalSocket, Name};
use serde::{Deserialize, Serialize};
use socket2::Socket;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

const NAME: Name = Name { file: "compare.sock", thread: "compare", owner_only: true };
/// For the question, and for a peer to take something.
const LINE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is said that it goes on.
const ALIVE_EVERY: Duration = Duration::from_millis(500);
/// For the first word: another one may be asking.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
const LINE_BYTES_MAX: u64 = 1 << 16;

/// What whoever asked is told, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    /// The answer is on its way.
    Working,
    /// So many bytes of the document follow.
    Bytes(usize),
    Done,
    Failed(String),
}

/// Takes questions while it lives; dropping it ends one that is open.
#[derive(Debug)]
pub struct CompareSocket {
    stopping: Arc<AtomicBool>,
    _socket: LocalSocket,
}

impl CompareSocket {
    /// Takes the place of what a killed process left; the caller holds the lock of the directory. `ask` gets the
    /// document, gives it on piece by piece, and says that it goes on: once it knows that there will be an answer, and
    /// then often. It ends soon when that gives an error.
    ///
    /// # Errors
    /// When the socket cannot be made; the directory can be served all the same.
    pub fn start<A>(location: &Path, ask: A) -> io::Result<CompareSocket>
    where
        A: Fn(DigestWanted, Tell<'_>) -> Result<(), String> + Send + 'static,
    {
        let stopping = Arc::new(AtomicBool::new(false));
        let ends = stopping.clone();
        let serve = move |stream: UnixStream| {
            stream.set_write_timeout(Some(LINE_TIMEOUT))?;
            let read = |piece: &mut [u8], left: Duration| {
                stream.set_read_timeout(Some(left))?;
                (&stream).read(piece)
            };
            let wanted = serde_json::from_str(&read_line(read, LINE_TIMEOUT)?).map_err(|e| e.to_string());
            let mut said: Option<Instant> = None;
            let mut tell = |step: Step<'_>| match step {
                _ if ends.load(SeqCst) => Err(io::Error::new(ErrorKind::Interrupted, "the process ends")),
                Step::Piece(bytes) => {
                    said = Some(Instant::now());
                    send(&stream, &Line::Bytes(bytes.len())).and_then(|()| (&stream).write_all(bytes))
                }
                Step::GoesOn if said.is_none_or(|said| said.elapsed() >= ALIVE_EVERY) => {
                    said = Some(Instant::now());
                    send(&stream, &Line::Working)
                }
                Step::GoesOn => Ok(()),
            };
            match wanted.and_then(|wanted| ask(wanted, &mut tell)) {
                Ok(()) => send(&stream, &Line::Done),
                Err(text) => send(&stream, &Line::Failed(text)),
            }
        };
        Ok(CompareSocket { _socket: LocalSocket::start(location, NAME, serve)?, stopping })
    }
}

impl Drop for CompareSocket {
    fn drop(&mut self) {
        self.stopping.store(true, SeqCst);
    }
}

fn send(mut to: &UnixStream, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    to.write_all(text.as_bytes())
}

/// A question to the process that serves a directory.
#[derive(Debug)]
pub struct Asked {
    lines: BufReader<Socket>,
}

impl Asked {
    /// Asks; `None` when nobody serves the directory who can be asked. Gives up when `stop` is set.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] for another user; [`ErrorKind::Interrupted`] when it was stopped; else why there
    /// is no answer.
    pub fn begin(location: &Path, wanted: DigestWanted, stop: &AtomicBool) -> io::Result<Option<Asked>> {
        let Some(socket) = local_socket::connect(location, NAME, LINE_TIMEOUT)? else { return Ok(None) };
        let mut line = serde_json::to_string(&wanted)?;
        line.push('\n');
        (&socket).write_all(line.as_bytes())?;
        let another = |e| in_words(e, ": another one may be asking it");
        wait_to_read(&socket, TURN_TIMEOUT, stop).map_err(another)?;
        socket.set_read_timeout(Some(TURN_TIMEOUT))?;
        let mut asked = Asked { lines: BufReader::new(socket) };
        // Before anything that takes long, the process says whether there will be an answer.
        match asked.line().map_err(another)? {
            Line::Working => Ok(Some(asked)),
            Line::Failed(text) => Err(io::Error::other(text)),
            other => Err(unexpected(&format!("{other:?}"))),
        }
    }

    /// The document of up to so many bytes, however long it takes as long as the process says that it goes on. Ended
    /// early when `stop` is set.
    ///
    /// # Errors
    /// Why there is none.
    pub fn document(mut self, bytes_max: u64, stop: &AtomicBool) -> io::Result<Vec<u8>> {
        let mut document = Vec::new();
        loop {
            if stop.load(SeqCst) {
                return Err(io::Error::new(ErrorKind::Interrupted, "the question was broken off"));
            }
            match self.line().map_err(|e| in_words(e, " any more"))? {
                Line::Working => {}
                Line::Bytes(len) if len as u64 <= bytes_max.saturating_sub(document.len() as u64) => {
                    let begin = document.len();
                    document.resize(begin + len, 0);
                    self.lines.read_exact(&mut document[begin..]).map_err(|e| in_words(e, " any more"))?;
                }
                Line::Bytes(_) => return Err(unexpected(&format!("more than {bytes_max} bytes"))),
                Line::Done => return Ok(document),
                Line::Failed(text) => return Err(io::Error::other(text)),
            }
        }
    }

    fn line(&mut self) -> io::Result<Line> {
        let mut line = Vec::new();
        (&mut self.lines).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
        match line.last() {
            Some(b'\n') => serde_json::from_slice(&line).map_err(|e| unexpected(&e.to_string())),
            _ => Err(io::Error::new(ErrorKind::UnexpectedEof, "the process has ended the answer")),
        }
    }
}

/// What it means that nothing came in time.
fn in_words(error: io::Error, meaning: &str) -> io::Error {
    match is_timeout(&error) {
        true => io::Error::new(ErrorKind::TimedOut, format!("the process does not answer in time{meaning}")),
        false => error,
    }
}

fn unexpected(found: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the process told {found}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Epoch;

    const WANTED: DigestWanted = DigestWanted { epoch: Epoch(7), with_blobs: true, bytes_per_second: None };

    #[test]
    fn a_piece_of_any_length_that_somebody_tells_is_refused_beyond_the_bound() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send(&theirs, &Line::Bytes(4)).unwrap();
        (&theirs).write_all(b"some").unwrap();
        send(&theirs, &Line::Bytes(usize::MAX)).unwrap();
        let asked = Asked { lines: BufReader::new(std::os::fd::OwnedFd::from(ours).into()) };
        let error = asked.document(100, &AtomicBool::new(false)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
    }

    #[test]
    fn a_document_comes_in_pieces_and_a_question_ends_with_either_side() {
        let dir = tempfile::tempdir().unwrap();
        let no = AtomicBool::new(false);
        assert!(Asked::begin(dir.path(), WANTED, &no).unwrap().is_none());
        let (gone, went) = std::sync::mpsc::channel();
        let socket = CompareSocket::start(dir.path(), move |wanted, tell| match wanted {
            DigestWanted { epoch: Epoch(7), .. } => {
                tell(Step::GoesOn).unwrap();
                tell(Step::Piece(b"one ")).and_then(|()| tell(Step::Piece(&[b'2'; 100_000]))).map_err(|e| e.to_string())
            }
            DigestWanted { epoch: Epoch(8), .. } => Err("not now".to_owned()),
            _ => loop {
                if let Err(e) = tell(Step::GoesOn) {
                    let _ = gone.send(());
                    break Err(e.to_string());
                }
                std::thread::sleep(Duration::from_millis(5));
            },
        })
        .unwrap();
        let ask = |wanted| Asked::begin(dir.path(), wanted, &no).unwrap().unwrap();
        let document = ask(WANTED).document(1 << 20, &no).unwrap();
        assert!(document.len() == 100_004 && document.starts_with(b"one 22"));
        assert_eq!(ask(WANTED).document(100_000, &no).unwrap_err().kind(), ErrorKind::InvalidData);
        let failed = Asked::begin(dir.path(), DigestWanted { epoch: Epoch(8), ..WANTED }, &no);
        assert_eq!(failed.unwrap_err().to_string(), "not now");
        // Who asks goes without a word.
        let endless = DigestWanted { epoch: Epoch(9), ..WANTED };
        drop(ask(endless));
        went.recv_timeout(Duration::from_secs(60)).unwrap();
        let stopped = ask(endless).document(1 << 20, &AtomicBool::new(true));
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Interrupted);
        went.recv_timeout(Duration::from_secs(60)).unwrap();
        // The process ends.
        let open = ask(endless);
        drop(socket);
        went.recv_timeout(Duration::from_secs(60)).unwrap();
        let ended = open.document(1 << 20, &no).unwrap_err().to_string();
        assert!(ended.contains("the process ends"), "{ended}");
        assert!(Asked::begin(dir.path(), WANTED, &no).unwrap().is_none());
    }
}
