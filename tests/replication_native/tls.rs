// SPDX-License-Identifier: Apache-2.0
//! Pairs over TLS, and everybody who is not to get in.

use super::authority::{Authority, Wanted};
use super::pair::{content, options, replica_with, settings, write_before_replication, Engine, Replica};
use limestone_core::replication::native::replica::{Options, Server};
use limestone_core::replication::net::tls::{Certificates, Files, Part};
use limestone_core::replication::secret::Secret;
use limestone_core::replication::status::LinkState;
use limestone_core::types::{BlobId, Epoch};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Engines connect to this address.
pub const HOST: &str = "127.0.0.1";

/// The directories of both sides and their certificates.
pub struct Place {
    root: tempfile::TempDir,
    ca: Authority,
}

/// What makes a side one that is not to be believed.
type Spoil<'a> = &'a dyn Fn(&Place);

fn good<'a>(names: &'a [&'a str], serial: u64) -> Wanted<'a> {
    Wanted { names, serial, ends_in_days: 300 }
}

impl Place {
    /// Both sides have what they need.
    pub fn new() -> Place {
        let (root, ca) = (tempfile::tempdir().unwrap(), Authority::new("the CA"));
        let place = Place { root, ca };
        for name in ["data/primary", "data/replica"] {
            std::fs::create_dir_all(place.root.path().join(name)).unwrap();
        }
        place.ca.equip(&place.dir("primary"), good(&["primary.example"], 1));
        place.ca.equip(&place.dir("replica"), good(&["replica.example", HOST], 2));
        place
    }

    /// Where the certificates of a side are.
    fn dir(&self, side: &str) -> PathBuf {
        self.root.path().join(side)
    }

    pub fn data(&self, side: &str) -> PathBuf {
        self.root.path().join("data").join(side)
    }

    pub fn files(&self, side: &str) -> Files {
        let [certificate, key, authorities] = ["cert.pem", "key.pem", "ca.pem"].map(|name| self.dir(side).join(name));
        let revoked = Some(self.dir(side).join("crl.pem")).filter(|path| path.exists());
        Files { certificate, key, authorities, revoked, peer_name: None }
    }

    pub fn replica(&self, files: Files, secret: &Secret) -> (Replica, Arc<Certificates>) {
        let certificates = Arc::new(Certificates::open(files).unwrap());
        let options = Options { tls: Some(certificates.clone()), secret: secret.clone(), ..options() };
        (replica_with(&self.data("replica"), 0, options), certificates)
    }

    /// An engine that has the primary's certificates and these settings.
    pub fn engine(&self, port: u16, more: &[(&str, &str)]) -> Engine {
        let files = self.files("primary");
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut given = vec![
            ("TLS_CERT", text(&files.certificate)),
            ("TLS_KEY", text(&files.key)),
            ("TLS_CA", text(&files.authorities)),
        ];
        given.extend(files.revoked.map(|path| ("TLS_CRL", text(&path))));
        given.extend(more.iter().map(|&(name, value)| (name, value.to_owned())));
        let given: Vec<(&str, &str)> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Engine::start(&self.data("primary"), settings(port, &given))
    }

    /// Writes, waits until the engine says why that does not get over, and returns what it says.
    fn refusal(&self, server: &Server) -> String {
        let mut engine = self.engine(server.address().port(), &[]);
        engine.write(&["a"]);
        let status = engine.wait_status(|status| status.last_error.is_some());
        assert_eq!(status.propagated_epoch, None, "{status:?}");
        engine.shutdown();
        assert_eq!(server.durable(), Epoch(0));
        status.last_error.unwrap()
    }
}

#[test]
fn a_pair_works_with_certificates_alone_and_with_the_secret_as_well() {
    for secret in [None, Some("a secret that both sides know")] {
        let place = Place::new();
        let known = secret.map_or_else(Secret::default, |secret| Secret::new(secret.as_bytes()).unwrap());
        let (server, certificates) = place.replica(place.files("replica"), &known);
        let file = place.root.path().join("secret");
        std::fs::write(&file, secret.unwrap_or_default()).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let more = [("SECRET_FILE", file.to_str().unwrap()), ("LANES", "3")];
        let mut engine = place.engine(server.address().port(), if secret.is_some() { &more } else { &more[1..] });
        let large = "k".repeat(1 << 20);
        let mut last = Epoch(0);
        for n in 0..20 {
            last = engine.write(&[&n.to_string(), &format!("{large}{n}"), "same"]);
        }
        engine.wait_propagated(last);
        let left = engine.store.metrics().snapshot().certificate_seconds;
        assert!(left.is_some_and(|left| (299 * 86_400..=300 * 86_400).contains(&left)), "{left:?}");
        engine.shutdown();
        drop(server);
        assert_eq!(content(&place.data("primary")), content(&place.data("replica")));
        assert!(certificates.expires() > 0);
    }
}

#[test]
fn a_base_sync_and_blobs_go_over_tls() {
    let place = Place::new();
    let (server, _) = place.replica(place.files("replica"), &Secret::default());
    write_before_replication(&place.data("primary"));
    let mut engine = place.engine(server.address().port(), &[]);
    let bytes = vec![7; (3 << 20) + 1];
    let pool = engine.store.blob_pool();
    let blobs: Vec<BlobId> = (0..3).map(|_| pool.register_data(&bytes).unwrap()).collect();
    let epoch = engine.write_with_blobs(&["k"], &blobs);
    engine.wait_propagated(epoch);
    for blob in blobs {
        let (path, _) = engine.store.blobs().file(blob);
        let name = path.strip_prefix(place.data("primary")).unwrap();
        assert!(std::fs::read(place.data("replica").join(name)).unwrap() == bytes);
    }
    engine.shutdown();
    drop(server);
    assert_eq!(content(&place.data("replica")).get("early").map(String::as_str), Some("0"));
    assert_eq!(content(&place.data("primary")), content(&place.data("replica")));
}

#[test]
fn a_pair_with_different_secrets_does_not_come_about_over_tls_either() {
    let place = Place::new();
    let (server, _) = place.replica(place.files("replica"), &Secret::new(b"one that only one knows").unwrap());
    let refusal = place.refusal(&server);
    assert!(refusal.contains("secret"), "{refusal}");
}

#[test]
fn the_primary_believes_nobody_but_the_replica_of_its_address() {
    let foreign = Authority::new("another CA");
    let cases: [(&str, Spoil<'_>, &str); 5] = [
        ("expired", &|p| p.ca.equip(&p.dir("replica"), Wanted { ends_in_days: -2, ..good(&[HOST], 2) }), "expired"),
        (
            "wrong name",
            &|p| p.ca.equip(&p.dir("replica"), good(&["other.example", "127.0.0.2"], 2)),
            "not valid for name",
        ),
        (
            "foreign",
            &|p| {
                foreign.equip(&p.dir("replica"), good(&[HOST], 2));
                p.ca.vouch(&p.dir("replica"));
            },
            "of no CA in",
        ),
        ("revoked", &|p| drop(p.ca.revoke(&p.dir("primary"), &[2])), "revoked"),
        ("lists of others", &|p| drop(foreign.revoke(&p.dir("primary"), &[7])), "no list in"),
    ];
    for (what, spoil, expected) in cases {
        let place = Place::new();
        spoil(&place);
        let (server, _) = place.replica(place.files("replica"), &Secret::default());
        let refusal = place.refusal(&server);
        assert!(refusal.to_lowercase().contains(&expected.to_lowercase()), "{what}: {refusal}");
    }
}

#[test]
fn the_replica_believes_nobody_but_a_primary_of_its_ca_and_name() {
    let foreign = Authority::new("another CA");
    let cases: [(&str, Spoil<'_>, Option<&str>, &str); 4] = [
        (
            "expired",
            &|p| p.ca.equip(&p.dir("primary"), Wanted { ends_in_days: -2, ..good(&["primary.example"], 1) }),
            None,
            "has expired",
        ),
        ("wrong name", &|_| {}, Some("boss.example"), "not one that it accepts"),
        (
            "foreign",
            &|p| {
                foreign.equip(&p.dir("primary"), good(&["primary.example"], 1));
                p.ca.vouch(&p.dir("primary"));
            },
            None,
            "of a CA that it does not know",
        ),
        ("revoked", &|p| drop(p.ca.revoke(&p.dir("replica"), &[1])), None, "was revoked"),
    ];
    for (what, spoil, peer_name, expected) in cases {
        let place = Place::new();
        spoil(&place);
        let files = Files { peer_name: peer_name.map(str::to_owned), ..place.files("replica") };
        let (server, _) = place.replica(files, &Secret::default());
        let refusal = place.refusal(&server);
        assert!(refusal.contains(expected), "{what}: {refusal}");
    }
}

#[test]
fn a_name_that_is_asked_for_stands_in_for_the_host() {
    let place = Place::new();
    place.ca.equip(&place.dir("replica"), good(&["replica.example"], 2));
    let files = Files { peer_name: Some("primary.example".to_owned()), ..place.files("replica") };
    let (server, _) = place.replica(files, &Secret::default());
    let mut engine = place.engine(server.address().port(), &[("TLS_PEER_NAME", "replica.example")]);
    let epoch = engine.write(&["a"]);
    engine.wait_propagated(epoch);
    engine.shutdown();
}

#[test]
fn neither_side_falls_back_to_a_connection_without_tls() {
    let place = Place::new();
    let (server, _) = place.replica(place.files("replica"), &Secret::default());
    let mut plain = Engine::start(&place.data("primary"), settings(server.address().port(), &[]));
    plain.write(&["a"]);
    let status = plain.wait_state(LinkState::Refused);
    assert!(status.last_error.as_ref().unwrap().contains("TLS"), "{status:?}");
    plain.shutdown();
    assert_eq!(server.durable(), Epoch(0));
    drop(server);
    let server = replica_with(&place.data("replica"), 0, options());
    let refusal = place.refusal(&server);
    assert!(refusal.contains("TLS"), "{refusal}");
}

#[test]
fn certificates_are_read_again_and_the_former_ones_stay_when_that_fails() {
    let place = Place::new();
    place.ca.equip(&place.dir("replica"), Wanted { ends_in_days: -2, ..good(&[HOST], 2) });
    let (server, certificates) = place.replica(place.files("replica"), &Secret::default());
    let mut engine = place.engine(server.address().port(), &[]);
    let epoch = engine.write(&["a"]);
    engine.wait_state(LinkState::Refused);
    let before = certificates.expires();
    std::fs::write(place.dir("replica").join("cert.pem"), "nothing").unwrap();
    let error = certificates.read_again().unwrap_err();
    assert!(error.part == Part::Certificate && error.problem.contains("no certificate"), "{error}");
    assert_eq!(certificates.expires(), before);
    place.ca.equip(&place.dir("replica"), good(&[HOST], 2));
    certificates.read_again().unwrap();
    assert!(certificates.expires() > before);
    engine.wait_propagated(epoch);
    // The primary reads its own before each session.
    place.ca.equip(&place.dir("primary"), Wanted { ends_in_days: -2, ..good(&["primary.example"], 1) });
    let port = server.address().port();
    drop(server);
    let options = Options { tls: Some(certificates), ..options() };
    let _server = replica_with(&place.data("replica"), port, options);
    engine.wait_status(|status| status.last_error.as_ref().is_some_and(|error| error.contains("has expired")));
    place.ca.equip(&place.dir("primary"), good(&["primary.example"], 1));
    let epoch = engine.write(&["b"]);
    engine.wait_propagated(epoch);
    engine.shutdown();
}

#[test]
fn each_file_that_cannot_be_used_is_named() {
    let place = Place::new();
    let fails = |files: Files, part: Part, text: &str| {
        let error = Certificates::open(files).unwrap_err();
        assert!(error.part == part && error.problem.contains(text), "{error}");
    };
    let (files, dir) = (place.files("replica"), place.dir("replica"));
    let missing = dir.join("missing");
    fails(Files { certificate: missing.clone(), ..files.clone() }, Part::Certificate, "cannot be read");
    fails(Files { key: missing.clone(), ..files.clone() }, Part::Key, "cannot be read");
    fails(Files { authorities: dir.clone(), ..files.clone() }, Part::Authorities, "regular file");
    fails(Files { revoked: Some(missing), ..files.clone() }, Part::Revoked, "cannot be read");
    fails(Files { revoked: Some(files.certificate.clone()), ..files.clone() }, Part::Revoked, "no list of revoked");
    fails(Files { peer_name: Some("no host".to_owned()), ..files.clone() }, Part::PeerName, "name of a host");
    fails(Files { key: place.dir("primary").join("key.pem"), ..files.clone() }, Part::Key, "");
    std::fs::set_permissions(&files.key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    fails(files, Part::Key, "chmod 600");
}
