//! A question to another member over its client port, for what only the leader does.

use std::net::{SocketAddr, ToSocketAddrs as _};

use base::RequestId;
use bytes::BytesMut;
use etcd::{Code, Failure};
use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
use glommio::net::TcpStream;
use wire::{Call, Reply, RequestEncoder, Splitter};

use super::native::Answer;

/// Bytes that one read takes.
const READ_SIZE: usize = 16 << 10;

/// The answer of the member at this address.
///
/// # Errors
/// It cannot be reached, or does not answer as a member of this cluster does.
pub async fn ask(
    address: &str,
    cluster: u64,
    deadline_ms: u32,
    call: &Call<'_>,
) -> Result<Answer, Failure> {
    let broken = |error: &dyn std::fmt::Display| {
        Failure::new(Code::Unavailable, format!("etcdserver: the leader at {address}: {error}"))
    };
    let owned = address.to_owned();
    let target = match address.parse::<SocketAddr>() {
        Ok(target) => Some(target),
        // A name is looked up beside the core, for that may take seconds.
        Err(_) => {
            let look_up = move || owned.to_socket_addrs().ok().and_then(|mut all| all.next());
            glommio::executor().spawn_blocking(look_up).await
        }
    };
    let target = target.ok_or_else(|| broken(&"the name has no address"))?;
    let mut stream = TcpStream::connect(target).await.map_err(|error| broken(&error))?;
    let (mut encoder, mut splitter) = (RequestEncoder::new(), Splitter::new());
    let version = u16::from(wire::VERSION_MAX);
    let hello =
        wire::Hello { version_min: version, version_max: version, cluster, client_name: "member" };
    let mut input = BytesMut::new();
    for (request, call) in [(0, &Call::Hello(hello)), (1, call)] {
        let mut frame = Vec::new();
        encoder
            .encode(&mut frame, RequestId::new(request), deadline_ms, call)
            .map_err(|_| Failure::REQUEST_TOO_LARGE)?;
        stream.write_all(&frame).await.map_err(|error| broken(&error))?;
        let answer = loop {
            if let Some((header, body)) =
                splitter.next(&mut input).map_err(|error| broken(&error))?
            {
                break Answer::new(header, body);
            }
            let mut chunk = [0; READ_SIZE];
            match stream.read(&mut chunk).await.map_err(|error| broken(&error))? {
                0 => return Err(broken(&"it has closed the connection")),
                count => input.extend_from_slice(&chunk[..count]),
            }
        };
        if request > 0 {
            return Ok(answer);
        }
        match answer.reply() {
            Ok(Reply::Hello(hello)) => {
                let size = |size: u32| usize::try_from(size).unwrap_or(usize::MAX);
                encoder.agree(wire::VERSION_MAX, size(hello.request_body_size_max));
                splitter.agree(wire::VERSION_MAX, size(hello.reply_body_size_max));
            }
            // Why it takes no client is the answer to what was to be asked.
            _ => return Ok(answer),
        }
    }
    Err(broken(&"it was not asked"))
}
