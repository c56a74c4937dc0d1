// SPDX-License-Identifier: Apache-2.0
//! Both ways between upstream and this project on one data directory: the checker agrees with what upstream was seen
//! doing, and what the engine leaves after a clean shutdown passes the checker.

mod golden_data;
mod upstream_checker;

use golden_data::{number, rows, text};
use std::collections::BTreeMap;
use upstream_checker::upstream_start;

#[test]
fn checker_repeats_what_upstream_did_with_every_golden_directory() {
    for case in golden_data::cases() {
        let dir = tempfile::tempdir().unwrap();
        case.copy_to(dir.path());
        match upstream_start(dir.path()) {
            Ok(start) => {
                assert!(
                    case.upstream_opens(),
                    "{}: the checker opens what upstream refused",
                    case.name
                );
                assert_eq!(start.rows, case.upstream_rows(), "{}", case.name);
                assert_eq!(start.last_epoch, case.upstream_last_epoch(), "{}", case.name);
                assert_eq!(
                    start.next_blob_id,
                    number(&case.expected["next_blob_id"]),
                    "{}",
                    case.name
                );
            }
            Err(reason) => {
                assert!(
                    !case.upstream_opens(),
                    "{}: the checker refuses what upstream opened: {reason}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn checker_repeats_what_upstream_did_with_every_case_of_the_parse_matrix() {
    for case in golden_data::parse_matrix() {
        let dir = tempfile::tempdir().unwrap();
        case.write_to(dir.path());
        match upstream_start(dir.path()) {
            Ok(start) => {
                assert_eq!(
                    case.start["result"], "ok",
                    "{}: the checker opens what upstream refused",
                    case.name
                );
                assert_eq!(start.rows, rows(&case.start["entries"]), "{}", case.name);
                assert_eq!(start.last_epoch, number(&case.start["last_epoch"]), "{}", case.name);
                let patched = match text(&case.start["pwal_after"]) {
                    "unchanged" => BTreeMap::new(),
                    hex => BTreeMap::from([(case.file_name.clone(), golden_data::unhex(hex))]),
                };
                assert_eq!(start.patched, patched, "{}", case.name);
            }
            Err(reason) => assert_eq!(case.start["result"], "refused", "{}: {reason}", case.name),
        }
    }
}
