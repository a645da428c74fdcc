//! Plain values to protobuf messages.

use bytes::Bytes;
use prost::Message;
use rustls_pki_types::CertificateDer;
use weft_proto::v1alpha1 as wire;

use super::{inbound_policy, policies, routes};
use crate::compile::{
    Address, BackendTls, Cluster, ClusterChange, Configuration, Endpoint, Inbound, Name, Protocol,
    Service,
};
use crate::resource::{SubjectAltName, UnknownDestinations};
use crate::subscription::{Content, Delivery, Outgoing, Question};

/// The body of a resource. prost writes fields in the order of their numbers, and none of the
/// messages has a map: the same value always gives the same bytes.
pub fn encode(configuration: &Configuration) -> Bytes {
    let bytes = match configuration {
        Configuration::Service(service) => self::service(service).encode_to_vec(),
        Configuration::Address(address) => self::address(address).encode_to_vec(),
        Configuration::Route(route) => routes::route(route).encode_to_vec(),
        Configuration::Cluster(cluster) => self::cluster(cluster).encode_to_vec(),
        Configuration::Inbound(inbound) => self::inbound(inbound).encode_to_vec(),
        Configuration::TrustBundle {
            trust_domain,
            roots,
        } => trust_bundle(trust_domain, roots).encode_to_vec(),
    };
    bytes.into()
}

/// What goes to a proxy next.
pub(super) fn control_message(outgoing: Outgoing) -> wire::ControlMessage {
    use wire::control_message::Message;
    let message = match outgoing {
        Outgoing::Push { nonce, resources } => Message::Push(wire::Push {
            nonce,
            resources: resources.into_iter().map(resource).collect(),
        }),
        Outgoing::Ask { id, question } => Message::Ask(wire::Ask {
            id,
            question: Some(self::question(question)),
        }),
    };
    wire::ControlMessage {
        message: Some(message),
    }
}

fn question(question: Question) -> wire::ask::Question {
    use wire::ask::Question as Asked;
    match question {
        Question::Config => Asked::Config(wire::ConfigQuestion {}),
        Question::Request {
            method,
            url,
            headers,
        } => Asked::Explain(wire::ExplainQuestion {
            method,
            url,
            headers: headers
                .into_iter()
                .map(|(name, value)| wire::Header { name, value })
                .collect(),
            trace_id: String::new(),
        }),
        Question::Trace(trace_id) => Asked::Explain(wire::ExplainQuestion {
            trace_id,
            ..wire::ExplainQuestion::default()
        }),
    }
}

/// The trust bundle's message, which `Identity` sends too.
pub(super) fn trust_bundle(
    trust_domain: &str,
    roots: &[CertificateDer<'static>],
) -> wire::TrustBundle {
    wire::TrustBundle {
        trust_domain: trust_domain.to_owned(),
        roots: roots.iter().map(|root| root.to_vec().into()).collect(),
    }
}

/// What makes one version of a cluster another.
pub fn encode_change(change: &ClusterChange) -> Bytes {
    let message = wire::ClusterChange {
        removed: change.removed.clone(),
        upserted: change.upserted.iter().map(endpoint).collect(),
    };
    message.encode_to_vec().into()
}

fn resource(delivery: Delivery) -> wire::Resource {
    let resource = wire::Resource {
        r#type: kind(&delivery.name),
        name: delivery.name.text(),
        version: delivery.version.to_string(),
        ..wire::Resource::default()
    };
    match delivery.content {
        Content::Whole(body) => wire::Resource { body, ..resource },
        Content::Change { base, change } => wire::Resource {
            base_version: base.to_string(),
            change,
            ..resource
        },
    }
}

fn kind(name: &Name) -> i32 {
    match name {
        Name::Service(_) => wire::ResourceType::Service.into(),
        Name::Address(_) => wire::ResourceType::Address.into(),
        Name::Route { .. } => wire::ResourceType::Route.into(),
        Name::Cluster(_) => wire::ResourceType::Cluster.into(),
        Name::Inbound(_) => wire::ResourceType::Inbound.into(),
        Name::TrustBundle(_) => wire::ResourceType::TrustBundle.into(),
        Name::Unknown { kind, .. } => *kind,
    }
}

pub(super) fn protocol(protocol: Option<Protocol>) -> i32 {
    let protocol = match protocol {
        None => wire::Protocol::Unspecified,
        Some(Protocol::Http1) => wire::Protocol::Http1,
        Some(Protocol::Http2) => wire::Protocol::Http2,
        Some(Protocol::Tcp) => wire::Protocol::Tcp,
        Some(Protocol::Tls) => wire::Protocol::Tls,
    };
    protocol.into()
}

fn strings<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn service(service: &Service) -> wire::Service {
    let ports = service.ports.iter().map(|port| wire::ServicePort {
        port: port.port.into(),
        name: port.name.clone(),
        protocol: protocol(port.protocol),
    });
    wire::Service {
        namespace: service.name.namespace.to_string(),
        name: service.name.name.to_string(),
        virtual_ips: strings(&service.virtual_ips),
        ports: ports.collect(),
        headless: service.headless,
        external_name: service.external_name.clone().unwrap_or_default(),
        endpoint_addresses: strings(&service.endpoint_addresses),
    }
}

fn address(address: &Address) -> wire::Address {
    use wire::address::Owner;
    let owner = match address {
        Address::Service(service) => Owner::Service(service.to_string()),
        Address::Endpoint(endpoint) => Owner::Endpoint(self::endpoint(endpoint)),
    };
    wire::Address { owner: Some(owner) }
}

fn cluster(cluster: &Cluster) -> wire::Cluster {
    wire::Cluster {
        name: cluster.name.to_string(),
        service: cluster.name.service.to_string(),
        protocol: protocol(cluster.protocol),
        endpoints: cluster.endpoints.iter().map(endpoint).collect(),
        tls: cluster.tls.as_deref().map(backend_tls),
        policy: cluster.policy.as_deref().map(policies::cluster_policy),
    }
}

fn backend_tls(tls: &BackendTls) -> wire::BackendTls {
    use wire::subject_alt_name::Name as Wire;
    let names = tls.subject_alt_names.iter().map(|name| {
        let name = match name {
            SubjectAltName::Hostname(name) => Wire::Hostname(name.clone()),
            SubjectAltName::Uri(uri) => Wire::Uri(uri.clone()),
        };
        wire::SubjectAltName { name: Some(name) }
    });
    wire::BackendTls {
        policy: tls.policy.clone(),
        hostname: tls.hostname.clone(),
        roots: tls.roots.iter().map(|root| root.to_vec().into()).collect(),
        subject_alt_names: names.collect(),
        invalid: tls.invalid.clone().unwrap_or_default(),
    }
}

fn endpoint(endpoint: &Endpoint) -> wire::Endpoint {
    let sidecar = endpoint.sidecar.as_ref().map(|sidecar| wire::Sidecar {
        spiffe_id: sidecar.spiffe_id.to_string(),
        instance: sidecar.instance.to_string(),
        inbound_port: sidecar.inbound_port.into(),
    });
    wire::Endpoint {
        id: endpoint.id.clone(),
        address: endpoint.address.to_string(),
        port: endpoint.port.into(),
        weight: endpoint.weight,
        zone: endpoint.zone.to_string(),
        workload: endpoint.workload.to_string(),
        namespace: endpoint.namespace.clone(),
        sidecar,
    }
}

fn inbound(inbound: &Inbound) -> wire::Inbound {
    let ports = inbound.ports.iter().map(|port| wire::InboundPort {
        port: port.port.into(),
        protocol: protocol(port.protocol),
        services: strings(&port.services),
        policy: port.policy.as_deref().map(inbound_policy::encode),
    });
    wire::Inbound {
        ports: ports.collect(),
        unknown_destinations: match inbound.unknown_destinations {
            None => wire::UnknownDestinations::Unspecified,
            Some(UnknownDestinations::Pass) => wire::UnknownDestinations::Pass,
            Some(UnknownDestinations::Refuse) => wire::UnknownDestinations::Refuse,
        }
        .into(),
        outbound_policy: inbound.outbound_policy.clone().unwrap_or_default(),
    }
}
