// SPDX-License-Identifier: Apache-2.0
//! The program `tgreplica`: serves a replica's directory and says how it stands.

pub mod command;
