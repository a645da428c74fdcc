//! Who is at the other end of a connection.

use std::net::SocketAddr;
use std::time::SystemTime;

use tonic::{Request, Status};
use weft_proto::spiffe::{CONTROL_PLANE_NAMESPACE, OPERATOR_SERVICE_ACCOUNT, SpiffeId};

/// The other end, as far as the connection itself proves it.
#[derive(Clone, Debug)]
pub enum Peer {
    /// Through the socket in the data directory, which only its owner can open.
    Local,
    /// TLS without a client certificate.
    Anonymous { remote: SocketAddr },
    /// mTLS.
    Authenticated {
        remote: SocketAddr,
        spiffe_id: SpiffeId,
        certificate_not_after: SystemTime,
    },
}

impl Peer {
    /// The peer that a request came from.
    pub fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        let peer = request.extensions().get::<Self>().cloned();
        peer.ok_or_else(|| Status::internal("the connection did not say who its peer is"))
    }

    /// Lets only those through who may operate the mesh.
    pub fn authorize_operator(&self) -> Result<(), Status> {
        match self {
            Peer::Local => Ok(()),
            Peer::Anonymous { .. } => Err(Status::unauthenticated(
                "a remote CLI needs a certificate: give --cert and --key",
            )),
            Peer::Authenticated { spiffe_id, .. } => {
                let is_operator = spiffe_id.namespace() == CONTROL_PLANE_NAMESPACE
                    && spiffe_id.service_account() == OPERATOR_SERVICE_ACCOUNT;
                if is_operator {
                    return Ok(());
                }
                Err(Status::permission_denied(format!(
                    "{spiffe_id} may not operate the mesh: only service account {OPERATOR_SERVICE_ACCOUNT} of namespace {CONTROL_PLANE_NAMESPACE} may"
                )))
            }
        }
    }
}
