//! The requests that are over, the last few of them: what became of each, for people who ask.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::Method;
use serde_json::{Value, json};

use crate::model::Fault;

/// Requests that each worker remembers; the oldest is forgotten for one more.
pub(super) const RECENT_MAX: usize = 512;
/// Bytes of each text that are kept; the rest is cut off.
const TEXT_BYTES_MAX: usize = 256;

/// One worker's memory.
#[derive(Default)]
pub(super) struct Recent {
    /// A ring, once it is full.
    done: Vec<Done>,
    /// Where the next one goes: the oldest is there.
    next: usize,
}

/// A request that is over.
#[derive(Default)]
pub(super) struct Done {
    pub trace_id: [u8; 16],
    pub start: Option<SystemTime>,
    pub duration: Duration,
    pub method: Method,
    pub texts: Texts,
    /// Of the route.
    pub rule: Option<u32>,
    /// Port of the cluster.
    pub cluster: Option<u16>,
    /// The endpoint's.
    pub address: Option<SocketAddr>,
    pub status: u16,
    pub grpc_status: Option<u16>,
    pub fault: Option<Fault>,
    pub attempts: u32,
}

/// Texts, one behind the other. They are copies: slices would keep whole read buffers, and shares of what is configured
/// are dearer to take and to give back than a few bytes are to copy.
#[derive(Default)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    ends: [u16; Texts::COUNT],
}

/// What a request's texts are, in their order.
pub(super) struct Parts<'r> {
    pub authority: &'r [u8],
    pub path: &'r [u8],
    /// Name of the route; empty without one, and so with the others.
    pub route: &'r str,
    pub cluster_namespace: &'r str,
    pub cluster_name: &'r str,
    pub endpoint: &'r str,
}

impl Texts {
    const COUNT: usize = 6;

    fn set(&mut self, parts: &Parts<'_>) {
        let texts: [&[u8]; Self::COUNT] = [
            parts.authority,
            parts.path,
            parts.route.as_bytes(),
            parts.cluster_namespace.as_bytes(),
            parts.cluster_name.as_bytes(),
            parts.endpoint.as_bytes(),
        ];
        self.bytes.clear();
        for (text, end) in texts.into_iter().zip(&mut self.ends) {
            self.bytes
                .extend_from_slice(&text[..text.len().min(TEXT_BYTES_MAX)]);
            // Six texts of 256 bytes.
            *end = self.bytes.len() as u16;
        }
    }

    fn all(&self) -> [Cow<'_, str>; Self::COUNT] {
        let mut from = 0;
        self.ends.map(|end| {
            let text = &self.bytes[from..usize::from(end)];
            from = usize::from(end);
            String::from_utf8_lossy(text)
        })
    }
}

impl Recent {
    /// Room for one more: the place of the oldest, whose texts' memory is used again.
    pub(super) fn next(&mut self, parts: &Parts<'_>) -> &mut Done {
        if self.done.len() < RECENT_MAX {
            self.done.push(Done::default());
        }
        let done = &mut self.done[self.next];
        self.next = (self.next + 1) % RECENT_MAX;
        done.texts.set(parts);
        done
    }

    /// What is remembered of a trace, the oldest first.
    pub(super) fn of_trace(&self, trace_id: [u8; 16]) -> Vec<Value> {
        let (newer, older) = self.done.split_at(self.next.min(self.done.len()));
        let all = older.iter().chain(newer);
        let of_trace = all.filter(|done| done.trace_id == trace_id);
        of_trace.map(Done::to_json).collect()
    }
}

impl Done {
    fn to_json(&self) -> Value {
        let at = self.start.map(humantime::format_rfc3339_micros);
        let [authority, path, route, namespace, name, endpoint] = self.texts.all();
        json!({
            "direction": "outbound",
            "at": at.map(|at| at.to_string()),
            "method": self.method.as_str(),
            "authority": authority,
            "path": path,
            "route": self.rule.map(|_| route),
            "rule": self.rule,
            "cluster": self.cluster.map(|port| format!("{namespace}/{name}:{port}")),
            "endpoint": self.address.map(|_| endpoint),
            "address": self.address.map(|address| address.to_string()),
            "status": self.status,
            "grpc_status": self.grpc_status,
            "fault": self.fault.map(Fault::reason),
            "duration_ms": self.duration.as_micros() as f64 / 1000.0,
            "attempts": self.attempts,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_remembered() {
        let mut recent = Recent::default();
        for number in 0..RECENT_MAX as u16 + 2 {
            let long = "a".repeat(usize::from(number));
            let done = recent.next(&Parts {
                authority: b"orders",
                path: format!("/{number}/{long}").as_bytes(),
                route: "",
                cluster_namespace: "shop",
                cluster_name: "orders",
                endpoint: "orders-1",
            });
            done.cluster = Some(80);
            done.trace_id = [(number % 256) as u8; 16];
            done.status = number;
        }
        assert_eq!(recent.done.len(), RECENT_MAX);
        let seen = recent.of_trace([1; 16]);
        let statuses: Vec<_> = seen.iter().map(|done| done["status"].clone()).collect();
        assert_eq!(statuses, [257, 513], "0 and 1 were the oldest");
        assert_eq!(seen[1]["path"].as_str().unwrap().len(), TEXT_BYTES_MAX);
        assert!(seen[0]["path"].as_str().unwrap().starts_with("/257/aaa"));
        for seen in &seen {
            assert_eq!(seen["authority"], "orders");
            assert_eq!(seen["cluster"], "shop/orders:80");
            assert!(seen["route"].is_null() && seen["endpoint"].is_null());
        }
    }
}
