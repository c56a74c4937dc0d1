// SPDX-License-Identifier: Apache-2.0
//! The protocol of the original: bytes, both roles over real sockets, and what a hostile peer can do.

mod codec;
mod golden;
