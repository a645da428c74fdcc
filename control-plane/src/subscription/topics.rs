//! The resources that somebody subscribes to, each compiled and encoded once for all.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Content, Encode};
use crate::compile::{
    Address, Affected, Cluster, Compiled, Configuration, ENDPOINTS_MAX, Mesh, Name, ServiceName,
    change, compile,
};

/// One proxy's connection. Never used twice.
pub type SessionId = u64;

/// Versions of a cluster that a change is made from at a time. Proxies that hold yet another one get
/// the whole.
const BASES_MAX: usize = 16;

/// A resource as it is pushed.
#[derive(Clone, Debug)]
pub struct Published {
    /// A hash of the body; empty when there is no such resource.
    pub version: Arc<str>,
    pub body: Bytes,
    /// It is made of endpoints, so it may be incomplete while proxies are still coming back.
    pub is_of_endpoints: bool,
    /// It is made of endpoints, and has none.
    pub is_hollow: bool,
    /// What a cluster is made of, so that it can be told what changes.
    cluster: Option<Arc<Cluster>>,
}

impl PartialEq for Published {
    /// The version tells of the content; what is left out of a cluster doesn't reach anybody.
    fn eq(&self, other: &Self) -> bool {
        let of = |published: &Self| (published.is_of_endpoints, published.is_hollow);
        self.version == other.version && of(self) == of(other)
    }
}

impl Published {
    /// What later changes can be made from; of clusters only.
    pub fn as_base(&self) -> Option<Base> {
        Some(Base {
            version: self.version.clone(),
            cluster: self.cluster.clone()?,
        })
    }

    fn left_out(&self) -> usize {
        self.cluster.as_ref().map_or(0, |cluster| cluster.left_out)
    }
}

/// A version of a cluster that a proxy holds.
#[derive(Clone, Debug)]
pub struct Base {
    pub version: Arc<str>,
    cluster: Arc<Cluster>,
}

/// A resource and who wants it.
#[derive(Debug)]
pub struct Topic {
    pub subscribers: BTreeSet<SessionId>,
    /// Counts the changes of all topics; 0 as long as there is nothing to say.
    pub generation: u64,
    /// The store's revision that last changed it; 0 when none did since somebody subscribed.
    pub revision: u64,
    pub changed_at: Instant,
    /// Absent while DNS has not answered.
    pub published: Option<Published>,
    /// What leads to it from the versions that proxies hold, as far as somebody needed it; nothing where
    /// that isn't less than the whole.
    changes: HashMap<Arc<str>, Option<Bytes>>,
}

impl Topic {
    /// What a proxy needs that holds `base`, or nothing that is known. A change is made and encoded
    /// once, however many proxies need it.
    pub fn content(&mut self, base: Option<&Base>, encode: Encode) -> Content {
        let Some(published) = &self.published else {
            return Content::Whole(Bytes::new());
        };
        let whole = Content::Whole(published.body.clone());
        let (Some(base), Some(cluster)) = (base, &published.cluster) else {
            return whole;
        };
        if self.changes.len() >= BASES_MAX && !self.changes.contains_key(&base.version) {
            return whole;
        }
        let made = self.changes.entry(base.version.clone()).or_insert_with(|| {
            let change = (encode.change)(&change(&base.cluster, cluster)?);
            Some(change).filter(|change| change.len() < published.body.len())
        });
        match made {
            Some(change) => Content::Change {
                base: base.version.clone(),
                change: change.clone(),
            },
            None => whole,
        }
    }
}

/// Every topic, found by what a change touches.
#[derive(Debug, Default)]
pub struct Topics {
    topics: HashMap<Name, Topic>,
    by_service: HashMap<ServiceName, BTreeSet<Name>>,
    by_ip: HashMap<IpAddr, BTreeSet<Name>>,
    /// What to compile again, with the store's revision that asks for it (0: not the store).
    dirty: HashMap<Name, u64>,
    generations: u64,
}

impl Topics {
    pub fn get(&self, name: &Name) -> Option<&Topic> {
        self.topics.get(name)
    }

    pub fn get_mut(&mut self, name: &Name) -> Option<&mut Topic> {
        self.topics.get_mut(name)
    }

    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Whether somebody subscribes to a cluster of this service.
    pub fn has_cluster_of(&self, service: &ServiceName) -> bool {
        let names = self.by_service.get(service).into_iter().flatten();
        names
            .into_iter()
            .any(|name| matches!(name, Name::Cluster(_)))
    }

    /// Adds a subscriber; the first one has the resource compiled.
    pub fn subscribe(
        &mut self,
        name: &Name,
        session: SessionId,
        mesh: &Mesh,
        encode: Encode,
    ) -> &Topic {
        if !self.topics.contains_key(name) {
            if let Some(service) = name.service() {
                let names = self.by_service.entry(service.clone()).or_default();
                names.insert(name.clone());
            }
            if let Name::Address(address) = name {
                let names = self.by_ip.entry(address.ip()).or_default();
                names.insert(name.clone());
            }
            let published = publish(name, compile(mesh, name), encode);
            warn_of_left_out(name, None, published.as_ref());
            self.generations += 1;
            let topic = Topic {
                subscribers: BTreeSet::new(),
                generation: published.as_ref().map_or(0, |_| self.generations),
                revision: 0,
                changed_at: Instant::now(),
                published,
                changes: HashMap::new(),
            };
            self.topics.insert(name.clone(), topic);
        }
        let topic = self.topics.get_mut(name).expect("it was just put in");
        topic.subscribers.insert(session);
        topic
    }

    /// Takes a subscriber off; with the last one the resource is forgotten.
    pub fn unsubscribe(&mut self, name: &Name, session: SessionId) {
        let Some(topic) = self.topics.get_mut(name) else {
            return;
        };
        topic.subscribers.remove(&session);
        if !topic.subscribers.is_empty() {
            return;
        }
        self.topics.remove(name);
        self.dirty.remove(name);
        if let Some(service) = name.service()
            && let Some(names) = self.by_service.get_mut(service)
        {
            names.remove(name);
            if names.is_empty() {
                self.by_service.remove(service);
            }
        }
        if let Name::Address(address) = name
            && let Some(names) = self.by_ip.get_mut(&address.ip())
        {
            names.remove(name);
            if names.is_empty() {
                self.by_ip.remove(&address.ip());
            }
        }
    }

    /// Marks what a change touches, as far as somebody subscribes to it.
    pub fn touch(&mut self, affected: &Affected, revision: u64) {
        let services = affected.services.iter();
        let of_services = services.filter_map(|name| self.by_service.get(name));
        let ips = affected.ips.iter();
        let of_ips = ips.filter_map(|ip| self.by_ip.get(ip));
        let of_instances = affected.instances.iter().cloned().map(Name::Inbound);
        let names: Vec<Name> = of_services
            .chain(of_ips)
            .flatten()
            .cloned()
            .chain(of_instances.filter(|name| self.topics.contains_key(name)))
            .collect();
        for name in names {
            self.touch_name(name, revision);
        }
    }

    /// Marks one resource.
    pub fn touch_name(&mut self, name: Name, revision: u64) {
        if self.topics.contains_key(&name) {
            let asked = self.dirty.entry(name).or_default();
            *asked = (*asked).max(revision);
        }
    }

    /// Compiles what was marked. Returns the names whose content changed.
    pub fn refresh(&mut self, mesh: &Mesh, encode: Encode) -> Vec<Name> {
        let mut changed = Vec::new();
        for (name, revision) in std::mem::take(&mut self.dirty) {
            let Some(topic) = self.topics.get_mut(&name) else {
                continue;
            };
            // A resource that can't be said now, because DNS is asked for a new name, stays what it
            // was until it can.
            let Some(published) = publish(&name, compile(mesh, &name), encode) else {
                continue;
            };
            warn_of_left_out(&name, topic.published.as_ref(), Some(&published));
            if topic.published.as_ref() == Some(&published) {
                topic.published = Some(published);
                continue;
            }
            topic.changes.clear();
            self.generations += 1;
            topic.generation = self.generations;
            topic.revision = topic.revision.max(revision);
            topic.changed_at = Instant::now();
            topic.published = Some(published);
            changed.push(name);
        }
        changed
    }
}

/// Says once that a cluster has more endpoints than are offered, until it has no more than that.
fn warn_of_left_out(name: &Name, before: Option<&Published>, after: Option<&Published>) {
    let left_out = after.map_or(0, Published::left_out);
    if left_out > 0 && before.map_or(0, Published::left_out) == 0 {
        tracing::warn!(
            %name, left_out,
            "a cluster has more than {ENDPOINTS_MAX} endpoints; those with the lowest IDs are offered"
        );
    }
}

/// Encodes a resource and gives it its version.
pub fn publish(name: &Name, compiled: Compiled, encode: Encode) -> Option<Published> {
    let configuration = match compiled {
        Compiled::Pending => return None,
        Compiled::Absent => None,
        Compiled::Present(configuration) => Some(configuration),
    };
    let (is_of_endpoints, is_hollow) = match &configuration {
        Some(Configuration::Cluster(cluster)) => (true, cluster.endpoints.is_empty()),
        Some(Configuration::Service(service)) => (
            service.headless,
            service.headless && service.endpoint_addresses.is_empty(),
        ),
        Some(Configuration::Address(Address::Endpoint(_))) => (true, false),
        Some(_) => (false, false),
        // An address is absent as long as its workload is; of the rest the documents tell.
        None => {
            let is_address = matches!(name, Name::Address(_));
            (is_address, is_address)
        }
    };
    let body = configuration.as_ref().map(encode.whole).unwrap_or_default();
    let version = match &configuration {
        Some(_) => version_of(&body),
        None => "".into(),
    };
    let cluster = match configuration {
        Some(Configuration::Cluster(cluster)) => Some(Arc::new(cluster)),
        _ => None,
    };
    Some(Published {
        version,
        body,
        is_of_endpoints,
        is_hollow,
        cluster,
    })
}

/// 16 hexadecimal digits of the SHA-256: the same content has the same version for ever.
fn version_of(body: &[u8]) -> Arc<str> {
    let digest = Sha256::digest(body);
    let digits = digest.iter().take(8).map(|byte| format!("{byte:02x}"));
    digits.collect::<String>().into()
}
