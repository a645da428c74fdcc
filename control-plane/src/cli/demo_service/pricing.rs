//! The prices, over gRPC.

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::shop::pricing_server::{Pricing, PricingServer};
use super::shop::{QuoteRequest, QuoteResponse};
use crate::cli::{Failure, Outcome};

struct Prices {
    instance: String,
}

pub(super) async fn serve(
    listener: TcpListener,
    instance: String,
    stopped: impl Future<Output = ()>,
) -> Outcome {
    Server::builder()
        .add_service(PricingServer::new(Prices { instance }))
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopped)
        .await
        .map_err(Failure::failed)
}

#[tonic::async_trait]
impl Pricing for Prices {
    async fn quote(
        &self,
        request: Request<QuoteRequest>,
    ) -> Result<Response<QuoteResponse>, Status> {
        let item = request.into_inner().item;
        // Any rule will do, as long as one item always costs the same.
        let cents = item.bytes().fold(100, |sum, byte| sum + u32::from(byte));
        let instance = self.instance.clone();
        Ok(Response::new(QuoteResponse { cents, instance }))
    }
}
