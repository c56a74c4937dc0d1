// SPDX-License-Identifier: Apache-2.0
//! Tests of the writer of session files.

use super::*;
use crate::types::Epoch;
use crate::vfs::{Fault, SimFs};
use crate::wal::entry::{encode_end, marker, tag};

const PATH: &str = "/log/pwal_0000";

fn writer() -> (SimFs, SessionFile) {
    let fs = SimFs::new();
    crate::vfs::crashsafe::create_dir(&fs, Path::new("/log")).unwrap();
    let vfs: Arc<dyn Vfs> = Arc::new(fs.clone());
    let names = Arc::new(NameSync::new(vfs.clone(), Path::new("/log")));
    let mut file = SessionFile::new(vfs, PATH.into(), names);
    file.open(OldContent::Append).unwrap();
    (fs, file)
}

fn session(epoch: u64, filler: usize) -> Vec<u8> {
    let mut bytes = marker(tag::BEGIN, Epoch(epoch)).to_vec();
    bytes.resize(bytes.len() + filler, 9);
    encode_end(&mut bytes, Epoch(epoch));
    bytes
}

fn content(fs: &SimFs) -> Vec<u8> {
    fs.files().remove(Path::new(PATH)).unwrap()
}

fn durable(fs: &SimFs) -> Option<Vec<u8>> {
    fs.reboot(crate::vfs::Loss::DropUnsynced).files().remove(Path::new(PATH))
}

#[test]
fn an_ended_session_is_told_with_its_place_and_bytes_and_is_on_the_disk_after_a_sync_by_anybody() {
    let (fs, mut file) = writer();
    let (first, second) = (session(5, 30), session(6, 7));
    for bytes in [&first, &second] {
        let start = file.begin(false).unwrap();
        file.append(bytes).unwrap();
        let ended = file.end().unwrap();
        // The mark stands between the first session and the second.
        let from = first.len() as u64 * u64::from(start > 0);
        assert_eq!(ended, Ended { from, start, len: bytes.len() as u64, synced: false });
        assert_eq!(ended.with_mark(), Ended { from, start: from, len: start + ended.len - from, synced: false });
        assert_eq!(file.buffered(ended), Some(&bytes[..]));
        file.flush().unwrap();
        assert_eq!(file.buffered(ended), Some(&bytes[..]), "it may go somewhere else as well");
    }
    assert_eq!(durable(&fs), None);
    let pending = file.start_sync().unwrap().unwrap();
    file.begin(false).unwrap();
    file.append(&first[..9]).unwrap();
    std::thread::scope(|scope| scope.spawn(|| pending.run().unwrap()).join().unwrap());
    let expected = [&first[..], &Origin::Ours.mark(), &second].concat();
    assert!(durable(&fs) == Some(expected), "the writer has gone on meanwhile");
}

#[test]
fn a_late_session_is_marked_before_anything_stands_behind_the_marker_and_valid_before_it_is_ended() {
    let (fs, mut file) = writer();
    let (first, bytes) = (session(4, 1), session(5, BUFFER_BYTES));
    file.begin(false).unwrap();
    file.append(&first).unwrap();
    file.end().unwrap();
    file.sync().unwrap();
    file.begin(true).unwrap();
    file.append(&bytes[..4]).unwrap();
    file.flush().unwrap();
    file.append(&bytes[4..bytes.len() - 10]).unwrap();
    let before = [&first[..], &Origin::Ours.mark()].concat();
    let marked = [&before[..], &marker(tag::INVALIDATED, Epoch(5))].concat();
    assert!(durable(&fs) == Some(marked), "the marker is on the disk and nothing else");
    assert_eq!(content(&fs).len(), before.len() + bytes.len() - 10);
    file.append(&bytes[bytes.len() - 10..]).unwrap();
    assert!(file.end().unwrap().synced);
    assert!(durable(&fs) == Some([before, bytes].concat()), "before anything can stand behind it");
}

#[test]
fn a_session_that_is_given_up_leaves_nothing() {
    let (fs, mut file) = writer();
    let first = session(5, 3);
    file.begin(false).unwrap();
    file.append(&first).unwrap();
    file.end().unwrap();
    for filler in [1, BUFFER_BYTES] {
        file.begin(false).unwrap();
        file.append(&session(6, filler)).unwrap();
        assert!(file.cut_off().unwrap());
        file.sync().unwrap();
        assert!(durable(&fs) == Some(first.clone()), "not even who wrote it");
    }
    assert!(!file.cut_off().unwrap());
}

#[test]
fn a_rotation_leaves_ended_sessions_and_moves_what_the_open_one_has() {
    for filler in [10, BUFFER_BYTES - 5, 3 * BUFFER_BYTES + 7] {
        for late in [false, true] {
            let (fs, mut file) = writer();
            let (first, moved) = (session(5, 3), session(6, filler));
            file.begin(false).unwrap();
            file.append(&first).unwrap();
            file.end().unwrap();
            file.begin(late).unwrap();
            let (some, rest) = moved.split_at(moved.len() - 15);
            some.chunks(1000).for_each(|piece| file.append(piece).unwrap());
            file.rotate().unwrap();
            file.rotate().unwrap();
            file.append(rest).unwrap();
            assert_eq!(file.end().unwrap().start, 0);
            file.sync().unwrap();
            let files = fs.reboot(crate::vfs::Loss::DropUnsynced).files();
            let rotated: Vec<_> = files.iter().filter(|(path, _)| *path != Path::new(PATH)).collect();
            assert_eq!(rotated.len(), 1, "the session is all there is for the second rotation");
            assert!(*rotated[0].1 == first && files[Path::new(PATH)] == moved, "filler {filler}, late {late}");
        }
    }
}

#[test]
fn after_a_failure_every_call_is_refused_and_nothing_reaches_the_disk() {
    let fail: [fn(&mut SessionFile) -> Result<()>; 4] =
        [|file| file.flush(), |file| file.sync(), |file| file.cut_off().map(|_| ()), |file| file.discard(0, &[0])];
    for (number, fail) in fail.into_iter().enumerate() {
        let (fs, mut file) = writer();
        file.begin(false).unwrap();
        file.append(&session(5, if number == 2 { BUFFER_BYTES } else { 10 })).unwrap();
        fs.fail_at(fs.operations() + 1, Fault::IoError);
        assert!(matches!(fail(&mut file), Err(Error::Io { .. })), "{number}");
        let before = fs.operations();
        assert!(file.has_failed());
        assert!(matches!(file.open(OldContent::Append), Err(Error::Poisoned(_))));
        assert!(matches!(file.begin(false), Err(Error::Poisoned(_))));
        assert!(matches!(file.append(b"x"), Err(Error::Poisoned(_))));
        assert!(matches!(file.flush(), Err(Error::Poisoned(_))));
        assert!(matches!(file.end(), Err(Error::Poisoned(_))));
        assert!(matches!(file.sync(), Err(Error::Poisoned(_))));
        assert!(matches!(file.cut_off(), Err(Error::Poisoned(_))));
        assert!(matches!(file.discard(0, &[]), Err(Error::Poisoned(_))));
        assert!(matches!(file.rotate(), Err(Error::Poisoned(_))));
        assert_eq!(fs.operations(), before, "{number}");
    }
}

#[test]
fn a_file_says_from_its_second_session_on_who_wrote_it() {
    let (fs, mut file) = writer();
    let ours = Origin::Ours.mark();
    let bytes = session(5, 3);
    let append = |file: &mut SessionFile| {
        file.open(OldContent::Append).unwrap();
        file.begin(false).unwrap();
        file.append(&bytes).unwrap();
        file.end().unwrap();
        file.sync().unwrap();
    };
    append(&mut file);
    file.forget();
    assert_eq!(content(&fs), bytes, "one session is as the original writes it");
    append(&mut file);
    append(&mut file);
    file.forget();
    append(&mut file);
    let expected = [&bytes[..], &ours, &bytes, &bytes, &ours, &bytes].concat();
    assert_eq!(content(&fs), expected);
    file.begin(false).unwrap();
    file.forget();
    assert_eq!(content(&fs), expected, "an open session is dropped");
}
