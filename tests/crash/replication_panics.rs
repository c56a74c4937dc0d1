// SPDX-License-Identifier: Apache-2.0
//! A thread of replication panics at a call to the disk, on either side. Nobody waits for ever, and nothing counts as
//! PROPAGATED that is not on the disk of the replica.

use super::panics::{within_patience, write_epoch, PATIENCE};
use super::runner::{tail, LOCATION};
use limestone_core::datastore::{Channel, Commit, Datastore, Settings};
use limestone_core::engine::Engine;
use limestone_core::replication::native::replica::{self, Options};
use limestone_core::replication::replica_store::StandbyStore;
use limestone_core::replication::settings::ReplicationSettings;
use limestone_core::replication::upstream;
use limestone_core::scrub::{Rate, Scrubbing};
use limestone_core::types::{Durability, Epoch, StorageId, WriteVersion};
use limestone_core::vfs::{Fault, Loss, SimFs, Vfs};
use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const PROTOCOLS: [&str; 2] = ["native", "upstream"];

/// A replica with its directory on a simulated disk.
enum Replica {
    Native(replica::Server),
    Upstream(upstream::replica::Replica, Arc<StandbyStore>),
}

impl Replica {
    fn start(fs: &SimFs, protocol: &str, scrubbing: Option<Scrubbing>, listener: TcpListener) -> Replica {
        let (disk, location): (Arc<dyn Vfs>, _) = (Arc::new(fs.clone()), Path::new(LOCATION));
        if protocol == "native" {
            let options = Options { scrubbing, ..Options::default() };
            return Replica::Native(replica::open(disk, location, options).unwrap().serve(listener).unwrap());
        }
        let store = Arc::new(StandbyStore::open(disk, location).unwrap());
        let options = upstream::replica::Options::default();
        Replica::Upstream(upstream::replica::Replica::start(listener, store.clone(), options).unwrap(), store)
    }

    fn failure(&self) -> Option<String> {
        match self {
            Replica::Native(server) => server.failure(),
            Replica::Upstream(_, store) => store.failure(),
        }
    }

    fn waits_for_failure(&self, fs: &SimFs, mut meanwhile: impl FnMut()) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(failure) = self.failure() {
                return failure;
            }
            assert!(Instant::now() < deadline, "the replica goes on: {}", tail(fs));
            meanwhile();
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn stop(self) {
        within_patience("the replica", move || match self {
            Replica::Native(mut server) => server.stop(),
            Replica::Upstream(mut replica, store) => {
                replica.stop();
                store.close();
            }
        });
    }
}

/// A primary, its replica, and one epoch that both have.
struct Pair {
    near: SimFs,
    far: SimFs,
    replica: Option<Replica>,
    engine: Engine,
    store: Arc<Datastore>,
    channel: Arc<Channel>,
    epoch: u64,
}

impl Pair {
    fn start(protocol: &str, scrubbing: Option<Scrubbing>) -> Pair {
        let mut pair = Pair::begin(protocol, |far, listener| Some(Replica::start(far, protocol, scrubbing, listener)));
        pair.write().unwrap();
        let reached = pair.store.wait_durable(Epoch(1), Durability::Propagated, Some(PATIENCE));
        assert!(reached.unwrap(), "the first epoch");
        pair
    }

    fn begin(protocol: &str, replica: impl FnOnce(&SimFs, TcpListener) -> Option<Replica>) -> Pair {
        let (near, far) = (SimFs::new(), SimFs::new());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("tcp://{}", listener.local_addr().unwrap());
        let replica = replica(&far, listener);
        let variables =
            [("ENDPOINT", endpoint.as_str()), ("MODE", "async"), ("TIMEOUT_MS", "2000"), ("PROTOCOL", protocol)];
        let variables = variables.map(|(name, value)| (format!("TSURUGI_REPLICATION_{name}").into(), value.into()));
        let settings = Settings::new(LOCATION).vfs(Arc::new(near.clone())).commit(Commit::Direct);
        let engine = Engine::open(settings, ReplicationSettings::parse(variables).unwrap()).unwrap();
        let (store, channel) = (engine.store().clone(), engine.create_channel().unwrap());
        engine.ready().unwrap();
        Pair { near, far, replica, engine, store, channel, epoch: 1 }
    }

    fn write(&mut self) -> limestone_core::error::Result<()> {
        write_epoch(&self.store, &self.channel, self.epoch)?;
        self.epoch += 1;
        self.store.switch_epoch(Epoch(self.epoch))
    }

    /// The same with a BLOB.
    fn write_blob(&mut self) {
        let blob = self.store.blob_pool().register_data(&[3; 5000]).unwrap();
        let version = WriteVersion { major: self.epoch, minor: 0 };
        self.channel.begin_session().unwrap();
        self.channel.add_entry(StorageId(1), b"blob", b"", version, &[blob]).unwrap();
        self.channel.end_session().unwrap();
        self.epoch += 1;
        self.store.switch_epoch(Epoch(self.epoch)).unwrap();
    }

    /// Ends both; what was PROPAGATED is on the disk of the replica, also after a power cut.
    fn end(self) {
        let Pair { near, far, replica, engine, store, .. } = self;
        near.heal();
        far.heal();
        within_patience("the engine", move || engine.shutdown());
        replica.unwrap().stop();
        let acknowledged = store.propagated_epoch();
        let left = StandbyStore::open(Arc::new(far.reboot(Loss::DropUnsynced)), Path::new(LOCATION)).unwrap();
        assert!(left.durable() >= acknowledged, "{} of {acknowledged}", left.durable());
    }
}

/// The thread of replication that made the call with this number to send what the log has.
fn panic_in_primary(protocol: &str, nth: u64) -> Option<String> {
    let mut later = None;
    let mut pair = Pair::begin(protocol, |_, listener| {
        later = Some(listener);
        None
    });
    (0..3).for_each(|_| pair.write().unwrap());
    pair.write_blob();
    let near = pair.near.clone();
    near.fail_at(near.operations() + nth, Fault::Panic);
    // From here on only threads of replication have something to do.
    pair.replica = later.map(|listener| Replica::start(&pair.far, protocol, None, listener));
    let (begin, last) = (Instant::now(), Epoch(pair.epoch - 1));
    let has_all = || pair.store.propagated_epoch() >= last;
    while !near.has_failed() && !has_all() && pair.store.wait_durable(last, Durability::Stored, None).is_ok() {
        assert!(begin.elapsed() < PATIENCE, "nothing is sent: {}", tail(&near));
        std::thread::sleep(Duration::from_millis(1));
    }
    let failed = near.failed_on();
    near.heal();
    // Either the data store has stopped, or the session of replication has ended and another one takes its place.
    match pair.store.wait_durable(last, Durability::Propagated, Some(PATIENCE)) {
        Ok(reached) => assert!(reached, "{protocol}, call {nth}: {last} is waited for in vain: {}", tail(&near)),
        Err(e) => assert!(e.to_string().contains("panicked"), "{protocol}, call {nth}: {e}"),
    }
    pair.end();
    failed
}

#[test]
fn a_panic_of_a_thread_that_sends_leaves_nobody_waiting_and_confirms_nothing() {
    let threads: BTreeMap<_, &[_]> = BTreeMap::from([
        ("native", &["repl_connect", "repl_lane_0", "repl_blobs"][..]),
        ("upstream", &["replication-0", "replication-commit"]),
    ]);
    for protocol in PROTOCOLS {
        let failed: BTreeSet<_> = (1..=10).filter_map(|nth| panic_in_primary(protocol, nth)).collect();
        assert!(threads[protocol].iter().all(|thread| failed.contains(*thread)), "{protocol}: {failed:?}");
    }
}

#[test]
fn a_panic_of_a_thread_that_serves_a_primary_of_either_protocol_ends_the_replica() {
    for protocol in PROTOCOLS {
        for nth in [1, 2, 3, 5, 8] {
            let mut pair = Pair::start(protocol, None);
            let far = pair.far.clone();
            far.fail_at(far.operations() + nth, Fault::Panic);
            let Pair { replica, store, channel, epoch, .. } = &mut pair;
            let failure = replica.as_ref().unwrap().waits_for_failure(&far, || {
                write_epoch(store, channel, *epoch).unwrap();
                *epoch += 1;
            });
            assert!(failure.contains("panicked"), "{protocol}, call {nth}: {failure}");
            pair.end();
        }
    }
}

#[test]
fn a_panic_of_the_thread_that_scrubs_ends_the_replica() {
    let scrubbing = Scrubbing { rate: Rate { bytes_per_s: 1 << 30 }, period: Duration::from_millis(5) };
    let failures = [1, 2, 3, 4].map(|nth| {
        let pair = Pair::start("native", Some(scrubbing));
        // Nobody sends anything, so that hardly anybody else calls the disk.
        pair.far.fail_at(pair.far.operations() + nth, Fault::Panic);
        let failure = pair.replica.as_ref().unwrap().waits_for_failure(&pair.far, || {});
        assert!(failure.contains("panicked"), "call {nth}: {failure}");
        pair.end();
        failure
    });
    assert!(failures.iter().any(|failure| failure.contains("replica-scrub")), "{failures:?}");
}
