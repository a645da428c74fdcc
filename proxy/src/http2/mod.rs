//! HTTP/2 as a sans-I/O engine (RFC 9113, RFC 7541, RFC 8441), both roles: bytes to heads, data and
//! trailers, and back. A [`Connection`] holds every stream's state and what came in for it; whoever
//! holds a stream takes it out, which gives the peer room for more, so nothing here grows beyond the
//! windows.

mod blocks;
mod budget;
mod connection;
mod control;
mod end;
mod fields;
mod frame;
pub mod hpack;
mod output;
mod receive;
mod send;
mod settings;
mod stream;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use connection::{Connection, Ended, Incoming, Notice, OUTPUT_MAX, RECORD_PAYLOAD, Taken};
pub use fields::Refused;
pub use frame::{ErrorCode, FrameHeader, HEADER_BYTES, Kind, PREFACE, flag};
pub use output::Output;
pub use send::{NotOpened, Put};
pub use stream::{Failure, Key, Piece};

/// Which side of a connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opens streams.
    Client,
    /// Accepts them.
    Server,
}

/// Limits of one HTTP/2 connection; what arrives beyond one is answered as RFC 9113 says.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams that a peer may have open; one more is refused with REFUSED_STREAM.
    pub streams: u32,
    /// Bytes of a decoded header list, counted as RFC 7541 4.1 does; a larger request is answered with
    /// 431, a larger response or trailer section ends its stream.
    pub header_list_bytes: u32,
    /// Header fields of a list; the same happens beyond.
    pub headers: usize,
    /// Bytes that a peer may send on a stream before the other side has taken them, where it is near. As much of
    /// every stream lies in the processor's cache.
    pub stream_window: u32,
    /// The same where it is far, as [`Self::over`] counts.
    pub stream_window_max: u32,
    /// The same for the whole connection; the bound of what it can make us hold.
    pub connection_window: u32,
    /// Streams that may end by a reset before their time, at once and in each second; every stream
    /// that ends in order adds one. Beyond, the connection ends with ENHANCE_YOUR_CALM (rapid reset,
    /// CVE-2023-44487).
    pub resets: u32,
    /// Frames that carry nothing on (PING, SETTINGS, PRIORITY, empty DATA, unknown ones), at once and
    /// in each second; every frame that does adds one. The same happens beyond.
    pub control_frames: u32,
}

/// What one stream carries in a microsecond if nothing but its window holds it up: half a gigabyte a second, which a
/// worker that encrypts hardly reaches.
const BYTES_PER_MICROSECOND: u128 = 500;

impl Limits {
    /// These limits for a peer that answers after `round_trip`: a stream's window is what it can carry meanwhile.
    pub fn over(self, round_trip: Duration) -> Self {
        let meanwhile = round_trip.as_micros() * BYTES_PER_MICROSECOND;
        let meanwhile = u32::try_from(meanwhile).unwrap_or(u32::MAX);
        Self {
            stream_window: self
                .stream_window
                .max(meanwhile.min(self.stream_window_max)),
            ..self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 1024,
            header_list_bytes: 64 * 1024,
            headers: 256,
            // About 64 and 256 KiB, in whole frames of bulk: what was left of them would be frames of its own.
            stream_window: 4 * RECORD_PAYLOAD as u32,
            stream_window_max: 16 * RECORD_PAYLOAD as u32,
            connection_window: 32 * 1024 * 1024,
            resets: 200,
            control_frames: 1000,
        }
    }
}
