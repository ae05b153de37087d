//! The standard health service. The member itself has a status, its services have none of their own, as in etcd.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use etcd::proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListResponse, ServingStatus,
};
use etcd::{Code, Failure, begin_message, decode};
use hyper::Response;

use super::Link;
use super::calls::Counted;
use super::grpc::{self, Messages, Sender, end_message};
use super::service::{Unary, tell};

/// How often the status is looked at for those who watch it.
const INTERVAL: Duration = Duration::from_millis(100);

/// The path of the stream.
pub const WATCH: &str = "/grpc.health.v1.Health/Watch";

/// The status of the member: whether it knows a leader; none: the service is another.
fn status(link: &Link, service: &str) -> Option<ServingStatus> {
    if !service.is_empty() {
        return None;
    }
    Some(if link.has_leader() { ServingStatus::Serving } else { ServingStatus::NotServing })
}

impl Unary<'_> {
    /// `Check`.
    pub fn health(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let request: HealthCheckRequest = self.decode()?;
        let status = status(self.link, &request.service)
            .ok_or_else(|| Failure::new(Code::NotFound, "unknown service"))?;
        tell(out, &HealthCheckResponse { status: status.into() })
    }

    /// `List`.
    pub fn health_list(&self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let statuses = status(self.link, "")
            .map(|status| (String::new(), HealthCheckResponse { status: status.into() }));
        tell(out, &HealthListResponse { statuses: statuses.into_iter().collect() })
    }
}

/// `Watch`: the status now, and whenever it is another. A service that is not known may come to be.
pub fn serve(link: &Rc<Link>, mut messages: Messages) -> Response<grpc::Reply> {
    let (response, sender) = grpc::streaming(messages.form());
    let link = Rc::clone(link);
    glommio::spawn_local(async move {
        let mut counted = Counted::begin(&link.gate, WATCH);
        let watch = watch(&link, &mut messages, &counted, &sender);
        let end = link.gate.until_stop(Duration::ZERO, watch).await;
        counted.end(&end);
        sender.end(end);
    })
    .detach();
    response
}

async fn watch(
    link: &Link,
    messages: &mut Messages,
    counted: &Counted,
    sender: &Sender,
) -> Result<(), Failure> {
    let message = messages.next().await?.unwrap_or_default();
    counted.received(message.len());
    let request: HealthCheckRequest = decode(message)?;
    let mut told = None;
    loop {
        let ready = poll_fn(|context| Poll::Ready(sender.poll_ready(context))).await;
        if ready == Poll::Ready(false) {
            return Ok(());
        }
        let now = status(link, &request.service).unwrap_or(ServingStatus::ServiceUnknown);
        // Who reads slowly is told the newest when there is room again.
        if ready.is_ready() && told != Some(now) {
            let mut out = begin_message();
            tell(&mut out, &HealthCheckResponse { status: now.into() })?;
            counted.sent(out.len());
            sender.send(end_message(out)?);
            told = Some(now);
        }
        glommio::timer::sleep(INTERVAL).await;
    }
}
