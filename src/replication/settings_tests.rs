// SPDX-License-Identifier: Apache-2.0

use super::*;

fn parse(variables: &[(&str, &str)]) -> Result<Option<ReplicationSettings>, SettingsError> {
    ReplicationSettings::parse(variables.iter().map(|&(name, value)| (name.into(), value.into())))
}

fn parsed(variables: &[(&str, &str)]) -> ReplicationSettings {
    let endpoint = [(ENDPOINT, "tcp://localhost:1234")];
    parse(&[&endpoint, variables].concat()).unwrap().unwrap()
}

#[test]
fn nothing_is_set_without_an_endpoint() {
    assert_eq!(parse(&[("PATH", "/bin"), (ASYNC_SESSION_CLOSE, "")]), Ok(None));
}

#[test]
fn what_demands_a_replica_is_an_error_without_an_endpoint_and_all_else_is_not() {
    for (variable, value) in [(MODE, "strict"), (MODE, "degrade 1000"), (QUORUM, "1")] {
        let error = parse(&[(TIMEOUT_MS, "5"), (variable, value)]).unwrap_err();
        assert!(error.variable == variable && error.problem.contains(ENDPOINT), "{error}");
    }
    let set = [(PROTOCOL, "native"), (MODE, "async"), (TIMEOUT_MS, "5"), (LANES, "1"), (RETAIN_MB, "1")];
    assert_eq!(parse(&set), Ok(None));
}

#[test]
fn closed_log_files_are_read_again_each_day_unless_that_is_switched_off() {
    assert_eq!(parsed(&[]).scrubbing, Scrubbing::at(8, 86_400));
    assert_eq!(parsed(&[(SCRUB_MB_S, "1"), (SCRUB_PERIOD_S, "60")]).scrubbing, Scrubbing::at(1, 60));
    assert_eq!(parsed(&[(SCRUB_MB_S, "0")]).scrubbing, None);
    for (variable, value) in [(SCRUB_MB_S, "fast"), (SCRUB_PERIOD_S, "0")] {
        let endpoint = (ENDPOINT, "tcp://localhost:1234");
        assert_eq!(parse(&[endpoint, (variable, value)]).unwrap_err().variable, variable);
    }
}

#[test]
fn the_default_quorum_makes_a_majority_of_all_copies() {
    for (replicas, quorum) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)] {
        let list: Vec<String> = (0..replicas).map(|n| format!("r{n}=tcp://h{n}:1")).collect();
        let settings = parse(&[(REPLICAS, &list.join(","))]).unwrap().unwrap();
        assert_eq!((settings.quorum, settings.replicas.len()), (quorum, replicas));
        let all = replicas.to_string();
        assert_eq!(parse(&[(REPLICAS, &list.join(",")), (QUORUM, &all)]).unwrap().unwrap().quorum, replicas);
    }
    let one = parsed(&[]);
    assert_eq!((one.quorum, &one.replicas[0].endpoints), (1, &one.endpoints));
    assert_eq!(one.replicas[0].name, "localhost:1234");
}

#[test]
fn what_says_two_things_about_the_replicas_or_what_the_protocol_cannot_have_is_refused() {
    let both = [(REPLICAS, "a=tcp://a:1"), (ENDPOINT, "tcp://a:1")];
    assert!(parse(&both).unwrap_err().problem.contains(ENDPOINT));
    let of_upstream = [(REPLICAS, "a=tcp://a:1"), (PROTOCOL, "upstream")];
    assert_eq!(parse(&of_upstream).unwrap_err().variable, REPLICAS);
    for quorum in ["0", "2", "all"] {
        assert_eq!(parse(&[(REPLICAS, "a=tcp://a:1"), (QUORUM, quorum)]).unwrap_err().variable, QUORUM);
    }
    assert_eq!(parse(&[(QUORUM, "1")]).unwrap_err().variable, QUORUM);
}

#[test]
fn a_secret_that_the_protocol_cannot_use_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, "0123456789abcdef").unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let variables = [(ENDPOINT, "tcp://a:1"), (SECRET_FILE, file.path().to_str().unwrap())];
    assert!(parse(&variables).unwrap().is_some());
    let error = parse(&[&variables[..], &[(PROTOCOL, "upstream")]].concat()).unwrap_err();
    assert!(error.variable == SECRET_FILE && error.problem.contains("upstream"), "{error}");
}

#[test]
fn the_defaults_are_strict_native_and_one_lane() {
    let settings = parsed(&[]);
    assert_eq!(settings.endpoints, [Endpoint { host: "localhost".to_owned(), port: 1234 }]);
    assert_eq!((settings.protocol, settings.mode, settings.lanes), (Protocol::Native, Mode::Strict, 1));
    assert_eq!(settings.timeout, Duration::from_secs(10));
    assert_eq!(settings.retain_bytes, 4096 << 20);
    assert!(settings.secret.is_none() && !settings.allow_no_secret);
    assert!(!settings.async_session_close && !settings.async_group_commit);
}

#[test]
fn every_value_is_taken() {
    let settings = parsed(&[
        (PROTOCOL, "upstream"),
        (MODE, "degrade 250"),
        (TIMEOUT_MS, "1500"),
        (LANES, "64"),
        (ALLOW_NO_SECRET, "1"),
        (RETAIN_MB, "0"),
        (ASYNC_SESSION_CLOSE, ""),
        (ASYNC_GROUP_COMMIT, "no"),
    ]);
    assert_eq!(settings.protocol, Protocol::Upstream);
    assert_eq!(settings.mode, Mode::Degrade(Duration::from_millis(250)));
    assert_eq!(parsed(&[(MODE, "degrade:250")]).mode, settings.mode);
    assert_eq!(settings.timeout, Duration::from_millis(1500));
    assert_eq!((settings.lanes, settings.allow_no_secret, settings.retain_bytes), (64, true, 0));
    assert!(settings.async_session_close && settings.async_group_commit);
}

#[test]
fn what_is_not_understood_is_an_error_that_names_the_variable() {
    let bad = [
        (
            ENDPOINT,
            &[
                "",
                "localhost:1",
                "tcp://:1",
                "tcp://a",
                "tcp://a:",
                "tcp://a:65536",
                "tcp://a:+1",
                "tcp://a:1/",
                "tcp://a b:1",
                "tcp://::1:5",
                "tcp://[a]:1",
                "tcp://a:1,",
                "TCP://a:1",
                "tcp://a:1 x",
            ][..],
        ),
        (PROTOCOL, &["", "Native", "2"]),
        (MODE, &["", "sync", "degrade", "degrade x", "degrade -1", "degrade 99999999999", "degraded 5"]),
        (TIMEOUT_MS, &["", "0", "-1", "+5", "1e3", "10s", "99999999999"]),
        (LANES, &["0", "65", "two"]),
        (ALLOW_NO_SECRET, &["", "yes"]),
        (RETAIN_MB, &["-1", "18446744073709551615"]),
        (SECRET_FILE, &["", "/does/not/exist"]),
        ("TSURUGI_REPLICATION_MODES", &["strict"]),
    ];
    for (variable, values) in bad {
        for value in values {
            let error = parse(&[(variable, value)]).unwrap_err();
            assert_eq!((error.variable.as_str(), error.value.as_str()), (variable, *value));
            assert!(error.to_string().starts_with(variable), "{error}");
        }
    }
}

#[test]
fn the_secret_is_read_from_a_file_that_only_its_owner_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    let set = |content: &str, mode: u32| {
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        parse(&[(ENDPOINT, "tcp://a:1"), (SECRET_FILE, path.to_str().unwrap())])
    };
    let settings = set("0123456789abcdef\n", 0o600).unwrap().unwrap();
    assert_eq!(settings.secret, Secret::new(b"0123456789abcdef").unwrap());
    assert!(!format!("{settings:?}").contains("0123456789abcdef"), "a secret is not printed");
    let error = set("0123456789abcdef", 0o640).unwrap_err();
    assert!(error.variable == SECRET_FILE && error.problem.contains("chmod 600"), "{error}");
    assert!(set("too short\n", 0o600).is_err());
}

#[test]
fn tls_needs_all_of_its_files_and_says_which_is_missing_or_wrong() {
    let all = [(TLS_CERT, "/none/cert"), (TLS_KEY, "/none/key"), (TLS_CA, "/none/ca")];
    for (missing, _) in all {
        let rest: Vec<(&str, &str)> = all.iter().copied().filter(|(name, _)| *name != missing).collect();
        let error = parse(&[&[(ENDPOINT, "tcp://h:1")][..], &rest].concat()).unwrap_err();
        assert!(error.problem.contains(missing) && rest.iter().any(|(name, _)| *name == error.variable), "{error}");
    }
    for alone in [TLS_CRL, TLS_PEER_NAME] {
        let error = parse(&[(ENDPOINT, "tcp://h:1"), (alone, "x")]).unwrap_err();
        assert!(error.variable == alone && error.problem.contains(TLS_CERT), "{error}");
    }
    let error = parse(&[&[(ENDPOINT, "tcp://h:1")][..], &all].concat()).unwrap_err();
    assert!(error.variable == TLS_CERT && error.problem.contains("cannot be read"), "{error}");
    let upstream = [(ENDPOINT, "tcp://h:1"), (PROTOCOL, "upstream"), (VERSION_MIN, "2")];
    assert_eq!(parse(&upstream).unwrap_err().variable, VERSION_MIN);
}
