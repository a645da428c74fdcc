//! The side that a request is sent to.

use std::io;
use std::rc::Rc;

use http::Method;

use super::{Body, Sink};
use crate::http1::{self, BodyDecoder, BodyLength, receive_response, write_request};
use crate::http2::{self, NotOpened, Put};
use crate::model::{Fault, Hop, Kinds, RequestHead, ResponseHead, hop};
use crate::multiplex::{Multiplex, StreamReceiver, StreamSender};
use crate::tcp::{Reader, Writer};

/// A connection, or a share of one, that takes one request.
pub enum Upstream {
    Http1(Box<Http1Upstream>),
    Http2(Http2Upstream),
}

/// An HTTP/1 connection of its own.
pub struct Http1Upstream {
    pub reader: Reader,
    pub writer: Writer,
    /// It served a request before, so its server may have closed it in this moment.
    pub reused: bool,
    /// Whether it can serve another request; decided by the answer.
    pub keep_alive: bool,
    pub limits: http1::Limits,
}

/// A stream of an HTTP/2 connection: to an application, or to another sidecar.
pub struct Http2Upstream {
    pub connection: Rc<Multiplex>,
    /// Set when the other end is a sidecar. Boxed, because an upstream is handed on several times for each request.
    pub hop: Option<Box<Hop>>,
}

/// Opens a stream with a request's head, and what is said to a sidecar; `end` says that nothing follows it.
pub(super) fn open_stream(
    connection: &Rc<Multiplex>,
    hop: Option<&Hop>,
    head: &RequestHead,
    end: bool,
) -> Result<(StreamSender, StreamReceiver), Unanswered> {
    let extra = |put: &mut Put<'_>| {
        if let Some(hop) = hop {
            hop.each_field(put);
        }
    };
    let opened = connection.open(head, extra, end);
    opened.map_err(|error| match error {
        NotOpened::Full => Unanswered::unprocessed(Fault::Overload),
        NotOpened::NoConnectProtocol => Unanswered::new(Fault::UpstreamProtocol, false),
    })
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug)]
pub struct Unanswered {
    pub fault: Fault,
    /// The application provably never saw the request.
    pub unprocessed: bool,
    /// A connection that was shared, or had been idle, closed before any byte of an answer: most
    /// likely it was closing for another reason, so a request that may be repeated (RFC 9110 9.2.2)
    /// can be sent again.
    pub stale: bool,
    /// The connection was not ended by its other end in order: it broke, or nobody is there any more.
    pub connection_lost: bool,
    /// An HTTP/1 connection ended before any byte of an answer, informational ones included.
    pub silent: bool,
    /// It was reset then. That is what a kernel does when a program closes a connection and has not read what
    /// came on it (RFC 2525 2.17).
    pub unread: bool,
}

impl Unanswered {
    fn new(fault: Fault, unprocessed: bool) -> Self {
        Self {
            fault,
            unprocessed,
            stale: false,
            connection_lost: false,
            silent: false,
            unread: false,
        }
    }

    /// There is no answer, or none that could be passed on; the application may be at work on it.
    pub fn late(fault: Fault) -> Self {
        Self::new(fault, false)
    }

    /// A connection of HTTP/1 that had been idle ended before a final head; see [`silent`](Self::silent) and
    /// [`unread`](Self::unread).
    pub(super) fn ended(silent: bool, unread: bool) -> Self {
        Self {
            stale: silent,
            silent,
            unread,
            ..Self::new(Fault::UpstreamReset, false)
        }
    }

    /// Nothing reached the application, so another endpoint may be asked.
    pub fn unprocessed(fault: Fault) -> Self {
        Self::new(fault, true)
    }
}

impl Upstream {
    /// Sends a head. `empty` says that no body follows.
    pub async fn send(
        &mut self,
        head: &mut RequestHead,
        empty: bool,
    ) -> Result<(Sink<'_>, Answer<'_>), Unanswered> {
        match self {
            Upstream::Http1(connection) => {
                let Http1Upstream {
                    reader,
                    writer,
                    reused,
                    keep_alive,
                    limits,
                } = &mut **connection;
                let encoder = write_request(&mut writer.buffer, head, !empty);
                let answer = Answer::Http1 {
                    reader,
                    method: head.method.clone(),
                    decoder: BodyDecoder::new(BodyLength::None),
                    reused: *reused,
                    begun: false,
                    keep_alive,
                    limits: *limits,
                };
                Ok((Sink::Http1 { writer, encoder }, answer))
            }
            Upstream::Http2(stream) => {
                let ended = empty && head.upgrade.is_none();
                let hop = stream.hop.as_deref();
                let (sender, receiver) = open_stream(&stream.connection, hop, head, ended)?;
                let answer = Answer::Http2 {
                    stream: Some(receiver),
                    hop: stream.hop.is_some(),
                };
                let sink = Sink::Http2 {
                    stream: sender,
                    ended,
                };
                Ok((sink, answer))
            }
        }
    }

    /// Whether a body of no length was already ended with the head.
    pub fn ends_with_head(&self) -> bool {
        matches!(self, Upstream::Http2(_))
    }
}

/// The answer that is awaited.
pub enum Answer<'u> {
    Http1 {
        reader: &'u mut Reader,
        method: Method,
        decoder: BodyDecoder,
        reused: bool,
        /// A head has come, if only an informational one.
        begun: bool,
        keep_alive: &'u mut bool,
        limits: http1::Limits,
    },
    Http2 {
        stream: Option<StreamReceiver>,
        hop: bool,
    },
}

impl Answer<'_> {
    /// The next head: any number of informational ones, then the final one. Cancel-safe.
    pub async fn next_head(&mut self) -> Result<ResponseHead, Unanswered> {
        match self {
            Answer::Http1 {
                reader,
                method,
                decoder,
                reused,
                begun,
                keep_alive,
                limits,
            } => loop {
                match receive_response(&mut reader.buffer, method, limits) {
                    Ok(Some(received)) => {
                        *begun = true;
                        *decoder = BodyDecoder::new(received.body);
                        **keep_alive = received.keep_alive;
                        return Ok(without_hop(received.head));
                    }
                    Ok(None) => {}
                    Err(_) => return Err(Unanswered::new(Fault::UpstreamProtocol, false)),
                }
                let silent = !*begun && reader.buffer.is_empty();
                let read = reader.fill().await;
                if !matches!(read, Ok(read) if read > 0) {
                    let reset = |error: io::Error| error.kind() == io::ErrorKind::ConnectionReset;
                    return Err(Unanswered {
                        stale: *reused && silent,
                        silent,
                        unread: silent && read.is_err_and(reset),
                        ..Unanswered::new(Fault::UpstreamReset, false)
                    });
                }
            },
            Answer::Http2 { stream, hop } => {
                let Some(stream) = stream else {
                    return Err(Unanswered::new(Fault::UpstreamReset, false));
                };
                let piece = stream.next().await.map_err(lost)?;
                let Some(http2::Piece::Head(head)) = piece else {
                    return Err(Unanswered::new(Fault::UpstreamProtocol, false));
                };
                match hop {
                    true => check_hop(head),
                    false => Ok(without_hop(head)),
                }
            }
        }
    }

    /// Whether an HTTP/1 connection may serve another request, once this answer is over.
    pub fn keeps_alive(&self) -> bool {
        matches!(self, Answer::Http1 { keep_alive, .. } if **keep_alive)
    }

    /// The final answer's body, for its head's receiver.
    pub fn body(&mut self) -> Option<Body<'_>> {
        match self {
            Answer::Http1 {
                reader,
                decoder,
                limits,
                ..
            } => Some(Body::Http1 {
                reader,
                decoder,
                limits: *limits,
            }),
            Answer::Http2 { stream, .. } => stream.take().map(|stream| Body::Http2 { stream }),
        }
    }
}

/// Takes away what only a sidecar may say: an application that says it would have its answers taken for something else.
pub(super) fn without_hop(mut head: ResponseHead) -> ResponseHead {
    hop::strip(&mut head.headers);
    head
}

/// Reads what only the other sidecar says, and takes it away.
pub(super) fn check_hop(mut head: ResponseHead) -> Result<ResponseHead, Unanswered> {
    if !head.headers.may_have(Kinds::HOP) {
        head.upgrade = None;
        return Ok(head);
    }
    if let Some(reason) = hop::unprocessed(&head.headers) {
        let fault = Fault::from_reason(reason).unwrap_or(Fault::ConnectFailed);
        return Err(Unanswered::new(fault, true));
    }
    head.upgrade = head
        .upgrade
        .take()
        .filter(|_| hop::is_upgraded(&head.headers));
    hop::strip(&mut head.headers);
    Ok(head)
}

/// A stream that we ended ourselves was no HTTP/2; otherwise the other side ended it.
pub(super) fn lost(failure: http2::Failure) -> Unanswered {
    let fault = if failure.remote {
        Fault::UpstreamReset
    } else {
        Fault::UpstreamProtocol
    };
    Unanswered {
        fault,
        unprocessed: failure.unprocessed,
        stale: failure.connection_lost,
        connection_lost: failure.connection_lost,
        silent: false,
        unread: false,
    }
}
