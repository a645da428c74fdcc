//! The requests that are over, the last few of them: what became of each, for people who ask.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Method;
use serde_json::{Value, json};

use crate::model::{Fault, ServicePort, Text};

/// Requests that each worker remembers; the oldest is forgotten for one more.
pub(super) const RECENT_MAX: usize = 512;
/// Bytes of an authority or a path that are kept; the rest is cut off.
const TEXT_BYTES_MAX: usize = 256;

/// One worker's memory.
#[derive(Default)]
pub(super) struct Recent {
    /// A ring, once it is full.
    done: Vec<Done>,
    /// Where the next one goes: the oldest is there.
    next: usize,
}

/// A request that is over. Its texts are copies: slices would keep whole read buffers.
#[derive(Default)]
pub(super) struct Done {
    pub trace_id: [u8; 16],
    pub start: Option<SystemTime>,
    pub duration: Duration,
    pub method: Method,
    pub authority: Vec<u8>,
    pub path: Vec<u8>,
    /// Name and rule.
    pub route: Option<(Arc<str>, u32)>,
    pub cluster: Option<ServicePort>,
    pub endpoint: Option<(Arc<str>, SocketAddr)>,
    pub status: u16,
    pub grpc_status: Option<u16>,
    pub fault: Option<Fault>,
    pub attempts: u32,
}

impl Recent {
    /// Room for one more: the place of the oldest, whose texts' memory is used again.
    pub(super) fn next(&mut self, authority: Option<&Text>, path: &Text) -> &mut Done {
        if self.done.len() < RECENT_MAX {
            self.done.push(Done::default());
        }
        let done = &mut self.done[self.next];
        self.next = (self.next + 1) % RECENT_MAX;
        copy(&mut done.authority, authority.map_or(b"", Text::as_bytes));
        copy(&mut done.path, path.as_bytes());
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

fn copy(kept: &mut Vec<u8>, text: &[u8]) {
    kept.clear();
    kept.extend_from_slice(&text[..text.len().min(TEXT_BYTES_MAX)]);
}

impl Done {
    fn to_json(&self) -> Value {
        let at = self.start.map(humantime::format_rfc3339_micros);
        json!({
            "direction": "outbound",
            "at": at.map(|at| at.to_string()),
            "method": self.method.as_str(),
            "authority": String::from_utf8_lossy(&self.authority),
            "path": String::from_utf8_lossy(&self.path),
            "route": self.route.as_ref().map(|(name, _)| &**name),
            "rule": self.route.as_ref().map(|(_, rule)| rule),
            "cluster": self.cluster.as_ref().map(ToString::to_string),
            "endpoint": self.endpoint.as_ref().map(|(id, _)| &**id),
            "address": self.endpoint.as_ref().map(|(_, address)| address.to_string()),
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
            let path = Text::try_from(&*format!("/{number}/{long}")).unwrap();
            let done = recent.next(Some(&Text::from_static("orders")), &path);
            done.trace_id = [(number % 256) as u8; 16];
            done.status = number;
        }
        assert_eq!(recent.done.len(), RECENT_MAX);
        let seen = recent.of_trace([1; 16]);
        let statuses: Vec<_> = seen.iter().map(|done| done["status"].clone()).collect();
        assert_eq!(statuses, [257, 513], "0 and 1 were the oldest");
        assert_eq!(seen[1]["path"].as_str().unwrap().len(), TEXT_BYTES_MAX);
        assert!(seen[0]["path"].as_str().unwrap().starts_with("/257/aaa"));
    }
}
