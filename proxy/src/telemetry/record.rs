//! What is known of a request or a connection once it is over; metrics, spans and access log are
//! made of these records alone.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use weft_proto::spiffe::SpiffeId;

use super::trace;
use crate::model::{Fault, Own, Protocol, ServiceName, Text};

/// Which way the traffic went, seen from the workload beside this proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the mesh to our workload.
    Inbound,
    /// From our workload to the mesh.
    Outbound,
}

impl Direction {
    pub const ALL: [Direction; 2] = [Direction::Inbound, Direction::Outbound];

    /// The word for it in metrics, spans and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }
}

/// Who sent or who serves. Empty where it is not known. Every request has two, and few are kept, so what can be is
/// borrowed: each share that is taken of a text and given back costs as much as comparing it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Party<'r> {
    pub namespace: Cow<'r, Arc<str>>,
    pub workload: Cow<'r, Arc<str>>,
    pub service: Option<Cow<'r, ServiceName>>,
}

impl Party<'static> {
    /// The workload beside this proxy.
    pub fn of(own: &Own) -> Self {
        Self {
            namespace: Cow::Owned(own.namespace.clone()),
            workload: Cow::Owned(own.workload.clone()),
            service: None,
        }
    }
}

impl Party<'_> {
    /// The same, borrowed.
    pub fn lend(&self) -> Party<'_> {
        Party {
            namespace: Cow::Borrowed(&self.namespace),
            workload: Cow::Borrowed(&self.workload),
            service: self.service.as_deref().map(Cow::Borrowed),
        }
    }

    /// The same, to be kept.
    pub fn into_owned(self) -> Party<'static> {
        Party {
            namespace: Cow::Owned(self.namespace.into_owned()),
            workload: Cow::Owned(self.workload.into_owned()),
            service: self.service.map(|name| Cow::Owned(name.into_owned())),
        }
    }
}

/// What every request that is over is counted by.
#[derive(Debug)]
pub struct RequestCount<'r> {
    pub direction: Direction,
    pub duration: Duration,
    /// Of the answer, or what stands for it where the fault left none.
    pub status: u16,
    pub grpc_status: Option<u16>,
    pub fault: Option<Fault>,
    pub source: Party<'r>,
    pub destination: Party<'r>,
    pub route: Option<&'r str>,
    pub tls: bool,
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// Attempts after the first.
    pub retries: u32,
}

/// A request that is over, with all that a span or a line of the log tells of it. What can be is borrowed, until it is
/// handed to the thread that tells it.
#[derive(Clone, Debug)]
pub struct RequestRecord<'r> {
    pub direction: Direction,
    pub context: trace::Context,
    pub start: SystemTime,
    pub duration: Duration,
    pub method: http::Method,
    pub scheme: &'static str,
    pub authority: Option<Cow<'r, Text>>,
    /// With its query; spans and metrics cut that off.
    pub path: Cow<'r, Text>,
    pub version: http::Version,
    pub status: u16,
    pub grpc_status: Option<u16>,
    pub fault: Option<Fault>,
    pub source: Party<'r>,
    pub destination: Party<'r>,
    pub route: Option<Cow<'r, str>>,
    /// The authenticated identity of the other side.
    pub peer: Option<Cow<'r, SpiffeId>>,
    pub tls: bool,
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// Attempts after the first.
    pub retries: u32,
    pub upstream: Option<SocketAddr>,
    pub downstream: Option<SocketAddr>,
}

/// Stands for the method of a request that nobody could read (OpenTelemetry's HTTP conventions).
const UNREAD_METHOD: &[u8] = b"_OTHER";

impl<'r> RequestRecord<'r> {
    /// Of a request that began now and was answered with `fault` before it could be read: all that is known is who
    /// was connected to whom.
    pub fn unread(
        direction: Direction,
        context: trace::Context,
        (status, grpc_status, fault): (u16, Option<u16>, Fault),
        version: http::Version,
        own: &'r Party<'_>,
    ) -> Self {
        let (own, other) = (own.lend(), Party::default());
        let (source, destination) = match direction {
            Direction::Outbound => (own, other),
            Direction::Inbound => (other, own),
        };
        let count = RequestCount {
            direction,
            duration: Duration::ZERO,
            status,
            grpc_status,
            fault: Some(fault),
            source,
            destination,
            route: None,
            tls: false,
            request_bytes: 0,
            response_bytes: 0,
            retries: 0,
        };
        Self {
            method: http::Method::from_bytes(UNREAD_METHOD).unwrap_or_default(),
            version,
            ..Self::of(count, context, SystemTime::now())
        }
    }

    /// What is counted of a request, and no more: as if nothing else were known of it.
    pub fn of(count: RequestCount<'r>, context: trace::Context, start: SystemTime) -> Self {
        Self {
            direction: count.direction,
            context,
            start,
            duration: count.duration,
            method: http::Method::GET,
            scheme: "http",
            authority: None,
            path: Cow::Owned(Text::default()),
            version: http::Version::HTTP_11,
            status: count.status,
            grpc_status: count.grpc_status,
            fault: count.fault,
            source: count.source,
            destination: count.destination,
            route: count.route.map(Cow::Borrowed),
            peer: None,
            tls: count.tls,
            request_bytes: count.request_bytes,
            response_bytes: count.response_bytes,
            retries: count.retries,
            upstream: None,
            downstream: None,
        }
    }

    /// What is counted of it.
    pub(super) fn count(&self) -> RequestCount<'_> {
        RequestCount {
            direction: self.direction,
            duration: self.duration,
            status: self.status,
            grpc_status: self.grpc_status,
            fault: self.fault,
            source: self.source.lend(),
            destination: self.destination.lend(),
            route: self.route.as_deref(),
            tls: self.tls,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            retries: self.retries,
        }
    }
}

impl RequestRecord<'_> {
    /// For other threads.
    pub(super) fn into_owned(self) -> RequestRecord<'static> {
        fn owned<T: ToOwned + ?Sized>(held: Cow<'_, T>) -> Cow<'static, T> {
            Cow::Owned(held.into_owned())
        }
        RequestRecord {
            authority: self.authority.map(owned),
            path: owned(self.path),
            source: self.source.into_owned(),
            destination: self.destination.into_owned(),
            route: self.route.map(owned),
            peer: self.peer.map(owned),
            ..self
        }
    }
}

/// A connection of opaque bytes that is over.
#[derive(Clone, Debug)]
pub struct ConnectionRecord {
    pub direction: Direction,
    pub context: trace::Context,
    pub start: SystemTime,
    pub duration: Duration,
    pub protocol: Protocol,
    pub fault: Option<Fault>,
    pub source: Party<'static>,
    pub destination: Party<'static>,
    pub route: Option<Arc<str>>,
    /// The authenticated identity of the other side.
    pub peer: Option<SpiffeId>,
    pub tls: bool,
    /// From the one who connected.
    pub bytes_up: u64,
    /// To the one who connected.
    pub bytes_down: u64,
    pub upstream: Option<SocketAddr>,
    pub downstream: Option<SocketAddr>,
    /// Ended by a reset and not by an orderly close.
    pub reset: bool,
}

/// Either of them, shared between the span queue and the access log.
#[derive(Clone, Debug)]
pub(super) enum Record {
    Request(Arc<RequestRecord<'static>>),
    Connection(Arc<ConnectionRecord>),
}
