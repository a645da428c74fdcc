//! What is to be sent: small frames gathered in one buffer, large bodies beside them uncopied.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

/// Data up to this size is copied behind its frame's header; larger data is sent from where it lies.
const GATHER_MAX: usize = 4 * 1024;
/// The buffer is given back when it is empty and larger than this.
const KEPT_MAX: usize = 64 * 1024;

/// Bytes in the order in which they are to be sent.
#[derive(Debug, Default)]
pub struct Output {
    segments: VecDeque<Bytes>,
    segment_bytes: usize,
    tail: BytesMut,
    /// Bytes that were ever sent.
    sent: u64,
    /// Where in `tail` the flags of the last frame stand, if that frame is DATA of this stream.
    last_data: Option<(u32, usize)>,
}

impl Output {
    /// Where the next frame is to be written.
    pub fn frame(&mut self) -> &mut BytesMut {
        self.last_data = None;
        &mut self.tail
    }

    /// Writes a DATA frame's payload after its header, which is in [`Self::frame`] already.
    pub fn data(&mut self, stream: u32, data: Bytes) {
        if data.len() <= GATHER_MAX {
            let flags = self.tail.len() - super::frame::HEADER_BYTES + 4;
            self.tail.extend_from_slice(&data);
            self.last_data = Some((stream, flags));
        } else {
            let before = self.tail.split().freeze();
            self.segment_bytes += before.len() + data.len();
            self.segments.push_back(before);
            self.segments.push_back(data);
        }
    }

    /// Makes the last frame the stream's last, if it is DATA of that stream and not sent yet.
    pub fn end_last_data(&mut self, stream: u32) -> bool {
        match self.last_data {
            Some((of, flags)) if of == stream => {
                self.tail[flags] |= super::frame::flag::END_STREAM;
                self.last_data = None;
                true
            }
            _ => false,
        }
    }

    pub fn len(&self) -> usize {
        self.segment_bytes + self.tail.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first bytes to be sent, as slices for one vectored write.
    pub fn slices<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        let chunks = self.segments.iter().map(|segment| &segment[..]);
        let mut count = 0;
        for (slot, chunk) in into.iter_mut().zip(chunks.chain([&self.tail[..]])) {
            *slot = IoSlice::new(chunk);
            count += 1;
        }
        count
    }

    /// Where the next byte stands in all that is ever sent.
    pub fn position(&self) -> u64 {
        self.sent + self.len() as u64
    }

    /// Whether everything before a [`Self::position`] was sent.
    pub fn has_sent(&self, position: u64) -> bool {
        self.sent >= position
    }

    /// Forgets the first `sent` bytes.
    pub fn advance(&mut self, mut sent: usize) {
        self.last_data = None;
        self.sent += sent as u64;
        while let Some(first) = self.segments.front_mut() {
            let step = sent.min(first.len());
            first.advance(step);
            self.segment_bytes -= step;
            sent -= step;
            if !first.is_empty() {
                return;
            }
            self.segments.pop_front();
        }
        self.tail.advance(sent);
        if self.tail.is_empty() && self.tail.capacity() > KEPT_MAX {
            self.tail = BytesMut::new();
        }
    }
}
