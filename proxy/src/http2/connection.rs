//! One HTTP/2 connection as a state machine (RFC 9113): bytes in, notices out; heads and data in,
//! bytes out. It knows no socket, no task and no clock. What comes in is kept for whoever holds the
//! stream, within the windows; what goes out waits in [`Output`], within [`OUTPUT_MAX`].

use std::collections::VecDeque;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use super::budget::Budget;
use super::fields::Refused;
use super::frame::{self, ErrorCode, FrameHeader, HEADER_BYTES, Kind, PREFACE, STREAM_MASK, flag};
use super::hpack::Encoder;
use super::output::Output;
use super::receive::Incomplete;
use super::settings::{PeerSettings, put_settings};
use super::stream::{Failure, Key, Piece, Stream, Streams, Waiting};
use super::{Limits, Role};
use crate::model::{Fields, RequestHead};

/// Data is taken from senders until this much waits to be sent; then they wait.
pub const OUTPUT_MAX: usize = 256 * 1024;
/// When this much waits to be sent, new requests are refused: responses without content end their
/// streams at once, so nothing else limits how many of them a peer can make us hold (RFC 9113 10.5).
pub(super) const OUTPUT_REFUSES: usize = 2 * OUTPUT_MAX;
/// Content beyond this comes in frames of [`RECORD_PAYLOAD`].
const BULK: usize = 64 * 1024;
/// With its frame's header this fills a TLS record to the byte, so that the receiver of bulk finds a
/// whole frame in each record and moves none of it.
pub const RECORD_PAYLOAD: usize = 16_384 - 9;
/// Streams that we reset lately, whose frames may still be on their way (RFC 9113 5.4.2); more when
/// more may be open at once.
const RESETS_REMEMBERED: usize = 256;

/// What happened to a stream, for whoever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    pub key: Key,
    /// Something can be taken, or the stream ended.
    pub readable: bool,
    /// Something can be sent, or the stream ended.
    pub writable: bool,
}

/// A request that the peer sent.
#[derive(Debug)]
pub struct Incoming {
    pub key: Key,
    /// Its head, or why it is answered with an error right away.
    pub head: Result<RequestHead, Refused>,
}

/// What there is to take of a stream.
#[derive(Debug)]
pub enum Taken {
    Piece(Piece),
    /// Everything was taken.
    End,
    Failed(Failure),
    /// Nothing yet.
    Pending,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {why}")]
pub struct Ended {
    pub code: ErrorCode,
    pub why: &'static str,
}

/// How far a connection is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Going {
    Not,
    /// GOAWAY was announced; streams that were on their way are still taken.
    Announced,
    /// Streams beyond this one are ignored (RFC 9113 6.8).
    Last(u32),
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    pub(super) role: Role,
    pub(super) limits: Limits,
    pub(super) output: Output,
    pub(super) streams: Streams,
    pub(super) notices: VecDeque<Notice>,
    pub(super) incoming: VecDeque<Incoming>,
    pub(super) incomplete: Incomplete,
    pub(super) decoder: super::hpack::Decoder,
    pub(super) encoder: Encoder,
    pub(super) peer: PeerSettings,
    pub(super) has_peer_settings: bool,
    /// The peer has said that it knows our SETTINGS.
    pub(super) is_acknowledged: bool,
    /// When the peer was first heard, which is when our SETTINGS leave.
    pub(super) heard: Option<Instant>,
    /// The window of a new stream that our SETTINGS announced. It grows to that of `limits` with its first update.
    pub(super) announced_window: u32,
    /// The identifier of the next stream that we open.
    pub(super) next_id: u32,
    /// The highest identifier that the peer opened.
    pub(super) last_remote: u32,
    /// The highest one that the peer had opened before it passed over one or more, and the one it opened then.
    pub(super) passed_over: (u32, u32),
    pub(super) remote_open: u32,
    pub(super) local_open: u32,
    pub(super) send_window: i64,
    pub(super) receive_window: i64,
    /// Bytes that were taken and not announced yet.
    pub(super) taken: u32,
    /// Streams that wait for the connection's window or for room in the output.
    pub(super) blocked: VecDeque<Key>,
    pub(super) resets: VecDeque<u32>,
    pub(super) going: Going,
    /// The peer's GOAWAY: no new streams.
    pub(super) is_peer_going: bool,
    pub(super) ended: Option<Ended>,
    /// Bytes of answers since the output was last empty.
    pub(super) replies: usize,
    pub(super) resets_budget: Budget,
    pub(super) control_budget: Budget,
    pub(super) pings_sent: u64,
    pub(super) pings_answered: u64,
}

impl Connection {
    /// A connection that was just made; its first bytes are in the output.
    pub fn new(role: Role, limits: Limits) -> Self {
        let mut output = Output::default();
        let out = output.frame();
        if role == Role::Client {
            out.put_slice(PREFACE);
        }
        put_settings(out, role, &limits);
        let initial = PeerSettings::default();
        let window = i64::from(initial.initial_window_size);
        let more = i64::from(limits.connection_window) - window;
        if let Some(more) = u32::try_from(more).ok().filter(|more| *more > 0) {
            frame::put_window_update(out, 0, more);
        }
        Self {
            role,
            output,
            streams: Streams::default(),
            notices: VecDeque::new(),
            incoming: VecDeque::new(),
            incomplete: Incomplete::new(role),
            decoder: super::hpack::Decoder::new(4096),
            encoder: Encoder::new(),
            peer: initial,
            has_peer_settings: false,
            is_acknowledged: false,
            heard: None,
            announced_window: limits.stream_window,
            next_id: 1,
            last_remote: 0,
            passed_over: (0, 0),
            remote_open: 0,
            local_open: 0,
            send_window: window,
            receive_window: i64::from(limits.connection_window).max(window),
            taken: 0,
            blocked: VecDeque::new(),
            resets: VecDeque::new(),
            going: Going::Not,
            is_peer_going: false,
            ended: None,
            replies: 0,
            resets_budget: Budget::new(limits.resets, limits.resets),
            control_budget: Budget::new(limits.control_frames, limits.control_frames),
            pings_sent: 0,
            pings_answered: 0,
            limits,
        }
    }

    /// The bytes to be sent, in order.
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Bytes were sent.
    pub fn sent(&mut self, bytes: usize) {
        self.output.advance(bytes);
        if self.output.is_empty() {
            self.replies = 0;
        }
        if self.output.len() < OUTPUT_MAX / 2 && self.send_window > 0 {
            self.wake_blocked();
        }
    }

    /// The next thing that happened.
    pub fn notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// The next request.
    pub fn accept(&mut self) -> Option<Incoming> {
        self.incoming.pop_front()
    }

    /// How many more streams may be opened now.
    pub fn room(&self) -> u32 {
        if self.is_closing() {
            return 0;
        }
        self.peer
            .max_concurrent_streams
            .saturating_sub(self.local_open)
    }

    /// Whether no stream can be opened any more, now and later.
    pub fn is_closing(&self) -> bool {
        self.is_peer_going || self.ended.is_some() || self.next_id > STREAM_MASK
    }

    /// Whether the peer's first SETTINGS came.
    pub fn has_begun(&self) -> bool {
        self.has_peer_settings
    }

    /// Whether any stream is open.
    pub fn has_streams(&self) -> bool {
        self.streams.open_count() > 0
    }

    /// Whether nothing will ever happen here again, but for what is left to be sent.
    pub fn is_over(&self) -> bool {
        // A client's GOAWAY only says that it takes no pushes (RFC 9113 6.8).
        let is_peer_going = self.is_peer_going && self.role == Role::Client;
        let is_going = is_peer_going || matches!(self.going, Going::Last(_));
        self.ended.is_some() || (is_going && !self.has_streams())
    }

    /// Why the connection broke, if it did.
    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    /// Takes what came in on a stream. What is taken, the peer may send anew.
    pub fn take(&mut self, key: Key) -> Taken {
        let Some(stream) = self.streams.get_mut(key) else {
            return Taken::End;
        };
        let Some(piece) = stream.pieces.pop_front() else {
            return match stream.failed {
                _ if stream.received_end => Taken::End,
                Some(failure) => Taken::Failed(failure),
                None => Taken::Pending,
            };
        };
        if let Piece::Data(data) = &piece {
            // A piece is never longer than a read, so far from 2^32.
            let length = data.len() as u32;
            self.release_stream(key, length);
            self.release(length);
        }
        Taken::Piece(piece)
    }

    /// Whether everything has come in, taken or not.
    #[cfg(test)]
    pub(super) fn has_received_all(&self, key: Key) -> bool {
        let stream = self.streams.get(key);
        stream.is_none_or(|stream| stream.received_end)
    }

    /// Whether everything has been taken.
    pub fn is_drained(&self, key: Key) -> bool {
        let stream = self.streams.get(key);
        stream.is_none_or(|stream| stream.received_end && stream.pieces.is_empty())
    }

    /// Why the stream ended before its time, if it did.
    pub fn failure(&self, key: Key) -> Option<Failure> {
        self.streams.get(key)?.failed
    }

    /// What the peer may send on a stream that is opened now: until it has acknowledged our SETTINGS
    /// it may go by the protocol's initial values (RFC 9113 6.5.3).
    pub(super) fn initial_receive_window(&self) -> i64 {
        let ours = i64::from(self.announced_window);
        if self.is_acknowledged {
            return ours;
        }
        ours.max(i64::from(PeerSettings::default().initial_window_size))
    }

    /// Gives a stream's window back.
    pub(super) fn release_stream(&mut self, key: Key, length: u32) {
        let stream = self.streams.get_mut(key);
        let Some(stream) = stream.filter(|stream| !stream.received_end && !stream.closed) else {
            return;
        };
        stream.taken += length;
        let window = self.limits.stream_window;
        let increment = stream.taken + window.saturating_sub(stream.window);
        if increment >= window / 2 {
            stream.taken = 0;
            stream.window = window;
            stream.receive_window += i64::from(increment);
            frame::put_window_update(self.output.frame(), key.id, increment);
        }
    }

    /// Gives the connection's window back.
    pub(super) fn release(&mut self, length: u32) {
        self.taken += length;
        if self.taken >= self.limits.connection_window / 2 && self.ended.is_none() {
            let increment = std::mem::take(&mut self.taken);
            self.receive_window += i64::from(increment);
            frame::put_window_update(self.output.frame(), 0, increment);
        }
    }

    /// Hands on as much of `data` as the peer and our own output have room for. When some is left,
    /// a notice tells when to come again.
    pub fn send_data(&mut self, key: Key, data: &mut Bytes) -> Result<(), Failure> {
        let stream = sendable(&mut self.streams, key)?;
        while !data.is_empty() {
            let own = usize::try_from(stream.send_window).unwrap_or(0);
            if own == 0 {
                // Whoever stands in the queue already gets to know its own window in its turn.
                if stream.waiting != Waiting::Connection {
                    stream.waiting = Waiting::Stream;
                }
                return Ok(());
            }
            let shared = usize::try_from(self.send_window).unwrap_or(0);
            let room = shared.min(OUTPUT_MAX.saturating_sub(self.output.len()));
            if room == 0 {
                if stream.waiting != Waiting::Connection {
                    stream.waiting = Waiting::Connection;
                    self.blocked.push_back(key);
                    self.forget_blocked();
                }
                return Ok(());
            }
            let length = data.len().min(own).min(room);
            let most = if data.len() > BULK {
                RECORD_PAYLOAD
            } else {
                self.peer.max_frame_size as usize
            };
            let length = length.min(most);
            stream.send_window -= length as i64;
            self.send_window -= length as i64;
            put_data_header(&mut self.output, key.id, length as u32, 0);
            self.output.data(key.id, data.split_to(length));
        }
        Ok(())
    }

    /// Ends what we send on a stream.
    pub fn send_end(&mut self, key: Key) -> Result<(), Failure> {
        sendable(&mut self.streams, key)?;
        if !self.output.end_last_data(key.id) {
            put_data_header(&mut self.output, key.id, 0, flag::END_STREAM);
        }
        self.ended_sending(key);
        Ok(())
    }

    /// Writes a header block as HEADERS and as many CONTINUATION as the peer's frame size asks for
    /// (RFC 9113 6.2, 6.10).
    pub(super) fn put_block(
        &mut self,
        id: u32,
        end: bool,
        fill: impl FnOnce(&mut Encoder, &mut BytesMut),
    ) {
        let end_stream = if end { flag::END_STREAM } else { 0 };
        let out = self.output.frame();
        let start = out.len();
        out.put_bytes(0, HEADER_BYTES);
        self.encoder.begin(out);
        fill(&mut self.encoder, out);
        let length = out.len() - start - HEADER_BYTES;
        let most = self.peer.max_frame_size as usize;
        if length <= most {
            let header = FrameHeader {
                length: length as u32,
                kind: Kind::Headers,
                flags: flag::END_HEADERS | end_stream,
                stream: id,
            };
            header.write(&mut out[start..]);
            return;
        }
        let block = out.split_off(start + HEADER_BYTES);
        out.truncate(start);
        let mut chunks = block.chunks(most).peekable();
        let mut kind = Kind::Headers;
        let mut flags = end_stream;
        while let Some(chunk) = chunks.next() {
            if chunks.peek().is_none() {
                flags |= flag::END_HEADERS;
            }
            frame::put_header(out, chunk.len() as u32, kind, flags, id);
            out.put_slice(chunk);
            kind = Kind::Continuation;
            flags = 0;
        }
    }

    /// Notes that our side of a stream is complete.
    pub(super) fn ended_sending(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.sent_end = true;
        if stream.received_end {
            self.resets_budget.refund();
            self.close(key);
        } else if !stream.receiver_held {
            self.abandon(key);
        }
    }

    /// No frame reaches the stream from here on.
    pub(super) fn close(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.closed) else {
            return;
        };
        let open = if stream.is_remote {
            &mut self.remote_open
        } else {
            &mut self.local_open
        };
        *open -= 1;
        self.streams.close(key);
    }

    /// Ends a stream before its time and tells the peer.
    pub fn reset(&mut self, key: Key, code: ErrorCode) {
        if self.fail_stream(key, Failure::ours(code)) {
            self.put_reset(key.id, code);
        }
    }

    /// Writes RST_STREAM, and remembers it, as frames of the stream may be on their way.
    pub(super) fn put_reset(&mut self, id: u32, code: ErrorCode) {
        let most = RESETS_REMEMBERED.max(self.limits.streams as usize);
        if self.resets.len() >= most {
            self.resets.pop_front();
        }
        self.resets.push_back(id);
        self.count_reply(13);
        frame::put_reset(self.output.frame(), id, code);
    }

    /// Whoever waits on a stream learns why there is no more; false when it was over already.
    pub(super) fn fail_stream(&mut self, key: Key, failure: Failure) -> bool {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.closed) else {
            return false;
        };
        stream.failed = Some(failure);
        if stream.is_held() {
            self.notices.push_back(Notice {
                key,
                readable: true,
                writable: true,
            });
        }
        self.close(key);
        true
    }

    /// Nobody takes what comes in on this stream any more.
    pub fn drop_receiver(&mut self, key: Key) {
        let Some(stream) = self.streams.get_mut(key) else {
            return;
        };
        stream.receiver_held = false;
        if !stream.pieces.is_empty() {
            let unread: usize = stream.pieces.drain(..).map(|piece| piece.len()).sum();
            // As much as the windows allowed, so far from 2^32.
            self.release(unread as u32);
        }
        self.let_go(key);
    }

    /// Nobody sends on this stream any more.
    pub fn drop_sender(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key) {
            stream.sender_held = false;
            self.let_go(key);
        }
    }

    fn let_go(&mut self, key: Key) {
        let Some(stream) = self.streams.get(key).filter(|stream| !stream.is_held()) else {
            return;
        };
        if !stream.closed {
            self.abandon(key);
        }
        self.streams.free_if_done(key);
    }

    /// Resets a stream that nobody wants any more. RFC 9113 8.1: a server that has answered tells
    /// with NO_ERROR that it needs no more of the request.
    fn abandon(&mut self, key: Key) {
        let Some(stream) = self.streams.get(key).filter(|stream| !stream.closed) else {
            return;
        };
        let answered = self.role == Role::Server && stream.sent_end;
        if answered && stream.sender_held {
            return;
        }
        let code = if answered {
            ErrorCode::NO_ERROR
        } else {
            ErrorCode::CANCEL
        };
        self.reset(key, code);
    }

    /// Those that wait for the connection get their turn, in the order in which they came.
    pub(super) fn wake_blocked(&mut self) {
        for key in self.blocked.drain(..) {
            if let Some(stream) = self.streams.get_mut(key)
                && stream.waiting == Waiting::Connection
            {
                stream.waiting = Waiting::Nothing;
                self.notices.push_back(Notice {
                    key,
                    readable: false,
                    writable: true,
                });
            }
        }
    }

    /// Streams that are gone don't gather in the queue, however long the peer keeps its window shut.
    fn forget_blocked(&mut self) {
        if self.blocked.len() > 2 * self.streams.held_count() {
            let streams = &self.streams;
            self.blocked.retain(|key| streams.get(*key).is_some());
        }
    }

    /// Sends a trailer section, which ends our side of the stream.
    pub fn send_trailers(&mut self, key: Key, trailers: &Fields) -> Result<(), Failure> {
        sendable(&mut self.streams, key)?;
        self.put_block(key.id, true, |encoder, out| {
            for (name, value) in trailers {
                encoder.field(out, name, value);
            }
        });
        self.ended_sending(key);
        Ok(())
    }
}

/// The stream, if anything can still be sent on it.
pub(super) fn sendable(streams: &mut Streams, key: Key) -> Result<&mut Stream, Failure> {
    let gone = Failure::ours(ErrorCode::STREAM_CLOSED);
    match streams.get_mut(key) {
        None => Err(gone),
        Some(stream) => match stream.failed {
            Some(failure) => Err(failure),
            None if stream.sent_end || stream.closed => Err(gone),
            None => Ok(stream),
        },
    }
}

fn put_data_header(output: &mut Output, id: u32, length: u32, flags: u8) {
    frame::put_header(output.frame(), length, Kind::Data, flags, id);
}
