//! One line that says what a log entry does.

use base::Stamp;
use node::EntryKind;
use wire::{
    AlarmChange, DecodeError, Kind, Member, MemberList, OpView, Request, TxnView, VerifyLimits,
};

use crate::error::RecordFault;

/// Bytes of a key that are shown.
const KEY_SHOWN: usize = 64;

/// Operations of a transaction that are shown.
const OPS_SHOWN: usize = 8;

/// Name of the kind of an entry and what it does.
///
/// # Errors
/// It cannot be understood.
pub(crate) fn summary(kind: u8, payload: &[u8]) -> Result<(&'static str, String), RecordFault> {
    let (kind, stamp, payload) = EntryKind::of(kind, payload).ok_or(RecordFault::Kind(kind))?;
    let request = |kind| {
        let mut text = verified(kind, payload).map_err(RecordFault::Payload)?;
        if let Some(Stamp { client, sequence, .. }) = stamp {
            text.push_str(&format!(", write {sequence} of client {}", client.get()));
        }
        Ok(text)
    };
    let request_behind_time = |kind| {
        let body = payload.get(8..).unwrap_or_default();
        verified(kind, body).map_err(RecordFault::Payload)
    };
    Ok(match kind {
        EntryKind::Empty => ("empty", String::new()),
        EntryKind::Put => ("put", request(Kind::Put)?),
        EntryKind::DeleteRange => ("delete", request(Kind::DeleteRange)?),
        EntryKind::Txn => ("txn", request(Kind::Txn)?),
        EntryKind::Compact => ("compact", request(Kind::Compact)?),
        EntryKind::Members => ("members", members(payload)?),
        EntryKind::Register => ("register", String::new()),
        EntryKind::PutWithTtl => ("put", format!("{} ttl", request_behind_time(Kind::Put)?)),
        EntryKind::LeaseGrant => ("lease grant", request_behind_time(Kind::LeaseGrant)?),
        EntryKind::LeaseRevoke => ("lease revoke", request(Kind::LeaseRevoke)?),
        EntryKind::LeaseKeepAlive => {
            ("lease keep-alive", format!("{} leases", payload.len().saturating_sub(8) / 8))
        }
        EntryKind::LeaseExpire => ("lease expire", expiry(payload)),
        EntryKind::LogTime => ("log time", String::new()),
        EntryKind::Alarm => ("alarm", request(Kind::Alarm)?),
    })
}

/// Which lease an entry ends.
fn expiry(payload: &[u8]) -> String {
    let lease = payload.get(8..).and_then(<[u8]>::first_chunk);
    lease.map_or_else(String::new, |lease| format!("{:016x}", i64::from_le_bytes(*lease)))
}

fn members(payload: &[u8]) -> Result<String, RecordFault> {
    let list = MemberList::decode(payload).map_err(RecordFault::Members)?;
    let member = |member: &Member| {
        format!("{}={}@{} {:?}", member.id.get(), member.name, member.peer_address, member.role)
    };
    Ok(list.members.iter().map(member).collect::<Vec<_>>().join(", "))
}

fn verified(kind: Kind, payload: &[u8]) -> Result<String, DecodeError> {
    Ok(match Request::verify(kind, payload, &VerifyLimits::REQUEST)? {
        Request::Put(view) => put(&view),
        Request::DeleteRange(view) => delete(&view),
        Request::Txn(view) => txn(&view),
        Request::Compact(view) => {
            let physical = if view.physical { " physical" } else { "" };
            format!("compact revision {}{physical}", view.revision)
        }
        Request::LeaseGrant(grant) => format!("{:016x} ttl {} ms", grant.lease, grant.ttl_ms),
        Request::LeaseRevoke(revoke) => format!("{:016x}", revoke.lease),
        Request::Alarm(AlarmChange { disarm, kind, member }) => {
            let verb = if disarm { "disarm" } else { "raise" };
            format!("{verb} {} of member {}", kind.name(), member.get())
        }
        Request::Range(_)
        | Request::Watch(_)
        | Request::WatchProgress
        | Request::LeaseKeepAlive(_)
        | Request::LeaseTimeToLive(_)
        | Request::LeaseList(_)
        | Request::Status
        | Request::Limits
        | Request::Snapshot
        | Request::Register
        | Request::Hello(_)
        | Request::Ping
        | Request::Cancel
        | Request::MemberList
        | Request::MemberChange(_)
        | Request::MoveLeader(_) => unreachable!("{kind:?} is none of these"),
    })
}

/// A key between quotes, cut short where it is long.
fn key(key: &[u8]) -> String {
    match key.get(..KEY_SHOWN) {
        Some(begin) if begin.len() < key.len() => {
            format!("\"{}\"... ({} bytes)", begin.escape_ascii(), key.len())
        }
        Some(_) | None => format!("\"{}\"", key.escape_ascii()),
    }
}

fn range(name: &str, first: &[u8], range_end: &[u8]) -> String {
    match range_end {
        [] => format!("{name} key={}", key(first)),
        [0] => format!("{name} from={}", key(first)),
        end => format!("{name} from={} to={}", key(first), key(end)),
    }
}

fn put(view: &wire::Put<'_>) -> String {
    let mut text = format!("put key={}", key(view.key));
    if view.ignore_value {
        text.push_str(" ignore_value");
    } else {
        text.push_str(&format!(" value {} bytes", view.value.len()));
    }
    if view.lease != 0 {
        text.push_str(&format!(" lease={:x}", view.lease));
    }
    if view.ignore_lease {
        text.push_str(" ignore_lease");
    }
    if view.prev_kv {
        text.push_str(" prev_kv");
    }
    text
}

fn delete(view: &wire::DeleteRange<'_>) -> String {
    let mut text = range("delete", view.key, view.range_end);
    if view.prev_kv {
        text.push_str(" prev_kv");
    }
    text
}

/// Nested transactions are only counted: what they do is in none of the lists shown.
fn txn(view: &TxnView<'_>) -> String {
    let mut text = format!("if {} compares then ", view.compares().len());
    text.push_str(&ops(view.success()));
    if view.failure().len() > 0 {
        text.push_str(" else ");
        text.push_str(&ops(view.failure()));
    }
    text
}

fn ops<'a>(list: impl ExactSizeIterator<Item = OpView<'a>>) -> String {
    let count = list.len();
    let shown = list.take(OPS_SHOWN).map(|op| match op {
        OpView::Put(view) => put(&view),
        OpView::DeleteRange(view) => delete(&view),
        OpView::Range(view) => range("range", view.key, view.range_end),
        OpView::Txn(view) => {
            let (success, failure) = (view.success().len(), view.failure().len());
            format!("txn of {success} or {failure} operations")
        }
    });
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if count > OPS_SHOWN {
        text.push_str(&format!(", and {} more", count - OPS_SHOWN));
    }
    format!("[{text}]")
}

#[cfg(test)]
mod tests {
    use base::RequestId;
    use wire::{Call, HEADER_SIZE, RequestEncoder, Txn};

    use super::*;

    fn body(call: Call<'_>) -> Vec<u8> {
        let mut frame = Vec::new();
        let encoder = RequestEncoder::new();
        encoder.encode(&mut frame, RequestId::new(1), 0, &call).unwrap();
        frame.split_off(HEADER_SIZE)
    }

    #[test]
    fn every_kind_has_a_line() {
        let put = wire::Put::new(b"a\n", &[0; 256]);
        let (name, text) = summary(1, &body(Call::Put(put))).unwrap();
        assert_eq!((name, text.as_str()), ("put", "put key=\"a\\n\" value 256 bytes"));
        let delete = wire::DeleteRange::between(b"a", b"b");
        let (name, text) = summary(2, &body(Call::DeleteRange(delete))).unwrap();
        assert_eq!((name, text.as_str()), ("delete", "delete from=\"a\" to=\"b\""));
        let all = wire::DeleteRange::between(b"a", &[0]);
        let txn = Txn::new().then(wire::Op::Put(put)).otherwise(wire::Op::DeleteRange(all));
        let (name, text) = summary(3, &body(Call::Txn(&txn))).unwrap();
        let wanted =
            "if 0 compares then [put key=\"a\\n\" value 256 bytes] else [delete from=\"a\"]";
        assert_eq!((name, text.as_str()), ("txn", wanted));
        let compact = wire::Compact { revision: 7, physical: true };
        let (name, text) = summary(4, &body(Call::Compact(compact))).unwrap();
        assert_eq!((name, text.as_str()), ("compact", "compact revision 7 physical"));
        assert_eq!(summary(0, b"").unwrap(), ("empty", String::new()));
    }

    #[test]
    fn long_keys_are_cut_and_nonsense_is_named() {
        let put = wire::Put::new(&[b'k'; 100], b"");
        let (_, text) = summary(1, &body(Call::Put(put))).unwrap();
        assert!(text.contains("... (100 bytes)"), "{text}");
        assert_eq!(summary(99, b""), Err(RecordFault::Kind(99)));
        assert!(matches!(summary(1, b"nonsense"), Err(RecordFault::Payload(_))));
    }
}
