// SPDX-License-Identifier: Apache-2.0
//! Sends a whole data directory: a set of files that nobody changes, each offered with its size and checksum. The replica
//! says from where on it wants each, so that a broken sync goes on where it stopped.

use super::connection::{unexpected, Receiver, Sender};
use super::end::End;
use crate::replication::native::protocol::frame::PIECE_BYTES_MAX;
use crate::replication::native::protocol::message::{Message, Offer};
use crate::vfs::{Open, Vfs, VfsFile};
use std::path::{Path, PathBuf};

/// Sends `files`, which lie below `location`; returns when the replica has put them in place.
pub(super) fn send(
    vfs: &dyn Vfs,
    location: &Path,
    files: &[PathBuf],
    (sender, receiver): (&mut Sender, &mut Receiver),
    progress: impl Fn(u64),
) -> Result<(), End> {
    for path in files {
        let failed = |e: std::io::Error| End::Local(format!("cannot read {}: {e}", path.display()));
        let name = path.strip_prefix(location).unwrap_or(path).to_string_lossy().into_owned();
        let file = vfs.open(path, Open::Read).map_err(failed)?;
        let size = file.len().map_err(failed)?;
        let mut checksum = crc32fast::Hasher::new();
        pieces(&*file, 0, size, |_, piece| {
            checksum.update(piece);
            Ok(())
        })
        .map_err(|e| e.unwrap_or_else(failed))?;
        sender.send(&Message::Offer(Offer { name, size, crc: checksum.finalize() }))?;
        let offset = match answer(receiver)? {
            Message::Want { offset } if offset <= size => offset,
            Message::Want { offset } => {
                return Err(End::Protocol(format!("it wants a file of {size} bytes from offset {offset} on")));
            }
            other => return Err(unexpected(other, "a Want")),
        };
        pieces(&*file, offset, size, |offset, piece| {
            sender.send(&Message::Data { offset, bytes: piece.to_vec() })?;
            progress(piece.len() as u64);
            Ok(())
        })
        .map_err(|e| e.unwrap_or_else(failed))?;
        sender.send(&Message::FileEnd)?;
    }
    sender.send(&Message::Done { files: files.len() as u64 })?;
    match answer(receiver)? {
        Message::Staged => Ok(()),
        other => Err(unexpected(other, "a Staged")),
    }
}

/// The replica may be busy with its disk for long. The control connection sees when it is lost, and then ends this one.
fn answer(receiver: &mut Receiver) -> Result<Message, End> {
    loop {
        match receiver.next() {
            Err(End::Silent(_)) => {}
            other => return other,
        }
    }
}

/// Why a file was not read to its end: what was done with it failed, or reading did.
enum Broken {
    End(End),
    Io(std::io::Error),
}

impl Broken {
    fn unwrap_or_else(self, failed: impl FnOnce(std::io::Error) -> End) -> End {
        match self {
            Broken::End(end) => end,
            Broken::Io(e) => failed(e),
        }
    }
}

fn pieces(
    file: &dyn VfsFile,
    from: u64,
    size: u64,
    mut each: impl FnMut(u64, &[u8]) -> Result<(), End>,
) -> Result<(), Broken> {
    let mut buffer = vec![0; PIECE_BYTES_MAX];
    let mut offset = from;
    while offset < size {
        let len = (size - offset).min(PIECE_BYTES_MAX as u64) as usize;
        let got = file.read_at(offset, &mut buffer[..len]).map_err(Broken::Io)?;
        if got != len {
            return Err(Broken::Io(std::io::ErrorKind::UnexpectedEof.into()));
        }
        each(offset, &buffer[..len]).map_err(Broken::End)?;
        offset += len as u64;
    }
    Ok(())
}
