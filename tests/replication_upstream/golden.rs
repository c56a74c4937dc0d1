// SPDX-License-Identifier: Apache-2.0
//! The captured conversations as data. Nothing is listed by name: a new folder under `tests/golden/wire` is a new case.

use crate::golden_data::{number, text, unhex, Row};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// One captured conversation between a primary and a replica.
pub struct Case {
    pub name: String,
    dir: PathBuf,
    pub json: Value,
}

impl Case {
    /// What connection `number` carried in direction `m2r` or `r2m`.
    pub fn stream(&self, number: usize, direction: &str) -> Vec<u8> {
        fs::read(self.dir.join(format!("conn{number}.{direction}.bin"))).unwrap()
    }

    /// The rows that the primary of the capture recovers.
    pub fn primary_rows(&self) -> Option<Vec<Row>> {
        let entries = self.json["master_after"]["snapshot_via_upstream_cursor"]["entries"].as_array()?;
        let row = |entry: &Value| Row {
            storage: number(&entry["storage"]),
            key: unhex(text(&entry["key_hex"])),
            value: unhex(text(&entry["value_hex"])),
        };
        Some(entries.iter().map(row).collect())
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.json["connections"].as_array().unwrap().len()
    }
}

/// All cases, sorted by name.
pub fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/wire");
    let mut cases = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let dir = entry.unwrap().path();
        let json = dir.join("case.json");
        if json.is_file() {
            let name = dir.file_name().unwrap().to_string_lossy().into_owned();
            cases.push(Case { name, json: serde_json::from_slice(&fs::read(json).unwrap()).unwrap(), dir });
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!cases.is_empty());
    cases
}
