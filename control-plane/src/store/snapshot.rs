//! The resources at one revision.

use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;

use crate::resource::{Key, Kind, Resource};

/// An immutable view. The maps are persistent: the next revision shares all but the path to what
/// changed, so a snapshot costs the same with ten objects and ten thousand.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Counts the applied changes.
    pub revision: u64,
    objects: RedBlackTreeMapSync<Key, Arc<Resource>>,
    /// Whose a virtual IP is.
    addresses: RedBlackTreeMapSync<IpAddr, Key>,
}

impl Snapshot {
    /// The object of this key.
    pub fn get(&self, key: &Key) -> Option<Arc<Resource>> {
        self.objects.get(key).cloned()
    }

    /// The Service that has this virtual IP.
    pub fn service_at(&self, address: IpAddr) -> Option<&Key> {
        self.addresses.get(&address)
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.size()
    }

    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Every object, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.objects.values()
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    /// Every object of a kind, ordered by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Arc<Resource>> {
        self.from(Key::new(kind, "", ""))
            .take_while(move |(key, _)| key.kind == kind)
            .map(|(_, resource)| resource)
    }

    /// Every object of a kind in a namespace, ordered by name.
    pub fn in_namespace<'a>(
        &'a self,
        kind: Kind,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a Arc<Resource>> {
        self.from(Key::new(kind, namespace, ""))
            .take_while(move |(key, _)| key.kind == kind && key.namespace == namespace)
            .map(|(_, resource)| resource)
    }

    fn from(&self, first: Key) -> impl Iterator<Item = (&Key, &Arc<Resource>)> {
        self.objects
            .range((Bound::Included(first), Bound::Unbounded))
    }

    /// Puts an object in, or takes it out.
    pub(super) fn set(&mut self, key: Key, resource: Option<Arc<Resource>>) {
        if let Some(before) = self.objects.get(&key).cloned() {
            for address in virtual_ips(&before) {
                self.addresses.remove_mut(address);
            }
        }
        match resource {
            Some(resource) => {
                for address in virtual_ips(&resource) {
                    self.addresses.insert_mut(*address, key.clone());
                }
                self.objects.insert_mut(key, resource);
            }
            None => {
                self.objects.remove_mut(&key);
            }
        }
    }
}

fn virtual_ips(resource: &Resource) -> &[IpAddr] {
    match resource {
        Resource::Service(service) => &service.spec.cluster_ips,
        _ => &[],
    }
}
