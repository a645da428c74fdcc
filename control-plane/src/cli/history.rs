//! `weft history`

use clap::Args;
use serde_json::json;

use super::Outcome;
use super::client::{Client, Revision};
use super::connect::Target;
use super::output::{self, Format};
use super::table::{Table, age, now};

/// Changes of a revision that the table shows.
const SHOWN_MAX: usize = 3;

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
    let revisions = client.history().await?;
    match arguments.output {
        Format::Table if revisions.is_empty() => {
            output::complain("nothing was changed yet");
            Ok(())
        }
        Format::Table => output::print(&draw(&revisions, now())),
        format => output::print_value(&json!({ "revisions": revisions }), format),
    }
}

fn draw(revisions: &[Revision], now: i64) -> String {
    let mut table = Table::new(&["REVISION", "AGE", "CAUSE", "CHANGES"]);
    for revision in revisions {
        let changes = revision.changes.iter().take(SHOWN_MAX);
        let mut changes: Vec<String> = changes
            .map(|change| {
                let (kind, namespace, name) = (&change.kind, &change.namespace, &change.name);
                format!("{kind}/{namespace}/{name} {}", change.action)
            })
            .collect();
        if revision.changes.len() > SHOWN_MAX {
            changes.push(format!("and {} more", revision.changes.len() - SHOWN_MAX));
        }
        table.row(vec![
            revision.revision.to_string(),
            age(now - revision.at),
            revision.cause.clone(),
            changes.join(", "),
        ]);
    }
    table.draw()
}

#[cfg(test)]
mod tests {
    use super::super::client::Change;
    use super::*;

    #[test]
    fn a_table_of_revisions() {
        let change = |name: &str| Change {
            kind: "HTTPRoute".to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            action: "created".to_owned(),
        };
        let revision = |revision, cause: &str, names: &[&str]| Revision {
            revision,
            at: 1000,
            cause: cause.to_owned(),
            changes: names.iter().map(|name| change(name)).collect(),
        };
        let seen = draw(
            &[
                revision(12, "rollback to 3", &["a", "b", "c", "d", "e"]),
                revision(4, "apply", &["a"]),
            ],
            1065,
        );
        assert_eq!(
            seen,
            "\
REVISION   AGE    CAUSE           CHANGES
12         1m5s   rollback to 3   HTTPRoute/shop/a created, HTTPRoute/shop/b created, HTTPRoute/shop/c created, and 2 more
4          1m5s   apply           HTTPRoute/shop/a created
"
        );
    }
}
