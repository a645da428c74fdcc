//! Heads as they go out (RFC 9113 8.3, RFC 8441).

use http::header::HeaderName;
use http::{Method, StatusCode};

use super::Role;
use super::connection::{Connection, sendable};
use super::hpack::Name;
use super::stream::{Failure, Key};
use crate::model::{RequestHead, ResponseHead, Text};

/// HTTP/2 needs an authority where HTTP/1.0 may have none.
const NO_AUTHORITY: &str = "unknown.invalid";

/// Takes header fields that are sent beside a head's own. Nothing is made of them but their octets, so that
/// what every stream says costs no allocation.
pub type Put<'p> = dyn FnMut(&HeaderName, &[u8]) + 'p;

/// Why no stream was opened: the peer takes no more, or a protocol that it doesn't know
/// (RFC 8441 3) was asked for. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    #[error("the peer takes no more streams")]
    Full,
    #[error("the peer knows no extended CONNECT")]
    NoConnectProtocol,
}

impl Connection {
    /// Opens a stream with a request, and the fields that `extra` puts beside its own. `end` says that nothing
    /// follows the head.
    pub fn open(
        &mut self,
        head: &RequestHead,
        extra: impl FnOnce(&mut Put<'_>),
        end: bool,
    ) -> Result<Key, NotOpened> {
        if self.room() == 0 {
            return Err(NotOpened::Full);
        }
        if head.upgrade.is_some() && self.has_peer_settings && !self.peer.connect_protocol {
            return Err(NotOpened::NoConnectProtocol);
        }
        let id = self.next_id;
        self.next_id += 2;
        self.local_open += 1;
        let (receive_window, send_window) =
            (self.initial_receive_window(), self.peer.initial_window_size);
        let (key, stream) = self.streams.insert(id);
        stream.receiver_held = true;
        stream.sender_held = true;
        stream.window = self.announced_window;
        stream.receive_window = receive_window;
        stream.send_window = i64::from(send_window);
        stream.sent_end = end;
        stream.is_head_request = head.method == Method::HEAD;
        stream.is_tunnel = head.method == Method::CONNECT || head.upgrade.is_some();
        stream.upgrade.clone_from(&head.upgrade);
        self.put_block(id, end, |encoder, out| {
            let method = match head.upgrade {
                Some(_) => Method::CONNECT.as_str(),
                None => head.method.as_str(),
            };
            let authority = head.authority.as_ref();
            let authority = authority.map_or(NO_AUTHORITY.as_bytes(), Text::as_bytes);
            encoder.pseudo(out, &Name::Method, method.as_bytes());
            // RFC 9113 8.5: a tunnel has no path and no scheme.
            if head.method != Method::CONNECT {
                let scheme = head.scheme.as_ref().map_or(&b"http"[..], Text::as_bytes);
                let path = match head.path.as_bytes() {
                    b"" => b"/",
                    path => path,
                };
                encoder.pseudo(out, &Name::Scheme, scheme);
                encoder.pseudo(out, &Name::Path, path);
            }
            encoder.pseudo(out, &Name::Authority, authority);
            if let Some(protocol) = &head.upgrade {
                encoder.pseudo(out, &Name::Protocol, protocol.as_bytes());
            }
            for (name, value) in &head.headers {
                encoder.field(out, name, value);
            }
            extra(&mut |name, value| encoder.octets(out, name, value, false));
        });
        let head_at = self.output.position();
        if let Some(stream) = self.streams.get_mut(key) {
            stream.head_at = head_at;
        }
        Ok(key)
    }

    /// Sends a response's head: any number of informational ones, then the final one. `end` says
    /// that nothing follows it.
    pub fn respond(&mut self, key: Key, head: &ResponseHead, end: bool) -> Result<(), Failure> {
        debug_assert_eq!(self.role, Role::Server);
        sendable(&mut self.streams, key)?;
        // What HTTP/1 answers with 101 is 200 here (RFC 8441 5).
        let status = match head.upgrade {
            Some(_) => StatusCode::OK,
            None => head.status,
        };
        self.put_block(key.id, end, |encoder, out| {
            encoder.pseudo(out, &Name::Status, status.as_str().as_bytes());
            for (name, value) in &head.headers {
                encoder.field(out, name, value);
            }
        });
        if end {
            self.ended_sending(key);
        }
        Ok(())
    }
}
