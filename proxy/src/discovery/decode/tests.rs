use proptest::prelude::*;
use weft_proto::v1alpha1::ResourceType;

use super::*;

fn endpoint() -> wire::Endpoint {
    wire::Endpoint {
        id: "one:9001".to_owned(),
        address: "10.0.0.1".to_owned(),
        port: 9001,
        weight: 1,
        sidecar: Some(wire::Sidecar {
            spiffe_id: "spiffe://weft.local/ns/shop/sa/stock".to_owned(),
            instance: "one".to_owned(),
            inbound_port: 4143,
        }),
        ..wire::Endpoint::default()
    }
}

fn other_endpoint() -> wire::Endpoint {
    wire::Endpoint {
        id: "two:9001".to_owned(),
        ..endpoint()
    }
}

fn cluster() -> wire::Cluster {
    wire::Cluster {
        name: "shop/stock:80".to_owned(),
        endpoints: vec![endpoint(), other_endpoint()],
        ..wire::Cluster::default()
    }
}

fn route(matches: wire::Match) -> wire::Route {
    let backend = wire::WeightedCluster {
        cluster: "shop/stock:80".to_owned(),
        weight: 1,
        ..wire::WeightedCluster::default()
    };
    let rule = wire::Rule {
        route: "HTTPRoute/shop/stock".to_owned(),
        r#match: Some(matches),
        backends: vec![backend],
        ..wire::Rule::default()
    };
    wire::Route {
        name: "shop/stock:80".to_owned(),
        rules: vec![rule],
        default_cluster: "shop/stock:80".to_owned(),
        ..wire::Route::default()
    }
}

fn of(kind: ResourceType, name: &str, body: &impl Message) -> Result<(Name, Decoded)> {
    decode(kind.into(), name, &body.encode_to_vec())
}

/// The field that is rejected, or nothing.
fn check(kind: ResourceType, body: &(impl Message + std::fmt::Debug), expect: &str) {
    let name = match kind {
        ResourceType::Service => "shop/stock",
        ResourceType::Address => "10.0.0.1:9001",
        ResourceType::Inbound => "self",
        ResourceType::TrustBundle => "weft.local",
        _ => "shop/stock:80",
    };
    let field = of(kind, name, body).err().map(|rejection| rejection.field);
    assert_eq!(field.unwrap_or_default(), expect, "{body:?}");
}

#[test]
fn names_and_types() {
    let check = |kind: i32, name: &str, expect: &str| {
        let field = decode(kind, name, &[])
            .err()
            .map(|rejection| rejection.field);
        assert_eq!(field.unwrap_or_default(), expect, "{kind} {name}");
    };
    check(0, "shop/stock", "type");
    check(99, "shop/stock", "type");
    check(ResourceType::Service.into(), "stock", "name");
    check(ResourceType::Address.into(), "10.0.0.1", "name");
    check(ResourceType::Route.into(), "shop/stock:0", "name");
    check(ResourceType::Inbound.into(), "other", "name");
    check(ResourceType::Inbound.into(), "self", "");
    let garbage = decode(ResourceType::Inbound.into(), "self", &[0xff; 9]).unwrap_err();
    assert_eq!(garbage.field, "");
}

#[test]
fn clusters() {
    let check = |change: &dyn Fn(&mut wire::Cluster), expect: &str| {
        let mut cluster = cluster();
        change(&mut cluster);
        check(ResourceType::Cluster, &cluster, expect);
    };
    check(&|_| {}, "");
    check(&|c| c.endpoints.clear(), "");
    check(&|c| c.endpoints[1].sidecar = None, "");
    check(&|c| c.name = "shop/other:80".to_owned(), "name");
    check(&|c| c.protocol = 9, "protocol");
    check(&|c| c.endpoints[1].id.clear(), "endpoints[1].id");
    check(&|c| c.endpoints[1] = endpoint(), "endpoints[1].id");
    check(
        &|c| c.endpoints[1].address = "host".to_owned(),
        "endpoints[1].address",
    );
    check(&|c| c.endpoints[0].port = 0, "endpoints[0].port");
    check(&|c| c.endpoints[0].port = 65536, "endpoints[0].port");
    check(
        &|c| c.endpoints[0].zone = "z".repeat(5000),
        "endpoints[0].zone",
    );
    let tls = |change: fn(&mut wire::BackendTls)| {
        move |c: &mut wire::Cluster| {
            let mut tls = wire::BackendTls {
                policy: "BackendTLSPolicy/shop/p".to_owned(),
                hostname: "a.test".to_owned(),
                ..wire::BackendTls::default()
            };
            change(&mut tls);
            c.tls = Some(tls);
        }
    };
    check(&tls(|_| {}), "");
    check(&tls(|t| t.policy.clear()), "tls.policy");
    check(&tls(|t| t.hostname = "a b".to_owned()), "tls.hostname");
    check(
        &tls(|t| t.roots = vec![b"no".as_slice().into()]),
        "tls.roots[0]",
    );
    check(
        &tls(|t| t.subject_alt_names = vec![wire::SubjectAltName { name: None }]),
        "tls.subject_alt_names[0].name",
    );
    let sidecar = |change: fn(&mut wire::Sidecar)| {
        move |c: &mut wire::Cluster| change(c.endpoints[1].sidecar.as_mut().unwrap())
    };
    let id = "endpoints[1].sidecar.spiffe_id";
    check(&sidecar(|s| s.spiffe_id.clear()), id);
    check(
        &sidecar(|s| s.spiffe_id = "spiffe://weft.local/x".to_owned()),
        id,
    );
    check(
        &sidecar(|s| s.instance.clear()),
        "endpoints[1].sidecar.instance",
    );
    check(
        &sidecar(|s| s.inbound_port = 70000),
        "endpoints[1].sidecar.inbound_port",
    );
}

#[test]
fn changes_of_clusters() {
    let name = Name::Cluster("shop/stock:80".parse().unwrap());
    let base = match decode_body(&name, &cluster().encode_to_vec()) {
        Ok(Decoded::Cluster(cluster)) => cluster,
        other => panic!("{other:?}"),
    };
    let check = |removed: &[&str], upserted: &[wire::Endpoint], expect: &str| {
        let change = wire::ClusterChange {
            removed: removed.iter().map(|id| (*id).to_owned()).collect(),
            upserted: upserted.to_vec(),
        };
        let seen = match decode_change(&base, &change.encode_to_vec()) {
            Ok(changed) => {
                assert_eq!(
                    (&changed.name, changed.protocol),
                    (&base.name, base.protocol)
                );
                let endpoints = changed.endpoints.iter();
                let endpoints = endpoints.map(|e| format!("{} {}", e.id, e.weight));
                endpoints.collect::<Vec<_>>().join(", ")
            }
            Err(rejection) => rejection.field,
        };
        assert_eq!(seen, expect, "{removed:?} {upserted:?}");
        assert_eq!(base.endpoints.len(), 2, "the base is as it was");
    };
    let with = |id: &str, change: fn(&mut wire::Endpoint)| {
        let mut endpoint = wire::Endpoint {
            id: id.to_owned(),
            ..endpoint()
        };
        change(&mut endpoint);
        endpoint
    };
    let plain = |id: &str| with(id, |_| {});
    check(&[], &[], "one:9001 1, two:9001 1");
    check(&["one:9001"], &[], "two:9001 1");
    check(&["one:9001", "two:9001"], &[], "");
    check(&[], &[plain("six:1")], "one:9001 1, six:1 1, two:9001 1");
    let heavy = with("one:9001", |e| e.weight = 9);
    check(
        &["two:9001"],
        &[heavy, plain("six:1")],
        "one:9001 9, six:1 1",
    );
    check(&["three:9001"], &[], "removed[0]");
    check(&["one:9001", "one:9001"], &[], "removed[1]");
    check(&[], &[plain("six:1"), plain("six:1")], "upserted[1].id");
    check(&["one:9001"], &[plain("one:9001")], "upserted[0].id");
    check(&[], &[plain("")], "upserted[0].id");
    let nowhere = with("six:1", |e| e.address = "host".to_owned());
    check(
        &["one:9001"],
        &[plain("seven:1"), nowhere],
        "upserted[1].address",
    );
    let nobody = with("six:1", |e| e.sidecar = Some(wire::Sidecar::default()));
    check(&[], &[nobody], "upserted[0].sidecar.spiffe_id");
    assert_eq!(decode_change(&base, &[0xff; 9]).unwrap_err().field, "");
}

#[test]
fn services_addresses_and_inbound() {
    let service = wire::Service {
        namespace: "shop".to_owned(),
        name: "stock".to_owned(),
        virtual_ips: vec!["240.0.0.1".to_owned(), "fd00::1".to_owned()],
        ports: vec![wire::ServicePort {
            port: 80,
            ..wire::ServicePort::default()
        }],
        ..wire::Service::default()
    };
    check(ResourceType::Service, &service, "");
    let bad = wire::Service {
        virtual_ips: vec!["240.0.0".to_owned()],
        ..service.clone()
    };
    check(ResourceType::Service, &bad, "virtual_ips[0]");
    let bad = wire::Service {
        name: "Stock".to_owned(),
        ..service.clone()
    };
    check(ResourceType::Service, &bad, "name");
    let bad = wire::Service {
        ports: vec![wire::ServicePort::default()],
        ..service
    };
    check(ResourceType::Service, &bad, "ports[0].port");

    let owner = |owner| wire::Address { owner };
    let service = Some(wire::address::Owner::Service("shop/stock".to_owned()));
    check(ResourceType::Address, &owner(service), "");
    check(ResourceType::Address, &owner(None), "owner");
    let bad = wire::Endpoint {
        id: String::new(),
        ..endpoint()
    };
    let bad = Some(wire::address::Owner::Endpoint(bad));
    check(ResourceType::Address, &owner(bad), "endpoint.id");

    let services = vec!["shop/stock".to_owned(), "stock".to_owned()];
    let port = wire::InboundPort {
        port: 80,
        services,
        ..wire::InboundPort::default()
    };
    check(
        ResourceType::Inbound,
        &wire::Inbound {
            ports: vec![port],
            ..wire::Inbound::default()
        },
        "ports[0].services[1]",
    );
    let empty = wire::TrustBundle {
        trust_domain: "weft.local".to_owned(),
        roots: Vec::new(),
    };
    check(ResourceType::TrustBundle, &empty, "roots");
}

#[test]
fn routes() {
    use wire::header_match::Value;
    use wire::r#match::Path;
    let check = |path: Option<Path>, method: &str, header: Option<(&str, Value)>, expect: &str| {
        let headers = header.map(|(name, value)| wire::HeaderMatch {
            name: name.to_owned(),
            value: Some(value),
        });
        let headers = headers.into_iter().collect();
        let matches = wire::Match {
            path,
            method: method.to_owned(),
            headers,
            ..wire::Match::default()
        };
        check(ResourceType::Route, &route(matches), expect);
    };
    let exact = |text: &str| Value::Exact(text.to_owned());
    let regex = |text: &str| Some(Path::PathRegex(text.to_owned()));
    check(None, "", None, "");
    check(
        Some(Path::PathExact("/a".to_owned())),
        "GET",
        Some(("x", exact("1"))),
        "",
    );
    check(
        Some(Path::PathExact("a".to_owned())),
        "",
        None,
        "rules[0].match.path_exact",
    );
    check(
        Some(Path::PathPrefix(String::new())),
        "",
        None,
        "rules[0].match.path_prefix",
    );
    check(None, "G T", None, "rules[0].match.method");
    check(
        None,
        "",
        Some(("a b", exact("1"))),
        "rules[0].match.headers[0].name",
    );
    let bad = Value::Regex("(".to_owned());
    check(
        None,
        "",
        Some(("x", bad)),
        "rules[0].match.headers[0].regex",
    );
    for pattern in ["(", "a)|(b", "(?:a{1000}){1000}", "(?x)a # not closed"] {
        check(regex(pattern), "", None, "rules[0].match.path_regex");
    }
}

#[test]
fn a_regular_expression_matches_the_whole() {
    let check = |pattern: &str, path: &str, expect: bool| {
        let regex = regex("", pattern).unwrap();
        assert_eq!(regex.is_match(path), expect, "{pattern} {path}");
    };
    check("/a|/b", "/a", true);
    check("/a|/b", "/ax", false);
    check("/a|/b", "/x/b", false);
    check("/v[0-9]+/.*", "/v12/x", true);
    check("/v[0-9]+", "/v12/x", false);
    check("", "", true);
    check("(?i)/A", "/a", true);
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(kind in 0..8i32, name in ".{0,40}", body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(kind, &name, &body);
        for name in ["shop/stock", "10.0.0.1:9001", "shop/stock:80", "self", "weft.local"] {
            let _ = decode(kind, name, &body);
        }
    }

    #[test]
    fn a_damaged_body_never_panics(at in 0..200usize, byte in any::<u8>()) {
        for (kind, mut body) in [
            (ResourceType::Cluster, cluster().encode_to_vec()),
            (ResourceType::Route, route(wire::Match::default()).encode_to_vec()),
        ] {
            let at = at % body.len();
            body[at] = byte;
            let _ = decode(kind.into(), "shop/stock:80", &body);
        }
    }
}
