//! The side door of `serve`, which no proxy stands before: `GET /count`, `PUT /ports/IP:PORT` to
//! open a port, `DELETE /ports/IP:PORT` to close it and let its connections end, and
//! `PUT /trouble/STATUS/DELAY-MS/PERCENT` to answer a share of all requests with a status, late.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, watch};

use crate::serve::{Shared, accept};

/// The application's ports that are open now.
pub struct OpenPorts {
    shared: Arc<Shared>,
    stops: HashMap<SocketAddr, watch::Sender<bool>>,
}

impl OpenPorts {
    /// None yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            stops: HashMap::new(),
        }
    }

    /// Opens a port; it accepts connections when this returns.
    pub async fn open(&mut self, address: SocketAddr) -> io::Result<()> {
        let listener = TcpListener::bind(address).await?;
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(accept(listener, self.shared.clone(), stopped));
        self.stops.insert(address, stop);
        Ok(())
    }

    /// Closes every port.
    pub fn close_all(&mut self) {
        for (_, stop) in self.stops.drain() {
            // Nobody listens on it any more where this fails.
            let _ = stop.send(true);
        }
    }

    fn close(&mut self, address: SocketAddr) -> bool {
        let stop = self.stops.remove(&address);
        stop.is_some_and(|stop| stop.send(true).is_ok())
    }
}

/// Serves the side door until killed.
pub async fn run(address: SocketAddr, open: Arc<Mutex<OpenPorts>>) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (socket, _) = listener.accept().await?;
        let open = open.clone();
        let service = service_fn(move |request| {
            let open = open.clone();
            async move { Ok::<_, Infallible>(answer(&request, &open).await) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service));
    }
}

fn trouble(path: &str) -> Option<[u64; 3]> {
    let numbers = path.strip_prefix("/trouble/")?.split('/');
    let numbers: Result<Vec<u64>, _> = numbers.map(str::parse).collect();
    numbers.ok()?.try_into().ok()
}

async fn answer(request: &Request<Incoming>, open: &Mutex<OpenPorts>) -> Response<Full<Bytes>> {
    let mut open = open.lock().await;
    let path = request.uri().path();
    let port = path.strip_prefix("/ports/").map(str::parse);
    let (status, document) = match (request.method(), port) {
        (&Method::GET, None) => (
            StatusCode::OK,
            json!({
                "requests": open.shared.requests.load(Ordering::Relaxed),
                "connections": open.shared.connections.load(Ordering::Relaxed),
                "open": open.stops.len(),
            }),
        ),
        (&Method::PUT, Some(Ok(address))) => match open.open(address).await {
            Ok(()) => (StatusCode::OK, json!({})),
            Err(error) => (StatusCode::CONFLICT, json!({"error": error.to_string()})),
        },
        (&Method::PUT, None) => match trouble(path) {
            Some([status, delay, percent]) => {
                let trouble = &open.shared.trouble;
                trouble.status.store(status, Ordering::Relaxed);
                trouble.delay.store(delay, Ordering::Relaxed);
                trouble.percent.store(percent, Ordering::Relaxed);
                (StatusCode::OK, json!({}))
            }
            None => (StatusCode::NOT_FOUND, json!({"error": "no such thing"})),
        },
        (&Method::DELETE, Some(Ok(address))) if open.close(address) => (StatusCode::OK, json!({})),
        _ => (StatusCode::NOT_FOUND, json!({"error": "no such thing"})),
    };
    let mut response = Response::new(Full::from(document.to_string()));
    *response.status_mut() = status;
    response
}
