//! What the client of a stream of watches is sent: ids, refusals, progress of the whole stream, revisions in one
//! piece.

#![allow(clippy::unwrap_used)]

use base::RequestId;
use bytes::Bytes;
use etcd::proto::watch::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    WatchUnion,
};
use etcd::{Answerer, Effect, Message as _, PREFIX_SIZE, WatchStream};
use wire::{
    Cause, ChangeKind, Header, KeyValue, Refused, Reply, ReplyWriter, Status, WatchChange,
    WatchReply, WatchStep,
};

const FROM: Answerer = Answerer { cluster_id: 7, member_id: 8, term: 9 };

/// A stream with what it asked for since the last look.
struct Driver {
    stream: WatchStream,
    effects: Vec<Effect>,
    requests: u64,
}

impl Driver {
    fn new() -> Self {
        Self { stream: WatchStream::new(), effects: Vec::new(), requests: 0 }
    }

    fn ask(&mut self, union: WatchUnion) {
        let request = WatchRequest { request_union: Some(union) };
        let message = Bytes::from(request.encode_to_vec());
        self.stream.asked(message, &FROM, &mut self.effects).unwrap();
    }

    fn create(&mut self, create: WatchCreateRequest) {
        self.ask(WatchUnion::Create(create));
    }

    /// Begins a watch of one key and is told so: its request.
    fn begin(&mut self, create: WatchCreateRequest, revision: i64) -> u64 {
        self.create(create);
        let id = match self.effects.pop() {
            Some(Effect::Begin { id, .. }) => id,
            effect => panic!("{effect:?}"),
        };
        self.requests += 1;
        assert!(self.stream.begun(id, self.requests));
        self.tell(self.requests, WatchStep::Created, revision, false, &[]);
        self.requests
    }

    fn tell(
        &mut self,
        request: u64,
        step: WatchStep,
        revision: i64,
        fragment: bool,
        changes: &[WatchChange<'_>],
    ) {
        self.tell_read(request, step, (revision, 0), fragment, changes);
    }

    /// As [`Self::tell`], with changes that were read when the second of the revisions was the newest.
    fn tell_read(
        &mut self,
        request: u64,
        step: WatchStep,
        (revision, newest): (i64, i64),
        fragment: bool,
        changes: &[WatchChange<'_>],
    ) {
        let mut frame = Vec::new();
        let mut writer = ReplyWriter::new();
        let mut watch = writer.watch_read(&mut frame, RequestId::new(request), newest);
        for change in changes {
            watch.push(change);
        }
        watch.finish(step, revision, fragment).unwrap();
        let header = Header::decode(frame.first_chunk().unwrap()).unwrap();
        let reply: WatchReply<'_> = match Reply::verify(&header, &frame[wire::HEADER_SIZE..]) {
            Ok(Reply::Watch(reply)) => reply,
            reply => panic!("{reply:?}"),
        };
        self.stream.told(request, &reply, &FROM, &mut self.effects);
    }

    /// What the client has been sent since the last look; nothing else may have been asked for.
    fn sent(&mut self) -> Vec<WatchResponse> {
        let message = |effect| {
            let bytes = match effect {
                Effect::Send(bytes) => bytes,
                Effect::Notify(notice) => notice.message(&FROM, 5),
                effect => panic!("{effect:?}"),
            };
            WatchResponse::decode(&bytes[PREFIX_SIZE..]).unwrap()
        };
        self.effects.drain(..).map(message).collect()
    }
}

fn key(key: &'static [u8]) -> WatchCreateRequest {
    WatchCreateRequest { key: Bytes::from_static(key), ..WatchCreateRequest::default() }
}

fn put(revision: i64) -> WatchChange<'static> {
    let kv = KeyValue { key: b"a", value: b"v", mod_revision: revision, ..KeyValue::default() };
    WatchChange { kind: ChangeKind::Put, cause: Cause::Request, sub: 0, kv, previous: None }
}

fn revision_of(response: &WatchResponse) -> i64 {
    response.header.as_ref().expect("every answer has a header").revision
}

#[test]
fn ids_count_from_0_and_pass_by_those_that_clients_choose() {
    let mut driver = Driver::new();
    driver.begin(WatchCreateRequest { watch_id: 1, ..key(b"a") }, 5);
    let mut ids = Vec::new();
    for _ in 0..3 {
        driver.begin(key(b"a"), 5);
    }
    for response in driver.sent() {
        assert!(response.created && !response.canceled);
        assert_eq!(revision_of(&response), 5);
        ids.push(response.watch_id);
    }
    assert_eq!(ids, [1, 0, 2, 3]);
}

#[test]
fn a_watch_that_cannot_be_is_created_and_canceled_in_one_answer() {
    let range_end = Bytes::from_static(b"a");
    let refused = [
        (WatchCreateRequest { range_end, ..key(b"b") }, "mvcc: watcher range is empty"),
        (
            WatchCreateRequest { start_revision: -1, ..key(b"b") },
            "etcdserver: mvcc: required revision has been compacted",
        ),
        (
            WatchCreateRequest { watch_id: 4, ..key(b"b") },
            "mvcc: duplicate watch ID provided on the WatchStream",
        ),
    ];
    let mut driver = Driver::new();
    driver.begin(WatchCreateRequest { watch_id: 4, ..key(b"a") }, 5);
    driver.sent();
    for (create, reason) in refused {
        driver.create(create);
        let responses = driver.sent();
        let [response] = responses.as_slice() else { panic!("{responses:?}") };
        assert!(response.created && response.canceled);
        assert_eq!((response.watch_id, response.cancel_reason.as_str()), (-1, reason));
    }
}

#[test]
fn a_known_watch_is_canceled_with_an_answer_and_an_unknown_one_without() {
    let mut driver = Driver::new();
    let request = driver.begin(key(b"a"), 5);
    driver.sent();
    driver.ask(WatchUnion::Cancel(WatchCancelRequest { watch_id: 3 }));
    assert_eq!(driver.sent(), []);
    driver.ask(WatchUnion::Cancel(WatchCancelRequest { watch_id: 0 }));
    assert_eq!(driver.effects.remove(0), Effect::Cancel { request });
    let responses = driver.sent();
    assert!(responses.len() == 1 && responses[0].canceled && !responses[0].created);
    // What was under way is not told.
    driver.tell(request, WatchStep::Changes, 6, false, &[put(6)]);
    assert_eq!(driver.sent(), []);
}

#[test]
fn a_revision_in_pieces_is_one_answer_unless_the_client_takes_fragments() {
    let mut driver = Driver::new();
    let whole = driver.begin(key(b"a"), 5);
    let parts = driver.begin(WatchCreateRequest { fragment: true, ..key(b"a") }, 5);
    driver.sent();
    driver.tell(whole, WatchStep::Changes, 5, true, &[put(6)]);
    assert_eq!(driver.sent(), []);
    driver.tell(whole, WatchStep::Changes, 7, false, &[put(6), put(7)]);
    let told = |driver: &mut Driver| {
        let mut told = Vec::new();
        for response in driver.sent() {
            let revisions = response.events.iter().map(|event| event.kv.as_ref().unwrap());
            let revisions: Vec<i64> = revisions.map(|kv| kv.mod_revision).collect();
            told.push((response.watch_id, revision_of(&response), response.fragment, revisions));
        }
        told
    };
    assert_eq!(told(&mut driver), [(0, 6, false, vec![6, 6]), (0, 7, false, vec![7])]);

    driver.tell(parts, WatchStep::Changes, 5, true, &[put(6)]);
    driver.tell(parts, WatchStep::Changes, 7, false, &[put(6), put(7)]);
    // No less than what it tells.
    let expected = [(1, 6, true, vec![6]), (1, 6, false, vec![6]), (1, 7, false, vec![7])];
    assert_eq!(told(&mut driver), expected);

    // What is read back comes with the store's revision. Who puts pieces together keeps the header of the first, which
    // may not be less than an event, so a new revision is not among them; and no more than one is held.
    let changes = |driver: &mut Driver, request| {
        let mut tell = |revision, newest, fragment, changes: &[WatchChange<'_>]| {
            let step = WatchStep::Changes;
            driver.tell_read(request, step, (revision, newest), fragment, changes);
        };
        tell(9, 20, true, &[put(8), put(9), put(10)]);
        tell(9, 21, true, &[put(10)]);
        tell(11, 22, true, &[put(10), put(11), put(12)]);
        tell(12, 23, false, &[]);
        tell(14, 24, false, &[put(13), put(14)]);
    };
    changes(&mut driver, whole);
    let expected = [
        (0, 20, false, vec![8, 9]),
        (0, 20, false, vec![10, 10, 10]),
        (0, 22, false, vec![11]),
        (0, 22, false, vec![12]),
        (0, 24, false, vec![13, 14]),
    ];
    assert_eq!(told(&mut driver), expected);
    changes(&mut driver, parts);
    let expected = [
        (1, 20, false, vec![8, 9]),
        (1, 20, true, vec![10]),
        (1, 20, true, vec![10]),
        (1, 20, false, vec![10]),
        (1, 22, false, vec![11]),
        (1, 22, true, vec![12]),
        // It looks like progress, so it may not be ahead of what has been told.
        (1, 12, false, vec![]),
        (1, 24, false, vec![13, 14]),
    ];
    assert_eq!(told(&mut driver), expected);
}

#[test]
fn progress_of_a_stream_is_told_once_all_its_watches_have_come_to_one_revision() {
    let mut driver = Driver::new();
    let ask = |driver: &mut Driver| {
        driver.ask(WatchUnion::Progress(WatchProgressRequest {}));
    };
    // Without a watch nobody could tell it.
    ask(&mut driver);
    assert_eq!(driver.sent(), []);
    let (a, b) = (driver.begin(key(b"a"), 5), driver.begin(key(b"b"), 5));
    driver.sent();
    ask(&mut driver);
    let both = [Effect::Remind { request: a }, Effect::Remind { request: b }];
    assert_eq!(std::mem::take(&mut driver.effects), both);
    // Asked again while it is under way it is told once all the same.
    ask(&mut driver);
    driver.tell(a, WatchStep::Progress, 8, false, &[]);
    assert_eq!(driver.sent(), []);
    // The other one was behind: below that it has told changes, so 8 would be a step back.
    driver.tell(b, WatchStep::Progress, 9, false, &[]);
    assert_eq!(std::mem::take(&mut driver.effects), both);
    for request in [a, b] {
        driver.tell(request, WatchStep::Progress, 9, false, &[]);
    }
    let responses = driver.sent();
    let [response] = responses.as_slice() else { panic!("{responses:?}") };
    assert_eq!((response.watch_id, revision_of(response)), (-1, 9));
    // What a watch tells by itself bears its own id.
    driver.tell(a, WatchStep::Progress, 12, false, &[]);
    let responses = driver.sent();
    assert_eq!((responses[0].watch_id, revision_of(&responses[0])), (0, 12));
}

#[test]
fn a_watch_that_ends_while_progress_is_asked_for_does_not_hold_it_up() {
    let mut driver = Driver::new();
    let (a, b) = (driver.begin(key(b"a"), 5), driver.begin(key(b"b"), 5));
    driver.sent();
    driver.ask(WatchUnion::Progress(WatchProgressRequest {}));
    driver.effects.clear();
    driver.tell(a, WatchStep::Progress, 8, false, &[]);
    let refused = Refused { compacted_revision: 7, ..Refused::new(Status::Compacted) };
    driver.stream.ended(b, &refused, &FROM, &mut driver.effects).unwrap();
    let responses = driver.sent();
    assert_eq!(responses.len(), 2, "{responses:?}");
    assert!(responses[0].canceled);
    assert_eq!((responses[1].watch_id, revision_of(&responses[1])), (-1, 8));
}

/// Clients give up a watch that is canceled, and go on elsewhere when the stream ends.
#[test]
fn a_member_that_stops_ends_the_stream_and_cancels_nothing() {
    let mut driver = Driver::new();
    let request = driver.begin(key(b"a"), 5);
    driver.sent();
    for status in [Status::ShuttingDown, Status::SlowReader, Status::NoLeader] {
        let refused = Refused::new(status);
        let failure = driver.stream.ended(request, &refused, &FROM, &mut driver.effects);
        assert_eq!(failure.unwrap_err().code, etcd::Code::Unavailable, "{status:?}");
        assert_eq!(driver.sent(), []);
    }
}

#[test]
fn no_progress_is_told_before_a_watch_has_come_to_the_revision_that_it_begins_with() {
    let mut driver = Driver::new();
    let ask = |driver: &mut Driver| {
        driver.ask(WatchUnion::Progress(WatchProgressRequest {}));
    };
    let start_revision = 6;
    let early = driver.begin(WatchCreateRequest { start_revision, ..key(b"a") }, 5);
    let live = driver.begin(key(b"b"), 5);
    driver.sent();
    let both = [Effect::Remind { request: early }, Effect::Remind { request: live }];
    ask(&mut driver);
    assert_eq!(std::mem::take(&mut driver.effects), both);
    for request in [early, live] {
        driver.tell(request, WatchStep::Progress, 5, false, &[]);
    }
    assert_eq!(driver.sent(), []);
    // When it has come there, who asks again is told.
    ask(&mut driver);
    assert_eq!(std::mem::take(&mut driver.effects), both);
    for request in [early, live] {
        driver.tell(request, WatchStep::Progress, 6, false, &[]);
    }
    let responses = driver.sent();
    let [response] = responses.as_slice() else { panic!("{responses:?}") };
    assert_eq!((response.watch_id, revision_of(response)), (-1, 6));
}
