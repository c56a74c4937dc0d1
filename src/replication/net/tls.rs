// SPDX-License-Identifier: Apache-2.0
//! TLS 1.3 with certificates of both sides: which files they come from, whom this side believes, and until when its own
//! certificate counts. Nothing is negotiated: a side that has certificates takes no connection without.

use super::certificate::{next_update, not_after};
use super::connection::Connection;
use super::deadline::Deadline;
use crate::lock_order::{Mutex, Rank, RwLock};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::{verify_server_name, Resumption, WebPkiServerVerifier};
use rustls::crypto::{ring, CryptoProvider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName, Error, RootCertStore};
use rustls::{ServerConfig, ServerConnection, SignatureScheme};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// No file of certificates is larger.
const FILE_BYTES_MAX: u64 = 16 << 20;
const DAY: Duration = Duration::from_secs(86_400);
/// For so long before its certificate ends a side says so.
const WARNED_BEFORE: Duration = Duration::from_secs(30 * 86_400);

/// Where everything is, as it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate of this side and those between it and the CA, in PEM.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CAs whose certificates are believed.
    pub authorities: PathBuf,
    /// Lists of what they have revoked.
    pub revoked: Option<PathBuf>,
    /// The name that the certificate of the other side has to have; else the host in its address where this side
    /// connects, and any where it accepts.
    pub peer_name: Option<String>,
}

/// What is wrong with what was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Certificate,
    Key,
    Authorities,
    Revoked,
    PeerName,
}

/// Why certificates cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct TlsError {
    pub part: Part,
    pub path: String,
    pub problem: String,
}

/// The certificates of this side. They can be read again while connections are made.
pub struct Certificates {
    files: Files,
    loaded: RwLock<Arc<Loaded>>,
    warned: Mutex<Option<Instant>>,
}

struct Loaded {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    peer_name: Option<ServerName<'static>>,
    /// Seconds since 1970.
    expires: u64,
    /// When the first of the lists should have been replaced, in the same.
    lists_due: Option<u64>,
}

impl Loaded {
    /// What a person has to see to.
    fn ends(&self) -> (u64, Option<u64>) {
        (self.expires, self.lists_due)
    }
}

/// Shows where they are, and no keys.
impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.files.fmt(f)
    }
}

/// Set alike.
impl PartialEq for Certificates {
    fn eq(&self, other: &Certificates) -> bool {
        self.files == other.files
    }
}

impl Eq for Certificates {}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// [`TlsError`] for a file that cannot be read or used, or a name that is none.
    pub fn open(files: Files) -> Result<Certificates, TlsError> {
        let loaded = RwLock::new(Rank::Leaf, Arc::new(load(&files)?));
        Ok(Certificates { files, loaded, warned: Mutex::default() })
    }

    /// Reads them again, for connections from now on. After an error the former ones stay in force.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn read_again(&self) -> Result<(), TlsError> {
        let loaded = Arc::new(load(&self.files)?);
        if std::mem::replace(&mut *self.loaded.write(), loaded.clone()).ends() != loaded.ends() {
            *self.warned.lock() = None;
        }
        Ok(())
    }

    /// Until when the certificate of this side counts, in seconds since 1970.
    pub fn expires(&self) -> u64 {
        self.loaded.read().expires
    }

    /// Says, once a day at most, that the certificate of this side ends soon, and that a list of revoked ones is old.
    /// To be called now and then.
    pub fn warn_of_the_end(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let lines = self.warnings(now);
        let mut warned = self.warned.lock();
        if !lines.is_empty() && warned.is_none_or(|warned| warned.elapsed() >= DAY) {
            *warned = Some(Instant::now());
            lines.iter().for_each(|line| log::warn!("replication: {line}"));
        }
    }

    fn warnings(&self, now: u64) -> Vec<String> {
        let loaded = self.loaded.read().clone();
        let certificate = ends_soon(loaded.expires, now);
        let certificate =
            certificate.map(|text| format!("the certificate {} {text}", self.files.certificate.display()));
        let is_old = loaded.lists_due.is_some_and(|due| due < now);
        let lists = self.files.revoked.as_ref().filter(|_| is_old).map(|path| {
            let path = path.display();
            format!(
                "a list in {path} is past its time, so what was revoked since is not known here: put a new one there"
            )
        });
        certificate.into_iter().chain(lists).collect()
    }

    /// The connection after a handshake in which the other side has shown the certificate of `host`.
    ///
    /// # Errors
    /// Why there is none, in words. The other side is told.
    pub fn connect(&self, connection: Connection, host: &str, deadline: Deadline) -> io::Result<Connection> {
        let loaded = self.loaded.read().clone();
        let name = match &loaded.peer_name {
            Some(name) => name.clone(),
            None => server_name(host)?,
        };
        let state = ClientConnection::new(loaded.client.clone(), name).map_err(io::Error::other)?;
        connection.secure(state.into(), deadline)
    }

    /// The connection after a handshake in which the other side has shown a certificate that this side believes.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn accept(&self, connection: Connection, deadline: Deadline) -> io::Result<Connection> {
        let config = self.loaded.read().server.clone();
        let state = ServerConnection::new(config).map_err(io::Error::other)?;
        connection.secure(state.into(), deadline)
    }
}

fn ends_soon(expires: u64, now: u64) -> Option<String> {
    match expires.checked_sub(now) {
        None => Some("has expired: no new connection can be made with it".to_owned()),
        Some(left) if left < WARNED_BEFORE.as_secs() => Some(format!("expires in {} days", left / DAY.as_secs())),
        Some(_) => None,
    }
}

/// A name or an address; one that belongs to an interface without that.
fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    let name = host.split('%').next().unwrap_or_default();
    ServerName::try_from(name.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("\"{host}\" is no name of a host")))
}

fn load(files: &Files) -> Result<Loaded, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let peer_name = files.peer_name.as_ref().map(|name| {
        ServerName::try_from(name.clone()).map_err(|_| TlsError {
            part: Part::PeerName,
            path: name.clone(),
            problem: "a name of a host or an address was expected".to_owned(),
        })
    });
    let peer_name = peer_name.transpose()?;
    let chain: Vec<CertificateDer> = all(Part::Certificate, &files.certificate)?;
    let key = key(&files.key)?;
    let wrong = |part, path: &Path, e: &dyn std::fmt::Display| problem(part, path, e.to_string());
    let wrong_roots = |e: &dyn std::fmt::Display| wrong(Part::Authorities, &files.authorities, e);
    let mut roots = RootCertStore::empty();
    for root in all(Part::Authorities, &files.authorities)? {
        roots.add(root).map_err(|e| wrong_roots(&e))?;
    }
    let roots = Arc::new(roots);
    let revoked: Vec<CertificateRevocationListDer> = match &files.revoked {
        Some(path) => all(Part::Revoked, path)?,
        None => Vec::new(),
    };
    let lists_due = revoked.iter().filter_map(|list| next_update(list)).min();
    let part = if revoked.is_empty() { Part::Authorities } else { Part::Revoked };
    let path = files.revoked.as_ref().unwrap_or(&files.authorities);
    let of_server = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone());
    let of_server = of_server.with_crls(revoked.clone()).build().map_err(|e| wrong(part, path, &e))?;
    let of_client = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
    let of_client = of_client.with_crls(revoked).build().map_err(|e| wrong(part, path, &e))?;
    let of_client = Arc::new(NamedClient { inner: of_client, name: peer_name.clone() });
    let expires = chain.iter().map(|certificate| not_after(certificate)).min().flatten();
    let expires =
        expires.ok_or_else(|| problem(Part::Certificate, &files.certificate, "it cannot be read".to_owned()))?;
    let wrong_pair = |e: Error| wrong(Part::Key, &files.key, &e);
    let client = client(provider.clone(), of_server, chain.clone(), key.clone_key()).map_err(wrong_pair)?;
    let server = server(provider, of_client, chain, key).map_err(wrong_pair)?;
    Ok(Loaded { client: Arc::new(client), server: Arc::new(server), peer_name, expires, lists_due })
}

/// Nothing of a connection is kept for the next: each shows its certificates, which may have been revoked meanwhile.
fn client(
    provider: Arc<CryptoProvider>,
    verifier: Arc<WebPkiServerVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, Error> {
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = config.with_webpki_verifier(verifier).with_client_auth_cert(chain, key)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// As [`client`].
fn server(
    provider: Arc<CryptoProvider>,
    verifier: Arc<NamedClient>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, Error> {
    let config = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = config.with_client_cert_verifier(verifier).with_single_cert(chain, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn problem(part: Part, path: &Path, problem: String) -> TlsError {
    TlsError { part, path: path.display().to_string(), problem }
}

/// Everything of a kind that is in the file; there has to be something.
fn all<T: PemObject>(part: Part, path: &Path) -> Result<Vec<T>, TlsError> {
    let bytes = read(part, path)?;
    let found: Result<Vec<T>, _> = T::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => {
            let what = if part == Part::Revoked { "list of revoked certificates" } else { "certificate" };
            Err(problem(part, path, format!("there is no {what} in PEM in it")))
        }
        Ok(found) => Ok(found),
        Err(e) => Err(problem(part, path, format!("it is not PEM: {e}"))),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(Part::Key, path)?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|e| problem(Part::Key, path, format!("there is no private key in PEM in it: {e}")))
}

/// The content of a regular file. That of a key is for its owner, and perhaps a group that may read it.
fn read(part: Part, path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |e: io::Error| problem(part, path, format!("it cannot be read: {e}"));
    // Without O_NONBLOCK the opening of a pipe would wait.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(problem(part, path, format!("a regular file of at most {FILE_BYTES_MAX} bytes was expected")));
    }
    let mode = metadata.mode() & 0o7777;
    if part == Part::Key && mode & 0o037 != 0 {
        let text = format!("others can read or change the key (mode {mode:04o}); run: chmod 600 {}", path.display());
        return Err(problem(part, path, text));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Believes what the CAs have signed, of the one name if there is one.
#[derive(Debug)]
struct NamedClient {
    inner: Arc<dyn ClientCertVerifier>,
    name: Option<ServerName<'static>>,
}

impl ClientCertVerifier for NamedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(certificate, between, now)?;
        if let Some(name) = &self.name {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_certificate_is_told_a_month_before() {
        let day = DAY.as_secs();
        assert_eq!(ends_soon(100 * day, 70 * day), None);
        assert_eq!(ends_soon(100 * day, 70 * day + 1).unwrap(), "expires in 29 days");
        assert_eq!(ends_soon(100 * day, 100 * day).unwrap(), "expires in 0 days");
        assert!(ends_soon(100 * day, 100 * day + 1).unwrap().starts_with("has expired"));
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        for host in ["replica.example", "127.0.0.1", "::1", "fe80::1%eth0"] {
            assert!(server_name(host).is_ok(), "{host}");
        }
        assert!(server_name("no host").unwrap_err().to_string().contains("no host"));
    }
}
