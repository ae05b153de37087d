//! `Range`: reads, however long their answers are.
//!
//! ```text
//! pieces ─► together no more than WHOLE_SIZE ─► one message
//!    │ more: measured and let go, while
//!    ▼
//! the same read once more, at the same revision ─► a piece of the message whenever the client has taken the last
//! ```
//!
//! A message of gRPC begins with its size, so a long one has to be measured before it is begun. For that it costs the
//! server two reads and no more memory than a few pieces, however slowly it is taken. The second one begins before the
//! first has ended, so that trimming leaves what both of them need, whatever is compacted meanwhile. Only a client that
//! takes nothing or too little for longer than trimming waits, or the end of the member, has it broken off: the client
//! is told that its request was not begun, and clients ask again.

use std::mem;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use etcd::proto::kv::RangeRequest;
use etcd::response::LongRange;
use etcd::shapes::Route;
use etcd::{Code, Failure, PREFIX_SIZE, Subject, begin_message, decode, json, request, response};
use hyper::{Response, StatusCode};
use wire::{Call, RangeReply, Reply};

use super::calls::Counted;
use super::deadline;
use super::grpc::{self, Messages, Sender, end_message, message_prefix};
use super::keys::next_part;
use super::native::{Answer, Pending};
use super::plain;
use super::service::{begin, gone, read, unexpected, within};
use super::unsent::Booking;
use super::{Link, Own, STOP_GRACE};

/// The path of its calls.
pub const METHOD: &str = "/etcdserverpb.KV/Range";

/// Bytes of an answer that is held whole until the client has taken it.
const WHOLE_SIZE: usize = 16 << 20;

/// Bytes of a part of a long one: each is memory of its own, so that what has been taken is free.
const PART_SIZE: usize = 64 << 10;

/// The answer to a read.
enum Read {
    /// The message, behind the room for its prefix.
    Whole(Vec<u8>),
    /// It has been measured, and is read again.
    Long(LongRange, Second),
}

/// What has been read of an answer.
enum Taken {
    /// All of it is held.
    Held(Vec<Answer>, Booking),
    /// It is too long for that.
    Measured(Second),
}

/// The second read of a long answer, on a connection of its own: a client that does not read holds up nothing else.
struct Second {
    own: Own,
    first: Answer,
    rest: Pending,
}

impl Second {
    /// Begins it beside the first one, which is at this revision.
    async fn begin(link: &Link, message: &RangeRequest, revision: i64) -> Result<Self, Failure> {
        let revision = if message.revision > 0 { message.revision } else { revision };
        let again = RangeRequest { revision, serializable: true, ..message.clone() };
        let own = link.open_for_one();
        let (rest, first) = begin(own.native(), 0, &Call::Range(request::range(&again)?)).await?;
        piece_of(&first)?;
        Ok(Self { own, first, rest })
    }
}

/// Answers a call, of the gateway at the path `route` or of gRPC.
///
/// # Errors
/// Why it is refused.
pub async fn serve(
    link: &Rc<Link>,
    route: Option<&'static Route>,
    timeout: Option<Duration>,
    mut messages: Messages,
) -> Result<Response<grpc::Reply>, Failure> {
    let form = messages.form();
    let begun = async |deadline_ms| {
        let message = link.gate.until_stop(STOP_GRACE, messages.next_one()).await?;
        let counted = Counted::begin(&link.gate, METHOD);
        counted.received(message.len());
        let answer = within(deadline_ms, answer(link, deadline_ms, message)).await;
        Ok((counted, answer))
    };
    let longest = link.gate.api.request_timeout_ms;
    let (mut counted, answer) = deadline::within(timeout, longest, begun).await?;
    let (long, second) = match answer {
        Ok(Read::Long(long, second)) => (long, second),
        Ok(Read::Whole(out)) => {
            counted.sent(out.len());
            counted.end(&Ok::<_, Failure>(()));
            return match route {
                None => Ok(grpc::unary(end_message(out), form)),
                Some(route) => {
                    let text = json::write(&out[PREFIX_SIZE..], route.answer)?;
                    Ok(plain::json(StatusCode::OK, text))
                }
            };
        }
        Err(failure) => {
            let end = Err(failure);
            counted.end(&end);
            return end;
        }
    };
    let prefix = message_prefix(long.size())?;
    let (mut response, sender) = grpc::streaming(form.in_parts());
    grpc::limit(&mut response, timeout);
    let link = Rc::clone(link);
    glommio::spawn_local(async move {
        counted.sent(long.size());
        if route.is_none() {
            sender.send(Bytes::copy_from_slice(&prefix));
        }
        let end = link.gate.until_stop(STOP_GRACE, write(second, &long, route, &sender)).await;
        counted.end(&end);
        match end {
            Ok(()) => sender.end(Ok(())),
            Err(_) => sender.break_off(),
        }
    })
    .detach();
    Ok(response)
}

/// Reads until compaction has not overtaken it, unless it is for a revision that was named.
async fn answer(link: &Rc<Link>, deadline_ms: u32, message: Bytes) -> Result<Read, Failure> {
    let message: RangeRequest = decode(message)?;
    if link.is_learner() && !message.serializable {
        return Err(Failure::NOT_FOR_LEARNER);
    }
    loop {
        match read_once(link, deadline_ms, &message).await {
            Err(failure) if failure == Failure::COMPACTED && message.revision <= 0 => {}
            answer => return answer,
        }
    }
}

/// Reads once: all of the answer, or how long it is.
async fn read_once(
    link: &Rc<Link>,
    deadline_ms: u32,
    message: &RangeRequest,
) -> Result<Read, Failure> {
    let call = Call::Range(request::range(message)?);
    let (mut pending, mut answer) = begin(&link.native, deadline_ms, &call).await?;
    // A piece of each is in memory, so there are only so many at once; who waits holds none.
    let places = &link.gate.long_reads;
    let _place = if !answer.has_more() {
        None
    } else if let Ok(place) = places.try_acquire_static_permit(1) {
        Some(place)
    } else {
        drop((pending, answer));
        let place = places.acquire_static_permit(1).await.ok();
        (pending, answer) = begin(&link.native, deadline_ms, &call).await?;
        place
    };
    let mut keys_size = 0;
    let mut taken = Taken::Held(Vec::new(), Booking::new(&link.account));
    loop {
        let piece = piece_of(&answer)?;
        keys_size += response::keys_size(&piece);
        let is_last = !answer.has_more();
        let is_long = keys_size > WHOLE_SIZE || link.account.is_crowded();
        if let Taken::Held(answers, _) = &taken
            && !(is_last && answers.is_empty())
            && is_long
        {
            taken = Taken::Measured(Second::begin(link, message, piece.revision).await?);
        }
        let end = is_last.then(|| LongRange::new(&link.answerer(), keys_size, &piece));
        if let Taken::Held(answers, booking) = &mut taken {
            booking.add(answer.size());
            answers.push(answer);
        }
        match (end, taken) {
            (Some(_), Taken::Held(answers, _)) => {
                let pieces = answers.iter().map(piece_of).collect::<Result<Vec<_>, _>>()?;
                let mut out = begin_message();
                response::range(&mut out, &link.answerer(), &pieces);
                return Ok(Read::Whole(out));
            }
            (Some(long), Taken::Measured(second)) => return Ok(Read::Long(long, second)),
            (None, so_far) => {
                taken = so_far;
                answer = pending.next().await.map_err(gone)?;
            }
        }
    }
}

fn piece_of(answer: &Answer) -> Result<RangeReply<'_>, Failure> {
    match read(answer, Subject::Read)? {
        Reply::Range(piece) => Ok(piece),
        reply => Err(unexpected(&reply)),
    }
}

/// Reads again, and sends the message as its client takes it.
async fn write(
    second: Second,
    long: &LongRange,
    route: Option<&Route>,
    sender: &Sender,
) -> Result<(), Failure> {
    let mut parts = Parts { route, sender, rest: long.size(), is_first: true };
    let mut out = Vec::new();
    long.write_head(&mut out);
    let Second { own: _own, first, mut rest } = second;
    let mut next = Some(first);
    while let Some(answer) = next {
        for member in piece_of(&answer)?.kvs {
            if out.len() >= PART_SIZE {
                parts.send(&mut out, false)?;
            }
            response::range_key(&mut out, &member);
        }
        if !answer.has_more() {
            long.write_end(&mut out);
            parts.send(&mut out, true)?;
            return if parts.rest == 0 { Ok(()) } else { Err(differs()) };
        }
        drop(answer);
        next = next_part(&mut rest, sender).await?;
    }
    Err(Failure::CANCELED)
}

/// A message that goes out in parts.
struct Parts<'a> {
    route: Option<&'a Route>,
    sender: &'a Sender,
    /// Bytes that are to come.
    rest: usize,
    is_first: bool,
}

impl Parts<'_> {
    fn send(&mut self, out: &mut Vec<u8>, is_last: bool) -> Result<(), Failure> {
        self.rest = self.rest.checked_sub(out.len()).ok_or_else(differs)?;
        let room = if is_last { 0 } else { PART_SIZE + PART_SIZE / 8 };
        let mut part = mem::replace(out, Vec::with_capacity(room));
        if let Some(route) = self.route {
            part = as_json(&part, route, self.is_first, is_last)?.into_bytes();
        }
        self.is_first = false;
        self.sender.send(Bytes::from(part));
        Ok(())
    }
}

/// What is read at one revision is the same each time, or this process is defective.
fn differs() -> Failure {
    Failure::new(Code::Internal, "an answer was read again and is not as long as before")
}

/// A part of the message as its part of the JSON object.
fn as_json(part: &[u8], route: &Route, is_first: bool, is_last: bool) -> Result<String, Failure> {
    const KEYS: &str = "{\"kvs\":[";
    let mut text = json::write(part, route.answer)?;
    if !is_last {
        // The list of keys goes on.
        text.truncate(text.len() - "]}".len());
    }
    if is_first {
        return Ok(text);
    }
    Ok(match text.strip_prefix(KEYS) {
        Some(rest) => format!(",{rest}"),
        None => format!("],{}", text.trim_start_matches('{')),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use etcd::Answerer;

    use super::*;

    /// Parts of one message, with so many keys each.
    fn joined(keys: &[u8]) -> String {
        let route = etcd::shapes::route("kv/range").unwrap();
        let long = LongRange::new(
            &Answerer::default(),
            0,
            &RangeReply { count: 9, ..RangeReply::default() },
        );
        let last = keys.len() - 1;
        let parts = keys.iter().enumerate().map(|(place, count)| {
            let mut part = Vec::new();
            if place == 0 {
                long.write_head(&mut part);
            }
            for key in 0..*count {
                // A `KeyValue` with a key of one byte.
                part.extend_from_slice(&[0x12, 3, 0x0a, 1, b'a' + key]);
            }
            if place == last {
                long.write_end(&mut part);
            }
            as_json(&part, route, place == 0, place == last).unwrap()
        });
        parts.collect()
    }

    #[test]
    fn parts_are_one_object_of_json() {
        let expected = concat!(
            "{\"header\":{},\"kvs\":[{\"key\":\"YQ==\"},{\"key\":\"YQ==\"},",
            "{\"key\":\"Yg==\"}],\"count\":\"9\"}"
        );
        assert_eq!(joined(&[1, 2]), expected);
        assert_eq!(joined(&[1, 2, 0]), expected);
    }
}
