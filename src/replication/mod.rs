// SPDX-License-Identifier: Apache-2.0
//! Replication to a hot standby. Owns the wire protocols, what a primary sends and what a replica does with it; promises
//! that nothing counts as propagated before it is safe on the replica's disk. Knows nothing of C or C++.

pub mod standby;
pub mod upstream;
