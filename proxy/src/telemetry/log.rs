//! The proxy's own log, on standard error. There is one a process, as `tracing` has it, so its
//! filter is reached from anywhere.

use std::io::{self, IsTerminal};
use std::sync::OnceLock;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, registry, reload};

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts the log with a filter such as `info,weft_proxy::discovery=debug`; the error says why the
/// filter can't be read.
pub fn start(filter: &str) -> Result<(), String> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    registry()
        .with(filter)
        .with(lines)
        .try_init()
        .map_err(|error| error.to_string())?;
    // A second start has failed above already.
    let _ = FILTER.set(handle);
    Ok(())
}

/// Changes the filter from now on.
pub fn set_filter(filter: &str) -> Result<(), String> {
    let filter = parse(filter)?;
    let handle = FILTER.get().ok_or("the log was never started")?;
    handle.reload(filter).map_err(|error| error.to_string())
}

fn parse(filter: &str) -> Result<EnvFilter, String> {
    if filter.trim().is_empty() {
        return Err("it is empty".to_owned());
    }
    EnvFilter::builder()
        .parse(filter)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let check = |filter: &str, expect: bool| {
            assert_eq!(parse(filter).is_ok(), expect, "{filter}");
        };
        check("info", true);
        check("info,weft_proxy::discovery=debug", true);
        check("", false);
        check("weft_proxy=loud", false);
        check("a=b=c", false);
    }
}
