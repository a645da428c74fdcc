//! `Admin`: what the CLI asks.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tonic::{Request, Response, Status};
use weft_proto::spiffe::SpiffeId;
use weft_proto::v1alpha1 as wire;
use weft_proto::v1alpha1::admin_server::Admin;

use super::apply::{apply, delete, parse_kind, store_failed};
use super::identity::TOKENS_TABLE;
use super::{Peer, Renewals, check, document, explain, history};
use crate::ca::{Authority, TTL_MAX, Token, TokenRecord};
use crate::store::Store;
use crate::subscription::{Lag, ProxyView, Question, Subscriptions};

/// Life of a token where none is asked for.
const TTL_DEFAULT: Duration = Duration::from_secs(3600);
/// Longest that `Wait` waits, whatever is asked for.
const WAIT_MAX: Duration = Duration::from_secs(3600);

/// Serves `Admin`. Cloning shares it.
#[derive(Clone)]
pub struct AdminService {
    pub store: Store,
    pub authority: Arc<Authority>,
    pub subscriptions: Subscriptions,
    pub renewals: Arc<Renewals>,
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn apply(
        &self,
        request: Request<wire::ApplyRequest>,
    ) -> Result<Response<wire::ApplyResponse>, Status> {
        Peer::of(&request)?.authorize_operator()?;
        let (store, request) = (self.store.clone(), request.into_inner());
        blocking(move || apply(&store, request)).await
    }

    async fn delete(
        &self,
        request: Request<wire::DeleteRequest>,
    ) -> Result<Response<wire::ApplyResponse>, Status> {
        Peer::of(&request)?.authorize_operator()?;
        let (store, request) = (self.store.clone(), request.into_inner());
        blocking(move || delete(&store, request)).await
    }

    async fn get(
        &self,
        request: Request<wire::GetRequest>,
    ) -> Result<Response<wire::GetResponse>, Status> {
        Peer::of(&request)?.authorize_operator()?;
        self.subscriptions.catch_up().await;
        self.get_objects(&request.into_inner()).map(Response::new)
    }

    async fn wait(
        &self,
        request: Request<wire::WaitRequest>,
    ) -> Result<Response<wire::WaitResponse>, Status> {
        Peer::of(&request)?.authorize_operator()?;
        let request = request.into_inner();
        let now = self.store.snapshot().revision;
        if request.revision > now {
            return Err(Status::invalid_argument(format!(
                "there is no revision {}: the store is at {now}",
                request.revision
            )));
        }
        let timeout = Duration::from_millis(request.timeout_milliseconds).min(WAIT_MAX);
        let waited = self.subscriptions.wait(request.revision, timeout).await;
        let lag = |lag: Lag| wire::ProxyLag {
            proxy: lag.proxy,
            resource: lag.resource,
            reason: lag.reason,
        };
        Ok(Response::new(wire::WaitResponse {
            acknowledged: count(waited.acknowledged),
            waiting: waited.waiting.into_iter().map(lag).collect(),
            rejected: waited.rejected.into_iter().map(lag).collect(),
        }))
    }

    async fn proxies(
        &self,
        request: Request<wire::ProxiesRequest>,
    ) -> Result<Response<wire::ProxiesResponse>, Status> {
        Peer::of(&request)?.authorize_operator()?;
        let proxies = self.subscriptions.proxies();
        Ok(Response::new(wire::ProxiesResponse {
            proxies: proxies
                .into_iter()
                .map(|view| proxy(view, &self.renewals))
                .collect(),
        }))
    }

    async fn proxy_config(
        &self,
        request: Request<wire::ProxyConfigRequest>,
    ) -> Result<Response<wire::ProxyConfigResponse>, Status> {
        Peer::of(&request)?.authorize_operator()?;
        let answer = self
            .subscriptions
            .ask(&request.get_ref().proxy, Question::Config)
            .await;
        let json = answer.map_err(Status::unavailable)?;
        Ok(Response::new(wire::ProxyConfigResponse { json }))
    }

    async fn explain(
        &self,
        request: Request<wire::ExplainRequest>,
    ) -> Result<Response<wire::ExplainResponse>, Status> {
        Peer::of(&request)?.authorize_operator()?;
        let json = explain::explain(&self.subscriptions, &self.store, request.into_inner()).await?;
        Ok(Response::new(wire::ExplainResponse { json }))
    }

    async fn history(
        &self,
        request: Request<wire::HistoryRequest>,
    ) -> Result<Response<wire::HistoryResponse>, Status> {
        Peer::of(&request)?.authorize_operator()?;
        let store = self.store.clone();
        blocking(move || history::list(&store)).await
    }

    async fn rollback(
        &self,
        request: Request<wire::RollbackRequest>,
    ) -> Result<Response<wire::ApplyResponse>, Status> {
        Peer::of(&request)?.authorize_operator()?;
        let (store, request) = (self.store.clone(), request.into_inner());
        blocking(move || history::rollback(&store, &request)).await
    }

    async fn create_token(
        &self,
        request: Request<wire::CreateTokenRequest>,
    ) -> Result<Response<wire::CreateTokenResponse>, Status> {
        Peer::of(&request)?.authorize_operator()?;
        let (store, request) = (self.store.clone(), request.into_inner());
        let trust_domain = self.authority.trust_domain().to_owned();
        blocking(move || create_token(&store, &trust_domain, request)).await
    }

    async fn check(
        &self,
        request: Request<wire::CheckRequest>,
    ) -> Result<Response<wire::CheckResponse>, Status> {
        Peer::of(&request)?.authorize_operator()?;
        let (service, request) = (self.clone(), request.into_inner());
        blocking(move || {
            let subject = check::Subject {
                store: &service.store,
                authority: &service.authority,
                subscriptions: &service.subscriptions,
                renewals: &service.renewals,
            };
            let findings = check::findings(&subject, request.now_unix_milliseconds);
            Ok(wire::CheckResponse { findings })
        })
        .await
    }
}

impl AdminService {
    fn get_objects(&self, request: &wire::GetRequest) -> Result<wire::GetResponse, Status> {
        let wanted = |namespace: &str, name: &str| {
            (request.all_namespaces || namespace == request.namespace)
                && (request.name.is_empty() || name == request.name)
        };
        let is_workload = ["workload", "workloads"].contains(&request.kind.as_str());
        let (kind, objects) = if is_workload {
            let workloads = self.subscriptions.workloads();
            let found = workloads
                .iter()
                .filter(|workload| wanted(workload.namespace(), &workload.name))
                .map(|workload| document::workload(workload).to_string());
            ("Workload", found.collect::<Vec<_>>())
        } else {
            let kind = parse_kind(&request.kind)?;
            let snapshot = self.store.snapshot();
            let found = snapshot
                .of_kind(kind)
                .filter(|found| wanted(&found.metadata().namespace, &found.metadata().name))
                .map(|found| document::with_status(found, &self.subscriptions).to_string());
            (kind.as_str(), found.collect())
        };
        if objects.is_empty() && !request.name.is_empty() {
            let place = if request.all_namespaces {
                "any namespace".to_owned()
            } else {
                format!("namespace {}", request.namespace)
            };
            return Err(Status::not_found(format!(
                "there is no {kind} {} in {place}",
                request.name
            )));
        }
        Ok(wire::GetResponse {
            kind: kind.to_owned(),
            objects,
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Status> + Send + 'static,
) -> Result<Response<T>, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|error| Status::internal(format!("the request failed: {error}")))?;
    done.map(Response::new)
}

fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn create_token(
    store: &Store,
    trust_domain: &str,
    request: wire::CreateTokenRequest,
) -> Result<wire::CreateTokenResponse, Status> {
    let id = SpiffeId::new(trust_domain, &request.namespace, &request.service_account)
        .map_err(|invalid| Status::invalid_argument(invalid.to_string()))?;
    if SpiffeId::control_plane(trust_domain).is_ok_and(|own| own == id) {
        return Err(Status::invalid_argument(format!(
            "{id} is the control plane's own identity; no token can give it"
        )));
    }
    let ttl = match request.ttl_seconds {
        0 => TTL_DEFAULT,
        seconds => Duration::from_secs(seconds),
    };
    if ttl > TTL_MAX {
        return Err(Status::invalid_argument(format!(
            "a token can live for {} at most",
            humantime::format_duration(TTL_MAX)
        )));
    }
    let not_after = (UNIX_EPOCH.elapsed().unwrap_or_default() + ttl).as_secs();
    let record = TokenRecord {
        namespace: request.namespace,
        service_account: request.service_account,
        not_after_unix_seconds: not_after,
        uses_max: request.uses,
        uses: 0,
    };
    let token = Token::generate();
    let value = serde_json::to_vec(&record).map_err(|error| Status::internal(error.to_string()))?;
    store
        .put_record(TOKENS_TABLE, token.key().as_str(), &value)
        .map_err(|error| store_failed(&error))?;
    Ok(wire::CreateTokenResponse {
        token: token.to_string(),
        not_after_unix_seconds: i64::try_from(not_after).unwrap_or(i64::MAX),
    })
}

fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn proxy(view: ProxyView, renewals: &Renewals) -> wire::Proxy {
    // A proxy renews without reconnecting, so its stream's own certificate says too little.
    let trusted_until =
        renewals.trusted_until(&view.workload.spiffe_id, view.certificate_not_after);
    let workload = &view.workload;
    let rejected = view
        .rejected
        .into_iter()
        .map(|rejected| wire::RejectedResource {
            resource: rejected.resource,
            version: rejected.version,
            field: rejected.field,
            reason: rejected.reason,
        });
    wire::Proxy {
        name: view.proxy,
        spiffe_id: workload.spiffe_id.to_string(),
        address: workload.address.to_string(),
        version: view.proxy_version,
        instance: workload.instance.to_string(),
        connected_since_unix_seconds: unix_seconds(view.connected_at),
        synced: count(view.synced),
        pending: count(view.pending),
        rejected: rejected.collect(),
        certificate_not_after_unix_seconds: unix_seconds(trusted_until),
        ports_up: workload
            .ports_up
            .iter()
            .map(|port| u32::from(*port))
            .collect(),
        labels: workload.labels.clone().into_iter().collect(),
    }
}
