//! gRPC on top of HTTP/2: length-prefixed messages in, messages and a status in trailers out.
//!
//! Who sends with gzip is answered with gzip, as gRPC's servers do.
//!
//! <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use etcd::shapes::Route;
use etcd::{Code, Failure, PREFIX_SIZE, json};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use hyper::HeaderMap;
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};

use super::event::Waiter;
use super::unsent::Account;

/// Bytes of a stream that wait to be sent, beyond which its source waits.
const OUTGOING_MAX: usize = 256 << 10;

/// Bytes of messages of a stream that go out in one frame: what a frame of HTTP/2 takes if a client has not said
/// that it may be larger.
const GATHERED_MAX: usize = 16 << 10;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

/// Messages that are smaller go out as they are, also to who takes gzip.
const GZIP_SIZE_MIN: usize = 1 << 10;

/// How the messages of a request are compressed, those of them that are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Encoding {
    Identity,
    Gzip,
    Unknown,
}

impl Encoding {
    fn of(headers: &HeaderMap) -> Self {
        match headers.get(GRPC_ENCODING).map(HeaderValue::as_bytes) {
            None | Some(b"identity") => Self::Identity,
            Some(b"gzip") => Self::Gzip,
            Some(_) => Self::Unknown,
        }
    }
}

/// How answers go out.
#[derive(Clone, Copy)]
pub struct Form {
    /// As JSON, for this path of the gateway.
    route: Option<&'static Route>,
    has_gzip: bool,
    /// What is sent is the body as it is.
    is_raw: bool,
}

impl Form {
    const PLAIN: Self = Self { route: None, has_gzip: false, is_raw: false };

    /// The same for one message that is sent in parts: its prefix comes with the first, and it is not compressed.
    pub fn in_parts(self) -> Self {
        Self { is_raw: true, ..self }
    }

    /// The headers of a response.
    fn announce(self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, if self.route.is_some() { JSON } else { CONTENT });
        if self.has_gzip && !self.is_raw {
            headers.insert(GRPC_ENCODING, GZIP);
        }
    }

    /// A message of gRPC as it goes out.
    fn packed(self, message: Bytes) -> Bytes {
        if !self.has_gzip || message.len() < GZIP_SIZE_MIN {
            return message;
        }
        let mut packed = vec![0; PREFIX_SIZE];
        let mut encoder = GzEncoder::new(&mut packed, Compression::fast());
        encoder.write_all(&message[PREFIX_SIZE..]).expect("a vector grows");
        encoder.finish().expect("a vector grows");
        match u32::try_from(packed.len() - PREFIX_SIZE) {
            Ok(size) if packed.len() < message.len() => {
                packed[0] = 1;
                packed[1..PREFIX_SIZE].copy_from_slice(&size.to_be_bytes());
                Bytes::from(packed)
            }
            // It does not get smaller.
            Ok(_) | Err(_) => message,
        }
    }
}

/// The messages of a request: of gRPC, or JSON objects one behind the other.
pub struct Messages {
    body: Incoming,
    buffer: BytesMut,
    size_max: usize,
    encoding: Encoding,
    is_over: bool,
    /// As JSON, for this path of the gateway.
    route: Option<&'static Route>,
    /// Comes when there has been no leader for long, for a request that wants one.
    orphaned: Option<Waiter>,
}

impl Messages {
    /// Of this body; a message has at most `size_max` bytes. What comes of `orphaned` ends them.
    pub fn new(
        body: Incoming,
        headers: &HeaderMap,
        size_max: usize,
        orphaned: Option<Waiter>,
    ) -> Self {
        let (buffer, encoding) = (BytesMut::new(), Encoding::of(headers));
        Self { body, buffer, size_max, encoding, is_over: false, route: None, orphaned }
    }

    /// Of this body, which comes as JSON.
    pub fn of_json(
        body: Incoming,
        route: &'static Route,
        size_max: usize,
        orphaned: Option<Waiter>,
    ) -> Self {
        let (buffer, route, encoding) = (BytesMut::new(), Some(route), Encoding::Identity);
        Self { body, buffer, size_max, encoding, is_over: false, route, orphaned }
    }

    /// Whether the request goes on: one that wants a leader does not when there has been none for long.
    ///
    /// # Errors
    /// [`Failure::NO_LEADER`].
    pub fn check(&self, context: &Context<'_>) -> Result<(), Failure> {
        let is_over = self.orphaned.as_ref().is_some_and(|event| event.poll(context).is_ready());
        if is_over { Err(Failure::NO_LEADER) } else { Ok(()) }
    }

    /// How the answers go out.
    pub fn form(&self) -> Form {
        Form { route: self.route, has_gzip: self.encoding == Encoding::Gzip, is_raw: false }
    }

    /// The next message; none: the client sends no more.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Failure>> {
        self.check(context)?;
        loop {
            if let Some(message) = self.take()? {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.is_over {
                return Poll::Ready(if self.buffer.is_empty() {
                    Ok(None)
                } else {
                    Err(Failure::new(Code::Internal, "the request ends inside a message"))
                });
            }
            match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.is_over = true,
                Poll::Ready(Some(Err(error))) => {
                    let message = format!("the request broke off: {error}");
                    return Poll::Ready(Err(Failure::new(Code::Canceled, message)));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.append(bytes);
                    }
                }
            }
        }
    }

    /// The same as a future.
    ///
    /// # Errors
    /// Bytes that are no messages, a message that is too large, or a client that went away.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The message of a request with one.
    ///
    /// # Errors
    /// As [`Self::next`], or gRPC sends none. As JSON an empty body is an empty message.
    pub async fn next_one(&mut self) -> Result<Bytes, Failure> {
        match self.next().await? {
            Some(message) => Ok(message),
            None if self.route.is_some() => Ok(Bytes::new()),
            None => Err(Failure::new(Code::Internal, "the request has no message")),
        }
    }

    fn append(&mut self, bytes: Bytes) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::from(bytes);
        } else {
            self.buffer.extend_from_slice(&bytes);
        }
    }

    /// Takes a whole message off what has come.
    fn take(&mut self) -> Result<Option<Bytes>, Failure> {
        match self.route {
            Some(route) => self.take_json(route),
            None => self.take_frame(),
        }
    }

    fn take_json(&mut self, route: &Route) -> Result<Option<Bytes>, Failure> {
        if self.buffer.len() > 2 * self.size_max {
            return Err(Failure::REQUEST_TOO_LARGE);
        }
        // One message is looked at when it is whole: not over again with each piece that comes.
        if !route.is_stream && !self.is_over {
            return Ok(None);
        }
        let Some(size) = json::first(&self.buffer, self.is_over)? else {
            if self.is_over {
                self.buffer.clear();
            }
            return Ok(None);
        };
        let text = self.buffer.split_to(size);
        Ok(Some(Bytes::from(json::read(&text, route.request)?)))
    }

    fn take_frame(&mut self) -> Result<Option<Bytes>, Failure> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_SIZE>() else { return Ok(None) };
        let [flag, size @ ..] = *prefix;
        let size = usize::try_from(u32::from_be_bytes(size)).expect("32 bits fit usize");
        if size > self.size_max {
            let message =
                format!("grpc: received message larger than max ({size} vs. {})", self.size_max);
            return Err(Failure::new(Code::ResourceExhausted, message));
        }
        if flag > 1 || (flag == 1 && self.encoding == Encoding::Identity) {
            let message = format!("a message begins with {flag}, which is no flag of this stream");
            return Err(Failure::new(Code::Internal, message));
        }
        if flag == 1 && self.encoding == Encoding::Unknown {
            let message =
                "grpc-encoding is not supported for this message; send with gzip or identity";
            return Err(Failure::new(Code::Unimplemented, message));
        }
        if self.buffer.len() < PREFIX_SIZE + size {
            return Ok(None);
        }
        self.buffer.advance(PREFIX_SIZE);
        let message = self.buffer.split_to(size).freeze();
        if flag == 1 { unpacked(&message, self.size_max).map(Some) } else { Ok(Some(message)) }
    }
}

/// What a compressed message holds, which is at most so large.
fn unpacked(message: &[u8], size_max: usize) -> Result<Bytes, Failure> {
    let mut unpacked = Vec::new();
    let limit = u64::try_from(size_max).unwrap_or(u64::MAX).saturating_add(1);
    GzDecoder::new(message).take(limit).read_to_end(&mut unpacked).map_err(|error| {
        let message = format!("grpc: failed to decompress the received message: {error}");
        Failure::new(Code::Internal, message)
    })?;
    if unpacked.len() > size_max {
        let message =
            format!("grpc: received message after decompression larger than max {size_max}");
        return Err(Failure::new(Code::ResourceExhausted, message));
    }
    Ok(Bytes::from(unpacked))
}

/// Writes the prefix of a message that was begun with [`etcd::begin_message`].
///
/// # Errors
/// The message is larger than a message may be.
pub fn end_message(mut message: Vec<u8>) -> Result<Bytes, Failure> {
    let prefix = message_prefix(message.len() - PREFIX_SIZE)?;
    message[..PREFIX_SIZE].copy_from_slice(&prefix);
    Ok(Bytes::from(message))
}

/// The prefix of a message of this size that is not compressed.
///
/// # Errors
/// The message is larger than a message may be.
pub fn message_prefix(size: usize) -> Result<[u8; PREFIX_SIZE], Failure> {
    let fitting = u32::try_from(size).ok().filter(|size| *size <= i32::MAX.cast_unsigned());
    let Some(fitting) = fitting else {
        let text =
            format!("grpc: trying to send message larger than max ({size} vs. {})", i32::MAX);
        return Err(Failure::new(Code::ResourceExhausted, text));
    };
    let [a, b, c, d] = fitting.to_be_bytes();
    Ok([0, a, b, c, d])
}

/// The body of a response.
pub enum Reply {
    /// Bytes, then trailers.
    Whole(Option<Bytes>, Option<HeaderMap>),
    /// What a task of the stream sends.
    Stream(Stream),
}

impl Reply {
    /// What comes next of it.
    pub fn poll(&mut self, context: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self {
            Self::Whole(data, trailers) => {
                let data = data.take().map(Frame::data);
                let frame = data.or_else(|| trailers.take().map(Frame::trailers));
                Poll::Ready(frame.map(Ok))
            }
            Self::Stream(stream) => stream.poll(context),
        }
    }

    /// Whether nothing comes any more, as far as is known.
    pub fn is_over(&self) -> bool {
        matches!(self, Self::Whole(None, None))
    }
}

/// A message has begun to go out and cannot be ended. To clients this is a stream that was not begun: what they have
/// had of it is no message, and they may ask again.
#[derive(Debug)]
pub struct BrokenOff(h2::Error);

impl fmt::Display for BrokenOff {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the answer broke off")
    }
}

impl std::error::Error for BrokenOff {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // hyper looks there for the reason that it gives to the client.
        Some(&self.0)
    }
}

impl BrokenOff {
    fn new() -> Self {
        Self(h2::Error::from(h2::Reason::REFUSED_STREAM))
    }
}

const CONTENT: HeaderValue = HeaderValue::from_static("application/grpc");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

fn status_of(headers: &mut HeaderMap, failure: Option<&Failure>) {
    let code = failure.map_or(0, |failure| failure.code.number());
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(code)));
    if let Some(failure) = failure {
        let text = percent_encoded(&failure.message);
        let value = HeaderValue::from_str(&text).expect("what is left is printable ASCII");
        headers.insert(GRPC_MESSAGE, value);
    }
}

/// As gRPC wants it in a header: what is not printable ASCII, and the percent sign, in hexadecimal.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

/// The response to a call that is refused before it is looked at.
pub fn refusal(failure: Failure) -> Response<Reply> {
    unary(Err(failure), Form::PLAIN)
}

/// The response to a call whose headers are wrong.
pub fn malformed(failure: Failure) -> Response<Reply> {
    let mut response = refusal(failure);
    *response.status_mut() = StatusCode::BAD_REQUEST;
    response
}

/// Ends a stream when its client has waited for so long.
pub fn limit(response: &mut Response<Reply>, timeout: Option<Duration>) {
    if let (Reply::Stream(stream), Some(timeout)) = (response.body_mut(), timeout) {
        let shared = Rc::clone(&stream.shared);
        stream.timer = Some(glommio::spawn_local(async move {
            glommio::timer::sleep(timeout).await;
            shared.expire();
        }));
    }
}

/// The response to a call with one answer.
pub fn unary(answer: Result<Bytes, Failure>, form: Form) -> Response<Reply> {
    let mut response = match answer {
        Ok(message) => {
            let mut trailers = HeaderMap::with_capacity(1);
            status_of(&mut trailers, None);
            Response::new(Reply::Whole(Some(form.packed(message)), Some(trailers)))
        }
        Err(failure) => {
            let mut response = Response::new(Reply::Whole(None, None));
            status_of(response.headers_mut(), Some(&failure));
            response
        }
    };
    form.announce(response.headers_mut());
    response
}

/// The response to a call that is answered as long as it lives, and where its answers go.
pub fn streaming(form: Form) -> (Response<Reply>, Sender) {
    let shared = Rc::new(Shared::default());
    let stream = Stream { shared: Rc::clone(&shared), form, timer: None };
    let mut response = Response::new(Reply::Stream(stream));
    form.announce(response.headers_mut());
    (response, Sender { shared })
}

#[derive(Default)]
struct Queue {
    messages: VecDeque<Bytes>,
    size: usize,
    /// How it ended, until that has been sent.
    end: Option<Result<(), Failure>>,
    is_over: bool,
    /// It ends inside a message.
    is_broken: bool,
    /// Where `size` is counted, too.
    account: Option<Rc<Account>>,
    /// The client has gone, or hyper has.
    is_left: bool,
    reader: Option<Waker>,
    /// Waits for room.
    writer: Option<Waker>,
    /// Is told when the client goes.
    owner: Option<Waker>,
}

impl Queue {
    fn grow(&mut self, size: usize) {
        self.size += size;
        if let Some(account) = &self.account {
            account.take(size);
        }
    }

    fn shrink(&mut self, size: usize) {
        self.size -= size;
        if let Some(account) = &self.account {
            account.give_back(size);
        }
    }
}

/// Between the task of a stream and its body.
#[derive(Default)]
struct Shared(Cell<Queue>);

impl Shared {
    fn with<T>(&self, work: impl FnOnce(&mut Queue) -> T) -> T {
        let mut queue = self.0.take();
        let result = work(&mut queue);
        self.0.set(queue);
        result
    }

    /// Its time is up: what waits is not sent any more, and nobody sends more.
    fn expire(&self) {
        self.with(|queue| {
            if queue.is_over {
                return;
            }
            (queue.is_left, queue.is_over) = (true, true);
            queue.end = Some(Err(Failure::DEADLINE_EXCEEDED));
            queue.messages.clear();
            let wakers = [queue.reader.take(), queue.writer.take(), queue.owner.take()];
            wakers.into_iter().flatten().for_each(Waker::wake);
        });
    }
}

/// The body of a stream.
pub struct Stream {
    shared: Rc<Shared>,
    form: Form,
    /// Ends it when its client waits no longer.
    timer: Option<glommio::Task<()>>,
}

impl Stream {
    /// Counts there what waits, from here on.
    pub fn count(&self, account: &Rc<Account>) {
        self.shared.with(|queue| {
            account.take(queue.size);
            queue.account = Some(Rc::clone(account));
        });
    }

    fn poll(&self, context: &Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.shared.with(|queue| {
            if let Some(message) = queue.messages.pop_front() {
                queue.shrink(message.len());
                let shown = self.gathered(message, queue);
                if let Some(writer) = queue.writer.take_if(|_| queue.size <= OUTGOING_MAX / 2) {
                    writer.wake();
                }
                return Poll::Ready(Some(Ok(Frame::data(shown))));
            }
            if queue.is_broken {
                return Poll::Ready(Some(Err(BrokenOff::new())));
            }
            if queue.is_over {
                return Poll::Ready(queue.end.take().and_then(|end| self.end(&end)).map(Ok));
            }
            queue.reader = Some(context.waker().clone());
            Poll::Pending
        })
    }
}

impl Stream {
    /// A message, and the small ones that wait behind it: a frame for each would cost more than they do. What is
    /// JSON goes out one by one, for clients that take a chunk for a message.
    fn gathered(&self, message: Bytes, queue: &mut Queue) -> Bytes {
        let has_room = |size: usize, next: &Bytes| size + next.len() <= GATHERED_MAX;
        let mut size = message.len();
        let follows = queue.messages.front().is_some_and(|next| has_room(size, next));
        if self.form.route.is_some() || !follows {
            return self.shown(message);
        }
        let mut gathered = BytesMut::with_capacity(GATHERED_MAX);
        gathered.extend_from_slice(&self.shown(message));
        while let Some(next) = queue.messages.pop_front_if(|next| has_room(size, next)) {
            size += next.len();
            queue.shrink(next.len());
            gathered.extend_from_slice(&self.shown(next));
        }
        gathered.freeze()
    }

    /// A message as it goes out.
    fn shown(&self, message: Bytes) -> Bytes {
        if self.form.is_raw {
            return message;
        }
        let Some(route) = self.form.route else { return self.form.packed(message) };
        let text = match json::write(&message[PREFIX_SIZE..], route.answer) {
            Ok(text) => format!("{{\"result\":{text}}}\n"),
            Err(failure) => format!("{{\"error\":{}}}\n", json::failure(&failure)),
        };
        Bytes::from(text)
    }

    /// What comes behind the last message.
    fn end(&self, end: &Result<(), Failure>) -> Option<Frame<Bytes>> {
        let failure = end.as_ref().err();
        if self.form.route.is_none() {
            let mut trailers = HeaderMap::with_capacity(2);
            status_of(&mut trailers, failure);
            return Some(Frame::trailers(trailers));
        }
        if self.form.is_raw {
            return None;
        }
        let text = format!("{{\"error\":{}}}\n", json::failure(failure?));
        Some(Frame::data(Bytes::from(text)))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.with(|queue| {
            queue.is_left = true;
            queue.messages.clear();
            queue.shrink(queue.size);
            for waker in [queue.writer.take(), queue.owner.take()].into_iter().flatten() {
                waker.wake();
            }
        });
    }
}

/// Where the messages of a stream go.
pub struct Sender {
    shared: Rc<Shared>,
}

impl Sender {
    /// Sends a message. It waits if the client is slow; whether more may come tells
    /// [`Self::poll_ready`].
    pub fn send(&self, message: Bytes) {
        self.shared.with(|queue| {
            if !queue.is_left {
                queue.grow(message.len());
                queue.messages.push_back(message);
            }
            if let Some(reader) = queue.reader.take() {
                reader.wake();
            }
        });
    }

    /// Waits until little waits to be sent; false: nobody takes it any more.
    pub fn poll_ready(&self, context: &Context<'_>) -> Poll<bool> {
        self.shared.with(|queue| {
            if queue.is_left {
                return Poll::Ready(false);
            }
            // Also when there is room: whoever then waits for other things has to learn that the client
            // has gone.
            queue.owner = Some(context.waker().clone());
            if queue.size <= OUTGOING_MAX {
                return Poll::Ready(true);
            }
            queue.writer = Some(context.waker().clone());
            Poll::Pending
        })
    }

    /// Ends it inside a message.
    pub fn break_off(self) {
        self.shared.with(|queue| queue.is_broken = true);
    }

    /// Ends the stream.
    pub fn end(self, end: Result<(), Failure>) {
        self.shared.with(|queue| {
            if !queue.is_over {
                queue.end = Some(end);
            }
        });
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.with(|queue| {
            queue.is_over = true;
            if let Some(reader) = queue.reader.take() {
                reader.wake();
            }
        });
    }
}
