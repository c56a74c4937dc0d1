// SPDX-License-Identifier: Apache-2.0
//! Sends a whole data directory: a set of files that nobody changes, each offered with its size and checksum. The
//! replica says from where on it wants each, so that a broken sync goes on where it stopped.

use super::base_set::{unreadable, BaseFile, BaseSet};
use super::connection::{unexpected, Receiver, Sender};
use super::end::End;
use super::feed::Feed;
use super::session::{Base, Session};
use crate::replication::native::protocol::frame::PIECE_BYTES_MAX;
use crate::replication::native::protocol::message::{Code, ConnectionKind, Message, Offer, Reason};
use crate::replication::status::LinkState;
use crate::vfs::{Open, Vfs, VfsFile};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// A replica checks at least so many bytes a second.
const CHECKED_BYTES_PER_S: u64 = 4 << 20;

/// Runs a base sync; it ends the session in any case.
pub(super) fn run(session: &Session, feed: &Feed, peer: SocketAddr) -> Result<(), End> {
    let (core, timeout) = (&session.core, session.core.settings.timeout);
    core.set_state(LinkState::BaseSync);
    session.set_base(Base::Preparing);
    let (mut sender, mut receiver) = session.join(peer, ConnectionKind::Base)?;
    let set = match core.take_base_set() {
        Ok(set) => set,
        Err(pause) => {
            // The replica took nothing of the last one: whoever waits to delete or replace files goes first.
            session.wait_for_end_until(Instant::now() + pause);
            session.check()?;
            None
        }
    };
    let mut set = set.map_or_else(|| BaseSet::begin(&core.store, timeout), Ok)?;
    session.set_base(Base::Files(set.epoch()));
    // It was stored after this side said who it is.
    feed.has_stored(set.epoch());
    session.announce()?;
    let vfs = core.store.vfs();
    let sent = send_files(vfs, &mut set, (&mut sender, &mut receiver), feed);
    if feed.has_progressed() {
        set.progressed();
    }
    let bytes = set.files.iter().map(|file| file.size).sum();
    match sent {
        Ok(()) => drop(set),
        Err(end) => {
            core.keep_base_set(set);
            // When the other side ended the session it said why on the control connection.
            session.lost(end.clone());
            return Err(end);
        }
    }
    match answer(&mut receiver, patience(timeout, bytes))? {
        Message::Staged => Err(End::BaseSynced),
        other => Err(unexpected(other, "a Staged")),
    }
}

/// Sends the files that the replica wants, and that these are all.
fn send_files(
    vfs: &dyn Vfs,
    set: &mut BaseSet,
    (sender, receiver): (&mut Sender, &mut Receiver),
    feed: &Feed,
) -> Result<(), End> {
    for file in &mut set.files {
        send_file(vfs, file, (sender, receiver), feed)?;
    }
    sender.send(&Message::Done { files: set.files.len() as u64 })
}

fn send_file(
    vfs: &dyn Vfs,
    listed: &mut BaseFile,
    (sender, receiver): (&mut Sender, &mut Receiver),
    feed: &Feed,
) -> Result<(), End> {
    let failed = |e: std::io::Error| unreadable(&listed.path, e);
    let size = listed.size;
    let file = vfs.open(&listed.path, Open::Read).map_err(failed)?;
    let crc = match listed.crc {
        Some(crc) => crc,
        None => checksum(&*file, size).map_err(failed)?,
    };
    listed.crc = Some(crc);
    let failed = |e: std::io::Error| unreadable(&listed.path, e);
    sender.send(&Message::Offer(Offer { name: listed.name.clone(), size, crc }))?;
    // It looks at what it has of the file.
    let offset = match answer(receiver, patience(sender.timeout(), size))? {
        Message::Want { offset } if offset <= size => offset,
        Message::Want { offset } => {
            return Err(End::Protocol(format!("it wants a file of {size} bytes from offset {offset} on")));
        }
        other => return Err(unexpected(other, "a Want")),
    };
    feed.expects(true);
    let sent =
        pieces(&*file, offset, size, |offset, piece| sender.send(&Message::Data { offset, bytes: piece.to_vec() }));
    sent.map_err(|e| e.unwrap_or_else(failed))?;
    sender.send(&Message::FileEnd)?;
    feed.expects(false);
    Ok(())
}

/// How long the replica may take to check so many bytes.
fn patience(timeout: Duration, bytes: u64) -> Duration {
    timeout + Duration::from_secs(bytes / CHECKED_BYTES_PER_S)
}

/// The next message within the time. The control connection sees when the replica is lost, and then ends this one.
fn answer(receiver: &mut Receiver, patience: Duration) -> Result<Message, End> {
    receiver.next_within(patience).map_err(|end| match end {
        End::Silent(_) => {
            let text = format!("it takes nothing more of the base sync for {} ms", patience.as_millis());
            End::Stalled(Reason::new(Code::TIMEOUT, text))
        }
        other => other,
    })
}

fn checksum(file: &dyn VfsFile, size: u64) -> std::io::Result<u32> {
    let mut checksum = crc32fast::Hasher::new();
    let read = pieces(file, 0, size, |_, piece| {
        checksum.update(piece);
        Ok(())
    });
    match read {
        Ok(()) => Ok(checksum.finalize()),
        Err(Broken::Io(e)) => Err(e),
        Err(Broken::End(end)) => Err(std::io::Error::other(end.to_string())),
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
