//! Reading routes.

use super::super::fields::{Field, Fields};
use super::super::{Metadata, names};
use super::backend::{backend_refs, reference_namespace};
use super::{
    Filter, HOSTNAMES_MAX, MATCHES_MAX, MatchKind, PARENT_REFS_MAX, ParentRef, PathMatch,
    PathModifier, ROUTE_MATCHES_MAX, RULES_MAX, Route, RouteKind, RouteMatch, RouteRule, Timeouts,
    filters, matches, policy,
};

pub(in crate::resource) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// Server names of a TLSRoute; more are refused (Gateway API's limit).
const SERVER_NAMES_MAX: usize = 1024;

/// Reads `spec`.
pub(in super::super) fn decode(
    kind: RouteKind,
    metadata: Metadata,
    document: &mut Fields<'_>,
) -> Option<Route> {
    let mut fields = document.require("spec")?.mapping()?;
    fields.refuse(&["useDefaultGateways"]);
    let namespace = metadata.namespace.clone();
    let parents = fields.take("parentRefs");
    let parent_refs = parents
        .map(|field| field.sequence(PARENT_REFS_MAX))
        .unwrap_or_default()
        .iter()
        .filter_map(|item| parent_ref(item, &namespace))
        .collect();
    let hostnames = match kind {
        RouteKind::Tcp => Vec::new(),
        RouteKind::Tls => hostnames(fields.take("hostnames"), SERVER_NAMES_MAX),
        RouteKind::Http | RouteKind::Grpc => hostnames(fields.take("hostnames"), HOSTNAMES_MAX),
    };
    let rules = if kind.is_http() {
        match fields.take("rules") {
            Some(field) => rules(&field, kind, &namespace, RULES_MAX),
            // Gateway API's default: everything, to no backend.
            None => vec![RouteRule::everything(kind)],
        }
    } else {
        let field = fields.require("rules");
        field.map_or_else(Vec::new, |field| rules(&field, kind, &namespace, 1))
    };
    fields.finish();
    Some(Route {
        kind,
        metadata,
        parent_refs,
        hostnames,
        rules,
    })
}

impl RouteRule {
    /// A rule that says nothing.
    fn everything(kind: RouteKind) -> Self {
        Self {
            name: None,
            matches: vec![RouteMatch::any(kind)],
            filters: Vec::new(),
            backend_refs: Vec::new(),
            timeouts: Timeouts::default(),
            retry: None,
            session_persistence: None,
        }
    }
}

fn parent_ref(item: &Field<'_>, namespace: &str) -> Option<ParentRef> {
    let mut fields = item.mapping()?;
    let text = |field: Option<Field<'_>>, default: &str| match field {
        Some(field) => field.string(),
        None => Some(default.to_owned()),
    };
    let group = text(fields.take("group"), GATEWAY_GROUP);
    let kind = text(fields.take("kind"), "Gateway");
    let name = fields
        .require("name")
        .and_then(|field| field.checked(names::subdomain));
    let namespace = reference_namespace(&mut fields, namespace);
    let section_name = fields
        .take("sectionName")
        .and_then(|field| field.checked(names::subdomain));
    let port = fields.take("port").map(|field| field.port());
    fields.finish();
    if (group?.as_str(), kind?.as_str()) != ("", "Service") {
        item.notice("only a Service (group \"\", kind Service) is a parent in the mesh; this one is left alone");
        return None;
    }
    Some(ParentRef {
        namespace: namespace?,
        name: name?,
        port: match port {
            Some(port) => Some(port?),
            None => None,
        },
        section_name,
    })
}

fn hostnames(field: Option<Field<'_>>, max: usize) -> Vec<String> {
    let items = field.map(|field| field.sequence(max)).unwrap_or_default();
    let mut hostnames: Vec<String> = Vec::new();
    for name in items
        .iter()
        .filter_map(|item| item.checked(names::hostname))
    {
        if !hostnames.contains(&name) {
            hostnames.push(name);
        }
    }
    hostnames
}

fn rules(field: &Field<'_>, kind: RouteKind, namespace: &str, max: usize) -> Vec<RouteRule> {
    let mut rules: Vec<RouteRule> = Vec::new();
    for item in &field.sequence(max) {
        let Some(rule) = rule(item, kind, namespace) else {
            continue;
        };
        if let Some(name) = &rule.name
            && rules.iter().any(|other| other.name.as_ref() == Some(name))
        {
            item.problem(format!("the name {name:?} is there twice"));
        }
        rules.push(rule);
    }
    if matches!(&field.node.value, super::super::tree::Value::Sequence(nodes) if nodes.is_empty()) {
        field.problem("at least one rule is needed");
    }
    let matches: usize = rules.iter().map(|rule| rule.matches.len()).sum();
    if matches > ROUTE_MATCHES_MAX {
        field.problem(format!(
            "{matches} matches together, at most {ROUTE_MATCHES_MAX} are taken"
        ));
    }
    rules
}

fn rule(item: &Field<'_>, kind: RouteKind, namespace: &str) -> Option<RouteRule> {
    let mut fields = item.mapping()?;
    let name = fields
        .take("name")
        .and_then(|field| field.checked(names::subdomain));
    let mut rule = RouteRule {
        name,
        ..RouteRule::everything(kind)
    };
    if kind.is_http() {
        let listed = fields.take("matches");
        let listed = listed.map(|field| field.sequence(MATCHES_MAX));
        let listed = listed.unwrap_or_default();
        let read: Vec<RouteMatch> = listed
            .iter()
            .filter_map(|item| matches::route_match(item, kind))
            .collect();
        if !read.is_empty() {
            rule.matches = read;
        }
        if let Some(field) = fields.take("filters") {
            rule.filters = filters::filters(&field, kind, namespace);
        }
        rule.session_persistence = fields
            .take("sessionPersistence")
            .and_then(|field| policy::session_persistence(&field));
    }
    if kind == RouteKind::Http {
        if let Some(field) = fields.take("timeouts") {
            rule.timeouts = policy::timeouts(&field);
        }
        rule.retry = fields.take("retry").and_then(|field| policy::retry(&field));
    }
    let backends = if kind.is_http() {
        fields.take("backendRefs")
    } else {
        fields.require("backendRefs")
    };
    rule.backend_refs = backend_refs(backends, kind, namespace);
    fields.finish();
    check_filters(item, &rule);
    Some(rule)
}

/// What Gateway API asks of a rule's filters together with the rest of it.
fn check_filters(item: &Field<'_>, rule: &RouteRule) {
    let redirects = |filter: &Filter| matches!(filter, Filter::RequestRedirect(_));
    if rule.filters.iter().any(redirects) && !rule.backend_refs.is_empty() {
        item.problem("a rule that redirects must not have backendRefs: nothing would reach them");
    }
    let by_prefix = match &rule.matches[..] {
        [one] => matches!(
            &one.kind,
            MatchKind::Http {
                path: PathMatch::Prefix(_),
                ..
            }
        ),
        _ => false,
    };
    let of_backends = rule
        .backend_refs
        .iter()
        .flat_map(|backend| &backend.filters);
    let replaces_prefix = rule.filters.iter().chain(of_backends).any(|filter| {
        let path = match filter {
            Filter::RequestRedirect(redirect) => &redirect.path,
            Filter::UrlRewrite(rewrite) => &rewrite.path,
            _ => &None,
        };
        matches!(path, Some(PathModifier::Prefix(_)))
    });
    if replaces_prefix && !by_prefix {
        item.problem("replacePrefixMatch needs exactly one match, by PathPrefix: its prefix is what is replaced");
    }
}
