// SPDX-License-Identifier: Apache-2.0
//! A replica that has epochs which its primary does not have. It refuses and says what would go, and how, unless it was
//! told beforehand or nothing would go: then it saves what is above the highest common point, takes it away, and the
//! primary, which comes again, catches up. The directory is closed for that time, and primaries hear *busy*.

use super::node::Node;
use super::rewinds::Wanted;
use crate::directory::{Cut, Extent, Keep};
use crate::replication::native::protocol::handshake::Standing;
use crate::replication::native::protocol::message::{Code, PrimaryIdentity, Reason};
use crate::replication::replica_store::StandbyStore;
use crate::replication::status::LinkState;
use crate::types::Epoch;
use crate::wal::history::Common;

impl Node {
    /// Whatever has to go is saved as `keep` says and goes, from now on.
    pub(super) fn allow_rewind(&self, keep: Keep) {
        self.rewinds.lock().told = Some(keep);
    }

    /// The last rewind that was carried out.
    pub(super) fn rewound(&self) -> Option<Cut> {
        self.rewinds.lock().done.clone()
    }

    /// Says to a primary what it hears instead of `diverged`. Nobody else is being accepted. When this is a rewind, the
    /// directory is closed until [`Node::rewind`].
    pub(super) fn answer_to_diverged(
        &self,
        store: &StandbyStore,
        primary: &PrimaryIdentity,
        standing: &Standing,
        diverged: Reason,
    ) -> Reason {
        if diverged.code != Code::DIVERGED {
            return diverged;
        }
        let last = match primary.history.common(primary.stored, &standing.history, standing.durable) {
            Common::UpTo(last) => Some(last),
            Common::Nothing | Common::Forgotten => None,
        };
        let extent = match self.count(store, last, standing.durable) {
            Ok(extent) => extent,
            Err(e) => return Reason::new(Code::DIVERGED, format!("{}; {e}", diverged.text)),
        };
        let state = self.rewinds.lock();
        let keep = state.told.or(extent.is_nothing().then(Keep::default));
        let Some(keep) = keep else {
            let dir = self.location().display();
            let text = format!(
                "{}. To save and take away what would go ({extent}) and follow this primary, end this process and run: \
                 tgreplica rejoin {dir}",
                diverged.text
            );
            return Reason::new(Code::DIVERGED, text);
        };
        drop(state);
        let Some(held) = self.hold_store() else {
            return Reason::new(Code::BUSY, "the directory is being closed");
        };
        self.rewinds.lock().wanted = Some(Wanted { held, last, keep });
        let to = last.map_or("before its first epoch".to_owned(), |last| format!("to epoch {last}"));
        let text = format!("the directory goes back {to}: {extent}");
        self.board.disconnected(LinkState::Connecting, &text, false);
        Reason::new(Code::BUSY, text)
    }

    fn count(&self, store: &StandbyStore, last: Option<Epoch>, durable: Epoch) -> crate::error::Result<Extent> {
        let known = self.rewinds.lock().counted;
        if let Some(extent) = known.filter(|extent| (extent.last, extent.durable) == (last, durable)) {
            return Ok(extent);
        }
        let extent = Extent::survey(&**store.vfs(), store.location(), last, durable, store.marks())?;
        self.rewinds.lock().counted = Some(extent);
        Ok(extent)
    }

    /// Carries out the rewind that was decided, if one was, and opens the directory again. When it fails the directory
    /// stays as it was, or the next opening completes it.
    pub(super) fn rewind(&self) {
        let Some(Wanted { held, last, keep }) = self.rewinds.lock().wanted.take() else { return };
        match held.cut(last, keep) {
            Ok(cut) => {
                let saved = match &cut.saved {
                    Some(saved) => format!("it is saved in {}", saved.display()),
                    None => "nothing of it was ever written".to_owned(),
                };
                let what = if cut.extent.is_all() { "is given up for a base sync" } else { "is taken back" };
                log::warn!("replication: the directory {what}: {}; {saved}", cut.extent);
                self.rewinds.lock().done = Some(cut);
            }
            Err(e) => log::error!("replication: the directory cannot be taken back: {e}"),
        }
        if let Err(e) = self.open_held(held) {
            self.failed(&e);
        }
    }
}
