//! Names of things that were left out, with the reason, told once each and counted.

use std::fmt::Display;

/// Names told of one kind; the others are only counted.
const TOLD_MAX: u64 = 20;

/// What was left out for one kind of reason.
#[derive(Debug)]
pub struct Names {
    what: &'static str,
    count: u64,
}

impl Names {
    /// None yet; `what` completes "N files ...".
    pub fn new(what: &'static str) -> Self {
        Self { what, count: 0 }
    }

    /// Tells one name on standard error through `line`, which keeps a progress bar whole.
    pub fn add(&mut self, line: &dyn Fn(&str), name: &str, reason: &dyn Display) {
        self.count += 1;
        if self.count <= TOLD_MAX {
            line(&format!("{}: {name}: {reason}", self.what));
        } else if self.count == TOLD_MAX + 1 {
            line(&format!("{}: more of them, only counted from here on", self.what));
        }
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// ", 3 skipped" or nothing.
    pub fn summary(&self) -> String {
        if self.count == 0 { String::new() } else { format!(", {} {}", self.count, self.what) }
    }
}
