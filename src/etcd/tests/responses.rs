//! What is written by hand decodes to the message that is expected, and is as short as prost writes it.

use std::ops::ControlFlow;

use base::{Alarm, AlarmKind, FileId, NodeId, Prng, RequestId};
use bytes::Bytes;
use etcd::Answerer;
use etcd::proto::kv;
use etcd::proto::maintenance::{AlarmMember, AlarmType};
use etcd::proto::watch::WatchResponse;
use etcd::response::{self, LongRange};
use prost::Message;
use wire::{
    Alarms, ChangeKind, HEADER_SIZE, Header, KeyValue, LeaseListReply, LeaseTimeToLiveReply,
    Member, MemberList, MemberRole, Numbers, RangeSummary, Reply, ReplyWriter, StatusReply, Texts,
    TxnWriter, WatchChange, WatchStep,
};

const FROM: Answerer = Answerer { cluster_id: u64::MAX, member_id: 2, term: 300 };
const ID: RequestId = RequestId::new(1);

fn below(prng: &mut Prng, bound: u64) -> usize {
    usize::try_from(prng.below(bound)).expect("a small number")
}

/// Often a number at an edge.
fn number(prng: &mut Prng) -> i64 {
    match prng.below(6) {
        0 | 1 => 0,
        2 => 127,
        3 => -1,
        4 => i64::MAX,
        _ => i64::try_from(prng.below(1 << 40)).expect("40 bits"),
    }
}

/// Mostly short, sometimes empty or beyond a length of one byte.
fn slice<'p>(prng: &mut Prng, pool: &'p [u8]) -> &'p [u8] {
    let size = if prng.one_in(8) { below(prng, 1_000) } else { below(prng, 6) };
    &pool[..size]
}

fn key_value<'p>(prng: &mut Prng, pool: &'p [u8]) -> KeyValue<'p> {
    KeyValue {
        key: slice(prng, pool),
        value: slice(prng, pool),
        create_revision: number(prng),
        mod_revision: number(prng),
        version: number(prng),
        lease: number(prng),
    }
}

fn key_values<'p>(prng: &mut Prng, pool: &'p [u8]) -> Vec<KeyValue<'p>> {
    (0..below(prng, 4)).map(|_| key_value(prng, pool)).collect()
}

fn copied(member: &KeyValue<'_>) -> kv::KeyValue {
    kv::KeyValue {
        key: Bytes::copy_from_slice(member.key),
        create_revision: member.create_revision,
        mod_revision: member.mod_revision,
        version: member.version,
        value: Bytes::copy_from_slice(member.value),
        lease: member.lease,
    }
}

fn pool(prng: &mut Prng) -> Vec<u8> {
    let mut pool = vec![0; 1_000];
    prng.fill(&mut pool);
    pool
}

fn bare(revision: i64) -> Option<kv::ResponseHeader> {
    Some(kv::ResponseHeader { revision, ..kv::ResponseHeader::default() })
}

/// The reply in the frame.
fn opened(frame: &[u8]) -> Reply<'_> {
    let (head, body) = frame.split_first_chunk::<HEADER_SIZE>().expect("a whole frame");
    let header = Header::decode(head).expect("a header");
    Reply::verify(&header, body).expect("a reply")
}

/// The bytes are the message, and none is there twice or without need.
fn agrees<M: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8], message: &M) {
    assert_eq!(&M::decode(bytes).expect("what was written decodes"), message);
    assert_eq!(bytes, message.encode_to_vec());
}

#[test]
fn a_range_in_pieces_is_one_response_and_its_parts_merge_to_the_same() {
    let mut prng = Prng::new(1);
    let pool = pool(&mut prng);
    let mut writer = ReplyWriter::new();
    for _ in 0..2_000 {
        let summary = RangeSummary {
            revision: number(&mut prng),
            count: number(&mut prng),
            more: prng.one_in(2),
        };
        let lists: Vec<_> = (0..=prng.below(3)).map(|_| key_values(&mut prng, &pool)).collect();
        let frames: Vec<Vec<u8>> = lists
            .iter()
            .enumerate()
            .map(|(index, list)| {
                let mut frame = Vec::new();
                let mut piece = writer.range(&mut frame, ID);
                list.iter().for_each(|kv| assert_eq!(piece.push(kv), ControlFlow::Continue(())));
                if index + 1 == lists.len() {
                    piece.finish(summary);
                } else {
                    piece.finish_piece(summary.revision);
                }
                frame
            })
            .collect();
        let pieces: Vec<_> = frames
            .iter()
            .map(|frame| match opened(frame) {
                Reply::Range(reply) => reply,
                other => panic!("{other:?}"),
            })
            .collect();
        let expected = kv::RangeResponse {
            header: Some(FROM.header(summary.revision)),
            kvs: lists.iter().flatten().map(copied).collect(),
            more: summary.more,
            count: summary.count,
        };
        let mut out = Vec::new();
        response::range(&mut out, &FROM, &pieces);
        agrees(&out, &expected);

        let keys_size = pieces.iter().map(response::keys_size).sum();
        let end = pieces.last().expect("one at least");
        let long = LongRange::new(&FROM, keys_size, end);
        let mut in_turn = Vec::new();
        long.write_head(&mut in_turn);
        pieces
            .iter()
            .flat_map(|piece| piece.kvs)
            .for_each(|member| response::range_key(&mut in_turn, &member));
        long.write_end(&mut in_turn);
        assert_eq!((in_turn.len(), in_turn), (long.size(), out));

        let mut merged = kv::RangeStreamResponse::default();
        for (index, piece) in pieces.iter().enumerate() {
            let mut out = Vec::new();
            let is_last = index + 1 == pieces.len();
            response::range_part(&mut out, &FROM, piece, is_last);
            let part = kv::RangeStreamResponse::decode(out.as_slice()).expect("a part");
            let part_of = part.range_response.as_ref().expect("present");
            assert_eq!(part_of.header.is_some(), is_last);
            merged.merge(out.as_slice()).expect("parts merge");
        }
        assert_eq!(merged.range_response, Some(expected));
    }
}

#[test]
fn puts_and_deletes_tell_what_was_before() {
    let mut prng = Prng::new(2);
    let pool = pool(&mut prng);
    let mut writer = ReplyWriter::new();
    for _ in 0..2_000 {
        let (revision, deleted) = (number(&mut prng), number(&mut prng));
        let previous = key_values(&mut prng, &pool);
        let (mut frame, mut out) = (Vec::new(), Vec::new());
        writer.put(&mut frame, ID, revision, previous.first().copied());
        let Reply::Put(reply) = opened(&frame) else { panic!("no put") };
        response::put(&mut out, &FROM, &reply);
        let header = Some(FROM.header(revision));
        let prev_kv = previous.first().map(copied);
        agrees(&out, &kv::PutResponse { header, prev_kv });

        let (mut frame, mut out) = (Vec::new(), Vec::new());
        writer
            .delete_range(&mut frame, ID, revision, deleted, previous.iter().copied())
            .expect("small");
        let Reply::DeleteRange(reply) = opened(&frame) else { panic!("no delete") };
        response::delete_range(&mut out, &FROM, &reply);
        let prev_kvs = previous.iter().map(copied).collect();
        agrees(&out, &kv::DeleteRangeResponse { header, deleted, prev_kvs });
    }
}

/// Writes random answers natively, and says what etcd's are.
fn answers(
    prng: &mut Prng,
    pool: &[u8],
    writer: &mut TxnWriter<'_>,
    count: usize,
    depth: u64,
) -> Vec<kv::ResponseOp> {
    let answer = |prng: &mut Prng, writer: &mut TxnWriter<'_>| {
        let (revision, more, list) = (number(prng), prng.one_in(2), key_values(prng, pool));
        let copies = list.iter().map(copied).collect();
        match prng.below(if depth == 0 { 3 } else { 5 }) {
            0 => {
                writer.put(revision, list.first().copied());
                let prev_kv = list.first().map(copied);
                kv::ResponseUnion::Put(kv::PutResponse { header: bare(revision), prev_kv })
            }
            1 => {
                let count = number(prng);
                writer.range(RangeSummary { revision, count, more }, list.iter().copied());
                let header = bare(revision);
                kv::ResponseUnion::Range(kv::RangeResponse { header, kvs: copies, more, count })
            }
            2 => {
                let deleted = number(prng);
                writer.delete_range(revision, deleted, list.iter().copied());
                let (header, prev_kvs) = (bare(revision), copies);
                kv::ResponseUnion::DeleteRange(kv::DeleteRangeResponse {
                    header,
                    deleted,
                    prev_kvs,
                })
            }
            _ => {
                let count = below(prng, 4);
                writer.txn(more, count);
                let responses = answers(prng, pool, writer, count, depth - 1);
                let header = bare(0);
                kv::ResponseUnion::Txn(kv::TxnResponse { header, succeeded: more, responses })
            }
        }
    };
    (0..count).map(|_| kv::ResponseOp { response: Some(answer(prng, writer)) }).collect()
}

#[test]
fn a_transaction_is_told_with_bare_headers_inside() {
    let mut prng = Prng::new(3);
    let pool = pool(&mut prng);
    let mut writer = ReplyWriter::new();
    for _ in 0..2_000 {
        let (revision, succeeded, count) = (number(&mut prng), prng.one_in(2), below(&mut prng, 5));
        let (mut frame, mut out) = (Vec::new(), Vec::new());
        let mut txn = writer.txn(&mut frame, ID, revision, succeeded, count);
        let responses = answers(&mut prng, &pool, &mut txn, count, 3);
        txn.finish().expect("small");
        let Reply::Txn(reply) = opened(&frame) else { panic!("no transaction") };
        response::txn(&mut out, &FROM, &reply);
        let header = Some(FROM.header(revision));
        agrees(&out, &kv::TxnResponse { header, succeeded, responses });
    }
}

#[test]
fn a_watch_tells_events_and_of_deletes_the_key_and_revision_alone() {
    let mut prng = Prng::new(4);
    let pool = pool(&mut prng);
    let mut writer = ReplyWriter::new();
    for _ in 0..2_000 {
        let (mut frame, mut out) = (Vec::new(), Vec::new());
        let mut events = Vec::new();
        let mut reply = writer.watch(&mut frame, ID);
        for _ in 0..prng.below(5) {
            let kv = key_value(&mut prng, &pool);
            let kind = if prng.one_in(2) { ChangeKind::Put } else { ChangeKind::Delete };
            let previous =
                prng.one_in(2).then(|| KeyValue { key: kv.key, ..key_value(&mut prng, &pool) });
            reply.push(&WatchChange { kind, kv, previous, ..WatchChange::default() });
            let (number, shown) = match kind {
                ChangeKind::Put => (0, copied(&kv)),
                ChangeKind::Delete => {
                    let KeyValue { key, mod_revision, .. } = kv;
                    (1, copied(&KeyValue { key, mod_revision, ..KeyValue::default() }))
                }
            };
            // What is created was not there before, even if the same transaction has deleted it.
            let is_creation = number == 0 && kv.create_revision == kv.mod_revision;
            let prev_kv = previous.as_ref().filter(|_| !is_creation).map(copied);
            events.push(kv::Event { r#type: number, kv: Some(shown), prev_kv });
        }
        let (revision, watch_id, fragment) = (number(&mut prng), number(&mut prng), prng.one_in(2));
        reply.finish(WatchStep::Changes, revision, fragment).expect("small");
        let Reply::Watch(reply) = opened(&frame) else { panic!("no watch") };
        response::watch_events(&mut out, &FROM, revision, watch_id, reply.changes, fragment);
        let header = Some(FROM.header(revision));
        agrees(
            &out,
            &WatchResponse { header, watch_id, fragment, events, ..WatchResponse::default() },
        );
    }
}

#[test]
fn the_life_of_a_watch_is_told_in_the_fields_that_clients_look_at() {
    let plain = WatchResponse { header: Some(FROM.header(9)), ..WatchResponse::default() };
    let mut out = Vec::new();
    response::watch_created(&mut out, &FROM, 9, 0);
    agrees(&out, &WatchResponse { created: true, ..plain.clone() });

    out.clear();
    response::watch_refused(&mut out, &FROM, 9, "why");
    let (watch_id, cancel_reason) = (-1, "why".to_string());
    let refused =
        WatchResponse { watch_id, created: true, canceled: true, cancel_reason, ..plain.clone() };
    agrees(&out, &refused);

    out.clear();
    response::watch_canceled(&mut out, &FROM, 9, 3, "");
    agrees(&out, &WatchResponse { watch_id: 3, canceled: true, ..plain.clone() });

    out.clear();
    response::watch_compacted(&mut out, &FROM, 3, 8);
    let header = Some(FROM.header(0));
    agrees(
        &out,
        &WatchResponse {
            header,
            watch_id: 3,
            canceled: true,
            compact_revision: 8,
            ..plain.clone()
        },
    );

    out.clear();
    response::watch_progress(&mut out, &FROM, 9, -1);
    agrees(&out, &WatchResponse { watch_id: -1, ..plain });
}

#[test]
fn leases_are_told_in_seconds() {
    let keep_alive = |ttl_ms| response::lease_keep_alive(&FROM, 7, 5, ttl_ms).ttl;
    assert_eq!([0, 1, 999, 1_000, 1_001, 60_000].map(keep_alive), [0, 1, 1, 1, 2, 60]);
    let keys: [&[u8]; 2] = [b"a", b"b"];
    let page = |keys| LeaseTimeToLiveReply {
        revision: 4,
        granted_ms: 5_000,
        left_ms: 1_999,
        key_count: 2,
        more: false,
        keys: wire::Keys::Given(keys),
    };
    let told = response::lease_time_to_live(&FROM, 7, &[page(&keys[..1]), page(&keys[1..])]);
    assert_eq!((told.id, told.ttl, told.granted_ttl), (7, 1, 5));
    assert_eq!(told.keys, keys);
    assert_eq!(told.header, Some(FROM.header(4)));
    let absent = LeaseTimeToLiveReply { revision: 4, ..LeaseTimeToLiveReply::default() };
    let told = response::lease_time_to_live(&FROM, 7, &[absent]);
    assert_eq!((told.id, told.ttl, told.granted_ttl), (7, -1, 0));
    assert_eq!(told.header, Some(FROM.header(4)));
    let page =
        |numbers| LeaseListReply { revision: 6, more: false, leases: Numbers::Given(numbers) };
    let told = response::leases(&FROM, &[page(&[1, 2]), page(&[3])]);
    assert_eq!(told.leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [1, 2, 3]);
}

#[test]
fn a_member_that_has_not_started_has_neither_name_nor_client_urls() {
    let member = |id, data_id, role| Member {
        id: NodeId::new(id),
        name: format!("n{id}"),
        peer_address: format!("p{id}:1"),
        client_address: format!("c{id}:1"),
        data_id: FileId::new(data_id),
        role,
    };
    // The third does not vote yet, and refuses what clients ask.
    let members = vec![
        member(1, 5, MemberRole::Voter),
        member(2, 0, MemberRole::Learner),
        member(3, 7, MemberRole::Promotable),
    ];
    let list = MemberList { next_member: 4, members };
    let told = response::member_add(&FROM, NodeId::new(2), &list);
    assert_eq!(told.header, Some(FROM.header(0)));
    assert_eq!((told.members[0].name.as_str(), told.members[0].is_learner), ("n1", false));
    assert_eq!(told.members[0].client_urls, ["http://c1:1"]);
    let third = &told.members[2];
    assert_eq!((third.name.as_str(), third.client_urls.len(), third.is_learner), ("", 0, false));
    let added = told.member.expect("it is in the list");
    assert_eq!((added.id, added.name.as_str(), added.is_learner), (2, "", true));
    assert_eq!(added.peer_urls, ["http://p2:1"]);
    assert!(added.client_urls.is_empty());
}

#[test]
fn the_state_of_a_member_names_a_missing_leader_and_alarms() {
    let up = [
        Alarm { kind: AlarmKind::NoSpace, member: NodeId::new(0) },
        Alarm { kind: AlarmKind::NoSpace, member: NodeId::new(9) },
        Alarm { kind: AlarmKind::Corrupt, member: NodeId::new(9) },
    ];
    let reply = StatusReply {
        member: NodeId::new(9),
        term: 3,
        committed_index: 8,
        applied_index: 7,
        revision: 6,
        file_size: u64::MAX,
        no_space: true,
        alarms: Alarms::Given(&up),
        errors: Texts::Given(&["disk"]),
        ..StatusReply::default()
    };
    let told = response::status(&FROM, &reply, "3.7.0", "3.7.0");
    let raised = ["alarm:NOSPACE", "memberID:9 alarm:NOSPACE", "memberID:9 alarm:CORRUPT"];
    assert_eq!(told.errors, [&["etcdserver: no leader"][..], &raised, &["disk"]].concat());
    assert_eq!((told.raft_index, told.raft_applied_index, told.raft_term), (8, 7, 3));
    assert_eq!((told.db_size, told.header), (i64::MAX, Some(FROM.header(6))));
    let member = |member_id, kind: AlarmType| AlarmMember { member_id, alarm: kind.into() };
    let all = [
        member(0, AlarmType::NoSpace),
        member(9, AlarmType::NoSpace),
        member(9, AlarmType::Corrupt),
    ];
    for (asked, alarms) in [
        (None, &all[..]),
        (Some(AlarmKind::NoSpace), &all[..2]),
        (Some(AlarmKind::Corrupt), &all[2..]),
    ] {
        let told = response::alarms(&FROM, 6, &reply.alarms, asked);
        assert_eq!((&told.alarms[..], told.header), (alarms, Some(FROM.header(6))));
    }
}
