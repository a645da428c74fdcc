//! Reaches the control plane: over `DATA/weft.sock` the one of this machine, over mutual TLS a remote
//! one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use weft_proto::svid::{Expect, ServerVerifier, TrustBundle, spiffe_id};

use super::{Failure, Outcome};

/// A connection that is not made by then is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which control plane.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Control plane")]
pub(super) struct Target {
    /// Data directory of the control plane on this machine; its weft.sock is called
    #[arg(
        long,
        env = "WEFT_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/weft"
    )]
    pub data_dir: PathBuf,
    /// Address of a remote control plane, instead of the one on this machine [default: none]
    #[arg(long, env = "WEFT_SERVER", value_name = "HOST:PORT", requires_all = ["cert", "key", "trust_bundle"])]
    pub server: Option<String>,
    /// Certificate to show to the remote one, PEM [default: none]
    #[arg(long, env = "WEFT_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Private key of that certificate, PEM [default: none]
    #[arg(long, env = "WEFT_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Roots that the remote one's certificate must end in, PEM [default: none]
    #[arg(long, env = "WEFT_TRUST_BUNDLE", value_name = "FILE")]
    pub trust_bundle: Option<PathBuf>,
}

/// Connects to the control plane.
pub(super) async fn connect(target: &Target) -> Outcome<Channel> {
    match &target.server {
        Some(server) => connect_remote(server, target).await,
        None => connect_local(&target.data_dir.join("weft.sock")).await,
    }
}

async fn connect_local(socket: &Path) -> Outcome<Channel> {
    let path = socket.to_owned();
    // The URI plays no part: the connector knows where to go.
    Endpoint::from_static("http://weft.sock")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .map_err(|error| {
            Failure::Failed(format!(
                "no control plane at {}: {}. Is `weft serve` running with this --data-dir (WEFT_DATA_DIR), and by this user?",
                socket.display(),
                innermost(&error),
            ))
        })
}

async fn connect_remote(server: &str, target: &Target) -> Outcome<Channel> {
    let config = tls_config(target)?;
    let tls = TlsConnector::from(Arc::new(config));
    let address = server.to_owned();
    Endpoint::from_static("http://weft.remote")
        .connect_timeout(CONNECT_TIMEOUT)
        .connect_with_connector(tower::service_fn(move |_| {
            let (tls, address) = (tls.clone(), address.clone());
            async move {
                let tcp = TcpStream::connect(&address).await?;
                tcp.set_nodelay(true)?;
                // Host names play no part in the check, and none is sent for an IP.
                let nobody = ServerName::IpAddress(std::net::Ipv4Addr::UNSPECIFIED.into());
                let stream = tls.connect(nobody, tcp).await?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        }))
        .await
        .map_err(|error| {
            Failure::Failed(format!(
                "no control plane at {server}: {}",
                innermost(&error)
            ))
        })
}

fn tls_config(target: &Target) -> Outcome<ClientConfig> {
    let (Some(cert), Some(key), Some(bundle)) = (&target.cert, &target.key, &target.trust_bundle)
    else {
        let reason = "--server needs --cert, --key and --trust-bundle".to_owned();
        return Err(Failure::Usage(reason));
    };
    let unusable = |path: &Path, reason: &dyn std::fmt::Display| {
        Failure::Failed(format!("{}: {reason}", path.display()))
    };
    let chain = certificates(cert)?;
    let roots = certificates(bundle)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let own = chain
        .first()
        .ok_or_else(|| unusable(cert, &"holds no certificate"))?;
    let own = spiffe_id(own).map_err(|error| unusable(cert, &error))?;
    let trusted =
        TrustBundle::new(own.trust_domain(), roots).map_err(|error| unusable(bundle, &error))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = ServerVerifier::new(trusted.shared(), Expect::ControlPlane, provider.clone());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(Failure::failed)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, private)
        .map_err(|error| unusable(key, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(path: &Path) -> Outcome<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

/// The cause that says most: tonic's own layers say only "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
