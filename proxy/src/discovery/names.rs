//! Names on the wire.

use weft_proto::v1alpha1::{ResourceName, ResourceType};

use crate::model::Name;

/// The one inbound resource is the proxy's own.
const INBOUND_NAME: &str = "self";

/// Type and text of a name.
pub(super) fn to_wire(name: &Name) -> ResourceName {
    let (kind, name) = match name {
        Name::Service(name) => (ResourceType::Service, name.to_string()),
        Name::Address(address) => (ResourceType::Address, address.to_string()),
        Name::Route(name) => (ResourceType::Route, name.to_string()),
        Name::Cluster(name) => (ResourceType::Cluster, name.to_string()),
        Name::Inbound => (ResourceType::Inbound, INBOUND_NAME.to_owned()),
        Name::TrustBundle(domain) => (ResourceType::TrustBundle, domain.to_string()),
    };
    ResourceName {
        r#type: kind.into(),
        name,
    }
}

/// The error is the field that is wrong, and why.
pub(super) fn from_wire(kind: i32, name: &str) -> Result<Name, (&'static str, String)> {
    let wrong = |error: &dyn std::fmt::Display| ("name", error.to_string());
    let kind = ResourceType::try_from(kind).map_err(|_| {
        (
            "type",
            format!("{kind} is no resource type that this proxy knows"),
        )
    })?;
    match kind {
        ResourceType::Unspecified => Err(("type", "is not set".to_owned())),
        ResourceType::Service => name.parse().map(Name::Service).map_err(|e| wrong(&e)),
        ResourceType::Address => name.parse().map(Name::Address).map_err(|e| wrong(&e)),
        ResourceType::Route => name.parse().map(Name::Route).map_err(|e| wrong(&e)),
        ResourceType::Cluster => name.parse().map(Name::Cluster).map_err(|e| wrong(&e)),
        ResourceType::Inbound if name == INBOUND_NAME => Ok(Name::Inbound),
        ResourceType::Inbound => Err(("name", format!("must be `{INBOUND_NAME}`"))),
        ResourceType::TrustBundle => Ok(Name::TrustBundle(name.into())),
    }
}

/// The word for a name's type.
pub(super) fn kind(name: &Name) -> &'static str {
    match name {
        Name::Service(_) => "Service",
        Name::Address(_) => "Address",
        Name::Route(_) => "Route",
        Name::Cluster(_) => "Cluster",
        Name::Inbound => "Inbound",
        Name::TrustBundle(_) => "TrustBundle",
    }
}
