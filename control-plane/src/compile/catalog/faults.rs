//! FaultInjectionPolicies that are for routes.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::policies::age;
use super::{
    Affected, Catalog, RouteName, document_name, forget, names, parents, remember, set_policy,
};
use crate::resource::{FaultInjectionPolicy, Key, Kind, Route, RouteTarget};

/// The route that a policy of this namespace is for.
pub(in super::super) fn route_target(namespace: &str, target: &RouteTarget) -> RouteName {
    Key::new(target.kind.object_kind(), namespace, &*target.name)
}

impl Catalog {
    /// Of the FaultInjectionPolicies with exactly this target the one that has it: a route, or the rule of it that
    /// has this name.
    pub(in super::super) fn faults_of_route(
        &self,
        route: &RouteName,
        section: Option<&str>,
    ) -> Option<&Arc<FaultInjectionPolicy>> {
        let names = self.fault_injection_policies_of.get(route);
        let names = names.into_iter().flatten();
        let policies = names.filter_map(|name| self.fault_injection_policies.get(name));
        let same = policies.filter(|policy| {
            let mut targets = policy.routes.iter();
            targets.any(|target| {
                route_target(&policy.metadata.namespace, target) == *route
                    && target.section_name.as_deref() == section
            })
        });
        same.min_by_key(|policy| age(&policy.metadata))
    }

    /// The FaultInjectionPolicy in force on a rule of a route.
    pub(in super::super) fn faults_of_rule(
        &self,
        route: &Route,
        rule: Option<&str>,
    ) -> Option<Arc<FaultInjectionPolicy>> {
        let metadata = &route.metadata;
        let kind = route.kind.object_kind();
        let route = Key::new(kind, &*metadata.namespace, &*metadata.name);
        let of_rule = rule.and_then(|rule| self.faults_of_route(&route, Some(rule)));
        of_rule
            .or_else(|| self.faults_of_route(&route, None))
            .cloned()
    }

    pub(super) fn set_fault_injection_policy(
        &mut self,
        key: &Key,
        after: Option<Arc<FaultInjectionPolicy>>,
    ) -> Affected {
        let name = document_name(key);
        let routes = |policy: &Arc<FaultInjectionPolicy>| -> BTreeSet<RouteName> {
            let targets = policy.routes.iter();
            targets
                .map(|target| route_target(&key.namespace, target))
                .collect()
        };
        let before = self.fault_injection_policies.get(&name).map(routes);
        let before = before.unwrap_or_default();
        for route in &before {
            forget(&mut self.fault_injection_policies_of, route, &name);
        }
        let now = after.as_ref().map(routes).unwrap_or_default();
        for route in &now {
            remember(&mut self.fault_injection_policies_of, route.clone(), &name);
        }
        let mut affected = set_policy(&mut self.fault_injection_policies, key, after);
        for route in before.iter().chain(&now) {
            let parents = self.routes.get(route).map(|route| parents(route));
            affected.services.extend(parents.into_iter().flatten());
            affected.statuses.extend(self.policies_of_route(route));
        }
        affected
    }

    /// Those that name a route as a target, whole or in part.
    pub(super) fn policies_of_route(&self, route: &RouteName) -> impl Iterator<Item = Key> {
        let policies = self.fault_injection_policies_of.get(route);
        names(Kind::FaultInjectionPolicy, policies.into_iter().flatten())
    }
}
