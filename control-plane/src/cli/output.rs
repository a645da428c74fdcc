//! What goes to stdout and stderr.

use std::io::{self, ErrorKind, Write};

use clap::ValueEnum;
use serde_json::Value;

use super::{Failure, Outcome};

/// How a list or an object is printed. JSON and YAML are stable for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
    Yaml,
}

/// Writes to stdout. A reader that has gone away is none of our business.
pub(super) fn print(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("can't write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes a line to stderr; there is nowhere to say that this failed.
pub(super) fn complain(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Prints a value as JSON or YAML; a table is its verb's to draw.
pub(super) fn print_value(value: &Value, format: Format) -> Outcome {
    print(&match format {
        Format::Json => format!("{value:#}\n"),
        Format::Table | Format::Yaml => yaml(value)?,
    })
}

/// A value as YAML.
pub(super) fn yaml(value: &Value) -> Outcome<String> {
    let mut text = serde_saphyr::to_string(value)
        .map_err(|error| Failure::failed(format!("can't write YAML: {error}")))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}
