//! The plan of a run: everything that the seed decides beforehand. Swarm testing: each run leaves most
//! kinds of faults out, and draws how often the others strike.

use base::{Duration, Prng};
use kv::HistoryLimits;
use node::{ForPeers, Retention};

/// Nanoseconds of a millisecond and of a second.
pub const MS: u64 = 1_000_000;
pub const SECOND: u64 = 1_000 * MS;

/// Bytes on their way beyond which a socket takes no more for now.
pub const SEND_BUFFER: usize = 192 << 10;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kinds of faults.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What people call it.
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

faults!(
    /// The process ends; what it wrote stays.
    Kill = "kill",
    /// The machine loses what was not synced.
    PowerCut = "power cut",
    /// The process ends, or the power is cut, exactly when a disk operation is handed to the disk or has
    /// completed, or in the middle of a start.
    CrashAtIo = "crash at an I/O",
    /// All machines at once.
    BlackOut = "black-out",
    /// A process that is killed again and again right after its start.
    RestartLoop = "restart loop",
    /// A process that is stopped in order.
    Stop = "orderly stop",
    /// A process that does not run for a while.
    Pause = "pause",
    /// A clock that leaps forward.
    ClockJump = "clock jump",
    /// Clocks that run too fast or too slow.
    ClockDrift = "clock drift",
    /// A socket that breaks and loses what was on its way.
    BreakLink = "broken link",
    /// Dials that fail.
    DialFailure = "failed dial",
    /// One direction between two machines.
    OneWay = "one-way partition",
    /// Two groups that do not hear each other.
    Split = "partition",
    /// One machine that hears nobody.
    Isolate = "isolation",
    /// The leader is cut off from the others, not from its clients, while the one before it comes back.
    Rolling = "rolling isolation",
    /// Two groups with one machine that hears both.
    Bridge = "bridge partition",
    /// A machine whose packets are late.
    Delay = "network delay",
    /// A disk that is slow for a while.
    SlowDisk = "slow disk",
    /// A disk that does nothing for a while.
    Stall = "disk stall",
    /// A write that fails.
    WriteError = "write error",
    /// A sync that fails.
    SyncError = "sync error",
    /// A read that fails.
    ReadError = "read error",
    /// No space for new files.
    NoSpace = "full disk",
    /// Stored bytes of one member that change.
    Rot = "damaged blocks",
    /// A write of one member that lands elsewhere in its file, or a read that comes from elsewhere.
    Misdirect = "misdirected block",
    /// A write of one member that is reported done, even durable, and never happened.
    Stale = "stale block",
    /// Frames between members that get lost, one by one.
    Loss = "message loss",
    /// Frames between members that come twice, the second time later.
    Double = "message duplication",
    /// Frames between members that are overtaken by later ones.
    Reorder = "message reordering",
    /// Members that come and go.
    Members = "member change",
    /// Leadership that is handed over.
    MoveLeader = "move leader",
    /// Clients that leave without a word.
    Hangup = "client hang-up",
    /// Clients that do not read for a while.
    SlowReader = "slow reader",
);

/// The files of a member that are damaged in a run. The fault model of one member: any number of blocks
/// of one kind of file; that is why segments, ring, watermark and pages are files of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Victim {
    Pages,
    Segments,
    Ring,
    Watermark,
}

/// Who watches.
#[derive(Clone, Debug)]
pub struct Watchers {
    /// Clients that do nothing else.
    pub clients: u64,
    /// Watches of each of them, and of each of the others, at one time.
    pub each: u64,
    pub beside: u64,
    /// Many keys at once are written and deleted.
    pub bulk: bool,
    /// Clients leave all the time, so that members begin and cease to publish.
    pub fickle: bool,
    /// What a member reads or records for watches at a time.
    pub history: HistoryLimits,
    /// Bytes on their way to a client beyond which its socket takes no more for now.
    pub send_buffer: usize,
}

impl Watchers {
    /// Nobody.
    const NONE: Self = Self {
        clients: 0,
        each: 0,
        beside: 0,
        bulk: false,
        fickle: false,
        history: HistoryLimits::SERVER,
        send_buffer: SEND_BUFFER,
    };

    /// Drawn apart, so that the rest of a plan is what it was before there were watches.
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed).fork("watches");
        let (clients, each, beside) = match prng.below(16) {
            0..5 => return Self::NONE,
            5 => return Self::fickle(&mut prng),
            6..9 => (prng.below(2), 1 + prng.below(4), 1 + prng.below(3)),
            9..15 => (1 + prng.below(3), 1 + prng.below(8), prng.below(3)),
            // More than a member reads for at once.
            _ => (1, 66 + prng.below(30), 0),
        };
        // Many watches or many changes, not both.
        let bulk = prng.one_in(6) && clients * each < 9;
        let mut few =
            |few: [usize; 2], server| if prng.one_in(3) { server } else { few[pick(&mut prng, 2)] };
        let server = HistoryLimits::SERVER;
        // With windows of a change, many changes take longer to tell than a run may take to end.
        let windows = if bulk { [[40, 300], [4_000, 20_000]] } else { [[1, 7], [200, 20_000]] };
        let history = HistoryLimits {
            window_changes: few(windows[0], server.window_changes),
            window_size: few(windows[1], server.window_size),
            recorded_changes: few([1, 12], server.recorded_changes),
            recorded_size: few([300, 30_000], server.recorded_size),
        };
        let send_buffer = few([500, 20_000], SEND_BUFFER);
        Self { clients, each, beside, bulk, fickle: false, history, send_buffer }
    }

    /// Few watches, which meet members in the middle of large entries.
    fn fickle(prng: &mut Prng) -> Self {
        let clients = 1 + prng.below(2);
        Self { clients, each: 1, bulk: true, fickle: true, ..Self::NONE }
    }

    /// Whether there are any.
    pub fn watch(&self) -> bool {
        self.clients + self.beside > 0
    }
}

/// What is done with leases.
#[derive(Clone, Debug)]
pub struct LeasePlan {
    pub are_used: bool,
    /// Nobody keeps one alive.
    pub abandoned: bool,
    /// Between these are the times of most.
    pub ttl_ms: (u64, u64),
    /// So often the leader hands over, half of the time that most leases have at most; 0: never by the clock.
    pub hands_over_ms: u64,
}

impl LeasePlan {
    fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed).fork("leases");
        let (are_used, abandoned) = (prng.one_in(2), prng.one_in(6));
        let ttl_ms = [(100, 400), (200, 1_500), (1_000, 4_000)][pick(&mut prng, 3)];
        Self {
            are_used,
            abandoned,
            ttl_ms,
            hands_over_ms: if are_used && prng.one_in(6) { ttl_ms.1 / 2 } else { 0 },
        }
    }
}

/// What history members keep by themselves: in most plans all of it.
fn retention(seed: u64) -> Retention {
    let mut prng = Prng::new(seed).fork("retention");
    match prng.below(12) {
        0 => Retention::Period(Duration::from_nanos(300 * MS + prng.below(2 * SECOND))),
        1 => Retention::Revisions([1, 5, 20, 100][pick(&mut prng, 4)]),
        _ => Retention::Everything,
    }
}

/// In every third plan lists come a few keys at a time, so that much happens before they are whole.
fn read_slice(seed: u64) -> u32 {
    let mut prng = Prng::new(seed).fork("read slice");
    if prng.one_in(3) { [1, 2, 5, 20][pick(&mut prng, 4)] } else { 512 }
}

/// The plan of a run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub members: u64,
    /// Simulated time in which faults strike.
    pub duration: u64,
    /// How long clients go on when all is well again.
    pub aftermath: u64,
    /// Mean time between two faults of a kind, for the kinds that strike.
    pub faults: Vec<(Fault, u64)>,
    /// The fault atlas: all damage of a run is of one member and of one kind of its files, so that a
    /// whole copy of everything remains elsewhere.
    pub victim: usize,
    pub victim_file: Victim,
    pub dsync: bool,
    pub flushes_all: bool,
    pub segment_size: u64,
    pub block_size: usize,
    pub ring_slots: u32,
    pub cache_size: u64,
    /// Keys that a read looks at in one turn.
    pub read_slice: u32,
    pub checkpoint_interval: u64,
    pub checkpoint_log: u64,
    pub for_peers: ForPeers,
    pub transfer_rate: u64,
    pub proposed_max: usize,
    pub clients: u64,
    pub depth: u64,
    pub think: u64,
    pub timeout: u64,
    pub keys: u64,
    pub value_max: u64,
    pub writes: u64,
    pub compacts: bool,
    pub latency: u64,
    pub turn: u64,
    /// Whether clients register, and how many are remembered at once.
    pub sessions: bool,
    pub clients_max: u32,
    pub watchers: Watchers,
    pub leases: LeasePlan,
    pub retention: Retention,
    /// Clients raise alarms, and disarm them.
    pub alarms: bool,
    /// Break the model on purpose.
    pub canary: bool,
    /// What harms nobody by itself is a finding too.
    pub strict: bool,
}

/// How a run may differ from what its seed says: for making a finding smaller.
#[derive(Clone, Debug, Default)]
pub struct Adjust {
    /// Kinds of faults to leave out, by name.
    pub without: Vec<String>,
    /// Number of clients.
    pub clients: Option<u64>,
    /// Number of clients that only watch.
    pub watchers: Option<u64>,
    /// Milliseconds of faults.
    pub millis: Option<u64>,
    /// Number of members.
    pub members: Option<u64>,
    /// Break the model on purpose.
    pub canary: bool,
    /// Go on after what harms nobody by itself.
    pub lenient: bool,
}

impl Adjust {
    /// Whether a run is what its seed says.
    pub fn is_plain(&self) -> bool {
        self.without.is_empty()
            && self.clients.is_none()
            && self.watchers.is_none()
            && self.millis.is_none()
            && self.members.is_none()
            && !self.canary
    }
}

impl Plan {
    /// The plan of a seed.
    pub fn new(seed: u64, adjust: &Adjust) -> Self {
        let mut prng = Prng::new(seed).fork("plan");
        let members = [1, 2, 3, 3, 3, 3, 4, 5][pick(&mut prng, 8)];
        // Most findings take few events: many short, crowded runs find more in the same time than
        // few long ones. What takes long to build up is left to one run in eight.
        let is_long = prng.one_in(8);
        let pace = if is_long { 1 } else { 4 };
        let mut faults = Vec::new();
        let chance = 1 + prng.below(4);
        for &fault in Fault::ALL {
            let strikes = prng.below(6) < chance;
            let mean = match fault {
                Fault::WriteError | Fault::SyncError | Fault::BlackOut => {
                    2 * SECOND + prng.below(6 * SECOND)
                }
                Fault::Rot | Fault::Misdirect | Fault::Stale => SECOND + prng.below(6 * SECOND),
                Fault::Loss | Fault::Double | Fault::Reorder => 100 * MS + prng.below(2 * SECOND),
                Fault::BreakLink | Fault::Hangup | Fault::Delay | Fault::SlowReader => {
                    100 * MS + prng.below(2 * SECOND)
                }
                Fault::Rolling => 600 * MS + prng.below(2 * SECOND),
                _ => 500 * MS + prng.below(5 * SECOND),
            };
            if strikes {
                faults.push((fault, mean / pace));
            }
        }
        if faults.iter().any(|(fault, _)| damages(*fault)) {
            // A damaged member may be lost for good: the others must stay a majority.
            let keep = prng.one_in(2) && members > 2;
            faults.retain(
                |(fault, _)| {
                    if keep { *fault != Fault::Members } else { !damages(*fault) }
                },
            );
        }
        if members <= 2 {
            // Nothing to repair a lone member from, and two are a majority only together.
            faults.retain(|(fault, _)| *fault != Fault::ReadError);
        }
        // Drawn apart, so that the rest of a plan is what it was before there were sessions.
        let mut sessions = Prng::new(seed).fork("sessions");
        let kib = |prng: &mut Prng, from: u64, times: u64| (from << prng.below(times)) << 10;
        let plan = Self {
            seed,
            members,
            duration: (SECOND + prng.below(4 * SECOND)) * if is_long { 4 } else { 1 },
            aftermath: 2 * SECOND / pace,
            faults,
            victim: pick(&mut prng, members),
            victim_file: [
                Victim::Pages,
                Victim::Pages,
                Victim::Segments,
                Victim::Segments,
                Victim::Ring,
                Victim::Watermark,
            ][pick(&mut prng, 6)],
            dsync: prng.one_in(2),
            flushes_all: prng.one_in(2),
            segment_size: kib(&mut prng, 128, 3),
            block_size: usize::try_from(kib(&mut prng, 16, 3)).expect("small"),
            ring_slots: [16, 64, 256][pick(&mut prng, 3)],
            cache_size: kib(&mut prng, 256, 5),
            read_slice: read_slice(seed),
            checkpoint_interval: if prng.one_in(3) {
                3_600 * SECOND
            } else {
                100 * MS + prng.below(2 * SECOND)
            },
            checkpoint_log: if prng.one_in(3) { kib(&mut prng, 32, 4) } else { 1 << 30 },
            // Little, so that members that were away are served from segments, or sent the state.
            for_peers: if prng.one_in(2) {
                ForPeers::SERVER
            } else {
                ForPeers {
                    tail_size: usize::try_from(kib(&mut prng, 4, 7)).expect("small"),
                    log_entries: 1 + prng.below(300),
                    log_size: kib(&mut prng, 128, 4),
                }
            },
            proposed_max: 1 << (20 + prng.below(3)),
            clients: 1 + prng.below(6),
            depth: 1 + prng.below(8),
            think: MS * (2 + prng.below(120)),
            timeout: MS * (200 + prng.below(3_000)),
            keys: 2 + prng.below(40),
            value_max: [100, 1_000, 12_000, 40_000][pick(&mut prng, 4)],
            writes: 20 + prng.below(70),
            compacts: prng.one_in(2),
            latency: 30_000 + prng.below(2 * MS),
            turn: 1_000 + prng.below(60_000),
            sessions: sessions.one_in(2),
            clients_max: [2, 3, 4, 100, 100][pick(&mut sessions, 5)],
            watchers: Watchers::new(seed),
            leases: LeasePlan::new(seed),
            retention: retention(seed),
            alarms: Prng::new(seed).fork("alarms").one_in(4),
            // Slow enough that a link breaks while a state is on its way.
            transfer_rate: if sessions.one_in(2) {
                node::TRANSFER_RATE
            } else {
                kib(&mut sessions, 256, 4)
            },
            canary: adjust.canary,
            strict: !adjust.lenient,
        };
        plan.with_short_log().with_fickle().adjusted(adjust)
    }

    /// In one plan of six the log is soon cut, by large values, many checkpoints and a server that keeps
    /// next to nothing for peers: who is away for a moment is sent the state.
    fn with_short_log(mut self) -> Self {
        let mut prng = Prng::new(self.seed).fork("short log");
        if !prng.one_in(6) {
            return self;
        }
        self.segment_size = 128 << 10;
        self.block_size = 16 << 10;
        self.checkpoint_interval = 100 * MS;
        self.checkpoint_log = 32 << 10;
        self.for_peers = ForPeers {
            tail_size: 1 << prng.below(16),
            log_entries: 1 + prng.below(10),
            log_size: 1,
        };
        self.transfer_rate = 512 << (10 + prng.below(5));
        self.value_max = 12_000;
        self.think = MS * (10 + prng.below(50));
        self.writes = 90;
        self
    }

    /// With little memory a large entry waits in its middle for a checkpoint. Little is written: reading
    /// much history back takes long then.
    fn with_fickle(mut self) -> Self {
        if self.watchers.fickle {
            self.cache_size = 256 << 10;
            self.duration = self.duration.min(3 * SECOND);
            self.think = self.think.clamp(20 * MS, 40 * MS);
            self.depth = 1;
        }
        self
    }

    fn adjusted(mut self, adjust: &Adjust) -> Self {
        self.faults.retain(|(fault, _)| !adjust.without.iter().any(|name| name == fault.text()));
        self.clients = adjust.clients.unwrap_or(self.clients);
        self.watchers.clients = adjust.watchers.unwrap_or(self.watchers.clients);
        self.members = adjust.members.unwrap_or(self.members);
        self.duration = adjust.millis.map_or(self.duration, |millis| millis * MS);
        self
    }

    /// Whether faults of this kind strike.
    pub fn has(&self, fault: Fault) -> bool {
        self.faults.iter().any(|(known, _)| *known == fault)
    }

    /// Whether stored bytes are damaged.
    pub fn damages(&self) -> bool {
        self.faults.iter().any(|(fault, _)| damages(*fault))
    }
}

/// Whether a member may be lost with it for good.
pub fn harms_for_good(fault: Fault) -> bool {
    damages(fault) || fault == Fault::ReadError
}

/// Whether a kind of fault changes what is stored.
fn damages(fault: Fault) -> bool {
    matches!(fault, Fault::Rot | Fault::Misdirect | Fault::Stale)
}

fn pick(prng: &mut Prng, count: u64) -> usize {
    usize::try_from(prng.below(count)).expect("few to choose from")
}
