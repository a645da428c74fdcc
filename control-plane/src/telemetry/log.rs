//! The log, on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts the log. `WEFT_LOG` filters it in `tracing`'s syntax; without it, what operators need to
/// know is logged. A second start, as in tests, changes nothing.
pub fn start_log() {
    let filter = EnvFilter::try_from_env("WEFT_LOG");
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("warn,weft=info"));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
}
