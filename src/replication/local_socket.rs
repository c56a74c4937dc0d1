// SPDX-License-Identifier: Apache-2.0
//! The local sockets of whoever serves a directory: in its control directory, which nobody else looks at.

use crate::vfs::descriptor::above_standard_streams;
use crate::wal::names;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// After an error of the listening socket.
const PAUSE: Duration = Duration::from_millis(100);
/// How often whoever waits looks whether it shall end.
const POLL: Duration = Duration::from_millis(100);
/// A longer line is none.
const LINE_BYTES_MAX: usize = 1 << 16;

/// Device and number of a file.
type Inode = (u64, u64);

/// What a socket is called, and who may connect to it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    pub file: &'static str,
    pub thread: &'static str,
    /// Nobody but the owner of the process.
    pub owner_only: bool,
}

/// Serves one connection after the other while it lives.
#[derive(Debug)]
pub(super) struct LocalSocket {
    place: Place,
    /// Which file the name stood for when it was made.
    made: Option<Inode>,
    listener: Arc<UnixListener>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The process that serves: one that was forked from it has the memory of this, and not the thread.
    process: u32,
}

impl LocalSocket {
    /// Takes the place of what a killed process left; the caller holds the lock of the directory. `serve` gets each
    /// connection, must bound its calls, and must come back before this is dropped.
    ///
    /// # Errors
    /// When the socket cannot be made; the directory can be served all the same.
    pub(super) fn start(
        location: &Path,
        name: Name,
        serve: impl Fn(UnixStream) -> io::Result<()> + Send + 'static,
    ) -> io::Result<LocalSocket> {
        match std::fs::create_dir(location.join(names::CONTROL_DIR)) {
            Err(e) if e.kind() != ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        let place = Place::open(location, name)?;
        place.remove()?;
        let listener = Arc::new(above_standard_streams(UnixListener::bind(place.path())?)?);
        let made = place.inode();
        if name.owner_only {
            std::fs::set_permissions(place.path(), Permissions::from_mode(0o600))?;
        }
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = {
            let (listener, stopping) = (listener.clone(), stopping.clone());
            let accept = move || {
                while !stopping.load(SeqCst) {
                    match listener.accept() {
                        // Who says nothing, or does not listen, gets nothing.
                        Ok((stream, _)) => drop(above_standard_streams(stream).and_then(&serve)),
                        Err(_) if stopping.load(SeqCst) => return,
                        Err(_) => std::thread::sleep(PAUSE),
                    }
                }
            };
            std::thread::Builder::new().name(name.thread.to_owned()).spawn(accept)?
        };
        Ok(LocalSocket { place, made, listener, stopping, thread: Some(thread), process: std::process::id() })
    }
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        self.stopping.store(true, SeqCst);
        // The next process may have put its own there; a name that stays it replaces.
        if self.made.is_some() && self.place.inode() == self.made {
            let _ = self.place.remove();
        }
        // Whoever waits for a connection is woken by that.
        let _ = SockRef::from(&*self.listener).shutdown(Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Connects to whoever serves the directory, within the time; `None` when nobody does.
pub(super) fn connect(location: &Path, name: Name, timeout: Duration) -> io::Result<Option<Socket>> {
    let place = match Place::open(location, name) {
        Ok(place) => place,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Bounds the connecting as well: a process that has stopped leaves its queue full.
    socket.set_write_timeout(Some(timeout))?;
    match socket.connect(&SockAddr::unix(place.path())?) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
        connected => connected.map(|()| Some(socket)),
    }
}

/// Waits for something to read, at most as long as that, or until `stop` is set.
///
/// # Errors
/// [`ErrorKind::Interrupted`] when it is; a [time-out](is_timeout).
pub(super) fn wait_to_read(socket: &Socket, timeout: Duration, stop: &AtomicBool) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    socket.set_read_timeout(Some(POLL))?;
    loop {
        if stop.load(SeqCst) {
            return Err(io::Error::new(ErrorKind::Interrupted, "it was told to end"));
        }
        match socket.peek(&mut [MaybeUninit::uninit()]) {
            Err(e) if is_timeout(&e) && Instant::now() < deadline => {}
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            waited => return waited.map(|_| ()),
        }
    }
}

/// Reads up to the first line end, within the time.
pub(super) fn read_line(
    read: impl Fn(&mut [u8], Duration) -> io::Result<usize>,
    timeout: Duration,
) -> io::Result<String> {
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

/// Whether a call ended because its time was over.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// The name of a socket may have about a hundred bytes only; this one is short for any directory, and stays right when
/// the directory is moved. The file keeps the name valid.
#[derive(Debug)]
struct Place {
    folder: File,
    name: Name,
}

impl Place {
    fn open(location: &Path, name: Name) -> io::Result<Place> {
        let folder = above_standard_streams(OwnedFd::from(File::open(location.join(names::CONTROL_DIR))?))?;
        Ok(Place { folder: File::from(folder), name })
    }

    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.folder.as_raw_fd())).join(self.name.file)
    }

    /// What has the name now.
    fn inode(&self) -> Option<Inode> {
        let found = std::fs::symlink_metadata(self.path()).ok()?;
        Some((found.dev(), found.ino()))
    }

    /// Deletes the name, if it is there.
    fn remove(&self) -> io::Result<()> {
        match std::fs::remove_file(self.path()) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }
}
