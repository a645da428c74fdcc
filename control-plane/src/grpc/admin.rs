//! `Admin`: what the CLI asks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tonic::{Request, Response, Status};
use weft_proto::spiffe::SpiffeId;
use weft_proto::v1alpha1 as wire;
use weft_proto::v1alpha1::admin_server::Admin;

use super::identity::TOKENS_TABLE;
use super::{Peer, Renewals, check, document};
use crate::ca::{Authority, TTL_MAX, Token, TokenRecord};
use crate::resource::{self, Key, Kind, Origin, Resource, check_references};
use crate::store::{self, Action, Store};
use crate::subscription::{Lag, ProxyView, Subscriptions};

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
            proxies: proxies.into_iter().map(proxy).collect(),
        }))
    }

    async fn proxy_config(
        &self,
        request: Request<wire::ProxyConfigRequest>,
    ) -> Result<Response<wire::ProxyConfigResponse>, Status> {
        Peer::of(&request)?.authorize_operator()?;
        let answer = self
            .subscriptions
            .ask_config(&request.get_ref().proxy)
            .await;
        let json = answer.map_err(Status::unavailable)?;
        Ok(Response::new(wire::ProxyConfigResponse { json }))
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

fn parse_kind(text: &str) -> Result<Kind, Status> {
    Kind::parse(text).ok_or_else(|| {
        let known = Kind::ALL.map(Kind::plural).join(", ");
        Status::invalid_argument(format!(
            "there is no kind {text:?}; there are {known} and workloads"
        ))
    })
}

fn sources(sources: Vec<wire::Source>) -> Vec<resource::Source> {
    let sources = sources.into_iter();
    sources
        .map(|source| resource::Source {
            name: source.name,
            content: source.content.to_vec(),
        })
        .collect()
}

fn apply(store: &Store, request: wire::ApplyRequest) -> Result<wire::ApplyResponse, Status> {
    let mut parsed = resource::parse(&sources(request.sources), &request.namespace);
    let snapshot = store.snapshot();
    if parsed.problems.is_empty() {
        parsed.problems = check_references(&parsed.resources, |key| snapshot.get(key));
    }
    let skipped = parsed.skipped.into_iter().map(problem).collect();
    if !parsed.problems.is_empty() {
        return Ok(wire::ApplyResponse {
            revision: snapshot.revision,
            changes: Vec::new(),
            skipped,
            problems: parsed.problems.into_iter().map(problem).collect(),
        });
    }
    let origins: HashMap<Key, Origin> = parsed
        .resources
        .iter()
        .map(|(origin, resource)| (resource.key(), origin.clone()))
        .collect();
    let resources: Vec<Resource> = parsed.resources.into_iter().map(|(_, r)| r).collect();
    let applied = if request.dry_run {
        store.apply_dry(resources)
    } else {
        store.apply(resources)
    };
    match applied {
        Ok(applied) => Ok(wire::ApplyResponse {
            skipped,
            ..changed(applied)
        }),
        Err(store::Error::Conflict { key, field, reason }) => {
            let origin = origins.get(&key);
            Ok(wire::ApplyResponse {
                revision: snapshot.revision,
                changes: Vec::new(),
                skipped,
                problems: vec![wire::Problem {
                    file: origin.map(|origin| origin.file.clone()).unwrap_or_default(),
                    document: origin.map_or(0, |origin| origin.document),
                    object: Some(object(&key)),
                    field,
                    reason,
                    line: origin.map_or(0, |origin| origin.line),
                }],
            })
        }
        Err(error) => Err(store_failed(&error)),
    }
}

fn delete(store: &Store, request: wire::DeleteRequest) -> Result<wire::ApplyResponse, Status> {
    use wire::delete_request::What;
    let snapshot = store.snapshot();
    let keys = match request.what {
        None => return Err(Status::invalid_argument("nothing was named to be deleted")),
        Some(What::Object(name)) => {
            let key = Key::new(parse_kind(&name.kind)?, name.namespace, name.name);
            if snapshot.get(&key).is_none() {
                return Err(Status::not_found(format!(
                    "there is no {} {} in namespace {}",
                    key.kind, key.name, key.namespace
                )));
            }
            vec![key]
        }
        Some(What::Sources(named)) => {
            let parsed = resource::parse(&sources(named.sources), &request.namespace);
            if !parsed.problems.is_empty() {
                return Ok(wire::ApplyResponse {
                    revision: snapshot.revision,
                    changes: Vec::new(),
                    skipped: parsed.skipped.into_iter().map(problem).collect(),
                    problems: parsed.problems.into_iter().map(problem).collect(),
                });
            }
            let named = parsed.resources.iter();
            named.map(|(_, resource)| resource.key()).collect()
        }
    };
    if request.dry_run {
        let action = |key: &Key| match snapshot.get(key) {
            Some(_) => Action::Deleted,
            None => Action::Unchanged,
        };
        return Ok(changed(store::Applied {
            revision: snapshot.revision,
            changes: keys.iter().map(|key| (key.clone(), action(key))).collect(),
        }));
    }
    let deleted = store.delete(keys).map_err(|error| store_failed(&error))?;
    Ok(changed(deleted))
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

fn store_failed(error: &store::Error) -> Status {
    tracing::error!(%error, "the store failed");
    Status::unavailable(format!("the store failed, nothing was changed: {error}"))
}

fn changed(applied: store::Applied) -> wire::ApplyResponse {
    let changes = applied.changes.iter().map(|(key, action)| wire::Change {
        object: Some(object(key)),
        action: action.as_str().to_owned(),
    });
    wire::ApplyResponse {
        revision: applied.revision,
        changes: changes.collect(),
        skipped: Vec::new(),
        problems: Vec::new(),
    }
}

fn object(key: &Key) -> wire::ObjectName {
    wire::ObjectName {
        kind: key.kind.to_string(),
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

fn problem(problem: resource::Problem) -> wire::Problem {
    wire::Problem {
        file: problem.file,
        document: problem.document,
        object: problem.object.as_ref().map(object),
        field: problem.field,
        reason: problem.reason,
        line: problem.line,
    }
}

fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn proxy(view: ProxyView) -> wire::Proxy {
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
        certificate_not_after_unix_seconds: unix_seconds(view.certificate_not_after),
        ports_up: workload
            .ports_up
            .iter()
            .map(|port| u32::from(*port))
            .collect(),
        labels: workload.labels.clone().into_iter().collect(),
    }
}
