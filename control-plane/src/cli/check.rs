//! `weft check`

use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Value, json};
use weft_proto::v1alpha1::{CheckRequest, Finding};

use super::client::{self, Target};
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
    let mut client = client::connect(&arguments.target).await?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let request = CheckRequest {
        now_unix_milliseconds: i64::try_from(now.as_millis()).unwrap_or_default(),
    };
    let answer = client.check(request).await.map_err(client::refused)?;
    let findings = answer.into_inner().findings;
    match arguments.output {
        Format::Table => output::print(&draw(&findings))?,
        format => output::print_value(&encode(&findings), format)?,
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
            subject,
            level,
            message,
        } = finding.clone();
        table.row(vec![level, subject, message]);
    }
    table.draw()
}

fn encode(findings: &[Finding]) -> Value {
    let one = |finding: &Finding| json!({"level": finding.level, "subject": finding.subject, "message": finding.message});
    findings.iter().map(one).collect()
}
