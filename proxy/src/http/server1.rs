//! A downstream HTTP/1 connection: one request after the other (RFC 9112 9.3).

use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::LocalBoxFuture;
use http::{Method, Version};
use tokio::time::{Instant, Sleep, sleep, timeout, timeout_at};

use super::line::{Event, Line};
use super::{
    Body, Drain, Request, RequestBody, Responder, Serve, ServerLimits, Told, draining, respond,
};
use crate::http1::{BodyDecoder, ReceivedRequest, Refusal};
use crate::http2::Role;
use crate::model::Fault;
use crate::tcp::{Reader, Writer};

/// How long, and how much, is still read after the last answer, so that a client which is still
/// sending gets to read it (RFC 9112 9.6).
const LINGER: Duration = Duration::from_secs(1);
/// See [`LINGER`].
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// How long after a client has ended its direction it is asked whether it still waits. Most answers come sooner.
const ASK_AFTER: Duration = Duration::from_millis(250);
/// What it is asked with: every client of HTTP/1.1 takes any number of them (RFC 9110 15.2), and the kernel of one
/// that has closed its connection answers with a reset.
const QUESTION: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

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
    /// The last request was answered, and no other can follow.
    Over,
    Fault(Fault),
}

/// Serves requests until the client, the proxy or an error ends the connection. `tunnels` says
/// whether CONNECT is an offer of this listener; it is malformed otherwise.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` would keep its arguments beside what they are moved to, in every idle connection"
)]
pub fn serve_http1<S: Serve>(
    reader: Reader,
    writer: Writer,
    service: Rc<S>,
    limits: &ServerLimits,
    drain: Drain,
    tunnels: bool,
) -> impl Future<Output = Ended> {
    async move {
        let line = Line::new(reader, writer, limits.http1, Role::Server);
        let mut to_drain = drain.clone();
        let drained = pin!(draining(&mut to_drain));
        let look = pin!(sleep(limits.idle_timeout));
        let mut rest = Rest {
            drained,
            is_drained: false,
            look,
            is_used: false,
            serving: None,
            asking: None,
            client_closes: false,
        };
        if *drain.borrow() {
            line.close_after();
        }
        let received = match next_request(&line, &service, limits, &mut rest).await {
            Ok(received) => received,
            Err(NoRequest::End) => return Ended::Closed,
            Err(NoRequest::Over) => {
                Box::pin(close(&line, rest.client_closes)).await;
                return Ended::Closed;
            }
            Err(NoRequest::Fault(fault)) => {
                service.refused(Told::of(fault, false), Version::HTTP_11);
                Box::pin(refuse_on(&line, fault)).await;
                return Ended::Closed;
            }
        };
        let Some((mut reader, mut writer)) = line.take() else {
            return Ended::Closed;
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
            let told = Told::of(Fault::MalformedRequest, false);
            service.refused(told, Version::HTTP_11);
            Box::pin(refuse(&mut writer, Fault::MalformedRequest)).await;
            return Ended::Closed;
        }
        Box::pin(serve_upgrade(
            received,
            &mut reader,
            &mut writer,
            &*service,
            limits,
        ))
        .await;
        // Whatever the answer was, what follows a request for another protocol may be in that protocol.
        if !writer.within_message && writer.flush().await.is_ok() {
            Box::pin(linger(&mut reader, &mut writer)).await;
        }
        Ended::Closed
    }
}

/// Serves a request for another protocol.
async fn serve_upgrade<S: Serve>(
    received: ReceivedRequest,
    reader: &mut Reader,
    writer: &mut Writer,
    service: &S,
    limits: &ServerLimits,
) {
    let ReceivedRequest { head, body, .. } = received;
    let mut decoder = BodyDecoder::new(body);
    let responder = Responder::Http1 {
        writer,
        method: head.method.clone(),
        version: head.version,
    };
    let body = Body::Http1 {
        reader,
        decoder: &mut decoder,
        limits: limits.http1,
    };
    let body = RequestBody::new(body);
    let mut request = Request {
        head,
        body,
        responder: Some(responder),
    };
    service.serve(&mut request).await;
}

/// What else than a request a connection waits for. Both are waited for as long as the connection lasts: to begin
/// anew with each request would take two locks each time.
struct Rest<'r, D> {
    drained: Pin<&'r mut D>,
    is_drained: bool,
    /// When it is looked whether the connection is idle.
    look: Pin<&'r mut Sleep>,
    /// Whether a request has come since the last look.
    is_used: bool,
    /// Serves a request that isn't carried.
    serving: Option<LocalBoxFuture<'static, ()>>,
    /// Asks a client that sends no more whether it still waits.
    asking: Option<LocalBoxFuture<'static, ()>>,
    /// The client said that nothing follows its last request.
    client_closes: bool,
}

/// Has requests served, and returns what can't be: a tunnel, another protocol, or none.
async fn next_request<S: Serve, D: Future<Output = ()>>(
    line: &Rc<Line>,
    service: &Rc<S>,
    limits: &ServerLimits,
    rest: &mut Rest<'_, D>,
) -> Result<ReceivedRequest, NoRequest> {
    let mut deadline = None;
    loop {
        let is_free = line.is_free();
        if is_free {
            match line.receive() {
                Ok(Some(received)) => {
                    rest.is_used = true;
                    deadline = None;
                    if received.head.is_switch() {
                        return Ok(received);
                    }
                    rest.client_closes = !received.keep_alive;
                    rest.serving = service.begin(line.begin(received), Instant::now().into_std());
                    continue;
                }
                Ok(None) if line.has_ended() => return Err(NoRequest::End),
                Ok(None) if rest.is_drained && !line.has_begun() => return Err(NoRequest::End),
                Ok(None) => {}
                Err(Refusal::Malformed(_)) => {
                    return Err(NoRequest::Fault(Fault::MalformedRequest));
                }
                Err(Refusal::TooLarge(_)) => return Err(NoRequest::Fault(Fault::HeadersTooLarge)),
                Err(Refusal::TargetTooLarge) => {
                    return Err(NoRequest::Fault(Fault::TargetTooLarge));
                }
            }
        }
        let event = if is_free && line.has_begun() {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + limits.head_timeout);
            let event = timeout_at(deadline, poll_fn(|cx| line.poll_event(cx, is_free))).await;
            event.map_err(|_| NoRequest::Fault(Fault::HeaderTimeout))?
        } else {
            tokio::select! {
                biased;
                event = poll_fn(|cx| line.poll_event(cx, is_free)) => event,
                () = at_work(&mut rest.serving) => {
                    rest.serving = None;
                    continue;
                }
                () = at_work(&mut rest.asking) => {
                    rest.asking = None;
                    line.lose();
                    continue;
                }
                () = rest.drained.as_mut(), if !rest.is_drained => {
                    if line.is_free() {
                        return Err(NoRequest::End);
                    }
                    rest.is_drained = true;
                    line.close_after();
                    continue;
                }
                () = rest.look.as_mut() => {
                    if line.is_free() && !std::mem::take(&mut rest.is_used) {
                        return Err(NoRequest::End);
                    }
                    rest.look.as_mut().reset(Instant::now() + limits.idle_timeout);
                    continue;
                }
            }
        };
        match event {
            Event::Over => return Err(NoRequest::Over),
            Event::Ended if !is_free && line.may_ask() => {
                if let Some(reader) = line.take_reader() {
                    rest.asking = Some(Box::pin(ask(line.clone(), reader)));
                }
            }
            Event::Ended | Event::Read => {}
        }
    }
}

/// What a boxed future comes to, if there is one.
async fn at_work(future: &mut Option<LocalBoxFuture<'static, ()>>) {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// Returns once a client that sends no more turns out to be gone. A client of HTTP/1 that ends its direction may have
/// closed the connection, or wait for the answer all the same: TCP tells both in the same way.
async fn ask(line: Rc<Line>, reader: Reader) {
    sleep(ASK_AFTER).await;
    if line.may_ask() {
        return reader.challenge(QUESTION).await;
    }
    pending().await
}

/// Closes the connection after its last request.
async fn close(line: &Line, client_closes: bool) {
    let Some((mut reader, mut writer)) = line.take() else {
        return;
    };
    if writer.within_message {
        return;
    }
    if client_closes && line.is_whole() && reader.buffer.is_empty() {
        // It said that nothing follows (RFC 9112 9.6), so it isn't waited for. The answer's last bytes go with the end of
        // our direction: a socket that is closed with unread bytes in it would throw them away.
        drop(writer.shutdown().await);
    } else {
        linger(&mut reader, &mut writer).await;
    }
}

async fn refuse_on(line: &Line, fault: Fault) {
    if let Some((mut reader, mut writer)) = line.take() {
        refuse(&mut writer, fault).await;
        linger(&mut reader, &mut writer).await;
    }
}

async fn refuse(writer: &mut Writer, fault: Fault) {
    let responder = Responder::Http1 {
        writer,
        method: Method::GET,
        version: Version::HTTP_11,
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
    use std::io::{Read, Write};

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
        /// A client that says something more just before it is answered.
        client: Option<std::net::TcpStream>,
    }

    impl Serve for Service {
        async fn serve(&self, request: &mut Request<'_>) {
            if let Some(mut client) = self.client.as_ref() {
                client.write_all(b"\r\n").unwrap();
            }
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

        fn refused(&self, _: Told, _: Version) {}

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
    async fn what_comes_in_the_last_moment_costs_no_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        let service = Rc::new(Service {
            client: Some(client.try_clone().unwrap()),
            ..Service::default()
        });
        let (_drain, draining) = watch::channel(false);
        let (reader, writer) = split(stream, BytesMut::new());
        let limits = ServerLimits::default();
        let serving = serve_http1(reader, writer, service, &limits, draining, false);
        LocalSet::new().run_until(serving).await;
        // The kernel answers what nobody read with a reset, but behind the answer.
        let mut answer = [0; 1000];
        let read = client.read(&mut answer).unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 204 "));
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
