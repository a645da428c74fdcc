//! weft's control plane and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    weft::cli::run()
}
