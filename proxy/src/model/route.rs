//! Which request goes where.

use http::{HeaderName, Method};
use regex::Regex;

use super::{Protocol, Rules, ServicePort};

/// Everything that is attached to one port of a service.
#[derive(Clone, Debug)]
pub struct Route {
    pub name: ServicePort,
    pub protocol: Option<Protocol>,
    /// In the order of precedence: the first that matches serves. Empty when no HTTPRoute is
    /// attached; then everything goes to `default_cluster`.
    pub rules: Rules,
    pub default_cluster: ServicePort,
}

/// One match of one rule of an HTTPRoute.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `HTTPRoute/NAMESPACE/NAME`
    pub route: String,
    /// From 0, as in the document.
    pub rule: u32,
    pub rule_name: Option<String>,
    /// From 0, within the rule.
    pub match_index: u32,
    pub matches: RouteMatch,
    pub backends: Vec<WeightedCluster>,
}

/// All of it must hold (GEP-713: a match ANDs its parts).
#[derive(Clone, Debug, Default)]
pub struct RouteMatch {
    /// Absent: any path.
    pub path: Option<PathMatch>,
    /// Absent: any method.
    pub method: Option<Method>,
    pub headers: Vec<HeaderMatch>,
}

/// How a path is matched; the query is no part of it.
#[derive(Clone, Debug)]
pub enum PathMatch {
    Exact(String),
    /// By element: `/a` matches `/a` and `/a/b`, not `/ab`.
    Prefix(String),
    /// Of the whole path.
    Regex(Regex),
}

/// One header that must be there.
#[derive(Clone, Debug)]
pub struct HeaderMatch {
    pub name: HeaderName,
    pub value: TextMatch,
}

/// How a value is matched, as a whole.
#[derive(Clone, Debug)]
pub enum TextMatch {
    Exact(String),
    Regex(Regex),
}

/// A backend and its share.
#[derive(Clone, Debug, PartialEq)]
pub struct WeightedCluster {
    pub cluster: ServicePort,
    pub weight: u32,
    /// Why the reference doesn't resolve; its share is answered with 500.
    pub invalid: Option<String>,
}
