//! Every native refusal has a text and a code of etcd's.

use etcd::{Code, Failure, Subject};
use wire::{Effect, Refused, Status};

const SUBJECTS: [Subject; 8] = [
    Subject::Read,
    Subject::Write,
    Subject::Lease,
    Subject::Watch,
    Subject::Member,
    Subject::Promotion,
    Subject::Leadership,
    Subject::Status,
];

/// The row of a status where the subject makes no difference, written apart from the product.
fn row(status: Status) -> (Code, &'static str) {
    match status {
        Status::Ok => (Code::Internal, "etcdserver: native text"),
        Status::InvalidArgument => (Code::InvalidArgument, "etcdserver: native text"),
        Status::KeyNotFound => (Code::InvalidArgument, "etcdserver: key not found"),
        Status::LeaseNotFound => (Code::NotFound, "etcdserver: requested lease not found"),
        Status::DuplicateKey => {
            (Code::InvalidArgument, "etcdserver: duplicate key given in txn request")
        }
        Status::TooManyOps => {
            (Code::InvalidArgument, "etcdserver: too many operations in txn request")
        }
        Status::Compacted => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
        }
        Status::FutureRevision => {
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
        }
        Status::NoSpace => (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
        Status::Overloaded => (Code::Unknown, "etcdserver: too many requests"),
        Status::NotLeader => (Code::Unavailable, "etcdserver: leader changed"),
        Status::DeadlineExceeded => (Code::DeadlineExceeded, "context deadline exceeded"),
        Status::Cancelled => (Code::Canceled, "context canceled"),
        Status::TooLarge => (Code::InvalidArgument, "etcdserver: request is too large"),
        Status::Unavailable | Status::HandshakeTimeout => {
            (Code::Unavailable, "etcdserver: request timed out")
        }
        Status::Unknown => (
            Code::Unavailable,
            "etcdserver: request timed out, possibly due to previous leader failure",
        ),
        Status::Internal
        | Status::ProtocolError
        | Status::VersionMismatch
        | Status::SessionExpired
        | Status::TooManyUnanswered => (Code::Internal, "etcdserver: native text"),
        Status::ClusterMismatch => (Code::FailedPrecondition, "etcdserver: cluster ID mismatch"),
        Status::ShuttingDown => (Code::Unavailable, "etcdserver: server stopped"),
        Status::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
        Status::MemberNotFound => (Code::NotFound, "etcdserver: member not found"),
        Status::MemberExists => (Code::FailedPrecondition, "etcdserver: Peer URLs already exists"),
        Status::ChangePending | Status::NotCaughtUp => {
            (Code::Unavailable, "etcdserver: unhealthy cluster")
        }
        Status::QuorumAtRisk => {
            (Code::Unknown, "etcdserver: re-configuration failed due to not enough started members")
        }
        Status::LeaseExists => (Code::FailedPrecondition, "etcdserver: lease already exists"),
        Status::Corrupt => (Code::DataLoss, "etcdserver: corrupt cluster"),
        Status::SlowReader => (Code::Canceled, "etcdserver: watch canceled"),
    }
}

/// Where the subject makes a difference.
fn exception(status: Status, subject: Subject) -> Option<(Code, &'static str)> {
    Some(match (status, subject) {
        (Status::InvalidArgument, Subject::Member) => {
            (Code::InvalidArgument, "etcdserver: given member URLs are invalid")
        }
        (Status::InvalidArgument, Subject::Promotion) => {
            (Code::FailedPrecondition, "etcdserver: can only promote a learner member")
        }
        (Status::NotLeader, Subject::Leadership) => {
            (Code::FailedPrecondition, "etcdserver: not leader")
        }
        (Status::TooLarge, Subject::Read) => (Code::ResourceExhausted, "etcdserver: native text"),
        (Status::MemberNotFound | Status::QuorumAtRisk, Subject::Leadership) => {
            (Code::FailedPrecondition, "etcdserver: bad leader transferee")
        }
        (Status::NotCaughtUp, Subject::Promotion) => (
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member which is in sync with leader",
        ),
        (Status::NotCaughtUp, Subject::Leadership) => {
            (Code::Unavailable, "etcdserver: request timed out")
        }
        _ => return None,
    })
}

#[test]
fn every_status_has_its_code_and_text_for_every_subject() {
    for status in Status::ALL {
        for subject in SUBJECTS {
            let refused = Refused::new(*status).with_message("native text");
            let failure = Failure::of(&refused, subject);
            let expected = exception(*status, subject).unwrap_or(row(*status));
            assert_eq!(
                (failure.code, failure.message.as_ref()),
                expected,
                "{status:?} for {subject:?}"
            );
        }
    }
}

#[test]
fn an_invalid_argument_keeps_the_text_that_etcd_has_for_it() {
    let texts = [
        ("key is not provided", Failure::KEY_NOT_PROVIDED),
        ("value is provided", Failure::VALUE_PROVIDED),
        ("lease is provided", Failure::LEASE_PROVIDED),
        ("invalid sort option", Failure::INVALID_SORT_OPTION),
        (
            "too large lease TTL; a lease lives at most 9000000000000 ms without being kept alive",
            Failure::LEASE_TTL_TOO_LARGE,
        ),
    ];
    for (native, failure) in texts {
        let refused = Refused::new(Status::InvalidArgument).with_message(native);
        assert_eq!(Failure::of(&refused, Subject::Write), failure);
    }
}

#[test]
fn a_write_whose_answer_is_too_large_is_not_told_that_the_request_was() {
    let refused = Refused::new(Status::TooLarge)
        .with_message("the write took effect")
        .with_effect(Effect::Applied);
    let failure = Failure::of(&refused, Subject::Write);
    assert_eq!(failure.code, Code::ResourceExhausted);
    assert_eq!(failure.message, "etcdserver: the write took effect");
    // A transaction that only reads.
    let refused = Refused::new(Status::TooLarge).with_message("the reply is too large: 20 MiB");
    let failure = Failure::of(&refused, Subject::Write);
    assert_eq!(failure.code, Code::ResourceExhausted);
}

#[test]
fn known_texts_are_there_once_and_codes_have_the_numbers_of_grpc() {
    for (index, one) in Failure::KNOWN.iter().enumerate() {
        assert!(one.code != Code::Ok && !one.message.is_empty());
        let twice = Failure::KNOWN[index + 1..].iter().any(|other| other.message == one.message);
        assert!(!twice, "{} twice", one.message);
    }
    assert_eq!(Code::OutOfRange.number(), 11);
    assert_eq!(Code::Unauthenticated.number(), 16);
}
