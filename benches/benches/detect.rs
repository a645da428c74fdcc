//! What the first bytes of a connection are.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use weft_benches::request_on_the_wire;
use weft_proxy::detect::sniff;

fn detect(criterion: &mut Criterion) {
    let request = request_on_the_wire("/orders/17?expand=lines");
    let inputs: [(&str, &[u8]); 5] = [
        ("http1", &request),
        (
            "http2",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        ),
        ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        ("redis", b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n"),
        ("undecided", &request[..20]),
    ];
    let mut group = criterion.benchmark_group("detect");
    for (name, bytes) in inputs {
        group.bench_function(name, |bench| bench.iter(|| sniff(black_box(bytes))));
    }
    group.finish();
}

criterion_group!(benches, detect);
criterion_main!(benches);
