//! `weft apply`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use weft_proto::v1alpha1::{ApplyRequest, ProxyLag, WaitRequest};

use super::client::{self, Client, Target};
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
    let request = ApplyRequest {
        sources: files::encode(files::read(&arguments.file)?),
        dry_run: arguments.dry_run,
        namespace: arguments.namespace,
    };
    let mut client = client::connect(&arguments.target).await?;
    let applied = client.apply(request).await.map_err(client::refused)?;
    let applied = applied.into_inner();
    files::tell(&applied)?;
    files::print_changes(&applied, arguments.dry_run)?;
    match arguments.wait {
        Some(timeout) if !arguments.dry_run => wait(&mut client, applied.revision, timeout).await,
        _ => Ok(()),
    }
}

async fn wait(client: &mut Client, revision: u64, timeout: Duration) -> Outcome {
    let request = WaitRequest {
        revision,
        timeout_milliseconds: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    };
    let answer = client.wait(request).await.map_err(client::refused)?;
    let answer = answer.into_inner();
    let tell = |what: &str, lags: &[ProxyLag]| {
        for lag in lags {
            let ProxyLag {
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
    tell("rejected", &answer.rejected);
    tell("has not acknowledged", &answer.waiting);
    if answer.rejected.is_empty() && answer.waiting.is_empty() {
        let proxies = answer.acknowledged;
        return output::print(&format!("acknowledged by {proxies} proxies\n"));
    }
    let after = humantime::format_duration(timeout);
    if answer.waiting.is_empty() {
        return Err(Failure::Told);
    }
    Err(Failure::Failed(format!(
        "applied, but not in force everywhere after {after}: see `weft proxies`"
    )))
}
