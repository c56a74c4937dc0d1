// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::directory::{Access, OfflineDirectory};
use crate::vfs::RealFs;

#[test]
fn who_only_looks_while_the_directory_is_given_back_does_not_end_the_replica() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::new(Arc::new(RealFs), dir.path(), Options::default()).unwrap();
    node.close_store();
    let looking = OfflineDirectory::open(Arc::new(RealFs), dir.path(), Access::Read).unwrap();
    std::thread::scope(|scope| {
        let opening = scope.spawn(|| node.open_directory().and_then(|store| node.take_store(store)));
        // Long enough to meet the lock; when it is not, nothing is tested.
        std::thread::sleep(4 * LOCK_POLL);
        assert_eq!(node.store().err().map(|reason| reason.code), Some(Code::BUSY));
        drop(looking);
        opening.join().unwrap().unwrap();
    });
    assert!(node.store().is_ok());
    assert_eq!(node.failure(), None);
}

#[test]
fn a_primary_that_comes_during_a_rewind_waits_for_its_end() {
    let dir = tempfile::tempdir().unwrap();
    // A quarter of it is all that anybody waits.
    let options = Options { timeout: Duration::from_secs(3600), ..Options::default() };
    let node = Node::new(Arc::new(RealFs), dir.path(), options).unwrap();
    let held = node.hold_store().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            node.await_store();
            node.store().is_ok()
        });
        // Long enough for it to wait; when it is not, nothing is tested.
        std::thread::sleep(Duration::from_millis(50));
        node.open_held(held).unwrap();
        assert!(waiting.join().unwrap());
    });
    node.close_store();
    node.stop();
    let begun = Instant::now();
    node.await_store();
    assert!(begun.elapsed() < STORE_PATIENCE, "nobody waits for one that ends");
}
