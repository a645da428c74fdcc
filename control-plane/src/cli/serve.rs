//! `weft serve`

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use weft_proto::spiffe::SpiffeId;

use super::{Failure, Outcome};

/// A certificate can't be given a shorter life: renewal at two thirds of it must have time.
const SVID_TTL_MIN: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(super) struct Arguments {
    /// Directory of the store, the CA and weft.sock; made when it is not there
    #[arg(
        long,
        env = "WEFT_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/weft"
    )]
    data_dir: PathBuf,
    /// Address that proxies and remote command lines connect to, gRPC over mutual TLS
    #[arg(
        long,
        env = "WEFT_LISTEN",
        value_name = "IP:PORT",
        default_value = "0.0.0.0:4180"
    )]
    listen: SocketAddr,
    /// Address of /live, /ready and /metrics
    #[arg(
        long,
        env = "WEFT_ADMIN",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:4181"
    )]
    admin: SocketAddr,
    /// Trust domain of every identity; fixed once the data directory is made
    #[arg(
        long,
        env = "WEFT_TRUST_DOMAIN",
        value_name = "NAME",
        default_value = "weft.local",
        value_parser = trust_domain
    )]
    trust_domain: String,
    /// Life of the certificates that proxies get, 30s at least
    #[arg(long, env = "WEFT_SVID_TTL", value_name = "DURATION", default_value = "24h", value_parser = svid_ttl)]
    svid_ttl: Duration,
    /// Where resources are kept
    #[arg(long, env = "WEFT_STORE", default_value = "embedded")]
    store: Backend,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Backend {
    /// A file in the data directory
    Embedded,
}

fn trust_domain(text: &str) -> Result<String, String> {
    let own = SpiffeId::control_plane(text).map_err(|error| error.to_string())?;
    Ok(own.trust_domain().to_owned())
}

fn svid_ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if ttl < SVID_TTL_MIN {
        return Err(format!(
            "shorter than {}",
            humantime::format_duration(SVID_TTL_MIN)
        ));
    }
    Ok(ttl)
}

/// What `weft serve` was asked to be.
#[derive(Clone, Debug)]
pub struct Options {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub trust_domain: String,
    pub svid_lifetime: Duration,
}

pub(super) fn run<F, E>(arguments: Arguments, serve: impl FnOnce(Options) -> F) -> Outcome
where
    F: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let Backend::Embedded = arguments.store;
    let options = Options {
        data_dir: arguments.data_dir,
        listen: arguments.listen,
        admin: arguments.admin,
        trust_domain: arguments.trust_domain,
        svid_lifetime: arguments.svid_ttl,
    };
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?
        .block_on(serve(options))
        .map_err(Failure::failed)
}
