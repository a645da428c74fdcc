//! Picking an endpoint, with requests outstanding at all of them.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use rand::SeedableRng;
use rand::rngs::StdRng;
use weft_benches::{endpoint, port};
use weft_proxy::balance::{Balancer, Wanted};
use weft_proxy::model::Cluster;

/// Requests outstanding at a time.
const OUTSTANDING: usize = 100;

fn balance(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("balance/pick");
    for count in [1, 10, 1_000, 10_000] {
        let endpoints = (0..count).map(|number| Arc::new(endpoint(number)));
        let cluster = Arc::new(Cluster {
            name: port("shop/orders:80"),
            protocol: None,
            tls: None,
            policy: Arc::default(),
            endpoints: endpoints.collect(),
        });
        let (balancer, now) = (Balancer::new(1, "".into()), Instant::now());
        let mut random = StdRng::seed_from_u64(1);
        let mut outstanding = VecDeque::new();
        group.bench_function(BenchmarkId::from_parameter(count), |bench| {
            bench.iter(|| {
                let picked =
                    balancer.pick(black_box(&cluster), Wanted::default(), now, &mut random);
                outstanding.push_back(picked);
                if outstanding.len() > OUTSTANDING {
                    outstanding.pop_front();
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, balance);
criterion_main!(benches);
