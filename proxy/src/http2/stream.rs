//! One stream's state (RFC 9113 5.1), and the place where all of a connection's are kept.

use std::cell::RefCell;
use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::frame::ErrorCode;
use crate::model::{Chunks, Fields, ResponseHead};

/// Data up to this size is copied out of the buffer that was read into, so that little data never
/// keeps a large buffer alive.
pub(super) const COPY_MAX: usize = 2 * 1024;

/// Copies share chunks of this size, which all of a thread's connections have in common: most go on in the same turn,
/// and then there is nothing to allocate for the next ones. A stream's pieces that wait keep at most one chunk for each
/// [`COPY_MAX`] octets, and a chunk is less than the buffers that larger pieces are slices of.
const COPIES_CHUNK: usize = 8 * 1024;

thread_local! {
    static COPIES: RefCell<Chunks> = RefCell::new(Chunks::new(COPIES_CHUNK));
}

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
    /// What the peer may send before anything of it is taken, once it knows all that we said.
    pub window: u32,
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
            window: 0,
            taken: 0,
            send_window: 0,
            waiting: Waiting::Nothing,
            content_left: None,
            is_head_request: false,
            is_tunnel: false,
            upgrade: None,
        }
    }

    /// Makes a used slot ready for its next stream; what it allocated stays. Field by field, as nothing has to be
    /// dropped then that holds nothing.
    fn reuse(&mut self) {
        let Self {
            id,
            is_remote,
            pieces,
            head_at,
            has_head,
            received_end,
            sent_end,
            failed,
            closed,
            receiver_held,
            sender_held,
            receive_window,
            window,
            taken,
            send_window,
            waiting,
            content_left,
            is_head_request,
            is_tunnel,
            upgrade,
        } = self;
        *id = 0;
        *is_remote = false;
        pieces.clear();
        *head_at = 0;
        *has_head = false;
        *received_end = false;
        *sent_end = false;
        *failed = None;
        *closed = true;
        *receiver_held = false;
        *sender_held = false;
        *receive_window = 0;
        *window = 0;
        *taken = 0;
        *send_window = 0;
        *waiting = Waiting::Nothing;
        *content_left = None;
        *is_head_request = false;
        *is_tunnel = false;
        *upgrade = None;
    }

    /// Keeps a copy of data, joined to what waits if that is as little: frames of one octet each must
    /// not cost a piece each, which is a hundred times what the windows count.
    pub fn push_copy(&mut self, data: &[u8]) {
        if let Some(Piece::Data(last)) = self.pieces.back_mut()
            && last.len() <= COPY_MAX
        {
            let mut joined = match std::mem::take(last).try_into_mut() {
                Ok(own) => own,
                // What waits leaves the chunk that it shares.
                Err(shared) => BytesMut::from(&shared[..]),
            };
            joined.extend_from_slice(data);
            *last = joined.freeze();
            return;
        }
        let data = COPIES.with_borrow_mut(|copies| copies.copy(data));
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
    by_id: Ids,
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
        let slot = self.by_id.get(id)?;
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
        self.by_id.remove(key.id);
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
        open.map(|(id, slot)| Key { slot, id }).collect()
    }

    pub fn open_count(&self) -> usize {
        self.by_id.len
    }

    /// Streams that are open, or closed and still held.
    pub fn held_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

/// The slots of open streams by identifier. Those of a connection grow by two and are open for about as long as each
/// other, so their low bits say where they stand, and mostly nobody else stands there. Where two meet, who is further
/// from its own place keeps the nearer one, so that a search and a removal end early. A peer that leaves out
/// identifiers so that they meet gets a search of as many places as it may have streams.
#[derive(Debug, Default)]
struct Ids {
    /// A power of two of places, at most half of which are taken; a free one has no identifier, which is 0.
    places: Vec<(u32, u32)>,
    len: usize,
}

/// Places of the first stream on.
const PLACES_MIN: usize = 16;

impl Ids {
    /// How far from its own place a stream stands that is here.
    fn distance(&self, id: u32, at: usize) -> usize {
        at.wrapping_sub((id / 2) as usize) & (self.places.len() - 1)
    }

    /// Where the stream stands.
    fn find(&self, id: u32) -> Option<usize> {
        let mask = self.places.len().checked_sub(1)?;
        let mut at = (id / 2) as usize & mask;
        loop {
            let known = self.places[at].0;
            if known == id || known == 0 {
                return (known != 0).then_some(at);
            }
            if self.distance(known, at) < self.distance(id, at) {
                return None;
            }
            at = (at + 1) & mask;
        }
    }

    fn get(&self, id: u32) -> Option<usize> {
        let at = self.find(id)?;
        Some(self.places[at].1 as usize)
    }

    fn insert(&mut self, id: u32, slot: usize) {
        if let Some(at) = self.find(id) {
            self.places[at].1 = slot as u32;
            return;
        }
        if 2 * (self.len + 1) > self.places.len() {
            let size = PLACES_MIN.max(2 * self.places.len());
            let before = std::mem::replace(&mut self.places, vec![(0, 0); size]);
            for taken in before.into_iter().filter(|(id, _)| *id != 0) {
                self.place(taken);
            }
        }
        self.len += 1;
        self.place((id, slot as u32));
    }

    /// Finds a place for a stream that has none, and another one for whoever has to leave theirs.
    fn place(&mut self, mut taken: (u32, u32)) {
        let mask = self.places.len() - 1;
        let mut at = (taken.0 / 2) as usize & mask;
        while self.places[at].0 != 0 {
            if self.distance(self.places[at].0, at) < self.distance(taken.0, at) {
                std::mem::swap(&mut self.places[at], &mut taken);
            }
            at = (at + 1) & mask;
        }
        self.places[at] = taken;
    }

    fn remove(&mut self, id: u32) {
        let Some(mut at) = self.find(id) else {
            return;
        };
        self.len -= 1;
        loop {
            // Whoever comes next moves up, unless they stand where they belong.
            let next = (at + 1) & (self.places.len() - 1);
            let taken = self.places[next];
            if taken.0 == 0 || self.distance(taken.0, next) == 0 {
                break;
            }
            self.places[at] = taken;
            at = next;
        }
        self.places[at] = (0, 0);
    }

    fn iter(&self) -> impl Iterator<Item = (u32, usize)> {
        let taken = self.places.iter().filter(|(id, _)| *id != 0);
        taken.map(|(id, slot)| (*id, *slot as usize))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As a map does it, also where identifiers meet.
        #[test]
        fn ids_are_found(steps in prop::collection::vec((0..40u32, 0..3u32, any::<bool>()), 0..400)) {
            let (mut ids, mut expect) = (Ids::default(), HashMap::new());
            for (number, (low, high, adds)) in steps.into_iter().enumerate() {
                let id = 2 * (low + 64 * high) + 1;
                if adds {
                    ids.insert(id, number);
                    expect.insert(id, number);
                } else {
                    ids.remove(id);
                    expect.remove(&id);
                }
                prop_assert_eq!(ids.len, expect.len());
                prop_assert_eq!(ids.get(id), expect.get(&id).copied());
                prop_assert_eq!(ids.iter().collect::<HashMap<_, _>>(), expect.clone());
            }
            for id in 0..400 {
                prop_assert_eq!(ids.get(id), expect.get(&id).copied());
            }
        }
    }
}
