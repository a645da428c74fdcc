//! Requests to the shop's page, as its customers make them, and who answered.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use axum::body::Body;
use http::Request;
use http_body_util::{BodyExt, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// Requests under way at once.
const CUSTOMERS: usize = 8;

/// A request that has no answer by then has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of an answer; a longer one is a failed request.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Failures that are kept word for word; of more only the number.
const FAILURES_KEPT: usize = 5;

/// What came of a number of requests.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub requests: u32,
    pub by_instance: BTreeMap<String, u32>,
    pub failed: u32,
    pub failures: Vec<String>,
    pub elapsed: Duration,
}

impl Tally {
    /// The share of requests that instances of this prefix answered.
    pub fn share(&self, prefix: &str) -> f64 {
        let matching = self
            .by_instance
            .iter()
            .filter(|(name, _)| name.starts_with(prefix));
        let answered: u32 = matching.map(|(_, count)| count).sum();
        f64::from(answered) / f64::from(self.requests.max(1))
    }

    fn count(&mut self, answer: Result<String, String>) {
        self.requests += 1;
        match answer {
            Ok(instance) => *self.by_instance.entry(instance).or_default() += 1,
            Err(reason) => {
                self.failed += 1;
                if self.failures.len() < FAILURES_KEPT {
                    self.failures.push(reason);
                }
            }
        }
    }
}

/// The shop's customers.
#[derive(Clone)]
pub(super) struct Customers {
    client: Client<HttpConnector, Body>,
    page: SocketAddr,
}

impl Customers {
    pub fn new(page: SocketAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { client, page }
    }

    /// Makes a number of requests.
    pub async fn request(&self, number: u32) -> Tally {
        let left = Rc::new(Cell::new(number));
        let more = move || {
            let now = left.get();
            left.set(now.saturating_sub(1));
            now > 0
        };
        self.request_while(more, &Rc::default()).await
    }

    /// Makes requests as long as `more` says so. What comes of them can be seen in `tally` meanwhile.
    pub async fn request_while(
        &self,
        more: impl Fn() -> bool + 'static,
        tally: &Rc<RefCell<Tally>>,
    ) -> Tally {
        let started = Instant::now();
        let more = Rc::new(more);
        let tasks = LocalSet::new();
        for _ in 0..CUSTOMERS {
            let (customer, tally, more) = (self.clone(), tally.clone(), more.clone());
            tasks.spawn_local(async move {
                while more() {
                    let answer = customer.one(&TraceContext::new(false)).await;
                    tally.borrow_mut().count(answer);
                }
            });
        }
        tasks.await;
        let mut tally = tally.take();
        tally.elapsed = started.elapsed();
        tally
    }

    /// One request; gives the instance of orders that answered.
    pub async fn one(&self, context: &TraceContext) -> Result<String, String> {
        timeout(REQUEST_TIMEOUT, self.call(context))
            .await
            .map_err(|_| format!("no answer within {}s", REQUEST_TIMEOUT.as_secs()))?
            .map_err(|error| error.to_string())
    }

    async fn call(
        &self,
        context: &TraceContext,
    ) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let request = Request::get(format!("http://{}/", self.page))
            .header("traceparent", &context.traceparent)
            .body(Body::empty())?;
        let (head, body) = self.client.request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await?
            .to_bytes();
        if !head.status.is_success() {
            let fault = head.headers.get("weft-fault");
            let fault = fault
                .and_then(|fault| fault.to_str().ok())
                .unwrap_or("no fault named");
            let text = String::from_utf8_lossy(&body);
            return Err(format!("{} ({fault}): {text}", head.status).into());
        }
        let answer: Value = serde_json::from_slice(&body)?;
        let instance = answer["instance"]
            .as_str()
            .ok_or("no instance in the answer")?;
        Ok(instance.to_owned())
    }
}

/// A request's place in a trace (W3C Trace Context).
#[derive(Debug)]
pub(super) struct TraceContext {
    pub trace_id: String,
    traceparent: String,
}

impl TraceContext {
    /// Begins a trace that is exported.
    pub fn sampled() -> Self {
        Self::new(true)
    }

    /// Begins a trace.
    fn new(sampled: bool) -> Self {
        // Neither id may be all zero.
        let trace_id = format!("{:032x}", rand::random::<u128>() | 1);
        let span_id = rand::random::<u64>() | 1;
        let flags = u8::from(sampled);
        let traceparent = format!("00-{trace_id}-{span_id:016x}-{flags:02x}");
        Self {
            trace_id,
            traceparent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_shares_and_failures() {
        let mut tally = Tally::default();
        for instance in ["orders-v1-a", "orders-v1-b", "orders-v2"] {
            tally.count(Ok(instance.to_owned()));
        }
        tally.count(Err("reset".to_owned()));
        assert!((tally.share("orders-v1") - 0.5).abs() < f64::EPSILON);
        assert_eq!((tally.failed, tally.failures.len()), (1, 1));
        let TraceContext {
            trace_id,
            traceparent,
        } = TraceContext::sampled();
        assert_eq!(traceparent.len(), 55);
        assert!(traceparent.contains(&trace_id) && traceparent.ends_with("-01"));
    }
}
