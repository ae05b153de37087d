//! The command that `watch` runs for each change: its environment and its standard input.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use client::OwnedChange;
use rustix::process::{Pid, Signal, kill_process};

use super::failure::Failure;
use super::watch::kind;

/// Greatest value that is put into the environment: the kernel takes 128 KiB, the quoted form may take
/// several times as much as it quotes.
const VARIABLE_SIZE_MAX: usize = 64 << 10;

/// Runs the command for a change, to its end.
///
/// # Errors
/// It cannot be started; it did not end well.
pub fn run(command: &[OsString], change: &OwnedChange) -> Result<(), Failure> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let (key, value) = (&change.kv.key, &change.kv.value);
    let revision = change.revision().to_string();
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("QUORATE_WATCH_REVISION", &revision)
        .env("QUORATE_WATCH_EVENT_TYPE", kind(change))
        .env("ETCD_WATCH_REVISION", &revision)
        .env("ETCD_WATCH_EVENT_TYPE", quoted(kind(change).as_bytes()));
    for (name, bytes) in [("KEY", key), ("VALUE", value)] {
        let (raw, etcd) = (format!("QUORATE_WATCH_{name}"), format!("ETCD_WATCH_{name}"));
        // What is left over from this process's own environment would be a lie.
        command.env_remove(&raw).env_remove(&etcd);
        if bytes.len() <= VARIABLE_SIZE_MAX && !bytes.contains(&0) {
            command.env(raw, OsStr::from_bytes(bytes));
        }
        let quoted = quoted(bytes);
        if quoted.len() <= VARIABLE_SIZE_MAX {
            command.env(etcd, quoted);
        }
    }
    let shown = program.to_string_lossy();
    let fail = |error: std::io::Error| {
        Failure::Incomplete(format!(
            "the command {shown} cannot be run: {error}; go on with --rev {revision}.{}",
            change.sub
        ))
    };
    let mut child = command.stdin(Stdio::piped()).spawn().map_err(fail)?;
    let pid = Pid::from_child(&child);
    set_running(Some(pid));
    let input = child.stdin.take();
    let status = thread::scope(|scope| {
        // Who does not read its input breaks the pipe: no failure.
        scope.spawn(move || input.map(|mut input| input.write_all(value)));
        child.wait()
    });
    set_running(None);
    let status = status.map_err(fail)?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::Incomplete(format!(
        "the command {shown} ended with {status} for {} of {:?} at revision {revision}; go on with \
         --rev {revision}.{}, or with --rev {revision}.{} to run it again for this change",
        kind(change),
        String::from_utf8_lossy(key),
        change.sub + 1,
        change.sub
    )))
}

/// The command that runs.
static RUNNING: Mutex<Option<Pid>> = Mutex::new(None);

fn set_running(pid: Option<Pid>) {
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = pid;
}

/// Hands a signal on to the command that runs, if one does, and ends this process. Nobody is told how the
/// command ended.
pub fn end(signal: i32) -> ! {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some(pid), Some(signal)) = (*running, Signal::from_named_raw(signal)) {
        // It may have ended meanwhile.
        let _ = kill_process(pid, signal);
    }
    std::process::exit(0)
}

/// The bytes in double quotes, with what is no printable text escaped, as etcdctl (Go's %q) has it.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c if c.is_ascii_control() => {
                    let _ = write!(text, "\\x{:02x}", u32::from(c));
                }
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_can_be_quoted() {
        assert_eq!(quoted(b"plain"), "\"plain\"");
        assert_eq!(quoted(b"a\"b\\c\n\0\xff"), r#""a\"b\\c\n\x00\xff""#);
        assert_eq!(quoted("Größe".as_bytes()), "\"Größe\"");
    }
}
