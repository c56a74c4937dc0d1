// SPDX-License-Identifier: Apache-2.0
//! Lets the owner of a process that serves a directory copy its files: whoever connects to this socket in the control
//! directory begins a backup and is told its epoch, when which epochs before it were durable, and its files, a line of
//! JSON for each. The backup is open as long as the connection, says something now and then, and neither side ends; so
//! nobody who died holds one. A line from who copies asks whether all that was listed was there until now; the answer
//! ends the backup.

use super::epoch_times::{EpochTimes, TimeOfEpoch};
use super::local_socket::{self, is_timeout, wait_to_read, LocalSocket, Name};
use crate::types::Epoch;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use socket2::Socket;
use std::fmt;
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::time::{Duration, Instant};

const NAME: Name = Name { file: "backup.sock", thread: "backup", owner_only: true };
/// For a peer to take something, and between the lines of an answer.
const LINE_TIMEOUT: Duration = Duration::from_secs(10);
/// For a backup to begin: another one that is open goes first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(600);
/// Who copies and says nothing for so long does not copy any more.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// How often who copies says that it does.
const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// How often the process looks whether it shall end.
const POLL: Duration = Duration::from_millis(100);
const LINE_BYTES_MAX: u64 = 1 << 16;
/// Times in one line.
const TIMES_EACH: usize = 512;

/// A file to copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldFile {
    /// Below the directory.
    pub source: PathBuf,
    /// What it is called in the backup.
    pub destination: PathBuf,
    /// Only so many bytes of it; all when there is none.
    pub bytes: Option<u64>,
}

/// An open backup, for whoever serves the directory. Dropping it ends the backup.
pub struct Held {
    /// Exactly what sessions up to this epoch wrote is in it.
    pub epoch: Epoch,
    pub files: Vec<HeldFile>,
    /// Why a file may have been changed or taken away since it began.
    pub spoiled: Box<dyn Fn() -> Option<String>>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({}, {} files)", self.epoch, self.files.len())
    }
}

/// What is told.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Answer {
    /// With so many lines of times, and then so many of files.
    Begun {
        serves: Serves,
        epoch: Epoch,
        times: usize,
        files: usize,
    },
    Failed {
        error: String,
    },
    Ended {
        held: bool,
    },
}

/// Who serves a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Serves {
    Engine,
    Replica,
}

/// Lets backups be made while it lives; dropping it ends one that is open.
#[derive(Debug)]
pub struct BackupSocket {
    stopping: Arc<AtomicBool>,
    _socket: LocalSocket,
}

/// What whoever serves a directory does for backups.
pub struct Serving<B, D> {
    pub serves: Serves,
    /// Begins a backup or says why not, within a bounded time; called for one backup at a time.
    pub begin: B,
    /// Up to which epoch everything is durable; never waits.
    pub durable: D,
}

impl BackupSocket {
    /// Takes the place of what a killed process left; the caller holds the lock of the directory.
    ///
    /// # Errors
    /// When the socket cannot be made; the directory can be served all the same.
    pub fn start<B, D>(location: &Path, serving: Serving<B, D>) -> io::Result<BackupSocket>
    where
        B: Fn() -> Result<Held, String> + Send + 'static,
        D: Fn() -> Epoch + Send + 'static,
    {
        let Serving { serves, begin, durable } = serving;
        let (stopping, times) = (Arc::new(AtomicBool::new(false)), EpochTimes::start(durable)?);
        let ends = stopping.clone();
        let serve = move |stream: UnixStream| serve(&stream, serves, (&begin, &times), &ends);
        Ok(BackupSocket { _socket: LocalSocket::start(location, NAME, serve)?, stopping })
    }
}

impl Drop for BackupSocket {
    fn drop(&mut self) {
        self.stopping.store(true, SeqCst);
    }
}

fn serve(
    stream: &UnixStream,
    serves: Serves,
    (begin, times): (&dyn Fn() -> Result<Held, String>, &EpochTimes),
    stopping: &AtomicBool,
) -> io::Result<()> {
    if stopping.load(SeqCst) {
        // Who waited for the end of another one does not hold up the end of the process.
        return Ok(());
    }
    stream.set_write_timeout(Some(LINE_TIMEOUT))?;
    let mut lines = BufWriter::new(stream);
    let held = match begin() {
        Ok(held) => held,
        Err(error) => return send(&mut lines, &Answer::Failed { error }).and_then(|()| lines.flush()),
    };
    let times = times.up_to(held.epoch);
    let pieces = times.chunks(TIMES_EACH);
    let (epoch, files) = (held.epoch, held.files.len());
    send(&mut lines, &Answer::Begun { serves, epoch, times: pieces.len(), files })?;
    for piece in pieces {
        send(&mut lines, &piece)?;
    }
    held.files.iter().try_for_each(|file| send(&mut lines, file))?;
    lines.flush()?;
    if let Err(e) = wait_for_end(stream, stopping) {
        log::warn!("the backup up to epoch {} was given up: {e}", held.epoch);
        return Err(e);
    }
    let answer = match (held.spoiled)() {
        None => Answer::Ended { held: true },
        Some(error) => Answer::Failed { error },
    };
    drop(held);
    send(&mut lines, &answer)?;
    lines.flush()
}

fn send(to: &mut impl Write, line: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *to, line)?;
    to.write_all(b"\n")
}

/// Waits for the line that ends the backup.
fn wait_for_end(mut stream: &UnixStream, stopping: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(POLL))?;
    let mut heard = Instant::now();
    loop {
        if stopping.load(SeqCst) {
            return Err(io::Error::new(ErrorKind::Interrupted, "the process ends"));
        }
        let mut piece = [0; 256];
        match stream.read(&mut piece) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "who copied has gone")),
            Ok(got) if piece[..got].contains(&b'\n') => return Ok(()),
            Ok(_) => heard = Instant::now(),
            Err(e) if is_timeout(&e) && heard.elapsed() > SILENCE_MAX => {
                return Err(io::Error::new(ErrorKind::TimedOut, "who copied said nothing for ten minutes"));
            }
            Err(e) if is_timeout(&e) || e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

/// A backup that a process holds open for this one.
#[derive(Debug)]
pub struct OpenBackup {
    lines: BufReader<Socket>,
    pub serves: Serves,
    pub epoch: Epoch,
    /// When which epoch up to that was durable, oldest first.
    pub times: Vec<TimeOfEpoch>,
    pub files: Vec<HeldFile>,
    said: Instant,
}

impl OpenBackup {
    /// Begins a backup of the directory, after another one that is open; `None` when nobody serves it who makes any.
    /// Gives up when `stop` is set.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] for another user; [`ErrorKind::Interrupted`] when it was stopped; else why the
    /// process cannot, or that it does not answer.
    pub fn begin(location: &Path, stop: &AtomicBool) -> io::Result<Option<OpenBackup>> {
        let Some(socket) = local_socket::connect(location, NAME, LINE_TIMEOUT)? else { return Ok(None) };
        wait_to_read(&socket, ANSWER_TIMEOUT, stop).map_err(unanswered)?;
        socket.set_read_timeout(Some(LINE_TIMEOUT))?;
        let mut lines = BufReader::new(socket);
        let (serves, epoch, pieces, count) = match receive(&mut lines)? {
            Answer::Begun { serves, epoch, times, files } => (serves, epoch, times, files),
            Answer::Failed { error } => return Err(io::Error::other(error)),
            Answer::Ended { .. } => return Err(unexpected("a backup that has ended")),
        };
        let mut times = Vec::new();
        for _ in 0..pieces {
            times.extend(receive::<Vec<TimeOfEpoch>>(&mut lines)?);
        }
        let files = (0..count).map(|_| receive(&mut lines)).collect::<io::Result<Vec<HeldFile>>>()?;
        Ok(Some(OpenBackup { lines, serves, epoch, times, files, said: Instant::now() }))
    }

    /// Says that the copying goes on; to be called often. Costs nothing most of the time.
    ///
    /// # Errors
    /// When the process has ended the backup.
    pub fn goes_on(&mut self) -> io::Result<()> {
        if self.said.elapsed() < ALIVE_EVERY {
            return Ok(());
        }
        self.said = Instant::now();
        self.lines.get_ref().write_all(b".").map_err(ended)
    }

    /// Ends the backup.
    ///
    /// # Errors
    /// When it has not been held until now: what was copied is none.
    pub fn end(mut self) -> io::Result<()> {
        self.lines.get_ref().write_all(b"\n").map_err(ended)?;
        match receive(&mut self.lines)? {
            Answer::Ended { held: true } => Ok(()),
            Answer::Failed { error } => Err(io::Error::other(error)),
            _ => Err(unexpected("something else than the end of the backup")),
        }
    }
}

fn ended(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), "the process has ended the backup before all was copied")
}

fn unexpected(found: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the process told {found}"))
}

fn unanswered(error: io::Error) -> io::Error {
    match is_timeout(&error) {
        true => io::Error::new(ErrorKind::TimedOut, "the process does not answer in time: another backup may be open"),
        false => error,
    }
}

fn receive<T: DeserializeOwned>(lines: &mut BufReader<Socket>) -> io::Result<T> {
    let mut line = Vec::new();
    match lines.take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
        Err(e) if is_timeout(&e) => return Err(unanswered(e)),
        Err(e) => return Err(ended(e)),
        Ok(_) if line.last() != Some(&b'\n') => return Err(ended(ErrorKind::UnexpectedEof.into())),
        Ok(_) => {}
    }
    serde_json::from_slice(&line).map_err(|e| unexpected(&format!("{:?} ({e})", String::from_utf8_lossy(&line))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lock_order::Mutex;

    fn held(epoch: u64, spoiled: bool, guard: Arc<()>) -> Held {
        let file = HeldFile { source: "a/b".into(), destination: "b".into(), bytes: Some(7) };
        let why = move || {
            let _held = &guard;
            spoiled.then(|| "it was replaced".to_owned())
        };
        Held { epoch: Epoch(epoch), files: vec![file; 3], spoiled: Box::new(why) }
    }

    fn open_backup(location: &Path) -> io::Result<Option<OpenBackup>> {
        OpenBackup::begin(location, &AtomicBool::new(false))
    }

    /// Waits until nobody holds a backup.
    fn released(guard: &Arc<()>) {
        let begun = Instant::now();
        while Arc::strong_count(guard) > 2 {
            assert!(begun.elapsed() < Duration::from_secs(30), "it is still held");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_backup_is_open_as_long_as_its_connection_and_its_process() {
        let dir = tempfile::tempdir().unwrap();
        assert!(open_backup(dir.path()).unwrap().is_none());
        let (guard, next) = (Arc::new(()), Arc::new(Mutex::<u64>::default()));
        let begin = {
            let (guard, next) = (guard.clone(), next.clone());
            move || match *next.lock() {
                0 => Err("not now".to_owned()),
                epoch => Ok(held(epoch, epoch == 9, guard.clone())),
            }
        };
        let serving = Serving { serves: Serves::Engine, begin, durable: || Epoch(4) };
        let socket = BackupSocket::start(dir.path(), serving).unwrap();
        assert_eq!(open_backup(dir.path()).unwrap_err().to_string(), "not now");
        *next.lock() = 5;
        let mut open = open_backup(dir.path()).unwrap().unwrap();
        assert_eq!((open.epoch, open.serves, open.files.len()), (Epoch(5), Serves::Engine, 3));
        open.said -= ALIVE_EVERY;
        open.goes_on().unwrap();
        assert_eq!(Arc::strong_count(&guard), 3);
        assert!(open.times.iter().all(|(ms, epoch)| *ms > 0 && *epoch == Epoch(4)), "{:?}", open.times);
        open.end().unwrap();
        released(&guard);
        // Who goes without a word.
        let open = open_backup(dir.path()).unwrap().unwrap();
        assert_eq!(Arc::strong_count(&guard), 3);
        drop(open);
        released(&guard);
        *next.lock() = 9;
        let open = open_backup(dir.path()).unwrap().unwrap();
        assert_eq!(open.end().unwrap_err().to_string(), "it was replaced");
        // The process does not wait for who copies.
        let open = open_backup(dir.path()).unwrap().unwrap();
        let begun = Instant::now();
        drop(socket);
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        assert!(open.end().is_err());
        assert!(open_backup(dir.path()).unwrap().is_none());
    }

    #[test]
    fn who_waits_for_the_end_of_another_backup_ends_as_soon_as_it_is_told_to_and_with_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let guard = Arc::new(());
        let (begun, held_by) = (Instant::now(), guard.clone());
        let serving = Serving {
            serves: Serves::Engine,
            begin: move || Ok(held(5, false, held_by.clone())),
            durable: || Epoch(5),
        };
        let mut socket = Some(BackupSocket::start(dir.path(), serving).unwrap());
        let open = open_backup(dir.path()).unwrap().unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| OpenBackup::begin(dir.path(), &stop).unwrap_err().kind());
            std::thread::sleep(POLL);
            assert!(!waiting.is_finished());
            stop.store(true, SeqCst);
            while !waiting.is_finished() && begun.elapsed() < LINE_TIMEOUT {
                std::thread::sleep(POLL);
            }
            if !waiting.is_finished() {
                // Else it would wait for the end of the other backup, and the test with it.
                socket = None;
            }
            assert_eq!(waiting.join().unwrap(), ErrorKind::Interrupted);
            let waiting = scope.spawn(|| open_backup(dir.path()).is_err());
            std::thread::sleep(POLL);
            drop(socket);
            assert!(waiting.join().unwrap(), "the process has ended");
        });
        drop(open);
        assert!(begun.elapsed() < LINE_TIMEOUT, "{:?}", begun.elapsed());
    }
}
