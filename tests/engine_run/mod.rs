// SPDX-License-Identifier: Apache-2.0
//! Starts the engine on a directory and collects what a start shows.
#![allow(dead_code)]

use crate::golden_data::Row;
use limestone_core::datastore::{environment, Datastore, Settings};
use limestone_core::recovery::{Cursor, Snapshot};
use std::cell::RefCell;
use std::path::Path;
use std::sync::{Arc, Once};
use tempfile::TempDir;

thread_local! {
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Keeps the warnings of each thread for the test that runs on it.
struct Collector;

impl log::Log for Collector {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() == log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            WARNINGS.with_borrow_mut(|warnings| warnings.push(record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// What one start on a directory showed before it was shut down again.
#[derive(Debug)]
pub struct Started {
    pub rows: Vec<Row>,
    pub last_epoch: u64,
    /// Logged with level WARN.
    pub warnings: Vec<String>,
}

/// A directory for many short lives: in memory where there is such a place, because every session is synced.
pub fn quick_dir() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Opens `dir` with one channel and makes it ready; gives the warnings that were logged. `Err` holds the message.
pub fn open(dir: &Path, threads: usize) -> Result<(Arc<Datastore>, Vec<String>), String> {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        log::set_logger(&Collector).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
    });
    WARNINGS.take();
    let commit = environment::commit(std::env::var_os).map_err(|e| e.to_string())?;
    let settings = Settings::new(dir).recovery_threads(threads).commit(commit);
    let store = Datastore::open(settings).map_err(|e| e.to_string())?;
    store.create_channel().map_err(|e| e.to_string())?;
    let report = match store.ready() {
        Ok(report) => report,
        Err(error) => {
            store.shutdown();
            return Err(error.to_string());
        }
    };
    let warnings = WARNINGS.take();
    let reported = report.warnings.iter().all(|warning| warnings.contains(warning));
    assert!(reported, "reported {:?}, logged {warnings:?}", report.warnings);
    Ok((store, warnings))
}

/// One complete life: open, read everything, shut down.
pub fn start(dir: &Path, threads: usize) -> Result<Started, String> {
    let (store, warnings) = open(dir, threads)?;
    let rows = rows(&store.snapshot().map_err(|e| e.to_string())?);
    let last_epoch = store.last_epoch().0;
    // A shutdown would break it off.
    store.blobs().wait_for_collection();
    store.shutdown();
    Ok(Started { rows, last_epoch, warnings })
}

/// All rows of a snapshot in cursor order.
pub fn rows(snapshot: &Snapshot) -> Vec<Row> {
    drain(snapshot.cursor())
}

/// All rows of one cursor.
pub fn drain(mut cursor: Cursor) -> Vec<Row> {
    let mut rows = Vec::new();
    while let Some(entry) = cursor.next().unwrap() {
        rows.push(Row { storage: entry.storage.0, key: entry.key.to_vec(), value: entry.value.to_vec() });
    }
    assert!(cursor.next().unwrap().is_none(), "a cursor stays at its end");
    rows
}
