// SPDX-License-Identifier: Apache-2.0
//! The protocol of the original, version 2: one control connection, one connection for each log channel, an
//! acknowledgement for each ended session and each group commit, no authentication. Nothing is added to it
//! (`docs/protocol.md`, "The upstream protocol").

pub mod primary;
pub mod protocol;
pub mod replica;
