//! The shop's page. Calls orders by its name, in origin form to the sidecar.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use tokio::time::timeout;

use super::{CALL_TIMEOUT, http_client, trace_context};

/// Bytes of an answer of orders; a longer one is an error.
const ANSWER_BYTES_MAX: usize = 64 << 10;

#[derive(Clone)]
struct Front {
    client: Client<HttpConnector, Body>,
    sidecar: SocketAddr,
}

pub(super) fn router(sidecar: SocketAddr) -> Router {
    let client = http_client();
    let front = Front { client, sidecar };
    Router::new().route("/", get(page)).with_state(front)
}

async fn page(State(front): State<Front>, headers: HeaderMap) -> Response {
    match timeout(CALL_TIMEOUT, front.call_orders(&headers)).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => (StatusCode::BAD_GATEWAY, format!("orders: {error}")).into_response(),
        Err(_) => (StatusCode::GATEWAY_TIMEOUT, "orders: no answer in time").into_response(),
    }
}

impl Front {
    async fn call_orders(
        &self,
        headers: &HeaderMap,
    ) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
        let mut request =
            Request::get(format!("http://{}/orders/1", self.sidecar)).header("host", "orders");
        for (name, value) in trace_context(headers) {
            request = request.header(name, value);
        }
        let response = self.client.request(request.body(Body::empty())?).await?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?;
        // The fault tells whoever reads the answer what the mesh had against it.
        let fault = head.headers.get("weft-fault").cloned();
        let mut answer = (head.status, body.to_bytes()).into_response();
        if let Some(fault) = fault {
            answer.headers_mut().insert("weft-fault", fault);
        }
        Ok(answer)
    }
}
