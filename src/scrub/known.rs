// SPDX-License-Identifier: Apache-2.0
//! What log files are known to hold, for whoever makes another file of them and deletes them then: the log itself has
//! nothing that tells a value that was changed on the disk from the one that was written.

use super::damage::{Damage, Wrong, PIECE_BYTES};
use super::records::{Record, Records};
use crate::error::{Error, Result};
use crate::lock_order::Mutex;
use crate::vfs::{is_lost_by_disk, About, Open, Vfs};
use crc32fast::Hasher;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

/// What files were seen to hold since the directory was opened, by the numbers of the files. Nobody has written to that
/// part of them since.
#[derive(Debug, Default)]
pub struct Known(Mutex<HashMap<u64, Record>>);

impl Known {
    pub(super) fn note(&self, record: Record) {
        self.0.lock().insert(record.about.inode(), record);
    }

    /// What this file held, whatever its name was.
    pub(super) fn of(&self, about: &About) -> Option<Record> {
        self.0.lock().get(&about.inode()).filter(|record| record.about.is_same_file(about)).copied()
    }
}

/// Compares the log files of one directory with what they are known to have held. Any thread.
#[derive(Debug)]
pub struct Comparison<'a> {
    vfs: &'a dyn Vfs,
    location: PathBuf,
    seen: Option<Arc<Known>>,
    recorded: HashMap<u64, Record>,
    stopping: Option<&'a AtomicBool>,
    damage: Mutex<Option<Damage>>,
}

impl<'a> Comparison<'a> {
    /// With what was `seen` since the directory was opened, and with what earlier processes have recorded of files to
    /// which nobody has written since. `stopping` breaks it off.
    pub fn new(
        vfs: &'a dyn Vfs,
        location: &Path,
        seen: Option<Arc<Known>>,
        stopping: Option<&'a AtomicBool>,
    ) -> Comparison<'a> {
        let recorded = Records::load(vfs, location).by_inode();
        Comparison { vfs, location: location.to_owned(), seen, recorded, stopping, damage: Mutex::default() }
    }

    /// Reads the log file of this name from front to back, also one of which nothing is known: what the disk does not
    /// give must be an error here, because it ends the process where the file is mapped.
    ///
    /// # Errors
    /// [`Error::Corrupted`] when it holds something else than it did, or the disk does not give it, twice in a row:
    /// then [`Self::damage`] is known. [`Error::WrongState`] when it was broken off, and [`Error::Io`].
    pub fn check(&self, name: &str) -> Result<()> {
        let path = self.location.join(name);
        let mut wrong = None;
        for _ in 0..2 {
            let read = self.read(&path);
            if self.is_stopping() {
                return Err(Error::WrongState("the reading of the log was broken off by a shutdown".to_owned()));
            }
            wrong = match read {
                Ok(None) => return Ok(()),
                Ok(wrong) => wrong,
                Err(e) if is_lost_by_disk(&e) => Some(Wrong::Unreadable(e.to_string())),
                Err(e) => return Err(Error::io("cannot read", &path, e)),
            };
        }
        let Some(wrong) = wrong else { return Ok(()) };
        let damage = Damage { name: name.to_owned(), wrong };
        *self.damage.lock() = Some(damage.clone());
        Err(damage.error(&self.location))
    }

    /// The file at which it stopped.
    pub fn damage(&self) -> Option<Damage> {
        self.damage.lock().clone()
    }

    /// What is wrong with the content; reads on to the end of what is there.
    fn read(&self, path: &Path) -> io::Result<Option<Wrong>> {
        let file = self.vfs.open(path, Open::Read)?;
        let about = About::of(&*file)?;
        let seen = self.seen.as_ref().and_then(|seen| seen.of(&about));
        let recorded = || self.recorded.get(&about.inode()).filter(|record| record.about.is_untouched(&about)).copied();
        let record = seen.or_else(recorded);
        let known = record.map_or(0, |record| record.about.size);
        let (mut piece, mut offset, mut crc) = (vec![0; PIECE_BYTES], 0, Hasher::new());
        while offset < about.size && !self.is_stopping() {
            // A piece is of what is known or of the rest.
            let end = if offset < known { known } else { about.size };
            let wanted = (end - offset).min(PIECE_BYTES as u64) as usize;
            let got = file.read_at(offset, &mut piece[..wanted])?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if offset < known {
                crc.update(&piece[..got]);
            }
            offset += got as u64;
        }
        let found = crc.finalize();
        let changed = record.filter(|record| record.crc != found).filter(|_| offset >= known);
        Ok(changed.map(|Record { crc: expected, .. }| Wrong::Changed { expected, found }))
    }

    fn is_stopping(&self) -> bool {
        self.stopping.is_some_and(|stopping| stopping.load(Relaxed))
    }
}
