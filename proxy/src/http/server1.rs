//! A downstream HTTP/1 connection: one request after the other (RFC 9112 9.3).

use std::rc::Rc;

use bytes::BytesMut;
use http::{Method, Version};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Body, Drain, Request, RequestBody, Responder, Serve, ServerLimits, Told, draining, respond,
};
use crate::http1::{BodyDecoder, ReceivedRequest, Refusal, receive_request};
use crate::model::Fault;
use crate::tcp::{Reader, Writer};

/// How long, and how much, is still read after the last answer, so that a client which is still
/// sending gets to read it (RFC 9112 9.6).
const LINGER: std::time::Duration = std::time::Duration::from_secs(1);
/// See [`LINGER`].
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Why the connection's HTTP ended.
pub enum Ended {
    Closed,
    /// The client asked for a tunnel; it waits for the answer.
    Connect {
        authority: String,
        reader: Reader,
        writer: Writer,
    },
}

/// What came instead of a request.
enum NoRequest {
    End,
    Fault(Fault),
}

/// Serves requests until the client, the proxy or an error ends the connection. `tunnels` says
/// whether CONNECT is an offer of this listener; it is malformed otherwise.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` would keep its arguments beside what they are moved to, in every idle connection"
)]
pub fn serve_http1<S: Serve>(
    mut reader: Reader,
    mut writer: Writer,
    service: Rc<S>,
    limits: &ServerLimits,
    mut drain: Drain,
    tunnels: bool,
) -> impl Future<Output = Ended> {
    async move {
        loop {
            let received = match next_request(&mut reader, limits, &mut drain).await {
                Ok(received) => received,
                Err(NoRequest::End) => return Ended::Closed,
                Err(NoRequest::Fault(fault)) => {
                    service.refused(fault, Version::HTTP_11);
                    Box::pin(refuse(&mut writer, fault)).await;
                    Box::pin(linger(&mut reader, &mut writer)).await;
                    return Ended::Closed;
                }
            };
            if received.head.method == Method::CONNECT {
                let authority = received.head.authority.unwrap_or_default().to_string();
                if tunnels {
                    return Ended::Connect {
                        authority,
                        reader,
                        writer,
                    };
                }
                service.refused(Fault::MalformedRequest, Version::HTTP_11);
                Box::pin(refuse(&mut writer, Fault::MalformedRequest)).await;
                return Ended::Closed;
            }
            let mut keep_alive = received.keep_alive;
            // Boxed, so that a connection between two requests is small.
            let whole = Box::pin(serve_one(
                received,
                &mut reader,
                &mut writer,
                &mut keep_alive,
                &*service,
                limits,
                &drain,
            ))
            .await;
            if writer.within_message || writer.flush().await.is_err() {
                return Ended::Closed;
            }
            writer.shrink();
            if !whole || !keep_alive {
                Box::pin(linger(&mut reader, &mut writer)).await;
                return Ended::Closed;
            }
        }
    }
}

/// Serves one request; false when its body was not received whole, so that the connection cannot go
/// on.
async fn serve_one<S: Serve>(
    received: ReceivedRequest,
    reader: &mut Reader,
    writer: &mut Writer,
    keep_alive: &mut bool,
    service: &S,
    limits: &ServerLimits,
    drain: &Drain,
) -> bool {
    let ReceivedRequest { head, body, .. } = received;
    let upgrade = head.upgrade.is_some();
    // Whatever the answer is, what follows a request for another protocol may be in that protocol.
    *keep_alive &= !upgrade;
    let mut decoder = BodyDecoder::new(body);
    let responder = Responder::Http1 {
        writer,
        method: head.method.clone(),
        version: head.version,
        keep_alive,
        drain: Some(drain),
    };
    let body = Body::Http1 {
        reader,
        decoder: &mut decoder,
        limits: limits.http1,
    };
    let body = RequestBody::new(body, head.version);
    let mut request = Request {
        head,
        body,
        responder: Some(responder),
    };
    service.serve(&mut request).await;
    drop(request);
    decoder.is_done() && !upgrade
}

async fn next_request(
    reader: &mut Reader,
    limits: &ServerLimits,
    drain: &mut Drain,
) -> Result<ReceivedRequest, NoRequest> {
    let mut deadline = None;
    loop {
        match receive_request(&mut reader.buffer, &limits.http1) {
            Ok(Some(received)) => return Ok(received),
            Ok(None) => {}
            Err(Refusal::Malformed(_)) => return Err(NoRequest::Fault(Fault::MalformedRequest)),
            Err(Refusal::TooLarge(_)) => return Err(NoRequest::Fault(Fault::HeadersTooLarge)),
        }
        let read = if reader.buffer.is_empty() {
            reader.shrink();
            tokio::select! {
                read = timeout(limits.idle_timeout, reader.fill()) => read.map_err(|_| NoRequest::End)?,
                () = draining(drain) => return Err(NoRequest::End),
            }
        } else {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + limits.head_timeout);
            let read = timeout_at(deadline, reader.fill()).await;
            read.map_err(|_| NoRequest::Fault(Fault::HeaderTimeout))?
        };
        if !matches!(read, Ok(read) if read > 0) {
            return Err(NoRequest::End);
        }
    }
}

async fn refuse(writer: &mut Writer, fault: Fault) {
    let mut keep_alive = false;
    let responder = Responder::Http1 {
        writer,
        method: Method::GET,
        version: Version::HTTP_11,
        keep_alive: &mut keep_alive,
        drain: None,
    };
    // A client that is gone can't be told.
    let _ = respond(responder, Told::of(fault, false)).await;
}

/// Ends our direction, then reads and drops what is still on its way to us.
async fn linger(reader: &mut Reader, writer: &mut Writer) {
    if writer.shutdown().await.is_err() {
        return;
    }
    let mut left = LINGER_BYTES_MAX;
    let drop_rest = async {
        loop {
            reader.buffer = BytesMut::new();
            match reader.fill().await {
                Ok(read) if read > 0 && read < left => left -= read,
                _ => return,
            }
        }
    };
    // Whoever sends on beyond the limits gets a reset instead.
    let _ = timeout(LINGER, drop_rest).await;
}
