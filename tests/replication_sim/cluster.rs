// SPDX-License-Identifier: Apache-2.0
//! Three machines, or five, as a cluster manager keeps them: one is the primary, with all others as its replicas and a
//! quorum of any number of them; what fails is started again as a replica, rewound where it went another way, and the
//! one that has the most is promoted when the primary is gone. The manager ends the former primary first, as fencing
//! does.

use crate::commits;
use crate::link::{connect, End, SharedPipe};
use crate::machine::Process;
use crate::model::{recover, Fate, Found, Model};
use crate::primary::Primary;
use crate::replica::{News, Replica};
use crate::setup::{Random, Sabotage, Setup};
use limestone_core::replication::native::protocol::message::SessionId;
use limestone_core::replication::native::protocol::Millis;
use limestone_core::types::Epoch;
use limestone_core::vfs::{Fault, Loss, SimFs};
use std::collections::{BTreeMap, BTreeSet};

/// Steps without faults in which what is waited for must have come.
const STEPS_MAX: u64 = 20_000;

/// How much of what happened.
#[derive(Clone, Copy, Debug, Default)]
pub struct Events {
    pub sessions: u64,
    pub propagated: u64,
    pub failures: u64,
    pub promotions: u64,
    pub rewinds: u64,
    pub base_syncs: u64,
    pub moves: u64,
    pub new_disks: u64,
}

impl Events {
    fn counts(&mut self) -> [&mut u64; 8] {
        let Events { sessions, propagated, failures, promotions, rewinds, base_syncs, moves, new_disks } = self;
        [sessions, propagated, failures, promotions, rewinds, base_syncs, moves, new_disks]
    }

    pub fn add(&mut self, other: &Events) {
        let mut other = *other;
        self.counts().into_iter().zip(other.counts()).for_each(|(sum, more)| *sum += *more);
    }

    /// Whether everything that can happen has happened.
    pub fn is_eventful(mut self) -> bool {
        self.counts().into_iter().all(|count| *count > 0)
    }
}

pub struct Node {
    pub(super) disk: SimFs,
    pub(super) process: Option<Process>,
    /// Of a primary: what its directory has.
    pub(super) model: Model,
    /// Of a primary: what its process has reported PROPAGATED.
    pub(super) propagated: Epoch,
    /// The number of the process.
    pub(super) life: u64,
    /// What the former disk had, when it has got a new one.
    pub(super) lost: BTreeSet<usize>,
}

impl Node {
    /// Whether what it says of itself counts as heard, or it is the primary.
    pub(super) fn counts(&self) -> bool {
        match &self.process {
            Some(Process::Primary(_)) => true,
            Some(Process::Replica(replica)) => {
                replica.history().is_some_and(|known| known.claim(replica.store.durable()).counts())
            }
            None => false,
        }
    }
}

pub struct Cluster {
    pub(super) random: Random,
    pub(super) setup: Setup,
    pub(super) now: Millis,
    pub(super) nodes: Vec<Node>,
    pub(super) pipes: Vec<SharedPipe>,
    pub(super) sessions_opened: u64,
    pub(super) lives: u64,
    pub(super) next_session: usize,
    /// Of every session that was ever begun, its epoch.
    pub(super) epochs: BTreeMap<usize, Epoch>,
    /// What was PROPAGATED: it stays for good.
    pub(super) acknowledged: BTreeSet<usize>,
    /// Who has acknowledged in which term.
    pub(super) terms: BTreeMap<u64, usize>,
    /// Machines that are not started.
    pub(super) down: BTreeSet<usize>,
    pub events: Events,
}

impl Cluster {
    /// Five machines in some runs: with three every quorum is one replica or all of them.
    pub fn new(seed: u64, sabotage: Option<Sabotage>) -> Cluster {
        let mut random = Random(seed);
        let count = if random.once_in(4) { 5 } else { 3 };
        let quorum = 1 + random.below(count - 1) as usize;
        Cluster::of(count, quorum, random, sabotage)
    }

    /// So many machines.
    pub fn of(count: u64, quorum: usize, mut random: Random, sabotage: Option<Sabotage>) -> Cluster {
        let setup = Setup {
            lanes: 1 + random.below(2) as u32,
            channels: 1 + random.below(3) as usize,
            piece_bytes: 1000,
            commit: commits::ways()[random.below(2) as usize],
            quorum,
            rewinds: true,
            sabotage,
        };
        let node = |_| Node {
            disk: SimFs::new(),
            process: None,
            model: Model::default(),
            propagated: Epoch(0),
            life: 0,
            lost: BTreeSet::new(),
        };
        Cluster {
            random,
            setup,
            now: 0,
            nodes: (0..count).map(node).collect(),
            pipes: Vec::new(),
            sessions_opened: 0,
            lives: 0,
            next_session: 0,
            epochs: BTreeMap::new(),
            acknowledged: BTreeSet::new(),
            terms: BTreeMap::new(),
            down: BTreeSet::new(),
            events: Events::default(),
        }
    }

    /// Random steps, then steps without faults until all three have the same.
    pub fn run(&mut self, steps: u64) -> Result<(), String> {
        self.start_primary(0)?;
        for _ in 0..steps {
            self.step(true)?;
        }
        self.nodes.iter().for_each(|node| node.disk.heal());
        self.settle_disks();
        self.agree()
    }

    /// Steps without faults until all have the same.
    pub fn agree(&mut self) -> Result<(), String> {
        self.down.clear();
        self.until("all agree", |cluster| cluster.agreeing().is_some())?;
        self.agreeing().map_or(Ok(()), |primary| self.compare(primary))
    }

    /// Steps without faults until this is so.
    pub fn until(&mut self, what: &str, is_so: impl Fn(&Cluster) -> bool) -> Result<(), String> {
        for _ in 0..STEPS_MAX {
            if is_so(self) {
                return Ok(());
            }
            self.step(false)?;
        }
        Err(format!("without faults it does not come to this: {what}: {}", self.describe()))
    }

    pub(super) fn any(&mut self) -> usize {
        self.random.below(self.nodes.len() as u64) as usize
    }

    pub(super) fn step(&mut self, faults: bool) -> Result<(), String> {
        self.now += self.random.below(40);
        let (what, at) = (self.random.below(1000), self.any());
        match what {
            0..250 => (0..2 * self.nodes.len()).for_each(|_| self.deliver()),
            250..370 if faults => self.write()?,
            370..440 if faults => self.primaries().for_each(|primary| primary.switch()),
            440..442 if faults => self.primaries().for_each(|primary| primary.rotate()),
            442..500 => self.connect(at),
            500..620 => {
                let (which, now) = (self.random.next(), self.now);
                self.replicas().for_each(|replica| replica.disk(which, now));
            }
            620..622 if faults => self.cut(),
            622..625 if faults => self.fail(at),
            625..627 if faults => {
                // The power goes at one of the next calls of the disk.
                let calls = self.random.below(12);
                let disk = &self.nodes[at].disk;
                disk.fail_from(disk.operations() + calls, Fault::PowerCut);
            }
            627..628 if faults => self.move_away(),
            628..629 if faults => self.replace_disk(at)?,
            628..650 if !faults || self.random.once_in(2) => self.start_replica(at)?,
            650..670 => self.manage(faults)?,
            _ => (0..self.nodes.len()).try_for_each(|at| self.poll(at))?,
        }
        self.settle_disks();
        self.check()
    }

    pub(super) fn primaries(&mut self) -> impl Iterator<Item = &mut Primary> {
        self.nodes.iter_mut().filter_map(|node| match &mut node.process {
            Some(Process::Primary(primary)) => Some(&mut **primary),
            _ => None,
        })
    }

    fn replicas(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.nodes.iter_mut().filter_map(|node| match &mut node.process {
            Some(Process::Replica(replica)) => Some(&mut **replica),
            _ => None,
        })
    }

    pub(super) fn primary(&self) -> Option<(usize, &Primary)> {
        self.nodes.iter().enumerate().find_map(|(at, node)| match &node.process {
            Some(Process::Primary(primary)) => Some((at, &**primary)),
            _ => None,
        })
    }

    fn deliver(&mut self) {
        self.pipes.retain(|pipe| std::rc::Rc::strong_count(pipe) > 1);
        let busy: Vec<_> = self.pipes.iter().filter(|pipe| pipe.borrow().is_busy()).collect();
        if !busy.is_empty() {
            let pipe = busy[self.random.below(busy.len() as u64) as usize];
            let bytes = if self.random.once_in(4) { self.random.below(30) as usize } else { usize::MAX };
            pipe.borrow_mut().deliver(bytes);
        }
    }

    pub(super) fn write(&mut self) -> Result<(), String> {
        let (channel, pick, before) = (self.random.below(8) as usize, self.random.next(), self.next_session);
        for node in &mut self.nodes {
            if let Some(Process::Primary(primary)) = &mut node.process {
                primary.write(channel, pick, &mut node.model, &mut self.next_session)?;
                if let Some(begun) = node.model.sessions.get(&before).filter(|_| self.next_session > before) {
                    self.epochs.insert(before, begun.epoch);
                }
            }
        }
        self.events.sessions = self.next_session as u64;
        Ok(())
    }

    /// A connection to a machine, if a replica runs there.
    fn dial(node: &mut Node, pipes: &mut Vec<SharedPipe>) -> End {
        let (ours, theirs) = connect();
        pipes.extend(ours.pipes());
        if let Some(Process::Replica(replica)) = &mut node.process {
            replica.accept(theirs);
        }
        ours
    }

    /// Whoever is the primary connects to this machine, unless there is a link.
    fn connect(&mut self, peer: usize) {
        let Some((at, _)) = self.primary().filter(|(_, primary)| primary.shared.fenced.is_none()) else { return };
        let life = self.nodes[at].life;
        let Some(Process::Primary(mut primary)) = self.nodes[at].process.take() else { return };
        if let Some(link) = primary.links.iter_mut().find(|link| link.peer == peer && !link.is_connected()) {
            self.sessions_opened += 1;
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(self.sessions_opened | (at as u64) << 48).to_le_bytes());
            id[8..].copy_from_slice(&life.to_le_bytes());
            let end = Cluster::dial(&mut self.nodes[peer], &mut self.pipes);
            link.connect(&mut primary.shared, id, end);
        }
        self.nodes[at].process = Some(Process::Primary(primary));
    }

    fn poll(&mut self, at: usize) -> Result<(), String> {
        let now = self.now;
        let mut process = self.nodes[at].process.take();
        let result = match &mut process {
            Some(Process::Primary(primary)) => {
                let (nodes, pipes) = (&mut self.nodes, &mut self.pipes);
                primary.poll(now, &mut |peer| Cluster::dial(&mut nodes[peer], pipes))
            }
            Some(Process::Replica(replica)) => replica.poll(now),
            None => Ok(()),
        };
        let news = match &mut process {
            Some(Process::Replica(replica)) => std::mem::take(&mut replica.news),
            _ => Vec::new(),
        };
        self.nodes[at].process = process;
        result.map_err(|e| format!("machine {at}: {e}"))?;
        news.into_iter().try_for_each(|news| self.heard(at, news))
    }

    /// After a rewind a directory has nothing but what the primary has.
    fn heard(&mut self, at: usize, news: News) -> Result<(), String> {
        match news {
            News::Accepted { .. } => Ok(()),
            News::Installed { .. } => {
                self.events.base_syncs += 1;
                Ok(())
            }
            News::Rewound { all: true, .. } => Ok(()),
            News::Rewound { session, .. } => {
                self.events.rewinds += 1;
                let (primary, life) = life_of(session);
                let found = self.recover(at, Loss::KeepUnsynced)?;
                let theirs = &self.nodes[primary];
                let is_there = |id: &&usize| theirs.model.sessions.get(id).is_some_and(|it| it.fate == Fate::Alive);
                match found.sessions.iter().find(|id| !is_there(id)) {
                    Some(id) if theirs.life == life => {
                        Err(format!("machine {at} went back and has session {id}, which the primary does not have"))
                    }
                    _ => Ok(()),
                }
            }
        }
    }

    pub(super) fn recover(&self, at: usize, loss: Loss) -> Result<Found, String> {
        recover(&self.nodes[at].disk, loss).map_err(|e| format!("machine {at} does not recover: {e}"))
    }

    fn cut(&mut self) {
        if !self.pipes.is_empty() {
            let pipe = self.pipes[self.random.below(self.pipes.len() as u64) as usize].clone();
            let travelling = pipe.borrow().travelling() as u64;
            pipe.borrow_mut().cut(self.random.below(travelling + 1) as usize);
            self.events.failures += 1;
        }
    }

    /// The process is killed, or a primary's links are silent from now on.
    fn fail(&mut self, at: usize) {
        self.events.failures += 1;
        match self.random.once_in(4) {
            true => self.primaries().for_each(|primary| primary.hang_up(true)),
            false => self.kill(at),
        }
    }

    pub(super) fn kill(&mut self, at: usize) {
        self.nodes[at].disk.fail_from(0, Fault::PowerCut);
        self.end(at);
        self.nodes[at].disk.heal();
    }

    pub(super) fn end(&mut self, at: usize) {
        self.nodes[at].process = None;
        self.nodes[at].life = 0;
    }

    /// An orderly end of the primary, without waiting for anybody.
    fn move_away(&mut self) {
        let Some((at, primary)) = self.primary() else { return };
        primary.store().shutdown();
        self.end(at);
        self.events.moves += 1;
    }

    /// A replica gets a new disk while the primary runs and every replica counts, as one after the other may.
    fn replace_disk(&mut self, at: usize) -> Result<(), String> {
        let is_replica = matches!(self.nodes[at].process, Some(Process::Replica(_)));
        if is_replica && self.primary().is_some() && self.nodes.iter().all(Node::counts) {
            self.nodes.iter_mut().for_each(|node| node.lost.clear());
            self.nodes[at].lost = self.recover(at, Loss::DropUnsynced)?.sessions;
            self.kill(at);
            self.nodes[at].disk = SimFs::new();
            self.events.new_disks += 1;
        }
        Ok(())
    }

    /// Lets the power come back where it went.
    fn settle_disks(&mut self) {
        for at in 0..self.nodes.len() {
            if self.nodes[at].disk.has_failed() {
                self.events.failures += 1;
                self.end(at);
                let loss = self.random.loss();
                self.nodes[at].disk = self.nodes[at].disk.reboot(loss);
            }
        }
    }

    /// What does not run becomes a replica, whatever it was.
    fn start_replica(&mut self, at: usize) -> Result<(), String> {
        if self.nodes[at].process.is_none() && !self.down.contains(&at) {
            self.nodes[at].disk.heal();
            let mut replica =
                Replica::start(&self.nodes[at].disk, self.setup).map_err(|e| format!("machine {at}: {e}"))?;
            replica.directory = at as u64 + 1;
            self.nodes[at].process = Some(Process::Replica(Box::new(replica)));
        }
        Ok(())
    }
}

/// The process of a primary that a session's id names.
fn life_of(session: SessionId) -> (usize, u64) {
    let number = |at: usize| u64::from_le_bytes(session[at..at + 8].try_into().expect("8 bytes"));
    ((number(0) >> 48) as usize, number(8))
}
