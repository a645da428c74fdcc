//! The rules of a route in the order of precedence, and where to look for those that a request may
//! match. What a match is, `route` says; here is only what no match can do without. Each rule is filed
//! once, under the rarest thing that it demands, so finding a rule costs what a request looks like and
//! not how many rules there are, and memory grows with the rules and nothing else.

use std::ops::Deref;

use foldhash::fast::RandomState;
use http::header::HOST;
use http::{HeaderName, Method};

use super::{PathMatch, RequestHead, Rule, TextMatch};

/// Requests are only looked up in it, so nobody can fill it with names that collide, and a quick hash will do.
type Map<K, V> = std::collections::HashMap<K, V, RandomState>;

/// A bucket of this many rules is not divided further: looking at each costs less than a look-up.
const LEAF_RULES_MAX: usize = 8;
/// How often a bucket is divided at most, which bounds the depth of the search. Rules that share so
/// many conditions are looked at one by one.
const LEVELS_MAX: u32 = 4;

/// Rules that can be searched; immutable, and read as a slice.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    all: Bucket,
}

/// Positions of rules, ascending, or another look-up.
#[derive(Clone, Debug)]
enum Bucket {
    Leaf(Vec<u32>),
    Divided(Box<Division>),
}

/// Buckets by what their rules demand of a request. A rule is in one of them.
#[derive(Clone, Debug, Default)]
struct Division {
    exact_paths: Map<Box<str>, Bucket>,
    /// The prefixes as a tree of elements, of which this is `/`.
    prefixes: Vec<Element>,
    headers: Map<HeaderName, Map<Box<str>, Bucket>>,
    methods: Map<Method, Bucket>,
    /// What has nothing that can be looked up.
    others: Vec<u32>,
}

/// One element of paths. The first one's parent is itself.
#[derive(Clone, Debug, Default)]
struct Element {
    parent: usize,
    children: Map<Box<str>, usize>,
    bucket: Option<Bucket>,
}

/// What a rule demands, in a form that a request can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Condition<'r> {
    ExactPath(&'r str),
    /// The elements after the first slash.
    Prefix(&'r str),
    Header(&'r str, &'r str),
    Method(&'r str),
}

/// A rule on its way to its bucket, with the conditions that it isn't filed under yet.
struct Filing<'r> {
    position: u32,
    conditions: Vec<Condition<'r>>,
}

impl From<Vec<Rule>> for Rules {
    fn from(rules: Vec<Rule>) -> Self {
        let filings = (0..).zip(&rules).map(|(position, rule)| Filing {
            position,
            conditions: conditions(rule),
        });
        let all = Bucket::new(filings.collect(), LEVELS_MAX);
        Self { rules, all }
    }
}

impl Deref for Rules {
    type Target = [Rule];

    fn deref(&self) -> &[Rule] {
        &self.rules
    }
}

impl Rules {
    /// The position of the first rule of all that `matches`, which is asked for those only that may.
    pub fn first(&self, head: &RequestHead, matches: impl Fn(&Rule) -> bool) -> Option<usize> {
        let mut search = Search {
            rules: &self.rules,
            head,
            path: head.path_only(),
            matches,
            best: self.rules.len(),
        };
        search.visit(&self.all);
        (search.best < self.rules.len()).then_some(search.best)
    }
}

/// Whatever `rule` demands that can be looked up.
fn conditions(rule: &Rule) -> Vec<Condition<'_>> {
    let wanted = &rule.matches;
    let path = wanted.path.as_ref().and_then(|path| match path {
        PathMatch::Exact(path) => Some(Condition::ExactPath(path)),
        PathMatch::Prefix(prefix) => elements(prefix).map(Condition::Prefix),
        PathMatch::Regex(regex) => literal_elements(regex.as_str()).map(Condition::Prefix),
    });
    let headers = wanted.headers.iter().filter_map(|header| {
        let name = header.name.as_str();
        match &header.value {
            // The host stands beside the fields, where it isn't looked up.
            TextMatch::Exact(value) if header.name != HOST => Some(Condition::Header(name, value)),
            TextMatch::Exact(_) | TextMatch::Regex(_) => None,
        }
    });
    let method = wanted.method.as_ref().map(Method::as_str);
    path.into_iter()
        .chain(headers)
        .chain(method.map(Condition::Method))
        .collect()
}

/// The elements of a prefix; none of `/`, which every path begins with.
fn elements(prefix: &str) -> Option<&str> {
    prefix.strip_suffix('/').unwrap_or(prefix).strip_prefix('/')
}

/// The elements that every path begins with which a pattern of a whole path matches, as far as the
/// pattern is plain text; `a|b` begins with neither.
fn literal_elements(pattern: &str) -> Option<&str> {
    let pattern = pattern.strip_prefix("^(?:")?.strip_suffix(")$")?;
    if pattern.contains('|') {
        return None;
    }
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_~%".contains(&byte);
    let end = pattern.bytes().position(|byte| !is_plain(byte));
    let (mut plain, rest) = pattern.split_at(end.unwrap_or(pattern.len()));
    if rest.starts_with(['?', '*', '{']) {
        plain = &plain[..plain.len().saturating_sub(1)];
    }
    // What follows the last slash may go on.
    let (elements, _) = plain.rsplit_once('/')?;
    elements.strip_prefix('/')
}

impl Default for Bucket {
    fn default() -> Self {
        Self::Leaf(Vec::new())
    }
}

impl Bucket {
    fn new(filings: Vec<Filing<'_>>, levels: u32) -> Self {
        let is_last = levels == 0 || filings.len() <= LEAF_RULES_MAX;
        if is_last || filings.iter().all(|filing| filing.conditions.is_empty()) {
            return Self::Leaf(filings.iter().map(|filing| filing.position).collect());
        }
        let mut counts: Map<Condition<'_>, usize> = Map::default();
        for condition in filings.iter().flat_map(|filing| &filing.conditions) {
            *counts.entry(*condition).or_default() += 1;
        }
        let mut division = Division::default();
        let mut buckets: Map<Condition<'_>, Vec<Filing<'_>>> = Map::default();
        for mut filing in filings {
            let of = filing.conditions.iter().copied();
            let Some(rarest) = of.min_by_key(|condition| (counts[condition], *condition)) else {
                division.others.push(filing.position);
                continue;
            };
            filing.conditions.retain(|condition| *condition != rarest);
            buckets.entry(rarest).or_default().push(filing);
        }
        for (condition, filings) in buckets {
            division.insert(condition, Self::new(filings, levels - 1));
        }
        Self::Divided(Box::new(division))
    }
}

impl Division {
    fn insert(&mut self, condition: Condition<'_>, bucket: Bucket) {
        match condition {
            Condition::ExactPath(path) => {
                self.exact_paths.insert(path.into(), bucket);
            }
            Condition::Prefix(elements) => {
                let element = self.element(elements);
                self.prefixes[element].bucket = Some(bucket);
            }
            Condition::Header(name, value) => {
                // Both came from the types they become again.
                if let Ok(name) = name.parse::<HeaderName>() {
                    let values = self.headers.entry(name).or_default();
                    values.insert(value.into(), bucket);
                }
            }
            Condition::Method(method) => {
                if let Ok(method) = method.parse::<Method>() {
                    self.methods.insert(method, bucket);
                }
            }
        }
    }

    /// The place of these elements in the tree, made if there was none.
    fn element(&mut self, elements: &str) -> usize {
        if self.prefixes.is_empty() {
            self.prefixes.push(Element::default());
        }
        let mut at = 0;
        for name in elements.split('/') {
            let next = self.prefixes.len();
            let child = *self.prefixes[at]
                .children
                .entry(name.into())
                .or_insert(next);
            if child == next {
                self.prefixes.push(Element {
                    parent: at,
                    ..Element::default()
                });
            }
            at = child;
        }
        at
    }
}

/// One request on its way through the buckets.
struct Search<'s, F> {
    rules: &'s [Rule],
    head: &'s RequestHead,
    path: &'s str,
    matches: F,
    /// The first rule that matches of those that were looked at, or how many rules there are. No rule
    /// behind it is looked at.
    best: usize,
}

impl<F: Fn(&Rule) -> bool> Search<'_, F> {
    /// What is rarest comes first: it is most likely to be where the match is.
    fn visit(&mut self, bucket: &Bucket) {
        let division = match bucket {
            Bucket::Leaf(positions) => return self.look(positions),
            Bucket::Divided(division) => division,
        };
        if let Some(bucket) = division.exact_paths.get(self.path) {
            self.visit(bucket);
        }
        self.visit_prefixes(&division.prefixes);
        self.visit_headers(&division.headers);
        if let Some(bucket) = division.methods.get(&self.head.method) {
            self.visit(bucket);
        }
        self.look(&division.others);
    }

    fn look(&mut self, positions: &[u32]) {
        for position in positions.iter().map(|position| *position as usize) {
            if position >= self.best {
                return;
            }
            if (self.matches)(&self.rules[position]) {
                self.best = position;
                return;
            }
        }
    }

    /// From the longest prefix to the shortest.
    fn visit_prefixes(&mut self, prefixes: &[Element]) {
        let (false, Some(elements)) = (prefixes.is_empty(), self.path.strip_prefix('/')) else {
            return;
        };
        let mut at = 0;
        for name in elements.split('/') {
            match prefixes[at].children.get(name) {
                Some(child) => at = *child,
                None => break,
            }
        }
        while at != 0 {
            if let Some(bucket) = &prefixes[at].bucket {
                self.visit(bucket);
            }
            at = prefixes[at].parent;
        }
    }

    /// Costs as many look-ups as the request has fields, or the rules names, whichever are fewer.
    fn visit_headers(&mut self, headers: &Map<HeaderName, Map<Box<str>, Bucket>>) {
        if headers.len() <= self.head.headers.len() {
            for (name, values) in headers {
                self.visit_values(name, values);
            }
        } else {
            for name in self.head.headers.names() {
                if let Some(values) = headers.get(name) {
                    self.visit_values(name, values);
                }
            }
        }
    }

    fn visit_values(&mut self, name: &HeaderName, values: &Map<Box<str>, Bucket>) {
        let value = self.head.field(name);
        if let Some(bucket) = value.and_then(|value| values.get(&*value)) {
            self.visit(bucket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_path_must_begin_with() {
        let check = |pattern: &str, expect: Option<&str>| {
            let whole = format!("^(?:{pattern})$");
            assert_eq!(literal_elements(&whole), expect, "{pattern}");
        };
        check("/users/[0-9]+", Some("users"));
        check("/a/b/c", Some("a/b"));
        check("/a/b+", Some("a"));
        check("/a/?b", None);
        check("/a/b/{2}c", Some("a"));
        check("/a/+b", Some("a"));
        check("/a?/b", None);
        check("/a|/b", None);
        check("/a/(b|c)", None);
        check("(?i)/a/b", None);
        check("/a/.*", Some("a"));
        check("/a.b/c", None);
        check(".*", None);
        check("", None);
        assert_eq!(literal_elements("/a/b"), None);
    }

    #[test]
    fn a_prefix_is_its_elements() {
        let check = |prefix: &str, expect: Option<&str>| assert_eq!(elements(prefix), expect);
        check("/", None);
        check("/a", Some("a"));
        check("/a/", Some("a"));
        check("/a/b", Some("a/b"));
        check("//", Some(""));
    }
}
