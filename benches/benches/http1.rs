//! HTTP/1: heads and bodies read and written.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::{Method, StatusCode, Version};
use weft_benches::{fields, request, request_on_the_wire};
use weft_proxy::http1::{
    BodyDecoder, BodyLength, Decoded, Limits, receive_request, receive_response, write_request,
    write_response,
};
use weft_proxy::model::ResponseHead;

const BODY: usize = 16 * 1024;
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
    content-length: 128\r\ndate: Mon, 23 Nov 2026 05:41:36 GMT\r\nserver: orders\r\n\
    cache-control: no-store\r\nvary: accept-encoding\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let limits = Limits::default();
    let wire = request_on_the_wire("/orders/17?expand=lines");
    let head = request("/orders/17?expand=lines");
    let response = ResponseHead {
        status: StatusCode::OK,
        version: Version::HTTP_11,
        upgrade: None,
        headers: fields(&[
            ("content-type", "application/json"),
            ("content-length", "128"),
        ]),
    };
    let mut group = criterion.benchmark_group("http1");
    group.bench_function("receive_request", |bench| {
        bench.iter_batched_ref(
            || BytesMut::from(&wire[..]),
            |buffer| receive_request(buffer, &limits),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("receive_response", |bench| {
        bench.iter_batched_ref(
            || BytesMut::from(RESPONSE),
            |buffer| receive_response(buffer, &Method::GET, &limits),
            BatchSize::SmallInput,
        );
    });
    let mut buffer = BytesMut::with_capacity(4096);
    group.bench_function("write_request", |bench| {
        bench.iter(|| {
            buffer.clear();
            write_request(&mut buffer, black_box(&head), false)
        });
    });
    group.bench_function("write_response", |bench| {
        bench.iter(|| {
            buffer.clear();
            let (method, length) = (&Method::GET, BodyLength::Exactly(128));
            let version = Version::HTTP_11;
            write_response(
                &mut buffer,
                black_box(&response),
                method,
                version,
                length,
                false,
            )
        });
    });
    group.finish();
}

fn read_all(mut body: BodyDecoder, buffer: &mut BytesMut) -> usize {
    let (limits, mut read) = (Limits::default(), 0);
    while let Ok(Some(Decoded::Data(data))) = body.decode(buffer, &limits) {
        read += data.len();
    }
    assert_eq!(read, BODY);
    read
}

fn bodies(criterion: &mut Criterion) {
    let plain = vec![b'x'; BODY];
    // As servers write it that flush each kilobyte.
    let chunks = plain.chunks(1024).flat_map(|chunk| {
        let line = format!("{:x}\r\n", chunk.len());
        [line.as_bytes(), chunk, b"\r\n"].concat()
    });
    let chunked: Vec<u8> = chunks.chain(*b"0\r\n\r\n").collect();
    let (plain, chunked) = (Bytes::from(plain), Bytes::from(chunked));
    let mut group = criterion.benchmark_group("http1/16KiB");
    group.throughput(Throughput::Bytes(BODY as u64));
    for (name, wire, length) in [
        ("content_length", plain, BodyLength::Exactly(BODY as u64)),
        ("chunked", chunked, BodyLength::Chunked),
    ] {
        group.bench_function(name, |bench| {
            bench.iter_batched_ref(
                || BytesMut::from(&wire[..]),
                |buffer| read_all(BodyDecoder::new(length), buffer),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, heads, bodies);
criterion_main!(benches);
