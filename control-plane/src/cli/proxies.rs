//! `weft proxies`

use clap::Args;
use serde_json::{Value, json};
use weft_proto::v1alpha1::{ProxiesRequest, Proxy, RejectedResource};

use super::Outcome;
use super::client::{self, Target};
use super::output::{self, Format};
use super::table::{Table, age, now};

#[derive(Args)]
pub(super) struct Arguments {
    /// How to print it
    #[arg(short, long, env = "WEFT_OUTPUT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let mut client = client::connect(&arguments.target).await?;
    let answer = client.proxies(ProxiesRequest {}).await;
    let proxies = answer.map_err(client::refused)?.into_inner().proxies;
    match arguments.output {
        Format::Table => output::print(&draw(&proxies, now())),
        format => {
            let values: Value = proxies.iter().map(encode).collect();
            output::print_value(&values, format)
        }
    }
}

/// A row a proxy, and under the table why what was rejected was rejected.
fn draw(proxies: &[Proxy], now: i64) -> String {
    let mut table = Table::new(&[
        "NAME",
        "IDENTITY",
        "ADDRESS",
        "VERSION",
        "SYNCED",
        "PENDING",
        "REJECTED",
        "CERTIFICATE",
        "AGE",
    ]);
    let mut reasons = String::new();
    for proxy in proxies {
        table.row(vec![
            proxy.name.clone(),
            proxy.spiffe_id.clone(),
            proxy.address.clone(),
            proxy.version.clone(),
            proxy.synced.to_string(),
            proxy.pending.to_string(),
            proxy.rejected.len().to_string(),
            format!(
                "{} left",
                age(proxy.certificate_not_after_unix_seconds - now)
            ),
            age(now - proxy.connected_since_unix_seconds),
        ]);
        for rejected in &proxy.rejected {
            let RejectedResource {
                resource,
                version,
                field,
                reason,
            } = rejected;
            let name = &proxy.name;
            reasons.push_str(&format!(
                "{name} rejected {resource} ({version}): {field}: {reason}\n"
            ));
        }
    }
    let space = if reasons.is_empty() { "" } else { "\n" };
    table.draw() + space + &reasons
}

fn encode(proxy: &Proxy) -> Value {
    let rejected: Vec<Value> = proxy
        .rejected
        .iter()
        .map(|rejected| {
            json!({
                "resource": rejected.resource,
                "version": rejected.version,
                "field": rejected.field,
                "reason": rejected.reason,
            })
        })
        .collect();
    json!({
        "name": proxy.name,
        "spiffeId": proxy.spiffe_id,
        "address": proxy.address,
        "version": proxy.version,
        "instance": proxy.instance,
        "labels": proxy.labels,
        "portsUp": proxy.ports_up,
        "connectedSince": timestamp(proxy.connected_since_unix_seconds),
        "certificateNotAfter": timestamp(proxy.certificate_not_after_unix_seconds),
        "synced": proxy.synced,
        "pending": proxy.pending,
        "rejected": rejected,
    })
}

fn timestamp(seconds: i64) -> Value {
    let since = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let time = std::time::UNIX_EPOCH + since;
    humantime::format_rfc3339_seconds(time).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_why_a_resource_was_rejected() {
        let proxy = Proxy {
            name: "shop/web".to_owned(),
            spiffe_id: "spiffe://weft.local/ns/shop/sa/web".to_owned(),
            synced: 3,
            connected_since_unix_seconds: 940,
            certificate_not_after_unix_seconds: 4600,
            rejected: vec![RejectedResource {
                resource: "ROUTE shop/orders:80".to_owned(),
                version: "ab12".to_owned(),
                field: "rules[0].path_regex".to_owned(),
                reason: "too big".to_owned(),
            }],
            ..Proxy::default()
        };
        let text = draw(std::slice::from_ref(&proxy), 1000);
        assert!(text.contains("1h0m left"), "{text}");
        assert!(
            text.ends_with(
                "\nshop/web rejected ROUTE shop/orders:80 (ab12): rules[0].path_regex: too big\n"
            ),
            "{text}"
        );
        assert_eq!(encode(&proxy)["connectedSince"], "1970-01-01T00:15:40Z");
    }
}
