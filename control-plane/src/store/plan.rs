//! What an apply or a delete does to a snapshot, before anything is written. Pure but for new
//! objects' random uid and the time.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use super::{Action, Change, Error, Result, Snapshot, virtual_ip};
use crate::resource::{Key, Metadata, Resource, Service, ServiceKind};

/// Objects that a store may hold; an apply that would make it more is refused.
pub const OBJECTS_MAX: usize = 100_000;

/// The next revision and how it differs.
#[derive(Debug)]
pub(super) struct Plan {
    pub next: Snapshot,
    /// Empty when nothing changes; `next` is then the revision there is.
    pub changes: Vec<Change>,
    pub actions: Vec<(Key, Action)>,
}

impl Plan {
    fn new(now: &Snapshot) -> Self {
        let mut next = now.clone();
        next.revision += 1;
        Self {
            next,
            changes: Vec::new(),
            actions: Vec::new(),
        }
    }

    fn change(&mut self, key: Key, before: Option<Arc<Resource>>, after: Option<Arc<Resource>>) {
        let action = match (&before, &after) {
            (_, None) => Action::Deleted,
            (None, Some(_)) => Action::Created,
            (Some(_), Some(_)) => Action::Configured,
        };
        self.next.set(key.clone(), after.clone());
        self.changes.push(Change {
            revision: self.next.revision,
            key: key.clone(),
            before,
            after,
        });
        self.actions.push((key, action));
    }

    /// Puts an object in the place of what it was.
    fn put(&mut self, mut resource: Resource, before: Option<Arc<Resource>>) -> Result<()> {
        let key = resource.key();
        if let Resource::Service(service) = &mut resource {
            settle_addresses(&self.next, &key, service, before.as_deref())?;
        }
        settle_metadata(&mut resource, before.as_deref(), self.next.revision);
        if before
            .as_deref()
            .is_some_and(|before| same(before, &resource))
        {
            self.next.set(key.clone(), before);
            self.actions.push((key, Action::Unchanged));
        } else {
            self.change(key, before, Some(Arc::new(resource)));
        }
        Ok(())
    }

    fn finish(mut self, now: &Snapshot) -> Self {
        if self.changes.is_empty() {
            self.next.revision = now.revision;
        }
        self
    }
}

pub(super) fn apply(now: &Snapshot, resources: Vec<Resource>) -> Result<Plan> {
    let mut plan = Plan::new(now);
    for resource in resources {
        let before = plan.next.get(&resource.key());
        plan.put(resource, before)?;
    }
    if plan.next.len() > OBJECTS_MAX {
        return Err(Error::Full);
    }
    Ok(plan.finish(now))
}

pub(super) fn delete(now: &Snapshot, keys: Vec<Key>) -> Plan {
    let mut plan = Plan::new(now);
    for key in keys {
        match plan.next.get(&key) {
            None => plan.actions.push((key, Action::Unchanged)),
            before => plan.change(key, before, None),
        }
    }
    plan.finish(now)
}

/// Makes objects what they were. All of them leave their places first, so that an address which went from
/// one to another finds its way back.
pub(super) fn restore(now: &Snapshot, state: Vec<(Key, Option<Arc<Resource>>)>) -> Result<Plan> {
    let mut plan = Plan::new(now);
    for (key, _) in &state {
        plan.next.set(key.clone(), None);
    }
    for (key, was) in state {
        let before = now.get(&key);
        match (was, before) {
            (None, None) => {}
            (None, before) => plan.change(key, before, None),
            (Some(was), before) => plan.put(Resource::clone(&was), before)?,
        }
    }
    plan.actions
        .retain(|(_, action)| *action != Action::Unchanged);
    if plan.next.len() > OBJECTS_MAX {
        return Err(Error::Full);
    }
    Ok(plan.finish(now))
}

/// Gives a service its virtual IPs: those that its document names, else those it had, else new ones.
fn settle_addresses(
    now: &Snapshot,
    key: &Key,
    service: &mut Service,
    before: Option<&Resource>,
) -> Result<()> {
    let conflict = |reason| Error::Conflict {
        key: key.clone(),
        field: "spec.clusterIP".to_owned(),
        reason,
    };
    let spec = &mut service.spec;
    if spec.headless || spec.kind != ServiceKind::ClusterIp {
        spec.cluster_ips.clear();
        return Ok(());
    }
    if spec.cluster_ips.is_empty()
        && let Some(Resource::Service(before)) = before
    {
        spec.cluster_ips.clone_from(&before.spec.cluster_ips);
    }
    let others = |ip: IpAddr| now.service_at(ip).filter(|owner| *owner != key);
    for ip in &spec.cluster_ips {
        if let Some(owner) = others(*ip) {
            return Err(conflict(format!("{ip} is the address of {owner}")));
        }
    }
    if spec.cluster_ips.is_empty() {
        let allotted = virtual_ip::allot(&key.namespace, &key.name, |ip| others(ip).is_some());
        let allotted = allotted.ok_or_else(|| conflict("no virtual IP is free".to_owned()))?;
        spec.cluster_ips = allotted.to_vec();
    }
    Ok(())
}

fn settle_metadata(resource: &mut Resource, before: Option<&Resource>, revision: u64) {
    let (uid, generation, created) = match before.map(Resource::metadata) {
        None => (new_uid(), 1, Some(SystemTime::now())),
        Some(had) => {
            let changed = !before.is_some_and(|before| same_spec(before, resource));
            let generation = had.generation + u64::from(changed);
            (had.uid.clone(), generation, had.creation_timestamp)
        }
    };
    let metadata = resource.metadata_mut();
    metadata.uid = uid;
    metadata.generation = generation;
    metadata.resource_version = revision;
    metadata.creation_timestamp = created;
}

/// Whether they differ in nothing that a document says.
fn same(a: &Resource, b: &Resource) -> bool {
    let (x, y) = (a.metadata(), b.metadata());
    x.labels == y.labels && x.annotations == y.annotations && same_spec(a, b)
}

fn same_spec(a: &Resource, b: &Resource) -> bool {
    let bare = |resource: &Resource| {
        let mut resource = resource.clone();
        *resource.metadata_mut() = Metadata::default();
        resource
    };
    bare(a) == bare(b)
}

/// A random UUID (RFC 9562, version 4).
fn new_uid() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
