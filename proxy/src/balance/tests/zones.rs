//! Zones, health checks, and what becomes of a cluster of which few are well.

use super::*;
use crate::model::{HealthCheck, HealthCheckKind, Locality};

/// Endpoints of these zones, each of weight 1.
fn zoned(zones: &[(&str, usize)], policy: ClusterPolicy) -> Arc<Cluster> {
    let weights = vec![1; zones.iter().map(|(_, count)| count).sum()];
    let mut cluster = (*cluster_of(&weights, policy)).clone();
    let names = zones
        .iter()
        .flat_map(|(zone, count)| std::iter::repeat_n(*zone, *count));
    let endpoints: Vec<Arc<Endpoint>> = cluster.endpoints.iter().cloned().collect();
    for (endpoint, zone) in endpoints.iter().zip(names) {
        let mut endpoint = (**endpoint).clone();
        endpoint.zone = zone.into();
        cluster.endpoints.insert(Arc::new(endpoint));
    }
    Arc::new(cluster)
}

/// The percentage of a million picks that each zone got.
fn shares_of(balancer: &Balancer, cluster: &Arc<Cluster>, now: Instant) -> Vec<(String, f64)> {
    let mut random = StdRng::seed_from_u64(9);
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for _ in 0..1_000_000 {
        let picked = balancer.pick(cluster, Wanted::default(), now, &mut random);
        *seen
            .entry(picked.unwrap().endpoint.zone.to_string())
            .or_default() += 1;
    }
    let share = |(zone, count)| (zone, count as f64 / 10_000.0);
    seen.into_iter().map(share).collect()
}

#[test]
fn a_million_picks_by_zone() {
    let check =
        |zones: &[(&str, usize)], own: &str, policy: ClusterPolicy, expect: &[(&str, f64)]| {
            let cluster = zoned(zones, policy);
            let seen = shares_of(&Balancer::new(1, own.into()), &cluster, Instant::now());
            println!("{zones:?} from {own:?}: {seen:.2?} %, by definition {expect:.2?}");
            assert_eq!(seen.len(), expect.len(), "{zones:?} {own}: {seen:?}");
            for ((zone, percent), (name, wanted)) in seen.iter().zip(expect) {
                assert_eq!(zone, name, "{seen:?}");
                assert!((percent - wanted).abs() <= 0.5, "{zones:?} {own}: {seen:?}");
            }
        };
    let default = ClusterPolicy::default;
    for balancing in [
        Balancing::LeastRequest,
        Balancing::RoundRobin,
        Balancing::PeakEwma,
    ] {
        check(
            &[("a", 3), ("b", 3)],
            "a",
            by(balancing.clone()),
            &[("a", 100.0)],
        );
        check(
            &[("a", 1), ("b", 3)],
            "a",
            by(balancing),
            &[("a", 50.0), ("b", 50.0)],
        );
    }
    check(
        &[("a", 1), ("b", 5), ("c", 4)],
        "a",
        default(),
        &[("a", 30.0), ("b", 50.0), ("c", 20.0)],
    );
    // Without a zone of our own, or with one where nothing is, or asked so, everybody is as good.
    check(
        &[("a", 1), ("b", 3)],
        "",
        default(),
        &[("a", 25.0), ("b", 75.0)],
    );
    check(
        &[("a", 1), ("b", 3)],
        "c",
        default(),
        &[("a", 25.0), ("b", 75.0)],
    );
    check(
        &[("a", 1), ("", 3)],
        "a",
        default(),
        &[("", 75.0), ("a", 25.0)],
    );
    let any = ClusterPolicy {
        locality: Locality::AnyZone,
        ..default()
    };
    check(&[("a", 1), ("b", 3)], "a", any, &[("a", 25.0), ("b", 75.0)]);
}

/// The zone's endpoints fall ill one after the other: what is left keeps what it can do, the rest goes elsewhere.
#[test]
fn requests_spill_over_as_a_zone_falls_ill() {
    let cluster = zoned(&[("a", 3), ("b", 3), ("c", 3)], checked_policy());
    let balancer = Balancer::new(1, "a".into());
    let mut now = Instant::now();
    // Of all that is well a third is the zone's even part.
    for (ill, expect) in [(0, 100.0), (1, 75.0), (2, 300.0 / 7.0), (3, 0.0)] {
        for index in 0..ill {
            let id: Arc<str> = format!("e{index}").into();
            (0..3).for_each(|_| balancer.checked(&cluster, &id, false, now));
        }
        now += Duration::from_secs(1);
        let seen = shares_of(&balancer, &cluster, now);
        let own = seen.iter().find(|(zone, _)| zone == "a");
        let own = own.map_or(0.0, |(_, percent)| *percent);
        println!(
            "{ill} of the own zone's endpoints ill: {own:.2} % stay, by definition {expect:.2}"
        );
        assert!((own - expect).abs() <= 0.5, "{ill} ill: {seen:?}");
    }
}

#[test]
fn a_key_keeps_its_endpoint_in_another_zone() {
    let cluster = zoned(
        &[("a", 2), ("b", 2)],
        by(Balancing::ConsistentHash(HashKey::Source)),
    );
    let of_zone = |zone: &str, key: u64| {
        let balancer = Balancer::new(1, zone.into());
        let wanted = Wanted {
            key: Some(key),
            ..Wanted::default()
        };
        let mut random = StdRng::seed_from_u64(key);
        index(
            &balancer
                .pick(&cluster, wanted, Instant::now(), &mut random)
                .unwrap(),
        )
    };
    for key in 0..100 {
        let key = key_hash(&key);
        assert_eq!(of_zone("a", key), of_zone("b", key));
    }
}

fn checked_policy() -> ClusterPolicy {
    ClusterPolicy {
        health_check: Some(HealthCheck {
            kind: HealthCheckKind::Tcp,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            unhealthy_threshold: 3,
            healthy_threshold: 2,
        }),
        ..ClusterPolicy::default()
    }
}

#[test]
fn checks_decide_after_some_in_a_row() {
    let cluster = cluster_of(&[1, 1, 1, 1], checked_policy());
    let (balancer, now) = (Balancer::new(1, "".into()), Instant::now());
    let first: Arc<str> = "e0".into();
    let mut later = now;
    let mut check = |passed: &[bool], expect: bool| {
        for passed in passed {
            balancer.checked(&cluster, &first, *passed, later);
        }
        later += Duration::from_secs(1);
        let seen = picks(&balancer, &cluster, &[], later, 1000)[0];
        assert_eq!(seen > 0, expect, "{passed:?}: {seen}");
    };
    check(&[false, false, true, false, false], true);
    check(&[false], false);
    check(&[true, false, true], false);
    check(&[true], true);
    check(&[false; 9], false);
    check(&[true, true], true);
}

#[test]
fn checks_are_due_one_after_the_other() {
    let cluster = cluster_of(&[1, 1, 0, 1], checked_policy());
    let (balancer, start) = (Balancer::new(1, "".into()), Instant::now());
    let mut random = StdRng::seed_from_u64(4);
    let mut due = |at: f64, most: usize| {
        let now = start + Duration::from_secs_f64(at);
        let due = balancer.due_checks(&cluster, most, now, &mut random);
        due.iter().map(|one| one.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(due(0.0, 9), [""; 0]);
    assert_eq!(due(5.0, 2).len(), 2);
    assert_eq!(due(5.0, 2).len(), 1);
    // None is asked twice at a time, nor before its interval is over.
    assert_eq!(due(60.0, 9), [""; 0]);
    let now = start + Duration::from_secs(60);
    balancer.checked(&cluster, &"e1".into(), true, now);
    assert_eq!(due(64.9, 9), [""; 0]);
    assert_eq!(due(65.0, 9), ["e1"]);
}

/// With less than half of them well, the others are asked too; who takes no connection never is.
#[test]
fn in_a_panic_nobody_is_left_out_who_can_be_reached() {
    let cluster = cluster_of(&[1; 10], checked_policy());
    let (balancer, mut now) = (Balancer::new(1, "".into()), Instant::now());
    let ill = |index: usize, now: Instant| {
        let id: Arc<str> = format!("e{index}").into();
        (0..3).for_each(|_| balancer.checked(&cluster, &id, false, now));
    };
    let mut random = StdRng::seed_from_u64(5);
    loop {
        let picked = balancer
            .pick(&cluster, Wanted::default(), now, &mut random)
            .unwrap();
        if index(&picked) == 9 {
            break picked.refused(now);
        }
    }
    (0..5).for_each(|index| ill(index, now));
    now += Duration::from_millis(200);
    let seen = picks(&balancer, &cluster, &[], now, 1000);
    assert_eq!(seen[..5].iter().sum::<usize>() + seen[9], 0, "{seen:?}");
    ill(5, now);
    now += Duration::from_millis(200);
    let seen = picks(&balancer, &cluster, &[], now, 1000);
    assert_eq!(seen[9], 0);
    assert!(seen[..9].iter().all(|count| *count > 50), "{seen:?}");
    balancer.forget_checks(&cluster);
    now += Duration::from_secs(1);
    let seen = picks(&balancer, &cluster, &[], now, 1000);
    assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
}
