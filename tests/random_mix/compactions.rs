// SPDX-License-Identifier: Apache-2.0
//! Compactions: online in the foreground or beside the steps, and offline.

use crate::blobs;
use crate::world::{is_violation, violation, World};
use crate::writer::text;
use limestone_core::compaction;
use limestone_core::datastore::Outcome;
use limestone_core::directory::{Access, OfflineDirectory};
use limestone_core::recovery::Input;
use limestone_core::vfs::Vfs;
use limestone_core::wal::catalog;
use std::io::ErrorKind;
use std::thread;

impl World {
    pub fn compact(&mut self) -> Result<(), String> {
        if self.compaction.is_some() {
            return Ok(());
        }
        if self.random.below(2) == 0 {
            self.raise_boundary()?;
        }
        let store = self.store();
        let spawn = || thread::spawn(move || store.compact().map_err(text));
        if self.random.below(2) == 0 {
            self.note("compact beside the steps");
            self.compaction = Some(spawn());
            return Ok(());
        }
        self.note("compact");
        if self.random.below(4) > 0 {
            self.finish_sessions()?;
        }
        let before = blobs::files(&self.disk, &self.location)?;
        // Without open sessions the switches let it go on; with some it goes on beside the steps that end them.
        let compaction = spawn();
        while !compaction.is_finished() {
            let held_back = !self.open_writers(true).is_empty();
            self.switch(1)?;
            if held_back {
                break;
            }
            thread::yield_now();
        }
        self.compaction = Some(compaction);
        self.reap_compaction()?;
        let after = blobs::files(&self.disk, &self.location)?;
        if before.keys().any(|id| !after.contains_key(id)) {
            self.count("BLOBs deleted after a compaction");
        }
        Ok(())
    }

    /// Takes note of a compaction that has come to its end.
    pub fn reap_compaction(&mut self) -> Result<(), String> {
        if !self.compaction.as_ref().is_some_and(|compaction| compaction.is_finished()) {
            return Ok(());
        }
        let Some(compaction) = self.compaction.take() else { return Ok(()) };
        let outcome = compaction.join().map_err(|_| violation("a compaction panicked".to_owned()))?;
        self.note(format!("compaction: {outcome:?}"));
        match outcome {
            Ok(Outcome::Done) => {
                self.store().blobs().wait_for_collection();
                self.count("compactions");
            }
            Ok(Outcome::Postponed) => self.postponed = true,
            Ok(Outcome::NothingToDo) => {}
            // It was begun before the first epoch.
            Err(e) if e.contains("requires epoch_id > 0") => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Deletes the files that the catalog lists as detached, as operators do.
    pub fn delete_detached(&mut self) -> Result<(), String> {
        if !self.taken.is_empty() {
            return Ok(());
        }
        self.note("delete detached files");
        let vfs = self.disk.vfs();
        let catalog = match vfs.read(&self.location.join("compaction_catalog"), 1 << 20) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|e| e.to_string())?,
        };
        for name in catalog::parse(&catalog)?.detached {
            match vfs.unlink(&self.location.join(name)) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e.to_string()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Compacts the stopped directory as the tool does.
    pub fn compact_offline(&mut self) -> Result<(), String> {
        let vfs = self.disk.vfs();
        if vfs.kind(&self.location).map_err(|e| e.to_string())?.is_none() {
            return Ok(());
        }
        self.note("compact offline");
        let compacted = self.compact_directory(&*vfs);
        match compacted {
            // A restore that was interrupted comes first, or a first start that was.
            Err(e) if !is_violation(&e) && (e.contains("interrupted") || e.contains("version 0")) => {
                self.note(format!("-> {e}"));
                Ok(())
            }
            other => other,
        }
    }

    fn compact_directory(&mut self, vfs: &dyn Vfs) -> Result<(), String> {
        let (work, copy) = (self.unused_directory("work"), self.unused_directory("copy"));
        let directory = OfflineDirectory::open(self.disk.vfs(), &self.location, Access::Settle).map_err(text)?;
        vfs.create_dir(&work).map_err(|e| e.to_string())?;
        let input = Input {
            vfs,
            location: &self.location,
            catalog: directory.catalog().map_err(|e| e.to_string())?,
            end_markers: directory.has_end_markers(),
            threads: 1,
            memory_bytes: 1 << 20,
            releases: false,
            stopping: None,
            pace: None,
            marks: None,
        };
        let built = compaction::build(&input, None, &work).map_err(text)?;
        directory.rotate(|_| true).map_err(text)?;
        if self.random.below(3) == 0 {
            compaction::keep_copy(vfs, &self.location, &copy).map_err(text)?;
            if self.random.below(2) == 0 {
                // The copy is as good as the directory, whatever becomes of that one.
                built.install(directory.vfs(), &input).map_err(text)?;
                drop(directory);
                self.location = copy;
                self.count("copies that an offline compaction kept");
                return Ok(());
            }
        }
        built.install(directory.vfs(), &input).map_err(text)?;
        self.count("offline compactions");
        vfs.remove_dir_all(&work).map_err(|e| e.to_string())
    }
}
