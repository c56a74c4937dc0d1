// SPDX-License-Identifier: Apache-2.0
//! The numbers in `docs/protocol.md` are those of the code.

use limestone_core::replication::native::protocol::frame::{self, FrameKind, MAGIC};
use limestone_core::replication::native::protocol::message::{
    Code, CHANNELS_MAX, LANES_MAX, VERSION, VERSION_OLDEST, VERSION_USUAL,
};
use limestone_core::replication::native::protocol::seal::MAC_LEN;
use limestone_core::replication::secret;
use limestone_core::replication::upstream::protocol::codec::Message;
use limestone_core::types::Epoch;
use std::collections::BTreeSet;

const PAGE: &str = include_str!("../docs/protocol.md");

/// The first cells of each table row under a heading.
fn rows(heading: &str, cells: usize) -> BTreeSet<Vec<String>> {
    let section = PAGE.split(&format!("### {heading}\n")).nth(1).expect("the heading is there");
    let section = section.split("\n### ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.map(|row| row.split('|').skip(1).take(cells).map(|cell| cell.trim().trim_matches('`').to_owned()).collect())
        .collect()
}

fn row(cells: &[&dyn ToString]) -> Vec<String> {
    cells.iter().map(|cell| cell.to_string()).collect()
}

#[test]
fn every_message_has_its_type_and_length_on_the_page() {
    let found: BTreeSet<Vec<String>> = rows("Messages", 4)
        .into_iter()
        .map(|mut cells| [cells.remove(0), cells.remove(0), cells.remove(1)].to_vec())
        .collect();
    let expected = FrameKind::ALL.iter().map(|&kind| {
        let bytes = match kind.payload_bounds() {
            (min, max) if min == max => min.to_string(),
            (min, max) => format!("{min} to {max}"),
        };
        row(&[&format!("{:#04x}", kind as u8), &kind.name(), &bytes])
    });
    assert_eq!(found, expected.collect());
}

#[test]
fn every_code_has_its_number_and_name_on_the_page() {
    let expected = Code::ALL.iter().map(|code| row(&[&code.0, &code.name()]));
    assert_eq!(rows("Errors", 2), expected.collect());
}

#[test]
fn every_constant_has_its_value_on_the_page() {
    let expected: [(&str, u64); 13] = [
        ("VERSION", VERSION.into()),
        ("VERSION_USUAL", VERSION_USUAL.into()),
        ("VERSION_OLDEST", VERSION_OLDEST.into()),
        ("MAC_LEN", MAC_LEN as u64),
        ("PIECE_BYTES_MAX", frame::PIECE_BYTES_MAX as u64),
        ("DIGEST_PIECE_BYTES_MAX", frame::DIGEST_PIECE_BYTES_MAX as u64),
        ("TEXT_BYTES_MAX", frame::TEXT_BYTES_MAX.into()),
        ("NAME_BYTES_MAX", frame::NAME_BYTES_MAX.into()),
        ("HISTORY_LEN_MAX", frame::HISTORY_LEN_MAX.into()),
        ("LANES_MAX", LANES_MAX.into()),
        ("CHANNELS_MAX", CHANNELS_MAX.into()),
        ("SECRET_BYTES_MIN", secret::SECRET_BYTES_MIN as u64),
        ("SECRET_BYTES_MAX", secret::SECRET_BYTES_MAX as u64),
    ];
    assert_eq!(rows("Constants", 2), expected.iter().map(|(name, value)| row(&[name, value])).collect());
    let magic: Vec<String> = MAGIC.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(PAGE.contains(&format!("`{}`", magic.join(" "))));
}

#[test]
fn every_upstream_message_has_its_type_and_name_on_the_page() {
    let messages = [
        Message::session_begin(),
        Message::GroupCommit { epoch: Epoch(1) },
        Message::BoundarySwitch { version: 1 },
        Message::log_channel_create(0),
        Message::LogEntry { epoch: Epoch(1), entries: Vec::new(), flags: 0 },
        Message::SessionBeginAck { secret: Vec::new() },
        Message::Ack,
        Message::Error { code: 1, message: Vec::new() },
        Message::RdmaInit { slots: 1 },
        Message::RdmaInitAck { address: 1 },
    ];
    let expected = messages.iter().map(|message| {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        row(&[&format!("{:02x}", bytes[0]), &message.name()])
    });
    assert_eq!(rows("Upstream messages", 2), expected.collect());
}
