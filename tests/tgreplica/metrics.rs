// SPDX-License-Identifier: Apache-2.0
//! What a monitoring system sees of a pair: metrics over HTTP and printed, and whether each side is in order.

use crate::authority::{Authority, Wanted};
use crate::openmetrics::{self, Numbers};
use crate::pair::Engine;
use crate::program::{run, status_when, Replica, DEADLINE};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LISTEN: (&str, &str) = ("LIMESTONE_METRICS_LISTEN", "tcp://127.0.0.1:0");
const OPENMETRICS: &str = "Accept: application/openmetrics-text; version=1.0.0\r\n";

/// Status line and body of the answer to these bytes; empty when the connection was closed without one.
fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return (answer, String::new()) };
    let len = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
    assert!(request.starts_with("HEAD") || len == body.len().to_string(), "{head}");
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

fn get(address: SocketAddr, path: &str, headers: &str) -> (String, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n"))
}

fn numbers(address: SocketAddr) -> Numbers {
    let (status, body) = get(address, "/metrics", OPENMETRICS);
    assert_eq!(status, "HTTP/1.1 200 OK");
    openmetrics::parse(&body).unwrap_or_else(|e| panic!("{e}\n{body}"))
}

fn code(address: SocketAddr, path: &str) -> String {
    get(address, path, "").0.split(' ').nth(1).unwrap().to_owned()
}

/// The program of Prometheus that is called so, when it is on this machine.
fn peer(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        // What a test that succeeds prints is not shown.
        std::io::stderr().write_all(format!("NOT RUN: there is no {program} on this machine\n").as_bytes()).unwrap();
    }
    found
}

/// What promtool finds in the text form of Prometheus.
fn lint(text: &str) {
    if !peer("promtool") {
        return;
    }
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{text}");
}

fn pair(dirs: &[tempfile::TempDir; 2]) -> (Engine, SocketAddr, Replica, SocketAddr) {
    let replica = Replica::start_with(dirs[1].path(), &[], &[LISTEN]);
    let of_replica = replica.metrics.expect("metrics are served");
    let engine = Engine::start(dirs[0].path(), replica.address, &[]);
    let of_engine = engine.engine.metrics_address().unwrap();
    (engine, of_engine, replica, of_replica)
}

fn dirs() -> [tempfile::TempDir; 2] {
    [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()]
}

#[test]
fn both_sides_of_a_pair_count_what_they_do_and_tell_it_in_both_forms() {
    let dirs = dirs();
    let (mut engine, of_engine, replica, of_replica) = pair(&dirs);
    engine.write(8, 100);
    engine.propagated();
    let shown = numbers(of_engine);
    // Six of the eight epochs have a session on each of three channels.
    assert_eq!((shown["limestone_sessions_total"], shown["limestone_entries_total"]), (18.0, 18.0));
    assert!(shown["limestone_session_bytes_total"] > 1800.0, "{shown:?}");
    assert!(shown["limestone_written_bytes_total"] >= shown["limestone_session_bytes_total"]);
    assert!(shown["limestone_sync_seconds_count"] >= 1.0 && shown["limestone_sync_seconds_sum"] > 0.0);
    for state in ["stored", "propagated"] {
        assert!(shown[&format!("limestone_commit_seconds_count{{state=\"{state}\"}}")] >= 1.0, "{state}");
    }
    assert_eq!(shown["limestone_role{role=\"primary\"}"], 1.0);
    assert_eq!(shown["limestone_state{state=\"streaming\"}"], 1.0);
    assert_eq!((shown["limestone_lag_epochs"], shown["limestone_failed"]), (0.0, 0.0));
    assert!(shown["limestone_switched_epoch"] >= shown["limestone_stored_epoch"]);
    assert!(shown["limestone_stored_epoch"] >= shown["limestone_propagated_epoch"]);
    assert!(shown["limestone_recovery_seconds"] > 0.0 && shown["limestone_disk_free_bytes"] > 0.0);

    status_when(dirs[1].path(), |status| status["state"] == "streaming");
    let shown = numbers(of_replica);
    assert_eq!((shown["limestone_role{role=\"replica\"}"], shown["limestone_role{role=\"primary\"}"]), (1.0, 0.0));
    assert!(shown["limestone_sync_seconds_count"] >= 1.0 && shown["limestone_written_bytes_total"] > 1800.0);
    assert!(!shown.contains_key("limestone_degraded"), "a replica does not know");

    for address in [of_engine, of_replica] {
        lint(&get(address, "/metrics", "").1);
    }
    for dir in &dirs {
        let path = dir.path().to_str().unwrap();
        let printed = run(&["metrics", path], &[]);
        assert_eq!(printed.exit, 0, "{}", printed.stderr);
        lint(&printed.stdout);
        let open = run(&["metrics", "--openmetrics", path], &[]);
        assert!(openmetrics::parse(&open.stdout).unwrap().contains_key("limestone_sync_seconds_count"));
    }
    engine.stop();
    replica.stop();
    let stopped = run(&["metrics", "--openmetrics", dirs[0].path().to_str().unwrap()], &[]);
    assert_eq!(stopped.exit, 6);
    let shown = openmetrics::parse(&stopped.stdout).unwrap();
    assert_eq!(shown["limestone_state{state=\"stopped\"}"], 1.0);
    assert!(!shown.contains_key("limestone_sessions_total"), "unknown is not 0");
}

#[test]
fn a_side_that_is_in_order_is_healthy_and_no_other() {
    let dirs = dirs();
    let (mut engine, of_engine, replica, of_replica) = pair(&dirs);
    engine.write(4, 10);
    engine.propagated();
    status_when(dirs[1].path(), |status| status["state"] == "streaming");
    let codes =
        |address| ["/healthz", "/healthz?role=primary", "/healthz?role=replica"].map(|path| code(address, path));
    assert_eq!(codes(of_engine), ["200", "200", "503"]);
    assert_eq!(codes(of_replica), ["200", "503", "200"]);
    engine.stop();
    status_when(dirs[1].path(), |status| status["state"] == "connecting");
    assert_eq!(codes(of_replica), ["503", "503", "503"]);
    assert!(get(of_replica, "/healthz", "").1.contains("replica: connecting"));
    assert!(TcpStream::connect(of_engine).is_err(), "an engine that has ended does not listen");
    replica.stop();
}

#[test]
fn clients_that_send_no_request_or_none_that_ends_keep_nobody_away() {
    let dirs = dirs();
    let (engine, of_engine, replica, of_replica) = pair(&dirs);
    for address in [of_engine, of_replica] {
        assert!(ask(address, "\x16\x03\x01\r\n\r\n").0.contains("400"));
        assert!(ask(address, &format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(100_000))).0.contains("431"));
        assert!(ask(address, "POST /metrics HTTP/1.1\r\nContent-Length: 5\r\n\r\n12345").0.contains("405"));
        let (head, body) = ask(address, "HEAD /metrics HTTP/1.1\r\n\r\n");
        assert_eq!((head.as_str(), body.as_str()), ("HTTP/1.1 200 OK", ""));
        assert_eq!([code(address, "/"), code(address, "/healthz?role=x")], ["404", "400"]);
        let begun = Instant::now();
        let mut silent: Vec<_> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
        assert_eq!(get(address, "/metrics", "").0, "HTTP/1.1 200 OK");
        for stream in &mut silent {
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap_or(0), 0, "it is closed");
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
    engine.stop();
    let log = replica.stop();
    assert!(log.lines().count() < 40, "no line for each of them: {log}");
}

#[test]
fn an_address_that_other_machines_reach_is_refused_until_it_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let listen = ("LIMESTONE_METRICS_LISTEN", "tcp://0.0.0.0:0");
    let refused = run(&[dir.path().to_str().unwrap(), "--listen", "tcp://127.0.0.1:0"], &[listen]);
    assert_eq!(refused.exit, 1);
    assert!(refused.stderr.contains("LIMESTONE_METRICS_ALLOW_REMOTE=1"), "{}", refused.stderr);
    let replica = Replica::start_with(dir.path(), &[], &[listen, ("LIMESTONE_METRICS_ALLOW_REMOTE", "1")]);
    assert!(replica.metrics.unwrap().ip().is_unspecified());
    replica.stop();
}

#[test]
fn a_real_prometheus_scrapes_both_sides() {
    if !peer("prometheus") {
        return;
    }
    let (dirs, home) = (dirs(), tempfile::tempdir().unwrap());
    let (mut engine, of_engine, replica, of_replica) = pair(&dirs);
    engine.write(4, 10);
    engine.propagated();
    let config = format!(
        "global: {{scrape_interval: 200ms}}\nscrape_configs:\n  - job_name: limestone\n    static_configs:\n      \
         - targets: ['{of_engine}', '{of_replica}']\n"
    );
    std::fs::write(home.path().join("prometheus.yml"), config).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], crate::ports::free_port()));
    let mut prometheus = Command::new("prometheus")
        .arg(format!("--config.file={}", home.path().join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", home.path().join("data").display()))
        .arg(format!("--web.listen-address={address}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let found = wait_for_targets(address);
    prometheus.kill().unwrap();
    prometheus.wait().unwrap();
    engine.stop();
    replica.stop();
    assert_eq!(found, Ok(()));
}

/// Until both sides are up and what they tell can be asked for.
fn wait_for_targets(prometheus: SocketAddr) -> Result<(), String> {
    let deadline = Instant::now() + DEADLINE;
    let ask_for = |query: &str| {
        let mut stream = TcpStream::connect(prometheus).ok()?;
        let request = format!("GET /api/v1/query?query={query} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str::<serde_json::Value>(answer.split_once("\r\n\r\n")?.1).ok()
    };
    let mut last = None;
    while Instant::now() < deadline {
        let queries = ["sum(up)", "count(limestone_propagated_epoch>0)", "count(limestone_commit_seconds_bucket>0)>0"];
        last = Some(queries.map(|query| ask_for(query).map(|answer| answer["data"]["result"][0]["value"][1].clone())));
        if let Some([Some(up), Some(propagated), Some(commits)]) = &last {
            if up == "2" && propagated == "2" && commits.is_string() {
                return Ok(());
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Err(format!("{last:?}"))
}

#[test]
fn the_rules_for_alerts_are_well_formed_and_fire_when_they_should() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist/prometheus");
    if peer("promtool") {
        for (what, file) in [("check", "alerts.yml"), ("test", "alerts_test.yml")] {
            let output = Command::new("promtool").args([what, "rules"]).arg(dist.join(file)).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
    // Rules and dashboard speak of metrics that there are.
    let (dir, engine_dir, tls) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Authority::new("the CA").equip(tls.path(), Wanted { names: &["127.0.0.1"], serial: 1, ends_in_days: 10 });
    let [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|name| tls.path().join(name).display().to_string());
    let variables = ["TLS_CERT", "TLS_KEY", "TLS_CA"].map(|name| format!("TSURUGI_REPLICATION_{name}"));
    let secured: Vec<_> = variables.iter().map(String::as_str).zip([&*cert, &key, &ca]).collect();
    let replica = Replica::start_with(dir.path(), &[], &secured);
    let mut engine = Engine::start(engine_dir.path(), replica.address, &secured);
    engine.write(2, 10);
    engine.propagated();
    let sides = [&engine_dir, &dir].map(|dir| run(&["metrics", dir.path().to_str().unwrap()], &[]).stdout);
    let printed = sides.concat();
    let dashboard = std::fs::read_to_string(dist.join("../grafana/dashboard.json")).unwrap();
    let parsed: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    assert!(parsed["panels"].as_array().unwrap().len() >= 6 && parsed["schemaVersion"].is_u64());
    for text in [dashboard, std::fs::read_to_string(dist.join("alerts.yml")).unwrap()] {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for name in text.split(|c| !is_name(c)).filter(|word| word.starts_with("limestone_")) {
            let there = printed
                .lines()
                .any(|line| line.starts_with(&format!("{name} ")) || line.starts_with(&format!("{name}{{")));
            assert!(there, "there is no {name}");
        }
    }
    engine.stop();
    replica.stop();
}
