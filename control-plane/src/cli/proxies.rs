//! `weft proxies`

use clap::Args;
use serde_json::json;

use super::Outcome;
use super::client::{Client, Proxy, Rejected};
use super::connect::Target;
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
    let mut client = Client::connect(&arguments.target).await?;
    let proxies = client.proxies().await?;
    match arguments.output {
        Format::Table => output::print(&draw(&proxies, now())),
        format => output::print_value(&json!(proxies), format),
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
            format!("{} left", age(proxy.certificate_not_after - now)),
            age(now - proxy.connected_since),
        ]);
        for rejected in &proxy.rejected {
            let Rejected {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_why_a_resource_was_rejected() {
        let proxy = Proxy {
            name: "shop/web".to_owned(),
            spiffe_id: "spiffe://weft.local/ns/shop/sa/web".to_owned(),
            synced: 3,
            connected_since: 940,
            certificate_not_after: 4600,
            rejected: vec![Rejected {
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
        assert_eq!(json!(proxy)["connectedSince"], "1970-01-01T00:15:40Z");
    }
}
