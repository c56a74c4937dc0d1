// SPDX-License-Identifier: Apache-2.0
//! `limestone-marks`: where to begin to read the log files of a directory that nobody has changed since. Whoever closes
//! a directory in good order writes down its marks and what each file was then; whoever opens it as a replica's
//! believes those of files that are still the same, and reads the rest. Nothing depends on it: what is missing, damaged
//! or of other files is as if it were not there, and all is read. An engine's start never looks at it.
//!
//! What is written down of a file is on the disk before. A file counts as the same when name, size, number, time of
//! creation and time of change are what they were; the file with the marks is younger than any of them by the clock of
//! the file system, so that a later change is never at the same time.
//!
//! A magic, the records, u32 CRC-32 of all before. A record: u16 length of the name, the name, u64 size, u64 inode, u64
//! created, u64 modified (nanoseconds since 1970), u32 number of marks, the marks. A mark: u64 offset, u8 origin, u64
//! last epoch, u64 last valid one, of the session before u64 offset, u64 epoch, u8 origin, then u32 checksum. Integers
//! are in the order of the machine's bytes from small to large.

use super::epoch_marks::{EpochMark, EpochMarks, LogMarks};
use super::names;
use super::sessions::{Origin, Session};
use crate::error::{Error, Result};
use crate::types::Epoch;
use crate::vfs::{crashsafe, About, FileKind, Open, Vfs, VfsFile};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

/// Ends with the version.
const MAGIC: &[u8; 8] = b"LSMARK01";
/// Room for the marks of a terabyte.
const MAX_BYTES: u64 = 64 << 20;
/// So many marks of a file are written down, the last ones.
const MARKS_MAX: usize = 4096;
/// A log that is smaller is read in no time. Few in a debug build, so that tests meet the file.
const LOG_BYTES_MIN: u64 = if cfg!(debug_assertions) { 512 } else { 8 << 20 };
/// So much that nobody has read is read to be written down; the next start has to read anything above it.
const READ_BYTES_MAX: u64 = 256 << 20;
/// The clock of a file system goes on in steps of so many at most, or is not used.
const CLOCK_STEPS_MAX: u32 = 50;
const CLOCK_STEP: Duration = Duration::from_millis(1);

/// What is known of one log file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Record {
    about: About,
    marks: EpochMarks,
}

type Records = BTreeMap<String, Record>;

/// The marks of those log files that are what they were when they were written down. The directory is locked.
pub fn load(vfs: &dyn Vfs, location: &Path) -> LogMarks {
    let (marks, mut records) = (LogMarks::default(), read(vfs, location));
    records.retain(|name, record| {
        let now = vfs.open(&location.join(name), Open::Read).and_then(|file| About::of(&*file));
        now.is_ok_and(|now| now == record.about)
    });
    marks.replace(records.into_iter().map(|(name, record)| (name, record.marks)));
    marks
}

/// Which files are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// All: everything has ended, and nobody appends.
    All,
    /// Those to which nobody appends any more.
    Complete,
}

/// Writes down what is marked of the log files in a directory, durably. Nothing has failed there, and it is locked. Of
/// a small log nothing is written down. That it cannot be written is told in the log only: the next start reads more.
///
/// # Errors
/// [`Error::Io`] when a log file cannot be synced: nobody knows any more what is on the disk.
pub fn save(vfs: &dyn Vfs, location: &Path, marks: &LogMarks, which: Which) -> Result<()> {
    let _saving = marks.begin_saving();
    match try_save(vfs, location, marks, which) {
        Ok(()) => Ok(()),
        Err(Failure::OfSync(error)) => Err(error),
        Err(Failure::ToWrite(e)) => {
            let error = Error::io("cannot write", &location.join(names::MARKS), e);
            log::warn!("{error}; a replica that starts here reads more of the log");
            Ok(())
        }
    }
}

enum Failure {
    ToWrite(io::Error),
    /// Of a log file.
    OfSync(Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::ToWrite(error)
    }
}

/// A compaction has put a file in place that it has written whole, and synced.
pub fn note_compacted(vfs: &dyn Vfs, location: &Path, marks: &LogMarks) {
    let path = location.join(names::COMPACTED);
    let whole = vfs.open(&path, Open::Read).and_then(|file| file.map()).map(|bytes| EpochMarks::of_whole(&bytes));
    // When it cannot be opened it is read by whoever can.
    marks.put(names::COMPACTED, whole.unwrap_or_default());
}

fn try_save(vfs: &dyn Vfs, location: &Path, marks: &LogMarks, which: Which) -> std::result::Result<(), Failure> {
    let listing = vfs.list(location)?;
    let logs = listing.iter().filter(|entry| entry.kind == FileKind::File);
    let logs = logs.filter_map(|entry| Some((entry.name.to_str()?, entry.len)));
    let counts = |name: &str| names::is_log(name) && (which == Which::All || !names::is_active_log(name));
    let logs = logs.filter(|(name, _)| counts(name));
    if logs.clone().map(|(_, len)| len).sum::<u64>() < LOG_BYTES_MIN {
        return Ok(());
    }
    let before = read(vfs, location);
    let (mut records, mut bytes_max) = (Records::new(), READ_BYTES_MAX);
    for (name, _) in logs {
        let path = location.join(name);
        let file = vfs.open(&path, Open::Read)?;
        let about = About::of(&*file)?;
        let record = match before.get(name).filter(|record| record.about == about) {
            Some(record) => Some(record.clone()),
            None => describe(&*file, about, name, &marks.of(name).now(), &mut bytes_max)?,
        };
        if record.is_some() {
            // Nobody else may have had a reason to.
            file.sync().map_err(|e| Failure::OfSync(Error::io("cannot sync", &path, e)))?;
        }
        records.extend(record.map(|record| (name.to_owned(), record)));
    }
    if records != before {
        write(vfs, location, records)?;
    }
    Ok(())
}

/// What is to be written down of a file; `None` when that is nothing.
fn describe(
    file: &dyn VfsFile,
    about: About,
    name: &str,
    known: &EpochMarks,
    bytes_max: &mut u64,
) -> io::Result<Option<Record>> {
    let bytes = file.map()?;
    let marks = match names::is_compacted(name) {
        true if known.covers(&bytes) => known.clone(),
        true => EpochMarks::default(),
        false => known.completed(&bytes, bytes_max),
    };
    let is_of_all = bytes.len() as u64 == about.size;
    Ok(Some(Record { about, marks }).filter(|record| is_of_all && record.marks != EpochMarks::default()))
}

fn write(vfs: &dyn Vfs, location: &Path, mut records: Records) -> io::Result<()> {
    let (path, temporary) = (location.join(names::MARKS), location.join(names::MARKS_TEMPORARY));
    let file = vfs.open(&temporary, Open::Truncate)?;
    let newest = records.values().map(|record| record.about.stamp.modified_ns).max().unwrap_or_default();
    let now = clock_behind(&*file, newest)?;
    records.retain(|_, Record { about, .. }| tells_changes(about.stamp.modified_ns, now));
    let bytes = encode(&records);
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::new(ErrorKind::FileTooLarge, "there are too many log files to write down"));
    }
    crashsafe::replace_with(vfs, &*file, &temporary, &path, &bytes)
}

/// Whether what is done from `now` on to a file that was written to at `time` gives it another time. Where there is no
/// clock, which is 0, nobody asks.
fn tells_changes(time: u64, now: u64) -> bool {
    time < now || now == 0
}

/// The time of a write to the file, behind `time` if the clock gets there soon. 0 where there is no clock.
fn clock_behind(file: &dyn VfsFile, time: u64) -> io::Result<u64> {
    for _ in 0..CLOCK_STEPS_MAX {
        file.write_at(0, MAGIC)?;
        let now = file.stamp()?.modified_ns;
        if tells_changes(time, now) {
            return Ok(now);
        }
        std::thread::sleep(CLOCK_STEP);
    }
    Ok(file.stamp()?.modified_ns)
}

/// What the file says; what cannot be used of it is as if it were not there.
fn read(vfs: &dyn Vfs, location: &Path) -> Records {
    let path = location.join(names::MARKS);
    match vfs.read(&path, MAX_BYTES) {
        Ok(bytes) => parse(&bytes).unwrap_or_else(|| {
            log::warn!("{} is damaged: the log is read as if it were not there", path.display());
            Records::new()
        }),
        Err(e) if e.kind() == ErrorKind::NotFound => Records::new(),
        Err(e) => {
            log::warn!("cannot read {}: {e}; the log is read as if it were not there", path.display());
            Records::new()
        }
    }
}

fn encode(records: &Records) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (name, Record { about, marks }) in records {
        bytes.extend((name.len() as u16).to_le_bytes());
        bytes.extend(name.as_bytes());
        about.numbers().iter().for_each(|number| bytes.extend(number.to_le_bytes()));
        let marks = marks.tail(MARKS_MAX);
        bytes.extend((marks.len() as u32).to_le_bytes());
        for EpochMark { offset, origin, last, last_valid, previous, checksum } in marks {
            bytes.extend((*offset as u64).to_le_bytes());
            bytes.push(u8::from(*origin == Origin::Ours));
            for number in [last.0, last_valid.0, previous.offset as u64, previous.epoch.0] {
                bytes.extend(number.to_le_bytes());
            }
            bytes.push(u8::from(previous.origin == Origin::Ours));
            bytes.extend(checksum.to_le_bytes());
        }
    }
    let crc = crc32fast::hash(&bytes);
    bytes.extend(crc.to_le_bytes());
    bytes
}

/// `None` for anything that was not written whole.
fn parse(bytes: &[u8]) -> Option<Records> {
    let (content, crc) = bytes.split_last_chunk::<4>()?;
    let mut rest = Bytes(content.strip_prefix(MAGIC).filter(|_| crc32fast::hash(content) == u32::from_le_bytes(*crc))?);
    let mut records = Records::new();
    while !rest.0.is_empty() {
        let len = u16::from_le_bytes(rest.take()?);
        let (name, behind) = rest.0.split_at_checked(len.into())?;
        rest.0 = behind;
        let about = About::from_numbers([rest.number()?, rest.number()?, rest.number()?, rest.number()?]);
        let count = u32::from_le_bytes(rest.take()?);
        let marks = (0..count).map(|_| rest.mark()).collect::<Option<EpochMarks>>()?;
        records.insert(std::str::from_utf8(name).ok()?.to_owned(), Record { about, marks });
    }
    Some(records)
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, behind) = self.0.split_first_chunk::<N>()?;
        self.0 = behind;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn offset(&mut self) -> Option<usize> {
        self.number()?.try_into().ok()
    }

    fn origin(&mut self) -> Option<Origin> {
        match self.take()? {
            [0] => Some(Origin::Unknown),
            [1] => Some(Origin::Ours),
            [_] => None,
        }
    }

    fn mark(&mut self) -> Option<EpochMark> {
        let (offset, origin) = (self.offset()?, self.origin()?);
        let (last, last_valid) = (Epoch(self.number()?), Epoch(self.number()?));
        let (before, epoch) = (self.offset()?, Epoch(self.number()?));
        let previous = Session { offset: before, epoch, invalidated: false, origin: self.origin()? };
        Some(EpochMark { offset, origin, last, last_valid, previous, checksum: u32::from_le_bytes(self.take()?) })
    }
}

#[cfg(test)]
#[path = "marks_file_tests.rs"]
mod tests;
