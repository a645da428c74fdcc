//! The one typed value that the rest of the proxy is built from.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use weft_proto::spiffe::SpiffeId;

use super::address::find_own;
use super::{AccessLog, InboundPlaintext, Options};

/// More threads than this help no sidecar.
const WORKERS_MAX: usize = 64;
/// A head must hold at least a request line and a few headers.
const HEADER_BYTES_LEAST: usize = 1024;
/// Larger heads would let a few connections take the memory.
const HEADER_BYTES_MOST: usize = 1024 * 1024;
/// Labels of a workload; each is kept by the control plane for every instance.
const LABELS_MAX: usize = 64;
/// Bytes of a label's key or value, of a workload's, zone's and port's name.
const TEXT_BYTES_MAX: usize = 253;

/// Validated; every field means what it says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// HOST:PORT
    pub control_plane: String,
    pub trust_bundle: PathBuf,
    /// Counts where the root certificate names none.
    pub trust_domain: String,
    pub token_file: Option<PathBuf>,
    pub token: Option<String>,
    pub workload: String,
    pub namespace: String,
    pub service_account: String,
    pub labels: BTreeMap<String, String>,
    /// Where other sidecars reach this one.
    pub address: IpAddr,
    /// The port that goes with `address`.
    pub inbound_port: u16,
    pub ports: BTreeMap<String, u16>,
    pub zone: String,
    pub data_dir: Option<PathBuf>,
    pub outbound_listen: Vec<SocketAddr>,
    pub inbound_listen: Vec<SocketAddr>,
    pub admin_listen: SocketAddr,
    pub dns_listen: Vec<SocketAddr>,
    pub log: String,
    pub access_log: AccessLog,
    pub workers: usize,
    pub drain_timeout: Duration,
    pub inbound_plaintext: InboundPlaintext,
    pub connections_max: usize,
    pub header_bytes_max: usize,
}

/// A setting that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct Problem {
    /// Flag and environment variable.
    setting: &'static str,
    /// What is wrong, and what would be right.
    reason: String,
}

fn problem(setting: &'static str, reason: impl Into<String>) -> Problem {
    Problem {
        setting,
        reason: reason.into(),
    }
}

impl Options {
    /// Checks everything that can be checked before the proxy runs, and fills in what was left out.
    pub fn validate(self) -> Result<Settings, Problem> {
        check_control_plane(&self.control_plane)?;
        SpiffeId::new(&self.trust_domain, &self.namespace, &self.service_account).map_err(|e| {
            let setting = "--trust-domain, --namespace, --service-account";
            problem(setting, e.to_string())
        })?;
        let inbound_port = match (self.inbound_port, self.inbound_listen.first()) {
            (Some(port), _) => port,
            (None, Some(listen)) if listen.port() != 0 => listen.port(),
            _ => {
                let reason = "must name the port that --inbound-listen leaves open";
                return Err(problem("--inbound-port (WEFT_INBOUND_PORT)", reason));
            }
        };
        let address = match self.address {
            Some(address) => address,
            None => find_own(&self.control_plane).map_err(|error| {
                let reason = format!("cannot be found out ({error}); give the address at which other sidecars reach this one");
                problem("--address (WEFT_ADDRESS)", reason)
            })?,
        };
        if address.is_unspecified() || address.is_multicast() {
            let reason = format!("{address} is no address that another sidecar can reach");
            return Err(problem("--address (WEFT_ADDRESS)", reason));
        }
        let labels = unique("--labels (WEFT_LABELS)", self.labels)?;
        if labels.len() > LABELS_MAX {
            let reason = format!("{} labels are more than {LABELS_MAX}", labels.len());
            return Err(problem("--labels (WEFT_LABELS)", reason));
        }
        for text in labels.iter().flat_map(|(key, value)| [key, value]) {
            check_text("--labels (WEFT_LABELS)", text)?;
        }
        let ports = unique("--ports (WEFT_PORTS)", self.ports)?;
        for name in ports.keys() {
            check_text("--ports (WEFT_PORTS)", name)?;
        }
        check_text("--zone (WEFT_ZONE)", &self.zone)?;
        check_range(
            "--connections-max (WEFT_CONNECTIONS_MAX)",
            self.connections_max,
            1..=1 << 20,
        )?;
        check_range(
            "--header-bytes-max (WEFT_HEADER_BYTES_MAX)",
            self.header_bytes_max,
            HEADER_BYTES_LEAST..=HEADER_BYTES_MOST,
        )?;
        let workers = self.workers.unwrap_or_else(default_workers);
        check_range("--workers (WEFT_WORKERS)", workers, 1..=WORKERS_MAX)?;
        Ok(Settings {
            workload: workload(self.workload)?,
            control_plane: self.control_plane,
            trust_bundle: self.trust_bundle,
            trust_domain: self.trust_domain,
            token_file: self.token_file,
            token: self.token,
            namespace: self.namespace,
            service_account: self.service_account,
            labels,
            address,
            inbound_port,
            ports,
            zone: self.zone,
            data_dir: self.data_dir,
            outbound_listen: self.outbound_listen,
            inbound_listen: self.inbound_listen,
            admin_listen: self.admin_listen,
            dns_listen: self.dns_listen,
            log: self.log,
            access_log: self.access_log,
            workers,
            drain_timeout: self.drain_timeout,
            inbound_plaintext: self.inbound_plaintext,
            connections_max: self.connections_max,
            header_bytes_max: self.header_bytes_max,
        })
    }
}

fn check_control_plane(text: &str) -> Result<(), Problem> {
    let valid = text
        .parse::<SocketAddr>()
        .is_ok_and(|address| address.port() != 0)
        || text.rsplit_once(':').is_some_and(|(host, port)| {
            let host_byte = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
            !host.is_empty()
                && host.len() <= TEXT_BYTES_MAX
                && host.bytes().all(host_byte)
                && port.parse::<u16>().is_ok_and(|port| port != 0)
        });
    if valid {
        Ok(())
    } else {
        let reason =
            format!("`{text}` is not HOST:PORT, such as weft.example:4180 or [fd00::1]:4180");
        Err(problem("--control-plane (WEFT_CONTROL_PLANE)", reason))
    }
}

fn workload(given: Option<String>) -> Result<String, Problem> {
    let setting = "--workload (WEFT_WORKLOAD)";
    let name = match given {
        Some(name) => name,
        None => std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map_err(|error| problem(setting, format!("the host has no name ({error}); give one")))?
            .trim()
            .to_owned(),
    };
    if name.is_empty() {
        return Err(problem(setting, "must not be empty"));
    }
    check_text(setting, &name)?;
    Ok(name)
}

/// Names travel in headers and metric labels, so they are printable ASCII.
fn check_text(setting: &'static str, text: &str) -> Result<(), Problem> {
    if text.len() > TEXT_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
        let reason = format!(
            "{text:?} must have at most {TEXT_BYTES_MAX} printable ASCII characters, no space"
        );
        return Err(problem(setting, reason));
    }
    Ok(())
}

fn check_range(
    setting: &'static str,
    value: usize,
    range: std::ops::RangeInclusive<usize>,
) -> Result<(), Problem> {
    if range.contains(&value) {
        return Ok(());
    }
    let reason = format!(
        "{value} is not between {} and {}",
        range.start(),
        range.end()
    );
    Err(problem(setting, reason))
}

fn unique<V>(
    setting: &'static str,
    pairs: Vec<(String, V)>,
) -> Result<BTreeMap<String, V>, Problem> {
    let mut map = BTreeMap::new();
    for (key, value) in pairs {
        if map.contains_key(&key) {
            return Err(problem(setting, format!("`{key}` is given twice")));
        }
        map.insert(key, value);
    }
    Ok(map)
}

/// The standard library's count minds affinity and the cgroup's CPU limit.
fn default_workers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    (cores / 2).clamp(1, WORKERS_MAX)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn validate(more: &[&str]) -> Result<Settings, String> {
        let mut line = vec![
            "run",
            "--control-plane",
            "127.0.0.1:4180",
            "--trust-bundle",
            "ca.pem",
        ];
        line.extend(more);
        let line = Line::try_parse_from(line).map_err(|error| error.to_string())?;
        line.options.validate().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let settings = validate(&[]).unwrap();
        assert_eq!(settings.address, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(settings.inbound_port, 4143);
        assert_eq!(settings.outbound_listen.len(), 2);
        assert_eq!(settings.header_bytes_max, 65536);
        assert!(settings.dns_listen.is_empty() && settings.labels.is_empty());
        assert!(!settings.workload.is_empty());
    }

    #[test]
    fn lists_and_maps() {
        let more = [
            "--labels",
            "app=orders,version=v1",
            "--ports",
            "http=9001,grpc=9002",
        ];
        let settings = validate(&more).unwrap();
        assert_eq!(settings.labels["version"], "v1");
        assert_eq!(settings.ports["grpc"], 9002);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let check = |more: &[&str], expect: &str| {
            let error = validate(more).err().unwrap_or_default();
            assert!(error.contains(expect), "{more:?}: {error}");
        };
        check(&["--namespace", "a b"], "SPIFFE ID");
        check(
            &["--address", "::"],
            "no address that another sidecar can reach",
        );
        check(&["--inbound-listen", "[::]:0"], "--inbound-port");
        check(&["--inbound-port", "0"], "--inbound-port");
        check(&["--labels", "a=1,a=2"], "given twice");
        check(&["--labels", "a"], "expected KEY=VALUE");
        check(&["--workers", "0"], "between 1 and 64");
        check(&["--header-bytes-max", "3"], "between 1024 and");
        check(&["--workload", "two words"], "printable");
        check(&["--drain-timeout", "soon"], "--drain-timeout");
    }

    #[test]
    fn control_planes() {
        let check = |text: &str, expect: bool| {
            assert_eq!(check_control_plane(text).is_ok(), expect, "{text}");
        };
        check("weft.example:4180", true);
        check("[fd00::1]:4180", true);
        check("10.0.0.1:4180", true);
        check("weft.example", false);
        check("https://weft.example:4180", false);
        check("weft.example:0", false);
        check(":4180", false);
    }
}
