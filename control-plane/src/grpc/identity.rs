//! `Identity`: certificates for proxies.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tonic::{Request, Response, Status};
use weft_proto::spiffe::SpiffeId;
use weft_proto::v1alpha1 as wire;
use weft_proto::v1alpha1::identity_server::Identity;

use super::{Peer, Renewals, encode};
use crate::ca::{Authority, SigningRequest, Token, TokenRecord, TokenRefused};
use crate::store::{self, Store};
use crate::telemetry::Metrics;

/// Where the store keeps join tokens.
pub const TOKENS_TABLE: &str = "tokens";
/// Expired tokens are kept for so long, so that who uses one is told that it expired.
const EXPIRED_KEPT: Duration = Duration::from_secs(24 * 3600);

/// Serves `Identity`.
pub struct IdentityService {
    pub authority: Arc<Authority>,
    pub store: Store,
    pub renewals: Arc<Renewals>,
    pub metrics: Arc<Metrics>,
}

/// Why a token could not be redeemed.
#[derive(Debug, thiserror::Error)]
enum RedeemError {
    #[error(transparent)]
    Refused(#[from] TokenRefused),
    #[error("the stored record of the join token is damaged: {0}")]
    Damaged(#[from] serde_json::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
}

#[tonic::async_trait]
impl Identity for IdentityService {
    async fn issue(
        &self,
        request: Request<wire::IssueRequest>,
    ) -> Result<Response<wire::IssueResponse>, Status> {
        let peer = Peer::of(&request)?;
        let issued = self.issue_to(&peer, request.into_inner()).await;
        match &issued {
            Ok(_) => self.metrics.certificates_issued.add(1),
            Err(status) => {
                self.metrics.certificates_refused.add(1);
                tracing::warn!(?peer, reason = status.message(), "refused a certificate");
            }
        }
        issued.map(Response::new)
    }
}

impl IdentityService {
    async fn issue_to(
        &self,
        peer: &Peer,
        request: wire::IssueRequest,
    ) -> Result<wire::IssueResponse, Status> {
        let signing = SigningRequest::check(&request.csr, self.authority.trust_domain())
            .map_err(|refused| Status::invalid_argument(refused.to_string()))?;
        if request.token.is_empty() {
            renews(peer, signing.spiffe_id())?;
        } else {
            self.redeem(&request.token, signing.spiffe_id()).await?;
        }
        let issued = self.authority.issue(&signing).map_err(|error| {
            tracing::error!(%error, "can't issue a certificate");
            Status::internal(error.to_string())
        })?;
        self.renewals.record(signing.spiffe_id(), issued.not_after);
        tracing::info!(
            spiffe_id = %signing.spiffe_id(),
            not_after = %humantime::format_rfc3339_seconds(issued.not_after),
            "issued a certificate"
        );
        let bundle = self.authority.bundle().shared();
        let bundle = bundle.load();
        Ok(wire::IssueResponse {
            certificate_chain: vec![issued.certificate.to_vec().into()],
            trust_bundle: Some(encode::trust_bundle(
                bundle.trust_domain(),
                bundle.certificates(),
            )),
        })
    }

    async fn redeem(&self, token: &str, asked: &SpiffeId) -> Result<(), Status> {
        let refuse = |refused: TokenRefused| match refused {
            TokenRefused::OtherIdentity { .. } => Status::permission_denied(refused.to_string()),
            _ => Status::unauthenticated(refused.to_string()),
        };
        let token: Token = token.parse().map_err(refuse)?;
        let (store, asked) = (self.store.clone(), asked.clone());
        let redeemed = tokio::task::spawn_blocking(move || redeem(&store, &token, &asked)).await;
        let redeemed = redeemed.map_err(|error| Status::internal(error.to_string()))?;
        redeemed.map_err(|error| match error {
            RedeemError::Refused(refused) => refuse(refused),
            other => {
                tracing::error!(error = %other, "can't check a join token");
                Status::unavailable(format!("the join token can't be checked now: {other}"))
            }
        })
    }
}

/// A renewal is for the very identity that asks for it.
fn renews(peer: &Peer, asked: &SpiffeId) -> Result<(), Status> {
    match peer {
        Peer::Authenticated { spiffe_id, .. } if spiffe_id == asked => Ok(()),
        Peer::Authenticated { spiffe_id, .. } => Err(Status::permission_denied(format!(
            "{spiffe_id} can renew its own certificate and not get one for {asked}"
        ))),
        Peer::Anonymous { .. } | Peer::Local => Err(Status::unauthenticated(
            "a first certificate needs a join token; a renewal needs the certificate that it renews",
        )),
    }
}

fn redeem(store: &Store, token: &Token, asked: &SpiffeId) -> Result<(), RedeemError> {
    let key = token.key();
    store.update_record(TOKENS_TABLE, key.as_str(), |stored| {
        let stored = stored.ok_or(TokenRefused::Unknown)?;
        let mut record: TokenRecord = serde_json::from_slice(&stored)?;
        record.redeem(asked, SystemTime::now())?;
        Ok::<_, RedeemError>(Some(serde_json::to_vec(&record)?))
    })
}

/// Removes tokens that expired long ago. Blocks on the disk.
pub fn sweep_tokens(store: &Store, now: SystemTime) -> Result<usize, store::Error> {
    let mut swept = 0;
    for (key, value) in store.list_records(TOKENS_TABLE)? {
        let record = serde_json::from_slice::<TokenRecord>(&value);
        if record.is_ok_and(|record| record.is_expired(now - EXPIRED_KEPT))
            && store.delete_record(TOKENS_TABLE, &key)?
        {
            swept += 1;
        }
    }
    Ok(swept)
}
