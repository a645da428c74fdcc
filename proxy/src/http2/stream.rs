//! One stream's state (RFC 9113 5.1), and the place where all of a connection's are kept.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use bytes::Bytes;

use super::frame::ErrorCode;
use crate::model::{Fields, ResponseHead};

/// Data up to this size is copied out of the buffer that was read into, so that little data never
/// keeps a large buffer alive.
pub(super) const COPY_MAX: usize = 2 * 1024;

/// Which stream; stays unlike every other for as long as its connection lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub(super) slot: usize,
    pub(super) id: u32,
}

impl Key {
    /// A small number that no other stream has at the same time.
    pub fn slot(self) -> usize {
        self.slot
    }
}

/// What came in on a stream.
#[derive(Debug)]
pub enum Piece {
    /// A response's head; the last one is final.
    Head(ResponseHead),
    Data(Bytes),
    /// The end, with the trailer fields.
    Trailers(Fields),
}

impl Piece {
    /// Octets that count against the windows.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Head(_) | Self::Trailers(_) => 0,
        }
    }
}

/// Why a stream ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stream ended with {code}{}", if *.remote { ", sent by the peer" } else { "" })]
pub struct Failure {
    pub code: ErrorCode,
    pub remote: bool,
    /// The peer provably handed nothing of it on (RFC 9113 8.7).
    pub unprocessed: bool,
    /// The whole connection ended, without a word on this stream.
    pub connection_lost: bool,
}

impl Failure {
    /// We ended the stream.
    pub(super) fn ours(code: ErrorCode) -> Self {
        Self {
            code,
            remote: false,
            unprocessed: false,
            connection_lost: false,
        }
    }
}

/// What a sender waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waiting {
    Nothing,
    /// The stream's own window.
    Stream,
    /// The connection's window, or room in its output; the stream is in the queue for it.
    Connection,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub id: u32,
    /// It was opened by the peer.
    pub is_remote: bool,
    pub pieces: VecDeque<Piece>,
    /// Where its head stands in all that is sent, if we opened it.
    pub head_at: u64,
    /// The final head came.
    pub has_head: bool,
    pub received_end: bool,
    pub sent_end: bool,
    pub failed: Option<Failure>,
    /// No frame belongs to it any more.
    pub closed: bool,
    pub receiver_held: bool,
    pub sender_held: bool,
    /// What the peer may still send.
    pub receive_window: i64,
    /// What was taken and not announced yet.
    pub taken: u32,
    pub send_window: i64,
    pub waiting: Waiting,
    /// What the Content-Length says is still to come.
    pub content_left: Option<u64>,
    /// The answer to it has no content, whatever its Content-Length says (RFC 9110 9.3.2).
    pub is_head_request: bool,
    /// A CONNECT: its bytes are nobody's content.
    pub is_tunnel: bool,
    /// The protocol that the request asked for.
    pub upgrade: Option<String>,
}

impl Stream {
    fn new() -> Self {
        Self {
            id: 0,
            is_remote: false,
            pieces: VecDeque::new(),
            head_at: 0,
            has_head: false,
            received_end: false,
            sent_end: false,
            failed: None,
            closed: true,
            receiver_held: false,
            sender_held: false,
            receive_window: 0,
            taken: 0,
            send_window: 0,
            waiting: Waiting::Nothing,
            content_left: None,
            is_head_request: false,
            is_tunnel: false,
            upgrade: None,
        }
    }

    /// Makes a used slot ready for its next stream; what it allocated stays.
    fn reuse(&mut self) {
        let mut pieces = std::mem::take(&mut self.pieces);
        pieces.clear();
        *self = Self {
            pieces,
            ..Self::new()
        };
    }

    /// Keeps a copy of data, joined to what waits if that is as little: frames of one octet each must
    /// not cost a piece each, which is a hundred times what the windows count.
    pub fn push_copy(&mut self, data: &[u8]) {
        if let Some(Piece::Data(last)) = self.pieces.back_mut()
            && last.len() <= COPY_MAX
        {
            match std::mem::take(last).try_into_mut() {
                Ok(mut joined) => {
                    joined.extend_from_slice(data);
                    *last = joined.freeze();
                    return;
                }
                Err(shared) => *last = shared,
            }
        }
        let data = Bytes::copy_from_slice(data);
        self.pieces.push_back(Piece::Data(data));
    }

    pub fn is_held(&self) -> bool {
        self.receiver_held || self.sender_held
    }
}

/// All streams of a connection. A slot is used again once nobody holds its stream.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Stream>,
    free: Vec<usize>,
    by_id: HashMap<u32, usize, BuildHasherDefault<IdHasher>>,
}

impl Streams {
    /// Opens a stream.
    pub fn insert(&mut self, id: u32) -> (Key, &mut Stream) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Stream::new());
            self.slots.len() - 1
        });
        self.by_id.insert(id, slot);
        let stream = &mut self.slots[slot];
        stream.id = id;
        stream.closed = false;
        (Key { slot, id }, stream)
    }

    /// The stream that frames with this identifier belong to.
    pub fn find(&self, id: u32) -> Option<Key> {
        let slot = *self.by_id.get(&id)?;
        Some(Key { slot, id })
    }

    pub fn get(&self, key: Key) -> Option<&Stream> {
        self.slots
            .get(key.slot)
            .filter(|stream| stream.id == key.id)
    }

    pub fn get_mut(&mut self, key: Key) -> Option<&mut Stream> {
        self.slots
            .get_mut(key.slot)
            .filter(|stream| stream.id == key.id)
    }

    /// Frames no longer reach the stream; what came before can still be taken.
    pub fn close(&mut self, key: Key) {
        self.by_id.remove(&key.id);
        if let Some(stream) = self.get_mut(key) {
            stream.closed = true;
        }
        self.free_if_done(key);
    }

    /// Gives the slot back once the stream is closed and nobody holds it.
    pub fn free_if_done(&mut self, key: Key) {
        if let Some(stream) = self.get_mut(key)
            && stream.closed
            && !stream.is_held()
        {
            stream.reuse();
            self.free.push(key.slot);
        }
    }

    /// Every stream that frames may still reach.
    pub fn open_keys(&self) -> Vec<Key> {
        let open = self.by_id.iter();
        open.map(|(id, slot)| Key {
            slot: *slot,
            id: *id,
        })
        .collect()
    }

    pub fn open_count(&self) -> usize {
        self.by_id.len()
    }

    /// Streams that are open, or closed and still held.
    pub fn held_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// Identifiers are dense and chosen by the peer only as far as they grow, so a multiplication
/// spreads them well enough.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
