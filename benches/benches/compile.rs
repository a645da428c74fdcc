//! The control plane's way from documents and workloads to what a proxy gets.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use weft::compile::{Compiled, Mesh, Name, ServiceName, compile};
use weft::grpc::encode;
use weft::registry::Workload;
use weft::resource::{Source, parse};

const RULES_OF_A_ROUTE: usize = 16;

/// A service with this many endpoints, and as many rules as `routes` HTTPRoutes may have.
fn mesh(endpoints: usize, routes: usize) -> Mesh {
    let mut text = "apiVersion: v1\nkind: Service\nmetadata: {name: orders}\n\
        spec: {selector: {app: orders}, ports: [{port: 80, targetPort: 8080}]}\n"
        .to_owned();
    for route in 0..routes {
        text.push_str(&format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: r{route}}}\nspec:\n  \
             parentRefs: [{{group: '', kind: Service, name: orders}}]\n  rules:\n"
        ));
        for rule in 0..RULES_OF_A_ROUTE {
            text.push_str(&format!(
                "  - matches: [{{path: {{type: PathPrefix, value: /r{route}/{rule}}}}}]\n    \
                 backendRefs: [{{name: orders, port: 80}}]\n"
            ));
        }
    }
    let source = Source {
        name: "bench.yaml".to_owned(),
        content: text.into_bytes(),
    };
    let parsed = parse(&[source], "shop");
    assert_eq!(parsed.problems, []);
    let mut mesh = Mesh::default();
    for number in 0..endpoints {
        mesh.workloads.insert(Arc::new(workload(number)));
    }
    for (_, resource) in &parsed.resources {
        let key = resource.key();
        mesh.catalog.set(&key, Some(resource), &mesh.workloads);
    }
    mesh
}

fn workload(number: usize) -> Workload {
    let ip = format!("10.1.{}.{}", number / 250, number % 250);
    Workload {
        instance: format!("orders-{number:05}").into(),
        name: "orders".into(),
        spiffe_id: "spiffe://weft.local/ns/shop/sa/orders"
            .parse()
            .expect("an ID"),
        labels: BTreeMap::from([("app".to_owned(), "orders".to_owned())]),
        address: ip.parse().expect("an IP"),
        inbound_port: 4143,
        named_ports: BTreeMap::new(),
        zone: "".into(),
        ports_up: [8080].into(),
        draining: false,
    }
}

fn compiling(criterion: &mut Criterion) {
    let orders = ServiceName::new("shop", "orders").port(80);
    let cluster = Name::Cluster(orders.clone());
    let route = Name::Route {
        of: orders,
        client: "shop".into(),
    };
    let mut group = criterion.benchmark_group("compile/cluster");
    for count in [10, 1_000, 10_000] {
        let mesh = mesh(count, 0);
        group.bench_function(BenchmarkId::from_parameter(count), |bench| {
            bench.iter(|| compile(black_box(&mesh), &cluster));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("compile/route");
    for routes in [1, 10, 100] {
        let mesh = mesh(1, routes);
        let rules = routes * RULES_OF_A_ROUTE;
        group.bench_function(BenchmarkId::from_parameter(rules), |bench| {
            bench.iter(|| compile(black_box(&mesh), &route));
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("encode/cluster");
    for count in [10, 10_000] {
        let Compiled::Present(configuration) = compile(&mesh(count, 0), &cluster) else {
            panic!("the service is there");
        };
        group.bench_function(BenchmarkId::from_parameter(count), |bench| {
            bench.iter(|| encode(black_box(&configuration)));
        });
    }
    group.finish();
}

criterion_group!(benches, compiling);
criterion_main!(benches);
