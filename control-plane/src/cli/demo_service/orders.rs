//! The orders. Asks pricing over gRPC, in clear text to the sidecar.

use std::net::SocketAddr;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};

use super::shop::QuoteRequest;
use super::shop::pricing_client::PricingClient;
use super::{CALL_TIMEOUT, trace_context};
use crate::cli::{Failure, Outcome};

#[derive(Clone)]
struct Orders {
    instance: String,
    pricing: PricingClient<Channel>,
}

pub(super) fn router(instance: String, sidecar: SocketAddr) -> Outcome<Router> {
    let channel = Endpoint::from_shared(format!("http://{sidecar}"))
        .map_err(Failure::failed)?
        .origin(Uri::from_static("http://pricing:50051"))
        .timeout(CALL_TIMEOUT)
        .connect_lazy();
    let pricing = PricingClient::new(channel);
    let orders = Orders { instance, pricing };
    Ok(Router::new()
        .route("/orders/{id}", get(order))
        .with_state(orders))
}

async fn order(
    State(orders): State<Orders>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Response {
    let mut request = tonic::Request::new(QuoteRequest { item: id.clone() });
    for (name, value) in trace_context(&headers) {
        if let Ok(value) = MetadataValue::try_from(value) {
            request.metadata_mut().insert(name, value);
        }
    }
    match orders.pricing.clone().quote(request).await {
        Ok(quote) => {
            let quote = quote.into_inner();
            Json(json!({
                "order": id,
                "instance": orders.instance,
                "cents": quote.cents,
                "pricing": quote.instance,
            }))
            .into_response()
        }
        Err(status) => (StatusCode::BAD_GATEWAY, format!("pricing: {status}")).into_response(),
    }
}
