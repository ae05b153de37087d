//! Frames: cutting a stream, limits before buffering, and broken headers.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use base::RequestId;
use bytes::BytesMut;
use support::*;
use wire::{
    COPY_OUT_SIZE_MAX, Call, DecodeError, HANDSHAKE_BODY_SIZE_MAX, HEADER_SIZE, Header, Kind, Put,
    Splitter, Status,
};

fn splitter() -> Splitter {
    let mut splitter = Splitter::new();
    splitter.agree(1, 2 << 20);
    splitter
}

#[test]
fn a_stream_is_cut_into_the_same_frames_wherever_the_reads_end() {
    let mut prng = prng("splitter");
    let pool = pool(&mut prng);
    for _ in 0..scaled(300) {
        let mut stream = Vec::new();
        let mut bodies = Vec::new();
        for _ in 0..prng.below(20) {
            let txn = txn(&mut prng, &pool, 1);
            let bytes = frame(&call(&mut prng, &pool, &txn));
            bodies.push(bytes[HEADER_SIZE..].to_vec());
            stream.extend_from_slice(&bytes);
        }
        let mut splitter = splitter();
        let mut buffer = BytesMut::new();
        let mut found = Vec::new();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let count = (1 + below(&mut prng, 300)).min(rest.len());
            let (now, later) = rest.split_at(count);
            rest = later;
            buffer.extend_from_slice(now);
            while let Some((header, body)) = splitter.next(&mut buffer).unwrap() {
                assert_eq!(header.request, RequestId::new(7));
                found.push(body.to_vec());
            }
        }
        assert!(buffer.is_empty());
        assert_eq!(found, bodies);
    }
}

#[test]
fn missing_bytes_are_told_exactly() {
    let bytes = frame(&Call::Put(Put::new(b"key", &[1; 500])));
    let splitter = splitter();
    for count in 0..HEADER_SIZE {
        assert_eq!(splitter.missing(&bytes[..count]), HEADER_SIZE - count);
    }
    for count in HEADER_SIZE..bytes.len() {
        assert_eq!(splitter.missing(&bytes[..count]), bytes.len() - count);
    }
}

#[test]
fn small_bodies_are_copied_out_and_great_ones_are_slices() {
    let small = frame(&Call::Put(Put::new(b"key", b"value")));
    let great = frame(&Call::Put(Put::new(b"key", &[1; COPY_OUT_SIZE_MAX])));
    let mut buffer = BytesMut::new();
    buffer.extend_from_slice(&great);
    buffer.extend_from_slice(&small);
    let within = buffer.as_ptr_range();
    let mut splitter = splitter();
    let (_, body) = splitter.next(&mut buffer).unwrap().unwrap();
    assert!(within.contains(&body.as_ptr()), "a great body is a slice of what was read");
    let (_, body) = splitter.next(&mut buffer).unwrap().unwrap();
    assert!(!within.contains(&body.as_ptr()), "a small body is a copy");
}

/// The limit holds as soon as the header is there: nothing of the body is waited for.
#[test]
fn a_body_over_the_limit_of_the_state_is_refused_by_its_header_alone() {
    let bytes = frame(&Call::Put(Put::new(b"key", &[1; HANDSHAKE_BODY_SIZE_MAX])));
    let mut buffer = BytesMut::from(&bytes[..HEADER_SIZE]);
    let mut splitter = Splitter::new();
    let size = bytes.len() - HEADER_SIZE;
    let expected = DecodeError::BodyTooLarge { size, size_max: HANDSHAKE_BODY_SIZE_MAX };
    assert_eq!(splitter.next(&mut buffer).unwrap_err(), expected);
    assert_eq!((expected.status(), expected.closes()), (Status::TooLarge, true));
    assert_eq!(splitter.missing(&buffer), 1, "nobody makes room for what is not accepted");
    // The stream stays broken.
    let mut whole = BytesMut::from(&bytes[..]);
    assert_eq!(splitter.next(&mut whole).unwrap_err(), expected);

    let mut whole = BytesMut::from(&bytes[..]);
    let mut splitter = Splitter::new();
    splitter.agree(1, size);
    assert!(splitter.next(&mut whole).unwrap().is_some());
}

#[test]
fn another_protocol_is_noticed_from_its_first_two_bytes() {
    let mut buffer = BytesMut::from(&b"GE"[..]);
    let error = Splitter::new().next(&mut buffer).unwrap_err();
    assert_eq!(error, DecodeError::BadMagic { found: *b"GE" });
    let mut buffer = BytesMut::from(&b"Q"[..]);
    assert_eq!(Splitter::new().next(&mut buffer).unwrap(), None);
}

#[test]
fn every_flipped_bit_of_a_frame_is_noticed() {
    let bytes = frame(&Call::Put(Put::new(b"key", b"value")));
    for bit in 0..bytes.len() * 8 {
        let mut broken = bytes.clone();
        broken[bit / 8] ^= 1 << (bit % 8);
        let mut buffer = BytesMut::from(&broken[..]);
        // A flipped size may ask for more bytes than are there.
        match splitter().next(&mut buffer) {
            Ok(frame) => assert_eq!((frame, bit / 64), (None, 1), "bit {bit} went unnoticed"),
            Err(error) => assert!(error.closes(), "{error}"),
        }
    }
}

#[test]
fn every_field_of_a_header_is_checked() {
    let bytes = frame(&Call::Put(Put::new(b"key", b"value")));
    let head = *bytes.first_chunk::<HEADER_SIZE>().unwrap();
    let decode = |change: &dyn Fn(&mut [u8; HEADER_SIZE])| {
        let mut head = head;
        change(&mut head);
        Header::decode(&head)
    };
    assert!(decode(&|_| {}).is_ok());
    assert_eq!(
        decode(&|head| head[0] = b'X').unwrap_err(),
        DecodeError::BadMagic { found: *b"XR" }
    );
    assert_eq!(decode(&|head| head[2] = 9).unwrap_err(), DecodeError::BadVersion { found: 9 });
    assert_eq!(
        decode(&|head| head[3] = 0x6f).unwrap_err(),
        DecodeError::UnknownKind { number: 0x6f }
    );
    assert_eq!(decode(&|head| head[4] = 8).unwrap_err(), DecodeError::ReservedBits);
    assert_eq!(
        decode(&|head| head[7] = 1).unwrap_err(),
        DecodeError::UnknownStatus { number: 256 }
    );
    assert_eq!(decode(&|head| head[31] = 1).unwrap_err(), DecodeError::ReservedBits);
}

#[test]
fn a_body_whose_size_is_no_multiple_of_8_is_refused() {
    let mut bytes = frame(&Call::Put(Put::new(b"key", b"value")));
    bytes[8] += 4;
    let mut buffer = BytesMut::from(&bytes[..]);
    let error = splitter().next(&mut buffer).unwrap_err();
    assert!(matches!(error, DecodeError::BodyUnaligned { .. }));
}

#[test]
fn arbitrary_bytes_never_panic_the_splitter() {
    let mut prng = prng("arbitrary streams");
    for _ in 0..scaled(20_000) {
        let mut bytes = vec![0; below(&mut prng, 200)];
        prng.fill(&mut bytes);
        if prng.one_in(2) && bytes.len() >= 4 {
            bytes[..4].copy_from_slice(b"QR\x01\x10");
        }
        let mut buffer = BytesMut::from(&bytes[..]);
        let mut splitter = splitter();
        while let Ok(Some(_)) = splitter.next(&mut buffer) {}
        let _ = splitter.missing(&buffer);
    }
}

#[test]
fn clients_and_members_are_refused_on_each_others_connections_by_the_header_alone() {
    let header = |kind| {
        let header = Header {
            version: 1,
            kind,
            flags: wire::Flags::NONE,
            status: Status::Ok,
            body_size: 0,
            request: RequestId::new(0),
            deadline_ms: 0,
        };
        // Of the frame only the header has come.
        let mut bytes = header.encode(&[]);
        bytes[8] = 8;
        BytesMut::from(&bytes[..])
    };
    for &kind in Kind::ALL {
        let between_members = Splitter::between_members().next(&mut header(kind));
        let between_client_and_member = Splitter::new().next(&mut header(kind));
        let (taken, refused) = if kind.is_peer() {
            (between_members, between_client_and_member)
        } else {
            (between_client_and_member, between_members)
        };
        assert_eq!(taken, Ok(None));
        let expected = DecodeError::UnexpectedKind { kind };
        assert_eq!(refused, Err(expected));
        assert_eq!((expected.status(), expected.closes()), (Status::ProtocolError, true));
    }
}

#[test]
fn numbers_of_kinds_and_statuses_are_unique_and_replies_follow_their_requests() {
    for kind in Kind::ALL {
        assert_eq!(Kind::try_from(kind.number()), Ok(*kind));
        let has_reply = kind.is_request() && !matches!(kind, Kind::Cancel | Kind::WatchProgress);
        if has_reply {
            let reply = Kind::try_from(kind.number() + 0x80).unwrap();
            assert_eq!(format!("{reply:?}"), format!("{kind:?}Reply"));
        }
    }
    for status in Status::ALL {
        assert_eq!(Status::try_from(status.number()), Ok(*status));
    }
}
