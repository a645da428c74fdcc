//! A request head and the configuration in force give a decision (pure): which rule takes the request,
//! what it changes, and which backend gets it.

mod cors;
mod filters;
mod matching;

use std::cell::Cell;

use rand::Rng;

use crate::model::{
    Fault, Filter, Mirror, RequestHead, ResponseHead, Route, Rule, TlsRule, WeightedCluster,
};

pub use filters::{change_request, change_response};
pub use matching::{matches, mismatches};

/// Draws that are spread more evenly than chance would: each is a golden section further than the one
/// before, so that any run of them is close to the weights (a Weyl sequence). Shares of 70 to 30 are
/// within two points after fifty requests, where chance needs a thousand.
#[derive(Debug)]
pub struct Draws(Cell<u64>);

/// 2^64 divided by the golden ratio.
const GOLDEN_SECTION: u64 = 0x9e37_79b9_7f4a_7c15;

impl Draws {
    /// Begins anywhere, so that workers and proxies don't go in step.
    pub fn new(first: u64) -> Self {
        Self(Cell::new(first))
    }

    /// The next draw, over all of `u64`.
    pub fn draw(&self) -> u64 {
        let next = self.0.get().wrapping_add(GOLDEN_SECTION);
        self.0.set(next);
        next
    }
}

/// What becomes of a request. Positions are those in its route.
#[derive(Clone, Debug)]
pub enum Decision {
    /// No route is attached: to the service's own endpoints.
    Default,
    /// To a backend of a rule.
    Backend { rule: usize, backend: usize },
    /// Answered at once, as a filter of the rule says.
    Answer {
        rule: usize,
        response: Box<ResponseHead>,
    },
}

/// Why a request goes nowhere, and which rule said so, if one did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    pub rule: Option<usize>,
    pub fault: Fault,
}

/// Takes the first rule that matches (the rules come in the order of Gateway API's precedence) and
/// one of its backends by weight. [`Rules`](crate::model::Rules) leaves out rules that can't match;
/// which of the others does is decided here. `random` is uniform over all of `u64`.
pub fn decide(route: &Route, head: &RequestHead, random: u64) -> Result<Decision, Refused> {
    if route.rules.is_empty() {
        return Ok(Decision::Default);
    }
    let Some(position) = route.rules.first(head, |rule| matches(&rule.matches, head)) else {
        return Err(Refused {
            rule: None,
            fault: Fault::NoRoute,
        });
    };
    let rule = &route.rules[position];
    let answered = |filters: &[Filter]| answered(filters, rule, head, route.name.port());
    if let Some(response) = answered(&rule.filters) {
        return Ok(Decision::Answer {
            rule: position,
            response: Box::new(response),
        });
    }
    let backend = pick_backend(&rule.backends, random).map_err(|fault| Refused {
        rule: Some(position),
        fault,
    })?;
    Ok(match answered(&rule.backends[backend].filters) {
        Some(response) => Decision::Answer {
            rule: position,
            response: Box::new(response),
        },
        None => Decision::Backend {
            rule: position,
            backend,
        },
    })
}

/// The mirrors among filters that this request goes to.
pub fn mirrors<'f>(
    filters: impl Iterator<Item = &'f Filter>,
    random: &mut impl Rng,
) -> Vec<&'f Mirror> {
    let mirrors = filters.filter_map(|filter| match filter {
        Filter::Mirror(mirror) if mirror.invalid.is_none() => Some(mirror),
        _ => None,
    });
    mirrors
        .filter(|mirror| random.random_range(0..mirror.denominator) < mirror.numerator)
        .collect()
}

/// The answer that a redirect or a preflight gets without any backend.
fn answered(
    filters: &[Filter],
    rule: &Rule,
    head: &RequestHead,
    port: u16,
) -> Option<ResponseHead> {
    filters.iter().find_map(|filter| match filter {
        Filter::Redirect(redirect) => Some(filters::redirected(redirect, rule, head, port)),
        Filter::Cors(cors) => cors::preflight(cors, head),
        _ => None,
    })
}

/// Each backend gets its weight's share, the invalid ones too: theirs is answered with 500
/// (Gateway API, HTTPRouteRule.backendRefs). `random` as for [`decide`].
pub fn pick_backend(backends: &[WeightedCluster], random: u64) -> Result<usize, Fault> {
    let total: u64 = backends
        .iter()
        .map(|backend| u64::from(backend.weight))
        .sum();
    if total == 0 {
        return Err(Fault::BackendInvalid);
    }
    // A draw's place within all draws is its place within all weights.
    let mut point = ((u128::from(random) * u128::from(total)) >> 64) as u64;
    for (position, backend) in backends.iter().enumerate() {
        let weight = u64::from(backend.weight);
        if point < weight {
            return match backend.invalid {
                None => Ok(position),
                Some(_) => Err(Fault::BackendInvalid),
            };
        }
        point -= weight;
    }
    Err(Fault::BackendInvalid)
}

/// The first rule that takes a TLS connection to this server name (RFC 6066 3).
pub fn find_tls<'r>(rules: &'r [TlsRule], server_name: Option<&str>) -> Option<&'r TlsRule> {
    rules
        .iter()
        .find(|rule| match (&rule.hostname, server_name) {
            (None, _) => true,
            (Some(hostname), Some(name)) => matching::is_host(hostname, name),
            (Some(_), None) => false,
        })
}

#[cfg(test)]
mod tests;
