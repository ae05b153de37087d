//! Mutants: deliberate mistakes, each of which the simulator must find. They ask whether the tests
//! would notice (`cargo run --release -p sim -- mutants`).
//!
//! Only a build with `RUSTFLAGS="--cfg mutants"` has them, and there at most one is on, for the whole
//! process. In every other build [`Mutant::is_on`] is a constant `false`: nothing of them is left.
//!
//! A mutant stands where the rule that it breaks is kept, as one condition more.

#[cfg(mutants)]
use core::sync::atomic::{AtomicUsize, Ordering};

macro_rules! mutants {
    ($($(#[doc = $about:literal])+ $name:ident = $text:literal breaks $rule:literal,)*) => {
        /// The mistakes.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Mutant {
            $($(#[doc = $about])+ $name,)*
        }

        impl Mutant {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// What the command line calls it.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What it does wrong.
            pub const fn about(self) -> &'static str {
                match self {
                    $(Self::$name => concat!($($about),+).trim_ascii(),)*
                }
            }

            /// The rule that it breaks.
            pub const fn rule(self) -> &'static str {
                match self {
                    $(Self::$name => $rule,)*
                }
            }
        }
    };
}

mutants!(
    /// A write that takes space is applied although an alarm says that there is none.
    AlarmIgnored = "alarm-ignored" breaks "while a NOSPACE alarm is up nothing is put",
    /// A follower acknowledges entries before they are durable.
    AckBeforeSync = "ack-before-sync" breaks "acknowledged means durable",
    /// A leader counts its own copy before it is durable.
    OwnAckBeforeSync = "own-ack-before-sync" breaks "acknowledged means durable",
    /// A group counts as durable when it is written, before its sync.
    DurableWhenWritten = "durable-when-written" breaks "acknowledged means durable",
    /// A sync counts for groups that were written while it ran.
    SyncCoversLater = "sync-covers-later" breaks "a sync covers what was written before it began",
    /// A leader commits entries of earlier terms by counting copies.
    OldTermByCounting = "old-term-by-counting" breaks "only entries of the own term are committed by counting",
    /// A new leader grants reads before it has committed in its term.
    ReadBeforeOwnTerm = "read-before-own-term" breaks "no read before an entry of the own term is committed",
    /// A leader grants reads without hearing from a quorum.
    ReadUnconfirmed = "read-unconfirmed" breaks "a read is granted when a quorum confirms the leader",
    /// Every round of confirmation has the number of the first.
    ReadRoundReused = "read-round-reused" breaks "a round has a number of its own",
    /// A follower answers reads without asking the leader.
    FollowerReadUnasked = "follower-read-unasked" breaks "a follower asks the leader",
    /// A granted read does not wait until its index is applied.
    ReadBeforeApplied = "read-before-applied" breaks "a read waits for its index",
    /// A vote is sent before it is durable.
    VoteBeforeSync = "vote-before-sync" breaks "what is said is durable before",
    /// A start does not know for whom it has voted.
    VoteForgotten = "vote-forgotten" breaks "a vote survives a restart",
    /// A member votes for whoever asks, also a second time in a term.
    VoteTwice = "vote-twice" breaks "one vote in a term",
    /// A vote does not look at the candidate's log.
    VoteForAnyLog = "vote-for-any-log" breaks "a leader has all that is committed",
    /// A follower commits up to its own last entry.
    CommitUnverified = "commit-unverified" breaks "a follower commits what the message verified",
    /// A heartbeat names the commit index to a member that may hold other entries.
    HeartbeatUnclamped = "heartbeat-unclamped" breaks "a heartbeat names no more than the member holds",
    /// An append replaces entries that agree with it.
    TruncateMatching = "truncate-matching" breaks "only what differs is cut off",
    /// A new leader appends no entry of its own.
    NoEmptyEntry = "no-empty-entry" breaks "a term begins with an empty entry",
    /// A vote compares the lengths of the logs and not their last terms.
    VoteByIndex = "vote-by-index" breaks "a leader has all that is committed",
    /// A member that is asked for a pre-vote takes the term.
    PreVoteTakesTerm = "pre-vote-takes-term" breaks "a pre-vote changes no term",
    /// A refusal names a term that is not durable yet.
    RefusalBeforeSync = "refusal-before-sync" breaks "what is said is durable before",
    /// Learners count for every quorum.
    LearnerCounted = "learner-counted" breaks "learners do not decide",
    /// Voters on their way out count as voting for every candidate.
    JointElection = "joint-election" breaks "a joint membership decides in both sets",
    /// The copies of voters on their way out are not waited for.
    JointCommit = "joint-commit" breaks "a joint membership decides in both sets",
    /// A membership stays in effect when its entry is cut off.
    MembershipNotCut = "membership-not-cut" breaks "a membership is in effect while it is in the log",
    /// A membership is in effect when it is committed.
    MembershipAtCommit = "membership-at-commit" breaks "a membership is in effect while it is in the log",
    /// A member that was never started becomes a voter while the log is short.
    PromotesUnstarted = "promotes-unstarted" breaks "who becomes a voter has the log",
    /// A joint membership is never left.
    JointNotLeft = "joint-not-left" breaks "a joint membership is left when it is committed",
    /// Appends that were acknowledged still fill the window.
    WindowLeak = "window-leak" breaks "the window empties",
    /// Appends are sent however many are on their way.
    WindowUnbounded = "window-unbounded" breaks "the window is bounded",
    /// A probe that was lost is never repeated.
    ProbeStaysPaused = "probe-stays-paused" breaks "what is lost is sent again",
    /// A peer of which nothing is known is probed from the beginning.
    ProbeFromStart = "probe-from-start" breaks "a state is sent to who lacks it",
    /// A leader of an earlier term is told nothing.
    NoNewerAnswer = "no-newer-answer" breaks "a leader that is behind learns of it",
    /// Who is no voter in the lists that it knows refuses its vote.
    LearnerRefuses = "learner-refuses" breaks "a candidate may know a later membership",
    /// A forwarded write is answered with the outcome of another.
    ForwardedWrong = "forwarded-wrong" breaks "an answer is of its entry",
    /// A write is passed on to the leader two times.
    ForwardedTwice = "forwarded-twice" breaks "a write takes effect once",
    /// A leader proposes what was passed on to it in an earlier term.
    ForwardOfAnyTerm = "forward-of-any-term" breaks "a write that was told as refused has no effect",
    /// Writes of earlier terms are told as refused when another term begins.
    SettledUncommitted = "settled-uncommitted" breaks "a write that was told as refused has no effect",
    /// A write under way when the leader was lost is said to have had no effect.
    LostIsRefused = "lost-is-refused" breaks "an unknown outcome is told as unknown",
    /// Entries are applied before they are durable in the own log.
    ApplyBeforeDurable = "apply-before-durable" breaks "a checkpoint is never ahead of the log",
    /// Members that nobody asked apply nothing for one entry in 64.
    ApplyDiffers = "apply-differs" breaks "all members apply the same",
    /// A checkpoint names the entry before the last that it holds.
    AppliedTwice = "applied-twice" breaks "an entry is applied once",
    /// An entry that is refused does not advance the applied index.
    RefusedNotApplied = "refused-not-applied" breaks "every entry advances the applied index",
    /// A state is installed and the log before it goes on.
    InstallKeepsLog = "install-keeps-log" breaks "the log begins anew behind a state",
    /// The file of a state gets its name before the log behind it is durable.
    RenamedEarly = "renamed-early" breaks "a start finds the old state or the new one",
    /// Pages of a checkpoint that is being sent are used again.
    HeldReused = "held-reused" breaks "what is held is not reused",
    /// A state that ends before what is committed is taken.
    SnapshotBackwards = "snapshot-backwards" breaks "nothing committed is taken back",
    /// A change of members begins while another is not committed.
    ChangeWhilePending = "change-while-pending" breaks "one change at a time",
    /// A damaged group is taken for a torn tail although something says that it was durable.
    TornWitnessed = "torn-witnessed" breaks "what was durable is not dropped",
    /// A start does not look at what groups cut off.
    CutIgnored = "cut-ignored" breaks "what was cut off does not come back",
    /// A segment is given back although its last entry is still needed.
    RecycledTooFar = "recycled-too-far" breaks "the log is kept from the older checkpoint on",
    /// The log is kept from the newest checkpoint on.
    LogFromNewest = "log-from-newest" breaks "the log is kept from the older checkpoint on",
    /// Headers are not copied into the ring.
    NoRing = "no-ring" breaks "a damaged tail is told from a torn one",
    /// The watermark is never written.
    NoWatermark = "no-watermark" breaks "a damaged tail is told from a torn one",
    /// A meta record is written before the pages that it names are durable.
    MetaBeforePages = "meta-before-pages" breaks "pages are durable before their meta record",
    /// A checkpoint is published before its meta record is durable.
    MetaNotSynced = "meta-not-synced" breaks "a checkpoint is published when it is durable",
    /// A checkpoint is written before the file has space for it.
    WriteBeforeGrowth = "write-before-growth" breaks "the file grows before it is written",
    /// Pages are used again after one checkpoint, while the older one still reaches them.
    ReusedEarly = "reused-early" breaks "what a meta slot reaches is not reused",
    /// After a start the pages that waited are free at once.
    ReusedAtStart = "reused-at-start" breaks "what a meta slot reaches is not reused",
    /// Pages that a running checkpoint is to write are changed in place.
    FrozenChanged = "frozen-changed" breaks "a checkpoint is of one moment",
    /// The previous version is read at the revision of the change itself.
    PrevKvLate = "prev-kv-late" breaks "prev_kv is the version before the change",
    /// A transaction compares with the state before the last revision.
    CompareStale = "compare-stale" breaks "compares see one revision, the newest",
    /// A read at a revision sees the first change of the next one.
    ReadSeesNext = "read-sees-next" breaks "a read sees one revision",
    /// Deleting a key that is deleted counts as a change.
    TombstoneDeleted = "tombstone-deleted" breaks "what is not there cannot be deleted",
    /// A count at an older revision is that of the newest.
    CountAtHead = "count-at-head" breaks "a read sees one revision",
    /// A put of a key that is there gives it a new create revision.
    CreateNotKept = "create-not-kept" breaks "a key keeps its create revision",
    /// A read one below the compacted revision is answered.
    CompactedReadable = "compacted-readable" breaks "what is compacted is refused",
    /// Trimming takes the events of the revision behind the compacted one.
    TrimsBoundary = "trims-boundary" breaks "the compacted revision can be read",
    /// Trimming does not wait for lists that are under way.
    TrimsUnderReads = "trims-under-reads" breaks "a list that has begun is not refused as compacted",
    /// A refusal takes a peer back behind what it has acknowledged.
    HintBelowMatch = "hint-below-match" breaks "what was acknowledged is held",
    /// A watch whose connection takes no more is not told what changes meanwhile.
    WatchSkips = "watch-skips" breaks "a watch that is behind reads on from where it was",
    /// A watch goes on behind a state that has come in from another member.
    WatchJumps = "watch-jumps" breaks "what lies before an installed state is read",
    /// The progress of a watch that is behind is told.
    ProgressEarly = "progress-early" breaks "progress comes behind the changes that it speaks of",
    /// Progress tells one revision more than has been published.
    ProgressAhead = "progress-ahead" breaks "progress comes behind the changes that it speaks of",
    /// A watch from the compacted revision on is refused.
    WatchBoundaryRefused = "watch-boundary-refused" breaks "the compacted revision can be watched",
    /// A watch from one revision before the compacted one on is served.
    CompactedWatchable = "compacted-watchable" breaks "what is compacted is refused",
    /// A watch that compaction has overtaken goes on at the compacted revision.
    OvertakenSkips = "overtaken-skips" breaks "nothing is left out silently",
    /// A watch that has caught up leaves the next revision out.
    LiveTooLate = "live-too-late" breaks "a watch that has caught up goes on with the next revision",
    /// A watch that falls behind goes back to the revision before.
    BehindTooFar = "behind-too-far" breaks "a change is told once",
    /// A watch that falls behind goes on with what comes next.
    BehindNotRead = "behind-not-read" breaks "a watch that is behind reads on from where it was",
    /// A reply that ends in the middle of a revision does not say so.
    FragmentUnsaid = "fragment-unsaid" breaks "a revision that is told in parts says so",
    /// A watch begins with the first change of the revision that it names.
    ResumeSubIgnored = "resume-sub-ignored" breaks "a watch goes on behind the last change",
    /// What was before a change is what an earlier change of the same revision wrote.
    PrevOfSameRevision = "prev-of-same-revision" breaks "prev_kv is the version before the revision",
    /// History tells what was before the revision before.
    PrevOfEarlier = "prev-of-earlier" breaks "prev_kv is the version before the revision",
    /// What was before is told to who did not ask.
    PrevUnasked = "prev-unasked" breaks "a watch is told what it asked for",
    /// Puts are left out for who wants no deletes, and the other way round.
    FiltersSwapped = "filters-swapped" breaks "a watch is told what it asked for",
    /// A watch that waits for a revision is told what comes before it.
    FutureTold = "future-told" breaks "a watch tells nothing before its start",
    /// A reply from history says that everything has been told.
    PieceSaysNewest = "piece-says-newest" breaks "a reply says how far the watch is",
    /// What is read back is told as if nothing newer were there.
    NewestAsTold = "newest-as-told" breaks "what is read back comes with the newest revision",
    /// A reply says one revision more than it tells.
    RevisionAhead = "revision-ahead" breaks "a reply says how far the watch is",
    /// Deletes are not recorded.
    DeletesUnrecorded = "deletes-unrecorded" breaks "everything that changes is recorded",
    /// A recording that begins within an entry passes for whole.
    HalfEntryWhole = "half-entry-whole" breaks "a recording knows what it lacks",
    /// A recording that has left changes out passes for whole.
    CutPassesForWhole = "cut-passes-for-whole" breaks "a recording knows what it lacks",
    /// A change that lies in two ranges of a watch is told twice.
    SeveralTwice = "several-twice" breaks "a change is told once",
    /// A watch says that it begins each time it is read for.
    CreatedAgain = "created-again" breaks "a watch begins once",
    /// A watch that was cancelled stays.
    CancelledStays = "cancelled-stays" breaks "a refusal is the end of a watch",
    /// A watch that owes its progress while it is behind forgets it.
    ProgressForgotten = "progress-forgotten" breaks "progress that is asked for is told",
    /// A key that leaves its lease stays among the keys of the lease.
    DetachForgets = "detach-forgets" breaks "a lease has the keys that hang on it",
    /// A lease that a put made stays when its key has gone.
    PutLeaseStays = "put-lease-stays" breaks "a lease made by a put goes with its last key",
    /// A renewal is answered and changes nothing.
    RenewalLost = "renewal-lost" breaks "an answered renewal moves the deadline",
    /// A lease ends although it has been renewed since it was due.
    ExpiresRenewed = "expires-renewed" breaks "a lease ends when its time is up, not before",
    /// A lease ends and its keys stay.
    KeysLeftBehind = "keys-left-behind" breaks "keys go with their lease",
    /// The log time does not go on between two messages.
    LogTimeStands = "log-time-stands" breaks "a lease lives no longer than its time and a little more",
    /// The log time goes twice as fast as the clock.
    LogTimeRuns = "log-time-runs" breaks "a lease lives as long as its time",
    /// A new leader has leases end at once.
    NoGrace = "no-grace" breaks "clients have time to renew at a new leader",
    /// A new leader gives leases seconds more.
    LongGrace = "long-grace" breaks "leases end however often leaders change",
    /// A member that does not lead any more proposes the end of leases.
    DeposedExpires = "deposed-expires" breaks "only the leader ends leases",
    /// The leader is not told of a lease that is due before all others.
    HintNotMoved = "hint-not-moved" breaks "a lease lives no longer than its time and a little more",
    /// A request for renewals is told the time of another lease of its batch.
    KeepAliveMixed = "keep-alive-mixed" breaks "an answer is of its request",
    /// A put that keeps the lease of its key has none.
    IgnoreLeaseDrops = "ignore-lease-drops" breaks "ignore_lease keeps the lease",
    /// Keys of a lease are deleted as if a client had asked for it.
    CauseUntold = "cause-untold" breaks "a delete says why",
    /// A renewal gives half of the time.
    RenewalShort = "renewal-short" breaks "a lease lives as long as its time",
    /// Reads about leases do not ask the leader.
    LeaseReadLocal = "lease-read-local" breaks "a follower asks the leader",
    /// A lease that is revoked loses its keys and stays.
    RevokedStays = "revoked-stays" breaks "a lease that has ended is gone",
    /// What is younger than the period is compacted.
    RetentionYoung = "retention-young" breaks "history is kept for its period",
    /// One revision less is kept than was asked for.
    RetentionKeepsLess = "retention-keeps-less" breaks "as many revisions are kept as were asked for",
    /// A compaction is proposed again while it is under way.
    RetentionAgain = "retention-again" breaks "one compaction is under way at a time",
);

/// The mutant that is on, counted from 1; 0 for none.
#[cfg(mutants)]
static CHOSEN: AtomicUsize = AtomicUsize::new(0);

impl Mutant {
    /// Whether this mistake is made.
    #[cfg(not(mutants))]
    #[inline(always)]
    pub const fn is_on(self) -> bool {
        false
    }

    /// Whether this mistake is made.
    #[cfg(mutants)]
    #[inline]
    pub fn is_on(self) -> bool {
        CHOSEN.load(Ordering::Relaxed) == self as usize + 1
    }

    /// Makes this mistake from now on, and no other.
    #[cfg(mutants)]
    pub fn choose(self) {
        CHOSEN.store(self as usize + 1, Ordering::Relaxed);
    }
}
