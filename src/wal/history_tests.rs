// SPDX-License-Identifier: Apache-2.0

use super::*;
use proptest::prelude::*;

fn history(runs: &[(u128, u64)]) -> History {
    let runs = runs.iter().map(|&(id, first_epoch)| Run { id: RunId(id), term: 1, first_epoch });
    History::new(runs.collect(), false).unwrap()
}

#[test]
fn the_common_point_is_where_the_first_of_both_left_the_common_runs() {
    let up_to = |epoch| Common::UpTo(Epoch(epoch));
    let both = history(&[(1, 0), (2, 11)]);
    for (a, a_durable, b, b_durable, expected) in [
        (&both, 20, &both, 15, up_to(15)),
        (&both, 20, &both, 20, up_to(20)),
        // One has started again.
        (&history(&[(1, 0), (2, 11), (3, 21)]), 25, &both, 20, up_to(20)),
        (&history(&[(1, 0), (2, 11), (3, 21)]), 25, &both, 18, up_to(18)),
        // An epoch number that both used, each for its own content.
        (&history(&[(1, 0), (2, 11), (3, 16)]), 30, &both, 20, up_to(15)),
        (&history(&[(1, 0), (3, 11)]), 30, &both, 20, up_to(10)),
        (&history(&[(1, 0), (3, 16)]), 30, &both, 20, up_to(10)),
        // The durable epochs bound what runs that nobody wrote to promise.
        (&history(&[(1, 0), (3, 11)]), 8, &both, 20, up_to(8)),
        (&history(&[(1, 0), (3, 11)]), 30, &both, 8, up_to(8)),
        (&history(&[(7, 0), (2, 11)]), 20, &history(&[(1, 0)]), 20, Common::Nothing),
        (&History::default(), 20, &both, 20, Common::Nothing),
    ] {
        assert_eq!(a.common(Epoch(a_durable), b, Epoch(b_durable)), expected, "{a:?} {b:?}");
        assert_eq!(b.common(Epoch(b_durable), a, Epoch(a_durable)), expected, "the other way round");
    }
}

#[test]
fn a_term_that_differs_makes_another_run() {
    let mut other = history(&[(1, 0), (2, 11)]);
    other.runs[1].term = 2;
    assert_eq!(history(&[(1, 0), (2, 11)]).common(Epoch(20), &other, Epoch(20)), Common::UpTo(Epoch(10)));
}

#[test]
fn runs_that_wrote_nothing_leave_the_list_and_it_stays_bounded() {
    let mut history = History::default();
    for id in 0..1000 {
        history.begin(RunId(id), 1, Epoch(5));
    }
    let run = |id, first_epoch| Run { id: RunId(id), term: 1, first_epoch };
    assert_eq!(history.runs(), [run(0, 0), run(999, 5)], "the first run has all epochs");
    history.begin(RunId(1000), 1, Epoch(6));
    history.begin(RunId(1001), 1, Epoch(6));
    assert_eq!(history.runs().len(), 3);
    for epoch in 7..2000 {
        history.begin(RunId(u128::from(epoch) + 5000), 2, Epoch(epoch));
    }
    assert_eq!(history.runs().len(), RUNS_MAX);
    assert!(history.has_forgotten());
    assert!(history.check().is_ok());
}

#[test]
fn what_lies_before_the_beginning_of_the_list_is_forgotten() {
    let old = history(&[(0, 0), (5, 10)]);
    let mut new = old.clone();
    for epoch in 0..RUNS_MAX as u64 {
        new.begin(RunId(u128::from(epoch) + 100), 1, Epoch(20 + epoch));
    }
    assert_eq!(new.runs()[0].first_epoch, 20);
    assert_eq!(new.common(Epoch(5000), &old, Epoch(19)), Common::Forgotten);
    assert_eq!(old.common(Epoch(19), &new, Epoch(5000)), Common::Forgotten);
    // Of its epoch 20 the longer list says that it is another run's.
    assert_eq!(new.common(Epoch(5000), &old, Epoch(20)), Common::Nothing);
    // The lists overlap.
    let mut behind = old.clone();
    behind.begin(RunId(100), 1, Epoch(20));
    behind.begin(RunId(101), 1, Epoch(21));
    assert_eq!(new.common(Epoch(5000), &behind, Epoch(21)), Common::UpTo(Epoch(21)));
    assert_eq!(behind.common(Epoch(21), &new, Epoch(5000)), Common::UpTo(Epoch(21)));
}

#[test]
fn a_list_that_does_not_grow_or_is_too_long_is_refused() {
    let run = |id, term, first_epoch| Run { id: RunId(id), term, first_epoch };
    for runs in [
        vec![run(1, 1, 0), run(2, 1, 0)],
        vec![run(1, 1, 5), run(2, 1, 4)],
        vec![run(1, 2, 0), run(2, 1, 4)],
        (0..=RUNS_MAX as u64).map(|n| run(n.into(), 1, n)).collect(),
    ] {
        assert!(History::new(runs, false).is_err());
    }
}

/// A directory of the model: for each epoch above 0 what was written there, whoever looks at it.
#[derive(Clone, Debug)]
struct Directory {
    history: History,
    content: Vec<u64>,
    running: bool,
}

impl Directory {
    fn durable(&self) -> Epoch {
        Epoch(self.content.len() as u64)
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// An engine starts on a directory; with `true` its first sessions may still be of the recovered epoch.
    Start(usize, bool),
    Write(usize),
    /// Somebody copies a directory over another, or keeps one and brings it back later.
    Copy(usize, usize),
    /// One follows the other, up to so many epochs, if their histories allow it.
    Follow(usize, usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let directory = 0..4usize;
    prop_oneof![
        2 => (directory.clone(), any::<bool>()).prop_map(|(d, shared)| Step::Start(d, shared)),
        3 => directory.clone().prop_map(Step::Write),
        1 => (directory.clone(), directory.clone()).prop_map(|(a, b)| Step::Copy(a, b)),
        2 => (directory.clone(), directory, 0..4usize).prop_map(|(a, b, n)| Step::Follow(a, b, n)),
    ]
}

/// The first epochs that two directories have the same, compared one by one.
fn brute_force(a: &Directory, b: &Directory) -> u64 {
    a.content.iter().zip(&b.content).take_while(|(a, b)| a == b).count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Starts, writes, copies and replicas in any order: what two histories call common is the same in both
    /// directories, and what differs is seen.
    #[test]
    fn histories_never_call_common_what_differs(steps in prop::collection::vec(step(), 1..60)) {
        let empty = Directory { history: History::default(), content: Vec::new(), running: false };
        let mut directories = vec![empty; 4];
        let (mut token, mut shares) = (0, false);
        for step in steps {
            match step {
                Step::Start(d, shared) => {
                    token += 1;
                    let directory = &mut directories[d];
                    let durable = directory.durable();
                    let shared = shared && durable.0 > 0;
                    shares |= shared;
                    let first = Epoch(durable.0 + u64::from(!shared));
                    directory.history.begin(RunId(token.into()), 1, first);
                    directory.running = true;
                    if shared {
                        if let Some(last) = directory.content.last_mut() {
                            *last = token;
                        }
                    }
                }
                Step::Write(d) if directories[d].running => {
                    token += 1;
                    directories[d].content.push(token);
                }
                Step::Write(_) => {}
                Step::Copy(from, to) => {
                    directories[to] = Directory { running: false, ..directories[from].clone() };
                }
                Step::Follow(primary, replica, epochs) if directories[primary].running && primary != replica => {
                    let (p, r) = (directories[primary].clone(), &mut directories[replica]);
                    let common = p.history.common(p.durable(), &r.history, r.durable());
                    if r.content.is_empty() || common == Common::UpTo(r.durable()) {
                        let end = p.content.len().min(r.content.len() + epochs);
                        let more = p.content[r.content.len()..end].to_vec();
                        r.content.extend(more);
                        r.history = p.history.clone();
                        r.running = false;
                        prop_assert_eq!(&r.content[..], &p.content[..r.content.len()]);
                    }
                }
                Step::Follow(..) => {}
            }
            for (a, b) in directories.iter().flat_map(|a| directories.iter().map(move |b| (a, b))) {
                let same = brute_force(a, b);
                match a.history.common(a.durable(), &b.history, b.durable()) {
                    Common::UpTo(epoch) => {
                        prop_assert!(epoch.0 <= same, "{:?} is called common of {:?} and {:?}", epoch, a, b);
                        // Nothing is given away where every epoch has one writer.
                        prop_assert!(shares || epoch.0 == same, "only {:?} of {:?} and {:?}", epoch, a, b);
                    }
                    Common::Nothing => prop_assert!(shares || same == 0, "nothing of {:?} and {:?}", a, b),
                    Common::Forgotten => prop_assert!(false, "the lists are short"),
                }
            }
        }
    }
}
