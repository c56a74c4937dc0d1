// SPDX-License-Identifier: Apache-2.0
//! The golden directories as data: finds the cases, copies them, and reads what is expected of them. Nothing is listed
//! by name, so a new folder under `tests/golden/disk` is a new case.
#![allow(dead_code)]

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// One entry as a cursor returns it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub storage: u64,
    pub key: Vec<u8>,
    pub value: Vec<u8>,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |bytes: &[u8]| match bytes.len() {
            0..=40 => bytes.escape_ascii().to_string(),
            n => format!("{}...({n} bytes)", bytes[..40].escape_ascii()),
        };
        write!(f, "{}/{}={}", self.storage, short(&self.key), short(&self.value))
    }
}

/// A data directory and what upstream did when it opened a copy of it.
pub struct Case {
    pub name: String,
    pub dir: PathBuf,
    pub expected: Value,
}

impl Case {
    /// Copies the directory, with the empty sub-directories that version control drops.
    pub fn copy_to(&self, target: &Path) {
        copy_tree(&self.dir.join("data"), target);
        for dir in self.expected["empty_dirs"].as_array().into_iter().flatten() {
            fs::create_dir_all(target.join(text(dir))).unwrap();
        }
    }

    /// Whether upstream opens the directory.
    pub fn upstream_opens(&self) -> bool {
        self.expected["open"]["result"] == "ok"
    }

    /// The entries that upstream returns.
    pub fn upstream_rows(&self) -> Vec<Row> {
        rows(&self.expected["entries"])
    }

    /// The entries that an engine without upstream's defects returns.
    pub fn correct_rows(&self) -> Vec<Row> {
        match self.expected.get("logically_correct_entries") {
            Some(list) => rows(list),
            None => self.upstream_rows(),
        }
    }

    /// `last_epoch` after upstream's start.
    pub fn upstream_last_epoch(&self) -> u64 {
        number(&self.expected["last_epoch"])
    }
}

/// The folder with the golden data.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/disk")
}

/// All cases, sorted by name.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(root()).unwrap() {
        let dir = entry.unwrap().path();
        let expected = dir.join("expected.json");
        if expected.is_file() {
            let name = dir.file_name().unwrap().to_string_lossy().into_owned();
            cases.push(Case { name, expected: json(&expected), dir });
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(!cases.is_empty(), "no golden cases below {}", root().display());
    cases
}

/// One byte string as the only log file of a directory, under one of two names.
pub struct MatrixCase {
    pub name: String,
    pub file_name: String,
    pub pwal: Vec<u8>,
    /// What upstream did at start.
    pub start: Value,
    /// All that upstream and its tools did with it.
    pub upstream: Value,
    common: Value,
}

impl MatrixCase {
    /// Lays the directory out.
    pub fn write_to(&self, target: &Path) {
        fs::create_dir_all(target).unwrap();
        fs::write(target.join("epoch"), unhex(text(&self.common["epoch_hex"]))).unwrap();
        for name in ["limestone-manifest.json", "compaction_catalog"] {
            fs::write(target.join(name), text(&self.common[name])).unwrap();
        }
        fs::write(target.join(&self.file_name), &self.pwal).unwrap();
    }
}

/// Every case of the parse matrix, once with an active and once with a rotated file name.
pub fn parse_matrix() -> Vec<MatrixCase> {
    matrix_cases(|matrix, case, kind, name| {
        let file_name = text(&matrix[&format!("{kind}_name")]).into();
        let (pwal, start) = (unhex(text(&case["pwal"])), case[kind]["start"].clone());
        let upstream = case[kind].clone();
        vec![MatrixCase { name, file_name, pwal, start, upstream, common: matrix["common_files"].clone() }]
    })
}

/// Every case of the parse matrix as upstream's two kinds of repair left it.
pub fn repaired_parse_matrix() -> Vec<MatrixCase> {
    matrix_cases(|matrix, case, kind, name| {
        let mut cases = Vec::new();
        for tool in ["repair", "repair_cut"] {
            let repair = &case[kind][tool];
            let Some(start) = repair.get("start_after").filter(|start| !start.is_null()) else {
                continue;
            };
            let renamed = repair["renamed"] == true || kind == "detached";
            cases.push(MatrixCase {
                name: format!("{name} after {tool}"),
                file_name: text(&matrix[if renamed { "detached_name" } else { "attached_name" }]).into(),
                pwal: match text(&repair["pwal_after"]) {
                    "unchanged" => unhex(text(&case["pwal"])),
                    hex => unhex(hex),
                },
                start: start.clone(),
                upstream: case[kind].clone(),
                common: matrix["common_files"].clone(),
            });
        }
        cases
    })
}

fn matrix_cases(read: impl Fn(&Value, &Value, &str, String) -> Vec<MatrixCase>) -> Vec<MatrixCase> {
    let matrix = json(&root().join("parse_matrix.json"));
    let mut cases = Vec::new();
    for case in matrix["cases"].as_array().unwrap() {
        for kind in ["attached", "detached"] {
            cases.extend(read(&matrix, case, kind, format!("{} ({kind})", text(&case["name"]))));
        }
    }
    cases
}

/// The step-by-step records of upstream's epoch protocol.
pub fn epoch_traces() -> Vec<Value> {
    json(&root().join("epoch_traces.json")).as_array().unwrap().clone()
}

/// Decodes a list of `{storage_id, key, value}`.
pub fn rows(list: &Value) -> Vec<Row> {
    let row = |v: &Value| Row {
        storage: number(&v["storage_id"]),
        key: unhex(text(&v["key"])),
        value: unhex(text(&v["value"])),
    };
    list.as_array().map(|list| list.iter().map(row).collect()).unwrap_or_default()
}

/// A JSON number, or a number written as text.
pub fn number(value: &Value) -> u64 {
    match value {
        Value::String(s) => s.parse().unwrap(),
        v => v.as_u64().unwrap_or_else(|| panic!("not a u64: {v}")),
    }
}

/// A JSON string.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}"))
}

/// Decodes hexadecimal digits.
pub fn unhex(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2), "odd number of hex digits");
    (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
}

/// Every regular file below `dir` with its content.
pub fn tree(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    fn walk(top: &Path, dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(top, &path, files);
            } else {
                files.insert(path.strip_prefix(top).unwrap().to_path_buf(), fs::read(&path).unwrap());
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(dir, dir, &mut files);
    files
}

/// Copies a directory with everything in it.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_tree(&path, &target);
        } else {
            // Not a copy of the file's mode: golden files may be read-only.
            fs::write(&target, fs::read(&path).unwrap()).unwrap();
        }
    }
}

fn json(path: &Path) -> Value {
    let content = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&content).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
