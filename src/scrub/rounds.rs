// SPDX-License-Identifier: Apache-2.0
//! Rounds over the closed log files of a directory: a file that is seen for the first time is recorded and trusted from
//! then on; later rounds compare.
//!
//! Whoever has the directory open never writes to a closed file. So what changes one meanwhile is damage, whether the
//! disk did it or a program. While the directory is closed others may have put files right (a start, a rewind, a
//! restore): a file that was written to then is recorded anew.

use super::records::{About, Record, Records};
use crate::error::{Error, Result};
use crate::vfs::{FileKind, Open, Vfs, VfsFile};
use crate::wal::{catalog, names};
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 256 << 10;
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

/// Which files a round reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that are not recorded.
    New,
    All,
}

/// A file that does not hold any more what it held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// In the directory.
    pub name: String,
    /// CRC-32 of the content.
    pub expected: u32,
    pub found: u32,
}

/// What a round has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// Found so far.
    pub damaged: Vec<Damage>,
    /// Whether it was not told to stop.
    pub is_complete: bool,
}

/// Called after each piece with its bytes and how long to rest; false stops the round.
type GoOn<'a> = &'a mut dyn FnMut(u64, Duration) -> bool;

/// Reads the closed log files of one directory. Belongs to one thread; others may do with the directory what they like.
#[derive(Debug)]
pub struct Scrub {
    vfs: Arc<dyn Vfs>,
    location: PathBuf,
    records: Records,
    /// Files that were seen since the directory was opened.
    seen: BTreeSet<String>,
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
        let (seen, unreadable) = Default::default();
        Scrub { vfs, location: location.to_owned(), records, seen, unreadable, changed: false, unsaved: 0 }
    }

    /// The directory was closed and is open again.
    pub fn reopened(&mut self) {
        self.seen.clear();
    }

    /// Reads the files, one after the other, and rests as `rate` says. A file that cannot be read is said once, and
    /// passed over.
    ///
    /// # Errors
    /// [`Error::Io`] when the directory cannot be listed, or the records cannot be written.
    pub fn round(&mut self, which: Which, rate: Rate, go_on: GoOn<'_>) -> Result<Round> {
        let mut round = Round { damaged: Vec::new(), is_complete: true };
        for name in self.look()? {
            match self.check(&name, which, rate, go_on) {
                Ok(Checked::Damaged(damage)) => round.damaged.push(damage),
                Ok(Checked::Stopped) => {
                    round.is_complete = false;
                    break;
                }
                Ok(Checked::Fine) => drop(self.unreadable.remove(&name)),
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

    /// The names of the closed files that count. What was recorded of files that are gone or were written to while the
    /// directory was closed is forgotten.
    fn look(&mut self) -> Result<BTreeSet<String>> {
        let listing = self.vfs.names(&self.location).map_err(|e| Error::io("cannot list", &self.location, e))?;
        let detached = self.detached();
        let files = listing.into_iter().filter(|(_, kind)| *kind == FileKind::File);
        let files = files.filter_map(|(name, _)| name.into_string().ok());
        let closed: BTreeSet<String> = files
            .filter(|name| names::is_log(name) && !names::is_active_log(name) && !detached.contains(name))
            .collect();
        let before = self.records.0.len();
        self.records.0.retain(|name, _| closed.contains(name));
        self.seen.retain(|name| closed.contains(name));
        for name in &closed {
            if self.seen.insert(name.clone()) && !self.is_untouched(name) {
                self.records.0.remove(name);
            }
        }
        self.changed |= self.records.0.len() != before;
        Ok(closed)
    }

    /// Those that were taken out of the log; when nobody can tell, none.
    fn detached(&self) -> BTreeSet<String> {
        let bytes = self.vfs.read(&self.location.join(names::CATALOG), catalog::MAX_BYTES);
        bytes.ok().and_then(|bytes| catalog::parse(&bytes).ok()).unwrap_or_default().detached.into_iter().collect()
    }

    fn is_untouched(&self, name: &str) -> bool {
        let about = self.vfs.open(&self.location.join(name), Open::Read).and_then(|file| About::of(&*file));
        let Some(record) = self.records.0.get(name) else { return false };
        about.is_ok_and(|about| about == record.about)
    }

    fn check(&mut self, name: &str, which: Which, rate: Rate, go_on: GoOn<'_>) -> io::Result<Checked> {
        let file = match self.vfs.open(&self.location.join(name), Open::Read) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Checked::Fine),
            opened => opened?,
        };
        let about = About::of(&*file)?;
        let record = self.records.0.get(name).filter(|record| record.about.is_same_file(&about));
        let expected = record.map(|record| record.crc);
        if expected.is_some() && which == Which::New {
            return Ok(Checked::Fine);
        }
        let Some(found) = checksum(&*file, about.size, rate, go_on)? else { return Ok(Checked::Stopped) };
        match expected {
            None => {
                self.records.0.insert(name.to_owned(), Record { about, crc: found });
                self.unsaved += about.size;
                self.changed = true;
                Ok(Checked::Fine)
            }
            Some(expected) if found == expected => Ok(Checked::Fine),
            Some(expected) => {
                let damage = Damage { name: name.to_owned(), expected, found };
                self.read_again((&*file, about), damage, rate, go_on)
            }
        }
    }

    /// What was read once may have been changed on the way.
    fn read_again(
        &mut self,
        (file, about): (&dyn VfsFile, About),
        damage: Damage,
        rate: Rate,
        go_on: GoOn<'_>,
    ) -> io::Result<Checked> {
        let Some(found) = checksum(file, about.size, rate, go_on)? else { return Ok(Checked::Stopped) };
        if found != damage.expected {
            // The next process must not take it for a file that somebody has put right.
            self.records.0.insert(damage.name.clone(), Record { about, crc: damage.expected });
            self.changed = true;
            return Ok(Checked::Damaged(Damage { found, ..damage }));
        }
        let Damage { name, expected, found } = damage;
        let path = self.location.join(name);
        log::warn!("{} was once read as {found:08x}, and again as {expected:08x}", path.display());
        Ok(Checked::Fine)
    }
}

enum Checked {
    Fine,
    Damaged(Damage),
    Stopped,
}

/// `None` when it was stopped.
fn checksum(file: &dyn VfsFile, size: u64, rate: Rate, go_on: GoOn<'_>) -> io::Result<Option<u32>> {
    let (mut crc, mut piece, mut offset) = (crc32fast::Hasher::new(), vec![0; PIECE_BYTES], 0);
    // What the disk has is of interest, and not what the system still has in memory.
    file.release_cache(0, size);
    while offset < size {
        let got = file.read_at(offset, &mut piece)?;
        if got == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        crc.update(&piece[..got]);
        file.release_cache(offset, got as u64);
        offset += got as u64;
        if !go_on(got as u64, rate.rest(got as u64)) {
            return Ok(None);
        }
    }
    Ok(Some(crc.finalize()))
}

#[cfg(test)]
#[path = "rounds_tests.rs"]
mod tests;
