// SPDX-License-Identifier: Apache-2.0
//! Does recorded steps again on the simulated disk, which knows what a power cut may leave.

use crate::recording::Step;
use limestone_core::vfs::{Open, SimFs, Vfs, VfsFile};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The simulated disk and the files that are open on it, by their present names.
pub struct Replay {
    fs: SimFs,
    files: BTreeMap<PathBuf, Box<dyn VfsFile>>,
}

impl Replay {
    /// A disk that holds, durably, what `directory` holds on the real one now, or nothing but its parent.
    pub fn new(directory: &Path) -> Replay {
        let fs = SimFs::new();
        match directory.exists() {
            true => fs.load(directory, directory).unwrap(),
            false => fs.load(tempfile::tempdir().unwrap().path(), directory.parent().unwrap()).unwrap(),
        }
        Replay { fs, files: BTreeMap::new() }
    }

    pub fn fs(&self) -> &SimFs {
        &self.fs
    }

    fn file(&mut self, path: &Path) -> &dyn VfsFile {
        let fs = &self.fs;
        let open = || fs.open(path, Open::Existing).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        &**self.files.entry(path.to_owned()).or_insert_with(open)
    }

    pub fn step(&mut self, step: &Step) {
        let done = match step {
            Step::Open { path, create, exclusive, truncate } => {
                let how = match (create, exclusive, truncate) {
                    (true, true, _) => Open::New,
                    (true, false, false) => Open::Create,
                    (true, false, true) => Open::Truncate,
                    (false, ..) => Open::Existing,
                };
                let opened = self.fs.open(path, how).and_then(|file| match !create && *truncate {
                    true => file.set_len(0).map(|()| file),
                    false => Ok(file),
                });
                opened.map(|file| drop(self.files.insert(path.clone(), file)))
            }
            Step::Write { path, offset, bytes } => self.file(path).write_at(*offset, bytes),
            Step::SetLen { path, len } => self.file(path).set_len(*len),
            Step::Sync { path } => match self.fs.kind(path).unwrap() {
                Some(limestone_core::vfs::FileKind::Directory) => self.fs.sync_dir(path),
                _ => self.file(path).sync(),
            },
            Step::Rename { from, to } => {
                self.renamed(from, to);
                self.fs.rename(from, to)
            }
            Step::Link { from, to } => self.fs.hard_link(from, to),
            Step::Unlink { path } => {
                self.files.remove(path);
                self.fs.unlink(path)
            }
            Step::CreateDir { path } => self.fs.create_dir(path),
            Step::RemoveDir { path } => self.fs.remove_dir_all(path),
        };
        done.unwrap_or_else(|e| panic!("{step:.200?}: {e}"));
    }

    /// Files that are open stay open under their new names, also those below a renamed directory.
    fn renamed(&mut self, from: &Path, to: &Path) {
        self.files.remove(to);
        let moved: Vec<PathBuf> = self.files.keys().filter(|path| path.starts_with(from)).cloned().collect();
        for path in moved {
            let file = self.files.remove(&path).unwrap();
            let behind = path.strip_prefix(from).unwrap();
            let new = if behind.as_os_str().is_empty() { to.to_owned() } else { to.join(behind) };
            self.files.insert(new, file);
        }
    }
}
