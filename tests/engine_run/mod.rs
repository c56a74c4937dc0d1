// SPDX-License-Identifier: Apache-2.0
//! Starts the engine on a directory and collects what a start shows.
#![allow(dead_code)]

use crate::golden_data::Row;
use limestone_core::datastore::{Datastore, Settings, Snapshot};
use std::path::Path;
use std::sync::Arc;

/// What one start on a directory showed before it was shut down again.
#[derive(Debug)]
pub struct Started {
    pub rows: Vec<Row>,
    pub last_epoch: u64,
    pub warnings: Vec<String>,
}

/// Opens `dir` with one channel and makes it ready. `Err` holds the message.
pub fn open(dir: &Path, threads: usize) -> Result<(Arc<Datastore>, Vec<String>), String> {
    let store = Datastore::open(Settings::new(dir).recovery_threads(threads)).map_err(|e| e.to_string())?;
    store.create_channel();
    let report = match store.ready() {
        Ok(report) => report,
        Err(error) => {
            store.shutdown();
            return Err(error.to_string());
        }
    };
    Ok((store, report.warnings))
}

/// One complete life: open, read everything, shut down.
pub fn start(dir: &Path, threads: usize) -> Result<Started, String> {
    let (store, warnings) = open(dir, threads)?;
    let rows = rows(&store.snapshot().map_err(|e| e.to_string())?);
    let last_epoch = store.last_epoch().0;
    store.shutdown();
    Ok(Started {
        rows,
        last_epoch,
        warnings,
    })
}

/// All rows of a snapshot in cursor order.
pub fn rows(snapshot: &Snapshot) -> Vec<Row> {
    let mut cursor = snapshot.cursor();
    let mut rows = Vec::new();
    while let Some(entry) = cursor.next().unwrap() {
        rows.push(Row {
            storage: entry.storage.0,
            key: entry.key.to_vec(),
            value: entry.value.to_vec(),
        });
    }
    assert!(cursor.next().unwrap().is_none(), "a cursor stays at its end");
    rows
}
