// SPDX-License-Identifier: Apache-2.0
//! A base sync replaces the directory as a whole.

use crate::primary::{connect, identity, session, Connection, Primary, UUID};
use crate::program::{run, take_over, Replica};
use limestone_core::replication::native::protocol::message::{Code, ConnectionKind, Message, Offer, Outcome};
use limestone_core::types::Epoch;
use limestone_core::wal::catalog::Catalog;
use limestone_core::wal::entry::{marker, tag};

fn files() -> Vec<(&'static str, Vec<u8>)> {
    let manifest = format!(r#"{{"format_version":"1.1","instance_uuid":"{UUID}","persistent_format_version":7}}"#);
    vec![
        ("limestone-manifest.json", manifest.into_bytes()),
        ("compaction_catalog", Catalog::default().encode()),
        ("epoch", marker(tag::DURABLE, Epoch(7)).to_vec()),
        ("pwal_0000.01795356604107.0", session(7, "base", &"b".repeat(5000), &[3])),
        ("blob/dir_03/0000000000000003.blob", b"content".to_vec()),
    ]
}

/// Sends what is wanted of a file, at most `bytes` of it; returns how much was wanted.
fn send(base: &mut Connection, name: &str, content: &[u8], bytes: usize) -> usize {
    let crc = crc32fast::hash(content);
    base.send(&Message::Offer(Offer { name: name.to_owned(), size: content.len() as u64, crc }));
    let Some(Message::Want { offset }) = base.receive() else { panic!("{name} is wanted from somewhere on") };
    let (from, to) = (offset as usize, content.len().min((offset as usize).saturating_add(bytes)));
    if from < to {
        base.send(&Message::Data { offset, bytes: content[from..to].to_vec() });
    }
    if to == content.len() {
        base.send(&Message::FileEnd);
    }
    content.len() - from
}

#[test]
fn a_base_sync_goes_on_where_it_was_cut_and_replaces_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let replica = Replica::start(dir.path());
    // What is there first, of the same instance and too old.
    let mut primary = Primary::connect(replica.address, 0, 1).unwrap();
    primary.session(0, 2, "old", "v");
    primary.commit(2, 0);
    primary.durable(2);
    drop(primary);
    let mut identity = identity(7, 1);
    identity.oldest_shippable = Epoch(7);
    let files = files();
    let begin = |address| loop {
        match Primary::connect_as(address, identity.clone(), &[]) {
            Ok(primary) => {
                assert_eq!(primary.replica.outcome, Outcome::BaseSync);
                let base = connect(address, ConnectionKind::Base, primary.session_id, &[], None).unwrap().0;
                return (primary, base);
            }
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
        }
    };
    let (primary, mut base) = begin(replica.address);
    for (name, content) in &files[..3] {
        // What the directory has under the name already is not sent.
        let has = std::fs::read(dir.path().join(name)).is_ok_and(|own| own == *content);
        assert_eq!(send(&mut base, name, content, usize::MAX), if has { 0 } else { content.len() }, "{name}");
    }
    send(&mut base, files[3].0, &files[3].1, 1000);
    // The answer to the next message would come only after all of these; so they have been taken when it is closed.
    drop((primary, base));
    replica.stop();

    let replica = Replica::start(dir.path());
    let (primary, mut base) = begin(replica.address);
    assert_eq!(primary.replica.durable, Epoch(2), "nothing of it counts yet");
    let sent: usize = files.iter().map(|(name, content)| send(&mut base, name, content, usize::MAX)).sum();
    assert!(sent < files.iter().map(|(_, content)| content.len()).sum(), "what has come is not sent again");
    base.send(&Message::Done { files: files.len() as u64 });
    assert!(matches!(base.receive(), Some(Message::Staged)));
    drop((primary, base));
    let mut primary = loop {
        match Primary::connect(replica.address, 7, 1) {
            Ok(primary) => break primary,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(10)),
        }
    };
    assert_eq!((primary.replica.durable, primary.replica.outcome), (Epoch(7), Outcome::Stream));
    primary.session(0, 8, "live", "v");
    primary.commit(8, 0);
    primary.durable(8);
    replica.stop();
    let (found, _) = take_over(dir.path());
    assert_eq!(found.into_keys().collect::<Vec<_>>(), ["base", "live"]);
}

/// A replica that has epoch 5, and the identity of a primary whose log does not reach back so far.
fn replica_with_epoch_5(dir: &std::path::Path) -> Replica {
    let replica = Replica::start(dir);
    let mut primary = Primary::connect(replica.address, 5, 1).unwrap();
    primary.session(0, 5, "precious", "v");
    primary.commit(5, 0);
    primary.durable(5);
    primary.control.send(&Message::Bye);
    assert!(primary.error().is_none());
    replica
}

fn connect_when_free(replica: &Replica, oldest_shippable: u64) -> Primary {
    loop {
        let mut identity = identity(200, 1);
        identity.oldest_shippable = Epoch(oldest_shippable);
        match Primary::connect_as(replica.address, identity, &[]) {
            Ok(primary) => return primary,
            Err(reason) => assert_eq!(reason.code, Code::BUSY, "{reason}"),
        }
    }
}

#[test]
fn what_a_start_would_refuse_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let replica = replica_with_epoch_5(dir.path());
    let garbage = vec![("limestone-manifest.json", b"garbage".to_vec()), ("compaction_catalog", b"garbage".to_vec())];
    let mut later = files();
    later[2].1 = marker(tag::DURABLE, Epoch(201)).to_vec();
    let mut damaged = files();
    damaged[3].1[9] = 0xee;
    let mut other = files();
    other[0].1 = String::from_utf8(other[0].1.clone()).unwrap().replace(UUID, &UUID.replace('1', "2")).into_bytes();
    for files in [garbage, later, damaged, other] {
        let mut primary = connect_when_free(&replica, 100);
        assert_eq!(primary.replica.outcome, Outcome::BaseSync);
        let mut base = connect(replica.address, ConnectionKind::Base, primary.session_id, &[], None).unwrap().0;
        files.iter().for_each(|(name, content)| _ = send(&mut base, name, content, usize::MAX));
        base.send(&Message::Done { files: files.len() as u64 });
        assert_eq!(primary.error().unwrap().code, Code::PROTOCOL);
        assert_eq!(base.receive(), None);
    }
    replica.stop();
    // What it has is older than what the primary had, as far as anybody knows: that must be meant.
    let path = dir.path().to_str().unwrap();
    let refused = run(&["promote", path], &[]);
    assert_eq!(refused.exit, 2);
    assert!(refused.stderr.contains("a base sync into it has begun and is not complete"), "{}", refused.stderr);
    assert_eq!(run(&["promote", "--force", path], &[]).exit, 0);
    assert_eq!(take_over(dir.path()).0, std::collections::BTreeMap::from([("precious".to_owned(), "v".to_owned())]));
}

#[test]
fn a_session_takes_only_the_connections_that_its_outcome_allows() {
    let dir = tempfile::tempdir().unwrap();
    let replica = replica_with_epoch_5(dir.path());
    let code = |primary: &Primary, kind| {
        connect(primary.address, kind, primary.session_id, &[], None).err().expect("refused").code
    };
    let primary = connect_when_free(&replica, 100);
    assert_eq!(primary.replica.outcome, Outcome::BaseSync);
    assert_eq!(code(&primary, ConnectionKind::Lane(0)), Code::PROTOCOL);
    assert_eq!(code(&primary, ConnectionKind::Blob), Code::PROTOCOL);
    drop(primary);
    let primary = connect_when_free(&replica, 1);
    assert_eq!(primary.replica.outcome, Outcome::CatchUp);
    assert_eq!(code(&primary, ConnectionKind::Base), Code::PROTOCOL);
    drop(primary);
    replica.stop();
}
