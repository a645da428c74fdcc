//! Getting the certificate, and getting the next one in time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rustls_pki_types::CertificateDer;
use tonic::Code;
use weft_proto::svid::TrustBundle;
use weft_proto::v1alpha1::identity_client::IdentityClient;
use weft_proto::v1alpha1::{self as wire, IssueRequest, IssueResponse};

use super::connect::{GRPC_BYTES_MAX, connect};
use super::svid::Request;
use super::{Identity, unix_now};
use crate::bootstrap::Settings;

/// How often the wall clock is read: it may jump, and a machine may have slept.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// The first wait after a failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// The longest wait while the control plane can't be reached.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// The longest wait while the control plane refuses.
const BACKOFF_REFUSED_MAX: Duration = Duration::from_secs(5);
/// An answer that takes longer is given up.
const ISSUE_TIMEOUT: Duration = Duration::from_secs(5);
/// A token file that is larger holds no token.
const TOKEN_BYTES_MAX: u64 = 4096;
/// Distinct failures remembered so that each is logged once; then they are logged anew.
const LOGGED_MAX: usize = 64;

/// A try that failed.
struct Failure {
    reason: String,
    refused: bool,
}

/// Keeps the identity valid for as long as it runs.
pub async fn run(identity: Identity, settings: Arc<Settings>) {
    let mut logged = HashSet::new();
    let mut backoff = BACKOFF_FIRST;
    let mut due = due(&identity);
    loop {
        let now = unix_now();
        if now < due && identity.is_trusted() {
            let wait = Duration::from_secs(u64::try_from(due - now).unwrap_or(0));
            tokio::time::sleep(wait.min(CLOCK_INTERVAL)).await;
            continue;
        }
        match issue(&identity, &settings).await {
            Ok(()) => {
                identity.set_error(None);
                logged.clear();
                backoff = BACKOFF_FIRST;
                due = self::due(&identity);
                tracing::info!(
                    spiffe_id = %identity.shared.wanted,
                    not_after = identity.not_after(),
                    "certificate issued"
                );
            }
            Err(failure) => {
                note(&identity, &mut logged, &failure);
                let jitter = rand::rng().random_range(0.5..1.0);
                tokio::time::sleep(backoff.mul_f64(jitter)).await;
                let most = if failure.refused {
                    BACKOFF_REFUSED_MAX
                } else {
                    BACKOFF_MAX
                };
                backoff = (backoff * 2).min(most);
            }
        }
    }
}

impl Identity {
    /// Whether peers under the bundle in force take the certificate: a root that was taken out of the
    /// bundle, or a clock that jumped, ends it early.
    fn is_trusted(&self) -> bool {
        let shared = &self.shared;
        let current = shared.current.load();
        current.as_ref().is_some_and(|current| {
            current
                .svid
                .check(&shared.wanted, &shared.bundle, &shared.provider)
                .is_ok()
        })
    }
}

/// About two thirds of the life, so that a third is left to try again in; 0 without a certificate.
fn due(identity: &Identity) -> i64 {
    let current = identity.shared.current.load();
    let Some(svid) = current.as_ref().map(|current| &current.svid) else {
        return 0;
    };
    let life = svid.not_after() - svid.not_before();
    let twentieth = life / 20;
    let jitter = rand::rng().random_range(-twentieth..=twentieth);
    svid.not_before() + life * 2 / 3 + jitter
}

async fn issue(identity: &Identity, settings: &Settings) -> Result<(), Failure> {
    let shared = &identity.shared;
    let failed = |reason: String| Failure {
        reason,
        refused: false,
    };
    let request = Request::new(&shared.wanted)
        .map_err(|error| failed(format!("cannot make a key and its request: {error}")))?;
    // The mTLS connection says who renews; only a first certificate needs the token.
    let token = if identity.ready() {
        String::new()
    } else {
        token(settings).map_err(failed)?
    };
    let channel = connect(identity, &settings.control_plane)
        .await
        .map_err(failed)?;
    let mut client = IdentityClient::new(channel).max_decoding_message_size(GRPC_BYTES_MAX);
    let message = IssueRequest {
        csr: request.csr.clone().into(),
        token,
    };
    let answer = tokio::time::timeout(ISSUE_TIMEOUT, client.issue(message))
        .await
        .map_err(|_| failed("the control plane gave no answer to Issue in time".to_owned()))?
        .map_err(|status| refusal(&status))?;
    let IssueResponse {
        certificate_chain,
        trust_bundle,
    } = answer.into_inner();
    let bundle = trust_bundle
        .as_ref()
        .map(decode_bundle)
        .transpose()
        .map_err(failed)?;
    let chain = certificate_chain
        .iter()
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    request
        .certified(chain, &shared.provider)
        .and_then(|svid| identity.adopt(svid, bundle))
        .map_err(|error| failed(format!("the certificate issued can't be used: {error}")))
}

fn decode_bundle(bundle: &wire::TrustBundle) -> Result<TrustBundle, String> {
    let roots = bundle
        .roots
        .iter()
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    TrustBundle::new(&bundle.trust_domain, roots)
        .map_err(|error| format!("the trust bundle sent can't be used: {error}"))
}

fn refusal(status: &tonic::Status) -> Failure {
    let refused = matches!(
        status.code(),
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument
    );
    let reason = if refused {
        format!(
            "the control plane refused to issue a certificate: {}",
            status.message()
        )
    } else {
        format!(
            "the control plane issued no certificate: {} ({:?})",
            status.message(),
            status.code()
        )
    };
    Failure { reason, refused }
}

/// Read at each try: an operator may put a better one there.
fn token(settings: &Settings) -> Result<String, String> {
    if let Some(path) = &settings.token_file {
        let content = super::read(path, TOKEN_BYTES_MAX)
            .map_err(|error| format!("token file {}: {error}", path.display()))?
            .ok_or_else(|| format!("token file {} is not there", path.display()))?;
        let text = String::from_utf8_lossy(&content).trim().to_owned();
        if text.is_empty() {
            return Err(format!("token file {} is empty", path.display()));
        }
        return Ok(text);
    }
    let token = settings
        .token
        .as_deref()
        .map(str::trim)
        .filter(|token| !token.is_empty());
    token.map(str::to_owned).ok_or_else(|| {
        "there is no join token; give WEFT_TOKEN_FILE one of `weft token create`".to_owned()
    })
}

/// Each distinct reason is logged once; the last one can always be seen at the admin port.
fn note(identity: &Identity, logged: &mut HashSet<String>, failure: &Failure) {
    identity.set_error(Some(failure.reason.clone()));
    if logged.len() >= LOGGED_MAX {
        logged.clear();
    }
    if logged.insert(failure.reason.clone()) {
        tracing::warn!(reason = failure.reason, "no new certificate; trying again");
    }
}
