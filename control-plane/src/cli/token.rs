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
    #[arg(long, env = "WEFT_TTL", value_name = "DURATION", default_value = "1h", value_parser = ttl)]
    ttl: Duration,
    /// How often it may be used, 0 for any number
    #[arg(long, env = "WEFT_USES", value_name = "N", default_value_t = 0)]
    uses: u32,
    #[command(flatten)]
    target: Target,
}

/// Tokens count whole seconds; a part of one is a second more.
fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let begun = u64::from(ttl.subsec_nanos() > 0);
    match ttl.as_secs().saturating_add(begun) {
        0 => Err("a token that lives for no time is of no use; write for example 10m".to_owned()),
        seconds => Ok(Duration::from_secs(seconds)),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        let check = |text: &str, seconds: Option<u64>| {
            assert_eq!(ttl(text).ok(), seconds.map(Duration::from_secs), "{text}");
        };
        check("1h", Some(3600));
        check("1s", Some(1));
        check("900ms", Some(1));
        check("1s 1ns", Some(2));
        check("0s", None);
        check("soon", None);
        check("", None);
    }
}
