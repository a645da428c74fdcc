//! A downstream HTTP/1 connection: one request after the other (RFC 9112 9.3).

use std::pin::{Pin, pin};
use std::rc::Rc;

use bytes::BytesMut;
use http::{Method, Version};
use tokio::time::{Instant, Sleep, sleep, timeout, timeout_at};

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
    drain: Drain,
    tunnels: bool,
) -> impl Future<Output = Ended> {
    async move {
        let mut to_drain = drain.clone();
        let drained = pin!(draining(&mut to_drain));
        let look = pin!(sleep(limits.idle_timeout));
        let mut rest = Rest {
            drained,
            look,
            is_used: false,
        };
        loop {
            let received = match next_request(&mut reader, limits, &mut rest).await {
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
            let client_closes = !received.keep_alive;
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
            if client_closes && whole && reader.buffer.is_empty() {
                // It said that nothing follows (RFC 9112 9.6), so there is nothing that a reset could answer.
                writer.end_with_socket();
                return Ended::Closed;
            }
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

/// What else than a request a connection waits for. Both are waited for as long as the connection lasts: to begin
/// anew with each request would take two locks each time.
struct Rest<'r, D> {
    drained: Pin<&'r mut D>,
    /// When it is looked whether the connection is idle.
    look: Pin<&'r mut Sleep>,
    /// Whether a request has come since the last look.
    is_used: bool,
}

async fn next_request<D: Future<Output = ()>>(
    reader: &mut Reader,
    limits: &ServerLimits,
    rest: &mut Rest<'_, D>,
) -> Result<ReceivedRequest, NoRequest> {
    let mut deadline = None;
    loop {
        match receive_request(&mut reader.buffer, &limits.http1) {
            Ok(Some(received)) => {
                rest.is_used = true;
                return Ok(received);
            }
            Ok(None) => {}
            Err(Refusal::Malformed(_)) => return Err(NoRequest::Fault(Fault::MalformedRequest)),
            Err(Refusal::TooLarge(_)) => return Err(NoRequest::Fault(Fault::HeadersTooLarge)),
        }
        let read = if reader.buffer.is_empty() {
            reader.shrink();
            tokio::select! {
                biased;
                read = reader.fill() => read,
                () = rest.drained.as_mut() => return Err(NoRequest::End),
                () = rest.look.as_mut() => {
                    if !std::mem::take(&mut rest.is_used) {
                        return Err(NoRequest::End);
                    }
                    rest.look.as_mut().reset(Instant::now() + limits.idle_timeout);
                    continue;
                }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::StatusCode;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;
    use tokio::task::LocalSet;

    use super::super::Workers;
    use super::*;
    use crate::model::{Fields, ResponseHead};
    use crate::tcp::split;

    /// Answers everything.
    #[derive(Default)]
    struct Service {
        workers: Rc<Workers<Service>>,
    }

    impl Serve for Service {
        async fn serve(&self, request: &mut Request<'_>) {
            let head = ResponseHead {
                status: StatusCode::NO_CONTENT,
                version: Version::HTTP_11,
                upgrade: None,
                headers: Fields::new(),
            };
            let responder = request.responder.take().unwrap();
            let mut sink = responder.respond(head, true).unwrap();
            sink.finish(Fields::new()).await.unwrap();
        }

        fn refused(&self, _: Fault, _: Version) {}

        fn workers(&self) -> &Rc<Workers<Self>> {
            &self.workers
        }
    }

    /// Runs `test` with a client of a connection that may be idle for as long as `idle_timeout`.
    async fn with_client<F: Future<Output = ()>>(
        idle_timeout: Duration,
        test: impl FnOnce(TcpStream, watch::Sender<bool>) -> F,
    ) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap());
        let client = client.await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let (drain, draining) = watch::channel(false);
        let serving = async {
            let (reader, writer) = split(stream, BytesMut::new());
            let limits = ServerLimits {
                idle_timeout,
                ..ServerLimits::default()
            };
            let service = Rc::new(Service::default());
            serve_http1(reader, writer, service, &limits, draining, false).await;
        };
        let both = async { tokio::join!(serving, test(client, drain)) };
        let limit = timeout(Duration::from_secs(20), both);
        LocalSet::new().run_until(limit).await.expect("it hangs");
    }

    async fn ask(client: &mut TcpStream) {
        let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            assert!(client.read_buf(&mut answer).await.unwrap() > 0);
        }
        assert!(answer.starts_with(b"HTTP/1.1 204 "), "{answer:?}");
    }

    #[tokio::test]
    async fn a_connection_that_rests_too_long_is_closed() {
        let idle = Duration::from_millis(100);
        with_client(idle, |mut client, _drain| async move {
            // Used across several looks, and closed only after a whole one without a request.
            let began = Instant::now();
            while began.elapsed() < 3 * idle {
                ask(&mut client).await;
                sleep(idle / 4).await;
            }
            ask(&mut client).await;
            let answered = Instant::now();
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
            assert!(answered.elapsed() >= idle, "{:?}", answered.elapsed());
        })
        .await;
    }

    #[tokio::test]
    async fn a_client_that_closes_reads_the_whole_answer() {
        // Whatever else it sends doesn't cost it the answer.
        let pipelined = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for (fields, more) in [
            ("", ""),
            ("", pipelined),
            ("Content-Length: 2\r\n", "ab"),
            ("Content-Length: 2\r\n", "abc"),
        ] {
            with_client(Duration::from_secs(3600), |mut client, _drain| async move {
                let request = format!(
                    "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n{more}"
                );
                client.write_all(request.as_bytes()).await.unwrap();
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).await.unwrap();
                assert!(
                    answer.starts_with(b"HTTP/1.1 204 "),
                    "{request}: {answer:?}"
                );
            })
            .await;
        }
    }

    #[tokio::test]
    async fn a_connection_that_rests_ends_with_the_proxy() {
        let idle = Duration::from_secs(3600);
        with_client(idle, |mut client, drain| async move {
            ask(&mut client).await;
            ask(&mut client).await;
            drain.send(true).unwrap();
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        })
        .await;
    }
}
