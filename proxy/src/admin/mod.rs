//! The admin HTTP server: health, metrics, configuration in force, drain and log level.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Bytes of a request's body; a longer one is answered with 413.
pub const BODY_BYTES_MAX: usize = 4 * 1024;
/// Requests answered at once; one more is answered with 503.
pub const REQUESTS_MAX: usize = 64;
/// How long a request may take, its body included; then it is answered with 408.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Takes a filter for the log, or says what is wrong with it.
pub type SetFilter = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What the routes ask of the rest of the proxy.
pub struct Hooks {
    /// Every reason why the proxy isn't ready.
    pub ready: Box<dyn Fn() -> Result<(), Vec<String>> + Send + Sync>,
    /// The metrics in Prometheus' text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// What is in force now, as JSON.
    pub configuration: Box<dyn Fn() -> String + Send + Sync>,
    /// Starts the drain.
    pub drain: Box<dyn Fn() + Send + Sync>,
    /// Changes the log's filter.
    pub log: SetFilter,
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, hooks: Hooks) -> io::Result<()> {
    axum::serve(listener, router(hooks)).await
}

fn router(hooks: Hooks) -> Router {
    let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
    Router::new()
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/config", get(configuration))
        .route("/drain", post(drain))
        .route("/log", put(log))
        .fallback(|| async {
            let routes =
                "no such path; there are /live /ready /metrics /config, POST /drain and PUT /log\n";
            (StatusCode::NOT_FOUND, routes)
        })
        .method_not_allowed_fallback(|| async {
            let text = "wrong method: /drain takes POST, /log takes PUT, all else GET\n";
            (StatusCode::METHOD_NOT_ALLOWED, text)
        })
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(move |request: Request, next: Next| {
            limit(permits.clone(), next.run(request))
        }))
        .with_state(Arc::new(hooks))
}

async fn limit(permits: Arc<Semaphore>, answer: impl Future<Output = Response>) -> Response {
    let Ok(_permit) = permits.try_acquire() else {
        let text = "too many admin requests at once; try again\n";
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    };
    match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(response) => response,
        Err(_) => (StatusCode::REQUEST_TIMEOUT, "the request took too long\n").into_response(),
    }
}

async fn ready(State(hooks): State<Arc<Hooks>>) -> Response {
    match (hooks.ready)() {
        Ok(()) => "ready\n".into_response(),
        Err(reasons) => {
            let text = format!("not ready: {}\n", reasons.join("; "));
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

async fn metrics(State(hooks): State<Arc<Hooks>>) -> Response {
    let form = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, form)], (hooks.metrics)()).into_response()
}

async fn configuration(State(hooks): State<Arc<Hooks>>) -> Response {
    let json = "application/json";
    ([(header::CONTENT_TYPE, json)], (hooks.configuration)()).into_response()
}

async fn drain(State(hooks): State<Arc<Hooks>>) -> Response {
    (hooks.drain)();
    (StatusCode::ACCEPTED, "draining\n").into_response()
}

async fn log(State(hooks): State<Arc<Hooks>>, filter: String) -> Response {
    match (hooks.log)(filter.trim()) {
        Ok(()) => "log filter changed\n".into_response(),
        Err(reason) => {
            let text = format!(
                "`{}` is no log filter: {reason}; write for example info,weft_proxy::discovery=debug\n",
                filter.trim()
            );
            (StatusCode::BAD_REQUEST, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
