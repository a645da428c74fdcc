//! Header blocks, on a connection that has seen the same fields before and on one that has not.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use weft_benches::request;
use weft_proxy::http2::hpack::{Decoder, Encoder, Name};
use weft_proxy::model::RequestHead;

const TABLE: usize = 4096;

fn encode(encoder: &mut Encoder, head: &RequestHead, out: &mut BytesMut) {
    encoder.begin(out);
    encoder.pseudo(out, &Name::Method, head.method.as_str().as_bytes());
    encoder.pseudo(out, &Name::Scheme, b"http");
    encoder.pseudo(out, &Name::Path, head.path.as_bytes());
    encoder.pseudo(out, &Name::Authority, b"orders.shop");
    for (name, value) in &head.headers {
        encoder.field(out, name, value);
    }
}

fn decode(decoder: &mut Decoder, block: &[u8]) -> usize {
    let mut fields = 0;
    let whole = decoder.decode(block, |line, _| fields += usize::from(line.is_ok()));
    whole.expect("a block in order");
    fields
}

fn hpack(criterion: &mut Criterion) {
    let head = request("/orders/17?expand=lines");
    let mut first = BytesMut::new();
    encode(&mut Encoder::new(), &head, &mut first);
    let mut group = criterion.benchmark_group("hpack");
    let mut out = BytesMut::with_capacity(4096);
    group.bench_function("encode_first", |bench| {
        bench.iter_batched_ref(
            Encoder::new,
            |encoder| {
                out.clear();
                encode(encoder, black_box(&head), &mut out);
            },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("encode_again", |bench| {
        let mut encoder = Encoder::new();
        bench.iter(|| {
            out.clear();
            encode(&mut encoder, black_box(&head), &mut out);
        });
    });
    group.bench_function("decode_first", |bench| {
        bench.iter_batched_ref(
            || Decoder::new(TABLE),
            |decoder| decode(decoder, black_box(&first)),
            BatchSize::SmallInput,
        );
    });
    group.bench_function("decode_again", |bench| {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(TABLE));
        let mut block = BytesMut::new();
        // What recurs enters the table at its second time and is referred to from the third on.
        for _ in 0..4 {
            block.clear();
            encode(&mut encoder, &head, &mut block);
            decode(&mut decoder, &block);
        }
        bench.iter(|| decode(&mut decoder, black_box(&block)));
    });
    group.finish();
}

criterion_group!(benches, hpack);
criterion_main!(benches);
