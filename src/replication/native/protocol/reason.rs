// SPDX-License-Identifier: Apache-2.0
//! Why a connection was refused or ended, as it is told to the other side.

use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// Why a connection was refused or ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct Code(pub u16);

        impl Code {
            $($(#[$doc])* pub const $name: Code = Code($code);)*
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code($code),)*];

            /// A short name, the same as in `docs/protocol.md`.
            pub fn name(self) -> &'static str {
                match self.0 { $($code => $text,)* _ => "unknown" }
            }
        }
    };
}

codes! {
    /// No protocol version in common.
    VERSION = 1, "version";
    /// The other side does not know the secret.
    BAD_SECRET = 2, "bad secret";
    /// Without a secret only peers on this machine are accepted.
    NO_SECRET = 3, "no secret";
    /// Another primary is connected.
    BUSY = 4, "busy";
    /// The data of the two sides come from different directories.
    WRONG_IDENTITY = 5, "wrong identity";
    /// The replica has epochs that the primary's history does not have.
    DIVERGED = 6, "diverged";
    /// The replica has seen a later term: the primary was replaced.
    FENCED = 8, "fenced";
    /// The peer broke the protocol.
    PROTOCOL = 9, "protocol violation";
    /// The connection names a session that is not there.
    UNKNOWN_SESSION = 10, "unknown session";
    /// More channels or lanes than agreed.
    LIMIT = 11, "limit";
    /// The disk failed or is full.
    DISK = 12, "disk";
    /// The program ends.
    SHUTDOWN = 13, "shutdown";
    /// Nothing was heard from the peer, or its epoch did not move, for too long.
    TIMEOUT = 14, "timeout";
    /// A newer session takes the place of this one.
    REPLACED = 15, "replaced";
    /// The peer does not use TLS, and this side does.
    NO_TLS = 16, "no TLS";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

/// A code with a text for the operator. The text is cut to [`TEXT_BYTES_MAX`] when it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    pub code: Code,
    pub text: String,
}

impl Reason {
    /// A reason with its text.
    pub fn new(code: Code, text: impl Into<String>) -> Reason {
        Reason { code, text: text.into() }
    }
}

/// What came from a peer is shown with its control characters escaped.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.code)?;
        for c in self.text.chars() {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Reason {}
