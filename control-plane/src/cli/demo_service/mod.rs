//! `weft demo-service`: the applications of the demo's shop. They know nothing of the mesh but the
//! address of an HTTP proxy, as any application in explicit mode does.

mod front;
mod orders;
mod pricing;

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::HeaderMap;
use clap::{Args, ValueEnum};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, Outcome};

/// Generated from `proto/pricing.proto`.
#[allow(missing_docs, clippy::all, unused_qualifications)]
mod shop {
    tonic::include_proto!("weft.demo.v1");
}

/// A call of one service to the next that has no answer by then has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// What an application passes on, so that a request stays one trace (W3C Trace Context).
const TRACE_HEADERS: [&str; 2] = ["traceparent", "tracestate"];

#[derive(Args)]
pub(super) struct Arguments {
    /// Which application
    role: Role,
    /// Name of this instance, told in its answers
    #[arg(
        long,
        env = "WEFT_INSTANCE",
        value_name = "NAME",
        default_value = "demo"
    )]
    instance: String,
    /// Address to serve on
    #[arg(
        long,
        env = "WEFT_LISTEN",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:8080"
    )]
    listen: SocketAddr,
    /// Outbound address of its sidecar, through which it calls others
    #[arg(
        long,
        env = "WEFT_SIDECAR",
        value_name = "IP:PORT",
        default_value = "127.0.0.1:4140"
    )]
    sidecar: SocketAddr,
}

#[derive(Clone, Copy, ValueEnum)]
enum Role {
    /// The shop's page: HTTP, calls orders
    Web,
    /// The orders: HTTP, calls pricing
    Orders,
    /// The prices: gRPC
    Pricing,
}

pub(super) async fn run(arguments: Arguments) -> Outcome {
    let Arguments {
        role,
        instance,
        listen,
        sidecar,
    } = arguments;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| Failure::failed(format!("can't listen on {listen}: {error}")))?;
    let mut stop = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    let stopped = async move {
        stop.recv().await;
    };
    match role {
        Role::Web => axum::serve(listener, front::router(sidecar))
            .with_graceful_shutdown(stopped)
            .await
            .map_err(Failure::failed),
        Role::Orders => axum::serve(listener, orders::router(instance, sidecar)?)
            .with_graceful_shutdown(stopped)
            .await
            .map_err(Failure::failed),
        Role::Pricing => pricing::serve(listener, instance, stopped).await,
    }
}

/// An HTTP/1 client that keeps its connections.
fn http_client() -> Client<HttpConnector, axum::body::Body> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

/// The trace context of a request, for the calls made on its behalf.
fn trace_context(headers: &HeaderMap) -> impl Iterator<Item = (&'static str, &str)> {
    TRACE_HEADERS
        .into_iter()
        .filter_map(|name| Some((name, headers.get(name)?.to_str().ok()?)))
}
