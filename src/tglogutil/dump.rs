// SPDX-License-Identifier: Apache-2.0
//! `tglogutil dump`: prints the entries of the durable sessions in file order, or what a start would give.

use super::arguments::DumpOptions;
use super::examine::{examine, Subject};
use super::inspect::line;
use super::logs::{epochs, logs};
use crate::directory::OfflineDirectory;
use crate::error::{Error, Result};
use crate::types::{BlobId, Epoch, StorageId, WriteVersion};
use crate::wal::entry::{tag, Entry};
use crate::wal::sessions::Origin;
use serde_json::{json, Map, Value};
use std::io::Write;

const MEMORY_BYTES: u64 = 1 << 30;

/// Which entries are wanted.
#[derive(Debug, Default)]
pub struct Filter {
    storage: Option<StorageId>,
    first: Option<Epoch>,
    last: Option<Epoch>,
    key_prefix: Vec<u8>,
}

impl Filter {
    pub fn new(options: &DumpOptions) -> Result<Filter> {
        let invalid = |name: &str| Error::InvalidArgument(format!("invalid value for --{name} option"));
        let epoch = |text: &str| match text {
            "" => Ok(None),
            text => text.parse().map(|e| Some(Epoch(e))).map_err(|_| invalid("epoch")),
        };
        let (first, last) = match options.epoch.as_deref().map(|text| text.split_once("..").unwrap_or((text, text))) {
            Some((first, last)) => (epoch(first)?, epoch(last)?),
            None => (None, None),
        };
        let storage =
            options.storage.as_deref().map(|text| text.parse().map(StorageId).map_err(|_| invalid("storage")));
        let key_prefix = match options.key_prefix.as_deref() {
            None => Vec::new(),
            Some(text) => match text.strip_prefix("0x") {
                Some(digits) => unhex(digits).ok_or_else(|| invalid("key_prefix"))?,
                None => text.as_bytes().to_vec(),
            },
        };
        Ok(Filter { storage: storage.transpose()?, first, last, key_prefix })
    }

    fn wants(&self, storage: StorageId, key: Option<&[u8]>) -> bool {
        self.storage.is_none_or(|wanted| wanted == storage)
            && (self.key_prefix.is_empty() || key.is_some_and(|key| key.starts_with(&self.key_prefix)))
    }

    fn wants_epoch(&self, epoch: Epoch) -> bool {
        self.first.is_none_or(|first| first <= epoch) && self.last.is_none_or(|last| epoch <= last)
    }
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).ok()).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One printed entry: fields in order, as text or as JSON.
struct Printer<'a> {
    out: &'a mut dyn Write,
    json: bool,
}

impl Printer<'_> {
    fn print(&mut self, fields: &[(&str, Field<'_>)]) {
        if self.json {
            let object: Map<String, Value> =
                fields.iter().map(|(name, field)| ((*name).to_owned(), field.json())).collect();
            line(self.out, format_args!("{}", Value::Object(object)));
        } else {
            let words: Vec<String> = fields.iter().map(|(name, field)| format!("{name}={}", field.text())).collect();
            line(self.out, format_args!("{}", words.join(" ")));
        }
    }
}

enum Field<'a> {
    Word(&'a str),
    Number(u64),
    Bytes(&'a [u8]),
    Blobs(Vec<BlobId>),
}

impl Field<'_> {
    /// Bytes as hexadecimal digits, because they need not be text.
    fn json(&self) -> Value {
        match self {
            Field::Word(word) => json!(word),
            Field::Number(number) => json!(number),
            Field::Bytes(bytes) => json!(hex(bytes)),
            Field::Blobs(ids) => json!(ids.iter().map(|id| id.0).collect::<Vec<_>>()),
        }
    }

    fn text(&self) -> String {
        match self {
            Field::Word(word) => (*word).to_owned(),
            Field::Number(number) => number.to_string(),
            Field::Bytes(bytes) => format!("\"{}\"", bytes.escape_ascii()),
            Field::Blobs(ids) => ids.iter().map(BlobId::to_string).collect::<Vec<_>>().join(","),
        }
    }
}

pub fn run(directory: &OfflineDirectory, filter: &Filter, options: &DumpOptions, out: &mut dyn Write) -> Result<i32> {
    let mut printer = Printer { out, json: options.json };
    if options.live {
        live(directory, filter, options.common.threads(), &mut printer)?;
        return Ok(0);
    }
    let found = epochs(directory)?;
    if let Some(fault) = &found.fault {
        log::warn!("{}: {}", fault.path().display(), fault.reason());
    }
    let (limit, end_markers) = (found.durable.unwrap_or_default(), directory.has_end_markers());
    let mut damaged = false;
    for log in logs(directory)? {
        log.bytes.advise(true);
        let subject = Subject { bytes: &log.bytes, path: &log.path, limit, end_markers, origin: Origin::Unknown };
        let examined = examine(subject, |offset, epoch, entry| {
            if !filter.wants_epoch(epoch) {
                return;
            }
            let (kind, storage, key, version) = describe(log.bytes[offset], entry);
            if !filter.wants(storage, key) {
                return;
            }
            let mut fields = vec![
                ("file", Field::Word(&log.name)),
                ("offset", Field::Number(offset as u64)),
                ("epoch", Field::Number(epoch.0)),
                ("type", Field::Word(kind)),
                ("storage", Field::Number(storage.0)),
                ("major", Field::Number(version.major)),
                ("minor", Field::Number(version.minor)),
            ];
            fields.extend(key.map(|key| ("key", Field::Bytes(key))));
            if let Entry::Put { value, blobs, .. } = entry {
                fields.push(("value", Field::Bytes(value)));
                fields.push(("blobs", Field::Blobs(blobs.iter().collect())));
            }
            printer.print(&fields);
        });
        for broken in &examined.broken {
            log::error!("{}", broken.damage);
        }
        damaged |= !examined.broken.is_empty();
    }
    Ok(if damaged { 2 } else { 0 })
}

fn describe<'a>(tag: u8, entry: Entry<'a>) -> (&'static str, StorageId, Option<&'a [u8]>, WriteVersion) {
    match entry {
        Entry::Put { storage, key, version, .. } => ("put", storage, Some(key), version),
        Entry::Remove { storage, key, version } => ("remove", storage, Some(key), version),
        Entry::ClearStorage { storage, version } if tag == tag::REMOVE_STORAGE => {
            ("remove_storage", storage, None, version)
        }
        Entry::ClearStorage { storage, version } => ("clear_storage", storage, None, version),
        Entry::AddStorage { storage, version } => ("add_storage", storage, None, version),
        Entry::Begin(_) | Entry::Invalidated(_) | Entry::End(_) | Entry::Durable(_) => {
            ("marker", StorageId(0), None, WriteVersion::default())
        }
    }
}

/// What a start would give, in the order of its cursor.
fn live(directory: &OfflineDirectory, filter: &Filter, threads: usize, printer: &mut Printer<'_>) -> Result<()> {
    let recovered = directory.read_log(threads, Some(MEMORY_BYTES))?;
    for warning in &recovered.warnings {
        log::warn!("{warning}");
    }
    let mut cursor = recovered.snapshot.cursor();
    while let Some(row) = cursor.next()? {
        if filter.wants(row.storage, Some(row.key)) {
            printer.print(&[
                ("storage", Field::Number(row.storage.0)),
                ("key", Field::Bytes(row.key)),
                ("value", Field::Bytes(row.value)),
                ("blobs", Field::Blobs(row.blobs.iter().collect())),
            ]);
        }
    }
    Ok(())
}
