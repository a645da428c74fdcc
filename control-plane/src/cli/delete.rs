//! `weft delete`

use std::path::PathBuf;

use clap::Args;
use weft_proto::v1alpha1::delete_request::What;
use weft_proto::v1alpha1::{DeleteRequest, ObjectName, Sources};

use super::client::{self, Target};
use super::{Failure, Outcome, files};

#[derive(Args)]
pub(super) struct Arguments {
    /// Kind of the object, such as service or httproute
    #[arg(
        required_unless_present = "file",
        conflicts_with = "file",
        requires = "name"
    )]
    kind: Option<String>,
    /// Its name
    name: Option<String>,
    /// Remove every object of these files instead; - for standard input
    #[arg(short, long, env = "WEFT_FILE", value_name = "FILE|DIR|-")]
    file: Vec<PathBuf>,
    /// Namespace of the object, and of documents that name none
    #[arg(
        short,
        long,
        env = "WEFT_NAMESPACE",
        value_name = "NS",
        default_value = "default"
    )]
    namespace: String,
    /// Say what would be removed, and remove nothing [default: off]
    #[arg(long, env = "WEFT_DRY_RUN")]
    dry_run: bool,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let named = arguments.kind.zip(arguments.name);
    let what = match &named {
        Some((kind, name)) => What::Object(ObjectName {
            kind: kind.clone(),
            namespace: arguments.namespace.clone(),
            name: name.clone(),
        }),
        None => What::Sources(Sources {
            sources: files::encode(files::read(&arguments.file)?),
        }),
    };
    let request = DeleteRequest {
        what: Some(what),
        dry_run: arguments.dry_run,
        namespace: arguments.namespace.clone(),
    };
    let mut client = client::connect(&arguments.target).await?;
    let answer = client.delete(request).await.map_err(client::refused)?;
    let answer = answer.into_inner();
    files::tell(&answer)?;
    if let Some((kind, name)) = named
        && !answer
            .changes
            .iter()
            .any(|change| change.action == "deleted")
    {
        let namespace = arguments.namespace;
        return Err(Failure::Failed(format!(
            "there is no {kind} {namespace}/{name}"
        )));
    }
    files::print_changes(&answer, arguments.dry_run)
}
