//! From bytes to messages, within bounds: what is decoded takes no more memory than a small multiple of
//! its bytes. Nesting is bounded by prost.

use alloc::format;

use bytes::Bytes;
use prost::Message;

use crate::failure::{Code, Failure};
use crate::proto::kv::TxnRequest;

/// Conditions and operations of one transaction, those of nested ones included. More would be refused
/// anyway ([`wire::REQUEST_TABLES_MAX`]), but only after an operation of two bytes on the wire had
/// taken some two hundred in memory.
pub const TXN_ITEMS_MAX: usize = wire::REQUEST_TABLES_MAX;

/// Transactions inside each other that are looked into; prost refuses deeper ones.
const DEPTH_MAX: usize = 64;

/// Decodes a message of any kind but a transaction.
///
/// # Errors
///
/// The bytes are not such a message.
pub fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Failure> {
    M::decode(bytes).map_err(|error| {
        Failure::new(Code::Internal, format!("grpc: error unmarshalling request: {error}"))
    })
}

/// Decodes a transaction.
///
/// # Errors
///
/// The bytes are not a transaction, or it has more than [`TXN_ITEMS_MAX`] conditions and operations.
pub fn decode_txn(bytes: Bytes) -> Result<TxnRequest, Failure> {
    let mut items = 0;
    count_items(&bytes, 0, &mut items);
    if items > TXN_ITEMS_MAX { Err(Failure::TOO_MANY_OPS) } else { decode(bytes) }
}

/// Counts the members of the lists of a transaction and of those inside it, until there are too many.
/// What is malformed is not counted: decoding ends there.
fn count_items(txn: &[u8], depth: usize, items: &mut usize) {
    for (field, part) in Parts(txn) {
        if !(1..=3).contains(&field) {
            continue;
        }
        *items += 1;
        if *items > TXN_ITEMS_MAX || depth > DEPTH_MAX {
            return;
        }
        if field > 1 {
            let inner = Parts(part).filter(|(field, _)| *field == 4);
            inner.for_each(|(_, txn)| count_items(txn, depth + 1, items));
        }
    }
}

/// The fields of a message that have a length, up to its end or the first thing wrong.
struct Parts<'a>(&'a [u8]);

impl<'a> Iterator for Parts<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<(u64, &'a [u8])> {
        loop {
            let tag = varint(&mut self.0)?;
            let skipped = match tag & 7 {
                0 => {
                    varint(&mut self.0)?;
                    continue;
                }
                1 => 8,
                2 => varint(&mut self.0)?,
                5 => 4,
                _ => return None,
            };
            let (part, rest) = self.0.split_at_checked(usize::try_from(skipped).ok()?)?;
            self.0 = rest;
            if tag & 7 == 2 {
                return Some((tag >> 3, part));
            }
        }
    }
}

/// Takes a varint off.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if *byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::kv::{Compare, RangeRequest, RequestOp, RequestUnion};

    fn nested(depth: usize) -> TxnRequest {
        let mut txn = TxnRequest::default();
        for _ in 0..depth {
            let op = RequestOp { request: Some(RequestUnion::Txn(txn)) };
            txn = TxnRequest { success: vec![op], ..TxnRequest::default() };
        }
        txn
    }

    #[test]
    fn a_transaction_with_more_items_than_are_allowed_is_refused_before_it_is_decoded() {
        let txn = |compares, ops| TxnRequest {
            compare: vec![Compare::default(); compares],
            success: vec![RequestOp::default(); ops],
            failure: Vec::new(),
        };
        for (compares, ops) in [(TXN_ITEMS_MAX, 0), (0, TXN_ITEMS_MAX), (96, TXN_ITEMS_MAX - 96)] {
            let fits = txn(compares, ops);
            assert!(decode_txn(fits.encode_to_vec().into()) == Ok(fits), "{compares} {ops}");
            let too_many = txn(compares + 1, ops);
            let refused = decode_txn(too_many.encode_to_vec().into());
            assert!(refused == Err(Failure::TOO_MANY_OPS), "{compares} {ops}");
        }
    }

    #[test]
    fn items_of_nested_transactions_count() {
        let inner = TxnRequest {
            failure: vec![RequestOp::default(); TXN_ITEMS_MAX / 2],
            ..TxnRequest::default()
        };
        let op = RequestOp { request: Some(RequestUnion::Txn(inner)) };
        let outer = TxnRequest { success: vec![op.clone(), op], ..TxnRequest::default() };
        let refused = decode_txn(outer.encode_to_vec().into());
        assert_eq!(refused, Err(Failure::TOO_MANY_OPS));
    }

    #[test]
    fn a_nest_without_end_is_an_error_and_a_reasonable_one_is_not() {
        assert_eq!(decode_txn(nested(45).encode_to_vec().into()), Ok(nested(45)));
        let failure = decode_txn(nested(1_000).encode_to_vec().into()).expect_err("too deep");
        assert_eq!(failure.code, Code::Internal);
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error() {
        let failure = decode::<RangeRequest>(Bytes::from_static(&[10, 200])).expect_err("cut off");
        assert_eq!(failure.code, Code::Internal);
        let mut prng = base::Prng::new(7);
        for _ in 0..20_000 {
            let size = usize::try_from(prng.below(40)).expect("small");
            let mut bytes = vec![0; size];
            prng.fill(&mut bytes);
            // Whatever comes of it: no panic, and the counting never sees less than the decoder.
            if let Ok(txn) = decode_txn(bytes.clone().into()) {
                let mut items = 0;
                count_items(&bytes, 0, &mut items);
                assert!(txn.compare.len() + txn.success.len() + txn.failure.len() <= items);
            }
        }
    }
}
