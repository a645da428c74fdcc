//! Policies: what they are for, which of several is in force, and what their status says.

use super::*;

/// Services `pay` (443 for TLS, 80) and `mail` of `shop`, and a ConfigMap `ca`.
fn services() -> String {
    let ca = rcgen::generate_simple_self_signed(["ca.test".to_owned()]).unwrap();
    let pem: String = ca
        .cert
        .pem()
        .lines()
        .map(|line| format!("    {line}\n"))
        .collect();
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: pay}}
spec:
  ports: [{{name: https, port: 443, appProtocol: https}}, {{name: http, port: 80, appProtocol: http}}]
---
apiVersion: v1
kind: Service
metadata: {{name: mail}}
spec: {{ports: [{{port: 25}}]}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: ca}}
data:
  other: text
  ca.crt: |
{pem}
---
"
    )
}

fn tls_policy(name: &str, targets: &str, validation: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: {name}}}
spec:
  targetRefs: [{targets}]
  validation: {{hostname: {name}.test, {validation}}}
---
"
    )
}

const PAY: &str = "{group: '', kind: Service, name: pay}";
const PAY_HTTPS: &str = "{group: '', kind: Service, name: pay, sectionName: https}";
const CA: &str = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";
const SYSTEM: &str = "wellKnownCACertificates: System";

#[test]
fn every_reason_of_a_backend_tls_policys_status() {
    let services = services();
    let check = |targets: &str, validation: &str, expect: &str| {
        let text = format!("{services}{}", tls_policy("p", targets, validation));
        let mesh = mesh(&text, &[]);
        let key = Key::new(Kind::BackendTlsPolicy, "shop", "p");
        let status = status(&mesh.catalog, &key).unwrap().remove(0);
        let conditions: Vec<String> = status.conditions.iter().map(shown).collect();
        assert_eq!(conditions.join(" "), expect, "{targets} {validation}");
    };
    let resolved = "ResolvedRefs=true ResolvedRefs";
    let fine = format!("Accepted=true Accepted {resolved}");
    check(PAY, CA, &fine);
    check(PAY_HTTPS, SYSTEM, &fine);
    let nobody = format!("Accepted=false TargetNotFound {resolved}");
    check("{group: '', kind: Service, name: gone}", CA, &nobody);
    check(
        "{group: '', kind: Service, name: pay, sectionName: x}",
        CA,
        &nobody,
    );
    check(
        PAY,
        "caCertificateRefs: [{group: '', kind: ConfigMap, name: gone}]",
        "Accepted=false NoValidCACertificate ResolvedRefs=false InvalidCACertificateRef",
    );
    check(
        PAY,
        "caCertificateRefs: [{group: '', kind: Secret, name: ca}]",
        "Accepted=false NoValidCACertificate ResolvedRefs=false InvalidKind",
    );
    check(
        PAY,
        "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}, {group: '', kind: Secret, name: ca}]",
        "Accepted=true Accepted ResolvedRefs=false InvalidKind",
    );
}

#[test]
fn the_policy_in_force_on_a_port() {
    let services = services();
    let check = |policies: &[String], port: &str, expect: &str| {
        let mesh = mesh(&format!("{services}{}", policies.concat()), &[]);
        let cluster = cluster(&mesh, port).unwrap();
        let tls = cluster.tls.map_or("none".to_owned(), |tls| {
            let invalid = if tls.invalid.is_some() {
                " invalid"
            } else {
                ""
            };
            format!("{} {}{invalid}", tls.policy, tls.roots.len())
        });
        let protocol = cluster
            .protocol
            .map_or("any".to_owned(), |named| format!("{named:?}"));
        assert_eq!(format!("{tls} {protocol}"), expect, "{port}");
        assert_eq!(route(&mesh, port).unwrap().protocol, cluster.protocol);
    };
    let whole = tls_policy("whole", PAY, CA);
    let younger = tls_policy("a-younger", PAY, CA);
    let port = tls_policy("port", PAY_HTTPS, SYSTEM);
    let broken = tls_policy(
        "broken",
        PAY,
        "caCertificateRefs: [{group: '', kind: Secret, name: ca}]",
    );
    check(&[], "shop/pay:443", "none Tls");
    let all = [whole.clone(), younger, port];
    check(&all, "shop/pay:443", "BackendTLSPolicy/shop/port 0 any");
    check(&all, "shop/pay:80", "BackendTLSPolicy/shop/whole 1 Http1");
    check(&all, "shop/mail:25", "none any");
    check(
        &[broken],
        "shop/pay:80",
        "BackendTLSPolicy/shop/broken 0 invalid Http1",
    );

    let mesh = mesh(&format!("{services}{}", all.concat()), &[]);
    let conditions = |name: &str| {
        let key = Key::new(Kind::BackendTlsPolicy, "shop", name);
        shown(&status(&mesh.catalog, &key).unwrap()[0].conditions[0])
    };
    assert_eq!(conditions("whole"), "Accepted=true Accepted");
    assert_eq!(conditions("port"), "Accepted=true Accepted");
    assert_eq!(conditions("a-younger"), "Accepted=false Conflicted");
}

#[test]
fn a_port_of_tls_is_a_backend_of_http_only_by_a_policy() {
    let route_to_pay = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec:
  parentRefs: [{group: '', kind: Service, name: mail}]
  rules: [{backendRefs: [{name: pay, port: 443}]}]
---
";
    let mut mesh = mesh(&format!("{}{route_to_pay}", services()), &[]);
    let invalid = |mesh: &Mesh| {
        let route = route(mesh, "shop/mail:25").unwrap();
        route.rules[0].backends[0].invalid.clone()
    };
    assert_eq!(invalid(&mesh).as_deref(), Some("UnsupportedProtocol"));
    let policy = documents(&tls_policy("p", PAY, CA)).remove(0);
    let affected = mesh
        .catalog
        .set(&policy.key(), Some(&policy), &mesh.workloads);
    let services: Vec<String> = affected.services.iter().map(ToString::to_string).collect();
    assert_eq!(services, ["shop/mail", "shop/pay"]);
    let statuses: Vec<String> = affected.statuses.iter().map(ToString::to_string).collect();
    assert_eq!(statuses, ["HTTPRoute/shop/r", "BackendTLSPolicy/shop/p"]);
    assert_eq!(invalid(&mesh), None);

    let ca = Key::new(Kind::ConfigMap, "shop", "ca");
    let affected = mesh.catalog.set(&ca, None, &mesh.workloads);
    let services: Vec<String> = affected.services.iter().map(ToString::to_string).collect();
    assert_eq!(
        (services.join(" "), affected.statuses.len()),
        ("shop/pay".to_owned(), 1)
    );
    assert!(
        cluster(&mesh, "shop/pay:80")
            .unwrap()
            .tls
            .unwrap()
            .invalid
            .is_some()
    );
}

#[test]
fn unknown_destinations_by_namespace_and_mesh() {
    let policy = |name: &str, target: &str, choice: &str| {
        let (namespace, _) = name.split_once('/').unwrap();
        let target = match target {
            "mesh" => "group: weft.dev, kind: Mesh, name: weft".to_owned(),
            _ => format!("group: '', kind: Namespace, name: {namespace}"),
        };
        let name = &name[namespace.len() + 1..];
        format!(
            "
apiVersion: weft.dev/v1alpha1
kind: OutboundPolicy
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{targetRefs: [{{{target}}}], unknownDestinations: {choice}}}
---
"
        )
    };
    let check = |policies: &[String], expect: &str| {
        let mesh = mesh(&policies.concat(), &["a orders 10.0.0.1 8080"]);
        let name = Name::Inbound("a".into());
        let Some(Configuration::Inbound(inbound)) = configuration(&mesh, &name) else {
            panic!("a is there");
        };
        let choice = inbound.unknown_destinations;
        let policy = inbound.outbound_policy.unwrap_or_default();
        assert_eq!(format!("{choice:?} {policy}"), expect);
    };
    let refuse = policy("weft-system/all", "mesh", "Refuse");
    let system = policy("weft-system/own", "namespace", "Refuse");
    let older = policy("shop/z", "namespace", "Pass");
    let younger = policy("shop/a", "namespace", "Refuse");
    let other = policy("bank/b", "namespace", "Refuse");
    check(&[], "None ");
    check(&[other, system], "None ");
    check(
        std::slice::from_ref(&refuse),
        "Some(Refuse) OutboundPolicy/weft-system/all",
    );
    check(
        &[refuse.clone(), older.clone(), younger.clone()],
        "Some(Pass) OutboundPolicy/shop/z",
    );

    let mut mesh = mesh(&[refuse, older, younger].concat(), &[]);
    let conditions = |mesh: &Mesh, namespace: &str, name: &str| {
        let key = Key::new(Kind::OutboundPolicy, namespace, name);
        let status = status(&mesh.catalog, &key).unwrap().remove(0);
        let conditions: Vec<String> = status.conditions.iter().map(shown).collect();
        format!("{} {}", status.subject.kind, conditions.join(" "))
    };
    assert_eq!(
        conditions(&mesh, "weft-system", "all"),
        "Mesh Accepted=true Accepted"
    );
    assert_eq!(
        conditions(&mesh, "shop", "z"),
        "Namespace Accepted=true Accepted"
    );
    assert_eq!(
        conditions(&mesh, "shop", "a"),
        "Namespace Accepted=false Conflicted"
    );
    let key = Key::new(Kind::OutboundPolicy, "shop", "z");
    let affected = mesh.catalog.set(&key, None, &mesh.workloads);
    assert_eq!(affected.statuses.len(), 2);
    assert_eq!(
        conditions(&mesh, "shop", "a"),
        "Namespace Accepted=true Accepted"
    );
    assert_eq!(status(&mesh.catalog, &key), None);
}

#[test]
fn a_policy_touches_the_workloads_it_may_be_for() {
    let mut mesh = mesh("", &["a orders 10.0.0.1 8080"]);
    let mut touched = |namespace: &str| {
        let text = format!(
            "apiVersion: weft.dev/v1alpha1\nkind: OutboundPolicy\nmetadata: {{name: p, namespace: {namespace}}}\nspec: {{targetRefs: [{{group: '', kind: Namespace, name: {namespace}}}], unknownDestinations: Pass}}\n"
        );
        let policy = documents(&text).remove(0);
        mesh.catalog
            .set(&policy.key(), Some(&policy), &mesh.workloads)
            .instances
            .len()
    };
    assert_eq!(
        [touched("shop"), touched("weft-system"), touched("bank")],
        [1, 1, 0]
    );
}

#[test]
fn policies_of_traffic_in_force_on_a_port() {
    let policy = |api: &str, name: &str, target: &str, spec: &str| {
        let (version, kind) = api.split_once(' ').unwrap();
        format!(
            "
apiVersion: {version}
kind: {kind}
metadata: {{name: {name}}}
spec: {{targetRefs: [{target}], {spec}}}
---
"
        )
    };
    let traffic = |name: &str, target: &str, percent: u32| {
        let spec = format!("outlierDetection: {{maxEjectedPercent: {percent}}}");
        policy("weft.dev/v1alpha1 TrafficPolicy", name, target, &spec)
    };
    let budget = policy(
        "gateway.networking.x-k8s.io/v1alpha1 XBackendTrafficPolicy",
        "budget",
        PAY,
        "retryConstraint: {budget: {percent: 5, interval: 20s}}, sessionPersistence: {type: Header}",
    );
    let text = [
        services(),
        traffic("whole", PAY, 10),
        traffic("a-younger", PAY, 20),
        traffic("port", PAY_HTTPS, 30),
        budget,
    ]
    .concat();
    let mut mesh = mesh(&text, &[]);
    let check = |mesh: &Mesh, port: &str, expect: &str| {
        let policy = cluster(mesh, port).unwrap().policy;
        let seen = policy.map_or("none".to_owned(), |policy| {
            let percent = policy.outliers.and_then(|one| one.ejected_percent_max);
            let budget = policy.retries.and_then(|one| one.percent);
            let session = policy.session.map(|(name, _)| name);
            let session = session.unwrap_or_default();
            format!(
                "{} {percent:?} {budget:?} {session}",
                policy.names.join(" ")
            )
        });
        assert_eq!(seen, expect, "{port}");
    };
    let budget = "XBackendTrafficPolicy/shop/budget";
    let whole = format!("TrafficPolicy/shop/whole {budget} Some(10) Some(5) weft-shop-pay");
    check(&mesh, "shop/pay:80", &whole);
    let port = format!("TrafficPolicy/shop/port {budget} Some(30) Some(5) weft-shop-pay");
    check(&mesh, "shop/pay:443", &port);
    check(&mesh, "shop/mail:25", "none");
    let conditions = |mesh: &Mesh, kind: Kind, name: &str| {
        let key = Key::new(kind, "shop", name);
        shown(&status(&mesh.catalog, &key).unwrap()[0].conditions[0])
    };
    let kind = Kind::TrafficPolicy;
    assert_eq!(conditions(&mesh, kind, "whole"), "Accepted=true Accepted");
    assert_eq!(
        conditions(&mesh, kind, "a-younger"),
        "Accepted=false Conflicted"
    );
    let budgets = Kind::BackendTrafficPolicy;
    assert_eq!(
        conditions(&mesh, budgets, "budget"),
        "Accepted=true Accepted"
    );

    let key = Key::new(kind, "shop", "whole");
    let affected = mesh.catalog.set(&key, None, &mesh.workloads);
    assert_eq!((affected.services.len(), affected.statuses.len()), (1, 3));
    let younger = format!("TrafficPolicy/shop/a-younger {budget} Some(20) Some(5) weft-shop-pay");
    check(&mesh, "shop/pay:80", &younger);
    let pay = Key::new(Kind::Service, "shop", "pay");
    let affected = mesh.catalog.set(&pay, None, &mesh.workloads);
    assert_eq!(affected.statuses.len(), 3);
    assert_eq!(
        conditions(&mesh, budgets, "budget"),
        "Accepted=false TargetNotFound"
    );
}

/// Two services with the same workloads on the same port.
const SELECTING: &str = "
{apiVersion: v1, kind: Service, metadata: {name: first}, spec: {selector: {app: orders}, ports: [{port: 80, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: second}, spec: {selector: {app: orders}, ports: [{port: 80, targetPort: 8080}]}}
---
";

/// Policies of what workloads take are told to them; those of faults, to their callers.
#[test]
fn inbound_policies_are_the_workloads_and_faults_the_callers() {
    let inbound = |name: &str, target: &str, requests: u32| {
        format!(
            "
apiVersion: weft.dev/v1alpha1
kind: InboundPolicy
metadata: {{name: {name}}}
spec: {{targetRefs: [{{group: '', kind: Service, name: {target}}}], rateLimits: [{{name: all, requests: {requests}, interval: 1s}}]}}
---
"
        )
    };
    let text = [
        SELECTING,
        &inbound("b", "first", 1),
        &inbound("a", "second", 2),
        "
apiVersion: weft.dev/v1alpha1
kind: FaultInjectionPolicy
metadata: {name: chaos}
spec: {targetRefs: [{group: '', kind: Service, name: first}], faults: [{abort: {httpStatus: 503}}]}
",
    ]
    .concat();
    let mut mesh = mesh(&text, &["i orders 10.0.0.1 8080"]);
    let limits = |mesh: &Mesh| {
        let name = Name::Inbound("i".into());
        let Some(Configuration::Inbound(inbound)) = configuration(mesh, &name) else {
            panic!("no inbound");
        };
        let port = |port: &InboundPort| {
            let policy = port.policy.as_ref();
            let requests = policy.map(|policy| policy.rate_limits[0].requests);
            (port.port, requests)
        };
        inbound.ports.iter().map(port).collect::<Vec<_>>()
    };
    assert_eq!(limits(&mesh), [(8080, Some(1))]);
    let key = Key::new(Kind::InboundPolicy, "shop", "b");
    let affected = mesh.catalog.set(&key, None, &mesh.workloads);
    assert_eq!(limits(&mesh), [(8080, Some(2))]);
    assert_eq!((affected.services.len(), affected.instances.len()), (0, 1));
    assert_eq!(status(&mesh.catalog, &key), None);

    let chaos = Key::new(Kind::FaultInjectionPolicy, "shop", "chaos");
    let entries = status(&mesh.catalog, &chaos).unwrap();
    assert_eq!(shown(&entries[0].conditions[0]), "Accepted=true Accepted");
    let policy = cluster(&mesh, "shop/first:80").unwrap().policy.unwrap();
    assert_eq!(policy.names, ["FaultInjectionPolicy/shop/chaos"]);
    let affected = mesh.catalog.set(&chaos, None, &mesh.workloads);
    assert_eq!((affected.services.len(), affected.instances.len()), (1, 0));
    assert_eq!(cluster(&mesh, "shop/first:80").unwrap().policy, None);
}

/// Which FaultInjectionPolicy acts on each rule of a route, and what is said of all of them.
#[test]
fn faults_of_routes_and_of_their_rules() {
    let chaos = |name: &str, section: &str| {
        let target =
            format!("group: gateway.networking.k8s.io, kind: HTTPRoute, name: orders{section}");
        format!(
            "
apiVersion: weft.dev/v1alpha1
kind: FaultInjectionPolicy
metadata: {{name: {name}}}
spec: {{targetRefs: [{{{target}}}], faults: [{{abort: {{httpStatus: 503}}}}]}}
---
"
        )
    };
    let text = [
        SELECTING,
        &chaos("whole", ""),
        &chaos("younger", ""),
        &chaos("reads", ", sectionName: reads"),
        &chaos("nothing", ", sectionName: writes"),
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: orders}
spec:
  parentRefs: [{group: '', kind: Service, name: first}]
  rules:
  - {name: reads, matches: [{method: GET}], backendRefs: [{name: first, port: 80}]}
  - {backendRefs: [{name: second, port: 80}]}
",
    ]
    .concat();
    let mut mesh = mesh(&text, &[]);
    let acting = |mesh: &Mesh| -> Vec<String> {
        let route = route(mesh, "shop/first:80").unwrap();
        let policy = |rule: &Rule| rule.faults.as_ref().map(|one| one.metadata.name.clone());
        let policies = route.rules.iter().map(policy);
        policies.map(Option::unwrap_or_default).collect()
    };
    let said = |mesh: &Mesh, name: &str| {
        let key = Key::new(Kind::FaultInjectionPolicy, "shop", name);
        let entries = status(&mesh.catalog, &key).unwrap();
        assert_eq!((entries[0].subject.kind, entries.len()), ("HTTPRoute", 1));
        shown(&entries[0].conditions[0])
    };
    assert_eq!(acting(&mesh), ["reads", "whole"]);
    assert_eq!(said(&mesh, "whole"), "Accepted=true Accepted");
    assert_eq!(said(&mesh, "younger"), "Accepted=false Conflicted");
    assert_eq!(said(&mesh, "reads"), "Accepted=true Accepted");
    assert_eq!(said(&mesh, "nothing"), "Accepted=false TargetNotFound");

    let key = Key::new(Kind::FaultInjectionPolicy, "shop", "whole");
    let affected = mesh.catalog.set(&key, None, &mesh.workloads);
    assert_eq!((affected.services.len(), affected.statuses.len()), (1, 4));
    assert_eq!(acting(&mesh), ["reads", "younger"]);
    let route = Key::new(Kind::HttpRoute, "shop", "orders");
    let affected = mesh.catalog.set(&route, None, &mesh.workloads);
    assert_eq!(affected.statuses.len(), 4, "the route and three policies");
    assert_eq!(said(&mesh, "younger"), "Accepted=false TargetNotFound");
}
