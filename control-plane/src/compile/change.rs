//! What makes one version of a cluster another.

use std::cmp::Ordering;

use super::{Cluster, Endpoint};

/// The endpoints in which two versions of a cluster differ.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClusterChange {
    /// IDs that are gone.
    pub removed: Vec<String>,
    /// New endpoints, and those that are another than before.
    pub upserted: Vec<Endpoint>,
}

/// What leads from one version to the other, found in one walk over both; nothing when they differ in
/// more than endpoints.
pub fn change(before: &Cluster, after: &Cluster) -> Option<ClusterChange> {
    let is_same = before.name == after.name
        && before.protocol == after.protocol
        && before.tls == after.tls
        && before.policy == after.policy;
    if !is_same {
        return None;
    }
    let mut change = ClusterChange::default();
    let mut old = before.endpoints.iter().peekable();
    let mut new = after.endpoints.iter().peekable();
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return Some(change),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.id.cmp(&new.id),
        };
        let gone = old.next_if(|_| order.is_le());
        let come = new.next_if(|_| order.is_ge());
        match (gone, come) {
            (Some(gone), None) => change.removed.push(gone.id.clone()),
            (gone, Some(come)) if gone != Some(come) => change.upserted.push(come.clone()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::super::{BackendTls, Protocol, ServiceName};
    use super::*;

    type Weights = BTreeMap<String, u32>;

    fn cluster(weights: &Weights) -> Cluster {
        let endpoints = weights.iter().map(|(id, weight)| Endpoint {
            id: id.clone(),
            address: [10, 0, 0, 1].into(),
            port: 80,
            weight: *weight,
            zone: "".into(),
            workload: "".into(),
            namespace: String::new(),
            sidecar: None,
        });
        Cluster {
            name: ServiceName::new("shop", "stock").port(80),
            protocol: None,
            endpoints: endpoints.collect(),
            tls: None,
            policy: None,
            left_out: 0,
        }
    }

    fn weights(of: &[(&str, u32)]) -> Weights {
        of.iter().map(|(id, w)| ((*id).to_owned(), *w)).collect()
    }

    #[test]
    fn what_differs() {
        let check = |before: &[(&str, u32)], after: &[(&str, u32)], expect: &str| {
            let change = change(&cluster(&weights(before)), &cluster(&weights(after))).unwrap();
            let removed = change.removed.iter().map(|id| format!("-{id}"));
            let upserted = change.upserted.iter().map(|e| format!("+{}", e.id));
            let seen: Vec<String> = removed.chain(upserted).collect();
            assert_eq!(seen.join(" "), expect, "{before:?} {after:?}");
        };
        check(&[], &[], "");
        check(&[("a", 1)], &[("a", 1)], "");
        check(&[("a", 1)], &[("a", 2)], "+a");
        check(&[("a", 1)], &[], "-a");
        check(&[], &[("a", 1)], "+a");
        check(&[("a", 1), ("c", 1)], &[("b", 1), ("c", 1)], "-a +b");
        check(&[("b", 1)], &[("a", 1), ("b", 2), ("c", 1)], "+a +b +c");
    }

    #[test]
    fn another_protocol_or_tls_is_no_change_of_endpoints() {
        let before = cluster(&Weights::new());
        let after = Cluster {
            protocol: Some(Protocol::Tcp),
            ..before.clone()
        };
        assert_eq!(change(&before, &after), None);
        let after = Cluster {
            tls: Some(Box::new(BackendTls {
                policy: "BackendTLSPolicy/shop/p".to_owned(),
                hostname: "a.test".to_owned(),
                roots: Vec::new(),
                subject_alt_names: Vec::new(),
                invalid: None,
            })),
            ..before.clone()
        };
        assert_eq!(change(&before, &after), None);
    }

    proptest! {
        #[test]
        fn a_change_leads_from_one_to_the_other(
            before in prop::collection::btree_map("[a-d]{1,2}", 0..3_u32, 0..15),
            after in prop::collection::btree_map("[a-d]{1,2}", 0..3_u32, 0..15),
        ) {
            let (before, after) = (cluster(&before), cluster(&after));
            let change = change(&before, &after).unwrap();
            let mut applied: BTreeMap<_, _> = before
                .endpoints
                .iter()
                .map(|endpoint| (endpoint.id.clone(), endpoint.clone()))
                .collect();
            for id in &change.removed {
                prop_assert!(applied.remove(id).is_some(), "{} was not there", id);
            }
            for endpoint in change.upserted {
                applied.insert(endpoint.id.clone(), endpoint);
            }
            prop_assert_eq!(applied.into_values().collect::<Vec<_>>(), after.endpoints);
        }
    }
}
