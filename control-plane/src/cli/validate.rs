//! `weft validate`: what `weft apply` would refuse, found without a control plane by the same code.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Outcome, files, output};
use crate::resource::{check_references, parse};

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
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let sources = files::read(&arguments.file)?;
    let mut parsed = parse(&sources, &arguments.namespace);
    parsed
        .problems
        .extend(check_references(&parsed.resources, |_| None));
    for notice in &parsed.skipped {
        output::complain(&format!("notice: {notice}"));
    }
    for problem in &parsed.problems {
        output::complain(&format!("error: {problem}"));
    }
    if !parsed.problems.is_empty() {
        return Err(Failure::Told);
    }
    let valid = |(_, resource): &(_, crate::resource::Resource)| {
        let key = resource.key();
        format!("{} {}/{} valid\n", key.kind, key.namespace, key.name)
    };
    output::print(&parsed.resources.iter().map(valid).collect::<String>())
}
