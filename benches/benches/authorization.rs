//! Whether a caller may reach a workload.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use weft_proto::spiffe::SpiffeId;
use weft_proxy::authorization::{Policy, decide};

fn authorization(criterion: &mut Criterion) {
    let peer = SpiffeId::new("weft.local", "shop", "orders").expect("an ID");
    let mut group = criterion.benchmark_group("authorization");
    for (name, peer, policy) in [
        ("strict_peer", Some(&peer), Policy::Strict),
        ("permissive_plaintext", None, Policy::Permissive),
        ("strict_plaintext", None, Policy::Strict),
    ] {
        group.bench_function(name, |bench| {
            bench.iter(|| decide(black_box(peer), black_box(policy)));
        });
    }
    group.finish();
}

criterion_group!(benches, authorization);
criterion_main!(benches);
