//! The applications and the load of weft's scenario tests: one program, so that a test needs
//! nothing but itself and the two programs under test.

mod call;
mod load;
mod pace;
mod pattern;
mod relay;
mod report;
mod serve;
mod serve_admin;
mod tcp;
mod tcp_load;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Applications and load for weft's scenario tests.
#[derive(Parser)]
#[command(name = "weft-testkit", version)]
struct Arguments {
    #[command(subcommand)]
    mode: Mode,
}

#[derive(Subcommand)]
enum Mode {
    /// An HTTP/1 and h2c application that answers with what it saw.
    Serve(serve::Options),
    /// HTTP load at a rate or as fast as answers come, with a JSON report.
    Load(Box<load::Options>),
    /// A TCP application: echo, sink or source.
    Tcp(tcp::Options),
    /// TCP load: bytes, short connections, or idle ones, with a JSON report.
    TcpLoad(tcp_load::Options),
    /// A bare byte relay, to compare proxies with.
    Relay(relay::Options),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let outcome = match Arguments::parse().mode {
        Mode::Serve(options) => serve::run(options).await,
        Mode::Load(options) => load::run(*options).await,
        Mode::Tcp(options) => tcp::run(options).await,
        Mode::TcpLoad(options) => tcp_load::run(options).await,
        Mode::Relay(options) => relay::run(options).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-testkit: {error}");
            ExitCode::FAILURE
        }
    }
}
