// SPDX-License-Identifier: Apache-2.0
//! `tgbackup expire`.

use super::folder::Folder;
use crate::error::{Error, Result};
use crate::program_output::Output;
use crate::vfs::Vfs;
use std::path::Path;
use std::sync::Arc;

/// Deletes all but the newest `keep` backups that can be read; others that are older than these go as well.
pub fn run(vfs: &Arc<dyn Vfs>, target: &Path, keep: usize, output: &mut Output<'_>) -> Result<i32> {
    let folder = Folder::open_to_change(vfs, target, false)?;
    let (mut kept, mut deleted) = (0, Vec::new());
    for backup in folder.backups()?.into_iter().rev() {
        let name = backup.label();
        match backup.manifest {
            Err(e @ Error::Io { .. }) => return Err(e),
            _ if kept == keep => {
                folder.delete(&name)?;
                deleted.push(name);
            }
            Ok(_) => kept += 1,
            Err(e) => log::warn!("{name} does not count: {e}"),
        }
    }
    match output.json {
        true => output.print(&format!("{}\n", serde_json::json!({ "deleted": deleted, "kept": kept }))),
        false => {
            deleted.iter().for_each(|name| output.print(&format!("deleted: {name}\n")));
            output.print(&format!("kept: {kept}\n"));
        }
    }
    Ok(0)
}
