// SPDX-License-Identifier: Apache-2.0
//! Faults of the link, of the processes and of the disks, with real processes and a proxy between them. After each:
//! nothing that was reported STORED is missing on the primary, nothing that was reported PROPAGATED is missing on the
//! replica, no session is there in part, and replication goes on by itself.

#[path = "../commits/mod.rs"]
#[allow(dead_code)]
mod commits;
mod journal;
mod links;
mod load;
mod machine;
mod mini_engine;
mod nodes;
mod peers;
#[path = "../ports/mod.rs"]
mod ports;
mod primary_disk;
mod primary_process;
mod processes;
mod proxy;
#[path = "../status_watch/mod.rs"]
#[allow(dead_code)]
mod status_watch;

/// Not a test: what [`nodes::Pair::start_primary`] runs in a process of its own.
#[test]
#[ignore]
fn be_the_primary() {
    if std::env::var_os(primary_process::DIRECTORY).is_some() {
        primary_process::run();
    }
}
