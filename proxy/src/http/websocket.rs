//! What WebSocket's handshake has in HTTP/1 and not in HTTP/2: a key, and the proof that the server
//! read it (RFC 6455 4, RFC 8441 5).

use super::upgrade::set;
use super::{Responder, Upstream};
use crate::model::{RequestHead, ResponseHead};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const KEY: &str = "sec-websocket-key";
const ACCEPT: &str = "sec-websocket-accept";
/// RFC 6455 1.3.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// How the handshake has to be changed on its way.
pub(super) enum Translation {
    /// Both sides speak the same.
    None,
    /// The client sent no key, the server needs one and has to prove that it saw this one.
    AddKey(String),
    /// The client sent this key and waits for the proof, which the server doesn't give.
    AddAccept(String),
}

impl Translation {
    /// Between two sidecars the handshake travels as the client sent it, key or none.
    pub(super) fn between(head: &RequestHead, upstream: &Upstream) -> Self {
        if !head
            .upgrade
            .as_deref()
            .is_some_and(|token| token.eq_ignore_ascii_case("websocket"))
        {
            return Translation::None;
        }
        let key = head.headers.get(KEY).and_then(|key| key.to_str().ok());
        match (key, upstream) {
            (None, Upstream::Http1(_)) => {
                Translation::AddKey(STANDARD.encode(rand::random::<[u8; 16]>()))
            }
            (Some(key), Upstream::Http2(stream)) if stream.hop.is_none() => {
                Translation::AddAccept(key.to_owned())
            }
            _ => Translation::None,
        }
    }

    pub(super) fn prepare(&self, head: &mut RequestHead) {
        match self {
            Translation::None => {}
            Translation::AddKey(key) => set(&mut head.headers, KEY, Some(key)),
            Translation::AddAccept(_) => set(&mut head.headers, KEY, None),
        }
    }

    /// Undoes [`prepare`](Self::prepare).
    pub(super) fn take_back(&self, head: &mut RequestHead) {
        match self {
            Translation::None => {}
            Translation::AddKey(_) => set(&mut head.headers, KEY, None),
            Translation::AddAccept(key) => set(&mut head.headers, KEY, Some(key)),
        }
    }

    /// False when the server proved nothing.
    pub(super) fn finish(&self, response: &mut ResponseHead) -> bool {
        match self {
            Translation::None => true,
            Translation::AddAccept(key) => {
                set(&mut response.headers, ACCEPT, Some(&accept(key)));
                true
            }
            Translation::AddKey(key) => {
                let proof = response.headers.remove(ACCEPT);
                proof.is_some_and(|proof| proof.as_bytes() == accept(key).as_bytes())
            }
        }
    }
}

/// RFC 6455 4.2.2.
fn accept(key: &str) -> String {
    STANDARD.encode(digest(
        &SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{GUID}").as_bytes(),
    ))
}

/// Whether this client reads a 2xx as the switch.
pub(super) fn means_switch(responder: Option<&Responder<'_>>, on_hop: bool) -> bool {
    !on_hop && matches!(responder, Some(Responder::Http2 { .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_own_example() {
        assert_eq!(
            accept("dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
    }
}
