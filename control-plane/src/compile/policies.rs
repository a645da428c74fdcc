//! Policies, found by what they are for. Where several are for the same, the one in force is Gateway API's
//! choice (GEP-713): what names a part before what names the whole, then the oldest, then by name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use super::ServiceName;
use crate::resource::{
    BackendTlsPolicy, BackendTrafficPolicy, FaultInjectionPolicy, InboundPolicy, Metadata,
    OutboundPolicy, PolicyTarget, SYSTEM_NAMESPACE, Service, ServiceTarget, TrafficPolicy,
};

/// Namespace and name of a document of a kind that is known.
pub(super) type DocumentName = (String, String);

/// A policy that is for Services.
pub(super) trait ServicePolicy {
    fn metadata(&self) -> &Metadata;
    fn targets(&self) -> &[ServiceTarget];
}

macro_rules! service_policy {
    ($($kind:ty),+) => {
        $(impl ServicePolicy for $kind {
            fn metadata(&self) -> &Metadata {
                &self.metadata
            }

            fn targets(&self) -> &[ServiceTarget] {
                &self.targets
            }
        })+
    };
}

service_policy!(
    BackendTlsPolicy,
    BackendTrafficPolicy,
    FaultInjectionPolicy,
    InboundPolicy,
    TrafficPolicy
);

/// The policies of one kind, by the Services that they are for.
#[derive(Clone, Debug)]
pub(super) struct ServicePolicies<P> {
    all: BTreeMap<DocumentName, Arc<P>>,
    of: HashMap<ServiceName, BTreeSet<DocumentName>>,
}

impl<P> Default for ServicePolicies<P> {
    fn default() -> Self {
        Self {
            all: BTreeMap::new(),
            of: HashMap::new(),
        }
    }
}

impl<P: ServicePolicy> ServicePolicies<P> {
    pub(super) fn get(&self, name: &DocumentName) -> Option<&Arc<P>> {
        self.all.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &DocumentName> {
        self.all.keys()
    }

    /// The policies that name a service as a target, whole or in part.
    pub(super) fn names_of(&self, service: &ServiceName) -> impl Iterator<Item = &DocumentName> {
        self.of.get(service).into_iter().flatten()
    }

    /// Puts a policy in the place of what was there under its name, and gives back the services that either
    /// is for.
    pub(super) fn set(
        &mut self,
        name: &DocumentName,
        after: Option<Arc<P>>,
    ) -> BTreeSet<ServiceName> {
        let mut touched = BTreeSet::new();
        if let Some(before) = self.all.remove(name) {
            for service in services(&*before) {
                if let Some(names) = self.of.get_mut(&service) {
                    names.remove(name);
                    if names.is_empty() {
                        self.of.remove(&service);
                    }
                }
                touched.insert(service);
            }
        }
        if let Some(policy) = after {
            for service in services(&*policy) {
                let names = self.of.entry(service.clone()).or_default();
                names.insert(name.clone());
                touched.insert(service);
            }
            self.all.insert(name.clone(), policy);
        }
        touched
    }

    /// The policy in force on a port of a service.
    pub(super) fn on(&self, service: &Service, port: u16) -> Option<&Arc<P>> {
        let named = service.spec.port(port).map(|port| port.name.as_str());
        let by_name = named.and_then(|name| self.first(service, Some(name)));
        by_name.or_else(|| self.first(service, None))
    }

    /// The policy that takes a target in the place of `policy`, if another one does.
    pub(super) fn winner(
        &self,
        policy: &P,
        service: &Service,
        section: Option<&str>,
    ) -> Option<&Arc<P>> {
        let first = self.first(service, section)?;
        (first.metadata().name != policy.metadata().name).then_some(first)
    }

    /// Of the policies with exactly this target the one that has it.
    fn first(&self, service: &Service, section: Option<&str>) -> Option<&Arc<P>> {
        let metadata = &service.metadata;
        let name = ServiceName::new(&metadata.namespace, &metadata.name);
        let policies = self.names_of(&name).filter_map(|name| self.all.get(name));
        let same = policies.filter(|policy| {
            let mut targets = policy.targets().iter();
            targets.any(|target| {
                target.name == metadata.name && target.section_name.as_deref() == section
            })
        });
        same.min_by_key(|policy| age(policy.metadata()))
    }
}

/// The services that a policy is for.
fn services(policy: &impl ServicePolicy) -> BTreeSet<ServiceName> {
    let namespace = &policy.metadata().namespace;
    let targets = policy.targets().iter();
    targets
        .map(|target| ServiceName::new(namespace, &target.name))
        .collect()
}

/// Older first, then by name (Gateway API's order between what is equal otherwise).
pub(super) fn age(metadata: &Metadata) -> (Option<SystemTime>, String) {
    let name = format!("{}/{}", metadata.namespace, metadata.name);
    (metadata.creation_timestamp, name)
}

/// The OutboundPolicies.
#[derive(Clone, Debug, Default)]
pub(super) struct OutboundPolicies {
    all: BTreeMap<DocumentName, Arc<OutboundPolicy>>,
}

impl OutboundPolicies {
    pub(super) fn get(&self, name: &DocumentName) -> Option<&Arc<OutboundPolicy>> {
        self.all.get(name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &DocumentName> {
        self.all.keys()
    }

    pub(super) fn names_in(&self, namespace: &str) -> impl Iterator<Item = &DocumentName> {
        let from = (namespace.to_owned(), String::new());
        let names = self.all.range(from..).map(|(name, _)| name);
        names.take_while(move |(of, _)| of == namespace)
    }

    pub(super) fn set(&mut self, name: &DocumentName, after: Option<Arc<OutboundPolicy>>) {
        match after {
            Some(policy) => drop(self.all.insert(name.clone(), policy)),
            None => drop(self.all.remove(name)),
        }
    }

    /// The policy for the workloads of a namespace: the namespace's own before the mesh's.
    pub(super) fn on(&self, namespace: &str) -> Option<&Arc<OutboundPolicy>> {
        let own = self.first(namespace, PolicyTarget::Namespace);
        own.or_else(|| self.first(SYSTEM_NAMESPACE, PolicyTarget::Mesh))
    }

    /// Of the policies of a namespace with this target the one that has it.
    pub(super) fn first(
        &self,
        namespace: &str,
        target: PolicyTarget,
    ) -> Option<&Arc<OutboundPolicy>> {
        let policies = self.names_in(namespace);
        let policies = policies.filter_map(|name| self.all.get(name));
        policies
            .filter(|policy| policy.targets.contains(&target))
            .min_by_key(|policy| age(&policy.metadata))
    }
}
