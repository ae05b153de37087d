//! A request frame that is made once and then only patched: key, value, request id, checksum.
//!
//! All requests of one kind in a run have the same shape, because keys and values have fixed
//! sizes. Encoding each anew would cost more than everything else that is done per operation:
//!
//! ```text
//!   | header | ... | key number 000000000000 | ... | value | ... |     copied as a whole, then
//!      ^id, crc            ^ patched                  ^ patched        patched in the send buffer
//! ```
//!
//! Where the key and the value stand is not assumed but found: the request is encoded with
//! different keys and values, and the bytes that differ are theirs.

use base::RequestId;
use wire::{EncodeError, HEADER_SIZE, Header};

/// A frame and what of it changes from one request to the next.
#[derive(Clone, Debug)]
pub struct Template {
    /// A whole frame, its checksum wrong.
    frame: Vec<u8>,
    header: Header,
    key_size: usize,
    /// Where the bytes of the key stand, as often as the request names it.
    keys_at: Vec<usize>,
    /// Where the value stands, if it has one.
    value_at: Option<usize>,
}

impl Template {
    /// The template of what `encode` makes: a whole frame that names a key as long as `blank` at
    /// least once and a value of `value_size` bytes at most once. What differs between two frames
    /// must be exactly those bytes. In the template the key is `blank`.
    ///
    /// # Errors
    /// The request cannot be encoded.
    pub fn new(
        blank: &[u8],
        value_size: usize,
        encode: impl Fn(&[u8], &[u8]) -> Result<Vec<u8>, EncodeError>,
    ) -> Result<Self, EncodeError> {
        let key_size = blank.len();
        let (low, high) = (vec![0x55_u8; key_size], vec![0xaa_u8; key_size]);
        let (value_low, value_high) = (vec![0x55_u8; value_size], vec![0xaa_u8; value_size]);
        let mut frame = encode(&low, &value_low)?;
        let keys_at = differences(&frame, &encode(&high, &value_low)?, key_size);
        let values_at = differences(&frame, &encode(&low, &value_high)?, value_size);
        assert!(!keys_at.is_empty(), "every operation names a key");
        assert!(values_at.len() <= 1, "an operation has at most one value");
        for at in &keys_at {
            frame[HEADER_SIZE + at..][..key_size].copy_from_slice(blank);
        }
        let bytes = frame.first_chunk().expect("a frame begins with a header");
        let header = Header::decode(bytes).expect("it has just been encoded");
        Ok(Self { frame, header, key_size, keys_at, value_at: values_at.first().copied() })
    }

    /// Appends a frame to `out` with request id `request`. `write_key` is handed the bytes of the
    /// blank key to fill in; `value` must have the template's value size and is not used by a request
    /// without a value.
    #[inline]
    pub fn append(
        &self,
        out: &mut Vec<u8>,
        request: u64,
        value: &[u8],
        mut write_key: impl FnMut(&mut [u8]),
    ) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        let (head, body) = out[start..].split_at_mut(HEADER_SIZE);
        for at in &self.keys_at {
            write_key(&mut body[*at..*at + self.key_size]);
        }
        if let Some(at) = self.value_at {
            body[at..at + value.len()].copy_from_slice(value);
        }
        let header = Header { request: RequestId::new(request), ..self.header };
        head.copy_from_slice(&header.encode(body));
    }
}

/// Where in the bodies of two frames the runs of `size` bytes begin in which they differ.
fn differences(a: &[u8], b: &[u8], size: usize) -> Vec<usize> {
    assert_eq!(a.len(), b.len(), "equal sizes make frames of equal sizes");
    let (a, b) = (&a[HEADER_SIZE..], &b[HEADER_SIZE..]);
    let mut found: Vec<usize> = Vec::new();
    for at in 0..a.len() {
        let inside = found.last().is_some_and(|start| at < start + size);
        if inside {
            assert_ne!(a[at], b[at], "byte {at}: a run of {size} bytes differs throughout");
        } else if a[at] != b[at] {
            found.push(at);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use wire::{Call, Compare, Op, Put, Range, Request, RequestEncoder, Txn, VerifyLimits};

    use super::*;

    fn encode(call: &Call<'_>) -> Result<Vec<u8>, EncodeError> {
        let mut out = Vec::new();
        RequestEncoder::new().encode(&mut out, RequestId::new(1), 0, call)?;
        Ok(out)
    }

    fn patched(template: &Template, request: u64, key: &[u8], value: &[u8]) -> Vec<u8> {
        let mut out = b"before".to_vec();
        template.append(&mut out, request, value, |bytes| bytes.copy_from_slice(key));
        assert!(out.starts_with(b"before"));
        out.split_off(6)
    }

    fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Put<'a> {
        Put { key, value, ..Put::default() }
    }

    fn txn<'a>(key: &'a [u8], value: &'a [u8]) -> Txn<'a> {
        Txn {
            compares: vec![Compare { key, ..Compare::default() }],
            success: vec![Op::Put(put(key, value))],
            failure: vec![Op::Range(Range { key, range_end: b"end", ..Range::default() })],
        }
    }

    #[test]
    fn a_patched_frame_is_what_the_encoder_makes() {
        for (key, value) in [(&b"k"[..], &b""[..]), (b"k", b"v"), (b"key:0042", &[7; 300])] {
            let template = Template::new(&vec![0; key.len()], value.len(), |k, v| {
                encode(&Call::Put(put(k, v)))
            })
            .expect("encoded");
            let frame = patched(&template, 1, key, value);
            assert_eq!(frame, encode(&Call::Put(put(key, value))).expect("encoded"));
        }
    }

    #[test]
    fn what_is_not_written_of_a_key_is_the_blank_one() {
        let template = Template::new(b"key:000", 1, |k, v| encode(&Call::Put(put(k, v))));
        let mut out = Vec::new();
        template.expect("made").append(&mut out, 1, b"v", |bytes| bytes[6] = b'7');
        assert_eq!(out, encode(&Call::Put(put(b"key:007", b"v"))).expect("encoded"));
    }

    #[test]
    fn every_mention_of_the_key_is_patched() {
        let template =
            Template::new(b"____", 2, |k, v| encode(&Call::Txn(&txn(k, v)))).expect("made");
        let frame = patched(&template, 77, b"kkkk", b"vv");
        let header = Header::decode(frame.first_chunk().expect("header")).expect("decoded");
        let body = &frame[HEADER_SIZE..];
        Header::check(frame.first_chunk().expect("header"), body).expect("checksum");
        assert_eq!(header.request.get(), 77);
        let request = Request::verify(header.kind, body, &VerifyLimits::REQUEST).expect("valid");
        let Request::Txn(view) = request else { panic!("not a transaction") };
        assert_eq!(Txn::from(view), txn(b"kkkk", b"vv"));
    }

    #[test]
    fn a_value_that_the_server_does_not_take_is_an_error() {
        let made = Template::new(b"_", 1 << 20, |key, value| encode(&Call::Put(put(key, value))));
        assert!(matches!(made, Err(EncodeError::TooLarge { .. })));
    }
}
