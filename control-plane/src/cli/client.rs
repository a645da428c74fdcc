//! What a verb may ask of the control plane. All protobuf of the command line is here.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;
use tonic::transport::Channel;
use weft_proto::v1alpha1 as proto;
use weft_proto::v1alpha1::admin_client::AdminClient;
use weft_proto::v1alpha1::delete_request::What;

use super::connect::{Target, connect};
use super::{Failure, Outcome};
use crate::resource::{Key, Kind, Problem, Source};

/// Bytes that a question or an answer may have; a larger one is refused. Enough for 100,000 objects.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// A connection to the control plane.
pub(super) struct Client(AdminClient<Channel>);

/// What became of an apply or a delete.
#[derive(Debug)]
pub(super) struct Applied {
    pub revision: u64,
    pub changes: Vec<Change>,
    pub skipped: Vec<Problem>,
    /// When not empty nothing was changed.
    pub problems: Vec<Problem>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Change {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// created, configured, unchanged, deleted
    pub action: String,
}

/// One of the last changes.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Revision {
    pub revision: u64,
    #[serde(serialize_with = "rfc3339")]
    pub at: i64,
    pub cause: String,
    pub changes: Vec<Change>,
}

/// What a proxy is asked about.
#[derive(Clone, Debug)]
pub(super) struct Explain {
    /// NAMESPACE/WORKLOAD
    pub proxy: String,
    pub method: String,
    pub url: String,
    pub headers: Vec<(String, String)>,
    /// Not empty: what became of the requests of this trace, and nothing else.
    pub trace_id: String,
}

/// Which objects are asked for.
#[derive(Clone, Debug)]
pub(super) struct Query {
    pub kind: String,
    /// Empty for all.
    pub name: String,
    pub namespace: String,
    pub all_namespaces: bool,
}

/// How far a revision has come.
#[derive(Debug)]
pub(super) struct Waited {
    pub acknowledged: u32,
    pub waiting: Vec<Lag>,
    pub rejected: Vec<Lag>,
}

/// A proxy that a revision has not reached.
#[derive(Debug)]
pub(super) struct Lag {
    pub proxy: String,
    pub resource: String,
    pub reason: String,
}

/// A connected proxy; printed as it stands by `-o json`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Proxy {
    /// NAMESPACE/WORKLOAD
    pub name: String,
    pub spiffe_id: String,
    pub address: String,
    pub version: String,
    pub instance: String,
    pub labels: BTreeMap<String, String>,
    pub ports_up: Vec<u32>,
    #[serde(serialize_with = "rfc3339")]
    pub connected_since: i64,
    #[serde(serialize_with = "rfc3339")]
    pub certificate_not_after: i64,
    pub synced: u32,
    pub pending: u32,
    pub rejected: Vec<Rejected>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Rejected {
    pub resource: String,
    pub version: String,
    pub field: String,
    pub reason: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Finding {
    /// ok, warning, error
    pub level: String,
    pub subject: String,
    pub message: String,
}

impl Client {
    /// Connects to the control plane.
    pub async fn connect(target: &Target) -> Outcome<Self> {
        let client = AdminClient::new(connect(target).await?)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self(client))
    }

    pub async fn apply(
        &mut self,
        sources: Vec<Source>,
        namespace: String,
        dry_run: bool,
    ) -> Outcome<Applied> {
        let request = proto::ApplyRequest {
            sources: encode(sources),
            dry_run,
            namespace,
        };
        let answer = self.0.apply(request).await.map_err(refused)?;
        Ok(answer.into_inner().into())
    }

    /// Deletes one object.
    pub async fn delete(
        &mut self,
        kind: String,
        namespace: String,
        name: String,
        dry_run: bool,
    ) -> Outcome<Applied> {
        let object = proto::ObjectName {
            kind,
            namespace: namespace.clone(),
            name,
        };
        self.delete_what(What::Object(object), namespace, dry_run)
            .await
    }

    /// Deletes every object of these documents.
    pub async fn delete_sources(
        &mut self,
        sources: Vec<Source>,
        namespace: String,
        dry_run: bool,
    ) -> Outcome<Applied> {
        let sources = proto::Sources {
            sources: encode(sources),
        };
        self.delete_what(What::Sources(sources), namespace, dry_run)
            .await
    }

    async fn delete_what(
        &mut self,
        what: What,
        namespace: String,
        dry_run: bool,
    ) -> Outcome<Applied> {
        let request = proto::DeleteRequest {
            what: Some(what),
            dry_run,
            namespace,
        };
        let answer = self.0.delete(request).await.map_err(refused)?;
        Ok(answer.into_inner().into())
    }

    /// Objects as JSON, with their status; one that was named and isn't there is a failure.
    pub async fn get(&mut self, query: Query) -> Outcome<Vec<Value>> {
        let Query {
            kind,
            name,
            namespace,
            all_namespaces,
        } = query;
        let missing = format!("there is no {kind} {namespace}/{name}");
        let named = !name.is_empty();
        let request = proto::GetRequest {
            kind,
            name,
            namespace,
            all_namespaces,
        };
        let answer = self.0.get(request).await.map_err(refused)?;
        let documents = answer.into_inner().objects;
        if named && documents.is_empty() {
            return Err(Failure::Failed(missing));
        }
        documents.iter().map(|document| json(document)).collect()
    }

    /// Waits until every proxy concerned has acknowledged a revision, or `timeout` is over.
    pub async fn wait(&mut self, revision: u64, timeout: Duration) -> Outcome<Waited> {
        let request = proto::WaitRequest {
            revision,
            timeout_milliseconds: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
        };
        let answer = self.0.wait(request).await.map_err(refused)?.into_inner();
        let lags = |lags: Vec<proto::ProxyLag>| {
            let lag = |lag: proto::ProxyLag| Lag {
                proxy: lag.proxy,
                resource: lag.resource,
                reason: lag.reason,
            };
            lags.into_iter().map(lag).collect()
        };
        Ok(Waited {
            acknowledged: answer.acknowledged,
            waiting: lags(answer.waiting),
            rejected: lags(answer.rejected),
        })
    }

    pub async fn proxies(&mut self) -> Outcome<Vec<Proxy>> {
        let answer = self.0.proxies(proto::ProxiesRequest {}).await;
        let proxies = answer.map_err(refused)?.into_inner().proxies;
        Ok(proxies.into_iter().map(Proxy::from).collect())
    }

    /// What a proxy has in force, as JSON.
    pub async fn proxy_config(&mut self, proxy: String) -> Outcome<Value> {
        let request = proto::ProxyConfigRequest { proxy };
        let answer = self.0.proxy_config(request).await.map_err(refused)?;
        json(&answer.into_inner().json)
    }

    /// How a proxy would treat a request, or what became of one, as JSON.
    pub async fn explain(&mut self, asked: Explain) -> Outcome<Value> {
        let headers = asked.headers.into_iter();
        let request = proto::ExplainRequest {
            proxy: asked.proxy,
            method: asked.method,
            url: asked.url,
            headers: headers
                .map(|(name, value)| proto::RequestHeader { name, value })
                .collect(),
            trace_id: asked.trace_id,
        };
        let answer = self.0.explain(request).await.map_err(refused)?;
        json(&answer.into_inner().json)
    }

    /// The revisions that are kept, the newest first.
    pub async fn history(&mut self) -> Outcome<Vec<Revision>> {
        let answer = self.0.history(proto::HistoryRequest {}).await;
        let revisions = answer.map_err(refused)?.into_inner().revisions;
        let revision = |revision: proto::Revision| Revision {
            revision: revision.revision,
            at: revision.unix_seconds,
            cause: revision.cause,
            changes: revision.changes.into_iter().map(Change::from).collect(),
        };
        Ok(revisions.into_iter().map(revision).collect())
    }

    /// Makes everything what it was at a revision.
    pub async fn rollback(&mut self, revision: u64, dry_run: bool) -> Outcome<Applied> {
        let request = proto::RollbackRequest { revision, dry_run };
        let answer = self.0.rollback(request).await.map_err(refused)?;
        Ok(answer.into_inner().into())
    }

    /// A join token. With `uses` 0 it may be used any number of times.
    pub async fn create_token(
        &mut self,
        namespace: String,
        service_account: String,
        ttl: Duration,
        uses: u32,
    ) -> Outcome<String> {
        let request = proto::CreateTokenRequest {
            namespace,
            service_account,
            ttl_seconds: ttl.as_secs(),
            uses,
        };
        let answer = self.0.create_token(request).await.map_err(refused)?;
        Ok(answer.into_inner().token)
    }

    /// What the control plane finds of its own health, and of this machine's clock.
    pub async fn check(&mut self) -> Outcome<Vec<Finding>> {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let request = proto::CheckRequest {
            now_unix_milliseconds: i64::try_from(now.as_millis()).unwrap_or_default(),
        };
        let answer = self.0.check(request).await.map_err(refused)?.into_inner();
        let finding = |finding: proto::Finding| Finding {
            level: finding.level,
            subject: finding.subject,
            message: finding.message,
        };
        Ok(answer.findings.into_iter().map(finding).collect())
    }
}

fn encode(sources: Vec<Source>) -> Vec<proto::Source> {
    let one = |source: Source| proto::Source {
        name: source.name,
        content: source.content.into(),
    };
    sources.into_iter().map(one).collect()
}

impl From<proto::ApplyResponse> for Applied {
    fn from(answer: proto::ApplyResponse) -> Self {
        let problems = |problems: Vec<proto::Problem>| problems.into_iter().map(problem).collect();
        Self {
            revision: answer.revision,
            changes: answer.changes.into_iter().map(Change::from).collect(),
            skipped: problems(answer.skipped),
            problems: problems(answer.problems),
        }
    }
}

impl From<proto::Change> for Change {
    fn from(change: proto::Change) -> Self {
        let object = change.object.unwrap_or_default();
        Self {
            kind: object.kind,
            namespace: object.namespace,
            name: object.name,
            action: change.action,
        }
    }
}

fn problem(problem: proto::Problem) -> Problem {
    let key = |object: proto::ObjectName| {
        let kind = Kind::parse(&object.kind)?;
        Some(Key::new(kind, object.namespace, object.name))
    };
    Problem {
        file: problem.file,
        document: problem.document,
        object: problem.object.and_then(key),
        field: problem.field,
        reason: problem.reason,
        line: problem.line,
    }
}

impl From<proto::Proxy> for Proxy {
    fn from(proxy: proto::Proxy) -> Self {
        let rejected = |rejected: proto::RejectedResource| Rejected {
            resource: rejected.resource,
            version: rejected.version,
            field: rejected.field,
            reason: rejected.reason,
        };
        Self {
            name: proxy.name,
            spiffe_id: proxy.spiffe_id,
            address: proxy.address,
            version: proxy.version,
            instance: proxy.instance,
            labels: proxy.labels.into_iter().collect(),
            ports_up: proxy.ports_up,
            connected_since: proxy.connected_since_unix_seconds,
            certificate_not_after: proxy.certificate_not_after_unix_seconds,
            synced: proxy.synced,
            pending: proxy.pending,
            rejected: proxy.rejected.into_iter().map(rejected).collect(),
        }
    }
}

fn rfc3339<S: serde::Serializer>(seconds: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    let since = Duration::from_secs(u64::try_from(*seconds).unwrap_or_default());
    serializer.collect_str(&humantime::format_rfc3339_seconds(UNIX_EPOCH + since))
}

fn json(text: &str) -> Outcome<Value> {
    serde_json::from_str(text)
        .map_err(|error| Failure::failed(format!("the control plane's answer is no JSON: {error}")))
}

/// What a call that failed tells the user.
#[expect(clippy::needless_pass_by_value, reason = "stands in map_err as it is")]
fn refused(status: tonic::Status) -> Failure {
    if status.message().is_empty() {
        return Failure::failed(format!("the control plane answered {:?}", status.code()));
    }
    Failure::failed(status.message())
}
