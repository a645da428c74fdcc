//! What every kind has in common: its metadata and its key.

use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::{EndpointSlice, HttpRoute, Service};

/// A kind that weft acts upon. The order is the one in which kinds are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Service,
    EndpointSlice,
    HttpRoute,
}

impl Kind {
    /// Every kind there is.
    pub const ALL: [Self; 3] = [Self::Service, Self::EndpointSlice, Self::HttpRoute];

    /// As a document writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::HttpRoute => "HTTPRoute",
        }
    }

    /// As the command line and Kubernetes' API write it.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Service => "services",
            Self::EndpointSlice => "endpointslices",
            Self::HttpRoute => "httproutes",
        }
    }

    /// The version that documents are given back in.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Service => "v1",
            Self::EndpointSlice => "discovery.k8s.io/v1",
            Self::HttpRoute => "gateway.networking.k8s.io/v1",
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
            _ => return None,
        };
        group
            .is_none_or(|group| kind.api_version().split_once('/').map(|(g, _)| g) == Some(group))
            .then_some(kind)
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
    HttpRoute(HttpRoute),
}

impl Resource {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::HttpRoute(_) => Kind::HttpRoute,
        }
    }

    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::Service(service) => &service.metadata,
            Self::EndpointSlice(slice) => &slice.metadata,
            Self::HttpRoute(route) => &route.metadata,
        }
    }

    pub fn metadata_mut(&mut self) -> &mut Metadata {
        match self {
            Self::Service(service) => &mut service.metadata,
            Self::EndpointSlice(slice) => &mut slice.metadata,
            Self::HttpRoute(route) => &mut route.metadata,
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
            Self::HttpRoute(route) => document["spec"] = route.spec.to_json(),
            Self::EndpointSlice(slice) => slice.fill(&mut document),
        }
        document
    }

    pub fn key(&self) -> Key {
        let metadata = self.metadata();
        Key::new(self.kind(), &metadata.namespace, &metadata.name)
    }
}
