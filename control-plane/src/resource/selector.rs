//! Which requests a part of a policy is about.

use serde_json::{Map, Value, json};

use super::fields::{Field, Fields};
use super::names;
use super::route::{self, RouteKind, RouteMatch};

/// Callers, or routes, of one selector; more are refused.
const SELECTED_MAX: usize = 16;

/// All of what is there must hold; nothing there selects every request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestSelector {
    /// One of them is the caller.
    pub callers: Vec<Caller>,
    /// The caller's sidecar sent the request by one of them.
    pub routes: Vec<RouteReference>,
    /// As an HTTPRoute has it.
    pub matches: Option<RouteMatch>,
}

/// Whoever has an identity of this namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub namespace: String,
    /// Absent: any of the namespace.
    pub service_account: Option<String>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteReference {
    pub kind: RouteKind,
    pub namespace: String,
    pub name: String,
}

/// Fields of a selector, read together with the others of what has one.
pub(super) struct Taken<'a> {
    callers: Option<Field<'a>>,
    routes: Option<Field<'a>>,
    matches: Option<Field<'a>>,
}

impl<'a> Taken<'a> {
    pub(super) fn of(fields: &mut Fields<'a>) -> Self {
        Self {
            callers: fields.take("callers"),
            routes: fields.take("routes"),
            matches: fields.take("match"),
        }
    }

    /// `namespace` is the policy's own.
    pub(super) fn read(&self, namespace: &str) -> Option<RequestSelector> {
        let all = |field: &Option<Field<'a>>| -> Vec<Field<'a>> {
            let listed = field.as_ref().map(|field| field.sequence(SELECTED_MAX));
            listed.unwrap_or_default()
        };
        let callers: Vec<_> = all(&self.callers).iter().map(caller).collect();
        let routes = all(&self.routes);
        let routes: Vec<_> = routes
            .iter()
            .map(|item| reference(item, namespace))
            .collect();
        let matches = self.matches.as_ref();
        let matches = matches.map(|field| route::route_match(field, RouteKind::Http));
        Some(RequestSelector {
            callers: callers.into_iter().collect::<Option<_>>()?,
            routes: routes.into_iter().collect::<Option<_>>()?,
            matches: match matches {
                Some(read) => Some(read?),
                None => None,
            },
        })
    }
}

fn caller(item: &Field<'_>) -> Option<Caller> {
    let mut fields = item.mapping()?;
    let namespace = fields.require("namespace");
    let account = fields.take("serviceAccount");
    fields.finish();
    Some(Caller {
        namespace: namespace?.checked(|name| names::label(name, false))?,
        service_account: match account {
            Some(account) => Some(account.checked(names::subdomain)?),
            None => None,
        },
    })
}

fn reference(item: &Field<'_>, own: &str) -> Option<RouteReference> {
    let mut fields = item.mapping()?;
    let kind = fields.take("kind");
    let namespace = fields.take("namespace");
    let name = fields.require("name");
    fields.finish();
    let kind = match kind {
        None => RouteKind::Http,
        Some(field) => match field.string()?.as_str() {
            "HTTPRoute" => RouteKind::Http,
            "GRPCRoute" => RouteKind::Grpc,
            other => {
                field.problem(format!("{other:?} is none of HTTPRoute, GRPCRoute"));
                return None;
            }
        },
    };
    Some(RouteReference {
        kind,
        namespace: match namespace {
            Some(field) => field.checked(|name| names::label(name, false))?,
            None => own.to_owned(),
        },
        name: name?.checked(names::subdomain)?,
    })
}

impl RequestSelector {
    /// Puts its fields into what it belongs to.
    pub(super) fn fill(&self, out: &mut Map<String, Value>) {
        let callers = self.callers.iter().map(|caller| {
            let mut out = json!({"namespace": caller.namespace});
            if let Some(account) = &caller.service_account {
                out["serviceAccount"] = account.as_str().into();
            }
            out
        });
        let routes = self.routes.iter().map(|route| {
            json!({
                "kind": route.kind.object_kind().as_str(),
                "namespace": route.namespace,
                "name": route.name,
            })
        });
        if !self.callers.is_empty() {
            out.insert("callers".to_owned(), callers.collect());
        }
        if !self.routes.is_empty() {
            out.insert("routes".to_owned(), routes.collect());
        }
        if let Some(matches) = &self.matches {
            out.insert("match".to_owned(), matches.to_json());
        }
    }
}
