//! `weft-proxy init` and `cleanup`: the nftables rules that lead a network namespace's connections
//! through the proxy.

mod nft;
mod ruleset;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use clap::{ArgGroup, Args};

pub use nft::Error;
pub use ruleset::Cidr;

/// Ports, or networks, of one list; a longer one is refused, because each costs every packet of a
/// new connection a comparison.
pub const SKIPPED_MAX: usize = 256;

/// Flags of `weft-proxy init`.
#[derive(Args, Clone, Debug)]
#[command(group = ArgGroup::new("proxy").args(["proxy_uid", "proxy_gid"]).required(true).multiple(true))]
pub struct Options {
    /// User id that the proxy runs as; its own connections are left alone [this or the group id is required]
    #[arg(long, env = "WEFT_PROXY_UID", value_name = "UID")]
    pub proxy_uid: Option<u32>,

    /// Group id that the proxy runs as; its own connections are left alone [this or the user id is required]
    #[arg(long, env = "WEFT_PROXY_GID", value_name = "GID")]
    pub proxy_gid: Option<u32>,

    /// Port of the proxy for the workload's own connections
    #[arg(long, env = "WEFT_OUTBOUND_PORT", value_name = "PORT", default_value = "4140", value_parser = port())]
    pub outbound_port: u16,

    /// Port of the proxy for connections to the workload
    #[arg(long, env = "WEFT_INBOUND_PORT", value_name = "PORT", default_value = "4143", value_parser = port())]
    pub inbound_port: u16,

    /// Port of the proxy's admin server, never redirected
    #[arg(long, env = "WEFT_ADMIN_PORT", value_name = "PORT", default_value = "4191", value_parser = port())]
    pub admin_port: u16,

    /// Port of the proxy's DNS server, used with --dns
    #[arg(long, env = "WEFT_DNS_PORT", value_name = "PORT", default_value = "4153", value_parser = port())]
    pub dns_port: u16,

    /// Ports of the workload that are reached without the proxy [default: none]
    #[arg(long, env = "WEFT_SKIP_INBOUND_PORTS", value_name = "PORT", value_delimiter = ',', value_parser = port())]
    pub skip_inbound_ports: Vec<u16>,

    /// Ports elsewhere that the workload reaches without the proxy [default: none]
    #[arg(long, env = "WEFT_SKIP_OUTBOUND_PORTS", value_name = "PORT", value_delimiter = ',', value_parser = port())]
    pub skip_outbound_ports: Vec<u16>,

    /// Networks that the workload reaches without the proxy, DNS too [default: none]
    #[arg(
        long,
        env = "WEFT_SKIP_OUTBOUND_CIDRS",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub skip_outbound_cidrs: Vec<Cidr>,

    /// Redirect the workload's DNS (UDP and TCP port 53) to the proxy too [default: off]
    #[arg(long, env = "WEFT_DNS")]
    pub dns: bool,

    /// Print the rules and change nothing [default: off]
    #[arg(long, env = "WEFT_DRY_RUN")]
    pub dry_run: bool,
}

/// Flags of `weft-proxy cleanup`.
#[derive(Args, Clone, Debug)]
pub struct CleanupOptions {
    /// Print what would be done and change nothing [default: off]
    #[arg(long, env = "WEFT_DRY_RUN")]
    pub dry_run: bool,
}

fn port() -> clap::builder::RangedI64ValueParser<u16> {
    clap::value_parser!(u16).range(1..)
}

/// Puts the rules in place, instead of those that an earlier run made, in one transaction.
pub fn init(options: &Options) -> Result<(), Error> {
    for (flag, count) in [
        ("--skip-inbound-ports", options.skip_inbound_ports.len()),
        ("--skip-outbound-ports", options.skip_outbound_ports.len()),
        ("--skip-outbound-cidrs", options.skip_outbound_cidrs.len()),
    ] {
        if count > SKIPPED_MAX {
            return Err(Error::TooMany { flag, count });
        }
    }
    apply(&ruleset::build(options), options.dry_run)
}

/// Removes the rules; where there are none, nothing happens.
pub fn cleanup(options: &CleanupOptions) -> Result<(), Error> {
    apply(ruleset::REMOVE, options.dry_run)
}

fn apply(ruleset: &str, dry_run: bool) -> Result<(), Error> {
    if dry_run {
        print!("{ruleset}");
        return Ok(());
    }
    nft::load(&["nft"], ruleset)
}

/// Sorted and each once: a set of nftables takes no element twice.
fn unique(ports: impl IntoIterator<Item = u16>) -> BTreeSet<u16> {
    ports.into_iter().collect()
}
