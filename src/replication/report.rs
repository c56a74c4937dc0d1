// SPDX-License-Identifier: Apache-2.0
//! Everything that whoever serves a directory tells of it: the status document, what it counts, and how full the disk
//! is. Two lines of JSON, so that the first can be read by itself.

use super::status::Status;
use crate::metrics::Snapshot;
use crate::vfs::Disk;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    pub status: Status,
    /// `None` from a process that does not tell it.
    pub counted: Option<Counted>,
}

/// The numbers beside the status document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counted {
    pub numbers: Snapshot,
    pub disk: Option<Disk>,
}

impl Report {
    /// The report on the directory `location`.
    pub fn new(status: Status, numbers: Snapshot, location: &Path) -> Report {
        // A file system that does not tell is no reason to tell nothing.
        let disk = Disk::of(location);
        Report { status, counted: Some(Counted { numbers, disk }) }
    }

    /// As it goes to whoever asks.
    pub fn to_lines(&self) -> String {
        let counted = self
            .counted
            .as_ref()
            .map_or_else(String::new, |counted| serde_json::to_string(counted).expect("numbers are always JSON"));
        format!("{}\n{counted}\n", self.status.to_json())
    }

    /// What [`Self::to_lines`] made, or a process that tells its status only.
    ///
    /// # Errors
    /// When a line is something else.
    pub fn parse(lines: &[u8]) -> serde_json::Result<Report> {
        let mut lines = lines.splitn(2, |&byte| byte == b'\n');
        let status = serde_json::from_slice(lines.next().unwrap_or_default())?;
        let counted = lines.next().filter(|line| !line.trim_ascii().is_empty());
        Ok(Report { status, counted: counted.map(serde_json::from_slice).transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::status::Known;

    #[test]
    fn a_report_is_read_as_it_was_told_with_numbers_or_without() {
        let told =
            Report::new(Known::default().document(), Snapshot { entries: 7, ..Snapshot::default() }, "/".as_ref());
        assert!(told.counted.as_ref().unwrap().disk.is_some_and(|disk| disk.size_bytes >= disk.free_bytes));
        assert_eq!(Report::parse(told.to_lines().as_bytes()).unwrap(), told);
        let alone = Report { counted: None, ..told.clone() };
        assert_eq!(Report::parse(told.status.to_json().as_bytes()).unwrap(), alone);
        assert_eq!(Report::parse(alone.to_lines().as_bytes()).unwrap(), alone);
        assert!(Report::parse(b"").is_err() && Report::parse(b"{}\n[").is_err());
    }
}
