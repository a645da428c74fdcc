use bytes::BytesMut;
use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::super::Piece;
use super::*;
use crate::tcp::split;

/// A line, and its client.
async fn connect(head_bytes: usize) -> (Rc<Line>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let client = client.await.unwrap();
    let (reader, writer) = split(listener.accept().await.unwrap().0, BytesMut::new());
    let limits = http1::Limits {
        head_bytes,
        ..http1::Limits::default()
    };
    (Line::new(reader, writer, limits, Role::Server), client)
}

/// A line on which the client sent all of this, and then ended its direction.
async fn with_client(sent: &[u8], head_bytes: usize) -> (Rc<Line>, TcpStream) {
    let (line, mut client) = connect(head_bytes).await;
    client.write_all(sent).await.unwrap();
    client.shutdown().await.unwrap();
    (line, client)
}

async fn event(line: &Line) -> Event {
    let is_free = line.is_free();
    let event = poll_fn(|cx| line.poll_event(cx, is_free));
    let limit = tokio::time::timeout(std::time::Duration::from_secs(10), event);
    limit.await.expect("nothing happens")
}

async fn begin(line: &Rc<Line>) -> Request<'static> {
    loop {
        if let Some(received) = line.receive().unwrap() {
            return line.begin(received);
        }
        assert_eq!(event(line).await, Event::Read);
    }
}

#[tokio::test]
async fn an_end_that_comes_before_the_body_was_taken_is_asked_about() {
    let request = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello";
    let (line, _client) = with_client(request, 65_536).await;
    let mut request = begin(&line).await;
    while event(&line).await != Event::Ended {}
    assert!(!line.may_ask(), "the body is still to be taken");
    let taken = request.body.take();
    assert!(matches!(taken, Some(Ok(Piece::Data(data))) if data == "hello"));
    assert!(line.may_ask());
    assert_eq!(event(&line).await, Event::Ended);
    drop(request);
    assert_eq!(event(&line).await, Event::Over);
}

#[tokio::test]
async fn trailers_that_are_longer_than_what_is_read_ahead() {
    let value = "v".repeat(4 * READ_AHEAD_MAX);
    let request = format!(
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-a: {value}\r\nx-b: {value}\r\n\r\n"
    );
    let (line, _client) = with_client(request.as_bytes(), 9 * READ_AHEAD_MAX).await;
    let mut request = begin(&line).await;
    let trailers = loop {
        match request.body.take() {
            None => assert_ne!(event(&line).await, Event::Over),
            Some(Ok(Piece::End(trailers))) => break trailers,
            Some(taken) => panic!("{taken:?}"),
        }
    };
    assert_eq!(trailers.get("x-b").unwrap().as_bytes().len(), value.len());
}

#[tokio::test]
async fn a_body_that_nobody_takes_is_not_read() {
    let length = 32 * READ_AHEAD_MAX;
    let mut sent = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n");
    sent.extend(std::iter::repeat_n('b', length));
    let (line, mut client) = connect(65_536).await;
    let writing = tokio::spawn(async move {
        let _ = client.write_all(sent.as_bytes()).await;
        client
    });
    let mut request = begin(&line).await;
    let read = || line.0.borrow().reader.as_ref().unwrap().buffer.len();
    while read() < READ_AHEAD_MAX {
        assert_eq!(event(&line).await, Event::Read);
    }
    let before = read();
    assert_eq!(event(&line).now_or_never(), None);
    assert!(line.0.borrow().is_full && read() == before);
    let mut taken = 0;
    while taken < length {
        match request.body.take() {
            None => assert_eq!(event(&line).await, Event::Read),
            Some(Ok(Piece::Data(data))) => taken += data.len(),
            Some(taken) => panic!("{taken:?}"),
        }
    }
    writing.await.unwrap();
}
