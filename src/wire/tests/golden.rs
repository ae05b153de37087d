//! Pinned bytes: a frame of each kind that clients see, as version 1 has it. A change here breaks every client there
//! is. `GOLDEN=write cargo test -p wire --test golden` writes the file anew.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fmt::Write;

use base::{Alarm, AlarmKind, ClientId, NodeId, RequestId, Stamp};
use support::*;
use wire::{
    AlarmChange, AlarmReply, Alarms, Call, Cause, ChangeKind, Compact, Compare, CompareResult,
    CompareTarget, DeleteRange, Effect, Header, Hello, HelloReply, KeyValue, Keys, LeaderHint,
    LeaseGrant, LeaseGrantReply, LeaseKeepAlive, LeaseKeepAliveReply, LeaseList, LeaseListReply,
    LeaseRevoke, LeaseRevokeReply, LeaseTimeToLive, LeaseTimeToLiveReply, Limit, LimitUnit, Limits,
    MemberChange, MemberChangeReply, MemberListReply, MemberOperation, MoveLeader, MoveLeaderReply,
    Numbers, Op, Put, RaftRole, Range, RangeSummary, Refused, RegisterReply, Reply, ReplyWriter,
    SortOrder, SortTarget, Status, StatusReply, Texts, Txn, Watch, WatchChange, WatchRange,
    WatchRanges, WatchStep,
};

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/version_1.hex");

const ID: RequestId = RequestId::new(0x0102_0304_0506_0708);

const STAMP: Stamp = Stamp { client: ClientId::new(9), sequence: 41, floor: 40 };

const ALARMS: [Alarm; 2] = [
    Alarm { kind: AlarmKind::NoSpace, member: NodeId::new(9) },
    Alarm { kind: AlarmKind::Corrupt, member: NodeId::new(0) },
];

fn replies() -> Vec<(&'static str, Vec<u8>)> {
    let mut writer = ReplyWriter::new();
    let leader = LeaderHint { member: NodeId::new(2), address: "b:1" };
    let member = KeyValue {
        key: b"key",
        value: b"value",
        create_revision: 2,
        mod_revision: 3,
        version: 2,
        lease: 7,
    };
    let summary = RangeSummary { revision: 5, count: 2, more: true };
    let mut frames = Vec::new();
    let mut frame = |name, write: &mut dyn FnMut(&mut ReplyWriter, &mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut writer, &mut out);
        frames.push((name, out));
    };
    frame("hello reply", &mut |writer, out| {
        let reply = HelloReply {
            version: 1,
            cluster: 11,
            member: NodeId::new(1),
            requests_max: 1_024,
            bytes_max: 32 << 20,
            key_size_max: 2_048,
            value_size_max: 3 << 19,
            request_body_size_max: 1 << 21,
            reply_body_size_max: 18 << 20,
            leader,
        };
        writer.hello(out, ID, &reply);
    });
    frame("ping reply", &mut |writer, out| writer.ping(out, ID));
    frame("status reply", &mut |writer, out| {
        let reply = StatusReply {
            server_version: "0.1.0",
            cluster: 11,
            member: NodeId::new(1),
            leader: NodeId::new(2),
            term: 3,
            last_index: 4,
            committed_index: 5,
            applied_index: 6,
            revision: 7,
            compacted_revision: -1,
            file_size: 8,
            file_size_in_use: 9,
            log_size: 10,
            quota_size: 11,
            is_learner: true,
            no_space: false,
            corrupt: true,
            member_name: "a",
            role: RaftRole::Learner,
            errors: Texts::Given(&["no space", "e2"]),
            clients: 12,
            alarms: Alarms::Given(&ALARMS),
        };
        writer.status(out, ID, &reply);
    });
    frame("alarm reply", &mut |writer, out| {
        writer.alarm(out, ID, &AlarmReply { revision: 5, alarms: Alarms::Given(&ALARMS) });
    });
    frame("limits reply", &mut |writer, out| {
        let (name, unit) = ("watches", LimitUnit::Bytes);
        let one = Limit { name, limit: 2, used: 3, highest: 4, hits: 5, unit };
        writer.limits(out, ID, &Limits::Given(&[one, Limit::default()]));
    });
    frame("snapshot reply", &mut |writer, out| writer.snapshot(out, ID, b"chunk", false));
    frame("snapshot reply, piece", &mut |writer, out| writer.snapshot(out, ID, b"chunk", true));
    frame("put reply", &mut |writer, out| writer.put(out, ID, 5, None));
    frame("put reply, previous", &mut |writer, out| writer.put(out, ID, 5, Some(member)));
    frame("range reply, nothing", &mut |writer, out| writer.get(out, ID, 5, None));
    frame("range reply, one", &mut |writer, out| writer.get(out, ID, 5, Some(member)));
    frame("range reply, piece", &mut |writer, out| {
        let mut piece = writer.range(out, ID);
        let _ = piece.push(&member);
        let _ = piece.push(&KeyValue { key: b"key2", value: b"", ..member });
        piece.finish_piece(5);
    });
    frame("range reply, last piece", &mut |writer, out| writer.range(out, ID).finish(summary));
    frame("delete range reply", &mut |writer, out| {
        writer.delete_range(out, ID, 5, 1, [member]).unwrap();
    });
    frame("txn reply", &mut |writer, out| {
        let mut txn = writer.txn(out, ID, 5, true, 3);
        txn.put(5, None);
        txn.txn(false, 1);
        txn.delete_range(5, 0, []);
        txn.range(summary, [member]);
        txn.finish().unwrap();
    });
    frame("compact reply", &mut |writer, out| writer.compact(out, ID, 5));
    frame("member list reply", &mut |writer, out| {
        let reply = MemberListReply { members: b"members", leader: NodeId::new(2) };
        writer.member_list(out, ID, &reply);
    });
    frame("member change reply", &mut |writer, out| {
        let (member, leader) = (NodeId::new(4), NodeId::new(2));
        writer.member_change(out, ID, &MemberChangeReply { member, members: b"members", leader });
    });
    frame("move leader reply", &mut |writer, out| {
        writer.move_leader(out, ID, &MoveLeaderReply { leader: NodeId::new(3) });
    });
    frame("refused", &mut |writer, out| {
        let refused = Refused {
            retry_after_ms: 250,
            compacted_revision: 3,
            current_revision: 5,
            ..Refused::new(Status::Compacted).with_leader(leader).with_effect(Effect::Unknown)
        };
        writer.refused(out, ID, &refused);
    });
    frame("register reply", &mut |writer, out| {
        let (client, unanswered_max) = (ClientId::new(9), 256);
        writer.register(out, ID, &RegisterReply { client, unanswered_max });
    });
    frame("watch reply, created", &mut |writer, out| {
        writer.watch(out, ID).finish(WatchStep::Created, 5, false).unwrap();
    });
    frame("watch reply, changes", &mut |writer, out| {
        let mut watch = writer.watch(out, ID);
        watch.push(&WatchChange { kv: member, previous: Some(member), ..WatchChange::default() });
        watch.push(&WatchChange {
            kind: ChangeKind::Delete,
            cause: Cause::Expired,
            sub: 1,
            kv: KeyValue { key: b"k", mod_revision: 3, ..KeyValue::default() },
            previous: None,
        });
        watch.finish(WatchStep::Changes, 3, true).unwrap();
    });
    frame("watch reply, read", &mut |writer, out| {
        let mut watch = writer.watch_read(out, ID, 9);
        watch.push(&WatchChange { kv: member, ..WatchChange::default() });
        watch.finish(WatchStep::Changes, 3, false).unwrap();
    });
    frame("lease grant reply", &mut |writer, out| {
        writer.lease_grant(out, ID, &LeaseGrantReply { revision: 5, lease: 7, ttl_ms: 9_000 });
    });
    frame("lease revoke reply", &mut |writer, out| {
        writer.lease_revoke(out, ID, &LeaseRevokeReply { revision: 5, deleted: 2 });
    });
    frame("lease keep alive reply", &mut |writer, out| {
        let ttls_ms = Numbers::Given(&[9_000, 0]);
        writer.lease_keep_alive(out, ID, &LeaseKeepAliveReply { revision: 5, ttls_ms });
    });
    frame("lease time to live reply", &mut |writer, out| {
        let reply = LeaseTimeToLiveReply {
            revision: 5,
            granted_ms: 9_000,
            left_ms: 8_000,
            key_count: 3,
            more: true,
            keys: Keys::Given(&[b"a", b"bc"]),
        };
        writer.lease_time_to_live(out, ID, &reply);
    });
    frame("lease list reply", &mut |writer, out| {
        let leases = Numbers::Given(&[7, 8]);
        writer.lease_list(out, ID, &LeaseListReply { revision: 5, more: true, leases });
    });
    frame("put reply, lease", &mut |writer, out| {
        writer.put_with_lease(out, ID, 5, Some(member), 7);
    });
    frame("put reply, repeated", &mut |writer, out| {
        writer.put(out, ID, 5, None);
        Header::mark_repeated(out);
    });
    frames
}

fn requests<'t>(txn: &'t Txn<'t>) -> Vec<(&'static str, Call<'t>)> {
    let range = Range {
        key: b"key",
        range_end: b"kez",
        limit: 10,
        revision: -1,
        sort_order: SortOrder::Descend,
        sort_target: SortTarget::ModRevision,
        serializable: true,
        keys_only: false,
        count_only: true,
        ..Range::default()
    };
    let hello = Hello { version_min: 1, version_max: 2, cluster: 11, client_name: "golden" };
    let change = MemberChange {
        operation: MemberOperation::Replace,
        member: NodeId::new(3),
        name: "d",
        peer_address: "d:2380",
        force: true,
    };
    vec![
        ("hello", Call::Hello(hello)),
        ("ping", Call::Ping),
        ("cancel", Call::Cancel),
        ("status", Call::Status),
        ("limits", Call::Limits),
        ("snapshot", Call::Snapshot),
        ("put", Call::Put(Put { lease: 7, prev_kv: true, ..Put::new(b"key", b"value") })),
        ("range", Call::Range(range)),
        ("range, bounds", Call::Range(Range { min_mod_revision: 4, ..range })),
        ("delete range", Call::DeleteRange(DeleteRange::between(b"key", &[0]))),
        ("txn", Call::Txn(txn)),
        ("compact", Call::Compact(Compact { revision: 9, physical: true })),
        ("member list", Call::MemberList),
        ("member change", Call::MemberChange(change)),
        (
            "alarm",
            Call::Alarm(AlarmChange {
                disarm: true,
                kind: AlarmKind::Corrupt,
                member: NodeId::new(3),
            }),
        ),
        ("move leader", Call::MoveLeader(MoveLeader { target: NodeId::new(3) })),
        ("register", Call::Register),
        (
            "watch",
            Call::Watch(Watch {
                ranges: WatchRanges::Given(&[WatchRange { key: b"a", range_end: b"b" }]),
                start_revision: 4,
                start_sub: 1,
                prev_kv: true,
                keys_only: true,
                no_put: false,
                no_delete: true,
                progress_interval_ms: 500,
            }),
        ),
        ("watch progress", Call::WatchProgress),
        ("lease grant", Call::LeaseGrant(LeaseGrant { lease: 7, ttl_ms: 9_000 })),
        ("lease revoke", Call::LeaseRevoke(LeaseRevoke { lease: 7 })),
        (
            "lease keep alive",
            Call::LeaseKeepAlive(LeaseKeepAlive { leases: Numbers::Given(&[7, -8]) }),
        ),
        (
            "lease time to live",
            Call::LeaseTimeToLive(LeaseTimeToLive {
                lease: 7,
                keys: true,
                after_key: b"a",
                limit: 9,
            }),
        ),
        ("lease list", Call::LeaseList(LeaseList { after_lease: 7, limit: 9 })),
        ("put, ttl", Call::Put(Put { ttl_ms: 9_000, ..Put::new(b"key", b"value") })),
        ("put, stamped", Call::Put(Put::new(b"key", b"value"))),
    ]
}

fn txn() -> Txn<'static> {
    let compare = Compare::number(b"key", CompareTarget::ModRevision, CompareResult::NotEqual, 12);
    Txn::new()
        .when(compare)
        .when(Compare::value(b"key", CompareResult::Less, b"value"))
        .then(Op::Put(Put::new(b"key", b"value")))
        .then(Op::Txn(Box::new(Txn::new().otherwise(Op::DeleteRange(DeleteRange::one(b"a"))))))
        .otherwise(Op::Range(Range::one(b"key")))
}

#[test]
fn every_kind_has_its_pinned_bytes() {
    let txn = txn();
    let requests = requests(&txn);
    let mut text = String::new();
    for (name, call) in &requests {
        let mut out = Vec::new();
        let stamp = name.ends_with("stamped").then_some(&STAMP);
        encoder().encode_with(&mut out, ID, 1_500, stamp, call).unwrap();
        write_line(&mut text, name, &out);
    }
    for (name, bytes) in replies() {
        write_line(&mut text, name, &bytes);
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

fn write_line(text: &mut String, name: &str, bytes: &[u8]) {
    write!(text, "{name}: ").unwrap();
    for byte in bytes {
        write!(text, "{byte:02x}").unwrap();
    }
    text.push('\n');
}

/// Reads what is pinned, not what is written now.
#[test]
fn pinned_frames_of_every_kind_are_still_understood() {
    let txn = txn();
    let requests = requests(&txn);
    let pinned = std::fs::read_to_string(PATH).unwrap();
    let mut kinds = Vec::new();
    for line in pinned.lines() {
        let (name, hex) = line.split_once(": ").unwrap();
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|index| u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).unwrap())
            .collect();
        let (header, body) = open(&bytes);
        assert_eq!(header.request, ID);
        kinds.push(header.kind);
        if header.kind.is_request() {
            let body = if header.flags.has_stamp() {
                let (stamp, message) = Stamp::split(body).unwrap();
                assert_eq!(stamp, STAMP);
                message
            } else {
                body
            };
            let (_, call) = requests.iter().find(|(known, _)| *known == name).unwrap();
            assert_same(&verify(header.kind, body).unwrap(), call);
        } else {
            Reply::verify(&header, body).unwrap();
        }
    }
    for kind in wire::Kind::ALL.iter().filter(|kind| !kind.is_peer()) {
        assert!(kinds.contains(kind), "no frame of {kind:?} is pinned");
    }
}
