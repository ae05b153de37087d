//! `watch`: shows changes as they are made, or runs a command for each.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::BufRead;
use std::sync::mpsc::SyncSender;
use std::thread;
use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, ValueEnum};
use client::{
    Cause, ChangeKind, OwnedChange, WatchEnd, WatchEvent, WatchHub, WatchOptions, WatchPosition,
    WatchedRange, Watcher,
};
use serde_json::{Map, Value};

use super::failure::Failure;
use super::output::{Output, owned_pair};
use super::range::RangeArguments;
use super::session::Global;
use super::signals::Events;
use super::time_span;
use super::txn_text;
use super::watch_command;

/// What `--help` says in full.
pub const LONG_ABOUT: &str = "\
Show changes of a key or a range of keys as they are made, until a signal comes.

Prints PUT or DELETE, the key and the value, a line each; with --prev-kv key and value as they were before
those. With -w json one object a line for each batch of changes. A server that goes away is left for another
of --endpoint, and the watch goes on where it was: no change is left out or shown twice.

With a command runs it for each change, one after the other, and ends when it fails. It finds in its
environment

    QUORATE_WATCH_REVISION     the revision
    QUORATE_WATCH_EVENT_TYPE   PUT or DELETE
    QUORATE_WATCH_KEY          the key
    QUORATE_WATCH_VALUE        the value, unless it holds a zero byte or has more than 64 KiB

the same as ETCD_WATCH_..., in quotes as etcdctl has them, and the value, whatever it is, on its standard
input.

With -i reads lines from standard input: \"watch\" with the arguments of this command, which prints the
number of the watch, \"cancel NUMBER\" and \"progress\".";

/// How long one wait lasts before signals and lines are looked at.
const STEP: Duration = Duration::from_millis(50);

/// Kinds of changes that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Filter {
    /// Puts.
    Put,
    /// Deletes.
    Delete,
}

/// What is watched, and how.
#[derive(Clone, Debug, Args)]
pub struct WatchedArguments {
    /// Key, or first key of a range
    pub key: Option<OsString>,
    /// First key behind the range
    #[arg(conflicts_with_all = ["prefix", "from_key"])]
    pub end: Option<OsString>,
    /// All keys that begin with KEY; all keys there are if it is empty
    #[arg(long, conflicts_with = "from_key")]
    pub prefix: bool,
    /// All keys from KEY on; all keys there are if it is empty
    #[arg(long)]
    pub from_key: bool,
    /// The first revision to show, also one that is still to come, or a place in it as a watch that ended
    /// advises, like 7.1 [default: the next one]
    #[arg(long, value_parser = parse_position)]
    pub rev: Option<WatchPosition>,
    /// Show keys also as they were before
    #[arg(long)]
    pub prev_kv: bool,
    /// Keys without values
    #[arg(long)]
    pub keys_only: bool,
    /// Leave these out
    #[arg(long, value_delimiter = ',')]
    pub filter: Vec<Filter>,
    /// Say how far the watch has come when there was nothing to show for so long; for 1m if SPAN is left out
    #[arg(
        long,
        visible_alias = "progress-notify",
        value_name = "SPAN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "1m",
        value_parser = time_span::parse
    )]
    pub progress: Option<Duration>,
    /// Command to run for each change
    #[arg(last = true)]
    pub command: Vec<OsString>,
}

/// Flags of `watch`.
#[derive(Clone, Debug, Args)]
pub struct WatchArguments {
    /// What is watched
    #[command(flatten)]
    pub watched: WatchedArguments,
    /// Read what to watch from standard input, with the flags on its lines: `watch KEY ...`, `cancel NUMBER`,
    /// `progress`
    #[arg(
        short,
        long,
        conflicts_with_all = [
            "key", "end", "prefix", "from_key", "rev", "prev_kv", "keys_only", "filter", "progress", "command"
        ]
    )]
    pub interactive: bool,
}

/// A line of an interactive watch.
#[derive(Debug, Parser)]
#[command(
    name = "",
    no_binary_name = true,
    disable_help_flag = true,
    disable_help_subcommand = true
)]
enum Line {
    Watch(WatchedArguments),
    Cancel { watch: u64 },
    Progress,
}

enum Input {
    Line(Vec<u8>),
    End,
}

fn parse_position(text: &str) -> Result<WatchPosition, String> {
    match text.parse::<WatchPosition>() {
        Ok(position) if position.revision >= 0 => Ok(position),
        Ok(_) => Err("a revision is not negative; 0 is the next one".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl WatchedArguments {
    /// The request.
    ///
    /// # Errors
    /// No key, or one that is empty; all is filtered out.
    pub fn options(&self) -> Result<WatchOptions, Failure> {
        let Some(key) = self.key.clone() else {
            return Err(Failure::Arguments(
                "no key is named; give one, or -i to read what to watch from standard input".into(),
            ));
        };
        let (end, prefix, from_key) = (self.end.clone(), self.prefix, self.from_key);
        let range = RangeArguments { key, end, prefix, from_key }.range()?;
        let leaves_out = |filter| self.filter.contains(&filter);
        let (no_put, no_delete) = (leaves_out(Filter::Put), leaves_out(Filter::Delete));
        if no_put && no_delete {
            return Err(Failure::Arguments(
                "--filter leaves both puts and deletes out: there is nothing to show".into(),
            ));
        }
        Ok(WatchOptions {
            ranges: vec![WatchedRange { key: range.key, range_end: range.range_end }],
            start: self.rev.unwrap_or(WatchPosition::NEXT),
            prev_kv: self.prev_kv,
            keys_only: self.keys_only,
            no_put,
            no_delete,
            progress_interval: self.progress,
            fragments: false,
        })
    }
}

/// Watches.
///
/// # Errors
/// The server; the end of the watch; the command; standard output.
pub fn run(global: &Global, arguments: &WatchArguments) -> Result<(), Failure> {
    // At once, whatever is under way: a command for a change, a write that nobody takes.
    let events = Events::new(|signal| watch_command::end(signal))?;
    let watched = &arguments.watched;
    let options = if arguments.interactive { None } else { Some(watched.options()?) };
    let mut client = global.connect()?;
    let hub = client.watch_hub()?;
    let mut watching = Watching {
        hub,
        output: Output::new(global.write_out, &client),
        is_interactive: arguments.interactive,
        watches: HashMap::new(),
    };
    match options {
        Some(options) => watching.begin(options, watched.command.clone())?,
        None => read_lines(events.sender()),
    }
    watching.serve(&events)
}

fn read_lines(sender: SyncSender<Input>) {
    thread::spawn(move || {
        for line in std::io::stdin().lock().split(b'\n') {
            let Ok(line) = line else { break };
            if sender.send(Input::Line(line)).is_err() {
                return;
            }
        }
        drop(sender.send(Input::End));
    });
}

struct Watching<'w> {
    hub: WatchHub,
    output: Output<'w>,
    is_interactive: bool,
    watches: HashMap<u64, (Watcher, Vec<OsString>)>,
}

impl Watching<'_> {
    fn begin(&mut self, options: WatchOptions, command: Vec<OsString>) -> Result<(), Failure> {
        let watcher = self.hub.watch(options)?;
        let number = watcher.id().get();
        if self.is_interactive {
            eprintln!("watch {number} has begun");
        }
        self.watches.insert(number, (watcher, command));
        Ok(())
    }

    fn serve(&mut self, events: &Events<Input>) -> Result<(), Failure> {
        let mut has_input = self.is_interactive;
        let mut trouble = None;
        while has_input || !self.watches.is_empty() {
            while let Some(input) = events.next_within(Duration::ZERO) {
                match input {
                    Input::End => has_input = false,
                    // One line that is wrong ends nothing.
                    Input::Line(line) => {
                        if let Err(failure) = self.obey(&line) {
                            eprintln!("Error: {failure}");
                        }
                    }
                }
            }
            // Who waits for changes should know why there are none.
            let now = self.hub.trouble();
            if now != trouble
                && let Some(why) = &now
            {
                eprintln!("{why}; the watch goes on as soon as a server can be reached");
            }
            trouble = now;
            if let Some(watch) = self.hub.ready_within(STEP) {
                self.show(watch.get())?;
            }
        }
        Ok(())
    }

    /// Does what a line says.
    fn obey(&mut self, line: &[u8]) -> Result<(), Failure> {
        let items = txn_text::items(line)?;
        if items.is_empty() {
            return Ok(());
        }
        let matches = Line::command().try_get_matches_from(items);
        let line =
            matches.and_then(|matches| Line::from_arg_matches(&matches)).map_err(|error| {
                let text = error.render().to_string();
                let text = text.strip_prefix("error: ").unwrap_or(&text).trim();
                Failure::Arguments(format!(
                    "{text}\n\nA line is `watch KEY ...` with the flags of the command, `cancel NUMBER` or \
                     `progress`."
                ))
            })?;
        match line {
            Line::Watch(watched) => self.begin(watched.options()?, watched.command),
            Line::Cancel { watch } => match self.watches.get(&watch) {
                Some((watcher, _)) => {
                    watcher.cancel();
                    Ok(())
                }
                None => Err(Failure::Arguments(format!("there is no watch {watch}"))),
            },
            Line::Progress => {
                self.watches.values().for_each(|(watcher, _)| watcher.ask_progress());
                Ok(())
            }
        }
    }

    /// Shows what a watch tells.
    fn show(&mut self, watch: u64) -> Result<(), Failure> {
        let Some((watcher, command)) = self.watches.get_mut(&watch) else { return Ok(()) };
        let number = self.is_interactive.then_some(watch);
        match watcher.next_within(Duration::ZERO) {
            Ok(Some(event)) => show_event(&mut self.output, number, &event, command),
            Ok(None) => Ok(()),
            Err(WatchEnd::Cancelled) => {
                self.watches.remove(&watch);
                eprintln!("watch {watch} was cancelled");
                Ok(())
            }
            Err(end) if self.is_interactive => {
                self.watches.remove(&watch);
                eprintln!("Error: watch {watch}: {}", Failure::from(end));
                Ok(())
            }
            Err(end) => Err(end.into()),
        }
    }
}

fn show_event(
    output: &mut Output<'_>,
    watch: Option<u64>,
    event: &WatchEvent,
    command: &[OsString],
) -> Result<(), Failure> {
    match event {
        WatchEvent::Progress { revision } if output.is_json() => {
            let mut object = Map::new();
            object.insert("progress".into(), true.into());
            insert_watch(&mut object, watch);
            output.object(object, *revision)
        }
        WatchEvent::Progress { revision } => output.text(&format!("progress notify: {revision}\n")),
        WatchEvent::Changes { changes, revision, .. } => {
            if output.is_json() {
                let mut object = Map::new();
                let events = changes.iter().map(change_object).collect();
                object.insert("events".into(), Value::Array(events));
                insert_watch(&mut object, watch);
                output.object(object, *revision)?;
            } else {
                changes.iter().try_for_each(|change| show_change(output, change))?;
                output.flush()?;
            }
            if command.is_empty() {
                return Ok(());
            }
            changes.iter().try_for_each(|change| watch_command::run(command, change))
        }
    }
}

fn insert_watch(object: &mut Map<String, Value>, watch: Option<u64>) {
    if let Some(watch) = watch {
        object.insert("watch_id".into(), watch.into());
    }
}

/// The word for what a change did.
pub fn kind(change: &OwnedChange) -> &'static str {
    match change.kind {
        ChangeKind::Put => "PUT",
        ChangeKind::Delete => "DELETE",
    }
}

fn show_change(output: &mut Output<'_>, change: &OwnedChange) -> Result<(), Failure> {
    output.bytes(kind(change).as_bytes())?;
    output.bytes(b"\n")?;
    if let Some(previous) = &change.previous {
        output.pair(previous)?;
    }
    output.pair(&change.kv)
}

fn change_object(change: &OwnedChange) -> Value {
    let mut object = Map::new();
    object.insert("type".into(), kind(change).into());
    let cause = match change.cause {
        Cause::Request => None,
        Cause::Expired => Some("expired"),
        Cause::Revoked => Some("revoked"),
    };
    if let Some(cause) = cause {
        object.insert("cause".into(), cause.into());
    }
    object.insert("kv".into(), owned_pair(&change.kv));
    if let Some(previous) = &change.previous {
        object.insert("prev_kv".into(), owned_pair(previous));
    }
    Value::Object(object)
}
