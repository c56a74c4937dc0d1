// SPDX-License-Identifier: Apache-2.0
//! Copies of a data directory. Owns which files a backup consists of, who may change files while one is open, and the
//! replacement of a directory's content by a restore; promises that nothing a backup lists is deleted or replaced while
//! it is open, and that a restore leaves the old content or the new one, never a mixture that starts. Knows nothing of
//! channels and epochs beyond their files.

mod in_progress;
mod progress;
mod restore;
pub mod set;
pub mod swap;

pub use in_progress::{Change, InProgress, Ticket};
pub use progress::{Phase, Progress, Snapshot};
pub use restore::{restore_directory, restore_files, FileToRestore, Target};
pub use set::BackupFile;
