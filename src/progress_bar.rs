// SPDX-License-Identifier: Apache-2.0
//! A bar on a terminal that says how far a long run is.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Below this nobody has to wait.
const BYTES_MIN: u64 = 64 << 20;
/// A bar is told about no fewer bytes, so that it costs nothing.
const STEP_BYTES: usize = 1 << 20;

/// Counts the bytes that several threads have read; shown when stderr is a terminal and there is much to read.
pub struct Progress(ProgressBar);

impl Progress {
    pub fn new(total: u64) -> Progress {
        if total < BYTES_MIN {
            return Progress(ProgressBar::hidden());
        }
        // Draws nothing when stderr is no terminal.
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("[{bar:40}] {bytes} of {total_bytes}, {eta} left") {
            bar.set_style(style.progress_chars("## "));
        }
        Progress(bar)
    }

    /// Counts the bytes of one more file.
    pub fn file(&self) -> FileProgress<'_> {
        FileProgress { bar: &self.0, counted: 0 }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// How far one file is read.
pub struct FileProgress<'a> {
    bar: &'a ProgressBar,
    counted: usize,
}

impl FileProgress<'_> {
    /// The run is at `offset` of the file.
    #[inline]
    pub fn at(&mut self, offset: usize) {
        if offset >= self.counted + STEP_BYTES {
            self.count(offset);
        }
    }

    /// The run is through with the file, which is `len` bytes long.
    pub fn done(mut self, len: usize) {
        self.count(len);
    }

    fn count(&mut self, offset: usize) {
        self.bar.inc((offset - self.counted) as u64);
        self.counted = offset;
    }
}
