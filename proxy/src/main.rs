//! weft's sidecar: parses arguments and hands over to the room that does the work.

use std::ffi::OsString;
use std::fmt::Display;
use std::process::ExitCode;

use clap::builder::{BoolishValueParser, Resettable};
use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use weft_proxy::telemetry::log;
use weft_proxy::{app, bootstrap, interception};

/// The exit status for what was asked for and failed.
const FAILED: u8 = 1;
/// The exit status for wrong usage; clap's own too.
const WRONG_USAGE: u8 = 2;

/// weft's sidecar proxy
#[derive(Parser)]
#[command(name = "weft-proxy", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the sidecar (what happens without a command too)
    Run(Box<Run>),
    /// Redirect this network namespace's TCP through the proxy with nftables
    Init(interception::Options),
    /// Remove what init made
    Cleanup(interception::CleanupOptions),
    /// Print the version
    Version,
    /// Print completions for a shell
    Completions {
        /// Shell to print them for
        shell: clap_complete::Shell,
    },
}

#[derive(Args)]
struct Run {
    #[command(flatten)]
    options: bootstrap::Options,
}

fn main() -> ExitCode {
    let arguments = with_default_command(std::env::args_os().collect());
    let matches = lenient(Arguments::command()).get_matches_from(arguments);
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    match arguments.command {
        Command::Run(run) => self::run(run.options),
        Command::Init(options) => report(interception::init(&options)),
        Command::Cleanup(options) => report(interception::cleanup(&options)),
        Command::Version => {
            println!("weft-proxy {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "weft-proxy", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
    }
}

/// `run` may be left out, as in `weft-proxy --control-plane HOST:4180`.
fn with_default_command(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let general = ["-h", "--help", "-V", "--version"];
    let run = match arguments.get(1).and_then(|first| first.to_str()) {
        None => arguments.len() < 2,
        Some(first) => first.starts_with('-') && !general.contains(&first),
    };
    if run {
        let at = arguments.len().min(1);
        arguments.insert(at, "run".into());
    }
    arguments
}

/// Takes variables as environment files have them: one that is set to nothing is as good as not set, and a flag's may
/// say 1 or yes.
fn lenient(command: clap::Command) -> clap::Command {
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

fn run(options: bootstrap::Options) -> ExitCode {
    let settings = match options.validate() {
        Ok(settings) => settings,
        Err(problem) => return fail(WRONG_USAGE, &problem),
    };
    if let Err(reason) = log::start(&settings.log) {
        let filter = &settings.log;
        let problem = format!(
            "--log (WEFT_LOG): `{filter}` is no log filter: {reason}; write for example info,weft_proxy::discovery=debug"
        );
        return fail(WRONG_USAGE, &problem);
    }
    report(app::run(settings))
}

fn report<E: Display>(outcome: Result<(), E>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(FAILED, &error),
    }
}

fn fail(status: u8, error: &dyn Display) -> ExitCode {
    eprintln!("weft-proxy: {error}");
    ExitCode::from(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_an_environment_variable_and_a_default() {
        fn walk(command: &clap::Command) {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                let Some(long) = argument
                    .get_long()
                    .filter(|_| !["help", "version"].contains(&id))
                else {
                    continue;
                };
                let place = format!("{} {id}", command.get_name());
                let wanted = format!("WEFT_{}", long.to_uppercase().replace('-', "_"));
                let env = argument
                    .get_env()
                    .map(|env| env.to_string_lossy().into_owned());
                assert_eq!(env, Some(wanted), "{place}");
                let help = argument.get_help().map(ToString::to_string);
                let help = help.unwrap_or_else(|| panic!("{place}: no help"));
                let shown = !argument.get_default_values().is_empty();
                let told = shown || argument.is_required_set() || help.contains(['[']);
                assert!(told, "{place}: {help} tells no default");
            }
            command.get_subcommands().for_each(walk);
        }
        let mut command = Arguments::command();
        command.build();
        walk(&command);
        command.debug_assert();
    }
}
