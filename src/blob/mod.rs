// SPDX-License-Identifier: Apache-2.0
//! Large objects beside the log. Owns what is particular to them; knows nothing of channels or of C.

mod reference_tag;

pub use reference_tag::{reference_tag, ReferenceKey};
