//! Documents, good and bad, against what is to be said of them.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;

fn sources(text: &str) -> Vec<Source> {
    vec![Source {
        name: "file.yaml".to_owned(),
        content: text.as_bytes().to_vec(),
    }]
}

/// One problem of this document, field and line, whose reason holds `reason`; nothing else.
fn refused(text: &str, document: u32, field: &str, line: u32, reason: &str) {
    let parsed = parse(&sources(text), "default");
    let mut problems = parsed.problems;
    problems.extend(check_references(&parsed.resources, |_| None));
    assert_eq!(problems.len(), 1, "{text}: {problems:#?}");
    let found = &problems[0];
    assert_eq!(
        (found.document, found.field.as_str(), found.line),
        (document, field, line),
        "{text}: {found}"
    );
    assert!(found.reason.contains(reason), "{text}: {found}");
}

const SERVICE: &str = "apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec:
  selector: {app: orders}
  ports:
  - port: 80
    targetPort: http
";

fn route(spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, namespace: shop}}\nspec:\n{spec}"
    )
}

fn rule(rule: &str) -> String {
    route(&format!("rules:\n- {rule}"))
}

#[test]
fn reads_services() {
    let text = format!(
        "{SERVICE}---\n{{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{{\"name\":\"db\"}},\"spec\":{{\"type\":\"ExternalName\",\"externalName\":\"db.example.com\"}}}}\n"
    );
    let parsed = parse(&sources(&text), "default");
    assert_eq!(parsed.problems, []);
    let [
        (origin, Resource::Service(orders)),
        (_, Resource::Service(db)),
    ] = &parsed.resources[..]
    else {
        panic!("{:?}", parsed.resources);
    };
    assert_eq!((origin.document, origin.line), (1, 1));
    assert_eq!(orders.metadata.namespace, "shop");
    assert_eq!(orders.spec.selector["app"], "orders");
    assert_eq!(
        orders.spec.ports,
        [ServicePort {
            name: String::new(),
            port: 80,
            target_port: TargetPort::Name("http".to_owned()),
            app_protocol: None,
        }]
    );
    assert_eq!(db.metadata.namespace, "default");
    assert_eq!(
        db.spec.kind,
        ServiceKind::ExternalName("db.example.com".to_owned())
    );
}

#[test]
fn takes_what_a_cluster_gives_back() {
    let text = "apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata:
    name: a
    namespace: shop
    uid: 11111111-1111-4111-8111-111111111111
    resourceVersion: '12'
    creationTimestamp: '2026-01-01T00:00:00Z'
    labels: {app.kubernetes.io/name: a}
  spec:
    clusterIP: 10.96.0.10
    clusterIPs: [10.96.0.10]
    internalTrafficPolicy: Cluster
    ipFamilies: [IPv4]
    ipFamilyPolicy: SingleStack
    ports: [{name: http, port: 80, protocol: TCP, targetPort: 8080, appProtocol: kubernetes.io/h2c}]
    sessionAffinity: None
    type: ClusterIP
  status: {loadBalancer: {}}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: a}
";
    let parsed = parse(&sources(text), "default");
    assert_eq!(parsed.problems, []);
    assert_eq!(parsed.skipped.len(), 1);
    assert!(parsed.skipped[0].reason.contains("Deployment a"));
    let Resource::Service(service) = &parsed.resources[0].1 else {
        panic!("no service");
    };
    assert_eq!(service.spec.cluster_ips[0].to_string(), "10.96.0.10");
    assert_eq!(
        service.spec.ports[0].app_protocol,
        Some(AppProtocol::Http2("kubernetes.io/h2c".to_owned()))
    );
}

#[test]
fn reads_routes_and_slices() {
    let text = route(
        "parentRefs:
- {group: '', kind: Service, name: orders, port: 80}
- {name: edge}
rules:
- name: canary
  matches:
  - path: {type: Exact, value: /a}
    method: GET
    headers: [{name: X-Tenant, value: acme}, {name: x-tenant, value: other}]
  backendRefs: [{name: v1, port: 80, weight: 90}, {name: v2, port: 80, weight: 10}]
- backendRefs: [{name: v1, port: 80}]",
    ) + "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv6
ports: [{port: 5432}]
endpoints:
- {addresses: ['fd00::1']}
- {addresses: ['fd00::2'], conditions: {ready: false}, zone: a}
";
    let parsed = parse(&sources(&text), "default");
    assert_eq!(parsed.problems, []);
    assert_eq!(parsed.skipped[0].field, "spec.parentRefs[1]");
    let [
        (_, Resource::HttpRoute(route)),
        (_, Resource::EndpointSlice(slice)),
    ] = &parsed.resources[..]
    else {
        panic!("{:?}", parsed.resources);
    };
    assert_eq!(route.spec.parent_refs.len(), 1);
    let first = &route.spec.rules[0];
    assert_eq!(first.matches[0].path, PathMatch::Exact("/a".to_owned()));
    assert_eq!(first.matches[0].headers.len(), 1);
    assert_eq!(first.backend_refs[0].weight, 90);
    assert_eq!(first.backend_refs[0].namespace, "shop");
    assert_eq!(
        route.spec.rules[1].matches[0].path,
        PathMatch::Prefix("/".to_owned())
    );
    assert_eq!(slice.service.as_deref(), Some("db"));
    assert!(slice.endpoints[0].ready && !slice.endpoints[1].ready);
}

#[test]
fn gives_back_what_it_read() {
    let text = route(
        "parentRefs: [{group: '', kind: Service, name: orders, sectionName: http}]
rules:
- matches: [{path: {type: RegularExpression, value: '/[a-z]+'}, headers: [{type: RegularExpression, name: a, value: b*}]}]
  backendRefs: [{name: v1, port: 80, weight: 0}, {group: x.dev, kind: Bucket, name: b}]",
    ) + "---\n" + SERVICE;
    for (_, resource) in parse(&sources(&text), "default").resources {
        let again = from_stored(&resource.to_json().to_string());
        assert_eq!(again, Ok(resource));
    }
}

#[test]
#[rustfmt::skip] // A row a line.
fn refuses_bad_services() {
    let with = |from: &str, to: &str| SERVICE.replace(from, to);
    refused(&with("port: 80", "port: 70000"), 1, "spec.ports[0].port", 7, "70000 is not within 1 to 65535");
    refused(&with("port: 80", "port: '80'"), 1, "spec.ports[0].port", 7, "must be an integer, not a string");
    refused(&with("port: 80", "port: 80.5"), 1, "spec.ports[0].port", 7, "must be an integer, not a number");
    refused(&with("port: 80", "name: http"), 1, "spec.ports[0].port", 7, "is required");
    refused(&with("  selector", "  selectors"), 1, "spec.selectors", 5, "unknown field");
    refused(&with("app: orders", "app: 1"), 1, "spec.selector[app]", 5, "must be a string");
    refused(&with("spec:", "specs: 1\nspec:"), 1, "specs", 4, "unknown field");
    refused(&with("name: orders", "name: Orders"), 1, "metadata.name", 3, "must be 1 to 63");
    refused(&with("port: 80", "port: 80\n    protocol: UDP"), 1, "spec.ports[0].protocol", 8, "not supported yet");
    refused(&with("port: 80", "port: 80\n  - port: 81\n    name: b"), 1, "spec.ports[0].name", 7, "is required");
    refused(&with("spec:", "spec:\n  type: NodePort"), 1, "spec.type", 5, "not supported yet");
    refused(&with("spec:", "spec:\n  sessionAffinity: ClientIP"), 1, "spec.sessionAffinity", 5, "not supported yet");
    refused(&with("spec:", "spec:\n  clusterIP: 10.0.0"), 1, "spec.clusterIP", 5, "no IP address");
    refused(&with("v1", "v2"), 1, "apiVersion", 1, "write v1");
    refused(&with("spec:", "spec: 3\nx:") .replace("x:\n", "") .lines() .take(4) .collect::<Vec<_>>() .join("\n"), 1, "spec", 4, "must be a mapping");
    refused(&format!("{SERVICE}---\n{SERVICE}"), 2, "metadata.name", 10, "same object is in file.yaml, document 1, line 1");
    refused("kind: Service\n", 1, "apiVersion", 1, "is required");
    refused("just text\n", 1, "", 1, "must be a mapping, not a string");
    refused("a: [1\n", 1, "", 1, "neither YAML nor JSON");
    refused("apiVersion: weft.dev/v1alpha1\nkind: Limit\nmetadata: {name: a}\n", 1, "kind", 1, "not supported yet");
    refused(&"#\n".repeat(5 << 20), 0, "", 0, "10485760 bytes, at most 4194304");
    refused(&with("app: orders", "app: &a orders"), 1, "", 5, "anchors and aliases");
    refused(&format!("{SERVICE}---\na: {}", "[".repeat(100) + &"]".repeat(100)), 2, "", 10, "nested more than");
}

#[test]
#[rustfmt::skip] // A row a line.
fn refuses_bad_routes() {
    let backend = |fields: &str| rule(&format!("backendRefs: [{{{fields}}}]"));
    let backend_field = |name: &str| format!("spec.rules[0].backendRefs[0].{name}");
    refused(&backend("name: a, port: 80, weight: -1"), 1, &backend_field("weight"), 6, "-1 is not within 0 to 1000000");
    refused(&backend("name: a"), 1, &backend_field("port"), 6, "is required");
    refused(&backend("name: a, port: 80, filters: [{type: X}]"), 1, &backend_field("filters"), 6, "not supported yet");
    refused(&rule("timeouts: {request: 1s}"), 1, "spec.rules[0].timeouts", 6, "not supported yet");
    refused(&rule("backends: []"), 1, "spec.rules[0].backends", 6, "unknown field");
    refused(&route("hostnames: [a.example.com]"), 1, "spec.hostnames", 5, "not supported yet");
    refused(&route("rules: []"), 1, "spec.rules", 5, "at least one");
    let matching = |fields: &str| rule(&format!("matches: [{{{fields}}}]"));
    let field = |name: &str| format!("spec.rules[0].matches[0].{name}");
    refused(&matching("path: {value: a}"), 1, &field("path.value"), 6, "must begin with '/'");
    refused(&matching("path: {value: /a/../b}"), 1, &field("path.value"), 6, "must not hold \"/../\"");
    refused(&matching("path: {type: Glob, value: /a}"), 1, &field("path.type"), 6, "none of Exact");
    refused(&matching("path: {type: RegularExpression, value: '('}"), 1, &field("path.value"), 6, "no regular expression");
    refused(&matching("path: {type: RegularExpression, value: '(\\w{100}){100}'}"), 1, &field("path.value"), 6, "compiled");
    refused(&matching("method: get"), 1, &field("method"), 6, "none of GET");
    refused(&matching("headers: [{name: 'a b', value: c}]"), 1, &field("headers[0].name"), 6, "no header name");
    refused(&matching("queryParams: [{name: a, value: b}]"), 1, &field("queryParams"), 6, "not supported yet");
}

#[test]
fn refuses_references_to_ports_that_are_not_there() {
    let backend = rule("backendRefs: [{name: orders, port: 81}]");
    let field = "spec.rules[0].backendRefs[0].port";
    let reason = "Service shop/orders has no port 81; it has 80";
    refused(&format!("{SERVICE}---\n{backend}"), 2, field, 10, reason);
    let parent = route("parentRefs: [{group: '', kind: Service, name: orders, port: 82}]");
    let reason = "has no port 82";
    refused(
        &format!("{parent}---\n{SERVICE}"),
        1,
        "spec.parentRefs[0].port",
        1,
        reason,
    );

    let stored = parse(&sources(SERVICE), "default").resources.remove(0).1;
    let stored = HashMap::from([(stored.key(), Arc::new(stored))]);
    let parsed = parse(&sources(&backend), "default");
    let problems = check_references(&parsed.resources, |key| stored.get(key).cloned());
    assert_eq!(problems.len(), 1);
    assert_eq!(check_references(&parsed.resources, |_| None), []);
}

#[test]
fn reports_every_problem_at_once() {
    let text = SERVICE
        .replace("port: 80", "port: 0\n    prot: x")
        .replace("orders", "O");
    let parsed = parse(&sources(&text), "default");
    let fields: Vec<&str> = parsed.problems.iter().map(|p| p.field.as_str()).collect();
    assert_eq!(
        fields,
        ["metadata.name", "spec.ports[0].port", "spec.ports[0].prot"]
    );
    assert_eq!(parsed.resources, []);
}

proptest! {
    #[test]
    fn never_panics_on_any_service(field in "[a-zA-Z.]{0,12}", value in "[-\\[\\]{}:,'\"a-z0-9 ]{0,24}") {
        let text = format!("{SERVICE}  {field}: {value}\n");
        parse(&sources(&text), "default");
        parse(&sources(&rule(&format!("{field}: {value}"))), "default");
    }
}
