//! `weft explain`

use std::iter;

use clap::Args;
use http::{Method, Uri};
use serde_json::Value;

use super::client::{Client, Explain};
use super::connect::Target;
use super::output::{self, Format};
use super::table::Table;
use super::{Failure, Outcome};

#[derive(Args)]
pub(super) struct Arguments {
    /// The workload whose proxy is asked: NAMESPACE/WORKLOAD, or WORKLOAD of the namespace
    #[arg(long, env = "WEFT_FROM", value_name = "WORKLOAD")]
    from: String,
    /// The request's method
    #[arg(short = 'X', long, env = "WEFT_METHOD", default_value = "GET")]
    method: Method,
    /// A header of the request, 'name: value'; may be given several times
    #[arg(short = 'H', long, env = "WEFT_HEADER", value_name = "HEADER")]
    header: Vec<String>,
    /// What became of the recent requests of this trace, in place of a URL [default: off]
    #[arg(long, env = "WEFT_TRACE_ID", value_name = "ID", conflicts_with = "url")]
    trace_id: Option<String>,
    /// Namespace of WORKLOAD, where it names none
    #[arg(
        short,
        long,
        env = "WEFT_NAMESPACE",
        value_name = "NS",
        default_value = "default"
    )]
    namespace: String,
    /// How to print it
    #[arg(short, long, env = "WEFT_OUTPUT", default_value = "table")]
    output: Format,
    /// What the request is for: http://HOST[:PORT]/PATH
    #[arg(required_unless_present = "trace_id")]
    url: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let headers = arguments.header.iter().map(|line| header(line));
    let headers: Vec<(String, String)> = headers.collect::<Outcome<_>>()?;
    let url = match &arguments.url {
        Some(url) => absolute(url)?,
        None => String::new(),
    };
    let proxy = match arguments.from.contains('/') {
        true => arguments.from.clone(),
        false => format!("{}/{}", arguments.namespace, arguments.from),
    };
    let mut client = Client::connect(&arguments.target).await?;
    let asked = Explain {
        proxy: proxy.clone(),
        method: arguments.method.to_string(),
        url: url.clone(),
        headers,
        trace_id: arguments.trace_id.clone().unwrap_or_default(),
    };
    let answer = client.explain(asked).await?;
    match arguments.output {
        Format::Table if arguments.trace_id.is_some() => output::print(&draw_trace(&answer)),
        Format::Table => {
            let asked = format!("{} {url} from {proxy}", arguments.method);
            let namespace = proxy.split('/').next().unwrap_or_default();
            output::print(&draw(&asked, namespace, &answer))
        }
        format => output::print_value(&answer, format),
    }
}

fn header(line: &str) -> Outcome<(String, String)> {
    let (name, value) = line
        .split_once(':')
        .ok_or_else(|| Failure::Usage(format!("{line:?} is no header: write 'name: value'")))?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn absolute(url: &str) -> Outcome<String> {
    if url.starts_with('/') {
        return Err(Failure::Usage(format!(
            "{url:?} names no host: write http://SERVICE{url}"
        )));
    }
    let whole = match url.contains("://") {
        true => url.to_owned(),
        false => format!("http://{url}"),
    };
    let unusable =
        |why: &str| Failure::Usage(format!("{url:?} {why}: write http://HOST[:PORT]/PATH"));
    match whole.parse::<Uri>() {
        Err(error) => Err(unusable(&format!("is no URL, {error}"))),
        Ok(parsed) if !matches!(parsed.scheme_str(), Some("http" | "https")) => {
            Err(unusable("is neither http nor https"))
        }
        Ok(_) => Ok(whole),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Says first what becomes of the request, then why.
fn draw(asked: &str, namespace: &str, answer: &Value) -> String {
    let mut out = format!("{asked}\n  {}\n", verdict(answer));
    let note = text(&answer["destination"]["note"]);
    if !note.is_empty() {
        out.push_str(&format!("  {note}\n"));
    }
    let mut section = |heading: &str, body: String| {
        if !body.is_empty() {
            out.push_str(&format!("\n{heading}\n{body}"));
        }
    };
    section(
        "Rules, in the order in which they are tried",
        candidates(answer),
    );
    section("Backends", backends(answer));
    section("What the rule changes", list(items(&answer["filters"])));
    section("Time", timeouts(&answer["timeouts"]));
    section("Retries", retries(&answer["retries"]));
    section("Policies", policies(answer));
    section(
        "Routes of the service that take no effect, or not everywhere",
        ineffective(namespace, answer),
    );
    out
}

fn verdict(answer: &Value) -> String {
    let destination = text(&answer["destination"]["name"]);
    let outcome = &answer["outcome"];
    let route = match &answer["route"] {
        Value::Null => destination,
        route => rule_name(route),
    };
    let becomes = match text(&outcome["kind"]).as_str() {
        "forward" => shares(answer),
        "redirect" => format!(
            "redirected to {} with {}",
            text(&outcome["location"]),
            text(&outcome["status"])
        ),
        "preflight" => format!(
            "answered by the proxy with {} (CORS)",
            text(&outcome["status"])
        ),
        _ => format!(
            "answered by the proxy with {} {}",
            text(&outcome["status"]),
            text(&outcome["fault"])
        ),
    };
    let reason = match text(&outcome["reason"]) {
        reason if reason.is_empty() => String::new(),
        reason => format!(" ({reason})"),
    };
    format!("{route} -> {becomes}{reason}")
}

fn rule_name(rule: &Value) -> String {
    let name = match text(&rule["rule_name"]) {
        name if name.is_empty() => String::new(),
        name => format!(" ({name})"),
    };
    match &rule["rule"] {
        Value::Null => text(&rule["name"]),
        number => format!("{} rule {number}{name}", text(&rule["name"])),
    }
}

fn shares(answer: &Value) -> String {
    let backends = items(&answer["backends"]);
    if backends.is_empty() {
        return "passed on".to_owned();
    }
    let share = |backend: &Value| {
        let cluster = text(&backend["cluster"]);
        format!("{cluster} {}", text(&backend["share"]))
            .trim()
            .to_owned()
    };
    backends.iter().map(share).collect::<Vec<_>>().join(", ")
}

fn candidates(answer: &Value) -> String {
    let candidates = items(&answer["candidates"]);
    if candidates.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["ROUTE", "RULE", "MATCH", "HOST", "VERDICT", "BECAUSE"]);
    for one in candidates {
        let rule = match text(&one["rule_name"]) {
            name if name.is_empty() => text(&one["rule"]),
            name => format!("{} ({name})", text(&one["rule"])),
        };
        let because: Vec<String> = items(&one["because"]).iter().map(text).collect();
        table.row(vec![
            text(&one["route"]),
            rule,
            text(&one["match"]),
            text(&one["hostname"]),
            text(&one["verdict"]),
            because.join("; "),
        ]);
    }
    table.draw()
}

fn backends(answer: &Value) -> String {
    let backends = items(&answer["backends"]);
    if backends.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        "BACKEND", "WEIGHT", "ENDPOINT", "IDENTITY", "STATE", "REQUESTS",
    ]);
    for backend in backends {
        let (cluster, weight) = (text(&backend["cluster"]), text(&backend["weight"]));
        let endpoints = items(&backend["endpoints"]);
        if endpoints.is_empty() {
            let wrong = match text(&backend["invalid"]) {
                invalid if invalid.is_empty() => text(&backend["fault"]),
                invalid => invalid,
            };
            let state = if wrong.is_empty() {
                "no endpoint".to_owned()
            } else {
                wrong
            };
            table.row(vec![
                cluster,
                weight,
                String::new(),
                String::new(),
                state,
                String::new(),
            ]);
            continue;
        }
        for (index, endpoint) in endpoints.iter().enumerate() {
            let first = |cell: &String| {
                if index == 0 {
                    cell.clone()
                } else {
                    String::new()
                }
            };
            let tls = &backend["tls"];
            let identity = match (text(&endpoint["sidecar"]), text(&tls["hostname"])) {
                (identity, _) if !identity.is_empty() => identity,
                (_, hostname) if hostname.is_empty() => "no sidecar".to_owned(),
                (_, hostname) => match text(&tls["invalid"]) {
                    invalid if invalid.is_empty() => {
                        format!("TLS to {hostname} by {}", text(&tls["policy"]))
                    }
                    invalid => format!("none: {}: {invalid}", text(&tls["policy"])),
                },
            };
            table.row(vec![
                first(&cluster),
                first(&weight),
                text(&endpoint["address"]),
                identity,
                text(&endpoint["state"]),
                text(&endpoint["requests"]),
            ]);
        }
    }
    let mut drawn = table.draw();
    for backend in backends {
        for filter in items(&backend["filters"]) {
            drawn.push_str(&format!(
                "{}: {}\n",
                text(&backend["cluster"]),
                text(filter)
            ));
        }
    }
    drawn
}

fn list(values: &[Value]) -> String {
    values
        .iter()
        .map(|value| format!("{}\n", text(value)))
        .collect()
}

fn timeouts(timeouts: &Value) -> String {
    let line = |what: &str, field: &str| match text(&timeouts[field]) {
        time if time.is_empty() => String::new(),
        time => format!("{what} {time}\n"),
    };
    line("whole request", "request") + &line("one attempt", "backend_request")
}

/// What a rule asks for, besides what is safe anyway.
fn retries(retries: &Value) -> String {
    if retries.is_null() {
        return String::new();
    }
    let codes: Vec<String> = items(&retries["codes"]).iter().map(text).collect();
    let after = match codes.is_empty() {
        true => "failures without an answer".to_owned(),
        false => format!("{} and failures without an answer", codes.join(", ")),
    };
    let (attempts, backoff) = (text(&retries["attempts"]), text(&retries["backoff"]));
    format!("at most {attempts} after {after}, the first within {backoff}\n")
}

/// What says which faults are made, and how each backend is called.
fn policies(answer: &Value) -> String {
    let faults = text(&answer["faults"]);
    let of_rule = match faults.is_empty() {
        true => String::new(),
        false => format!("the rule: {faults}\n"),
    };
    let backends = items(&answer["backends"]).iter();
    let lines = backends.filter_map(|backend| {
        let names: Vec<String> = items(&backend["policies"]).iter().map(text).collect();
        let cluster = text(&backend["cluster"]);
        (!names.is_empty()).then(|| format!("{cluster}: {}\n", names.join(", ")))
    });
    iter::once(of_rule).chain(lines).collect()
}

/// What the status of a route says that isn't as it should be, or is so for clients of other namespaces.
fn ineffective(namespace: &str, answer: &Value) -> String {
    let mut table = Table::new(&["ROUTE", "CONDITION", "REASON", "MESSAGE"]);
    let mut is_empty = true;
    for route in items(&answer["routes"]) {
        let of = text(&route["name"]);
        let of = of.split('/').nth(1).unwrap_or_default();
        let parents = items(&route["parents"]).iter();
        let conditions = parents.flat_map(|parent| {
            let is_consumer = parent["parentRef"]["namespace"] != of;
            let conditions = items(&parent["conditions"]).iter();
            conditions.map(move |condition| (condition, is_consumer))
        });
        for (condition, is_consumer) in conditions {
            let kind = text(&condition["type"]);
            let good = if kind == "PartiallyInvalid" {
                "False"
            } else {
                "True"
            };
            let message = text(&condition["message"]);
            let elsewhere = is_consumer && of != namespace && kind == "Accepted";
            let partly = elsewhere || message.contains("not everywhere");
            if condition["status"] == good && !partly {
                continue;
            }
            is_empty = false;
            table.row(vec![
                text(&route["name"]),
                format!("{kind}={}", text(&condition["status"])),
                text(&condition["reason"]),
                message,
            ]);
        }
    }
    if is_empty {
        String::new()
    } else {
        table.draw()
    }
}

fn draw_trace(answer: &Value) -> String {
    let requests = items(&answer["requests"]);
    let trace_id = text(&answer["trace_id"]);
    if requests.is_empty() {
        return format!(
            "no request of trace {trace_id} is remembered: a proxy keeps the last 512 of each worker\n"
        );
    }
    let mut table = Table::new(&[
        "AT", "REQUEST", "ROUTE", "BACKEND", "ENDPOINT", "STATUS", "FAULT", "TOOK", "ATTEMPTS",
    ]);
    for done in requests {
        let route = match &done["route"] {
            Value::Null => String::new(),
            name => format!("{} rule {}", text(name), text(&done["rule"])),
        };
        table.row(vec![
            text(&done["at"]),
            format!(
                "{} {}{}",
                text(&done["method"]),
                text(&done["authority"]),
                text(&done["path"])
            ),
            route,
            text(&done["cluster"]),
            text(&done["address"]),
            text(&done["status"]),
            text(&done["fault"]),
            format!("{} ms", text(&done["duration_ms"])),
            text(&done["attempts"]),
        ]);
    }
    format!("trace {trace_id}\n{}", table.draw())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn urls_and_headers() {
        let url = |url: &str| absolute(url).ok();
        assert_eq!(url("orders/a").as_deref(), Some("http://orders/a"));
        assert_eq!(url("https://orders").as_deref(), Some("https://orders"));
        assert_eq!(url("/a"), None);
        let split = header("X-A: b: c").unwrap();
        assert_eq!(split, ("X-A".to_owned(), "b: c".to_owned()));
        assert!(header("x").is_err());
    }

    #[test]
    fn an_answer_for_a_person() {
        let answer = json!({
            "destination": {"kind": "service", "name": "shop/orders:80"},
            "route": {"name": "HTTPRoute/shop/orders", "rule": 1, "rule_name": "reads", "match": 0},
            "candidates": [
                {"route": "HTTPRoute/shop/orders", "rule": 0, "rule_name": null, "match": 0,
                 "hostname": "", "verdict": "does not match", "because": ["path /a is not /b"]},
                {"route": "HTTPRoute/shop/orders", "rule": 1, "rule_name": "reads", "match": 0,
                 "hostname": "", "verdict": "matches", "because": []},
            ],
            "filters": ["path becomes /x"],
            "timeouts": {"request": "10s", "backend_request": null},
            "backends": [
                {"cluster": "shop/v1:80", "weight": 9, "share": "90.0 %", "filters": ["mirrored"],
                 "endpoints": [{"address": "10.0.0.1:80", "sidecar": "spiffe://a", "state": "usable", "requests": 2},
                               {"address": "10.0.0.2:80", "sidecar": null, "state": "ejected", "requests": 0}]},
                {"cluster": "shop/v2:80", "weight": 1, "share": "10.0 %", "invalid": "BackendNotFound",
                 "filters": [], "endpoints": []},
            ],
            "outcome": {"kind": "forward"},
            "routes": [{"name": "HTTPRoute/shop/lost", "parents": [{"parentRef": {"namespace": "shop"}, "conditions": [
                {"type": "Accepted", "status": "False", "reason": "NoMatchingParent", "message": "no port"},
                {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs", "message": "fine"},
            ]}]}, {"name": "HTTPRoute/bank/own", "parents": [{"parentRef": {"namespace": "shop"}, "conditions": [
                {"type": "Accepted", "status": "True", "reason": "Accepted", "message": "for others"},
                {"type": "ResolvedRefs", "status": "True", "reason": "ResolvedRefs", "message": "fine"},
            ]}]}],
        });
        let expect = "\
GET http://orders/a from shop/web
  HTTPRoute/shop/orders rule 1 (reads) -> shop/v1:80 90.0 %, shop/v2:80 10.0 %

Rules, in the order in which they are tried
ROUTE                   RULE        MATCH   HOST   VERDICT          BECAUSE
HTTPRoute/shop/orders   0           0       -      does not match   path /a is not /b
HTTPRoute/shop/orders   1 (reads)   0       -      matches          -

Backends
BACKEND      WEIGHT   ENDPOINT      IDENTITY     STATE             REQUESTS
shop/v1:80   9        10.0.0.1:80   spiffe://a   usable            2
-            -        10.0.0.2:80   no sidecar   ejected           0
shop/v2:80   1        -             -            BackendNotFound   -
shop/v1:80: mirrored

What the rule changes
path becomes /x

Time
whole request 10s

Routes of the service that take no effect, or not everywhere
ROUTE                 CONDITION        REASON             MESSAGE
HTTPRoute/shop/lost   Accepted=False   NoMatchingParent   no port
HTTPRoute/bank/own    Accepted=True    Accepted           for others
";
        assert_eq!(
            draw("GET http://orders/a from shop/web", "shop", &answer),
            expect
        );
    }

    #[test]
    fn outcomes() {
        let check = |answer: Value, expect: &str| assert_eq!(verdict(&answer), expect);
        check(
            json!({"destination": {"name": "shop/orders:80"}, "outcome":
                {"kind": "fault", "status": 404, "fault": "no_route"}}),
            "shop/orders:80 -> answered by the proxy with 404 no_route",
        );
        check(
            json!({"route": {"name": "HTTPRoute/a/b", "rule": 0}, "outcome":
                {"kind": "redirect", "status": 302, "location": "http://c"}}),
            "HTTPRoute/a/b rule 0 -> redirected to http://c with 302",
        );
        check(
            json!({"destination": {"name": "1.2.3.4:80"}, "outcome": {"kind": "forward"}}),
            "1.2.3.4:80 -> passed on",
        );
    }

    #[test]
    fn traces() {
        let trace = json!({"trace_id": "ab", "requests": []});
        assert!(draw_trace(&trace).contains("no request of trace ab is remembered"));
        let trace = json!({"trace_id": "ab", "requests": [{
            "at": "2026-11-23T09:00:00Z", "method": "GET", "authority": "orders", "path": "/a",
            "route": "HTTPRoute/shop/r", "rule": 2, "cluster": "shop/v1:80", "endpoint": "i:80",
            "address": "10.0.0.1:80", "status": 503, "fault": "no_endpoint", "duration_ms": 1.5,
            "attempts": 1,
        }]});
        let expect = "\
trace ab
AT                     REQUEST        ROUTE                     BACKEND      ENDPOINT      STATUS   FAULT         TOOK     ATTEMPTS
2026-11-23T09:00:00Z   GET orders/a   HTTPRoute/shop/r rule 2   shop/v1:80   10.0.0.1:80   503      no_endpoint   1.5 ms   1
";
        assert_eq!(draw_trace(&trace), expect);
    }
}
