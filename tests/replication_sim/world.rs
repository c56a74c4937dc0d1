// SPDX-License-Identifier: Apache-2.0
//! The machines and the network between them, moved by one generator of random numbers.

use crate::checks;
use crate::commits;
use crate::link::{connect, End, SharedPipe};
use crate::machine::{Life, Machine, Process};
use crate::model::{read, recover};
use crate::operator::{check_refusal, Kept};
use crate::primary::{Primary, Start};
use crate::replica::{News, Replica};
use crate::setup::{Random, Sabotage, Setup, Tally};
use limestone_core::replication::native::protocol::message::{Outcome, SessionId};
use limestone_core::replication::native::protocol::Millis;
use limestone_core::types::Epoch;
use limestone_core::vfs::{Fault, Loss};
use limestone_core::wal::history_file::Role;

/// Steps without faults in which both sides must agree again.
const STEPS_TO_AGREE: u64 = 20_000;

pub struct World {
    pub random: Random,
    pub setup: Setup,
    now: Millis,
    pub machines: Vec<Machine>,
    pub pipes: Vec<SharedPipe>,
    /// Copies and backups of directories.
    pub kept: Vec<Kept>,
    sessions_opened: u64,
    /// Numbers of processes, and of what makes a directory another one.
    pub lives: u64,
    next_session: usize,
    /// Nobody writes for a while, though epochs go on.
    is_idle: bool,
    pub tally: Tally,
}

/// The process of a primary that a session's id names.
fn life_of(session: SessionId) -> Life {
    let number = |at: usize| u64::from_le_bytes(session[at..at + 8].try_into().expect("8 bytes")) as usize;
    (number(0) >> 48, number(8) as u64)
}

impl World {
    pub fn new(seed: u64, sabotage: Option<Sabotage>) -> World {
        let mut random = Random(seed);
        let setup = Setup {
            lanes: 1 + random.below(3) as u32,
            channels: 1 + random.below(4) as usize,
            piece_bytes: [20, 64, 1000][random.below(3) as usize],
            commit: commits::ways()[random.below(2) as usize],
            quorum: 1,
            rewinds: false,
            sabotage,
        };
        let mut machines = vec![Machine::new(Role::Primary, 1)];
        machines.extend((0..1 + random.below(2)).map(|_| Machine::new(Role::Replica, 0)));
        World {
            random,
            setup,
            now: 0,
            machines,
            pipes: Vec::new(),
            kept: Vec::new(),
            sessions_opened: 0,
            lives: 0,
            next_session: 0,
            is_idle: false,
            tally: Tally::default(),
        }
    }

    /// Random steps, then steps without faults until both sides agree.
    pub fn run(&mut self, steps: u64) -> Result<(), String> {
        for _ in 0..steps {
            self.step(true)?;
        }
        self.machines.iter().for_each(|machine| machine.disk.heal());
        self.settle_disks();
        for _ in 0..STEPS_TO_AGREE {
            self.step(false)?;
            if let Some(pair) = checks::agreeing(&self.machines) {
                return checks::compare(&self.machines, pair);
            }
        }
        Err(format!("no agreement without faults: {}", checks::describe(&self.machines)))
    }

    pub fn any(&mut self) -> usize {
        self.random.below(self.machines.len() as u64) as usize
    }

    fn step(&mut self, faults: bool) -> Result<(), String> {
        self.now += self.random.below(40);
        let (what, at) = (self.random.below(1000), self.any());
        match what {
            0..300 => (0..self.machines.len()).for_each(|_| self.deliver()),
            300..520 if faults && !self.is_idle => self.write()?,
            300..340 if !faults => self.operate(false)?,
            520..600 if faults => self.primaries().for_each(|primary| primary.switch()),
            600..604 if faults => self.primaries().for_each(|primary| primary.rotate()),
            604..610 if faults => self.operate(true)?,
            610..640 => (0..self.machines.len()).for_each(|at| self.connect(at)),
            640..760 => {
                let (which, now) = (self.random.next(), self.now);
                self.machines.iter_mut().filter_map(Machine::replica_mut).for_each(|it| it.disk(which, now));
            }
            760..762 if faults => self.cut(),
            762..763 if faults => self.primaries().for_each(|primary| primary.hang_up(true)),
            765..767 if faults => self.kill(at),
            767..769 if faults => {
                // The power goes at one of the next calls of the disk.
                let calls = self.random.below(12);
                let disk = &self.machines[at].disk;
                disk.fail_from(disk.operations() + calls, Fault::PowerCut);
            }
            772..778 if faults => self.is_idle = self.random.once_in(2),
            778..818 => self.start(at)?,
            _ => (0..self.machines.len()).try_for_each(|at| self.poll(at))?,
        }
        self.settle_disks();
        self.check()
    }

    fn primaries(&mut self) -> impl Iterator<Item = &mut Primary> {
        self.machines.iter_mut().filter_map(Machine::primary_mut)
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

    fn write(&mut self) -> Result<(), String> {
        let (channel, pick) = (self.random.below(8) as usize, self.random.next());
        for machine in &mut self.machines {
            if let Some(Process::Primary(primary)) = &mut machine.process {
                primary.write(channel, pick, &mut machine.known.model, &mut self.next_session)?;
            }
        }
        Ok(())
    }

    /// A connection to a replica, if it runs.
    fn dial(machine: &mut Machine, pipes: &mut Vec<SharedPipe>) -> End {
        let (ours, theirs) = connect();
        pipes.extend(ours.pipes());
        if let Some(replica) = machine.replica_mut() {
            replica.accept(theirs);
        }
        ours
    }

    fn connect(&mut self, at: usize) {
        let Machine { target, life, .. } = self.machines[at];
        let is_ready = |primary: &Primary| !primary.is_connected() && primary.shared.fenced.is_none();
        if !self.machines[at].primary().is_some_and(is_ready) {
            return;
        }
        self.sessions_opened += 1;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&(self.sessions_opened | (at as u64) << 48).to_le_bytes());
        id[8..].copy_from_slice(&life.to_le_bytes());
        let end = World::dial(&mut self.machines[target], &mut self.pipes);
        if let Some(primary) = self.machines[at].primary_mut() {
            primary.connect(id, target, end);
        }
    }

    fn poll(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        let mut process = self.machines[at].process.take();
        let result = match &mut process {
            Some(Process::Primary(primary)) => {
                let (machines, pipes) = (&mut self.machines, &mut self.pipes);
                primary.save_late_run();
                primary.poll(now, &mut |peer| World::dial(&mut machines[peer], pipes))
            }
            Some(Process::Replica(replica)) => replica.poll(now),
            None => Ok(()),
        };
        self.machines[at].process = process;
        result?;
        let news = self.machines[at].replica_mut().map_or_else(Vec::new, |replica| std::mem::take(&mut replica.news));
        news.into_iter().try_for_each(|news| self.heard(at, news))
    }

    /// What a replica has done changes what it has to have.
    fn heard(&mut self, at: usize, news: News) -> Result<(), String> {
        self.hold_followed(at);
        let known = &mut self.machines[at].known;
        let session = match news {
            News::Rewound { .. } => return Err(format!("machine {at} rewinds, which nobody asked for")),
            News::Accepted { term, .. } if term < known.term => {
                return Err(format!("machine {at} has seen term {} and accepts a primary of term {term}", known.term));
            }
            News::Accepted { session, outcome, term } => {
                (known.term, known.awaits, known.follower) = (term, outcome == Outcome::BaseSync, true);
                known.fenced = false;
                session
            }
            News::Installed { session } => {
                known.awaits = false;
                self.tally.base_syncs += 1;
                session
            }
        };
        let (primary, life) = life_of(session);
        let is_running = self.machines[primary].life == life;
        if self.machines[at].known.awaits || !(is_running || matches!(news, News::Installed { .. })) {
            // It gets nothing more from one that has ended, but for files that are under way.
            let theirs = self.machines[primary].known.last_written();
            self.machines[at].known.lacked = theirs;
            return Ok(());
        }
        // What it had is what the primary has, and from now on it has that only.
        let found = recover(&self.machines[at].disk, Loss::KeepUnsynced).map_err(|e| format!("machine {at}: {e}"))?;
        let theirs = self.machines[primary].known.clone();
        theirs.model.check_exact(&found).map_err(|e| format!("machine {at} follows machine {primary}, but {e}"))?;
        let known = &mut self.machines[at].known;
        if found.durable < known.model.last_written(known.guaranteed) {
            return Err(format!("machine {at} had to have {} and has {}", known.guaranteed, found.durable));
        }
        known.guaranteed = known.guaranteed.min(found.durable);
        (known.companion, known.lacked) = (Some((primary, theirs.lineage)), Epoch(0));
        match is_running {
            true => known.follows = Some((primary, life)),
            false => (known.model, known.stored) = (theirs.model, theirs.stored),
        }
        Ok(())
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

    pub fn kill(&mut self, at: usize) {
        self.tally.kills += 1;
        self.machines[at].disk.fail_from(0, Fault::PowerCut);
        self.end_process(at);
        self.machines[at].disk.heal();
    }

    /// Lets the process of a machine go. What its replicas have to have stays as it was.
    pub fn end_process(&mut self, at: usize) {
        self.machines[at].note_stored();
        self.tally.demotions += self.machines[at].primary().map_or(0, |primary| primary.links[0].demotions);
        if let Some(life) = self.machines[at].life(at) {
            let (model, stored) = (self.machines[at].known.model.clone(), self.machines[at].known.stored);
            for follower in self.machines.iter_mut().filter(|machine| machine.known.follows == Some(life)) {
                let known = &mut follower.known;
                (known.model, known.stored, known.follows) = (model.clone(), stored, None);
            }
            self.machines[at].life = 0;
        }
        self.machines[at].process = None;
    }

    /// Lets the power come back where it went.
    fn settle_disks(&mut self) {
        for at in 0..self.machines.len() {
            if self.machines[at].disk.has_failed() {
                self.tally.power_cuts += 1;
                self.end_process(at);
                let loss = self.random.loss();
                self.machines[at].disk = self.machines[at].disk.reboot(loss);
            }
        }
    }

    /// Starts what does not run. The number of calls that a start takes may depend on threads, so no power goes there.
    fn start(&mut self, at: usize) -> Result<(), String> {
        if self.machines[at].process.is_some() {
            return Ok(());
        }
        self.machines[at].disk.heal();
        match self.machines[at].role {
            Role::Primary => self.start_primary(at).map_err(|e| format!("machine {at}, a primary: {e}")),
            Role::Replica => self.start_replica(at).map_err(|e| format!("machine {at}, a replica: {e}")),
        }
    }

    fn start_primary(&mut self, at: usize) -> Result<(), String> {
        let compact = self.random.once_in(4);
        self.hold_followed(at);
        let machine = &mut self.machines[at];
        let (primary, durable) = match Primary::start(&machine.disk, self.setup, &[machine.target], compact)? {
            Start::Runs(..) if machine.known.fenced || machine.known.awaits => {
                return Err("it starts, though it is fenced or awaits a base sync".to_owned());
            }
            Start::Runs(primary, durable) => (primary, durable),
            Start::Refused(why) => {
                machine.role = Role::Replica;
                let found = recover(&machine.disk, Loss::KeepUnsynced)?;
                return check_refusal(&why, &machine.known, &found);
            }
        };
        let found = read(primary.store(), durable)?;
        let known = &mut machine.known;
        if !known.is_primary {
            known.check_replica(&found)?;
            self.lives += 1;
            (known.companion, known.lineage, known.stored) = (None, self.lives, Epoch(0));
        }
        known.model.settle(&found, known.stored)?;
        let term = primary.store().history().map_or(0, |history| history.term);
        if term < known.term + u64::from(known.follower) {
            return Err(format!("it is in term {term} after {}, a replica before: {}", known.term, known.follower));
        }
        (known.term, known.is_primary, known.follower) = (term, true, false);
        // Epochs without writes leave no trace: their numbers may come again.
        (known.stored, known.propagated) = (primary.store().last_epoch(), Epoch(0));
        self.lives += 1;
        machine.life = self.lives;
        machine.process = Some(Process::Primary(primary));
        Ok(())
    }

    fn start_replica(&mut self, at: usize) -> Result<(), String> {
        if std::mem::take(&mut self.machines[at].known.is_primary) {
            self.tally.rejoins += 1;
            let found =
                recover(&self.machines[at].disk, Loss::KeepUnsynced).map_err(|e| format!("machine {at}: {e}"))?;
            self.lives += 1;
            self.machines[at].known.put(&found, self.lives)?;
        }
        let replica = Replica::start(&self.machines[at].disk, self.setup)?;
        self.machines[at].process = Some(Process::Replica(Box::new(replica)));
        Ok(())
    }

    /// What a machine has to have does not change any more with the primary that it followed.
    pub fn hold_followed(&mut self, at: usize) {
        if let Some((primary, _)) = self.machines[at].known.follows.take() {
            self.machines[primary].note_stored();
            let (model, stored) = (self.machines[primary].known.model.clone(), self.machines[primary].known.stored);
            (self.machines[at].known.model, self.machines[at].known.stored) = (model, stored);
        }
    }

    /// What must hold after every step.
    fn check(&mut self) -> Result<(), String> {
        for at in 0..self.machines.len() {
            self.machines[at].note_stored();
            if let Some(e) = self.check_primary(at)? {
                self.confirmed(at, e)?;
            }
        }
        self.tally.sessions = self.next_session as u64;
        checks::replicas(&self.machines)
    }

    /// The epoch up to which more has been confirmed than before.
    fn check_primary(&mut self, at: usize) -> Result<Option<Epoch>, String> {
        let Machine { known, process: Some(Process::Primary(primary)), .. } = &mut self.machines[at] else {
            return Ok(None);
        };
        let store = primary.store();
        let (switched, stored, propagated) = (store.switched_epoch(), store.last_epoch(), store.propagated_epoch());
        if !(switched >= stored && stored >= propagated) {
            return Err(format!("switched {switched}, stored {stored}, propagated {propagated}"));
        }
        if stored < known.stored {
            return Err(format!("stored went back from {} to {stored}", known.stored));
        }
        if let Some(fenced) = primary.shared.fenced {
            self.tally.fenced += u64::from(!std::mem::replace(&mut known.fenced, true));
            if fenced != (stored, propagated) {
                return Err(format!("a fenced primary went on from {fenced:?} to {:?}", (stored, propagated)));
            }
        }
        let companion = Some((at, known.lineage)).filter(|_| primary.links[0].diverged);
        let more = Some(propagated).filter(|propagated| *propagated > known.propagated);
        let peer = primary.peer();
        if companion.is_some() && self.machines[peer].known.companion == companion {
            return Err(format!("machine {peer} has diverged, though nothing but restarts has happened"));
        }
        Ok(more)
    }

    /// A primary has reported more PROPAGATED. If both machines lost their power now, all of it would be there.
    fn confirmed(&mut self, at: usize, epoch: Epoch) -> Result<(), String> {
        self.tally.propagated += 1;
        self.tally.images += 1;
        self.machines[at].known.propagated = epoch;
        let Some(peer) = self.machines[at].primary().map(|primary| primary.peer()) else { return Ok(()) };
        let found = recover(&self.machines[peer].disk, self.random.loss())
            .map_err(|e| format!("replica {peer} of {at}, {epoch}: {e}"))?;
        let model = &self.machines[at].known.model;
        let named = |e| format!("machine {peer}, of which {at} says that it has {epoch}: {e}");
        model.check_has(&found, epoch).map_err(named)?;
        if self.machines[peer].known.follows == self.machines[at].life(at) {
            model.check_exact(&found).map_err(named)?;
            let known = &mut self.machines[peer].known;
            known.guaranteed = known.guaranteed.max(epoch);
        }
        Ok(())
    }
}
