//! Idle HTTP/1 connections, by whom they lead to.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use bytes::BytesMut;
use foldhash::fast::RandomState;

use super::tls::Tls;
use super::{Limits, Server, connect};
use crate::http::{Http1Upstream, Line, Unanswered};
use crate::http2::Role;
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
    line: Rc<Line>,
    /// Something reads it.
    is_driven: bool,
    since: Instant,
}

/// A connection that was idle, and is again once it is dropped.
pub struct Borrowed {
    pool: Rc<Pool>,
    server: Server,
    line: Rc<Line>,
}

impl Borrowed {
    pub(super) fn line(&self) -> &Rc<Line> {
        &self.line
    }

    /// Whether the server's kernel has reset the connection.
    pub fn is_reset(&self) -> bool {
        self.line.is_reset()
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if self.line.is_free() {
            let idle = (self.line.clone(), true);
            self.pool.put_back(self.server.clone(), idle);
        }
    }
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
        if let Some((reader, writer)) = self.pop(server).and_then(|idle| idle.line.take()) {
            return Ok(self.upstream(reader, writer, true));
        }
        // Boxed, because most requests find a connection, and its state would be part of theirs.
        let (reader, writer) = Box::pin(self.connect(server)).await?;
        Ok(self.upstream(reader, writer, false))
    }

    /// The connection that [`take`](Self::take) would take, if there is one now; in plaintext alone, as what lies over
    /// TLS can't be asked without waiting.
    pub(super) fn borrow(self: &Rc<Self>, server: Server) -> Option<Borrowed> {
        if server.proof.is_some() {
            return None;
        }
        let Idle {
            line, is_driven, ..
        } = self.pop(&server)?;
        if !is_driven {
            tokio::task::spawn_local(line.clone().drive());
        }
        Some(Borrowed {
            pool: self.clone(),
            server,
            line,
        })
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

    /// The idle connection that was used last and is still good.
    fn pop(&self, server: &Server) -> Option<Idle> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(server)?;
        while let Some(one) = connections.pop() {
            if !one.line.is_stale() {
                return Some(one);
            }
            one.line.end();
        }
        None
    }

    pub(super) fn put(&self, server: Server, reader: Reader, writer: Writer) {
        if reader.buffer.is_empty() {
            let line = Line::new(reader, writer, self.limits.http1, Role::Client);
            self.put_back(server, (line, false));
        }
    }

    fn put_back(&self, server: Server, (line, is_driven): (Rc<Line>, bool)) {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.entry(server).or_default();
        if connections.len() >= self.limits.idle_per_address {
            return line.end();
        }
        connections.push(Idle {
            line,
            is_driven,
            since: self.swept.get(),
        });
    }

    /// Closes those that have been idle for too long; to be called every second or so.
    pub(super) fn sweep(&self) {
        let now = Instant::now();
        self.swept.set(now);
        let mut idle = self.idle.borrow_mut();
        for connections in idle.values_mut() {
            connections.retain(|one| {
                let idle = now.saturating_duration_since(one.since);
                let is_good = idle < self.limits.idle_timeout && !one.line.is_stale();
                if !is_good {
                    one.line.end();
                }
                is_good
            });
        }
        idle.retain(|_, connections| !connections.is_empty());
    }
}
