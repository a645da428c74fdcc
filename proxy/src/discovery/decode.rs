//! Protobuf bodies become the model's types, or a rejection that says which field is wrong and why.
//! Pure: no I/O, no clock.

mod inbound_policy;
mod policy;
mod route;
#[cfg(test)]
mod tests;
use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use prost::Message;
use regex::{Regex, RegexBuilder};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, ServerName};
use weft_proto::svid::TrustBundle;
use weft_proto::v1alpha1 as wire;

use super::names;
use crate::model::{
    Address, BackendTls, Cluster, Endpoint, Inbound, InboundPort, Name, Port, Protocol, Route,
    Service, Sidecar, SubjectAltName, Text,
};

/// Memory that one compiled regular expression may take; a larger one is rejected.
const REGEX_BYTES_MAX: usize = 256 * 1024;
/// Elements of any one list in a resource; a longer one is rejected.
const LIST_MAX: usize = 100_000;
/// Bytes of any one text in a resource; a longer one is rejected.
const TEXT_BYTES_MAX: usize = 4096;

/// A resource that is valid.
#[derive(Debug)]
pub enum Decoded {
    Service(Service),
    Address(Address),
    Route(Route),
    Cluster(Cluster),
    Inbound(Inbound),
    TrustBundle(TrustBundle),
}

/// Why a resource can't be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Rejection {
    /// Path of the field, such as `endpoints[3].sidecar.spiffe_id`; empty for the whole body.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

type Result<T> = std::result::Result<T, Rejection>;

/// Reads the body of a resource of this type (a number of `ResourceType`) and name.
pub fn decode(kind: i32, name: &str, body: &[u8]) -> Result<(Name, Decoded)> {
    let name = names::from_wire(kind, name).map_err(|(field, reason)| reject(field, reason))?;
    let decoded = decode_body(&name, body)?;
    Ok((name, decoded))
}

pub(super) fn decode_body(name: &Name, body: &[u8]) -> Result<Decoded> {
    Ok(match name {
        Name::Service(_) => Decoded::Service(service(name, parse(body)?)?),
        Name::Address(_) => Decoded::Address(address(parse(body)?)?),
        Name::Route(_) => Decoded::Route(route::decode(name, parse(body)?)?),
        Name::Cluster(_) => Decoded::Cluster(cluster(name, parse(body)?)?),
        Name::Inbound => Decoded::Inbound(inbound(parse(body)?)?),
        Name::TrustBundle(_) => Decoded::TrustBundle(trust_bundle(name, &parse(body)?)?),
    })
}

fn reject(field: impl Into<String>, reason: impl Into<String>) -> Rejection {
    Rejection {
        field: field.into(),
        reason: reason.into(),
    }
}

fn parse<M: Message + Default>(body: &[u8]) -> Result<M> {
    M::decode(body).map_err(|error| reject("", format!("is not the message of its type: {error}")))
}

/// Puts the path of the parent before a rejection's field.
fn within<T>(parent: impl std::fmt::Display, result: Result<T>) -> Result<T> {
    result.map_err(|rejection| {
        let field = match rejection.field.as_str() {
            "" => parent.to_string(),
            field => format!("{parent}.{field}"),
        };
        Rejection {
            field,
            reason: rejection.reason,
        }
    })
}

/// Decodes each element of a list under its index.
fn each<A, B>(field: &str, list: Vec<A>, mut decode: impl FnMut(A) -> Result<B>) -> Result<Vec<B>> {
    if list.len() > LIST_MAX {
        return Err(reject(
            field,
            format!("{} elements are more than {LIST_MAX}", list.len()),
        ));
    }
    let indexed = list.into_iter().enumerate();
    indexed
        .map(|(i, element)| within(format_args!("{field}[{i}]"), decode(element)))
        .collect()
}

fn text(field: &str, text: String) -> Result<String> {
    if text.len() > TEXT_BYTES_MAX {
        let reason = format!("{} bytes are more than {TEXT_BYTES_MAX}", text.len());
        return Err(reject(field, reason));
    }
    Ok(text)
}

/// Text that must be there.
fn required(field: &str, value: String) -> Result<String> {
    if value.is_empty() {
        return Err(reject(field, "is not set"));
    }
    text(field, value)
}

/// What stands in header fields of the hop.
fn visible(field: &str, value: &str) -> Result<Text> {
    Text::try_from(value).map_err(|_| reject(field, "is not visible ASCII"))
}

fn optional(field: &str, value: String) -> Result<Option<String>> {
    Ok(Some(text(field, value)?).filter(|value| !value.is_empty()))
}

fn from_text<T: FromStr<Err: std::fmt::Display>>(field: &str, value: &str) -> Result<T> {
    value
        .parse()
        .map_err(|error| reject(field, format!("`{}`: {error}", shorten(value))))
}

/// An error repeats what was sent, not all of it.
fn shorten(value: &str) -> &str {
    let end = (0..=value.len().min(100))
        .rev()
        .find(|end| value.is_char_boundary(*end));
    &value[..end.unwrap_or(0)]
}

fn port(field: &str, port: u32) -> Result<u16> {
    match u16::try_from(port) {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(reject(
            field,
            format!("{port} is no port; must be 1 to 65535"),
        )),
    }
}

fn protocol(field: &str, protocol: i32) -> Result<Option<Protocol>> {
    match wire::Protocol::try_from(protocol) {
        Ok(wire::Protocol::Unspecified) => Ok(None),
        Ok(wire::Protocol::Http1) => Ok(Some(Protocol::Http1)),
        Ok(wire::Protocol::Http2) => Ok(Some(Protocol::Http2)),
        Ok(wire::Protocol::Tcp) => Ok(Some(Protocol::Tcp)),
        Ok(wire::Protocol::Tls) => Ok(Some(Protocol::Tls)),
        Err(_) => Err(reject(
            field,
            format!("{protocol} is no protocol that this proxy knows"),
        )),
    }
}

/// The body must be of the resource that its envelope names.
fn same_name(field: &str, expected: &Name, actual: &Name) -> Result<()> {
    if expected == actual {
        return Ok(());
    }
    let (expected, actual) = (names::to_wire(expected).name, names::to_wire(actual).name);
    Err(reject(
        field,
        format!("`{actual}` is not the resource's own name `{expected}`"),
    ))
}

fn ips(field: &str, list: Vec<String>) -> Result<Vec<IpAddr>> {
    each(field, list, |ip| from_text("", &ip))
}

fn service(expected: &Name, message: wire::Service) -> Result<Service> {
    let name = format!("{}/{}", message.namespace, message.name);
    let name: crate::model::ServiceName = from_text("name", &name)?;
    same_name("name", expected, &Name::Service(name.clone()))?;
    let ports = each("ports", message.ports, |element| {
        Ok(Port {
            port: port("port", element.port)?,
            name: text("name", element.name)?,
            protocol: protocol("protocol", element.protocol)?,
        })
    })?;
    Ok(Service {
        name,
        virtual_ips: ips("virtual_ips", message.virtual_ips)?,
        ports,
        headless: message.headless,
        external_name: optional("external_name", message.external_name)?,
        endpoint_addresses: ips("endpoint_addresses", message.endpoint_addresses)?,
    })
}

fn address(message: wire::Address) -> Result<Address> {
    match message.owner {
        None => Err(reject("owner", "is not set")),
        Some(wire::address::Owner::Service(name)) => {
            Ok(Address::Service(from_text("service", &name)?))
        }
        Some(wire::address::Owner::Endpoint(message)) => Ok(Address::Endpoint(Arc::new(within(
            "endpoint",
            endpoint(message),
        )?))),
    }
}

fn cluster(expected: &Name, message: wire::Cluster) -> Result<Cluster> {
    let name: crate::model::ServicePort = from_text("name", &message.name)?;
    same_name("name", expected, &Name::Cluster(name.clone()))?;
    let protocol = protocol("protocol", message.protocol)?;
    let mut ids = HashSet::new();
    let endpoints = each("endpoints", message.endpoints, |message| {
        unique(&mut ids, endpoint(message)?)
    })?;
    Ok(Cluster {
        name,
        protocol,
        endpoints: endpoints.into_iter().collect(),
        tls: match message.tls {
            None => None,
            Some(tls) => Some(Arc::new(within("tls", backend_tls(tls))?)),
        },
        policy: match message.policy {
            None => Arc::default(),
            Some(policy) => Arc::new(within("policy", policy::decode(policy))?),
        },
    })
}

fn backend_tls(message: wire::BackendTls) -> Result<BackendTls> {
    use wire::subject_alt_name::Name as Wire;
    let hostname = ServerName::try_from(message.hostname)
        .map_err(|_| reject("hostname", "is no server name"))?;
    let roots = each("roots", message.roots, |root| {
        let root = CertificateDer::from(root.to_vec());
        match RootCertStore::empty().add(root.clone()) {
            Ok(()) => Ok(root),
            Err(error) => Err(reject("", format!("is no root certificate: {error}"))),
        }
    })?;
    let names = each("subject_alt_names", message.subject_alt_names, |name| {
        Ok(match name.name {
            Some(Wire::Hostname(name)) => {
                SubjectAltName::Hostname(required("hostname", name)?.to_ascii_lowercase())
            }
            Some(Wire::Uri(uri)) => SubjectAltName::Uri(required("uri", uri)?),
            None => return Err(reject("name", "is not set")),
        })
    })?;
    Ok(BackendTls {
        policy: required("policy", message.policy)?,
        hostname,
        roots,
        subject_alt_names: names,
        invalid: optional("invalid", message.invalid)?,
    })
}

fn unique(ids: &mut HashSet<Arc<str>>, endpoint: Endpoint) -> Result<Arc<Endpoint>> {
    if !ids.insert(endpoint.id.clone()) {
        let reason = format!("`{}` is named twice", shorten(&endpoint.id));
        return Err(reject("id", reason));
    }
    Ok(Arc::new(endpoint))
}

/// What a change makes of a cluster. It costs what is in the change, and next to nothing for what is
/// in the cluster. One that doesn't fit, or holds anything that a whole cluster must not, is taken in
/// no part.
pub fn decode_change(base: &Cluster, change: &[u8]) -> Result<Cluster> {
    let message: wire::ClusterChange = parse(change)?;
    let mut cluster = base.clone();
    let mut ids = HashSet::new();
    each("removed", message.removed, |id| {
        let Some(removed) = cluster.endpoints.remove(&id) else {
            let reason = format!("`{}` is not there", shorten(&id));
            return Err(reject("", reason));
        };
        ids.insert(removed.id.clone());
        Ok(())
    })?;
    each("upserted", message.upserted, |message| {
        cluster
            .endpoints
            .insert(unique(&mut ids, endpoint(message)?)?);
        Ok(())
    })?;
    let count = cluster.endpoints.len();
    if count > LIST_MAX {
        let reason = format!("{count} elements would be more than {LIST_MAX}");
        return Err(reject("endpoints", reason));
    }
    Ok(cluster)
}

fn endpoint(message: wire::Endpoint) -> Result<Endpoint> {
    let ip: IpAddr = from_text("address", &message.address)?;
    let sidecar = match message.sidecar {
        None => None,
        Some(sidecar) => Some(within("sidecar", self::sidecar(ip, sidecar))?),
    };
    Ok(Endpoint {
        id: required("id", message.id)?.into(),
        address: SocketAddr::new(ip, port("port", message.port)?),
        weight: message.weight,
        zone: text("zone", message.zone)?.into(),
        workload: text("workload", message.workload)?.into(),
        namespace: text("namespace", message.namespace)?.into(),
        sidecar,
    })
}

fn sidecar(ip: IpAddr, message: wire::Sidecar) -> Result<Sidecar> {
    Ok(Sidecar {
        spiffe_id: from_text("spiffe_id", &message.spiffe_id)?,
        instance: visible("instance", &required("instance", message.instance)?)?,
        address: SocketAddr::new(ip, port("inbound_port", message.inbound_port)?),
    })
}

/// Matches a value as a whole. The pattern is compiled by itself first: `a)|(b` would only become
/// valid, and mean something else, by the anchors around it.
fn regex(field: &str, pattern: &str) -> Result<Regex> {
    text(field, pattern.to_owned())?;
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(REGEX_BYTES_MAX)
            .dfa_size_limit(REGEX_BYTES_MAX)
            .build()
            .map_err(|error| {
                let reason = format!(
                    "`{}` is no usable regular expression: {error}",
                    shorten(pattern)
                );
                reject(field, reason)
            })
    };
    build(pattern)?;
    build(&format!("^(?:{pattern})$"))
}

fn inbound(message: wire::Inbound) -> Result<Inbound> {
    let ports = each("ports", message.ports, |element| {
        Ok(InboundPort {
            port: port("port", element.port)?,
            protocol: protocol("protocol", element.protocol)?,
            services: each("services", element.services, |name| from_text("", &name))?,
            policy: match element.policy {
                None => Arc::default(),
                Some(message) => Arc::new(within("policy", inbound_policy::decode(message))?),
            },
        })
    })?;
    let refuses_unknown = match wire::UnknownDestinations::try_from(message.unknown_destinations) {
        Ok(wire::UnknownDestinations::Unspecified | wire::UnknownDestinations::Pass) => false,
        Ok(wire::UnknownDestinations::Refuse) => true,
        Err(_) => {
            return Err(reject(
                "unknown_destinations",
                "is none that this proxy knows",
            ));
        }
    };
    Ok(Inbound {
        ports,
        refuses_unknown,
        outbound_policy: optional("outbound_policy", message.outbound_policy)?,
    })
}

fn trust_bundle(expected: &Name, message: &wire::TrustBundle) -> Result<TrustBundle> {
    same_name(
        "trust_domain",
        expected,
        &Name::TrustBundle(message.trust_domain.as_str().into()),
    )?;
    let roots = message
        .roots
        .iter()
        .map(|root| CertificateDer::from(root.to_vec()))
        .collect();
    TrustBundle::new(&message.trust_domain, roots)
        .map_err(|error| reject("roots", error.to_string()))
}
