//! `weft get`

use clap::Args;
use serde_json::{Value, json};

use super::client::{Client, Query};
use super::connect::Target;
use super::output::{self, Format};
use super::table::{Table, age, now};
use super::{Failure, Outcome};
use crate::resource::{Kind, RouteKind};

#[derive(Args)]
pub(super) struct Arguments {
    /// Kind: services, endpointslices, httproutes, grpcroutes, tlsroutes, tcproutes, routes (all of
    /// these), referencegrants, backendtlspolicies, configmaps, trafficpolicies,
    /// xbackendtrafficpolicies, faultinjectionpolicies, inboundpolicies, outboundpolicies or workloads
    kind: String,
    /// Name of one object; all of them when it is left out
    name: Option<String>,
    /// Namespace
    #[arg(
        short,
        long,
        env = "WEFT_NAMESPACE",
        value_name = "NS",
        default_value = "default"
    )]
    namespace: String,
    /// Every namespace [default: off]
    #[arg(
        short = 'A',
        long,
        env = "WEFT_ALL_NAMESPACES",
        conflicts_with = "name"
    )]
    all_namespaces: bool,
    /// Only routes whose parent is this Service: NAME of the namespace, or NAMESPACE/NAME [default: off]
    #[arg(
        long = "for",
        env = "WEFT_FOR",
        value_name = "SERVICE",
        conflicts_with = "name"
    )]
    parent: Option<String>,
    /// How to print it
    #[arg(short, long, env = "WEFT_OUTPUT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let mut client = Client::connect(&arguments.target).await?;
    let is_routes = matches!(arguments.kind.as_str(), "routes" | "route");
    let kinds: Vec<String> = if is_routes {
        let kinds = RouteKind::ALL.into_iter();
        kinds
            .map(|kind| kind.object_kind().plural().to_owned())
            .collect()
    } else {
        vec![arguments.kind.clone()]
    };
    if is_routes && arguments.name.is_some() {
        return Err(Failure::Usage(
            "a route is named by its own kind: weft get httproute NAME".to_owned(),
        ));
    }
    let mut objects = Vec::new();
    for kind in kinds {
        let query = Query {
            kind,
            name: arguments.name.clone().unwrap_or_default(),
            namespace: arguments.namespace.clone(),
            // A consumer's routes are of another namespace than their parent.
            all_namespaces: arguments.all_namespaces || arguments.parent.is_some(),
        };
        objects.extend(client.get(query).await?);
    }
    if let Some(parent) = &arguments.parent {
        let (namespace, name) = parent
            .split_once('/')
            .unwrap_or((&arguments.namespace, parent));
        objects.retain(|object| has_parent(object, namespace, name));
    }
    let place =
        |object: &Value| ["namespace", "name"].map(|field| text(&object["metadata"][field]));
    objects.sort_by_cached_key(place);
    match (arguments.output, arguments.name) {
        (Format::Table, _) if objects.is_empty() => {
            output::complain("nothing found");
            Ok(())
        }
        (Format::Table, _) => output::print(&draw(&arguments.kind, &objects, now())),
        (format, Some(_)) => {
            let one = objects.into_iter().next().unwrap_or_default();
            output::print_value(&one, format)
        }
        (format, None) => {
            let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
            output::print_value(&list, format)
        }
    }
}

/// Whether an object is a route of this Service. A reference without a namespace was given the route's.
fn has_parent(object: &Value, namespace: &str, name: &str) -> bool {
    let parents = object["spec"]["parentRefs"].as_array();
    parents
        .into_iter()
        .flatten()
        .any(|parent| parent["namespace"] == namespace && parent["name"] == name)
}

fn draw(kind: &str, objects: &[Value], now: i64) -> String {
    if matches!(kind, "routes" | "route") {
        let columns = ["KIND", "PARENTS", "RULES", "ACCEPTED", "RESOLVEDREFS"];
        return draw_as(objects, now, &columns, |object| {
            let mut cells = vec![text(&object["kind"])];
            cells.extend(route(object));
            cells
        });
    }
    match Kind::parse(kind) {
        Some(Kind::Service) => draw_as(
            objects,
            now,
            &["TYPE", "VIRTUAL-IPS", "PORTS", "SELECTOR"],
            service,
        ),
        Some(Kind::EndpointSlice) => draw_as(
            objects,
            now,
            &["SERVICE", "PORTS", "ENDPOINTS"],
            endpoint_slice,
        ),
        Some(Kind::HttpRoute | Kind::GrpcRoute | Kind::TlsRoute | Kind::TcpRoute) => draw_as(
            objects,
            now,
            &["PARENTS", "RULES", "ACCEPTED", "RESOLVEDREFS"],
            route,
        ),
        Some(Kind::OutboundPolicy) => draw_as(
            objects,
            now,
            &["TARGETS", "UNKNOWN-DESTINATIONS", "ACCEPTED"],
            outbound_policy,
        ),
        Some(Kind::BackendTlsPolicy) => draw_as(
            objects,
            now,
            &["TARGETS", "HOSTNAME", "ACCEPTED", "RESOLVEDREFS"],
            backend_tls_policy,
        ),
        Some(Kind::TrafficPolicy) => draw_as(
            objects,
            now,
            &["TARGETS", "BALANCING", "ACCEPTED"],
            traffic_policy,
        ),
        Some(Kind::FaultInjectionPolicy) => draw_as(
            objects,
            now,
            &["TARGETS", "FAULTS", "ACCEPTED"],
            fault_injection_policy,
        ),
        Some(Kind::InboundPolicy) => draw_as(
            objects,
            now,
            &["TARGETS", "CONCURRENCY", "RATE-LIMITS", "ACCEPTED"],
            inbound_policy,
        ),
        Some(Kind::BackendTrafficPolicy) => draw_as(
            objects,
            now,
            &["TARGETS", "RETRY-BUDGET", "ACCEPTED"],
            backend_traffic_policy,
        ),
        Some(Kind::ConfigMap) => draw_as(objects, now, &["CERTIFICATES"], config_map),
        Some(Kind::ReferenceGrant) => draw_as(objects, now, &["FROM", "TO"], reference_grant),
        None => draw_as(
            objects,
            now,
            &["IDENTITY", "ADDRESS", "PORTS-UP", "LABELS"],
            workload,
        ),
    }
}

fn draw_as(
    objects: &[Value],
    now: i64,
    columns: &[&str],
    cells: fn(&Value) -> Vec<String>,
) -> String {
    let heading = [&["NAMESPACE", "NAME"], columns, &["AGE"]].concat();
    let mut table = Table::new(&heading);
    for object in objects {
        let metadata = &object["metadata"];
        let mut row = vec![text(&metadata["namespace"]), text(&metadata["name"])];
        row.extend(cells(object));
        row.push(created(metadata).map_or_else(String::new, |created| age(now - created)));
        table.row(row);
    }
    table.draw()
}

fn created(metadata: &Value) -> Option<i64> {
    let time = humantime::parse_rfc3339(metadata["creationTimestamp"].as_str()?).ok()?;
    let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

fn service(object: &Value) -> Vec<String> {
    let spec = &object["spec"];
    let port = |port: &Value| {
        let target = text(&port["targetPort"]);
        let number = text(&port["port"]);
        if target == number {
            number
        } else {
            format!("{number}→{target}")
        }
    };
    let address = match spec["externalName"].as_str() {
        Some(name) => name.to_owned(),
        None => join(&spec["clusterIPs"], text),
    };
    vec![
        text(&spec["type"]),
        address,
        join(&spec["ports"], port),
        pairs(&spec["selector"]),
    ]
}

fn endpoint_slice(object: &Value) -> Vec<String> {
    let endpoint = |endpoint: &Value| {
        let address = text(&endpoint["addresses"][0]);
        if endpoint["conditions"]["ready"] == false {
            format!("{address}(not ready)")
        } else {
            address
        }
    };
    vec![
        text(&object["metadata"]["labels"]["kubernetes.io/service-name"]),
        join(&object["ports"], |port| text(&port["port"])),
        join(&object["endpoints"], endpoint),
    ]
}

fn outbound_policy(object: &Value) -> Vec<String> {
    let spec = &object["spec"];
    let target = |target: &Value| format!("{} {}", text(&target["kind"]), text(&target["name"]));
    vec![
        join(&spec["targetRefs"], target),
        text(&spec["unknownDestinations"]),
        condition(object, "Accepted"),
    ]
}

/// The Services that a policy is for, with the ports' names.
fn service_targets(object: &Value) -> String {
    let target = |target: &Value| {
        let (kind, name) = (text(&target["kind"]), text(&target["name"]));
        let named = match kind.as_str() {
            "Service" => name,
            kind => format!("{kind}/{name}"),
        };
        match text(&target["sectionName"]) {
            section if section.is_empty() => named,
            section => format!("{named}:{section}"),
        }
    };
    join(&object["spec"]["targetRefs"], target)
}

fn traffic_policy(object: &Value) -> Vec<String> {
    vec![
        service_targets(object),
        text(&object["spec"]["loadBalancing"]["algorithm"]),
        condition(object, "Accepted"),
    ]
}

fn fault_injection_policy(object: &Value) -> Vec<String> {
    vec![
        service_targets(object),
        length(&object["spec"]["faults"]),
        condition(object, "Accepted"),
    ]
}

fn inbound_policy(object: &Value) -> Vec<String> {
    let spec = &object["spec"];
    let global = text(&spec["globalRateLimit"]["domain"]);
    let limits = match (length(&spec["rateLimits"]), global) {
        (local, global) if global.is_empty() => local,
        (local, global) => format!("{local} and {global}"),
    };
    vec![
        service_targets(object),
        text(&spec["concurrency"]["mode"]),
        limits,
        condition(object, "Accepted"),
    ]
}

/// How many a list has.
fn length(list: &Value) -> String {
    list.as_array().map_or(0, Vec::len).to_string()
}

fn backend_traffic_policy(object: &Value) -> Vec<String> {
    let percent = &object["spec"]["retryConstraint"]["budget"]["percent"];
    let percent = match text(percent) {
        percent if percent.is_empty() => percent,
        percent => format!("{percent} %"),
    };
    vec![
        service_targets(object),
        percent,
        condition(object, "Accepted"),
    ]
}

fn backend_tls_policy(object: &Value) -> Vec<String> {
    let spec = &object["spec"];
    vec![
        service_targets(object),
        text(&spec["validation"]["hostname"]),
        condition(object, "Accepted"),
        condition(object, "ResolvedRefs"),
    ]
}

fn config_map(object: &Value) -> Vec<String> {
    let certificates = text(&object["data"]["ca.crt"]);
    let count = certificates.matches("-----BEGIN CERTIFICATE").count();
    vec![count.to_string()]
}

fn reference_grant(object: &Value) -> Vec<String> {
    let from = |from: &Value| format!("{} in {}", text(&from["kind"]), text(&from["namespace"]));
    let to = |to: &Value| match text(&to["name"]) {
        name if name.is_empty() => text(&to["kind"]),
        name => format!("{} {name}", text(&to["kind"])),
    };
    vec![
        join(&object["spec"]["from"], from),
        join(&object["spec"]["to"], to),
    ]
}

fn route(object: &Value) -> Vec<String> {
    let spec = &object["spec"];
    let parent = |parent: &Value| match text(&parent["port"]) {
        port if port.is_empty() => text(&parent["name"]),
        port => format!("{}:{port}", text(&parent["name"])),
    };
    let rules = spec["rules"].as_array().map_or(0, Vec::len);
    vec![
        join(&spec["parentRefs"], parent),
        rules.to_string(),
        condition(object, "Accepted"),
        condition(object, "ResolvedRefs"),
    ]
}

/// What all parents of a route, or ancestors of a policy, say of one condition.
fn condition(object: &Value, kind: &str) -> String {
    let status = &object["status"];
    let entries = [&status["parents"], &status["ancestors"]];
    let entries = entries.into_iter().flat_map(|list| list.as_array());
    let conditions = entries
        .flatten()
        .flat_map(|entry| entry["conditions"].as_array())
        .flatten()
        .filter(|condition| condition["type"] == kind);
    let mut shown: Vec<String> = conditions
        .map(|condition| match condition["status"].as_str() {
            Some("True") => "True".to_owned(),
            status => format!(
                "{} ({})",
                status.unwrap_or_default(),
                text(&condition["reason"])
            ),
        })
        .collect();
    shown.dedup();
    shown.join(", ")
}

fn workload(object: &Value) -> Vec<String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    vec![
        text(&spec["spiffeId"]),
        text(&spec["address"]),
        join(&status["portsUp"], text),
        pairs(&object["metadata"]["labels"]),
    ]
}

/// A scalar as text; empty when it isn't there.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn join(list: &Value, shown: impl Fn(&Value) -> String) -> String {
    let items = list.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().map(shown).collect::<Vec<_>>().join(",")
}

fn pairs(map: &Value) -> String {
    let pairs = map.as_object().into_iter().flatten();
    let shown: Vec<String> = pairs
        .map(|(key, value)| format!("{key}={}", text(value)))
        .collect();
    shown.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_services_and_routes() {
        let service = json!({
            "metadata": {"namespace": "shop", "name": "orders", "creationTimestamp": "1970-01-01T00:00:00Z"},
            "spec": {"type": "ClusterIP", "clusterIPs": ["240.0.0.1"], "selector": {"app": "orders"},
                     "ports": [{"port": 80, "targetPort": 8080}]},
        });
        let expected = "NAMESPACE   NAME     TYPE        VIRTUAL-IPS   PORTS     SELECTOR     AGE\n\
                        shop        orders   ClusterIP   240.0.0.1     80→8080   app=orders   5s\n";
        assert_eq!(draw("svc", &[service], 5), expected);
        let route = json!({
            "metadata": {"namespace": "shop", "name": "r"},
            "spec": {"parentRefs": [{"name": "orders", "port": 80}], "rules": [{}, {}]},
            "status": {"parents": [{"conditions": [
                {"type": "Accepted", "status": "True"},
                {"type": "ResolvedRefs", "status": "False", "reason": "BackendNotFound"},
            ]}]},
        });
        let drawn = draw("httproutes", &[route], 5);
        assert!(
            drawn.contains("orders:80   2       True       False (BackendNotFound)   -"),
            "{drawn}"
        );
    }
}
