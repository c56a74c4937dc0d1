// SPDX-License-Identifier: Apache-2.0
//! Backups of a replica while it follows its primary.

use crate::history::{content, Writer};
use crate::ports::free_port;
use crate::program::{create, done, json, text, wait_until, DEADLINE};
use limestone_core::datastore::Durability;
use limestone_core::replication::promotion::promote;
use limestone_core::replication::settings::ReplicationSettings;
use limestone_core::types::Epoch;
use limestone_core::vfs::RealFs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

const PROTOCOL: &str = "TSURUGI_REPLICATION_PROTOCOL";

struct Replica(Child);

impl Replica {
    fn start(dir: &Path, port: u16) -> Replica {
        Replica::start_by(dir, port, "native")
    }

    fn start_by(dir: &Path, port: u16, protocol: &str) -> Replica {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tgreplica"));
        command.arg(dir).arg("--listen").arg(format!("tcp://127.0.0.1:{port}")).stdout(Stdio::null());
        let child = command.env(PROTOCOL, protocol).spawn().unwrap();
        wait_until("the replica can be asked", || dir.join("ctrl/backup.sock").exists());
        Replica(child)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn settings(port: u16) -> Option<ReplicationSettings> {
    settings_of(port, "native")
}

fn settings_of(port: u16, protocol: &str) -> Option<ReplicationSettings> {
    let endpoint = format!("tcp://127.0.0.1:{port}");
    let variables = [("TSURUGI_REPLICATION_ENDPOINT", endpoint), (PROTOCOL, protocol.to_owned())];
    ReplicationSettings::parse(variables.map(|(name, value)| (name.into(), value.into()))).unwrap()
}

#[test]
fn a_replica_is_backed_up_while_it_follows() {
    let top = tempfile::tempdir().unwrap();
    let (dirs, target) = ([top.path().join("primary"), top.path().join("replica")], top.path().join("backups"));
    std::fs::create_dir(&dirs[1]).unwrap();
    let port = free_port();
    let replica = Replica::start(&dirs[1], port);
    let mut writer = Writer::start_with(&dirs[0], settings(port));
    let (mut writer, names) = std::thread::scope(|scope| {
        let backups = scope.spawn(|| (0..4).map(|_| create(&dirs[1], &target)).collect::<Vec<_>>());
        while !backups.is_finished() {
            writer.write(2);
        }
        (writer, backups.join().unwrap())
    });
    writer.write(5);
    let last = Epoch(writer.epoch - 1);
    assert!(writer.engine.store().wait_durable(last, Durability::Propagated, Some(DEADLINE)).unwrap());
    let whole = create(&dirs[1], &target);
    let mut after = writer.after.clone();
    after.insert(0, Default::default());
    for (number, name) in names.iter().chain([&whole]).enumerate() {
        let restored = top.path().join(number.to_string());
        let epoch = done(&["restore", text(&target), name, text(&restored)])["epoch"].as_u64().unwrap();
        // An early one may be of a replica that was still being filled: no engine starts on that unasked.
        promote(Arc::new(RealFs), &restored, true, None).unwrap();
        assert_eq!(content(&restored), after[&epoch], "{name}");
    }
    let listed = done(&["list", text(&target)]);
    let newest = listed["backups"].as_array().unwrap().last().unwrap();
    // An epoch without sessions need not be recorded on a replica.
    let written = (1..=last.0).rfind(|epoch| !epoch.is_multiple_of(5));
    assert!(newest["from"] == "replica" && newest["epoch"].as_u64() >= written, "{newest}");
    assert_eq!(json(&["verify", text(&target)]).0, 0);
    drop(replica);
    writer.stop();
}

#[test]
fn both_sides_of_the_protocol_of_the_original_are_backed_up_while_they_run() {
    let top = tempfile::tempdir().unwrap();
    let dirs = [top.path().join("primary"), top.path().join("replica")];
    let targets = [top.path().join("of_primary"), top.path().join("of_replica")];
    std::fs::create_dir(&dirs[1]).unwrap();
    let port = free_port();
    let replica = Replica::start_by(&dirs[1], port, "upstream");
    let mut writer = Writer::start_with(&dirs[0], settings_of(port, "upstream"));
    writer.write(5);
    let (mut writer, mut names) = std::thread::scope(|scope| {
        let backups = scope.spawn(|| {
            let both = (0..2).map(|side| (0..2).map(|_| create(&dirs[side], &targets[side])).collect::<Vec<_>>());
            both.collect::<Vec<_>>()
        });
        while !backups.is_finished() {
            writer.write(2);
        }
        (writer, backups.join().unwrap())
    });
    let last = Epoch(writer.epoch - 1);
    assert!(writer.engine.store().wait_durable(last, Durability::Propagated, Some(DEADLINE)).unwrap());
    (0..2).for_each(|side| names[side].push(create(&dirs[side], &targets[side])));
    let mut after = writer.after.clone();
    after.insert(0, Default::default());
    for (side, names) in names.iter().enumerate() {
        assert_eq!(json(&["verify", text(&targets[side])]).0, 0);
        for name in names {
            let restored = top.path().join(format!("{side}.{name}"));
            let epoch = done(&["restore", text(&targets[side]), name, text(&restored)])["epoch"].as_u64().unwrap();
            assert_eq!(content(&restored), after[&epoch], "{name} of {}", dirs[side].display());
        }
    }
    // It goes on as before.
    writer.write(2);
    let last = Epoch(writer.epoch - 1);
    assert!(writer.engine.store().wait_durable(last, Durability::Propagated, Some(DEADLINE)).unwrap());
    drop(replica);
    writer.stop();
}
