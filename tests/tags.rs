// SPDX-License-Identifier: Apache-2.0
//! Epoch tags on a disk that fails: what was registered is there, what was removed is gone, and nothing that happens to
//! their file concerns the data.

use limestone_core::datastore::{Datastore, EpochTag, Settings};
use limestone_core::error::{Error, Result};
use limestone_core::types::Epoch;
use limestone_core::vfs::{Fault, Loss, SimFs};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

const FILE: &str = "/log/limestone-tags.json";

fn open(fs: &SimFs) -> Arc<Datastore> {
    Datastore::open(Settings::new("/log").vfs(Arc::new(fs.clone()))).unwrap()
}

fn names(store: &Datastore) -> BTreeSet<String> {
    store.tags().into_iter().map(|tag| tag.name).collect()
}

/// One step of a history: a tag and whether it is registered or removed.
const STEPS: [(&str, bool); 6] = [("a", true), ("b", true), ("a", false), ("c", true), ("a", true), ("b", false)];

fn take(store: &Datastore, (name, register): (&str, bool)) -> Result<bool> {
    match register {
        true => store.register_tag(name, "a comment"),
        false => store.unregister_tag(name),
    }
}

/// The names after the first `count` steps.
fn after(count: usize) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (name, register) in &STEPS[..count] {
        match register {
            true => names.insert((*name).to_owned()),
            false => names.remove(*name),
        };
    }
    names
}

#[test]
fn power_cut_at_every_call_leaves_each_change_made_or_not_made() {
    for fault in [Fault::PowerCut, Fault::IoError, Fault::SyncLoses, Fault::NoSpace, Fault::TornWrite] {
        let mut cases = 0;
        for n in 1.. {
            let fs = SimFs::new();
            let store = open(&fs);
            fs.fail_at(fs.operations() + n, fault);
            let done = STEPS.iter().take_while(|step| take(&store, **step).is_ok_and(|changed| changed)).count();
            if !fs.has_failed() {
                assert_eq!(done, STEPS.len());
                break;
            }
            cases += 1;
            assert!(done < STEPS.len(), "call {n}: the failure was swallowed");
            assert_eq!(names(&store), after(done), "call {n}: memory has what was confirmed");
            drop(store);
            for loss in [Loss::DropUnsynced, Loss::KeepUnsynced, Loss::Torn { seed: n }, Loss::Torn { seed: n + 1000 }]
            {
                let fs = fs.reboot(loss);
                let store = open(&fs);
                let found = names(&store);
                let allowed = [after(done), after(done + 1)];
                assert!(allowed.contains(&found), "{fault:?} at call {n}, {loss:?}: {found:?}, expected {allowed:?}");
                assert!(store.register_tag("later", "").unwrap());
                store.ready().unwrap();
            }
        }
        assert!(cases >= STEPS.len() as u64 * 4, "only {cases} calls");
    }
}

#[test]
fn a_failed_change_can_be_repeated_and_stops_nothing() {
    let fs = SimFs::new();
    let store = open(&fs);
    store.ready().unwrap();
    fs.fail_at(fs.operations() + 2, Fault::IoError);
    assert!(matches!(store.register_tag("a", ""), Err(Error::Io { .. })));
    assert!(store.register_tag("a", "").unwrap());
    store.switch_epoch(Epoch(1)).unwrap();
    store.switch_epoch(Epoch(2)).unwrap();
    assert_eq!(store.last_epoch(), Epoch(1));
}

#[test]
fn every_kind_of_damage_is_put_aside_under_a_name_of_its_own() {
    let fs = SimFs::new();
    let store = open(&fs);
    store.register_tag("kept", "words").unwrap();
    drop(store);
    let whole = fs.files()[Path::new(FILE)].clone();
    let text = String::from_utf8(whole.clone()).unwrap();
    let damages = [
        Vec::new(),
        whole[..whole.len() / 2].to_vec(),
        vec![0; whole.len()],
        text.replace("words", "sword").into_bytes(),
        text.replace("\"format_version\": 1", "\"format_version\": 2").into_bytes(),
    ];
    for (k, damage) in damages.iter().enumerate() {
        assert_ne!(*damage, whole);
        fs.put(Path::new(FILE), damage).unwrap();
        let store = open(&fs);
        assert_eq!(store.tags(), Vec::<EpochTag>::new());
        store.ready().unwrap();
        assert!(store.register_tag("new", "").unwrap());
        drop(store);
        assert_eq!(fs.files()[Path::new(&format!("{FILE}.damaged.{k}"))], *damage);
        assert_eq!(names(&open(&fs)), BTreeSet::from(["new".to_owned()]));
    }
}

#[test]
fn a_file_that_cannot_be_read_is_not_written_over() {
    let fs = SimFs::new();
    let store = open(&fs);
    store.register_tag("kept", "").unwrap();
    drop(store);
    let reads_tags = |fs: &SimFs| fs.trace().iter().position(|call| call.contains("limestone-tags.json"));
    let image = fs.reboot(Loss::KeepUnsynced);
    open(&image);
    let call = reads_tags(&image).unwrap() as u64 + 1;
    let image = fs.reboot(Loss::KeepUnsynced);
    image.fail_at(call, Fault::IoError);
    let store = open(&image);
    assert!(image.has_failed());
    assert!(store.tags().is_empty());
    assert!(matches!(store.register_tag("new", ""), Err(Error::WrongState(_))));
    store.ready().unwrap();
    drop(store);
    assert_eq!(names(&open(&image)), BTreeSet::from(["kept".to_owned()]));
}

#[test]
fn so_many_tags_that_a_start_would_not_read_them_are_refused() {
    let fs = SimFs::new();
    let store = open(&fs);
    assert!(store.register_tag("small", "").unwrap());
    let large = "x".repeat(17 << 20);
    assert!(matches!(store.register_tag("large", &large), Err(Error::InvalidArgument(_))));
    drop(store);
    assert_eq!(names(&open(&fs)), BTreeSet::from(["small".to_owned()]));
}
