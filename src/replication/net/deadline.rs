// SPDX-License-Identifier: Apache-2.0
//! How long a read or a write may wait.

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

/// The bound of what is waited for on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deadline {
    /// For each call anew: a peer that sends something now and then is waited for without end.
    Each(Duration),
    /// For all calls together: drops of single bytes do not move it.
    Until(Instant),
}

impl Deadline {
    /// All that follows has to be done within this time.
    pub fn after(time: Duration) -> Deadline {
        Deadline::Until(Instant::now() + time)
    }

    /// How long the next call may wait, never zero.
    ///
    /// # Errors
    /// `TimedOut` when the time is over.
    pub fn left(self) -> io::Result<Duration> {
        match self {
            Deadline::Each(time) => Ok(time.max(Duration::from_millis(1))),
            Deadline::Until(end) => match end.saturating_duration_since(Instant::now()) {
                Duration::ZERO => Err(passed()),
                left => Ok(left),
            },
        }
    }
}

fn passed() -> io::Error {
    io::Error::new(ErrorKind::TimedOut, "the time is over")
}

/// A time-out in words in place of the system's, which says that a resource is unavailable.
pub(super) fn in_words(error: io::Error) -> io::Error {
    match is_timeout(&error) {
        true => passed(),
        false => error,
    }
}

/// Whether the error says that a bound passed.
pub fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_all_calls_does_not_move_and_that_of_each_does() {
        let each = Deadline::Each(Duration::ZERO);
        assert_eq!(each.left().unwrap(), Duration::from_millis(1));
        assert!(is_timeout(&Deadline::after(Duration::ZERO).left().unwrap_err()));
        assert!(Deadline::after(Duration::from_secs(60)).left().unwrap() <= Duration::from_secs(60));
    }
}
