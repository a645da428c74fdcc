//! One connected workload.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use weft_proto::spiffe::SpiffeId;

/// Labels of a workload. One with more is refused when it connects.
pub const LABELS_MAX: usize = 64;
/// Ports, named or up, of a workload. One with more is refused when it reports them.
pub const PORTS_MAX: usize = 256;
/// Longest text in what a proxy says of itself.
const TEXT_MAX: usize = 253;

/// A workload as its sidecar announced it, and what of it can be called now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// One life of the workload; restarts of its sidecar keep it.
    pub instance: Arc<str>,
    pub name: Arc<str>,
    pub spiffe_id: SpiffeId,
    pub labels: BTreeMap<String, String>,
    /// Where other sidecars reach it. Workloads on one machine may share it.
    pub address: IpAddr,
    pub inbound_port: u16,
    pub named_ports: BTreeMap<String, u16>,
    pub zone: Arc<str>,
    /// Application ports that accept connections.
    pub ports_up: BTreeSet<u16>,
    /// Its sidecar said goodbye: it finishes what it has and is offered to nobody.
    pub draining: bool,
}

/// Why an announcement is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proxy's {field} {reason}")]
pub struct InvalidWorkload {
    pub field: &'static str,
    pub reason: String,
}

impl Workload {
    /// Checks what types don't say.
    pub fn validate(&self) -> Result<(), InvalidWorkload> {
        let refuse = |field, reason: String| Err(InvalidWorkload { field, reason });
        for (field, text) in [("workload", &self.name), ("instance", &self.instance)] {
            let graphic = text.bytes().all(|b| b.is_ascii_graphic() && b != b'/');
            if text.is_empty() || text.len() > TEXT_MAX || !graphic {
                return refuse(
                    field,
                    format!("must have 1 to {TEXT_MAX} visible ASCII characters and no slash"),
                );
            }
        }
        if self.zone.len() > TEXT_MAX {
            return refuse("zone", format!("has more than {TEXT_MAX} bytes"));
        }
        if self.labels.len() > LABELS_MAX {
            return refuse("labels", format!("are more than {LABELS_MAX}"));
        }
        let long = |(key, value): (&String, &String)| key.len() > 317 || value.len() > TEXT_MAX;
        if self.labels.iter().any(long) {
            return refuse("labels", format!("have a value of over {TEXT_MAX} bytes"));
        }
        if self.named_ports.len() > PORTS_MAX || self.ports_up.len() > PORTS_MAX {
            return refuse("ports", format!("are more than {PORTS_MAX}"));
        }
        if self.named_ports.keys().any(|name| name.len() > TEXT_MAX) {
            return refuse(
                "named ports",
                format!("have a name of over {TEXT_MAX} bytes"),
            );
        }
        if self.address.is_unspecified() || self.address.is_multicast() {
            return refuse("address", format!("{} can't be connected to", self.address));
        }
        if self.inbound_port == 0 {
            return refuse("inbound port", "is 0".to_owned());
        }
        Ok(())
    }

    /// The namespace that its identity gives it.
    pub fn namespace(&self) -> &str {
        self.spiffe_id.namespace()
    }

    /// Whether calls to `port` can be sent to it now.
    pub fn serves(&self, port: u16) -> bool {
        !self.draining && self.ports_up.contains(&port)
    }

    /// Whether a selector of its namespace selects it. An empty one selects nothing.
    pub fn is_selected(&self, selector: &BTreeMap<String, String>) -> bool {
        let holds = |(key, value): (&String, &String)| self.labels.get(key) == Some(value);
        !selector.is_empty() && selector.iter().all(holds)
    }
}
