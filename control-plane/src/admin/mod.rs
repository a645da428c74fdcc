//! HTTP for probes and Prometheus: `/live`, `/ready`, `/metrics`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::watch;

use crate::telemetry::Metrics;

#[derive(Clone)]
struct Probes {
    metrics: Arc<Metrics>,
    stopping: watch::Receiver<bool>,
}

/// The routes. They are served from the moment on in which proxies are, so ready means: not
/// stopping.
pub fn router(metrics: Arc<Metrics>, stopping: watch::Receiver<bool>) -> Router {
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(render))
        .with_state(Probes { metrics, stopping })
}

async fn ready(State(probes): State<Probes>) -> impl IntoResponse {
    if *probes.stopping.borrow() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}

async fn render(State(probes): State<Probes>) -> impl IntoResponse {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    (
        [(header::CONTENT_TYPE, content_type)],
        probes.metrics.render(),
    )
}
