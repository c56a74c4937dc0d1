// SPDX-License-Identifier: Apache-2.0
//! A case is a row of lives of the data store: a start, some steps, and an end, which may be a shutdown, the death of
//! the process, a power cut, or a disk that fails before. In between the directory is compacted or restored at times.

use crate::blobs;
use crate::disk::{copy_tree, Disk};
use crate::golden_data::Row;
use crate::upstream_checker::{handover_violations, session_violations, upstream_start};
use crate::world::{is_violation, violation, visible_up_to, World};
use crate::writer::text;
use limestone_core::datastore::Datastore;
use limestone_core::types::Epoch;
use limestone_core::vfs::{Fault, Loss};

const LIVES_MAX: u64 = 7;
const STEPS_MAX: u64 = 70;
const CHANNELS_MAX: u64 = 4;
/// A fault comes within so many calls.
const CALLS_BEFORE_FAULT_MAX: u64 = 500;
const FAULTS: [Fault; 5] = [Fault::IoError, Fault::SyncLoses, Fault::TornWrite, Fault::NoSpace, Fault::PowerCut];

enum End {
    Shutdown,
    Death,
    PowerCut,
}

impl World {
    pub fn play(&mut self) -> Result<(), String> {
        for _ in 0..2 + self.random.below(LIVES_MAX) {
            self.plan_fault();
            let lived = self.live();
            self.excuse(lived)?;
            self.check_violations()?;
            self.end_life()?;
        }
        self.hand_over()
    }

    fn plan_fault(&mut self) {
        self.failures_before = self.disk.failures();
        let Disk::Sim(fs) = &self.disk else { return };
        // Half of all faults are power cuts, and some lives have none.
        let fault = FAULTS.get(self.random.below(12) as usize).copied().unwrap_or(Fault::PowerCut);
        let lasting = self.random.below(4) == 0;
        let at = fs.operations() + 1 + self.random.below(CALLS_BEFORE_FAULT_MAX);
        match (self.random.below(3), lasting) {
            (0, _) => {}
            (_, true) => fs.fail_from(at, fault),
            (_, false) => fs.fail_at(at, fault),
        }
    }

    /// An error is what a failing disk may cause, and nothing else.
    fn excuse(&mut self, result: Result<(), String>) -> Result<(), String> {
        let Err(error) = result else { return Ok(()) };
        self.note(format!("-> {error}"));
        self.count("calls that failed");
        match is_violation(&error) || !self.is_hurt() {
            true => Err(error),
            false => Ok(()),
        }
    }

    fn live(&mut self) -> Result<(), String> {
        match self.random.below(12) {
            0 | 1 => self.compact_offline()?,
            2 | 3 => self.restore_here()?,
            4 => self.move_elsewhere()?,
            _ => {}
        }
        if self.shared.is_none() {
            self.start()?;
        }
        for _ in 0..self.random.below(STEPS_MAX) {
            let stepped = self.step();
            // The epochs are told before the next step, so that the calls have one order.
            let result = stepped.and(self.store().drain().map_err(text));
            if result.is_err() {
                self.excuse(result)?;
                // The application may go on after an error, as long as it likes.
                if self.random.below(3) > 0 {
                    return Ok(());
                }
            }
            self.check_violations()?;
        }
        Ok(())
    }

    pub fn start(&mut self) -> Result<(), String> {
        let channels = 1 + self.random.below(CHANNELS_MAX) as usize;
        self.start_with(channels)
    }

    pub fn start_with(&mut self, channels: usize) -> Result<(), String> {
        self.note(format!("start with {channels} channels"));
        let settings = self.settings(self.location.clone());
        let store = Datastore::open(settings).map_err(text)?;
        self.ready(store, channels)
    }

    /// Ends the process, or the power, and lets a start follow when a call failed on the way.
    fn end_life(&mut self) -> Result<(), String> {
        let power_is_cut = self.calls().last().is_some_and(|call| call.ends_with("PowerCut"));
        let end = match self.random.below(3) {
            _ if power_is_cut => End::PowerCut,
            0 => End::Shutdown,
            1 => End::Death,
            _ => End::PowerCut,
        };
        match end {
            End::Shutdown => {
                self.note("shutdown");
                self.let_go()?;
                self.disk.revive();
            }
            End::Death => {
                self.note("death of the process");
                self.die()?;
            }
            End::PowerCut => {
                let loss = match self.random.below(4) {
                    0 => Loss::DropUnsynced,
                    1 => Loss::KeepUnsynced,
                    _ => Loss::Torn { seed: self.random.below(u64::MAX) },
                };
                self.note(format!("power cut, {loss:?}"));
                self.disk.kill();
                self.let_go()?;
                self.calls_before = self.calls();
                self.disk.reboot(loss);
            }
        }
        self.failures_before = self.disk.failures();
        Ok(())
    }

    /// The process ends without warning. On the real disk the next one finds a copy of what was there at this moment.
    fn die(&mut self) -> Result<(), String> {
        match (&self.disk, &self.compaction) {
            (Disk::Real(_), None) if !self.postponed => {
                if self.shared.is_some() {
                    self.store().blobs().wait_for_collection();
                }
                let next = self.unused_directory("log");
                copy_tree(&self.location, &next).map_err(|e| e.to_string())?;
                self.location = next;
                self.let_go()
            }
            _ => {
                self.disk.kill();
                self.let_go()?;
                self.disk.revive();
                Ok(())
            }
        }
    }

    /// A clean end: all sessions are over and their epochs durable. The original opens the directory as it is and finds
    /// the same in it; so does the next start.
    pub fn hand_over(&mut self) -> Result<(), String> {
        self.note("hand over");
        if self.shared.is_none() {
            self.start()?;
        }
        self.finish_sessions()?;
        self.switch(1)?;
        let expected = {
            let model = self.model();
            let visible = visible_up_to(&model, self.switched);
            model.merge(&visible)
        };
        self.let_go()?;
        let (_kept, dir) = self.disk.export(&self.location).map_err(|e| e.to_string())?;
        let upstream = upstream_start(&dir).map_err(|e| violation(format!("the original refuses: {e}")))?;
        let mut rows = upstream.rows;
        rows.sort();
        let row = |((storage, key), value): (&(u64, Vec<u8>), &Vec<u8>)| Row {
            storage: *storage,
            key: key.clone(),
            value: value.clone(),
        };
        let mut wanted: Vec<Row> = expected.iter().map(row).collect();
        wanted.sort();
        if rows != wanted {
            let other = rows.iter().find(|row| !wanted.contains(row)).or(wanted.iter().find(|row| !rows.contains(row)));
            return Err(violation(format!("the original has other entries, such as {other:?}")));
        }
        let mut wrong = handover_violations(&dir);
        // Nobody reads what the catalog lists as detached.
        let catalog = std::fs::read(dir.join("compaction_catalog")).map_err(|e| e.to_string())?;
        let detached = limestone_core::wal::catalog::parse(&catalog)?.detached;
        let counts = |what: &String| !detached.iter().any(|name| what.starts_with(&format!("{name}: ")));
        wrong.extend(session_violations(&dir).into_iter().filter(counts));
        if !wrong.is_empty() {
            return Err(violation(format!("for the original: {wrong:?}")));
        }
        self.start()?;
        let (content, _) = blobs::read(&self.store(), &self.disk)?;
        let next = self.store().blobs().next_id().0;
        self.let_go()?;
        if content != expected {
            return Err(violation("a start after a clean shutdown shows something else".to_owned()));
        }
        match upstream.next_blob_id {
            id if id > next => {
                Err(violation(format!("the original goes on with the BLOB {id}, this project with {next}")))
            }
            _ => Ok(()),
        }
    }

    pub fn switch(&mut self, by: u64) -> Result<(), String> {
        self.switched += by;
        self.store().switch_epoch(Epoch(self.switched)).map_err(text)
    }

    /// Ends or aborts what is open.
    pub fn finish_sessions(&mut self) -> Result<(), String> {
        for at in self.open_writers(true) {
            match self.random.below(5) {
                0 => self.writers[at].abort(&mut self.random)?,
                _ => self.writers[at].end(&mut self.random)?,
            }
        }
        Ok(())
    }
}
