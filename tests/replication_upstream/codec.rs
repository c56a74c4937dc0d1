// SPDX-License-Identifier: Apache-2.0
//! Messages and their bytes.

use crate::golden::cases;
use limestone_core::replication::upstream::protocol::codec::{Entry, Message};
use limestone_core::replication::upstream::protocol::reader::{Budget, Reader, WireError};
use limestone_core::types::{Epoch, StorageId, WriteVersion};

fn decode(bytes: &[u8]) -> Result<Vec<Message>, WireError> {
    let mut reader = Reader::new(bytes, Budget::default());
    let mut messages = Vec::new();
    while let Some(message) = reader.next_whole()? {
        messages.push(message);
    }
    Ok(messages)
}

fn encode(messages: &[Message]) -> Vec<u8> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| message.encode(&mut bytes));
    bytes
}

#[test]
fn every_captured_stream_is_written_back_byte_by_byte() {
    for case in cases() {
        for number in 0..case.connections() {
            for direction in ["m2r", "r2m"] {
                let bytes = case.stream(number, direction);
                let name = format!("{} conn{number}.{direction}", case.name);
                // Two captures end with a message that no receiver knows.
                let messages = match decode(&bytes) {
                    Ok(messages) => messages,
                    Err(WireError::UnknownType(0x02)) if bytes == [0x02] => continue,
                    Err(error) => panic!("{name}: {error}"),
                };
                assert_eq!(encode(&messages), bytes, "{name}");
                let listed = &case.json["connections"][number][format!("{direction}_messages")];
                assert_eq!(messages.len(), listed.as_array().unwrap().len(), "{name}");
            }
        }
    }
}

#[test]
fn a_message_that_is_cut_off_anywhere_is_refused() {
    let entry = Entry {
        kind: 10,
        storage: StorageId(1),
        key: b"key".to_vec(),
        value: b"value".to_vec(),
        version: WriteVersion { major: 2, minor: 3 },
        blobs: vec![limestone_core::replication::upstream::protocol::codec::Blob {
            id: limestone_core::types::BlobId(7),
            data: b"content".to_vec(),
        }],
    };
    for message in [
        Message::session_begin(),
        Message::log_channel_create(9999),
        Message::LogEntry { epoch: Epoch(4), entries: vec![entry.clone(), entry], flags: 7 },
        Message::GroupCommit { epoch: Epoch(u64::MAX) },
        Message::BoundarySwitch { version: 7 },
        Message::SessionBeginAck { secret: b"secret".to_vec() },
        Message::Ack,
        Message::Error { code: 13, message: b"text".to_vec() },
        Message::RdmaInit { slots: 16 },
        Message::RdmaInitAck { address: 0x1122_3344_5566_7788 },
    ] {
        let bytes = encode(std::slice::from_ref(&message));
        assert_eq!(decode(&bytes).unwrap(), [message]);
        for cut in 1..bytes.len() {
            assert!(matches!(decode(&bytes[..cut]), Err(WireError::Ended(kind)) if kind == bytes[0]), "cut at {cut}");
        }
    }
}

#[test]
fn replies_that_contradict_themselves_are_refused() {
    for bytes in [&[0x21, 1][..], &[0x20, 1, 0, 0, 0, 0], &[0x22, 0, 0, 1, 0, 0, 0, 0]] {
        assert!(matches!(decode(bytes), Err(WireError::ResponseType { .. })), "{bytes:02x?}");
    }
}

#[test]
fn markers_of_the_log_file_are_no_entries() {
    for kind in [0, 2, 3, 4, 6] {
        let bytes = [&[0x11][..], &[0; 8], &[0, 0, 0, 1, kind], &[0; 100]].concat();
        assert!(matches!(decode(&bytes), Err(WireError::EntryType(found)) if found == kind), "{kind}");
    }
}

#[test]
fn what_all_connections_hold_together_is_bounded() {
    let value = vec![0; 1 << 20];
    let entry = Entry {
        kind: 1,
        storage: StorageId(1),
        key: Vec::new(),
        value,
        version: WriteVersion::default(),
        blobs: Vec::new(),
    };
    let bytes = encode(&[Message::LogEntry { epoch: Epoch(1), entries: vec![entry], flags: 0 }]);
    let budget = Budget::new(1 << 19);
    assert!(matches!(Reader::new(&bytes[..], budget.clone()).next_whole(), Err(WireError::OutOfBudget(_))));
    // What the refused message held has been given back.
    let small = encode(&[Message::log_channel_create(0)]);
    assert!(Reader::new(&small[..], budget).next_whole().unwrap().is_some());
}
