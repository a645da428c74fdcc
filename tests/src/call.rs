//! A call that an application makes for one of its own requests.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Whether a GET through an HTTP proxy succeeds. It is of the trace that `of` names, as an application that
/// passes its trace on would have it.
pub async fn succeeds(url: &Uri, via: SocketAddr, of: &HeaderMap) -> bool {
    let Ok(stream) = TcpStream::connect(via).await else {
        return false;
    };
    let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
        return false;
    };
    tokio::spawn(connection);
    let mut request = Request::get(url.clone()).header("connection", "close");
    if let Some(host) = url.authority() {
        request = request.header("host", host.as_str());
    }
    for name in ["traceparent", "tracestate"] {
        if let Some(value) = of.get(name) {
            request = request.header(name, value);
        }
    }
    let Ok(request) = request.body(Empty::<Bytes>::new()) else {
        return false;
    };
    let Ok(response) = sender.send_request(request).await else {
        return false;
    };
    let status = response.status();
    response.into_body().collect().await.is_ok() && status.is_success()
}
