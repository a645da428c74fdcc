//! The gRPC connection to the control plane.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::CertificateError;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use weft_proto::svid::Expect;

use super::Identity;

/// A control plane that takes no connection for this long is tried again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A control plane that is silently gone is noticed after the sum of the two.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// See [`KEEPALIVE_INTERVAL`].
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// A gRPC message that is larger ends the stream it came on; a cluster of 10,000 endpoints has two
/// megabytes.
pub(crate) const GRPC_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Opens a connection of its own, with the certificate that is valid now, if there is one. The peer
/// must be the control plane of this trust domain.
pub(crate) async fn connect(identity: &Identity, control_plane: &str) -> Result<Channel, String> {
    let current = identity.valid();
    let svid = current.as_deref().map(|current| &current.svid);
    let config = identity
        .client(Expect::ControlPlane, svid, b"h2")
        .map_err(|error| format!("cannot set up TLS: {error}"))?;
    let connector = TlsConnector::from(Arc::new(config));
    // No server name is sent, nor checked: who answers is known by its SPIFFE ID.
    let name = ServerName::try_from("control-plane").map_err(|error| error.to_string())?;
    let target = control_plane.to_owned();
    let endpoint = Endpoint::from_shared(format!("http://{control_plane}"))
        .map_err(|error| format!("{control_plane}: {error}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let dial = tower::service_fn(move |_: Uri| {
        let (connector, name, target) = (connector.clone(), name.clone(), target.clone());
        async move {
            let tcp = TcpStream::connect(&target).await?;
            tcp.set_nodelay(true)?;
            connector.connect(name, tcp).await.map(TokioIo::new)
        }
    });
    endpoint
        .connect_with_connector(dial)
        .await
        .map_err(|error| {
            format!(
                "no connection to the control plane at {control_plane}: {}",
                explain(&error)
            )
        })
}

/// An error with its innermost causes, in words: the outer ones of a transport say nothing, and what
/// is wrong with a peer's certificate is buried in the error of the handshake.
pub fn explain(error: &(dyn Error + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let word = peer_fault(cause).unwrap_or_else(|| cause.to_string());
        if words.last() != Some(&word) {
            words.push(word);
        }
        next = cause.source();
    }
    words.split_off(words.len().saturating_sub(2)).join(": ")
}

/// Why the peer's certificate was refused, where that is the reason of a failed handshake.
fn peer_fault(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<std::io::Error>() {
        return peer_fault(error.get_ref()?);
    }
    match error.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            Some(format!("the peer's certificate was refused: {}", other.0))
        }
        _ => None,
    }
}
