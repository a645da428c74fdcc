//! `weft describe`

use clap::Args;
use serde_json::Value;

use super::client::{Client, Query};
use super::connect::Target;
use super::{Outcome, output};

#[derive(Args)]
pub(super) struct Arguments {
    /// Kind of the object, as in `weft get`: service, httproute, backendtlspolicy, workload ...
    kind: String,
    /// Its name
    name: String,
    /// Namespace
    #[arg(
        short,
        long,
        env = "WEFT_NAMESPACE",
        value_name = "NS",
        default_value = "default"
    )]
    namespace: String,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let mut client = Client::connect(&arguments.target).await?;
    let query = Query {
        kind: arguments.kind,
        name: arguments.name,
        namespace: arguments.namespace,
        all_namespaces: false,
    };
    for object in client.get(query).await? {
        output::print(&describe(&object)?)?;
    }
    Ok(())
}

/// The metadata as a list of names and values, then every other part as YAML under its name, what
/// the control plane says of it last.
fn describe(object: &Value) -> Outcome<String> {
    let mut out = format!("{:<14}{}\n", "Kind:", plain(&object["kind"]));
    let named = [
        ("Namespace:", "namespace"),
        ("Name:", "name"),
        ("Created:", "creationTimestamp"),
        ("Generation:", "generation"),
        ("Revision:", "resourceVersion"),
    ];
    for (title, field) in named {
        let value = &object["metadata"][field];
        if !value.is_null() {
            out.push_str(&format!("{title:<14}{}\n", plain(value)));
        }
    }
    for (title, field) in [("Labels:", "labels"), ("Annotations:", "annotations")] {
        let pairs = object["metadata"][field].as_object().into_iter().flatten();
        for (index, (key, value)) in pairs.enumerate() {
            let title = if index == 0 { title } else { "" };
            out.push_str(&format!("{title:<14}{key}={}\n", plain(value)));
        }
    }
    let parts = object.as_object().into_iter().flatten();
    let parts =
        parts.filter(|(name, _)| !["apiVersion", "kind", "metadata"].contains(&name.as_str()));
    let (status, others): (Vec<_>, Vec<_>) = parts.partition(|(name, _)| *name == "status");
    for (name, value) in others.into_iter().chain(status) {
        let mut letters = name.chars();
        let title: String = letters
            .next()
            .into_iter()
            .flat_map(char::to_uppercase)
            .chain(letters)
            .collect();
        out.push_str(&format!("{title}:\n"));
        for line in output::yaml(value)?.lines() {
            out.push_str(&format!("  {line}\n"));
        }
    }
    Ok(out)
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn puts_the_status_last() {
        let object = json!({
            "kind": "HTTPRoute",
            "metadata": {"namespace": "shop", "name": "r", "labels": {"a": "b"}},
            "status": {"x": 1},
            "spec": {"rules": []},
        });
        let expected = "Kind:         HTTPRoute\nNamespace:    shop\nName:         r\n\
                        Labels:       a=b\nSpec:\n  rules: []\nStatus:\n  x: 1\n";
        assert_eq!(describe(&object).unwrap_or_default(), expected);
    }
}
