// SPDX-License-Identifier: Apache-2.0
//! The replica's role over real sockets: the captured conversations, and what a primary must not do.

use crate::commits;
use crate::golden::{cases, Case};
use crate::golden_data::{number, unhex, Row};
use crate::peer::{entry, Peer};
use limestone_core::compaction;
use limestone_core::directory::{Access, OfflineDirectory};
use limestone_core::recovery::Input;
use limestone_core::replication::net::limits::Limits;
use limestone_core::replication::replica_store::StandbyStore;
use limestone_core::replication::upstream::protocol::codec::{flag, Blob, Message};
use limestone_core::replication::upstream::protocol::reader::Budget;
use limestone_core::replication::upstream::replica::{Options, Replica};
use limestone_core::types::{BlobId, Epoch};
use limestone_core::vfs::{RealFs, Vfs};
use limestone_core::wal::sessions::Origin;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// A replica on a directory of its own.
struct Standby {
    dir: TempDir,
    store: Arc<StandbyStore>,
    replica: Replica,
}

impl Standby {
    fn start() -> Standby {
        Standby::with(Options::default())
    }

    fn with(options: Options) -> Standby {
        Standby::on(crate::engine_run::quick_dir(), options)
    }

    fn on(dir: TempDir, options: Options) -> Standby {
        let store = Arc::new(StandbyStore::open_with(Arc::new(RealFs), dir.path(), commits::as_told()).unwrap());
        let listener = TcpListener::bind(("127.0.0.1", crate::ports::free_port())).unwrap();
        let replica = Replica::start(listener, store.clone(), options).unwrap();
        Standby { dir, store, replica }
    }

    fn address(&self) -> SocketAddr {
        self.replica.address()
    }

    /// Stops it as a takeover does, and gives the directory.
    fn stop(mut self) -> TempDir {
        self.replica.stop();
        self.dir
    }

    /// Stops it and starts the engine on its directory.
    fn take_over(self) -> Vec<Row> {
        let dir = self.stop();
        crate::engine_run::start(dir.path(), 2).unwrap().rows
    }
}

fn row(key: &str, value: &str) -> Row {
    Row { storage: 1, key: key.into(), value: value.into() }
}

/// Plays the primary's side of a capture and gives what the replica said on each connection.
fn play(case: &Case, address: SocketAddr) -> Vec<Vec<u8>> {
    let mut peers: BTreeMap<usize, Peer> = BTreeMap::new();
    let mut said = vec![Vec::new(); case.connections()];
    for event in case.json["timeline"].as_array().unwrap().iter().filter(|event| event["src"] == "wire") {
        let conn = number(&event["conn"]) as usize;
        let kind = event["event"].as_str().unwrap();
        let upstream = event["dir"] == "r2m";
        match kind {
            "open" => {
                peers.insert(conn, Peer::connect(address));
            }
            "data" => {
                let (at, len) = (number(&event["offset"]) as usize, number(&event["len"]) as usize);
                let peer = peers.get_mut(&conn).unwrap();
                match upstream {
                    true => {
                        // The texts of refusals may differ in length, so what is said is compared as a whole.
                        let more = peer.receive(len.min(at + len - said[conn].len().min(at + len)));
                        said[conn].extend(more);
                    }
                    false => peer.send_bytes(&case.stream(conn, "m2r")[at..at + len]),
                }
            }
            "eof" if upstream => said[conn].extend(peers.get_mut(&conn).unwrap().rest()),
            "eof" => peers[&conn].stream.shutdown(Shutdown::Write).unwrap_or_default(),
            other => panic!("{}: unknown event {other}", case.name),
        }
    }
    said
}

#[test]
fn every_captured_conversation_gets_the_captured_answers_and_state() {
    for case in cases().iter().filter(|case| case.json["producer"]["r2m"] == "upstream tgreplica") {
        let standby = Standby::start();
        let mut expected: Vec<_> = (0..case.connections()).map(|conn| case.stream(conn, "r2m")).collect();
        if case.name == "error_unsupported_version" {
            // Here a refused connection does not use up the only control connection there is.
            expected[1] = cases().iter().find(|case| case.name == "handshake_control_only").unwrap().stream(0, "r2m");
        }
        let said = match case.name.as_str() {
            "error_unsupported_version" => {
                let mut first = Peer::connect(standby.address());
                first.send_bytes(&case.stream(0, "m2r"));
                let said = first.rest();
                let mut second = Peer::connect(standby.address());
                second.send_bytes(&case.stream(1, "m2r"));
                vec![said, second.receive(34)]
            }
            _ => play(case, standby.address()),
        };
        assert_eq!(said, expected, "{}", case.name);
        let dir = standby.stop();
        check_files(case, dir.path());
        let start = crate::engine_run::start(dir.path(), 2).unwrap();
        if let Some(rows) = case.primary_rows() {
            assert_eq!(start.rows, rows, "{}", case.name);
        }
    }
}

/// The log files must be those of the primary, real epochs included; BLOBs and epoch record those of the replica.
fn check_files(case: &Case, dir: &Path) {
    for (side, prefix) in [("master_after", "pwal_"), ("replica_after", "blob/")] {
        let files = case.json[side]["files"].as_object();
        for (name, file) in files.into_iter().flatten().filter(|(name, _)| name.starts_with(prefix)) {
            if let Some(hex) = file["hex"].as_str() {
                let found = std::fs::read(dir.join(name)).unwrap_or_default();
                // Between the first session and the others it says who wrote them.
                let mark = Origin::Ours.mark();
                let found = match found.windows(mark.len()).position(|bytes| bytes == mark) {
                    Some(at) => [&found[..at], &found[at + mark.len()..]].concat(),
                    None => found,
                };
                assert_eq!(found, unhex(hex), "{}: {name}", case.name);
            }
        }
    }
    let records = case.json["replica_after"]["epoch_file_records"].as_array().into_iter().flatten();
    let expected = records.map(number).max().unwrap_or_default();
    let epochs = std::fs::read(dir.join("epoch")).unwrap();
    let last = epochs.chunks(9).map(|record| u64::from_le_bytes(record[1..].try_into().unwrap())).max();
    assert_eq!(last, Some(expected), "{}: epoch file", case.name);
}

#[test]
fn sessions_count_when_their_epoch_is_committed_and_only_then() {
    let standby = Standby::start();
    let mut log = Peer::log(standby.address(), 0);
    let mut control = Peer::control(standby.address());
    log.session(1, "a");
    control.commit(1);
    log.session(2, "b");
    assert_eq!(standby.take_over(), [row("a", "1")]);
}

#[test]
fn a_session_that_never_ends_never_counts_even_when_its_epoch_is_committed() {
    for kilobytes in [1, 1000] {
        let standby = Standby::start();
        let mut log = Peer::log(standby.address(), 0);
        let mut control = Peer::control(standby.address());
        log.session(1, "a");
        log.begin(2);
        for i in 0..kilobytes {
            log.put(2, &format!("never {i}"), &[b'x'; 1024]);
        }
        control.commit(2);
        log.end();
        assert_eq!(standby.take_over(), [row("a", "1")]);
    }
}

#[test]
fn a_session_that_ends_after_its_epoch_was_committed_counts_as_a_whole() {
    for kilobytes in [1, 1000] {
        let standby = Standby::start();
        let mut log = Peer::log(standby.address(), 0);
        let mut control = Peer::control(standby.address());
        log.begin(1);
        for i in 0..kilobytes {
            log.put(1, &format!("{i:04}"), &[b'x'; 1024]);
        }
        control.commit(1);
        log.send_end(1);
        log.expect_ack();
        assert_eq!(standby.take_over().len(), kilobytes);
    }
}

#[test]
fn a_restarted_primary_is_served_and_what_it_had_not_committed_is_gone() {
    let standby = Standby::start();
    let mut log = Peer::log(standby.address(), 0);
    let mut control = Peer::control(standby.address());
    log.session(1, "a");
    control.commit(1);
    log.session(2, "lost");
    log.end();
    control.end();
    // It uses the epoch again for other content.
    let mut log = Peer::log(standby.address(), 0);
    let mut control = Peer::control(standby.address());
    log.session(2, "b");
    control.commit(2);
    assert_eq!(standby.take_over(), [row("a", "1"), row("b", "2")]);
}

#[test]
fn a_restarted_replica_goes_on_with_what_was_committed() {
    let standby = Standby::start();
    let mut log = Peer::log(standby.address(), 0);
    let mut control = Peer::control(standby.address());
    log.session(1, "a");
    control.commit(1);
    log.session(2, "lost");
    let dir = standby.stop();
    let standby = Standby::on(dir, Options::default());
    let mut log = Peer::log(standby.address(), 0);
    let mut control = Peer::control(standby.address());
    log.session(3, "b");
    control.commit(3);
    assert_eq!(standby.take_over(), [row("a", "1"), row("b", "3")]);
}

#[test]
fn a_session_that_comes_again_does_not_win_over_the_compacted_file() {
    let standby = Standby::start();
    let write = |standby: &Standby, epochs: &[u64]| {
        let mut log = Peer::log(standby.address(), 0);
        for &epoch in epochs {
            log.session(epoch, if epoch == 2 { "b" } else { "a" });
        }
        log
    };
    let (log, mut control) = (write(&standby, &[1, 2, 3]), Peer::control(standby.address()));
    control.commit(3);
    log.end();
    control.end();
    let dir = standby.stop();
    compact(dir.path());
    let standby = Standby::on(dir, Options::default());
    // The primary does not know what was confirmed, sends it again, and dies in the middle of it.
    write(&standby, &[1]).end();
    let rows = [row("a", "3"), row("b", "2")];
    let dir = standby.stop();
    assert_eq!(crate::engine_run::start(dir.path(), 2).unwrap().rows, rows);
    // A session of the last epoch may be a new one: it counts.
    let standby = Standby::on(dir, Options::default());
    let mut log = Peer::log(standby.address(), 0);
    log.session(3, "new");
    assert_eq!(standby.take_over(), [&rows[..], &[row("new", "3")]].concat());
}

/// Compacts the directory of a stopped replica.
fn compact(dir: &Path) {
    let vfs: Arc<dyn Vfs> = Arc::new(RealFs);
    let directory = OfflineDirectory::open(vfs.clone(), dir, Access::Change).unwrap();
    let input = Input {
        vfs: &*vfs,
        location: dir,
        catalog: directory.catalog().unwrap(),
        end_markers: directory.has_end_markers(),
        threads: 1,
        memory_bytes: 1 << 20,
        releases: true,
        stopping: None,
        pace: None,
        marks: None,
    };
    let work = dir.join("replica_staging");
    let built = compaction::build(&input, None, &work).unwrap();
    directory.rotate(|_| true).unwrap();
    built.install(&vfs, &input).unwrap();
}

#[test]
fn an_epoch_below_the_recorded_one_is_refused_by_closing() {
    let standby = Standby::start();
    let mut control = Peer::control(standby.address());
    control.commit(5);
    control.commit(5);
    control.send(&Message::GroupCommit { epoch: Epoch(4) });
    control.expect_closed();
    Peer::control(standby.address()).commit(6);
    assert_eq!(standby.store.durable(), Epoch(6));
}

#[test]
fn misuse_closes_the_connection_and_the_replica_lives_on() {
    let standby = Standby::start();
    let address = standby.address();
    let mut other = Peer::log(address, 77);
    let mut control = Peer::control(address);
    type Misuse = fn(&mut Peer);
    let misuses: [(&str, Misuse); 5] = [
        ("an entry without a beginning", |peer| peer.put(1, "k", b"v")),
        ("an end without a beginning", |peer| peer.send_end(1)),
        ("two beginnings", |peer| {
            peer.begin(1);
            peer.begin(1);
        }),
        ("a marker as an entry", |peer| {
            peer.begin(1);
            let mut marker = entry(1, "k", b"v");
            marker.kind = 3;
            peer.send(&Message::LogEntry { epoch: Epoch(1), entries: vec![marker], flags: 0 });
        }),
        ("a second channel", |peer| peer.send(&Message::log_channel_create(9))),
    ];
    for (channel, (what, misuse)) in misuses.iter().enumerate() {
        let mut peer = Peer::log(address, channel as u64);
        misuse(&mut peer);
        assert_eq!(peer.rest(), b"", "{what}");
    }
    for channel in [10_000, u64::MAX, 77] {
        let mut peer = Peer::connect(address);
        peer.send(&Message::log_channel_create(channel));
        peer.expect_closed();
    }
    other.session(1, "k");
    control.commit(1);
    assert_eq!(standby.take_over(), [row("k", "1")]);
}

#[test]
fn whole_sessions_in_one_message_are_taken_and_answered_in_order() {
    let standby = Standby::start();
    let mut log = Peer::log(standby.address(), 0);
    let mut control = Peer::control(standby.address());
    for (key, flags) in [("a", flag::BEGIN | flag::END), ("b", flag::BEGIN | flag::FLUSH)] {
        let entries = vec![entry(1, key, b"1"), entry(1, &format!("{key}{key}"), b"1")];
        log.send(&Message::LogEntry { epoch: Epoch(1), entries, flags });
    }
    log.expect_ack();
    log.expect_ack();
    control.commit(1);
    assert_eq!(standby.take_over(), [row("a", "1"), row("aa", "1"), row("b", "1"), row("bb", "1")]);
}

#[test]
fn unknown_kinds_of_entries_are_skipped_and_blobs_are_kept() {
    let standby = Standby::start();
    let mut log = Peer::log(standby.address(), 0);
    let mut control = Peer::control(standby.address());
    log.begin(1);
    let mut unknown = entry(1, "unknown", b"v");
    unknown.kind = 42;
    let mut with_blobs = entry(1, "k", b"v");
    with_blobs.kind = 10;
    let data = |id: u64, len| Blob { id: BlobId(id), data: vec![id as u8; len] };
    with_blobs.blobs = vec![data(1, 0), data(102, 300_000)];
    log.send(&Message::LogEntry { epoch: Epoch(1), entries: vec![unknown, with_blobs], flags: 0 });
    log.send_end(1);
    log.expect_ack();
    control.commit(1);
    let dir = standby.stop();
    let blob = |name: &str| std::fs::read(dir.path().join("blob").join(name)).unwrap();
    assert_eq!(blob("dir_01/0000000000000001.blob"), b"");
    assert_eq!(blob("dir_02/0000000000000066.blob"), vec![102; 300_000]);
    assert_eq!(crate::engine_run::start(dir.path(), 2).unwrap().rows, [row("k", "v")]);
}

#[test]
fn a_blob_that_does_not_come_whole_leaves_no_file() {
    let standby = Standby::start();
    let mut log = Peer::log(standby.address(), 0);
    log.begin(1);
    let mut bytes = Vec::new();
    let mut with_blob = entry(1, "k", b"v");
    with_blob.kind = 10;
    with_blob.blobs = vec![Blob { id: BlobId(1), data: vec![7; 200] }];
    Message::LogEntry { epoch: Epoch(1), entries: vec![with_blob], flags: 0 }.encode(&mut bytes);
    log.send_bytes(&bytes[..bytes.len() - 100]);
    log.end();
    let dir = standby.stop();
    assert!(!dir.path().join("blob/dir_01/0000000000000001.blob").exists());
}

#[test]
fn a_first_message_with_blobs_writes_nothing() {
    let standby = Standby::start();
    let mut peer = Peer::connect(standby.address());
    let mut with_blob = entry(1, "k", b"v");
    with_blob.kind = 10;
    with_blob.blobs = vec![Blob { id: BlobId(1), data: vec![7; 200] }];
    peer.send(&Message::LogEntry { epoch: Epoch(1), entries: vec![with_blob], flags: 0 });
    assert_eq!(peer.rest()[..4], [0x22, 1, 0, 1]);
    assert!(!standby.dir.path().join("blob/dir_01").exists());
}

#[test]
fn a_peer_that_says_nothing_or_half_a_message_is_dropped() {
    let standby = Standby::with(Options { timeout: Duration::from_millis(200), ..Options::default() });
    let address = standby.address();
    let mut silent = Peer::connect(address);
    let mut half = Peer::connect(address);
    half.send_bytes(&[0x10, 1, 0]);
    let mut stalled = Peer::log(address, 0);
    let mut idle = Peer::log(address, 1);
    stalled.send_bytes(&[0x11, 0]);
    silent.expect_closed();
    half.expect_closed();
    stalled.expect_closed();
    // Silence between messages is allowed.
    idle.session(1, "k");
}

#[test]
fn connections_and_memory_are_bounded() {
    let limits = Some(Limits { known_max: 2, strangers_max: 3 });
    let options = Options { limits, budget: Budget::new(1 << 20), ..Options::default() };
    let standby = Standby::with(options);
    let address = standby.address();
    let mut log = Peer::log(address, 0);
    let control = Peer::control(address);
    let mut third = Peer::connect(address);
    third.send(&Message::log_channel_create(1));
    third.expect_closed();
    control.end();
    log.begin(1);
    let mut bytes = Vec::new();
    let message = Message::LogEntry { epoch: Epoch(1), entries: vec![entry(1, "k", &[0; 4 << 20])], flags: 0 };
    message.encode(&mut bytes);
    // The replica closes in the midst of it.
    let _ = log.stream.write_all(&bytes);
    assert_eq!(log.rest(), b"");
}

#[test]
fn nothing_of_a_large_first_message_is_held_and_no_silent_peer_keeps_the_primary_out() {
    let standby = Standby::start();
    let mut large = Peer::connect(standby.address());
    // Three gigabytes are announced; the answer comes before any of them.
    large.send_bytes(&[0x11, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xc0, 0, 0, 0]);
    assert_eq!(large.receive(8)[..4], [0x22, 1, 0, 1]);
    let strangers: Vec<Peer> = std::iter::repeat_with(|| Peer::connect(standby.address())).take(300).collect();
    let begun = std::time::Instant::now();
    let mut log = Peer::log(standby.address(), 0);
    log.session(1, "k");
    // Each of the silent ones would be given up after ten seconds.
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
    drop(strangers);
}

#[test]
fn an_idle_control_connection_of_somebody_does_not_keep_the_primary_out() {
    let standby = Standby::start();
    let mut stranger = Peer::control(standby.address());
    let begun = std::time::Instant::now();
    let mut control = loop {
        let mut control = Peer::connect(standby.address());
        control.send(&Message::session_begin());
        if control.receive(1) == [0x20] {
            break control;
        }
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    };
    control.receive(33);
    stranger.expect_closed();
    let mut log = Peer::log(standby.address(), 0);
    log.session(1, "k");
    control.commit(1);
    let mut second = Peer::connect(standby.address());
    second.send(&Message::session_begin());
    assert_eq!(second.receive(1), [0x22], "one that has committed gives way to nobody");
}

#[test]
fn an_epoch_that_cannot_be_is_not_believed() {
    let standby = Standby::start();
    let mut control = Peer::control(standby.address());
    control.send(&Message::GroupCommit { epoch: Epoch(1 << 63) });
    control.expect_closed();
    let mut log = Peer::log(standby.address(), 0);
    log.send(&Message::LogEntry { epoch: Epoch(1 << 63), entries: Vec::new(), flags: flag::BEGIN });
    log.expect_closed();
}

#[test]
fn no_stream_of_bytes_harms_the_replica() {
    let standby = Standby::with(Options { timeout: Duration::from_millis(100), ..Options::default() });
    let streams: Vec<Vec<u8>> =
        cases().iter().flat_map(|case| (0..case.connections()).map(|conn| case.stream(conn, "m2r"))).collect();
    let mut seed: u64 = 0x5eed;
    let mut random = |limit: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % limit.max(1)
    };
    for _ in 0..500 {
        let mut bytes = streams[random(streams.len())].clone();
        for _ in 0..random(4) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes.truncate(at),
                1 if at < bytes.len() => bytes[at] = random(256) as u8,
                _ => bytes.extend_from_within(at..),
            }
        }
        let mut peer = Peer::connect(standby.address());
        // It may close before it has taken all.
        let _ = peer.stream.write_all(&bytes);
        let _ = peer.stream.shutdown(Shutdown::Write);
        peer.rest();
    }
    // Epochs that strangers committed may be anything; the log must be readable all the same.
    let dir = standby.stop();
    crate::engine_run::start(dir.path(), 2).unwrap();
}
