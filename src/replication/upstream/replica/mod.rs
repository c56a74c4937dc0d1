// SPDX-License-Identifier: Apache-2.0
//! The replica for a primary that speaks the protocol of the original. Owns what each message of a connection means
//! (`protocol::connection`), who holds the control connection and the channel ids ([`registry`]), how entries become a
//! session of the log ([`session`]), what the connections share ([`node`]) and the threads ([`running`]). Promises that
//! a session without its end never counts, that an acknowledgement follows the sync, and that nothing a peer sends ends
//! the process or makes it wait for ever.

mod connection;
mod incoming;
mod node;
mod registry;
mod running;
mod session;

pub use node::Options;
pub use running::Replica;
