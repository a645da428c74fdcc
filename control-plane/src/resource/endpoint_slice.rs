//! `EndpointSlice` (discovery.k8s.io/v1): endpoints without a sidecar.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::fields::{Field, Fields};
use super::service::{app_protocol, port_name, usable};
use super::{AppProtocol, Metadata, names};

/// Endpoints of a slice; more are refused (Kubernetes' limit).
const ENDPOINTS_MAX: usize = 1000;
/// Ports of a slice; more are refused (Kubernetes' limit).
const PORTS_MAX: usize = 100;
/// Addresses of an endpoint; more are refused (Kubernetes' limit).
const ADDRESSES_MAX: usize = 100;

/// Names the service that a slice belongs to.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Addresses that serve a service's ports without being workloads of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    pub metadata: Metadata,
    /// The label `kubernetes.io/service-name`; a slice without one belongs to nobody.
    pub service: Option<String>,
    pub address_type: AddressType,
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<SliceEndpoint>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressType {
    Ipv4,
    Ipv6,
}

/// Which of the service's ports, by name, and the port of the endpoints that serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    pub name: String,
    pub port: u16,
    pub app_protocol: Option<AppProtocol>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// At least one, all of the slice's family. The first is used, as in Kubernetes.
    pub addresses: Vec<IpAddr>,
    /// True where the document doesn't say (EndpointConditions: unknown is to be read as ready).
    pub ready: bool,
    pub zone: Option<String>,
    pub hostname: Option<String>,
}

/// Reads the fields beside `metadata`.
pub(super) fn decode(metadata: Metadata, document: &mut Fields<'_>) -> Option<EndpointSlice> {
    let address_type =
        document
            .require("addressType")
            .and_then(|field| match field.string()?.as_str() {
                "IPv4" => Some(AddressType::Ipv4),
                "IPv6" => Some(AddressType::Ipv6),
                "FQDN" => {
                    field.problem(
                        "FQDN is not supported yet by this version of weft, only IPv4 and IPv6 are",
                    );
                    None
                }
                other => {
                    field.problem(format!("{other:?} is no address type: IPv4 or IPv6"));
                    None
                }
            });
    let ports = document
        .take("ports")
        .map(|field| ports(&field))
        .unwrap_or_default();
    let items = document
        .take("endpoints")
        .map(|field| field.sequence(ENDPOINTS_MAX));
    let address_type = address_type?;
    let endpoints = items
        .unwrap_or_default()
        .iter()
        .filter_map(|item| endpoint(item, address_type))
        .collect();
    Some(EndpointSlice {
        service: metadata.labels.get(SERVICE_NAME_LABEL).cloned(),
        metadata,
        address_type,
        ports,
        endpoints,
    })
}

fn ports(field: &Field<'_>) -> Vec<EndpointPort> {
    let mut ports: Vec<EndpointPort> = Vec::new();
    for item in field.sequence(PORTS_MAX) {
        let Some(mut fields) = item.mapping() else {
            continue;
        };
        fields.only("protocol", "TCP");
        let name = fields
            .take("name")
            .and_then(|name| name.checked(port_name(false)));
        let number = fields.require("port").and_then(|port| port.port());
        let app_protocol = app_protocol(&mut fields);
        fields.finish();
        let Some(port) = number else { continue };
        let name = name.unwrap_or_default();
        if ports.iter().any(|other| other.name == name) {
            item.problem(format!("the name {name:?} is there twice"));
        }
        ports.push(EndpointPort {
            name,
            port,
            app_protocol,
        });
    }
    ports
}

fn endpoint(item: &Field<'_>, address_type: AddressType) -> Option<SliceEndpoint> {
    let mut fields = item.mapping()?;
    fields.ignore(&["targetRef", "nodeName", "hints", "deprecatedTopology"]);
    let listed = fields.require("addresses");
    let addresses: Vec<IpAddr> = listed
        .iter()
        .flat_map(|field| field.sequence(ADDRESSES_MAX))
        .filter_map(|field| address(&field, address_type))
        .collect();
    let ready = fields.take("conditions").map(|field| conditions(&field));
    let zone = fields.take("zone").and_then(|field| field.string());
    let hostname = fields
        .take("hostname")
        .and_then(|field| field.checked(|name| names::label(name, false)));
    fields.finish();
    if let Some(field) = listed
        && field.sequence(ADDRESSES_MAX).is_empty()
    {
        field.problem("at least one address is needed");
    }
    Some(SliceEndpoint {
        addresses,
        ready: ready.unwrap_or(true),
        zone,
        hostname,
    })
}

fn address(field: &Field<'_>, address_type: AddressType) -> Option<IpAddr> {
    let text = field.string()?;
    let wanted = address_type.as_str();
    match text.parse::<IpAddr>() {
        Ok(ip) if ip.is_ipv4() != (address_type == AddressType::Ipv4) => {
            field.problem(format!("{ip} is not of the slice's address type {wanted}"));
        }
        Ok(ip) if !usable(ip) => field.problem(format!("{ip} can't be an endpoint's address")),
        Ok(ip) => return Some(ip),
        Err(_) => field.problem(format!("{text:?} is no {wanted} address")),
    }
    None
}

/// Whether the endpoint takes traffic: unknown counts as ready (EndpointConditions).
fn conditions(field: &Field<'_>) -> bool {
    let Some(mut fields) = field.mapping() else {
        return false;
    };
    let mut flag = |name| fields.take(name).and_then(|field| field.boolean());
    let (ready, _, terminating) = (flag("ready"), flag("serving"), flag("terminating"));
    fields.finish();
    ready.unwrap_or(true) && !terminating.unwrap_or(false)
}

impl AddressType {
    /// As a document writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ipv4 => "IPv4",
            Self::Ipv6 => "IPv6",
        }
    }
}

impl EndpointSlice {
    /// Adds what stands beside `metadata` to a document.
    pub(super) fn fill(&self, document: &mut Value) {
        document["addressType"] = self.address_type.as_str().into();
        document["ports"] = self
            .ports
            .iter()
            .map(|port| {
                let mut out = json!({"name": port.name, "port": port.port, "protocol": "TCP"});
                if let Some(protocol) = &port.app_protocol {
                    out["appProtocol"] = protocol.as_str().into();
                }
                out
            })
            .collect();
        document["endpoints"] = self
            .endpoints
            .iter()
            .map(|endpoint| {
                let mut out = json!({
                    "addresses": endpoint.addresses,
                    "conditions": {"ready": endpoint.ready},
                });
                for (name, value) in [("zone", &endpoint.zone), ("hostname", &endpoint.hostname)] {
                    if let Some(value) = value {
                        out[name] = value.as_str().into();
                    }
                }
                out
            })
            .collect();
    }
}
