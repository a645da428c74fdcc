//! Upstreams for opaque bytes.

use bytes::{Bytes, BytesMut};
use http::{Method, Version};
use tokio::net::TcpStream;

use super::Share;
use crate::http::Unanswered;
use crate::http2::Piece;
use crate::model::{Fault, Fields, Hop, RequestHead, Text, hop};
use crate::multiplex::{StreamReceiver, StreamSender};
use crate::tcp::{FirstBytes, Reader, Receiver, Sender, TlsStream, Writer, split, split_tls};

/// A TCP connection, or a stream that stands for one.
pub enum TcpUpstream {
    Connection {
        reader: Reader,
        writer: Writer,
    },
    Stream {
        early: Option<Bytes>,
        receive: StreamReceiver,
        send: StreamSender,
        share: Share,
    },
}

impl TcpUpstream {
    pub(super) fn plain(stream: TcpStream) -> Self {
        let (reader, writer) = split(stream, BytesMut::new());
        TcpUpstream::Connection { reader, writer }
    }

    pub(super) fn tls(stream: Box<TlsStream>) -> Self {
        let (reader, writer) = split_tls(stream);
        TcpUpstream::Connection { reader, writer }
    }

    /// Both directions.
    pub fn halves(&mut self) -> (Receiver<'_>, Sender<'_>) {
        match self {
            TcpUpstream::Connection { reader, writer } => {
                (Receiver::Tcp(reader), Sender::Tcp(writer))
            }
            TcpUpstream::Stream {
                early,
                receive,
                send,
                ..
            } => (Receiver::Http2(receive, early.take()), Sender::Http2(send)),
        }
    }
}

impl FirstBytes for TcpUpstream {
    async fn first_bytes(&mut self) -> bool {
        let http = |bytes: &[u8]| bytes.starts_with(b"HTTP/");
        match self {
            TcpUpstream::Connection { reader, .. } => match reader.fill().await {
                Ok(read) if read > 0 => !http(&reader.buffer),
                _ => false,
            },
            TcpUpstream::Stream { early, receive, .. } => {
                while early.as_ref().is_none_or(Bytes::is_empty) {
                    let Ok(Some(Piece::Data(data))) = receive.next().await else {
                        return false;
                    };
                    *early = Some(data);
                }
                !early.as_deref().is_some_and(http)
            }
        }
    }
}

/// Asks the sidecar at the other end for a connection to its application.
pub(super) async fn open_stream(share: Share, hop: &Hop) -> Result<TcpUpstream, Unanswered> {
    let failed = || Unanswered::unprocessed(Fault::ConnectFailed);
    let request = RequestHead {
        method: Method::CONNECT,
        scheme: None,
        authority: Text::try_from(format!("{}:{}", hop.instance, hop.port).as_str()).ok(),
        path: Text::default(),
        version: Version::HTTP_2,
        upgrade: None,
        headers: Fields::new(),
    };
    let opened = share
        .connection()
        .open(&request, |put| hop.each_field(put), false);
    let (send, mut receive) = opened.map_err(|_| failed())?;
    // Until the answer is there, no byte of the connection was sent, so any failure is safe.
    let response = loop {
        match receive.next().await {
            Ok(Some(Piece::Head(head))) if head.status.is_informational() => {}
            Ok(Some(Piece::Head(head))) => break head,
            _ => return Err(failed()),
        }
    };
    if !response.status.is_success() {
        let reason = hop::unprocessed(&response.headers).and_then(Fault::from_reason);
        return Err(Unanswered::unprocessed(
            reason.unwrap_or(Fault::ConnectFailed),
        ));
    }
    Ok(TcpUpstream::Stream {
        early: None,
        receive,
        send,
        share,
    })
}
