//! `weft check`

use clap::Args;
use serde_json::json;

use super::client::{Client, Finding};
use super::connect::Target;
use super::output::{self, Format};
use super::table::Table;
use super::{Failure, Outcome};

#[derive(Args)]
pub(super) struct Arguments {
    /// How to print it
    #[arg(short, long, env = "WEFT_OUTPUT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let mut client = Client::connect(&arguments.target).await?;
    let findings = client.check().await?;
    match arguments.output {
        Format::Table => output::print(&draw(&findings))?,
        format => output::print_value(&json!(findings), format)?,
    }
    if findings.iter().any(|finding| finding.level == "error") {
        return Err(Failure::Told);
    }
    Ok(())
}

fn draw(findings: &[Finding]) -> String {
    let mut table = Table::new(&["LEVEL", "SUBJECT", "MESSAGE"]);
    for finding in findings {
        let Finding {
            level,
            subject,
            message,
        } = finding;
        table.row(vec![level.clone(), subject.clone(), message.clone()]);
    }
    table.draw()
}
