//! SETTINGS (RFC 9113 6.5, RFC 8441 3).

use bytes::{BufMut, BytesMut};

use super::frame::{self, ErrorCode, Kind, PAYLOAD_MAX, PAYLOAD_MIN, WINDOW_MAX};
use super::{Limits, Role};

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
/// RFC 9113 6.5.2; with the others, what SETTINGS call their values.
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
/// RFC 9113 6.5.2: a peer's value outside of it ends the connection.
const MAX_FRAME_SIZE: u16 = 0x5;
/// RFC 9113 6.5.2: what our own limit is announced as.
const MAX_HEADER_LIST_SIZE: u16 = 0x6;
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// What a peer allows us; the protocol's initial values until it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerSettings {
    pub header_table_size: u32,
    /// The smallest that it was since the frame before the last.
    pub header_table_least: u32,
    pub max_concurrent_streams: u32,
    pub initial_window_size: u32,
    pub max_frame_size: u32,
    /// Whether CONNECT may name a protocol (RFC 8441 3).
    pub connect_protocol: bool,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self {
            header_table_size: 4096,
            header_table_least: 4096,
            max_concurrent_streams: u32::MAX,
            initial_window_size: 65_535,
            max_frame_size: PAYLOAD_MIN,
            connect_protocol: false,
        }
    }
}

impl PeerSettings {
    /// Takes a SETTINGS frame's payload in. `from` is the role of whoever sent it.
    pub fn take(&mut self, payload: &[u8], from: Role) -> Result<(), ErrorCode> {
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(ErrorCode::FRAME_SIZE_ERROR);
        }
        self.header_table_least = self.header_table_size;
        for [i0, i1, v0, v1, v2, v3] in settings {
            let value = u32::from_be_bytes([*v0, *v1, *v2, *v3]);
            match u16::from_be_bytes([*i0, *i1]) {
                HEADER_TABLE_SIZE => {
                    self.header_table_size = value;
                    self.header_table_least = self.header_table_least.min(value);
                }
                ENABLE_PUSH => match value {
                    0 => {}
                    // RFC 9113 6.5.2: only a client may allow pushes.
                    1 if from == Role::Client => {}
                    _ => return Err(ErrorCode::PROTOCOL_ERROR),
                },
                MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = value,
                INITIAL_WINDOW_SIZE if i64::from(value) > WINDOW_MAX => {
                    return Err(ErrorCode::FLOW_CONTROL_ERROR);
                }
                INITIAL_WINDOW_SIZE => self.initial_window_size = value,
                MAX_FRAME_SIZE if !(PAYLOAD_MIN..=PAYLOAD_MAX).contains(&value) => {
                    return Err(ErrorCode::PROTOCOL_ERROR);
                }
                MAX_FRAME_SIZE => self.max_frame_size = value,
                ENABLE_CONNECT_PROTOCOL => match (self.connect_protocol, value) {
                    // RFC 8441 3: it must not be taken back.
                    (true, 0) | (_, 2..) => return Err(ErrorCode::PROTOCOL_ERROR),
                    (_, value) => self.connect_protocol = value == 1,
                },
                // MAX_HEADER_LIST_SIZE is advice (RFC 9113 6.5.2): a peer that finds a header list too
                // large says so itself. Unknown settings are ignored (6.5.2).
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes our own SETTINGS.
pub fn put_settings(out: &mut BytesMut, role: Role, limits: &Limits) {
    let (id, value) = match role {
        Role::Client => (ENABLE_PUSH, 0),
        Role::Server => (ENABLE_CONNECT_PROTOCOL, 1),
    };
    let settings = [
        (id, value),
        (MAX_CONCURRENT_STREAMS, limits.streams),
        (INITIAL_WINDOW_SIZE, limits.stream_window),
        (MAX_HEADER_LIST_SIZE, limits.header_list_bytes),
    ];
    frame::put_header(out, settings.len() as u32 * 6, Kind::Settings, 0, 0);
    for (id, value) in settings {
        out.put_u16(id);
        out.put_u32(value);
    }
}
