// SPDX-License-Identifier: Apache-2.0
//! The disk below [`SimFs`](super::SimFs): files and directories, each with what programs see now and what a power
//! cut leaves. Knows nothing of calls, faults or handles.

use super::content::{Change, Content};
use super::faults::{Loss, Random};
use crate::vfs::interface::{DirEntry, FileKind};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

pub(super) type Ino = u64;

const ROOT: Ino = 0;
/// No simulated file grows beyond this; a larger one is a bug of the caller.
const FILE_BYTES_MAX: u64 = 1 << 32;

pub(super) fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

#[derive(Clone, Debug, Default)]
struct Names {
    now: BTreeMap<OsString, Ino>,
    durable: BTreeMap<OsString, Ino>,
}

#[derive(Debug)]
enum Node {
    File(Content),
    Dir(Names),
}

/// A change of names that no sync of its directory has confirmed yet. One rename is one change, also between
/// directories; it belongs to the directory of the new name.
#[derive(Clone, Debug)]
enum NameChange {
    Link { dir: Ino, name: OsString, ino: Ino },
    Unlink { dir: Ino, name: OsString, ino: Ino },
    Rename { from_dir: Ino, from: OsString, dir: Ino, to: OsString, ino: Ino },
}

impl NameChange {
    fn dir(&self) -> Ino {
        match self {
            NameChange::Link { dir, .. } | NameChange::Unlink { dir, .. } | NameChange::Rename { dir, .. } => *dir,
        }
    }
}

#[derive(Debug)]
pub(super) struct Disk {
    nodes: BTreeMap<Ino, Node>,
    next_ino: Ino,
    pending: Vec<NameChange>,
}

/// A path and the directory where it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) start: Ino,
    pub(super) path: &'a Path,
}

impl<'a> At<'a> {
    /// A path from the root.
    pub(super) fn root(path: &'a Path) -> At<'a> {
        At { start: ROOT, path }
    }
}

/// The names on the way from the root; relative paths start there as well.
fn parts(path: &Path) -> io::Result<Vec<&OsStr>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => parts.push(name),
            Component::ParentDir => drop(parts.pop()),
            Component::RootDir | Component::CurDir => {}
            Component::Prefix(_) => return Err(errno(libc::EINVAL)),
        }
    }
    Ok(parts)
}

fn bounded(offset: u64, len: usize) -> io::Result<usize> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= FILE_BYTES_MAX => Ok(offset as usize),
        _ => Err(errno(libc::EFBIG)),
    }
}

impl Disk {
    pub(super) fn new() -> Disk {
        let nodes = BTreeMap::from([(ROOT, Node::Dir(Names::default()))]);
        Disk { nodes, next_ino: ROOT + 1, pending: Vec::new() }
    }

    fn names(&self, dir: Ino) -> io::Result<&Names> {
        match self.nodes.get(&dir) {
            Some(Node::Dir(names)) => Ok(names),
            Some(Node::File(_)) => Err(errno(libc::ENOTDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    fn names_mut(&mut self, dir: Ino) -> io::Result<&mut Names> {
        match self.nodes.get_mut(&dir) {
            Some(Node::Dir(names)) => Ok(names),
            Some(Node::File(_)) => Err(errno(libc::ENOTDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    fn content(&self, ino: Ino) -> io::Result<&Content> {
        match self.nodes.get(&ino) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Dir(_)) => Err(errno(libc::EISDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    fn content_mut(&mut self, ino: Ino) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Dir(_)) => Err(errno(libc::EISDIR)),
            None => Err(errno(libc::ENOENT)),
        }
    }

    fn walk(&self, start: Ino, parts: &[&OsStr]) -> io::Result<Ino> {
        let mut at = start;
        for name in parts {
            at = *self.names(at)?.now.get(*name).ok_or_else(|| errno(libc::ENOENT))?;
        }
        Ok(at)
    }

    pub(super) fn find(&self, at: At<'_>) -> io::Result<Ino> {
        self.walk(at.start, &parts(at.path)?)
    }

    /// The directory that holds `path`, and the last name of `path`.
    fn place(&self, at: At<'_>) -> io::Result<(Ino, OsString)> {
        let parts = parts(at.path)?;
        let (name, above) = parts.split_last().ok_or_else(|| errno(libc::EBUSY))?;
        let dir = self.walk(at.start, above)?;
        self.names(dir)?;
        Ok((dir, name.to_os_string()))
    }

    fn add_node(&mut self, node: Node) -> Ino {
        let ino = self.next_ino;
        self.next_ino += 1;
        self.nodes.insert(ino, node);
        ino
    }

    fn link(&mut self, dir: Ino, name: OsString, node: Node) -> io::Result<Ino> {
        let ino = self.add_node(node);
        self.names_mut(dir)?.now.insert(name.clone(), ino);
        self.pending.push(NameChange::Link { dir, name, ino });
        Ok(ino)
    }

    pub(super) fn is_dir(&self, ino: Ino) -> bool {
        matches!(self.nodes.get(&ino), Some(Node::Dir(_)))
    }

    pub(super) fn list(&self, dir: Ino) -> io::Result<Vec<DirEntry>> {
        let entry = |(name, ino): (&OsString, &Ino)| match self.nodes.get(ino) {
            Some(Node::File(file)) => DirEntry { name: name.clone(), kind: FileKind::File, len: file.now.len() as u64 },
            _ => DirEntry { name: name.clone(), kind: FileKind::Directory, len: 0 },
        };
        Ok(self.names(dir)?.now.iter().map(entry).collect())
    }

    /// The file at `path`, created when it is missing.
    pub(super) fn create(&mut self, path: At<'_>) -> io::Result<Ino> {
        match self.find(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let (dir, name) = self.place(path)?;
                self.link(dir, name, Node::File(Content::default()))
            }
            found => found,
        }
    }

    pub(super) fn create_unnamed(&mut self) -> Ino {
        self.add_node(Node::File(Content::default()))
    }

    /// Frees a file that never had a name.
    pub(super) fn forget(&mut self, ino: Ino) {
        self.nodes.remove(&ino);
    }

    pub(super) fn create_dir(&mut self, path: At<'_>) -> io::Result<Ino> {
        let (dir, name) = self.place(path)?;
        if self.names(dir)?.now.contains_key(&name) {
            return Err(errno(libc::EEXIST));
        }
        self.link(dir, name, Node::Dir(Names::default()))
    }

    pub(super) fn rename(&mut self, from: At<'_>, to: At<'_>) -> io::Result<()> {
        let (from_dir, from) = self.place(from)?;
        let (dir, to) = self.place(to)?;
        let ino = *self.names(from_dir)?.now.get(&from).ok_or_else(|| errno(libc::ENOENT))?;
        if let Some(&replaced) = self.names(dir)?.now.get(&to) {
            match (self.is_dir(ino), self.is_dir(replaced)) {
                _ if ino == replaced => return Ok(()),
                (true, false) => return Err(errno(libc::ENOTDIR)),
                (false, true) => return Err(errno(libc::EISDIR)),
                (true, true) if !self.names(replaced)?.now.is_empty() => return Err(errno(libc::ENOTEMPTY)),
                _ => {}
            }
        }
        self.names_mut(from_dir)?.now.remove(&from);
        self.names_mut(dir)?.now.insert(to.clone(), ino);
        self.pending.push(NameChange::Rename { from_dir, from, dir, to, ino });
        Ok(())
    }

    pub(super) fn hard_link(&mut self, existing: At<'_>, new: At<'_>) -> io::Result<()> {
        let ino = self.find(existing)?;
        let (dir, name) = self.place(new)?;
        if self.is_dir(ino) {
            return Err(errno(libc::EPERM));
        }
        if self.names(dir)?.now.contains_key(&name) {
            return Err(errno(libc::EEXIST));
        }
        self.names_mut(dir)?.now.insert(name.clone(), ino);
        self.pending.push(NameChange::Link { dir, name, ino });
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: At<'_>) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        let ino = *self.names(dir)?.now.get(&name).ok_or_else(|| errno(libc::ENOENT))?;
        if self.is_dir(ino) {
            return Err(errno(libc::EISDIR));
        }
        self.take_name(dir, name, ino)
    }

    fn take_name(&mut self, dir: Ino, name: OsString, ino: Ino) -> io::Result<()> {
        self.names_mut(dir)?.now.remove(&name);
        self.pending.push(NameChange::Unlink { dir, name, ino });
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: At<'_>) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        let ino = *self.names(dir)?.now.get(&name).ok_or_else(|| errno(libc::ENOENT))?;
        self.empty(ino)?;
        self.take_name(dir, name, ino)
    }

    fn empty(&mut self, dir: Ino) -> io::Result<()> {
        for (name, ino) in self.names(dir)?.now.clone() {
            if self.is_dir(ino) {
                self.empty(ino)?;
            }
            self.take_name(dir, name, ino)?;
        }
        Ok(())
    }

    pub(super) fn bytes(&self, ino: Ino) -> io::Result<&Arc<Vec<u8>>> {
        Ok(&self.content(ino)?.now)
    }

    pub(super) fn write(&mut self, ino: Ino, offset: u64, data: &[u8]) -> io::Result<()> {
        let offset = bounded(offset, data.len())?;
        if !data.is_empty() {
            self.content_mut(ino)?.change(Change::Write { offset, data: data.to_vec() });
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, ino: Ino, len: u64) -> io::Result<()> {
        let len = bounded(len, 0)?;
        self.content_mut(ino)?.change(Change::SetLen(len));
        Ok(())
    }

    /// Makes the unsynced changes of a file durable. Changes that an earlier failed sync lost stay lost.
    pub(super) fn sync(&mut self, ino: Ino) -> io::Result<()> {
        let content = self.content_mut(ino)?;
        for change in std::mem::take(&mut content.pending) {
            change.apply(&mut content.durable);
        }
        Ok(())
    }

    /// Forgets the unsynced writes to a file as Linux does when writing them back fails: programs still see them, the
    /// disk never will. A size that was set is kept in the journal of the file system, which does not lose it silently.
    pub(super) fn lose_unsynced(&mut self, ino: Ino) -> io::Result<()> {
        let pending = &mut self.content_mut(ino)?.pending;
        pending.retain(|change| matches!(change, Change::SetLen(_)));
        Ok(())
    }

    /// Makes the names in `dir` durable, and those that a rename from elsewhere into `dir` depends on.
    pub(super) fn sync_dir(&mut self, dir: Ino) -> io::Result<()> {
        self.names(dir)?;
        let pending = std::mem::take(&mut self.pending);
        let mut wanted = vec![dir];
        let mut taken = vec![false; pending.len()];
        for (at, change) in pending.iter().enumerate().rev() {
            taken[at] = wanted.contains(&change.dir());
            if let (true, NameChange::Rename { from_dir, .. }) = (taken[at], change) {
                wanted.push(*from_dir);
            }
        }
        for (change, taken) in pending.into_iter().zip(taken) {
            if taken {
                self.settle(&change, false)?;
            } else {
                self.pending.push(change);
            }
        }
        Ok(())
    }

    /// Applies a change of names to the durable state. With `only_if_applicable`, a change whose predecessors were lost
    /// has no effect.
    fn settle(&mut self, change: &NameChange, only_if_applicable: bool) -> io::Result<()> {
        match change {
            NameChange::Link { dir, name, ino } => {
                let names = &mut self.names_mut(*dir)?.durable;
                if !only_if_applicable || !names.contains_key(name) {
                    names.insert(name.clone(), *ino);
                }
            }
            NameChange::Unlink { dir, name, ino } => {
                let occupied = self.names(*ino).is_ok_and(|names| !names.durable.is_empty());
                let names = &mut self.names_mut(*dir)?.durable;
                if names.get(name) == Some(ino) && !(only_if_applicable && occupied) {
                    names.remove(name);
                }
            }
            NameChange::Rename { from_dir, from, dir, to, ino } => {
                let names = &mut self.names_mut(*from_dir)?.durable;
                if names.get(from) == Some(ino) {
                    names.remove(from);
                } else if only_if_applicable {
                    return Ok(());
                }
                self.names_mut(*dir)?.durable.insert(to.clone(), *ino);
            }
        }
        Ok(())
    }

    /// The disk after a power cut at this moment.
    pub(super) fn survive(&self, loss: Loss) -> Disk {
        let seed = if let Loss::Torn { seed } = loss { seed } else { 0 };
        let mut random = Random::new(seed);
        let mut tree = Disk { nodes: BTreeMap::new(), next_ino: self.next_ino, pending: Vec::new() };
        for (ino, node) in &self.nodes {
            if let Node::Dir(names) = node {
                tree.nodes.insert(*ino, Node::Dir(names.clone()));
            }
        }
        let kept_in_4 = 1 + random.below(3);
        for change in &self.pending {
            let kept = match loss {
                Loss::DropUnsynced => false,
                Loss::KeepUnsynced => true,
                Loss::Torn { .. } => random.below(4) < kept_in_4,
            };
            if kept {
                // Directories are never freed before a power cut, so the change finds its directory.
                let _ = tree.settle(change, matches!(loss, Loss::Torn { .. }));
            }
        }
        let mut survivor = Disk { nodes: BTreeMap::new(), next_ino: self.next_ino, pending: Vec::new() };
        let mut reached = vec![ROOT];
        while let Some(ino) = reached.pop() {
            let node = match (tree.nodes.get(&ino), self.nodes.get(&ino)) {
                (Some(Node::Dir(names)), _) => {
                    reached.extend(names.durable.values());
                    Node::Dir(Names { now: names.durable.clone(), durable: names.durable.clone() })
                }
                (_, Some(Node::File(content))) => {
                    let bytes = content.survive(loss, &mut Random::new(seed ^ ino.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
                    Node::File(Content { now: bytes.clone(), durable: bytes, pending: Vec::new() })
                }
                _ => continue,
            };
            survivor.nodes.insert(ino, node);
        }
        survivor
    }

    /// A number for `survivor`, which a power cut has left of this disk. Another power cut at the same moment that
    /// leaves other names or other content has another number, as good as always.
    pub(super) fn fingerprint(&self, survivor: &Disk) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (ino, node) in &survivor.nodes {
            ino.hash(&mut hasher);
            match (node, self.nodes.get(ino)) {
                (Node::File(left), Some(Node::File(content))) => content.hash_survivor(&left.now, &mut hasher),
                (Node::File(left), _) => left.now.hash(&mut hasher),
                (Node::Dir(names), _) => names.now.hash(&mut hasher),
            }
        }
        hasher.finish()
    }

    /// Makes everything durable, as if it had been there for long.
    pub(super) fn settle_all(&mut self) {
        *self = self.survive(Loss::KeepUnsynced);
    }

    /// Every file below the root with its present content.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut open = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, ino)) = open.pop() {
            match self.nodes.get(&ino) {
                Some(Node::Dir(names)) => open.extend(names.now.iter().map(|(name, ino)| (path.join(name), *ino))),
                Some(Node::File(content)) => drop(files.insert(path, content.now.to_vec())),
                None => {}
            }
        }
        files
    }
}
