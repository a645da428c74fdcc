//! A downstream HTTP/2 connection: streams side by side.

use std::future::poll_fn;
use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Body, Drain, Request, RequestBody, Responder, Serve, ServerLimits, draining, respond};
use crate::http1::Refusal;
use crate::http2::receive_request;
use crate::model::Fault;

/// Serves streams until the client, the proxy or an error ends the connection, or `until` is over.
/// When the proxy drains, the client is told to open no more (GOAWAY), and those that are open end.
pub async fn serve_http2<S: Serve, I>(
    io: I,
    service: Rc<S>,
    limits: &ServerLimits,
    mut drain: Drain,
    until: Instant,
) where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = limits.http2.server().handshake::<I, Bytes>(io);
    let Ok(Ok(mut connection)) = timeout(limits.head_timeout, handshake).await else {
        return;
    };
    let mut told = false;
    let mut idle_since = Instant::now();
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = draining(&mut drain), if !told => {
                told = true;
                connection.graceful_shutdown();
                continue;
            }
            () = sleep_until(until) => {
                connection.abrupt_shutdown(h2::Reason::NO_ERROR);
                // One more turn sends the GOAWAY; the streams that are left are reset with it.
                let _ = timeout(limits.head_timeout, poll_fn(|cx| connection.poll_closed(cx))).await;
                return;
            }
            () = sleep_until(idle_since + limits.idle_timeout), if !told => {
                if connection.has_streams() {
                    idle_since = Instant::now();
                } else {
                    told = true;
                    connection.graceful_shutdown();
                }
                continue;
            }
        };
        match accepted {
            Some(Ok((request, respond))) => {
                idle_since = Instant::now();
                tokio::task::spawn_local(serve_stream(request, respond, service.clone()));
            }
            Some(Err(_)) | None => return,
        }
    }
}

async fn serve_stream<S: Serve>(
    request: http::Request<RecvStream>,
    answer: SendResponse<Bytes>,
    service: Rc<S>,
) {
    let (parts, stream) = request.into_parts();
    let method = parts.method.clone();
    let responder = Responder::Http2 {
        respond: answer,
        method,
    };
    match receive_request(parts) {
        Ok(head) => {
            let body = RequestBody::new(Body::Http2 { stream });
            Box::pin(service.serve(Request {
                head,
                body,
                responder,
            }))
            .await;
        }
        Err(refusal) => {
            let fault = match refusal {
                Refusal::Malformed(_) => Fault::MalformedRequest,
                Refusal::TooLarge(_) => Fault::HeadersTooLarge,
            };
            service.refused(fault);
            // A client that is gone can't be told.
            let _ = respond(responder, fault, false, false).await;
        }
    }
}
