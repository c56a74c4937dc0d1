// SPDX-License-Identifier: Apache-2.0
//! The protocol of the original without any I/O: the bytes of messages, how they are read, and what each means to a
//! replica.

pub mod codec;
pub mod connection;
pub mod reader;
