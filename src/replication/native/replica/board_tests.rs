// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::replication::status::{Lag, Status};

fn status(board: &Board, durable: u64) -> Status {
    board.view(Epoch(durable)).document()
}

#[test]
fn a_replica_that_has_heard_of_nobody_knows_no_epoch_but_its_own() {
    let status = status(&Board::new(1000), 7);
    assert_eq!((status.switched_epoch, status.stored_epoch, status.propagated_epoch), (None, None, Some(7)));
    assert_eq!((status.lag, status.heard_ms), (Lag::default(), None));
}

#[test]
fn it_is_streaming_only_when_it_has_what_the_primary_has_stored() {
    let board = Board::new(1000);
    board.connected("p".to_owned(), LinkState::CatchUp, Epoch(3), Epoch(1000));
    let first = status(&board, 3);
    assert_eq!((first.state, first.lag.epochs, first.lag.bytes, first.lag.ms), (LinkState::CatchUp, None, None, None));
    // A primary that does not say what it wrote may have written in each epoch.
    board.epochs(Epoch(1001), Epoch(1000), None, Epoch(3));
    assert_eq!(status(&board, 3).state, LinkState::CatchUp);
    board.epochs(Epoch(1001), Epoch(1000), Some(Epoch(900)), Epoch(3));
    let behind = status(&board, 3);
    assert_eq!((behind.state, behind.lag.epochs, behind.lag.bytes), (LinkState::CatchUp, Some(997), None));
    board.received(100);
    board.committed();
    board.durable(Epoch(900));
    let all = status(&board, 900);
    assert_eq!((all.state, all.lag.epochs, all.lag.bytes), (LinkState::Streaming, Some(0), Some(0)));
    assert_eq!((all.stored_epoch, all.propagated_epoch), (Some(1000), Some(900)), "100 epochs without writes");
}

#[test]
fn lag_in_bytes_is_what_was_received_and_is_not_durable() {
    let board = Board::new(1000);
    board.connected("p".to_owned(), LinkState::Streaming, Epoch(3), Epoch(3));
    board.received(100);
    board.committed();
    board.received(50);
    assert_eq!(status(&board, 3).lag.bytes, Some(150));
    board.durable(Epoch(8));
    let later = status(&board, 8);
    assert_eq!(later.lag.bytes, Some(50));
    assert_eq!((later.stored_epoch, later.switched_epoch), (Some(8), Some(8)), "what is here is stored there");
}

#[test]
fn when_the_link_is_gone_the_lag_is_unknown_and_the_error_stays_until_all_is_in_order() {
    let board = Board::new(1000);
    board.connected("p".to_owned(), LinkState::Streaming, Epoch(3), Epoch(3));
    board.disconnected(LinkState::Connecting, "lost", true);
    let lost = status(&board, 3);
    assert_eq!((lost.lag, &lost.peer, lost.last_error.as_deref()), (Lag::default(), &None, Some("lost")));
    assert!(lost.heard_ms.is_some() && lost.stored_epoch == Some(3), "{lost:?}");
    board.connected("p".to_owned(), LinkState::CatchUp, Epoch(3), Epoch(9));
    assert_eq!(status(&board, 3).last_error.as_deref(), Some("lost"));
    board.epochs(Epoch(9), Epoch(9), Some(Epoch(3)), Epoch(3));
    assert_eq!(status(&board, 3).last_error, None);
}

#[test]
fn a_base_sync_is_no_lag_in_bytes() {
    let board = Board::new(1000);
    board.connected("p".to_owned(), LinkState::BaseSync, Epoch(0), Epoch(9));
    board.heard();
    board.epochs(Epoch(10), Epoch(9), None, Epoch(0));
    let status = status(&board, 0);
    assert_eq!((status.state, status.lag.epochs, status.lag.bytes), (LinkState::BaseSync, None, None));
}

#[test]
fn a_link_whose_epoch_does_not_move_is_stalled_until_it_does() {
    let board = Board::new(1);
    board.connected("p".to_owned(), LinkState::Streaming, Epoch(3), Epoch(3));
    board.received(1);
    std::thread::sleep(Duration::from_millis(5));
    board.epochs(Epoch(5), Epoch(4), Some(Epoch(4)), Epoch(3));
    assert_eq!(status(&board, 3).state, LinkState::Stalled);
    board.committed();
    board.durable(Epoch(4));
    assert_eq!(status(&board, 4).state, LinkState::Streaming);
}
