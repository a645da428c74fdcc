//! `Service` (v1).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::fields::{Field, Fields};
use super::route::one_of;
use super::{Metadata, names};

/// Ports that a service may have; more are refused.
const PORTS_MAX: usize = 100;

/// A name for a set of workloads, and the ports they are called by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub metadata: Metadata,
    pub spec: ServiceSpec,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    pub kind: ServiceKind,
    /// `clusterIP: None`: no virtual IP, DNS answers the endpoints' addresses.
    pub headless: bool,
    /// One of each family at most. The store allots them where the document names none; empty for
    /// headless and external services.
    pub cluster_ips: Vec<IpAddr>,
    /// Over the labels of workloads of the same namespace. Empty selects none.
    pub selector: BTreeMap<String, String>,
    pub ports: Vec<ServicePort>,
    /// `PreferClose` or `PreferSameZone`: what proxies do anyway, unless a TrafficPolicy says otherwise.
    pub traffic_distribution: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    ClusterIp,
    /// `spec.externalName`: a host name that DNS resolves.
    ExternalName(String),
}

/// A TCP port; other transports are refused when a document is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Empty where the one port of a service has no name.
    pub name: String,
    pub port: u16,
    pub target_port: TargetPort,
    pub app_protocol: Option<AppProtocol>,
}

/// The port of the workload behind a service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    Number(u16),
    /// A port that the workload itself gives this name.
    Name(String),
}

/// `appProtocol`: what clients speak to the port. A port without one is detected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppProtocol {
    /// `http`, `kubernetes.io/ws`
    Http(String),
    /// `kubernetes.io/h2c`, `http2`, `grpc`
    Http2(String),
    /// `tcp`
    Tcp,
    /// `https`, `tls`, `kubernetes.io/wss`: the application's own TLS.
    Tls(String),
    /// A name that says nothing to weft, such as `redis`: detected.
    Other(String),
}

impl AppProtocol {
    /// As the document wrote it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tcp => "tcp",
            Self::Http(name) | Self::Http2(name) | Self::Tls(name) | Self::Other(name) => name,
        }
    }
}

impl From<&str> for AppProtocol {
    fn from(name: &str) -> Self {
        let owned = name.to_owned();
        match name {
            "http" | "kubernetes.io/ws" => Self::Http(owned),
            "kubernetes.io/h2c" | "http2" | "grpc" => Self::Http2(owned),
            "tcp" => Self::Tcp,
            "https" | "tls" | "kubernetes.io/wss" => Self::Tls(owned),
            _ => Self::Other(owned),
        }
    }
}

impl ServiceSpec {
    /// The port of this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }
}

/// Reads `spec`.
pub(super) fn decode(metadata: Metadata, document: &mut Fields<'_>) -> Option<Service> {
    let mut fields = document.require("spec")?.mapping()?;
    fields.ignore(&["ipFamilies", "ipFamilyPolicy"]);
    fields.only("sessionAffinity", "None");
    fields.only("internalTrafficPolicy", "Cluster");
    fields.only("externalTrafficPolicy", "Cluster");
    fields.refuse(&[
        "publishNotReadyAddresses",
        "externalIPs",
        "sessionAffinityConfig",
        "loadBalancerIP",
        "loadBalancerClass",
        "loadBalancerSourceRanges",
        "allocateLoadBalancerNodePorts",
        "healthCheckNodePort",
    ]);
    let kind = service_kind(&mut fields);
    let (headless, cluster_ips) = cluster_ips(&mut fields);
    let selector = fields
        .take("selector")
        .map(|field| field.string_map(names::label_pair))
        .unwrap_or_default();
    // Which workloads share a node is known to nobody here, so PreferSameNode can't be kept.
    let distribution = fields.take("trafficDistribution");
    let distribution =
        distribution.and_then(|field| field.checked(one_of(&["PreferClose", "PreferSameZone"])));
    let ports_field = fields.take("ports");
    let ports = ports_field.as_ref().map(ports).unwrap_or_default();
    let external = matches!(kind, Some(ServiceKind::ExternalName(_)));
    if ports_field.is_none() && !headless && !external {
        // Puts the problem where the field would be.
        fields.require("ports");
    }
    fields.finish();
    Some(Service {
        metadata,
        spec: ServiceSpec {
            kind: kind?,
            headless: headless && !external,
            cluster_ips,
            selector,
            ports,
            traffic_distribution: distribution,
        },
    })
}

fn service_kind(fields: &mut Fields<'_>) -> Option<ServiceKind> {
    let named = fields.take("type");
    let kind = match &named {
        Some(field) => field.string()?,
        None => "ClusterIP".to_owned(),
    };
    match kind.as_str() {
        "ClusterIP" => {
            fields.refuse(&["externalName"]);
            Some(ServiceKind::ClusterIp)
        }
        "ExternalName" => fields
            .require("externalName")?
            .checked(|name| names::subdomain(name.strip_suffix('.').unwrap_or(name)))
            .map(ServiceKind::ExternalName),
        _ => {
            named?.problem(match kind.as_str() {
                "NodePort" | "LoadBalancer" => {
                    format!("{kind} is not supported yet by this version of weft, only ClusterIP and ExternalName are")
                }
                _ => format!("{kind:?} is no type of Service: ClusterIP or ExternalName"),
            });
            None
        }
    }
}

/// Whether the service is headless, and the IPs that the document asks for.
fn cluster_ips(fields: &mut Fields<'_>) -> (bool, Vec<IpAddr>) {
    let single = fields.take("clusterIP");
    let list = fields.take("clusterIPs");
    let items = match (&list, &single) {
        (Some(list), _) => list.sequence(2),
        (None, Some(single)) => vec![single.clone()],
        (None, None) => Vec::new(),
    };
    let mut headless = false;
    let mut ips: Vec<IpAddr> = Vec::new();
    for item in &items {
        match item.string().as_deref() {
            None | Some("") => {}
            Some("None") => headless = true,
            Some(text) => match text.parse::<IpAddr>() {
                Ok(ip) if !usable(ip) => item.problem(format!("{ip} can't be a service's address")),
                Ok(ip) if ips.iter().any(|other| other.is_ipv4() == ip.is_ipv4()) => {
                    item.problem("a second address of the same family");
                }
                Ok(ip) => ips.push(ip),
                Err(_) => item.problem(format!("{text:?} is no IP address and not None")),
            },
        }
    }
    if let (Some(list), Some(single)) = (&list, &single)
        && single.string() != items.first().and_then(Field::string)
    {
        list.problem("the first must be the same as clusterIP");
    }
    if headless
        && !ips.is_empty()
        && let Some(list) = &list
    {
        list.problem("None and an address exclude each other");
    }
    (headless, ips)
}

/// Whether an address can stand for a service or an endpoint.
pub(super) fn usable(ip: IpAddr) -> bool {
    let broadcast = matches!(ip, IpAddr::V4(v4) if v4.is_broadcast());
    !ip.is_unspecified() && !ip.is_multicast() && !broadcast
}

fn ports(field: &Field<'_>) -> Vec<ServicePort> {
    let items = field.sequence(PORTS_MAX);
    let several = items.len() > 1;
    let mut ports: Vec<ServicePort> = Vec::new();
    for item in &items {
        let Some(port) = port(item, several) else {
            continue;
        };
        if ports.iter().any(|other| other.port == port.port) {
            item.problem(format!("port {} is there twice", port.port));
        } else if several && ports.iter().any(|other| other.name == port.name) {
            item.problem(format!("the name {:?} is there twice", port.name));
        }
        ports.push(port);
    }
    ports
}

fn port(item: &Field<'_>, several: bool) -> Option<ServicePort> {
    let mut fields = item.mapping()?;
    fields.only("protocol", "TCP");
    fields.refuse(&["nodePort"]);
    let named = if several {
        fields.require("name")
    } else {
        fields.take("name")
    };
    let name = named.and_then(|name| name.checked(port_name(several)));
    let number = fields.require("port").and_then(|port| port.port());
    let target = fields.take("targetPort");
    let app_protocol = app_protocol(&mut fields);
    fields.finish();
    let port = number?;
    Some(ServicePort {
        name: name.unwrap_or_default(),
        port,
        target_port: match target {
            Some(field) => target_port(&field)?,
            None => TargetPort::Number(port),
        },
        app_protocol,
    })
}

/// An empty name is taken where it needn't tell ports apart.
pub(super) fn port_name(needed: bool) -> impl Fn(&str) -> Result<(), String> {
    move |name| {
        if name.is_empty() && !needed {
            Ok(())
        } else {
            names::label(name, false)
        }
    }
}

pub(super) fn app_protocol(fields: &mut Fields<'_>) -> Option<AppProtocol> {
    let name = fields.take("appProtocol")?.string()?;
    (!name.is_empty()).then(|| AppProtocol::from(name.as_str()))
}

fn target_port(field: &Field<'_>) -> Option<TargetPort> {
    match &field.node.value {
        super::tree::Value::String(_) => field
            .checked(|name| {
                (name.len() <= 15)
                    .then_some(())
                    .ok_or("longer than 15 characters")?;
                names::label(name, false)
            })
            .map(TargetPort::Name),
        _ => field.port().map(TargetPort::Number),
    }
}

impl ServiceSpec {
    pub(super) fn to_json(&self) -> Value {
        let mut spec = serde_json::Map::new();
        match &self.kind {
            ServiceKind::ClusterIp => spec.insert("type".into(), "ClusterIP".into()),
            ServiceKind::ExternalName(name) => {
                spec.insert("externalName".into(), name.as_str().into());
                spec.insert("type".into(), "ExternalName".into())
            }
        };
        let ips: Vec<String> = if self.headless {
            vec!["None".to_owned()]
        } else {
            self.cluster_ips.iter().map(IpAddr::to_string).collect()
        };
        if let Some(first) = ips.first() {
            spec.insert("clusterIP".into(), first.as_str().into());
            spec.insert("clusterIPs".into(), ips.into());
        }
        if !self.selector.is_empty() {
            spec.insert("selector".into(), json!(self.selector));
        }
        let ports: Vec<Value> = self.ports.iter().map(ServicePort::to_json).collect();
        if !ports.is_empty() {
            spec.insert("ports".into(), ports.into());
        }
        if let Some(distribution) = &self.traffic_distribution {
            let distribution = distribution.as_str().into();
            spec.insert("trafficDistribution".into(), distribution);
        }
        spec.into()
    }
}

impl ServicePort {
    fn to_json(&self) -> Value {
        let target: Value = match &self.target_port {
            TargetPort::Number(number) => (*number).into(),
            TargetPort::Name(name) => name.as_str().into(),
        };
        let mut port = json!({"port": self.port, "targetPort": target, "protocol": "TCP"});
        if !self.name.is_empty() {
            port["name"] = self.name.as_str().into();
        }
        if let Some(protocol) = &self.app_protocol {
            port["appProtocol"] = protocol.as_str().into();
        }
        port
    }
}
