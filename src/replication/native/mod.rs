// SPDX-License-Identifier: Apache-2.0
//! The native protocol in three rooms: what is said ([`protocol`]), and the threads and sockets of the side that sends
//! ([`primary`]) and of the one that stores ([`replica`]); both send through the same kind of half connection.

pub mod primary;
pub mod protocol;
pub mod replica;
mod sender;
