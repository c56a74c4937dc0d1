// SPDX-License-Identifier: Apache-2.0
//! Faults of the link.

use crate::machine::Network;
use crate::nodes::{wait_until, Pair, Setup, TIMEOUT};
use crate::proxy::{Behaviour, Cut, Direction};
use std::time::{Duration, Instant};

/// How many messages after the order the cuts are made.
const CUTS: u64 = 40;

fn cut_everywhere(direction: Direction) {
    let pair = Pair::start("strict");
    pair.wait_for_propagated();
    for after in 0..CUTS {
        // The border itself, inside the header, inside the payload of most messages.
        let inside = [0, 5, 19][after as usize % 3];
        pair.proxy.cut_at(Cut { direction, after, inside });
        wait_until("the message to cut comes", || !pair.proxy.cut_is_pending());
    }
    pair.wait_for_propagated();
    pair.check();
}

#[test]
fn cuts_at_each_message_to_the_replica() {
    cut_everywhere(Direction::ToReplica);
}

#[test]
fn cuts_at_each_message_to_the_primary() {
    cut_everywhere(Direction::ToPrimary);
}

#[test]
fn every_message_of_a_session_is_cut_from_its_start() {
    // Each time a new session of replication, which is cut one message later than the one before: all of the handshakes
    // and the catch-up.
    let pair = Pair::start("strict");
    pair.wait_for_propagated();
    for after in 0..24 {
        pair.proxy.cut_all();
        pair.proxy.cut_at(Cut { direction: Direction::ToReplica, after, inside: 9 });
        wait_until("the message to cut comes", || !pair.proxy.cut_is_pending());
    }
    pair.wait_for_propagated();
    pair.check();
}

#[test]
fn a_slow_link_delays_propagated_and_nothing_else() {
    let pair = Pair::start("strict");
    pair.wait_for_propagated();
    for direction in [Direction::ToReplica, Direction::ToPrimary] {
        pair.proxy.behave(direction, Behaviour::Delay(Duration::from_millis(5)));
    }
    pair.wait_for_stored();
    pair.wait_for_propagated();
    pair.check();
}

/// The engine goes on while the link is silent, the silence is noticed, and everything is propagated when it ends.
fn silence(direction: Direction, behaviour: Behaviour) {
    let pair = Pair::start("strict");
    pair.wait_for_propagated();
    let connections = pair.proxy.accepted();
    pair.proxy.behave(direction, behaviour);
    let begin = Instant::now();
    pair.wait_for_stored();
    wait_until("the silence is noticed", || pair.proxy.accepted() > connections);
    assert!(begin.elapsed() < TIMEOUT * 10, "noticed after {:?}", begin.elapsed());
    pair.wait_for_stored();
    pair.proxy.heal();
    pair.wait_for_propagated();
    pair.check();
}

#[test]
fn a_stall_towards_the_replica_is_noticed() {
    silence(Direction::ToReplica, Behaviour::Stall);
}

#[test]
fn a_stall_towards_the_primary_is_noticed() {
    silence(Direction::ToPrimary, Behaviour::Stall);
}

#[test]
fn a_half_open_connection_towards_the_replica_is_noticed() {
    silence(Direction::ToReplica, Behaviour::Swallow);
}

#[test]
fn a_half_open_connection_towards_the_primary_is_noticed() {
    silence(Direction::ToPrimary, Behaviour::Swallow);
}

#[test]
fn a_slow_reader_holds_nobody_up() {
    let pair = Pair::start("async");
    pair.wait_for_propagated();
    pair.proxy.behave(Direction::ToReplica, Behaviour::Trickle(20_000));
    for _ in 0..20 {
        pair.wait_for_stored();
    }
    pair.proxy.heal();
    pair.wait_for_propagated();
    pair.check();
}

fn noise(direction: Direction, behaviour: Behaviour) {
    let pair = Pair::start("strict");
    pair.wait_for_propagated();
    for _ in 0..5 {
        let connections = pair.proxy.accepted();
        pair.proxy.behave(direction, behaviour);
        wait_until("the connection is given up", || pair.proxy.accepted() > connections);
        pair.wait_for_stored();
        pair.proxy.heal();
        pair.wait_for_propagated();
    }
    pair.check();
}

#[test]
fn a_turned_bit_to_the_replica_is_never_stored() {
    noise(Direction::ToReplica, Behaviour::Garble);
}

#[test]
fn a_turned_bit_to_the_primary_confirms_nothing() {
    noise(Direction::ToPrimary, Behaviour::Garble);
}

#[test]
fn garbage_to_the_replica_ends_the_connection_only() {
    noise(Direction::ToReplica, Behaviour::Garbage);
}

#[test]
fn garbage_to_the_primary_ends_the_connection_only() {
    noise(Direction::ToPrimary, Behaviour::Garbage);
}

#[test]
fn a_link_that_refuses_is_tried_again() {
    let pair = Pair::start("strict");
    pair.wait_for_propagated();
    pair.proxy.refuse(true);
    pair.proxy.cut_all();
    let connections = pair.proxy.accepted();
    wait_until("several attempts", || pair.proxy.accepted() > connections + 3);
    pair.wait_for_stored();
    pair.proxy.heal();
    pair.wait_for_propagated();
    pair.check();
}

#[test]
fn a_cable_that_is_pulled_out_is_noticed_and_the_next_address_is_tried() {
    let Some(network) = Network::new() else {
        eprintln!("not run: this machine does not allow network namespaces");
        return;
    };
    let pair = Pair::start_across(Some(network), Setup::default());
    pair.wait_for_propagated();
    for _ in 0..2 {
        pair.network().connect(false);
        // Longer than the time-out, so that both sides take the other for lost.
        std::thread::sleep(TIMEOUT * 2);
        pair.wait_for_stored();
        pair.network().connect(true);
        pair.wait_for_propagated();
    }
    pair.check();
}
