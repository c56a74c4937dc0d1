// SPDX-License-Identifier: Apache-2.0
//! Rounds over the log files of a directory: what is seen for the first time is recorded and trusted from then on;
//! later rounds compare.
//!
//! Whoever has the directory open never writes to a closed file, nor to the begin of one that it appends to. So what
//! changes there meanwhile is damage, whether the disk did it or a program. While the directory is closed others may
//! have put files right (a start, a rewind, a restore): a file that was written to then is recorded anew.

use super::damage::{Damage, Wrong, PIECE_BYTES};
use super::known::Known;
use super::records::{Record, Records};
use crate::error::{Error, Result};
use crate::vfs::{is_lost_by_disk, About, FileKind, Open, Vfs, VfsFile};
use crate::wal::{catalog, names};
use crc32fast::Hasher;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// After so many bytes of newly recorded files the records are written.
const SAVE_BYTES: u64 = 1 << 30;

/// How fast files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// At least 1.
    pub bytes_per_s: u64,
}

impl Rate {
    /// How long to rest after so many bytes.
    fn rest(self, bytes: u64) -> Duration {
        Duration::from_nanos((u128::from(bytes) * 1_000_000_000).div_ceil(self.bytes_per_s.max(1).into()) as u64)
    }
}

/// When files are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scrubbing {
    pub rate: Rate,
    /// From the end of a round over all files to the next.
    pub period: Duration,
}

impl Scrubbing {
    /// The rate in MiB a second, and the period in seconds, when nothing else is set.
    pub const DEFAULT_MIB_PER_S: u64 = 8;
    pub const DEFAULT_PERIOD_S: u64 = 86_400;
    /// What may be set.
    pub const MIB_PER_S_MAX: u64 = 1 << 20;
    pub const PERIOD_S_MAX: u64 = 31_536_000;

    /// At so many MiB a second, with so many seconds between rounds; `None` for a rate of 0.
    pub fn at(mib_per_s: u64, period_s: u64) -> Option<Scrubbing> {
        let (bytes_per_s, period) = (mib_per_s << 20, Duration::from_secs(period_s));
        (mib_per_s > 0).then_some(Scrubbing { rate: Rate { bytes_per_s }, period })
    }
}

/// Which files a round reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that are not recorded.
    New,
    All,
}

/// What a round has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// Found so far.
    pub damaged: Vec<Damage>,
    /// Whether it was not told to stop.
    pub is_complete: bool,
}

/// How a round reads.
pub struct Reading<'a> {
    pub rate: Rate,
    /// How many bytes at the begin of the log file of this name stay as they are while the directory is open.
    pub settled: &'a dyn Fn(&str) -> u64,
    /// Called after each piece with its bytes and how long to rest; false stops the round.
    pub go_on: &'a mut dyn FnMut(u64, Duration) -> bool,
}

impl Reading<'_> {
    /// Goes on with the checksum of the file; `None` when it was stopped.
    fn checksum(&mut self, file: &dyn VfsFile, mut crc: Hasher, range: Range<u64>) -> io::Result<Option<Hasher>> {
        if range.is_empty() {
            return Ok(Some(crc));
        }
        let (mut piece, mut offset) = (vec![0; PIECE_BYTES], range.start);
        // What the disk has is of interest, and not what the system still has in memory.
        file.release_cache(range.start, range.end - range.start);
        while offset < range.end {
            let wanted = (range.end - offset).min(PIECE_BYTES as u64) as usize;
            let got = file.read_at(offset, &mut piece[..wanted])?;
            if got == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            crc.update(&piece[..got]);
            file.release_cache(offset, got as u64);
            offset += got as u64;
            if !(self.go_on)(got as u64, self.rate.rest(got as u64)) {
                return Ok(None);
            }
        }
        Ok(Some(crc))
    }
}

/// Reads the log files of one directory. Belongs to one thread; others may do with the directory what they like.
#[derive(Debug)]
pub struct Scrub {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    records: Records,
    /// Files that were seen since the directory was opened, and what those are known to hold.
    seen: BTreeSet<String>,
    known: Arc<Known>,
    /// Those that could not be read, which has been said.
    unreadable: BTreeSet<String>,
    /// Whether the records are others than those on the disk, and bytes of the files that are new among them.
    changed: bool,
    unsaved: u64,
}

impl Scrub {
    /// Reads what earlier processes have recorded.
    pub fn open(vfs: Arc<dyn Vfs>, location: &Path) -> Scrub {
        let records = Records::load(&*vfs, location);
        let (seen, known, unreadable) = Default::default();
        Scrub { vfs, location: location.to_owned(), records, seen, known, unreadable, changed: false, unsaved: 0 }
    }

    /// The directory was closed and is open again.
    pub fn reopened(&mut self) {
        self.seen.clear();
        self.known = Arc::default();
    }

    /// What files are known to hold until the directory is closed: goes on growing.
    pub fn known(&self) -> &Arc<Known> {
        &self.known
    }

    /// Reads the files, one after the other. A file that cannot be read for another reason than its disk is said once,
    /// and passed over.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory cannot be listed, or the records cannot be written.
    pub fn round(&mut self, which: Which, mut reading: Reading<'_>) -> Result<Round> {
        let mut round = Round { damaged: Vec::new(), is_complete: true };
        for name in self.look()? {
            let checked = match self.check(&name, which, &mut reading) {
                Err(e) if is_lost_by_disk(&e) => self.check(&name, which, &mut reading),
                checked => checked,
            };
            match checked {
                Ok(Checked::Damaged(damage)) => round.damaged.push(damage),
                Ok(Checked::Stopped) => {
                    round.is_complete = false;
                    break;
                }
                Ok(Checked::Fine) => drop(self.unreadable.remove(&name)),
                Err(e) if is_lost_by_disk(&e) => {
                    round.damaged.push(Damage { name, wrong: Wrong::Unreadable(e.to_string()) });
                }
                Err(e) => {
                    if self.unreadable.insert(name.clone()) {
                        log::error!("{} cannot be scrubbed: {e}", self.location.join(&name).display());
                    }
                }
            }
            if self.unsaved >= SAVE_BYTES {
                self.save()?;
            }
        }
        self.save()?;
        Ok(round)
    }

    fn save(&mut self) -> Result<()> {
        if self.changed {
            self.records.save(&*self.vfs, &self.location)?;
        }
        (self.changed, self.unsaved) = (false, 0);
        Ok(())
    }

    /// The names of the files that count. What was recorded of files that are gone or were written to while the
    /// directory was closed is forgotten; a file that has another name now is the same.
    fn look(&mut self) -> Result<BTreeSet<String>> {
        let listing = self.vfs.names(&self.location).map_err(|e| Error::io("cannot list", &self.location, e))?;
        let detached = self.detached();
        let files = listing.into_iter().filter(|(_, kind)| *kind == FileKind::File);
        let files = files.filter_map(|(name, _)| name.into_string().ok());
        let logs: BTreeSet<String> = files.filter(|name| names::is_log(name) && !detached.contains(name)).collect();
        let before = self.records.clone();
        let by_inode = before.by_inode();
        self.records.0.retain(|name, _| logs.contains(name));
        self.seen.retain(|name| logs.contains(name));
        for name in logs.iter().filter(|name| !self.seen.contains(*name)) {
            let about = self.vfs.open(&self.location.join(name), Open::Read).and_then(|file| About::of(&*file)).ok();
            let same = about.and_then(|about| {
                // Since it was seen nobody may have written to it, whatever its name was then.
                let known = self.known.of(&about);
                known.or_else(|| {
                    by_inode.get(&about.inode()).filter(|record| record.about.is_untouched(&about)).copied()
                })
            });
            match same {
                Some(record) => {
                    self.known.note(record);
                    self.records.0.insert(name.clone(), record)
                }
                None => self.records.0.remove(name),
            };
        }
        self.seen.extend(logs.iter().cloned());
        self.changed |= self.records != before;
        Ok(logs)
    }

    /// Those that were taken out of the log; when nobody can tell, none.
    fn detached(&self) -> BTreeSet<String> {
        let bytes = self.vfs.read(&self.location.join(names::CATALOG), catalog::MAX_BYTES);
        bytes.ok().and_then(|bytes| catalog::parse(&bytes).ok()).unwrap_or_default().detached.into_iter().collect()
    }

    fn check(&mut self, name: &str, which: Which, reading: &mut Reading<'_>) -> io::Result<Checked> {
        let file = match self.vfs.open(&self.location.join(name), Open::Read) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Checked::Fine),
            opened => opened?,
        };
        let about = About::of(&*file)?;
        // Asked after its size: what has come since does not count.
        let settled = about.size.min((reading.settled)(name));
        let known = self.records.0.get(name).filter(|record| record.about.is_same_file(&about)).copied();
        let begin = known.map_or(0, |record| record.about.size);
        if settled < begin || (which == Which::New && known.is_some()) {
            return Ok(Checked::Fine);
        }
        let Some(crc) = reading.checksum(&*file, Hasher::new(), 0..begin)? else { return Ok(Checked::Stopped) };
        let found = crc.clone().finalize();
        if let Some(Record { crc: expected, .. }) = known.filter(|record| record.crc != found) {
            return self.read_again(name, (&*file, about.begin(begin)), (expected, found), reading);
        }
        if begin < settled {
            let Some(crc) = reading.checksum(&*file, crc, begin..settled)? else { return Ok(Checked::Stopped) };
            self.record(name, Record { about: about.begin(settled), crc: crc.finalize() });
            self.unsaved += settled - begin;
        }
        Ok(Checked::Fine)
    }

    fn record(&mut self, name: &str, record: Record) {
        self.known.note(record);
        self.records.0.insert(name.to_owned(), record);
        self.changed = true;
    }

    /// What was read once may have been changed on the way.
    fn read_again(
        &mut self,
        name: &str,
        (file, about): (&dyn VfsFile, About),
        (expected, first): (u32, u32),
        reading: &mut Reading<'_>,
    ) -> io::Result<Checked> {
        let Some(crc) = reading.checksum(file, Hasher::new(), 0..about.size)? else { return Ok(Checked::Stopped) };
        let found = crc.finalize();
        if found != expected {
            // The next process must not take it for a file that somebody has put right.
            self.record(name, Record { about, crc: expected });
            return Ok(Checked::Damaged(Damage { name: name.to_owned(), wrong: Wrong::Changed { expected, found } }));
        }
        let path = self.location.join(name);
        log::warn!("{} was once read as {first:08x}, and again as {expected:08x}", path.display());
        Ok(Checked::Fine)
    }
}

enum Checked {
    Fine,
    Damaged(Damage),
    Stopped,
}

#[cfg(test)]
#[path = "rounds_tests.rs"]
mod tests;
