use http::{HeaderName, Method, Version};
use proptest::prelude::*;
use regex::Regex;

use super::matching::matches;
use super::*;
use crate::model::{
    FieldValue, Fields, HeaderMatch, HostMatch, PathMatch, QueryMatch, RouteMatch, ServicePort,
    Text, TextMatch,
};

fn head(method: Method, path: &str, headers: &[(&'static str, &'static str)]) -> RequestHead {
    let mut map = Fields::new();
    for (name, value) in headers {
        map.append(
            HeaderName::from_static(name),
            FieldValue::from_static(value),
        );
    }
    RequestHead {
        method,
        scheme: None,
        authority: None,
        path: Text::try_from(path).unwrap(),
        version: Version::HTTP_11,
        upgrade: None,
        headers: map,
    }
}

/// Name, weight, and whether the reference resolves.
type Backend = (&'static str, u32, bool);

fn route(rules: Vec<(RouteMatch, Vec<Backend>)>) -> Route {
    let port = |name: &str| format!("shop/{name}:80").parse::<ServicePort>().unwrap();
    let rules = rules
        .into_iter()
        .enumerate()
        .map(|(index, (matches, backends))| Rule {
            route: "HTTPRoute/shop/r".into(),
            hop_route: Text::default(),
            rule: u32::try_from(index).unwrap(),
            rule_name: None,
            match_index: 0,
            matches,
            filters: Vec::new(),
            request_timeout: None,
            backend_request_timeout: None,
            retry: None,
            session: None,
            faults: Default::default(),
            backends: backends
                .into_iter()
                .map(|(name, weight, valid)| WeightedCluster {
                    cluster: port(name),
                    weight,
                    invalid: (!valid).then(|| "BackendNotFound".into()),
                    filters: Vec::new(),
                })
                .collect(),
        });
    Route {
        name: port("s"),
        protocol: None,
        rules: rules.collect::<Vec<_>>().into(),
        default_cluster: port("s"),
        tls_rules: Vec::new(),
        tcp: None,
    }
}

#[test]
fn matching() {
    let check = |wanted: RouteMatch, head: &RequestHead, expect: bool| {
        assert_eq!(matches(&wanted, head), expect, "{wanted:?} {head:?}");
    };
    let get = |path: &str| {
        head(
            Method::GET,
            path,
            &[("x-v", "1"), ("x-v", "2"), ("y", "abc")],
        )
    };
    let path = |path: PathMatch| RouteMatch {
        path: Some(path),
        ..RouteMatch::default()
    };
    let prefix = |text: &str| path(PathMatch::Prefix(text.into()));
    check(RouteMatch::default(), &get("/"), true);
    check(prefix("/"), &get("/anything"), true);
    check(prefix("/a"), &get("/a"), true);
    check(prefix("/a"), &get("/a/b?c"), true);
    check(prefix("/a"), &get("/ab"), false);
    check(prefix("/a/"), &get("/a"), true);
    check(path(PathMatch::Exact("/a".into())), &get("/a?q"), true);
    check(path(PathMatch::Exact("/a".into())), &get("/a/"), false);
    check(
        path(PathMatch::Regex(Regex::new("^(?:/[0-9]+)$").unwrap())),
        &get("/42"),
        true,
    );
    check(
        RouteMatch {
            method: Some(Method::POST),
            ..RouteMatch::default()
        },
        &get("/"),
        false,
    );
    let header = |name: &'static str, value: TextMatch| RouteMatch {
        headers: vec![HeaderMatch {
            name: HeaderName::from_static(name),
            value,
        }],
        ..RouteMatch::default()
    };
    check(header("y", TextMatch::Exact("abc".into())), &get("/"), true);
    check(header("y", TextMatch::Exact("ab".into())), &get("/"), false);
    check(header("z", TextMatch::Exact("".into())), &get("/"), false);
    check(
        header("x-v", TextMatch::Exact("1,2".into())),
        &get("/"),
        true,
    );
}

#[test]
fn selection() {
    let check = |route: &Route, path: &str, random: u64, expect: Result<&str, Fault>| {
        let head = head(Method::GET, path, &[]);
        // Of eleven.
        let random = u64::MAX / 11 * random + 11;
        let seen = decide(route, &head, random).map(|decision| match decision {
            Decision::Default => route.default_cluster.service().name().to_owned(),
            Decision::Backend { rule, backend } => {
                let backend = &route.rules[rule].backends[backend];
                backend.cluster.service().name().to_owned()
            }
            Decision::Answer { .. } => panic!("{path}: there is no filter that answers"),
        });
        let seen = seen.map_err(|refused| refused.fault);
        assert_eq!(seen, expect.map(str::to_owned), "{path} {random}");
    };
    check(&route(vec![]), "/", 0, Ok("s"));
    let prefix = |text: &str| RouteMatch {
        path: Some(PathMatch::Prefix(text.into())),
        ..RouteMatch::default()
    };
    let split = route(vec![
        (prefix("/zero"), vec![("a", 0, true)]),
        (prefix("/none"), vec![]),
        (
            prefix("/a"),
            vec![("v1", 9, true), ("v2", 1, true), ("gone", 1, false)],
        ),
    ]);
    check(&split, "/a", 0, Ok("v1"));
    check(&split, "/a", 8, Ok("v1"));
    check(&split, "/a", 9, Ok("v2"));
    check(&split, "/a", 10, Err(Fault::BackendInvalid));
    check(&split, "/zero", 0, Err(Fault::BackendInvalid));
    check(&split, "/none", 0, Err(Fault::BackendInvalid));
    check(&split, "/", 0, Err(Fault::NoRoute));
}

/// Few words, so that requests meet rules; several prefixes of each other among them.
fn path() -> impl Strategy<Value = String> {
    let element = prop::sample::select(vec!["", "a", "ab", "b", "a-b"]);
    prop::collection::vec(element, 0..4).prop_map(|path| format!("/{}", path.join("/")))
}

fn path_match() -> impl Strategy<Value = Option<PathMatch>> {
    let tail = prop::sample::select(vec![
        "", "/", "?", "*", "+", "/?b", "/*", "/+b", "|/b", "{0}", ".*", "/.*", "(/b|a)",
    ]);
    let regex = (path(), tail).prop_map(|(path, tail)| {
        PathMatch::Regex(Regex::new(&format!("^(?:{path}{tail})$")).unwrap())
    });
    prop_oneof![
        1 => Just(None),
        1 => path().prop_map(|path| Some(PathMatch::Exact(path))),
        1 => path().prop_map(|path| Some(PathMatch::Prefix(path))),
        1 => regex.prop_map(Some),
    ]
}

fn method() -> impl Strategy<Value = Method> {
    prop::sample::select(vec![Method::GET, Method::POST, Method::PUT])
}

const NAMES: [&str; 3] = ["x", "y", "z"];

fn header_match() -> impl Strategy<Value = HeaderMatch> {
    let value = prop_oneof![
        4 => (0..4_u8).prop_map(|number| TextMatch::Exact(number.to_string())),
        1 => Just(TextMatch::Exact("0,1".to_owned())),
        1 => Just(TextMatch::Regex(Regex::new("^(?:[12])$").unwrap())),
    ];
    (prop::sample::select(NAMES.to_vec()), value).prop_map(|(name, value)| HeaderMatch {
        name: HeaderName::from_static(name),
        value,
    })
}

fn hostname() -> impl Strategy<Value = HostMatch> {
    prop::sample::select(vec![
        HostMatch::Exact("a.test".to_owned()),
        HostMatch::Below(".test".to_owned()),
        HostMatch::Below(".a.test".to_owned()),
    ])
}

fn query() -> impl Strategy<Value = QueryMatch> {
    prop::sample::select(vec!["/a", "b"]).prop_map(|value| QueryMatch {
        name: "q".to_owned(),
        value: TextMatch::Exact(value.to_owned()),
    })
}

fn route_match() -> impl Strategy<Value = RouteMatch> {
    let parts = (
        prop::option::weighted(0.2, hostname()),
        path_match(),
        prop::option::weighted(0.3, method()),
        prop::collection::vec(header_match(), 0..3),
        prop::option::weighted(0.2, query()),
    );
    parts.prop_map(|(hostname, path, method, headers, query)| RouteMatch {
        hostname,
        path,
        method,
        headers,
        query: query.into_iter().collect(),
    })
}

fn request() -> impl Strategy<Value = RequestHead> {
    let path = prop_oneof![8 => path(), 1 => Just("*".to_owned()), 1 => Just(String::new())];
    let field = (prop::sample::select(NAMES.to_vec()), 0..4_u16);
    let query = prop::sample::select(vec!["", "?q=/a", "?p=1&q=b&q=/a"]);
    (path, query, method(), prop::collection::vec(field, 0..4)).prop_map(
        |(path, query, method, fields)| {
            let mut head = head(method, &format!("{path}{query}"), &[]);
            head.authority = Some(Text::from_static("b.a.test:80"));
            for (name, value) in fields {
                head.headers.append(
                    HeaderName::from_static(name),
                    FieldValue::from(u64::from(value)),
                );
            }
            head
        },
    )
}

proptest! {
    /// The index leaves nothing out and changes no precedence.
    #[test]
    fn the_rule_is_the_one_that_a_walk_finds(
        wanted in prop::collection::vec(route_match(), 0..120),
        heads in prop::collection::vec(request(), 1..20),
    ) {
        let backend = || vec![("s", 1, true)];
        let route = route(wanted.into_iter().map(|wanted| (wanted, backend())).collect());
        for head in heads {
            let walked = route.rules.iter().position(|rule| matches(&rule.matches, &head));
            let first = route.rules.first(&head, |rule| matches(&rule.matches, &head));
            prop_assert_eq!(first, walked, "{:?}", head);
            for rule in route.rules.iter() {
                let because = mismatches(&rule.matches, &head);
                prop_assert_eq!(because.is_empty(), matches(&rule.matches, &head), "{:?} {:?}", because, head);
                prop_assert!(because.iter().all(|reason| !reason.is_empty()));
            }
        }
    }
}

#[test]
fn server_names() {
    let rule = |name: &str, hostname| TlsRule {
        route: name.into(),
        hostname,
        backends: Vec::new(),
    };
    let mut rules = vec![
        rule("exact", Some(HostMatch::Exact("a.test".to_owned()))),
        rule("below", Some(HostMatch::Below(".test".to_owned()))),
    ];
    let check = |rules: &[TlsRule], name: Option<&str>, expect: Option<&str>| {
        let seen = find_tls(rules, name).map(|rule| &*rule.route);
        assert_eq!(seen, expect, "{name:?}");
    };
    check(&rules, Some("A.test"), Some("exact"));
    check(&rules, Some("b.test"), Some("below"));
    check(&rules, Some("test"), None);
    check(&rules, None, None);
    rules.push(rule("any", None));
    check(&rules, Some("a.test"), Some("exact"));
    check(&rules, Some("test"), Some("any"));
    check(&rules, None, Some("any"));
}

#[test]
fn shares_of_mirrors() {
    use rand::SeedableRng;
    let mirror = |name: &str, numerator, valid: bool| {
        Filter::Mirror(Mirror {
            cluster: format!("shop/{name}:80").parse().unwrap(),
            invalid: (!valid).then(|| "BackendNotFound".to_owned()),
            numerator,
            denominator: 4,
        })
    };
    let filters = [
        mirror("all", 4, true),
        mirror("none", 0, true),
        mirror("quarter", 1, true),
        mirror("gone", 4, false),
    ];
    let mut random = rand::rngs::SmallRng::seed_from_u64(7);
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..10_000 {
        for mirror in mirrors(filters.iter(), &mut random) {
            *counts
                .entry(mirror.cluster.service().name().to_owned())
                .or_insert(0) += 1;
        }
    }
    assert_eq!(counts["all"], 10_000);
    assert!((2_300..2_700).contains(&counts["quarter"]), "{counts:?}");
    assert_eq!(counts.len(), 2, "{counts:?}");
}

#[test]
fn draws_keep_close_to_the_weights() {
    let split = route(vec![(
        RouteMatch::default(),
        vec![("a", 70, true), ("b", 30, true)],
    )]);
    for seed in 0..200_u64 {
        let draws = Draws::new(seed.wrapping_mul(0x0123_4567_89ab_cdef));
        // Another route takes draws in between.
        let picked = (0..500).map(|number| {
            for _ in 0..number % 3 {
                draws.draw();
            }
            pick_backend(&split.rules[0].backends, draws.draw()).unwrap()
        });
        let first = picked.filter(|backend| *backend == 0).count();
        assert!((340..=360).contains(&first), "seed {seed}: {first} of 500");
    }
}
