//! Balancers against their definitions, by simulated picks.

mod zones;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;
use crate::model::{CircuitBreaker, ClusterPolicy, HashKey, OutlierDetection, RetryBudget};

fn cluster_of(weights: &[u32], policy: ClusterPolicy) -> Arc<Cluster> {
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
    Arc::new(Cluster {
        name: "shop/stock:80".parse().unwrap(),
        protocol: None,
        endpoints: weights.iter().enumerate().map(endpoint).collect(),
        tls: None,
        policy: Arc::new(policy),
    })
}

fn by(balancing: Balancing) -> ClusterPolicy {
    ClusterPolicy {
        balancing,
        ..ClusterPolicy::default()
    }
}

fn cluster(weights: &[u32]) -> Arc<Cluster> {
    cluster_of(weights, ClusterPolicy::default())
}

fn index(picked: &Picked) -> usize {
    picked.endpoint.id[1..].parse().unwrap()
}

/// Where `count` picks go, one after the other.
fn picks(
    balancer: &Balancer,
    cluster: &Arc<Cluster>,
    tried: &[Arc<str>],
    now: Instant,
    count: usize,
) -> Vec<usize> {
    let mut random = StdRng::seed_from_u64(1);
    let mut seen = vec![0; cluster.endpoints.len()];
    let wanted = Wanted {
        tried,
        ..Wanted::default()
    };
    for _ in 0..count {
        if let Some(picked) = balancer.pick(cluster, wanted, now, &mut random) {
            seen[index(&picked)] += 1;
        }
    }
    seen
}

#[test]
fn a_million_picks_by_weight() {
    let check = |balancing: Balancing, weights: &[u32], most_off: f64| {
        let cluster = cluster_of(weights, by(balancing.clone()));
        let balancer = Balancer::new(1, "".into());
        let seen = picks(&balancer, &cluster, &[], Instant::now(), 1_000_000);
        println!("{balancing:?} {weights:?}: {seen:?} of a million picks");
        let total: u32 = weights.iter().sum();
        for (index, weight) in weights.iter().enumerate() {
            let share = f64::from(*weight) / f64::from(total);
            let off = (seen[index] as f64 / 1_000_000.0 - share).abs();
            assert!(off <= most_off, "{balancing:?} {weights:?}: {seen:?}");
        }
    };
    for balancing in [Balancing::LeastRequest, Balancing::PeakEwma] {
        check(balancing.clone(), &[1], 0.0);
        check(balancing.clone(), &[1, 1, 1, 1], 0.002);
        check(balancing, &[1, 0, 1], 0.002);
    }
    // One after the other, so the last round alone can be unfinished.
    check(Balancing::RoundRobin, &[1, 1, 1], 0.000_001);
    check(Balancing::RoundRobin, &[3, 1, 0, 4], 0.000_005);
    check(Balancing::RoundRobin, &[1; 97], 0.000_001);
}

/// Requests that last: as many outstanding as weigh in all endpoints together, oldest first.
#[test]
fn a_million_requests_that_last() {
    let check = |weights: &[u32], held: usize, expect: &[usize]| {
        let cluster = cluster(weights);
        let balancer = Balancer::new(1, "".into());
        let (mut random, now) = (StdRng::seed_from_u64(2), Instant::now());
        let mut outstanding = std::collections::VecDeque::new();
        let mut seen = vec![0_usize; weights.len()];
        for _ in 0..1_000_000 {
            let picked = balancer.pick(&cluster, Wanted::default(), now, &mut random);
            let picked = picked.unwrap();
            seen[index(&picked)] += 1;
            outstanding.push_back(picked);
            if outstanding.len() > held {
                outstanding.pop_front();
            }
        }
        for (index, expect) in expect.iter().enumerate() {
            let percent = (seen[index] + 5_000) / 10_000;
            assert!(percent.abs_diff(*expect) <= 2, "{weights:?}: {seen:?}");
        }
    };
    check(&[1, 1, 1, 1], 40, &[25, 25, 25, 25]);
    check(&[3, 1], 40, &[75, 25]);
    check(&[1, 0, 1], 8, &[50, 0, 50]);
}

/// One of four endpoints needs two hundred times as long.
#[test]
fn the_slow_one_is_avoided() {
    let share = |policy: ClusterPolicy| {
        let cluster = cluster_of(&[1, 1, 1, 1], policy);
        let balancer = Balancer::new(1, "".into());
        let (mut random, start) = (StdRng::seed_from_u64(3), Instant::now());
        // Ends of requests on their way, with what was picked.
        let mut open: Vec<(Instant, Duration, Picked)> = Vec::new();
        let mut slow = 0;
        let requests = 20_000;
        for number in 0..requests {
            let now = start + Duration::from_millis(1) * number;
            let (done, rest): (Vec<_>, Vec<_>) =
                open.into_iter().partition(|(end, ..)| *end <= now);
            open = rest;
            for (end, latency, picked) in done {
                let answered = Answered {
                    latency: Some(latency),
                    failed: false,
                    pause: None,
                };
                picked.answered(answered, || end);
            }
            let picked = balancer.pick(&cluster, Wanted::default(), now, &mut random);
            let picked = picked.unwrap();
            let is_slow = index(&picked) == 3;
            slow += u32::from(is_slow && number >= requests / 4);
            let latency = Duration::from_millis(if is_slow { 400 } else { 2 });
            open.push((now + latency, latency, picked));
        }
        f64::from(slow) / f64::from(requests * 3 / 4)
    };
    let least = share(ClusterPolicy::default());
    let ewma = share(by(Balancing::PeakEwma));
    let latency = share(ClusterPolicy {
        outliers: OutlierDetection {
            latency_factor: 3.0,
            ..OutlierDetection::default()
        },
        ..ClusterPolicy::default()
    });
    // Of the requests after a quarter of the time fewer than one in a hundred may be slow.
    assert!(ewma < 0.01 && latency < 0.01, "{ewma} {latency}");
    assert!(
        least > latency,
        "least outstanding alone is not as good: {least}"
    );
}

#[test]
fn a_key_keeps_its_endpoint() {
    let keys = 100_000_u64;
    let placed = |weights: &[u32]| -> Vec<usize> {
        let policy = by(Balancing::ConsistentHash(HashKey::Source));
        let (balancer, cluster) = (Balancer::new(1, "".into()), cluster_of(weights, policy));
        let (mut random, now) = (StdRng::seed_from_u64(4), Instant::now());
        let mut place = |key: u64| {
            let wanted = Wanted {
                key: Some(key_hash(&key)),
                ..Wanted::default()
            };
            index(&balancer.pick(&cluster, wanted, now, &mut random).unwrap())
        };
        (0..keys).map(&mut place).collect()
    };
    let check = |count: usize, leaves: usize| {
        let mut weights = vec![1; count];
        let before = placed(&weights);
        assert_eq!(before, placed(&weights), "the same for the same");
        for index in 0..count {
            let share = before.iter().filter(|place| **place == index).count() as f64 / keys as f64;
            assert!((share * count as f64 - 1.0).abs() < 0.1, "{count}: {share}");
        }
        weights[leaves] = 0;
        let after = placed(&weights);
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        let most = 1.0 / count as f64 + 0.02;
        println!("one of {count} leaves: {moved} of {keys} keys move");
        assert!(moved as f64 / keys as f64 <= most, "{count}: {moved} moved");
    };
    check(2, 1);
    check(4, 0);
    check(10, 5);
    check(50, 49);
    let weighted = placed(&[3, 1]);
    let first = weighted.iter().filter(|place| **place == 0).count();
    assert!(first.abs_diff(75_000) < 1_000, "{first}");
}

#[test]
fn avoids_the_busy_the_tried_and_the_refusing_while_it_can() {
    let now = Instant::now();
    let (balancer, cluster) = (Balancer::new(1, "".into()), cluster(&[1, 1, 1]));
    let mut random = StdRng::seed_from_u64(1);
    let others: [Arc<str>; 2] = ["e1".into(), "e2".into()];
    let first = Wanted {
        tried: &others,
        ..Wanted::default()
    };
    let busy: Vec<Picked> = (0..30)
        .filter_map(|_| balancer.pick(&cluster, first, now, &mut random))
        .collect();
    assert_eq!(balancer.outstanding("e0"), 30);
    let seen = picks(&balancer, &cluster, &[], now, 100);
    assert_eq!(seen[0], 0, "{seen:?}");
    drop(busy);
    assert_eq!(balancer.outstanding("e0"), 0);

    let refused = balancer.pick(&cluster, first, now, &mut random).unwrap();
    refused.refused(now);
    drop(refused);
    assert!(balancer.is_ejected("e0", now));
    assert_eq!(picks(&balancer, &cluster, &[], now, 100)[0], 0);
    let later = now + load::REFUSED_MIN;
    assert!(picks(&balancer, &cluster, &[], later, 100)[0] > 20);
    let all: Vec<Arc<str>> = vec!["e0".into(), "e1".into(), "e2".into()];
    assert!(!balancer.has_untried(&cluster, &all));
    assert!(picks(&balancer, &cluster, &all, now, 100)[1] > 20);
}

const FAILED: Answered = Answered {
    latency: Some(Duration::from_millis(1)),
    failed: true,
    pause: None,
};

#[test]
fn who_fails_is_left_out_longer_each_time_but_never_most_of_them() {
    let mut now = Instant::now();
    let (balancer, cluster) = (Balancer::new(1, "".into()), cluster(&[1, 1, 1, 1]));
    let mut random = StdRng::seed_from_u64(5);
    // Every endpoint fails: half of them may be left out.
    for _ in 0..200 {
        let picked = balancer.pick(&cluster, Wanted::default(), now, &mut random);
        picked.unwrap().answered(FAILED, || now);
    }
    let ejected = |now: Instant| {
        (0..4)
            .filter(|index| balancer.is_ejected(&format!("e{index}"), now))
            .count()
    };
    assert_eq!(ejected(now), 2);
    now += Duration::from_secs(10);
    assert_eq!(ejected(now), 0, "ten seconds the first time");

    let mut fails = |id: &str, now: Instant| {
        let tried: Vec<Arc<str>> = (0..4)
            .map(|index| format!("e{index}").into())
            .filter(|other: &Arc<str>| &**other != id)
            .collect();
        let wanted = Wanted {
            tried: &tried,
            ..Wanted::default()
        };
        for _ in 0..5 {
            let picked = balancer.pick(&cluster, wanted, now, &mut random).unwrap();
            assert_eq!(&*picked.endpoint.id, id);
            picked.answered(FAILED, || now);
        }
    };
    let again = (0..4).map(|index| format!("e{index}"));
    let again = again.filter(|id| balancer.loads.get(id).unwrap().ejections.get() == 1);
    let again: Vec<String> = again.collect();
    fails(&again[0], now);
    assert!(balancer.is_ejected(&again[0], now + Duration::from_secs(19)));
    assert!(!balancer.is_ejected(&again[0], now + Duration::from_secs(20)));
}

#[test]
fn the_only_endpoint_is_never_an_outlier_and_pauses_are_kept() {
    let now = Instant::now();
    let (balancer, cluster) = (Balancer::new(1, "".into()), cluster(&[1]));
    let mut random = StdRng::seed_from_u64(6);
    let mut pick = || balancer.pick(&cluster, Wanted::default(), now, &mut random);
    for _ in 0..20 {
        pick().unwrap().answered(FAILED, || now);
    }
    assert!(!balancer.is_ejected("e0", now));
    let paused = Answered {
        pause: Some(Duration::from_secs(3)),
        ..FAILED
    };
    pick().unwrap().answered(paused, || now);
    assert!(balancer.is_ejected("e0", now + Duration::from_secs(2)));
    assert!(!balancer.is_ejected("e0", now + Duration::from_secs(3)));
    assert!(pick().is_some(), "taken where there is no other");
}

#[test]
fn whose_success_rate_is_far_below_the_others() {
    let policy = ClusterPolicy {
        outliers: OutlierDetection {
            consecutive_failures: 0,
            success_rate_deviations: 1.5,
            ..OutlierDetection::default()
        },
        ..ClusterPolicy::default()
    };
    let (balancer, cluster) = (Balancer::new(1, "".into()), cluster_of(&[1; 5], policy));
    let (mut random, start) = (StdRng::seed_from_u64(7), Instant::now());
    for number in 0..3_000_u32 {
        let now = start + Duration::from_millis(1) * number;
        let picked = balancer.pick(&cluster, Wanted::default(), now, &mut random);
        let picked = picked.unwrap();
        let failed = index(&picked) == 2 && number % 2 == 0;
        picked.answered(Answered { failed, ..FAILED }, || now);
    }
    let end = start + Duration::from_secs(3);
    let ejected: Vec<usize> = (0..5)
        .filter(|index| balancer.is_ejected(&format!("e{index}"), end))
        .collect();
    assert_eq!(ejected, [2]);
}

#[test]
fn a_new_endpoint_starts_slowly() {
    let policy = ClusterPolicy {
        slow_start: Duration::from_secs(10),
        ..ClusterPolicy::default()
    };
    let start = Instant::now();
    let balancer = Balancer::new(1, "".into());
    picks(
        &balancer,
        &cluster_of(&[1, 1, 1], policy.clone()),
        &[],
        start,
        100,
    );
    let cluster = cluster_of(&[1, 1, 1, 1], policy);
    let share = |after: u64| {
        let now = start + Duration::from_secs(20 + after);
        picks(&balancer, &cluster, &[], now, 10_000)[3] as f64 / 10_000.0
    };
    let shares = [share(0), share(5), share(10)];
    assert!(
        shares[0] < 0.06 && (0.1..0.2).contains(&shares[1]),
        "{shares:?}"
    );
    assert!((0.24..0.26).contains(&shares[2]), "{shares:?}");
}

#[test]
fn a_request_that_waits_counts_once_it_is_admitted() {
    let policy = ClusterPolicy {
        budget: RetryBudget {
            percent: 100,
            min_retries: 0,
            ..RetryBudget::default()
        },
        breaker: CircuitBreaker {
            requests_max: 1,
            pending_max: 1,
            ..CircuitBreaker::default()
        },
        ..ClusterPolicy::default()
    };
    let (now, cluster) = (Instant::now(), cluster_of(&[1], policy));
    let balancer = Balancer::new(1, "".into());
    let left = || {
        std::iter::repeat_with(|| balancer.may_repeat(&cluster, now))
            .take_while(|may| *may)
            .count()
    };
    // One goes, one waits, one is refused: as many repetitions as went.
    let asked = [(); 3].map(|()| balancer.admit_request(&cluster, now));
    assert!(matches!(
        asked,
        [
            Admission::Admitted(_),
            Admission::Waits(_),
            Admission::Refused
        ]
    ));
    assert_eq!(left(), 1);
    balancer.has_waited(&cluster, now);
    assert_eq!(left(), 1);
}

#[test]
fn limits_are_shared_by_the_workers() {
    let policy = ClusterPolicy {
        breaker: CircuitBreaker {
            connections_max: 4,
            requests_max: 4,
            pending_max: 2,
            ..CircuitBreaker::default()
        },
        ..ClusterPolicy::default()
    };
    let (now, cluster) = (Instant::now(), cluster_of(&[1], policy));
    let balancer = Balancer::new(2, "".into());
    let admitted = [(), ()].map(|()| match balancer.admit_request(&cluster, now) {
        Admission::Admitted(admitted) => admitted,
        other => panic!("{other:?}"),
    });
    let waits = balancer.admit_request(&cluster, now);
    assert!(matches!(waits, Admission::Waits(_)));
    assert!(matches!(
        balancer.admit_request(&cluster, now),
        Admission::Refused
    ));
    drop((admitted, waits));
    let connections: Vec<Option<Admitted>> = (0..3)
        .map(|_| balancer.admit_connection(&cluster, now))
        .collect();
    assert_eq!(connections.iter().flatten().count(), 2);
}

#[test]
fn forgets_what_is_idle_when_too_many_are_remembered() {
    let now = Instant::now();
    let balancer = Balancer::new(1, "".into());
    let mut random = StdRng::seed_from_u64(1);
    let busy = balancer.pick(&cluster(&[1]), Wanted::default(), now, &mut random);
    for number in 0..REMEMBERED_MAX {
        balancer
            .loads
            .get_or_new(&format!("gone{number}").into(), now);
    }
    assert!(balancer.loads.0.borrow().len() < 3);
    assert_eq!(balancer.outstanding("e0"), 1);
    drop(busy);
}

#[test]
fn who_is_named_by_a_hash_is_found_as_long_as_he_is_there() {
    let (balancer, now) = (Balancer::new(1, "".into()), Instant::now());
    let three = cluster(&[1, 0, 1]);
    for id in ["e0", "e1", "e2"] {
        let found = balancer.named(&three, endpoint_hash(id), now);
        assert_eq!(found.as_deref(), Some(id));
    }
    let two = cluster(&[1, 1]);
    assert_eq!(balancer.named(&two, endpoint_hash("e2"), now), None);
    assert!(balancer.named(&two, endpoint_hash("e1"), now).is_some());
    assert_eq!(balancer.named(&three, 7, now), None);
}
