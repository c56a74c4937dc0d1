// SPDX-License-Identifier: Apache-2.0
//! One machine: its disk, the process on it, and what is known of the directory.

use crate::model::{Found, Model};
use crate::primary::Primary;
use crate::replica::Replica;
use limestone_core::types::Epoch;
use limestone_core::vfs::SimFs;
use limestone_core::wal::history_file::Role;

/// A process of a primary: the machine, and the number of the process.
pub type Life = (usize, u64);

pub enum Process {
    Primary(Box<Primary>),
    Replica(Box<Replica>),
}

/// What the simulation knows of a directory. It stays with a copy.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// What it may hold; of a replica, as it was when its primary ended.
    pub model: Model,
    /// Everything alive up to this epoch has been reported stored by a primary, and is here if it is one.
    pub stored: Epoch,
    /// The largest epoch that the present process has reported PROPAGATED.
    pub propagated: Epoch,
    /// The last epoch with writes that its primary had, where the model does not show it.
    pub lacked: Epoch,
    /// A primary has been told that everything up to this epoch is here.
    pub guaranteed: Epoch,
    /// The largest term that it was in or has been told of.
    pub term: u64,
    /// The process whose content the replica has.
    pub follows: Option<Life>,
    /// The machine that it followed last, in a life in which nothing but restarts has happened to both since.
    pub companion: Option<(usize, u64)>,
    /// Counts what makes the directory another one than before for its companions.
    pub lineage: u64,
    /// Its file says that it follows a primary.
    pub follower: bool,
    /// The last process was that of a primary.
    pub is_primary: bool,
    /// A base sync has begun and is not complete.
    pub awaits: bool,
    pub fenced: bool,
}

pub struct Machine {
    pub disk: SimFs,
    /// What the operator wants it to be.
    pub role: Role,
    pub process: Option<Process>,
    /// The machine whose replica a primary here is to have.
    pub target: usize,
    pub known: Known,
    /// The number of the process.
    pub life: u64,
}

impl Machine {
    pub fn new(role: Role, target: usize) -> Machine {
        Machine { disk: SimFs::new(), role, process: None, target, known: Known::default(), life: 0 }
    }

    pub fn primary(&self) -> Option<&Primary> {
        match &self.process {
            Some(Process::Primary(primary)) => Some(primary),
            _ => None,
        }
    }

    pub fn primary_mut(&mut self) -> Option<&mut Primary> {
        match &mut self.process {
            Some(Process::Primary(primary)) => Some(primary),
            _ => None,
        }
    }

    pub fn replica(&self) -> Option<&Replica> {
        match &self.process {
            Some(Process::Replica(replica)) => Some(replica),
            _ => None,
        }
    }

    pub fn replica_mut(&mut self) -> Option<&mut Replica> {
        match &mut self.process {
            Some(Process::Replica(replica)) => Some(replica),
            _ => None,
        }
    }

    /// The machine's number and that of the primary's process that runs on it.
    pub fn life(&self, number: usize) -> Option<Life> {
        self.primary().map(|_| (number, self.life))
    }

    /// Takes note of what the primary has reported.
    pub fn note_stored(&mut self) {
        if let Some(stored) = self.primary().map(|primary| primary.store().last_epoch()) {
            self.known.stored = self.known.stored.max(stored);
        }
    }
}

impl Known {
    /// The last epoch with writes of the database, as far as it is known here.
    pub fn last_written(&self) -> Epoch {
        self.model.last_written(Epoch(u64::MAX)).max(self.lacked)
    }

    /// The directory of a replica has what its primary had, up to its durable epoch, and that covers what the primary
    /// was told.
    pub fn check_replica(&self, found: &Found) -> Result<(), String> {
        self.model.check_exact(found)?;
        match found.durable >= self.model.last_written(self.guaranteed) {
            true => Ok(()),
            false => Err(format!("{} was confirmed, the durable epoch is {}", self.guaranteed, found.durable)),
        }
    }

    /// The directory as it is now is what counts: it was put in place or has another use from now on.
    pub fn put(&mut self, found: &Found, lineage: u64) -> Result<(), String> {
        match self.is_primary {
            true => {
                self.model.settle(found, self.stored)?;
                self.companion = None;
            }
            false => self.check_replica(found)?,
        }
        self.lacked = self.last_written();
        self.model = self.model.of(found);
        (self.stored, self.guaranteed, self.lineage) = (found.durable, found.durable, lineage);
        Ok(())
    }
}
