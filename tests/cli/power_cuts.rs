// SPDX-License-Identifier: Apache-2.0
//! A repair that a power cut or a failed call ends anywhere is completed by the next one, and a repair that came to its
//! end is durable.

use crate::engine_run::rows;
use crate::golden_data::Row;
use crate::tool::{directory, epoch_record, open_session, session};
use limestone_core::datastore::{Datastore, Settings};
use limestone_core::tglogutil;
use limestone_core::vfs::{Fault, Loss, SimFs};
use std::path::Path;
use std::sync::Arc;

/// Everything that a repair deals with: a torn epoch file, a damaged durable session between whole ones, garbage behind
/// an end marker, a session beyond the durable epoch with a torn tail.
fn damaged_directory() -> SimFs {
    let mut bad = session(2, "b", "2");
    bad[9] = 0x0b;
    let torn_epoch = [&epoch_record(3)[..], &epoch_record(4)[..5]].concat();
    let dir = directory(
        &torn_epoch,
        &[
            ("pwal_0000", [session(1, "a", "1"), bad, session(3, "c", "3")].concat()),
            ("pwal_0001", [&session(2, "d", "4")[..], &[0xee; 700]].concat()),
            ("pwal_0002", [&session(3, "e", "5")[..], &open_session(4, "x", "x"), &[0x01]].concat()),
        ],
    );
    let fs = SimFs::new();
    fs.load(dir.path(), Path::new("/db")).unwrap();
    fs
}

fn repair(fs: &SimFs) -> i32 {
    let args = ["tglogutil", "repair", "--cut", "--give_up_damaged", "/db"].map(str::to_owned);
    tglogutil::run(&args, Arc::new(fs.clone()), &mut Vec::new())
}

fn start(fs: &SimFs) -> Vec<Row> {
    let store = Datastore::open(Settings::new("/db").vfs(Arc::new(fs.clone()))).unwrap();
    store.ready().unwrap();
    rows(&store.snapshot().unwrap())
}

#[test]
fn a_repair_may_be_interrupted_at_every_disk_call() {
    let undisturbed = damaged_directory();
    assert_eq!(repair(&undisturbed), 0);
    let calls = undisturbed.operations();
    let expected = start(&undisturbed.reboot(Loss::DropUnsynced));
    let keys: Vec<&[u8]> = expected.iter().map(|row| &row.key[..]).collect();
    assert_eq!(keys, [b"a", b"c", b"d", b"e"]);

    for n in 1..=calls {
        for fault in [Fault::PowerCut, Fault::IoError, Fault::SyncLoses, Fault::TornWrite, Fault::NoSpace] {
            for loss in [Loss::DropUnsynced, Loss::KeepUnsynced, Loss::Torn { seed: n }] {
                let fs = damaged_directory();
                fs.fail_at(n, fault);
                let exit = repair(&fs);
                let rebooted = fs.reboot(loss);
                let case = format!("call {n} of {calls}, {fault:?}, {loss:?}, exit {exit}");
                if exit != 0 {
                    assert_eq!(exit, 64, "{case}");
                    assert_eq!(repair(&rebooted), 0, "{case}\n{}", fs.trace().join("\n"));
                }
                assert_eq!(start(&rebooted), expected, "{case}\n{}", fs.trace().join("\n"));
            }
        }
    }
}

#[test]
fn looking_at_a_directory_reads_nothing_before_it_has_the_lock_and_never_writes() {
    const READING: [&str; 8] = ["anchor", "kind", "list", "lock", "open", "len", "read", "map"];
    for words in [&["inspect"][..], &["inspect", "--json"], &["verify"], &["dump"], &["dump", "--live"]] {
        let fs = damaged_directory();
        let before = fs.files();
        let args = [&["tglogutil"], words, &["/db"]].concat();
        tglogutil::run(args, Arc::new(fs.clone()), &mut Vec::new());
        let trace = fs.trace();
        let calls: Vec<&str> = trace.iter().map(|call| call.split(' ').next().unwrap()).collect();
        let strange: Vec<_> = calls.iter().filter(|call| !READING.contains(call)).collect();
        assert!(strange.is_empty(), "{words:?}: {strange:?}");
        let lock = calls.iter().position(|call| *call == "lock").expect("a lock");
        assert!(!calls[..lock].iter().any(|call| ["open", "read", "map"].contains(call)), "{words:?}: {trace:?}");
        assert!(calls[lock..].contains(&"map"), "{words:?}: {trace:?}");
        assert_eq!(fs.files(), before, "{words:?}");
    }
}
