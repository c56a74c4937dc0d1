// SPDX-License-Identifier: Apache-2.0
//! Replays the fuzz corpora, and seeded mutations of them, with bounds on time and memory: no input makes the parsers
//! panic, hang, or allocate more than a fixed multiple of its size. The search for new inputs is `cargo fuzz run`.

#[path = "../fuzz/checks.rs"]
mod checks;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes that one parse may hold at a time: `ALLOCATION_FACTOR` for each byte of the input, and a constant.
const ALLOCATION_FACTOR: usize = 64;
const ALLOCATION_CONSTANT: usize = 64 * 1024;
/// A parse is linear in a few KiB; this only tells a hang from a slow machine.
const TIME_MAX: Duration = Duration::from_secs(5);
const MUTATIONS_PER_FILE: u64 = 1000;
const SEED: u64 = 0x6c69_6d65_7374_6f6e;

/// Counts the bytes that the calling thread holds, and the most it ever held.
struct Counting;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn grow(bytes: usize) {
    // The thread's own storage may be gone while it ends; what happens then is not measured.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        PEAK.with(|peak| peak.set(peak.get().max(held.get())));
    });
}

fn shrink(bytes: usize) {
    let _ = HELD.try_with(|held| held.set(held.get().saturating_sub(bytes)));
}

// SAFETY: every call is passed on to the system allocator unchanged; only sizes are counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        System.alloc(layout)
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        System.alloc_zeroed(layout)
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrink(layout.size());
        System.dealloc(pointer, layout)
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both blocks exist while the content moves.
        grow(size);
        shrink(layout.size());
        System.realloc(pointer, layout, size)
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A small generator (xorshift) so that a failing run can be repeated from the seed alone.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// Changes a few bytes, cuts, repeats or fills a part.
    fn mutate(&mut self, input: &[u8]) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len() + 1);
            match self.below(6) {
                0 => bytes.truncate(at),
                1 => bytes.extend(std::iter::repeat_n(0, self.below(64))),
                2 => bytes
                    .splice(at..at, [0x02, 0x03, 0x04, 0x05, 0x06, 0x0a].into_iter().skip(self.below(6)).take(1))
                    .for_each(drop),
                3 => bytes.extend_from_within(at..),
                4 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                _ if at < bytes.len() => bytes[at] = [0x00, 0x01, 0x7f, 0x80, 0xff][self.below(5)],
                _ => {}
            }
            bytes.truncate(64 * 1024);
        }
        bytes
    }
}

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus in {}", folder.display());
    let mut random = Random(SEED);
    for path in paths {
        let input = std::fs::read(&path).unwrap();
        bounded(check, &input, || path.display().to_string());
        for round in 0..MUTATIONS_PER_FILE {
            let mutated = random.mutate(&input);
            bounded(check, &mutated, || format!("{}, mutation {round} of seed {SEED:#x}", path.display()));
        }
    }
}

fn bounded(check: fn(&[u8]), input: &[u8], name: impl Fn() -> String) {
    let before = HELD.get();
    PEAK.set(before);
    let begin = Instant::now();
    if let Err(panic) = std::panic::catch_unwind(|| check(input)) {
        eprintln!("failing input: {}, bytes {}", name(), input.escape_ascii());
        std::panic::resume_unwind(panic);
    }
    let (time, allocated) = (begin.elapsed(), PEAK.get() - before);
    assert!(time < TIME_MAX, "{}: {time:?} for {} bytes", name(), input.len());
    let allocated_max = ALLOCATION_FACTOR * input.len() + ALLOCATION_CONSTANT;
    assert!(allocated <= allocated_max, "{}: {allocated} bytes held, at most {allocated_max} allowed", name());
}

#[test]
fn scanner_corpus_stays_within_bounds() {
    replay("scanner", checks::scanner);
}

#[test]
fn epoch_file_corpus_stays_within_bounds() {
    replay("epoch_file", checks::epoch_file);
}

#[test]
fn manifest_corpus_stays_within_bounds() {
    replay("manifest", checks::manifest);
}

#[test]
fn catalog_corpus_stays_within_bounds() {
    replay("catalog", checks::catalog);
}

#[test]
fn upstream_wire_corpus_stays_within_bounds() {
    replay("upstream_wire", checks::upstream_wire);
}

#[test]
fn native_wire_corpus_stays_within_bounds() {
    replay("native_wire", checks::native_wire);
}

#[test]
fn lengths_and_counts_that_exceed_a_message_are_not_allocated() {
    let log_entry = [&[0x11][..], &[0; 8], &[0xff; 4], &[10], &[0; 8]].concat();
    let lengths = [&log_entry[..], &[0xff; 4]].concat();
    let blobs = [&log_entry[..], &[0; 24], &[0xff; 4], &[0; 8], &[0xff; 4]].concat();
    let name = [&[0x20, 0][..], &[0xff; 4]].concat();
    for input in [log_entry, lengths, blobs, name] {
        bounded(checks::upstream_wire, &input, || input.escape_ascii().to_string());
    }
}

#[test]
fn lengths_that_exceed_the_file_are_not_allocated() {
    for tag in [0x01, 0x05, 0x0a] {
        let mut input = vec![0; checks::SCANNER_HEADER];
        input[1] = 9;
        input.extend([0x02, 5, 0, 0, 0, 0, 0, 0, 0, tag]);
        input.extend([0xff; 40]);
        bounded(checks::scanner, &input, || format!("tag {tag}"));
    }
}
