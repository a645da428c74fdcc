//! A request head and the configuration in force give a backend (pure).

use crate::model::{
    Fault, Fields, HeaderMatch, PathMatch, RequestHead, Route, RouteMatch, Rule, ServicePort,
    TextMatch,
};

/// Where a request goes, and by which rule.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'r> {
    /// The rule that matched; none when no route is attached to the service.
    pub rule: Option<&'r Rule>,
    pub cluster: &'r ServicePort,
}

/// Takes the first rule that matches (the rules come in the order of Gateway API's precedence) and
/// one of its backends by weight; `random` is uniform over all of `u64`.
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
        .iter()
        .find(|rule| matches(&rule.matches, head))
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
            .all(|header| header_matches(header, &head.headers))
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

/// Several fields of one name are one list (RFC 9110 5.3).
fn header_matches(wanted: &HeaderMatch, headers: &Fields) -> bool {
    let mut values = headers
        .get_all(&wanted.name)
        .filter_map(|value| value.to_str().ok());
    let Some(first) = values.next() else {
        return false;
    };
    let rest: Vec<&str> = values.collect();
    let joined = if rest.is_empty() {
        None
    } else {
        Some(format!("{first},{}", rest.join(",")))
    };
    let value = joined.as_deref().unwrap_or(first);
    match &wanted.value {
        TextMatch::Exact(exact) => value == exact,
        TextMatch::Regex(regex) => regex.is_match(value),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue, Method, Version};
    use regex::Regex;

    use super::*;
    use crate::model::{Text, WeightedCluster};

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
            rules: rules.collect(),
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
}
