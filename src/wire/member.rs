//! The members of the cluster as bytes: the payload of the log's membership entries, what a
//! snapshot carries of them, and the answer to those who ask.
//!
//! ```text
//!  format 1 | count | next member 8 |
//!  per member: id 8 | data id 16 | role 1 | sizes of name, peer address, client address 3 x 1 | texts
//! ```
//!
//! All numbers are little endian. Members stand in ascending order of their ids, and nothing may be
//! written in two ways: the same list is the same bytes on every member, which the hashes of log and
//! state rely on.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{Display, Formatter};

use base::{FileId, NodeId};

/// Bytes of the greatest encoded list.
pub const MEMBER_LIST_SIZE_MAX: usize = 3_072;

/// Members of one list: as many voters and learners as a cluster may have.
pub const MEMBERS_MAX: usize = 14;

/// Bytes of the longest name. Names of pods and services have up to 63, and tools join several.
pub const MEMBER_NAME_SIZE_MAX: usize = 128;

/// Bytes of the longest address: a name of DNS may have 253, and several may stand together. Not all members can have
/// the longest of everything: [`MEMBER_LIST_SIZE_MAX`] bounds them together.
pub const MEMBER_ADDRESS_SIZE_MAX: usize = 255;

const FORMAT: u8 = 1;

/// Bytes before the members.
const HEAD_SIZE: usize = 10;

/// Bytes of a member without its texts.
const FIXED_SIZE: usize = 28;

const _: () = assert!(
    HEAD_SIZE + MEMBERS_MAX * (FIXED_SIZE + 48 + 2 * 64) <= MEMBER_LIST_SIZE_MAX,
    "a list of ordinary names and addresses fits, whatever its length"
);

/// What a member does. A list with a member of one of the last three roles is joint: two sets of
/// voters decide together, those that come and those that go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum MemberRole {
    /// It votes; in a joint list only among those that come.
    #[default]
    Voter,
    /// It gets the log and does not vote.
    Learner,
    /// A learner that becomes a voter when it has caught up.
    Promotable,
    /// It votes only among those that go, and then leaves.
    Outgoing,
    /// It votes among those that come and among those that go.
    Both,
    /// It votes only among those that go, and then listens.
    OutgoingToLearner,
}

impl MemberRole {
    /// The number in the encoding.
    pub const fn number(self) -> u8 {
        match self {
            Self::Voter => 0,
            Self::Learner => 1,
            Self::Promotable => 2,
            Self::Outgoing => 3,
            Self::Both => 4,
            Self::OutgoingToLearner => 5,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Voter,
            1 => Self::Learner,
            2 => Self::Promotable,
            3 => Self::Outgoing,
            4 => Self::Both,
            5 => Self::OutgoingToLearner,
            _ => return None,
        })
    }

    /// It is one of the voters, in a joint list of those that come.
    pub const fn votes(self) -> bool {
        matches!(self, Self::Voter | Self::Both)
    }

    /// It is one of the voters that go.
    pub const fn votes_outgoing(self) -> bool {
        matches!(self, Self::Outgoing | Self::Both | Self::OutgoingToLearner)
    }

    /// It listens and has no vote at all.
    pub const fn is_learner(self) -> bool {
        matches!(self, Self::Learner | Self::Promotable)
    }
}

/// One member.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Member {
    /// Its id, never 0 and never used again.
    pub id: NodeId,
    /// What people call it; see [`is_member_name`].
    pub name: String,
    /// Where members reach it; see [`is_member_address`].
    pub peer_address: String,
    /// Where clients reach it; empty: not known yet. Several addresses stand between `;`, and a path of the
    /// file system is written as a URL.
    pub client_address: String,
    /// The random name of its data directory; 0: not known yet.
    pub data_id: FileId,
    /// What it does.
    pub role: MemberRole,
}

/// The members of the cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct MemberList {
    /// The id that the next new member gets: greater than all that were ever given. An id below it
    /// that is not in the list is that of a member that was removed.
    pub next_member: u64,
    /// In ascending order of their ids.
    pub members: Vec<Member>,
}

/// What is wrong with a list of members.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberListError {
    /// The bytes end early, or go on behind the end.
    Size {
        /// How many there are.
        size: usize,
    },
    /// The bytes are of a format that this release does not know.
    UnknownFormat {
        /// Its number.
        found: u8,
    },
    /// A member has a role that this release does not know.
    UnknownRole {
        /// The member.
        member: NodeId,
        /// The number of the role.
        found: u8,
    },
    /// The names and addresses are too long together.
    TooLarge {
        /// Bytes of the list.
        size: usize,
    },
    /// There are more members than a cluster may have.
    TooMany {
        /// How many.
        count: usize,
    },
    /// Nobody would vote.
    NoVoter,
    /// A member's id is 0, does not follow that of the member before it, or has never been given.
    Order {
        /// The member.
        member: NodeId,
    },
    /// A name is empty, too long, or has characters that a name must not have.
    Name {
        /// The member.
        member: NodeId,
    },
    /// An address is too long, or has characters that an address must not have.
    Address {
        /// The member.
        member: NodeId,
    },
}

impl Display for MemberListError {
    fn fmt(&self, f: &mut Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Size { size } => {
                write!(f, "a list of members of {size} bytes does not end where it should")
            }
            Self::UnknownFormat { found } => write!(
                f,
                "a list of members has format {found}, this release knows {FORMAT}; \
                 upgrade this member"
            ),
            Self::UnknownRole { member, found } => write!(
                f,
                "member {} has role {found}, which this release does not know; \
                 upgrade this member",
                member.get()
            ),
            Self::TooLarge { size } => write!(
                f,
                "names and addresses of the members take {size} bytes, and together may have \
                 {MEMBER_LIST_SIZE_MAX}; use shorter ones"
            ),
            Self::TooMany { count } => {
                write!(f, "{count} members, a cluster has at most {MEMBERS_MAX}")
            }
            Self::NoVoter => f.write_str("a cluster needs at least one member that votes"),
            Self::Order { member } => write!(
                f,
                "member {} is listed out of order, twice, or with an id that was never given",
                member.get()
            ),
            Self::Name { member } => write!(
                f,
                "the name of member {} must have 1 to {MEMBER_NAME_SIZE_MAX} visible ASCII \
                 characters without '=' and ','",
                member.get()
            ),
            Self::Address { member } => write!(
                f,
                "an address of member {} must have at most {MEMBER_ADDRESS_SIZE_MAX} visible ASCII \
                 characters without '=' and ','",
                member.get()
            ),
        }
    }
}

impl core::error::Error for MemberListError {}

/// Visible characters of ASCII, so that no two texts look alike and no release sees them otherwise;
/// without those that separate names and addresses on the command line.
fn is_text(text: &str, size_max: usize) -> bool {
    (1..=size_max).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=' && byte != b',')
}

/// True for what may be the name of a member: 1 to [`MEMBER_NAME_SIZE_MAX`] visible ASCII characters
/// without `=` and `,`.
pub fn is_member_name(text: &str) -> bool {
    is_text(text, MEMBER_NAME_SIZE_MAX)
}

/// True for what may be an address of a member: 1 to [`MEMBER_ADDRESS_SIZE_MAX`] visible ASCII
/// characters without `=` and `,`. Whether anything is found there is another question.
pub fn is_member_address(text: &str) -> bool {
    is_text(text, MEMBER_ADDRESS_SIZE_MAX)
}

impl Member {
    /// What a member is called that was added without a name, until it says its own: by its address.
    pub fn placeholder(peer_address: &str) -> &str {
        let end = peer_address.len().min(MEMBER_NAME_SIZE_MAX);
        peer_address.get(..end).unwrap_or_default()
    }

    /// Whether it was added without a name and has not said its own.
    pub fn is_nameless(&self) -> bool {
        !self.name.is_empty() && self.name == Self::placeholder(&self.peer_address)
    }

    /// The first address where clients of the native protocol find it; empty: none.
    pub fn dialable(&self) -> &str {
        let mut all = self.client_address.split(';');
        all.find(|address| !address.contains("://")).unwrap_or_default()
    }
}

impl MemberList {
    /// The member with this id.
    pub fn get(&self, id: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The first member with this name.
    pub fn by_name(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    /// True if this id was given to a member that is no longer one.
    pub fn is_removed(&self, id: NodeId) -> bool {
        (1..self.next_member).contains(&id.get()) && self.get(id).is_none()
    }

    /// True while two sets of voters decide together.
    pub fn is_joint(&self) -> bool {
        self.members.iter().any(|member| member.role.votes_outgoing())
    }

    /// Bytes of the encoded list.
    pub fn size(&self) -> usize {
        let texts = |member: &Member| {
            member.name.len() + member.peer_address.len() + member.client_address.len()
        };
        HEAD_SIZE + self.members.iter().map(|member| FIXED_SIZE + texts(member)).sum::<usize>()
    }

    /// Whether a member of this name and peer address can come in, with a client address as long.
    ///
    /// # Errors
    /// [`MemberListError::TooLarge`]
    pub fn check_room(&self, name: &str, peer_address: &str) -> Result<(), MemberListError> {
        let size = self.size() + FIXED_SIZE + name.len() + 2 * peer_address.len();
        if size > MEMBER_LIST_SIZE_MAX { Err(MemberListError::TooLarge { size }) } else { Ok(()) }
    }

    /// Checks everything that the encoding demands.
    pub fn validate(&self) -> Result<(), MemberListError> {
        let count = self.members.len();
        if count > MEMBERS_MAX {
            return Err(MemberListError::TooMany { count });
        }
        let mut before = 0;
        for member in &self.members {
            let id = member.id;
            if id.get() <= before || id.get() >= self.next_member {
                return Err(MemberListError::Order { member: id });
            }
            before = id.get();
            if !is_member_name(&member.name) {
                return Err(MemberListError::Name { member: id });
            }
            // A member that is alone may listen for nobody; clients are told later where to go.
            let is_fine = |address: &str| address.is_empty() || is_member_address(address);
            if !is_fine(&member.peer_address) || !is_fine(&member.client_address) {
                return Err(MemberListError::Address { member: id });
            }
        }
        let size = self.size();
        if size > MEMBER_LIST_SIZE_MAX {
            return Err(MemberListError::TooLarge { size });
        }
        if self.members.iter().any(|member| member.role.votes()) {
            Ok(())
        } else {
            Err(MemberListError::NoVoter)
        }
    }

    /// The bytes of the list, at most [`MEMBER_LIST_SIZE_MAX`]. Errors: what of it is not valid.
    pub fn encode(&self) -> Result<Vec<u8>, MemberListError> {
        self.validate()?;
        let small =
            |size: usize| u8::try_from(size).expect("counts and sizes were found to be small");
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&[FORMAT, small(self.members.len())]);
        bytes.extend_from_slice(&self.next_member.to_le_bytes());
        for member in &self.members {
            let texts = [&member.name, &member.peer_address, &member.client_address];
            bytes.extend_from_slice(&member.id.get().to_le_bytes());
            bytes.extend_from_slice(&member.data_id.get().to_le_bytes());
            bytes.push(member.role.number());
            bytes.extend(texts.map(|text| small(text.len())));
            texts.iter().for_each(|text| bytes.extend_from_slice(text.as_bytes()));
        }
        Ok(bytes)
    }

    /// The list that has these bytes: encoding it gives them again. Errors: what is wrong with them;
    /// never a panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, MemberListError> {
        let size = MemberListError::Size { size: bytes.len() };
        let mut rest = bytes;
        let [found, count] = take(&mut rest).ok_or(size)?;
        if found != FORMAT {
            return Err(MemberListError::UnknownFormat { found });
        }
        let next_member = u64::from_le_bytes(take(&mut rest).ok_or(size)?);
        let count = usize::from(count);
        if count > MEMBERS_MAX {
            return Err(MemberListError::TooMany { count });
        }
        let mut members = Vec::with_capacity(count);
        for _ in 0..count {
            let id = NodeId::new(u64::from_le_bytes(take(&mut rest).ok_or(size)?));
            let data_id = FileId::new(u128::from_le_bytes(take(&mut rest).ok_or(size)?));
            let [role, sizes @ ..] = take::<4>(&mut rest).ok_or(size)?;
            let role = MemberRole::from_number(role)
                .ok_or(MemberListError::UnknownRole { member: id, found: role })?;
            let (name, address) =
                (MemberListError::Name { member: id }, MemberListError::Address { member: id });
            let mut texts = [(); 3].map(|()| String::new());
            for ((text, size_of), error) in
                texts.iter_mut().zip(sizes).zip([name, address, address])
            {
                let (taken, left) = rest.split_at_checked(usize::from(size_of)).ok_or(size)?;
                rest = left;
                *text = core::str::from_utf8(taken).map_err(|_| error)?.into();
            }
            let [name, peer_address, client_address] = texts;
            members.push(Member { id, name, peer_address, client_address, data_id, role });
        }
        if !rest.is_empty() {
            return Err(size);
        }
        let list = Self { next_member, members };
        list.validate()?;
        Ok(list)
    }
}

/// Takes the first `N` bytes off.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}
