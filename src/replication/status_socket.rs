// SPDX-License-Identifier: Apache-2.0
//! Answers questions for the status of a running replica: a local socket in the staging folder, which nobody else looks
//! at. Whoever connects gets the document, so what is shown is never stale.

use crate::replication::replica_store::STAGING_DIR;
use crate::replication::status::Status;
use crate::vfs::descriptor::above_standard_streams;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

const NAME: &str = "status.sock";
/// A larger answer is not a document.
const DOCUMENT_BYTES_MAX: u64 = 1 << 20;
/// For an answer, and how often the answering thread looks whether it shall end.
const TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(100);

/// The name of a socket may have about a hundred bytes only; this one is short for any directory. The file keeps the
/// name valid.
fn short_name(location: &Path) -> io::Result<(File, PathBuf)> {
    let folder = above_standard_streams(File::open(location.join(STAGING_DIR))?)?;
    let name = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(NAME);
    Ok((folder, name))
}

/// Answers while it lives.
#[derive(Debug)]
pub(crate) struct StatusSocket {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    location: PathBuf,
}

impl StatusSocket {
    /// Takes the place of what a killed process left; the caller holds the lock of the directory.
    pub(crate) fn start(location: &Path, status: impl Fn() -> Status + Send + 'static) -> io::Result<StatusSocket> {
        let (_folder, name) = short_name(location)?;
        match std::fs::remove_file(&name) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = above_standard_streams(UnixListener::bind(&name)?)?;
        socket2::SockRef::from(&listener).set_read_timeout(Some(POLL))?;
        let stopping = Arc::new(AtomicBool::new(false));
        let thread = {
            let stopping = stopping.clone();
            let answer = move || {
                while !stopping.load(SeqCst) {
                    if let Ok(stream) = listener.accept().and_then(|(stream, _)| above_standard_streams(stream)) {
                        // Who asked and does not listen gets nothing.
                        let _ = send(stream, &status());
                    }
                }
            };
            std::thread::Builder::new().name("replica-status".to_owned()).spawn(answer)?
        };
        Ok(StatusSocket { stopping, thread: Some(thread), location: location.to_owned() })
    }
}

impl Drop for StatusSocket {
    fn drop(&mut self) {
        self.stopping.store(true, SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // A name that stays is replaced by the next process.
        let _ = std::fs::remove_file(self.location.join(STAGING_DIR).join(NAME));
    }
}

fn send(mut stream: UnixStream, status: &Status) -> io::Result<()> {
    stream.set_write_timeout(Some(TIMEOUT))?;
    stream.write_all(status.to_json().as_bytes())
}

/// Asks the process that serves the directory; `None` when there is none.
pub(crate) fn ask(location: &Path) -> io::Result<Option<Status>> {
    let (_folder, name) = match short_name(location) {
        Ok(name) => name,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let stream = match UnixStream::connect(name) {
        Ok(stream) => stream,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) => return Err(e),
    };
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut document = Vec::new();
    stream.take(DOCUMENT_BYTES_MAX).read_to_end(&mut document)?;
    serde_json::from_slice(&document).map(Some).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))
}
