// SPDX-License-Identifier: Apache-2.0
//! What the process around the library may do: run without standard streams, change its working directory, use up its
//! descriptors. Each is done in a process of its own: this program again, told by its first argument what to do.

use limestone_core::datastore::{Channel, Datastore, Settings};
use limestone_core::error::Result;
use limestone_core::tglogutil;
use limestone_core::types::{Epoch, StorageId, WriteVersion};
use limestone_core::vfs::RealFs;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// What the child does in the directory of the test; its exit code is what it returns.
type Child = fn(&Path) -> i32;

const CASES: [(&str, Child); 5] = [
    ("no_descriptor_of_the_library_has_the_number_of_a_standard_stream", without_standard_streams),
    ("a_relative_location_stays_where_it_was_when_the_working_directory_changes", after_a_change_of_directory),
    ("a_burst_of_descriptors_elsewhere_in_the_process_stops_nothing", without_descriptors),
    ("a_file_that_must_not_grow_stops_acknowledgement_and_not_the_process", with_a_limit_on_the_size_of_files),
    ("tools_that_change_nothing_need_no_permission_to_write", without_permission_to_write),
];

/// Epochs that were written by every child.
const WRITTEN: &str = "written";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [marker, name, directory] = &arguments[..] {
        if marker == "--child" {
            let (_, child) = CASES.iter().find(|(case, _)| case == name).expect("a case");
            std::process::exit(child(Path::new(directory)));
        }
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    for (name, _) in CASES.iter().filter(|(name, _)| filter.is_none_or(|filter| name.contains(filter.as_str()))) {
        run(name);
        println!("test {name} ... ok");
    }
}

/// Runs the child and checks that all it acknowledged is there.
fn run(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let status = Command::new(program).args(["--child", name]).arg(folder.path()).status().unwrap();
    assert_eq!(status.code(), Some(0), "{name}");
    let written: usize = std::fs::read_to_string(folder.path().join(WRITTEN)).unwrap().parse().unwrap();
    let location = folder.path().join("log");
    std::fs::set_permissions(&location, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for entry in std::fs::read_dir(&location).unwrap() {
        std::fs::set_permissions(entry.unwrap().path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let store = Datastore::open(Settings::new(location)).unwrap();
    store.ready().unwrap();
    assert_eq!(store.snapshot().unwrap().len(), written, "{name}");
}

struct Engine {
    store: Arc<Datastore>,
    channels: Vec<Arc<Channel>>,
    epoch: u64,
}

impl Engine {
    fn start(location: &Path, channels: usize) -> Engine {
        let store = Datastore::open(Settings::new(location)).unwrap();
        let channels = (0..channels).map(|_| store.create_channel().unwrap()).collect();
        store.ready().unwrap();
        store.switch_epoch(Epoch(1)).unwrap();
        Engine { store, channels, epoch: 1 }
    }

    /// One entry in an epoch of its own, acknowledged.
    fn write(&mut self, channel: usize) -> Result<()> {
        let (channel, epoch) = (&self.channels[channel], self.epoch);
        channel.begin_session()?;
        channel.add_entry(
            StorageId(1),
            &epoch.to_le_bytes(),
            b"value",
            WriteVersion { major: epoch, minor: 0 },
            &[],
        )?;
        channel.end_session()?;
        self.epoch += 1;
        self.store.switch_epoch(Epoch(self.epoch))
    }

    fn stop(self, directory: &Path) {
        assert_eq!(self.store.last_epoch(), Epoch(self.epoch - 1));
        self.store.shutdown();
        std::fs::write(directory.join(WRITTEN), (self.epoch - 1).to_string()).unwrap();
    }
}

fn is_open(descriptor: i32) -> bool {
    // SAFETY: the call looks at a number and changes nothing.
    unsafe { libc::fcntl(descriptor, libc::F_GETFD) != -1 }
}

fn without_standard_streams(directory: &Path) -> i32 {
    for stream in 0..3 {
        // SAFETY: nothing in this process uses the streams from here on.
        unsafe { libc::close(stream) };
    }
    let mut engine = Engine::start(&directory.join("log"), 2);
    let taken = |at: i32| (0..3).any(is_open).then_some(at);
    let mut found = taken(10);
    engine.write(0).unwrap();
    engine.store.blob_pool().register_data(b"blob").unwrap();
    engine.write(1).unwrap();
    found = found.or(taken(11));
    engine.store.rotate().unwrap();
    engine.write(0).unwrap();
    let backup = engine.store.begin_backup().unwrap();
    found = found.or(taken(12));
    drop(backup);
    engine.stop(directory);
    found.unwrap_or(0)
}

fn after_a_change_of_directory(directory: &Path) -> i32 {
    let elsewhere = directory.join("elsewhere");
    std::fs::create_dir_all(elsewhere.join("log/blob")).unwrap();
    std::env::set_current_dir(directory).unwrap();
    let mut engine = Engine::start(Path::new("log"), 2);
    engine.write(0).unwrap();
    std::env::set_current_dir(&elsewhere).unwrap();
    engine.write(0).unwrap();
    // A new file of a channel, of a BLOB, and new files by a rotation.
    engine.write(1).unwrap();
    engine.store.blob_pool().register_data(b"blob").unwrap();
    engine.store.register_tag("tag", "").unwrap();
    engine.store.rotate().unwrap();
    engine.write(0).unwrap();
    engine.write(1).unwrap();
    engine.stop(directory);
    let strangers = std::fs::read_dir(elsewhere.join("log")).unwrap().count();
    i32::from(strangers != 1)
}

fn without_descriptors(directory: &Path) -> i32 {
    let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
    // SAFETY: the structure is whole and outlives the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let mut engine = Engine::start(&directory.join("log"), 2);
    engine.write(0).unwrap();
    let mut burst = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        burst.push(file);
    }
    // The epoch file becomes due to be replaced more than once, and the other channel opens its file.
    for n in 0..350 {
        engine.write(usize::from(n > 50)).unwrap();
        while let Ok(file) = File::open("/dev/null") {
            burst.push(file);
        }
    }
    assert!(burst.len() > 30);
    drop(burst);
    engine.write(0).unwrap();
    engine.stop(directory);
    0
}

fn with_a_limit_on_the_size_of_files(directory: &Path) -> i32 {
    let mut engine = Engine::start(&directory.join("log"), 1);
    engine.write(0).unwrap();
    let set = |rlim_cur| {
        let limit = libc::rlimit { rlim_cur, rlim_max: libc::RLIM_INFINITY };
        // SAFETY: the structure is whole and outlives the call.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &limit) }, 0);
    };
    set(20_000);
    let pool = engine.store.blob_pool();
    pool.register_data(&[0; 20_000]).unwrap();
    assert_eq!(pool.register_data(&[0; 20_001]).unwrap_err().errno(), libc::EFBIG);
    engine.write(0).unwrap();
    assert_eq!(engine.store.drain().ok(), Some(()));
    let failed = (0..2000).find_map(|_| engine.write(0).err()).unwrap().to_string();
    assert!(failed.contains("File too large"), "{failed}");
    let acknowledged = engine.store.last_epoch().0;
    assert!(acknowledged >= 2);
    set(libc::RLIM_INFINITY);
    engine.store.shutdown();
    std::fs::write(directory.join(WRITTEN), acknowledged.to_string()).unwrap();
    0
}

fn without_permission_to_write(directory: &Path) -> i32 {
    use std::os::unix::fs::PermissionsExt;
    let location = directory.join("log");
    let mut engine = Engine::start(&location, 1);
    engine.write(0).unwrap();
    engine.stop(directory);
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    for entry in std::fs::read_dir(&location).unwrap() {
        let entry = entry.unwrap();
        mode(&entry.path(), if entry.file_type().unwrap().is_dir() { 0o555 } else { 0o444 });
    }
    mode(&location, 0o555);
    mode(directory, 0o755);
    // SAFETY: the process ends soon; where it is not allowed the modes are enough.
    unsafe { libc::setuid(65534) };
    if std::fs::metadata(&location).is_err() {
        println!("NOT RUN: the folders above {} are closed to other users", location.display());
        return 0;
    }
    assert!(File::options().write(true).open(location.join("epoch")).is_err());
    let run = |words: &[&str]| {
        let words = ["tglogutil"].iter().chain(words).map(std::ffi::OsString::from);
        let mut printed = Vec::new();
        let exit = tglogutil::run(words.chain([location.clone().into()]), Arc::new(RealFs), &mut printed);
        (exit, String::from_utf8(printed).unwrap())
    };
    for words in [&["inspect"][..], &["verify"], &["dump"], &["dump", "--live"]] {
        let (exit, printed) = run(words);
        assert_eq!(exit, 0, "{words:?}: {printed}");
    }
    assert_eq!(run(&["repair"]).0, 64);
    0
}
