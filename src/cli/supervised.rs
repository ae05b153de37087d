//! A process that does not outlive the one that started it.
//!
//! The parent names itself in the environment, and the child asks the kernel, first thing, to be killed
//! with it. Killed, not asked: nobody is left who would see whether it stops, and a server loses nothing
//! by it.

use std::process::Command;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::failure::Failure;

/// Names the parent's process id.
const VARIABLE: &str = "QUORATE_SUPERVISOR";

/// Makes `command` end with this process. To be spawned by a thread that lives as long as the process:
/// the kernel takes the end of that thread for the end of the parent.
pub fn bind(command: &mut Command) {
    command.env(VARIABLE, std::process::id().to_string());
}

/// In the child: ends with its parent from now on, if the parent wants that.
///
/// # Errors
/// The parent has ended already, or the kernel refuses.
pub fn follow() -> Result<(), Failure> {
    let Some(supervisor) = std::env::var_os(VARIABLE) else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| {
        Failure::Stopped(format!("the kernel does not tie this process to its parent: {error}"))
    })?;
    // It may have ended before the call above, and then no signal will ever come.
    let parent = getppid().map(|parent| parent.as_raw_nonzero().to_string());
    if parent.is_some_and(|parent| supervisor == *parent) {
        Ok(())
    } else {
        Err(Failure::Stopped(format!(
            "process {}, which started this one, has ended; unset {VARIABLE} to start it by hand",
            supervisor.display()
        )))
    }
}
