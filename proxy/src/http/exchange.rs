//! One request to one upstream, and its answer back. Both directions flow at the same time, so an
//! early answer, a streaming call and a slow reader need no special case; nobody's bytes are taken
//! before the other side has room for them.

use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt;
use http::StatusCode;
use http::header::RETRY_AFTER;

use super::grpc::{Pushback, pushback};
use super::respond::NO_RETRY;
use super::terms::Alarm;
use super::upstream::{Answer, Unanswered};
use super::{Body, Piece, RequestBody, Responder, Sink, Terms, Upstream};
use crate::http2::ErrorCode;
use crate::model::{Fault, Fields, Kinds, RequestHead, ResponseHead};

/// An exchange that was answered by the upstream.
#[derive(Debug)]
pub struct Outcome {
    pub status: StatusCode,
    /// From the trailers or, when the answer is nothing but a head, from there.
    pub grpc_status: Option<u16>,
    /// Set when the answer broke off, or was made by the other sidecar.
    pub fault: Option<Fault>,
    pub response_bytes: u64,
    /// From the request's being sent to the answer's head, where that was to be measured.
    pub latency: Option<Duration>,
    /// Another attempt was made below already, says the answer.
    pub is_final: bool,
    /// How long the upstream asked to be left alone (RFC 9110 10.2.3).
    pub pause: Option<Duration>,
    /// When a gRPC server wants to be asked again.
    pub pushback: Option<Pushback>,
    /// Whether an HTTP/1 upstream can serve another request.
    pub reusable: bool,
}

/// An exchange that the client has no answer to yet.
#[derive(Debug)]
pub enum Failure {
    Unanswered(Unanswered),
    /// There was an answer, in the place of which the request is to be sent again.
    Again(Outcome),
    /// The client went away; nobody waits for an answer.
    ClientGone,
}

impl Outcome {
    /// As far as the answer's head tells it.
    pub(super) fn of(response: &ResponseHead, latency: Option<Duration>) -> Self {
        let status = response.status;
        let fault = fault_of(&response.headers);
        // A limit that a sidecar keeps is for some requests, and the endpoint serves the others.
        let may_pause = fault.is_none()
            && matches!(
                status,
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
            );
        let pause = may_pause.then(|| {
            response
                .headers
                .get(&RETRY_AFTER)?
                .to_str()
                .ok()?
                .parse()
                .ok()
        });
        let grpc_status = grpc_status(&response.headers);
        let pushback = grpc_status.and_then(|_| pushback(&response.headers));
        Self {
            status,
            grpc_status,
            pushback,
            fault,
            response_bytes: 0,
            latency,
            is_final: response.headers.may_have(Kinds::VERDICT)
                && response.headers.contains(&NO_RETRY),
            pause: pause.flatten().map(Duration::from_secs),
            reusable: false,
        }
    }

    /// Whether it says that whoever answered is in trouble, and not whoever asked. Of gRPC's statuses those
    /// are UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE and DATA_LOSS.
    pub fn is_failure(&self) -> bool {
        let broken = matches!(
            self.fault,
            Some(Fault::UpstreamReset | Fault::BackendTimeout)
        );
        let of_grpc = matches!(self.grpc_status, Some(2 | 4 | 13 | 14 | 15));
        let of_http = self.status.is_server_error() && self.status != StatusCode::NOT_IMPLEMENTED;
        broken || of_grpc || of_http
    }
}

/// Carries `head` and `body` to `upstream` and the answer to `responder`, which is taken once the
/// answer begins; as long as it is there, another upstream may be tried.
pub async fn exchange<'d>(
    head: &mut RequestHead,
    body: &mut RequestBody<'d>,
    responder: &mut Option<Responder<'d>>,
    upstream: &mut Upstream,
    terms: Terms<'_>,
) -> Result<Outcome, Failure> {
    let mut alarm = Alarm::new(terms.deadline);
    let watch = terms.watch();
    let empty = body.is_empty();
    let sent_whole = empty && upstream.ends_with_head();
    let (mut request_sink, mut answer) = upstream
        .send(head, empty)
        .await
        .map_err(Failure::Unanswered)?;
    let request_done = Cell::new(sent_whole);
    let mut sending = pin!(send_request(body, &mut request_sink, &request_done));

    let mut response = loop {
        let Some(waiting) = responder.as_mut() else {
            return Err(Failure::ClientGone);
        };
        let received = tokio::select! {
            biased;
            received = answer.next_head() => received.map_err(Failure::Unanswered)?,
            () = &mut sending => return Err(Failure::ClientGone),
            () = waiting.gone() => return Err(Failure::ClientGone),
            fault = alarm.rings() => return Err(Failure::Unanswered(Unanswered::late(fault))),
        };
        if !received.status.is_informational() || received.status == StatusCode::SWITCHING_PROTOCOLS
        {
            break received;
        }
        waiting
            .informational(received)
            .await
            .map_err(|_| Failure::ClientGone)?;
    };
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        // Nobody asked for it (RFC 9110 15.2.2), so what follows could not be framed.
        let broken = Unanswered::late(Fault::UpstreamProtocol);
        return Err(Failure::Unanswered(broken));
    }

    let mut outcome = Outcome::of(&response, watch.read());
    if terms.again.is_some_and(|again| again(&response)) {
        return Err(Failure::Again(outcome));
    }
    let Some(responder) = responder.take() else {
        return Err(Failure::ClientGone);
    };
    if let Some(change) = terms.change {
        change(&mut response);
    }
    let ended = {
        let receiving = pin!(receive_response(
            response,
            &mut answer,
            responder,
            &mut outcome,
            &mut alarm
        ));
        tokio::select! {
            biased;
            ended = receiving => ended,
            () = &mut sending => Err(Failure::ClientGone),
        }
    };
    ended?;
    let whole = !matches!(
        outcome.fault,
        Some(Fault::UpstreamReset | Fault::RequestTimeout | Fault::BackendTimeout)
    );
    outcome.reusable = answer.keeps_alive() && request_done.get() && whole;
    Ok(outcome)
}

/// Sends the body. Returns only when the client is gone: an upstream that takes no more of the body says why in
/// its answer, or ends, and both are seen there.
async fn send_request(body: &mut RequestBody<'_>, sink: &mut Sink<'_>, done: &Cell<bool>) {
    while !done.get() {
        let piece = match body.next().now_or_never() {
            Some(piece) => piece,
            None => {
                if sink.flush().await.is_err() {
                    break;
                }
                body.next().await
            }
        };
        let sent = match piece {
            Err(_) => {
                sink.reset(ErrorCode::CANCEL);
                return;
            }
            Ok(Piece::Data(data)) => sink.data(data).await,
            Ok(Piece::End(trailers)) => {
                let ended = sink.finish(trailers).await;
                done.set(ended.is_ok());
                ended
            }
        };
        if sent.is_err() {
            break;
        }
    }
    std::future::pending().await
}

/// Passes the answer on to its end, or to its deadline.
pub(super) async fn receive_response(
    head: ResponseHead,
    answer: &mut Answer<'_>,
    responder: Responder<'_>,
    outcome: &mut Outcome,
    alarm: &mut Alarm,
) -> Result<(), Failure> {
    let Some(mut body) = answer.body() else {
        return Err(Failure::ClientGone);
    };
    let empty = body.is_done();
    let mut sink = responder
        .respond(head, empty)
        .map_err(|_| Failure::ClientGone)?;
    let late = tokio::select! {
        biased;
        ended = pass_on(&mut body, &mut sink, outcome) => return ended,
        fault = alarm.rings() => fault,
    };
    outcome.fault = Some(late);
    sink.reset(ErrorCode::CANCEL);
    Ok(())
}

async fn pass_on(
    body: &mut Body<'_>,
    sink: &mut Sink<'_>,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    loop {
        let piece = match body.next().now_or_never() {
            Some(piece) => piece,
            None => wait_for_piece(body, sink).await?,
        };
        match piece {
            Ok(Piece::Data(data)) => {
                outcome.response_bytes += data.len() as u64;
                sink.data(data).await.map_err(|_| Failure::ClientGone)?;
            }
            Ok(Piece::End(trailers)) => {
                outcome.grpc_status = grpc_status(&trailers).or(outcome.grpc_status);
                return sink.finish(trailers).await.map_err(|_| Failure::ClientGone);
            }
            Err(_) => {
                outcome.fault = Some(Fault::UpstreamReset);
                sink.reset(ErrorCode::INTERNAL_ERROR);
                return Ok(());
            }
        }
    }
}

async fn wait_for_piece(
    body: &mut Body<'_>,
    sink: &mut Sink<'_>,
) -> Result<Result<Piece, super::BodyError>, Failure> {
    sink.flush().await.map_err(|_| Failure::ClientGone)?;
    tokio::select! {
        biased;
        piece = body.next() => Ok(piece),
        () = sink.gone() => Err(Failure::ClientGone),
    }
}

/// The fault that another sidecar named.
pub(super) fn fault_of(headers: &Fields) -> Option<Fault> {
    if !headers.may_have(Kinds::VERDICT) {
        return None;
    }
    Fault::from_reason(headers.get(&super::respond::WEFT_FAULT)?.to_str().ok()?)
}

/// What gRPC says of a call, where a head or trailers do.
pub(super) fn grpc_status(fields: &Fields) -> Option<u16> {
    if !fields.may_have(Kinds::GRPC_STATUS) {
        return None;
    }
    fields.get("grpc-status")?.to_str().ok()?.parse().ok()
}
