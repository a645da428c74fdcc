//! What it costs a proxy to take one endpoint's change in and to put it in force, beside clusters of 10
//! to 10,000 endpoints, beside 10,000 other clusters, and beside the whole cluster sent again.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use prost::Message;
use weft_benches::port;
use weft_proto::v1alpha1 as wire;
use weft_proxy::discovery::Resources;
use weft_proxy::model::{Configuration, Name};

const CLUSTER: &str = "shop/orders:80";
/// How many different endpoints change in turn.
const TURNS: usize = 128;

fn endpoint(number: usize, weight: u32) -> wire::Endpoint {
    wire::Endpoint {
        id: format!("orders-{number:05}:8080"),
        address: format!("10.1.{}.{}", number / 250, number % 250),
        port: 8080,
        weight,
        workload: "orders".to_owned(),
        namespace: "shop".to_owned(),
        sidecar: Some(wire::Sidecar {
            spiffe_id: "spiffe://weft.local/ns/shop/sa/orders".to_owned(),
            instance: format!("orders-{number:05}"),
            inbound_port: 4143,
        }),
        ..wire::Endpoint::default()
    }
}

fn resource(name: &str, version: &str) -> wire::Resource {
    wire::Resource {
        r#type: wire::ResourceType::Cluster.into(),
        name: name.to_owned(),
        version: version.to_owned(),
        ..wire::Resource::default()
    }
}

fn whole(name: &str, version: &str, count: usize) -> wire::Resource {
    let body = wire::Cluster {
        name: name.to_owned(),
        endpoints: (0..count).map(|number| endpoint(number, 1)).collect(),
        ..wire::Cluster::default()
    };
    wire::Resource {
        body: body.encode_to_vec().into(),
        ..resource(name, version)
    }
}

/// Another weight for one endpoint after the other, from version `a` to `b` and back in turns.
fn changes(count: usize) -> Vec<wire::Resource> {
    let change = |turn: usize| {
        let number = turn * count / TURNS % count;
        let change = wire::ClusterChange {
            upserted: vec![endpoint(number, 2 + turn as u32 % 7)],
            ..wire::ClusterChange::default()
        };
        let (base, version) = if turn.is_multiple_of(2) {
            ("a", "b")
        } else {
            ("b", "a")
        };
        wire::Resource {
            base_version: base.to_owned(),
            change: change.encode_to_vec().into(),
            ..resource(CLUSTER, version)
        }
    };
    (0..TURNS).map(change).collect()
}

/// A proxy that holds a cluster of so many endpoints, and other clusters.
struct Proxy {
    resources: Resources,
    in_force: Configuration,
}

impl Proxy {
    fn new(endpoints: usize, others: usize) -> Self {
        let mut proxy = Self {
            resources: Resources::default(),
            in_force: Configuration::default(),
        };
        let other = |number: usize| format!("shop/other-{number}:80");
        let names: Vec<String> = (0..others).map(other).chain([CLUSTER.to_owned()]).collect();
        for name in &names {
            let name = Name::Cluster(port(name));
            proxy.resources.want(&name, &mut proxy.in_force);
        }
        for name in &names {
            let count = if name == CLUSTER { endpoints } else { 3 };
            proxy.take(whole(name, "a", count));
        }
        proxy
    }

    /// As discovery does it: on a copy, which then is what is in force.
    fn take(&mut self, resource: wire::Resource) {
        let mut next = self.in_force.clone();
        let push = wire::Push {
            nonce: 1,
            resources: vec![resource],
        };
        let applied = self.resources.apply(push, &mut next);
        assert!(applied.rejected.is_empty(), "{applied:?}");
        self.in_force = next;
    }
}

fn taking(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("endpoints/change");
    let sizes = [10, 1_000, 10_000].map(|endpoints| (endpoints, 0));
    for (endpoints, others) in sizes.into_iter().chain([(10, 9_000), (10_000, 9_000)]) {
        let mut proxy = Proxy::new(endpoints, others);
        let changes = changes(endpoints);
        let mut turns = changes.iter().cycle();
        let of = format!("{endpoints} beside {others} clusters");
        // A turn is two changes, so that each run begins with the version that it left.
        group.bench_function(BenchmarkId::from_parameter(of), |bench| {
            bench.iter(|| {
                for change in turns.by_ref().take(2) {
                    proxy.take(change.clone());
                }
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("endpoints/whole");
    for endpoints in [10, 1_000, 10_000] {
        let mut proxy = Proxy::new(endpoints, 0);
        let whole = whole(CLUSTER, "b", endpoints);
        group.bench_function(BenchmarkId::from_parameter(endpoints), |bench| {
            bench.iter(|| proxy.take(whole.clone()));
        });
    }
    group.finish();
}

criterion_group!(benches, taking);
criterion_main!(benches);
