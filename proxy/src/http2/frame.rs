//! Frames (RFC 9113 4 and 6): their header, their types and flags, and the small ones whole.

use bytes::{BufMut, BytesMut};

/// The octets in front of each frame's payload (RFC 9113 4.1).
pub const HEADER_BYTES: usize = 9;
/// The largest payload that every peer takes (RFC 9113 4.2).
pub const PAYLOAD_MIN: u32 = 16_384;
/// The largest payload that SETTINGS_MAX_FRAME_SIZE can allow (RFC 9113 6.5.2).
pub const PAYLOAD_MAX: u32 = (1 << 24) - 1;
/// The largest window (RFC 9113 6.9.1).
pub const WINDOW_MAX: i64 = (1 << 31) - 1;
/// Bits of a stream's identifier; the one above is reserved (RFC 9113 4.1).
pub const STREAM_MASK: u32 = (1 << 31) - 1;
/// What a client sends first (RFC 9113 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Flags; which ones mean something depends on the frame's type.
pub mod flag {
    pub const END_STREAM: u8 = 0x1;
    pub const ACK: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// A frame's type (RFC 9113 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    Priority,
    Reset,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// An extension's; ignored (RFC 9113 5.5).
    Unknown(u8),
}

impl Kind {
    fn from_octet(octet: u8) -> Self {
        match octet {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::Reset,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            other => Self::Unknown(other),
        }
    }

    fn octet(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Headers => 1,
            Self::Priority => 2,
            Self::Reset => 3,
            Self::Settings => 4,
            Self::PushPromise => 5,
            Self::Ping => 6,
            Self::GoAway => 7,
            Self::WindowUpdate => 8,
            Self::Continuation => 9,
            Self::Unknown(other) => other,
        }
    }
}

/// What stands in front of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub length: u32,
    pub kind: Kind,
    pub flags: u8,
    /// 0 for the connection itself.
    pub stream: u32,
}

impl FrameHeader {
    /// Reads one, if it is there whole.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes.first_chunk()?;
        Some(Self {
            length: u32::from_be_bytes([0, l0, l1, l2]),
            kind: Kind::from_octet(kind),
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & STREAM_MASK,
        })
    }

    pub fn put(self, out: &mut BytesMut) {
        out.put_slice(&self.octets());
    }

    /// Writes it over the first octets of `place`, which must have room.
    pub fn write(self, place: &mut [u8]) {
        place[..HEADER_BYTES].copy_from_slice(&self.octets());
    }

    fn octets(self) -> [u8; HEADER_BYTES] {
        let [_, l0, l1, l2] = self.length.to_be_bytes();
        let [s0, s1, s2, s3] = self.stream.to_be_bytes();
        [l0, l1, l2, self.kind.octet(), self.flags, s0, s1, s2, s3]
    }

    pub fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Why a stream or a connection ends (RFC 9113 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    pub const NO_ERROR: Self = Self(0x0);
    pub const PROTOCOL_ERROR: Self = Self(0x1);
    pub const INTERNAL_ERROR: Self = Self(0x2);
    pub const FLOW_CONTROL_ERROR: Self = Self(0x3);
    pub const SETTINGS_TIMEOUT: Self = Self(0x4);
    pub const STREAM_CLOSED: Self = Self(0x5);
    pub const FRAME_SIZE_ERROR: Self = Self(0x6);
    pub const REFUSED_STREAM: Self = Self(0x7);
    pub const CANCEL: Self = Self(0x8);
    pub const COMPRESSION_ERROR: Self = Self(0x9);
    pub const CONNECT_ERROR: Self = Self(0xa);
    pub const ENHANCE_YOUR_CALM: Self = Self(0xb);
    pub const INADEQUATE_SECURITY: Self = Self(0xc);
    pub const HTTP_1_1_REQUIRED: Self = Self(0xd);

    fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0x0 => "NO_ERROR",
            0x1 => "PROTOCOL_ERROR",
            0x2 => "INTERNAL_ERROR",
            0x3 => "FLOW_CONTROL_ERROR",
            0x4 => "SETTINGS_TIMEOUT",
            0x5 => "STREAM_CLOSED",
            0x6 => "FRAME_SIZE_ERROR",
            0x7 => "REFUSED_STREAM",
            0x8 => "CANCEL",
            0x9 => "COMPRESSION_ERROR",
            0xa => "CONNECT_ERROR",
            0xb => "ENHANCE_YOUR_CALM",
            0xc => "INADEQUATE_SECURITY",
            0xd => "HTTP_1_1_REQUIRED",
            _ => return None,
        })
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "error code {:#x}", self.0),
        }
    }
}

/// RFC 9113 6.4.
pub fn put_reset(out: &mut BytesMut, stream: u32, code: ErrorCode) {
    put_header(out, 4, Kind::Reset, 0, stream);
    out.put_u32(code.0);
}

/// RFC 9113 6.9; `stream` 0 is the connection's window.
pub fn put_window_update(out: &mut BytesMut, stream: u32, increment: u32) {
    put_header(out, 4, Kind::WindowUpdate, 0, stream);
    out.put_u32(increment);
}

/// RFC 9113 6.7.
pub fn put_ping(out: &mut BytesMut, ack: bool, payload: [u8; 8]) {
    let flags = if ack { flag::ACK } else { 0 };
    put_header(out, 8, Kind::Ping, flags, 0);
    out.put_slice(&payload);
}

/// RFC 9113 6.8.
pub fn put_go_away(out: &mut BytesMut, last: u32, code: ErrorCode) {
    put_header(out, 8, Kind::GoAway, 0, 0);
    out.put_u32(last);
    out.put_u32(code.0);
}

pub fn put_header(out: &mut BytesMut, length: u32, kind: Kind, flags: u8, stream: u32) {
    let header = FrameHeader {
        length,
        kind,
        flags,
        stream,
    };
    header.put(out);
}
