// SPDX-License-Identifier: Apache-2.0
//! Random histories against a model of a few lines: what is read after a restart is what was acknowledged, and what
//! was not acknowledged can be torn in any way without keeping the directory from opening.

mod engine_run;
mod golden_data;
mod start_model;
mod upstream_checker;

use engine_run::{drain, open, quick_dir, rows, start};
use golden_data::{copy_tree, Row};
use limestone_core::datastore::{Datastore, Settings};
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{FailurePersistence, FileFailurePersistence};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use upstream_checker::{session_violations, upstream_start};

const CHANNELS: usize = 3;

/// How many cases a property gets; `PROPERTY_FACTOR` in the environment multiplies it. A failure prints its smallest
/// input and is kept, with its seed, beside this file.
fn cases(count: u32) -> ProptestConfig {
    let factor =
        std::env::var("PROPERTY_FACTOR").map_or(1, |factor| factor.parse().expect("PROPERTY_FACTOR: a number"));
    ProptestConfig { cases: count * factor, failure_persistence: failures(), ..ProptestConfig::default() }
}

fn failures() -> Option<Box<dyn FailurePersistence>> {
    Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions")))
}

#[derive(Clone, Debug)]
enum Op {
    Begin(usize),
    End(usize),
    Put { channel: usize, storage: u64, key: Vec<u8>, value: Vec<u8>, version: (u64, u64) },
    Remove { channel: usize, storage: u64, key: Vec<u8>, version: (u64, u64) },
    Clear { channel: usize, storage: u64, version: (u64, u64), whole_storage: bool },
    AddStorage { channel: usize, storage: u64, version: (u64, u64) },
    Switch,
    Rotate,
}

fn storage() -> impl Strategy<Value = u64> {
    prop::sample::select(vec![0, 1, 2, 255, 256, 257, 1 << 56, u64::MAX])
}

/// Short keys over few letters, so that keys meet and are prefixes of each other; sometimes longer ones.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(prop::sample::select(vec![0u8, b'a', b'b', 0xff]), 0..4),
        1 => vec(any::<u8>(), 14..40),
        1 => (0u8..4).prop_map(|end| [b"the same sixteen bytes and".as_slice(), &[end]].concat()),
    ]
}

/// Few versions, so that ties happen; the upper half of minor is that of long transactions.
fn version() -> impl Strategy<Value = (u64, u64)> {
    (0u64..4, prop::sample::select(vec![0, 1, 2, 1 << 63, u64::MAX]))
}

fn op() -> impl Strategy<Value = Op> {
    let channel = 0..CHANNELS;
    prop_oneof![
        4 => channel.clone().prop_map(Op::Begin),
        3 => channel.clone().prop_map(Op::End),
        20 => (channel.clone(), storage(), key(), vec(any::<u8>(), 0..50), version()).prop_map(
            |(channel, storage, key, value, version)| Op::Put { channel, storage, key, value, version }
        ),
        6 => (channel.clone(), storage(), key(), version())
            .prop_map(|(channel, storage, key, version)| Op::Remove { channel, storage, key, version }),
        1 => (channel.clone(), storage(), version(), any::<bool>()).prop_map(
            |(channel, storage, version, whole_storage)| Op::Clear { channel, storage, version, whole_storage }
        ),
        1 => (channel, storage(), version())
            .prop_map(|(channel, storage, version)| Op::AddStorage { channel, storage, version }),
        3 => Just(Op::Switch),
        1 => Just(Op::Rotate),
    ]
}

/// A write or a clear that was handed to the engine.
#[derive(Clone, Debug)]
struct Write {
    version: (u64, u64),
    /// Breaks ties between equal versions: later in a file wins, then the file whose name is later.
    place: (usize, usize),
    storage: u64,
    key: Vec<u8>,
    /// `None` for a removal.
    value: Option<Vec<u8>>,
}

/// What must be there: the newest write of each key, unless it is a removal or older than a clear of its storage.
#[derive(Default)]
struct Model {
    writes: Vec<Write>,
    clears: HashMap<u64, (u64, u64)>,
}

impl Model {
    fn rows(&self) -> Vec<Row> {
        let mut newest: BTreeMap<([u8; 8], &[u8]), &Write> = BTreeMap::new();
        for write in &self.writes {
            let held = newest.entry((write.storage.to_le_bytes(), &write.key)).or_insert(write);
            if (write.version, write.place) > (held.version, held.place) {
                *held = write;
            }
        }
        let hidden = |w: &Write| self.clears.get(&w.storage).is_some_and(|clear| w.version < *clear);
        let live = newest.into_values().filter(|write| !hidden(write));
        live.filter_map(|w| Some(Row { storage: w.storage, key: w.key.clone(), value: w.value.clone()? })).collect()
    }
}

fn wv(version: (u64, u64)) -> WriteVersion {
    WriteVersion { major: version.0, minor: version.1 }
}

/// Runs a history from `first_epoch` on, ends all sessions and makes them durable.
fn run(dir: &Path, ops: &[Op], rotate: bool) -> Model {
    let store = Datastore::open(Settings::new(dir)).unwrap();
    let channels: Vec<_> = (0..CHANNELS).map(|_| store.create_channel().unwrap()).collect();
    store.ready().unwrap();
    let mut model = Model::default();
    let mut open = [false; CHANNELS];
    let mut epoch = store.last_epoch().0 + 1;
    store.switch_epoch(Epoch(epoch)).unwrap();
    for (at, op) in ops.iter().enumerate() {
        let mut ensure_open = |channel: usize| {
            if !std::mem::replace(&mut open[channel], true) {
                channels[channel].begin_session().unwrap();
            }
        };
        match op.clone() {
            Op::Begin(channel) => ensure_open(channel),
            Op::End(channel) => {
                if std::mem::take(&mut open[channel]) {
                    channels[channel].end_session().unwrap();
                }
            }
            Op::Put { channel, storage, key, value, version } => {
                ensure_open(channel);
                channels[channel].add_entry(StorageId(storage), &key, &value, wv(version), &[]).unwrap();
                model.writes.push(Write { version, place: (channel, at), storage, key, value: Some(value) });
            }
            Op::Remove { channel, storage, key, version } => {
                ensure_open(channel);
                channels[channel].remove_entry(StorageId(storage), &key, wv(version)).unwrap();
                model.writes.push(Write { version, place: (channel, at), storage, key, value: None });
            }
            Op::Clear { channel, storage, version, whole_storage } => {
                ensure_open(channel);
                if whole_storage {
                    channels[channel].remove_storage(StorageId(storage), wv(version)).unwrap();
                } else {
                    channels[channel].truncate_storage(StorageId(storage), wv(version)).unwrap();
                }
                let clear = model.clears.entry(storage).or_default();
                *clear = version.max(*clear);
            }
            Op::AddStorage { channel, storage, version } => {
                ensure_open(channel);
                channels[channel].add_storage(StorageId(storage), wv(version)).unwrap();
            }
            Op::Switch => {
                epoch += 1;
                store.switch_epoch(Epoch(epoch)).unwrap();
            }
            Op::Rotate if rotate => store.rotate().unwrap(),
            Op::Rotate => {}
        }
    }
    for (channel, _) in channels.iter().zip(open).filter(|(_, open)| *open) {
        channel.end_session().unwrap();
    }
    store.switch_epoch(Epoch(epoch + 1)).unwrap();
    assert!(store.last_epoch() >= Epoch(epoch), "all sessions have ended, so the epoch is durable");
    store.shutdown();
    model
}

/// Rotation gives files names that sort differently, so a tie between a rotated and a later file has no fixed winner.
fn without_ties(mut ops: Vec<Op>) -> Vec<Op> {
    for (at, op) in ops.iter_mut().enumerate() {
        if let Op::Put { version, .. } | Op::Remove { version, .. } | Op::Clear { version, .. } = op {
            version.1 = (version.1 & 1 << 63) + at as u64;
        }
    }
    ops
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn after_a_restart_a_cursor_gives_what_the_model_says(ops in vec(op(), 0..200), threads in 1usize..9) {
        let dir = quick_dir();
        let model = run(dir.path(), &ops, false);
        let found = start(dir.path(), threads).unwrap();
        prop_assert_eq!(&found.rows, &model.rows());
        prop_assert_eq!(&found.warnings, &Vec::<String>::new());
    }

    #[test]
    fn rotation_and_two_lives_change_nothing_and_the_original_reads_the_same(
        ops in vec(op(), 0..150),
        more in vec(op(), 0..60),
    ) {
        let dir = quick_dir();
        let all = without_ties([ops.clone(), more].concat());
        let (ops, more) = all.split_at(ops.len());
        let mut model = run(dir.path(), ops, true);
        let second = run(dir.path(), more, true);
        model.writes.extend(second.writes);
        for (storage, version) in second.clears {
            let clear = model.clears.entry(storage).or_default();
            *clear = version.max(*clear);
        }
        prop_assert_eq!(session_violations(dir.path()), Vec::<String>::new());
        let upstream = upstream_start(dir.path()).unwrap();
        let found = start(dir.path(), 2).unwrap();
        prop_assert_eq!(&found.rows, &model.rows());
        prop_assert_eq!(&upstream.rows, &found.rows);
    }

    #[test]
    fn partitioned_cursors_give_every_entry_once_each_in_order(ops in vec(op(), 0..150), n in 1usize..12) {
        let dir = quick_dir();
        run(dir.path(), &ops, false);
        let (store, _) = open(dir.path(), 2).unwrap();
        let snapshot = store.snapshot().unwrap();
        let parts: Vec<Vec<Row>> = snapshot.partitioned_cursors(n).unwrap().into_iter().map(drain).collect();
        prop_assert_eq!(parts.len(), n);
        let place = |row: &Row| (row.storage.to_le_bytes(), row.key.clone());
        for part in &parts {
            prop_assert!(part.windows(2).all(|two| place(&two[0]) < place(&two[1])));
        }
        let mut union: Vec<Row> = parts.concat();
        union.sort_by_key(place);
        prop_assert_eq!(union, rows(&snapshot));
        prop_assert!(snapshot.partitioned_cursors(n).is_err(), "a snapshot is partitioned once");
        store.shutdown();
    }
}

/// What happens to the bytes of one file that no acknowledgement covers.
#[derive(Clone, Debug)]
enum Tear {
    Keep,
    /// Cut after this share (of 65536) of the tail.
    Truncate(u16),
    /// Zeros from the first sector behind this share of the tail on.
    Zeros(u16),
    /// Sectors (by number modulo the number of sectors of the file) that never reached the disk.
    LostSectors(Vec<u8>),
    /// A bit flip in the value of an entry.
    FlipInValue {
        entry: u8,
        bit: u8,
    },
}

fn tear() -> impl Strategy<Value = Tear> {
    prop_oneof![
        1 => Just(Tear::Keep),
        4 => any::<u16>().prop_map(Tear::Truncate),
        4 => any::<u16>().prop_map(Tear::Zeros),
        4 => vec(any::<u8>(), 1..6).prop_map(Tear::LostSectors),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(entry, bit)| Tear::FlipInValue { entry, bit }),
    ]
}

/// Bytes of keys and values are at least 0x80, and so are the low bytes of epochs, versions and storages: no parse that
/// lost its step can mistake them for a tag, which a format without checksums could not tell from a marker.
const HIGH: u64 = 0x8080_8080_8080_8080;
const FIRST_EPOCH: u64 = 0x9080;
const SECTOR: usize = 512;

/// Applies `tear` to everything behind the first `durable_len` bytes. `values` are places inside values.
fn apply(tear: &Tear, bytes: &mut Vec<u8>, durable_len: usize, values: &[usize]) {
    let tail = bytes.len() - durable_len;
    let share = |part: u16| durable_len + tail * usize::from(part) / 65536;
    match tear {
        Tear::Keep => {}
        Tear::Truncate(part) => bytes.truncate(share(*part)),
        Tear::Zeros(part) => {
            let sector = share(*part).next_multiple_of(SECTOR);
            let from = sector.min(bytes.len());
            bytes[from..].fill(0);
        }
        Tear::LostSectors(sectors) => {
            let count = bytes.len().div_ceil(SECTOR).max(1);
            for sector in sectors.iter().map(|sector| usize::from(*sector) % count) {
                let end = ((sector + 1) * SECTOR).min(bytes.len());
                bytes[(sector * SECTOR).max(durable_len).min(end)..end].fill(0);
            }
        }
        Tear::FlipInValue { entry, bit } => {
            if let Some(at) = values.get(usize::from(*entry) % values.len().max(1)) {
                bytes[*at] ^= 1 << (bit % 8);
            }
        }
    }
}

/// Places of the first byte of each non-empty value behind `from`.
fn value_places(bytes: &[u8], from: usize) -> Vec<usize> {
    use upstream_checker::format::{token, Token};
    let (mut places, mut at) = (Vec::new(), 0);
    loop {
        match token(bytes, at) {
            (Token::Data(entry), next) => {
                if at >= from && !entry.value.is_empty() {
                    places.push(next - entry.value.len());
                }
                at = next;
            }
            (Token::Begin(_) | Token::End { .. } | Token::Invalidated(_), next) => at = next,
            _ => return places,
        }
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn a_torn_tail_that_was_never_acknowledged_always_opens_with_exactly_what_was(
        durable in vec(1usize..6, 1..4),
        sessions in vec((0usize..12, 1usize..120), 1..4),
        tears in vec(tear(), CHANNELS),
        rotate in any::<bool>(),
    ) {
        let dir = quick_dir();
        let store = Datastore::open(Settings::new(dir.path())).unwrap();
        let channels: Vec<_> = (0..CHANNELS).map(|_| store.create_channel().unwrap()).collect();
        store.ready().unwrap();
        let mut expected = Vec::new();
        let mut serial = 0u64;
        let mut write = |channel: usize, epoch: u64, entries: usize, value_len: usize| {
            channels[channel].begin_session().unwrap();
            let mut written = Vec::new();
            for _ in 0..entries {
                serial += 1;
                let key: Vec<u8> = (0..4).map(|digit| 0x80 + (serial >> (6 * (3 - digit)) & 0x3f) as u8).collect();
                let value = vec![0xaa; value_len];
                let version = WriteVersion { major: HIGH + epoch, minor: HIGH + serial };
                channels[channel].add_entry(StorageId(HIGH), &key, &value, version, &[]).unwrap();
                written.push(Row { storage: HIGH, key, value });
            }
            channels[channel].end_session().unwrap();
            written
        };
        let mut epoch = FIRST_EPOCH;
        for entries in &durable {
            store.switch_epoch(Epoch(epoch)).unwrap();
            for channel in 0..CHANNELS {
                expected.extend(write(channel, epoch, *entries, 20));
            }
            epoch += 1;
        }
        store.switch_epoch(Epoch(epoch)).unwrap();
        assert_eq!(store.last_epoch(), Epoch(epoch - 1));
        let log = |channel: usize| format!("pwal_{channel:04}");
        let durable_len: Vec<usize> = (0..CHANNELS)
            .map(|channel| fs::metadata(dir.path().join(log(channel))).map_or(0, |m| m.len() as usize))
            .collect();
        // All of these belong to an epoch that is never switched away, so nobody was told that they are durable.
        for (entries, value_len) in &sessions {
            for channel in 0..CHANNELS {
                write(channel, epoch, *entries, *value_len);
            }
        }
        let image = quick_dir();
        copy_tree(dir.path(), image.path());
        store.shutdown();
        for (channel, tear) in tears.iter().enumerate() {
            let path = image.path().join(log(channel));
            let mut bytes = fs::read(&path).unwrap();
            let values = value_places(&bytes, durable_len[channel]);
            apply(tear, &mut bytes, durable_len[channel], &values);
            let path = if rotate { path.with_file_name(format!("{}.00000000000001.0", log(channel))) } else { path };
            if rotate {
                fs::remove_file(image.path().join(log(channel))).unwrap();
            }
            fs::write(path, bytes).unwrap();
        }
        expected.sort();
        let found = start(image.path(), 2).unwrap();
        prop_assert_eq!(&found.rows, &expected);
        let again = start(image.path(), 2).unwrap();
        prop_assert_eq!(&again.rows, &expected, "the second start");
        prop_assert!(again.warnings.iter().all(|w| w.contains("end marker")), "{:?}", again.warnings);
        prop_assert_eq!(upstream_start(image.path()).unwrap().rows, expected, "the original");
    }

    #[test]
    fn whatever_the_original_opens_opens_with_the_same_entries(
        case in any::<prop::sample::Index>(),
        changes in vec(
            (any::<prop::sample::Index>(), prop::sample::select(vec![0u8, 1, 2, 3, 5, 6, 15, 16, 17, 255])),
            0..4,
        ),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let cases: Vec<_> =
            golden_data::parse_matrix().into_iter().chain(golden_data::repaired_parse_matrix()).collect();
        let index = case.index(cases.len());
        let mut case = cases.into_iter().nth(index).unwrap();
        for (at, byte) in changes {
            if !case.pwal.is_empty() {
                let at = at.index(case.pwal.len());
                case.pwal[at] = byte;
            }
        }
        if cut {
            let length = length.index(case.pwal.len() + 1);
            case.pwal.truncate(length);
        }
        let dir = quick_dir();
        case.write_to(dir.path());
        let model = start_model::outcome(dir.path());
        let upstream = upstream_start(dir.path());
        let found = start(dir.path(), 1);
        if let Ok(upstream) = &upstream {
            if matches!(model, start_model::Outcome::Opens(_)) {
                prop_assert_eq!(&found.as_ref().unwrap().rows, &upstream.rows);
            }
        }
        match (model, found) {
            (start_model::Outcome::Opens(model), Ok(found)) => {
                prop_assert_eq!(&found.rows, &model.rows);
                prop_assert_eq!(found.last_epoch, model.last_epoch);
            }
            (start_model::Outcome::Refused(_), Err(_)) => {}
            (model, found) => prop_assert!(false, "{:?}, expected {:?}", found, model),
        }
    }
}

/// A change to one file of a directory.
#[derive(Clone, Debug)]
enum Damage {
    Byte { at: prop::sample::Index, byte: u8 },
    Flip { at: prop::sample::Index, bit: u8 },
    Truncate(prop::sample::Index),
    AppendZeros(usize),
    ZeroSector(prop::sample::Index),
    Remove,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), 0u8..12).prop_map(|(at, byte)| Damage::Byte { at, byte }),
        4 => (any::<prop::sample::Index>(), 0u8..8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        4 => any::<prop::sample::Index>().prop_map(Damage::Truncate),
        2 => (1usize..600).prop_map(Damage::AppendZeros),
        2 => any::<prop::sample::Index>().prop_map(Damage::ZeroSector),
        1 => Just(Damage::Remove),
    ]
}

impl Damage {
    fn inflict(&self, path: &Path) {
        let Ok(mut bytes) = fs::read(path) else { return };
        match self {
            Damage::Byte { at, byte } if !bytes.is_empty() => *at.get_mut(&mut bytes) = *byte,
            Damage::Flip { at, bit } if !bytes.is_empty() => *at.get_mut(&mut bytes) ^= 1 << bit,
            Damage::Truncate(at) => bytes.truncate(at.index(bytes.len() + 1)),
            Damage::AppendZeros(count) => bytes.resize(bytes.len() + count, 0),
            Damage::ZeroSector(at) => {
                let from = at.index(bytes.len().div_ceil(SECTOR).max(1)) * SECTOR;
                let to = (from + SECTOR).min(bytes.len());
                bytes[from..to].fill(0);
            }
            Damage::Remove => return fs::remove_file(path).unwrap(),
            _ => {}
        }
        fs::write(path, bytes).unwrap();
    }
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn a_damaged_directory_opens_as_the_recovery_table_says_or_is_refused_untouched(
        case in any::<prop::sample::Index>(),
        damages in vec((any::<prop::sample::Index>(), damage()), 1..4),
        threads in 1usize..5,
    ) {
        let cases = golden_data::cases();
        let dir = quick_dir();
        case.get(&cases).copy_to(dir.path());
        let metadata = |path: &Path| {
            let name = path.to_string_lossy().into_owned();
            name.starts_with("limestone-manifest") || name.starts_with("compaction_catalog")
        };
        // An entry of the compacted file has no version to speak of; one that damage has given it has no fixed meaning.
        let (mut metadata_damaged, mut compacted_damaged) = (false, false);
        for (file, damage) in damages {
            let tree = golden_data::tree(dir.path());
            let files: Vec<_> = tree.keys().filter(|path| path.components().count() == 1).collect();
            if !files.is_empty() {
                let file = files[file.index(files.len())];
                metadata_damaged |= metadata(file);
                compacted_damaged |= file.starts_with("pwal_0000.compacted");
                damage.inflict(&dir.path().join(file));
            }
        }
        let before = golden_data::tree(dir.path());
        let model = start_model::outcome(dir.path());
        match start(dir.path(), threads) {
            Ok(found) => {
                if let start_model::Outcome::Opens(model) = &model {
                    prop_assert!(found.rows == model.rows || compacted_damaged, "{:?}, not {:?}", found, model);
                    prop_assert_eq!(found.last_epoch, model.last_epoch);
                } else {
                    prop_assert!(metadata_damaged, "opened, expected {:?}", model);
                }
                let again = start(dir.path(), threads).unwrap();
                prop_assert_eq!((&again.rows, again.last_epoch), (&found.rows, found.last_epoch), "the second start");
                let upstream = upstream_start(dir.path());
                prop_assert!(upstream.is_ok(), "the original refuses what is left: {:?}", upstream);
                // The original reads a previous compacted file like a log; the log proper wins here among equal
                // versions.
                let exists = |name: &str| dir.path().join(name).exists();
                let read_as_log = exists("pwal_0000.compacted.prev") && !exists("pwal_0000.compacted");
                let same = upstream.as_ref().unwrap().rows == found.rows || compacted_damaged || read_as_log;
                prop_assert!(same, "the original reads something else: {:?}, not {:?}", upstream, found);
            }
            Err(message) => {
                prop_assert!(matches!(model, start_model::Outcome::Refused(_)) || metadata_damaged, "{}", message);
                let after = golden_data::tree(dir.path());
                // The manifest and the catalog are restored from their backups before the log is read.
                let kept = |path: &Path| !metadata(path) && path != Path::new(".epoch.tmp");
                for (path, bytes) in before.iter().filter(|(path, _)| kept(path)) {
                    prop_assert!(
                        after.get(path) == Some(bytes), "refused, but {} changed: {}", path.display(), message);
                }
            }
        }
    }
}

#[test]
fn the_models_see_the_same_keys() {
    // Guards the comparison itself: an empty expectation would satisfy every property above.
    let put = |key: &[u8], at| Op::Put { channel: 0, storage: 1, key: key.into(), value: vec![at], version: (1, 0) };
    let dir = quick_dir();
    let model = run(dir.path(), &[put(b"", 1), put(b"a", 2), put(b"a", 3)], false);
    let keys: BTreeSet<_> = model.rows().into_iter().map(|row| (row.key, row.value)).collect();
    assert_eq!(keys, BTreeSet::from([(vec![], vec![1]), (vec![b'a'], vec![3])]));
}
