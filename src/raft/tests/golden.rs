//! Scripts in `golden/`, each a subtlety of the protocol: what is done to a small cluster, and all that
//! its members want done for it. `GOLDEN=write cargo test -p raft@0.1.0 --test golden` writes the answers
//! anew.
//!
//! A line that begins with `>` is a directive; the answer are the lines up to the next directive,
//! comment (`#`) or empty line. Every directive ends a turn: members send what has gathered. Disks do
//! nothing of themselves.
//!
//! ```text
//! members 1 2 3 [and 4 5]     voters, and others that run and are no members
//! limit N                     entries in one append, for members named after it
//! log 1 terms 1 1 2 in 3      a log of these terms, in term 3, before anything has happened
//! campaign 1                  an election, at once
//! pass 200                    milliseconds pass for everybody, and no timer fires
//! tick 1                      time passes until its timer is due, and it alone fires
//! timeout 1                   so much time passes that no lease holds, and its timer alone fires
//! propose 1 [3]               so many entries
//! change 1 voters 1 2 [learners 3]
//! read 1
//! transfer 1 to 2
//! write 1 [2]                 its disk performs writes, and raft is not told
//! report 1 [2]                raft is told of writes that were performed
//! disk 1 2                    all writes of these, and reports
//! deliver [from 1] [to 2] [kind append]   what is on its way now and is meant
//! drop [from 1] [to 2] [kind append]
//! isolate 3                   all from and to it is lost from now on
//! heal                        nothing is
//! settle [without 3]          disks, messages and turns until nothing moves, or only of these
//! compact 1 to 5
//! unreachable 1 to 3          1 is told that its connection to 3 broke
//! refused 1 by 3 at 1         1 hears that the log of 3 ends at an entry that it has too
//! crash 1                     and loses what is not on its disk
//! restart 1
//! show [1 2]                  members
//! peers 1                     what a leader knows of its peers
//! quietly DIRECTIVE           without an answer
//! ```

mod world;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use base::{Duration, NodeId, Term};
use raft::{
    Change, HardState, Input, Membership, Message, Options, Output, Pace, Position, Progress,
    RoleName, TermRun,
};
use world::{Packet, World, at, node, nodes};

const OPTIONS: Options = Options {
    election_timeout: Duration::from_millis(200),
    heartbeat_interval: Duration::from_millis(40),
    pre_vote: true,
    append_entries_max: 100,
    append_bytes_max: 10_000,
    in_flight_max: 4,
    in_flight_bytes_max: 40_000,
};

fn list(ids: &[NodeId]) -> String {
    let ids: Vec<String> = ids.iter().map(|id| id.get().to_string()).collect();
    ids.join(" ")
}

fn membership(membership: &Membership) -> String {
    let mut text = format!("voters {}", list(membership.voters()));
    for (name, ids) in [
        ("outgoing", membership.outgoing()),
        ("learners", membership.learners()),
        ("learners to be", membership.learners_next()),
    ] {
        if !ids.is_empty() {
            let _ = write!(text, ", {name} {}", list(ids));
        }
    }
    text
}

fn position(position: Position) -> String {
    format!("{} of term {}", position.index.get(), position.term.get())
}

fn runs(runs: &[TermRun], last: u64) -> String {
    let mut texts = Vec::new();
    for (i, run) in runs.iter().enumerate() {
        let end = runs.get(i + 1).map_or(last, |next| next.first.get() - 1);
        let (first, term) = (run.first.get(), run.term.get());
        texts.push(match end {
            end if end == first => format!("{first} of term {term}"),
            end => format!("{first} to {end} of term {term}"),
        });
    }
    if texts.is_empty() { "nothing".to_owned() } else { texts.join(", ") }
}

fn yes(granted: bool) -> &'static str {
    if granted { "yes" } else { "no" }
}

/// The first word is what `kind` asks for.
fn message(message: &Message) -> String {
    let term = message.term().get();
    match message {
        Message::PreVote { last, .. } => {
            format!("pre-vote for term {term}, last {}", position(*last))
        }
        Message::PreVoteReply { granted, .. } => {
            format!("pre-vote-reply {} in term {term}", yes(*granted))
        }
        Message::Vote { last, transfer, .. } => {
            let asked = if *transfer { ", as the leader asked" } else { "" };
            format!("vote in term {term}, last {}{asked}", position(*last))
        }
        Message::VoteReply { granted, .. } => {
            format!("vote-reply {} in term {term}", yes(*granted))
        }
        Message::Append { previous, runs: entries, last, committed, .. } => format!(
            "append in term {term} behind {}: {}; committed {}",
            position(*previous),
            runs(entries, last.get()),
            committed.get()
        ),
        Message::Accepted { matched, verified, .. } => format!(
            "accepted in term {term}: durable to {}, agrees to {}",
            matched.get(),
            verified.get()
        ),
        Message::Rejected { previous, hint, .. } => {
            format!("rejected in term {term}: not {}, perhaps {}", previous.get(), position(*hint))
        }
        Message::Heartbeat { committed, round, .. } => {
            format!("heartbeat in term {term}, committed {}, round {round}", committed.get())
        }
        Message::HeartbeatReply { round, matched, .. } => {
            format!("heartbeat-reply in term {term}, round {round}, durable to {}", matched.get())
        }
        Message::Snapshot { last, configuration, .. } => format!(
            "snapshot in term {term} to {}, {}",
            position(*last),
            membership(&configuration.membership)
        ),
        Message::TimeoutNow { .. } => format!("timeout-now in term {term}"),
        Message::Read { .. } => format!("read in term {term}"),
        Message::ReadReply { index, .. } => match index {
            Some(index) => format!("read-reply in term {term}: wait for {}", index.get()),
            None => format!("read-reply in term {term}: no"),
        },
        Message::Newer { .. } => format!("newer: term {term}"),
    }
}

fn output(id: u64, output: &Output) -> String {
    let text = match output {
        Output::SaveHardState(state) => {
            let vote = state.vote.map_or("nobody".to_owned(), |id| id.get().to_string());
            format!("saves term {}, vote for {vote}", state.term.get())
        }
        Output::AppendEmpty { index, term } => {
            format!("writes an empty entry {} of term {}", index.get(), term.get())
        }
        Output::AppendMembership { index, term, membership: new } => {
            format!("writes {} of term {}: {}", index.get(), term.get(), membership(new))
        }
        Output::Append { first, last, cut } => {
            let cut = if *cut { " in place of what was there" } else { "" };
            format!("writes {} to {}{cut}", first.get(), last.get())
        }
        Output::Install { last } => format!("installs a snapshot to {}", position(*last)),
        Output::Send { to, message: sent } => format!("tells {}: {}", to.get(), message(sent)),
        Output::SendSnapshot { to } => format!("begins a snapshot for {}", to.get()),
        Output::Committed { index } => format!("commits {}", index.get()),
        Output::Leading { term } => format!("leads term {}", term.get()),
        Output::Following { term, leader } => {
            let leader = leader.map_or("nobody".to_owned(), |id| id.get().to_string());
            format!("follows {leader} in term {}", term.get())
        }
        Output::Proposed { first, count, term } => {
            let last = first.get() + count - 1;
            format!("proposes {} to {last} of term {}", first.get(), term.get())
        }
        Output::ProposalRefused => "refuses proposals".to_owned(),
        Output::ChangeRefused(refusal) => format!("refuses the change: {refusal}"),
        Output::ReadGranted { index, .. } => format!("grants a read at {}", index.get()),
        Output::ReadRejected { .. } => "rejects a read".to_owned(),
        Output::TransferFailed { to } => format!("gives up the transfer to {}", to.get()),
        Output::Forgotten { by, index } => {
            format!("has forgotten {}, on which {} counts", index.get(), by.get())
        }
    };
    format!("{id} {text}")
}

/// Words of a directive.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        Self(line.split_whitespace().collect())
    }

    fn number(word: &str) -> u64 {
        word.parse().unwrap_or_else(|_| panic!("{word} is no number"))
    }

    /// The numbers from `from` on, up to a word.
    fn numbers(&self, from: usize) -> Vec<u64> {
        let words = self.0.iter().skip(from).map_while(|word| word.parse().ok());
        words.collect()
    }

    /// The numbers behind `word`, none if it is not there.
    fn behind(&self, word: &str) -> Vec<u64> {
        let at = self.0.iter().position(|w| *w == word);
        at.map(|at| self.numbers(at + 1)).unwrap_or_default()
    }

    fn one_behind(&self, word: &str) -> Option<u64> {
        self.behind(word).first().copied()
    }

    fn id(&self) -> u64 {
        Self::number(self.0.get(1).expect("a member"))
    }

    fn count(&self) -> u64 {
        self.numbers(1).get(1).copied().unwrap_or(1)
    }
}

struct Stage {
    world: World,
    isolated: BTreeSet<u64>,
    options: Options,
    answer: String,
}

impl Stage {
    fn new() -> Self {
        let world = World::new(OPTIONS, &[1], &[]);
        let isolated = BTreeSet::new();
        Self { world, isolated, options: OPTIONS, answer: String::new() }
    }

    fn say(&mut self, line: &str) {
        self.answer.push_str(line);
        self.answer.push('\n');
    }

    /// What members wanted done since the last call.
    fn hear(&mut self) {
        let trace = self.world.trace.replace(Vec::new()).unwrap_or_default();
        for (id, done) in trace {
            let line = output(id, &done);
            self.say(&line);
        }
    }

    fn ids(&self) -> Vec<u64> {
        self.world.hosts.keys().copied().collect()
    }

    fn turn(&mut self) {
        for id in self.ids() {
            self.world.input(id, Input::Flush);
        }
        self.hear();
        self.world.check_quorums();
        let lost = |packet: &Packet| [packet.from, packet.to].map(|id| self.isolated.contains(&id));
        self.world.sent.retain(|packet| lost(packet) == [false, false]);
    }

    fn meant(words: &Words<'_>, packet: &Packet) -> bool {
        let at = words.0.iter().position(|word| *word == "kind");
        let kind = at.map(|at| words.0[at + 1]);
        let text = message(&packet.message);
        let first = text.split([' ', ':']).next();
        words.one_behind("from").is_none_or(|from| from == packet.from)
            && words.one_behind("to").is_none_or(|to| to == packet.to)
            && kind.is_none_or(|kind| first == Some(kind))
    }

    fn take(&mut self, meant: impl Fn(&Packet) -> bool) -> Vec<Packet> {
        let all: Vec<Packet> = self.world.sent.drain(..).collect();
        let (taken, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(meant);
        self.world.sent = rest.into();
        taken
    }

    fn deliver(&mut self, packet: Packet) {
        let down = if self.world.is_up(packet.to) { "" } else { ", which is down" };
        let (from, to) = (packet.from, packet.to);
        let line = format!("-> {from} to {to}{down}: {}", message(&packet.message));
        self.say(&line);
        self.world.receive(packet);
        self.hear();
    }

    fn settle(&mut self, without: &[u64]) {
        for _ in 0..1_000 {
            for id in self.ids() {
                if !without.contains(&id) {
                    while self.world.write(id) {}
                    while self.world.report(id) {}
                }
            }
            self.turn();
            let meant = |p: &Packet| !without.contains(&p.from) && !without.contains(&p.to);
            let writes =
                |id: &u64| !without.contains(id) && !self.world.hosts[id].writes.is_empty();
            let busy = self.ids().iter().any(writes);
            let packets = self.take(meant);
            if packets.is_empty() && !busy {
                return;
            }
            for packet in packets {
                self.deliver(packet);
            }
        }
        panic!("this does not settle");
    }

    fn show(&self, id: u64) -> String {
        let Some(raft) = &self.world.hosts[&id].raft else { return format!("{id} is down") };
        let role = match (raft.role(), raft.leader()) {
            (RoleName::Follower, Some(leader)) => format!("follows {}", leader.get()),
            (RoleName::Follower, None) => "follows nobody".to_owned(),
            (RoleName::PreCandidate, _) => "asks whether it would be elected".to_owned(),
            (RoleName::Candidate, _) => "asks for votes".to_owned(),
            (RoleName::Leader, _) => "leads".to_owned(),
        };
        let log = raft.log();
        let base = match log.base().index.get() {
            0 => String::new(),
            _ => format!("begins behind {}, ", position(log.base())),
        };
        format!(
            "{id} {role} in term {}, log {base}{}; durable to {}, committed {}; {}",
            raft.term().get(),
            runs(log.runs(), log.last().get()),
            log.durable().get(),
            log.committed().get(),
            membership(raft.membership())
        )
    }

    fn peers(&mut self, id: u64) {
        let line = |peer: &Progress| {
            let pace = match peer.pace() {
                Pace::Probe { paused: true } => "probed, waits for an answer".to_owned(),
                Pace::Probe { paused: false } => "to be probed".to_owned(),
                Pace::Replicate => "replicates".to_owned(),
                Pace::Snapshot { until } => format!("gets a snapshot to {}", until.get()),
            };
            let heard = if peer.is_active() { "heard" } else { "not heard" };
            let (matched, next, flight) =
                (peer.matched().get(), peer.next().get(), peer.in_flight().0);
            let id = peer.id().get();
            format!("{id} matched {matched}, next {next}, {pace}, {flight} in flight, {heard}")
        };
        let lines: Vec<String> = self.world.raft(id).peers().iter().map(line).collect();
        lines.iter().for_each(|line| self.say(line));
    }

    fn pass(&mut self, millis: u64) {
        self.world.now = self.world.now.after(Duration::from_millis(millis));
    }

    fn perform(&mut self, line: &str) {
        let words = Words::of(line);
        let ids = self.ids();
        match words.0[0] {
            "quietly" => {
                let before = self.answer.clone();
                self.perform(line.trim_start_matches("quietly").trim());
                self.answer = before;
                return;
            }
            "members" => {
                let (voters, others) = (words.numbers(1), words.behind("and"));
                self.world = World::new(self.options, &voters, &others);
                self.world.late_timers = true;
                self.world.trace = Some(Vec::new());
            }
            "limit" => self.options.append_entries_max = words.id(),
            "log" => {
                let term = Term::new(words.one_behind("in").expect("a term"));
                let state = HardState { term, vote: None };
                self.world.preset(words.id(), &words.behind("terms"), state);
            }
            "campaign" => self.world.input(words.id(), Input::Campaign),
            "pass" => self.pass(words.id()),
            "tick" => {
                let due = self.world.raft(words.id()).deadline().expect("a timer");
                self.world.now = self.world.now.max(due);
                self.world.input(words.id(), Input::Tick);
            }
            "timeout" => {
                self.pass(2 * OPTIONS.election_timeout.as_millis());
                self.world.input(words.id(), Input::Tick);
            }
            "propose" => self.world.input(words.id(), Input::Propose { count: words.count() }),
            "change" => {
                let (voters, learners) =
                    (nodes(&words.behind("voters")), nodes(&words.behind("learners")));
                let change = Change { voters, learners, lag_max: None };
                self.world.input(words.id(), Input::Change(change));
            }
            "read" => _ = self.world.read(words.id()),
            "transfer" => {
                let to = node(words.one_behind("to").expect("to whom"));
                self.world.input(words.id(), Input::Transfer { to });
            }
            "write" => (0..words.count()).for_each(|_| assert!(self.world.write(words.id()))),
            "report" => (0..words.count()).for_each(|_| assert!(self.world.report(words.id()))),
            "disk" => {
                for id in words.numbers(1) {
                    while self.world.write(id) {}
                    while self.world.report(id) {}
                }
            }
            "deliver" => {
                let packets = self.take(|packet| Self::meant(&words, packet));
                assert!(!packets.is_empty(), "nothing of that is on its way: {line}");
                packets.into_iter().for_each(|packet| self.deliver(packet));
            }
            "drop" => {
                let packets = self.take(|packet| Self::meant(&words, packet));
                assert!(!packets.is_empty(), "nothing of that is on its way: {line}");
            }
            "isolate" => self.isolated.extend(words.numbers(1)),
            "heal" => self.isolated.clear(),
            "settle" => self.settle(&words.behind("without")),
            "compact" => {
                let to = words.one_behind("to").expect("an index");
                self.world.compact(words.id(), usize::try_from(to).expect("small"));
                assert_eq!(self.world.raft(words.id()).log().base().index, at_u64(to));
            }
            "unreachable" => {
                let peer = node(words.one_behind("to").expect("whom"));
                self.world.input(words.id(), Input::Unreachable { peer });
            }
            "refused" => {
                let from = node(words.one_behind("by").expect("by whom"));
                let index = at_u64(words.one_behind("at").expect("an index"));
                let leader = self.world.raft(words.id());
                let peer = leader.peers().iter().find(|peer| peer.id() == from).expect("a peer");
                let previous = peer.next().previous().expect("an entry is not at zero");
                let hint = Position { index, term: leader.log().term_at(index) };
                let message = Message::Rejected { term: leader.term(), previous, hint };
                self.world.input(words.id(), Input::Receive { from, message });
            }
            "crash" => self.world.crash(words.id(), 0),
            "restart" => self.world.restart(words.id(), words.id()),
            "show" => {
                let chosen = words.numbers(1);
                for id in if chosen.is_empty() { ids } else { chosen } {
                    let line = self.show(id);
                    self.say(&line);
                }
                return;
            }
            "peers" => return self.peers(words.id()),
            other => panic!("no directive: {other}"),
        }
        self.hear();
        self.turn();
    }
}

fn at_u64(index: u64) -> base::LogIndex {
    at(usize::try_from(index).expect("small"))
}

/// The script with the answers that it gets now.
fn play(script: &str) -> String {
    let mut stage = Stage::new();
    let (mut text, mut answered) = (String::new(), false);
    for (i, line) in script.lines().enumerate() {
        let is_answer = answered && !line.is_empty() && !line.starts_with(['>', '#']);
        if is_answer {
            continue;
        }
        text.push_str(line);
        text.push('\n');
        answered = line.starts_with('>');
        assert!(answered || line.is_empty() || line.starts_with('#'), "line {}: {line}", i + 1);
        if let Some(directive) = line.strip_prefix('>') {
            stage.answer.clear();
            println!("{}: {line}", i + 1);
            stage.perform(directive.trim());
            stage.answer.lines().for_each(|said| println!("    {said}"));
            for said in stage.answer.lines() {
                let _ = writeln!(text, "    {said}");
            }
        }
    }
    text
}

#[test]
fn every_script_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let write = std::env::var("GOLDEN").is_ok_and(|value| value == "write");
    let files = std::fs::read_dir(&folder).expect("the scripts");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "scripts are missing in {}", folder.display());
    for path in paths {
        println!("{}", path.display());
        let script = std::fs::read_to_string(&path).expect("a script");
        let played = play(&script);
        if write {
            std::fs::write(&path, played).expect("writable");
            continue;
        }
        let lines = script.lines().zip(played.lines()).enumerate();
        for (i, (written, now)) in lines {
            assert_eq!(now, written, "{} line {}", path.display(), i + 1);
        }
        assert_eq!(script, played, "{} ends differently", path.display());
    }
}
