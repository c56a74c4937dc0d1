// SPDX-License-Identifier: Apache-2.0
//! Certificates as options of the program: what it takes then, reads again, and says of their end.

use crate::authority::{Authority, Wanted};
use crate::primary::{identity, Primary};
use crate::program::{run, Replica, DEADLINE};
use limestone_core::replication::native::protocol::message::Code;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

const DAY: f64 = 86_400.0;

fn days_left(dir: &Path) -> f64 {
    let printed = run(&["metrics", dir.to_str().unwrap()], &[]).stdout;
    let line = printed.lines().find_map(|line| line.strip_prefix("limestone_certificate_seconds "));
    line.unwrap_or_else(|| panic!("{printed}")).parse::<f64>().unwrap() / DAY
}

#[test]
fn a_hangup_reads_the_certificates_again_and_their_end_is_told() {
    let root = tempfile::tempdir().unwrap();
    let (dir, certificates, ca) = (root.path().join("data"), root.path().join("tls"), Authority::new("the CA"));
    std::fs::create_dir(&dir).unwrap();
    let equip = |days| {
        ca.equip(&certificates, Wanted { names: &["127.0.0.1"], serial: 1, ends_in_days: days });
    };
    equip(10);
    let path = |name: &str| certificates.join(name).to_str().unwrap().to_owned();
    let (cert, key, authorities) = (path("cert.pem"), path("key.pem"), path("ca.pem"));
    let revoked = ca.revoke_until(&certificates, &[7], SystemTime::now() - Duration::from_secs(3600));
    let options = ["--tls-cert", &cert, "--tls-key", &key, "--tls-ca", &authorities, "--tls-crl"];
    let options = [&options[..], &[revoked.to_str().unwrap()]].concat();
    let replica = Replica::start_with(&dir, &options, &[]);
    let refused = Primary::connect_as(replica.address, identity(0, 1), &[]).err().unwrap();
    assert!(refused.code == Code::NO_TLS && refused.text.contains("TLS"), "{refused}");
    assert!((9.0..=10.0).contains(&days_left(&dir)));
    equip(200);
    ca.revoke(&certificates, &[7]);
    replica.signal(libc::SIGHUP);
    let deadline = Instant::now() + DEADLINE;
    while days_left(&dir) < 199.0 {
        assert!(Instant::now() < deadline, "the new certificate is not taken");
        std::thread::sleep(Duration::from_millis(20));
    }
    let log = replica.stop();
    let is_told = ["expires in 9 days", "expires in 10 days"].iter().any(|text| log.contains(text));
    assert!(is_told && log.contains("the certificates were read again"), "{log}");
    for line in ["expires in", "crl.pem is past its time"] {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
}

#[test]
fn files_that_cannot_be_used_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let logdir = dir.path().to_str().unwrap();
    let listen = ["--listen", "tcp://127.0.0.1:0"];
    let found = run(&[&[logdir, "--tls-cert", "/none"], &listen[..]].concat(), &[]);
    assert!(found.exit == 1 && found.stderr.contains("TSURUGI_REPLICATION_TLS_KEY"), "{}", found.stderr);
    let all = [logdir, "--tls-cert", "/none", "--tls-key", "/none", "--tls-ca", "/none"];
    let found = run(&[&all[..], &listen].concat(), &[]);
    assert!(found.exit == 1 && found.stderr.contains("TLS_CERT is \"/none\": it cannot be read"), "{}", found.stderr);
}
