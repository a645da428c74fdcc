//! What is asked for, what is held of it, and the configuration that is in force because of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use rpds::HashTrieMapSync;
use weft_proto::svid::TrustBundle;
use weft_proto::v1alpha1 as wire;

use super::decode::{Decoded, Rejection, decode_body, decode_change};
use super::held::Held;
use super::{Handle, names};
use crate::model::{Configuration, Entry, Inbound, Known, Name};

/// Resources that this proxy subscribes to at most. Beyond, those that were not used for longest make
/// room.
const SUBSCRIPTIONS_MAX: usize = 10_000;
/// How many make room at once, so that the search for them is rare.
const EVICTED: usize = 100;
/// How often it is looked which resources were used.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// A resource that was not used for this many sweeps is forgotten.
const IDLE_SWEEPS_MAX: u8 = 10;

/// Everything about the resources by name; `Configuration` is made from it. Public so that what a
/// push costs can be measured.
#[derive(Debug, Default)]
pub struct Resources {
    tracked: HashMap<Name, Tracked>,
    /// What the stream has not said yet, in order.
    outbox: Vec<Change>,
}

/// A resource that is subscribed to.
#[derive(Debug, Default)]
struct Tracked {
    /// The last good answer; none before the first.
    held: Option<Held>,
    /// Why a later answer was not taken.
    rejected: Option<Rejected>,
    /// Sweeps since it was last used.
    idle: u8,
}

/// A version that was not taken.
#[derive(Clone, Debug)]
pub(super) struct Rejected {
    pub version: String,
    pub rejection: Rejection,
}

/// The last good answer, and the later one that was not taken.
type Answers<'a> = (Option<&'a Held>, Option<&'a Rejected>);

/// A change of the subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Add(Name),
    Remove(Name),
}

/// What a push came to.
#[derive(Debug, Default)]
pub struct Applied {
    pub rejected: Vec<wire::Rejection>,
    pub trust_bundle: Option<TrustBundle>,
}

impl Tracked {
    /// Takes a change of what is held. One that can't be taken leaves everything as it was, and the
    /// whole will come.
    fn change(
        &mut self,
        name: &Name,
        resource: wire::Resource,
        configuration: &mut Configuration,
    ) -> Result<(), Rejection> {
        let reject = |field: &str, reason: String| Rejection {
            field: field.to_owned(),
            reason,
        };
        let Name::Cluster(name) = name else {
            let reason = "only clusters are sent as changes".to_owned();
            return Err(reject("change", reason));
        };
        let held = self.held.as_mut();
        let held = held.filter(|held| held.version == resource.base_version);
        let base = configuration.clusters.get(name).and_then(Entry::peek);
        let (Some(held), Some(base)) = (held, base) else {
            let reason = format!("`{}` is not held", resource.base_version);
            return Err(reject("base_version", reason));
        };
        let cluster = decode_change(base, &resource.change)?;
        held.change(resource.version, resource.change);
        self.rejected = None;
        replace(&mut configuration.clusters, name, Some(cluster));
        Ok(())
    }
}

/// Whether a name belongs to the proxy itself, and is never forgotten.
fn is_own(name: &Name) -> bool {
    matches!(name, Name::Inbound | Name::TrustBundle(_))
}

impl Resources {
    /// Subscribes to a name if it isn't yet. Evicts what was not used for longest when there are too
    /// many, and says so; what was evicted is taken out of `configuration`.
    pub fn want(&mut self, name: &Name, configuration: &mut Configuration) -> bool {
        if let Some(tracked) = self.tracked.get_mut(name) {
            tracked.idle = 0;
            return false;
        }
        let full = self.tracked.len() >= SUBSCRIPTIONS_MAX;
        if full {
            self.evict(configuration);
        }
        self.tracked.insert(name.clone(), Tracked::default());
        self.outbox.push(Change::Add(name.clone()));
        full
    }

    /// Takes a resource as it is held on disk; false when it does not decode.
    pub(super) fn restore(
        &mut self,
        name: Name,
        held: Held,
        configuration: &mut Configuration,
    ) -> Result<(), Rejection> {
        let decoded = decode_held(&name, &held)?;
        put(configuration, &name, decoded);
        let tracked = Tracked {
            held: Some(held),
            ..Tracked::default()
        };
        self.tracked.insert(name, tracked);
        Ok(())
    }

    /// Takes a push: each resource that is good replaces the one before, the others are rejected and
    /// leave what was held of them.
    pub fn apply(&mut self, push: wire::Push, configuration: &mut Configuration) -> Applied {
        let mut applied = Applied::default();
        for resource in push.resources {
            let (kind, text) = (resource.r#type, resource.name.clone());
            let version = resource.version.clone();
            // A change that can't be taken says nothing against the resource.
            let whole_wanted = !resource.base_version.is_empty();
            let result = names::from_wire(kind, &text)
                .map_err(|(field, reason)| Rejection {
                    field: field.to_owned(),
                    reason,
                })
                .and_then(|name| self.apply_one(&name, resource, configuration));
            match result {
                Ok(Some(bundle)) => applied.trust_bundle = Some(bundle),
                Ok(None) => {}
                Err(Rejection { field, reason }) => applied.rejected.push(wire::Rejection {
                    r#type: kind,
                    name: text,
                    version,
                    field,
                    reason,
                    whole_wanted,
                }),
            }
        }
        applied
    }

    fn apply_one(
        &mut self,
        name: &Name,
        resource: wire::Resource,
        configuration: &mut Configuration,
    ) -> Result<Option<TrustBundle>, Rejection> {
        // An answer that crossed with the removal of its subscription is of no use to anybody.
        let Some(tracked) = self.tracked.get_mut(name) else {
            return Ok(None);
        };
        if !resource.base_version.is_empty() {
            return tracked.change(name, resource, configuration).map(|()| None);
        }
        let held = Held::new(resource.version, resource.body);
        match decode_held(name, &held) {
            Ok(decoded) => {
                tracked.held = Some(held);
                tracked.rejected = None;
                Ok(put(configuration, name, decoded))
            }
            Err(rejection) => {
                let rejected = Rejected {
                    version: held.version,
                    rejection: rejection.clone(),
                };
                tracked.rejected = Some(rejected);
                Err(rejection)
            }
        }
    }

    /// Counts another interval in which each resource was used or not, and forgets those that were
    /// not for long. Whether anything was forgotten.
    pub(super) fn sweep(&mut self, configuration: &mut Configuration) -> bool {
        for (name, tracked) in &mut self.tracked {
            let used = is_own(name) || sweep_entry(configuration, name);
            tracked.idle = if used {
                0
            } else {
                tracked.idle.saturating_add(1)
            };
        }
        let idle = |(_, tracked): &(&Name, &Tracked)| tracked.idle >= IDLE_SWEEPS_MAX;
        let forgotten: Vec<Name> = self
            .tracked
            .iter()
            .filter(idle)
            .map(|(name, _)| name.clone())
            .collect();
        for name in &forgotten {
            self.forget(name, configuration);
        }
        !forgotten.is_empty()
    }

    fn evict(&mut self, configuration: &mut Configuration) {
        let tracked = self.tracked.iter().filter(|(name, _)| !is_own(name));
        let mut order: Vec<(u8, bool, &Name)> = tracked
            .map(|(name, tracked)| {
                let absent = tracked
                    .held
                    .as_ref()
                    .is_none_or(|held| held.version.is_empty());
                (tracked.idle, absent, name)
            })
            .collect();
        order.sort_unstable_by_key(|(idle, absent, _)| (*idle, *absent));
        let last: Vec<Name> = order
            .into_iter()
            .rev()
            .take(EVICTED)
            .map(|(_, _, name)| name.clone())
            .collect();
        for name in &last {
            self.forget(name, configuration);
        }
    }

    fn forget(&mut self, name: &Name, configuration: &mut Configuration) {
        self.tracked.remove(name);
        self.outbox.push(Change::Remove(name.clone()));
        // Before its first answer there is nothing to take out.
        let _ = match name {
            Name::Service(name) => configuration.services.remove_mut(name),
            Name::Address(address) => configuration.addresses.remove_mut(address),
            Name::Route(name) => configuration.routes.remove_mut(name),
            Name::Cluster(name) => configuration.clusters.remove_mut(name),
            Name::Inbound | Name::TrustBundle(_) => false,
        };
    }

    /// What a new stream says at first: what is held, and what is asked for besides.
    pub(super) fn begin(&mut self) -> (Vec<wire::ResourceVersion>, Vec<Change>) {
        self.outbox.clear();
        let (mut known, mut asked) = (Vec::new(), Vec::new());
        for (name, tracked) in &self.tracked {
            match &tracked.held {
                Some(held) => {
                    let wire::ResourceName { r#type, name } = names::to_wire(name);
                    let version = held.version.clone();
                    known.push(wire::ResourceVersion {
                        r#type,
                        name,
                        version,
                    });
                }
                None => asked.push(Change::Add(name.clone())),
            }
        }
        (known, asked)
    }

    /// What the stream has to say of the subscriptions since it was last asked.
    pub(super) fn take_outbox(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.outbox)
    }

    /// The reason why there is no answer, where one was sent and rejected.
    pub(super) fn rejection(&self, name: &Name) -> Option<&Rejected> {
        let tracked = self.tracked.get(name)?;
        tracked.rejected.as_ref().filter(|_| tracked.held.is_none())
    }

    /// Every resource in the order of type and name.
    pub(super) fn list(&self) -> BTreeMap<(&'static str, String), Answers<'_>> {
        let entries = self.tracked.iter().map(|(name, tracked)| {
            let key = (names::kind(name), names::to_wire(name).name);
            (key, (tracked.held.as_ref(), tracked.rejected.as_ref()))
        });
        entries.collect()
    }

    /// What is kept over a restart. The trust bundle is the identity's to keep.
    pub(super) fn to_keep(&self) -> Vec<(Name, Held)> {
        let tracked = self.tracked.iter();
        let kept = tracked.filter(|(name, _)| !matches!(name, Name::TrustBundle(_)));
        kept.filter_map(|(name, tracked)| Some((name.clone(), tracked.held.clone()?)))
            .collect()
    }
}

/// Whether the configuration has an answer for a name; marks it as used.
pub(super) fn is_known(configuration: &Configuration, name: &Name) -> bool {
    match name {
        Name::Service(name) => configuration.service(name) != Known::Unknown,
        Name::Address(address) => configuration.address(address) != Known::Unknown,
        Name::Route(name) => !matches!(configuration.route(name), Known::Unknown),
        Name::Cluster(name) => configuration.cluster(name) != Known::Unknown,
        Name::Inbound | Name::TrustBundle(_) => configuration.inbound.is_some(),
    }
}

fn decode_held(name: &Name, held: &Held) -> Result<Option<Decoded>, Rejection> {
    if held.version.is_empty() {
        return Ok(None);
    }
    decode_body(name, &held.whole()).map(Some)
}

/// Puts one answer in force. A trust bundle is returned: it is the identity's.
fn put(
    configuration: &mut Configuration,
    name: &Name,
    decoded: Option<Decoded>,
) -> Option<TrustBundle> {
    match (name, decoded) {
        (Name::Service(name), Some(Decoded::Service(service))) => {
            replace(&mut configuration.services, name, Some(service));
        }
        (Name::Address(address), Some(Decoded::Address(owner))) => {
            replace(&mut configuration.addresses, address, Some(owner));
        }
        (Name::Route(name), Some(Decoded::Route(route))) => {
            replace(&mut configuration.routes, name, Some(route));
        }
        (Name::Cluster(name), Some(Decoded::Cluster(cluster))) => {
            replace(&mut configuration.clusters, name, Some(cluster));
        }
        (Name::Inbound, Some(Decoded::Inbound(inbound))) => {
            configuration.inbound = Some(Arc::new(inbound));
        }
        (_, Some(Decoded::TrustBundle(bundle))) => return Some(bundle),
        (Name::Service(name), _) => replace(&mut configuration.services, name, None),
        (Name::Address(address), _) => replace(&mut configuration.addresses, address, None),
        (Name::Route(name), _) => replace(&mut configuration.routes, name, None),
        (Name::Cluster(name), _) => replace(&mut configuration.clusters, name, None),
        // No service points at this workload.
        (Name::Inbound, _) => configuration.inbound = Some(Arc::new(Inbound::default())),
        (Name::TrustBundle(_), _) => {}
    }
    None
}

fn replace<K: Clone + Eq + std::hash::Hash, T>(
    map: &mut HashTrieMapSync<K, Entry<T>, RandomState>,
    key: &K,
    value: Option<T>,
) {
    let value = value.map(Arc::new);
    let entry = match map.get(key) {
        Some(before) => before.replace(value),
        None => Entry::new(value),
    };
    map.insert_mut(key.clone(), entry);
}

fn sweep_entry(configuration: &Configuration, name: &Name) -> bool {
    match name {
        Name::Service(name) => configuration.services.get(name).is_some_and(Entry::sweep),
        Name::Address(address) => configuration
            .addresses
            .get(address)
            .is_some_and(Entry::sweep),
        Name::Route(name) => configuration.routes.get(name).is_some_and(Entry::sweep),
        Name::Cluster(name) => configuration.clusters.get(name).is_some_and(Entry::sweep),
        Name::Inbound | Name::TrustBundle(_) => true,
    }
}

/// Forgets what is not used, for as long as it runs.
pub(super) async fn sweep(handle: &Handle) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    // The first tick is at once, and nothing is old yet.
    interval.tick().await;
    loop {
        interval.tick().await;
        handle.sweep();
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    fn name(index: usize) -> Name {
        Name::Service(format!("shop/s{index}").parse().unwrap())
    }

    /// The control plane's answer that there is no such service.
    fn absent(index: usize) -> wire::Resource {
        let wire::ResourceName { r#type, name } = names::to_wire(&name(index));
        wire::Resource {
            r#type,
            name,
            ..wire::Resource::default()
        }
    }

    fn answered(count: usize) -> (Resources, Configuration) {
        let mut resources = Resources::default();
        let mut configuration = Configuration::default();
        resources.want(&Name::Inbound, &mut configuration);
        for index in 0..count {
            assert!(!resources.want(&name(index), &mut configuration));
        }
        let push = wire::Push {
            nonce: 1,
            resources: (0..count).map(absent).collect(),
        };
        assert!(
            resources
                .apply(push, &mut configuration)
                .rejected
                .is_empty()
        );
        resources.take_outbox();
        (resources, configuration)
    }

    #[test]
    fn what_is_not_used_is_forgotten() {
        let (mut resources, mut configuration) = answered(2);
        // The first sweep clears the marks of fresh entries.
        for round in 0..=IDLE_SWEEPS_MAX {
            assert!(is_known(&configuration, &name(0)));
            let forgotten = resources.sweep(&mut configuration);
            assert_eq!(forgotten, round == IDLE_SWEEPS_MAX, "round {round}");
        }
        assert_eq!(resources.take_outbox(), [Change::Remove(name(1))]);
        assert!(is_known(&configuration, &name(0)) && !is_known(&configuration, &name(1)));
        // Its answer may still come, and changes nothing.
        let push = wire::Push {
            nonce: 2,
            resources: vec![absent(1)],
        };
        resources.apply(push, &mut configuration);
        assert!(!is_known(&configuration, &name(1)));
        resources.want(&name(1), &mut configuration);
        assert_eq!(resources.take_outbox(), [Change::Add(name(1))]);
    }

    #[test]
    fn beyond_the_limit_the_unused_make_room() {
        let (mut resources, mut configuration) = answered(SUBSCRIPTIONS_MAX - 1);
        for _ in 0..2 {
            for index in 0..SUBSCRIPTIONS_MAX - 1 - EVICTED {
                assert!(is_known(&configuration, &name(index)));
            }
            resources.sweep(&mut configuration);
        }
        assert!(resources.want(&name(SUBSCRIPTIONS_MAX), &mut configuration));
        assert_eq!(resources.tracked.len(), SUBSCRIPTIONS_MAX - EVICTED + 1);
        assert!(resources.tracked.contains_key(&Name::Inbound));
        for index in 0..SUBSCRIPTIONS_MAX - 1 {
            let kept = index < SUBSCRIPTIONS_MAX - 1 - EVICTED;
            assert_eq!(is_known(&configuration, &name(index)), kept, "{index}");
        }
    }

    fn cluster(version: &str, ids: &[&str]) -> wire::Resource {
        let body = wire::Cluster {
            name: "shop/s:80".to_owned(),
            endpoints: ids.iter().map(|id| endpoint(id, "10.0.0.1")).collect(),
            ..wire::Cluster::default()
        };
        wire::Resource {
            body: body.encode_to_vec().into(),
            ..of_cluster(version)
        }
    }

    fn change(base: &str, version: &str, upserted: wire::Endpoint) -> wire::Resource {
        let change = wire::ClusterChange {
            upserted: vec![upserted],
            ..wire::ClusterChange::default()
        };
        wire::Resource {
            base_version: base.to_owned(),
            change: change.encode_to_vec().into(),
            ..of_cluster(version)
        }
    }

    fn of_cluster(version: &str) -> wire::Resource {
        wire::Resource {
            r#type: wire::ResourceType::Cluster.into(),
            name: "shop/s:80".to_owned(),
            version: version.to_owned(),
            ..wire::Resource::default()
        }
    }

    fn endpoint(id: &str, address: &str) -> wire::Endpoint {
        wire::Endpoint {
            id: id.to_owned(),
            address: address.to_owned(),
            port: 80,
            weight: 1,
            ..wire::Endpoint::default()
        }
    }

    #[test]
    fn a_change_is_taken_whole_or_the_whole_is_asked_for() {
        let mut resources = Resources::default();
        let mut configuration = Configuration::default();
        let of_changes = Name::Cluster("shop/s:80".parse().unwrap());
        let good = || endpoint("b", "10.0.0.2");
        let mut check = |resource: wire::Resource, rejected: &str, held: &str| {
            let push = wire::Push {
                nonce: 1,
                resources: vec![resource.clone()],
            };
            let seen = resources.apply(push, &mut configuration).rejected;
            let seen = seen.iter().map(|rejection| {
                let whole = if rejection.whole_wanted {
                    ", whole"
                } else {
                    ""
                };
                format!("{}{whole}", rejection.field)
            });
            assert_eq!(seen.collect::<String>(), rejected, "{resource:?}");
            let Some(tracked) = resources.tracked.get(&of_changes) else {
                resources.want(&of_changes, &mut configuration);
                return;
            };
            let version = tracked.held.as_ref().map_or("none", |held| &held.version);
            let Name::Cluster(port) = &of_changes else {
                return;
            };
            let ids = match configuration.cluster(port) {
                Known::Present(cluster) => {
                    let ids = cluster.endpoints.iter().map(|endpoint| endpoint.id.clone());
                    ids.collect::<Vec<_>>().join("")
                }
                Known::Absent => "absent".to_owned(),
                Known::Unknown => "unknown".to_owned(),
            };
            assert_eq!(format!("{version} {ids}"), held, "{resource:?}");
            let is_wrong = !rejected.is_empty() && !rejected.ends_with("whole");
            assert_eq!(tracked.rejected.is_some(), is_wrong, "{resource:?}");
        };
        // Before it was subscribed to, and before there was an answer.
        check(change("1", "2", good()), "", "");
        check(
            change("1", "2", good()),
            "base_version, whole",
            "none unknown",
        );
        check(of_cluster(""), "", " absent");
        check(change("1", "2", good()), "base_version, whole", " absent");
        check(cluster("1", &["a"]), "", "1 a");
        check(change("0", "2", good()), "base_version, whole", "1 a");
        check(change("2", "2", good()), "base_version, whole", "1 a");
        check(change("1", "2", good()), "", "2 ab");
        check(change("1", "2", good()), "base_version, whole", "2 ab");
        let nowhere = || endpoint("c", "host");
        check(
            change("2", "3", nowhere()),
            "upserted[0].address, whole",
            "2 ab",
        );
        check(cluster("3", &["c", "c"]), "endpoints[1].id", "2 ab");
        // What was rejected whole doesn't stand in the way of the next change of what is held.
        check(change("2", "4", endpoint("d", "10.0.0.4")), "", "4 abd");
        let service = wire::Resource {
            name: "shop/s0".to_owned(),
            r#type: wire::ResourceType::Service.into(),
            ..change("1", "2", good())
        };
        resources.want(&name(0), &mut configuration);
        let push = wire::Push {
            nonce: 1,
            resources: vec![service],
        };
        let rejected = resources.apply(push, &mut configuration).rejected;
        assert_eq!(
            (rejected[0].field.as_str(), rejected[0].whole_wanted),
            ("change", true)
        );
    }

    #[test]
    fn a_new_stream_says_what_is_held_and_asks_for_the_rest() {
        let (mut resources, mut configuration) = answered(1);
        resources.want(&name(7), &mut configuration);
        let (known, mut asked) = resources.begin();
        assert_eq!(known.len(), 1);
        assert_eq!(known[0].name, "shop/s0");
        asked.sort_by_key(|change| format!("{change:?}"));
        assert_eq!(asked, [Change::Add(Name::Inbound), Change::Add(name(7))]);
        assert!(
            resources.take_outbox().is_empty(),
            "it is not asked for twice"
        );
    }
}
