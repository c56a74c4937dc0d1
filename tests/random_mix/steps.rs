// SPDX-License-Identifier: Apache-2.0
//! The steps of a running data store, chosen at random.

use crate::blobs::Blob;
use crate::world::{visible_up_to, World};
use crate::writer::{text, Writer};
use limestone_core::datastore::Retained;
use limestone_core::types::{Epoch, WriteVersion};

impl World {
    pub fn step(&mut self) -> Result<(), String> {
        self.reap_compaction()?;
        let (idle, open) = (self.open_writers(false), self.open_writers(true));
        let pick = |from: &[usize], n: u64| (!from.is_empty()).then(|| from[n as usize % from.len()]);
        let (idle, open) = (pick(&idle, self.random.below(60)), pick(&open, self.random.below(60)));
        match (self.random.below(100), idle, open) {
            (0..=21, Some(at), _) => {
                self.note(format!("begin {at}"));
                self.writers[at].begin()
            }
            (22..=48, _, Some(at)) => {
                self.note(format!("change {at}"));
                (0..1 + self.random.below(6)).try_for_each(|_| self.writers[at].change(&mut self.random))
            }
            (49..=51, _, Some(at)) => self.refer_again(at),
            (52..=64, _, Some(at)) => {
                self.note(format!("end {at}"));
                self.writers[at].end(&mut self.random)
            }
            (65..=67, _, Some(at)) => {
                self.note(format!("abort {at}"));
                self.writers[at].abort(&mut self.random)
            }
            (68..=79, ..) => {
                let by = 1 + self.random.below(6) / 5;
                self.note(format!("switch by {by}"));
                self.switch(by)
            }
            (80..=82, ..) => {
                self.note("rotate");
                self.store().rotate().map_err(text)
            }
            (83, ..) => {
                self.note("rotate the epoch file");
                self.store().rotate_epoch_file().map(drop).map_err(text)
            }
            (84..=87, ..) => self.compact(),
            (88..=90, ..) => self.begin_backup(),
            (91..=92, ..) => self.end_backup(),
            (93, ..) => self.delete_detached(),
            (94, ..) => self.raise_boundary(),
            (95..=96, Some(at), _) | (95..=96, _, Some(at)) => {
                // A transaction may register BLOBs long before its session begins.
                self.note(format!("register {at}"));
                self.writers[at].register(&mut self.random).map(drop)
            }
            (97, ..) => {
                self.note("release pools");
                self.writers.iter_mut().for_each(|writer| writer.release());
                Ok(())
            }
            (98, ..) => self.retain(),
            (99, ..) if self.writers.len() < 6 => {
                self.note("another channel");
                let shared = self.shared.clone().expect("the data store is open");
                let channel = shared.store.create_channel().map_err(text)?;
                let writer = Writer::new(&shared, channel, self.blobs());
                self.writers.push(writer);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// An entry that refers to a BLOB of an entry that is there. Its transaction has read that one, so that nobody who
    /// comes earlier may still remove it.
    fn refer_again(&mut self, at: usize) -> Result<(), String> {
        let Some(epoch) = self.writers[at].open.as_ref().map(|open| open.epoch) else { return Ok(()) };
        let others = || self.writers.iter().filter_map(|writer| writer.open.as_ref());
        if others().any(|other| other.epoch < epoch) {
            return Ok(());
        }
        let found = {
            let model = self.model();
            let content = model.merge(&visible_up_to(&model, epoch));
            let untouched = |(storage, key): &(u64, Vec<u8>)| {
                let own = (*storage, Some(key.clone()));
                others().all(|other| !other.touched.contains(&own) && !other.touched.contains(&(*storage, None)))
            };
            content.into_iter().find(|(place, value)| !Blob::parse(value).is_empty() && untouched(place))
        };
        let Some(((storage, key), value)) = found else { return Ok(()) };
        self.note(format!("refer again {at}"));
        let key = [&key, &b" again"[..]].concat();
        self.writers[at].put_blobs(storage, key, &Blob::parse(&value))
    }

    /// Nobody reads what was overwritten before the oldest open session.
    pub fn raise_boundary(&mut self) -> Result<(), String> {
        let open = self.writers.iter().filter_map(|writer| Some(writer.open.as_ref()?.epoch)).min();
        let major = open.unwrap_or(self.switched).min(self.switched);
        let boundary = WriteVersion { major, minor: 0 };
        self.note(format!("raise the boundary to {major}"));
        if boundary < self.store().available_boundary_version() {
            return Ok(());
        }
        self.store().switch_available_boundary_version(boundary).map_err(text)
    }

    fn retain(&mut self) -> Result<(), String> {
        let epoch = (self.random.below(3) > 0).then(|| Epoch(self.switched.saturating_sub(self.random.below(5))));
        self.note(format!("retain beyond {epoch:?}"));
        let retained = |beyond| Retained { beyond, by: "a replica".to_owned(), moves: false };
        self.store().retain(epoch.map(retained));
        Ok(())
    }
}
