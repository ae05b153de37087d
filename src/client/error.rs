//! What a call can fail with: one variant for each thing a caller does differently.

use std::fmt::{Display, Formatter};
use std::io;

use base::NodeId;
use wire::{DecodeError, Effect, EncodeError, Refused, Status};

/// Why a call has no answer.
#[derive(Debug)]
pub enum Error {
    /// The list of endpoints is empty.
    NoEndpoints,
    /// None of the endpoints could be connected to in time. The call had no effect.
    Unreachable {
        /// The endpoint that was tried last.
        endpoint: String,
        /// What happened there.
        source: io::Error,
    },
    /// The server refused the call. [`Refusal::effect`] tells whether it was done nevertheless.
    Refused(Refusal),
    /// A write was sent, and it is not known whether it took effect or still will. Reading the key
    /// tells, once the server's answer time has passed.
    OutcomeUnknown {
        /// What happened, for people.
        reason: String,
    },
    /// A read was not answered within the request timeout. Safe to repeat.
    TimedOut,
    /// The connection was lost under a read, or before a write was sent. Safe to repeat, unless
    /// pieces of the range have been delivered already.
    ConnectionLost {
        /// The endpoint.
        endpoint: String,
        /// What happened.
        source: io::Error,
    },
    /// What came from the endpoint is not the protocol. The call was a read or was not sent.
    Protocol {
        /// The endpoint.
        endpoint: String,
        /// What is wrong.
        source: DecodeError,
    },
    /// The request cannot be sent. Nothing was.
    Encode(EncodeError),
    /// As many requests, or bytes of them, are in flight as the server allows: receive first.
    CreditsUsed,
    /// Earlier requests were lost with their connection, and their results have not been received
    /// yet: receive first.
    ResultsPending,
}

/// Why the server refused a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// Why.
    pub status: Status,
    /// Why, for people.
    pub message: String,
    /// The leader; 0: the server knows none.
    pub leader: NodeId,
    /// Where clients reach the leader; empty: unknown, or the server itself.
    pub leader_address: String,
    /// When to come back, in milliseconds; 0: no advice.
    pub retry_after_ms: u32,
    /// Reads below this revision are refused, where that is the reason; else 0.
    pub compacted_revision: i64,
    /// The newest revision, where that explains the refusal; else 0.
    pub current_revision: i64,
    /// Whether a write has taken effect.
    pub effect: Effect,
}

impl From<Refused<'_>> for Refusal {
    fn from(refused: Refused<'_>) -> Self {
        Self {
            status: refused.status,
            message: refused.message.to_owned(),
            leader: refused.leader.member,
            leader_address: refused.leader.address.to_owned(),
            retry_after_ms: refused.retry_after_ms,
            compacted_revision: refused.compacted_revision,
            current_revision: refused.current_revision,
            effect: refused.effect,
        }
    }
}

impl Refusal {
    /// True if the same call may be sent again: it had no effect and may succeed later or at
    /// another member.
    pub fn is_retryable(&self) -> bool {
        self.status.is_retryable() && self.effect == Effect::None
    }
}

impl Display for Refusal {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let message =
            if self.message.is_empty() { self.status.text() } else { self.message.as_str() };
        f.write_str(message)?;
        if self.status == Status::NotLeader && !self.leader_address.is_empty() {
            write!(f, " (the leader is at {})", self.leader_address)?;
        }
        match self.effect {
            Effect::None => Ok(()),
            Effect::Applied => write!(f, " (the write has been done, only its answer is missing)"),
            Effect::Unknown => write!(f, " (the write may or may not take effect)"),
        }
    }
}

impl Error {
    /// The refusal, if the server gave one.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            Self::NoEndpoints
            | Self::Unreachable { .. }
            | Self::OutcomeUnknown { .. }
            | Self::TimedOut
            | Self::ConnectionLost { .. }
            | Self::Protocol { .. }
            | Self::Encode(_)
            | Self::CreditsUsed
            | Self::ResultsPending => None,
        }
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoEndpoints => write!(f, "no endpoint was given; name one as host:port"),
            Self::Unreachable { endpoint, source } => {
                write!(f, "no server could be reached; the last one tried, {endpoint}: {source}")
            }
            Self::Refused(refusal) => refusal.fmt(f),
            Self::OutcomeUnknown { reason } => write!(
                f,
                "the write was sent but its outcome is unknown ({reason}): it may or may not \
                 take effect; read the key to find out"
            ),
            Self::TimedOut => write!(f, "the server did not answer in time"),
            Self::ConnectionLost { endpoint, source } => {
                write!(f, "the connection to {endpoint} was lost: {source}")
            }
            Self::Protocol { endpoint, source } => {
                write!(f, "{endpoint} does not keep to the protocol: {source}")
            }
            Self::Encode(error) => write!(f, "the request cannot be sent: {error}"),
            Self::CreditsUsed => write!(
                f,
                "as much is in flight as the server allows; receive a reply before the next request"
            ),
            Self::ResultsPending => write!(
                f,
                "a connection was lost; receive the results of its requests before the next one"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreachable { source, .. } | Self::ConnectionLost { source, .. } => Some(source),
            Self::Protocol { source, .. } => Some(source),
            Self::Encode(source) => Some(source),
            Self::NoEndpoints
            | Self::Refused(_)
            | Self::OutcomeUnknown { .. }
            | Self::TimedOut
            | Self::CreditsUsed
            | Self::ResultsPending => None,
        }
    }
}
