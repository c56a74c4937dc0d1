// SPDX-License-Identifier: Apache-2.0
//! A bar on a terminal that says how far a long run is.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Below this nobody has to wait.
const BYTES_MIN: u64 = 64 << 20;
/// A bar is told about no fewer bytes, so that it costs nothing.
const STEP_BYTES: usize = 1 << 20;

/// Counts the bytes that several threads have read; shown when stderr is a terminal and there is much to read.
pub struct Progress {
    bar: ProgressBar,
    /// Who counts does so by this, and names nothing of the crate. Optimized over all crates, a program without a bar
    /// kept what counts and not the function of the crate, and could not be linked.
    count: Box<dyn Fn(u64) + Sync>,
}

impl Progress {
    pub fn new(total: u64) -> Progress {
        let bar = Progress::bar(total);
        let counted = bar.clone();
        Progress { bar, count: Box::new(move |bytes| counted.inc(bytes)) }
    }

    fn bar(total: u64) -> ProgressBar {
        if total < BYTES_MIN {
            return ProgressBar::hidden();
        }
        // Draws nothing when stderr is no terminal.
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("[{bar:40}] {bytes} of {total_bytes}, {eta} left") {
            bar.set_style(style.progress_chars("## "));
        }
        bar
    }

    /// Counts the bytes of one more file.
    pub fn file(&self) -> FileProgress<'_> {
        FileProgress { count: &*self.count, counted: 0 }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// How far one file is read.
pub struct FileProgress<'a> {
    count: &'a (dyn Fn(u64) + Sync),
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
        (self.count)((offset - self.counted) as u64);
        self.counted = offset;
    }
}
