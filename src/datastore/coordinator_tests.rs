// SPDX-License-Identifier: Apache-2.0

use super::*;
use crate::vfs::SimFs;
use crate::wal::epoch_file::EpochFile;

fn committer(fs: SimFs, location: &Path) -> Committer {
    let epoch_file = EpochFile::replace(Arc::new(fs), location, Epoch(0)).unwrap();
    Committer::new(Arc::new(Mutex::new(Rank::EpochFile, epoch_file)), None)
}

#[test]
fn a_session_that_begins_during_a_switch_is_never_in_an_epoch_that_is_stored() {
    let fs = SimFs::new();
    let location = Path::new("/log");
    fs.create_dir(location).unwrap();
    let coordinator = Coordinator::new(NotifyLevel::Stored, false, Arc::default());
    let slot = Arc::new(Slot::new());
    coordinator.sessions.register(slot.clone());
    coordinator.start(committer(fs, location), Epoch(0), false);
    coordinator.switch(Epoch(1)).unwrap();
    let mut next = 2;
    let epoch = coordinator.begin_with(&slot, || {
        if next < 5 {
            coordinator.switch(Epoch(next)).unwrap();
            next += 1;
        }
    });
    assert!(
        epoch > coordinator.epochs().stored(),
        "the session is in epoch {epoch}, stored is {}",
        coordinator.epochs().stored()
    );
    assert_eq!(epoch, Epoch(4));
    coordinator.switch(Epoch(9)).unwrap();
    assert_eq!(coordinator.epochs().stored(), Epoch(3), "the session holds its epoch back");
}

#[test]
fn an_epoch_that_ends_while_somebody_else_has_the_lead_is_stored_when_it_is_let_go() {
    let fs = SimFs::new();
    let location = Path::new("/log");
    fs.create_dir(location).unwrap();
    let coordinator = Coordinator::new(NotifyLevel::Stored, false, Arc::default());
    coordinator.start(committer(fs, location), Epoch(0), false);
    let switched = coordinator.instead_of_leading(|_| coordinator.switch(Epoch(2)));
    switched.unwrap();
    assert_eq!(coordinator.epochs().stored(), Epoch(1));
    coordinator.instead_of_leading(|_| coordinator.switch(Epoch(3)).and(Err::<(), _>(wrong()))).unwrap_err();
    assert_eq!(coordinator.epochs().stored(), Epoch(2), "also after an error");
}

fn wrong() -> Error {
    Error::WrongState("no".to_owned())
}

#[test]
fn whoever_hears_first_of_a_failure_names_what_failed_and_not_the_refusal() {
    let coordinator = Coordinator::new(NotifyLevel::Stored, false, Arc::default());
    let failed = Error::io("cannot sync", Path::new("/log"), std::io::Error::from_raw_os_error(libc::EIO));
    let refused = Error::Poisoned(failed.to_string());
    coordinator.poison(Error::Poisoned(failed.to_string()));
    assert_eq!(coordinator.check().unwrap_err().to_string(), refused.to_string());
}
