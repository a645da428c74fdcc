//! Routes of every kind: who sees them, in which order, and what their status says.

use super::*;
use crate::resource::{Kind, RouteKind};

/// Services `orders` (80, and 81 for TCP) and `stock` of `shop`, and `ledger` of `bank`.
const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: orders}
spec: {ports: [{name: http, port: 80}, {name: db, port: 81, appProtocol: tcp}]}
---
apiVersion: v1
kind: Service
metadata: {name: stock}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: list, annotations: {none: none}}
spec: {clusterIP: None, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: ledger, namespace: bank}
spec: {ports: [{port: 80}]}
---
";

/// A route from `KIND NAMESPACE/NAME`, its parent and the rest of its spec.
fn document(named: &str, parent: &str, spec: &str) -> String {
    let (kind, name) = named.split_once(' ').unwrap();
    let (namespace, name) = name.split_once('/').unwrap();
    let version = if kind == "TCPRoute" { "v1alpha2" } else { "v1" };
    format!(
        "
apiVersion: gateway.networking.k8s.io/{version}
kind: {kind}
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{parentRefs: [{{group: '', kind: Service, {parent}}}], {spec}}}
---
"
    )
}

/// `TYPE=STATUS REASON` of the first parent's conditions.
fn conditions(mesh: &Mesh, named: &str) -> Vec<String> {
    let (kind, name) = named.split_once(' ').unwrap();
    let (namespace, name) = name.split_once('/').unwrap();
    let key = Key::new(Kind::parse(kind).unwrap(), namespace, name);
    let status = status(&mesh.catalog, &key).unwrap();
    status[0].conditions.iter().map(shown).collect()
}

const RULES: &str = "rules: [{backendRefs: [{name: orders, port: 80}]}]";

#[test]
fn every_reason_of_a_status() {
    let check = |named: &str, parent: &str, spec: &str, others: &str, expect: &[&str]| {
        let text = format!("{SERVICES}{others}{}", document(named, parent, spec));
        let mesh = mesh(&text, &[]);
        assert_eq!(conditions(&mesh, named), expect, "{parent} {spec}");
    };
    let resolved = "ResolvedRefs=true ResolvedRefs";
    let http = "HTTPRoute shop/r";
    let orders = "name: orders, port: 80";
    check(
        http,
        orders,
        RULES,
        "",
        &["Accepted=true Accepted", resolved],
    );
    let nobody = ["Accepted=false NoMatchingParent", resolved];
    check(http, "name: gone", RULES, "", &nobody);
    check(http, "name: orders, port: 99", RULES, "", &nobody);
    check(http, "name: orders, sectionName: https", RULES, "", &nobody);
    let headless = ["Accepted=false UnsupportedValue", resolved];
    check(http, "name: list", RULES, "", &headless);
    let consumer = ["Accepted=true Accepted", resolved];
    check(http, "name: ledger, namespace: bank", RULES, "", &consumer);

    let grpc = document("GRPCRoute shop/g", orders, RULES);
    let conflicted = ["Accepted=false Conflicted", resolved];
    check(http, orders, RULES, &grpc, &conflicted);
    check("TCPRoute shop/r", orders, RULES, &grpc, &conflicted);
    check("GRPCRoute shop/r", orders, RULES, &grpc, &consumer);
    let other_port = document("GRPCRoute shop/g", "name: orders, port: 81", RULES);
    check(http, orders, RULES, &other_port, &consumer);
    check(http, "name: orders", RULES, &other_port, &consumer);
    let older = document("TCPRoute shop/older", orders, RULES);
    check("TCPRoute shop/r", orders, RULES, &older, &conflicted);
    let foreign = document(
        "GRPCRoute bank/g",
        "name: orders, namespace: shop, port: 80",
        RULES,
    );
    check(http, orders, RULES, &foreign, &consumer);

    let backend = |backend: &str| format!("rules: [{{backendRefs: [{{{backend}}}]}}]");
    let refs = |reason: &str| format!("ResolvedRefs=false {reason}");
    let unresolved = |named: &str, text: &str, others: &str, reason: &str| {
        let expect = ["Accepted=true Accepted", &refs(reason)];
        check(named, orders, &backend(text), others, &expect);
    };
    unresolved(http, "name: gone, port: 80", "", "BackendNotFound");
    unresolved(http, "name: stock, port: 81", "", "BackendNotFound");
    unresolved(
        http,
        "group: a.test, kind: Bucket, name: b",
        "",
        "InvalidKind",
    );
    unresolved(http, "name: orders, port: 81", "", "UnsupportedProtocol");
    let ledger = "name: ledger, namespace: bank, port: 80";
    unresolved(http, ledger, "", "RefNotPermitted");
    check(
        "TCPRoute shop/r",
        orders,
        &backend("name: orders, port: 81"),
        "",
        &consumer,
    );
    check(
        http,
        orders,
        &backend(ledger),
        &grant("HTTPRoute", "shop", ""),
        &consumer,
    );
    check(
        http,
        orders,
        &backend(ledger),
        &grant("HTTPRoute", "shop", ", name: ledger"),
        &consumer,
    );
    for wrong in [
        grant("GRPCRoute", "shop", ""),
        grant("HTTPRoute", "other", ""),
        grant("HTTPRoute", "shop", ", name: other"),
    ] {
        unresolved(http, ledger, &wrong, "RefNotPermitted");
    }
    let mirror = "rules: [{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 80}}}], backendRefs: [{name: stock, port: 80}]}]";
    let expect = ["Accepted=true Accepted", &refs("BackendNotFound")];
    check(http, orders, mirror, "", &expect);

    // A reference that names no port leads nowhere, and the proxy takes the rest of the route.
    let bucket = backend("group: a.test, kind: Bucket, name: b");
    let text = format!("{SERVICES}{}", document(http, orders, &bucket));
    let route = route_for(&mesh(&text, &[]), "shop/orders:80", "shop").unwrap();
    assert_eq!(route.rules[0].backends[0].cluster.port, 1);

    let partly = "rules: [{backendRefs: [{name: stock, port: 80}]}, {name: dead, backendRefs: [{name: gone, port: 80}]}]";
    let expect = [
        "Accepted=true Accepted",
        "ResolvedRefs=false BackendNotFound",
        "PartiallyInvalid=true UnsupportedValue",
    ];
    check(http, orders, partly, "", &expect);
}

/// A grant of `bank`.
fn grant(kind: &str, namespace: &str, name: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {{name: g, namespace: bank}}
spec:
  from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: {namespace}}}]
  to: [{{group: '', kind: Service{name}}}]
---
"
    )
}

/// Names of the routes whose rules clients of a namespace get, in their order.
fn seen(mesh: &Mesh, port: &str, client: &str) -> String {
    let route = route_for(mesh, port, client).unwrap();
    let tls = route.tls_rules.iter().map(|rule| &rule.route);
    let tcp = route.tcp.iter().map(|rule| &rule.route);
    let rules = route.rules.iter().map(|rule| &rule.route);
    let names: Vec<&str> = rules.chain(tls).chain(tcp).map(String::as_str).collect();
    names.join(" ")
}

#[test]
fn producers_and_consumers() {
    let orders = "name: orders, namespace: shop";
    let text = [
        document("HTTPRoute shop/producer", orders, RULES),
        document("HTTPRoute bank/consumer", orders, RULES),
        document(
            "HTTPRoute bank/other",
            "name: orders, namespace: shop, port: 81",
            RULES,
        ),
        document(
            "GRPCRoute desk/consumer",
            "name: orders, namespace: shop, port: 81",
            RULES,
        ),
    ];
    let mesh = mesh(&format!("{SERVICES}{}", text.concat()), &[]);
    let check = |port: &str, client: &str, expect: &str| {
        assert_eq!(seen(&mesh, port, client), expect, "{port} {client}");
    };
    check("shop/orders:80", "shop", "HTTPRoute/shop/producer");
    check("shop/orders:80", "bank", "HTTPRoute/bank/consumer");
    check(
        "shop/orders:81",
        "bank",
        "HTTPRoute/bank/consumer HTTPRoute/bank/other",
    );
    check("shop/orders:80", "desk", "HTTPRoute/shop/producer");
    check("shop/orders:81", "desk", "GRPCRoute/desk/consumer");
    check("shop/orders:80", "elsewhere", "HTTPRoute/shop/producer");
    check("bank/ledger:80", "bank", "");
}

#[test]
fn kinds_exclude_each_other() {
    let orders = "name: orders";
    let all = [
        document("TCPRoute shop/younger", orders, RULES),
        document("TCPRoute shop/older", orders, RULES),
        document(
            "TLSRoute shop/t",
            orders,
            &format!("hostnames: [a.test], {RULES}"),
        ),
        document("HTTPRoute shop/h", orders, RULES),
        document("GRPCRoute shop/g", orders, RULES),
    ];
    let check = |documents: &[String], expect: &str| {
        let mesh = mesh(&format!("{SERVICES}{}", documents.concat()), &[]);
        assert_eq!(seen(&mesh, "shop/orders:80", "shop"), expect);
    };
    check(&all, "GRPCRoute/shop/g");
    check(&all[..4], "HTTPRoute/shop/h");
    check(&all[..3], "TLSRoute/shop/t");
    check(&all[..2], "TCPRoute/shop/younger");
    check(&[all[1].clone(), all[0].clone()], "TCPRoute/shop/older");
    let kinds: Vec<RouteKind> = RouteKind::ALL.to_vec();
    assert!(kinds.is_sorted(), "the most specific comes first");
}

#[test]
fn host_names_come_before_everything_else() {
    let route = |name: &str, hostnames: &str, more: &str| {
        let spec = format!("hostnames: [{hostnames}], rules: [{{matches: [{{{more}}}]}}]");
        document(
            &format!("HTTPRoute shop/{name}"),
            "name: orders, port: 80",
            &spec,
        )
    };
    let text = [
        route("any", "", "path: {type: Exact, value: /a}, method: GET"),
        route(
            "star",
            "'*.long.example.test'",
            "path: {type: Exact, value: /a}",
        ),
        route("two", "b.test, ccc.test", ""),
        route("dot", "'*.test'", ""),
    ];
    let mesh = mesh(&format!("{SERVICES}{}", text.concat()), &[]);
    let route = route_for(&mesh, "shop/orders:80", "shop").unwrap();
    let order: Vec<String> = route
        .rules
        .iter()
        .map(|rule| format!("{} {}", &rule.route[15..], rule.matches.hostname))
        .collect();
    let expect = [
        "two ccc.test",
        "two b.test",
        "star *.long.example.test",
        "dot *.test",
        "any ",
    ];
    assert_eq!(order, expect);
}

#[test]
fn grpc_methods_are_paths() {
    let check = |method: &str, expect: &str| {
        let spec = format!("rules: [{{matches: [{{{method}}}]}}]");
        let text = document("GRPCRoute shop/g", "name: orders, port: 80", &spec);
        let mesh = mesh(&format!("{SERVICES}{text}"), &[]);
        let route = route_for(&mesh, "shop/orders:80", "shop").unwrap();
        let path = match &route.rules[0].matches.path {
            None => "any".to_owned(),
            Some(PathMatch::Exact(path)) => format!("exact {path}"),
            Some(PathMatch::Prefix(path)) => format!("prefix {path}"),
            Some(PathMatch::Regex(path)) => format!("regex {path}"),
        };
        assert_eq!(path, expect, "{method}");
    };
    check("", "any");
    check("method: {service: a.B, method: C}", "exact /a.B/C");
    check("method: {service: a.B}", "prefix /a.B");
    check("method: {method: C_d}", "regex /[^/]+/C_d");
    let regex = "type: RegularExpression";
    check(
        &format!("method: {{{regex}, service: 'a|b', method: C}}"),
        "regex /(?:a|b)/(?:C)",
    );
    check(
        &format!("method: {{{regex}, service: a}}"),
        "regex /(?:a)/[^/]+",
    );
}

#[test]
fn grpc_methods_in_their_order() {
    let rules = [
        "",
        "method: {method: Find}",
        "method: {service: a.B}, headers: [{name: x, value: y}]",
        "method: {service: a.B, method: C}",
        "method: {service: a.B}",
        "method: {service: a.Long}",
    ];
    let rules: Vec<String> = rules
        .iter()
        .map(|one| format!("{{matches: [{{{one}}}]}}"))
        .collect();
    let spec = format!("rules: [{}]", rules.join(", "));
    let text = document("GRPCRoute shop/g", "name: orders, port: 80", &spec);
    let mesh = mesh(&format!("{SERVICES}{text}"), &[]);
    let route = route_for(&mesh, "shop/orders:80", "shop").unwrap();
    let order: Vec<u32> = route.rules.iter().map(|rule| rule.rule).collect();
    assert_eq!(order, [5, 3, 2, 4, 1, 0]);
}

#[test]
fn a_grant_touches_who_refers_from_outside() {
    let refers = document(
        "HTTPRoute shop/r",
        "name: orders",
        "rules: [{backendRefs: [{name: ledger, namespace: bank, port: 80}]}]",
    );
    let own = document(
        "HTTPRoute bank/own",
        "name: ledger",
        "rules: [{backendRefs: [{name: ledger, port: 80}]}]",
    );
    let mut mesh = mesh(&format!("{SERVICES}{refers}{own}"), &[]);
    let granted = documents(&grant("HTTPRoute", "shop", "")).remove(0);
    let affected = mesh
        .catalog
        .set(&granted.key(), Some(&granted), &mesh.workloads);
    let services: Vec<String> = affected.services.iter().map(ToString::to_string).collect();
    assert_eq!(services, ["shop/orders"]);
    assert_eq!(affected.statuses.len(), 1);
    let backend = |mesh: &Mesh| {
        let route = route_for(mesh, "shop/orders:80", "shop").unwrap();
        route.rules[0].backends[0].invalid.clone()
    };
    assert_eq!(backend(&mesh), None);
    let affected = mesh.catalog.set(&granted.key(), None, &mesh.workloads);
    assert_eq!(affected.services.len(), 1);
    assert_eq!(backend(&mesh).as_deref(), Some("RefNotPermitted"));
}
