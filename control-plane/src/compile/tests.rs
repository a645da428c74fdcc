//! Tables: documents and workloads in, configuration out.

mod policies;
mod routes;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::registry::{ExternalNames, Workload};
use crate::resource::{Key, Kind, PathMatch, Resource, Source, parse};

/// Parses documents; the first one is the oldest.
pub(crate) fn documents(text: &str) -> Vec<Resource> {
    let source = Source {
        name: "test.yaml".to_owned(),
        content: text.as_bytes().to_vec(),
    };
    let parsed = parse(&[source], "shop");
    assert_eq!(parsed.problems, []);
    let age = |(seconds, (_, mut resource)): (u64, (_, Resource))| {
        let created = UNIX_EPOCH + Duration::from_secs(seconds);
        resource.metadata_mut().creation_timestamp = Some(created);
        resource
    };
    (1..).zip(parsed.resources).map(age).collect()
}

/// A workload of namespace `shop` from `INSTANCE APP IP PORT..`.
pub(crate) fn workload(text: &str) -> Arc<Workload> {
    let words: Vec<&str> = text.split(' ').collect();
    let ports = words[3..].iter().map(|port| port.parse().unwrap());
    Arc::new(Workload {
        instance: words[0].into(),
        name: words[1].into(),
        spiffe_id: format!("spiffe://weft.local/ns/shop/sa/{}", words[1])
            .parse()
            .unwrap(),
        labels: BTreeMap::from([("app".to_owned(), words[1].to_owned())]),
        address: words[2].parse().unwrap(),
        inbound_port: 4143,
        named_ports: BTreeMap::from([("web".to_owned(), 8080), ("old".to_owned(), 8081)]),
        zone: "".into(),
        ports_up: ports.collect(),
        draining: false,
    })
}

pub(crate) fn mesh(text: &str, workloads: &[&str]) -> Mesh {
    let mut mesh = Mesh {
        trust_domain: "weft.local".to_owned(),
        ..Mesh::default()
    };
    for text in workloads {
        mesh.workloads.insert(workload(text));
    }
    for mut resource in documents(text) {
        if let Resource::Service(service) = &mut resource
            && service.metadata.annotations.contains_key("ip")
        {
            service.spec.cluster_ips = vec![service.metadata.annotations["ip"].parse().unwrap()];
        }
        let key = resource.key();
        mesh.catalog.set(&key, Some(&resource), &mesh.workloads);
    }
    mesh
}

const ORDERS: &str = "
apiVersion: v1
kind: Service
metadata: {name: orders, annotations: {ip: 240.0.0.1}}
spec:
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}, {name: admin, port: 81, targetPort: web}]
---
";

fn configuration(mesh: &Mesh, name: &Name) -> Option<Configuration> {
    match compile(mesh, name) {
        Compiled::Present(configuration) => Some(configuration),
        Compiled::Absent => None,
        Compiled::Pending => panic!("{name} is pending"),
    }
}

fn cluster(mesh: &Mesh, name: &str) -> Option<Cluster> {
    let name = ServicePort::parse(name).unwrap();
    match configuration(mesh, &Name::Cluster(name))? {
        Configuration::Cluster(cluster) => Some(cluster),
        other => panic!("{other:?}"),
    }
}

/// As clients of `shop` see it.
fn route(mesh: &Mesh, name: &str) -> Option<Route> {
    route_for(mesh, name, "shop")
}

fn route_for(mesh: &Mesh, name: &str, client: &str) -> Option<Route> {
    let name = Name::Route {
        of: ServicePort::parse(name).unwrap(),
        client: client.into(),
    };
    match configuration(mesh, &name)? {
        Configuration::Route(route) => Some(route),
        other => panic!("{other:?}"),
    }
}

/// `TYPE=STATUS REASON`
fn shown(condition: &Condition) -> String {
    assert!(!condition.message.is_empty());
    let Condition {
        kind,
        is_true,
        reason,
        ..
    } = condition;
    format!("{kind}={is_true} {reason}")
}

/// IDs of a cluster's endpoints, those without a sidecar marked.
fn endpoints(mesh: &Mesh, name: &str) -> String {
    let Some(cluster) = cluster(mesh, name) else {
        return "absent".to_owned();
    };
    let endpoints = cluster.endpoints.iter().map(|endpoint| {
        let mark = if endpoint.sidecar.is_none() { "!" } else { "" };
        format!("{}{mark}", endpoint.id)
    });
    endpoints.collect::<Vec<_>>().join(" ")
}

#[test]
fn clusters_of_selected_workloads() {
    let check = |workloads: &[&str], name: &str, expect: &str| {
        assert_eq!(
            endpoints(&mesh(ORDERS, workloads), name),
            expect,
            "{workloads:?} {name}"
        );
    };
    let both = ["b orders 10.0.0.2 8080", "a orders 10.0.0.1 8080"];
    check(&both, "shop/orders:80", "a:8080 b:8080");
    check(&both, "shop/orders:81", "a:8080 b:8080");
    check(&["a orders 10.0.0.1 8081"], "shop/orders:80", "");
    check(&["a orders 10.0.0.1"], "shop/orders:80", "");
    check(&["a stock 10.0.0.1 8080"], "shop/orders:80", "");
    check(&[], "shop/orders:80", "");
    check(&[], "shop/orders:82", "absent");
    check(&[], "shop/stock:80", "absent");
    check(&[], "bank/orders:80", "absent");
    let laptop = ["a orders 127.0.0.1 8080", "b orders 127.0.0.1 8082"];
    check(&laptop, "shop/orders:80", "a:8080");
}

#[test]
fn endpoints_beyond_the_limit_are_counted() {
    let mut mesh = mesh(ORDERS, &[]);
    for index in 0..ENDPOINTS_MAX + 2 {
        let ip = format!("10.{}.{}.1", index / 250, index % 250);
        mesh.workloads
            .insert(workload(&format!("i-{index:05} orders {ip} 8080")));
    }
    let cluster = cluster(&mesh, "shop/orders:80").unwrap();
    assert_eq!(
        (cluster.endpoints.len(), cluster.left_out),
        (ENDPOINTS_MAX, 2)
    );
    assert_eq!(cluster.endpoints[ENDPOINTS_MAX - 1].id, "i-09999:8080");
}

#[test]
fn clusters_of_endpoint_slices() {
    let slice = "
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {ports: [{name: sql, port: 3306}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: sql, port: 3306}, {name: other, port: 1}]
endpoints:
- {addresses: [192.0.2.1]}
- {addresses: [192.0.2.2], conditions: {ready: false}}
- {addresses: [10.0.0.1]}
";
    let check = |workloads: &[&str], expect: &str| {
        assert_eq!(endpoints(&mesh(slice, workloads), "shop/db:3306"), expect);
    };
    check(&[], "10.0.0.1:3306! 192.0.2.1:3306!");
    check(&["a db 10.0.0.1 3306"], "192.0.2.1:3306! a:3306");
    check(&["a db 10.0.0.1 3307"], "10.0.0.1:3306! 192.0.2.1:3306!");
}

#[test]
fn clusters_of_external_names_wait_for_dns() {
    let documents = "{apiVersion: v1, kind: Service, metadata: {name: ext}, spec: {type: ExternalName, externalName: ext.example}}";
    let mut mesh = mesh(documents, &[]);
    let name = Name::Cluster(ServicePort::parse("shop/ext:443").unwrap());
    assert_eq!(compile(&mesh, &name), Compiled::Pending);
    mesh.external = ExternalNames::resolved("ext.example", &["192.0.2.9", "2001:db8::9"]);
    assert_eq!(
        endpoints(&mesh, "shop/ext:443"),
        "192.0.2.9:443! [2001:db8::9]:443!"
    );
    assert_eq!(route(&mesh, "shop/ext:443").unwrap().rules, []);
    let affected = mesh.catalog.touched_by_external("ext.example");
    assert_eq!(affected.services, [ServiceName::new("shop", "ext")].into());
}

#[test]
fn addresses() {
    let mesh = mesh(ORDERS, &["a orders 10.0.0.1 8080"]);
    let check = |address: &str, expect: &str| {
        let address: SocketAddr = address.parse().unwrap();
        let found = match configuration(&mesh, &Name::Address(address)) {
            None => "absent".to_owned(),
            Some(Configuration::Address(Address::Service(name))) => format!("service {name}"),
            Some(Configuration::Address(Address::Endpoint(endpoint))) => endpoint.id,
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expect, "{address}");
    };
    check("240.0.0.1:80", "service shop/orders");
    check("240.0.0.1:9999", "service shop/orders");
    check("10.0.0.1:8080", "a:8080");
    check("10.0.0.1:22", "absent");
    check("192.0.2.1:80", "absent");
}

#[test]
fn headless_services_name_their_endpoints() {
    let documents = "{apiVersion: v1, kind: Service, metadata: {name: h}, spec: {clusterIP: None, selector: {app: h}, ports: [{port: 80}]}}";
    let mesh = mesh(
        documents,
        &["b h 10.0.0.2 80", "a h 10.0.0.1 80", "c h 10.0.0.3"],
    );
    let name = Name::Service(ServiceName::new("shop", "h"));
    let Some(Configuration::Service(service)) = configuration(&mesh, &name) else {
        panic!("absent");
    };
    let addresses: Vec<String> = service
        .endpoint_addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(service.headless && service.virtual_ips.is_empty());
    assert_eq!(addresses, ["10.0.0.1", "10.0.0.2"]);
}

#[test]
fn inbound_ports_are_those_that_services_point_at() {
    let more = "
{apiVersion: v1, kind: Service, metadata: {name: grpc}, spec: {selector: {app: orders}, ports: [{name: a, port: 90, targetPort: 8080, appProtocol: grpc}, {name: b, port: 91, targetPort: 9000, appProtocol: tcp}, {name: c, port: 92, targetPort: nowhere}]}}
";
    let mesh = mesh(&format!("{ORDERS}{more}"), &["a orders 10.0.0.1"]);
    let Some(Configuration::Inbound(inbound)) = configuration(&mesh, &Name::Inbound("a".into()))
    else {
        panic!("absent");
    };
    let ports: Vec<String> = inbound
        .ports
        .iter()
        .map(|port| {
            let services: Vec<String> = port.services.iter().map(ToString::to_string).collect();
            format!("{} {:?} {}", port.port, port.protocol, services.join(","))
        })
        .collect();
    // The two services disagree on what 8080 speaks.
    assert_eq!(
        ports,
        [
            "8080 None shop/grpc,shop/orders",
            "9000 Some(Tcp) shop/grpc"
        ]
    );
    assert_eq!(configuration(&mesh, &Name::Inbound("b".into())), None);
}

/// An HTTPRoute of `orders` from rules in flow style.
fn http_route(name: &str, rules: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}}}
spec:
  parentRefs: [{{group: '', kind: Service, name: orders}}]
  rules: [{rules}]
---
"
    )
}

#[test]
fn matches_are_ordered_by_precedence() {
    let backends = "backendRefs: [{name: orders, port: 80}]";
    let path = |kind: &str, value: &str, more: &str| {
        format!("{{path: {{type: {kind}, value: {value}}}{more}}}")
    };
    let rules = [
        path("PathPrefix", "/", ""),
        path("PathPrefix", "/a", ""),
        path("PathPrefix", "/a/b", ""),
        path("PathPrefix", "/a/b", ", headers: [{name: x, value: y}]"),
        path(
            "PathPrefix",
            "/a/b",
            ", headers: [{name: x, value: y}, {name: z, value: y}]",
        ),
        path("PathPrefix", "/a/b", ", method: GET"),
        path("RegularExpression", "'/x.*'", ""),
        path("Exact", "/a", ""),
    ];
    let rules: Vec<String> = rules
        .iter()
        .map(|matches| format!("{{matches: [{matches}], {backends}}}"))
        .collect();
    let older = http_route("z-older", &rules.join(", "));
    let younger = http_route("a-younger", &format!("{{{backends}}}, {{{backends}}}"));
    let mesh = mesh(&format!("{ORDERS}{older}{younger}"), &[]);
    let route = route(&mesh, "shop/orders:80").unwrap();
    let order: Vec<String> = route
        .rules
        .iter()
        .map(|rule| {
            let (PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Regex(path)) =
                rule.matches.path.as_ref().unwrap();
            format!(
                "{} {} {path}",
                rule.route.rsplit('/').next().unwrap(),
                rule.rule
            )
        })
        .collect();
    let expect = [
        "z-older 7 /a",
        "z-older 6 /x.*",
        "z-older 5 /a/b",
        "z-older 4 /a/b",
        "z-older 3 /a/b",
        "z-older 2 /a/b",
        "z-older 1 /a",
        "z-older 0 /",
        "a-younger 0 /",
        "a-younger 1 /",
    ];
    assert_eq!(order, expect);
}

#[test]
fn references_and_their_conditions() {
    let check = |backend: &str, invalid: Option<&str>, message: &str| {
        let text = http_route("r", &format!("{{backendRefs: [{{{backend}, weight: 3}}]}}"));
        let mesh = mesh(&format!("{ORDERS}{text}"), &[]);
        let compiled = route(&mesh, "shop/orders:80").unwrap();
        let backend = &compiled.rules[0].backends[0];
        assert_eq!((backend.weight, backend.invalid.as_deref()), (3, invalid));
        let status = status(&mesh.catalog, &Key::new(Kind::HttpRoute, "shop", "r")).unwrap();
        let resolved = &status[0].conditions[1];
        assert_eq!(resolved.kind, "ResolvedRefs");
        assert_eq!(resolved.is_true, invalid.is_none());
        assert_eq!(resolved.reason, invalid.unwrap_or("ResolvedRefs"));
        assert_eq!(resolved.message, message);
    };
    check("name: orders, port: 80", None, "every backendRef resolves");
    check(
        "name: gone, port: 80",
        Some("BackendNotFound"),
        "there is no Service shop/gone",
    );
    check(
        "name: orders, port: 82",
        Some("BackendNotFound"),
        "Service shop/orders has no port 82",
    );
    check(
        "name: orders, namespace: bank, port: 80",
        Some("RefNotPermitted"),
        "no ReferenceGrant allows a reference to Service bank/orders of another namespace",
    );
    check(
        "kind: Bucket, group: s3.example, name: b",
        Some("InvalidKind"),
        "a backend can't be a s3.example/Bucket",
    );
}

#[test]
fn parents_and_their_conditions() {
    let check = |parent: &str, accepted: bool, reason: &str, attached: [usize; 2]| {
        let text = http_route("r", "{backendRefs: [{name: orders, port: 80}]}")
            .replace("name: orders}]\n", &format!("{parent}}}]\n"));
        let mesh = mesh(&format!("{ORDERS}{text}"), &[]);
        let status = status(&mesh.catalog, &Key::new(Kind::HttpRoute, "shop", "r")).unwrap();
        let condition = &status[0].conditions[0];
        assert_eq!(
            (condition.is_true, condition.reason),
            (accepted, reason),
            "{parent}"
        );
        let rules = ["shop/orders:80", "shop/orders:81"]
            .map(|name| route(&mesh, name).unwrap().rules.len());
        assert_eq!(rules, attached, "{parent}");
    };
    check("name: orders", true, "Accepted", [1, 1]);
    check("name: orders, port: 81", true, "Accepted", [0, 1]);
    check("name: orders, sectionName: http", true, "Accepted", [1, 0]);
    check("name: orders, port: 99", false, "NoMatchingParent", [0, 0]);
    check("name: gone", false, "NoMatchingParent", [0, 0]);
    check(
        "name: orders, namespace: bank",
        false,
        "NoMatchingParent",
        [0, 0],
    );
}

#[test]
fn a_rule_without_backends_stays_a_rule() {
    let text = http_route("r", "{matches: [{path: {type: Exact, value: /off}}]}");
    let mesh = mesh(&format!("{ORDERS}{text}"), &[]);
    let route = route(&mesh, "shop/orders:80").unwrap();
    assert_eq!((route.rules.len(), route.rules[0].backends.len()), (1, 0));
}
