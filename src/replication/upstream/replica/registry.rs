// SPDX-License-Identifier: Apache-2.0
//! Who holds the control connection and the channel ids. All connections that overlap in time belong to one life of one
//! primary: it never uses an id twice, so an id that comes again means that it was restarted. When a new life begins,
//! what the former one left beyond the durable epoch is discarded, because the primary does so, too.

use crate::error::Result;
use crate::lock_order::{Condvar, Mutex, Rank};
use crate::replication::net::connection::Closer;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A control connection that has done nothing for so long, without any log channel, is nobody's: it gives way.
const IDLE_MAX: Duration = Duration::from_secs(2);

/// The connections of a replica.
#[derive(Debug)]
pub(super) struct Registry {
    life: Mutex<Life>,
    released: Condvar,
}

/// One life of a primary.
#[derive(Debug, Default)]
struct Life {
    peer: Option<IpAddr>,
    control: Use,
    /// The control connection as long as it has committed nothing.
    unproved: Option<(Instant, Closer)>,
    open: BTreeSet<u64>,
    used: BTreeSet<u64>,
    /// Log files taken, in the order of arrival.
    lanes: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Use {
    #[default]
    Never,
    Now,
    Before,
}

/// What a connection asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Control,
    Channel(u64),
}

/// A held connection; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Holding {
    registry: Arc<Registry>,
    wanted: Wanted,
    /// The log file that belongs to it.
    pub(super) lane: u32,
}

/// Why a connection was not given.
#[derive(Debug)]
pub(super) enum Refusal {
    Held(String),
    Store(crate::error::Error),
}

impl Life {
    fn is_over(&self) -> bool {
        self.control != Use::Now && self.open.is_empty()
    }

    /// The control connection of a peer that has shown in no way that it is a primary, when it has had its time.
    fn idle(&self) -> Option<&Closer> {
        let (since, closer) = self.unproved.as_ref()?;
        (self.control == Use::Now && self.used.is_empty() && since.elapsed() >= IDLE_MAX).then_some(closer)
    }

    fn was_used(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::Control => self.control != Use::Never,
            Wanted::Channel(id) => self.used.contains(&id),
        }
    }
}

impl Default for Registry {
    fn default() -> Registry {
        Registry { life: Mutex::new(Rank::Life, Life::default()), released: Condvar::new() }
    }
}

impl Registry {
    /// Gives what is wanted. A restarted primary may come before the end of its former connections was seen, so this
    /// waits for that until `deadline`. `discard` is called when a new life begins; no connection is held then.
    pub(super) fn claim(
        self: &Arc<Registry>,
        wanted: Wanted,
        (peer, closer): (IpAddr, &Closer),
        deadline: Instant,
        discard: impl Fn() -> Result<()>,
    ) -> std::result::Result<Holding, Refusal> {
        let mut life = self.life.lock();
        while let Some(idle) = life.idle() {
            idle.close();
            if self.released.wait_until(&mut life, deadline).timed_out() {
                break;
            }
        }
        if wanted == Wanted::Control && life.control == Use::Now {
            return Err(Refusal::Held("there is a control connection already".to_owned()));
        }
        while !life.is_over() && life.was_used(wanted) && !self.released.wait_until(&mut life, deadline).timed_out() {}
        if life.is_over() {
            discard().map_err(Refusal::Store)?;
            *life = Life { peer: Some(peer), ..Life::default() };
        }
        if let Some(other) = life.peer.filter(|other| *other != peer) {
            return Err(Refusal::Held(format!("the primary at {other} is connected; one is served at a time")));
        }
        let lane = life.lanes;
        match wanted {
            Wanted::Control if life.control == Use::Now => {
                return Err(Refusal::Held("there is a control connection already".to_owned()));
            }
            Wanted::Control => {
                life.control = Use::Now;
                life.unproved = Some((Instant::now(), closer.clone()));
            }
            Wanted::Channel(id) => {
                if !life.used.insert(id) {
                    let former = "connections of its former life are still open: end that process or wait";
                    return Err(Refusal::Held(format!("log channel {id} was used before, and {former}")));
                }
                life.open.insert(id);
                life.lanes += 1;
            }
        }
        Ok(Holding { registry: self.clone(), wanted, lane })
    }

    /// How many connections are held.
    pub(super) fn held(&self) -> usize {
        let life = self.life.lock();
        life.open.len() + usize::from(life.control == Use::Now)
    }
}

impl Holding {
    /// The control connection has committed something: it gives way to nobody.
    pub(super) fn proved(&self) {
        self.registry.life.lock().unproved = None;
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let mut life = self.registry.life.lock();
        match self.wanted {
            Wanted::Control => life.control = Use::Before,
            Wanted::Channel(id) => {
                life.open.remove(&id);
            }
        }
        self.registry.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replication::net::dial;
    use std::cell::Cell;
    use std::net::{Ipv4Addr, TcpListener};

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    /// What ends some connection.
    fn closer() -> Closer {
        let listener = TcpListener::bind((PEER, 0)).unwrap();
        dial::connect(listener.local_addr().unwrap(), Duration::from_secs(20)).unwrap().closer()
    }

    fn claim(registry: &Arc<Registry>, wanted: Wanted) -> std::result::Result<Holding, Refusal> {
        registry.claim(wanted, (PEER, &closer()), Instant::now() + Duration::from_millis(1), || Ok(()))
    }

    #[test]
    fn files_are_given_in_the_order_of_arrival_and_anew_in_a_new_life() {
        let registry = Arc::new(Registry::default());
        let first = claim(&registry, Wanted::Channel(7)).unwrap();
        let second = claim(&registry, Wanted::Channel(3)).unwrap();
        assert_eq!((first.lane, second.lane), (0, 1));
        drop((first, second));
        assert_eq!(claim(&registry, Wanted::Channel(3)).unwrap().lane, 0);
    }

    #[test]
    fn the_control_connection_is_free_again_when_it_has_closed() {
        let registry = Arc::new(Registry::default());
        let _log = claim(&registry, Wanted::Channel(0)).unwrap();
        let control = claim(&registry, Wanted::Control).unwrap();
        assert!(matches!(claim(&registry, Wanted::Control), Err(Refusal::Held(_))));
        drop(control);
        claim(&registry, Wanted::Control).unwrap();
    }

    #[test]
    fn a_new_life_begins_with_a_discard_and_only_when_the_former_is_over() {
        let registry = Arc::new(Registry::default());
        let discards = Cell::new(0);
        let count = || {
            discards.set(discards.get() + 1);
            Ok(())
        };
        let soon = || Instant::now() + Duration::from_millis(1);
        let zero = registry.claim(Wanted::Channel(0), (PEER, &closer()), soon(), count).unwrap();
        let one = registry.claim(Wanted::Channel(1), (PEER, &closer()), soon(), count).unwrap();
        assert_eq!(discards.get(), 1);
        drop(zero);
        assert!(
            registry.claim(Wanted::Channel(0), (PEER, &closer()), soon(), count).is_err(),
            "channel 1 is of the former life"
        );
        drop(one);
        registry.claim(Wanted::Channel(0), (PEER, &closer()), soon(), count).unwrap();
        assert_eq!(discards.get(), 2);
    }

    #[test]
    fn primaries_of_two_machines_are_not_served_together() {
        let registry = Arc::new(Registry::default());
        let _first = claim(&registry, Wanted::Channel(0)).unwrap();
        let other = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        assert!(registry.claim(Wanted::Channel(1), (other, &closer()), Instant::now(), || Ok(())).is_err());
        assert!(registry.claim(Wanted::Control, (other, &closer()), Instant::now(), || Ok(())).is_err());
    }
}
