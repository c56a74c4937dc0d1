// SPDX-License-Identifier: Apache-2.0
//! What docs/operations.md tells to do for certificates, done as it stands there.

use super::pair::{options, replica_with, settings, Engine, Replica};
use limestone_core::replication::native::replica::Options;
use limestone_core::replication::net::tls::{Certificates, Files};
use limestone_core::replication::status::LinkState;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// The commands of the section, one text for each block.
fn recipe() -> Vec<String> {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    let manual = std::fs::read_to_string(manual).unwrap();
    let (_, behind) = manual.split_once("\n### Certificates\n").unwrap();
    let (section, _) = behind.split_once("\n### ").unwrap();
    let blocks = section.split("```sh\n").skip(1);
    blocks.map(|block| block.split_once("```").unwrap().0.to_owned()).collect()
}

fn follow(commands: &str, dir: &Path) {
    let output = Command::new("bash").args(["-euo", "pipefail", "-c", commands]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn files(dir: &Path, host: &str, peer: &str, revoked: Option<PathBuf>) -> Files {
    Files {
        certificate: dir.join(format!("{host}.pem")),
        key: dir.join(format!("{host}.key")),
        authorities: dir.join("ca.pem"),
        revoked,
        peer_name: Some(peer.to_owned()),
    }
}

/// A pair whose sides are db1 and db2.
fn pair(root: &Path, revoked: Option<PathBuf>) -> (Replica, Engine) {
    let [primary, standby] = ["primary", "standby"].map(|name| root.join(name));
    [&primary, &standby].iter().for_each(|dir| std::fs::create_dir_all(dir).unwrap());
    let tls = Certificates::open(files(root, "db2.example", "db1.example", revoked)).unwrap();
    let server = replica_with(&standby, 0, Options { tls: Some(Arc::new(tls)), ..options() });
    let of_primary = files(root, "db1.example", "db2.example", None);
    let [cert, key, ca] = [&of_primary.certificate, &of_primary.key, &of_primary.authorities];
    let [cert, key, ca] = [cert, key, ca].map(|path| path.to_str().unwrap());
    let given = [("TLS_CERT", cert), ("TLS_KEY", key), ("TLS_CA", ca), ("TLS_PEER_NAME", "db2.example")];
    let engine = Engine::start(&primary, settings(server.address().port(), &given));
    (server, engine)
}

#[test]
fn certificates_made_as_the_manual_says_work_and_can_be_revoked() {
    if let Err(e) = Command::new("openssl").arg("version").output() {
        // What a test that succeeds prints is not shown.
        let line = format!("NOT RUN: openssl cannot be started: {e}\n");
        return std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    let root = tempfile::tempdir().unwrap();
    let recipe = recipe();
    let [make, _export, revoke] = recipe.as_slice() else { panic!("{recipe:?}") };
    follow(make, root.path());
    let (server, mut engine) = pair(root.path(), None);
    let epoch = engine.write(&["a"]);
    engine.wait_propagated(epoch);
    engine.shutdown();
    drop(server);
    follow(revoke, root.path());
    let (_server, engine) = pair(root.path(), Some(root.path().join("crl.pem")));
    let status = engine.wait_state(LinkState::Refused);
    assert!(status.last_error.as_ref().is_some_and(|error| error.contains("was revoked")), "{status:?}");
    engine.shutdown();
}
