// SPDX-License-Identifier: Apache-2.0
//! The bytes of the protocol of the original: messages and how they are read.

pub mod codec;
pub mod reader;
