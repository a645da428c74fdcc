//! `Explain`: the proxy's own answer, and beside it the routes of the destination with their status, so
//! that a route that takes no effect is seen with its reason.

use serde_json::{Value, json};
use tonic::Status;
use weft_proto::v1alpha1 as wire;

use super::document;
use crate::compile::ServicePort;
use crate::resource::{Resource, Route, RouteKind};
use crate::store::Store;
use crate::subscription::{Question, Subscriptions};

pub(super) async fn explain(
    subscriptions: &Subscriptions,
    store: &Store,
    request: wire::ExplainRequest,
) -> Result<String, Status> {
    let headers = request.headers.into_iter();
    let question = if request.trace_id.is_empty() {
        Question::Request {
            method: request.method,
            url: request.url,
            headers: headers.map(|header| (header.name, header.value)).collect(),
        }
    } else {
        Question::Trace(request.trace_id)
    };
    let answer = subscriptions.ask(&request.proxy, question).await;
    let answer = answer.map_err(Status::unavailable)?;
    let mut answer: Value = serde_json::from_str(&answer)
        .map_err(|error| Status::unavailable(format!("the proxy's answer is no JSON: {error}")))?;
    let destination = answer["destination"]["name"].as_str().unwrap_or_default();
    if let Some(service) = ServicePort::parse(destination) {
        subscriptions.catch_up().await;
        answer["routes"] = routes(subscriptions, store, &service);
    }
    Ok(answer.to_string())
}

/// Every route that names the service as a parent, whatever became of it.
fn routes(subscriptions: &Subscriptions, store: &Store, of: &ServicePort) -> Value {
    let snapshot = store.snapshot();
    let kinds = RouteKind::ALL.into_iter();
    let all = kinds.flat_map(|kind| snapshot.of_kind(kind.object_kind()));
    let named = all.filter_map(|resource| match resource.as_ref() {
        Resource::Route(route) if names(route, of) => Some((route, resource)),
        _ => None,
    });
    let shown = named.map(|(route, resource)| {
        let document = document::with_status(resource, subscriptions);
        let metadata = &route.metadata;
        json!({
            "name": format!("{}/{}/{}", route.kind.object_kind(), metadata.namespace, metadata.name),
            "hostnames": route.hostnames,
            "parents": document["status"]["parents"],
        })
    });
    shown.collect()
}

fn names(route: &Route, of: &ServicePort) -> bool {
    let mut parents = route.parent_refs.iter();
    parents
        .any(|parent| parent.name == *of.service.name && parent.namespace == *of.service.namespace)
}
