//! Frames between members: what is written is what is read, by ours and by the FlatBuffers library;
//! nothing that is read can do harm; and the bytes stay what they are.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fmt::Write;

use base::{FileId, Frame, Hash128, LogIndex, NodeId, Prng, RequestId, Term};
use bytes::BytesMut;
use schema::peer as tables;
use support::{below, flag, mutate, open, pool, prng, scaled, slice, small};
use wire::{
    AppendHead, AppliedState, DecodeError, EncodeError, HANDSHAKE_BODY_SIZE_MAX, Header, Kind,
    PEER_BODY_SIZE_MAX, PeerAppend, PeerEncoder, PeerForward, PeerForwardRefused, PeerFrame,
    PeerHello, PeerJoin, PeerJoinReply, PeerLane, PeerMessage, PeerRefusal, PeerRefused,
    PeerSnapshotAck, PeerSnapshotBegin, PeerSnapshotChunk, PeerWelcome, Splitter, Status,
};

const TEXTS: [&str; 4] = ["", "node-1", "näher", "a longer text of more than eight bytes"];

/// Often a number at an edge.
fn any(prng: &mut Prng) -> u64 {
    match prng.below(4) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        _ => prng.next_u64(),
    }
}

fn any16(prng: &mut Prng) -> u16 {
    u16::try_from(prng.below(1 << 16)).unwrap()
}

fn index(prng: &mut Prng) -> LogIndex {
    LogIndex::new(any(prng) / 2)
}

fn term(prng: &mut Prng) -> Term {
    Term::new(any(prng) / 2)
}

fn hash(prng: &mut Prng) -> Hash128 {
    let mut bytes = [0; 16];
    prng.fill(&mut bytes);
    Hash128::from_bytes(bytes)
}

fn file_id(prng: &mut Prng) -> FileId {
    FileId::new(u128::from_le_bytes(hash(prng).to_bytes()))
}

fn node(prng: &mut Prng) -> NodeId {
    NodeId::new(any(prng))
}

fn text(prng: &mut Prng) -> &'static str {
    TEXTS[below(prng, TEXTS.len())]
}

fn applied(prng: &mut Prng) -> Option<AppliedState> {
    flag(prng).then(|| AppliedState { index: index(prng), hash: hash(prng) })
}

fn message(prng: &mut Prng) -> PeerMessage {
    let term_here = term(prng);
    match prng.below(12) {
        0 => {
            PeerMessage::PreVote { term: term_here, last_index: index(prng), last_term: term(prng) }
        }
        1 => PeerMessage::PreVoteReply { term: term_here, granted: flag(prng) },
        2 => PeerMessage::Vote {
            term: term_here,
            last_index: index(prng),
            last_term: term(prng),
            transfer: flag(prng),
        },
        3 => PeerMessage::VoteReply { term: term_here, granted: flag(prng) },
        4 => PeerMessage::Accepted { term: term_here, matched: index(prng), verified: index(prng) },
        5 => PeerMessage::Rejected {
            term: term_here,
            previous: index(prng),
            hint_index: index(prng),
            hint_term: term(prng),
        },
        6 => PeerMessage::Heartbeat {
            term: term_here,
            committed: index(prng),
            round: any(prng),
            log_time: any(prng),
            applied: applied(prng),
        },
        7 => PeerMessage::HeartbeatReply {
            term: term_here,
            round: any(prng),
            matched: index(prng),
            applied: applied(prng),
        },
        8 => PeerMessage::TimeoutNow { term: term_here },
        9 => PeerMessage::Read { term: term_here, number: any(prng) },
        10 => PeerMessage::ReadReply {
            term: term_here,
            number: any(prng),
            index: flag(prng).then(|| index(prng)),
        },
        _ => PeerMessage::Newer { term: term_here },
    }
}

/// What an append is made of.
#[derive(Debug)]
struct Entries {
    head: AppendHead,
    last: LogIndex,
    runs: Vec<(LogIndex, Term)>,
}

fn entries(prng: &mut Prng) -> Entries {
    let previous = prng.below(1 << 40);
    let mut last = previous;
    let mut term_now = prng.below(1 << 30);
    let head = AppendHead {
        term: Term::ZERO,
        previous_index: LogIndex::new(previous),
        previous_term: Term::new(term_now),
        previous_hash: hash(prng),
        committed: index(prng),
    };
    let mut runs = Vec::new();
    for _ in 0..prng.below(5) {
        term_now += prng.below(3) + u64::from(!runs.is_empty());
        runs.push((LogIndex::new(last + 1), Term::new(term_now)));
        last += 1 + prng.below(1_000);
    }
    let head = AppendHead { term: Term::new(term_now + prng.below(3)), ..head };
    Entries { head, last: LogIndex::new(last), runs }
}

/// A frame of any kind, encoded, and what it must be read as where that is no append.
fn frame<'p>(prng: &mut Prng, pool: &'p [u8]) -> (Vec<u8>, Option<PeerFrame<'p>>) {
    let frame = match prng.below(12) {
        0 => PeerFrame::Hello(PeerHello {
            version_min: any16(prng),
            version_max: any16(prng),
            cluster: any(prng),
            from: node(prng),
            to: node(prng),
            data_id: file_id(prng),
            start_id: any(prng),
            lane: PeerLane::try_from(small(prng, 2)).unwrap(),
            client_address: ["", "127.0.0.1:2400"][usize::from(small(prng, 2))],
            peer_address: ["", "127.0.0.1:2380"][usize::from(small(prng, 2))],
            name: ["", "m1"][usize::from(small(prng, 2))],
        }),
        1 => PeerFrame::Welcome(PeerWelcome {
            version: any16(prng),
            cluster: any(prng),
            member: node(prng),
            data_id: file_id(prng),
            start_id: any(prng),
            bootstrapped: flag(prng),
            last_index: index(prng),
            last_term: term(prng),
        }),
        2 => PeerFrame::Refused(PeerRefused {
            code: PeerRefusal::from_number(u16::from(small(prng, 7))),
            message: text(prng),
        }),
        3 => PeerFrame::Forward(PeerForward {
            sequence: any(prng),
            kind: small(prng, 256),
            frees_space: flag(prng),
            body: slice(prng, pool),
            term: term(prng),
        }),
        4 => PeerFrame::ForwardRefused(PeerForwardRefused {
            sequence: any(prng),
            status: Status::ALL[below(prng, Status::ALL.len())],
            message: text(prng),
        }),
        5 => PeerFrame::SnapshotBegin(PeerSnapshotBegin {
            term: term(prng),
            index: index(prng),
            index_term: term(prng),
            hash: hash(prng),
            configuration_index: index(prng),
            configuration: slice(prng, pool),
            transfer: any(prng),
            size_hint: any(prng),
        }),
        6 => PeerFrame::SnapshotChunk(PeerSnapshotChunk {
            transfer: any(prng),
            number: any(prng),
            last: flag(prng),
            data: slice(prng, pool),
        }),
        7 => PeerFrame::SnapshotAck(PeerSnapshotAck {
            transfer: any(prng),
            next: any(prng),
            refused: text(prng),
        }),
        8 => PeerFrame::Join(PeerJoin { name: text(prng), address: text(prng) }),
        9 => PeerFrame::JoinReply(PeerJoinReply {
            cluster: any(prng),
            member: node(prng),
            members: slice(prng, pool),
            message: text(prng),
        }),
        10 => return (append(&entries(prng), &[slice(prng, pool)]), None),
        _ => PeerFrame::Raft(message(prng)),
    };
    (encoded(&frame), Some(frame))
}

fn encoded(frame: &PeerFrame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    PeerEncoder::with_version(1).encode(&mut out, frame).unwrap();
    out
}

/// Without entries there are no records either.
fn append(entries: &Entries, records: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = PeerEncoder::new().append(&mut out, &entries.head);
    for piece in records.iter().filter(|_| !entries.runs.is_empty()) {
        writer.push(piece);
    }
    writer.finish(entries.last, entries.runs.iter().copied()).unwrap();
    out
}

#[test]
fn every_random_frame_is_read_as_it_was_written() {
    let mut prng = prng("peer frames");
    let pool = pool(&mut prng);
    let mut kinds = Vec::new();
    for _ in 0..scaled(20_000) {
        let (bytes, written) = frame(&mut prng, &pool);
        assert!(bytes.len().is_multiple_of(8));
        let (header, body) = open(&bytes);
        assert_eq!((header.request, header.deadline_ms), (RequestId::new(0), 0));
        let read = PeerFrame::verify(&header, body).unwrap();
        assert_eq!(read.kind(), header.kind);
        kinds.push(header.kind);
        if let Some(written) = written {
            assert_eq!(read, written);
        }
        // What was read can be written again.
        assert_eq!(encoded(&read), bytes);
    }
    for kind in Kind::ALL.iter().filter(|kind| kind.is_peer()) {
        assert!(kinds.contains(kind), "no {kind:?} was tried");
    }
}

#[test]
fn an_append_is_the_pieces_that_were_pushed() {
    let mut prng = prng("appends");
    let pool = pool(&mut prng);
    for _ in 0..scaled(5_000) {
        let entries = entries(&mut prng);
        let pieces: Vec<_> = (0..prng.below(5)).map(|_| slice(&mut prng, &pool)).collect();
        let bytes = append(&entries, &pieces);
        let (header, body) = open(&bytes);
        let Ok(PeerFrame::Append(read)) = PeerFrame::verify(&header, body) else { panic!("none") };
        assert_eq!((read.head, read.last), (entries.head, entries.last));
        assert_eq!(read.runs.len(), entries.runs.len());
        assert_eq!(read.runs.collect::<Vec<_>>(), entries.runs);
        let records = if entries.runs.is_empty() { Vec::new() } else { pieces.concat() };
        assert_eq!(read.records, records);
        // The records of a received frame are a part of it without a copy.
        let body = Frame::copy_from_slice(body);
        let Ok(PeerFrame::Append(read)) = PeerFrame::verify(&header, &body) else { panic!("none") };
        assert_eq!(body.slice_ref(read.records), records);
    }
}

#[test]
fn an_append_that_grows_too_large_or_is_dropped_leaves_the_buffer_as_it_was() {
    let encoder = PeerEncoder::new();
    let mut out = b"12345678".to_vec();
    let entries = entries(&mut prng("appends that are given up"));
    let piece = vec![7; 1 << 20];
    let mut writer = encoder.append(&mut out, &entries.head);
    while writer.size() <= PEER_BODY_SIZE_MAX {
        writer.push(&piece);
    }
    let error = writer.finish(entries.last, entries.runs.iter().copied()).unwrap_err();
    assert_eq!(error, EncodeError::TooLarge { size_max: PEER_BODY_SIZE_MAX });
    assert_eq!(out, b"12345678");

    let mut writer = encoder.append(&mut out, &entries.head);
    writer.push(b"records");
    drop(writer);
    assert_eq!(out, b"12345678");

    // Too many runs for what the records left.
    let mut writer = encoder.append(&mut out, &entries.head);
    writer.push(&vec![7; PEER_BODY_SIZE_MAX - 200]);
    let runs = (1..100).map(|number| (LogIndex::new(number), Term::new(number)));
    writer.finish(LogIndex::new(100), runs).unwrap_err();
    assert_eq!(out, b"12345678");
}

/// Raft takes order for granted and adds to what it is given.
#[test]
fn an_append_whose_runs_contradict_it_is_refused() {
    let entries = |previous, last, runs: &[(u64, u64)]| Entries {
        head: AppendHead {
            term: Term::new(9),
            previous_index: LogIndex::new(previous),
            previous_term: Term::new(4),
            ..AppendHead::default()
        },
        last: LogIndex::new(last),
        runs: runs.iter().map(|&(first, term)| (LogIndex::new(first), Term::new(term))).collect(),
    };
    let read = |entries: &Entries| {
        let bytes = append(entries, &[b"records"]);
        let (header, body) = open(&bytes);
        PeerFrame::verify(&header, body).map(|_| ())
    };
    assert_eq!(read(&entries(10, 10, &[])), Ok(()));
    assert_eq!(read(&entries(10, 11, &[(11, 4)])), Ok(()));
    assert_eq!(read(&entries(10, 20, &[(11, 4), (12, 5), (20, 9)])), Ok(()));
    for (name, wrong) in [
        ("entries without runs", entries(10, 11, &[])),
        ("an end before the beginning", entries(10, 9, &[])),
        ("a run without an entry", entries(10, 10, &[(11, 4)])),
        ("a gap", entries(10, 20, &[(12, 4)])),
        ("what is there already", entries(10, 20, &[(10, 4)])),
        ("a lower term", entries(10, 20, &[(11, 3)])),
        ("terms that fall", entries(10, 20, &[(11, 5), (12, 4)])),
        ("one term twice", entries(10, 20, &[(11, 5), (12, 5)])),
        ("indices that fall", entries(10, 20, &[(11, 5), (11, 6)])),
        ("a run behind the end", entries(10, 20, &[(11, 5), (21, 6)])),
        ("a term beyond the leader's", entries(10, 20, &[(11, 10)])),
    ] {
        assert_eq!(read(&wrong), Err(DecodeError::Malformed), "{name}");
    }
    let huge = entries(u64::MAX, u64::MAX, &[]);
    let error = DecodeError::UnknownNumber { field: "index", number: u64::MAX };
    assert_eq!(read(&huge), Err(error));
}

/// The reader must not panic; what it accepts can be written, and means the same again.
#[test]
fn mutated_frames_of_every_kind_are_refused_or_valid() {
    let mut prng = prng("mutated peer frames");
    let pool = pool(&mut prng);
    let mut accepted = Vec::new();
    for _ in 0..scaled(120_000) {
        let (bytes, _) = frame(&mut prng, &pool);
        let (header, body) = open(&bytes);
        let mut body = body.to_vec();
        if prng.one_in(20) {
            prng.fill(&mut body);
        } else {
            mutate(&mut prng, &mut body);
        }
        // The bytes of one kind, read as another one.
        let kind = if prng.one_in(10) {
            Kind::ALL[below(&mut prng, Kind::ALL.len())]
        } else {
            header.kind
        };
        let header = Header { kind, ..header };
        if let Ok(read) = PeerFrame::verify(&header, &body) {
            accepted.push(read.kind());
            if fits(&read) {
                let again = encoded(&read);
                let (header, body) = open(&again);
                assert_eq!(PeerFrame::verify(&header, body), Ok(read));
            }
        }
    }
    for kind in Kind::ALL.iter().filter(|kind| kind.is_peer()) {
        assert!(accepted.contains(kind), "no mutated {kind:?} was accepted");
    }
}

/// Texts for people are cut when they are written, and mutations may make them long.
fn fits(frame: &PeerFrame<'_>) -> bool {
    match frame {
        PeerFrame::Refused(frame) => frame.message.len() <= 1_024,
        PeerFrame::ForwardRefused(frame) => frame.message.len() <= 1_024,
        PeerFrame::SnapshotAck(frame) => frame.refused.len() <= 1_024,
        PeerFrame::JoinReply(frame) => frame.message.len() <= 1_024,
        _ => true,
    }
}

fn root<'b, T>(body: &'b [u8]) -> T::Inner
where
    T: flatbuffers::Follow<'b> + flatbuffers::Verifiable + 'b,
{
    flatbuffers::root::<T>(body).unwrap()
}

fn wide(bytes: &tables::Bytes16) -> u128 {
    u128::from(bytes.low()) | u128::from(bytes.high()) << 64
}

fn of_hash(hash: Hash128) -> u128 {
    u128::from_le_bytes(hash.to_bytes())
}

/// Fails if the library does not accept the body or reads anything else in it.
fn library_agrees(body: &[u8], frame: &PeerFrame<'_>) {
    match frame {
        PeerFrame::Hello(hello) => {
            let table = root::<tables::Hello<'_>>(body);
            assert_eq!(
                (table.version_min(), table.version_max(), table.cluster_id()),
                (hello.version_min, hello.version_max, hello.cluster)
            );
            assert_eq!((table.from(), table.to()), (hello.from.get(), hello.to.get()));
            assert_eq!(wide(table.data_id().unwrap()), hello.data_id.get());
            assert_eq!((table.start_id(), table.lane().0), (hello.start_id, hello.lane.number()));
        }
        PeerFrame::Welcome(welcome) => {
            let table = root::<tables::Welcome<'_>>(body);
            assert_eq!((table.version(), table.cluster_id()), (welcome.version, welcome.cluster));
            assert_eq!(table.member_id(), welcome.member.get());
            assert_eq!(wide(table.data_id().unwrap()), welcome.data_id.get());
            assert_eq!(
                (table.start_id(), table.bootstrapped()),
                (welcome.start_id, welcome.bootstrapped)
            );
            assert_eq!(table.last_index(), welcome.last_index.get());
            assert_eq!(table.last_term(), welcome.last_term.get());
        }
        PeerFrame::Refused(refused) => {
            let table = root::<tables::Refused<'_>>(body);
            assert_eq!(table.code().0, refused.code.number());
            assert_eq!(table.message(), Some(refused.message));
        }
        PeerFrame::Raft(message) => {
            let table = root::<tables::Raft<'_>>(body);
            let applied = match message {
                PeerMessage::Heartbeat { applied, committed, round, log_time, .. } => {
                    assert_eq!(table.log_time(), *log_time);
                    assert_eq!(table.kind(), tables::RaftKind::Heartbeat);
                    assert_eq!((table.committed(), table.number()), (committed.get(), *round));
                    *applied
                }
                PeerMessage::Rejected { term, previous, hint_index, hint_term } => {
                    assert_eq!(table.kind(), tables::RaftKind::Rejected);
                    assert_eq!((table.term(), table.previous()), (term.get(), previous.get()));
                    assert_eq!(
                        (table.index(), table.index_term()),
                        (hint_index.get(), hint_term.get())
                    );
                    None
                }
                PeerMessage::HeartbeatReply { applied, .. } => *applied,
                _ => None,
            };
            assert_eq!(table.state_hash().map(wide), applied.map(|state| of_hash(state.hash)));
            assert_eq!(table.applied(), applied.map_or(0, |state| state.index.get()));
        }
        PeerFrame::Append(append) => {
            let table = root::<tables::Append<'_>>(body);
            assert_eq!(table.term(), append.head.term.get());
            assert_eq!(table.previous_index(), append.head.previous_index.get());
            assert_eq!(table.previous_term(), append.head.previous_term.get());
            assert_eq!(wide(table.previous_hash().unwrap()), of_hash(append.head.previous_hash));
            assert_eq!(table.last(), append.last.get());
            assert_eq!(table.committed(), append.head.committed.get());
            assert_eq!(table.records().unwrap().bytes(), append.records);
            let runs = table.runs().unwrap();
            let runs = runs.iter().map(|run| (LogIndex::new(run.first()), Term::new(run.term())));
            assert!(runs.eq(append.runs));
        }
        PeerFrame::Forward(forward) => {
            let table = root::<tables::Forward<'_>>(body);
            assert_eq!((table.sequence(), table.kind()), (forward.sequence, forward.kind));
            assert_eq!(table.frees_space(), forward.frees_space);
            assert_eq!(table.term(), forward.term.get());
            assert_eq!(table.body().unwrap().bytes(), forward.body);
        }
        PeerFrame::ForwardRefused(refused) => {
            let table = root::<tables::ForwardRefused<'_>>(body);
            assert_eq!(
                (table.sequence(), table.status()),
                (refused.sequence, refused.status.number())
            );
            assert_eq!(table.message(), Some(refused.message));
        }
        PeerFrame::SnapshotBegin(begin) => {
            let table = root::<tables::SnapshotBegin<'_>>(body);
            assert_eq!((table.term(), table.index()), (begin.term.get(), begin.index.get()));
            assert_eq!(table.index_term(), begin.index_term.get());
            assert_eq!(wide(table.hash().unwrap()), of_hash(begin.hash));
            assert_eq!(table.configuration_index(), begin.configuration_index.get());
            assert_eq!(table.configuration().unwrap().bytes(), begin.configuration);
            assert_eq!((table.transfer_id(), table.size_hint()), (begin.transfer, begin.size_hint));
        }
        PeerFrame::SnapshotChunk(chunk) => {
            let table = root::<tables::SnapshotChunk<'_>>(body);
            assert_eq!(
                (table.transfer_id(), table.number(), table.last()),
                (chunk.transfer, chunk.number, chunk.last)
            );
            assert_eq!(table.data().unwrap().bytes(), chunk.data);
        }
        PeerFrame::SnapshotAck(ack) => {
            let table = root::<tables::SnapshotAck<'_>>(body);
            assert_eq!((table.transfer_id(), table.next()), (ack.transfer, ack.next));
            assert_eq!(table.refused(), Some(ack.refused));
        }
        PeerFrame::Join(join) => {
            let table = root::<tables::Join<'_>>(body);
            assert_eq!((table.name(), table.address()), (Some(join.name), Some(join.address)));
        }
        PeerFrame::JoinReply(reply) => {
            let table = root::<tables::JoinReply<'_>>(body);
            assert_eq!(
                (table.cluster_id(), table.member_id()),
                (reply.cluster, reply.member.get())
            );
            assert_eq!(table.members().unwrap().bytes(), reply.members);
            assert_eq!(table.message(), Some(reply.message));
        }
    }
}

#[test]
fn the_library_reads_what_the_encoder_writes() {
    let mut prng = prng("peer encoder against library");
    let pool = pool(&mut prng);
    for _ in 0..scaled(5_000) {
        let (bytes, _) = frame(&mut prng, &pool);
        let (header, body) = open(&bytes);
        library_agrees(body, &PeerFrame::verify(&header, body).unwrap());
    }
}

#[test]
fn a_header_with_more_than_a_kind_and_a_client_kind_are_refused() {
    let bytes = encoded(&PeerFrame::Raft(PeerMessage::Newer { term: Term::new(1) }));
    let (header, body) = open(&bytes);
    for wrong in [
        Header { status: Status::Internal, ..header },
        Header { flags: wire::Flags::MORE, ..header },
        Header { request: RequestId::new(1), ..header },
        Header { deadline_ms: 1, ..header },
    ] {
        assert_eq!(PeerFrame::verify(&wrong, body), Err(DecodeError::ReservedBits));
    }
    let kind = Kind::Put;
    let error = PeerFrame::verify(&Header { kind, ..header }, body).unwrap_err();
    assert_eq!(error, DecodeError::UnexpectedKind { kind });
    assert_eq!(
        support::verify(Kind::PeerRaft, body).unwrap_err(),
        DecodeError::UnexpectedKind { kind: Kind::PeerRaft }
    );
    assert_eq!(
        wire::Reply::verify(&header, body).unwrap_err(),
        DecodeError::UnexpectedKind { kind: Kind::PeerRaft }
    );
}

/// A newer release may refuse for a reason that has no number here.
#[test]
fn a_refusal_with_an_unknown_number_is_still_a_refusal() {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let message = Some(builder.create_string("why"));
    let args = tables::RefusedArgs { code: tables::RefusalCode(999), message };
    let table = tables::Refused::create(&mut builder, &args);
    builder.finish_minimal(table);
    let mut body = builder.finished_data().to_vec();
    body.resize(body.len().next_multiple_of(8), 0);
    let bytes = encoded(&PeerFrame::Refused(PeerRefused::default()));
    let (header, _) = open(&bytes);
    let read = PeerFrame::verify(&header, &body).unwrap();
    let expected = PeerRefused { code: PeerRefusal::Unknown, message: "why" };
    assert_eq!(read, PeerFrame::Refused(expected));
    for number in 0..10 {
        let code = PeerRefusal::from_number(number);
        assert!(code.number() == number || code == PeerRefusal::Unknown);
        assert!(!code.to_string().is_empty());
    }
}

#[test]
fn frames_of_the_handshake_are_small_and_the_greatest_request_fits_behind_it() {
    let mut out = b"before".to_vec();
    let members = vec![7; HANDSHAKE_BODY_SIZE_MAX];
    let reply = PeerFrame::JoinReply(PeerJoinReply { members: &members, ..Default::default() });
    let error = PeerEncoder::new().encode(&mut out, &reply).unwrap_err();
    assert_eq!(error, EncodeError::TooLarge { size_max: HANDSHAKE_BODY_SIZE_MAX });
    assert_eq!(out, b"before");

    let body = vec![7; base::limits::body_size_max(base::limits::VALUE_SIZE_MAX)];
    let forward = PeerFrame::Forward(PeerForward { body: &body, ..Default::default() });
    let bytes = encoded(&forward);
    let mut splitter = Splitter::between_members();
    splitter.agree(1, PEER_BODY_SIZE_MAX);
    let (header, body) = splitter.next(&mut BytesMut::from(&bytes[..])).unwrap().unwrap();
    assert_eq!(PeerFrame::verify(&header, &body), Ok(forward));
}

// ---- pinned bytes

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/peer_1.hex");

fn pinned_frames() -> Vec<(&'static str, Vec<u8>)> {
    let at = LogIndex::new;
    let in_term = Term::new;
    let hash = Hash128::from_bytes(*b"0123456789abcdef");
    let applied = Some(AppliedState { index: at(17), hash });
    let entries = Entries {
        head: AppendHead {
            term: in_term(7),
            previous_index: at(20),
            previous_term: in_term(5),
            previous_hash: hash,
            committed: at(19),
        },
        last: at(24),
        runs: vec![(at(21), in_term(5)), (at(23), in_term(7))],
    };
    let nothing = Entries { last: at(20), runs: Vec::new(), head: entries.head };
    let raft = |message| encoded(&PeerFrame::Raft(message));
    let term = in_term(7);
    let (last_index, last_term) = (at(20), in_term(5));
    let (matched, verified, committed, round) = (at(18), at(20), at(19), 300);
    let (data_id, start_id) = (FileId::new(0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10), 99);
    let heartbeat =
        |applied| PeerMessage::Heartbeat { term, committed, round, log_time: 77, applied };
    let reply = PeerMessage::HeartbeatReply { term, round, matched, applied: None };
    vec![
        (
            "hello",
            encoded(&PeerFrame::Hello(PeerHello {
                version_min: 1,
                version_max: 2,
                cluster: 11,
                from: NodeId::new(1),
                to: NodeId::new(2),
                data_id,
                start_id,
                lane: PeerLane::Bulk,
                client_address: "localhost:2400",
                peer_address: "localhost:2380",
                name: "m1",
            })),
        ),
        (
            "welcome",
            encoded(&PeerFrame::Welcome(PeerWelcome {
                version: 1,
                cluster: 11,
                member: NodeId::new(2),
                data_id,
                start_id,
                bootstrapped: true,
                last_index,
                last_term,
            })),
        ),
        (
            "refused",
            encoded(&PeerFrame::Refused(PeerRefused {
                code: PeerRefusal::DataChanged,
                message: "why",
            })),
        ),
        ("pre vote", raft(PeerMessage::PreVote { term, last_index, last_term })),
        ("pre vote reply", raft(PeerMessage::PreVoteReply { term, granted: true })),
        ("vote", raft(PeerMessage::Vote { term, last_index, last_term, transfer: true })),
        ("vote reply", raft(PeerMessage::VoteReply { term, granted: true })),
        ("accepted", raft(PeerMessage::Accepted { term, matched, verified })),
        (
            "rejected",
            raft(PeerMessage::Rejected {
                term,
                previous: at(20),
                hint_index: at(12),
                hint_term: in_term(4),
            }),
        ),
        ("heartbeat", raft(heartbeat(None))),
        ("heartbeat, state", raft(heartbeat(applied))),
        ("heartbeat reply", raft(reply)),
        (
            "heartbeat reply, state",
            raft(PeerMessage::HeartbeatReply { term, round, matched, applied }),
        ),
        ("timeout now", raft(PeerMessage::TimeoutNow { term })),
        ("read", raft(PeerMessage::Read { term, number: 12 })),
        ("read reply", raft(PeerMessage::ReadReply { term, number: 12, index: Some(at(19)) })),
        ("read reply, none", raft(PeerMessage::ReadReply { term, number: 12, index: None })),
        ("newer", raft(PeerMessage::Newer { term })),
        ("append", append(&entries, &[b"records, ", b"as the log has them"])),
        ("append, nothing", append(&nothing, &[])),
        (
            "forward",
            encoded(&PeerFrame::Forward(PeerForward {
                sequence: 5,
                kind: 3,
                frees_space: true,
                body: b"entry",
                term,
            })),
        ),
        (
            "forward refused",
            encoded(&PeerFrame::ForwardRefused(PeerForwardRefused {
                sequence: 5,
                status: Status::NotLeader,
                message: "why",
            })),
        ),
        (
            "snapshot begin",
            encoded(&PeerFrame::SnapshotBegin(PeerSnapshotBegin {
                term,
                index: last_index,
                index_term: last_term,
                hash,
                configuration_index: at(3),
                configuration: b"members",
                transfer: 6,
                size_hint: 1 << 20,
            })),
        ),
        (
            "snapshot chunk",
            encoded(&PeerFrame::SnapshotChunk(PeerSnapshotChunk {
                transfer: 6,
                number: 2,
                last: true,
                data: b"pages",
            })),
        ),
        (
            "snapshot ack",
            encoded(&PeerFrame::SnapshotAck(PeerSnapshotAck {
                transfer: 6,
                next: 3,
                refused: "why",
            })),
        ),
        ("join", encoded(&PeerFrame::Join(PeerJoin { name: "d", address: "d:2380" }))),
        (
            "join reply",
            encoded(&PeerFrame::JoinReply(PeerJoinReply {
                cluster: 11,
                member: NodeId::new(4),
                members: b"members",
                message: "why",
            })),
        ),
    ]
}

/// A change here breaks clusters while they are upgraded. `GOLDEN=write cargo test -p wire --test
/// peer` writes the file anew.
#[test]
fn every_kind_has_its_pinned_bytes() {
    let mut text = String::new();
    for (name, bytes) in pinned_frames() {
        write!(text, "{name}: ").unwrap();
        bytes.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        text.push('\n');
    }
    if std::env::var("GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(PATH, &text).unwrap();
    }
    let pinned = std::fs::read_to_string(PATH).unwrap();
    for (line, pinned) in text.lines().zip(pinned.lines()) {
        assert_eq!(line, pinned);
    }
    assert_eq!(text.lines().count(), pinned.lines().count());
}

/// Reads what is pinned, not what is written now.
#[test]
fn pinned_frames_of_every_kind_are_still_understood() {
    let pinned = std::fs::read_to_string(PATH).unwrap();
    let written = pinned_frames();
    let mut kinds = Vec::new();
    for line in pinned.lines() {
        let (name, hex) = line.split_once(": ").unwrap();
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap())
            .collect();
        let (header, body) = open(&bytes);
        kinds.push(header.kind);
        let read = PeerFrame::verify(&header, body).unwrap();
        let (_, now) = written.iter().find(|(known, _)| *known == name).unwrap();
        let (header, body) = open(now);
        assert_eq!(read, PeerFrame::verify(&header, body).unwrap());
    }
    for kind in Kind::ALL.iter().filter(|kind| kind.is_peer()) {
        assert!(kinds.contains(kind), "no frame of {kind:?} is pinned");
    }
}

/// The empty append's default is one that is accepted.
#[test]
fn nothing_at_all_is_an_append() {
    let bytes = encoded(&PeerFrame::Append(PeerAppend::default()));
    let (header, body) = open(&bytes);
    assert_eq!(PeerFrame::verify(&header, body), Ok(PeerFrame::Append(PeerAppend::default())));
}
