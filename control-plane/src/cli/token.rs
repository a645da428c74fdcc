//! `weft token`

use std::time::Duration;

use clap::{Args, Subcommand};

use super::client::Client;
use super::connect::Target;
use super::{Outcome, output};

#[derive(Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a join token and print it, alone, on stdout
    Create(Create),
}

#[derive(Args)]
struct Create {
    /// Namespace of the identity that the token allows
    #[arg(short, long, env = "WEFT_NAMESPACE", value_name = "NS")]
    namespace: String,
    /// Service account of the identity that the token allows
    #[arg(long, env = "WEFT_SERVICE_ACCOUNT", value_name = "SA")]
    service_account: String,
    /// How long it may be used
    #[arg(long, env = "WEFT_TTL", value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// How often it may be used, 0 for any number
    #[arg(long, env = "WEFT_USES", value_name = "N", default_value_t = 0)]
    uses: u32,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let Verb::Create(create) = arguments.verb;
    let mut client = Client::connect(&create.target).await?;
    let Create {
        namespace,
        service_account,
        ttl,
        uses,
        ..
    } = create;
    let token = client
        .create_token(namespace, service_account, ttl, uses)
        .await?;
    output::print(&format!("{token}\n"))
}
