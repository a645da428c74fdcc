//! HTTP/2: whole exchanges between two engines, from the client's head to its end of the answer.

use std::io::IoSlice;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::{StatusCode, Version};
use weft_benches::{fields, grpc_request, request};
use weft_proxy::http2::{Connection, Key, Limits, Piece, Role, Taken};
use weft_proxy::model::{RequestHead, ResponseHead};

struct Pair {
    client: Connection,
    server: Connection,
    wire: BytesMut,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self {
            client: Connection::new(Role::Client, Limits::default()),
            server: Connection::new(Role::Server, Limits::default()),
            wire: BytesMut::with_capacity(64 * 1024),
            now: Instant::now(),
        };
        for _ in 0..2 {
            pair.up();
            pair.down();
        }
        pair
    }

    fn up(&mut self) {
        carry(&mut self.client, &mut self.server, &mut self.wire, self.now);
    }

    fn down(&mut self) {
        carry(&mut self.server, &mut self.client, &mut self.wire, self.now);
    }

    /// A request, and its answer once the request has come whole.
    fn exchange(&mut self, request: &RequestHead, body: &Bytes, answer: &Answer) -> usize {
        let is_short = body.is_empty();
        let key = self.client.open(request, |_| {}, is_short).expect("room");
        if !is_short {
            let mut body = body.clone();
            self.client.send_data(key, &mut body).expect("open");
            assert!(body.is_empty());
            self.client.send_end(key).expect("open");
        }
        self.up();
        let incoming = self.server.accept().expect("a request");
        drain(&mut self.server, incoming.key);
        answer.send(&mut self.server, incoming.key);
        self.down();
        let read = drain(&mut self.client, key);
        for (connection, key) in [(&mut self.client, key), (&mut self.server, incoming.key)] {
            connection.drop_receiver(key);
            connection.drop_sender(key);
            while connection.notice().is_some() {}
        }
        read
    }
}

struct Answer {
    head: ResponseHead,
    body: Bytes,
    trailers: Option<weft_proxy::model::Fields>,
}

impl Answer {
    fn send(&self, server: &mut Connection, key: Key) {
        server.respond(key, &self.head, false).expect("open");
        let mut body = self.body.clone();
        server.send_data(key, &mut body).expect("open");
        assert!(body.is_empty());
        match &self.trailers {
            Some(trailers) => server.send_trailers(key, trailers).expect("open"),
            None => server.send_end(key).expect("open"),
        }
    }
}

fn carry(from: &mut Connection, to: &mut Connection, wire: &mut BytesMut, now: Instant) {
    while !from.output().is_empty() {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = from.output().slices(&mut slices);
        let before = wire.len();
        for slice in &slices[..count] {
            wire.extend_from_slice(slice);
        }
        let sent = wire.len() - before;
        from.sent(sent);
        to.receive(wire, now).expect("a peer in order");
    }
}

fn drain(connection: &mut Connection, key: Key) -> usize {
    let mut read = 0;
    loop {
        match connection.take(key) {
            Taken::Piece(Piece::Data(data)) => read += data.len(),
            Taken::Piece(_) => {}
            Taken::End => return read,
            other => panic!("{other:?}"),
        }
    }
}

fn exchanges(criterion: &mut Criterion) {
    let answer = |body: usize| Answer {
        head: ResponseHead {
            status: StatusCode::OK,
            version: Version::HTTP_2,
            upgrade: None,
            headers: fields(&[("content-type", "application/json")]),
        },
        body: vec![b'x'; body].into(),
        trailers: None,
    };
    let grpc = Answer {
        trailers: Some(fields(&[("grpc-status", "0")])),
        ..answer(64)
    };
    let message = Bytes::from(vec![0; 64]);
    let mut group = criterion.benchmark_group("http2");
    let mut pair = Pair::new();
    let get = request("/orders/17?expand=lines");
    group.bench_function("get_128B", |bench| {
        let answer = answer(128);
        bench.iter(|| pair.exchange(&get, &Bytes::new(), &answer));
    });
    let unary = grpc_request();
    group.bench_function("grpc_unary_64B", |bench| {
        bench.iter(|| pair.exchange(&unary, &message, &grpc));
    });
    group.throughput(Throughput::Bytes(16 * 1024));
    group.bench_function("get_16KiB", |bench| {
        let answer = answer(16 * 1024);
        bench.iter(|| pair.exchange(&get, &Bytes::new(), &answer));
    });
    group.finish();
}

criterion_group!(benches, exchanges);
criterion_main!(benches);
