//! What a client of a stream of watches is told, in which order.

use bytes::Bytes;
use etcd::proto::watch::{
    WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchUnion,
};
use etcd::request::WatchRefusal;
use etcd::{Answerer, Effect, Message, Notice, PREFIX_SIZE, WatchStream};
use wire::{Refused, Status, WatchReply, WatchStep};

const FROM: Answerer = Answerer { cluster_id: 1, member_id: 2, term: 3 };

/// A stream whose client and member this test is.
#[derive(Default)]
struct Stream(WatchStream);

impl Stream {
    fn ask(&mut self, union: WatchUnion) -> Vec<Effect> {
        let mut effects = Vec::new();
        let request = WatchRequest { request_union: Some(union) };
        let message = Bytes::from(request.encode_to_vec());
        self.0.asked(message, &FROM, &mut effects).expect("a message");
        effects
    }

    fn create(&mut self, create: WatchCreateRequest) -> Vec<Effect> {
        self.ask(WatchUnion::Create(create))
    }

    fn cancel(&mut self, watch_id: i64) -> Vec<Effect> {
        self.ask(WatchUnion::Cancel(WatchCancelRequest { watch_id }))
    }

    /// Creates a watch of any id, which the member serves as this request.
    fn begin(&mut self, watch_id: i64, request: u64) -> i64 {
        let create = WatchCreateRequest { watch_id, ..create() };
        let effects = self.create(create);
        let [Effect::Begin { id, .. }] = effects.as_slice() else { panic!("{effects:?}") };
        assert!(self.0.begun(*id, request));
        *id
    }

    fn tell(&mut self, request: u64, step: WatchStep, revision: i64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let reply = WatchReply { step, revision, ..WatchReply::default() };
        self.0.told(request, &reply, &FROM, &mut effects);
        effects
    }

    fn end(&mut self, request: u64, status: Status, compacted_revision: i64) -> Vec<Effect> {
        let mut effects = Vec::new();
        let refused = Refused { compacted_revision, ..Refused::new(status) };
        self.0.ended(request, &refused, &FROM, &mut effects).expect("the stream goes on");
        effects
    }
}

fn create() -> WatchCreateRequest {
    WatchCreateRequest { key: "k".into(), ..WatchCreateRequest::default() }
}

fn canceled(id: i64) -> Effect {
    Effect::Notify(Notice::Canceled { id, reason: String::new() })
}

fn response(message: &[u8]) -> etcd::proto::watch::WatchResponse {
    Message::decode(&message[PREFIX_SIZE..]).expect("a response")
}

/// A client that waits for its watch to begin would wait for ever.
#[test]
fn a_watch_whose_past_is_gone_is_created_first_and_then_ended() {
    let mut stream = Stream::default();
    let id = stream.begin(0, 10);
    let effects = stream.end(10, Status::Compacted, 7);
    let [Effect::Notify(notice), Effect::Send(ended)] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert_eq!(*notice, Notice::Created { id });
    let created = response(&notice.message(&FROM, 9));
    assert!(created.created && !created.canceled);
    assert_eq!(created.header.expect("a header").revision, 9);
    let ended = response(ended);
    assert!(ended.canceled && !ended.created);
    assert_eq!((ended.compact_revision, ended.header.expect("a header").revision), (7, 0));
}

/// Clients cancel such a watch, and wait for the answer to that. Until then the id is theirs.
#[test]
fn a_watch_that_was_ended_keeps_its_id_until_the_client_cancels_it() {
    let mut stream = Stream::default();
    let id = stream.begin(5, 10);
    stream.tell(10, WatchStep::Created, 2);
    stream.end(10, Status::Compacted, 7);
    let duplicate = Effect::Notify(Notice::Refused(WatchRefusal::DuplicateId));
    assert_eq!(stream.create(WatchCreateRequest { watch_id: id, ..create() }), [duplicate]);
    assert_eq!(stream.cancel(id), [canceled(id)], "nothing is left to be canceled at the member");
    assert_eq!(stream.cancel(id), [], "who is not there is not canceled");
    assert_eq!(stream.begin(id, 11), id);
}

#[test]
fn progress_of_a_stream_does_not_wait_for_watches_that_have_ended() {
    let mut stream = Stream::default();
    stream.begin(0, 10);
    stream.begin(0, 11);
    stream.tell(10, WatchStep::Created, 2);
    stream.tell(11, WatchStep::Created, 2);
    stream.end(10, Status::Compacted, 7);
    let ask = || WatchUnion::Progress(WatchProgressRequest {});
    assert_eq!(stream.ask(ask()), [Effect::Remind { request: 11 }]);
    let effects = stream.tell(11, WatchStep::Progress, 9);
    let [Effect::Send(message)] = effects.as_slice() else { panic!("{effects:?}") };
    let told = response(message);
    assert_eq!((told.watch_id, told.header.expect("a header").revision), (-1, 9));
    stream.end(11, Status::Compacted, 12);
    assert_eq!(stream.ask(ask()), [], "nobody is there who could tell it");
    assert_eq!(stream.begin(0, 12), 2);
    stream.tell(12, WatchStep::Created, 20);
    assert_eq!(stream.ask(ask()), [Effect::Remind { request: 12 }], "it is asked for anew");
}

#[test]
fn a_watch_that_is_canceled_before_it_has_begun_is_given_up_when_it_has() {
    let mut stream = Stream::default();
    let effects = stream.create(create());
    assert!(matches!(effects.as_slice(), [Effect::Begin { id: 0, .. }]), "{effects:?}");
    assert_eq!(stream.cancel(0), [canceled(0)]);
    assert!(!stream.0.begun(0, 10));
    assert_eq!(stream.tell(10, WatchStep::Created, 2), []);
}
