// SPDX-License-Identifier: Apache-2.0
//! Somebody stands between the two sides and does not know the secret: nothing of what he does is believed.

use super::pair::{content, options, replica_with, settings, Engine, Replica, PATIENCE};
use super::relay::{Deed, Relay};
use limestone_core::replication::native::protocol::frame::FrameKind;
use limestone_core::replication::native::replica::Options;
use limestone_core::replication::secret::Secret;
use limestone_core::replication::status::LinkState;
use limestone_core::types::Durability;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const SECRET: &str = "a secret that both sides know";
/// Where a frame has its epoch.
const EPOCH: usize = 5;
/// Where a payload begins.
const PAYLOAD: usize = 17;

pub fn replica(dir: &Path, version_min: u16) -> Replica {
    let secret = Secret::new(SECRET.as_bytes()).unwrap();
    replica_with(dir, 0, Options { secret, version_min, ..options() })
}

/// The file with the secret, next to the directory.
pub fn secret_file(dir: &Path) -> String {
    let file = dir.join("../secret");
    std::fs::write(&file, SECRET).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    file.to_str().unwrap().to_owned()
}

fn engine(dir: &Path, relay: &Relay, version_min: u16) -> Engine {
    let (file, version_min) = (secret_file(dir), version_min.to_string());
    let given = [("SECRET_FILE", file.as_str()), ("VERSION_MIN", version_min.as_str())];
    Engine::start(dir, settings(relay.address.port(), &given))
}

/// A directory for each side below one.
pub fn places() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let [primary, standby] = ["primary", "standby"].map(|name| root.path().join(name));
    [&primary, &standby].iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    (root, primary, standby)
}

/// Writes until the deed is done and a side has said so, and from then on undisturbed.
fn survive(kind: FrameKind, skip: usize, deed: Deed) {
    let (_root, primary, standby) = places();
    let server = replica(&standby, 3);
    let relay = Relay::start(server.address(), kind, skip, deed);
    let mut engine = engine(&primary, &relay, 3);
    let told = |engine: &Engine| {
        let of_engine = engine.status().last_error.unwrap_or_default();
        [of_engine, server.status().last_error.unwrap_or_default()].join("; ")
    };
    let deadline = Instant::now() + PATIENCE;
    let mut epoch = engine.write(&["first"]);
    // A connection that is cut says nothing of MACs.
    while !(relay.has_done_it() && (deed == Deed::Cut || told(&engine).contains("MAC"))) {
        assert!(Instant::now() < deadline, "{kind:?} {deed:?}: {}", told(&engine));
        // Something has to follow a frame that does not come.
        engine.store.wait_durable(epoch, Durability::Propagated, Some(Duration::from_millis(5))).unwrap();
        epoch = engine.write(&["first", "same"]);
    }
    relay.let_everything_pass();
    let last = engine.write(&["last"]);
    engine.wait_propagated(last);
    engine.shutdown();
    drop(server);
    assert_eq!(content(&primary), content(&standby), "{kind:?} {deed:?}");
}

#[test]
fn a_frame_with_a_changed_byte_is_not_used() {
    survive(FrameKind::Log, 3, Deed::Change(PAYLOAD + 40));
    survive(FrameKind::Commit, 3, Deed::Change(EPOCH + 1));
    survive(FrameKind::Heartbeat, 1, Deed::Change(PAYLOAD + 9));
    survive(FrameKind::Durable, 2, Deed::Change(EPOCH + 1));
    survive(FrameKind::Durable, 2, Deed::ChangeMac);
}

#[test]
fn what_the_replica_says_of_itself_is_covered() {
    // The outcome, and its durable epoch.
    survive(FrameKind::Answer, 0, Deed::ChangeMac);
    survive(FrameKind::Answer, 0, Deed::Change(PAYLOAD + 3));
}

#[test]
fn a_frame_that_is_left_out_or_comes_again_ends_the_session() {
    survive(FrameKind::Log, 3, Deed::Drop);
    survive(FrameKind::Commit, 3, Deed::Drop);
    survive(FrameKind::Log, 3, Deed::Repeat);
    survive(FrameKind::Durable, 2, Deed::Repeat);
}

#[test]
fn frames_in_another_order_end_the_session() {
    survive(FrameKind::Log, 3, Deed::Delay);
    survive(FrameKind::Durable, 2, Deed::Delay);
}

#[test]
fn a_cut_inside_a_frame_is_a_lost_link() {
    survive(FrameKind::Log, 3, Deed::Cut);
    survive(FrameKind::Durable, 2, Deed::Cut);
}

#[test]
fn nobody_on_the_way_has_two_sides_of_this_version_speak_the_former_one() {
    // The largest version in Hello, and the one in Challenge: 4 becomes 2.
    for (kind, offset) in [(FrameKind::Hello, PAYLOAD + 2), (FrameKind::Challenge, PAYLOAD)] {
        let (_root, primary, standby) = places();
        let server = replica(&standby, 2);
        let relay = Relay::start(server.address(), kind, 0, Deed::Change(offset));
        let mut engine = engine(&primary, &relay, 2);
        let status = engine.wait_state(LinkState::Refused);
        assert!(relay.has_done_it() && status.last_error.as_ref().unwrap().contains("secret"), "{status:?}");
        // Undisturbed they find each other.
        relay.let_everything_pass();
        let epoch = engine.write(&["a"]);
        engine.wait_propagated(epoch);
        engine.shutdown();
    }
}
