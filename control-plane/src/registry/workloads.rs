//! Every connected workload, found by instance, by label and by address.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Workload;

/// A label of a workload of a namespace.
type Label = (String, String, String);

/// The connected workloads. Whatever is asked costs what it finds, not what is there.
#[derive(Clone, Debug, Default)]
pub struct Workloads {
    by_instance: BTreeMap<Arc<str>, Arc<Workload>>,
    by_label: HashMap<Label, BTreeSet<Arc<str>>>,
    by_address: HashMap<IpAddr, BTreeSet<Arc<str>>>,
}

impl Workloads {
    /// Puts a workload in the place of what its instance was before, which is returned.
    pub fn insert(&mut self, workload: Arc<Workload>) -> Option<Arc<Workload>> {
        let before = self.remove(&workload.instance);
        for label in labels(&workload) {
            let instances = self.by_label.entry(label).or_default();
            instances.insert(workload.instance.clone());
        }
        let neighbours = self.by_address.entry(workload.address).or_default();
        neighbours.insert(workload.instance.clone());
        self.by_instance.insert(workload.instance.clone(), workload);
        before
    }

    /// Takes a workload out.
    pub fn remove(&mut self, instance: &str) -> Option<Arc<Workload>> {
        let before = self.by_instance.remove(instance)?;
        for label in labels(&before) {
            forget(&mut self.by_label, &label, instance);
        }
        forget(&mut self.by_address, &before.address, instance);
        Some(before)
    }

    /// The workload of this instance.
    pub fn get(&self, instance: &str) -> Option<&Arc<Workload>> {
        self.by_instance.get(instance)
    }

    /// Every workload, ordered by instance.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.by_instance.values()
    }

    /// The workloads of `namespace` that a selector selects, ordered by instance.
    pub fn selected<'a>(
        &'a self,
        namespace: &str,
        selector: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Arc<Workload>> {
        let rarest = selector
            .iter()
            .map(|(key, value)| (namespace.to_owned(), key.clone(), value.clone()))
            .map(|label| self.by_label.get(&label))
            .min_by_key(|found| found.map_or(0, BTreeSet::len))
            .flatten();
        rarest
            .into_iter()
            .flatten()
            .filter_map(|instance| self.by_instance.get(instance))
            .filter(|workload| workload.is_selected(selector))
    }

    /// The workload that serves an application port at this address.
    pub fn at(&self, address: SocketAddr) -> Option<&Arc<Workload>> {
        let neighbours = self.by_address.get(&address.ip())?;
        neighbours
            .iter()
            .filter_map(|instance| self.by_instance.get(instance))
            .find(|workload| workload.serves(address.port()))
    }
}

fn labels(workload: &Workload) -> impl Iterator<Item = Label> {
    let namespace = workload.namespace();
    let of =
        move |(key, value): (&String, &String)| (namespace.to_owned(), key.clone(), value.clone());
    workload.labels.iter().map(of)
}

fn forget<K: std::hash::Hash + Eq>(
    index: &mut HashMap<K, BTreeSet<Arc<str>>>,
    key: &K,
    instance: &str,
) {
    if let Some(instances) = index.get_mut(key) {
        instances.remove(instance);
        if instances.is_empty() {
            index.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(text: &str) -> BTreeMap<String, String> {
        let pairs = text.split(',').filter(|pair| !pair.is_empty());
        pairs
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    fn workload(instance: &str, namespace: &str, labels: &str, address: &str) -> Arc<Workload> {
        let address: SocketAddr = address.parse().unwrap();
        let id = format!("spiffe://weft.local/ns/{namespace}/sa/default");
        Arc::new(Workload {
            instance: instance.into(),
            name: instance.into(),
            spiffe_id: id.parse().unwrap(),
            labels: map(labels),
            address: address.ip(),
            inbound_port: 4143,
            named_ports: BTreeMap::new(),
            zone: "".into(),
            ports_up: BTreeSet::from([address.port()]),
            draining: false,
        })
    }

    fn sample() -> Workloads {
        let mut workloads = Workloads::default();
        for (instance, namespace, labels, address) in [
            ("a", "shop", "app=orders,version=v1", "127.0.0.1:9001"),
            ("b", "shop", "app=orders,version=v2", "127.0.0.1:9002"),
            ("c", "shop", "app=stock", "10.0.0.3:9001"),
            ("d", "other", "app=orders,version=v1", "10.0.0.4:9001"),
        ] {
            workloads.insert(workload(instance, namespace, labels, address));
        }
        workloads
    }

    #[test]
    fn selectors() {
        let workloads = sample();
        let check = |namespace: &str, selector: &str, expect: &str| {
            let selector = map(selector);
            let found = workloads.selected(namespace, &selector);
            let found: String = found
                .map(|workload| workload.instance.to_string())
                .collect();
            assert_eq!(found, expect, "{namespace} {selector:?}");
        };
        check("shop", "app=orders", "ab");
        check("shop", "app=orders,version=v2", "b");
        check("shop", "version=v1", "a");
        check("other", "app=orders", "d");
        check("shop", "app=orders,tier=gold", "");
        check("shop", "", "");
        check("none", "app=orders", "");
    }

    #[test]
    fn addresses_and_changes() {
        let mut workloads = sample();
        let at = |workloads: &Workloads, address: &str| {
            let found = workloads.at(address.parse().unwrap());
            found.map(|workload| workload.instance.to_string())
        };
        assert_eq!(at(&workloads, "127.0.0.1:9001").as_deref(), Some("a"));
        assert_eq!(at(&workloads, "127.0.0.1:9002").as_deref(), Some("b"));
        assert_eq!(at(&workloads, "127.0.0.1:9003"), None);
        workloads.insert(workload("a", "shop", "app=new", "127.0.0.1:9003"));
        assert_eq!(at(&workloads, "127.0.0.1:9001"), None);
        assert_eq!(at(&workloads, "127.0.0.1:9003").as_deref(), Some("a"));
        assert_eq!(workloads.selected("shop", &map("app=orders")).count(), 1);
        for instance in ["a", "b", "c", "d"] {
            assert!(workloads.remove(instance).is_some());
        }
        assert!(workloads.remove("a").is_none());
        assert!(workloads.by_label.is_empty() && workloads.by_address.is_empty());
    }

    #[test]
    fn a_draining_workload_serves_nothing() {
        let mut workload = Workload::clone(&workload("a", "shop", "app=x", "10.0.0.1:80"));
        assert!(workload.serves(80) && !workload.serves(81));
        workload.draining = true;
        assert!(!workload.serves(80));
    }
}
