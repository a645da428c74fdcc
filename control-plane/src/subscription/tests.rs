//! The state without a network: what is compiled again, and what it costs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tokio::time::Instant;

use super::state::State;
use super::topics::{SessionId, publish};
use super::{Content, Encode, Hello, Outgoing, Rejection};
use crate::compile::tests::{documents, workload};
use crate::compile::{Mesh, Name, ServiceName, ServicePort, compile};
use crate::resource::{Key, Resource};

/// What goes over the wire is another room's; here only whether it is the same counts.
const ENCODE: Encode = Encode {
    whole: |configuration| format!("{configuration:?}").into(),
    change: |change| format!("{change:?}").into(),
};

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
        takes_changes: true,
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
        names.push(Name::Route {
            of: service.port(80),
            client: "shop".into(),
        });
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
            let _ = state.attach(hello(WORKLOADS[*index]), ENCODE);
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
        let observer = state.attach(hello("observer x 10.9.9.9"), ENCODE).unwrap();
        state.subscribe(observer, names(), ENCODE).unwrap();
        for event in events {
            happen(&mut state, &resources, &event);
            state.refresh(ENCODE);
            for name in names() {
                let incremental = state.topics.get(&name).unwrap().published.clone();
                let full = publish(&name, compile(&state.mesh, &name), ENCODE);
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
        let id = state.attach(hello(&text), ENCODE).unwrap();
        let names = (0..10).map(|next| {
            let service = format!("shop/s{}:80", (index + next) % PROXIES);
            Name::Cluster(ServicePort::parse(&service).unwrap())
        });
        state.subscribe(id, names.collect(), ENCODE).unwrap();
        sessions.push(id);
    }
    state.refresh(ENCODE);
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
        state.refresh(ENCODE);
    }
    let took = start.elapsed();
    // 500 changes of each, at 50 a second, are ten seconds' worth. A debug build needs half a second;
    // the limit leaves room for a busy machine, and none for work on every service or proxy.
    assert!(took < Duration::from_secs(10), "1000 changes took {took:?}");
    let mut pushed = 0;
    for id in sessions {
        if let Ok(Some(Outgoing::Push { resources, .. })) = state.next(id, ENCODE) {
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
    let returning = state.attach(returning, ENCODE).unwrap();
    let fresh = state.attach(hello("i-8 x 10.9.9.8"), ENCODE).unwrap();
    let a = Name::Service(ServiceName::new("shop", "a"));
    state
        .subscribe(fresh, vec![cluster("a"), a], ENCODE)
        .unwrap();
    state.attach(hello(WORKLOADS[0]), ENCODE).unwrap();
    let pushed = |state: &mut State, id| match state.next(id, ENCODE) {
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
    state.refresh(ENCODE);
    assert_eq!(pushed(&mut state, fresh), "cluster shop/a:80");
    assert_eq!(pushed(&mut state, returning), "Ok(None)");
    state.settling_until = Some(Instant::now());
    state.settle(Instant::now());
    assert_eq!(pushed(&mut state, returning), "cluster shop/a:80");
}

/// A service of many endpoints, and a proxy that holds all of them.
fn large_cluster(takes_changes: bool) -> (State, SessionId, Name) {
    const ENDPOINTS: usize = 10_000;
    let mut state = state();
    for resource in documents(
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: a}, ports: [{port: 80, targetPort: 8080}]}}",
    ) {
        state.set_document(&resource.key(), Some(&resource), 1);
    }
    for index in 0..ENDPOINTS {
        let ip = format!("10.1.{}.{}", index / 250, index % 250);
        let workload = workload(&format!("i-{index} a {ip} 8080"));
        state.mesh.workloads.insert(workload);
    }
    let observer = Hello {
        takes_changes,
        ..hello("observer x 10.9.9.9")
    };
    let observer = state.attach(observer, ENCODE).unwrap();
    let name = Name::Cluster(ServiceName::new("shop", "a").port(80));
    state
        .subscribe(observer, vec![name.clone()], ENCODE)
        .unwrap();
    (state, observer, name)
}

/// The next push: whether it is a change, and whether it is much. It is acknowledged, or not taken.
fn pushed(state: &mut State, id: SessionId, rejected: Option<bool>) -> String {
    let Ok(Some(Outgoing::Push { nonce, resources })) = state.next(id, ENCODE) else {
        return "nothing".to_owned();
    };
    let [resource] = &resources[..] else {
        panic!("{} resources", resources.len());
    };
    let rejection = rejected.map(|whole_wanted| Rejection {
        name: resource.name.clone(),
        whole_wanted,
        field: String::new(),
        reason: String::new(),
    });
    let took = state
        .acknowledge(id, nonce, rejection.into_iter().collect())
        .unwrap();
    let kind = match resource.content {
        Content::Whole(_) => "whole",
        Content::Change { .. } => "change",
    };
    let is_sent_again = rejected == Some(true) && kind == "change";
    assert_eq!(took.is_empty(), is_sent_again);
    let amount = match resource.content.len() {
        0..1000 => "little",
        _ => "much",
    };
    format!("{kind}, {amount}")
}

fn drain(state: &mut State, instance: &str) {
    let mut changed = state.mesh.workloads.get(instance).unwrap().as_ref().clone();
    changed.draining = !changed.draining;
    let changed = Arc::new(changed);
    let affected = state.mesh.catalog.touched_by(&changed);
    state.mesh.workloads.insert(changed);
    state.topics.touch(&affected, 0);
    state.refresh(ENCODE);
}

#[test]
fn one_of_many_endpoints_is_little_to_send() {
    let (mut state, id, name) = large_cluster(true);
    assert_eq!(pushed(&mut state, id, None), "whole, much");
    drain(&mut state, "i-7");
    assert_eq!(pushed(&mut state, id, None), "change, little");
    drain(&mut state, "i-7");
    drain(&mut state, "i-8");
    assert_eq!(pushed(&mut state, id, None), "change, little");
    assert_eq!(pushed(&mut state, id, None), "nothing");
    // What it refused it doesn't hold: the next change is made from what it took last.
    drain(&mut state, "i-9");
    assert_eq!(pushed(&mut state, id, Some(false)), "change, little");
    assert_eq!(pushed(&mut state, id, None), "nothing");
    let base = state.sessions[&id].subscribed[&name].base.clone().unwrap();
    drain(&mut state, "i-10");
    match state.next(id, ENCODE) {
        Ok(Some(Outgoing::Push { nonce, resources })) => {
            let Content::Change { base: from, change } = &resources[0].content else {
                panic!("{resources:?}");
            };
            assert_eq!(*from, base.version);
            let change = String::from_utf8_lossy(change);
            assert!(change.contains("i-9:8080") && change.contains("i-10:8080"));
            state.acknowledge(id, nonce, Vec::new()).unwrap();
        }
        other => panic!("{other:?}"),
    }
    // It can't apply one: it gets all, at once and without being asked again.
    drain(&mut state, "i-11");
    assert_eq!(pushed(&mut state, id, Some(true)), "change, little");
    assert_eq!(pushed(&mut state, id, Some(true)), "whole, much");
    assert_eq!(pushed(&mut state, id, None), "nothing");
    assert!(state.sessions[&id].subscribed[&name].rejected.is_some());
    drain(&mut state, "i-11");
    assert_eq!(pushed(&mut state, id, None), "whole, much");
    drain(&mut state, "i-12");
    assert_eq!(pushed(&mut state, id, None), "change, little");
    // It forgot what it had.
    state.unsubscribe(id, std::slice::from_ref(&name));
    state.subscribe(id, vec![name], ENCODE).unwrap();
    assert_eq!(pushed(&mut state, id, None), "whole, much");
}

#[test]
fn a_proxy_that_knows_no_changes_gets_all() {
    let (mut state, id, _) = large_cluster(false);
    assert_eq!(pushed(&mut state, id, None), "whole, much");
    drain(&mut state, "i-7");
    assert_eq!(pushed(&mut state, id, None), "whole, much");
}

#[test]
fn a_proxy_that_comes_back_gets_changes_of_what_it_says_it_holds() {
    let (mut state, id, name) = large_cluster(true);
    assert_eq!(pushed(&mut state, id, None), "whole, much");
    let version = state
        .topics
        .get(&name)
        .unwrap()
        .published
        .clone()
        .unwrap()
        .version;
    let returning = |state: &mut State, version: &str| {
        let returning = Hello {
            known: vec![(name.clone(), version.into())],
            ..hello("observer x 10.9.9.9")
        };
        state.attach(returning, ENCODE).unwrap()
    };
    let id = returning(&mut state, &version);
    assert_eq!(pushed(&mut state, id, None), "nothing");
    drain(&mut state, "i-7");
    assert_eq!(pushed(&mut state, id, None), "change, little");
    // It was away while another endpoint changed, and nobody knows what it holds.
    let id = returning(&mut state, &version);
    assert_eq!(pushed(&mut state, id, None), "whole, much");
}

#[test]
fn a_cluster_that_is_another_in_more_than_endpoints_is_sent_whole() {
    let (mut state, id, _) = large_cluster(true);
    assert_eq!(pushed(&mut state, id, None), "whole, much");
    for resource in documents(
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: a}, ports: [{port: 80, targetPort: 8080, appProtocol: tcp}]}}",
    ) {
        state.set_document(&resource.key(), Some(&resource), 2);
    }
    state.refresh(ENCODE);
    assert_eq!(pushed(&mut state, id, None), "whole, much");
    // Where nearly all changes, the change would be no less than the whole.
    for resource in documents(
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selector: {app: x}, ports: [{port: 80, targetPort: 8080, appProtocol: tcp}]}}",
    ) {
        state.set_document(&resource.key(), Some(&resource), 3);
    }
    state.refresh(ENCODE);
    assert_eq!(pushed(&mut state, id, None), "whole, little");
}
