//! `weft validate`: what `weft apply` would refuse, found without a control plane by the same code.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, Outcome, files, output};
use crate::resource::{Resource, Source, check_references, parse};

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
    let valid = |resource: &Resource| {
        let key = resource.key();
        format!("{} {}/{} valid\n", key.kind, key.namespace, key.name)
    };
    let resources = parsed(&sources, &arguments.namespace)?;
    output::print(&resources.iter().map(valid).collect::<String>())
}

/// The resources of these sources; a failure, told on stderr, when anything is wrong with them.
pub(super) fn parsed(sources: &[Source], namespace: &str) -> Outcome<Vec<Resource>> {
    let mut parsed = parse(sources, namespace);
    let references = check_references(&parsed.resources, |_| None);
    parsed.problems.extend(references);
    for notice in &parsed.skipped {
        output::complain(&format!("notice: {notice}"));
    }
    for problem in &parsed.problems {
        output::complain(&format!("error: {problem}"));
    }
    if !parsed.problems.is_empty() {
        return Err(Failure::Told);
    }
    let resources = parsed.resources.into_iter();
    Ok(resources.map(|(_, resource)| resource).collect())
}
