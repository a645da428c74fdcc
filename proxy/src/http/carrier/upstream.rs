//! Where a carried request was sent.

use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::Method;

use super::Errand;
use super::answering::{Answering, Client};
use crate::http::line::{LineReceiver, LineSender};
use crate::http::terms::Watch;
use crate::http::upstream::{check_hop, lost, without_hop};
use crate::http::{Failure, Outcome, Piece, Request, RequestBody, Responder, Unanswered};
use crate::http2::{self, ErrorCode, Taken};
use crate::model::{Fault, Fields, ResponseHead};
use crate::multiplex::{StreamReceiver, StreamSender};

/// Where the request was sent.
pub(super) enum Upstream {
    Stream {
        sender: StreamSender,
        receiver: StreamReceiver,
        /// The other end is a sidecar.
        on_hop: bool,
    },
    Line {
        sender: LineSender,
        receiver: LineReceiver,
        /// A head of the answer has come.
        begun: bool,
    },
}

impl Upstream {
    /// Takes the next head of the answer: an informational one is passed on, and the final one begins the answer.
    pub(super) fn next_head(
        &mut self,
        request: &mut Request<'static>,
        (errand, watch, now): (&mut impl Errand, &Watch, Instant),
    ) -> Poll<Result<Option<Answering>, Failure>> {
        match self.take_head(&request.head.method) {
            Poll::Ready(Ok(head)) => {
                Poll::Ready(self.pass_head_on(head, request, (errand, watch, now)))
            }
            Poll::Ready(Err(unanswered)) => Poll::Ready(Err(Failure::Unanswered(unanswered))),
            Poll::Pending => {
                let is_gone = request.responder.as_ref().is_none_or(Responder::is_gone);
                match is_gone {
                    true => Poll::Ready(Err(Failure::ClientGone)),
                    false => Poll::Pending,
                }
            }
        }
    }

    fn take_head(&mut self, method: &Method) -> Poll<Result<ResponseHead, Unanswered>> {
        let (receiver, on_hop) = match self {
            Self::Stream {
                receiver, on_hop, ..
            } => (receiver, *on_hop),
            Self::Line {
                receiver, begun, ..
            } => return receiver.take_head(method, begun).map_ok(without_hop),
        };
        Poll::Ready(match receiver.take() {
            Taken::Pending => return Poll::Pending,
            Taken::Piece(http2::Piece::Head(head)) if on_hop => check_hop(head),
            Taken::Piece(http2::Piece::Head(head)) => Ok(without_hop(head)),
            Taken::Failed(failure) => Err(lost(failure)),
            Taken::Piece(_) | Taken::End => Err(Unanswered::late(Fault::UpstreamProtocol)),
        })
    }

    /// Takes the next piece of the answer's body, if it has come, or notice that it broke off.
    pub(super) fn take_piece(&mut self) -> Option<Result<Piece, ()>> {
        let receiver = match self {
            Self::Stream { receiver, .. } => receiver,
            Self::Line { receiver, .. } => return Some(receiver.take()?.map_err(|_| ())),
        };
        match receiver.take() {
            Taken::Piece(http2::Piece::Data(data)) => Some(Ok(Piece::Data(data))),
            Taken::Piece(http2::Piece::Trailers(trailers)) => Some(Ok(Piece::End(trailers))),
            Taken::End => Some(Ok(Piece::End(Fields::new()))),
            Taken::Failed(_) => Some(Err(())),
            // The final head came before, and the engine lets none follow it.
            Taken::Pending | Taken::Piece(http2::Piece::Head(_)) => None,
        }
    }

    /// Whether nothing follows the answer's head.
    pub(super) fn is_drained(&self) -> bool {
        match self {
            Self::Stream { receiver, .. } => receiver.is_drained(),
            Self::Line { receiver, .. } => receiver.is_done(),
        }
    }

    fn pass_head_on(
        &mut self,
        mut head: ResponseHead,
        request: &mut Request<'static>,
        (errand, watch, now): (&mut impl Errand, &Watch, Instant),
    ) -> Result<Option<Answering>, Failure> {
        // The engine takes no 101, so this is one that others follow.
        if head.status.is_informational() {
            let waiting = request.responder.as_mut();
            let passed_on = waiting.is_some_and(|waiting| waiting.pass_on(&head).is_ok());
            return match passed_on {
                true => Ok(None),
                false => Err(Failure::ClientGone),
            };
        }
        let outcome = Outcome::of(&head, watch.read());
        if request.body.is_kept() && errand.again(&head) {
            return Err(Failure::Again(outcome));
        }
        errand.change(&mut head, now);
        let mut client = Client::take(request).ok_or(Failure::ClientGone)?;
        let is_whole = self.is_drained();
        client.respond(head, is_whole)?;
        Ok(Some(Answering {
            client,
            is_whole,
            outcome,
        }))
    }

    /// Sends the body. Ready when nothing more is to be sent: false says that the client is gone. An upstream that
    /// takes no more of it says why in its answer, or ends, and both are seen there.
    pub(super) fn send(
        &mut self,
        body: &mut RequestBody<'static>,
        upward: &mut Bytes,
    ) -> Poll<bool> {
        loop {
            if !upward.is_empty() {
                let sent = match self {
                    Self::Stream { sender, .. } => sender.send(upward).is_ok(),
                    Self::Line { sender, .. } => sender.send(upward).is_ok(),
                };
                if !sent {
                    return Poll::Ready(true);
                }
                if !upward.is_empty() {
                    return Poll::Pending;
                }
            }
            match body.take() {
                None => return Poll::Pending,
                Some(Err(_)) => {
                    match self {
                        Self::Stream { sender, .. } => sender.reset(ErrorCode::CANCEL),
                        Self::Line { sender, .. } => sender.reset(),
                    }
                    return Poll::Ready(false);
                }
                Some(Ok(Piece::Data(data))) => *upward = data,
                Some(Ok(Piece::End(trailers))) => {
                    // An upstream that is gone is seen where its answer is.
                    match self {
                        Self::Stream { sender, .. } => drop(sender.finish(&trailers)),
                        Self::Line { sender, .. } => drop(sender.finish(&trailers)),
                    }
                    return Poll::Ready(true);
                }
            }
        }
    }
}
