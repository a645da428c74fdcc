//! A downstream HTTP/2 connection: streams side by side.

use std::cell::{Cell, RefCell};
use std::future::pending;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;

use http::Version;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep, sleep_until};
use tracing::error;

use super::workers::Stream;
use super::{Drain, Request, Responder, Serve, ServerLimits, Told, draining, respond};
use crate::http1::Refusal;
use crate::http2::{ErrorCode, Role};
use crate::model::Fault;
use crate::multiplex::{Accepted, Multiplex};

/// Serves streams until the client, the proxy or an error ends the connection, or `until` is over.
/// When the proxy drains, the client is told to open no more (GOAWAY), and those that are open end.
pub async fn serve_http2<S: Serve, I>(
    mut io: I,
    service: Rc<S>,
    limits: &ServerLimits,
    mut drain: Drain,
    until: Option<Instant>,
) where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let opened = Instant::now();
    let connection = Multiplex::new(Role::Server, limits.http2);
    let used = Cell::new(false);
    let mut driving = pin!(connection.drive(&mut io, |accepted| {
        used.set(true);
        match service.tunnel(accepted) {
            ControlFlow::Break(tunnel) => drop(tokio::task::spawn_local(tunnel)),
            ControlFlow::Continue(accepted) => begin_stream(&service, accepted),
        }
    }));
    let mut told = false;
    let mut look = pin!(sleep(limits.head_timeout));
    let mut end = pin!(async {
        match until {
            Some(until) => sleep_until(until).await,
            None => pending().await,
        }
    });
    loop {
        tokio::select! {
            biased;
            _ = &mut driving => return,
            () = draining(&mut drain), if !told => {
                told = true;
                connection.go_away();
            }
            () = &mut look, if !told => {
                if !connection.has_begun() {
                    return;
                }
                // A connection that nobody used since the last look, and nobody uses, is idle. The
                // first look comes early and finds the client's SETTINGS only.
                let is_first = look.deadline() < opened + limits.idle_timeout;
                if is_first || used.take() || connection.has_streams() {
                    look.as_mut().reset(Instant::now() + limits.idle_timeout);
                } else {
                    told = true;
                    connection.go_away();
                }
            }
            () = &mut end => {
                // The streams that are left are reset with it.
                connection.end(ErrorCode::NO_ERROR, "its time is over");
                driving.await;
                return;
            }
        }
    }
}

/// Has a stream served: carried where that can be, by a task otherwise. A panic ends the stream, and nothing else.
fn begin_stream<S: Serve>(service: &Rc<S>, accepted: Accepted<'_>) {
    let carried = catch_unwind(AssertUnwindSafe(|| service.carry(accepted)));
    match carried {
        Ok(ControlFlow::Break(())) => {}
        Ok(ControlFlow::Continue(accepted)) => {
            service.workers().serve(accepted, service.clone());
        }
        Err(_) => error!("serving a stream panicked; the stream is ended"),
    }
}

/// Serves the stream that is there. It is taken apart where it stands, as each move of it would copy its head.
pub(super) async fn serve_stream<S: Serve>(stream: &RefCell<Option<Stream<S>>>) {
    let taken = stream.borrow_mut().take();
    let Some(Stream {
        head,
        receiver,
        sender,
        service,
    }) = taken
    else {
        return;
    };
    match head {
        Ok(head) => {
            let mut request = Request::of_stream(head, receiver, sender);
            service.serve(&mut request).await;
        }
        Err(refused) => {
            let fault = match refused.why {
                Refusal::Malformed(_) => Fault::MalformedRequest,
                Refusal::TooLarge(_) => Fault::HeadersTooLarge,
                Refusal::TargetTooLarge => Fault::TargetTooLarge,
            };
            let told = Told::of(fault, refused.is_grpc);
            service.refused(told, Version::HTTP_2);
            let responder = Responder::Http2 {
                stream: sender,
                is_head: refused.is_head,
            };
            // A client that is gone can't be told.
            let _ = Box::pin(respond(responder, told)).await;
            drop(receiver);
        }
    }
}
