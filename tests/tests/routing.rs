//! Documents in at the one end, decisions out at the other: what the control plane compiles and the proxy
//! matches agrees with a plain reading of Gateway API's words, written here a second time and without an
//! index, a compiled form or an order of rules.

use std::cmp::Reverse;
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderName, Method, Version};
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use regex::Regex;
use serde_json::{Value, json};
use weft::compile::{Compiled, Configuration, Mesh, Name, ServiceName, compile};
use weft::resource::{Resource, Source, parse};
use weft_proto::v1alpha1::ResourceType;
use weft_proxy::discovery::{Decoded, decode};
use weft_proxy::model::{FieldValue, Fields, RequestHead, Route, Text};
use weft_proxy::route::{Decision, decide};

/// Sets of routes that are made.
const SETS: u64 = 500;
/// Requests that each set is asked about: 100,000 pairs together.
const REQUESTS: usize = 200;

const PATHS: [&str; 7] = ["/", "/a", "/a/", "/a/b", "/ab", "/b", "/a/b/c"];
const PATTERNS: [&str; 4] = ["/a.*", "/[ab]", "/a/?", ".*"];
const METHODS: [&str; 3] = ["GET", "POST", "PUT"];
const HOSTNAMES: [&str; 5] = ["a.test", "*.test", "*.b.test", "c.b.test", "orders"];
const HOSTS: [&str; 6] = [
    "orders",
    "a.test",
    "A.TEST:80",
    "x.test",
    "c.b.test",
    "x.c.b.test",
];
const VALUES: [&str; 3] = ["1", "2", "12"];

fn choose<'a>(random: &mut StdRng, from: &[&'a str]) -> &'a str {
    from.choose(random).expect("it is not empty")
}

fn some<T>(random: &mut StdRng, chance: f64, make: impl FnOnce(&mut StdRng) -> T) -> Option<T> {
    random.random_bool(chance).then(|| make(random))
}

/// A header or a parameter to match.
fn value_match(random: &mut StdRng, name: &str) -> Value {
    match random.random_bool(0.7) {
        true => json!({"name": name, "value": choose(random, &VALUES)}),
        false => json!({"type": "RegularExpression", "name": name, "value": "1.*"}),
    }
}

fn value_matches(random: &mut StdRng, names: &[&str]) -> Vec<Value> {
    let mut matches = Vec::new();
    for name in names {
        matches.extend(some(random, 0.3, |random| value_match(random, name)));
    }
    matches
}

fn http_match(random: &mut StdRng) -> Value {
    let mut out = json!({});
    if let Some(path) = some(random, 0.7, |random| match random.random_range(0..3) {
        0 => json!({"type": "Exact", "value": choose(random, &PATHS)}),
        1 => json!({"type": "PathPrefix", "value": choose(random, &PATHS)}),
        _ => json!({"type": "RegularExpression", "value": choose(random, &PATTERNS)}),
    }) {
        out["path"] = path;
    }
    if let Some(method) = some(random, 0.3, |random| choose(random, &METHODS)) {
        out["method"] = method.into();
    }
    out["headers"] = value_matches(random, &["x", "y"]).into();
    out["queryParams"] = value_matches(random, &["p", "q"]).into();
    out
}

/// An HTTPRoute of `orders`; its first backend says which rule it is.
fn route(random: &mut StdRng, name: &str) -> Value {
    let hostnames: Vec<&str> = match random.random_bool(0.4) {
        true => (0..random.random_range(1..3))
            .map(|_| choose(random, &HOSTNAMES))
            .collect(),
        false => Vec::new(),
    };
    let rules = (0..random.random_range(1..4)).map(|index| {
        let matches = (0..random.random_range(0..3)).map(|_| http_match(random));
        json!({
            "matches": matches.collect::<Vec<_>>(),
            "backendRefs": [{"name": format!("{name}-{index}"), "port": 80}],
        })
    });
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "orders"}],
            "hostnames": hostnames,
            "rules": rules.collect::<Vec<_>>(),
        },
    })
}

/// A route and when it was made.
type Document = (Value, u64);

fn documents(random: &mut StdRng) -> Vec<Document> {
    let names = ["a", "b", "c", "d"];
    let count = random.random_range(1..=names.len());
    let made = names[..count].iter().map(|name| {
        let age = random.random_range(0..3);
        (route(random, name), age)
    });
    made.collect()
}

/// What the programs make of the documents: through parser, compiler, wire and decoder.
fn compiled(documents: &[Document]) -> Route {
    let mut mesh = Mesh::default();
    let mut add = |text: String, age: u64| {
        let source = Source {
            name: "test".to_owned(),
            content: text.into_bytes(),
        };
        let parsed = parse(&[source], "shop");
        assert_eq!(parsed.problems, []);
        for (_, mut resource) in parsed.resources {
            let created = UNIX_EPOCH + Duration::from_secs(age);
            resource.metadata_mut().creation_timestamp = Some(created);
            mesh.catalog
                .set(&resource.key(), Some(&resource), &mesh.workloads);
            // Every backend that a rule names exists.
            if let Resource::Route(route) = &resource {
                for backend in route.backends() {
                    let text = service(&backend.name);
                    let source = Source {
                        name: "test".to_owned(),
                        content: text.into_bytes(),
                    };
                    let service = parse(&[source], "shop").resources.remove(0).1;
                    mesh.catalog
                        .set(&service.key(), Some(&service), &mesh.workloads);
                }
            }
        }
    };
    add(service("orders"), 0);
    for (document, age) in documents {
        add(document.to_string(), *age);
    }
    let name = Name::Route {
        of: ServiceName::new("shop", "orders").port(80),
        client: "shop".into(),
    };
    let Compiled::Present(configuration @ Configuration::Route(_)) = compile(&mesh, &name) else {
        panic!("the service is there");
    };
    let body = weft::grpc::encode(&configuration);
    match decode(ResourceType::Route.into(), "shop/orders:80", &body) {
        Ok((_, Decoded::Route(route))) => route,
        other => panic!("{other:?}"),
    }
}

fn service(name: &str) -> String {
    let document = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"ports": [{"port": 80}]},
    });
    document.to_string()
}

/// A request in plain words.
#[derive(Clone, Debug)]
struct Asked {
    host: &'static str,
    method: &'static str,
    path: &'static str,
    headers: Vec<(&'static str, &'static str)>,
    query: Vec<(&'static str, &'static str)>,
}

fn pairs(random: &mut StdRng, names: [&'static str; 2]) -> Vec<(&'static str, &'static str)> {
    let count = random.random_range(0..3);
    let mut names = names;
    names.shuffle(random);
    names[..count]
        .iter()
        .map(|name| (*name, choose(random, &VALUES)))
        .collect()
}

fn asked(random: &mut StdRng) -> Asked {
    Asked {
        host: choose(random, &HOSTS),
        method: choose(random, &METHODS),
        path: choose(random, &PATHS),
        headers: pairs(random, ["x", "y"]),
        query: pairs(random, ["p", "q"]),
    }
}

impl Asked {
    fn head(&self) -> RequestHead {
        let query: Vec<String> = self.query.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let target = match query.is_empty() {
            true => self.path.to_owned(),
            false => format!("{}?{}", self.path, query.join("&")),
        };
        let mut headers = Fields::new();
        for (name, value) in &self.headers {
            headers.append(
                HeaderName::from_static(name),
                FieldValue::from_static(value),
            );
        }
        RequestHead {
            method: self.method.parse::<Method>().expect("a method"),
            scheme: None,
            authority: Text::try_from(self.host).ok(),
            path: Text::try_from(target.as_str()).expect("visible ASCII"),
            version: Version::HTTP_11,
            upgrade: None,
            headers,
        }
    }
}

// ---- the words of Gateway API, read plainly

fn whole(pattern: &str, text: &str) -> bool {
    let found = Regex::new(pattern)
        .expect("a pattern")
        .find_iter(text)
        .any(|m| m.as_str() == text);
    // A leftmost match may be shorter than another that is whole.
    found
        || Regex::new(&format!("^(?:{pattern})$"))
            .expect("a pattern")
            .is_match(text)
}

/// "MUST ignore any port value"; "*.example.com matches test.example.com and foo.test.example.com but not
/// example.com".
fn host_matches(hostname: &str, host: &str) -> bool {
    let host = host.split(':').next().unwrap_or_default().to_lowercase();
    match hostname.strip_prefix("*.") {
        Some(rest) => host
            .strip_suffix(rest)
            .is_some_and(|labels| labels.len() > 1 && labels.ends_with('.')),
        None => host == hostname,
    }
}

/// "A path prefix match is done on a path element by element basis"; a trailing slash is ignored.
fn prefix_matches(prefix: &str, path: &str) -> bool {
    let elements = |text: &str| -> Vec<String> {
        let text = text.trim_start_matches('/');
        text.split('/').map(str::to_owned).collect()
    };
    let mut wanted = elements(prefix);
    if wanted.last().is_some_and(String::is_empty) {
        wanted.pop();
    }
    elements(path).starts_with(&wanted)
}

fn value_holds(wanted: &Value, given: &[(&str, &str)]) -> bool {
    let text = wanted["value"].as_str().unwrap_or_default();
    let given = given.iter().find(|(name, _)| *name == wanted["name"]);
    given.is_some_and(|(_, value)| match wanted["type"].as_str() {
        Some("RegularExpression") => whole(text, value),
        _ => *value == text,
    })
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn match_holds(wanted: &Value, asked: &Asked) -> bool {
    let value = wanted["path"]["value"].as_str().unwrap_or("/");
    let path = match wanted["path"]["type"].as_str() {
        Some("Exact") => asked.path == value,
        Some("RegularExpression") => whole(value, asked.path),
        _ => prefix_matches(value, asked.path),
    };
    let method = wanted["method"].as_str();
    path && method.is_none_or(|method| method == asked.method)
        && list(&wanted["headers"])
            .iter()
            .all(|one| value_holds(one, &asked.headers))
        && list(&wanted["queryParams"])
            .iter()
            .all(|one| value_holds(one, &asked.query))
}

/// What speaks for a match, the larger the better, in the order in which the specification names it.
type Merit = (
    (usize, usize),
    Reverse<u8>,
    usize,
    bool,
    usize,
    usize,
    Reverse<u64>,
    Reverse<String>,
    Reverse<usize>,
    Reverse<usize>,
);

/// Name of the route and index of the rule that a request is for.
fn read_plainly(documents: &[Document], asked: &Asked) -> Option<(String, usize)> {
    let mut best: Option<(Merit, (String, usize))> = None;
    for (document, age) in documents {
        let name = document["metadata"]["name"].as_str().expect("a name");
        let any = [json!("")];
        let hostnames = match list(&document["spec"]["hostnames"]) {
            [] => &any[..],
            hostnames => hostnames,
        };
        for hostname in hostnames.iter().filter_map(Value::as_str) {
            if !hostname.is_empty() && !host_matches(hostname, asked.host) {
                continue;
            }
            let without_star = if hostname.starts_with('*') {
                0
            } else {
                hostname.len()
            };
            for (index, rule) in list(&document["spec"]["rules"]).iter().enumerate() {
                let everything = [json!({})];
                let matches = match list(&rule["matches"]) {
                    [] => &everything[..],
                    matches => matches,
                };
                for (position, wanted) in matches.iter().enumerate() {
                    if !match_holds(wanted, asked) {
                        continue;
                    }
                    let path = wanted["path"]["value"].as_str().unwrap_or("/");
                    // Exact, then regular expressions (where weft puts them), then prefixes.
                    let kind = match wanted["path"]["type"].as_str() {
                        Some("Exact") => 0,
                        Some("RegularExpression") => 1,
                        _ => 2,
                    };
                    let merit = (
                        (without_star, hostname.len()),
                        Reverse(kind),
                        path.len(),
                        wanted["method"].is_string(),
                        list(&wanted["headers"]).len(),
                        list(&wanted["queryParams"]).len(),
                        Reverse(*age),
                        Reverse(format!("shop/{name}")),
                        Reverse(index),
                        Reverse(position),
                    );
                    if best.as_ref().is_none_or(|(known, _)| merit > *known) {
                        best = Some((merit, (name.to_owned(), index)));
                    }
                }
            }
        }
    }
    best.map(|(_, found)| found)
}

#[test]
fn decisions_agree_with_a_plain_reading() {
    let mut hits = 0;
    for seed in 0..SETS {
        let mut random = StdRng::seed_from_u64(seed);
        let mut documents = documents(&mut random);
        let route = compiled(&documents);
        documents.shuffle(&mut random);
        let shuffled = compiled(&documents);
        for _ in 0..REQUESTS {
            let asked = asked(&mut random);
            let head = asked.head();
            let seen = |route: &Route| match decide(route, &head, 0) {
                Ok(Decision::Backend { rule, .. }) => {
                    let rule = &route.rules[rule];
                    let name = rule.route.trim_start_matches("HTTPRoute/shop/");
                    Some((name.to_owned(), rule.rule as usize))
                }
                Ok(other) => panic!("{other:?}"),
                Err(_) => None,
            };
            let expect = read_plainly(&documents, &asked);
            assert_eq!(
                seen(&route),
                expect,
                "seed {seed}: {asked:?} {documents:#?}"
            );
            assert_eq!(
                seen(&shuffled),
                expect,
                "the order of documents matters: seed {seed}"
            );
            hits += usize::from(expect.is_some());
        }
    }
    // Both outcomes are common, so neither side can be right by saying always the same.
    let pairs = usize::try_from(SETS).expect("it fits") * REQUESTS;
    assert!(
        (pairs / 4..pairs * 19 / 20).contains(&hits),
        "{hits} of {pairs}"
    );
}
