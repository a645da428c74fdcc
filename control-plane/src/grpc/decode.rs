//! Protobuf messages to plain values. What comes over the wire is checked here once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use weft_proto::spiffe::SpiffeId;
use weft_proto::v1alpha1 as wire;

use crate::compile::{Name, ServiceName, ServicePort};
use crate::registry::{InvalidWorkload, Workload};
use crate::subscription::{Hello, Rejection};

/// Longest name of a resource: two DNS names, a slash and a port. A longer one is cut before it is
/// looked at, and then names nothing.
const NAME_BYTES_MAX: usize = 520;

/// What a proxy says of itself; `spiffe_id` is its peer's.
pub(super) fn hello(
    hello: wire::Hello,
    spiffe_id: SpiffeId,
    certificate_not_after: SystemTime,
) -> Result<Hello, InvalidWorkload> {
    let invalid = |field, reason: String| InvalidWorkload { field, reason };
    let own = [
        ("namespace", &hello.namespace, spiffe_id.namespace()),
        (
            "service account",
            &hello.service_account,
            spiffe_id.service_account(),
        ),
    ];
    for (field, said, proven) in own {
        if said != proven {
            return Err(invalid(
                field,
                format!("is {said:?}, but its certificate says {proven:?} ({spiffe_id})"),
            ));
        }
    }
    let address = hello.address.parse().map_err(|_| {
        let reason = format!("{:?} is not an IP address", hello.address);
        invalid("address", reason)
    })?;
    let instance: Arc<str> = hello.instance.as_str().into();
    let named_ports: BTreeMap<String, u16> = hello
        .named_ports
        .into_iter()
        .map(|(name, number)| Ok((name, port("named port", number)?)))
        .collect::<Result<_, _>>()?;
    let asker = Asker {
        instance: instance.clone(),
        namespace: spiffe_id.namespace().into(),
    };
    let known = hello.known.into_iter().map(|known| {
        let name = name(known.r#type, &known.name, &asker);
        (name, known.version.into())
    });
    Ok(Hello {
        known: known.collect(),
        proxy_version: hello.proxy_version.chars().take(64).collect(),
        certificate_not_after,
        takes_changes: hello.takes_changes,
        workload: Workload {
            instance: instance.clone(),
            name: hello.workload.into(),
            spiffe_id,
            labels: hello.labels.into_iter().collect(),
            address,
            inbound_port: port("inbound port", hello.inbound_port)?,
            named_ports,
            zone: hello.zone.into(),
            ports_up: ports(&hello.ports_up)?,
            draining: false,
        },
    })
}

/// Port numbers, each from 1 to 65535.
pub(super) fn ports(numbers: &[u32]) -> Result<BTreeSet<u16>, InvalidWorkload> {
    let numbers = numbers.iter();
    numbers.map(|number| port("port", *number)).collect()
}

fn port(field: &'static str, number: u32) -> Result<u16, InvalidWorkload> {
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    port.ok_or_else(|| InvalidWorkload {
        field,
        reason: format!("{number} is not a port (1 to 65535)"),
    })
}

/// Whose names they are: some mean something else to each proxy.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub instance: Arc<str>,
    pub namespace: Arc<str>,
}

/// Names that a proxy subscribes to, or not any more.
pub(super) fn names(names: &[wire::ResourceName], asker: &Asker) -> Vec<Name> {
    let names = names.iter();
    names
        .map(|sent| name(sent.r#type, &sent.name, asker))
        .collect()
}

/// The resources that a proxy could not take.
pub(super) fn rejections(sent: Vec<wire::Rejection>, asker: &Asker) -> Vec<Rejection> {
    let sent = sent.into_iter();
    sent.map(|rejection| Rejection {
        name: name(rejection.r#type, &rejection.name, asker),
        whole_wanted: rejection.whole_wanted,
        field: rejection.field.chars().take(512).collect(),
        reason: rejection.reason.chars().take(1024).collect(),
    })
    .collect()
}

/// A name, which must be written exactly as it is answered; anything else is unknown, and absent.
fn name(kind: i32, text: &str, asker: &Asker) -> Name {
    let parsed = match wire::ResourceType::try_from(kind) {
        Ok(wire::ResourceType::Service) => ServiceName::parse(text).map(Name::Service),
        Ok(wire::ResourceType::Address) => text.parse().ok().map(Name::Address),
        Ok(wire::ResourceType::Route) => ServicePort::parse(text).map(|of| Name::Route {
            of,
            client: asker.namespace.clone(),
        }),
        Ok(wire::ResourceType::Cluster) => ServicePort::parse(text).map(Name::Cluster),
        Ok(wire::ResourceType::Inbound) => Some(Name::Inbound(asker.instance.clone())),
        Ok(wire::ResourceType::TrustBundle) => Some(Name::TrustBundle(text.to_owned())),
        Ok(wire::ResourceType::Unspecified) | Err(_) => None,
    };
    let exact = parsed.filter(|name| text.len() <= NAME_BYTES_MAX && name.text() == text);
    exact.unwrap_or_else(|| Name::Unknown {
        kind,
        text: text.chars().take(NAME_BYTES_MAX).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_exact_or_unknown() {
        let check = |kind: wire::ResourceType, text: &str, expect: &str| {
            let asker = Asker {
                instance: "i-1".into(),
                namespace: "shop".into(),
            };
            let name = name(kind.into(), text, &asker);
            assert_eq!(name.to_string(), expect);
            assert_eq!(name.text(), text);
        };
        use wire::ResourceType::{Address, Cluster, Inbound, Route, Service, TrustBundle};
        check(Service, "shop/orders", "service shop/orders");
        check(Service, "orders", "unknown orders");
        check(Service, "a/b/c", "unknown a/b/c");
        check(Address, "10.0.0.1:80", "address 10.0.0.1:80");
        check(Address, "[fd00::1]:80", "address [fd00::1]:80");
        check(Address, "[fd00:0::1]:80", "unknown [fd00:0::1]:80");
        check(Address, "10.0.0.1", "unknown 10.0.0.1");
        check(Route, "shop/orders:80", "route shop/orders:80");
        check(Cluster, "shop/orders:080", "unknown shop/orders:080");
        check(Cluster, "shop/orders:70000", "unknown shop/orders:70000");
        check(Inbound, "self", "inbound self");
        check(Inbound, "other", "unknown other");
        check(TrustBundle, "weft.local", "trust bundle weft.local");
    }
}
