// SPDX-License-Identifier: Apache-2.0
//! Power cuts for real programs on the real disk: an engine, `tgreplica`, `tglogutil` and the mini engine run under
//! strace; what they did is done again on the simulated disk, which makes from every prefix of it images that a power
//! cut may leave; each is opened and compared with what had been acknowledged at that moment. So the layer over the
//! real disk, the order of the calls and the programs' own files are under test, and not only what runs on the
//! simulation.

#[path = "../commits/mod.rs"]
#[allow(dead_code)]
mod commits;
mod judge;
#[path = "../ports/mod.rs"]
mod ports;
mod recording;
mod replay;
mod workload;

use judge::Journal;
use limestone_core::replication::promotion::promote;
use limestone_core::vfs::{Loss, SimFs};
use recording::Step;
use replay::Replay;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use workload::{Kind, DIRECTORY, JOURNAL, KIND};

/// About so many images are made of each recording. `LIMESTONE_TEST_FACTOR` multiplies it.
const IMAGES: usize = 400;

/// The entry of the recorded process; an ordinary run of the tests has nothing to do here.
#[test]
fn recorded_process() {
    workload::run_if_told();
}

/// A place for one test: a data directory, the journal of what was acknowledged, and the recording.
struct Place {
    folder: tempfile::TempDir,
    directory: PathBuf,
    journal: PathBuf,
}

struct Recorded {
    _folder: tempfile::TempDir,
    directory: PathBuf,
    steps: Vec<Step>,
    lines: Vec<(usize, String)>,
    before: Replay,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        Place { directory: root.join("log"), journal: root.join("journal"), folder }
    }

    fn told(&self, command: &mut Command, kind: Kind) {
        command.args(["--exact", "recorded_process", "--nocapture"]);
        command.env(KIND, kind.name()).env(DIRECTORY, &self.directory).env(JOURNAL, &self.journal);
    }

    /// Runs a workload without recording it.
    fn prepare(self, kind: Kind) -> Place {
        let mut command = Command::new(std::env::current_exe().unwrap());
        self.told(&mut command, kind);
        run(&mut command);
        self
    }

    /// Records a workload of this program.
    fn record(self, kind: Kind, watched: &Path) -> Recorded {
        self.record_program(&std::env::current_exe().unwrap(), watched, |place, command| place.told(command, kind))
    }

    /// Records a program. The steps in `watched` count.
    fn record_program(self, program: &Path, watched: &Path, set_up: impl FnOnce(&Place, &mut Command)) -> Recorded {
        let recording = self.folder.path().join("recording");
        let known = std::fs::read_to_string(&self.journal).unwrap_or_default();
        let mut lines: Vec<(usize, String)> = known.lines().map(|line| (0, line.to_owned())).collect();
        let before = Replay::new(watched);
        let mut command = recording::record(program, &recording);
        set_up(&self, &mut command);
        run(&mut command);
        let (steps, recorded) = recording::read(&recording, watched, &self.journal);
        lines.extend(recorded);
        Recorded { _folder: self.folder, directory: watched.to_owned(), steps, lines, before }
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e} (strace is needed)"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{}", text(&output.stdout), text(&output.stderr));
}

impl Recorded {
    /// Makes images and lets `check` judge each, with the journal as it was then. Says how many there were.
    fn judge(mut self, name: &str, check: impl Fn(&SimFs, &Path, &Journal) -> Result<(), String>) {
        let factor: usize = std::env::var("LIMESTONE_TEST_FACTOR").map_or(1, |factor| factor.parse().unwrap());
        let (mut journal, mut lines, mut images) = (Journal::default(), self.lines.iter().peekable(), 0);
        let every = (2 * self.steps.len()).div_ceil(IMAGES * factor).max(1);
        let torn = (IMAGES * factor).div_ceil(self.steps.len()).clamp(2, 64) as u64 - 1;
        for (at, step) in self.steps.iter().enumerate() {
            self.before.step(step);
            while let Some((_, line)) = lines.next_if(|(done, _)| *done <= at + 1) {
                journal.take(line);
            }
            if at % every != 0 && at + 1 != self.steps.len() {
                continue;
            }
            let seed = |n: u64| Loss::Torn { seed: (at as u64 + (n << 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) };
            for loss in std::iter::once(Loss::DropUnsynced).chain((0..torn).map(seed)) {
                images += 1;
                let image = self.before.fs().reboot(loss);
                if let Err(message) = check(&image, &self.directory, &journal) {
                    let last: Vec<String> =
                        self.steps[at.saturating_sub(40)..=at].iter().map(Step::to_string).collect();
                    panic!("{name}: after step {at} with {loss:?}: {message}\n{}", last.join("\n"));
                }
            }
        }
        // The runner of the tests hides what is printed by its own means.
        let said = format!("crash images, {name}: {} recorded steps, {images} images\n", self.steps.len());
        std::io::stdout().write_all(said.as_bytes()).unwrap();
        assert!(journal.stored > 0, "{name}: nothing was acknowledged");
        assert!(images > IMAGES / 2, "{name}: only {images} images from {} steps", self.steps.len());
    }
}

fn stored(image: &SimFs, directory: &Path, journal: &Journal) -> Result<(), String> {
    match journal.stored {
        // Not even the directory need be there.
        0 if !image.files().keys().any(|path| path.starts_with(directory)) => Ok(()),
        stored => judge::check(image, directory, journal, stored),
    }
}

/// Records a workload on a new directory.
fn record(kind: Kind) -> Recorded {
    let place = Place::new();
    let directory = place.directory.clone();
    place.record(kind, &directory)
}

#[test]
fn power_cut_while_an_engine_writes_loses_nothing_acknowledged() {
    record(Kind::Sessions).judge("engine", stored);
}

#[test]
fn power_cut_while_an_engine_starts_again_and_writes_loses_nothing_acknowledged() {
    let place = Place::new().prepare(Kind::Rotations);
    let directory = place.directory.clone();
    place.record(Kind::Sessions, &directory).judge("restart", stored);
}

#[test]
fn power_cut_while_an_engine_rotates_loses_nothing_acknowledged() {
    record(Kind::Rotations).judge("rotations", stored);
}

#[test]
fn power_cut_while_an_engine_compacts_loses_nothing_acknowledged() {
    record(Kind::Compactions).judge("compactions", stored);
}

#[test]
fn power_cut_beside_a_backup_leaves_the_directory_and_all_that_the_backup_lists() {
    record(Kind::Backups).judge("backups", |image, directory, journal| {
        // A start may rename what is listed, so the copy is made first.
        let copy = journal.backup.as_ref().map(|(epoch, files)| (*epoch, judge::copied(image, directory, files)));
        stored(image, directory, journal)?;
        match copy {
            Some((epoch, copy)) => {
                judge::check(&copy?, directory, journal, epoch).map_err(|e| format!("the copy: {e}"))
            }
            None => Ok(()),
        }
    });
}

fn propagated(image: &SimFs, directory: &Path, journal: &Journal) -> Result<(), String> {
    match journal.propagated {
        0 => Ok(()),
        propagated => match judge::check(image, directory, journal, propagated) {
            // It joined a primary that had something already, and was cut off before it had all of that: no engine
            // starts on it unasked. Whoever forces it finds everything that was PROPAGATED.
            Err(refused) if refused.contains("when it began to be filled") => {
                promote(Arc::new(image.clone()), directory, true, None).map_err(|e| format!("{refused}; {e}"))?;
                judge::check(image, directory, journal, propagated)
            }
            checked => checked,
        },
    }
}

fn record_replica(place: Place) -> Recorded {
    let replica = workload::replica_of(&place.directory);
    let recorded = place.record(Kind::Pair, &replica);
    assert!(recorded.lines.iter().any(|(_, line)| line.starts_with("propagated")), "nothing was propagated");
    recorded
}

#[test]
fn power_cut_of_a_replica_loses_nothing_propagated() {
    record_replica(Place::new()).judge("replica", propagated);
}

#[test]
fn power_cut_of_a_replica_that_gets_a_base_sync_loses_nothing_propagated() {
    record_replica(Place::new().prepare(Kind::Compactions)).judge("base sync", propagated);
}

fn record_tglogutil(arguments: &[&str], damage: impl FnOnce(&Path)) -> Recorded {
    let place = Place::new().prepare(Kind::Compactions);
    let directory = place.directory.clone();
    damage(&directory);
    let program = Path::new(env!("CARGO_BIN_EXE_tglogutil"));
    // The work of a compaction is done in a folder beside the directory.
    let folder = directory.parent().unwrap().to_owned();
    let recorded = place.record_program(program, &folder, |place, command| {
        command.args(arguments).arg(&place.directory);
    });
    Recorded { directory, ..recorded }
}

#[test]
fn power_cut_while_tglogutil_compacts_loses_nothing() {
    record_tglogutil(&["compaction", "--force"], |_| {}).judge("tglogutil compaction", stored);
}

#[test]
fn power_cut_while_tglogutil_repairs_loses_nothing() {
    let damage = |directory: &Path| {
        let begin = [&[2][..], &(1u64 << 32).to_le_bytes(), &[1, 9]].concat();
        for name in ["pwal_0000", "pwal_0001", "pwal_0002"] {
            let file = std::fs::File::options().append(true).create(true).open(directory.join(name));
            file.unwrap().write_all(&begin).unwrap();
        }
    };
    record_tglogutil(&["repair"], damage).judge("tglogutil repair", stored);
}

/// The engine of the demo, a C++ program on the C++ headers. `scripts/test.sh` builds it first and names it here.
const MINI_ENGINE: &str = "LIMESTONE_MINI_ENGINE";

#[test]
fn power_cut_of_the_mini_engine_loses_nothing_acknowledged() {
    let Some(program) = std::env::var_os(MINI_ENGINE).map(PathBuf::from) else {
        let said = format!("NOT RUN: {MINI_ENGINE} does not name the mini engine; scripts/test.sh does\n");
        std::io::stdout().write_all(said.as_bytes()).unwrap();
        return;
    };
    let place = Place::new();
    let directory = place.directory.clone();
    let recorded = place.record_program(&program, &directory, |place, command| {
        command.arg("run").arg("--dir").arg(&place.directory).arg("--ack-file").arg(&place.journal);
        command.args(["--workers", "2", "--epoch-ms", "10", "--records", "2", "--seconds", "1"]);
    });
    recorded.judge("mini engine", |image, directory, journal| {
        if journal.acknowledgements.is_empty() {
            return Ok(());
        }
        let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
        image.store(folder.path()).map_err(|e| e.to_string())?;
        let acknowledged = folder.path().join("acknowledged");
        std::fs::write(&acknowledged, &journal.acknowledgements).map_err(|e| e.to_string())?;
        let copy = folder.path().join(directory.strip_prefix("/").unwrap());
        let mut verify = Command::new(&program);
        verify.arg("verify").arg("--dir").arg(copy).arg("--ack-file").arg(acknowledged);
        let output = verify.output().map_err(|e| e.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stdout).into_owned()),
        }
    });
}
