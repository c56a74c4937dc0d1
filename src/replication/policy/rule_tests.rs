// SPDX-License-Identifier: Apache-2.0

use super::*;

fn update(policy: &mut Policy, stored: u64, propagated: u64, live: bool, now: Millis) -> Option<Change> {
    policy.update(Epoch(stored), Epoch(propagated), live, now)
}

#[test]
fn strict_and_async_never_change_however_long_the_replica_is_away() {
    for mode in [Mode::Strict, Mode::Async] {
        let mut policy = Policy::new(mode);
        assert_eq!(update(&mut policy, 5, 3, true, 0), None);
        assert_eq!(update(&mut policy, 9, 3, false, 1_000_000), None);
        assert_eq!(policy.deadline(), None);
        assert_eq!(update(&mut policy, 9, 9, true, 1_000_001), None);
    }
}

#[test]
fn degrade_gives_up_waiting_after_its_time_and_waits_again_when_the_replica_has_caught_up() {
    let mut policy = Policy::new(Mode::Degrade { after: 100 });
    assert_eq!(update(&mut policy, 5, 5, true, 0), None);
    assert_eq!(policy.deadline(), None, "nothing waits");
    assert_eq!(update(&mut policy, 6, 5, false, 10), None);
    assert_eq!(policy.deadline(), Some(110));
    assert_eq!(update(&mut policy, 7, 5, false, 109), None);
    let degraded = Change::Degraded { waited: 100, stored: Epoch(8), propagated: Epoch(5) };
    assert_eq!(update(&mut policy, 8, 5, false, 110), Some(degraded));
    assert_eq!(policy.deadline(), None);
    assert_eq!(update(&mut policy, 9, 5, false, 120), None);
    assert_eq!(update(&mut policy, 10, 7, false, 130), None, "catching up");
    assert_eq!(update(&mut policy, 11, 8, true, 140), None, "live, but 11 was notified");
    assert_eq!(update(&mut policy, 12, 10, true, 150), None);
    let restored = Change::Restored { lasted: 50, propagated: Epoch(11) };
    assert_eq!(update(&mut policy, 13, 11, true, 160), Some(restored));
    assert_eq!(update(&mut policy, 13, 13, true, 170), None);
}

#[test]
fn a_replica_that_is_lost_again_while_it_catches_up_has_to_begin_again() {
    let mut policy = Policy::new(Mode::Degrade { after: 10 });
    update(&mut policy, 5, 1, true, 0);
    assert!(matches!(update(&mut policy, 5, 1, true, 10), Some(Change::Degraded { .. })));
    assert_eq!(update(&mut policy, 9, 4, false, 20), None);
    assert_eq!(update(&mut policy, 9, 5, true, 30), None, "the goal is 9 now");
    assert!(matches!(update(&mut policy, 9, 9, true, 40), Some(Change::Restored { .. })));
}

#[test]
fn a_replica_that_moves_is_waited_for() {
    let mut policy = Policy::new(Mode::Degrade { after: 100 });
    for step in 1..100 {
        assert_eq!(update(&mut policy, 10 + step, step, true, step * 99), None);
    }
}
