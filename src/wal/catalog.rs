// SPDX-License-Identifier: Apache-2.0
//! The compaction catalog: which log files a compacted file has replaced (disk format §7.3).

use crate::types::{BlobId, Epoch};
use std::collections::BTreeSet;
use std::fmt::Write;

const HEADER: &str = "COMPACTION_CATALOG_HEADER";
const FOOTER: &str = "COMPACTION_CATALOG_FOOTER";
/// Room for about half a million detached files; a larger file is not a catalog.
pub const MAX_BYTES: u64 = 32 << 20;

/// The content of the catalog.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalog {
    pub compacted: BTreeSet<(String, i64)>,
    /// Names of log files whose content is in the compacted file; they may be gone.
    pub detached: BTreeSet<String>,
    pub max_epoch: Epoch,
    pub max_blob_id: BlobId,
}

/// Reads a catalog; the error names the line and what was expected.
pub fn parse(bytes: &[u8]) -> Result<Catalog, String> {
    // What stands behind the footer may be anything.
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split('\n').enumerate();
    if lines.next().map(|(_, line)| line) != Some(HEADER) {
        return Err(format!("line 1 is not {HEADER}"));
    }
    let mut catalog = Catalog::default();
    let mut max_epoch = None;
    for (number, line) in lines {
        if line == FOOTER {
            catalog.max_epoch = max_epoch.ok_or("no MAX_EPOCH_ID line")?;
            return Ok(catalog);
        }
        let words: Vec<&str> = line.split_ascii_whitespace().take(3).collect();
        let bad =
            || format!("line {} is not a catalog entry: {:?}", number + 1, line.chars().take(100).collect::<String>());
        match words[..] {
            [] => {}
            ["COMPACTED_FILE", name, version] => {
                catalog.compacted.insert((name.to_owned(), version.parse().map_err(|_| bad())?));
            }
            ["DETACHED_PWAL", name, ..] => {
                catalog.detached.insert(name.to_owned());
            }
            ["MAX_EPOCH_ID", value, ..] => max_epoch = Some(Epoch(value.parse().map_err(|_| bad())?)),
            ["MAX_BLOB_ID", value, ..] => catalog.max_blob_id = BlobId(value.parse().map_err(|_| bad())?),
            _ => return Err(bad()),
        }
    }
    Err(format!("the last line {FOOTER} is missing"))
}

impl Catalog {
    /// The text of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!("{HEADER}\n");
        let mut line = |args: std::fmt::Arguments<'_>| text.write_fmt(args).expect("a string takes any text");
        for (name, version) in &self.compacted {
            line(format_args!("COMPACTED_FILE {name} {version}\n"));
        }
        for name in &self.detached {
            line(format_args!("DETACHED_PWAL {name}\n"));
        }
        line(format_args!("MAX_EPOCH_ID {}\nMAX_BLOB_ID {}\n{FOOTER}\n", self.max_epoch, self.max_blob_id));
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_catalog_is_read_back_as_written() {
        assert_eq!(Catalog::default().encode().len(), 81);
        let catalog = Catalog {
            compacted: BTreeSet::from([("pwal_0000.compacted".to_owned(), 1)]),
            detached: BTreeSet::from([
                "pwal_0001.01795356604107.0".to_owned(),
                "pwal_0000.01795356604107.0".to_owned(),
            ]),
            max_epoch: Epoch(2),
            max_blob_id: BlobId(9),
        };
        assert_eq!(parse(&catalog.encode()), Ok(catalog));
    }

    #[test]
    fn old_catalogs_lack_the_blob_line_and_blank_lines_do_not_count() {
        let text = format!("{HEADER}\n\nMAX_EPOCH_ID 3 more words\n{FOOTER}\nrest");
        assert_eq!(parse(text.as_bytes()), Ok(Catalog { max_epoch: Epoch(3), ..Catalog::default() }));
    }

    #[test]
    fn nothing_behind_the_footer_counts() {
        let bytes = [&Catalog::default().encode()[..], &[0xff, 0xfe]].concat();
        assert_eq!(parse(&bytes), Ok(Catalog::default()));
    }

    #[test]
    fn a_torn_or_foreign_catalog_is_refused() {
        for text in ["", "x\n", HEADER, "COMPACTION_CATALOG_HEADER\nMAX_EPOCH_ID 1\n"] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        for line in
            ["UNKNOWN 1", "MAX_EPOCH_ID", "MAX_EPOCH_ID -1", "COMPACTED_FILE a", "MAX_BLOB_ID x", "DETACHED_PWAL"]
        {
            assert!(parse(format!("{HEADER}\nMAX_EPOCH_ID 1\n{line}\n{FOOTER}\n").as_bytes()).is_err(), "{line:?}");
        }
        assert!(parse(format!("{HEADER}\n{FOOTER}\n").as_bytes()).is_err());
    }
}
