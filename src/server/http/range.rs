//! `Range`: reads, however long their answers are.
//!
//! ```text
//! pieces ─► together no more than WHOLE_SIZE ─► one message
//!    │ more: measured and let go
//!    ▼
//! the same read once more, at the same revision ─► a piece of the message whenever the client has taken the last
//! ```
//!
//! A message of gRPC begins with its size, so a long one has to be measured before it is begun. For that it costs the
//! server two reads and no more memory than a few pieces, however slowly it is taken. Should compaction or the end of
//! the member overtake the second read, the client is told that its request was not begun, and clients ask again. For
//! a while answers are then held whole that would not be otherwise: the first read goes as fast as the store can.

use std::mem;
use std::rc::Rc;
use std::time::{Duration, Instant};

use base::limits::UNSENT_MAX;
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
use super::native::Answer;
use super::plain;
use super::service::{begin, gone, read, unexpected, within};
use super::unsent::Booking;
use super::{Link, STOP_GRACE};

/// The path of its calls.
pub const METHOD: &str = "/etcdserverpb.KV/Range";

/// Bytes of an answer that is held whole until the client has taken it.
const WHOLE_SIZE: usize = 16 << 20;

/// The same while compaction is known to overtake slow readers.
const WHOLE_SIZE_OVERTAKEN: usize = UNSENT_MAX / 4;

/// For so long it is.
const OVERTAKEN: Duration = Duration::from_secs(60);

/// Bytes of a part of a long one: each is memory of its own, so that what has been taken is free.
const PART_SIZE: usize = 64 << 10;

/// The answer to a read.
enum Read {
    /// The message, behind the room for its prefix.
    Whole(Vec<u8>),
    /// It is read again, with this request.
    Long(RangeRequest, LongRange),
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
    let (request, long) = match answer {
        Ok(Read::Long(request, long)) => (request, long),
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
        let end = write(&link, &request, &long, route, &sender);
        let end = link.gate.until_stop(STOP_GRACE, end).await;
        if end == Err(Failure::COMPACTED) {
            link.gate.overtaken.set(Some(Instant::now()));
        }
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
    let mut place = None;
    if answer.has_more() {
        // A piece of each is in memory, so there are only so many at once; who waits holds none.
        let places = &link.gate.long_reads;
        place = places.try_acquire_static_permit(1).ok();
        if place.is_none() {
            drop((pending, answer));
            place = places.acquire_static_permit(1).await.ok();
            (pending, answer) = begin(&link.native, deadline_ms, &call).await?;
        }
    }
    let is_overtaken = link.gate.overtaken.get().is_some_and(|at| at.elapsed() < OVERTAKEN);
    let whole_size = if is_overtaken { WHOLE_SIZE_OVERTAKEN } else { WHOLE_SIZE };
    let mut keys_size = 0;
    let mut held = Some((Vec::new(), Booking::new(&link.account)));
    let long = loop {
        let piece = piece_of(&answer)?;
        keys_size += response::keys_size(&piece);
        let is_last = !answer.has_more();
        let end = is_last.then(|| LongRange::new(&link.answerer(), keys_size, &piece));
        let is_only = is_last && held.as_ref().is_some_and(|(answers, _)| answers.is_empty());
        if !is_only && (keys_size > whole_size || link.account.is_crowded()) {
            held = None;
        }
        if let Some((answers, booking)) = &mut held {
            booking.add(answer.size());
            answers.push(answer);
        }
        match (end, &held) {
            (Some(_), Some((answers, _))) => {
                let pieces = answers.iter().map(piece_of).collect::<Result<Vec<_>, _>>()?;
                let mut out = begin_message();
                response::range(&mut out, &link.answerer(), &pieces);
                return Ok(Read::Whole(out));
            }
            (Some(long), None) => break long,
            (None, _) => answer = pending.next().await.map_err(gone)?,
        }
    };
    drop(place);
    let revision = if message.revision > 0 { message.revision } else { long.revision() };
    Ok(Read::Long(RangeRequest { revision, serializable: true, ..message.clone() }, long))
}

fn piece_of(answer: &Answer) -> Result<RangeReply<'_>, Failure> {
    match read(answer, Subject::Read)? {
        Reply::Range(piece) => Ok(piece),
        reply => Err(unexpected(&reply)),
    }
}

/// Reads again, and sends the message as its client takes it.
async fn write(
    link: &Link,
    request: &RangeRequest,
    long: &LongRange,
    route: Option<&Route>,
    sender: &Sender,
) -> Result<(), Failure> {
    let mut parts = Parts { route, sender, rest: long.size(), is_first: true };
    let mut out = Vec::new();
    long.write_head(&mut out);
    // On a connection of its own: a client that does not read holds up nothing else.
    let own = link.open_for_one();
    let call = Call::Range(request::range(request)?);
    let mut pending = own.native().begin(0, &call).await.map_err(gone)?;
    while let Some(answer) = next_part(&mut pending, sender).await? {
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
