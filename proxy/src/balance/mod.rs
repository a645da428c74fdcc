//! Which endpoint of a cluster takes the next request or connection, and how much may be on its way. What
//! is known of an endpoint or a cluster outlives a push, because it is kept here by name and not in the
//! configuration. No I/O; `now` and the random source are handed in.

mod breaker;
mod budget;
mod cluster;
mod hash;
mod latencies;
mod load;
mod outliers;
mod survey;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use rand::Rng;

pub use breaker::{Admission, Admitted, Waiting};
pub use hash::{endpoint_hash, key_hash};

use self::cluster::{ClusterState, Turns};
use self::load::Load;
use self::survey::Zone;
use crate::model::{Balancing, Cluster, Endpoint, ServicePort};

/// Endpoints remembered before those are forgotten that nothing is outstanding at.
const REMEMBERED_MAX: usize = 20_000;
/// Clusters remembered before those are forgotten that nothing is on its way to.
const CLUSTERS_MAX: usize = 10_000;

/// Draws for one pick before every endpoint is looked at.
const DRAWS_MAX: usize = 8;

/// Entries of a hash table that are looked at for an endpoint that can be used.
const HASH_STEPS_MAX: usize = 1024;
/// Seconds that no latency is better than: among endpoints this fast the outstanding requests decide.
const LATENCY_FLOOR: f64 = 0.000_1;

/// The state of every endpoint and cluster that this worker has used.
pub struct Balancer {
    loads: Loads,
    clusters: RefCell<HashMap<ServicePort, Rc<ClusterState>, RandomState>>,
    /// The one that was asked for last, which mostly is the next one too.
    last: RefCell<Option<Rc<Balanced>>>,
    workers: u32,
    /// Our own; empty when unknown.
    zone: Arc<str>,
}

/// Endpoints by ID.
#[derive(Default)]
struct Loads(RefCell<HashMap<Arc<str>, Rc<Load>, RandomState>>);

impl Loads {
    fn get(&self, id: &str) -> Option<Rc<Load>> {
        self.0.borrow().get(id).cloned()
    }

    fn get_or_new(&self, id: &Arc<str>, now: Instant) -> Rc<Load> {
        let mut loads = self.0.borrow_mut();
        if let Some(load) = loads.get(id) {
            return load.clone();
        }
        if loads.len() >= REMEMBERED_MAX {
            loads.retain(|_, load| load.outstanding.get() > 0);
        }
        let load = Rc::new(Load::new(now));
        loads.entry(id.clone()).or_insert(load).clone()
    }
}

/// What is asked of a pick.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted<'w> {
    /// Endpoints that were tried before: taken again only when there is no other.
    pub tried: &'w [Arc<str>],
    /// The hash of what says where the request goes, where the cluster goes by that.
    pub key: Option<u64>,
    /// The endpoint that a session is bound to.
    pub session: Option<&'w Arc<str>>,
}

/// A version of a cluster, and what is known of the cluster.
#[derive(Debug)]
struct Balanced {
    cluster: Arc<Cluster>,
    state: Rc<ClusterState>,
}

/// An endpoint that was picked; it counts as busy until this is dropped.
#[derive(Debug)]
pub struct Picked {
    pub endpoint: Arc<Endpoint>,
    load: Rc<Load>,
    /// What it was picked of. It is shared by all that were, as a share of the cluster's own is shared by all workers:
    /// this is on every request's way.
    of: Rc<Balanced>,
}

/// How a request went at its endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Until the answer's head; nothing is learnt of it where it wasn't measured.
    pub latency: Option<Duration>,
    /// It says that the endpoint is in trouble.
    pub failed: bool,
    /// The endpoint asked to be left alone this long.
    pub pause: Option<Duration>,
}

impl Picked {
    fn new((endpoint, load): &Candidate<'_>, of: &Rc<Balanced>) -> Self {
        load.outstanding.set(load.outstanding.get() + 1);
        Self {
            endpoint: (*endpoint).clone(),
            load: load.clone(),
            of: of.clone(),
        }
    }

    /// No connection could be made, or the wrong workload answered: leave it out for a while.
    pub fn refused(&self, now: Instant) {
        self.load.refused(now);
    }

    /// The connection was made, and nothing is known of how it serves.
    pub fn reached(&self) {
        self.load.reached();
    }

    /// Whether it makes a difference how long it takes to answer. What nobody asks for is not measured: this is
    /// on every request's way.
    pub fn is_timed(&self) -> bool {
        let policy = &self.of.cluster.policy;
        policy.balancing == Balancing::PeakEwma
            || policy.outliers.compares()
            || policy.hedging.is_some()
    }

    /// It answered. `now` is asked only where it matters when.
    pub fn answered(&self, answered: Answered, now: impl FnOnce() -> Instant) {
        self.load.reached();
        if !answered.failed {
            self.load.failures.set(0);
        }
        if answered.latency.is_none() && !answered.failed && answered.pause.is_none() {
            return;
        }
        let (now, policy) = (now(), &self.of.cluster.policy);
        if let Some(latency) = answered.latency {
            if policy.balancing == Balancing::PeakEwma {
                self.load.learn(latency, now);
            }
            if policy.outliers.compares() {
                self.load.count(latency, answered.failed);
            }
            if policy.hedging.is_some() {
                self.of.state.latencies.add(latency);
            }
        }
        if answered.failed {
            self.failed(now);
        }
        if let Some(pause) = answered.pause {
            self.load.pause(pause, now);
            self.of.state.trouble();
        }
    }

    /// Another endpoint answered the same request before, so that nobody knows how long it would have taken.
    pub fn outpaced(&self, waited: Duration, now: Instant) {
        let policy = &self.of.cluster.policy;
        if policy.balancing == Balancing::PeakEwma {
            self.load.learn(waited, now);
        }
        if policy.outliers.compares() {
            self.load.count(waited, false);
        }
    }

    /// When a second attempt at a request begins, where the cluster asks for that and enough is known.
    pub fn hedge_after(&self) -> Option<Duration> {
        let hedging = self.of.cluster.policy.hedging?;
        let usual = self.of.state.latencies.percentile(hedging.percentile)?;
        Some(usual.max(hedging.min_delay))
    }

    /// It broke off, or did not answer in time.
    pub fn failed(&self, now: Instant) {
        let failures = self.load.failures.get() + 1;
        self.load.failures.set(failures);
        let policy = &self.of.cluster.policy.outliers;
        if policy.consecutive_failures > 0 && failures >= policy.consecutive_failures {
            let one = (&self.endpoint.id, &*self.load);
            let endpoints = self.of.cluster.endpoints.len();
            self.of.state.outliers.eject(policy, one, endpoints, now);
            self.of.state.trouble();
        }
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.load.outstanding.set(self.load.outstanding.get() - 1);
    }
}

impl Balancer {
    /// For one of `workers` workers, which share what is allowed together, of a workload in `zone`.
    pub fn new(workers: usize, zone: Arc<str>) -> Self {
        Self {
            loads: Loads::default(),
            clusters: RefCell::default(),
            last: RefCell::default(),
            workers: u32::try_from(workers.max(1)).unwrap_or(u32::MAX),
            zone,
        }
    }

    /// Picks an endpoint of `cluster`. Those tried before, and those left out for now, are taken only when
    /// there is no other.
    pub fn pick(
        &self,
        cluster: &Arc<Cluster>,
        wanted: Wanted<'_>,
        now: Instant,
        random: &mut impl Rng,
    ) -> Option<Picked> {
        let of = self.balanced(cluster, now);
        let state = &of.state;
        if state.outliers.compare(cluster, &self.loads, now) {
            state.trouble();
        }
        let survey = state.survey(cluster, &self.loads, &self.zone, now);
        let panics = survey.as_ref().is_some_and(|survey| survey.panics);
        let usable = |endpoint: &Arc<Endpoint>| {
            let load = self.loads.get_or_new(&endpoint.id, now);
            let usable = endpoint.weight > 0
                && !wanted.tried.contains(&endpoint.id)
                && !load.is_left_out(now, panics);
            usable.then_some(load)
        };
        let picked =
            |endpoint: &Arc<Endpoint>, load: Rc<Load>| Some(Picked::new(&(endpoint, load), &of));
        if let Some(id) = wanted.session
            && let Some(endpoint) = cluster.endpoints.get(id)
            && let Some(load) = usable(endpoint)
        {
            return picked(endpoint, load);
        }
        // A key keeps its endpoint, wherever that is.
        let by_key = matches!(cluster.policy.balancing, Balancing::ConsistentHash(_));
        let zone = survey.as_ref().filter(|_| !by_key || wanted.key.is_none());
        let zone = zone.and_then(|survey| survey.zone(random));
        let pool = match &zone {
            Some((zones, index)) => Pool::Zone(&zones[*index]),
            None => Pool::All(cluster, &state.turns),
        };
        match (&cluster.policy.balancing, wanted.key) {
            (Balancing::ConsistentHash(_), Some(key)) => {
                let table = state.table(cluster);
                for endpoint in table.of(key).take(HASH_STEPS_MAX) {
                    if let Some(load) = usable(endpoint) {
                        return picked(endpoint, load);
                    }
                }
            }
            (Balancing::RoundRobin, _) => {
                for _ in 0..DRAWS_MAX {
                    let point = pool.turns().next(pool.weight(), random)?;
                    let endpoint = pool.at(point)?;
                    if let Some(load) = usable(endpoint) {
                        return picked(endpoint, load);
                    }
                }
            }
            _ => {
                let drawn = self.draw_two(&pool, cluster, (wanted, panics), now, random);
                if let Some(drawn) = drawn {
                    return Some(Picked::new(&drawn, &of));
                }
            }
        }
        let balancing = &cluster.policy.balancing;
        let of_zone = zone.as_ref().and_then(|(zones, index)| {
            let here = self.candidates(zones[*index].endpoints().iter(), now);
            let well = |(endpoint, load): &Candidate<'_>| {
                !wanted.tried.contains(&endpoint.id) && !load.is_left_out(now, panics)
            };
            let chosen = choose(&here, &well, balancing, now, random)?;
            Some(Picked::new(&chosen, &of))
        });
        of_zone.or_else(|| {
            let chosen = self.pick_from_all(cluster, (wanted, panics), now, random)?;
            Some(Picked::new(&chosen, &of))
        })
    }

    /// Two draws from all, as long as nearly everybody is usable; then the cost of a pick doesn't grow
    /// with the cluster. Nothing when luck runs out, and everybody has to be looked at.
    fn draw_two<'c>(
        &self,
        pool: &Pool<'c>,
        cluster: &Cluster,
        (wanted, panics): (Wanted<'_>, bool),
        now: Instant,
        random: &mut impl Rng,
    ) -> Option<Candidate<'c>> {
        let weight = pool.weight();
        if weight == 0 {
            return None;
        }
        let slow_start = cluster.policy.slow_start;
        let mut first: Option<Candidate<'_>> = None;
        for _ in 0..DRAWS_MAX {
            let endpoint = pool.at(random.random_range(0..weight))?;
            let is_first = first
                .as_ref()
                .is_some_and(|(first, _)| Arc::ptr_eq(first, endpoint));
            if is_first || wanted.tried.contains(&endpoint.id) {
                continue;
            }
            let load = self.loads.get_or_new(&endpoint.id, now);
            if load.is_left_out(now, panics) {
                continue;
            }
            if !slow_start.is_zero() && !random.random_bool(load.share(slow_start, now)) {
                continue;
            }
            let drawn = (endpoint, load);
            match first {
                None if pool.len() == 1 => return Some(drawn),
                None => first = Some(drawn),
                Some(first) => return Some(better(first, drawn, &cluster.policy.balancing, now)),
            }
        }
        None
    }

    fn pick_from_all<'c>(
        &self,
        cluster: &'c Cluster,
        (wanted, panics): (Wanted<'_>, bool),
        now: Instant,
        random: &mut impl Rng,
    ) -> Option<Candidate<'c>> {
        let candidates = self.candidates(cluster.endpoints.iter(), now);
        let untried = |(endpoint, _): &Candidate<'_>| !wanted.tried.contains(&endpoint.id);
        let healthy = |one: &Candidate<'_>| untried(one) && !one.1.is_left_out(now, panics);
        let mut choose = |eligible: &dyn Fn(&Candidate<'_>) -> bool| {
            choose(
                &candidates,
                eligible,
                &cluster.policy.balancing,
                now,
                random,
            )
        };
        choose(&healthy)
            .or_else(|| choose(&untried))
            .or_else(|| choose(&|_| true))
    }

    /// Those that take traffic, with what is known of them.
    fn candidates<'c>(
        &self,
        endpoints: impl Iterator<Item = &'c Arc<Endpoint>>,
        now: Instant,
    ) -> Vec<Candidate<'c>> {
        let usable = endpoints.filter(|endpoint| endpoint.weight > 0);
        usable
            .map(|endpoint| (endpoint, self.loads.get_or_new(&endpoint.id, now)))
            .collect()
    }

    /// Whether any endpoint is left that was not tried.
    pub fn has_untried(&self, cluster: &Cluster, tried: &[Arc<str>]) -> bool {
        let weighing = cluster.endpoints.iter().filter(|one| one.weight > 0);
        let mut untried = weighing.filter(|endpoint| !tried.contains(&endpoint.id));
        untried.next().is_some()
    }

    /// The endpoint of a cluster that a client names by [`endpoint_hash`].
    pub fn named(&self, cluster: &Arc<Cluster>, hash: u64, now: Instant) -> Option<Arc<str>> {
        self.balanced(cluster, now).state.named(cluster, hash)
    }

    /// Asks for room for one more request to a cluster. One that is admitted counts for the retry budget; one that
    /// waits does so once it [has waited](Self::has_waited).
    pub fn admit_request(&self, cluster: &Arc<Cluster>, now: Instant) -> Admission {
        let state = &self.balanced(cluster, now).state;
        let breaker = &cluster.policy.breaker;
        let most = breaker.requests_max.div_ceil(self.workers);
        let pending = breaker.pending_max.div_ceil(self.workers);
        let admission = state.requests.admit(most, pending);
        if matches!(admission, Admission::Admitted(_)) {
            state.budget.request(&cluster.policy.budget, now);
        }
        admission
    }

    /// Counts a request that was admitted after it had waited for room.
    pub fn has_waited(&self, cluster: &Arc<Cluster>, now: Instant) {
        let state = &self.balanced(cluster, now).state;
        state.budget.request(&cluster.policy.budget, now);
    }

    /// Asks for room for one more TCP connection to a cluster; none waits for it.
    pub fn admit_connection(&self, cluster: &Arc<Cluster>, now: Instant) -> Option<Admitted> {
        let state = &self.balanced(cluster, now).state;
        let most = cluster.policy.breaker.connections_max;
        match state.connections.admit(most.div_ceil(self.workers), 0) {
            Admission::Admitted(admitted) => Some(admitted),
            Admission::Waits(_) | Admission::Refused => None,
        }
    }

    /// Takes one repetition of the cluster's budget, if there is one left.
    pub fn may_repeat(&self, cluster: &Arc<Cluster>, now: Instant) -> bool {
        let state = &self.balanced(cluster, now).state;
        state.budget.take(&cluster.policy.budget, self.workers, now)
    }

    /// The endpoints of a cluster, at most `most`, that are to be asked now how they are; they count as asked.
    pub fn due_checks(
        &self,
        cluster: &Arc<Cluster>,
        most: usize,
        now: Instant,
        random: &mut impl Rng,
    ) -> Vec<Arc<Endpoint>> {
        let Some(policy) = &cluster.policy.health_check else {
            return Vec::new();
        };
        let endpoints = cluster.endpoints.iter().filter(|one| one.weight > 0);
        let due = endpoints.filter(|endpoint| {
            let load = self.loads.get_or_new(&endpoint.id, now);
            // The first ones are spread, so that proxies that start together don't ask together.
            load.is_check_due(now + policy.interval.mul_f64(random.random()), now)
        });
        due.take(most).cloned().collect()
    }

    /// An endpoint answered a check, or did not.
    pub fn checked(&self, cluster: &Arc<Cluster>, id: &Arc<str>, passed: bool, now: Instant) {
        let Some(policy) = &cluster.policy.health_check else {
            return;
        };
        self.loads.get_or_new(id, now).checked(passed, policy, now);
        self.balanced(cluster, now).state.trouble();
    }

    /// Nobody asks the endpoints of a cluster any more how they are.
    pub fn forget_checks(&self, cluster: &Cluster) {
        for endpoint in cluster.endpoints.iter() {
            if let Some(load) = self.loads.get(&endpoint.id) {
                load.forget_checks();
            }
        }
    }

    /// Whether health checks say that an endpoint doesn't serve.
    pub fn is_unhealthy(&self, id: &str) -> bool {
        let load = self.loads.get(id);
        load.is_some_and(|load| load.is_unhealthy())
    }

    /// Requests and connections outstanding at an endpoint, from this worker.
    pub fn outstanding(&self, id: &str) -> u32 {
        let load = self.loads.get(id);
        load.map_or(0, |load| load.outstanding.get())
    }

    /// Whether an endpoint is left out for now.
    pub fn is_ejected(&self, id: &str, now: Instant) -> bool {
        let load = self.loads.get(id);
        load.is_some_and(|load| load.is_left_out(now, false))
    }

    fn balanced(&self, cluster: &Arc<Cluster>, now: Instant) -> Rc<Balanced> {
        let mut last = self.last.borrow_mut();
        if let Some(last) = &*last
            && Arc::ptr_eq(&last.cluster, cluster)
        {
            return last.clone();
        }
        let balanced = Balanced {
            cluster: cluster.clone(),
            state: self.find_state(cluster, now),
        };
        last.insert(Rc::new(balanced)).clone()
    }

    fn find_state(&self, cluster: &Cluster, now: Instant) -> Rc<ClusterState> {
        let mut clusters = self.clusters.borrow_mut();
        if let Some(state) = clusters.get(&cluster.name) {
            return state.clone();
        }
        if clusters.len() >= CLUSTERS_MAX {
            clusters.retain(|_, state| state.is_busy());
        }
        let state = Rc::new(ClusterState::new(now));
        clusters.insert(cluster.name.clone(), state.clone());
        state
    }
}

/// Whom two are drawn from.
enum Pool<'c> {
    All(&'c Cluster, &'c Turns),
    Zone(&'c Zone),
}

impl<'c> Pool<'c> {
    fn weight(&self) -> u64 {
        match self {
            Self::All(cluster, _) => cluster.endpoints.weight(),
            Self::Zone(zone) => zone.weight(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::All(cluster, _) => cluster.endpoints.len(),
            Self::Zone(zone) => zone.len(),
        }
    }

    /// The endpoint on whose share `point` falls.
    fn at(&self, point: u64) -> Option<&'c Arc<Endpoint>> {
        match self {
            Self::All(cluster, _) => cluster.endpoints.at(point),
            Self::Zone(zone) => zone.at(point),
        }
    }

    fn turns(&self) -> &'c Turns {
        match self {
            Self::All(_, turns) => turns,
            Self::Zone(zone) => &zone.turns,
        }
    }
}

/// An endpoint with what is known of it.
type Candidate<'c> = (&'c Arc<Endpoint>, Rc<Load>);

/// Of two eligible candidates, drawn by weight, the better one.
fn choose<'c>(
    candidates: &[Candidate<'c>],
    eligible: &dyn Fn(&Candidate<'_>) -> bool,
    balancing: &Balancing,
    now: Instant,
    random: &mut impl Rng,
) -> Option<Candidate<'c>> {
    let eligible: Vec<&Candidate<'c>> = candidates
        .iter()
        .filter(|candidate| eligible(candidate))
        .collect();
    if eligible.len() < 2 {
        return eligible.first().map(|one| (*one).clone());
    }
    let first = draw(&eligible, random);
    let mut second = draw(&eligible, random);
    if second == first {
        second = (first + random.random_range(1..eligible.len())) % eligible.len();
    }
    let (first, second) = (eligible[first].clone(), eligible[second].clone());
    Some(better(first, second, balancing, now))
}

/// The one that is expected to answer first, in proportion to its weight; the first where they are equal.
fn better<'c>(
    a: Candidate<'c>,
    b: Candidate<'c>,
    balancing: &Balancing,
    now: Instant,
) -> Candidate<'c> {
    let cost = |(endpoint, load): &Candidate<'_>| {
        let busy = (f64::from(load.outstanding.get()) + 1.0) / f64::from(endpoint.weight.max(1));
        match balancing {
            // An endpoint that has not answered yet is as good as any, until it is busy.
            Balancing::PeakEwma => busy * (load.latency(now) + LATENCY_FLOOR),
            _ => busy,
        }
    };
    if cost(&b) < cost(&a) { b } else { a }
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
