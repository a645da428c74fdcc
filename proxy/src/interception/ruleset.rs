//! The rules as text (pure).

use std::fmt::{self, Write};
use std::net::IpAddr;
use std::str::FromStr;

use super::{Options, unique};

/// Removes our table whether it is there or not: the first line makes it where it is missing.
pub(super) const REMOVE: &str = "table inet weft\ndelete table inet weft\n";

/// A network: address and prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

/// A text that is no network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no network like 10.0.0.0/8, fd00::/8 or 192.0.2.1")]
pub struct InvalidCidr(String);

impl FromStr for Cidr {
    type Err = InvalidCidr;

    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        let invalid = || InvalidCidr(text.to_owned());
        let (address, prefix) = match text.trim().split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().map_err(|_| invalid())?,
            None => bits,
        };
        (prefix <= bits)
            .then_some(Self { address, prefix })
            .ok_or_else(invalid)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The whole transaction: our old table goes, the new one comes, and no packet sees neither.
pub(super) fn build(options: &Options) -> String {
    let mut text = String::from(REMOVE);
    text.push_str("table inet weft {\n");
    push_outbound(&mut text, options);
    push_inbound(&mut text, options);
    text.push_str("}\n");
    text
}

fn push_outbound(text: &mut String, options: &Options) {
    text.push_str("\tchain outbound {\n\t\ttype nat hook output priority -100; policy accept;\n");
    let mut rule = |line: fmt::Arguments<'_>| {
        let _ = writeln!(text, "\t\t{line}");
    };
    if let Some(uid) = options.proxy_uid {
        rule(format_args!("meta skuid {uid} return"));
    }
    if let Some(gid) = options.proxy_gid {
        rule(format_args!("meta skgid {gid} return"));
    }
    // A rule each, because a set takes no networks that overlap.
    for cidr in &options.skip_outbound_cidrs {
        let family = if cidr.address.is_ipv4() { "ip" } else { "ip6" };
        rule(format_args!("{family} daddr {cidr} return"));
    }
    // Before what is local: a resolver often listens on loopback.
    if options.dns {
        let port = options.dns_port;
        rule(format_args!(
            "meta l4proto {{ tcp, udp }} th dport 53 redirect to :{port}"
        ));
    }
    rule(format_args!("ip daddr 127.0.0.0/8 return"));
    rule(format_args!("ip6 daddr ::1 return"));
    rule(format_args!("fib daddr type local return"));
    let skipped = unique(options.skip_outbound_ports.iter().copied());
    if !skipped.is_empty() {
        rule(format_args!("tcp dport {} return", set(skipped)));
    }
    let port = options.outbound_port;
    rule(format_args!("meta l4proto tcp redirect to :{port}"));
    text.push_str("\t}\n");
}

fn push_inbound(text: &mut String, options: &Options) {
    text.push_str(
        "\tchain inbound {\n\t\ttype nat hook prerouting priority -100; policy accept;\n",
    );
    let own = [options.inbound_port, options.admin_port];
    let skipped = own.iter().chain(&options.skip_inbound_ports).copied();
    let _ = writeln!(
        text,
        "\t\tiifname \"lo\" return\n\
         \t\tfib daddr type != local return\n\
         \t\ttcp dport {} return\n\
         \t\tmeta l4proto tcp redirect to :{}",
        set(unique(skipped)),
        options.inbound_port
    );
    text.push_str("\t}\n");
}

fn set(ports: impl IntoIterator<Item = u16>) -> String {
    let ports: Vec<String> = ports.into_iter().map(|port| port.to_string()).collect();
    format!("{{ {} }}", ports.join(", "))
}
