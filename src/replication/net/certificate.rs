// SPDX-License-Identifier: Apache-2.0
//! Until when a certificate and a list of revoked ones count: what the TLS library keeps to itself.

use x509_cert::certificate::{Certificate, Rfc5280};
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

/// The last second, since 1970, in which the certificate in `der` counts; `None` when it cannot be read.
pub fn not_after(der: &[u8]) -> Option<u64> {
    let certificate = Certificate::from_der(der).ok()?;
    Some(certificate.tbs_certificate().validity().not_after.to_unix_duration().as_secs())
}

/// When a newer one than the list in `der` is due at the latest, in seconds since 1970; `None` when it does not say or
/// cannot be read.
pub fn next_update(der: &[u8]) -> Option<u64> {
    let list = CertificateList::<Rfc5280>::from_der(der).ok()?;
    list.tbs_cert_list.next_update.map(|time| time.to_unix_duration().as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, KeyPair,
    };
    use std::time::{Duration, SystemTime};

    const TIME: u64 = 1_900_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_certificate_that_is_cut_anywhere_is_not_read() {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_after = at(TIME).into();
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
        assert_eq!(not_after(&der), Some(TIME));
        for cut in 0..der.len() {
            assert_eq!(not_after(&der[..cut]), None, "{cut}");
        }
    }

    #[test]
    fn a_list_says_when_the_next_one_is_due() {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let list = CertificateRevocationListParams {
            this_update: at(TIME - 100).into(),
            next_update: at(TIME).into(),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let der = list.signed_by(&Issuer::new(params, KeyPair::generate().unwrap())).unwrap().der().to_vec();
        assert_eq!(next_update(&der), Some(TIME));
        for cut in 0..der.len() {
            assert_eq!(next_update(&der[..cut]), None, "{cut}");
        }
    }
}
