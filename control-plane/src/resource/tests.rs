//! Documents, good and bad, against what is to be said of them.

mod policies;

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
    trafficDistribution: PreferSameZone
    type: ClusterIP
  status: {loadBalancer: {}}
- apiVersion: apps/v1
  kind: Deployment
  metadata: {name: a}
- apiVersion: gateway.networking.k8s.io/v1alpha2
  kind: UDPRoute
  metadata: {name: b}
";
    let parsed = parse(&sources(text), "default");
    assert_eq!(parsed.problems, []);
    assert_eq!(parsed.skipped.len(), 2);
    assert!(parsed.skipped[0].reason.contains("Deployment a"));
    assert!(parsed.skipped[1].reason.contains("UDPRoute b"));
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
        (_, Resource::Route(route)),
        (_, Resource::EndpointSlice(slice)),
    ] = &parsed.resources[..]
    else {
        panic!("{:?}", parsed.resources);
    };
    assert_eq!(route.parent_refs.len(), 1);
    let first = &route.rules[0];
    assert_eq!(path(&first.matches[0]), &PathMatch::Exact("/a".to_owned()));
    assert_eq!(first.matches[0].headers.len(), 1);
    assert_eq!(first.backend_refs[0].weight, 90);
    assert_eq!(first.backend_refs[0].namespace, "shop");
    assert_eq!(
        path(&route.rules[1].matches[0]),
        &PathMatch::Prefix("/".to_owned())
    );
    assert_eq!(slice.service.as_deref(), Some("db"));
    assert!(slice.endpoints[0].ready && !slice.endpoints[1].ready);
}

fn path(matches: &RouteMatch) -> &PathMatch {
    match &matches.kind {
        MatchKind::Http { path, .. } => path,
        other => panic!("{other:?}"),
    }
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
    refused(&with("spec:", "spec:\n  trafficDistribution: PreferSameNode"), 1, "spec.trafficDistribution", 5, "none of PreferClose, PreferSameZone");
    refused(&with("spec:", "spec:\n  sessionAffinity: ClientIP"), 1, "spec.sessionAffinity", 5, "not supported yet");
    refused(&with("spec:", "spec:\n  clusterIP: 10.0.0"), 1, "spec.clusterIP", 5, "no IP address");
    refused(&with("v1", "v2"), 1, "apiVersion", 1, "write v1");
    refused(&with("spec:", "spec: 3\nx:") .replace("x:\n", "") .lines() .take(4) .collect::<Vec<_>>() .join("\n"), 1, "spec", 4, "must be a mapping");
    refused(&format!("{SERVICE}---\n{SERVICE}"), 2, "metadata.name", 10, "same object is in file.yaml, document 1, line 1");
    refused("kind: Service\n", 1, "apiVersion", 1, "is required");
    refused("just text\n", 1, "", 1, "must be a mapping, not a string");
    refused("a: [1\n", 1, "", 1, "neither YAML nor JSON");
    refused("apiVersion: weft.dev/v1alpha1\nkind: Limit\nmetadata: {name: a}\n", 1, "kind", 1, "not supported yet");
    refused("apiVersion: gateway.networking.k8s.io/v1\nkind: HttpRoute\nmetadata: {name: a}\n", 1, "kind", 1, "not supported yet");
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
    refused(&backend("name: a, port: 80, filters: [{type: X}]"), 1, &backend_field("filters[0].type"), 6, "none of RequestHeaderModifier");
    refused(&rule("backends: []"), 1, "spec.rules[0].backends", 6, "unknown field");
    refused(&route("hostnames: [a.*.example.com]"), 1, "spec.hostnames[0]", 5, "must be labels");
    refused(&route("hostnames: [a.test, 10.0.0.1]"), 1, "spec.hostnames[1]", 5, "is an address");
    refused(&route("useDefaultGateways: All"), 1, "spec.useDefaultGateways", 5, "not supported yet");
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
    refused(&matching("queryParams: [{name: a}]"), 1, &field("queryParams[0].value"), 6, "is required");
    refused(&matching("queryParams: [{name: a, value: '(', type: RegularExpression}]"), 1, &field("queryParams[0].value"), 6, "no regular expression");
    let many = |count: usize| format!("{{matches: [{}]}}", vec!["{}"; count].join(", "));
    refused(&route(&format!("rules: [{}, {}, {}]", many(64), many(64), many(1))), 1, "spec.rules", 5, "129 matches together");
    refused(&route("rules: [{name: a}, {name: a}]"), 1, "spec.rules[1]", 5, "there twice");
}

#[test]
#[rustfmt::skip] // A row a line.
fn refuses_bad_filters() {
    let filters = |list: &str| rule(&format!("filters: [{list}]"));
    let field = |name: &str| format!("spec.rules[0].filters[0].{name}");
    let set = |name: &str, value: &str| filters(&format!("{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: {name}, value: {value}}}]}}}}"));
    let set_field = |name: &str| field(&format!("requestHeaderModifier.set[0].{name}"));
    refused(&set("'a b'", "x"), 1, &set_field("name"), 6, "no header name");
    refused(&set("Content-Length", "'1'"), 1, &set_field("name"), 6, "the proxy's own");
    refused(&set("weft-hop-port", "'1'"), 1, &set_field("name"), 6, "the proxy's own");
    refused(&set("Host", "a.test"), 1, &set_field("name"), 6, "URLRewrite");
    refused(&set("a", "\"a\\r\\nb\""), 1, &set_field("value"), 6, "visible characters");
    refused(&filters("{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}], remove: [A]}}"), 1, &field("requestHeaderModifier.remove[0]"), 6, "there twice");
    refused(&filters("{type: RequestHeaderModifier}"), 1, &field("requestHeaderModifier"), 6, "is required");
    refused(&filters("{type: URLRewrite, urlRewrite: {}, cors: {}}"), 1, &field("cors"), 6, "unknown field");
    refused(&filters("{type: ExtensionRef, extensionRef: {group: a, kind: b, name: c}}"), 1, &field("type"), 6, "no filter of weft");
    refused(&filters("{type: URLRewrite, urlRewrite: {}}, {type: URLRewrite, urlRewrite: {}}"), 1, "spec.rules[0].filters[1]", 6, "URLRewrite is there twice");
    refused(&filters("{type: URLRewrite, urlRewrite: {}}, {type: RequestRedirect, requestRedirect: {}}"), 1, "spec.rules[0].filters", 6, "exclude each other");
    let redirect = |fields: &str| filters(&format!("{{type: RequestRedirect, requestRedirect: {{{fields}}}}}"));
    let redirect_field = |name: &str| field(&format!("requestRedirect.{name}"));
    refused(&redirect("scheme: ftp"), 1, &redirect_field("scheme"), 6, "none of http, https");
    refused(&redirect("statusCode: 304"), 1, &redirect_field("statusCode"), 6, "304 is none of");
    refused(&redirect("port: 0"), 1, &redirect_field("port"), 6, "not within");
    refused(&redirect("hostname: '*.a.test'"), 1, &redirect_field("hostname"), 6, "without a star");
    refused(&redirect("path: {type: ReplaceFullPath, replaceFullPath: '/a?b'}"), 1, &redirect_field("path.replaceFullPath"), 6, "percent-encoded");
    refused(&redirect("path: {type: ReplaceFullPath}"), 1, &redirect_field("path.replaceFullPath"), 6, "is required");
    refused(&rule("filters: [{type: RequestRedirect, requestRedirect: {}}]\n  backendRefs: [{name: a, port: 80}]"), 1, "spec.rules[0]", 6, "nothing would reach them");
    let rewrite = "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /a}}}]";
    refused(&rule(&format!("matches: [{{path: {{type: Exact, value: /a}}}}]\n  {rewrite}")), 1, "spec.rules[0]", 6, "exactly one match");
    refused(&rule(&format!("matches: [{{path: {{value: /a}}}}, {{path: {{value: /b}}}}]\n  {rewrite}")), 1, "spec.rules[0]", 6, "exactly one match");
    let mirror = |fields: &str| filters(&format!("{{type: RequestMirror, requestMirror: {{{fields}}}}}"));
    let mirror_field = |name: &str| field(&format!("requestMirror.{name}"));
    refused(&mirror("percent: 1"), 1, &mirror_field("backendRef"), 6, "is required");
    refused(&mirror("backendRef: {name: a}"), 1, &mirror_field("backendRef.port"), 6, "is required");
    refused(&mirror("backendRef: {name: a, port: 80}, percent: 101"), 1, &mirror_field("percent"), 6, "not within 0 to 100");
    refused(&mirror("backendRef: {name: a, port: 80}, percent: 1, fraction: {numerator: 1}"), 1, &mirror_field("fraction"), 6, "exclude each other");
    refused(&mirror("backendRef: {name: a, port: 80}, fraction: {numerator: 3, denominator: 2}"), 1, &mirror_field("fraction.numerator"), 6, "not within 0 to 2");
    let cors = |fields: &str| filters(&format!("{{type: CORS, cors: {{{fields}}}}}"));
    let cors_field = |name: &str| field(&format!("cors.{name}"));
    refused(&cors("allowOrigins: [a.test]"), 1, &cors_field("allowOrigins[0]"), 6, "no origin");
    refused(&cors("allowOrigins: ['https://a.*.test']"), 1, &cors_field("allowOrigins[0]"), 6, "no origin");
    refused(&cors("allowOrigins: ['*', 'https://a.test']"), 1, &cors_field("allowOrigins"), 6, "can't stand beside");
    refused(&cors("allowMethods: ['a b']"), 1, &cors_field("allowMethods[0]"), 6, "no method");
    refused(&cors("maxAge: 0"), 1, &cors_field("maxAge"), 6, "not within");
}

#[test]
#[rustfmt::skip] // A row a line.
fn refuses_bad_policies_of_rules() {
    let field = |name: &str| format!("spec.rules[0].{name}");
    refused(&rule("timeouts: {request: 1.5s}"), 1, &field("timeouts.request"), 6, "no duration");
    refused(&rule("timeouts: {request: 1s, backendRequest: 2s}"), 1, &field("timeouts.backendRequest"), 6, "always come first");
    refused(&rule("timeouts: {requests: 1s}"), 1, &field("timeouts.requests"), 6, "unknown field");
    refused(&rule("retry: {codes: [200]}"), 1, &field("retry.codes[0]"), 6, "not within 400 to 599");
    refused(&rule("retry: {backoff: 1}"), 1, &field("retry.backoff"), 6, "must be a string");
    refused(&rule("sessionPersistence: {type: Cookies}"), 1, &field("sessionPersistence.type"), 6, "none of Cookie, Header");
    refused(&rule("sessionPersistence: {cookieConfig: {lifetimeType: Permanent}}"), 1, &field("sessionPersistence"), 6, "needs absoluteTimeout");
    refused(&rule("sessionPersistence: {type: Header, cookieConfig: {lifetimeType: Session}}"), 1, &field("sessionPersistence.cookieConfig"), 6, "means nothing");
}

#[test]
#[rustfmt::skip] // A row a line.
fn refuses_bad_routes_of_other_kinds() {
    let grpc = |text: &str| rule(text).replace("HTTPRoute", "GRPCRoute");
    refused(&grpc("timeouts: {request: 1s}"), 1, "spec.rules[0].timeouts", 6, "unknown field");
    refused(&grpc("filters: [{type: URLRewrite, urlRewrite: {}}]"), 1, "spec.rules[0].filters[0].type", 6, "none of RequestHeaderModifier");
    refused(&grpc("matches: [{method: {}}]"), 1, "spec.rules[0].matches[0].method", 6, "needs service, method or both");
    refused(&grpc("matches: [{method: {service: 'a/b'}}]"), 1, "spec.rules[0].matches[0].method.service", 6, "no name of gRPC");
    refused(&grpc("matches: [{method: {type: RegularExpression, method: '('}}]"), 1, "spec.rules[0].matches[0].method.method", 6, "no regular expression");
    refused(&grpc("matches: [{path: {value: /a}}]"), 1, "spec.rules[0].matches[0].path", 6, "unknown field");
    let tcp = |text: &str| rule(text).replace("HTTPRoute", "TCPRoute").replace("/v1", "/v1alpha2");
    refused(&tcp("name: a"), 1, "spec.rules[0].backendRefs", 6, "is required");
    refused(&tcp("backendRefs: [{name: a, port: 80, filters: []}]"), 1, "spec.rules[0].backendRefs[0].filters", 6, "unknown field");
    refused(&tcp("backendRefs: [{name: a, port: 80}]\n- backendRefs: []"), 1, "spec.rules", 6, "2 items, at most 1");
    refused(&tcp("backendRefs: [{name: a, port: 80}]").replace("rules", "hostnames: [a.test]\n  rules"), 1, "spec.hostnames", 5, "unknown field");
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata: {name: g}\nspec: {from: [{group: g, kind: HTTPRoute, namespace: a}], to: [{group: '', kind: Service}]}\n";
    refused(&grant.replace("namespace: a", "namespace: A"), 1, "spec.from[0].namespace", 4, "must be 1 to 63");
    refused(&grant.replace("[{group: '', kind: Service}]", "[]"), 1, "spec.to", 4, "at least one");
}

#[test]
#[rustfmt::skip] // A row a line.
fn refuses_bad_outbound_policies() {
    let policy = |targets: &str, choice: &str| format!("apiVersion: weft.dev/v1alpha1\nkind: OutboundPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{targetRefs: [{targets}], unknownDestinations: {choice}}}\n");
    let own = "{group: '', kind: Namespace, name: shop}";
    refused(&policy(own, "Deny"), 1, "spec.unknownDestinations", 4, "none of Pass, Refuse");
    refused(&policy("", "Pass"), 1, "spec.targetRefs", 4, "at least one");
    refused(&policy("{group: '', kind: Namespace, name: bank}", "Pass"), 1, "spec.targetRefs[0]", 4, "write it there");
    refused(&policy("{group: weft.dev, kind: Mesh, name: weft}", "Pass"), 1, "spec.targetRefs[0]", 4, "only policies of namespace weft-system");
    refused(&policy("{group: '', kind: Service, name: a}", "Pass"), 1, "spec.targetRefs[0]", 4, "must be a Namespace");
}

#[test]
#[rustfmt::skip] // A row a line.
fn refuses_bad_backend_tls_policies() {
    let policy = |targets: &str, validation: &str| format!("apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{targetRefs: [{targets}], validation: {{{validation}}}}}\n");
    let (target, fine) = ("{group: '', kind: Service, name: a}", "hostname: a.test, wellKnownCACertificates: System");
    refused(&policy("", fine), 1, "spec.targetRefs", 4, "at least one");
    refused(&policy("{group: '', kind: Gateway, name: a}", fine), 1, "spec.targetRefs[0]", 4, "must be a Service");
    refused(&policy("{group: '', kind: Service, name: a, namespace: b}", fine), 1, "spec.targetRefs[0].namespace", 4, "unknown field");
    refused(&policy(&format!("{target}, {target}"), fine), 1, "spec.targetRefs[1]", 4, "named twice");
    refused(&policy(target, "wellKnownCACertificates: System"), 1, "spec.validation.hostname", 4, "is required");
    refused(&policy(target, "hostname: '*.test', wellKnownCACertificates: System"), 1, "spec.validation.hostname", 4, "without a star");
    refused(&policy(target, "hostname: 10.0.0.1, wellKnownCACertificates: System"), 1, "spec.validation.hostname", 4, "is an address");
    refused(&policy(target, "hostname: a.test"), 1, "spec.validation", 4, "one of caCertificateRefs");
    refused(&policy(target, "hostname: a.test, wellKnownCACertificates: Mozilla"), 1, "spec.validation.wellKnownCACertificates", 4, "must be System");
    refused(&policy(target, &format!("{fine}, caCertificateRefs: [{{group: '', kind: ConfigMap, name: c}}]")), 1, "spec.validation.wellKnownCACertificates", 4, "beside");
    refused(&policy(target, &format!("{fine}, subjectAltNames: [{{type: IP}}]")), 1, "spec.validation.subjectAltNames[0].type", 4, "none of Hostname, URI");
    refused(&policy(target, &format!("{fine}, subjectAltNames: [{{type: URI, uri: nothing}}]")), 1, "spec.validation.subjectAltNames[0].uri", 4, "is no URI");
    refused(&policy(target, &format!("{fine}, subjectAltNames: [{{type: URI, hostname: a.test}}]")), 1, "spec.validation.subjectAltNames[0].uri", 4, "is required");
    refused(&policy(target, fine).replace("validation", "options: {a: b}, validation"), 1, "spec.options", 4, "not supported");
    let map = |ca: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c}}\ndata:\n  ca.crt: {ca}\n");
    refused(&map("hello"), 1, "data.ca.crt", 5, "no certificate in PEM");
    refused(&map("\"-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----\\n\""), 1, "data.ca.crt", 5, "certificate 1 is no root");
}

#[test]
fn leaves_config_maps_without_a_ca_alone() {
    let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n";
    let parsed = parse(&sources(text), "default");
    assert_eq!((parsed.resources.len(), parsed.problems.len()), (0, 0));
    let [skipped] = &parsed.skipped[..] else {
        panic!("{parsed:?}");
    };
    assert!(skipped.reason.contains("without ca.crt"), "{skipped}");
}

/// Parses a document, and what it is given back as.
fn gives_back(text: &str) {
    let parsed = parse(&sources(text), "default");
    assert_eq!(parsed.problems, [], "{text}");
    let [(_, resource)] = &parsed.resources[..] else {
        panic!("{text}");
    };
    let again = from_stored(&resource.to_json().to_string());
    assert_eq!(again.as_ref(), Ok(resource));
}

/// Every field that there is.
#[test]
fn gives_back_every_route() {
    let http = route(
        "parentRefs: [{group: '', kind: Service, name: orders, namespace: bank, port: 80}]
hostnames: [a.test, '*.b.test']
rules:
- name: one
  matches:
  - path: {type: PathPrefix, value: /a}
    method: GET
    headers: [{name: X, value: y}, {type: RegularExpression, name: z, value: 'a|b'}]
    queryParams: [{name: q, value: v}, {type: RegularExpression, name: Q, value: 'a|b'}]
  filters:
  - type: RequestHeaderModifier
    requestHeaderModifier: {set: [{name: a, value: b}], add: [{name: c, value: d}], remove: [e]}
  - type: ResponseHeaderModifier
    responseHeaderModifier: {set: [{name: a, value: b}]}
  - type: URLRewrite
    urlRewrite: {hostname: c.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}
  - type: RequestMirror
    requestMirror: {backendRef: {name: m, port: 80}, percent: 10}
  - type: RequestMirror
    requestMirror: {backendRef: {name: m, namespace: x, port: 80}, fraction: {numerator: 1, denominator: 3}}
  - type: CORS
    cors: {allowOrigins: ['https://*.a.test:8443'], allowCredentials: true, allowMethods: [GET, PUT], allowHeaders: ['*'], exposeHeaders: [x], maxAge: 9}
  backendRefs: [{name: v1, port: 80, weight: 0, filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /x}}}]}]
  timeouts: {request: 1m30s, backendRequest: 500ms}
  retry: {codes: [500, 503], attempts: 3, backoff: 100ms}
  sessionPersistence: {sessionName: s, absoluteTimeout: 1h, idleTimeout: 10m, cookieConfig: {lifetimeType: Permanent}}
- filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: d.test, port: 8443, statusCode: 308, path: {type: ReplaceFullPath, replaceFullPath: /y}}}]
  sessionPersistence: {type: Header}",
    );
    let of = |kind: &str, spec: &str| {
        let text = format!("parentRefs: [{{group: '', kind: Service, name: orders}}]\n{spec}");
        route(&text).replace("HTTPRoute", kind)
    };
    let backends = "backendRefs: [{name: v1, port: 80, weight: 9}, {name: v2, port: 80}]";
    let grpc = of(
        "GRPCRoute",
        &format!(
            "rules: [{{matches: [{{method: {{service: a.B, method: C}}, headers: [{{name: x, value: y}}]}}, {{method: {{type: RegularExpression, method: '[a-c]'}}}}, {{}}], {backends}}}]"
        ),
    );
    let tls = of(
        "TLSRoute",
        &format!("hostnames: ['*.a.test']\nrules: [{{name: r, {backends}}}]"),
    );
    let tcp = of("TCPRoute", &format!("rules: [{{{backends}}}]"));
    for text in [&http, &grpc, &tls, &tcp] {
        gives_back(text);
    }
    // What was given back says all that was written: a field that is lost on both ways would be
    // lost in silence.
    let document = parse(&sources(&http), "default")
        .resources
        .remove(0)
        .1
        .to_json();
    let rule = &document["spec"]["rules"][0];
    let filters = rule["filters"].as_array().unwrap();
    assert_eq!(filters.len(), 6);
    assert_eq!(
        filters[3]["requestMirror"]["fraction"],
        serde_json::json!({"numerator": 10, "denominator": 100})
    );
    assert_eq!(rule["retry"]["codes"], serde_json::json!([500, 503]));
    assert_eq!(rule["timeouts"]["request"], "1m30s");
    assert_eq!(
        rule["sessionPersistence"]["cookieConfig"]["lifetimeType"],
        "Permanent"
    );
    assert_eq!(document["spec"]["hostnames"][1], "*.b.test");
}

#[test]
fn gives_back_every_policy() {
    let grant = "apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: g}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: a}]
  to: [{group: '', kind: Service}, {group: '', kind: Service, name: s}]
";
    let policy = "apiVersion: weft.dev/v1alpha1
kind: OutboundPolicy
metadata: {name: p, namespace: weft-system}
spec:
  targetRefs: [{group: weft.dev, kind: Mesh, name: weft}, {group: '', kind: Namespace, name: weft-system}]
  unknownDestinations: Refuse
";
    let backend_tls = "apiVersion: gateway.networking.k8s.io/v1alpha3
kind: BackendTLSPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: '', kind: Service, name: a, sectionName: b}, {group: '', kind: Service, name: c}]
  validation:
    hostname: a.test
    caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]
    subjectAltNames: [{type: Hostname, hostname: '*.a.test'}, {type: URI, uri: 'spiffe://a/b'}]
";
    let traffic = "apiVersion: weft.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: '', kind: Service, name: a, sectionName: b}]
  loadBalancing: {algorithm: ConsistentHash, hashKey: {type: Cookie, name: user}, slowStart: 30s}
  outlierDetection: {consecutiveFailures: 3, interval: 2s, successRateDeviations: 1.9, latencyFactor: 3, ejectionTime: 10s, maxEjectionTime: 5m, maxEjectedPercent: 30}
  circuitBreaker: {maxConnections: 10, maxRequests: 20, maxPendingRequests: 0, queueTimeout: 500ms}
  healthCheck: {type: HTTP, http: {path: /healthz, host: a.test, expectedStatuses: [200, 204]}, interval: 5s, timeout: 1s, unhealthyThreshold: 2, healthyThreshold: 3}
  hedging: {percentile: 90, minDelay: 5ms}
";
    let faults = "apiVersion: weft.dev/v1alpha1
kind: FaultInjectionPolicy
metadata: {name: p}
spec:
  targetRefs:
  - {group: '', kind: Service, name: a, sectionName: b}
  - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: c, sectionName: d}
  - {group: gateway.networking.k8s.io, kind: GRPCRoute, name: c}
  faults:
  - match: {path: {type: Exact, value: /a}, method: PUT, headers: [{type: Exact, name: b, value: c}]}
    delay: {percent: 12.5, duration: 2s}
  - abort: {percent: 100.0, grpcStatus: 14}
";
    let inbound = "apiVersion: weft.dev/v1alpha1
kind: InboundPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: '', kind: Service, name: a}]
  concurrency: {mode: Enforce, min: 2, max: 50, maxPendingRequests: 10, queueTimeout: 100ms}
  priorities:
  - {priority: High, callers: [{namespace: shop, serviceAccount: web}], routes: [{kind: GRPCRoute, namespace: shop, name: r}]}
  rateLimits:
  - {name: all, requests: 100, interval: 1m, burst: 20, key: [{type: Caller}, {type: Header, name: tenant}], match: {path: {type: PathPrefix, value: /a}}}
  globalRateLimit:
    backendRef: {name: limits, port: 8081}
    domain: shop
    timeout: 50ms
    failureMode: Deny
    descriptors:
    - entries: [{key: kind, value: read}, {key: caller, valueFrom: {type: Caller}}]
";
    let budget = "apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackendTrafficPolicy
metadata: {name: p}
spec:
  targetRefs: [{group: '', kind: Service, name: a}]
  retryConstraint: {budget: {percent: 10, interval: 10s}, minRetryRate: {count: 3, interval: 1s}}
  sessionPersistence: {sessionName: cart, absoluteTimeout: 1h, idleTimeout: 10m, cookieConfig: {lifetimeType: Permanent}}
";
    let ca = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap();
    let ca = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca"},
        "data": {"ca.crt": ca.cert.pem()},
    });
    let ca = ca.to_string();
    for text in [
        grant,
        policy,
        backend_tls,
        &ca,
        traffic,
        budget,
        faults,
        inbound,
    ] {
        gives_back(text);
    }
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
