// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::replication::digests::DigestWanted;
use crate::replication::native::protocol::frame::{
    read_frame, LogFrame, DIGEST_PIECE_BYTES_MAX, PAYLOAD_BYTES_MAX, PIECE_BYTES_MAX,
};
use crate::replication::native::protocol::message::DigestPiece;
use proptest::collection::vec;
use proptest::prelude::*;

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    bytes
}

fn decoded(bytes: &[u8]) -> Result<Message, String> {
    let mut rest = bytes;
    let frame = read_frame(&mut rest, PAYLOAD_BYTES_MAX).map_err(|e| e.to_string())?.ok_or("nothing")?;
    assert!(rest.is_empty(), "a frame is read to its end");
    Message::decode(frame).map_err(|e| e.to_string())
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<u64>().prop_map(Epoch)
}

fn version() -> impl Strategy<Value = WriteVersion> {
    any::<(u64, u64)>().prop_map(|(major, minor)| WriteVersion { major, minor })
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![vec(any::<u8>(), 0..200), Just(vec![7; PIECE_BYTES_MAX])]
}

fn connection_kind() -> impl Strategy<Value = ConnectionKind> {
    prop_oneof![
        Just(ConnectionKind::Control),
        (0..LANES_MAX).prop_map(ConnectionKind::Lane),
        Just(ConnectionKind::Blob),
        Just(ConnectionKind::Base),
    ]
}

fn history() -> impl Strategy<Value = History> {
    let step = (any::<u128>(), 0..1000u64, 1..1000u64);
    (prop_oneof![vec(step.clone(), 0..5), vec(step, HISTORY_LEN_MAX as usize)], any::<bool>()).prop_map(
        |(steps, forgotten)| {
            let (mut term, mut first_epoch) = (0, 0);
            let grown = steps.into_iter().map(|(id, terms, epochs)| {
                (term, first_epoch) = (term + terms, first_epoch + epochs);
                Run { id: RunId(id), term, first_epoch }
            });
            History::new(grown.collect(), forgotten).unwrap()
        },
    )
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z0-9-]{0,36}", "[ -~]{255}"]
}

fn primary() -> impl Strategy<Value = PrimaryIdentity> {
    let epochs = (epoch(), epoch());
    (name(), any::<u64>(), history(), epochs, 1..=LANES_MAX, any::<u32>(), any::<u64>()).prop_map(
        |(uuid, term, history, (stored, oldest_shippable), lanes, max_channels, capabilities)| {
            let term = history.runs().last().map_or(term, |last| last.term.saturating_add(term));
            PrimaryIdentity { uuid, term, history, stored, oldest_shippable, lanes, max_channels, capabilities }
        },
    )
}

fn replica() -> impl Strategy<Value = ReplicaIdentity> {
    let outcome = prop_oneof![Just(Outcome::Stream), Just(Outcome::CatchUp), Just(Outcome::BaseSync)];
    (name(), history(), epoch(), outcome, any::<u32>(), any::<u64>()).prop_map(
        |(uuid, history, durable, outcome, max_channels, directory)| ReplicaIdentity {
            uuid,
            term: history.runs().last().map_or(3, |last| last.term),
            history,
            durable,
            outcome,
            max_channels,
            directory,
        },
    )
}

fn reason() -> impl Strategy<Value = Reason> {
    (any::<u16>(), "\\PC{0,100}").prop_map(|(code, text)| Reason::new(Code(code), text))
}

fn blob() -> impl Strategy<Value = BlobPiece> {
    (any::<(u64, u64)>(), 0..u64::MAX / 2, vec(any::<u8>(), 1..100), 0..1000u64, any::<u32>()).prop_map(
        |((seq, id), offset, bytes, more, crc)| {
            let (last, size) = (more == 0, offset + bytes.len() as u64 + more);
            let crc = if last { crc } else { 0 };
            BlobPiece { seq, id: BlobId(id), size, offset, last, crc, bytes }
        },
    )
}

fn digest() -> impl Strategy<Value = DigestMessage> {
    let numbers = any::<(u64, u64)>();
    let bytes = prop_oneof![vec(any::<u8>(), 1..200), Just(vec![7; DIGEST_PIECE_BYTES_MAX])];
    prop_oneof![
        (any::<u64>(), epoch(), any::<bool>(), proptest::option::of(1..=u64::MAX)).prop_map(
            |(number, epoch, with_blobs, bytes_per_second)| DigestMessage::Want {
                number,
                wanted: DigestWanted { epoch, with_blobs, bytes_per_second }
            }
        ),
        numbers.prop_map(|(number, offset)| DigestMessage::Next { number, offset }),
        numbers.prop_map(|(number, _)| DigestMessage::End { number }),
        numbers.prop_map(|(number, read)| DigestMessage::Work { number, read }),
        (numbers, any::<bool>(), bytes).prop_map(|((number, offset), last, bytes)| DigestMessage::Piece {
            number,
            piece: DigestPiece { offset, last, bytes }
        }),
        (any::<u64>(), "\\PC{0,100}").prop_map(|(number, text)| DigestMessage::Failed { number, text }),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let hello = (any::<(u16, u16)>(), connection_kind(), any::<[u8; 16]>(), any::<[u8; 32]>());
    prop_oneof![
        hello.prop_map(|((version_min, version_max), kind, session_id, nonce)| {
            Message::Hello(Hello { version_min, version_max, kind, session_id, nonce })
        }),
        any::<(u16, [u8; 32], [u8; 32])>().prop_map(|(version, nonce, proof)| Message::Challenge {
            version,
            nonce,
            proof
        }),
        (any::<[u8; 32]>(), proptest::option::of(primary()))
            .prop_map(|(proof, primary)| Message::Identity { proof, primary }),
        proptest::option::of(replica()).prop_map(|replica| Message::Answer { replica }),
        reason().prop_map(Message::Refused),
        reason().prop_map(Message::Error),
        any::<u32>().prop_map(|channel| Message::Channel { channel }),
        any::<u32>().prop_map(|channel| Message::ChannelEnd { channel }),
        (epoch(), any::<(u32, bool, bool)>(), piece()).prop_map(|(epoch, (channel, first, last), bytes)| Message::Log(
            Log { epoch, channel, first, last, bytes }
        )),
        (epoch(), any::<u64>()).prop_map(|(epoch, blob_seq)| Message::Commit { epoch, blob_seq }),
        (epoch(), epoch(), proptest::option::of(0..u64::MAX)).prop_map(|(switched, stored, written)| {
            Message::Heartbeat { switched, stored, written: written.map(Epoch) }
        }),
        (epoch(), any::<u64>(), any::<u64>()).prop_map(|(durable, received, synced)| Message::Alive(Alive {
            durable,
            received,
            synced
        })),
        epoch().prop_map(|epoch| Message::Durable { epoch }),
        epoch().prop_map(|epoch| Message::Reported { epoch }),
        version().prop_map(|version| Message::Boundary { version }),
        version().prop_map(|version| Message::SafeSnapshot { version }),
        Just(Message::Bye),
        Just(Message::Sync),
        blob().prop_map(Message::Blob),
        ("[a-z0-9_]{1,20}(/[a-z0-9_.]{0,20}[a-z])?", any::<u64>(), any::<u32>())
            .prop_map(|(name, size, crc)| Message::Offer(Offer { name, size, crc })),
        any::<u64>().prop_map(|offset| Message::Want { offset }),
        (any::<u64>(), piece()).prop_map(|(offset, bytes)| Message::Data { offset, bytes }),
        Just(Message::FileEnd),
        any::<u64>().prop_map(|files| Message::Done { files }),
        Just(Message::Staged),
        digest().prop_map(Message::Digest),
    ]
}

/// A frame with any payload within the bounds of its type, its checksum right.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let header = (proptest::sample::select(FrameKind::ALL), 0..3u64, 0..3u32);
    (header, vec(prop_oneof![0..4u8, any::<u8>()], 0..300)).prop_map(|((kind, epoch, channel), mut payload)| {
        let (min, max) = kind.payload_bounds();
        payload.resize(payload.len().clamp(min as usize, max as usize), 0);
        let mut bytes = Vec::new();
        write_frame(&mut bytes, kind, epoch, channel, &payload);
        bytes
    })
}

proptest! {
    #[test]
    fn every_message_is_read_back_as_written(message in message()) {
        prop_assert_eq!(decoded(&encoded(&message)), Ok(message));
    }

    #[test]
    fn what_is_a_message_has_no_other_encoding(bytes in frame()) {
        if let Ok(message) = decoded(&bytes) {
            prop_assert_eq!(encoded(&message), bytes);
        }
    }

    #[test]
    fn any_bytes_give_a_message_or_an_error(bytes in vec(any::<u8>(), 0..100)) {
        let mut rest = &bytes[..];
        while let Ok(Some(frame)) = read_frame(&mut rest, PAYLOAD_BYTES_MAX) {
            let _ = Message::decode(frame);
        }
    }
}

#[test]
fn a_log_message_is_the_frame_around_its_bytes() {
    let log = Log { epoch: Epoch(5), channel: 2, first: true, last: true, bytes: b"bytes".to_vec() };
    let mut streamed = Vec::new();
    LogFrame::around(5, 2, true, true, b"bytes").write(&mut streamed, b"bytes").unwrap();
    assert_eq!(encoded(&Message::Log(log)), streamed);
}

#[test]
fn a_long_text_is_cut_at_a_character() {
    let sent = Message::Error(Reason::new(Code::DISK, "ä".repeat(300)));
    let Ok(Message::Error(reason)) = decoded(&encoded(&sent)) else { panic!("an error message") };
    assert_eq!(reason.text, "ä".repeat(256));
}

#[test]
fn a_text_of_a_peer_is_shown_without_control_characters() {
    let reason = Reason::new(Code::DIVERGED, "a\n\x1b[31m b");
    assert_eq!(reason.to_string(), "diverged (6): a\\n\\u{1b}[31m b");
}

fn frame_of(kind: FrameKind, epoch: u64, channel: u32, payload: &[u8]) -> Frame {
    Frame { kind, epoch, channel, payload: payload.to_vec() }
}

#[test]
fn every_field_is_checked() {
    let version = [&VERSION_RANGE[..], &[5, 0, 0, 0, 0][..], &[0; 48]].concat();
    let lane = [&VERSION_RANGE[..], &[2, 64, 0, 0, 0][..], &[0; 48]].concat();
    let base = |name: &str| [&[0; 12][..], &[name.len() as u8], name.as_bytes()].concat();
    let blob = |size: u8, len: usize, last: u8| {
        let mut payload = vec![0; 37 + len];
        (payload[16], payload[32]) = (size, last);
        payload
    };
    for (frame, found) in [
        (frame_of(FrameKind::Hello, 0, 0, &version), "connection kind 5 and lane 0"),
        (frame_of(FrameKind::Hello, 0, 0, &lane), "connection kind 2 and lane 64"),
        (frame_of(FrameKind::Bye, 1, 0, &[]), "epoch 1"),
        (frame_of(FrameKind::Commit, 1, 7, &[0; 8]), "channel 7"),
        (frame_of(FrameKind::Commit, 1, 0, &[0; 7]), "7 bytes left"),
        (frame_of(FrameKind::Commit, 1, 0, &[0; 9]), "1 more bytes"),
        (frame_of(FrameKind::Log, 1, 0, &[4]), "flags 0x04"),
        (frame_of(FrameKind::Log, 1, 0, &[]), "no payload"),
        (frame_of(FrameKind::Answer, 0, 0, &[2]), "flag 2"),
        (frame_of(FrameKind::Error, 0, 0, &[1, 0, 0xff]), "the text \"\\xff\""),
        (frame_of(FrameKind::Offer, 0, 0, &base("../epoch")), "the file name \"../epoch\""),
        (frame_of(FrameKind::Offer, 0, 0, &base("/epoch")), "the file name \"/epoch\""),
        (frame_of(FrameKind::Offer, 0, 0, &base("a b")), "the file name \"a b\""),
        (frame_of(FrameKind::Blob, 0, 0, &blob(3, 2, 1)), "2 bytes at 0 of 3, last: true"),
        (frame_of(FrameKind::Blob, 0, 0, &blob(2, 2, 0)), "2 bytes at 0 of 2, last: false"),
        (frame_of(FrameKind::Blob, 0, 0, &blob(2, 0, 0)), "0 bytes at 0 of 2, last: false"),
    ] {
        let error = Message::decode(frame).unwrap_err().to_string();
        assert!(error.contains(found), "{error}");
    }
    let mut identity = [0; 36];
    identity[32] = 1;
    let run =
        |term: u8, first: u8| [&[7; 16][..], &[term, 0, 0, 0, 0, 0, 0, 0], &[first, 0, 0, 0, 0, 0, 0, 0]].concat();
    for (list, found) in [
        (vec![0xff, 0xff], "65535 runs"),
        ([&[2, 0][..], &run(0, 5), &run(0, 5)].concat(), "first epochs grow"),
        ([&[1, 0][..], &run(1, 5)].concat(), "a run of a later term than 0"),
    ] {
        // The end of the term, nothing forgotten, then the list.
        let far = [&identity[..], &[0; 7], &list].concat();
        let error = Message::decode(frame_of(FrameKind::Identity, 0, 0, &far)).unwrap_err().to_string();
        assert!(error.contains(found), "{error}");
    }
}

const VERSION_RANGE: [u8; 4] = [1, 0, 1, 0];
