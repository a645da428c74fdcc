//! `weft diff`: what `weft apply` would change, line by line.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use similar::TextDiff;

use super::client::{Client, Query};
use super::connect::Target;
use super::{Outcome, files, output, validate};
use crate::resource::{Key, Resource};

/// Lines shown around a change.
const CONTEXT_LINES: usize = 3;

#[derive(Args)]
pub(super) struct Arguments {
    /// File or directory of YAML or JSON documents, - for standard input; may be given several times
    #[arg(
        short,
        long,
        env = "WEFT_FILE",
        value_name = "FILE|DIR|-",
        required = true
    )]
    file: Vec<PathBuf>,
    /// Namespace of documents that name none
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
    let sources = files::read(&arguments.file)?;
    let resources = validate::parsed(&sources, &arguments.namespace)?;
    let mut client = Client::connect(&arguments.target).await?;
    for resource in resources {
        let key = resource.key();
        let now = find(&mut client, &key).await?;
        output::print(&compare(&key, now.as_ref(), &resource)?)?;
    }
    Ok(())
}

/// The object as it is; none when there is none of that name.
async fn find(client: &mut Client, key: &Key) -> Outcome<Option<Value>> {
    let query = Query {
        kind: key.kind.as_str().to_owned(),
        name: String::new(),
        namespace: key.namespace.clone(),
        all_namespaces: false,
    };
    let objects = client.get(query).await?;
    let named = |object: &Value| object["metadata"]["name"] == key.name.as_str();
    Ok(objects.into_iter().find(named))
}

/// Empty when nothing would change.
fn compare(key: &Key, now: Option<&Value>, wanted: &Resource) -> Outcome<String> {
    let mut wanted = wanted.to_json();
    let before = match now {
        Some(now) => {
            let now = written(now, &wanted);
            output::yaml(&now)?
        }
        None => String::new(),
    };
    remove_server_fields(&mut wanted);
    let after = output::yaml(&wanted)?;
    let diff = TextDiff::from_lines(&before, &after);
    let (was, to_be) = (format!("{key} now"), format!("{key} applied"));
    Ok(diff
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(&was, &to_be)
        .to_string())
}

/// What of an object its document could have said. Virtual IPs that were allotted stay where the
/// new document names none, so they are no difference.
fn written(now: &Value, wanted: &Value) -> Value {
    let mut object = now.clone();
    remove_server_fields(&mut object);
    if let Some(spec) = object["spec"].as_object_mut()
        && wanted["spec"].get("clusterIPs").is_none()
    {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    object
}

fn remove_server_fields(object: &mut Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for name in ["uid", "generation", "resourceVersion", "creationTimestamp"] {
            metadata.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::from_stored;

    #[test]
    fn shows_what_an_apply_would_change() {
        let document = |port: u16| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: a, namespace: n}}\nspec: {{ports: [{{port: {port}}}]}}\n"
            )
        };
        let (Ok(old), Ok(new)) = (from_stored(&document(80)), from_stored(&document(81))) else {
            panic!("not taken");
        };
        let mut now = old.to_json();
        now["metadata"]["uid"] = "u".into();
        now["spec"]["clusterIPs"] = vec!["240.0.0.1"].into();
        now["status"] = "x".into();
        let key = old.key();
        let same = compare(&key, Some(&now), &old).unwrap_or_default();
        assert_eq!(same, "");
        let changed = compare(&key, Some(&now), &new).unwrap_or_default();
        assert!(
            changed.starts_with("--- Service/n/a now\n+++ Service/n/a applied\n"),
            "{changed}"
        );
        assert!(changed.contains("\n-  - port: 80\n"), "{changed}");
        assert!(changed.contains("\n+  - port: 81\n"), "{changed}");
        let created = compare(&key, None, &new).unwrap_or_default();
        assert!(created.contains("+kind: Service"), "{created}");
    }
}
