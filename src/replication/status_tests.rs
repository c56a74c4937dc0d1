// SPDX-License-Identifier: Apache-2.0

use super::*;

fn replica() -> Known {
    Known {
        role: Some(Side::Replica),
        state: LinkState::CatchUp,
        switched: Some(Epoch(9)),
        stored: Some(Epoch(8)),
        propagated: Some(Epoch(6)),
        written: Some(Epoch(7)),
        lag_heard: Some(Instant::now()),
        lag_bytes: Some(100),
        ..Known::default()
    }
}

#[test]
fn the_document_is_read_back_as_written_and_uses_the_words_of_the_log() {
    let known = Known { last_error: Some("a \"quoted\" reason".to_owned()), ..replica() };
    let status = Known { boundary: Some(WriteVersion { major: 7, minor: 1 }), ..known }.document();
    let json = status.to_json();
    assert!(json.contains("\"role\":\"replica\"") && json.contains("\"state\":\"catch-up\""), "{json}");
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
    for state in [LinkState::Stopped, LinkState::NotReplicated, LinkState::Connecting, LinkState::BaseSync] {
        assert_eq!(serde_json::to_value(state).unwrap(), state.name());
    }
    for state in [LinkState::CatchUp, LinkState::Streaming, LinkState::Stalled, LinkState::Refused] {
        assert_eq!(serde_json::to_value(state).unwrap(), state.name());
    }
}

#[test]
fn nothing_that_is_unknown_is_shown_as_a_number() {
    let status = Known { propagated: Some(Epoch(4)), ..Known::default() }.document();
    assert_eq!((status.switched_epoch, status.stored_epoch, status.propagated_epoch), (None, None, Some(4)));
    assert_eq!((status.lag, status.state_ms, status.term), (Lag::default(), None, None));
    let text = status.to_string();
    assert!(
        text.contains("switched unknown, stored unknown, propagated 4")
            && text.contains("lag:        epochs unknown, bytes unknown")
    );
    // Without a word of the other side, numbers of an earlier time are no lag.
    assert_eq!(Known { lag_heard: None, ..replica() }.document().lag, Lag::default());
}

#[test]
fn a_lag_of_no_epochs_is_shown_only_where_the_replica_has_all_that_was_written() {
    let epochs = |propagated, written: Option<u64>| {
        let known = Known { propagated: Some(Epoch(propagated)), written: written.map(Epoch), ..replica() };
        known.document().lag.epochs
    };
    assert_eq!(epochs(6, Some(7)), Some(2));
    assert_eq!(epochs(7, Some(7)), Some(0), "the epochs that are left wrote nothing");
    assert_eq!(epochs(7, None), None);
    assert_eq!(epochs(8, None), Some(0));
}

#[test]
fn epochs_are_in_order_whatever_was_heard_first() {
    let status = Known { propagated: Some(Epoch(12)), ..replica() }.document();
    assert_eq!((status.switched_epoch, status.stored_epoch, status.propagated_epoch), (Some(12), Some(12), Some(12)));
    assert_eq!(status.lag.epochs, Some(0));
}

#[test]
fn what_a_peer_says_never_steers_a_terminal() {
    let evil = "\u{1b}[2J\u{9b}1m\r\nERROR: forged\u{7f}";
    let known = Known { last_error: Some(evil.to_owned()), peer: Some(evil.to_owned()), ..replica() };
    let status = Known { instance_uuid: evil.to_owned(), ..known }.document();
    let lines = status.to_string();
    assert!(lines.chars().all(|c| c == '\n' || !c.is_control()), "{lines:?}");
    assert!(status.to_json().chars().all(|c| !c.is_control()));
    assert!(lines.contains("\\u{1b}[2J") && !lines.lines().any(|line| line.starts_with("ERROR")), "{lines}");
}
