// SPDX-License-Identifier: Apache-2.0
//! Sockets of both protocols: the way to a peer ([`dial`]), a connection in halves ([`connection`]) with a bound on
//! every wait ([`deadline`]) and TLS where certificates are set ([`tls`]), the one that accepts ([`listener`]) within
//! what the process may open ([`limits`]), and when to try again ([`backoff`]). Knows no message. Promises that no
//! descriptor has the number of a standard stream.

pub mod backoff;
mod certificate;
pub mod connection;
pub mod deadline;
pub mod dial;
pub mod limits;
pub mod listener;
pub mod tally;
pub mod tls;
mod tls_stream;
