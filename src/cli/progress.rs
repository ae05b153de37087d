//! Progress on standard error while something takes long: a bar on a terminal, else nothing.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Redraws per second.
const REDRAWS_PER_SECOND: u8 = 8;

/// A bar, or nothing.
pub struct Progress(ProgressBar);

impl Progress {
    /// A bar over `total` steps; `unit` names them.
    pub fn steps(total: u64, unit: &str) -> Self {
        let template = format!(
            "{{bar:32}} {{human_pos}}/{{human_len}} {unit}  {{per_sec}}  {{elapsed}} (eta {{eta}}) {{msg}}"
        );
        Self(bar(Some(total), &template))
    }

    /// A line of text.
    pub fn line() -> Self {
        Self(bar(None, "{spinner} {msg}"))
    }

    /// The steps done so far.
    pub fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// What the line says.
    pub fn say(&self, text: String) {
        self.0.set_message(text);
        self.0.tick();
    }

    /// Writes a line of its own to standard error, terminal or not.
    pub fn tell(&self, line: &str) {
        if self.0.is_hidden() { eprintln!("{line}") } else { self.0.println(line) }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

fn bar(total: Option<u64>, template: &str) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr_with_hz(REDRAWS_PER_SECOND)
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template(template).expect("a constant template");
    let bar = ProgressBar::with_draw_target(total, target);
    bar.set_style(style);
    bar
}
