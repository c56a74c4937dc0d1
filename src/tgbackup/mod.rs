// SPDX-License-Identifier: Apache-2.0
//! The program `tgbackup`: makes backups of a data directory that an engine or a replica serves, or that nobody does,
//! checks them and restores them. Owns the folder of backups and what describes one; promises that what stands there
//! under its name is whole, and that a restore leaves the old content of a directory or the new one. Which files a
//! backup consists of, and how they replace others, is said in `backup`.

mod arguments;
mod command;
mod copying;
mod create;
mod expire;
mod folder;
mod list;
pub mod manifest;
mod points;
mod restore;
mod source;
mod times;
mod verify;

pub use command::run;
