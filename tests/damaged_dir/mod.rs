// SPDX-License-Identifier: Apache-2.0
//! Directories with random damage, and the tool in this process to try on them.
#![allow(dead_code)]

use crate::tool::{directory, epoch_record, open_session, session};
use limestone_core::tglogutil;
use limestone_core::vfs::RealFs;
use proptest::collection::vec;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

pub const DURABLE: u64 = 4;

/// A change of one file; places are taken modulo what is there.
#[derive(Clone, Debug)]
pub enum Damage {
    Byte { at: usize, value: u8 },
    Cut { bytes: usize },
    Zeros { at: usize, len: usize },
    Append(Vec<u8>),
}

impl Damage {
    pub fn strategy() -> impl Strategy<Value = Damage> {
        // Bytes that mean something, and others.
        let byte = || prop_oneof![0u8..12, any::<u8>()];
        prop_oneof![
            4 => (any::<usize>(), byte()).prop_map(|(at, value)| Damage::Byte { at, value }),
            3 => (1usize..60).prop_map(|bytes| Damage::Cut { bytes }),
            1 => (any::<usize>(), 1usize..40).prop_map(|(at, len)| Damage::Zeros { at, len }),
            3 => vec(byte(), 1..30).prop_map(Damage::Append),
        ]
    }

    pub fn apply(&self, bytes: &mut Vec<u8>) {
        match *self {
            Damage::Byte { .. } | Damage::Zeros { .. } if bytes.is_empty() => {}
            Damage::Byte { at, value } => {
                let at = at % bytes.len();
                bytes[at] = value;
            }
            Damage::Cut { bytes: cut } => bytes.truncate(bytes.len().saturating_sub(cut)),
            Damage::Zeros { at, len } => {
                let at = at % bytes.len();
                let end = bytes.len().min(at + len);
                bytes[at..end].fill(0);
            }
            Damage::Append(ref more) => bytes.extend_from_slice(more),
        }
    }
}

/// The epochs of one log file, whether its last session is open, and its damage.
pub type Log = (Vec<u64>, bool, Vec<Damage>);

pub fn logs() -> impl Strategy<Value = Vec<Log>> {
    vec((vec(1..=DURABLE + 1, 0..5), any::<bool>(), vec(Damage::strategy(), 0..3)), 1..4)
}

pub fn damaged(logs: &[Log], epoch_damage: &[Damage]) -> TempDir {
    let names = ["pwal_0000", "pwal_0001", "pwal_0002.00000000000001.0"];
    let mut files = Vec::new();
    for (n, (name, (epochs, open, damage))) in names.into_iter().zip(logs).enumerate() {
        let mut epochs = epochs.clone();
        epochs.sort_unstable();
        let mut bytes = Vec::new();
        for (i, epoch) in epochs.iter().enumerate() {
            let whole = i + 1 < epochs.len() || !open;
            let write = if whole { session } else { open_session };
            // An open session was never acknowledged.
            bytes.extend(write(if whole { *epoch } else { DURABLE + 1 }, &format!("{n}{i}"), "value"));
        }
        damage.iter().for_each(|damage| damage.apply(&mut bytes));
        files.push((name, bytes));
    }
    let mut epoch = (1..=DURABLE).flat_map(epoch_record).collect();
    epoch_damage.iter().for_each(|damage| damage.apply(&mut epoch));
    directory(&epoch, &files)
}

/// Runs the tool; what it prints and its exit code.
pub fn run(dir: &Path, words: &[&str]) -> (i32, String) {
    let mut out = Vec::new();
    let args = ["tglogutil"].iter().chain(words).map(Into::into).chain([dir.as_os_str().to_owned()]);
    let exit = tglogutil::run(args, Arc::new(RealFs), &mut out);
    (exit, String::from_utf8(out).unwrap())
}
