//! The checkpoints of the page file: each seen alone, or the one that a start would take.
//!
//! Looking at one slot alone tells what a start hides: it falls back to the other slot without a word
//! when the newer checkpoint is damaged.

use kv::State;
use tree::{Check, CheckStep, Counts, Open, OpenError, OpenStep};

use crate::directory::Directory;
use crate::{Error, Fault};

/// What a meta slot holds.
pub(crate) enum Slot<T> {
    /// Zeros: no checkpoint has been written there.
    Blank,
    /// Something that is no meta record: torn by a crash, or damaged.
    Broken,
    /// A checkpoint of a state that was on its way in from another member.
    Partial,
    /// A checkpoint.
    Whole(T),
}

impl<T> Slot<T> {
    /// What a checkpoint gave, or why there is none.
    fn new(slot: Option<usize>, result: Result<T, OpenError>) -> Result<Self, Fault> {
        match result {
            Ok(whole) => Ok(Self::Whole(whole)),
            Err(OpenError::NoMeta { blank: true }) => Ok(Self::Blank),
            Err(OpenError::NoMeta { blank: false }) => Ok(Self::Broken),
            Err(
                error @ (OpenError::Version { .. }
                | OpenError::Foreign { .. }
                | OpenError::Damaged(_)),
            ) => Err(Fault::Pages { slot, error }),
        }
    }

    /// The checkpoint, if there is one.
    pub fn whole(&self) -> Option<&T> {
        match self {
            Self::Whole(whole) => Some(whole),
            Self::Blank | Self::Broken | Self::Partial => None,
        }
    }
}

/// Opens the checkpoint of one slot, or the one that a start would take: branches are verified.
pub(crate) fn open(directory: &mut Directory, only: Option<usize>) -> Result<Slot<State>, Error> {
    directory.show_only(only);
    let mut open = Open::new(&directory.page_options(), directory.pages_size());
    while let OpenStep::Read { offset, size } = open.next() {
        open.feed(directory.read_pages(offset, size)?);
    }
    directory.show_only(None);
    Ok(match Slot::new(only, open.finish())? {
        Slot::Whole((pages, application)) => match State::open(pages, &application) {
            Ok(state) => Slot::Whole(state),
            Err(kv::OpenError::Incomplete) if only.is_some() => Slot::Partial,
            Err(error) => return Err(Fault::Meta { slot: only, error }.into()),
        },
        Slot::Blank => Slot::Blank,
        Slot::Broken => Slot::Broken,
        Slot::Partial => Slot::Partial,
    })
}

/// Verifies everything that the checkpoint of one slot reaches, or that of the one that a start would take.
pub(crate) fn verify(
    directory: &mut Directory,
    only: Option<usize>,
) -> Result<Slot<Counts>, Error> {
    directory.show_only(only);
    let mut check = Check::new(&directory.page_options(), directory.pages_size());
    while let CheckStep::Read { offset, size } = check.next() {
        check.feed(directory.read_pages(offset, size)?);
    }
    directory.show_only(None);
    Ok(Slot::new(only, check.finish())?)
}
