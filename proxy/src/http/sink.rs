//! Messages as they go out.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use http::{Method, StatusCode, Version};

use super::line::LineSender;
use crate::http1::{BodyEncoder, BodyLength, write_response};
use crate::http2::ErrorCode;
use crate::model::{Fields, ResponseHead};
use crate::multiplex::StreamSender;
use crate::tcp::{Sender, StreamError, Writer};

/// Where the body of a message goes.
pub enum Sink<'a> {
    Http1 {
        writer: &'a mut Writer,
        encoder: BodyEncoder,
    },
    /// A client's connection of HTTP/1.
    Line { answer: LineSender },
    Http2 {
        stream: StreamSender,
        /// The head said already that nothing follows.
        ended: bool,
    },
}

impl Sink<'_> {
    /// Hands data on; returns once the carrier took it.
    pub async fn data(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        match self {
            Sink::Http1 { writer, encoder } => {
                if let Some(after) = encoder.frame(&mut writer.buffer, data.len()) {
                    writer.write(data).await?;
                    writer.buffer.extend_from_slice(after);
                }
                Ok(())
            }
            Sink::Line { answer } => {
                poll_fn(|cx| {
                    answer.send(&mut data)?;
                    if data.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    answer.wait(cx);
                    Poll::Pending
                })
                .await
            }
            Sink::Http2 { stream, .. } => Ok(stream.data(data).await?),
        }
    }

    /// Sends what has gathered; to be called before waiting for more.
    pub async fn flush(&mut self) -> Result<(), StreamError> {
        match self {
            Sink::Http1 { writer, .. } => Ok(writer.flush().await?),
            Sink::Line { answer } => answer.flush(),
            Sink::Http2 { .. } => Ok(()),
        }
    }

    /// Ends the message.
    pub async fn finish(&mut self, trailers: Fields) -> Result<(), StreamError> {
        match self {
            Sink::Http1 { writer, encoder } => {
                encoder.finish(&mut writer.buffer, Some(&trailers));
                writer.within_message = false;
                Ok(writer.flush().await?)
            }
            Sink::Line { answer } => answer.finish(&trailers),
            Sink::Http2 { ended: true, .. } => Ok(()),
            Sink::Http2 { stream, .. } => Ok(stream.finish(&trailers)?),
        }
    }

    /// Ends the message so that its receiver knows that it is not whole.
    pub fn reset(&mut self, code: ErrorCode) {
        match self {
            Sink::Http1 { writer, .. } => writer.reset(),
            Sink::Line { answer } => answer.reset(),
            Sink::Http2 { stream, .. } => stream.reset(code),
        }
    }

    /// Returns once the receiver wants no more of it.
    pub async fn gone(&mut self) {
        match self {
            Sink::Http1 { .. } => std::future::pending().await,
            Sink::Line { answer } => gone(answer).await,
            Sink::Http2 { stream, .. } => stream.gone().await,
        }
    }

    /// Opaque bytes from here on; nothing on a [`Line`](Sink::Line), whose requests ask for none.
    pub fn tunnel(&mut self) -> Option<Sender<'_>> {
        match self {
            Sink::Http1 { writer, .. } => Some(Sender::Tcp(writer)),
            Sink::Line { .. } => None,
            Sink::Http2 { stream, .. } => Some(Sender::Http2(stream)),
        }
    }
}

/// Where the answer to a request goes.
pub enum Responder<'a> {
    /// A connection of HTTP/1 that ends with this answer, if it doesn't go on in another protocol.
    Http1 {
        writer: &'a mut Writer,
        method: Method,
        version: Version,
    },
    /// A client's connection of HTTP/1, and a request that can't become a tunnel.
    Line { answer: LineSender },
    Http2 {
        stream: StreamSender,
        /// The request is a HEAD.
        is_head: bool,
    },
}

impl<'a> Responder<'a> {
    /// Passes a 1xx on to a client whose request is carried.
    pub(super) fn pass_on(&mut self, head: &ResponseHead) -> Result<(), StreamError> {
        match self {
            Responder::Http1 { .. } => Ok(()),
            Responder::Line { answer } => answer.informational(head),
            Responder::Http2 { stream, .. } => Ok(stream.respond(head, false)?),
        }
    }

    /// Whether a client whose request is carried wants no answer any more.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            Responder::Http1 { .. } => false,
            Responder::Line { answer } => answer.is_gone(),
            Responder::Http2 { stream, .. } => stream.is_gone(),
        }
    }

    /// Passes a 1xx on. HTTP/1.0 knows none (RFC 9110 15.2).
    pub async fn informational(&mut self, head: ResponseHead) -> Result<(), StreamError> {
        match self {
            Responder::Http1 {
                version: Version::HTTP_10,
                ..
            } => Ok(()),
            Responder::Http1 {
                writer,
                method,
                version,
                ..
            } => {
                write_response(
                    &mut writer.buffer,
                    &head,
                    method,
                    *version,
                    BodyLength::None,
                    false,
                );
                Ok(writer.flush().await?)
            }
            Responder::Line { .. } | Responder::Http2 { .. } => self.pass_on(&head),
        }
    }

    /// Begins the final answer. `empty` says that no body follows; HTTP/2 tells that with the head,
    /// as gRPC's answers without a message need it.
    pub fn respond(self, head: ResponseHead, empty: bool) -> Result<Sink<'a>, StreamError> {
        match self {
            Responder::Http1 {
                writer,
                method,
                version,
            } => {
                let asked = (&method, version);
                let encoder = begin_answer(writer, head, empty, asked, &mut false);
                Ok(Sink::Http1 { writer, encoder })
            }
            Responder::Line { mut answer } => {
                answer.respond(head, empty)?;
                Ok(Sink::Line { answer })
            }
            Responder::Http2 { mut stream, .. } => {
                stream.respond(&head, empty)?;
                Ok(Sink::Http2 {
                    stream,
                    ended: empty,
                })
            }
        }
    }

    /// Ends the exchange without an answer.
    pub fn reset(self, code: ErrorCode) {
        match self {
            Responder::Http1 { writer, .. } => writer.reset(),
            Responder::Line { mut answer } => answer.reset(),
            Responder::Http2 { mut stream, .. } => stream.reset(code),
        }
    }

    /// Whether content that is sent would be more than the client takes: an answer to HEAD has none (RFC 9110 9.3.2).
    /// In HTTP/1 whoever writes the answer leaves it out.
    pub(super) fn takes_no_content(&self) -> bool {
        matches!(self, Responder::Http2 { is_head: true, .. })
    }

    /// Closes the connection after this answer, where that is what HTTP's version can say.
    pub fn close_after(&mut self) {
        match self {
            Responder::Line { answer } => answer.close_after(),
            Responder::Http1 { .. } | Responder::Http2 { .. } => {}
        }
    }

    /// Returns once the client wants no answer any more.
    pub async fn gone(&mut self) {
        match self {
            Responder::Http1 { .. } => std::future::pending().await,
            Responder::Line { answer } => gone(answer).await,
            Responder::Http2 { stream, .. } => stream.gone().await,
        }
    }
}

/// Returns once nothing that is sent would arrive.
async fn gone(answer: &LineSender) {
    poll_fn(|cx| {
        if answer.is_gone() {
            return Poll::Ready(());
        }
        answer.wait(cx);
        Poll::Pending
    })
    .await;
}

/// Writes the final answer's head for whoever asked with this method, in this version. `empty` says that no body
/// follows, `keep_alive` whether the connection may go on, and then whether it does.
pub(super) fn begin_answer(
    writer: &mut Writer,
    mut head: ResponseHead,
    empty: bool,
    (method, version): (&Method, Version),
    keep_alive: &mut bool,
) -> BodyEncoder {
    if head.upgrade.is_some() {
        head.status = StatusCode::SWITCHING_PROTOCOLS;
    }
    let sized =
        empty || head.headers.contains(&http::header::CONTENT_LENGTH) || method == Method::HEAD;
    if version == Version::HTTP_10 && !sized {
        *keep_alive = false;
    }
    let length = if empty {
        BodyLength::None
    } else {
        BodyLength::UntilClose
    };
    writer.within_message = true;
    write_response(
        &mut writer.buffer,
        &head,
        method,
        version,
        length,
        !*keep_alive,
    )
}
