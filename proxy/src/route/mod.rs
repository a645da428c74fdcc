//! A request head and the configuration in force give a backend (pure).

use crate::model::{
    Fault, HeaderMatch, PathMatch, RequestHead, Route, RouteMatch, Rule, ServicePort, TextMatch,
};

/// Where a request goes, and by which rule.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'r> {
    /// The rule that matched; none when no route is attached to the service.
    pub rule: Option<&'r Rule>,
    pub cluster: &'r ServicePort,
}

/// Takes the first rule that matches (the rules come in the order of Gateway API's precedence) and
/// one of its backends by weight; `random` is uniform over all of `u64`. [`Rules`](crate::model::Rules)
/// leaves out rules that can't match; which of the others does is decided here.
pub fn select<'r>(
    route: &'r Route,
    head: &RequestHead,
    random: u64,
) -> Result<Selection<'r>, Fault> {
    if route.rules.is_empty() {
        return Ok(Selection {
            rule: None,
            cluster: &route.default_cluster,
        });
    }
    let rule = route
        .rules
        .first(head, |rule| matches(&rule.matches, head))
        .ok_or(Fault::NoRoute)?;
    let cluster = pick_backend(rule, random)?;
    Ok(Selection {
        rule: Some(rule),
        cluster,
    })
}

/// Each backend gets its weight's share, the invalid ones too: theirs is answered with 500
/// (Gateway API, HTTPRouteRule.backendRefs).
fn pick_backend(rule: &Rule, random: u64) -> Result<&ServicePort, Fault> {
    let total: u64 = rule
        .backends
        .iter()
        .map(|backend| u64::from(backend.weight))
        .sum();
    if total == 0 {
        return Err(Fault::BackendInvalid);
    }
    let mut point = random % total;
    for backend in &rule.backends {
        let weight = u64::from(backend.weight);
        if point < weight {
            return if backend.invalid.is_none() {
                Ok(&backend.cluster)
            } else {
                Err(Fault::BackendInvalid)
            };
        }
        point -= weight;
    }
    Err(Fault::BackendInvalid)
}

fn matches(wanted: &RouteMatch, head: &RequestHead) -> bool {
    wanted
        .method
        .as_ref()
        .is_none_or(|method| *method == head.method)
        && wanted
            .path
            .as_ref()
            .is_none_or(|path| path_matches(path, head.path_only()))
        && wanted
            .headers
            .iter()
            .all(|header| header_matches(header, head))
}

fn path_matches(wanted: &PathMatch, path: &str) -> bool {
    match wanted {
        PathMatch::Exact(exact) => path == exact,
        PathMatch::Prefix(prefix) => {
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatch::Regex(regex) => regex.is_match(path),
    }
}

fn header_matches(wanted: &HeaderMatch, head: &RequestHead) -> bool {
    head.field(&wanted.name)
        .is_some_and(|value| match &wanted.value {
            TextMatch::Exact(exact) => *value == **exact,
            TextMatch::Regex(regex) => regex.is_match(&value),
        })
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Method, Version};
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;
    use crate::model::{Fields, Text, WeightedCluster};

    fn head(method: Method, path: &str, headers: &[(&'static str, &'static str)]) -> RequestHead {
        let mut map = Fields::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
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
                rule: u32::try_from(index).unwrap(),
                rule_name: None,
                match_index: 0,
                matches,
                backends: backends
                    .into_iter()
                    .map(|(name, weight, valid)| WeightedCluster {
                        cluster: port(name),
                        weight,
                        invalid: (!valid).then(|| "BackendNotFound".into()),
                    })
                    .collect(),
            });
        Route {
            name: port("s"),
            protocol: None,
            rules: rules.collect::<Vec<_>>().into(),
            default_cluster: port("s"),
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
            let seen = select(route, &head, random)
                .map(|selection| selection.cluster.service().name().to_owned());
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

    fn route_match() -> impl Strategy<Value = RouteMatch> {
        let headers = prop::collection::vec(header_match(), 0..3);
        (path_match(), prop::option::weighted(0.3, method()), headers).prop_map(
            |(path, method, headers)| RouteMatch {
                path,
                method,
                headers,
            },
        )
    }

    fn request() -> impl Strategy<Value = RequestHead> {
        let path = prop_oneof![8 => path(), 1 => Just("*".to_owned()), 1 => Just(String::new())];
        let field = (prop::sample::select(NAMES.to_vec()), 0..4_u16);
        let query = prop::sample::select(vec!["", "?q=/a"]);
        (path, query, method(), prop::collection::vec(field, 0..4)).prop_map(
            |(path, query, method, fields)| {
                let mut head = head(method, &format!("{path}{query}"), &[]);
                for (name, value) in fields {
                    head.headers
                        .append(HeaderName::from_static(name), HeaderValue::from(value));
                }
                head
            },
        )
    }

    proptest! {
        /// The index leaves nothing out and changes no precedence.
        #[test]
        fn the_rule_is_the_one_that_a_walk_finds(
            matches in prop::collection::vec(route_match(), 0..120),
            heads in prop::collection::vec(request(), 1..20),
        ) {
            let backend = || vec![("s", 1, true)];
            let route = route(matches.into_iter().map(|wanted| (wanted, backend())).collect());
            for head in heads {
                let walked = route.rules.iter().position(|rule| super::matches(&rule.matches, &head));
                let first = route.rules.first(&head, |rule| super::matches(&rule.matches, &head));
                prop_assert_eq!(first.map(|rule| rule.rule as usize), walked, "{:?}", head);
            }
        }
    }
}
