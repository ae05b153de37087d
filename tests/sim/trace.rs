//! The trace of a run: a hash over everything that happened, and the last events as text where somebody
//! wants to read them.

use std::collections::VecDeque;

/// Events that are kept as text.
const KEPT: usize = 200;

/// What has happened.
pub struct Trace {
    hash: u64,
    /// Whether events are kept as text.
    pub is_on: bool,
    kept: VecDeque<String>,
    count: u64,
}

impl Trace {
    /// Nothing yet.
    pub fn new(is_on: bool) -> Self {
        Self { hash: 0xCBF2_9CE4_8422_2325, is_on, kept: VecDeque::new(), count: 0 }
    }

    /// Mixes a number into the hash.
    pub fn mix(&mut self, number: u64) {
        self.hash = (self.hash ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        self.count += 1;
    }

    /// Keeps a text, if texts are kept.
    pub fn tell(&mut self, now: u64, text: impl FnOnce() -> String) {
        if self.is_on {
            if self.kept.len() == KEPT {
                self.kept.pop_front();
            }
            let (millis, micros) = (now / 1_000_000, now / 1_000 % 1_000);
            self.kept.push_back(format!("{millis:6}.{micros:03} ms  {}", text()));
            if std::env::var_os("SIM_TRACE_ALL").is_some() {
                eprintln!("{}", self.kept.back().map_or("", String::as_str));
            }
        }
    }

    /// The hash over everything.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many numbers went into the hash.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last events.
    pub fn into_kept(self) -> Vec<String> {
        self.kept.into()
    }
}
