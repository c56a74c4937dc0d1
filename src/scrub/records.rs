// SPDX-License-Identifier: Apache-2.0
//! `limestone-checksums`: what the log files of a directory held when they were read first. A magic, then one
//! record for each file, with a checksum of its own. Nothing depends on it: what is missing or damaged is made anew.
//! Integers are in the order of the machine's bytes from small to large.
//!
//! A record: u16 length of the name, the name, u64 size (what the CRC is of), u64 inode, u64 created, u64 modified
//! (nanoseconds since 1970), u32 CRC-32 of the file, u32 CRC-32 of the record up to here.

use crate::error::{Error, Result};
use crate::vfs::{crashsafe, About, Vfs};
use crate::wal::names;
use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::path::Path;

/// Ends with the version.
const MAGIC: &[u8; 8] = b"LSCHKS01";
/// Room for more log files than any directory has.
const MAX_BYTES: u64 = 64 << 20;

/// What a file held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) about: About,
    pub(super) crc: u32,
}

/// The records by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Records(pub(super) BTreeMap<String, Record>);

impl Records {
    /// Reads the file; what cannot be used of it is as if it were not there.
    pub(super) fn load(vfs: &dyn Vfs, location: &Path) -> Records {
        let path = location.join(names::CHECKSUMS);
        match vfs.read(&path, MAX_BYTES) {
            Ok(bytes) => {
                let (records, is_whole) = Records::parse(&bytes);
                if !is_whole {
                    log::warn!("{} is damaged: what is lost of it is made anew", path.display());
                }
                records
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Records::default(),
            Err(e) => {
                log::warn!("cannot read {}: {e}; it is made anew", path.display());
                Records::default()
            }
        }
    }

    /// The records by the number of the file.
    pub(super) fn by_inode(&self) -> HashMap<u64, Record> {
        self.0.values().map(|record| (record.about.inode(), *record)).collect()
    }

    /// Puts the file in place.
    pub(super) fn save(&self, vfs: &dyn Vfs, location: &Path) -> Result<()> {
        let (path, temporary) = (location.join(names::CHECKSUMS), location.join(names::CHECKSUMS_TEMPORARY));
        let replaced = crashsafe::replace(vfs, &temporary, &path, &self.encode());
        replaced.map_err(|e| Error::io("cannot write", &path, e))
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        for (name, Record { about, crc }) in &self.0 {
            let start = bytes.len();
            bytes.extend_from_slice(&(name.len() as u16).to_le_bytes());
            bytes.extend_from_slice(name.as_bytes());
            for number in about.numbers() {
                bytes.extend_from_slice(&number.to_le_bytes());
            }
            bytes.extend_from_slice(&crc.to_le_bytes());
            let own = crc32fast::hash(&bytes[start..]);
            bytes.extend_from_slice(&own.to_le_bytes());
        }
        bytes
    }

    /// The records before the first that is damaged, and whether that are all.
    fn parse(bytes: &[u8]) -> (Records, bool) {
        let mut records = Records::default();
        let Some(mut rest) = bytes.strip_prefix(MAGIC) else { return (records, false) };
        while !rest.is_empty() {
            let Some((name, record, behind)) = parse_record(rest) else { return (records, false) };
            records.0.insert(name, record);
            rest = behind;
        }
        (records, true)
    }
}

fn parse_record(bytes: &[u8]) -> Option<(String, Record, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    let (name, mut rest) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
    let mut number = || {
        let (number, behind) = rest.split_first_chunk::<8>()?;
        rest = behind;
        Some(u64::from_le_bytes(*number))
    };
    let about = About::from_numbers([number()?, number()?, number()?, number()?]);
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let own = crc32fast::hash(&bytes[..bytes.len() - rest.len()]);
    let (found, rest) = rest.split_first_chunk::<4>()?;
    let name = std::str::from_utf8(name).ok().filter(|_| u32::from_le_bytes(*found) == own)?;
    Some((name.to_owned(), Record { about, crc: u32::from_le_bytes(*crc) }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Loss, SimFs};

    const LOG: &str = "/log";

    fn record(number: u64) -> Record {
        let about = About::from_numbers([number, number + 1, number + 2, number + 3]);
        Record { about, crc: number as u32 + 4 }
    }

    fn some() -> Records {
        Records([("pwal_0000.1.0".to_owned(), record(10)), ("pwal_0001.1.0".to_owned(), record(20))].into())
    }

    #[test]
    fn records_are_read_as_they_were_written_also_after_a_power_cut() {
        let (fs, location) = (SimFs::new(), Path::new(LOG));
        fs.create_dir(location).unwrap();
        fs.sync_dir(Path::new("/")).unwrap();
        assert_eq!(Records::load(&fs, location), Records::default());
        some().save(&fs, location).unwrap();
        assert_eq!(Records::load(&fs.reboot(Loss::DropUnsynced), location), some());
    }

    #[test]
    fn of_a_damaged_file_only_whole_records_count() {
        let bytes = some().encode();
        assert_eq!(Records::parse(&bytes), (some(), true));
        for len in 0..bytes.len() {
            let (found, is_whole) = Records::parse(&bytes[..len]);
            assert!(found.0.iter().all(|(name, record)| some().0.get(name) == Some(record)));
            assert!(!is_whole || found.encode().len() == len, "cut at {len}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            let (found, is_whole) = Records::parse(&damaged);
            assert!(!is_whole && found.0.iter().all(|(name, record)| some().0.get(name) == Some(record)), "at {at}");
        }
    }
}
