//! Idle HTTP/1 connections, by whom they lead to.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use bytes::BytesMut;
use foldhash::fast::RandomState;

use super::tls::Tls;
use super::{Limits, Server, connect};
use crate::http::{Http1Upstream, Unanswered};
use crate::model::Protocol;
use crate::tcp::{Reader, Writer, split, split_tls};

/// The pool of one worker.
pub(super) struct Pool {
    idle: RefCell<HashMap<Server, Vec<Idle>, RandomState>>,
    /// When idle ones were last looked through. It is clock enough here: requests are spared another look.
    swept: Cell<Instant>,
    tls: Rc<Tls>,
    limits: Limits,
}

struct Idle {
    reader: Reader,
    writer: Writer,
    since: Instant,
}

impl Pool {
    pub(super) fn new(tls: Rc<Tls>, limits: Limits) -> Self {
        Self {
            idle: RefCell::default(),
            swept: Cell::new(Instant::now()),
            tls,
            limits,
        }
    }

    /// The connection that was used last and is still good, or a new one.
    pub(super) async fn take(&self, server: &Server) -> Result<Http1Upstream, Unanswered> {
        while let Some(mut idle) = self.pop(server) {
            if !idle.reader.is_stale() {
                return Ok(self.upstream(idle.reader, idle.writer, true));
            }
        }
        // Boxed, because most requests find a connection, and its state would be part of theirs.
        let (reader, writer) = Box::pin(self.connect(server)).await?;
        Ok(self.upstream(reader, writer, false))
    }

    async fn connect(&self, server: &Server) -> Result<(Reader, Writer), Unanswered> {
        let Server { address, proof } = server;
        let limit = self.limits.connect_timeout;
        let stream = connect::connect(*address, limit).await?;
        let Some(proof) = proof else {
            return Ok(split(stream, BytesMut::new()));
        };
        let to = (proof, Protocol::Http1);
        let stream = self.tls.connect(stream, *address, to, limit).await?;
        Ok(split_tls(stream))
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

    fn pop(&self, server: &Server) -> Option<Idle> {
        self.idle.borrow_mut().get_mut(server)?.pop()
    }

    pub(super) fn put(&self, server: Server, mut reader: Reader, mut writer: Writer) {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(server).or_default();
        if connections.len() < self.limits.idle_per_address && reader.buffer.is_empty() {
            reader.shrink();
            writer.shrink();
            connections.push(Idle {
                reader,
                writer,
                since: self.swept.get(),
            });
        }
    }

    /// Closes those that have been idle for too long; to be called every second or so.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.swept.set(now);
        let mut idle = self.idle.borrow_mut();
        for connections in idle.values_mut() {
            connections.retain_mut(|one| {
                let idle = now.saturating_duration_since(one.since);
                idle < self.limits.idle_timeout && !one.reader.is_stale()
            });
        }
        idle.retain(|_, connections| !connections.is_empty());
    }
}
