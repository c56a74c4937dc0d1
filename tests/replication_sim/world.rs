// SPDX-License-Identifier: Apache-2.0
//! Both processes, their disks and the network between them, moved by one generator of random numbers.

use crate::link::{connect, End, SharedPipe};
use crate::model::{read, recover, Model};
use crate::primary::Primary;
use crate::replica::Replica;
use limestone_core::replication::native::protocol::Millis;
use limestone_core::types::Epoch;
use limestone_core::vfs::{Fault, Loss, SimFs};

/// When a silent peer counts as lost.
pub const TIMEOUT: Millis = 2000;
/// Steps without faults in which both sides must agree again.
const STEPS_TO_AGREE: u64 = 10_000;

/// A mistake made on purpose: a simulation that does not find it is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    AcknowledgeBeforeSync,
    NoDiscard,
    CommitBeforeSession,
    CommitBeforeStored,
    CommitWithoutRecord,
    SkipCatchUp,
    PropagateWhatIsStored,
    IgnoreBlobs,
}

/// What stays the same during a run.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub lanes: u32,
    pub channels: usize,
    pub piece_bytes: usize,
    pub sabotage: Option<Sabotage>,
}

/// Repeatable pseudo-random numbers (splitmix64).
pub struct Random(u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    fn loss(&mut self) -> Loss {
        match self.below(3) {
            0 => Loss::DropUnsynced,
            1 => Loss::KeepUnsynced,
            _ => Loss::Torn { seed: self.next() },
        }
    }
}

/// How much of what happened in a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub sessions: u64,
    pub propagated: u64,
    pub images: u64,
    pub cuts: u64,
    pub kills: u64,
    pub power_cuts: u64,
    pub wipes: u64,
    pub demotions: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Tally) {
        self.sessions += other.sessions;
        self.propagated += other.propagated;
        self.images += other.images;
        self.cuts += other.cuts;
        self.kills += other.kills;
        self.power_cuts += other.power_cuts;
        self.wipes += other.wipes;
        self.demotions += other.demotions;
    }

    /// Whether everything that can happen has happened.
    pub fn is_eventful(&self) -> bool {
        let all = [self.sessions, self.propagated, self.images, self.cuts, self.kills, self.power_cuts, self.wipes];
        all.into_iter().chain([self.demotions]).all(|count| count >= 100)
    }
}

pub struct World {
    random: Random,
    setup: Setup,
    now: Millis,
    primary: Option<Primary>,
    replica: Option<Replica>,
    primary_disk: SimFs,
    replica_disk: SimFs,
    pipes: Vec<SharedPipe>,
    model: Model,
    sessions_opened: u64,
    /// The largest epochs that any process of the primary has reported.
    stored: Epoch,
    propagated: Epoch,
    /// What the present replica has been reported to have: nothing after it was wiped.
    guaranteed: Epoch,
    /// Nobody writes for a while, though epochs go on.
    is_idle: bool,
    pub tally: Tally,
}

fn disk() -> SimFs {
    SimFs::new()
}

impl World {
    pub fn new(seed: u64, sabotage: Option<Sabotage>) -> World {
        let mut random = Random(seed);
        let setup = Setup {
            lanes: 1 + random.below(3) as u32,
            channels: 1 + random.below(4) as usize,
            piece_bytes: [20, 64, 1000][random.below(3) as usize],
            sabotage,
        };
        World {
            random,
            setup,
            now: 0,
            primary: None,
            replica: None,
            primary_disk: disk(),
            replica_disk: disk(),
            pipes: Vec::new(),
            model: Model::default(),
            sessions_opened: 0,
            stored: Epoch(0),
            propagated: Epoch(0),
            guaranteed: Epoch(0),
            is_idle: false,
            tally: Tally::default(),
        }
    }

    /// Random steps, then steps without faults until both sides agree.
    pub fn run(&mut self, steps: u64) -> Result<(), String> {
        for _ in 0..steps {
            self.step(true)?;
        }
        self.primary_disk.heal();
        self.replica_disk.heal();
        self.settle_disks();
        for _ in 0..STEPS_TO_AGREE {
            self.step(false)?;
            if self.agrees() {
                return self.compare();
            }
        }
        let (stored, propagated, guaranteed) = (self.stored, self.propagated, self.guaranteed);
        Err(format!("no agreement without faults: stored {stored}, propagated {propagated}, replica {guaranteed}"))
    }

    fn agrees(&self) -> bool {
        let (Some(primary), Some(replica)) = (&self.primary, &self.replica) else { return false };
        let stored = primary.store.last_epoch();
        primary.store.propagated_epoch() == stored && replica.store.durable() >= self.model.last_written(stored)
    }

    /// Both directories recover to the same content.
    fn compare(&mut self) -> Result<(), String> {
        let replica = recover(&self.replica_disk, Loss::DropUnsynced)?;
        self.model.check_replica(&replica)?;
        let primary = recover(&self.primary_disk, Loss::DropUnsynced)?;
        if primary.sessions != replica.sessions || primary.data != replica.data {
            return Err(format!(
                "the directories differ: primary {:?}, replica {:?}",
                primary.sessions, replica.sessions
            ));
        }
        Ok(())
    }

    fn step(&mut self, faults: bool) -> Result<(), String> {
        self.now += self.random.below(40);
        let what = self.random.below(1000);
        match what {
            0..300 => self.deliver(),
            300..520 if faults && !self.is_idle => self.write(),
            520..600 if faults => self.primary.iter().for_each(|primary| primary.switch()),
            600..610 if faults => self.primary.iter().for_each(|primary| primary.rotate()),
            610..640 => self.connect(),
            640..760 => self.replica.iter_mut().for_each(|replica| replica.disk(self.random.next(), self.now)),
            760..763 if faults => self.cut(),
            763..765 if faults => self.primary.iter_mut().for_each(|primary| primary.hang_up(true)),
            765..767 if faults => self.kill(true),
            767..769 if faults => self.kill(false),
            769..771 if faults => self.lose_power(true),
            771..773 if faults => self.lose_power(false),
            773..774 if faults && self.random.below(3) == 0 => self.wipe(),
            774..780 if faults => self.is_idle = self.random.below(2) == 0,
            780..820 => self.start()?,
            820..910 => self.poll_primary()?,
            _ => self.replica.as_mut().map_or(Ok(()), |replica| replica.poll(self.now))?,
        }
        self.settle_disks();
        self.check()
    }

    fn deliver(&mut self) {
        self.pipes.retain(|pipe| std::rc::Rc::strong_count(pipe) > 1);
        let busy: Vec<_> = self.pipes.iter().filter(|pipe| pipe.borrow().is_busy()).collect();
        if !busy.is_empty() {
            let pipe = busy[self.random.below(busy.len() as u64) as usize];
            let bytes = match self.random.below(4) {
                0 => self.random.below(30) as usize,
                _ => usize::MAX,
            };
            pipe.borrow_mut().deliver(bytes);
        }
    }

    fn write(&mut self) {
        if let Some(primary) = &mut self.primary {
            let (channel, pick) = (self.random.below(8) as usize, self.random.next());
            primary.write(channel, pick, &mut self.model);
        }
    }

    /// A connection to the replica, if it runs.
    fn dial(replica: &mut Option<Replica>, pipes: &mut Vec<SharedPipe>) -> End {
        let (ours, theirs) = connect();
        pipes.extend(ours.pipes());
        if let Some(replica) = replica {
            replica.accept(theirs);
        }
        ours
    }

    fn connect(&mut self) {
        if let Some(primary) = self.primary.as_mut().filter(|primary| !primary.is_connected()) {
            self.sessions_opened += 1;
            let mut id = [0; 16];
            id[..8].copy_from_slice(&self.sessions_opened.to_le_bytes());
            primary.connect(id, World::dial(&mut self.replica, &mut self.pipes));
        }
    }

    fn poll_primary(&mut self) -> Result<(), String> {
        let (replica, pipes) = (&mut self.replica, &mut self.pipes);
        match &mut self.primary {
            Some(primary) => primary.poll(self.now, &mut || World::dial(replica, pipes)),
            None => Ok(()),
        }
    }

    fn cut(&mut self) {
        if self.pipes.is_empty() {
            return;
        }
        self.tally.cuts += 1;
        let pipe = self.pipes[self.random.below(self.pipes.len() as u64) as usize].clone();
        let travelling = pipe.borrow().travelling() as u64;
        pipe.borrow_mut().cut(self.random.below(travelling + 1) as usize);
    }

    /// Ends a process; what it wrote and did not sync is still there.
    fn kill(&mut self, of_primary: bool) {
        self.tally.kills += 1;
        let fs = if of_primary { &self.primary_disk } else { &self.replica_disk };
        fs.fail_from(0, Fault::PowerCut);
        if of_primary {
            self.drop_primary();
        } else {
            self.replica = None;
        }
        let fs = if of_primary { &self.primary_disk } else { &self.replica_disk };
        fs.heal();
    }

    /// The power goes at one of the next calls of the disk.
    fn lose_power(&mut self, of_primary: bool) {
        let fs = if of_primary { &self.primary_disk } else { &self.replica_disk };
        fs.fail_from(fs.operations() + self.random.below(12), Fault::PowerCut);
    }

    fn wipe(&mut self) {
        self.tally.wipes += 1;
        self.replica = None;
        self.replica_disk = disk();
        self.guaranteed = Epoch(0);
    }

    fn drop_primary(&mut self) {
        self.note_epochs();
        if let Some(primary) = self.primary.take() {
            self.tally.demotions += primary.demotions;
        }
    }

    /// Lets the power come back where it went.
    fn settle_disks(&mut self) {
        if self.primary_disk.has_failed() {
            self.tally.power_cuts += 1;
            self.drop_primary();
            self.primary_disk = self.primary_disk.reboot(self.random.loss());
        }
        if self.replica_disk.has_failed() {
            self.tally.power_cuts += 1;
            self.replica = None;
            self.replica_disk = self.replica_disk.reboot(self.random.loss());
        }
    }

    /// Starts what does not run. The number of calls that a start takes may depend on threads, so no power goes there.
    fn start(&mut self) -> Result<(), String> {
        if self.primary.is_none() {
            self.primary_disk.heal();
            let (primary, durable) = Primary::start(&self.primary_disk, self.setup)?;
            let found = read(&primary.store, durable)?;
            self.model.settle(&found, self.stored)?;
            // Epochs without writes leave no trace: their numbers may come again.
            self.stored = primary.store.last_epoch();
            self.propagated = self.propagated.min(durable);
            self.guaranteed = self.guaranteed.min(durable);
            self.primary = Some(primary);
        }
        if self.replica.is_none() {
            self.replica_disk.heal();
            match Replica::start(&self.replica_disk, self.setup) {
                Ok(replica) => self.replica = Some(replica),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn note_epochs(&mut self) {
        if let Some(primary) = &self.primary {
            self.stored = self.stored.max(primary.store.last_epoch());
        }
    }

    /// What must hold after every step.
    fn check(&mut self) -> Result<(), String> {
        self.note_epochs();
        if let Some(Primary { store, .. }) = &self.primary {
            let (switched, stored, propagated) = (store.switched_epoch(), store.last_epoch(), store.propagated_epoch());
            if !(switched >= stored && stored >= propagated) {
                return Err(format!("switched {switched}, stored {stored}, propagated {propagated}"));
            }
            if stored < self.stored {
                return Err(format!("stored went back from {} to {stored}", self.stored));
            }
            if propagated > self.propagated {
                self.propagated = propagated;
                self.guaranteed = propagated;
                self.tally.propagated += 1;
                self.check_image()?;
            }
        }
        if let Some(replica) = &self.replica {
            let durable = replica.store.durable();
            if durable > self.stored {
                return Err(format!("the replica has epoch {durable}, the primary has stored {}", self.stored));
            }
            if durable < self.model.last_written(self.guaranteed) {
                return Err(format!("{} was propagated, the replica has epoch {durable}", self.guaranteed));
            }
        }
        self.tally.sessions = self.model.sessions.len() as u64;
        Ok(())
    }

    /// If both machines lost their power now, the replica would have all that was reported and nothing else.
    fn check_image(&mut self) -> Result<(), String> {
        self.tally.images += 1;
        let found = recover(&self.replica_disk, self.random.loss())?;
        self.model.check_replica(&found)?;
        match found.durable >= self.model.last_written(self.guaranteed) {
            true => Ok(()),
            false => Err(format!("{} was propagated, the replica recovers {}", self.guaranteed, found.durable)),
        }
    }
}
