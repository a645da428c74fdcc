//! The answer to a carried request, on its way to whoever asked.

use std::task::Poll;

use bytes::Bytes;

use super::upstream::Upstream;
use crate::http::exchange::grpc_status;
use crate::http::line::LineSender;
use crate::http::{Failure, Outcome, Piece, Request, Responder};
use crate::http2::ErrorCode;
use crate::model::{Fault, Fields, ResponseHead};
use crate::multiplex::StreamSender;

/// An answer that is being passed on.
pub(super) struct Answering {
    pub(super) client: Client,
    /// The head said already that nothing follows.
    pub(super) is_whole: bool,
    pub(super) outcome: Outcome,
}

/// Whoever asked.
pub(super) enum Client {
    Line(LineSender),
    Stream(StreamSender),
}

impl Client {
    /// Takes it from a request whose answer begins.
    pub(super) fn take(request: &mut Request<'static>) -> Option<Self> {
        match request.responder.take()? {
            Responder::Http1 { .. } => None,
            Responder::Line { answer } => Some(Self::Line(answer)),
            Responder::Http2 { stream, .. } => Some(Self::Stream(stream)),
        }
    }

    /// Begins the final answer.
    pub(super) fn respond(&mut self, head: ResponseHead, is_whole: bool) -> Result<(), Failure> {
        match self {
            Self::Line(answer) => answer.respond(head, is_whole).map_err(gone),
            Self::Stream(stream) => stream.respond(&head, is_whole).map_err(gone),
        }
    }

    /// Hands on as much as there is room for.
    fn send(&mut self, data: &mut Bytes) -> Result<(), Failure> {
        match self {
            Self::Line(answer) => answer.send(data).map_err(gone),
            Self::Stream(stream) => stream.send(data).map_err(gone),
        }
    }

    /// Ends an answer; `is_whole` if its head said already that nothing follows.
    fn finish(&mut self, trailers: &Fields, is_whole: bool) -> Result<(), Failure> {
        match self {
            Self::Line(answer) => answer.finish(trailers).map_err(gone),
            Self::Stream(_) if is_whole => Ok(()),
            Self::Stream(stream) => stream.finish(trailers).map_err(gone),
        }
    }

    pub(super) fn reset(&mut self, code: ErrorCode) {
        match self {
            Self::Line(answer) => answer.reset(),
            Self::Stream(stream) => stream.reset(code),
        }
    }

    fn is_gone(&self) -> bool {
        match self {
            Self::Line(answer) => answer.is_gone(),
            Self::Stream(stream) => stream.is_gone(),
        }
    }
}

fn gone<E>(_: E) -> Failure {
    Failure::ClientGone
}

impl Answering {
    /// Passes on what follows the head.
    pub(super) fn pass_on(
        &mut self,
        upstream: &mut Upstream,
        downward: &mut Bytes,
    ) -> Poll<Result<(), Failure>> {
        loop {
            if !downward.is_empty() {
                if let Err(gone) = self.client.send(downward) {
                    return Poll::Ready(Err(gone));
                }
                if !downward.is_empty() {
                    return Poll::Pending;
                }
            }
            match upstream.take_piece() {
                Some(Ok(Piece::Data(data))) => {
                    self.outcome.response_bytes += data.len() as u64;
                    *downward = data;
                }
                Some(Ok(Piece::End(trailers))) => {
                    self.outcome.grpc_status = grpc_status(&trailers).or(self.outcome.grpc_status);
                    return Poll::Ready(self.client.finish(&trailers, self.is_whole));
                }
                Some(Err(())) => {
                    self.outcome.fault = Some(Fault::UpstreamReset);
                    self.client.reset(ErrorCode::INTERNAL_ERROR);
                    return Poll::Ready(Ok(()));
                }
                None if self.client.is_gone() => {
                    return Poll::Ready(Err(Failure::ClientGone));
                }
                None => return Poll::Pending,
            }
        }
    }
}
