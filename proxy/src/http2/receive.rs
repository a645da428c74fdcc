//! What comes in (RFC 9113 4 to 6): frames one after the other, each checked before it has an
//! effect.

use std::time::Instant;

use bytes::{Buf, BytesMut};

use super::Role;
use super::blocks::Block;
use super::connection::{Connection, Ended, Going, Notice};
use super::frame::{self, ErrorCode, FrameHeader, HEADER_BYTES, Kind, PREFACE, flag};
use super::stream::{COPY_MAX, Failure, Key, Piece};

/// What was begun and not yet received whole.
#[derive(Debug)]
pub(super) struct Incomplete {
    /// Octets of the client's preface that are still to come.
    preface: &'static [u8],
    data: Option<DataLeft>,
    pub(super) block: Option<Block>,
}

/// A DATA frame whose payload is on its way.
#[derive(Debug)]
struct DataLeft {
    key: Option<Key>,
    data: u32,
    padding: u32,
    end: bool,
}

impl Incomplete {
    pub fn new(role: Role) -> Self {
        let preface = match role {
            Role::Server => PREFACE,
            Role::Client => &[],
        };
        Self {
            preface,
            data: None,
            block: None,
        }
    }
}

impl Connection {
    /// Takes bytes in; what is no whole frame yet stays in `input`. The error is why the connection is
    /// over; what is left in the output tells the peer.
    pub fn receive(&mut self, input: &mut BytesMut, now: Instant) -> Result<(), Ended> {
        loop {
            if let Some(ended) = self.ended {
                return Err(ended);
            }
            if let Some(left) = self.incomplete.data.take() {
                if input.is_empty() && left.data + left.padding > 0 {
                    self.incomplete.data = Some(left);
                    return Ok(());
                }
                self.receive_data(left, input, now)?;
                continue;
            }
            if !self.incomplete.preface.is_empty() {
                self.heard.get_or_insert(now);
                self.receive_preface(input)?;
                if !self.incomplete.preface.is_empty() {
                    return Ok(());
                }
            }
            let Some(header) = FrameHeader::parse(input) else {
                return Ok(());
            };
            self.check_header(header)?;
            let whole = HEADER_BYTES + header.length as usize;
            if header.kind == Kind::Data {
                let padded = usize::from(header.has(flag::PADDED) && header.length > 0);
                let Some(padding) = input.get(HEADER_BYTES..HEADER_BYTES + padded) else {
                    return Ok(());
                };
                let padding = padding.first().copied();
                input.advance(HEADER_BYTES + padded);
                self.begin_data(header, padding, now)?;
            } else if let Some(payload) = input.get(HEADER_BYTES..whole) {
                self.receive_frame(header, payload, now)?;
                input.advance(whole);
                self.check_replies()?;
            } else {
                return Ok(());
            }
        }
    }

    fn receive_preface(&mut self, input: &mut BytesMut) -> Result<(), Ended> {
        let expected = self.incomplete.preface;
        let length = expected.len().min(input.len());
        if input[..length] != expected[..length] {
            return Err(self.end(ErrorCode::PROTOCOL_ERROR, "the preface is wrong"));
        }
        input.advance(length);
        self.incomplete.preface = &expected[length..];
        Ok(())
    }

    /// What holds for frames of every type.
    fn check_header(&mut self, header: FrameHeader) -> Result<(), Ended> {
        let FrameHeader {
            length,
            kind,
            stream,
            ..
        } = header;
        if length > frame::PAYLOAD_MIN {
            return Err(self.end(
                ErrorCode::FRAME_SIZE_ERROR,
                "a frame above the largest size",
            ));
        }
        if !self.has_peer_settings && (kind != Kind::Settings || header.has(flag::ACK)) {
            return Err(self.end(ErrorCode::PROTOCOL_ERROR, "the first frame is not SETTINGS"));
        }
        let continued = self.incomplete.block.as_ref().map(|block| block.stream);
        match (continued, kind) {
            (None, Kind::Continuation) => {
                return Err(self.end(ErrorCode::PROTOCOL_ERROR, "CONTINUATION of nothing"));
            }
            (Some(of), Kind::Continuation) if of == stream => {}
            (Some(_), _) => {
                return Err(self.end(ErrorCode::PROTOCOL_ERROR, "a header block was interrupted"));
            }
            (None, _) => {}
        }
        let of_connection = match kind {
            Kind::Settings | Kind::Ping | Kind::GoAway => true,
            Kind::WindowUpdate | Kind::Unknown(_) => return Ok(()),
            _ => false,
        };
        if of_connection != (stream == 0) {
            return Err(self.end(ErrorCode::PROTOCOL_ERROR, "a frame on the wrong stream"));
        }
        Ok(())
    }

    fn receive_frame(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), Ended> {
        match header.kind {
            Kind::Headers => self.receive_headers(header, payload, now),
            Kind::Continuation => self.receive_continuation(header, payload, now),
            Kind::Reset => self.receive_reset(header, payload, now),
            Kind::Settings => self.receive_settings(header, payload, now),
            Kind::Ping => self.receive_ping(header, payload, now),
            Kind::GoAway => self.receive_go_away(payload, now),
            Kind::WindowUpdate => self.receive_window_update(header.stream, payload, now),
            Kind::Priority => {
                self.pay_control(now)?;
                let code = ErrorCode::FRAME_SIZE_ERROR;
                match payload.len() {
                    5 => Ok(()),
                    // RFC 9113 6.4: an idle stream must not be reset.
                    _ if self.is_idle(header.stream) => {
                        Err(self.end(code, "PRIORITY of a wrong size"))
                    }
                    _ => self.stream_error(header.stream, code, now),
                }
            }
            Kind::PushPromise => Err(self.end(
                ErrorCode::PROTOCOL_ERROR,
                "PUSH_PROMISE, which is not allowed",
            )),
            // RFC 9113 5.5.
            Kind::Unknown(_) => self.pay_control(now),
            Kind::Data => Ok(()),
        }
    }

    /// Checks a DATA frame's header and its windows (RFC 9113 6.1, 6.9).
    fn begin_data(
        &mut self,
        header: FrameHeader,
        padding: Option<u8>,
        now: Instant,
    ) -> Result<(), Ended> {
        let id = header.stream;
        let length = header.length;
        let padding = padding.map(u32::from);
        let overhead = padding.map_or(0, |padding| padding + 1);
        if header.has(flag::PADDED) && length == 0 {
            return Err(self.end(
                ErrorCode::FRAME_SIZE_ERROR,
                "no room for the padding's length",
            ));
        }
        if overhead > length {
            return Err(self.end(ErrorCode::PROTOCOL_ERROR, "more padding than payload"));
        }
        self.check_not_idle(id)?;
        self.receive_window -= i64::from(length);
        if self.receive_window < 0 {
            return Err(self.end(
                ErrorCode::FLOW_CONTROL_ERROR,
                "more data than the connection's window",
            ));
        }
        let end = header.has(flag::END_STREAM);
        if length == overhead && !end {
            self.pay_control(now)?;
        } else {
            self.control_budget.refund();
        }
        let key = self.find_data_stream(id, length, length - overhead, now)?;
        // Padding is nobody's to take, so it is given back at once.
        self.release(overhead);
        if overhead > 0
            && let Some(key) = key
        {
            self.release_stream(key, overhead);
        }
        self.incomplete.data = Some(DataLeft {
            key,
            data: length - overhead,
            padding: padding.unwrap_or(0),
            end,
        });
        Ok(())
    }

    /// The stream that takes the data, if there is one.
    fn find_data_stream(
        &mut self,
        id: u32,
        length: u32,
        content: u32,
        now: Instant,
    ) -> Result<Option<Key>, Ended> {
        let Some(key) = self.streams.find(id) else {
            if !self.resets.contains(&id) && !self.is_ignored(id) {
                self.stream_error(id, ErrorCode::STREAM_CLOSED, now)?;
            }
            return Ok(None);
        };
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(None);
        };
        let wrong = if stream.received_end {
            Some(ErrorCode::STREAM_CLOSED)
        } else if !stream.has_head
            || stream
                .content_left
                .is_some_and(|left| left < u64::from(content))
        {
            Some(ErrorCode::PROTOCOL_ERROR)
        } else if stream.receive_window < i64::from(length) {
            Some(ErrorCode::FLOW_CONTROL_ERROR)
        } else {
            None
        };
        if let Some(code) = wrong {
            self.stream_error(id, code, now)?;
            return Ok(None);
        }
        stream.receive_window -= i64::from(length);
        if let Some(left) = &mut stream.content_left {
            *left -= u64::from(content);
        }
        Ok(Some(key))
    }

    /// Hands on what has come of a DATA frame's payload.
    fn receive_data(
        &mut self,
        mut left: DataLeft,
        input: &mut BytesMut,
        now: Instant,
    ) -> Result<(), Ended> {
        let length = input.len().min(left.data as usize);
        left.data -= length as u32;
        if length > 0 {
            let stream = left.key.and_then(|key| self.streams.get_mut(key));
            match stream.filter(|stream| stream.receiver_held && !stream.closed) {
                Some(stream) => {
                    if length <= COPY_MAX {
                        stream.push_copy(&input[..length]);
                        input.advance(length);
                    } else {
                        let data = input.split_to(length).freeze();
                        stream.pieces.push_back(Piece::Data(data));
                    }
                    self.notify_readable(left.key);
                }
                None => {
                    input.advance(length);
                    self.release(length as u32);
                }
            }
        }
        let padding = input.len().min(left.padding as usize);
        input.advance(padding);
        left.padding -= padding as u32;
        if left.data + left.padding > 0 {
            self.incomplete.data = Some(left);
        } else if let Some(key) = left.key.filter(|_| left.end) {
            self.finish_receiving(key, now)?;
        }
        Ok(())
    }

    pub(super) fn notify_readable(&mut self, key: Option<Key>) {
        if let Some(key) = key {
            self.notices.push_back(Notice {
                key,
                readable: true,
                writable: false,
            });
        }
    }

    /// The peer's side of a stream is complete.
    pub(super) fn finish_receiving(&mut self, key: Key, now: Instant) -> Result<(), Ended> {
        let Some(stream) = self.streams.get_mut(key).filter(|stream| !stream.closed) else {
            return Ok(());
        };
        // RFC 9113 8.1.1.
        if stream.content_left.is_some_and(|left| left > 0) {
            return self.stream_error(key.id, ErrorCode::PROTOCOL_ERROR, now);
        }
        stream.received_end = true;
        let is_done = stream.sent_end;
        self.notify_readable(Some(key));
        if is_done {
            self.resets_budget.refund();
            self.close(key);
        }
        Ok(())
    }

    /// RFC 9113 5.1: frames on a stream that was never opened.
    pub(super) fn check_not_idle(&mut self, id: u32) -> Result<(), Ended> {
        if self.is_idle(id) {
            return Err(self.end(
                ErrorCode::PROTOCOL_ERROR,
                "a frame on a stream that is idle",
            ));
        }
        Ok(())
    }

    /// Whether streams with this identifier are ours to open (RFC 9113 5.1.1).
    fn is_ours(&self, id: u32) -> bool {
        (id % 2 == 1) == (self.role == Role::Client)
    }

    pub(super) fn is_idle(&self, id: u32) -> bool {
        if self.is_ours(id) {
            id >= self.next_id
        } else {
            id > self.last_remote
        }
    }

    /// Whether it is a stream of the peer that our GOAWAY said is not looked at (RFC 9113 6.8).
    pub(super) fn is_ignored(&self, id: u32) -> bool {
        matches!(self.going, Going::Last(last) if !self.is_ours(id) && id > last)
    }

    /// Ends one stream for what the peer did on it (RFC 9113 5.4.2).
    pub(super) fn stream_error(
        &mut self,
        id: u32,
        code: ErrorCode,
        now: Instant,
    ) -> Result<(), Ended> {
        self.pay_reset(now)?;
        if let Some(key) = self.streams.find(id) {
            self.fail_stream(key, Failure::ours(code));
        }
        self.put_reset(id, code);
        self.check_replies()
    }
}
