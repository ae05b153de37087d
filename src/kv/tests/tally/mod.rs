//! How often what was tested.

/// How often each kind of thing happened.
#[derive(Default, Debug)]
pub struct Tally {
    pub entries: u64,
    pub reads: u64,
    pub open_reads: u64,
    pub restarted: u64,
    pub overtaken: u64,
    /// Reads that came to their end behind a compaction that had overtaken them.
    pub waited_for: u64,
    pub answers: u64,
    pub read_txns: u64,
    pub refused: u64,
    pub validations_refused: u64,
    pub half_applied_reads: u64,
    pub trims_verified: u64,
    /// Compactions to the very revision of a delete, and events found shed.
    pub compacted_at_deletes: u64,
    pub shed: u64,
    /// Writes that were known, and stamps that were refused.
    pub repeated: u64,
    pub expired: u64,
    pub too_far: u64,
    pub checkpoints: u64,
    pub crashes: u64,
    pub replayed: u64,
    pub fetched: u64,
}

impl Tally {
    pub fn add(&mut self, other: &Self) {
        self.entries += other.entries;
        self.reads += other.reads;
        self.open_reads += other.open_reads;
        self.restarted += other.restarted;
        self.overtaken += other.overtaken;
        self.waited_for += other.waited_for;
        self.answers += other.answers;
        self.read_txns += other.read_txns;
        self.refused += other.refused;
        self.validations_refused += other.validations_refused;
        self.half_applied_reads += other.half_applied_reads;
        self.trims_verified += other.trims_verified;
        self.compacted_at_deletes += other.compacted_at_deletes;
        self.shed += other.shed;
        self.repeated += other.repeated;
        self.expired += other.expired;
        self.too_far += other.too_far;
        self.checkpoints += other.checkpoints;
        self.crashes += other.crashes;
        self.replayed += other.replayed;
        self.fetched += other.fetched;
    }
}
