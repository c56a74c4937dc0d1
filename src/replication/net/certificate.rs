// SPDX-License-Identifier: Apache-2.0
//! Until when a certificate counts: the one field of it that the TLS library keeps to itself.

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const DAY: u64 = 86_400;

/// The last second, since 1970, in which the certificate in `der` counts; `None` when it cannot be read.
pub fn not_after(der: &[u8]) -> Option<u64> {
    let (certificate, _) = expect(der, SEQUENCE)?;
    let (fields, _) = expect(certificate, SEQUENCE)?;
    let rest = match expect(fields, VERSION) {
        Some((_, rest)) => rest,
        None => fields,
    };
    // Serial number, algorithm, issuer.
    let rest = (0..3).try_fold(rest, |rest, _| element(rest).map(|(_, _, rest)| rest))?;
    let (validity, _) = expect(rest, SEQUENCE)?;
    let (_, _, behind_begin) = element(validity)?;
    let (tag, time, _) = element(behind_begin)?;
    seconds(tag, std::str::from_utf8(time).ok()?)
}

fn expect(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    element(bytes).filter(|&(tag, ..)| tag == wanted).map(|(_, content, rest)| (content, rest))
}

/// The first element: its tag and content, and what stands behind it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`, as certificates have it.
fn seconds(tag: u8, text: &str) -> Option<u64> {
    let digits = text.strip_suffix('Z').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year: u64 = digits[..2].parse().ok()?;
            (if year < 50 { 2000 } else { 1900 } + year, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (digits[..4].parse().ok()?, &digits[4..]),
        _ => return None,
    };
    let two = |at: usize| rest[at..at + 2].parse::<u64>().ok();
    let (month, day) = (two(0)?, two(2)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days(year, month, day) * DAY + two(4)? * 3600 + two(6)? * 60 + two(8)?)
}

/// Days since 1970. Years are counted from March on, so that a leap day is the last of its year.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month < 3 { (year - 1, month + 9) } else { (year, month - 3) };
    let of_year = (153 * month + 2) / 5 + day - 1;
    year * 365 + year / 4 - year / 100 + year / 400 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_certificates_have_them() {
        assert_eq!(seconds(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "000229120000Z"), Some(951_825_600));
        assert_eq!(seconds(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(seconds(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(seconds(GENERALIZED_TIME, "99991231235959Z"), Some(253_402_300_799));
        for (tag, wrong) in [
            (UTC_TIME, "20500101000000Z"),
            (GENERALIZED_TIME, "700101000000Z"),
            (UTC_TIME, "700101000000"),
            (UTC_TIME, "70010100000xZ"),
            (UTC_TIME, "701301000000Z"),
            (UTC_TIME, "691231235959Z"),
            (SEQUENCE, "700101000000Z"),
        ] {
            assert_eq!(seconds(tag, wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_certificate_that_is_cut_anywhere_is_not_read() {
        let der = rcgen_certificate();
        let expected = Some(1_900_000_000);
        assert_eq!(not_after(&der), expected);
        for cut in 0..der.len() {
            assert_eq!(not_after(&der[..cut]), None, "{cut}");
        }
    }

    fn rcgen_certificate() -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let seconds = std::time::Duration::from_secs(1_900_000_000);
        params.not_after = (std::time::SystemTime::UNIX_EPOCH + seconds).into();
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }
}
