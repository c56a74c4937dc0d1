// SPDX-License-Identifier: Apache-2.0
//! A CA for tests, and what it signs and revokes.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(86_400);

pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a side has.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Host names and addresses.
    pub names: &'a [&'a str],
    pub serial: u64,
    /// From now on; in the past when it is negative.
    pub ends_in_days: i64,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Writes `cert.pem`, `key.pem` and `ca.pem` into the directory.
    pub fn equip(&self, dir: &Path, wanted: Wanted<'_>) {
        let names: Vec<String> = wanted.names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.serial_number = Some(SerialNumber::from(wanted.serial));
        params.not_before = (SystemTime::now() - 1000 * DAY).into();
        let days = DAY * wanted.ends_in_days.unsigned_abs() as u32;
        let end = if wanted.ends_in_days < 0 { SystemTime::now() - days } else { SystemTime::now() + days };
        params.not_after = end.into();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
        let key_file = dir.join("key.pem");
        std::fs::write(&key_file, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(0o600)).unwrap();
        self.vouch(dir);
    }

    /// Makes this the CA that the side with the directory believes.
    pub fn vouch(&self, dir: &Path) {
        std::fs::write(dir.join("ca.pem"), self.0.pem()).unwrap();
    }

    /// Writes the list of what is revoked as `crl.pem` and returns where that is.
    pub fn revoke(&self, dir: &Path, serials: &[u64]) -> PathBuf {
        self.revoke_until(dir, serials, SystemTime::now() + DAY)
    }

    /// The same in a list of which the next is due at that time.
    pub fn revoke_until(&self, dir: &Path, serials: &[u64], due: SystemTime) -> PathBuf {
        let now = SystemTime::now();
        let revoked = serials.iter().map(|&serial| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: (now - DAY).into(),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: (now - DAY).into(),
            next_update: due.into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = dir.join("crl.pem");
        std::fs::write(&path, params.signed_by(&self.0).unwrap().pem().unwrap()).unwrap();
        path
    }
}
