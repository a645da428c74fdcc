//! What the control plane says of itself: metrics in Prometheus' text, and its log.

mod log;
mod metrics;

pub use log::start_log;
pub use metrics::{Counter, Gauge, Histogram, Metrics};
