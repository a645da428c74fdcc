//! What a worker knows of a cluster. It outlives a push: it is kept by the cluster's name.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use foldhash::fast::RandomState;
use rand::Rng;

use super::Loads;
use super::breaker::Room;
use super::budget::Budget;
use super::hash::{Table, endpoint_hash};
use super::latencies::Latencies;
use super::outliers::Outliers;
use super::survey::Survey;
use crate::model::{Cluster, Locality};

type Names = HashMap<u64, Arc<str>, RandomState>;

pub(super) struct ClusterState {
    pub budget: Budget,
    pub outliers: Outliers,
    pub requests: Rc<Room>,
    pub connections: Rc<Room>,
    /// Looked at where requests are hedged.
    pub latencies: Latencies,
    table: OfVersion<Table>,
    /// IDs of its endpoints by their hash, where clients name them.
    names: OfVersion<Names>,
    pub turns: Turns,
    survey: RefCell<Option<Rc<Survey>>>,
    /// Somebody may have been left out since the last survey.
    troubled: Cell<bool>,
}

/// What was made of a version of the cluster; the next version's takes its place.
struct OfVersion<T>(RefCell<Option<(Arc<Cluster>, Rc<T>)>>);

impl<T> Default for OfVersion<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<T> OfVersion<T> {
    fn get(&self, cluster: &Arc<Cluster>, make: impl FnOnce(&Cluster) -> T) -> Rc<T> {
        let mut held = self.0.borrow_mut();
        if let Some((of, made)) = &*held
            && Arc::ptr_eq(of, cluster)
        {
            return made.clone();
        }
        let made = Rc::new(make(cluster));
        *held = Some((cluster.clone(), made.clone()));
        made
    }
}

/// Whose turn it is: a walk over all points that meets each once before it meets one again, and spreads
/// those of one endpoint.
#[derive(Debug, Default)]
pub(super) struct Turns(Cell<Option<Walk>>);

#[derive(Clone, Copy, Debug)]
struct Walk {
    points: u64,
    step: u64,
    next: u64,
}

impl ClusterState {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            budget: Budget::new(now),
            outliers: Outliers::new(now),
            requests: Rc::default(),
            connections: Rc::default(),
            latencies: Latencies::default(),
            table: OfVersion::default(),
            names: OfVersion::default(),
            turns: Turns::default(),
            survey: RefCell::default(),
            troubled: Cell::new(false),
        }
    }

    /// Whether something is on its way.
    pub(super) fn is_busy(&self) -> bool {
        self.requests.is_busy() || self.connections.is_busy()
    }

    pub(super) fn table(&self, cluster: &Arc<Cluster>) -> Rc<Table> {
        self.table.get(cluster, Table::new)
    }

    /// The endpoint that a client names by a hash. It is found without a look at the others: there may be ten
    /// thousand.
    pub(super) fn named(&self, cluster: &Arc<Cluster>, hash: u64) -> Option<Arc<str>> {
        let names = self.names.get(cluster, |cluster| {
            let ids = cluster.endpoints.iter().map(|endpoint| &endpoint.id);
            ids.map(|id| (endpoint_hash(id), id.clone())).collect()
        });
        names.get(&hash).cloned()
    }

    /// Somebody is left out from now on who could be reached.
    pub(super) fn trouble(&self) {
        self.troubled.set(true);
    }

    /// How the endpoints are, where that matters for a pick.
    pub(super) fn survey(
        &self,
        cluster: &Arc<Cluster>,
        loads: &Loads,
        zone: &str,
        now: Instant,
    ) -> Option<Rc<Survey>> {
        let by_zone = !zone.is_empty() && cluster.policy.locality != Locality::AnyZone;
        if !by_zone && !self.troubled.get() {
            return None;
        }
        let mut held = self.survey.borrow_mut();
        if let Some(survey) = &*held
            && survey.is_fresh(cluster, now)
            && (survey.is_troubled || !self.troubled.get())
        {
            return Some(survey.clone());
        }
        let survey = Rc::new(Survey::new(cluster, held.as_deref(), loads, zone, now));
        self.troubled.set(survey.is_troubled);
        *held = Some(survey.clone());
        Some(survey)
    }
}

impl Turns {
    /// The next of `points` points.
    pub(super) fn next(&self, points: u64, random: &mut impl Rng) -> Option<u64> {
        if points == 0 {
            return None;
        }
        let held = self.0.get().filter(|walk| walk.points == points);
        // It begins anywhere, so that the proxies don't walk in step.
        let walk = held.unwrap_or_else(|| Walk {
            points,
            step: step(points),
            next: random.random_range(0..points),
        });
        self.0.set(Some(Walk {
            next: (walk.next + walk.step) % points,
            ..walk
        }));
        Some(walk.next)
    }
}

impl fmt::Debug for ClusterState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterState").finish_non_exhaustive()
    }
}

/// Near the golden section of all points, and without a divisor in common with their number.
fn step(points: u64) -> u64 {
    let near = (points as f64 * 0.618_033_988_749_895) as u64;
    (near.max(1)..)
        .find(|step| gcd(*step, points) == 1)
        .unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
