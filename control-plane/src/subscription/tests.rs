//! The state without a network: what is compiled again, and what it costs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use proptest::prelude::*;
use tokio::time::Instant;

use super::state::State;
use super::topics::publish;
use super::{Hello, Outgoing};
use crate::compile::tests::{documents, workload};
use crate::compile::{Configuration, Mesh, Name, ServiceName, ServicePort, compile};
use crate::resource::{Key, Resource};

/// What goes over the wire is another room's; here only whether it is the same counts.
fn encode(configuration: &Configuration) -> Bytes {
    format!("{configuration:?}").into()
}

fn state() -> State {
    let mesh = Mesh {
        trust_domain: "weft.local".to_owned(),
        ..Mesh::default()
    };
    let mut state = State::new(mesh, Instant::now());
    state.settling_until = None;
    state
}

fn hello(text: &str) -> Hello {
    Hello {
        workload: workload(text).as_ref().clone(),
        proxy_version: String::new(),
        known: Vec::new(),
        certificate_not_after: SystemTime::now(),
    }
}

/// One thing that happens to the mesh.
#[derive(Clone, Debug)]
enum Event {
    Set(usize),
    Delete(usize),
    Attach(usize),
    Detach(usize),
}

/// Documents of three services in every shape that refers to another.
fn all_documents() -> Vec<Resource> {
    documents(
        "
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: a}, ports: [{port: 80, targetPort: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: b}, spec: {clusterIP: None, selector: {app: b}, ports: [{port: 80, targetPort: web}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: c}, spec: {ports: [{port: 80}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: ab}, spec: {selector: {app: a}, ports: [{port: 80, targetPort: old, appProtocol: http}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: c-1, labels: {kubernetes.io/service-name: c}}, addressType: IPv4, ports: [{port: 8080}], endpoints: [{addresses: [10.0.0.1]}, {addresses: [192.0.2.1]}]}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r}, spec: {parentRefs: [{group: '', kind: Service, name: a}], rules: [{backendRefs: [{name: b, port: 80}, {name: c, port: 80}]}]}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: s}, spec: {parentRefs: [{group: '', kind: Service, name: a}, {group: '', kind: Service, name: c}], rules: [{backendRefs: [{name: ab, port: 80}]}]}}
",
    )
}

/// The same keys with other content: another selector, other ports, other parents.
fn other_documents() -> Vec<Resource> {
    documents(
        "
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: b}, ports: [{port: 80, targetPort: 8081}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: ab}, spec: {type: ExternalName, externalName: b.example}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: c-1, labels: {kubernetes.io/service-name: a}}, addressType: IPv4, ports: [{port: 8081}], endpoints: [{addresses: [10.0.0.2]}]}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: r}, spec: {parentRefs: [{group: '', kind: Service, name: c}], rules: [{backendRefs: [{name: a, port: 80}]}]}}
",
    )
}

const WORKLOADS: [&str; 6] = [
    "i-1 a 10.0.0.1 8080",
    "i-1 b 10.0.0.1 8080 8081",
    "i-2 b 10.0.0.2 8080",
    "i-2 b 10.0.0.2 8081",
    "i-3 a 10.0.0.1 8081",
    "i-4 a 127.0.0.1",
];

fn names() -> Vec<Name> {
    let mut names = Vec::new();
    for service in ["a", "b", "c", "ab"] {
        let service = ServiceName::new("shop", service);
        names.push(Name::Route(service.port(80)));
        names.push(Name::Cluster(service.port(80)));
        names.push(Name::Service(service));
    }
    for address in [
        "10.0.0.1:8080",
        "10.0.0.1:8081",
        "10.0.0.2:8080",
        "10.0.0.2:8081",
    ] {
        names.push(Name::Address(address.parse().unwrap()));
    }
    for instance in ["i-1", "i-2", "i-3", "i-4"] {
        names.push(Name::Inbound(instance.into()));
    }
    names
}

fn happen(state: &mut State, resources: &[Resource], event: &Event) {
    match event {
        Event::Set(index) => {
            let resource = &resources[*index];
            state.set_document(&resource.key(), Some(resource), 1);
        }
        Event::Delete(index) => state.set_document(&resources[*index].key(), None, 1),
        Event::Attach(index) => {
            // Another identity of the same instance is refused, which is nothing to compile.
            let _ = state.attach(hello(WORKLOADS[*index]), encode);
        }
        Event::Detach(index) => {
            let instance = WORKLOADS[*index].split(' ').next().unwrap();
            if let Some(id) = state.by_instance.get(instance).copied() {
                state.detach(id);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_a_change_touches_is_all_that_it_changes(
        events in proptest::collection::vec(
            prop_oneof![
                (0..11_usize).prop_map(Event::Set),
                (0..11_usize).prop_map(Event::Delete),
                (0..6_usize).prop_map(Event::Attach),
                (0..6_usize).prop_map(Event::Detach),
            ],
            1..30,
        )
    ) {
        let resources: Vec<_> = all_documents().into_iter().chain(other_documents()).collect();
        let mut state = state();
        let observer = state.attach(hello("observer x 10.9.9.9"), encode).unwrap();
        state.subscribe(observer, names(), encode).unwrap();
        for event in events {
            happen(&mut state, &resources, &event);
            state.refresh(encode);
            for name in names() {
                let incremental = state.topics.get(&name).unwrap().published.clone();
                let full = publish(&name, compile(&state.mesh, &name), encode);
                // What DNS has not answered yet stays what it was.
                if full.is_some() {
                    prop_assert_eq!(incremental, full, "{} after {:?}", name, event);
                }
            }
        }
    }
}

/// Ten thousand services and a thousand proxies that use ten each: a change costs what it touches.
#[test]
fn the_cost_of_a_change_does_not_grow_with_the_mesh() {
    const SERVICES: usize = 10_000;
    const PROXIES: usize = 1_000;
    let template = documents(
        "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {selector: {app: s}, ports: [{port: 80, targetPort: 8080}]}}",
    );
    let Resource::Service(template) = &template[0] else {
        panic!("not a service");
    };
    let mut state = state();
    let service = |index: usize, port: u16| {
        let mut service = template.clone();
        service.metadata.name = format!("s{index}");
        service
            .spec
            .selector
            .insert("app".to_owned(), format!("s{index}"));
        service.spec.ports[0].port = port;
        Resource::Service(service)
    };
    for index in 0..SERVICES {
        let resource = service(index, 80);
        state.set_document(&resource.key(), Some(&resource), 1);
    }
    let mut sessions = Vec::new();
    for index in 0..PROXIES {
        let text = format!(
            "i-{index} s{index} 10.{}.{}.1 8080",
            index / 250,
            index % 250
        );
        let id = state.attach(hello(&text), encode).unwrap();
        let names = (0..10).map(|next| {
            let service = format!("shop/s{}:80", (index + next) % PROXIES);
            Name::Cluster(ServicePort::parse(&service).unwrap())
        });
        state.subscribe(id, names.collect(), encode).unwrap();
        sessions.push(id);
    }
    state.refresh(encode);
    let start = Instant::now();
    for round in 0..500 {
        let workload = Arc::from(format!("i-{}", round % PROXIES));
        let id = state.by_instance[&workload];
        state.change_workload(id, |workload| workload.draining = !workload.draining);
        let key = Key::new(
            crate::resource::Kind::Service,
            "shop",
            format!("s{}", SERVICES - 1 - round),
        );
        let resource = service(SERVICES - 1 - round, 81);
        state.set_document(&key, Some(&resource), 2);
        state.refresh(encode);
    }
    let took = start.elapsed();
    // 500 changes of each, at 50 a second, are ten seconds' worth. A debug build needs half a second;
    // the limit leaves room for a busy machine, and none for work on every service or proxy.
    assert!(took < Duration::from_secs(10), "1000 changes took {took:?}");
    let mut pushed = 0;
    for id in sessions {
        if let Ok(Some(Outgoing::Push { resources, .. })) = state.next(id) {
            pushed += resources.len();
        }
    }
    assert_eq!(pushed, PROXIES * 10);
}

#[test]
fn endpoints_are_held_back_until_it_settled() {
    let mut state = state();
    state.settling_until = Some(Instant::now() + Duration::from_secs(3600));
    for resource in all_documents() {
        state.set_document(&resource.key(), Some(&resource), 1);
    }
    let cluster = |service: &str| Name::Cluster(ServiceName::new("shop", service).port(80));
    let mut returning = hello("i-9 x 10.9.9.9");
    returning.known = vec![
        (cluster("a"), "version".into()),
        (cluster("gone"), "version".into()),
    ];
    let returning = state.attach(returning, encode).unwrap();
    let fresh = state.attach(hello("i-8 x 10.9.9.8"), encode).unwrap();
    let a = Name::Service(ServiceName::new("shop", "a"));
    state
        .subscribe(fresh, vec![cluster("a"), a], encode)
        .unwrap();
    state.attach(hello(WORKLOADS[0]), encode).unwrap();
    let pushed = |state: &mut State, id| match state.next(id) {
        Ok(Some(Outgoing::Push { resources, nonce })) => {
            state.acknowledge(id, nonce, Vec::new()).unwrap();
            let names = resources.iter().map(|resource| resource.name.to_string());
            names.collect::<Vec<_>>().join(", ")
        }
        other => format!("{other:?}"),
    };
    // Who held endpoints keeps them; what is gone for good is said at once.
    assert_eq!(pushed(&mut state, returning), "cluster shop/gone:80");
    // Who has none gets the first that come, and not the knowledge that there are none.
    assert_eq!(pushed(&mut state, fresh), "service shop/a");
    state.refresh(encode);
    assert_eq!(pushed(&mut state, fresh), "cluster shop/a:80");
    assert_eq!(pushed(&mut state, returning), "Ok(None)");
    state.settling_until = Some(Instant::now());
    state.settle(Instant::now());
    assert_eq!(pushed(&mut state, returning), "cluster shop/a:80");
}
