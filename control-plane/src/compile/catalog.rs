//! The documents, indexed by what a change to one of them, or to a workload, touches.

mod faults;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use super::ServiceName;
use super::policies::{DocumentName, OutboundPolicies, ServicePolicies, ServicePolicy};
use crate::registry::{Workload, Workloads};
use crate::resource::{
    BackendRoots, BackendTlsPolicy, BackendTrafficPolicy, ConfigMap, EndpointSlice,
    FaultInjectionPolicy, InboundPolicy, Key, Kind, OutboundPolicy, ReferenceGrant, Resource,
    Route, SYSTEM_NAMESPACE, Service, ServiceKind, TrafficPolicy,
};

pub(super) use faults::route_target;

/// A route of any kind.
pub type RouteName = Key;

/// Every document of the mesh, found by what refers to it.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    services: BTreeMap<ServiceName, Arc<Service>>,
    by_virtual_ip: HashMap<IpAddr, ServiceName>,
    /// By one label of the selector, which a workload must have to be selected.
    by_selector: HashMap<(String, String, String), BTreeSet<ServiceName>>,
    by_external_name: HashMap<String, BTreeSet<ServiceName>>,
    slices: BTreeMap<DocumentName, Arc<EndpointSlice>>,
    slices_of: HashMap<ServiceName, BTreeSet<DocumentName>>,
    slices_at: HashMap<IpAddr, BTreeSet<DocumentName>>,
    grants: BTreeMap<DocumentName, Arc<ReferenceGrant>>,
    outbound_policies: OutboundPolicies,
    backend_tls_policies: ServicePolicies<BackendTlsPolicy>,
    traffic_policies: ServicePolicies<TrafficPolicy>,
    backend_traffic_policies: ServicePolicies<BackendTrafficPolicy>,
    fault_injection_policies: ServicePolicies<FaultInjectionPolicy>,
    fault_injection_policies_of: HashMap<RouteName, BTreeSet<DocumentName>>,
    inbound_policies: ServicePolicies<InboundPolicy>,
    config_maps: BTreeMap<DocumentName, Arc<ConfigMap>>,
    /// Policies that have their CA from a ConfigMap.
    backend_tls_policies_by: HashMap<DocumentName, BTreeSet<DocumentName>>,
    routes: BTreeMap<RouteName, Arc<Route>>,
    routes_of: HashMap<ServiceName, BTreeSet<RouteName>>,
    routes_to: HashMap<ServiceName, BTreeSet<RouteName>>,
}

/// What a change touches: whatever is compiled from these may have changed, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    /// Their Service, Route and Cluster resources.
    pub services: BTreeSet<ServiceName>,
    /// Address resources of these IPs.
    pub ips: BTreeSet<IpAddr>,
    /// Inbound resources of these instances.
    pub instances: BTreeSet<Arc<str>>,
    /// The status of these routes and policies.
    pub statuses: BTreeSet<Key>,
}

impl Catalog {
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// The service whose virtual IP this is.
    pub fn service_at(&self, ip: IpAddr) -> Option<&ServiceName> {
        self.by_virtual_ip.get(&ip)
    }

    /// The slices of a service, ordered by name.
    pub fn slices_of(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<EndpointSlice>> {
        let names = self.slices_of.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(name))
    }

    /// The routes that name a service as a parent, ordered by kind and name.
    pub fn routes_of(&self, service: &ServiceName) -> impl Iterator<Item = &Arc<Route>> {
        let names = self.routes_of.get(service).into_iter().flatten();
        names.filter_map(|name| self.routes.get(name))
    }

    pub fn route(&self, name: &RouteName) -> Option<&Arc<Route>> {
        self.routes.get(name)
    }

    /// The ReferenceGrants of a namespace.
    pub fn grants_of(&self, namespace: &str) -> impl Iterator<Item = &Arc<ReferenceGrant>> {
        let from = (namespace.to_owned(), String::new());
        let grants = self.grants.range(from..);
        let of_namespace = grants.take_while(move |((of, _), _)| of == namespace);
        of_namespace.map(|(_, grant)| grant)
    }

    /// The OutboundPolicy that is for the workloads of a namespace.
    pub fn outbound_policy(&self, namespace: &str) -> Option<&Arc<OutboundPolicy>> {
        self.outbound_policies.on(namespace)
    }

    pub(super) fn outbound_policies(&self) -> &OutboundPolicies {
        &self.outbound_policies
    }

    /// The BackendTLSPolicy in force on a port of a service.
    pub fn backend_tls_policy(
        &self,
        service: &Service,
        port: u16,
    ) -> Option<&Arc<BackendTlsPolicy>> {
        self.backend_tls_policies.on(service, port)
    }

    pub(super) fn backend_tls_policies(&self) -> &ServicePolicies<BackendTlsPolicy> {
        &self.backend_tls_policies
    }

    pub(super) fn traffic_policies(&self) -> &ServicePolicies<TrafficPolicy> {
        &self.traffic_policies
    }

    pub(super) fn backend_traffic_policies(&self) -> &ServicePolicies<BackendTrafficPolicy> {
        &self.backend_traffic_policies
    }

    pub(super) fn fault_injection_policies(&self) -> &ServicePolicies<FaultInjectionPolicy> {
        &self.fault_injection_policies
    }

    pub(super) fn inbound_policies(&self) -> &ServicePolicies<InboundPolicy> {
        &self.inbound_policies
    }

    /// The certificates of a CA.
    pub fn config_map(&self, namespace: &str, name: &str) -> Option<&Arc<ConfigMap>> {
        let name = (namespace.to_owned(), name.to_owned());
        self.config_maps.get(&name)
    }

    /// The host names that services stand for, and which services.
    pub fn external_names(&self) -> impl Iterator<Item = (&String, &BTreeSet<ServiceName>)> {
        self.by_external_name.iter()
    }

    /// Every document's key.
    pub fn keys(&self) -> BTreeSet<Key> {
        let services = self.services.keys();
        services
            .map(|name| Key::new(Kind::Service, &*name.namespace, &*name.name))
            .chain(names(Kind::EndpointSlice, self.slices.keys()))
            .chain(names(Kind::ReferenceGrant, self.grants.keys()))
            .chain(names(Kind::ConfigMap, self.config_maps.keys()))
            .chain(names(Kind::TrafficPolicy, self.traffic_policies.names()))
            .chain(names(
                Kind::BackendTrafficPolicy,
                self.backend_traffic_policies.names(),
            ))
            .chain(names(
                Kind::FaultInjectionPolicy,
                self.fault_injection_policies.names(),
            ))
            .chain(names(Kind::InboundPolicy, self.inbound_policies.names()))
            .chain(names(Kind::OutboundPolicy, self.outbound_policies.names()))
            .chain(names(
                Kind::BackendTlsPolicy,
                self.backend_tls_policies.names(),
            ))
            .chain(self.routes.keys().cloned())
            .collect()
    }

    /// The services that select a workload, ordered by name.
    pub fn services_selecting(&self, workload: &Workload) -> BTreeSet<ServiceName> {
        let namespace = workload.namespace();
        let labels = workload.labels.iter();
        labels
            .map(|(key, value)| (namespace.to_owned(), key.clone(), value.clone()))
            .filter_map(|label| self.by_selector.get(&label))
            .flatten()
            .filter(|name| {
                let service = self.services.get(name);
                service.is_some_and(|service| workload.is_selected(&service.spec.selector))
            })
            .cloned()
            .collect()
    }

    /// Puts a document in the place of what its key was before, or takes it out, and says what that
    /// touches.
    pub fn set(&mut self, key: &Key, after: Option<&Resource>, workloads: &Workloads) -> Affected {
        match (key.kind, after) {
            (Kind::Service, Some(Resource::Service(service))) => {
                self.set_service(key, Some(Arc::new(service.clone())), workloads)
            }
            (Kind::EndpointSlice, Some(Resource::EndpointSlice(slice))) => {
                self.set_slice(key, Some(Arc::new(slice.clone())))
            }
            (Kind::ReferenceGrant, Some(Resource::ReferenceGrant(grant))) => {
                self.set_grant(key, Some(Arc::new(grant.clone())))
            }
            (Kind::OutboundPolicy, Some(Resource::OutboundPolicy(policy))) => {
                self.set_outbound_policy(key, Some(Arc::new(policy.clone())), workloads)
            }
            (Kind::BackendTlsPolicy, Some(Resource::BackendTlsPolicy(policy))) => {
                self.set_backend_tls_policy(key, Some(Arc::new(policy.clone())))
            }
            (Kind::TrafficPolicy, Some(Resource::TrafficPolicy(policy))) => set_policy(
                &mut self.traffic_policies,
                key,
                Some(Arc::new(policy.clone())),
            ),
            (Kind::BackendTrafficPolicy, Some(Resource::BackendTrafficPolicy(policy))) => {
                let policy = Some(Arc::new(policy.clone()));
                set_policy(&mut self.backend_traffic_policies, key, policy)
            }
            (Kind::FaultInjectionPolicy, Some(Resource::FaultInjectionPolicy(policy))) => {
                self.set_fault_injection_policy(key, Some(Arc::new(policy.clone())))
            }
            (Kind::InboundPolicy, Some(Resource::InboundPolicy(policy))) => {
                self.set_inbound_policy(key, Some(Arc::new(policy.clone())), workloads)
            }
            (Kind::ConfigMap, Some(Resource::ConfigMap(map))) => {
                self.set_config_map(key, Some(Arc::new(map.clone())))
            }
            (_, Some(Resource::Route(route))) => self.set_route(key, Some(Arc::new(route.clone()))),
            (Kind::Service, _) => self.set_service(key, None, workloads),
            (Kind::EndpointSlice, _) => self.set_slice(key, None),
            (Kind::ReferenceGrant, _) => self.set_grant(key, None),
            (Kind::OutboundPolicy, _) => self.set_outbound_policy(key, None, workloads),
            (Kind::BackendTlsPolicy, _) => self.set_backend_tls_policy(key, None),
            (Kind::TrafficPolicy, _) => set_policy(&mut self.traffic_policies, key, None),
            (Kind::BackendTrafficPolicy, _) => {
                set_policy(&mut self.backend_traffic_policies, key, None)
            }
            (Kind::FaultInjectionPolicy, _) => self.set_fault_injection_policy(key, None),
            (Kind::InboundPolicy, _) => self.set_inbound_policy(key, None, workloads),
            (Kind::ConfigMap, _) => self.set_config_map(key, None),
            (Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute, _) => {
                self.set_route(key, None)
            }
        }
    }

    /// What a workload touches by coming, going or changing: called with what it was and with what
    /// it is.
    pub fn touched_by(&self, workload: &Workload) -> Affected {
        let mut services = self.services_selecting(workload);
        let slices = self.slices_at.get(&workload.address).into_iter().flatten();
        services.extend(slices.filter_map(|name| service_of(self.slices.get(name)?)));
        Affected {
            services,
            ips: BTreeSet::from([workload.address]),
            instances: BTreeSet::from([workload.instance.clone()]),
            statuses: BTreeSet::new(),
        }
    }

    /// What the addresses of an external name touch.
    pub fn touched_by_external(&self, host: &str) -> Affected {
        let services = self.by_external_name.get(host).cloned();
        Affected {
            services: services.unwrap_or_default(),
            ..Affected::default()
        }
    }

    fn set_service(
        &mut self,
        key: &Key,
        after: Option<Arc<Service>>,
        workloads: &Workloads,
    ) -> Affected {
        let name = ServiceName::new(&key.namespace, &key.name);
        let mut affected = Affected::default();
        let before = self.services.remove(&name);
        for service in before.iter().chain(&after) {
            affected.ips.extend(&service.spec.cluster_ips);
            let selected = workloads.selected(&name.namespace, &service.spec.selector);
            let instances = selected.map(|workload| workload.instance.clone());
            affected.instances.extend(instances);
        }
        if let Some(service) = before {
            for ip in &service.spec.cluster_ips {
                if self.by_virtual_ip.get(ip) == Some(&name) {
                    self.by_virtual_ip.remove(ip);
                }
            }
            if let Some(label) = selector_label(&service) {
                forget(&mut self.by_selector, &label, &name);
            }
            if let ServiceKind::ExternalName(host) = &service.spec.kind {
                forget(&mut self.by_external_name, host, &name);
            }
        }
        if let Some(service) = after {
            for ip in &service.spec.cluster_ips {
                self.by_virtual_ip.insert(*ip, name.clone());
            }
            if let Some(label) = selector_label(&service) {
                remember(&mut self.by_selector, label, &name);
            }
            if let ServiceKind::ExternalName(host) = &service.spec.kind {
                remember(&mut self.by_external_name, host.clone(), &name);
            }
            self.services.insert(name.clone(), service);
        }
        self.touch_routes_to(&name, &mut affected);
        let attached = self.routes_of.get(&name).into_iter().flatten();
        affected.statuses.extend(attached.cloned());
        let tls = self.backend_tls_policies.names_of(&name);
        let traffic = self.traffic_policies.names_of(&name);
        let backend_traffic = self.backend_traffic_policies.names_of(&name);
        let policies = names(Kind::BackendTlsPolicy, tls)
            .chain(names(Kind::TrafficPolicy, traffic))
            .chain(names(Kind::BackendTrafficPolicy, backend_traffic))
            .chain(names(
                Kind::FaultInjectionPolicy,
                self.fault_injection_policies.names_of(&name),
            ))
            .chain(names(
                Kind::InboundPolicy,
                self.inbound_policies.names_of(&name),
            ));
        affected.statuses.extend(policies);
        affected.services.insert(name);
        affected
    }

    /// Routes to a service compile what it is into the Route of their parents.
    fn touch_routes_to(&self, service: &ServiceName, affected: &mut Affected) {
        for route in self.routes_to.get(service).into_iter().flatten() {
            let parents = self.routes.get(route).map(|route| parents(route));
            affected.services.extend(parents.into_iter().flatten());
            affected.statuses.insert(route.clone());
        }
    }

    fn set_slice(&mut self, key: &Key, after: Option<Arc<EndpointSlice>>) -> Affected {
        let name = document_name(key);
        let mut affected = Affected::default();
        if let Some(slice) = self.slices.remove(&name) {
            if let Some(service) = service_of(&slice) {
                forget(&mut self.slices_of, &service, &name);
                affected.services.insert(service);
            }
            for ip in addresses(&slice) {
                forget(&mut self.slices_at, &ip, &name);
            }
        }
        if let Some(slice) = after {
            if let Some(service) = service_of(&slice) {
                remember(&mut self.slices_of, service.clone(), &name);
                affected.services.insert(service);
            }
            for ip in addresses(&slice) {
                remember(&mut self.slices_at, ip, &name);
            }
            self.slices.insert(name, slice);
        }
        affected
    }

    fn set_grant(&mut self, key: &Key, after: Option<Arc<ReferenceGrant>>) -> Affected {
        let name = document_name(key);
        match after {
            Some(grant) => drop(self.grants.insert(name, grant)),
            None => drop(self.grants.remove(&name)),
        }
        // Whoever refers to something of the namespace from outside may do so now, or no more.
        let mut affected = Affected::default();
        let into = self.routes_to.iter();
        let into = into.filter(|(service, _)| *service.namespace == *key.namespace);
        let foreign = into.flat_map(|(_, routes)| routes);
        for route in foreign.filter(|route| route.namespace != key.namespace) {
            let parents = self.routes.get(route).map(|route| parents(route));
            affected.services.extend(parents.into_iter().flatten());
            affected.statuses.insert(route.clone());
        }
        affected
    }

    fn set_outbound_policy(
        &mut self,
        key: &Key,
        after: Option<Arc<OutboundPolicy>>,
        workloads: &Workloads,
    ) -> Affected {
        self.outbound_policies.set(&document_name(key), after);
        // A policy of the system's namespace may be for everybody.
        let is_touched = |workload: &&Arc<Workload>| {
            key.namespace == SYSTEM_NAMESPACE || workload.namespace() == key.namespace
        };
        let touched = workloads.iter().filter(is_touched);
        // Policies of one namespace may be in conflict, or no more.
        let others = self.outbound_policies.names_in(&key.namespace);
        let mut statuses: BTreeSet<Key> = names(Kind::OutboundPolicy, others).collect();
        statuses.insert(key.clone());
        Affected {
            instances: touched.map(|workload| workload.instance.clone()).collect(),
            statuses,
            ..Affected::default()
        }
    }

    /// It is the workloads' that the services select, and nothing of their callers'.
    fn set_inbound_policy(
        &mut self,
        key: &Key,
        after: Option<Arc<InboundPolicy>>,
        workloads: &Workloads,
    ) -> Affected {
        let mut affected = set_policy(&mut self.inbound_policies, key, after);
        for name in std::mem::take(&mut affected.services) {
            let Some(service) = self.services.get(&name) else {
                continue;
            };
            let selected = workloads.selected(&name.namespace, &service.spec.selector);
            let instances = selected.map(|workload| workload.instance.clone());
            affected.instances.extend(instances);
        }
        affected
    }

    fn set_backend_tls_policy(
        &mut self,
        key: &Key,
        after: Option<Arc<BackendTlsPolicy>>,
    ) -> Affected {
        let name = document_name(key);
        if let Some(before) = self.backend_tls_policies.get(&name) {
            for map in ca_maps(before) {
                forget(&mut self.backend_tls_policies_by, &map, &name);
            }
        }
        for map in after.iter().flat_map(|policy| ca_maps(policy)) {
            remember(&mut self.backend_tls_policies_by, map, &name);
        }
        let mut affected = set_policy(&mut self.backend_tls_policies, key, after);
        for service in affected.services.clone() {
            // Whether a port of TLS can be a backend of HTTP hangs on its having a policy.
            self.touch_routes_to(&service, &mut affected);
        }
        affected
    }

    fn set_config_map(&mut self, key: &Key, after: Option<Arc<ConfigMap>>) -> Affected {
        let name = document_name(key);
        match after {
            Some(map) => drop(self.config_maps.insert(name.clone(), map)),
            None => drop(self.config_maps.remove(&name)),
        }
        let mut affected = Affected::default();
        let users = self.backend_tls_policies_by.get(&name).into_iter();
        for user in users.flatten() {
            let policy = self.backend_tls_policies.get(user);
            let targets = policy.into_iter().flat_map(|policy| &policy.targets);
            let services = targets.map(|target| ServiceName::new(&key.namespace, &target.name));
            affected.services.extend(services);
        }
        let users = self.backend_tls_policies_by.get(&name).into_iter();
        let users = names(Kind::BackendTlsPolicy, users.flatten());
        affected.statuses.extend(users);
        affected
    }

    fn set_route(&mut self, key: &Key, after: Option<Arc<Route>>) -> Affected {
        let mut affected = Affected::default();
        affected.statuses.insert(key.clone());
        if let Some(route) = self.routes.remove(key) {
            for parent in parents(&route) {
                forget(&mut self.routes_of, &parent, key);
                affected.services.insert(parent);
            }
            for backend in backends(&route) {
                forget(&mut self.routes_to, &backend, key);
            }
        }
        if let Some(route) = after {
            for parent in parents(&route) {
                remember(&mut self.routes_of, parent.clone(), key);
                affected.services.insert(parent);
            }
            for backend in backends(&route) {
                remember(&mut self.routes_to, backend, key);
            }
            self.routes.insert(key.clone(), route);
        }
        // Routes of one parent may be in conflict, or no more.
        for parent in &affected.services {
            let attached = self.routes_of.get(parent).into_iter().flatten();
            affected.statuses.extend(attached.cloned());
        }
        affected.statuses.extend(self.policies_of_route(key));
        affected
    }
}

impl Affected {
    /// Adds what another change touches.
    pub fn extend(&mut self, other: Affected) {
        self.services.extend(other.services);
        self.ips.extend(other.ips);
        self.instances.extend(other.instances);
        self.statuses.extend(other.statuses);
    }
}

/// Puts a policy of Services in the place of what its key was before, or takes it out.
fn set_policy<P: ServicePolicy>(
    policies: &mut ServicePolicies<P>,
    key: &Key,
    after: Option<Arc<P>>,
) -> Affected {
    let services = policies.set(&document_name(key), after);
    // Policies for one service may be in conflict, or no more.
    let others = services
        .iter()
        .flat_map(|service| policies.names_of(service));
    let mut statuses: BTreeSet<Key> = names(key.kind, others).collect();
    statuses.insert(key.clone());
    Affected {
        services,
        statuses,
        ..Affected::default()
    }
}

/// Documents of one kind.
fn names<'n>(
    kind: Kind,
    names: impl Iterator<Item = &'n DocumentName>,
) -> impl Iterator<Item = Key> {
    names.map(move |(namespace, name)| Key::new(kind, namespace, name))
}

fn document_name(key: &Key) -> DocumentName {
    (key.namespace.clone(), key.name.clone())
}

/// The ConfigMaps that a policy has its CA from.
fn ca_maps(policy: &BackendTlsPolicy) -> BTreeSet<DocumentName> {
    let BackendRoots::References(references) = &policy.roots else {
        return BTreeSet::new();
    };
    let namespace = &policy.metadata.namespace;
    let maps = references.iter();
    maps.map(|reference| (namespace.clone(), reference.name.clone()))
        .collect()
}

fn selector_label(service: &Service) -> Option<(String, String, String)> {
    let (key, value) = service.spec.selector.first_key_value()?;
    let namespace = service.metadata.namespace.clone();
    Some((namespace, key.clone(), value.clone()))
}

fn service_of(slice: &EndpointSlice) -> Option<ServiceName> {
    let service = slice.service.as_deref()?;
    Some(ServiceName::new(&slice.metadata.namespace, service))
}

fn addresses(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    let first = |addresses: &Vec<IpAddr>| addresses.first().copied();
    let endpoints = slice.endpoints.iter();
    endpoints.filter_map(move |endpoint| first(&endpoint.addresses))
}

fn parents(route: &Route) -> BTreeSet<ServiceName> {
    let parents = route.parent_refs.iter();
    parents
        .map(|parent| ServiceName::new(&parent.namespace, &parent.name))
        .collect()
}

fn backends(route: &Route) -> BTreeSet<ServiceName> {
    let backends = route.backends();
    backends
        .map(|backend| ServiceName::new(&backend.namespace, &backend.name))
        .collect()
}

fn remember<K: Hash + Eq, V: Ord + Clone>(index: &mut HashMap<K, BTreeSet<V>>, key: K, value: &V) {
    index.entry(key).or_default().insert(value.clone());
}

fn forget<K: Hash + Eq, V: Ord>(index: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}
