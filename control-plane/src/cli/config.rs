//! `weft config`

use clap::{Args, ValueEnum};

use super::Outcome;
use super::client::Client;
use super::connect::Target;
use super::output::{self, Format};

#[derive(Args)]
pub(super) struct Arguments {
    /// The proxy, as `weft proxies` names it: NAMESPACE/WORKLOAD
    proxy: String,
    /// How to print it
    #[arg(short, long, env = "WEFT_OUTPUT", default_value = "json")]
    output: Document,
    #[command(flatten)]
    target: Target,
}

#[derive(Clone, Copy, ValueEnum)]
enum Document {
    Json,
    Yaml,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let mut client = Client::connect(&arguments.target).await?;
    let value = client.proxy_config(arguments.proxy).await?;
    let format = match arguments.output {
        Document::Json => Format::Json,
        Document::Yaml => Format::Yaml,
    };
    output::print_value(&value, format)
}
