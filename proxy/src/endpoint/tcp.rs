//! Upstreams for opaque bytes.

use bytes::{Bytes, BytesMut};
use h2::{RecvStream, SendStream};
use http::HeaderMap;
use tokio::net::TcpStream;

use super::Share;
use crate::http::Unanswered;
use crate::http2::send_tunnel;
use crate::model::{Fault, Hop, hop};
use crate::tcp::{FirstBytes, Reader, Receiver, Sender, Writer, split};

/// A TCP connection, or a stream that stands for one.
pub enum TcpUpstream {
    Plain {
        reader: Reader,
        writer: Writer,
    },
    Stream {
        early: Option<Bytes>,
        receive: RecvStream,
        send: SendStream<Bytes>,
        share: Share,
    },
}

impl TcpUpstream {
    pub(super) fn plain(stream: TcpStream) -> Self {
        let (reader, writer) = split(stream, BytesMut::new());
        TcpUpstream::Plain { reader, writer }
    }

    /// Both directions.
    pub fn halves(&mut self) -> (Receiver<'_>, Sender<'_>) {
        match self {
            TcpUpstream::Plain { reader, writer } => (Receiver::Tcp(reader), Sender::Tcp(writer)),
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
            TcpUpstream::Plain { reader, .. } => match reader.fill().await {
                Ok(read) if read > 0 => !http(&reader.buffer),
                _ => false,
            },
            TcpUpstream::Stream { early, receive, .. } => {
                while early.as_ref().is_none_or(Bytes::is_empty) {
                    let Some(Ok(data)) = receive.data().await else {
                        return false;
                    };
                    if receive.flow_control().release_capacity(data.len()).is_err() {
                        return false;
                    }
                    *early = Some(data);
                }
                !early.as_deref().is_some_and(http)
            }
        }
    }
}

/// Asks the sidecar at the other end for a connection to its application.
pub(super) async fn open_stream(share: Share, hop: &Hop) -> Result<TcpUpstream, Unanswered> {
    let mut headers = HeaderMap::new();
    hop.stamp(&mut headers);
    let request = send_tunnel(&format!("{}:{}", hop.instance, hop.port), headers);
    let request = request.map_err(|_| Unanswered::unprocessed(Fault::ConnectFailed))?;
    let mut sender = share.sender();
    let ready = std::future::poll_fn(|cx| sender.poll_ready(cx)).await;
    ready.map_err(|_| Unanswered::unprocessed(Fault::ConnectFailed))?;
    let sent = sender.send_request(request, false);
    let (answer, send) = sent.map_err(|_| Unanswered::unprocessed(Fault::ConnectFailed))?;
    // Until the answer is there, no byte of the connection was sent, so any failure is safe.
    let response = answer
        .await
        .map_err(|_| Unanswered::unprocessed(Fault::ConnectFailed))?;
    if !response.status().is_success() {
        let reason = hop::unprocessed(response.headers()).and_then(Fault::from_reason);
        return Err(Unanswered::unprocessed(
            reason.unwrap_or(Fault::ConnectFailed),
        ));
    }
    Ok(TcpUpstream::Stream {
        early: None,
        receive: response.into_body(),
        send,
        share,
    })
}
