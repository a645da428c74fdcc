//! What a user can set, as it is written.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::parse::{parse_bytes, parse_named_port, parse_pair};

/// Flags of `weft-proxy run`; each has an environment variable.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Control plane's gRPC address, HOST:PORT
    #[arg(long, env = "WEFT_CONTROL_PLANE", value_name = "HOST:PORT")]
    pub control_plane: String,

    /// PEM file with the mesh's root certificates (`trust-bundle.pem` of the control plane)
    #[arg(long, env = "WEFT_TRUST_BUNDLE", value_name = "FILE")]
    pub trust_bundle: PathBuf,

    /// Trust domain, where the root certificate doesn't name it
    #[arg(
        long,
        env = "WEFT_TRUST_DOMAIN",
        value_name = "NAME",
        default_value = "weft.local"
    )]
    pub trust_domain: String,

    /// File with the join token; read anew at each try [default: none]
    #[arg(long, env = "WEFT_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// The join token itself; --token-file wins [default: none]
    #[arg(long, env = "WEFT_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    pub token: Option<String>,

    /// Name of this workload [default: the host's name]
    #[arg(long, env = "WEFT_WORKLOAD", value_name = "NAME")]
    pub workload: Option<String>,

    /// Namespace of this workload
    #[arg(
        long,
        env = "WEFT_NAMESPACE",
        value_name = "NAME",
        default_value = "default"
    )]
    pub namespace: String,

    /// Service account of this workload
    #[arg(
        long,
        env = "WEFT_SERVICE_ACCOUNT",
        value_name = "NAME",
        default_value = "default"
    )]
    pub service_account: String,

    /// Labels that Services select by, a=b,c=d [default: none]
    #[arg(long, env = "WEFT_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = parse_pair)]
    pub labels: Vec<(String, String)>,

    /// Where other sidecars reach this one [default: the address towards the control plane]
    #[arg(long, env = "WEFT_ADDRESS", value_name = "IP")]
    pub address: Option<IpAddr>,

    /// Port at which other sidecars reach this one [default: that of --inbound-listen]
    #[arg(long, env = "WEFT_INBOUND_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub inbound_port: Option<u16>,

    /// Named ports of the application for Services' targetPort, http=9001,grpc=9002 [default: none]
    #[arg(long, env = "WEFT_PORTS", value_name = "NAME=PORT", value_delimiter = ',', value_parser = parse_named_port)]
    pub ports: Vec<(String, u16)>,

    /// Zone of this workload [default: none]
    #[arg(
        long,
        env = "WEFT_ZONE",
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    pub zone: String,

    /// Directory that keeps identity and last good configuration over a restart [default: none]
    #[arg(long, env = "WEFT_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Addresses that take the workload's own connections
    #[arg(
        long,
        env = "WEFT_OUTBOUND_LISTEN",
        value_name = "IP:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:4140,[::1]:4140"
    )]
    pub outbound_listen: Vec<SocketAddr>,

    /// Addresses that take connections for the workload; [::] is IPv4 too
    #[arg(
        long,
        env = "WEFT_INBOUND_LISTEN",
        value_name = "IP:PORT",
        value_delimiter = ',',
        default_value = "[::]:4143"
    )]
    pub inbound_listen: Vec<SocketAddr>,

    /// Address of /ready, /live, /metrics and /config
    #[arg(
        long,
        env = "WEFT_ADMIN_LISTEN",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:4191"
    )]
    pub admin_listen: SocketAddr,

    /// Addresses that answer DNS, e.g. 127.0.0.1:4153 [default: none]
    #[arg(
        long,
        env = "WEFT_DNS_LISTEN",
        value_name = "IP:PORT",
        value_delimiter = ','
    )]
    pub dns_listen: Vec<SocketAddr>,

    /// Log level, or a filter such as info,weft_proxy::discovery=debug
    #[arg(long, env = "WEFT_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// Access log on standard output
    #[arg(long, env = "WEFT_ACCESS_LOG", value_enum, default_value_t = AccessLog::Off)]
    pub access_log: AccessLog,

    /// Threads that carry traffic [default: 1 for up to two cores, else half of them]
    #[arg(long, env = "WEFT_WORKERS", value_name = "N")]
    pub workers: Option<usize>,

    /// How long requests in flight may take after SIGTERM
    #[arg(long, env = "WEFT_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub drain_timeout: Duration,

    /// Whether connections without mTLS reach the application
    #[arg(long, env = "WEFT_INBOUND_PLAINTEXT", value_enum, default_value_t = InboundPlaintext::Allow)]
    pub inbound_plaintext: InboundPlaintext,

    /// Connections held at once; more wait in the kernel's queue
    #[arg(
        long,
        env = "WEFT_CONNECTIONS_MAX",
        value_name = "N",
        default_value = "65536"
    )]
    pub connections_max: usize,

    /// Size of a request's or response's head; a larger one is refused with 431 or 502
    #[arg(long, env = "WEFT_HEADER_BYTES_MAX", value_name = "BYTES", default_value = "64KiB", value_parser = parse_bytes)]
    pub header_bytes_max: usize,
}

/// Where the access log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AccessLog {
    /// Nowhere.
    Off,
    /// One line of text a request.
    Text,
    /// One JSON object a request.
    Json,
}

/// What becomes of a connection to the workload that is not mTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InboundPlaintext {
    /// It reaches the application.
    Allow,
    /// It is closed.
    Deny,
}
