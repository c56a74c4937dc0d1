// SPDX-License-Identifier: Apache-2.0
//! Whether whoever serves a directory can do its work, as a load balancer asks.

use crate::replication::report::Report;
use crate::replication::status::{LinkState, Side};

/// Why it is in order, or why not; a line for people.
pub type Health = Result<String, String>;

/// Whether the side is in order: a primary that acknowledges what it stores, or a replica that has what is stored. With
/// `wanted` the side must have that role as well.
pub fn of(report: &Report, wanted: Option<Side>) -> Health {
    let status = &report.status;
    let failed = report.counted.as_ref().is_some_and(|counted| counted.numbers.failed);
    let side = match status.role {
        Some(side) => side,
        None => return Err("the directory has no role yet".to_owned()),
    };
    let name = if side == Side::Primary { "primary" } else { "replica" };
    match status.state {
        _ if wanted.is_some_and(|wanted| wanted != side) => Err(format!("this is a {name}")),
        _ if failed => Err(format!("{name}: nothing is acknowledged any more")),
        LinkState::Stopped => Err(format!("{name}: stopped")),
        // What a primary does without its replica is the policy's affair.
        state if side == Side::Primary || state == LinkState::Streaming => Ok(format!("{name}: {state}")),
        state => Err(format!("{name}: {state}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Snapshot;
    use crate::replication::status::Known;

    fn report(role: Option<Side>, state: LinkState, failed: bool) -> Report {
        let status = Known { role, state, ..Known::default() }.document();
        Report::new(status, Snapshot { failed, ..Snapshot::default() }, "/".as_ref())
    }

    #[test]
    fn a_primary_is_in_order_while_it_acknowledges_and_a_replica_while_it_streams() {
        let (primary, replica) = (Some(Side::Primary), Some(Side::Replica));
        for state in [LinkState::NotReplicated, LinkState::Connecting, LinkState::Streaming, LinkState::Refused] {
            assert!(of(&report(primary, state, false), None).is_ok(), "{state}");
            assert!(of(&report(primary, state, true), None).is_err(), "{state}");
            let is_streaming = state == LinkState::Streaming;
            assert_eq!(of(&report(replica, state, false), replica).is_ok(), is_streaming, "{state}");
            assert!(of(&report(replica, state, true), None).is_err(), "{state}");
        }
        assert!(of(&report(primary, LinkState::Stopped, false), None).is_err());
        assert!(of(&report(None, LinkState::Streaming, false), None).is_err());
        assert_eq!(of(&report(primary, LinkState::Streaming, false), replica), Err("this is a primary".to_owned()));
        assert_eq!(of(&report(replica, LinkState::Streaming, false), primary), Err("this is a replica".to_owned()));
    }
}
