//! `weft apply`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::client::{Client, Lag};
use super::connect::Target;
use super::{Failure, Outcome, files, output};

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
    /// Say what would change, and change nothing [default: off]
    #[arg(long, env = "WEFT_DRY_RUN")]
    dry_run: bool,
    /// Return once every connected proxy concerned has acknowledged, or fail after DURATION [default: off; 30s without a value]
    #[arg(long, env = "WEFT_WAIT", value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "30s", value_parser = humantime::parse_duration)]
    wait: Option<Duration>,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let sources = files::read(&arguments.file)?;
    let mut client = Client::connect(&arguments.target).await?;
    let dry_run = arguments.dry_run;
    let applied = client.apply(sources, arguments.namespace, dry_run).await?;
    files::tell(&applied)?;
    files::print_changes(&applied, dry_run)?;
    match arguments.wait {
        Some(timeout) if !dry_run => wait(&mut client, applied.revision, timeout).await,
        _ => Ok(()),
    }
}

/// Returns once every proxy concerned has acknowledged a revision, or names those that haven't.
pub(super) async fn wait(client: &mut Client, revision: u64, timeout: Duration) -> Outcome {
    let waited = client.wait(revision, timeout).await?;
    let tell = |what: &str, lags: &[Lag]| {
        for lag in lags {
            let Lag {
                proxy,
                resource,
                reason,
            } = lag;
            let because = if reason.is_empty() {
                String::new()
            } else {
                format!(": {reason}")
            };
            output::complain(&format!("error: {proxy} {what} {resource}{because}"));
        }
    };
    tell("rejected", &waited.rejected);
    tell("has not acknowledged", &waited.waiting);
    if waited.rejected.is_empty() && waited.waiting.is_empty() {
        let proxies = waited.acknowledged;
        let noun = if proxies == 1 { "proxy" } else { "proxies" };
        return output::print(&format!("acknowledged by {proxies} {noun}\n"));
    }
    if waited.waiting.is_empty() {
        return Err(Failure::Told);
    }
    let after = humantime::format_duration(timeout);
    Err(Failure::Failed(format!(
        "applied, but not in force everywhere after {after}: see `weft proxies`"
    )))
}
