//! Header blocks as they come in: HEADERS and CONTINUATION (RFC 9113 4.3, 6.2, 6.10), and what they
//! are: a request, a response or trailers.

use std::time::Instant;

use bytes::BytesMut;
use http::StatusCode;

use super::Role;
use super::connection::{Connection, Ended, Incoming, OUTPUT_REFUSES};
use super::fields::{FieldList, content_length};
use super::frame::{ErrorCode, FrameHeader, flag};
use super::stream::{Key, Piece};

/// Informational heads of one response that nobody took yet.
const HEADS_MAX: usize = 16;

/// A header block that goes on in CONTINUATION.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) stream: u32,
    end: bool,
    fragments: BytesMut,
    frames: u32,
}

impl Connection {
    /// RFC 9113 6.2.
    pub(super) fn receive_headers(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), Ended> {
        let fragment = match unpadded(header, payload) {
            Ok(fragment) => fragment,
            Err(code) => return Err(self.end(code, "HEADERS shorter than its own fields")),
        };
        let end = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            return self.receive_block(header.stream, end, fragment, now);
        }
        self.incomplete.block = Some(Block {
            stream: header.stream,
            end,
            fragments: BytesMut::from(fragment),
            frames: 1,
        });
        Ok(())
    }

    /// RFC 9113 6.10, with a limit on what a block may cost before it is known what it is.
    pub(super) fn receive_continuation(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), Ended> {
        let Some(mut block) = self.incomplete.block.take() else {
            return Ok(());
        };
        block.frames += 1;
        let bytes = block.fragments.len() + payload.len();
        let bytes_max = 2 * self.limits.header_list_bytes as usize;
        let frames_max = 8 + self.limits.header_list_bytes / 1024;
        if bytes > bytes_max || block.frames > frames_max {
            return Err(self.end(
                ErrorCode::ENHANCE_YOUR_CALM,
                "a header block without an end",
            ));
        }
        block.fragments.extend_from_slice(payload);
        if header.has(flag::END_HEADERS) {
            return self.receive_block(block.stream, block.end, &block.fragments, now);
        }
        self.incomplete.block = Some(block);
        Ok(())
    }

    /// A whole header block. It is always decoded, as the next one builds on it.
    fn receive_block(
        &mut self,
        id: u32,
        end: bool,
        block: &[u8],
        now: Instant,
    ) -> Result<(), Ended> {
        let mut list = FieldList::new(self.limits.header_list_bytes as usize, self.limits.headers);
        let decoded = self
            .decoder
            .decode(block, |line, size| list.add(line, size));
        if decoded.is_err() {
            return Err(self.end(
                ErrorCode::COMPRESSION_ERROR,
                "a header block cannot be decoded",
            ));
        }
        // A block may unpack to thousands of times its size, so a list that is too large is paid for,
        // and one that can only be an attack is not answered.
        if list.is_bomb() {
            return Err(self.end(
                ErrorCode::ENHANCE_YOUR_CALM,
                "a header block that unpacks to too much",
            ));
        }
        if list.is_too_large() {
            self.pay_reset(now)?;
        }
        if let Some(key) = self.streams.find(id) {
            return self.receive_more_fields(key, end, &mut list, now);
        }
        if self.role == Role::Client || id.is_multiple_of(2) || id <= self.last_remote {
            self.check_not_idle(id)?;
            // The other side may not have seen yet that the stream is over.
            if self.role == Role::Client || self.resets.contains(&id) || self.is_ignored(id) {
                return Ok(());
            }
            return Err(self.end_of_late(id));
        }
        // RFC 9113 5.1.1: those between the two can't be opened any more.
        if id > (self.last_remote + 1) | 1 {
            self.passed_over = (self.last_remote, id);
        }
        self.last_remote = id;
        self.receive_request(id, end, &mut list, now)
    }

    /// The connection's end over HEADERS on a stream that is over, or, where identifiers were passed over, never was (of
    /// several such gaps only the last is known, as no more than the code depends on it).
    fn end_of_late(&mut self, id: u32) -> Ended {
        let (before, after) = self.passed_over;
        if id > before && id < after {
            return self.end(
                ErrorCode::PROTOCOL_ERROR,
                "HEADERS on a stream that was passed over",
            );
        }
        self.end(
            ErrorCode::STREAM_CLOSED,
            "HEADERS on a stream that is closed",
        )
    }

    /// A new stream.
    fn receive_request(
        &mut self,
        id: u32,
        end: bool,
        list: &mut FieldList,
        now: Instant,
    ) -> Result<(), Ended> {
        if self.is_ignored(id) {
            return Ok(());
        }
        let streams = self.limits.streams as usize;
        let is_full = self.remote_open as usize >= streams
            || self.streams.held_count() >= 2 * streams
            || self.output.len() >= OUTPUT_REFUSES;
        if is_full {
            return self.stream_error(id, ErrorCode::REFUSED_STREAM, now);
        }
        let Ok(head) = list.take_request() else {
            return self.stream_error(id, ErrorCode::PROTOCOL_ERROR, now);
        };
        let is_tunnel = matches!(&head, Ok(head) if head.method == http::Method::CONNECT || head.upgrade.is_some());
        let length = match &head {
            Ok(head) if !is_tunnel => content_length(&head.headers),
            _ => Ok(None),
        };
        let content_left = match length {
            Ok(length) if !end || length.unwrap_or(0) == 0 => length,
            // RFC 9113 8.1.1: nobody gets to see a message whose content isn't as long as it says.
            _ => return self.stream_error(id, ErrorCode::PROTOCOL_ERROR, now),
        };
        self.control_budget.refund();
        self.remote_open += 1;
        let (window, send_window) = (self.initial_receive_window(), self.peer.initial_window_size);
        let (key, stream) = self.streams.insert(id);
        stream.window = self.announced_window;
        stream.is_remote = true;
        stream.has_head = true;
        stream.receiver_held = true;
        stream.sender_held = true;
        stream.receive_window = window;
        stream.send_window = i64::from(send_window);
        stream.content_left = content_left;
        stream.is_tunnel = is_tunnel;
        if end {
            self.finish_receiving(key, now)?;
        }
        self.incoming.push_back(Incoming { key, head });
        Ok(())
    }

    /// A response's head, or trailers.
    fn receive_more_fields(
        &mut self,
        key: Key,
        end: bool,
        list: &mut FieldList,
        now: Instant,
    ) -> Result<(), Ended> {
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(());
        };
        if stream.received_end {
            return self.stream_error(key.id, ErrorCode::STREAM_CLOSED, now);
        }
        let taken = if stream.has_head {
            // RFC 9113 8.1: trailers end the stream.
            match list.take_trailers() {
                Ok(trailers) if end => Ok(Piece::Trailers(trailers)),
                _ => Err(ErrorCode::PROTOCOL_ERROR),
            }
        } else {
            take_response(stream, end, list)
        };
        let taken = match taken {
            // RFC 9113 8.1.1: trailers say that a message is whole.
            Ok(_) if end && stream.content_left.unwrap_or(0) > 0 => Err(ErrorCode::PROTOCOL_ERROR),
            taken => taken,
        };
        match taken {
            Err(code) => self.stream_error(key.id, code, now),
            Ok(piece) => {
                self.control_budget.refund();
                if stream.receiver_held {
                    stream.pieces.push_back(piece);
                }
                self.notify_readable(Some(key));
                if end {
                    self.finish_receiving(key, now)?;
                }
                Ok(())
            }
        }
    }
}

/// A response's head, as far as it may stand here.
fn take_response(
    stream: &mut super::stream::Stream,
    end: bool,
    list: &mut FieldList,
) -> Result<Piece, ErrorCode> {
    let upgrade = stream.upgrade.as_deref();
    let head = list
        .take_response(upgrade)
        .map_err(|_| ErrorCode::PROTOCOL_ERROR)?;
    if head.status.is_informational() {
        if end {
            return Err(ErrorCode::PROTOCOL_ERROR);
        }
        if stream.pieces.len() >= HEADS_MAX {
            return Err(ErrorCode::ENHANCE_YOUR_CALM);
        }
        return Ok(Piece::Head(head));
    }
    stream.has_head = true;
    let has_no_content = stream.is_head_request
        || (stream.is_tunnel && head.status.is_success())
        || head.status == StatusCode::NO_CONTENT
        || head.status == StatusCode::NOT_MODIFIED;
    let length = content_length(&head.headers).map_err(|_| ErrorCode::PROTOCOL_ERROR)?;
    if !has_no_content {
        stream.content_left = length;
    } else if !stream.is_tunnel {
        stream.content_left = Some(0);
    }
    Ok(Piece::Head(head))
}

/// The fragment of a HEADERS frame, without its padding and priority (RFC 9113 4.2, 6.2).
fn unpadded(header: FrameHeader, payload: &[u8]) -> Result<&[u8], ErrorCode> {
    let too_short = ErrorCode::FRAME_SIZE_ERROR;
    let mut fragment = payload;
    let mut padding = 0;
    if header.has(flag::PADDED) {
        let (first, rest) = fragment.split_first().ok_or(too_short)?;
        padding = usize::from(*first);
        fragment = rest;
    }
    if header.has(flag::PRIORITY) {
        fragment = fragment.get(5..).ok_or(too_short)?;
    }
    let length = fragment.len().checked_sub(padding);
    let length = length.ok_or(ErrorCode::PROTOCOL_ERROR)?;
    Ok(&fragment[..length])
}
