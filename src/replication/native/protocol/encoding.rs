// SPDX-License-Identifier: Apache-2.0
//! How each message fills a frame. Decoding is strict: every message has exactly one encoding, so what is decoded and
//! encoded again gives the same bytes.

use super::digest_message::Unlike;
use super::frame::{cut, write_frame, Frame, FrameKind, FLAG_FIRST, FLAG_LAST, HISTORY_LEN_MAX, NAME_BYTES_MAX};
use super::message::{
    is_base_name, Alive, BlobPiece, ConnectionKind, DigestMessage, Hello, Log, Message, Offer, Outcome,
    PrimaryIdentity, ReplicaIdentity, LANES_MAX,
};
use super::reason::{Code, Reason};
use crate::types::{BlobId, Epoch, WriteVersion};
use crate::wal::history::{History, Run, RunId};

/// A frame whose content is not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {} frame with {found}, expected {expected}", kind.name())]
pub struct MessageError {
    pub kind: FrameKind,
    pub found: String,
    pub expected: &'static str,
}

impl Message {
    /// Appends the frame. Pieces, names and histories must be within their bounds; a longer text is cut.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (epoch, channel) = match self {
            Message::Log(log) => (log.epoch.0, log.channel),
            Message::Channel { channel } | Message::ChannelEnd { channel } => (0, *channel),
            Message::Commit { epoch, .. } | Message::Durable { epoch } | Message::Reported { epoch } => (epoch.0, 0),
            Message::Alive(alive) => (alive.durable.0, 0),
            Message::Digest(digest) => (digest.epoch().0, 0),
            Message::Heartbeat { written, .. } => (written.map_or(0, |written| written.0.saturating_add(1)), 0),
            _ => (0, 0),
        };
        write_frame(out, self.kind(), epoch, channel, &self.payload());
    }

    fn payload(&self) -> Vec<u8> {
        let mut p = Writer(Vec::new());
        match self {
            Message::Hello(hello) => {
                p.hello(hello);
            }
            Message::Challenge { version, nonce, proof } => {
                p.u16(*version).bytes(nonce).bytes(proof);
            }
            Message::Identity { proof, primary } => {
                p.bytes(proof);
                encode_identity(&mut p, primary.as_ref());
            }
            Message::Answer { replica } => {
                p.answer(replica.as_ref());
            }
            Message::Refused(reason) | Message::Error(reason) => {
                p.u16(reason.code.0).bytes(cut(&reason.text).as_bytes());
            }
            Message::Log(log) => {
                let flags = if log.first { FLAG_FIRST } else { 0 } | if log.last { FLAG_LAST } else { 0 };
                p.u8(flags).bytes(&log.bytes);
            }
            Message::Commit { blob_seq, .. } => {
                p.u64(*blob_seq);
            }
            Message::Heartbeat { switched, stored, .. } => {
                p.u64(switched.0).u64(stored.0);
            }
            Message::Alive(alive) => {
                p.u64(alive.received).u64(alive.synced);
            }
            Message::Boundary { version } | Message::SafeSnapshot { version } => {
                p.u64(version.major).u64(version.minor);
            }
            Message::Blob(blob) => {
                p.blob(blob);
            }
            Message::Offer(offer) => {
                p.u64(offer.size).u32(offer.crc).name(&offer.name);
            }
            Message::Want { offset } => {
                p.u64(*offset);
            }
            Message::Data { offset, bytes } => {
                p.u64(*offset).bytes(bytes);
            }
            Message::Done { files } => {
                p.u64(*files);
            }
            Message::Digest(digest) => digest.payload(&mut p.0),
            Message::Channel { .. }
            | Message::ChannelEnd { .. }
            | Message::Durable { .. }
            | Message::Reported { .. }
            | Message::Bye
            | Message::Sync
            | Message::FileEnd
            | Message::Staged => {}
        }
        p.0
    }

    /// The message in a frame.
    pub fn decode(frame: Frame) -> Result<Message, MessageError> {
        let Frame { kind, epoch, channel, payload } = frame;
        check_header(kind, epoch, channel)?;
        let epoch = Epoch(epoch);
        if kind == FrameKind::Log {
            return decode_log(epoch, channel, payload).map(Message::Log);
        }
        let mut p = Reader { kind, rest: &payload };
        let message = match kind {
            FrameKind::Hello => Message::Hello(p.hello()?),
            FrameKind::Challenge => Message::Challenge { version: p.u16()?, nonce: p.array()?, proof: p.array()? },
            FrameKind::Identity => Message::Identity { proof: p.array()?, primary: p.identity()? },
            FrameKind::Answer => Message::Answer { replica: p.answer()? },
            FrameKind::Refused => Message::Refused(p.reason()?),
            FrameKind::Error => Message::Error(p.reason()?),
            FrameKind::Channel => Message::Channel { channel },
            FrameKind::ChannelEnd => Message::ChannelEnd { channel },
            FrameKind::Log => unreachable!("handled above"),
            FrameKind::Commit => Message::Commit { epoch, blob_seq: p.u64()? },
            FrameKind::Heartbeat => {
                let written = epoch.0.checked_sub(1).map(Epoch);
                Message::Heartbeat { switched: Epoch(p.u64()?), stored: Epoch(p.u64()?), written }
            }
            FrameKind::Alive => Message::Alive(Alive { durable: epoch, received: p.u64()?, synced: p.u64()? }),
            FrameKind::Durable => Message::Durable { epoch },
            FrameKind::Reported => Message::Reported { epoch },
            FrameKind::Boundary => Message::Boundary { version: p.version()? },
            FrameKind::SafeSnapshot => Message::SafeSnapshot { version: p.version()? },
            FrameKind::Sync => Message::Sync,
            FrameKind::Bye => Message::Bye,
            FrameKind::Blob => Message::Blob(p.blob()?),
            FrameKind::Offer => Message::Offer(p.offer()?),
            FrameKind::Want => Message::Want { offset: p.u64()? },
            FrameKind::Data => Message::Data { offset: p.u64()?, bytes: p.rest().to_vec() },
            FrameKind::FileEnd => Message::FileEnd,
            FrameKind::Done => Message::Done { files: p.u64()? },
            FrameKind::Staged => Message::Staged,
            FrameKind::DigestWant
            | FrameKind::DigestNext
            | FrameKind::DigestEnd
            | FrameKind::DigestWork
            | FrameKind::DigestPiece
            | FrameKind::DigestFailed => {
                let decoded = DigestMessage::decode(kind, epoch, p.rest());
                decoded.map(Message::Digest).map_err(|Unlike { found, expected }| MessageError {
                    kind,
                    found,
                    expected,
                })?
            }
        };
        match p.rest.len() {
            0 => Ok(message),
            more => p.wrong(format!("{more} more bytes"), "the end of the payload"),
        }
    }
}

/// Whether epoch and channel stand only in frames that have them.
fn check_header(kind: FrameKind, epoch: u64, channel: u32) -> Result<(), MessageError> {
    let uses_epoch = matches!(
        kind,
        FrameKind::Log
            | FrameKind::Commit
            | FrameKind::Durable
            | FrameKind::Alive
            | FrameKind::Heartbeat
            | FrameKind::Reported
            | FrameKind::DigestWant
    );
    let uses_channel = matches!(kind, FrameKind::Log | FrameKind::Channel | FrameKind::ChannelEnd);
    let wrong = |found: String, expected| Err(MessageError { kind, found, expected });
    if epoch != 0 && !uses_epoch {
        return wrong(format!("epoch {epoch}"), "0");
    }
    if channel != 0 && !uses_channel {
        return wrong(format!("channel {channel}"), "0");
    }
    Ok(())
}

/// The piece of the log is moved, not copied.
fn decode_log(epoch: Epoch, channel: u32, mut bytes: Vec<u8>) -> Result<Log, MessageError> {
    let wrong = |found: String, expected| Err(MessageError { kind: FrameKind::Log, found, expected });
    if bytes.is_empty() {
        return wrong("no payload".to_owned(), "flags");
    }
    let flags = bytes.remove(0);
    if flags & !(FLAG_FIRST | FLAG_LAST) != 0 {
        return wrong(format!("flags {flags:#04x}"), "at most bits 0 and 1");
    }
    let (first, last) = (flags & FLAG_FIRST != 0, flags & FLAG_LAST != 0);
    Ok(Log { epoch, channel, first, last, bytes })
}

/// The part of an Identity that the primary's proof covers.
pub fn identity_bytes(primary: Option<&PrimaryIdentity>) -> Vec<u8> {
    let mut p = Writer(Vec::new());
    encode_identity(&mut p, primary);
    p.0
}

fn encode_identity(p: &mut Writer, primary: Option<&PrimaryIdentity>) {
    let Some(id) = primary else {
        p.u8(0);
        return;
    };
    p.u8(1).name(&id.uuid).u64(id.term).history(&id.history);
    p.u64(id.stored.0).u64(id.oldest_shippable.0).u32(id.lanes).u32(id.max_channels).u64(id.capabilities);
}

struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Writer {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u8(&mut self, value: u8) -> &mut Writer {
        self.bytes(&[value])
    }

    fn u16(&mut self, value: u16) -> &mut Writer {
        self.bytes(&value.to_le_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Writer {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Writer {
        self.bytes(&value.to_le_bytes())
    }

    fn name(&mut self, name: &str) -> &mut Writer {
        debug_assert!(name.len() <= NAME_BYTES_MAX as usize);
        self.u8(name.len() as u8).bytes(name.as_bytes())
    }
}

impl Writer {
    fn blob(&mut self, blob: &BlobPiece) -> &mut Writer {
        self.u64(blob.seq).u64(blob.id.0).u64(blob.size).u64(blob.offset).u8(blob.last.into()).u32(blob.crc);
        self.bytes(&blob.bytes)
    }

    fn hello(&mut self, hello: &Hello) -> &mut Writer {
        let (kind, lane) = match hello.kind {
            ConnectionKind::Control => (1, 0),
            ConnectionKind::Lane(lane) => (2, lane),
            ConnectionKind::Blob => (3, 0),
            ConnectionKind::Base => (4, 0),
        };
        self.u16(hello.version_min).u16(hello.version_max).u8(kind).u32(lane);
        self.bytes(&hello.session_id).bytes(&hello.nonce)
    }

    fn answer(&mut self, replica: Option<&ReplicaIdentity>) -> &mut Writer {
        let Some(id) = replica else { return self.u8(0) };
        self.u8(1).name(&id.uuid).u64(id.term).history(&id.history).u64(id.durable.0).u8(id.outcome as u8);
        self.u32(id.max_channels).u64(id.directory)
    }

    /// Which run wrote which epochs; the list is bounded by itself.
    fn history(&mut self, history: &History) -> &mut Writer {
        self.u8(history.has_forgotten().into()).u16(history.runs().len() as u16);
        for run in history.runs() {
            self.bytes(&run.id.0.to_le_bytes()).u64(run.term).u64(run.first_epoch);
        }
        self
    }
}

struct Reader<'a> {
    kind: FrameKind,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn wrong<T>(&self, found: String, expected: &'static str) -> Result<T, MessageError> {
        Err(MessageError { kind: self.kind, found, expected })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], MessageError> {
        match self.rest.split_at_checked(len) {
            Some((piece, rest)) => {
                self.rest = rest;
                Ok(piece)
            }
            None => self.wrong(format!("{} bytes left in the payload", self.rest.len()), "a longer field"),
        }
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        Ok(self.take(N)?.try_into().expect("as many bytes as taken"))
    }

    fn u8(&mut self) -> Result<u8, MessageError> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16, MessageError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, MessageError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, MessageError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn flag(&mut self) -> Result<bool, MessageError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => self.wrong(format!("flag {other}"), "0 or 1"),
        }
    }

    fn version(&mut self) -> Result<WriteVersion, MessageError> {
        Ok(WriteVersion { major: self.u64()?, minor: self.u64()? })
    }

    fn text(&self, bytes: &[u8]) -> Result<String, MessageError> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => self.wrong(format!("the text \"{}\"", bytes[..bytes.len().min(64)].escape_ascii()), "UTF-8"),
        }
    }

    fn name(&mut self) -> Result<String, MessageError> {
        let len = self.u8()?;
        let bytes = self.take(len.into())?;
        self.text(bytes)
    }

    fn reason(&mut self) -> Result<Reason, MessageError> {
        let code = Code(self.u16()?);
        let bytes = self.rest();
        Ok(Reason { code, text: self.text(bytes)? })
    }

    fn hello(&mut self) -> Result<Hello, MessageError> {
        let (version_min, version_max) = (self.u16()?, self.u16()?);
        let kind = match (self.u8()?, self.u32()?) {
            (1, 0) => ConnectionKind::Control,
            (2, lane) if lane < LANES_MAX => ConnectionKind::Lane(lane),
            (3, 0) => ConnectionKind::Blob,
            (4, 0) => ConnectionKind::Base,
            (kind, lane) => {
                let found = format!("connection kind {kind} and lane {lane}");
                return self.wrong(found, "kind 1, 3 or 4 with lane 0, or kind 2 with a lane below 64");
            }
        };
        Ok(Hello { version_min, version_max, kind, session_id: self.array()?, nonce: self.array()? })
    }

    /// A history whose last run is in `term` at the latest.
    fn history(&mut self, term: u64) -> Result<History, MessageError> {
        let (forgotten, count) = (self.flag()?, self.u16()?);
        if u32::from(count) > HISTORY_LEN_MAX {
            return self.wrong(format!("{count} runs"), "at most 512");
        }
        // Nothing is allocated for runs that are not there.
        let mut list = Reader { kind: self.kind, rest: self.take(usize::from(count) * 32)? };
        let mut runs = Vec::with_capacity(count.into());
        for _ in 0..count {
            let id = RunId(u128::from_le_bytes(list.array()?));
            runs.push(Run { id, term: list.u64()?, first_epoch: list.u64()? });
        }
        if runs.last().is_some_and(|last| last.term > term) {
            return self.wrong(format!("a run of a later term than {term}"), "runs up to the present term");
        }
        History::new(runs, forgotten).or_else(|found| self.wrong(found, "growing epochs and terms"))
    }

    fn identity(&mut self) -> Result<Option<PrimaryIdentity>, MessageError> {
        if !self.flag()? {
            return Ok(None);
        }
        let (uuid, term) = (self.name()?, self.u64()?);
        let history = self.history(term)?;
        Ok(Some(PrimaryIdentity {
            uuid,
            term,
            history,
            stored: Epoch(self.u64()?),
            oldest_shippable: Epoch(self.u64()?),
            lanes: match self.u32()? {
                lanes @ 1..=LANES_MAX => lanes,
                other => return self.wrong(format!("{other} lanes"), "1 to 64"),
            },
            max_channels: self.u32()?,
            capabilities: self.u64()?,
        }))
    }

    fn answer(&mut self) -> Result<Option<ReplicaIdentity>, MessageError> {
        if !self.flag()? {
            return Ok(None);
        }
        let (uuid, term) = (self.name()?, self.u64()?);
        Ok(Some(ReplicaIdentity {
            uuid,
            term,
            history: self.history(term)?,
            durable: Epoch(self.u64()?),
            outcome: match self.u8()? {
                1 => Outcome::Stream,
                2 => Outcome::CatchUp,
                3 => Outcome::BaseSync,
                other => return self.wrong(format!("outcome {other}"), "1, 2 or 3"),
            },
            max_channels: self.u32()?,
            directory: self.u64()?,
        }))
    }

    fn blob(&mut self) -> Result<BlobPiece, MessageError> {
        let (seq, id) = (self.u64()?, BlobId(self.u64()?));
        let (size, offset) = (self.u64()?, self.u64()?);
        let (last, crc) = (self.flag()?, self.u32()?);
        let bytes = self.rest().to_vec();
        let end = offset.checked_add(bytes.len() as u64);
        if !end.is_some_and(|end| if last { end == size } else { end < size && crc == 0 && !bytes.is_empty() }) {
            let found = format!("{} bytes at {offset} of {size}, last: {last}, checksum {crc:#010x}", bytes.len());
            return self
                .wrong(found, "pieces that are not empty and end where the BLOB ends, the last with a checksum");
        }
        Ok(BlobPiece { seq, id, size, offset, last, crc, bytes })
    }

    fn offer(&mut self) -> Result<Offer, MessageError> {
        let (size, crc, name) = (self.u64()?, self.u32()?, self.name()?);
        match is_base_name(&name) {
            true => Ok(Offer { name, size, crc }),
            false => self.wrong(format!("the file name {name:?}"), "a relative path of letters, digits, '.', '_', '-'"),
        }
    }
}

#[cfg(test)]
#[path = "encoding_tests.rs"]
mod tests;
