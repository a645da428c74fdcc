//! The names by which a proxy asks the control plane for resources.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

/// A service: `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    namespace: Arc<str>,
    name: Arc<str>,
}

/// A port of a service: `NAMESPACE/NAME:PORT`. Routes and clusters carry this name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServicePort {
    service: ServiceName,
    port: u16,
}

/// A text that is no name of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not of the form {form}")]
pub struct InvalidName {
    text: String,
    form: &'static str,
}

/// A resource that a proxy can ask for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Name {
    Service(ServiceName),
    Address(SocketAddr),
    Route(ServicePort),
    Cluster(ServicePort),
    /// What this proxy has to know of its own workload.
    Inbound,
    /// Of this trust domain.
    TrustBundle(Arc<str>),
}

/// What a host in a request or a DNS question may mean to the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// It has the form of a service's name; whether there is such a service is discovery's to say.
    Service(ServiceName),
    /// An address literal.
    Ip(IpAddr),
    /// A name that cannot be a service's.
    Other(String),
}

impl ServiceName {
    /// Both parts must be DNS labels (RFC 1123: 1 to 63 of a-z, 0-9 and inner dashes).
    pub fn new(namespace: &str, name: &str) -> Result<Self, InvalidName> {
        if is_label(namespace) && is_label(name) {
            Ok(Self {
                namespace: namespace.into(),
                name: name.into(),
            })
        } else {
            Err(InvalidName {
                text: format!("{namespace}/{name}"),
                form: "NAMESPACE/NAME, each an RFC 1123 label",
            })
        }
    }

    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The namespace, for whoever keeps it.
    pub fn shared_namespace(&self) -> &Arc<str> {
        &self.namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its name at one of its ports.
    pub fn port(&self, port: u16) -> ServicePort {
        ServicePort {
            service: self.clone(),
            port,
        }
    }
}

impl ServicePort {
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Host {
    /// Reads a host without its port, as an application in `namespace` means it: `orders`,
    /// `orders.shop`, `orders.shop.svc` and `orders.shop.svc.cluster.local`, in any case, with or
    /// without the root's dot.
    pub fn parse(host: &str, namespace: &str) -> Host {
        let bare = host
            .strip_prefix('[')
            .and_then(|h| h.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Host::Ip(ip);
        }
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let labels: Vec<&str> = host.split('.').collect();
        let service = match labels[..] {
            [name] if name != "localhost" => ServiceName::new(namespace, name),
            [name, namespace]
            | [name, namespace, "svc"]
            | [name, namespace, "svc", "cluster", "local"] => ServiceName::new(namespace, name),
            _ => return Host::Other(host),
        };
        service.map_or_else(|_| Host::Other(host), Host::Service)
    }
}

fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for ServiceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName {
            text: text.to_owned(),
            form: "NAMESPACE/NAME",
        };
        let (namespace, name) = text.split_once('/').ok_or_else(invalid)?;
        Self::new(namespace, name)
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.service, self.port)
    }
}

impl FromStr for ServicePort {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let invalid = || InvalidName {
            text: text.to_owned(),
            form: "NAMESPACE/NAME:PORT",
        };
        let (service, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(invalid)?;
        Ok(service.parse::<ServiceName>()?.port(port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let check = |host: &str, expect: &str| {
            let parsed = match Host::parse(host, "shop") {
                Host::Service(name) => format!("service {name}"),
                Host::Ip(ip) => format!("ip {ip}"),
                Host::Other(name) => format!("other {name}"),
            };
            assert_eq!(parsed, expect, "{host}");
        };
        check("orders", "service shop/orders");
        check("Orders.", "service shop/orders");
        check("orders.billing", "service billing/orders");
        check("orders.billing.svc", "service billing/orders");
        check("orders.billing.svc.cluster.local", "service billing/orders");
        check(
            "orders.billing.svc.cluster.local.",
            "service billing/orders",
        );
        check("www.example.com", "other www.example.com");
        check("localhost", "other localhost");
        check("-bad", "other -bad");
        check("10.1.2.3", "ip 10.1.2.3");
        check("[fd00::1]", "ip fd00::1");
        check("fd00::1", "ip fd00::1");
    }

    #[test]
    fn names_parse_what_they_print() {
        let name: ServicePort = "shop/orders:80".parse().unwrap();
        assert_eq!(name.to_string(), "shop/orders:80");
        for text in [
            "",
            "shop",
            "shop/orders",
            "shop/orders:",
            "shop/orders:0",
            "shop/orders:65536",
            "a/b/c:1",
            "S/o:1",
        ] {
            assert!(text.parse::<ServicePort>().is_err(), "{text}");
        }
    }
}
