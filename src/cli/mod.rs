//! The command line: what can be asked of the one binary, and how each answer ends the process.
//!
//! Each command has a file of its own with its flags and what it does. Habits and outputs follow
//! etcdctl's where there is such a command.

mod alarm;
mod bench;
mod bench_lease;
mod bench_watch;
mod cluster_file;
mod compact;
mod del;
mod elect;
mod etcd;
mod etcd_file;
mod etcd_flags;
mod etcd_log;
mod etcd_urls;
mod etcd_values;
mod export;
mod failure;
mod get;
mod go_duration;
mod hold;
mod import;
mod import_snapshot;
mod inspect;
mod lease;
mod limits;
mod local_cluster;
mod lock;
mod member;
mod mirror;
mod move_leader;
mod names;
mod output;
mod progress;
mod put;
mod range;
mod register;
mod restarts;
mod retention;
mod roster;
mod server;
mod session;
mod signals;
mod size;
mod snapshot;
mod status;
mod supervised;
mod table;
mod time_span;
mod tree_path;
mod tree_walk;
mod txn;
mod txn_text;
mod watch;
mod watch_command;
mod write_file;

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use failure::{ExitStatus, Failure};
use session::Global;

const EXIT_CODES: &str = "\
Exit codes:
    0  success
    1  the server refused, a part could not be done, the server ended, or inspect found a fault
    2  no connection, or no answer in time
    3  the text of a transaction is not understood
    4  the server does not keep to the protocol
    5  a server is not healthy, or one of several cannot be reached (status); a signal came before the
       lock was held or the election won (lock, elect)
    6  reading or writing here failed (files, standard input and output)
    7  the cluster excludes this member: removed, other data, or another state (server)
  128  arguments are not understood
  lock and register with a command end with its exit code, 128 and the signal's number if one ended it

Errors go to standard error and begin with \"Error: \".";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "quorate",
    version,
    about = "A coordination and metadata store: linearizable, with history, durable",
    after_help = EXIT_CODES,
    after_long_help = EXIT_CODES,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server on a data directory
    Server(server::ServerArguments),
    /// Run a server with etcd's flags; the binary under the name etcd does the same
    #[command(disable_help_flag = true)]
    Etcd {
        /// As for etcd
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        flags: Vec<OsString>,
    },
    /// Write a key
    Put(put::PutArguments),
    /// Read a key or a range of keys
    Get(get::GetArguments),
    /// Delete a key or a range of keys
    #[command(visible_alias = "delete")]
    Del(del::DelArguments),
    /// Compare, then do one of two lists of operations, read from standard input
    #[command(long_about = txn::LONG_ABOUT)]
    Txn(txn::TxnArguments),
    /// Give up history below a revision
    #[command(visible_alias = "compaction")]
    Compact(compact::CompactArguments),
    /// Show changes of a key or a range of keys as they are made
    #[command(long_about = watch::LONG_ABOUT)]
    Watch(watch::WatchArguments),
    /// Make, end and look at leases: keys that hang on one go with it
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Hold a lock, while a command runs or until a signal comes
    #[command(long_about = lock::LONG_ABOUT)]
    Lock(lock::LockArguments),
    /// Lead an election until a signal comes, or see who leads
    #[command(long_about = elect::LONG_ABOUT)]
    Elect(elect::ElectArguments),
    /// Keep a key there, while a command runs or until a signal comes
    #[command(long_about = register::LONG_ABOUT)]
    Register(register::RegisterArguments),
    /// Show the state of each endpoint: one in full, several as a table
    Status,
    /// Show what bounds each endpoint, how much of it is in use, and how often it was met
    #[command(long_about = limits::LONG_ABOUT)]
    Limits,
    /// Show the members of the cluster, or change who they are
    #[command(subcommand)]
    Member(member::MemberCommand),
    /// Let another member lead
    MoveLeader(move_leader::MoveLeaderArguments),
    /// Show the alarms of the members, or disarm them
    #[command(subcommand, long_about = alarm::LONG_ABOUT)]
    Alarm(alarm::AlarmCommand),
    /// Run a cluster of several servers on this machine
    #[command(long_about = local_cluster::LONG_ABOUT)]
    LocalCluster(local_cluster::LocalClusterArguments),
    /// Put each file of a folder as a key
    #[command(long_about = import::LONG_ABOUT)]
    Import(import::ImportArguments),
    /// Write each key of a prefix as a file
    #[command(long_about = export::LONG_ABOUT)]
    Export(export::ExportArguments),
    /// Save the state of a member as a file that etcd's tools know, look at one, restore one
    #[command(subcommand)]
    Snapshot(snapshot::SnapshotCommand),
    /// Copy keys from etcd or Quorate to etcd or Quorate, and follow their changes
    #[command(long_about = mirror::LONG_ABOUT)]
    Mirror(mirror::MirrorArguments),
    /// Measure a server, or the disk below it
    #[command(subcommand)]
    Bench(bench::BenchCommand),
    /// Look into a data directory whose server is stopped
    #[command(subcommand)]
    Inspect(inspect::InspectCommand),
    /// Print the version
    Version,
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    if let Some(arguments) = etcd::arguments() {
        return etcd::main(arguments);
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    if let Command::Etcd { flags } = arguments.command {
        return etcd::main(flags);
    }
    match run(arguments) {
        Ok(()) => ExitStatus::Success.into(),
        // The reader of standard output has gone, or a command has said it: nobody is left to tell.
        Err(failure) if failure.is_silent() => failure.status().into(),
        Err(failure) => {
            eprintln!("Error: {failure}");
            failure.status().into()
        }
    }
}

/// Help and version are answers; anything else that is not a command is an error.
fn refuse(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has seen enough is no error.
            drop(write!(std::io::stdout(), "{}", error.render()));
            ExitStatus::Success.into()
        }
        _ => {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            eprint!("Error: {text}");
            ExitStatus::Arguments.into()
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Failure> {
    let global = &arguments.global;
    match &arguments.command {
        Command::Server(arguments) => {
            supervised::follow()?;
            server::run(arguments)
        }
        Command::Etcd { .. } => unreachable!("it has an exit code of its own"),
        Command::Put(arguments) => put::run(global, arguments),
        Command::Get(arguments) => get::run(global, arguments),
        Command::Del(arguments) => del::run(global, arguments),
        Command::Txn(arguments) => txn::run(global, arguments),
        Command::Compact(arguments) => compact::run(global, arguments),
        Command::Watch(arguments) => watch::run(global, arguments),
        Command::Lease(command) => lease::run(global, command),
        Command::Lock(arguments) => lock::run(global, arguments),
        Command::Elect(arguments) => elect::run(global, arguments),
        Command::Register(arguments) => register::run(global, arguments),
        Command::Status => status::run(global),
        Command::Limits => limits::run(global),
        Command::Member(command) => member::run(global, command),
        Command::MoveLeader(arguments) => move_leader::run(global, arguments),
        Command::Alarm(command) => alarm::run(global, command),
        Command::LocalCluster(arguments) => local_cluster::run(arguments),
        Command::Import(arguments) => import::run(global, arguments),
        Command::Export(arguments) => export::run(global, arguments),
        Command::Snapshot(command) => snapshot::run(global, command),
        Command::Mirror(arguments) => mirror::run(global, arguments),
        Command::Bench(command) => bench::run(global, command),
        Command::Inspect(command) => inspect::run(global, command),
        Command::Version => {
            println!("quorate {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_promised_command_and_alias_is_there() {
        for line in [
            "quorate server --data-dir d --listen 127.0.0.1:0",
            "quorate put k v --prev-kv --lease 1f",
            "quorate get k --endpoint 127.0.0.1:1 -w json",
            "quorate get a z --limit 3 --order descend --sort-by modify --rev 4",
            "quorate del k --prefix --command-timeout 2s",
            "quorate txn -i",
            "quorate compaction 5 --physical",
            "quorate put k v --ttl 500ms",
            "quorate watch k",
            "quorate watch a z --rev 7 --prev-kv --keys-only --filter put -w json",
            "quorate watch k --prefix --progress=5s -- env -i",
            "quorate watch -i",
            "quorate lease grant 500ms",
            "quorate lease grant 10 --id 1f",
            "quorate lease revoke 1f",
            "quorate lease keep-alive 1f --once",
            "quorate lease timetolive 1f --keys",
            "quorate lease list",
            "quorate lock n --ttl 5 -- sh -c true",
            "quorate elect n v",
            "quorate elect -l n",
            "quorate register k v --ttl 5s -- sleep 1",
            "quorate status",
            "quorate status --endpoint h:1,h:2 --endpoint h:3 -w json",
            "quorate limits --endpoint h:1,h:2 -w json",
            "quorate member list",
            "quorate member add d --peer h:4 --learner",
            "quorate member promote 4",
            "quorate member remove d --force",
            "quorate member update d --name e",
            "quorate member update 4 --peer h:5 -w json",
            "quorate member replace a --new-name d --peer h:4",
            "quorate move-leader",
            "quorate move-leader b --endpoint h:1",
            "quorate local-cluster --nodes 3 --data-dir d --listen-base 127.0.0.1",
            "quorate local-cluster --page-cache 32MiB --wal-segment-size 8MiB --topology shared",
            "quorate import d --prefix p",
            "quorate import --etcd-snapshot f --newest --prefix p",
            "quorate export d --prefix p",
            "quorate snapshot save f --endpoint h:1",
            "quorate snapshot status f -w json",
            "quorate snapshot restore f --data-dir d --name a --initial-cluster a=h:1,b=h:2",
            "quorate snapshot restore f --data d --bump-revision 5 --mark-compacted --skip-hash-check",
            "quorate mirror --from http://h:1,h:2 --to h:3 --prefix p --to-prefix q --max-txn-ops 64 --once",
            "quorate mirror --from h:1 --to h:3 --prefix p --no-dest-prefix --rev 7",
            "quorate bench disk --data-dir d --duration 3 --json f",
            "quorate bench put --endpoint h:1 --connections 64 --depth 16 --duration 4 --json f",
            "quorate inspect check d",
            "quorate version",
        ] {
            if let Err(error) = Arguments::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
    }
    #[test]
    fn what_lacks_something_or_contradicts_itself_is_refused() {
        for line in [
            "quorate watch k --filter all",
            "quorate watch k --rev x",
            "quorate watch k -i",
            "quorate lease",
            "quorate lease grant",
            "quorate lease grant x",
            "quorate lease revoke xyz",
            "quorate elect n",
            "quorate elect -l n v",
            "quorate put k v --ttl 5 --lease 1f",
            "quorate member",
            "quorate member add d",
            "quorate member add d --peer 4",
            "quorate member remove",
            "quorate member update d",
            "quorate member replace a --peer h:4",
            "quorate move-leader a b",
            "quorate mirror --from h:1",
            "quorate mirror --from https://h:1 --to h:2",
            "quorate mirror --from h:1 --to h:2 --max-txn-ops 1",
            "quorate mirror --from h:1 --to h:2 --rev 7 --overwrite",
            "quorate local-cluster --nodes 8",
            "quorate local-cluster --listen-base localhost",
            "quorate get k --endpoint h:1,h",
            "quorate import",
            "quorate import d --newest",
            "quorate import d --etcd-snapshot f",
            "quorate snapshot",
            "quorate snapshot save",
            "quorate snapshot restore f --bump-revision 5",
        ] {
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{line}");
        }
        let line = ["quorate", "member", "update", "d", "--name", ""];
        assert!(Arguments::try_parse_from(line).is_err());
    }

    #[test]
    fn endpoints_come_with_commas_and_one_by_one() {
        let line = "quorate status --endpoint h:1,h:2 --endpoint h:3";
        match Arguments::try_parse_from(line.split(' ')) {
            Ok(arguments) => assert_eq!(arguments.global.endpoint, ["h:1", "h:2", "h:3"]),
            Err(error) => panic!("{error}"),
        }
    }
}
