// SPDX-License-Identifier: Apache-2.0
//! The primary as a process: this test program again, told by the environment to be an engine. It writes sessions
//! without end and a journal of what it was told, so that whoever kills it knows what must be found.

use crate::commits;
use crate::journal::{Line, MARKERS};
use limestone_core::datastore::{Channel, Datastore, Settings};
use limestone_core::engine::Engine;
use limestone_core::error::Error;
use limestone_core::replication::settings::ReplicationSettings;
use limestone_core::types::{BlobId, Durability, Epoch, StorageId, WriteVersion};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Set to the data directory in the process that is to be the primary.
pub const DIRECTORY: &str = "LIMESTONE_TEST_PRIMARY_DIRECTORY";
/// Set to the journal, which is appended to.
pub const JOURNAL: &str = "LIMESTONE_TEST_PRIMARY_JOURNAL";
/// While this file exists the primary runs; then it ends in good order.
pub const ALIVE: &str = "LIMESTONE_TEST_PRIMARY_ALIVE";

/// Set to the number of channels.
pub const CHANNELS: &str = "LIMESTONE_TEST_PRIMARY_CHANNELS";

const EPOCH: Duration = Duration::from_millis(3);
/// Between two sessions, on each third channel.
const PAUSE: Duration = Duration::from_millis(1);
/// Every so many sessions one has a BLOB.
const BLOB_EVERY: u64 = 16;
/// Every so many sessions one is larger than a frame.
const LARGE_EVERY: u64 = 64;
const LARGE_BYTES: usize = 400_000;

fn append(journal: &File, line: Line) {
    // One call per line: a kill leaves whole lines.
    let mut journal = journal;
    journal.write_all(line.to_string().as_bytes()).unwrap();
}

/// Runs until the file that says so is gone, or something fails: then it ends in good order too, and panics at last.
pub fn run() {
    struct Stderr;
    impl log::Log for Stderr {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }
        fn log(&self, record: &log::Record<'_>) {
            eprintln!("primary {}: {}", record.level(), record.args());
        }
        fn flush(&self) {}
    }
    log::set_logger(&Stderr).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let path = |name: &str| std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set"));
    let (directory, alive) = (path(DIRECTORY), path(ALIVE));
    let journal = File::options().create(true).append(true).open(path(JOURNAL)).unwrap();
    let journal = Arc::new(journal);

    let replication = ReplicationSettings::from_environment().unwrap();
    let engine = Engine::open(Settings::new(&directory).commit(commits::as_told()), replication).unwrap();
    let store = engine.store();
    let count: u64 = path(CHANNELS).to_str().and_then(|count| count.parse().ok()).expect("a number of channels");
    let channels: Vec<Arc<Channel>> = (0..count).map(|_| engine.create_channel().unwrap()).collect();
    let report = engine.ready().unwrap();
    append(&journal, Line::Started { epoch: report.last_epoch.0 });
    // From here on: the replica may confirm what an earlier life stored before `ready` returns.
    let told = journal.clone();
    store.set_persistent_callback(Some(Arc::new(move |event| {
        let epoch = event.epoch.0;
        match event.state {
            Durability::Stored => append(&told, Line::Stored { epoch }),
            Durability::Propagated => append(&told, Line::Propagated { epoch }),
        }
    })));
    let mut epoch = report.last_epoch.0 + 1;
    store.switch_epoch(Epoch(epoch)).unwrap();
    let next = next_sessions(store, count);
    let pause = PAUSE * count.div_ceil(3) as u32;

    let stop = AtomicBool::new(false);
    let mut ended = std::thread::scope(|scope| {
        for (worker, channel) in channels.iter().enumerate() {
            let first = next[worker];
            let (stop, store, journal) = (&stop, store, &journal);
            scope.spawn(move || {
                if let Err(e) = work((worker as u64, pause), first, store, channel, stop, journal) {
                    eprintln!("worker {worker}: {e}");
                }
                // The others end as well.
                stop.store(true, Ordering::SeqCst);
            });
        }
        let mut switched = Ok(());
        while switched.is_ok() && !stop.load(Ordering::SeqCst) && Path::new(&alive).exists() {
            std::thread::sleep(EPOCH);
            epoch += 1;
            switched = store.switch_epoch(Epoch(epoch));
        }
        stop.store(true, Ordering::SeqCst);
        switched
    });
    ended = ended.and_then(|()| store.switch_epoch(Epoch(epoch + 1)));
    let begin = Instant::now();
    engine.shutdown();
    append(&journal, Line::Ended { ms: begin.elapsed().as_millis() as u64 });
    ended.expect("nothing failed");
}

/// The number of the next session of each worker, as the directory says.
fn next_sessions(store: &Datastore, channels: u64) -> Vec<u64> {
    let mut next = vec![0; channels as usize];
    let mut cursor = store.snapshot().unwrap().cursor();
    while let Some(entry) = cursor.next().unwrap() {
        if let Some((worker, session, _)) = crate::journal::parse_key(entry.key) {
            next[worker as usize] = next[worker as usize].max(session + 1);
        }
    }
    next
}

fn work(
    (worker, pause): (u64, Duration),
    first: u64,
    store: &Datastore,
    channel: &Channel,
    stop: &AtomicBool,
    journal: &File,
) -> Result<(), Error> {
    let pool = store.blob_pool();
    for session in first.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let epoch = channel.begin_session()?;
        append(journal, Line::Session { worker, session, epoch: epoch.0 });
        let version = WriteVersion { major: epoch.0, minor: session };
        let blobs: Vec<BlobId> = match session % BLOB_EVERY {
            3 => vec![pool.register_data(&crate::journal::blob_content(worker, session))?],
            _ => Vec::new(),
        };
        for marker in 0..MARKERS {
            let key = crate::journal::key(worker, session, marker);
            let large = session % LARGE_EVERY == 7;
            let value = crate::journal::value(epoch.0, if large { LARGE_BYTES } else { 30 });
            let blobs = if marker == 0 { &blobs[..] } else { &[] };
            channel.add_entry(StorageId(1), key.as_bytes(), &value, version, blobs)?;
        }
        channel.end_session()?;
        std::thread::sleep(pause);
    }
    Ok(())
}
