//! Which endpoint of a cluster takes the next request or connection: of two drawn at random the one
//! with fewer outstanding. What is known of an endpoint outlives a push, because it is kept here by
//! the endpoint's name and not in the configuration. No I/O; `now` and the random source are handed
//! in.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use rand::Rng;

use crate::model::{Cluster, Endpoint};

/// An endpoint that takes no connection is left out this long; doubled each time, up to
/// [`EJECTION_MAX`], until it serves again.
const EJECTION_MIN: Duration = Duration::from_millis(500);
/// See [`EJECTION_MIN`].
const EJECTION_MAX: Duration = Duration::from_secs(30);
/// Endpoints remembered before those are forgotten that nothing is outstanding at.
const REMEMBERED_MAX: usize = 20_000;

/// Draws for one pick before every endpoint is looked at.
const DRAWS_MAX: usize = 8;

/// The state of every endpoint that this worker has used.
#[derive(Default)]
pub struct Balancer {
    loads: RefCell<HashMap<Arc<str>, Rc<Load>, RandomState>>,
}

#[derive(Debug, Default)]
struct Load {
    outstanding: Cell<u32>,
    ejected_until: Cell<Option<Instant>>,
    failures: Cell<u32>,
}

impl Load {
    fn is_ejected(&self, now: Instant) -> bool {
        self.ejected_until.get().is_some_and(|until| now < until)
    }
}

/// An endpoint that was picked; it counts as busy until this is dropped.
#[derive(Debug)]
pub struct Picked {
    pub endpoint: Arc<Endpoint>,
    load: Rc<Load>,
}

impl Picked {
    fn new((endpoint, load): &Candidate<'_>) -> Self {
        load.outstanding.set(load.outstanding.get() + 1);
        Self {
            endpoint: (*endpoint).clone(),
            load: load.clone(),
        }
    }

    /// No connection could be made, or the wrong workload answered: leave it out for a while.
    pub fn failed(&self, now: Instant) {
        let failures = self.load.failures.get().min(16);
        self.load.failures.set(failures + 1);
        let pause = EJECTION_MIN.saturating_mul(1 << failures).min(EJECTION_MAX);
        self.load.ejected_until.set(Some(now + pause));
    }

    /// It served.
    pub fn succeeded(&self) {
        self.load.failures.set(0);
        self.load.ejected_until.set(None);
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.load.outstanding.set(self.load.outstanding.get() - 1);
    }
}

impl Balancer {
    /// Picks an endpoint of `cluster`. Those `tried` before, and those left out for now, are taken
    /// only when there is no other.
    pub fn pick(
        &self,
        cluster: &Cluster,
        tried: &[Arc<str>],
        now: Instant,
        random: &mut impl Rng,
    ) -> Option<Picked> {
        if let Some(picked) = self.pick_drawn(cluster, tried, now, random) {
            return Some(picked);
        }
        let candidates: Vec<Candidate<'_>> = {
            let usable = cluster
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.weight > 0);
            usable
                .map(|endpoint| (endpoint, self.load(&endpoint.id)))
                .collect()
        };
        let healthy = |(endpoint, load): &Candidate<'_>| {
            !tried.contains(&endpoint.id) && !load.is_ejected(now)
        };
        let untried = |(endpoint, _): &Candidate<'_>| !tried.contains(&endpoint.id);
        let chosen = choose(&candidates, healthy, random)
            .or_else(|| choose(&candidates, untried, random))
            .or_else(|| choose(&candidates, |_| true, random))?;
        Some(Picked::new(chosen))
    }

    /// Two draws from all, as long as nearly everybody is usable; then the cost of a pick doesn't grow
    /// with the cluster. Nothing when luck runs out, and everybody has to be looked at.
    fn pick_drawn(
        &self,
        cluster: &Cluster,
        tried: &[Arc<str>],
        now: Instant,
        random: &mut impl Rng,
    ) -> Option<Picked> {
        let weight = cluster.endpoints.weight();
        if weight == 0 {
            return None;
        }
        let mut first: Option<Candidate<'_>> = None;
        for _ in 0..DRAWS_MAX {
            let endpoint = cluster.endpoints.at(random.random_range(0..weight))?;
            let is_first = first
                .as_ref()
                .is_some_and(|(first, _)| Arc::ptr_eq(first, endpoint));
            if is_first || tried.contains(&endpoint.id) {
                continue;
            }
            let load = self.load(&endpoint.id);
            if load.is_ejected(now) {
                continue;
            }
            let drawn = (endpoint, load);
            match &first {
                None if cluster.endpoints.len() == 1 => return Some(Picked::new(&drawn)),
                None => first = Some(drawn),
                Some(first) => return Some(Picked::new(less_busy(first, &drawn))),
            }
        }
        None
    }

    /// Requests and connections outstanding at an endpoint, from this worker.
    pub fn outstanding(&self, id: &str) -> u32 {
        let loads = self.loads.borrow();
        loads.get(id).map_or(0, |load| load.outstanding.get())
    }

    /// Whether an endpoint is left out for now.
    pub fn is_ejected(&self, id: &str, now: Instant) -> bool {
        let loads = self.loads.borrow();
        loads.get(id).is_some_and(|load| load.is_ejected(now))
    }

    fn load(&self, id: &Arc<str>) -> Rc<Load> {
        let mut loads = self.loads.borrow_mut();
        if let Some(load) = loads.get(id) {
            return load.clone();
        }
        if loads.len() >= REMEMBERED_MAX {
            loads.retain(|_, load| load.outstanding.get() > 0);
        }
        loads.entry(id.clone()).or_default().clone()
    }
}

/// An endpoint with what is known of it.
type Candidate<'c> = (&'c Arc<Endpoint>, Rc<Load>);

/// Of two eligible candidates, drawn by weight, the less busy in proportion to its weight.
fn choose<'l, 'c>(
    candidates: &'l [Candidate<'c>],
    eligible: impl Fn(&Candidate<'c>) -> bool,
    random: &mut impl Rng,
) -> Option<&'l Candidate<'c>> {
    let eligible: Vec<&Candidate<'c>> = candidates
        .iter()
        .filter(|candidate| eligible(candidate))
        .collect();
    if eligible.len() < 2 {
        return eligible.first().copied();
    }
    let first = draw(&eligible, random);
    let mut second = draw(&eligible, random);
    if second == first {
        second = (first + random.random_range(1..eligible.len())) % eligible.len();
    }
    Some(less_busy(eligible[first], eligible[second]))
}

/// The one with fewer outstanding in proportion to its weight.
fn less_busy<'l, 'c>(a: &'l Candidate<'c>, b: &'l Candidate<'c>) -> &'l Candidate<'c> {
    // busy/weight against busy/weight, cross-multiplied so that no division rounds.
    let busy = |(_, load): &Candidate<'c>, other: &Candidate<'c>| {
        (u64::from(load.outstanding.get()) + 1) * u64::from(other.0.weight)
    };
    if busy(b, a) < busy(a, b) { b } else { a }
}

/// An index, drawn by weight; `eligible` isn't empty and all weights are above 0.
fn draw(eligible: &[&Candidate<'_>], random: &mut impl Rng) -> usize {
    let total: u64 = eligible
        .iter()
        .map(|(endpoint, _)| u64::from(endpoint.weight))
        .sum();
    let mut point = random.random_range(0..total);
    for (index, (endpoint, _)) in eligible.iter().enumerate() {
        let weight = u64::from(endpoint.weight);
        if point < weight {
            return index;
        }
        point -= weight;
    }
    0
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    fn cluster(weights: &[u32]) -> Cluster {
        let endpoint = |(index, weight): (usize, &u32)| {
            Arc::new(Endpoint {
                id: format!("e{index}").into(),
                address: format!("127.0.0.1:{}", 1000 + index).parse().unwrap(),
                weight: *weight,
                zone: "".into(),
                workload: "".into(),
                namespace: "".into(),
                sidecar: None,
            })
        };
        let endpoints = weights.iter().enumerate().map(endpoint).collect();
        Cluster {
            name: "shop/s:80".parse().unwrap(),
            protocol: None,
            tls: None,
            endpoints,
        }
    }

    /// Shares of 10,000 picks in percent, `held` of them outstanding at a time.
    fn shares(
        balancer: &Balancer,
        cluster: &Cluster,
        tried: &[Arc<str>],
        now: Instant,
        held: usize,
    ) -> Vec<u32> {
        let mut random = StdRng::seed_from_u64(7);
        let mut counts = vec![0u32; cluster.endpoints.len()];
        let mut holding = std::collections::VecDeque::new();
        for _ in 0..10_000 {
            let Some(picked) = balancer.pick(cluster, tried, now, &mut random) else {
                return counts;
            };
            counts[picked.endpoint.id[1..].parse::<usize>().unwrap()] += 1;
            holding.push_back(picked);
            if holding.len() > held {
                holding.pop_front();
            }
        }
        counts.iter().map(|count| (count + 50) / 100).collect()
    }

    #[test]
    fn spreads_evenly_and_by_weight() {
        let now = Instant::now();
        let check = |weights: &[u32], held: usize, expect: &[u32]| {
            let seen = shares(&Balancer::default(), &cluster(weights), &[], now, held);
            let near = seen
                .iter()
                .zip(expect)
                .all(|(seen, expect)| seen.abs_diff(*expect) <= 2);
            assert!(
                near,
                "{weights:?} holding {held}: {seen:?}, expected {expect:?}"
            );
        };
        check(&[1], 3, &[100]);
        check(&[1, 1, 1, 1], 8, &[25, 25, 25, 25]);
        check(&[3, 1], 40, &[75, 25]);
        check(&[1, 0, 1], 8, &[50, 0, 50]);
        check(&[0], 8, &[0]);
    }

    #[test]
    fn avoids_the_busy_the_tried_and_the_failed_while_it_can() {
        let now = Instant::now();
        let (balancer, cluster) = (Balancer::default(), cluster(&[1, 1, 1]));
        let mut random = StdRng::seed_from_u64(1);
        let busy: Vec<Picked> = (0..30)
            .filter_map(|_| balancer.pick(&cluster, &["e1".into(), "e2".into()], now, &mut random))
            .collect();
        assert_eq!(balancer.outstanding("e0"), 30);
        let seen = shares(&balancer, &cluster, &[], now, 0);
        assert_eq!(seen[0], 0, "{seen:?}");
        drop(busy);
        assert_eq!(balancer.outstanding("e0"), 0);

        let failed = balancer
            .pick(&cluster, &["e1".into(), "e2".into()], now, &mut random)
            .unwrap();
        failed.failed(now);
        drop(failed);
        assert_eq!(shares(&balancer, &cluster, &[], now, 0)[0], 0);
        let later = now + EJECTION_MIN;
        assert!(shares(&balancer, &cluster, &[], later, 0)[0] > 20);
        let all_tried: Vec<Arc<str>> = vec!["e0".into(), "e1".into(), "e2".into()];
        assert!(shares(&balancer, &cluster, &all_tried, now, 0)[1] > 20);
    }

    #[test]
    fn forgets_what_is_idle_when_too_many_are_remembered() {
        let now = Instant::now();
        let balancer = Balancer::default();
        let mut random = StdRng::seed_from_u64(1);
        let busy = balancer.pick(&cluster(&[1]), &[], now, &mut random);
        for number in 0..REMEMBERED_MAX {
            balancer.load(&format!("gone{number}").into());
        }
        assert!(balancer.loads.borrow().len() < 3);
        assert_eq!(balancer.outstanding("e0"), 1);
        drop(busy);
    }
}
