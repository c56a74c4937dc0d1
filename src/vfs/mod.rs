// SPDX-License-Identifier: Apache-2.0
//! The only door to the disk. Owns how files are opened, written, synced, renamed and locked; promises that nothing
//! is called durable here that the file system has not confirmed. Knows nothing of logs or epochs.
//!
//! [`RealFs`] is a thin layer over the system calls; [`SimFs`] keeps what is durable apart from what is not and can
//! cut the power or fail at any call. The order of syncs that protects a change of names lives in [`crashsafe`].
//!
//! A directory that is used for long is opened once, with [`Vfs::anchor`]: from then on everything below it is found
//! through that descriptor, and no sync succeeds any more when something else stands under its name.

mod about;
pub mod crashsafe;
pub mod descriptor;
mod disk;
mod file_size;
mod held;
mod interface;
mod metered;
mod read_only;
mod real;
mod root;
mod sim;

pub(crate) use about::About;
pub use disk::Disk;
pub use held::{holder, is_held};
pub use interface::{
    is_lost_by_disk, DirEntry, FileKind, FileLock, Lock, LockError, Mapping, Open, Stamp, Vfs, VfsFile,
};
pub use metered::MeteredFs;
pub use read_only::{FileView, ReadOnly, ReadOnlyFile, View};
pub use real::RealFs;
pub use sim::{Fault, Loss, SimFs};
