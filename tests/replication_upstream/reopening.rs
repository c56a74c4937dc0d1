// SPDX-License-Identifier: Apache-2.0
//! An engine that is shut down and starts again, with the protocol of the original.

use crate::commits;
use crate::engine_run::quick_dir;
use crate::peer::DEADLINE;
use limestone_core::datastore::Settings;
use limestone_core::engine::Engine;
use limestone_core::replication::replica_store::StandbyStore;
use limestone_core::replication::settings::ReplicationSettings;
use limestone_core::replication::status::LinkState;
use limestone_core::replication::upstream::replica::{Options, Replica};
use limestone_core::types::{Durability, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::RealFs;
use std::net::TcpListener;
use std::sync::Arc;

#[test]
fn each_start_connects_the_channels_again_and_the_replica_gets_what_is_written() {
    let (near, far) = (quick_dir(), quick_dir());
    let listener = TcpListener::bind(("127.0.0.1", crate::ports::free_port())).unwrap();
    let address = listener.local_addr().unwrap();
    let store = StandbyStore::open_with(Arc::new(RealFs), far.path(), commits::as_told()).unwrap();
    let mut replica = Replica::start(listener, Arc::new(store), Options::default()).unwrap();
    let variables = [("ENDPOINT", format!("tcp://{address}")), ("PROTOCOL", "upstream".to_owned())];
    let variables = variables.map(|(name, value)| (format!("TSURUGI_REPLICATION_{name}").into(), value.into()));
    let settings = ReplicationSettings::parse(variables).unwrap();
    let engine = Engine::open(Settings::new(near.path()).commit(commits::as_told()), settings).unwrap();
    let mut channels = vec![engine.create_channel().unwrap()];
    for round in 0..3 {
        let epoch = Epoch(engine.ready().unwrap().last_epoch.0 + 1);
        channels.push(engine.create_channel().unwrap());
        engine.store().switch_epoch(epoch).unwrap();
        for (number, channel) in channels.iter().enumerate() {
            channel.begin_session().unwrap();
            let (key, version) = (format!("{round}.{number}"), WriteVersion { major: epoch.0, minor: 0 });
            channel.add_entry(StorageId(1), key.as_bytes(), b"v", version, &[]).unwrap();
            channel.end_session().unwrap();
        }
        engine.store().switch_epoch(epoch.next()).unwrap();
        let reached = engine.store().wait_durable(epoch, Durability::Propagated, Some(DEADLINE)).unwrap();
        assert!(reached, "{}", engine.status());
        assert_eq!(engine.status().state, LinkState::Streaming);
        engine.shutdown();
        assert_eq!(engine.status().state, LinkState::Stopped);
    }
    replica.stop();
    drop(replica);
    let rows = |dir: &tempfile::TempDir| crate::engine_run::start(dir.path(), 1).unwrap().rows;
    assert_eq!(rows(&far).len(), 2 + 3 + 4);
    assert_eq!(rows(&near), rows(&far));
}
