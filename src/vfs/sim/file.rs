// SPDX-License-Identifier: Apache-2.0
//! Open files and held locks of a simulated file system.

use super::disk::{errno, Ino};
use super::state::{Held, Kind, Outcome, Root, State};
use crate::lock_order::Mutex;
use crate::vfs::interface::{FileLock, Mapping, Stamp, VfsFile};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct SimLock {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) root: Option<Arc<Root>>,
    pub(super) ino: Ino,
}

impl FileLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.state.lock();
        match state.locked.get_mut(&self.ino) {
            Some(Held::Together(holders)) if *holders > 1 => *holders -= 1,
            _ => drop(state.locked.remove(&self.ino)),
        }
        if let Some(root) = &self.root {
            *root.locked.lock() = None;
        }
    }
}

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) root: Option<Arc<Root>>,
    pub(super) ino: Ino,
    pub(super) path: PathBuf,
    pub(super) writable: bool,
    pub(super) unnamed: bool,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if self.unnamed {
            self.state.lock().disk.forget(self.ino);
        }
    }
}

impl SimFile {
    fn name(&self, state: &State) -> PathBuf {
        state.renamed.get(&self.ino).unwrap_or(&self.path).clone()
    }
}

impl VfsFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let mut state = self.state.lock();
        let path = self.name(&state);
        state.reading("len", &path, None)?;
        Ok(state.disk.bytes(self.ino)?.len() as u64)
    }

    fn stamp(&self) -> io::Result<Stamp> {
        // Such numbers are never used again, and there is no clock.
        Ok(Stamp { inode: self.ino, created_ns: 0, modified_ns: 0 })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        let path = self.name(&state);
        state.reading("read", &path, Some((offset, buffer.len() as u64)))?;
        let bytes = state.disk.bytes(self.ino)?;
        let start = bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
        let count = buffer.len().min(bytes.len() - start);
        buffer[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock();
        let path = self.name(&state);
        let verdict = state.call(Kind::Write, "write", &path, Some((offset, data.len() as u64)));
        if !self.writable {
            return Err(errno(libc::EBADF));
        }
        match verdict {
            Ok(()) => state.disk.write(self.ino, offset, data),
            Err((error, outcome)) => {
                if let Outcome::Part(part) = outcome {
                    let written = (part % (data.len() as u64 + 1)) as usize;
                    state.disk.write(self.ino, offset, &data[..written])?;
                }
                Err(error)
            }
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if !self.writable {
            return Err(errno(libc::EINVAL));
        }
        let mut state = self.state.lock();
        let path = self.name(&state);
        state.changing(Kind::Name, "set_len", &path, |disk| disk.set_len(self.ino, len))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let path = self.name(&state);
        match state.call(Kind::Sync, "sync", &path, None) {
            Ok(()) => {
                state.disk.sync(self.ino)?;
                // A file that never had a name is nowhere.
                match self.unnamed {
                    true => Ok(()),
                    false => state.confirm_place(self.root.as_deref()),
                }
            }
            Err((error, Outcome::LoseUnsynced)) => {
                state.disk.lose_unsynced(self.ino)?;
                Err(error)
            }
            Err((error, _)) => Err(error),
        }
    }

    fn map(&self) -> io::Result<Mapping> {
        let mut state = self.state.lock();
        let path = self.name(&state);
        state.reading("map", &path, None)?;
        Ok(Mapping::shared(state.disk.bytes(self.ino)?.clone()))
    }
}
