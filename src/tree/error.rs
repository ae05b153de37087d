//! What can be wrong with bytes that come from the file.

use base::{FileId, NodeId, PageNo};

/// A page, run or slot that does not verify, named so that a person can find it in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The page; 0 to 31 lie in the part of the meta slots.
    pub page: PageNo,
    /// Its offset in the file, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub kind: DamageKind,
}

/// What is wrong with a page, a run or a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DamageKind {
    /// The CRC-32 that the referrer holds is not that of the bytes: damaged, stale or misplaced.
    Crc {
        /// What the referrer holds.
        expected: u32,
        /// That of the bytes.
        found: u32,
    },
    /// The header names another page, file or birth than it must.
    Misplaced,
    /// The header names another kind or level than it must.
    Kind,
    /// The bytes verify but their structure is impossible.
    Structure,
    /// Keys out of order or outside of what the parent says.
    Order,
    /// The parent's count or greatest number is not that of the cells below.
    Summary,
    /// A page number outside of the file, or in the part of the meta slots.
    Reference,
    /// Two owners claim the page, or the free list claims a page in use.
    DoubleUse,
    /// Neither in use nor free nor waiting to become free.
    Leak,
    /// Fewer bytes than asked for.
    Short,
}

impl Damage {
    pub(crate) fn new(page: PageNo, kind: DamageKind) -> Self {
        let offset = u64::from(page.get()) * base::limits::PAGE_SIZE as u64;
        Self { page, offset, kind }
    }
}

impl core::fmt::Display for Damage {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "page {} at byte {} of the page file: ", self.page, self.offset)?;
        match self.kind {
            DamageKind::Crc { expected, found } => write!(
                f,
                "checksum {found:#010x}, its owner holds {expected:#010x}; restore this member \
                 from its peers or from a snapshot"
            ),
            DamageKind::Misplaced => {
                f.write_str("its header belongs to another page, file or time")
            }
            DamageKind::Kind => f.write_str("its header states another kind or level"),
            DamageKind::Structure => f.write_str("it verifies, but its structure is impossible"),
            DamageKind::Order => f.write_str("keys out of order"),
            DamageKind::Summary => f.write_str("its parent's count is not that of its cells"),
            DamageKind::Reference => f.write_str("it is referred to but lies outside of the file"),
            DamageKind::DoubleUse => f.write_str("it has two owners"),
            DamageKind::Leak => f.write_str("it has no owner and is not free"),
            DamageKind::Short => f.write_str("the file ends before it does"),
        }
    }
}

impl core::error::Error for Damage {}

/// Why a page file cannot be opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// No slot holds a meta record: no checkpoint has ever been published, or both are damaged.
    NoMeta {
        /// Whether both slots are all zero, as in a file that is new.
        blank: bool,
    },
    /// Meta records of a format that this version does not know.
    Version {
        /// The version of the record.
        found: u16,
    },
    /// The file belongs to another file id, cluster or member.
    Foreign {
        /// File id of the record.
        file: FileId,
        /// Cluster of the record.
        cluster: u64,
        /// Member of the record.
        member: NodeId,
    },
    /// Meta records exist, but what each of them refers to is damaged: the first fault of the
    /// newest.
    Damaged(Damage),
}

impl core::fmt::Display for OpenError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoMeta { blank: true } => {
                f.write_str("both meta slots of the page file are blank: it never had a checkpoint")
            }
            Self::NoMeta { blank: false } => f.write_str(
                "neither meta slot of the page file verifies; put a new member in this one's place \
                 (`quorate member replace`), or a copy of its data directory",
            ),
            Self::Version { found } => {
                write!(f, "the page file has format {found}, this version reads format 1")
            }
            Self::Foreign { file, cluster, member } => write!(
                f,
                "the page file belongs to file id {:032x}, cluster {cluster:016x}, member \
                 {:016x}; check the data directory",
                file.get(),
                member.get()
            ),
            Self::Damaged(damage) => write!(f, "no checkpoint is whole: {damage}"),
        }
    }
}

impl core::error::Error for OpenError {}
