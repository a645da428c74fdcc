//! Choosing a rule, over routes of 1 to 10,000 of them.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use weft_benches::{Shape, route};
use weft_proxy::model::RequestHead;
use weft_proxy::route::{Decision, decide};

const RULES: [usize; 4] = [1, 10, 100, 10_000];
/// How many rules take all the traffic, spread evenly over the route.
const BUSY: usize = 10;

fn choosing(criterion: &mut Criterion) {
    for shape in Shape::ALL {
        let mut group = criterion.benchmark_group(format!("route/{}", shape.name()));
        for count in RULES {
            let route = route(shape, count);
            let busy = BUSY.min(count);
            let wanted = (0..busy).map(|nth| (nth * count + count / 2) / busy);
            let wanted: Vec<usize> = wanted.collect();
            let requests: Vec<RequestHead> = wanted.iter().map(|nth| shape.request(*nth)).collect();
            for (request, number) in requests.iter().zip(&wanted) {
                let seen = decide(&route, request, 0);
                let is_wanted =
                    matches!(seen, Ok(Decision::Backend { rule, .. }) if rule == *number);
                assert!(is_wanted, "{seen:?}");
            }
            let mut turns = requests.iter().cycle();
            group.bench_function(BenchmarkId::from_parameter(count), |bench| {
                bench.iter(|| decide(&route, black_box(turns.next()?), 0).ok());
            });
        }
        group.finish();
    }
}

criterion_group!(benches, choosing);
criterion_main!(benches);
