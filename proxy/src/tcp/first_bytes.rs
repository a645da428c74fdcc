//! Both sides are looked at until one says which protocol this is. A client that speaks is read
//! until its words are known; a server that speaks first is opaque at once. Nobody has to configure
//! such ports, and nobody waits.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

use super::Reader;
use crate::detect::sniff;
use crate::model::Protocol;

/// How long a client of an unknown destination may take for its first byte before the upstream is
/// connected too. Most clients that speak first do so within it, and cost the application no
/// connection; those that wait for the server lose no more than this, and only the first time.
const GRACE: Duration = Duration::from_millis(5);
/// A client's first line that is longer is not waited for.
const FIRST_BYTES_MAX: usize = 32 * 1024;

/// A side whose first bytes can be awaited.
pub trait FirstBytes {
    /// Returns once bytes have arrived that are no HTTP (true), or HTTP or the end have (false).
    fn first_bytes(&mut self) -> impl Future<Output = bool>;
}

/// Who spoke first, and what.
#[derive(Debug)]
pub enum Detected<U> {
    /// The client, this protocol. The upstream is there if it was connected while waiting.
    Client(Protocol, Option<U>),
    /// The server.
    Server(U),
    /// The client's connection was reset.
    End,
}

/// Reads the client until its protocol is known. The bytes stay in the reader.
pub async fn client_first(reader: &mut Reader) -> Option<Protocol> {
    loop {
        if !reader.buffer.is_empty()
            && let Some(protocol) = sniff(&reader.buffer)
        {
            return Some(protocol);
        }
        if reader.buffer.len() > FIRST_BYTES_MAX {
            return Some(Protocol::Tcp);
        }
        match reader.fill().await {
            // A client that says nothing and ends its direction may still wait for the server.
            Ok(0) => return Some(Protocol::Tcp),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// Looks at both sides. `open` connects the upstream; an error of it ends the look, unless the
/// client speaks first.
pub async fn either_first<U: FirstBytes, E>(
    reader: &mut Reader,
    open: impl Future<Output = Result<U, E>>,
) -> Result<Detected<U>, E> {
    let mut client = pin!(client_first(reader));
    let ended = |protocol: Option<Protocol>, upstream: Option<U>| match protocol {
        Some(protocol) => Detected::Client(protocol, upstream),
        None => Detected::End,
    };
    tokio::select! {
        biased;
        protocol = &mut client => return Ok(ended(protocol, None)),
        () = sleep(GRACE) => {}
    }
    let mut upstream = {
        let mut open = pin!(open);
        tokio::select! {
            biased;
            protocol = &mut client => return Ok(ended(protocol, None)),
            opened = &mut open => opened?,
        }
    };
    let server_spoke = tokio::select! {
        biased;
        protocol = &mut client => return Ok(ended(protocol, Some(upstream))),
        spoke = upstream.first_bytes() => spoke,
    };
    if server_spoke {
        return Ok(Detected::Server(upstream));
    }
    // The server closed, or answers HTTP unasked (a time-out of an idle connection, say): the client
    // alone decides now, and gets a fresh connection for what it says.
    Ok(ended(client.await, None))
}
