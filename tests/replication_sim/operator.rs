// SPDX-License-Identifier: Apache-2.0
//! What people do with the machines: turn them, empty them, copy directories, take and restore backups, and put things
//! in order when a machine says that it cannot go on.

use crate::machine::Known;
use crate::model::{recover, Found, LOCATION};
use crate::world::World;
use limestone_core::datastore::{Datastore, Settings};
use limestone_core::error::Error;
use limestone_core::replication::promotion::promote;
use limestone_core::types::Epoch;
use limestone_core::vfs::{Loss, SimFs};
use limestone_core::wal::history_file::Role;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Copies that are kept.
const KEPT_MAX: usize = 4;

/// A copy of a directory.
pub struct Kept {
    content: Content,
    known: Known,
}

enum Content {
    /// All files as they were at one moment.
    Copy(SimFs),
    /// What a backup lists, by the paths below a directory.
    Backup(Vec<(PathBuf, Vec<u8>)>),
}

impl World {
    /// One thing that somebody does; without faults, only what brings the machines together again.
    pub fn operate(&mut self, faults: bool) -> Result<(), String> {
        let at = self.any();
        match self.random.below(12) {
            0 if faults => self.keep(at),
            1 if faults => self.put(at),
            2 if faults => {
                self.wipe(at);
                Ok(())
            }
            3 if faults => self.take_over(at, false),
            4 if faults => {
                self.stop(at);
                Ok(())
            }
            5 if faults => {
                self.send_to_next(at);
                Ok(())
            }
            _ => self.put_in_order(at, faults),
        }
    }

    /// An orderly end.
    fn stop(&mut self, at: usize) {
        self.machines[at].disk.heal();
        match (self.machines[at].primary(), self.machines[at].replica()) {
            (Some(primary), _) => primary.store().shutdown(),
            (None, Some(replica)) => replica.store.close(),
            (None, None) => {}
        }
        self.end_process(at);
    }

    /// Gives the primary another replica.
    fn send_to_next(&mut self, at: usize) {
        let next = (self.machines[at].target + 1) % self.machines.len();
        self.machines[at].target = if next == at { (at + 1) % self.machines.len() } else { next };
        self.machines[at].primary_mut().into_iter().for_each(|primary| primary.hang_up(false));
    }

    fn turn(&mut self, at: usize, role: Role) {
        match self.random.once_in(2) {
            true => self.kill(at),
            false => self.stop(at),
        }
        self.machines[at].role = role;
    }

    /// Nobody speaks with the directory on this machine any more.
    fn cut_off(&mut self, at: usize) {
        self.kill(at);
        self.hold_followed(at);
        for machine in &mut self.machines {
            if let Some(primary) = machine.primary_mut().filter(|primary| primary.peer() == at) {
                primary.hang_up(false);
                primary.links[0].diverged = false;
            }
            // Files of a base sync that are under way.
            if let Some(replica) = machine.replica_mut() {
                replica.hang_up();
            }
        }
    }

    fn wipe(&mut self, at: usize) {
        let has_content = |(other, machine): (usize, &crate::machine::Machine)| {
            other != at && machine.role == Role::Primary && !machine.known.model.sessions.is_empty()
        };
        if self.machines[at].role == Role::Replica && self.machines.iter().enumerate().any(has_content) {
            self.tally.wipes += 1;
            self.cut_off(at);
            self.lives += 1;
            self.machines[at].disk = SimFs::new();
            self.machines[at].known = Known { lineage: self.lives, ..Known::default() };
        }
    }

    /// Takes a copy of a directory, of a running primary also a backup.
    fn keep(&mut self, at: usize) -> Result<(), String> {
        let (content, image) = match self.machines[at].primary() {
            Some(primary) if self.random.once_in(2) => {
                let Ok(backup) = primary.store().begin_detailed_backup(Duration::ZERO) else { return Ok(()) };
                let (files, image) = (self.machines[at].disk.files(), SimFs::new());
                let listed = backup.files().iter().map(|file| (file.destination.clone(), files[&file.source].clone()));
                let listed: Vec<_> = listed.collect();
                restore(&image, &listed, 0).map_err(|e| format!("a backup of machine {at}: {e}"))?;
                (Content::Backup(listed), image)
            }
            _ => {
                let loss = self.random.loss();
                let image = self.machines[at].disk.reboot(loss);
                (Content::Copy(image.clone()), image)
            }
        };
        let found = recover(&image, Loss::KeepUnsynced).map_err(|e| format!("a copy of machine {at}: {e}"))?;
        if found.sessions.is_empty() {
            // With nothing in it the directory may be of another instance.
            return Ok(());
        }
        let mut known = self.machines[at].known.clone();
        if let Some((primary, _)) = known.follows.take() {
            let theirs = &self.machines[primary].known;
            (known.model, known.stored) = (theirs.model.clone(), theirs.stored);
        }
        known.put(&found, 0).map_err(|e| format!("a copy of machine {at}: {e}"))?;
        if self.kept.len() == KEPT_MAX {
            self.kept.remove(0);
        }
        self.kept.push(Kept { content, known });
        Ok(())
    }

    /// Puts a copy or a backup in place of a directory.
    fn put(&mut self, at: usize) -> Result<(), String> {
        if self.kept.is_empty() {
            return Ok(());
        }
        self.cut_off(at);
        let number = self.random.below(self.kept.len() as u64) as usize;
        let before = std::mem::take(&mut self.machines[at].known);
        let Kept { content, known } = &self.kept[number];
        let mut known = known.clone();
        match content {
            Content::Copy(image) => {
                self.tally.copies += 1;
                self.machines[at].disk = image.reboot(Loss::KeepUnsynced);
            }
            Content::Backup(files) => {
                self.tally.restores += 1;
                restore(&self.machines[at].disk, files, self.tally.restores)
                    .map_err(|e| format!("a restore on machine {at}: {e}"))?;
                // The directory does not forget what it was told.
                (known.term, known.awaits) = (known.term.max(before.term), false);
                (known.fenced, known.follower) = (known.fenced || before.fenced, known.follower || before.follower);
            }
        }
        let found = recover(&self.machines[at].disk, Loss::KeepUnsynced).map_err(|e| format!("put on {at}: {e}"))?;
        self.lives += 1;
        let companion = known.companion;
        known.put(&found, self.lives).map_err(|e| format!("put on machine {at}: {e}"))?;
        known.companion = companion;
        self.machines[at].known = known;
        Ok(())
    }

    /// Makes a replica the primary, with the program's command or by starting the engine; the former one goes on, for
    /// all that it knows.
    fn take_over(&mut self, at: usize, force: bool) -> Result<(), String> {
        if self.machines[at].role == Role::Primary {
            return Ok(());
        }
        self.turn(at, Role::Replica);
        self.hold_followed(at);
        let disk = self.machines[at].disk.clone();
        let found = recover(&disk, Loss::KeepUnsynced).map_err(|e| format!("machine {at}, to take over: {e}"))?;
        let known = &mut self.machines[at].known;
        if found.durable > Epoch(0) && !known.awaits && !known.fenced && self.random.once_in(3) {
            self.tally.takeovers += 1;
            self.machines[at].role = Role::Primary;
            return Ok(());
        }
        match promote(Arc::new(disk), Path::new(LOCATION), force, None) {
            Ok(done) if !force && (known.awaits || known.fenced || !known.follower) => {
                Err(format!("machine {at} is promoted: {done:?}, {known:?}"))
            }
            Ok(done) if done.term <= known.term || done.durable != found.durable => Err(format!(
                "machine {at} is promoted with epoch {} after term {}: {done:?}",
                found.durable, known.term
            )),
            Ok(done) => {
                self.tally.takeovers += 1;
                (known.term, known.follower, known.awaits, known.fenced) = (done.term, false, false, false);
                self.machines[at].role = Role::Primary;
                Ok(())
            }
            Err(Error::WrongState(why)) if !force => check_refusal(&why, known, &found),
            Err(Error::NotFound(_)) => {
                // Nothing has ever been on it.
                self.machines[at].role = if force { Role::Primary } else { Role::Replica };
                Ok(())
            }
            Err(e) => Err(format!("machine {at} cannot be promoted: {e}")),
        }
    }

    fn put_in_order(&mut self, at: usize, faults: bool) -> Result<(), String> {
        let primaries: Vec<usize> =
            (0..self.machines.len()).filter(|&at| self.machines[at].role == Role::Primary).collect();
        let best = |at: &usize| {
            let known = &self.machines[*at].known;
            (!known.awaits && !known.model.sessions.is_empty(), known.term, std::cmp::Reverse(*at))
        };
        let Some(leader) = primaries.iter().copied().max_by_key(best) else {
            let candidate = if faults { at } else { (0..self.machines.len()).max_by_key(best).unwrap_or(at) };
            return self.take_over(candidate, !faults);
        };
        if let Some(primary) = self.machines[at].primary() {
            let (fenced, diverged, peer) = (primary.shared.fenced.is_some(), primary.links[0].diverged, primary.peer());
            if fenced {
                self.turn(at, Role::Replica);
                return Ok(());
            }
            if diverged && self.machines[peer].role == Role::Replica && at == leader {
                self.tally.diverged += 1;
                self.wipe(peer);
                return Ok(());
            }
        }
        if primaries.len() > 1 && at != leader && primaries.contains(&at) && (!faults || self.random.once_in(3)) {
            self.turn(at, Role::Replica);
        }
        if !faults && self.machines[self.machines[leader].target].role == Role::Primary {
            self.send_to_next(leader);
        }
        Ok(())
    }
}

/// Restores a backup with the data store's own call.
fn restore(disk: &SimFs, files: &[(PathBuf, Vec<u8>)], number: u64) -> Result<(), String> {
    // What a power cut brings back of an earlier one is not part of it.
    let backup = PathBuf::from(format!("/backup_{number}"));
    for (path, bytes) in files {
        disk.put(&backup.join(path), bytes).map_err(|e| e.to_string())?;
    }
    let settings = Settings::new(LOCATION).vfs(Arc::new(disk.clone())).recovery_threads(1);
    let store = Datastore::open(settings).map_err(|e| e.to_string())?;
    let restored = store.restore(&backup, false).map_err(|e| e.to_string());
    store.shutdown();
    restored
}

/// A takeover is refused for nothing but a reason.
pub fn check_refusal(why: &str, known: &Known, found: &Found) -> Result<(), String> {
    let is_right = match why {
        why if why.contains("a base sync into") => known.awaits,
        why if why.contains("nothing has ever been replicated") => found.sessions.is_empty(),
        why if why.contains("another primary has taken over") => known.fenced,
        why if why.contains("no replica's") => !known.follower,
        // Nothing may have been written in what it lacks, but it was not told so.
        why if why.contains("not known to have all") => known.follower,
        why => why.contains("and the primary had") && known.last_written() > found.durable,
    };
    match is_right {
        true => Ok(()),
        false => Err(format!("a takeover is refused ({why}), but {known:?}")),
    }
}
