// SPDX-License-Identifier: Apache-2.0
//! `replication_degraded`: a line of JSON for each time in which epochs were notified although no replica had them.
//! [`Degradation`] writes it, for both protocols.

use crate::datastore::Datastore;
use crate::error::{Error, Result};
use crate::replication::native::protocol::Millis;
use crate::types::Epoch;
use crate::vfs::{crashsafe, Vfs};
use crate::wal::names;
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::Path;

/// Name of the file in the data directory.
pub const NAME: &str = "replication_degraded";
const TEMPORARY: &str = "replication_degraded.tmp";
/// Older lines are dropped beyond this.
const BYTES_MAX: u64 = 1 << 20;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DegradedInterval {
    /// The first epoch that was notified as stored only.
    pub first_epoch: u64,
    /// The last one; absent while it goes on, and after a process that died in it.
    pub last_epoch: Option<u64>,
    /// Milliseconds since 1970.
    pub since_unix_ms: u64,
    pub duration_ms: Option<u64>,
    pub reason: String,
}

/// The interval that goes on, if one does.
#[derive(Debug, Default)]
pub struct Degradation(Option<DegradedInterval>);

impl Degradation {
    /// Milliseconds since 1970 at which the notify level fell.
    pub fn since_unix_ms(&self) -> Option<u64> {
        self.0.as_ref().map(|interval| interval.since_unix_ms)
    }

    /// From now on epochs are notified that the replicas do not have: logged and on the disk before the first of them.
    /// `problem` is what the replicas suffer from.
    pub fn begin(&mut self, store: &Datastore, (waited, propagated): (Millis, Epoch), problem: Option<&str>) {
        let (first_epoch, since_unix_ms) = (propagated.0 + 1, names::unix_ms() as u64);
        let reason = problem.unwrap_or("the replica does not keep up").to_owned();
        log::warn!(
            "replication: degraded: epochs from {first_epoch} on are reported when they are STORED only; the replica \
             was waited for {waited} ms: {reason}"
        );
        let interval = DegradedInterval { first_epoch, last_epoch: None, since_unix_ms, duration_ms: None, reason };
        write_down(store, &interval);
        self.0 = Some(interval);
    }

    /// Notifications wait for the replicas again, and the data store knows.
    pub fn end(&mut self, store: &Datastore, (lasted, propagated): (Millis, Epoch)) {
        let first = self.0.as_ref().map_or(0, |interval| interval.first_epoch);
        log::info!(
            "replication: restored: the replica has everything up to epoch {propagated}; epochs {first} to {} were \
             reported when they were STORED only, for {lasted} ms",
            store.notified_epoch()
        );
        self.close(store, lasted);
    }

    /// Ends an interval that goes on, because replication ends.
    pub fn finish(&mut self, store: &Datastore) {
        let since = self.since_unix_ms().unwrap_or_default();
        self.close(store, (names::unix_ms() as u64).saturating_sub(since));
    }

    fn close(&mut self, store: &Datastore, lasted: Millis) {
        if let Some(mut interval) = self.0.take() {
            interval.last_epoch = Some(store.notified_epoch().max(Epoch(interval.first_epoch)).0);
            interval.duration_ms = Some(lasted);
            write_down(store, &interval);
        }
    }
}

fn write_down(store: &Datastore, interval: &DegradedInterval) {
    if let Err(e) = record(store.vfs(), store.location(), interval) {
        log::error!("replication: a degraded interval is not recorded: {e}");
    }
}

/// The intervals in the file, oldest first. Lines that a crash tore are left out.
pub fn load(vfs: &dyn Vfs, location: &Path) -> Result<Vec<DegradedInterval>> {
    let path = location.join(NAME);
    let bytes = match vfs.read(&path, 2 * BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("cannot read", &path, e)),
    };
    let lines = bytes.split(|&b| b == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).collect())
}

/// What earlier runs have left, each interval with its first and last epoch. One in which a process died ends with
/// `durable`, the epoch that this start found; the file says so from then on.
pub fn of_earlier_runs(vfs: &dyn Vfs, location: &Path, durable: Epoch) -> Result<Vec<(Epoch, Epoch)>> {
    let mut all = load(vfs, location)?;
    let mut completed = false;
    for interval in all.iter_mut().filter(|interval| interval.last_epoch.is_none()) {
        interval.last_epoch = Some(durable.0.max(interval.first_epoch));
        completed = true;
    }
    if completed {
        save(vfs, location, &all)?;
    }
    let epochs = all.iter().filter_map(|interval| Some((Epoch(interval.first_epoch), Epoch(interval.last_epoch?))));
    Ok(epochs.collect())
}

/// Adds a line, durably. A line with the same beginning as the last one takes its place.
pub fn record(vfs: &dyn Vfs, location: &Path, interval: &DegradedInterval) -> Result<()> {
    let mut all = load(vfs, location)?;
    all.pop_if(|last| last.since_unix_ms == interval.since_unix_ms && last.first_epoch == interval.first_epoch);
    all.push(interval.clone());
    save(vfs, location, &all)
}

/// Puts the file in place, durably; the oldest lines are left out when it would be too large.
fn save(vfs: &dyn Vfs, location: &Path, all: &[DegradedInterval]) -> Result<()> {
    let lines = all.iter().map(|interval| {
        let mut line = serde_json::to_vec(interval).expect("numbers and words are always JSON");
        line.push(b'\n');
        line
    });
    let lines: Vec<Vec<u8>> = lines.collect();
    let mut bytes: u64 = lines.iter().map(|line| line.len() as u64).sum();
    let surplus = lines.iter().take_while(|line| {
        let over = bytes > BYTES_MAX;
        bytes -= line.len() as u64;
        over
    });
    let kept = lines[surplus.count()..].concat();
    let path = location.join(NAME);
    crashsafe::replace(vfs, &location.join(TEMPORARY), &path, &kept).map_err(|e| Error::io("cannot write", &path, e))
}

/// Whether an interval of the file holds the epoch.
pub fn holds(intervals: &[DegradedInterval], epoch: Epoch) -> bool {
    intervals.iter().any(|i| i.first_epoch <= epoch.0 && i.last_epoch.is_some_and(|last| epoch.0 <= last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfs::{Open, SimFs};

    fn interval(first_epoch: u64, last_epoch: Option<u64>, reason: &str) -> DegradedInterval {
        let duration_ms = last_epoch.map(|_| 5);
        DegradedInterval {
            first_epoch,
            last_epoch,
            since_unix_ms: first_epoch * 10,
            duration_ms,
            reason: reason.into(),
        }
    }

    #[test]
    fn an_interval_is_written_when_it_begins_and_completed_when_it_ends() {
        let fs = SimFs::new();
        let location = Path::new("/log");
        fs.create_dir(location).unwrap();
        assert!(load(&fs, location).unwrap().is_empty());
        for interval in [interval(3, None, "a"), interval(3, Some(9), "a"), interval(20, None, "b")] {
            record(&fs, location, &interval).unwrap();
        }
        let all = load(&fs, location).unwrap();
        assert_eq!(all, [interval(3, Some(9), "a"), interval(20, None, "b")]);
        assert!(holds(&all, Epoch(3)) && holds(&all, Epoch(9)));
        assert!(!holds(&all, Epoch(2)) && !holds(&all, Epoch(10)));

        let file = fs.open(&location.join(NAME), Open::Existing).unwrap();
        file.write_at(file.len().unwrap(), b"{\"first_epoch\":7").unwrap();
        assert_eq!(load(&fs, location).unwrap(), all, "a torn line does not count");
    }

    #[test]
    fn an_interval_in_which_a_process_died_ends_where_the_next_start_found_the_log() {
        let fs = SimFs::new();
        let location = Path::new("/log");
        fs.create_dir(location).unwrap();
        assert!(of_earlier_runs(&fs, location, Epoch(9)).unwrap().is_empty());
        record(&fs, location, &interval(3, Some(5), "a")).unwrap();
        record(&fs, location, &interval(20, None, "b")).unwrap();
        let expected = [(Epoch(3), Epoch(5)), (Epoch(20), Epoch(31))];
        assert_eq!(of_earlier_runs(&fs, location, Epoch(31)).unwrap(), expected);
        assert_eq!(of_earlier_runs(&fs, location, Epoch(99)).unwrap(), expected, "it does not grow with later starts");
    }

    #[test]
    fn the_file_stays_small() {
        let fs = SimFs::new();
        let location = Path::new("/log");
        fs.create_dir(location).unwrap();
        let reason = "x".repeat(100_000);
        for first in 1..=12 {
            record(&fs, location, &interval(first, Some(first), &reason)).unwrap();
        }
        let all = load(&fs, location).unwrap();
        assert_eq!(all.last().unwrap().first_epoch, 12);
        assert!((9..=11).contains(&all.len()), "{} lines", all.len());
    }
}
