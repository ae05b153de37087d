//! The pings of a connection of HTTP/2: who sends them without end is told to be calm, as gRPC's Go server does it.
//!
//! Hyper answers every ping and counts none, so the frames are followed on their way to it and from it. What they hold
//! is not looked at.

use std::time::{Duration, Instant};

/// What a client of HTTP/2 says first (RFC 9113, 3.4).
const PREFACE_SIZE: usize = 24;

/// Bytes in front of each frame (RFC 9113, 4.1).
const HEADER_SIZE: usize = 9;

// Kinds of frames and a flag (RFC 9113, 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
const ACK: u8 = 1;

/// Pings may be so close to each other, as etcd has it.
const INTERVAL_MIN: Duration = Duration::from_secs(5);

/// So many may be closer while nothing is sent to the client: it pings for other reasons when it gets something.
const STRIKES_MAX: u32 = 2;

/// GOAWAY for all streams that there may be, with ENHANCE_YOUR_CALM and the text that gRPC's clients look for.
pub const GOAWAY: &[u8] = b"\0\0\x16\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\x0btoo_many_pings";

/// Where one is in a row of frames.
struct Walk {
    header: [u8; HEADER_SIZE],
    /// Bytes of it that are known.
    known: usize,
    /// Bytes of the frame that are still to come.
    left: usize,
}

impl Walk {
    /// Behind so many bytes.
    fn behind(left: usize) -> Self {
        Self { header: [0; HEADER_SIZE], known: 0, left }
    }

    /// Whether a frame begins with the next byte.
    fn is_between(&self) -> bool {
        self.known == 0 && self.left == 0
    }

    /// Goes on; `seen` is told of each frame that begins: its kind and its flags.
    fn go_on(&mut self, mut bytes: &[u8], mut seen: impl FnMut(u8, u8)) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let count = self.left.min(bytes.len());
                self.left -= count;
                bytes = &bytes[count..];
                continue;
            }
            let count = (HEADER_SIZE - self.known).min(bytes.len());
            self.header[self.known..self.known + count].copy_from_slice(&bytes[..count]);
            self.known += count;
            bytes = &bytes[count..];
            if self.known == HEADER_SIZE {
                let [a, b, c, kind, flags, ..] = self.header;
                self.left = usize::try_from(u32::from_be_bytes([0, a, b, c])).expect("24 bits");
                self.known = 0;
                seen(kind, flags);
            }
        }
    }
}

/// What is known of the pings of a connection.
pub struct Pings {
    incoming: Walk,
    outgoing: Walk,
    last: Option<Instant>,
    strikes: u32,
    /// Something was sent since the last ping.
    has_sent: bool,
}

impl Pings {
    /// Of a connection from which nothing has been read.
    pub fn new() -> Self {
        let (incoming, outgoing) = (Walk::behind(PREFACE_SIZE), Walk::behind(0));
        Self { incoming, outgoing, last: None, strikes: 0, has_sent: false }
    }

    /// These bytes have come; whether there are too many pings among them.
    pub fn received(&mut self, bytes: &[u8], now: impl Fn() -> Instant) -> bool {
        let mut count = 0_u32;
        self.incoming.go_on(bytes, |kind, flags| {
            count = count.saturating_add(u32::from(kind == PING && flags & ACK == 0));
        });
        for _ in 0..count {
            let now = now();
            let is_early = self.last.is_some_and(|last| now < last + INTERVAL_MIN);
            self.last = Some(now);
            if std::mem::take(&mut self.has_sent) {
                self.strikes = 0;
            } else if is_early {
                self.strikes = self.strikes.saturating_add(1);
            }
            if self.strikes > STRIKES_MAX {
                return true;
            }
        }
        false
    }

    /// These bytes are sent.
    pub fn sent(&mut self, bytes: &[u8]) {
        let has_sent = &mut self.has_sent;
        self.outgoing.go_on(bytes, |kind, _| *has_sent |= matches!(kind, DATA | HEADERS));
    }

    /// Whether what was sent ends with a frame.
    pub fn is_between(&self) -> bool {
        self.outgoing.is_between()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8; PREFACE_SIZE] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const ONE: [u8; 17] = [0, 0, 8, PING, 0, 0, 0, 0, 0, PING, PING, PING, 0, 0, 0, 0, 0];
    const ANSWER: [u8; 10] = [0, 0, 1, DATA, 1, 0, 0, 0, 1, PING];

    #[test]
    fn a_few_pings_in_a_row_are_taken_and_more_only_behind_an_answer() {
        let start = Instant::now();
        let mut pings = Pings::new();
        assert!(!pings.received(PREFACE, || start));
        // In pieces as in one.
        for byte in ONE.repeat(3) {
            assert!(!pings.received(&[byte], || start));
        }
        for round in 0..9 {
            pings.sent(&ANSWER);
            assert!(pings.is_between());
            assert!(!pings.received(&ONE.repeat(3), || start), "{round}");
        }
        assert!(pings.received(&ONE, || start));
    }

    #[test]
    fn who_keeps_a_connection_alive_is_no_flood() {
        let start = Instant::now();
        let mut pings = Pings::new();
        pings.received(PREFACE, || start);
        for round in 0..100 {
            assert!(!pings.received(&ONE, || start + INTERVAL_MIN * round), "{round}");
        }
        // Nor is who answers the server's.
        let mut ack = ONE;
        ack[4] = ACK;
        assert!(!pings.received(&ack.repeat(100), || start));
        pings.sent(&ANSWER[..5]);
        assert!(!pings.is_between());
    }

    #[test]
    fn the_last_frame_is_as_long_as_it_says() {
        let mut walk = Walk::behind(0);
        let mut kinds = Vec::new();
        walk.go_on(GOAWAY, |kind, _| kinds.push(kind));
        assert!(walk.is_between() && kinds == [7], "{kinds:?}");
    }
}
