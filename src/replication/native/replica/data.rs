// SPDX-License-Identifier: Apache-2.0
//! The connections that bring data: lanes, BLOBs, and the files of a base sync. Each is read by one thread, strictly in
//! order. What came on a lane is synced by a second thread.

use super::end::End;
use super::incoming::Incoming;
use super::node::Node;
use super::session::Session;
use super::syncer::Syncer;
use crate::error::catch_panic;
use crate::replication::native::protocol::lane_order::{LaneOrder, LaneStep};
use crate::replication::native::protocol::message::{BlobPiece, Code, Message, Reason};
use crate::replication::replica_store::{BaseStaging, LaneLog};
use crate::types::Epoch;

/// BLOBs whose names are synced together at most.
const BLOBS_UNSYNCED_MAX: u64 = 256;

fn violation(text: String) -> End {
    End::Told(Reason::new(Code::PROTOCOL, text))
}

/// Serves a lane until the connection ends.
pub(super) fn lane(
    node: &Node,
    session: &Session,
    incoming: &mut Incoming,
    number: u32,
    order: LaneOrder,
) -> Result<(), End> {
    let (log, syncer) = (session.store.lane(number), Syncer::default());
    std::thread::scope(|scope| {
        let sync = || {
            let sync = |upto| match upto {
                Some(epoch) => log.sync_up_to(epoch),
                None => log.sync(),
            };
            let run = || {
                syncer.run(
                    |upto, bytes| {
                        sync(upto).map_err(|e| End::Told(node.failed(&e)))?;
                        session.synced(bytes.max(1));
                        Ok(())
                    },
                    |epoch, blob_seq| session.lane_synced(number, epoch, blob_seq),
                )
            };
            let result = catch_panic("the thread that syncs a lane", run);
            if let Err(end) = result.map_err(|panic| End::Told(node.failed(&panic))).and_then(|ended| ended) {
                session.end(end);
            }
        };
        let name = format!("replica-sync-{number}");
        let thread = match std::thread::Builder::new().name(name).spawn_scoped(scope, sync) {
            Ok(thread) => thread,
            Err(e) => return Err(End::Lost(format!("cannot start a thread: {e}"))),
        };
        let result = {
            // However this ends: the thread is waited for.
            let _closes = syncer.closes();
            receive(node, session, incoming, (number, order), (&log, &syncer))
        };
        // Its panics are caught.
        let _ = thread.join();
        result
    })
}

/// Appends what comes.
fn receive(
    node: &Node,
    session: &Session,
    incoming: &mut Incoming,
    (number, mut order): (u32, LaneOrder),
    (log, syncer): (&LaneLog, &Syncer),
) -> Result<(), End> {
    while let Some(message) = incoming.message()? {
        session.heard(node.now());
        match order.on_message(message).map_err(End::Told)? {
            LaneStep::Noted => {}
            LaneStep::Append(piece) => {
                let appended = log.append(piece.epoch, piece.first, piece.last, &piece.bytes);
                appended.map_err(|e| End::Told(node.failed(&e)))?;
                let bytes = piece.bytes.len() as u64;
                node.board.received(bytes);
                syncer.appended(bytes);
            }
            // A group without the epoch would only be in the way of the one with it.
            LaneStep::Sync if log.has_journal() => {}
            LaneStep::Sync => syncer.sync(),
            LaneStep::Commit { epoch, blob_seq } => {
                node.board.committed();
                match log.prepare(epoch).map_err(|e| End::Told(node.failed(&e)))? {
                    true => session.lane_synced(number, epoch, blob_seq)?,
                    false => syncer.commit(epoch, blob_seq),
                }
            }
        }
    }
    Ok(())
}

/// Serves the BLOB connection until it ends.
pub(super) fn blobs(node: &Node, session: &Session, incoming: &mut Incoming) -> Result<(), End> {
    let mut receiver = session.store.blob_receiver();
    let failed = |e| End::Told(node.failed(&e));
    let (mut whole, mut synced) = (0, 0);
    while let Some(message) = incoming.message()? {
        let piece = match message {
            Message::Blob(piece) => piece,
            Message::Error(reason) => return Err(End::Lost(reason.to_string())),
            other => return Err(violation(format!("a {} message among BLOBs", other.kind().name()))),
        };
        session.heard(node.now());
        node.board.heard();
        let BlobPiece { seq, id, size, offset, last, crc, bytes } = piece;
        if seq != whole + 1 {
            return Err(violation(format!("a piece of BLOB number {seq} of the session, expected {}", whole + 1)));
        }
        receiver.piece(id, size, offset, &bytes, last.then_some(crc)).map_err(failed)?;
        if last {
            whole += 1;
            session.synced(size.max(1));
        }
        if whole > synced && (whole - synced >= BLOBS_UNSYNCED_MAX || incoming.waiting_bytes() == 0) {
            receiver.sync_names(|| session.synced(1)).map_err(failed)?;
            synced = whole;
            let action = session.machine.lock().blobs_synced(synced);
            session.carry_out(action)?;
        }
    }
    Ok(())
}

/// Serves the connection of a base sync until the files are in place.
pub(super) fn base(node: &Node, session: &Session, incoming: &mut Incoming) -> Result<(), End> {
    let failed = |e| End::Told(node.failed(&e));
    let mut staging: BaseStaging = node.staging().map_err(failed)?;
    while let Some(message) = incoming.message()? {
        session.heard(node.now());
        node.board.heard();
        match message {
            Message::Offer(offer) => {
                let offset = staging.offer(&offer.name, offer.size, offer.crc).map_err(failed)?;
                reply(incoming, &Message::Want { offset })?;
            }
            Message::Data { offset, bytes } => {
                staging.data(offset, &bytes).map_err(failed)?;
            }
            Message::FileEnd => staging.file_end().map_err(failed)?,
            Message::Done { files } => {
                if session.store.durable() > Epoch(0) {
                    log::info!(
                        "replication: a base sync replaces what is here up to epoch {}",
                        session.store.durable()
                    );
                }
                node.install(session, &mut staging, files).map_err(failed)?;
                reply(incoming, &Message::Staged)?;
            }
            Message::Error(reason) => return Err(End::Lost(reason.to_string())),
            other => return Err(violation(format!("a {} message in a base sync", other.kind().name()))),
        }
    }
    Ok(())
}

fn reply(incoming: &Incoming, message: &Message) -> Result<(), End> {
    incoming.out().send(message).map_err(|e| End::Lost(e.to_string()))
}
