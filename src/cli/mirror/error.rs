//! Why a mirror ends.

use std::fmt;

use super::message::Refusal;
use crate::cli::failure::ExitStatus;

/// Why a mirror ends.
#[derive(Debug)]
pub enum MirrorError {
    /// A signal came: no failure.
    Interrupted,
    /// No endpoint answers at the start.
    Unreachable(String),
    /// Who answers does not speak etcd's JSON API, or not as it should.
    Foreign(String),
    /// A server refuses for good.
    Refused {
        /// Which side.
        side: &'static str,
        /// Why.
        refusal: Refusal,
    },
    /// An answer is larger than what is taken.
    TooLarge(String),
    /// It would destroy something, or what it relies on does not hold.
    Unsound(String),
}

impl MirrorError {
    /// The exit code.
    pub fn status(&self) -> ExitStatus {
        match self {
            Self::Interrupted => ExitStatus::Success,
            Self::Unreachable(_) => ExitStatus::Connection,
            Self::Foreign(_) => ExitStatus::Server,
            Self::Refused { .. } | Self::TooLarge(_) | Self::Unsound(_) => ExitStatus::Error,
        }
    }

    /// What was asked for has been compacted.
    pub fn is_compacted(&self) -> bool {
        matches!(self, Self::Refused { refusal, .. } if refusal.is_out_of_range())
    }
}

impl fmt::Display for MirrorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted"),
            Self::Refused { side, refusal } => {
                write!(f, "{side} refuses: {} (code {})", refusal.message, refusal.code)
            }
            Self::Unreachable(text)
            | Self::Foreign(text)
            | Self::TooLarge(text)
            | Self::Unsound(text) => f.write_str(text),
        }
    }
}
