//! Idle HTTP/1 connections, by address.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;
use foldhash::fast::RandomState;

use super::{Limits, connect};
use crate::http::{Http1Upstream, Unanswered};
use crate::tcp::{Reader, Writer, split};

/// The pool of one worker.
pub(super) struct Pool {
    idle: RefCell<HashMap<SocketAddr, Vec<Idle>, RandomState>>,
    limits: Limits,
}

struct Idle {
    reader: Reader,
    writer: Writer,
    since: Instant,
}

impl Pool {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            idle: RefCell::default(),
            limits,
        }
    }

    /// The connection that was used last and is still good, or a new one.
    pub(super) async fn take(&self, address: SocketAddr) -> Result<Http1Upstream, Unanswered> {
        while let Some(mut idle) = self.pop(address) {
            if idle.since.elapsed() < self.limits.idle_timeout && !idle.reader.is_stale() {
                return Ok(self.upstream(idle.reader, idle.writer, true));
            }
        }
        let connecting = connect::connect(address, self.limits.connect_timeout);
        // Boxed, because most requests find a connection, and its state would be part of theirs.
        let stream = Box::pin(connecting).await?;
        let (reader, writer) = split(stream, BytesMut::new());
        Ok(self.upstream(reader, writer, false))
    }

    fn upstream(&self, reader: Reader, writer: Writer, reused: bool) -> Http1Upstream {
        Http1Upstream {
            reader,
            writer,
            reused,
            keep_alive: false,
            limits: self.limits.http1,
        }
    }

    fn pop(&self, address: SocketAddr) -> Option<Idle> {
        self.idle.borrow_mut().get_mut(&address)?.pop()
    }

    pub(super) fn put(&self, address: SocketAddr, mut reader: Reader, mut writer: Writer) {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(address).or_default();
        if connections.len() < self.limits.idle_per_address && reader.buffer.is_empty() {
            reader.shrink();
            writer.shrink();
            connections.push(Idle {
                reader,
                writer,
                since: Instant::now(),
            });
        }
    }

    pub(super) fn sweep(&self) {
        let mut idle = self.idle.borrow_mut();
        for connections in idle.values_mut() {
            connections.retain_mut(|one| {
                one.since.elapsed() < self.limits.idle_timeout && !one.reader.is_stale()
            });
        }
        idle.retain(|_, connections| !connections.is_empty());
    }
}
