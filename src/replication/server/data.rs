// SPDX-License-Identifier: Apache-2.0
//! The connections that bring data: lanes, BLOBs, and the files of a base sync. Each is read by one thread, strictly in
//! order. What has come is synced when the primary says that it is about to record its epoch, so that a COMMIT mostly
//! finds that done.

use super::incoming::{Incoming, Next};
use super::node::{Active, End, Node};
use crate::replication::native::message::{BlobPiece, Code, Message, Reason};
use crate::replication::native::replica::{LaneOrder, LaneStep};
use crate::replication::standby::BaseStaging;
use crate::types::Epoch;
use std::io::Write;
use std::time::{Duration, Instant};

/// With more than this behind a COMMIT the replica is behind, and the COMMIT waits so that one sync and one record do for
/// several: at most until so many bytes have come, or for so long.
const BACKLOG_BYTES: usize = 128 << 10;
const COMMIT_BYTES_MAX: u64 = 32 << 20;
const COMMIT_WAIT_MAX: Duration = Duration::from_millis(40);
/// So much is synced as soon as nothing more has come, so that little is left when the primary asks for it.
const EAGER_BYTES: u64 = 256 << 10;
/// BLOBs whose names are synced together at most.
const BLOBS_UNSYNCED_MAX: u64 = 256;

fn violation(text: String) -> End {
    End::Told(Reason::new(Code::PROTOCOL, text))
}

/// A COMMIT that is not carried out yet.
struct Due {
    epoch: Epoch,
    blob_seq: u64,
    since: Instant,
    /// Came behind it.
    bytes: u64,
}

impl Due {
    /// Whether it is to be carried out before anything more is read.
    fn is_time(&self, incoming: &Incoming) -> bool {
        self.bytes >= COMMIT_BYTES_MAX
            || self.since.elapsed() >= COMMIT_WAIT_MAX
            || incoming.waiting_bytes() <= BACKLOG_BYTES
    }
}

/// Serves a lane until the connection ends.
pub(super) fn lane(
    node: &Node,
    active: &Active,
    incoming: &mut Incoming,
    number: u32,
    mut order: LaneOrder,
) -> Result<(), End> {
    let log = active.store.lane(number);
    let failed = |e| End::Told(node.failed(&e));
    let mut due: Option<Due> = None;
    let mut unsynced = 0;
    loop {
        let message = match incoming.next()? {
            Next::Message(message) => message,
            Next::Idle => continue,
            Next::Closed => return Ok(()),
        };
        active.heard(node.now());
        match order.on_message(message).map_err(End::Told)? {
            LaneStep::Noted => {}
            LaneStep::Append(piece) => {
                log.append(piece.epoch, piece.first, piece.last, &piece.bytes).map_err(failed)?;
                let bytes = piece.bytes.len() as u64;
                node.board.received(bytes);
                unsynced += bytes;
                if let Some(due) = &mut due {
                    due.bytes += bytes;
                } else if unsynced >= EAGER_BYTES && incoming.waiting_bytes() == 0 {
                    log.sync().map_err(failed)?;
                    unsynced = 0;
                }
            }
            LaneStep::Sync if incoming.waiting_bytes() <= BACKLOG_BYTES => {
                log.sync().map_err(failed)?;
                unsynced = 0;
            }
            LaneStep::Sync => {}
            LaneStep::Commit { epoch, blob_seq } => {
                let (since, bytes) = due.map_or((Instant::now(), 0), |due| (due.since, due.bytes));
                due = Some(Due { epoch, blob_seq, since, bytes });
            }
        }
        if let Some(Due { epoch, blob_seq, .. }) = due.take_if(|due| due.is_time(incoming)) {
            log.sync_up_to(epoch).map_err(failed)?;
            node.board.committed();
            let action = active.session.lock().lane_synced(number, epoch, blob_seq);
            active.carry_out(node, action)?;
        }
    }
}

/// Serves the BLOB connection until it ends.
pub(super) fn blobs(node: &Node, active: &Active, incoming: &mut Incoming) -> Result<(), End> {
    let mut receiver = active.store.blob_receiver();
    let failed = |e| End::Told(node.failed(&e));
    let (mut whole, mut synced) = (0, 0);
    loop {
        let piece = match incoming.next()? {
            Next::Message(Message::Blob(piece)) => piece,
            Next::Message(Message::Error(reason)) => return Err(End::Lost(reason.to_string())),
            Next::Message(other) => return Err(violation(format!("a {} message among BLOBs", other.kind().name()))),
            Next::Idle => continue,
            Next::Closed => return Ok(()),
        };
        active.heard(node.now());
        let BlobPiece { seq, id, size, offset, last, crc, bytes } = piece;
        if seq != whole + 1 {
            return Err(violation(format!("a piece of BLOB number {seq} of the session, expected {}", whole + 1)));
        }
        receiver.piece(id, size, offset, &bytes, last.then_some(crc)).map_err(failed)?;
        whole += u64::from(last);
        if whole > synced && (whole - synced >= BLOBS_UNSYNCED_MAX || incoming.waiting_bytes() == 0) {
            receiver.sync_names().map_err(failed)?;
            synced = whole;
            let action = active.session.lock().blobs_synced(synced);
            active.carry_out(node, action)?;
        }
    }
}

/// Serves the connection of a base sync until the files are in place.
pub(super) fn base(node: &Node, active: &Active, incoming: &mut Incoming) -> Result<(), End> {
    let failed = |e| End::Told(node.failed(&e));
    let mut staging: BaseStaging = node.staging().map_err(failed)?;
    loop {
        let message = match incoming.next()? {
            Next::Message(message) => message,
            Next::Idle => continue,
            Next::Closed => return Ok(()),
        };
        active.heard(node.now());
        match message {
            Message::Offer(offer) => {
                let offset = staging.offer(&offer.name, offer.size, offer.crc).map_err(failed)?;
                reply(incoming, &Message::Want { offset })?;
            }
            Message::Data { offset, bytes } => {
                staging.data(offset, &bytes).map_err(failed)?;
                node.board.received(bytes.len() as u64);
            }
            Message::FileEnd => staging.file_end().map_err(failed)?,
            Message::Done { files } => {
                if active.store.durable() > Epoch(0) {
                    log::info!("replication: a base sync replaces what is here up to epoch {}", active.store.durable());
                }
                node.install(active, &mut staging, files).map_err(failed)?;
                reply(incoming, &Message::Staged)?;
            }
            Message::Error(reason) => return Err(End::Lost(reason.to_string())),
            other => return Err(violation(format!("a {} message in a base sync", other.kind().name()))),
        }
    }
}

fn reply(incoming: &Incoming, message: &Message) -> Result<(), End> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    let mut stream = incoming.stream();
    stream.write_all(&bytes).map_err(|e| End::Lost(e.to_string()))
}
