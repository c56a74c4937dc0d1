// SPDX-License-Identifier: Apache-2.0
//! The epoch file: the records that say up to which epoch the log counts (disk format §3).
//!
//! The largest record counts. A record 0 as the last one says besides that nothing durable has ever been in the log:
//! the epochs of the other records left a trace, but no session of them was acknowledged.

use super::entry::{marker, tag, MARKER_LEN};
use super::names;
use super::scanner::SECTOR;
use crate::error::{Damage, Error, Remedy, Result};
use crate::types::Epoch;
use crate::vfs::{crashsafe, descriptor, Open, Vfs, VfsFile};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The original replaces the file at the hundredth record of a process; so does this, to keep it small.
const RECORDS_PER_FILE: u32 = 100;

/// What an epoch file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EpochRecords {
    /// The largest record; `None` when there is none.
    pub max: Option<Epoch>,
    /// The last whole record.
    pub last: Option<Epoch>,
    /// Where a record begins that was never completely written.
    pub torn_at: Option<usize>,
}

impl EpochRecords {
    /// Whether the records say that nothing durable is in the log.
    pub fn say_nothing_is_durable(&self) -> bool {
        self.last.unwrap_or_default() == Epoch(0)
    }
}

/// Reads an epoch file. A short record or zeros at the end are what a crash leaves of an append that was never
/// acknowledged; anything else that is not a record is damage. `path` is for the message only.
pub fn parse(bytes: &[u8], path: &Path) -> std::result::Result<EpochRecords, Box<Damage>> {
    let mut records = EpochRecords::default();
    for (index, record) in bytes.chunks(MARKER_LEN).enumerate() {
        let offset = index * MARKER_LEN;
        match *record {
            [tag::DURABLE, e0, e1, e2, e3, e4, e5, e6, e7] => {
                let epoch = Epoch(u64::from_le_bytes([e0, e1, e2, e3, e4, e5, e6, e7]));
                records.max = records.max.max(Some(epoch));
                records.last = Some(epoch);
            }
            [tag::DURABLE, ..] => records.torn_at = records.torn_at.or(Some(offset)),
            [0, ..] if is_unwritten(&bytes[offset..], offset) => {
                records.torn_at = Some(offset);
                break;
            }
            [found, ..] => {
                return Err(Box::new(Damage {
                    file: path.to_owned(),
                    offset: offset as u64,
                    epoch: None,
                    reason: format!("this epoch file is broken: unexpected log_entry type: {found}"),
                    found: format!("tag {found:#04x}"),
                    expected: "a durable-epoch record (tag 0x04) or the end of the file".to_owned(),
                    remedy: Remedy::Repair,
                }));
            }
            [] => unreachable!("chunks are not empty"),
        }
    }
    Ok(records)
}

/// Whether an append left these bytes behind the last whole record: zeros to the end, or one record that lies in two
/// sectors of which only the second reached the disk.
fn is_unwritten(rest: &[u8], offset: usize) -> bool {
    let to_boundary = SECTOR - offset % SECTOR;
    let lost = if to_boundary < MARKER_LEN && rest.len() <= MARKER_LEN { to_boundary } else { rest.len() };
    rest.iter().take(lost).all(|&b| b == 0)
}

/// Writes a rotated epoch file with the single record `durable` and returns its path. `current` is the epoch for its
/// name. The content is synced, the name is durable after [`sync_names`]. A failure leaves nothing, and nothing but who
/// asked for the file depends on it.
pub fn write_rotated(vfs: &dyn Vfs, directory: &Path, durable: Epoch, current: Epoch) -> Result<PathBuf> {
    let mut now = names::unix_ms();
    loop {
        let path = directory.join(names::rotated_epoch(now, current));
        let file = match vfs.open(&path, Open::New) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                now += 1;
                continue;
            }
            file => file.map_err(|e| Error::io("cannot create the rotated epoch file", &path, e))?,
        };
        let write = || {
            file.write_at(0, &marker(tag::DURABLE, durable))?;
            file.sync()
        };
        return match write() {
            Ok(()) => Ok(path),
            Err(e) => {
                // The failure is what counts; a start deletes the file as well.
                let _ = vfs.unlink(&path);
                Err(Error::io("cannot write the rotated epoch file", &path, e))
            }
        };
    }
}

/// Makes the names in the directory durable. After a failure the names of other files may be lost as well.
pub fn sync_names(vfs: &dyn Vfs, directory: &Path) -> Result<()> {
    vfs.sync_dir(directory).map_err(|e| Error::io("cannot sync the directory", directory, e))
}

fn open_temporary(vfs: &dyn Vfs, directory: &Path) -> std::io::Result<Box<dyn VfsFile>> {
    vfs.open(&directory.join(names::EPOCH_TEMPORARY), Open::Truncate)
}

/// The epoch file of a running data store. Only one thread at a time records.
#[derive(Debug)]
pub struct EpochFile {
    vfs: Arc<dyn Vfs>,
    directory: PathBuf,
    file: Box<dyn VfsFile>,
    len: u64,
    /// Records that this process has written into the present file.
    records: u32,
    recorded: Epoch,
    /// Nothing durable is in the log, and the last record says so.
    nothing_durable: bool,
}

impl EpochFile {
    /// Puts a file with the single record `epoch` in place of what is there, durably.
    pub fn replace(vfs: Arc<dyn Vfs>, directory: &Path, epoch: Epoch) -> Result<EpochFile> {
        Self::replace_with(vfs, directory, epoch, epoch == Epoch(0))
    }

    /// The same when nothing durable is in the log, whatever epochs left a trace there.
    pub fn replace_nothing_durable(vfs: Arc<dyn Vfs>, directory: &Path, epoch: Epoch) -> Result<EpochFile> {
        Self::replace_with(vfs, directory, epoch, true)
    }

    fn replace_with(vfs: Arc<dyn Vfs>, directory: &Path, epoch: Epoch, nothing_durable: bool) -> Result<EpochFile> {
        let file = open_temporary(&*vfs, directory)
            .map_err(|e| Error::io("cannot replace the epoch file", &directory.join(names::EPOCH), e))?;
        Self::put_in_place(file, vfs, directory, epoch, nothing_durable)
    }

    fn put_in_place(
        file: Box<dyn VfsFile>,
        vfs: Arc<dyn Vfs>,
        directory: &Path,
        epoch: Epoch,
        nothing_durable: bool,
    ) -> Result<EpochFile> {
        let path = directory.join(names::EPOCH);
        let mut bytes = marker(tag::DURABLE, epoch).to_vec();
        if nothing_durable && epoch > Epoch(0) {
            bytes.extend(marker(tag::DURABLE, Epoch(0)));
        }
        crashsafe::replace_with(&*vfs, &*file, &directory.join(names::EPOCH_TEMPORARY), &path, &bytes)
            .map_err(|e| Error::io("cannot replace the epoch file", &path, e))?;
        let (directory, len) = (directory.to_owned(), bytes.len() as u64);
        Ok(EpochFile { vfs, directory, file, len, records: 0, recorded: epoch, nothing_durable })
    }

    /// The largest epoch in the file.
    pub fn recorded(&self) -> Epoch {
        self.recorded
    }

    /// Puts the same records in place of those that are there, durably. Without descriptors the present file stays; it
    /// says the same.
    pub fn renew(&mut self) -> Result<()> {
        self.replace_if_possible(self.recorded, self.nothing_durable).map(drop)
    }

    /// Replaces the file, unless the process has no descriptor left for the new one: then nothing is changed. Returns
    /// whether it was replaced.
    fn replace_if_possible(&mut self, epoch: Epoch, nothing_durable: bool) -> Result<bool> {
        let file = match open_temporary(&*self.vfs, &self.directory) {
            Err(e) if descriptor::is_exhausted(&e) => return Ok(false),
            file => {
                file.map_err(|e| Error::io("cannot replace the epoch file", &self.directory.join(names::EPOCH), e))?
            }
        };
        *self = Self::put_in_place(file, self.vfs.clone(), &self.directory, epoch, nothing_durable)?;
        Ok(true)
    }

    /// Fails when the directory of the file is not the one under its name any more: then nothing may be reported.
    pub fn confirm_place(&self) -> Result<()> {
        self.vfs.confirm().map_err(|e| Error::io("cannot go on in", &self.directory, e))
    }

    /// Makes `epoch` the durable epoch although the log has no session of it or of an epoch since the last record; as
    /// [`Self::record`] otherwise.
    pub fn record_without_sessions(&mut self, epoch: Epoch) -> Result<()> {
        if self.nothing_durable && epoch > self.recorded {
            *self = Self::replace_with(self.vfs.clone(), &self.directory, epoch, true)?;
            return Ok(());
        }
        self.record(epoch)
    }

    /// Makes `epoch` the durable epoch; it is synced when this returns. An epoch that is covered already costs nothing,
    /// but for the first session that is durable. After an error the file must not be used again.
    pub fn record(&mut self, epoch: Epoch) -> Result<()> {
        let first_session = self.nothing_durable && self.recorded > Epoch(0);
        if epoch <= self.recorded && !first_session {
            return Ok(());
        }
        let epoch = epoch.max(self.recorded);
        // When it has to be put off, the file grows by one more record and the next one tries again.
        if self.records + 1 >= RECORDS_PER_FILE && self.replace_if_possible(epoch, epoch == Epoch(0))? {
            return Ok(());
        }
        let append = || {
            self.file.write_at(self.len, &marker(tag::DURABLE, epoch))?;
            self.file.sync()
        };
        append().map_err(|e| Error::io("cannot record the durable epoch in", &self.directory.join(names::EPOCH), e))?;
        self.len += MARKER_LEN as u64;
        self.records += 1;
        self.recorded = epoch;
        self.nothing_durable = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Fault, Loss, SimFs};

    fn read(parts: &[&[u8]]) -> std::result::Result<EpochRecords, Box<Damage>> {
        parse(&parts.concat(), Path::new("epoch"))
    }

    fn record(epoch: u64) -> [u8; MARKER_LEN] {
        marker(tag::DURABLE, Epoch(epoch))
    }

    #[test]
    fn the_largest_record_counts_not_the_last() {
        let records = read(&[&record(3), &record(9), &record(4)]);
        assert_eq!(records, Ok(EpochRecords { max: Some(Epoch(9)), last: Some(Epoch(4)), torn_at: None }));
        assert_eq!(read(&[]), Ok(EpochRecords::default()));
    }

    #[test]
    fn what_a_crash_leaves_of_an_append_is_cut() {
        let kept = EpochRecords { max: Some(Epoch(5)), last: Some(Epoch(5)), torn_at: Some(9) };
        for len in 1..MARKER_LEN {
            assert_eq!(read(&[&record(5), &record(6)[..len]]), Ok(kept));
        }
        assert_eq!(read(&[&record(5), &[0; 9]]), Ok(kept));
        assert_eq!(read(&[&record(5), &[0; 4000]]), Ok(kept));
        let full_sector = [record(5); 56].concat();
        let lost_first = read(&[&full_sector, &[0; 8], &[1]]);
        assert_eq!(lost_first, Ok(EpochRecords { max: Some(Epoch(5)), last: Some(Epoch(5)), torn_at: Some(504) }));
    }

    #[test]
    fn anything_else_is_damage() {
        for bad in [&marker(tag::BEGIN, Epoch(6))[..], &[1], &[0xff; 9]] {
            assert_eq!(read(&[&record(5), bad]).unwrap_err().offset, 9);
        }
        assert!(read(&[&record(5), &[0; 9], &record(7)]).is_err(), "a record behind zeros");
        assert!(read(&[&record(5), &[0], &record(7)[1..]]).is_err(), "a record without its tag inside one sector");
    }

    #[test]
    fn replacing_the_file_is_put_off_while_the_process_has_no_descriptors() {
        let (fs, directory) = (SimFs::new(), Path::new("/log"));
        fs.put(&directory.join("other"), b"").unwrap();
        let mut file = EpochFile::replace(Arc::new(fs.clone()), directory, Epoch(0)).unwrap();
        let recorded = || {
            let bytes = fs.reboot(Loss::DropUnsynced).read(&directory.join(names::EPOCH), 1 << 20).unwrap();
            (parse(&bytes, directory).unwrap().max, bytes.len() / MARKER_LEN)
        };
        fs.fail_from(fs.operations() + 1, Fault::NoDescriptors);
        for epoch in 1..=250 {
            file.record(Epoch(epoch)).unwrap();
            file.renew().unwrap();
            assert_eq!(recorded().0, Some(Epoch(epoch)));
        }
        fs.heal();
        file.record(Epoch(251)).unwrap();
        assert_eq!(recorded(), (Some(Epoch(251)), 1), "it is made up for");
        // Any other failure is one.
        fs.fail_from(fs.operations() + 1, Fault::IoError);
        assert!(file.renew().is_err());
    }
}
