// SPDX-License-Identifier: Apache-2.0
//! What must hold of all machines after every step, and at the end.

use crate::machine::Machine;
use crate::model::recover;
use limestone_core::vfs::Loss;
use limestone_core::wal::history_file::Role;

/// No replica is ahead of what it follows, none has lost what it has confirmed.
pub fn replicas(machines: &[Machine]) -> Result<(), String> {
    for (at, machine) in machines.iter().enumerate() {
        let Some(replica) = machine.replica() else { continue };
        let (durable, guaranteed) = (replica.store.durable(), machine.known.guaranteed);
        let known = machine.known.follows.map_or(&machine.known, |(primary, _)| &machines[primary].known);
        if durable > known.stored {
            return Err(format!("machine {at} has epoch {durable}, its primary has stored {}", known.stored));
        }
        if durable < known.model.last_written(guaranteed) {
            return Err(format!("machine {at} has confirmed {guaranteed} and has epoch {durable}"));
        }
    }
    Ok(())
}

/// The one primary and its replica, when the replica has everything.
pub fn agreeing(machines: &[Machine]) -> Option<(usize, usize)> {
    let mut primaries = machines.iter().enumerate().filter(|(_, machine)| machine.role == Role::Primary);
    let (Some((at, machine)), None) = (primaries.next(), primaries.next()) else { return None };
    let (primary, target) = (machine.primary()?, machine.target);
    let replica = machines[target].replica()?;
    let stored = primary.store().last_epoch();
    let has_all = primary.store().propagated_epoch() == stored
        && machines[target].known.follows == machine.life(at)
        && replica.store.durable() >= machine.known.model.last_written(stored);
    has_all.then_some((at, target))
}

/// Both directories recover to the same content.
pub fn compare(machines: &[Machine], (primary, replica): (usize, usize)) -> Result<(), String> {
    let content =
        |at: usize| recover(&machines[at].disk, Loss::DropUnsynced).map_err(|e| format!("at last, machine {at}: {e}"));
    let (ours, theirs) = (content(primary)?, content(replica)?);
    machines[primary].known.model.check_exact(&theirs)?;
    match ours.sessions == theirs.sessions && ours.data == theirs.data {
        true => Ok(()),
        false => Err(format!("the directories differ: primary {:?}, replica {:?}", ours.sessions, theirs.sessions)),
    }
}

/// For the message of a failure.
pub fn describe(machines: &[Machine]) -> String {
    let one = |machine: &Machine| {
        let Machine { role, known, target, .. } = machine;
        let epochs = match (machine.primary(), machine.replica()) {
            (Some(primary), _) => {
                format!("stored {} of which {} propagated", known.stored, primary.store().propagated_epoch())
            }
            (None, Some(replica)) => format!("durable {}", replica.store.durable()),
            (None, None) => "not running".to_owned(),
        };
        let (term, follows, awaits, fenced) = (known.term, known.follows, known.awaits, known.fenced);
        format!("{role:?} for {target}, {epochs}, term {term}, follows {follows:?}, awaits {awaits}, fenced {fenced}")
    };
    machines.iter().map(one).collect::<Vec<_>>().join("; ")
}
