// SPDX-License-Identifier: Apache-2.0
//! Times as a person gives them.

use crate::stderr_log::rfc3339;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads a time in UTC, as `2026-01-31T12:00:00Z`, with milliseconds or without.
///
/// # Errors
/// Says what was expected.
pub fn parse(text: &str) -> Result<SystemTime, String> {
    read(text).ok_or_else(|| format!("{text:?}: a time in UTC as 2026-01-31T12:00:00Z was expected"))
}

fn read(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, ms) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let ms = ms.bytes().all(|b| b.is_ascii_digit()).then(|| format!("{ms:0<3}")).filter(|ms| ms.len() == 3)?;
    // As in the other direction, from the first of March of the year 0 on.
    let (of_year, year) = ((153 * ((month + 9) % 12) + 2) / 5 + day.checked_sub(1)?, year - u64::from(month <= 2));
    let days = (365 * year + year / 4 - year / 100 + year / 400 + of_year).checked_sub(719_468)?;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    let at = UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(ms.parse().ok()?);
    // A day or an hour that there is not comes out as another one.
    (rfc3339(at) == format!("{date}T{time}.{ms}Z")).then_some(at)
}

fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let mut parts = text.split(between);
    let mut next = || parts.next().filter(|part| part.len() <= 4 && part.bytes().all(|b| b.is_ascii_digit()));
    let numbers = [next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?];
    (parts.next().is_none() && numbers[0] > 0 || between == ':').then_some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_is_read() {
        for seconds in [0, 951_782_400, 951_868_799, 1_709_164_800, 1_795_356_604, 4_107_542_399] {
            let at = UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 107);
            assert_eq!(parse(&rfc3339(at)), Ok(at), "{}", rfc3339(at));
        }
        assert_eq!(parse("1970-01-02T00:00:01Z"), Ok(UNIX_EPOCH + Duration::from_secs(86_401)));
        assert_eq!(parse("1970-01-01T00:00:00.5Z"), Ok(UNIX_EPOCH + Duration::from_millis(500)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "now",
            "2026-01-31",
            "2026-01-31T12:00:00",
            "2026-02-29T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-00-01T12:00:00Z",
            "2026-01-00T12:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:60:00Z",
            "2026-01-31T12:00:00.1234Z",
            "2026-01-31T12:00:00.xZ",
            "1969-12-31T23:59:59Z",
            "+026-01-31T12:00:00Z",
            "2026-01-31T12:00:00:00Z",
            "0000-01-01T00:00:00Z",
            "2026-1-31T12:00:00Z",
        ] {
            assert!(parse(text).unwrap_err().contains("was expected"), "{text}");
        }
    }
}
