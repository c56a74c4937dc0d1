// SPDX-License-Identifier: Apache-2.0
//! The program `tgreplica`: serves a replica's directory and says how a directory stands.

mod arguments;
pub mod command;
mod compare;
mod digest;
mod promote;
mod rejoin;
mod repair;
mod replicas;
pub mod report;
mod serve;
mod service_manager;
pub mod signals;
mod status;
mod tell;
mod told;
mod with_primary;
