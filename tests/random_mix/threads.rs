// SPDX-License-Identifier: Apache-2.0
//! Threads on the real disk: writers with BLOBs, a thread that switches epochs, one that compacts and one that takes
//! backups, all at once, and stopped in full flight. The next process, with another number of channels, finds what was
//! acknowledged; every backup recovers to exactly what was durable at its end.

use crate::backups::{model_at, Kept};
use crate::cases;
use crate::disk::Disk;
use crate::random::Random;
use crate::world::World;
use crate::writer::{text, Shared, Writer};
use limestone_core::datastore::Outcome;
use limestone_core::types::{Epoch, WriteVersion};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::Duration;

const LIVES: u64 = 4;
const EPOCHS: u64 = 40;
const WRITERS_MAX: u64 = 4;

/// What the threads of one life have done.
#[derive(Default)]
struct Done {
    stop: AtomicBool,
    compactions: AtomicU32,
}

/// Sessions until the data store is shut down.
fn write(mut writer: Writer, mut random: Random) {
    let mut session = || {
        if random.below(3) == 0 {
            writer.register(&mut random)?;
        }
        writer.begin()?;
        for _ in 0..random.below(10) {
            writer.change(&mut random)?;
        }
        match random.below(8) {
            0 => writer.abort(&mut random)?,
            _ => writer.end(&mut random)?,
        }
        if random.below(6) == 0 {
            writer.release();
        }
        Ok::<_, String>(())
    };
    while session().is_ok() {}
}

fn switch(shared: &Shared, first: u64, mut random: Random) -> Result<(), String> {
    for epoch in first..first + EPOCHS {
        shared.store.switch_epoch(Epoch(epoch)).map_err(text)?;
        let boundary = WriteVersion { major: shared.store.last_epoch().0, minor: 0 };
        shared.store.switch_available_boundary_version(boundary).map_err(text)?;
        match random.below(12) {
            0 => shared.store.rotate().map_err(text)?,
            1 => drop(shared.store.rotate_epoch_file().map_err(text)?),
            _ => {}
        }
        std::thread::sleep(Duration::from_micros(random.below(3000)));
    }
    Ok(())
}

fn compact(shared: &Shared, done: &Done) {
    while let Ok(outcome) = shared.store.compact() {
        match outcome {
            Outcome::Done => drop(done.compactions.fetch_add(1, SeqCst)),
            _ => std::thread::yield_now(),
        }
    }
}

/// Backups until the data store is shut down; at most `max` are kept.
fn back_up(shared: &Shared, disk: &Disk, done: &Done, max: usize) -> Result<Vec<Kept>, String> {
    let mut kept = Vec::new();
    while !done.stop.load(SeqCst) && kept.len() < max {
        let Ok(backup) = shared.store.begin_detailed_backup(Duration::from_millis(1)) else { break };
        let model = model_at(&shared.model.lock().unwrap(), backup.log_finish());
        kept.push(Kept::copy(disk, &backup, model, true)?);
        drop(backup);
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(kept)
}

impl World {
    /// One life with many threads; returns the number of compactions.
    fn live_with_threads(&mut self) -> Result<u32, String> {
        let shared = self.shared.clone().expect("the data store is open");
        let (done, first) = (Done::default(), self.switched + 1);
        let seed = self.random.below(u64::MAX);
        let writers = std::mem::take(&mut self.writers);
        // No session may begin in an epoch that is durable already.
        shared.store.switch_epoch(Epoch(first)).map_err(text)?;
        let kept = std::thread::scope(|scope| {
            for (number, writer) in (1..).zip(writers) {
                scope.spawn(move || write(writer, Random::new(seed ^ (number << 32))));
            }
            scope.spawn(|| compact(&shared, &done));
            let backups = scope.spawn(|| back_up(&shared, &self.disk, &done, 3));
            let switched = switch(&shared, first + 1, Random::new(seed));
            // In full flight.
            done.stop.store(true, SeqCst);
            shared.store.shutdown();
            let kept = backups.join().map_err(|_| "the backups panicked".to_owned())?;
            switched.and(kept)
        })?;
        for kept in kept {
            self.verify(&kept).map_err(|reason| format!("a backup: {reason}"))?;
            self.count("detailed backups");
            self.kept.push(kept);
        }
        drop(shared);
        self.let_go()?;
        Ok(done.compactions.into_inner())
    }

    fn play_with_threads(&mut self) -> Result<u32, String> {
        let mut compactions = 0;
        for _ in 0..LIVES {
            match self.random.below(4) {
                0 => self.compact_offline()?,
                1 => self.restore_here()?,
                _ => {}
            }
            self.let_go()?;
            self.kept.clear();
            let channels = 1 + self.random.below(WRITERS_MAX) as usize;
            self.start_with(channels)?;
            compactions += self.live_with_threads()?;
        }
        self.hand_over()?;
        Ok(compactions)
    }
}

#[test]
fn threads_that_do_everything_at_once_leave_what_was_acknowledged() {
    let mut compactions = 0;
    let mut backups = 0;
    for seed in cases(3) {
        println!("LIMESTONE_TEST_SEED={seed}");
        let mut world = World::new(Disk::real(), Random::new(seed));
        let played = world.play_with_threads();
        compactions += played.unwrap_or_else(|e| panic!("LIMESTONE_TEST_SEED={seed}: {e}\n{}", world.report()));
        backups += world.counts.get("detailed backups").copied().unwrap_or(0);
    }
    println!("{compactions} compactions, {backups} backups");
    assert!(compactions > 0 && backups > 0, "{compactions} compactions and {backups} backups were completed");
}
