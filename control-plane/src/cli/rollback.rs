//! `weft rollback`

use std::time::Duration;

use clap::Args;

use super::client::Client;
use super::connect::Target;
use super::{Outcome, apply, files};

#[derive(Args)]
pub(super) struct Arguments {
    /// The revision, as `weft history` lists it, after which everything is to be as it was
    revision: u64,
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
    let mut client = Client::connect(&arguments.target).await?;
    let dry_run = arguments.dry_run;
    let applied = client.rollback(arguments.revision, dry_run).await?;
    files::print_changes(&applied, dry_run)?;
    match arguments.wait {
        Some(timeout) if !dry_run => apply::wait(&mut client, applied.revision, timeout).await,
        _ => Ok(()),
    }
}
