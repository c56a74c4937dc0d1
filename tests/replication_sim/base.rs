// SPDX-License-Identifier: Apache-2.0
//! A base sync as the primary does it: the files of a backup, each offered, and sent from where the replica wants it.

use crate::feeder::Lane;
use crate::link::{Arrival, End};
use crate::setup::Setup;
use crate::tap::expected;
use limestone_core::datastore::{Backup, Datastore};
use limestone_core::replication::native::protocol::handshake::PrimaryStep;
use limestone_core::replication::native::protocol::message::{Message, Offer};
use limestone_core::replication::native::protocol::primary_session::PrimarySession;
use limestone_core::replication::native::protocol::Millis;
use limestone_core::wal::names;
use std::time::Duration;

pub struct BaseSync {
    control: End,
    lane: Lane,
    session: PrimarySession,
    /// What is still to be offered, the next one last; the one that was offered last.
    files: Vec<(String, Vec<u8>)>,
    offered: Option<Vec<u8>>,
    /// From where on the offered file is sent next.
    offset: Option<usize>,
    count: u64,
    _backup: Backup,
}

impl BaseSync {
    pub fn begin(store: &Datastore, control: End, lane: Lane, session: PrimarySession) -> Result<BaseSync, String> {
        let backup = store.begin_detailed_backup(Duration::ZERO).map_err(|e| e.to_string())?;
        let mut files = Vec::new();
        // The replica gets the history with the handshake.
        for listed in backup.files().iter().filter(|listed| !listed.source.ends_with(names::HISTORY)) {
            let name = listed.source.strip_prefix(store.location()).map_err(|e| e.to_string())?;
            let content = store.vfs().read(&listed.source, 1 << 24).map_err(|e| e.to_string())?;
            files.push((name.to_string_lossy().into_owned(), content));
        }
        let count = files.len() as u64;
        Ok(BaseSync { control, lane, session, files, offered: None, offset: None, count, _backup: backup })
    }

    pub fn vanish(self) {
        self.control.vanish();
        self.lane.end.vanish();
    }

    /// Whether the session has ended.
    pub fn poll(&mut self, store: &Datastore, setup: Setup, now: Millis) -> Result<bool, String> {
        loop {
            let message = match self.control.read()? {
                Arrival::Message(message) => message,
                Arrival::Nothing => break,
                Arrival::Over => return Ok(true),
            };
            if let Err(reason) = self.session.on_control(message, now) {
                return expected(reason).map(|()| true);
            }
        }
        self.session.switched(store.switched_epoch());
        match self.session.tick(now) {
            Ok(message) => message.iter().for_each(|message| self.control.send(message)),
            Err(reason) => return expected(reason).map(|()| true),
        }
        loop {
            self.send(setup);
            match self.lane.end.read()? {
                Arrival::Message(Message::Staged) => return Ok(true),
                Arrival::Message(message) => match self.answered(message)? {
                    true => {}
                    false => return Ok(true),
                },
                Arrival::Nothing => return Ok(false),
                Arrival::Over => return Ok(true),
            }
        }
    }

    /// Whether it goes on.
    fn answered(&mut self, message: Message) -> Result<bool, String> {
        match (message, &mut self.lane.handshake) {
            (Message::Want { offset }, None) => self.offset = Some(offset as usize),
            (message, Some(handshake)) => match handshake.on_message(message) {
                Ok(PrimaryStep::Send(message)) => self.lane.end.send(&message),
                Ok(PrimaryStep::Accepted(_)) => {
                    self.lane.handshake = None;
                    self.offer();
                }
                Ok(PrimaryStep::Refused(reason)) | Err(reason) => return expected(reason).map(|()| false),
            },
            (other, None) => return Err(format!("{other:?} in a base sync")),
        }
        Ok(true)
    }

    fn offer(&mut self) {
        let end = &self.lane.end;
        match self.files.pop() {
            Some((name, content)) => {
                let (size, crc) = (content.len() as u64, crc32fast::hash(&content));
                end.send(&Message::Offer(Offer { name, size, crc }));
                self.offered = Some(content);
            }
            None => end.send(&Message::Done { files: self.count }),
        }
    }

    /// Sends of the offered file what there is room for, then offers the next one.
    fn send(&mut self, setup: Setup) {
        let (Some(content), Some(offset)) = (&self.offered, &mut self.offset) else { return };
        while *offset < content.len() && !self.lane.end.is_full() {
            let piece = &content[*offset..content.len().min(*offset + 16 * setup.piece_bytes)];
            self.lane.end.send(&Message::Data { offset: *offset as u64, bytes: piece.to_vec() });
            *offset += piece.len();
        }
        if *offset == content.len() {
            self.lane.end.send(&Message::FileEnd);
            (self.offered, self.offset) = (None, None);
            self.offer();
        }
    }
}
