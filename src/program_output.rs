// SPDX-License-Identifier: Apache-2.0
//! How the programs print results, and say why they ended.

use std::io::Write;

/// Where results go and where the reason of a failure, and in which form.
pub struct Output<'a> {
    pub out: &'a mut dyn Write,
    pub errors: &'a mut dyn Write,
    pub json: bool,
}

impl Output<'_> {
    pub fn print(&mut self, text: &str) {
        // There is nowhere to tell that stdout is gone.
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }

    /// Says why it ends; with `--json` on stdout as well. Returns the exit code.
    pub fn fail(&mut self, exit: i32, text: &str) -> i32 {
        self.complain(&format!("Error: {text}\n"));
        if self.json {
            self.print(&format!("{}\n", serde_json::json!({ "error": text, "exit": exit })));
        }
        exit
    }

    /// Tells a person.
    pub fn complain(&mut self, text: &str) {
        // There is nowhere to tell that stderr is gone.
        let _ = self.errors.write_all(text.as_bytes()).and_then(|()| self.errors.flush());
    }
}
