//! `weft config`

use clap::{Args, ValueEnum};
use serde_json::Value;
use weft_proto::v1alpha1::ProxyConfigRequest;

use super::client::{self, Target};
use super::output::{self, Format};
use super::{Failure, Outcome};

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
    let mut client = client::connect(&arguments.target).await?;
    let request = ProxyConfigRequest {
        proxy: arguments.proxy,
    };
    let answer = client.proxy_config(request).await;
    let json = answer.map_err(client::refused)?.into_inner().json;
    let value: Value = serde_json::from_str(&json)
        .map_err(|error| Failure::failed(format!("the proxy's answer is no JSON: {error}")))?;
    let format = match arguments.output {
        Document::Json => Format::Json,
        Document::Yaml => Format::Yaml,
    };
    output::print_value(&value, format)
}
