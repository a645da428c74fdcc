//! What every kind has in common: its metadata and its key.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::{
    BackendTlsPolicy, BackendTrafficPolicy, ConfigMap, EndpointSlice, FaultInjectionPolicy,
    InboundPolicy, OutboundPolicy, ReferenceGrant, Route, RouteKind, Service, TrafficPolicy,
};

/// A kind that weft acts upon. The order is the one in which kinds are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Service,
    EndpointSlice,
    HttpRoute,
    GrpcRoute,
    TlsRoute,
    TcpRoute,
    ReferenceGrant,
    BackendTlsPolicy,
    ConfigMap,
    BackendTrafficPolicy,
    TrafficPolicy,
    FaultInjectionPolicy,
    InboundPolicy,
    OutboundPolicy,
}

impl Kind {
    /// Every kind there is.
    pub const ALL: [Self; 14] = [
        Self::Service,
        Self::EndpointSlice,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::TcpRoute,
        Self::ReferenceGrant,
        Self::BackendTlsPolicy,
        Self::ConfigMap,
        Self::BackendTrafficPolicy,
        Self::TrafficPolicy,
        Self::FaultInjectionPolicy,
        Self::InboundPolicy,
        Self::OutboundPolicy,
    ];

    /// As a document writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::HttpRoute => "HTTPRoute",
            Self::GrpcRoute => "GRPCRoute",
            Self::TlsRoute => "TLSRoute",
            Self::TcpRoute => "TCPRoute",
            Self::ReferenceGrant => "ReferenceGrant",
            Self::BackendTlsPolicy => "BackendTLSPolicy",
            Self::ConfigMap => "ConfigMap",
            Self::BackendTrafficPolicy => "XBackendTrafficPolicy",
            Self::TrafficPolicy => "TrafficPolicy",
            Self::FaultInjectionPolicy => "FaultInjectionPolicy",
            Self::InboundPolicy => "InboundPolicy",
            Self::OutboundPolicy => "OutboundPolicy",
        }
    }

    /// As the command line and Kubernetes' API write it.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::HttpRoute => "httproutes",
            Self::GrpcRoute => "grpcroutes",
            Self::TlsRoute => "tlsroutes",
            Self::TcpRoute => "tcproutes",
            Self::ReferenceGrant => "referencegrants",
            Self::BackendTlsPolicy => "backendtlspolicies",
            Self::ConfigMap => "configmaps",
            Self::BackendTrafficPolicy => "xbackendtrafficpolicies",
            Self::TrafficPolicy => "trafficpolicies",
            Self::FaultInjectionPolicy => "faultinjectionpolicies",
            Self::InboundPolicy => "inboundpolicies",
            Self::OutboundPolicy => "outboundpolicies",
        }
    }

    /// The version that documents are given back in.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Service | Self::ConfigMap => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::HttpRoute
            | Self::GrpcRoute
            | Self::TlsRoute
            | Self::TcpRoute
            | Self::ReferenceGrant
            | Self::BackendTlsPolicy => "gateway.networking.k8s.io/v1",
            Self::BackendTrafficPolicy => "gateway.networking.x-k8s.io/v1alpha1",
            Self::TrafficPolicy
            | Self::FaultInjectionPolicy
            | Self::InboundPolicy
            | Self::OutboundPolicy => "weft.dev/v1alpha1",
        }
    }

    /// Takes singular, plural and short names in any case, with or without the API group
    /// (`svc`, `httproutes.gateway.networking.k8s.io`).
    pub fn parse(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        let (name, group) = lower
            .split_once('.')
            .map_or((lower.as_str(), None), |(name, group)| (name, Some(group)));
        let kind = match name {
            "service" | "services" | "svc" => Self::Service,
            "endpointslice" | "endpointslices" | "eps" => Self::EndpointSlice,
            "httproute" | "httproutes" | "hr" => Self::HttpRoute,
            "grpcroute" | "grpcroutes" => Self::GrpcRoute,
            "tlsroute" | "tlsroutes" => Self::TlsRoute,
            "tcproute" | "tcproutes" => Self::TcpRoute,
            "referencegrant" | "referencegrants" | "refgrant" => Self::ReferenceGrant,
            "backendtlspolicy" | "backendtlspolicies" | "btlspolicy" => Self::BackendTlsPolicy,
            "configmap" | "configmaps" | "cm" => Self::ConfigMap,
            "xbackendtrafficpolicy" | "xbackendtrafficpolicies" | "xbtrafficpolicy" => {
                Self::BackendTrafficPolicy
            }
            "trafficpolicy" | "trafficpolicies" => Self::TrafficPolicy,
            "faultinjectionpolicy" | "faultinjectionpolicies" => Self::FaultInjectionPolicy,
            "inboundpolicy" | "inboundpolicies" => Self::InboundPolicy,
            "outboundpolicy" | "outboundpolicies" => Self::OutboundPolicy,
            _ => return None,
        };
        group
            .is_none_or(|group| kind.api_version().split_once('/').map(|(g, _)| g) == Some(group))
            .then_some(kind)
    }
}

impl Kind {
    /// Which kind of route objects of this kind are.
    pub fn route(self) -> Option<RouteKind> {
        RouteKind::ALL
            .into_iter()
            .find(|kind| kind.object_kind() == self)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Names one object of the mesh.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// Kubernetes' object metadata, as far as it means something here. The store fills in the fields
/// from `uid` on; in a document that was just parsed they are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    pub namespace: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub uid: String,
    /// Counts the changes of the spec.
    pub generation: u64,
    /// The store's revision that last changed the object.
    pub resource_version: u64,
    pub creation_timestamp: Option<SystemTime>,
}

/// A validated object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    Service(Service),
    EndpointSlice(EndpointSlice),
    Route(Route),
    ReferenceGrant(ReferenceGrant),
    BackendTlsPolicy(BackendTlsPolicy),
    ConfigMap(ConfigMap),
    BackendTrafficPolicy(BackendTrafficPolicy),
    TrafficPolicy(TrafficPolicy),
    FaultInjectionPolicy(FaultInjectionPolicy),
    InboundPolicy(InboundPolicy),
    OutboundPolicy(OutboundPolicy),
}

impl Resource {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Route(route) => route.kind.object_kind(),
            Self::ReferenceGrant(_) => Kind::ReferenceGrant,
            Self::BackendTlsPolicy(_) => Kind::BackendTlsPolicy,
            Self::ConfigMap(_) => Kind::ConfigMap,
            Self::BackendTrafficPolicy(_) => Kind::BackendTrafficPolicy,
            Self::TrafficPolicy(_) => Kind::TrafficPolicy,
            Self::FaultInjectionPolicy(_) => Kind::FaultInjectionPolicy,
            Self::InboundPolicy(_) => Kind::InboundPolicy,
            Self::OutboundPolicy(_) => Kind::OutboundPolicy,
        }
    }

    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Service(service) => &service.metadata,
            Self::EndpointSlice(slice) => &slice.metadata,
            Self::Route(route) => &route.metadata,
            Self::ReferenceGrant(grant) => &grant.metadata,
            Self::BackendTlsPolicy(policy) => &policy.metadata,
            Self::ConfigMap(map) => &map.metadata,
            Self::BackendTrafficPolicy(policy) => &policy.metadata,
            Self::TrafficPolicy(policy) => &policy.metadata,
            Self::FaultInjectionPolicy(policy) => &policy.metadata,
            Self::InboundPolicy(policy) => &policy.metadata,
            Self::OutboundPolicy(policy) => &policy.metadata,
        }
    }

    pub fn metadata_mut(&mut self) -> &mut Metadata {
        match self {
            Self::Service(service) => &mut service.metadata,
            Self::EndpointSlice(slice) => &mut slice.metadata,
            Self::Route(route) => &mut route.metadata,
            Self::ReferenceGrant(grant) => &mut grant.metadata,
            Self::BackendTlsPolicy(policy) => &mut policy.metadata,
            Self::ConfigMap(map) => &mut map.metadata,
            Self::BackendTrafficPolicy(policy) => &mut policy.metadata,
            Self::TrafficPolicy(policy) => &mut policy.metadata,
            Self::FaultInjectionPolicy(policy) => &mut policy.metadata,
            Self::InboundPolicy(policy) => &mut policy.metadata,
            Self::OutboundPolicy(policy) => &mut policy.metadata,
        }
    }

    /// The document as Kubernetes would give it back, without `status`.
    pub fn to_json(&self) -> Value {
        let mut document = json!({
            "apiVersion": self.kind().api_version(),
            "kind": self.kind().as_str(),
            "metadata": self.metadata().to_json(),
        });
        match self {
            Self::Service(service) => document["spec"] = service.spec.to_json(),
            Self::Route(route) => document["spec"] = route.to_json(),
            Self::ReferenceGrant(grant) => document["spec"] = grant.to_json(),
            Self::BackendTlsPolicy(policy) => document["spec"] = policy.to_json(),
            Self::ConfigMap(map) => document["data"] = map.to_json(),
            Self::BackendTrafficPolicy(policy) => document["spec"] = policy.to_json(),
            Self::TrafficPolicy(policy) => document["spec"] = policy.to_json(),
            Self::FaultInjectionPolicy(policy) => document["spec"] = policy.to_json(),
            Self::InboundPolicy(policy) => document["spec"] = policy.to_json(),
            Self::OutboundPolicy(policy) => document["spec"] = policy.to_json(),
            Self::EndpointSlice(slice) => slice.fill(&mut document),
        }
        document
    }

    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        Key::new(self.kind(), &metadata.namespace, &metadata.name)
    }
}
