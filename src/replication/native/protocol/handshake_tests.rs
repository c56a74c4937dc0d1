// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::wal::history::{Run, RunId};

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes()).unwrap()
}

/// Runs by id and first epoch; every takeover raised the term.
fn history(runs: &[(u128, u64, u64)]) -> History {
    let runs = runs.iter().map(|&(id, term, first_epoch)| Run { id: RunId(id), term, first_epoch });
    History::new(runs.collect(), false).unwrap()
}

const RUNS: [(u128, u64, u64); 3] = [(1, 1, 0), (2, 2, 50), (3, 3, 80)];

fn primary() -> PrimaryIdentity {
    PrimaryIdentity {
        uuid: "uuid".to_owned(),
        term: 3,
        history: history(&RUNS),
        stored: Epoch(100),
        oldest_shippable: Epoch(20),
        lanes: 2,
        max_channels: 100,
        capabilities: 0,
    }
}

/// A replica that is in the run of this term.
fn standing(term: u64, durable: u64) -> Standing {
    let history = history(&RUNS[..term as usize]);
    Standing { uuid: "uuid".to_owned(), empty: false, term, history, durable: Epoch(durable) }
}

fn answer(durable: u64, outcome: Outcome) -> Message {
    Message::Answer {
        replica: Some(ReplicaIdentity {
            uuid: "uuid".to_owned(),
            term: 3,
            history: history(&RUNS),
            durable: Epoch(durable),
            outcome,
            max_channels: 10,
            directory: 7,
        }),
    }
}

/// Both sides up to the replica's verdict about the primary's proof.
fn shake(kind: ConnectionKind, of_primary: &str, of_replica: &str) -> (PrimaryHandshake, Result<ReplicaStep, Reason>) {
    let identity = (kind == ConnectionKind::Control).then(primary);
    let (mut p, hello) = PrimaryHandshake::start(kind, [5; 16], [1; 32], secret(of_primary), identity);
    let mut r = ReplicaHandshake::new([2; 32], secret(of_replica));
    let Ok(ReplicaStep::Send(challenge)) = r.on_message(hello) else { panic!("a challenge") };
    let verdict = match p.on_message(challenge) {
        Ok(PrimaryStep::Send(identity)) => r.on_message(identity),
        Err(reason) => Err(reason),
        other => panic!("{other:?}"),
    };
    (p, verdict)
}

const KEY: &str = "0123456789abcdef";

#[test]
fn both_sides_open_each_kind_of_connection() {
    for kind in [ConnectionKind::Control, ConnectionKind::Lane(1), ConnectionKind::Blob, ConnectionKind::Base] {
        let (mut p, verdict) = shake(kind, KEY, KEY);
        let control = kind == ConnectionKind::Control;
        let identified = Identified { kind, session_id: [5; 16], version: VERSION, primary: control.then(primary) };
        assert_eq!(verdict, Ok(ReplicaStep::Identified(identified)));
        let reply = if control { answer(90, Outcome::CatchUp) } else { Message::Answer { replica: None } };
        assert!(matches!(p.on_message(reply), Ok(PrimaryStep::Accepted(id)) if id.is_some() == control));
    }
}

#[test]
fn neither_side_accepts_another_secret() {
    let (_, verdict) = shake(ConnectionKind::Control, KEY, "another secret of this length");
    assert_eq!(verdict.unwrap_err().code, Code::BAD_SECRET);
    let mut r = ReplicaHandshake::new([2; 32], secret(KEY));
    let (_, hello) = PrimaryHandshake::start(ConnectionKind::Blob, [5; 16], [1; 32], secret(KEY), None);
    r.on_message(hello).unwrap();
    let forged = Message::Identity { proof: [0; 32], primary: None };
    assert_eq!(r.on_message(forged).unwrap_err().code, Code::BAD_SECRET);
}

#[test]
fn what_the_primary_says_about_itself_is_covered_by_its_proof() {
    let (mut p, hello) =
        PrimaryHandshake::start(ConnectionKind::Control, [5; 16], [1; 32], secret(KEY), Some(primary()));
    let mut r = ReplicaHandshake::new([2; 32], secret(KEY));
    let Ok(ReplicaStep::Send(challenge)) = r.on_message(hello) else { panic!("a challenge") };
    let Ok(PrimaryStep::Send(Message::Identity { proof, .. })) = p.on_message(challenge) else { panic!("an identity") };
    let other = PrimaryIdentity { term: 4, ..primary() };
    let changed = Message::Identity { proof, primary: Some(other) };
    assert_eq!(r.on_message(changed).unwrap_err().code, Code::BAD_SECRET);
}

#[test]
fn messages_out_of_order_end_the_handshake() {
    let start = || PrimaryHandshake::start(ConnectionKind::Control, [5; 16], [1; 32], secret(KEY), Some(primary()));
    assert_eq!(start().0.on_message(answer(90, Outcome::CatchUp)).unwrap_err().code, Code::PROTOCOL);
    assert_eq!(start().0.on_message(Message::Bye).unwrap_err().code, Code::PROTOCOL);
    let (mut p, _) = shake(ConnectionKind::Control, KEY, KEY);
    let again = Message::Challenge { version: VERSION, nonce: [0; 32], proof: [0; 32] };
    assert_eq!(p.on_message(again).unwrap_err().code, Code::PROTOCOL);
    let mut r = ReplicaHandshake::new([2; 32], secret(KEY));
    let identity = Message::Identity { proof: [0; 32], primary: None };
    assert_eq!(r.on_message(identity).unwrap_err().code, Code::PROTOCOL);
    let (_, hello) = start();
    r.on_message(hello.clone()).unwrap();
    assert_eq!(r.on_message(hello).unwrap_err().code, Code::PROTOCOL);
    let refused = Reason::new(Code::BUSY, "busy");
    assert_eq!(start().0.on_message(Message::Refused(refused.clone())), Ok(PrimaryStep::Refused(refused)));
}

#[test]
fn a_version_that_is_not_shared_is_refused() {
    let (mut p, hello) = PrimaryHandshake::start(ConnectionKind::Blob, [5; 16], [1; 32], secret(KEY), None);
    let Message::Hello(hello) = hello else { panic!("a hello") };
    for (version_min, version_max) in [(1, 1), (1, VERSION_USUAL - 1), (VERSION + 1, 9)] {
        let mut r = ReplicaHandshake::new([2; 32], secret(KEY));
        let other = Hello { version_min, version_max, ..hello.clone() };
        assert_eq!(r.on_message(Message::Hello(other)).unwrap_err().code, Code::VERSION);
    }
    for version in [1, VERSION_USUAL - 1, VERSION + 1] {
        let other = Message::Challenge { version, nonce: [0; 32], proof: [0; 32] };
        assert_eq!(p.on_message(other).unwrap_err().code, Code::VERSION);
    }
}

#[test]
fn a_side_that_knows_no_reports_is_spoken_to_and_told_of_none() {
    for (known, is_told) in [(VERSION_USUAL, false), (VERSION, true)] {
        let (mut p, hello) = PrimaryHandshake::start(ConnectionKind::Blob, [5; 16], [1; 32], secret(KEY), None);
        let Message::Hello(hello) = hello else { panic!("a hello") };
        let proof = Transcript::new(&hello, known, &[2; 32]).replica_proof(&secret(KEY));
        p.on_message(Message::Challenge { version: known, nonce: [2; 32], proof }).unwrap();
        assert_eq!((p.is_told_of_reports(), p.seals().is_some()), (is_told, true), "version {known}");
        let mut r = ReplicaHandshake::new([2; 32], secret(KEY));
        let step = r.on_message(Message::Hello(Hello { version_max: known, ..hello }));
        assert!(matches!(step, Ok(ReplicaStep::Send(Message::Challenge { version, .. })) if version == known));
        assert!(r.seals().is_some(), "version {known}");
    }
}

/// A side that speaks a version without sealed frames as well.
fn lenient() -> Terms {
    Terms { version_min: 2, ..secret(KEY).into() }
}

fn lenient_primary() -> (PrimaryHandshake, Hello) {
    let (p, hello) = PrimaryHandshake::start(ConnectionKind::Blob, [5; 16], [1; 32], lenient(), None);
    let Message::Hello(hello) = hello else { panic!("a hello") };
    (p, hello)
}

#[test]
fn a_side_of_the_former_version_is_spoken_to_where_that_is_allowed_and_its_frames_are_not_sealed() {
    // A replica that knows version 2 only.
    let (mut p, hello) = lenient_primary();
    let proof = Transcript::new(&hello, 2, &[2; 32]).replica_proof(&secret(KEY));
    let step = p.on_message(Message::Challenge { version: 2, nonce: [2; 32], proof });
    assert!(matches!(step, Ok(PrimaryStep::Send(_))), "{step:?}");
    assert!(p.is_exposed() && p.seals().is_none());
    // A primary that knows version 2 only.
    let old = Hello { version_max: 2, ..hello };
    let mut r = ReplicaHandshake::new([2; 32], lenient());
    let step = r.on_message(Message::Hello(old.clone()));
    assert!(matches!(step, Ok(ReplicaStep::Send(Message::Challenge { version: 2, .. }))), "{step:?}");
    let proof = Transcript::new(&old, 2, &[2; 32]).primary_proof(&secret(KEY), None);
    let step = r.on_message(Message::Identity { proof, primary: None });
    assert!(matches!(step, Ok(ReplicaStep::Identified(_))), "{step:?}");
    assert!(r.is_exposed() && r.seals().is_none());
}

#[test]
fn nobody_between_two_sides_of_this_version_makes_them_speak_the_former_one() {
    // The offer is cut down on the way: the replica's proof is over another Hello than the primary has sent.
    let (mut p, hello) = lenient_primary();
    let mut r = ReplicaHandshake::new([2; 32], lenient());
    let cut_down = Hello { version_max: 2, ..hello.clone() };
    let Ok(ReplicaStep::Send(challenge)) = r.on_message(Message::Hello(cut_down)) else { panic!("a challenge") };
    assert!(matches!(challenge, Message::Challenge { version: 2, .. }));
    assert_eq!(p.on_message(challenge).unwrap_err().code, Code::BAD_SECRET);
    // The choice is changed on the way.
    let (mut p, _) = lenient_primary();
    let mut r = ReplicaHandshake::new([2; 32], lenient());
    let Ok(ReplicaStep::Send(challenge)) = r.on_message(Message::Hello(hello)) else { panic!("a challenge") };
    let Message::Challenge { version, nonce, proof } = challenge else { panic!("a challenge") };
    assert_eq!(version, VERSION, "the highest that both speak");
    let changed = Message::Challenge { version: 2, nonce, proof };
    assert_eq!(p.on_message(changed).unwrap_err().code, Code::BAD_SECRET);
}

#[test]
fn both_sides_have_the_same_keys_and_only_with_a_secret_on_a_connection_that_needs_them() {
    let macs = |seals: Option<crate::replication::native::protocol::seal::Seals>| {
        seals.map(|mut seals| [seals.of_primary.mac(&[b"frame"]), seals.of_replica.mac(&[b"frame"])])
    };
    let with = |terms: Terms| {
        let (mut p, hello) = PrimaryHandshake::start(ConnectionKind::Blob, [5; 16], [1; 32], terms.clone(), None);
        let mut r = ReplicaHandshake::new([2; 32], terms);
        assert!(p.seals().is_none() && r.seals().is_none());
        let Ok(ReplicaStep::Send(challenge)) = r.on_message(hello) else { panic!("a challenge") };
        p.on_message(challenge).unwrap();
        assert!(!p.is_exposed() && !r.is_exposed());
        (macs(p.seals()), macs(r.seals()))
    };
    let (of_primary, of_replica) = with(secret(KEY).into());
    assert!(of_primary.is_some() && of_primary == of_replica);
    assert_ne!(of_primary.unwrap()[0], of_primary.unwrap()[1]);
    assert_eq!(with(Secret::default().into()), (None, None));
    assert_eq!(with(Terms { is_protected: true, ..secret(KEY).into() }), (None, None));
}

#[test]
fn the_primary_comes_to_the_same_outcome_or_does_not_accept_the_replica() {
    let reply = |durable, outcome| shake(ConnectionKind::Control, KEY, KEY).0.on_message(answer(durable, outcome));
    assert!(matches!(reply(90, Outcome::CatchUp), Ok(PrimaryStep::Accepted(_))));
    assert_eq!(reply(90, Outcome::Stream).unwrap_err().code, Code::PROTOCOL);
    assert_eq!(reply(101, Outcome::CatchUp).unwrap_err().code, Code::DIVERGED);
}

#[test]
fn fenced_is_believed_only_of_a_replica_that_has_proved_itself() {
    let fenced = || Message::Refused(Reason::new(Code::FENCED, "a later term"));
    let (mut p, _) = PrimaryHandshake::start(ConnectionKind::Control, [5; 16], [1; 32], secret(KEY), Some(primary()));
    assert_eq!(p.on_message(fenced()).unwrap_err().code, Code::PROTOCOL);
    let (mut p, _) = shake(ConnectionKind::Control, KEY, KEY);
    assert!(matches!(p.on_message(fenced()), Ok(PrimaryStep::Refused(reason)) if reason.code == Code::FENCED));
}

#[test]
fn the_histories_decide_how_a_replica_goes_on() {
    let empty =
        Standing { uuid: "new".to_owned(), empty: true, term: 0, history: History::default(), durable: Epoch(0) };
    let from_the_start = PrimaryIdentity { oldest_shippable: Epoch(1), ..primary() };
    let other = |runs: &[(u128, u64, u64)], durable| Standing { history: history(runs), ..standing(3, durable) };
    for (primary, replica, expected) in [
        (primary(), standing(3, 100), Ok(Outcome::Stream)),
        (primary(), standing(3, 99), Ok(Outcome::CatchUp)),
        (primary(), standing(3, 19), Ok(Outcome::CatchUp)),
        (primary(), standing(3, 18), Ok(Outcome::BaseSync)),
        (primary(), empty.clone(), Ok(Outcome::BaseSync)),
        (from_the_start, empty.clone(), Ok(Outcome::CatchUp)),
        (primary(), standing(3, 101), Err(Code::DIVERGED)),
        (primary(), Standing { term: 4, ..standing(3, 10) }, Err(Code::FENCED)),
        // What another instance has been through is not this primary's.
        (primary(), Standing { term: 4, ..empty.clone() }, Ok(Outcome::BaseSync)),
        (primary(), Standing { term: 4, uuid: "other".to_owned(), ..standing(3, 50) }, Err(Code::WRONG_IDENTITY)),
        (primary(), standing(2, 79), Ok(Outcome::CatchUp)),
        (primary(), standing(2, 80), Err(Code::DIVERGED)),
        (primary(), standing(1, 49), Ok(Outcome::CatchUp)),
        (primary(), standing(1, 50), Err(Code::DIVERGED)),
        // The same numbers, other runs: a former primary, one that was set back, two takeovers of one history.
        (primary(), other(&[(1, 1, 0), (2, 2, 50), (4, 3, 80)], 79), Ok(Outcome::CatchUp)),
        (primary(), other(&[(1, 1, 0), (2, 2, 50), (4, 3, 80)], 80), Err(Code::DIVERGED)),
        (primary(), other(&[(9, 1, 0)], 49), Err(Code::DIVERGED)),
        // A replica of version 1.0.0 has numbers only.
        (primary(), Standing { history: History::default(), ..standing(3, 100) }, Ok(Outcome::BaseSync)),
        (primary(), Standing { history: History::default(), ..standing(3, 101) }, Err(Code::DIVERGED)),
    ] {
        assert_eq!(decide(&primary, &replica).map_err(|reason| reason.code), expected, "{replica:?}");
    }
}

#[test]
fn a_replica_that_is_older_than_the_list_gets_a_base_sync() {
    let mut long = history(&RUNS);
    for epoch in 0..crate::wal::history::RUNS_MAX as u64 {
        long.begin(RunId(u128::from(epoch) + 10), 3, Epoch(101 + epoch));
    }
    let primary = PrimaryIdentity { history: long, stored: Epoch(2000), ..primary() };
    assert_eq!(decide(&primary, &standing(3, 100)), Ok(Outcome::BaseSync));
    assert_eq!(decide(&primary, &standing(3, 101)).unwrap_err().code, Code::DIVERGED);
}

#[test]
fn a_primary_that_leaves_no_room_for_what_follows_is_refused() {
    let with = |change: fn(&mut PrimaryIdentity)| {
        let mut primary = primary();
        change(&mut primary);
        let empty = Standing { empty: true, history: History::default(), ..standing(1, 0) };
        [empty, standing(3, 100)].map(|replica| decide(&primary, &replica).map_err(|reason| reason.code))
    };
    assert!(with(|primary| primary.stored = Epoch(1 << 62)).iter().all(Result::is_ok));
    assert_eq!(with(|primary| primary.stored = Epoch(u64::MAX)), [Err(Code::PROTOCOL); 2]);
    assert_eq!(with(|primary| primary.term = u64::MAX), [Err(Code::PROTOCOL); 2]);
}

#[test]
fn what_the_primary_finds_wrong_with_the_proof_is_the_reason_on_the_replica_too() {
    let mut replica = ReplicaHandshake::new([2; 32], Secret::default());
    let (_, hello) = PrimaryHandshake::start(ConnectionKind::Blob, [1; 16], [3; 32], Secret::default(), None);
    assert!(matches!(replica.on_message(hello), Ok(ReplicaStep::Send(_))));
    let reason = Reason::new(Code::BAD_SECRET, "the replica does not know the secret of this primary");
    assert_eq!(replica.on_message(Message::Error(reason.clone())), Err(reason));
}

#[test]
fn an_empty_replica_that_awaits_a_base_sync_refuses_a_primary_of_an_earlier_term() {
    let empty = Standing { empty: true, uuid: "own".to_owned(), term: 1, history: history(&[]), durable: Epoch(0) };
    assert_eq!(decide(&primary(), &empty), Ok(Outcome::BaseSync));
    let noted = followed(&empty, Claim::default(), &primary(), Outcome::BaseSync);
    assert!(noted.awaits_base_sync && noted.history.is_empty());
    let former = PrimaryIdentity { term: 2, history: history(&RUNS[..2]), ..primary() };
    let refused = check_term(&former, &noted.instance, noted.term).unwrap_err();
    assert_eq!(refused.code, Code::FENCED);
}

#[test]
fn a_replica_claims_no_more_than_before_while_the_term_of_its_primary_is_unknown() {
    let (replica, had) = (standing(2, 79), Claim { term: 2, epoch: 79 });
    let unknown = PrimaryIdentity { capabilities: PrimaryIdentity::TERM_UNKNOWN | 4, ..primary() };
    let claim = |primary: &PrimaryIdentity, outcome| followed(&replica, had, primary, outcome).claim(Epoch(99));
    assert_eq!(claim(&unknown, Outcome::CatchUp), had);
    assert_eq!(claim(&primary(), Outcome::CatchUp), Claim { term: 3, epoch: 99 });
    for primary in [primary(), unknown.clone()] {
        assert_eq!(claim(&primary, Outcome::BaseSync), had, "what it has is what it had");
    }
    assert_eq!(history_of(&unknown, had).claim(Epoch(99)), had, "a base sync is in place");
}
