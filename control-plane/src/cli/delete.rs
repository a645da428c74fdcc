//! `weft delete`

use std::path::PathBuf;

use clap::Args;

use super::client::Client;
use super::connect::Target;
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
    let Arguments {
        kind,
        name,
        file,
        namespace,
        dry_run,
        target,
    } = arguments;
    let sources = files::read(&file)?;
    let mut client = Client::connect(&target).await?;
    let Some((kind, name)) = kind.zip(name) else {
        let deleted = client.delete_sources(sources, namespace, dry_run).await?;
        files::tell(&deleted)?;
        return files::print_changes(&deleted, dry_run);
    };
    let missing = format!("there is no {kind} {namespace}/{name}");
    let deleted = client.delete(kind, namespace, name, dry_run).await?;
    files::tell(&deleted)?;
    if !deleted
        .changes
        .iter()
        .any(|change| change.action == "deleted")
    {
        return Err(Failure::Failed(missing));
    }
    files::print_changes(&deleted, dry_run)
}
