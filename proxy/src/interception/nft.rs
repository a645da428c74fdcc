//! Loads rules with the `nft` program.

use std::io::{self, Write};
use std::process::{Command, Stdio};

use super::SKIPPED_MAX;

/// Why the rules were not changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{flag} has {count} values, and {SKIPPED_MAX} are the most; give networks or fewer ports"
    )]
    TooMany { flag: &'static str, count: usize },
    #[error(
        "the program `nft` is not installed, so no rule was changed; install the package nftables, or load the output of --dry-run elsewhere"
    )]
    Missing,
    #[error(
        "nft may not change the rules of this network namespace ({reason}); run as root or with the capability NET_ADMIN"
    )]
    NotPermitted { reason: String },
    #[error(
        "nft refused the rules, and nothing was changed: {reason}; weft needs a kernel of 5.2 or later with nf_tables, nft_nat, nft_redir and nft_fib_inet"
    )]
    Refused { reason: String },
    #[error("nft can't be run: {0}; no rule was changed")]
    Run(#[from] io::Error),
}

/// Hands the rules to `program` with its arguments; nft takes all of them or none.
pub(super) fn load(program: &[&str], ruleset: &str) -> Result<(), Error> {
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Missing,
            _ => Error::Run(error),
        })?;
    // Dropped after the write, which tells nft that this is all. Where nft gave up before it read
    // everything, its own words below say more than the broken pipe.
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(ruleset.as_bytes());
    }
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let reason = words.lines().next().unwrap_or("it said nothing").to_owned();
    if words.contains("Operation not permitted") || words.contains("must be root") {
        return Err(Error::NotPermitted { reason });
    }
    Err(Error::Refused { reason })
}
