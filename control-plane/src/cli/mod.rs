//! The command line: one file a verb. What a verb prints goes to stdout; what went wrong goes to
//! stderr with what, where, why and what to do. Exit status: 0 done, 1 failed, 2 wrong usage.

mod apply;
mod check;
mod client;
mod completions;
mod config;
mod connect;
mod delete;
mod demo;
mod demo_service;
mod describe;
mod diff;
mod explain;
mod files;
mod get;
mod history;
mod output;
mod proxies;
mod rollback;
mod serve;
mod table;
mod token;
mod validate;

use std::fmt::Display;
use std::process::ExitCode;

use clap::builder::{BoolishValueParser, Resettable};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches, Parser, Subcommand};

pub use serve::Options;

/// Names of environment variables are the flags' with WEFT_ before them.
#[derive(Parser)]
#[command(
    name = "weft",
    version,
    about = "weft's control plane and its command line"
)]
#[command(
    disable_version_flag = false,
    propagate_version = true,
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the control plane
    Serve(serve::Arguments),
    /// Create or update every document of files, all or nothing
    Apply(apply::Arguments),
    /// List objects, or show one
    Get(get::Arguments),
    /// Show everything about an object
    Describe(describe::Arguments),
    /// Remove an object, or every object of files
    Delete(delete::Arguments),
    /// Check files without a control plane
    Validate(validate::Arguments),
    /// Show what an apply of files would change
    Diff(diff::Arguments),
    /// List the last changes, the newest first
    History(history::Arguments),
    /// Make everything what it was at a revision
    Rollback(rollback::Arguments),
    /// Ask a live proxy how it would treat a request, and why
    Explain(explain::Arguments),
    /// List the connected proxies and how far each is in sync
    Proxies(proxies::Arguments),
    /// Show what a proxy has in force
    Config(config::Arguments),
    /// Make join tokens
    Token(token::Arguments),
    /// Tell whether everything is healthy
    Check(check::Arguments),
    /// Show the whole mesh on this machine, without root
    Demo(demo::Arguments),
    /// Run an application of the demo's shop
    #[command(hide = true)]
    DemoService(demo_service::Arguments),
    /// Print a shell's completions
    Completions(completions::Arguments),
    /// Print the version
    Version,
}

/// Why a verb did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Exit status 1, with this on stderr.
    Failed(String),
    /// Exit status 1; everything was already said.
    Told,
    /// Exit status 2, with this on stderr.
    Usage(String),
}

pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    fn failed(reason: impl Display) -> Self {
        Self::Failed(reason.to_string())
    }
}

/// Parses the arguments of this process and does what they ask. `serve` runs a control plane.
pub fn run<F, E>(serve: impl FnOnce(Options) -> F) -> ExitCode
where
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    let matches = lenient(Arguments::command()).get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match arguments.verb.run(serve) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Told) => ExitCode::from(1),
        Err(Failure::Failed(reason)) => {
            output::complain(&format!("error: {reason}"));
            ExitCode::from(1)
        }
        Err(Failure::Usage(reason)) => {
            output::complain(&format!(
                "error: {reason}\n\nFor more information, try '--help'."
            ));
            ExitCode::from(2)
        }
    }
}

/// Takes variables as environment files have them: one that is set to nothing is as good as not set, and a flag's may
/// say 1 or yes.
fn lenient(command: Command) -> Command {
    let flags = |argument: Arg| match argument.get_action() {
        ArgAction::SetTrue => argument.value_parser(BoolishValueParser::new()),
        _ => argument,
    };
    let empty = |argument: Arg| match argument.get_env().and_then(std::env::var_os) {
        Some(value) if value.is_empty() => argument.env(Resettable::Reset),
        _ => argument,
    };
    command
        .mut_args(|argument| empty(flags(argument)))
        .mut_subcommands(lenient)
}

impl Verb {
    fn run<F, E>(self, serve: impl FnOnce(Options) -> F) -> Outcome
    where
        F: Future<Output = Result<(), E>>,
        E: Display,
    {
        match self {
            Self::Serve(arguments) => serve::run(arguments, serve),
            Self::Apply(arguments) => block_on(apply::run(arguments)),
            Self::Get(arguments) => block_on(get::run(arguments)),
            Self::Describe(arguments) => block_on(describe::run(arguments)),
            Self::Delete(arguments) => block_on(delete::run(arguments)),
            Self::Validate(arguments) => validate::run(&arguments),
            Self::Diff(arguments) => block_on(diff::run(arguments)),
            Self::History(arguments) => block_on(history::run(arguments)),
            Self::Rollback(arguments) => block_on(rollback::run(arguments)),
            Self::Explain(arguments) => block_on(explain::run(arguments)),
            Self::Proxies(arguments) => block_on(proxies::run(arguments)),
            Self::Config(arguments) => block_on(config::run(arguments)),
            Self::Token(arguments) => block_on(token::run(arguments)),
            Self::Check(arguments) => block_on(check::run(arguments)),
            Self::Demo(arguments) => block_on(demo::run(arguments)),
            Self::DemoService(arguments) => block_on(demo_service::run(arguments)),
            Self::Completions(arguments) => completions::run(&arguments),
            Self::Version => output::print(&format!("weft {}\n", env!("CARGO_PKG_VERSION"))),
        }
    }
}

/// Runs a client's verb on a runtime of its own.
fn block_on(verb: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("can't start the runtime: {error}")))?
        .block_on(verb)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_an_environment_variable_and_a_line_of_help() {
        fn walk(command: &Command) {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                if id == "help" || id == "version" {
                    continue;
                }
                let place = format!("{} {id}", command.get_name());
                assert!(argument.get_help().is_some(), "{place}: no help");
                if let Some(long) = argument.get_long() {
                    let wanted = format!("WEFT_{}", long.to_uppercase().replace('-', "_"));
                    let env = argument
                        .get_env()
                        .map(|env| env.to_string_lossy().into_owned());
                    assert_eq!(env, Some(wanted), "{place}");
                }
            }
            command.get_subcommands().for_each(walk);
        }
        let mut command = Arguments::command();
        command.build();
        walk(&command);
        command.debug_assert();
    }
}
