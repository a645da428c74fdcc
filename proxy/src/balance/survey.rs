//! How the endpoints of a cluster are, all together: whether so few are well that nobody is left out, and how much
//! of our own zone's share its endpoints can serve.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::Rng;

use super::Loads;
use super::cluster::Turns;
use crate::model::{Cluster, Endpoint, Locality};

/// How often the endpoints are looked at.
const EVERY: Duration = Duration::from_millis(200);

/// What was seen of one version of a cluster.
#[derive(Debug)]
pub(super) struct Survey {
    cluster: Arc<Cluster>,
    at: Instant,
    /// Endpoints that are only thought to be ill are asked all the same.
    pub panics: bool,
    /// Whether anybody is thought to be ill.
    pub is_troubled: bool,
    zones: Option<Rc<[Zone]>>,
    /// Of each zone, together 1.
    shares: Vec<f64>,
}

/// The endpoints of one zone.
#[derive(Debug)]
pub(super) struct Zone {
    name: Arc<str>,
    endpoints: Vec<Arc<Endpoint>>,
    /// For each endpoint its weight and that of those before it.
    sums: Vec<u64>,
    pub turns: Turns,
}

impl Zone {
    pub(super) fn weight(&self) -> u64 {
        self.sums.last().copied().unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.endpoints.len()
    }

    pub(super) fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The endpoint on whose share `point` falls, which lies below [`Self::weight`].
    pub(super) fn at(&self, point: u64) -> Option<&Arc<Endpoint>> {
        let index = self.sums.partition_point(|sum| *sum <= point);
        self.endpoints.get(index)
    }
}

impl Survey {
    /// Looks at a cluster; `before` is what was seen the last time.
    pub(super) fn new(
        cluster: &Arc<Cluster>,
        before: Option<&Survey>,
        loads: &Loads,
        own: &str,
        now: Instant,
    ) -> Self {
        let same = before.filter(|before| Arc::ptr_eq(&before.cluster, cluster));
        let zones = match same {
            Some(before) => before.zones.clone(),
            None => zones(cluster, own),
        };
        let is_ill = |endpoint: &Arc<Endpoint>| {
            let load = loads.get(&endpoint.id);
            load.is_some_and(|load| load.is_ill(now))
        };
        let weighing = cluster.endpoints.iter().filter(|one| one.weight > 0);
        let (mut all, mut ill) = (0_u64, 0_u64);
        for endpoint in weighing {
            all += 1;
            ill += u64::from(is_ill(endpoint));
        }
        let panics = (all - ill) * 100 < all * u64::from(cluster.policy.panic_percent);
        let is_out = |endpoint: &Arc<Endpoint>| {
            let load = loads.get(&endpoint.id);
            load.is_some_and(|load| load.is_left_out(now, panics))
        };
        let shares = zones.as_deref().map(|zones| {
            let well = zones.iter().map(|zone| {
                let well = zone.endpoints.iter().filter(|endpoint| !is_out(endpoint));
                well.map(|endpoint| f64::from(endpoint.weight)).sum()
            });
            let own = zones.iter().position(|zone| *zone.name == *own);
            shares(&well.collect::<Vec<f64>>(), own.unwrap_or_default())
        });
        Self {
            cluster: cluster.clone(),
            at: now,
            panics,
            is_troubled: ill > 0,
            zones,
            shares: shares.unwrap_or_default(),
        }
    }

    /// Whether it still holds.
    pub(super) fn is_fresh(&self, cluster: &Arc<Cluster>, now: Instant) -> bool {
        // Without zones and without trouble there is nothing to be seen that a push doesn't bring.
        let is_idle = self.zones.is_none() && !self.is_troubled;
        let holds = is_idle || now.saturating_duration_since(self.at) < EVERY;
        holds && Arc::ptr_eq(&self.cluster, cluster)
    }

    /// The zone that takes the next request; nothing where zones don't matter.
    pub(super) fn zone(&self, random: &mut impl Rng) -> Option<(Rc<[Zone]>, usize)> {
        let zones = self.zones.clone()?;
        let mut point = random.random::<f64>();
        for (index, share) in self.shares.iter().enumerate() {
            if point < *share {
                return Some((zones, index));
            }
            point -= share;
        }
        None
    }
}

/// The endpoints by zone, where that matters: each has one, ours is among them, and there are others.
fn zones(cluster: &Cluster, own: &str) -> Option<Rc<[Zone]>> {
    if own.is_empty() || cluster.policy.locality == Locality::AnyZone {
        return None;
    }
    let mut zones: Vec<Zone> = Vec::new();
    for endpoint in cluster.endpoints.iter().filter(|one| one.weight > 0) {
        if endpoint.zone.is_empty() {
            return None;
        }
        let known = zones.iter().position(|zone| zone.name == endpoint.zone);
        let zone = known.unwrap_or_else(|| {
            zones.push(Zone {
                name: endpoint.zone.clone(),
                endpoints: Vec::new(),
                sums: Vec::new(),
                turns: Turns::default(),
            });
            zones.len() - 1
        });
        let zone = &mut zones[zone];
        let sum = zone.weight() + u64::from(endpoint.weight);
        zone.endpoints.push(endpoint.clone());
        zone.sums.push(sum);
    }
    let matters = zones.len() > 1 && zones.iter().any(|zone| *zone.name == *own);
    matters.then(|| zones.into())
}

/// How the requests of zone `own` are shared among the zones, whose endpoints that are well weigh `well`.
///
/// Callers are taken to be spread evenly over the zones. A zone with its even part of all that is well keeps its
/// requests to itself. One with less keeps what its endpoints can do, and the rest goes to zones with more than
/// their part, in proportion to what they have too much: so that every endpoint has the same to do in the end.
fn shares(well: &[f64], own: usize) -> Vec<f64> {
    let all: f64 = well.iter().sum();
    if all <= 0.0 {
        return Vec::new();
    }
    let even = all / well.len() as f64;
    let kept = (well[own] / even).min(1.0);
    let spare: Vec<f64> = well.iter().map(|well| (well - even).max(0.0)).collect();
    let spared: f64 = spare.iter().sum();
    let mut shares: Vec<f64> = match spared > 0.0 {
        true => spare
            .iter()
            .map(|one| (1.0 - kept) * one / spared)
            .collect(),
        false => vec![0.0; well.len()],
    };
    shares[own] += kept;
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_zones() {
        let check = |well: &[f64], own: usize, expect: &[i32]| {
            let seen: Vec<i32> = shares(well, own)
                .iter()
                .map(|share| (share * 100.0).round() as i32)
                .collect();
            assert_eq!(seen, expect, "{well:?} {own}");
        };
        check(&[2.0, 2.0, 2.0], 1, &[0, 100, 0]);
        check(&[4.0, 3.0, 3.0], 0, &[100, 0, 0]);
        check(&[4.0, 3.0, 3.0], 1, &[10, 90, 0]);
        check(&[1.0, 5.0, 4.0], 0, &[30, 50, 20]);
        check(&[0.0, 3.0, 3.0], 0, &[0, 50, 50]);
        check(&[1.0, 1.0], 0, &[100, 0]);
        check(&[0.0, 0.0], 0, &[]);
    }

    /// Callers in every zone, as many in each: no endpoint has more to do than another.
    #[test]
    fn every_endpoint_has_the_same_to_do() {
        let well = [1.0, 2.0, 9.0];
        let mut load = [0.0; 3];
        for own in 0..3 {
            for (zone, share) in shares(&well, own).iter().enumerate() {
                load[zone] += share / well[zone];
            }
        }
        for one in load {
            assert!((one - 0.25_f64).abs() < 1e-9, "{load:?}");
        }
    }
}
