// SPDX-License-Identifier: Apache-2.0
//! Workloads as lists of steps: the same steps make the same calls to the disk.

#[derive(Clone, Debug)]
pub enum Step {
    /// Begins a session on a channel.
    Begin(usize),
    Put {
        channel: usize,
        storage: u64,
        key: String,
        value_len: usize,
    },
    Remove {
        channel: usize,
        storage: u64,
        key: String,
    },
    Clear {
        channel: usize,
        storage: u64,
    },
    End(usize),
    Abort(usize),
    /// Switches to the next epoch.
    Switch,
    Rotate,
    /// Compacts while epochs go on; sessions of the current epoch or an earlier one must not be open.
    Compact,
    /// The same, with the log files deleted afterwards by the data store.
    CompactAndDelete,
    /// Deletes the files that the catalog lists as detached, as operators do.
    DeleteDetached,
    /// Begins a detailed backup.
    BeginBackup,
    /// Copies what the backup lists and checks what the copy recovers to.
    EndBackup,
    /// Shuts down and starts again on the same directory.
    Restart,
}

/// Data storages of the scripts; storage 1 holds the markers.
const ROWS: u64 = 2;
const SCRATCH: u64 = 3;

#[derive(Debug, Default)]
pub struct Script {
    pub channels: usize,
    pub steps: Vec<Step>,
}

impl Script {
    pub fn new(channels: usize) -> Script {
        Script { channels, steps: Vec::new() }
    }

    fn step(&mut self, step: Step) -> &mut Script {
        self.steps.push(step);
        self
    }

    pub fn begin(&mut self, channel: usize) -> &mut Script {
        self.step(Step::Begin(channel))
    }

    pub fn end(&mut self, channel: usize) -> &mut Script {
        self.step(Step::End(channel))
    }

    pub fn abort(&mut self, channel: usize) -> &mut Script {
        self.step(Step::Abort(channel))
    }

    pub fn switch(&mut self) -> &mut Script {
        self.step(Step::Switch)
    }

    pub fn rotate(&mut self) -> &mut Script {
        self.step(Step::Rotate)
    }

    pub fn compact(&mut self) -> &mut Script {
        self.step(Step::Compact)
    }

    pub fn compact_and_delete(&mut self) -> &mut Script {
        self.step(Step::CompactAndDelete)
    }

    pub fn delete_detached(&mut self) -> &mut Script {
        self.step(Step::DeleteDetached)
    }

    pub fn begin_backup(&mut self) -> &mut Script {
        self.step(Step::BeginBackup)
    }

    pub fn end_backup(&mut self) -> &mut Script {
        self.step(Step::EndBackup)
    }

    pub fn restart(&mut self) -> &mut Script {
        self.step(Step::Restart)
    }

    pub fn put(&mut self, channel: usize, key: &str, value_len: usize) -> &mut Script {
        self.step(Step::Put { channel, storage: ROWS, key: key.to_owned(), value_len })
    }

    pub fn put_scratch(&mut self, channel: usize, key: &str) -> &mut Script {
        self.step(Step::Put { channel, storage: SCRATCH, key: key.to_owned(), value_len: 20 })
    }

    pub fn remove(&mut self, channel: usize, key: &str) -> &mut Script {
        self.step(Step::Remove { channel, storage: ROWS, key: key.to_owned() })
    }

    pub fn clear_scratch(&mut self, channel: usize) -> &mut Script {
        self.step(Step::Clear { channel, storage: SCRATCH })
    }

    /// A session with one small entry.
    pub fn session(&mut self, channel: usize, key: &str) -> &mut Script {
        self.begin(channel).put(channel, key, 30).end(channel)
    }
}

/// Several channels, two sessions in one epoch, sessions that stay open over epoch switches, one too large to be
/// buffered whole, removes and clears.
pub fn sessions() -> Script {
    let mut script = Script::new(3);
    script.switch().session(0, "a").session(1, "b").switch();
    // The second session of the epoch on channel 0 is open while the epoch is switched.
    script.session(0, "a").begin(0).put(0, "c", 700).put_scratch(0, "x");
    script.switch().session(1, "b").switch().end(0);
    script.begin(2).put(2, "large 1", LARGE).session(0, "d").put(2, "large 2", LARGE).switch();
    script.session(1, "e").put(2, "large 3", LARGE).end(2).switch();
    script.begin(1).remove(1, "a").clear_scratch(1).put_scratch(1, "y").end(1);
    script.session(0, "a").begin(2).switch().switch().session(1, "f").end(2).switch().switch();
    script
}

/// More than the largest buffer of a session, so that a part of the session reaches the file before its end.
const LARGE: usize = 600_000;

/// Rotations with and without open sessions, and rotated files at the next start.
pub fn rotations() -> Script {
    let mut script = Script::new(3);
    script.switch().session(0, "a").session(1, "b").begin(2).put(2, "c", 5000);
    script.switch().rotate().session(0, "a").switch().put(2, "c2", 30).end(2).session(2, "d").switch();
    script.rotate().rotate().session(1, "e").switch().session(0, "f").session(2, "c").switch();
    script.restart().session(0, "g").switch().rotate().session(0, "h").session(1, "a").switch();
    // The open session stands behind an ended one, and a part of it is in the file already.
    script.begin(0).put(0, "large 1", LARGE).switch().rotate().put(0, "large 2", LARGE).end(0).switch();
    script
}

/// The first compaction, later ones with removes and clears in between, with fewer channels than files, with the inputs
/// deleted, and over restarts.
pub fn compactions() -> Script {
    let mut script = Script::new(3);
    script.switch().session(0, "a").session(1, "b").session(2, "c").begin(0).put_scratch(0, "x").end(0).switch();
    script.compact().session(0, "a").remove_in_session(1, "b").session(2, "d").switch();
    script.compact().delete_detached().session(0, "e").switch().rotate().session(0, "e").switch();
    script.restart().begin(1).clear_scratch(1).put_scratch(1, "y").remove(1, "a").end(1).switch();
    script.compact().session(0, "a").switch().delete_detached();
    script.restart().compact().delete_detached().session(2, "c").remove_in_session(0, "e").switch();
    script
}

/// Compactions that delete what they have taken out of the log, next to one that does not, and over restarts.
pub fn compactions_that_delete() -> Script {
    let mut script = Script::new(2);
    script.switch().session(0, "a").session(1, "b").switch().compact_and_delete();
    script.session(0, "a").remove_in_session(1, "b").switch().compact();
    script.session(1, "c").switch().compact_and_delete().session(0, "d").switch();
    script.restart().remove_in_session(0, "a").session(1, "e").switch().compact_and_delete().session(0, "f").switch();
    script
}

/// Sessions that are aborted before and after a part of them reached the file, behind an ended session and as the
/// first, after a rotation, in a covered epoch, and while they hold back epochs that others wrote in.
pub fn aborts() -> Script {
    let mut script = Script::new(2);
    // Before the first switch: the epoch file covers the epoch already.
    script.begin(0).put(0, "covered", LARGE).abort(0);
    script
        .switch()
        .session(0, "a")
        .begin(1)
        .put(1, "small", 700)
        .abort(1)
        .begin(1)
        .put(1, "first", LARGE)
        .session(0, "b");
    script.switch().session(0, "b").switch().abort(1).session(1, "c").switch();
    // A shorter session takes the place of the aborted one, in a later epoch.
    script.begin(0).put(0, "aborted", LARGE).abort(0).switch().session(0, "d").session(1, "c").switch();
    script.begin(1).remove(1, "a").clear_scratch(1).put(1, "rotated", LARGE).switch().rotate().put(1, "x", 30);
    script.session(0, "e").switch().abort(1).session(1, "f").switch().begin(0).put(0, "again", LARGE).abort(0);
    script.restart().switch().session(0, "g").begin(1).put(1, "h", LARGE).switch().abort(1).switch();
    script
}

/// Backups with ended, open and large sessions at their beginning, writers until they are copied, one after a restart.
pub fn backups() -> Script {
    let mut script = Script::new(3);
    script.switch().session(0, "a").session(1, "b").switch().begin(2).put(2, "c", 5000).session(0, "a");
    // Channel 2 holds its epoch back; the session on channel 0 has ended and does not count.
    script.begin_backup().session(0, "d").end(2).switch().session(1, "b").switch().end_backup();
    script.begin(1).put(1, "large", LARGE).session(0, "e").switch().begin_backup().end(1).switch();
    script.remove_in_session(0, "a").switch().end_backup().restart();
    // Before the first switch of epochs, and twice at a time.
    script.session(0, "f").begin_backup().switch().session(1, "g").switch().session(2, "a").begin_backup().end_backup();
    script.switch().end_backup().session(0, "h").switch();
    script
}

/// A clean shutdown in the middle, with and without sessions of an epoch that was never completed.
pub fn restarts() -> Script {
    let mut script = Script::new(2);
    script.switch().session(0, "a").session(1, "b").switch().restart();
    script.switch().session(0, "c").begin(1).put(1, "a", 2000).end(1).restart();
    script.switch().session(0, "d").begin(1).put(1, "never ended", 30).restart();
    script.switch().session(1, "e").remove_in_session(0, "b").switch().switch();
    script
}

/// Sessions before the first switch of epochs of a process, whose epoch the record covers already: after a restart,
/// behind an aborted session of which a part has reached the file, and one of which only a part has when another one is
/// rotated.
pub fn covered() -> Script {
    let mut script = Script::new(2);
    script.session(0, "a").switch().session(0, "b").switch();
    script.restart().begin(0).put(0, "aborted", LARGE).abort(0).session(0, "c").session(1, "d").switch();
    script.restart().begin(1).put(1, "large", LARGE).put(1, "large 2", 2000).end(1).session(1, "e");
    script.restart().session(1, "f").switch().session(0, "g").switch();
    script.restart().switch();
    script
}

/// What is wanted of a directory in which nothing was ever durable.
pub fn first_session() -> Script {
    let mut script = Script::new(1);
    script.switch().begin(0).put(0, "a", 1500).end(0).switch();
    script
}

/// So many epoch records that the epoch file is replaced.
pub fn many_epochs() -> Script {
    let mut script = Script::new(2);
    script.switch();
    for round in 0..104 {
        script.session(round % 2, "k").switch();
    }
    script
}

/// What an engine does with a directory that an older version left.
pub fn after_migration() -> Script {
    let mut script = Script::new(2);
    script.switch().session(0, "a").session(1, "b").switch().restart();
    script.switch().session(0, "c").switch();
    script
}

impl Script {
    fn remove_in_session(&mut self, channel: usize, key: &str) -> &mut Script {
        self.begin(channel).remove(channel, key).end(channel)
    }
}
