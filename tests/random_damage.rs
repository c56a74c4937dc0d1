// SPDX-License-Identifier: Apache-2.0
//! Directories with random damage: looking changes nothing, a repair makes none of them worse (W22, W23), and says so
//! when it cannot make them better. Apart from the other tests of the tool, which run it as a process: the moment
//! before such a process is on its own it holds the locks of its parent.

mod damaged_dir;
mod engine_run;
mod golden_data;
#[allow(dead_code)]
#[path = "cli/tool.rs"]
mod tool;

use crate::damaged_dir::{damaged, logs, run, Damage, DURABLE};
use crate::engine_run::{quick_dir, start};
use crate::golden_data::{copy_tree, tree, Row};
use crate::tool::epoch_record;
use proptest::collection::vec;
use proptest::prelude::*;
use std::path::Path;

fn rows_of(dir: &Path) -> Vec<Row> {
    start(dir, 1).unwrap().rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_repair_leaves_nothing_worse(logs in logs(), epoch_damage in vec(Damage::strategy(), 0..2), cut: bool) {
        let dir = damaged(&logs, &epoch_damage);
        let before = tree(dir.path());
        let unrepaired = quick_dir();
        copy_tree(dir.path(), unrepaired.path());
        let without = start(unrepaired.path(), 1);

        for subcommand in ["inspect", "verify", "dump"] {
            let (exit, _) = run(dir.path(), &[subcommand]);
            prop_assert!([0, 1, 2, 64].contains(&exit), "{}: {}", subcommand, exit);
            prop_assert_eq!(&tree(dir.path()), &before, "{} changed something", subcommand);
        }
        let inspected = run(dir.path(), &["inspect"]).0;

        let options: &[&str] = if cut { &["repair", "--cut"] } else { &["repair"] };
        let (exit, printed) = run(dir.path(), options);
        let with = start(dir.path(), 1);
        match (exit, without, with) {
            (0, Ok(without), Ok(with)) => {
                prop_assert_eq!(with.rows, without.rows);
                // No garbage was made an epoch (W23).
                prop_assert!(with.last_epoch <= without.last_epoch.max(DURABLE + 1), "{}", with.last_epoch);
            }
            (0, Err(_), Ok(_)) => {}
            // Nothing was lost that could have been kept: giving the damage up saves as much as before the attempt.
            (16, Err(_), _) => {
                let give_up = |dir: &Path| (run(dir, &["repair", "--give_up_damaged", "--epoch=4"]).0, rows_of(dir));
                prop_assert_eq!(give_up(dir.path()), give_up(unrepaired.path()));
            }
            // Without any epoch record, a repair asks the operator where damage may hide that sessions were ended.
            (16, Ok(without), Ok(with)) if before[Path::new("epoch")].len() < epoch_record(0).len() => {
                prop_assert_eq!(with.rows, without.rows);
            }
            (exit, without, with) => prop_assert!(false, "{} {}: {:?}, then {:?}", exit, printed, without, with),
        }
        // Inspect foretells the repair.
        match inspected {
            0 | 1 => prop_assert_eq!(exit, 0),
            2 => prop_assert_eq!(exit, 16),
            _ => {}
        }
    }

    #[test]
    fn a_second_repair_finds_nothing_to_do(logs in logs(), epoch_damage in vec(Damage::strategy(), 0..2)) {
        let dir = damaged(&logs, &epoch_damage);
        if run(dir.path(), &["repair"]).0 == 0 {
            let once = tree(dir.path());
            let (exit, printed) = run(dir.path(), &["repair"]);
            prop_assert_eq!((exit, printed.lines().last()), (0, Some("status: OK")));
            prop_assert_eq!(tree(dir.path()), once);
        }
    }

    #[test]
    fn a_directory_starts_once_damage_is_given_up(logs in logs(), epoch_damage in vec(Damage::strategy(), 0..2)) {
        let dir = damaged(&logs, &epoch_damage);
        let (exit, printed) = run(dir.path(), &["repair", "--give_up_damaged"]);
        match exit {
            0 => prop_assert!(start(dir.path(), 1).is_ok()),
            // Without any record only the operator can know the epoch.
            16 => prop_assert_eq!(run(dir.path(), &["repair", "--give_up_damaged", "--epoch=4"]).0, 0, "{}", printed),
            _ => prop_assert!(false, "{} {}", exit, printed),
        }
    }
}
