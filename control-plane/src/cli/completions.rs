//! `weft completions`

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Outcome, output};

#[derive(Args)]
pub(super) struct Arguments {
    /// The shell
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> Outcome {
    let mut script = Vec::new();
    let mut command = super::Arguments::command();
    clap_complete::generate(arguments.shell, &mut command, "weft", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}
