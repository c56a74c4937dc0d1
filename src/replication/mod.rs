// SPDX-License-Identifier: Apache-2.0
//! Replication to a hot standby: the wire protocols, both roles, and the proof of a shared secret. Owns what travels
//! between two data stores and when an epoch counts as durable on the other side; promises that no bytes of a peer make
//! it panic, wait for ever or hold more memory than a fixed bound. Builds on `datastore`, `wal` and `vfs`; knows
//! nothing of C. `docs/protocol.md` describes every message.

pub mod addresses;
pub mod backlog;
pub mod backup_socket;
pub mod commands;
pub mod compare_socket;
pub mod control_socket;
pub mod digests;
pub mod epoch_times;
mod local_socket;
pub mod native;
pub mod net;
pub mod policy;
pub mod promotion;
pub mod quorum;
pub mod repair;
pub mod replica_store;
pub mod report;
pub mod secret;
pub mod settings;
pub mod status;
pub mod status_socket;
pub mod upstream;
