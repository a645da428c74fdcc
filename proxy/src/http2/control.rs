//! What comes in about streams and the connection, but for heads and data: RST_STREAM, SETTINGS, PING,
//! GOAWAY and WINDOW_UPDATE (RFC 9113 6.4 to 6.9).

use std::time::Instant;

use super::Role;
use super::connection::{Connection, Ended, Notice};
use super::frame::{self, ErrorCode, FrameHeader, HEADER_BYTES, Kind, WINDOW_MAX, flag};
use super::stream::{Failure, Key, Waiting};

impl Connection {
    /// RFC 9113 6.4.
    pub(super) fn receive_reset(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), Ended> {
        let Ok(code) = payload.try_into().map(u32::from_be_bytes) else {
            return Err(self.end(ErrorCode::FRAME_SIZE_ERROR, "RST_STREAM of a wrong size"));
        };
        self.check_not_idle(header.stream)?;
        let code = ErrorCode(code);
        let Some(key) = self.streams.find(header.stream) else {
            return self.pay_control(now);
        };
        // Only streams that the peer opens cost us what it likes; ours it may refuse as it has to.
        if self.role == Role::Server {
            self.pay_reset(now)?;
        }
        self.fail_stream(
            key,
            Failure {
                code,
                remote: true,
                unprocessed: code == ErrorCode::REFUSED_STREAM,
                connection_lost: false,
            },
        );
        Ok(())
    }

    /// RFC 9113 6.5.
    pub(super) fn receive_settings(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), Ended> {
        if header.has(flag::ACK) {
            self.is_acknowledged = true;
            // A client's SETTINGS leave before it has heard anything; it knows how long it took to connect.
            if self.role == Role::Server
                && let Some(heard) = self.heard.take()
            {
                self.limits = self.limits.over(now.saturating_duration_since(heard));
            }
            return match payload.len() {
                0 => self.pay_control(now),
                _ => Err(self.end(
                    ErrorCode::FRAME_SIZE_ERROR,
                    "an ACK of SETTINGS with a payload",
                )),
            };
        }
        self.pay_control(now)?;
        let before = self.peer;
        let from = match self.role {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        if let Err(code) = self.peer.take(payload, from) {
            return Err(self.end(code, "SETTINGS with a value that is not allowed"));
        }
        self.has_peer_settings = true;
        // RFC 7541 4.2: of several values in between, the smallest counts too.
        for size in [self.peer.header_table_least, self.peer.header_table_size] {
            self.encoder.set_peer_max(size as usize);
        }
        let delta =
            i64::from(self.peer.initial_window_size) - i64::from(before.initial_window_size);
        if delta != 0 {
            self.change_windows(delta)?;
        }
        self.count_reply(HEADER_BYTES);
        frame::put_header(self.output.frame(), 0, Kind::Settings, flag::ACK, 0);
        Ok(())
    }

    /// RFC 9113 6.9.2: a window may become negative.
    fn change_windows(&mut self, delta: i64) -> Result<(), Ended> {
        for key in self.streams.open_keys() {
            let Some(stream) = self.streams.get_mut(key) else {
                continue;
            };
            stream.send_window += delta;
            if stream.send_window > WINDOW_MAX {
                return Err(self.end(ErrorCode::FLOW_CONTROL_ERROR, "a window above 2^31-1"));
            }
            self.notify_if_window_opened(key);
        }
        Ok(())
    }

    fn notify_if_window_opened(&mut self, key: Key) {
        if let Some(stream) = self.streams.get_mut(key)
            && stream.waiting == Waiting::Stream
            && stream.send_window > 0
        {
            stream.waiting = Waiting::Nothing;
            self.notices.push_back(Notice {
                key,
                readable: false,
                writable: true,
            });
        }
    }

    /// RFC 9113 6.7.
    pub(super) fn receive_ping(
        &mut self,
        header: FrameHeader,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), Ended> {
        let Ok(payload) = payload.try_into() else {
            return Err(self.end(ErrorCode::FRAME_SIZE_ERROR, "PING of a wrong size"));
        };
        self.pay_control(now)?;
        if header.has(flag::ACK) {
            self.pong(payload);
        } else {
            self.count_reply(HEADER_BYTES + 8);
            frame::put_ping(self.output.frame(), true, payload);
        }
        Ok(())
    }

    /// RFC 9113 6.8: what the peer has not looked at can be asked of another.
    pub(super) fn receive_go_away(&mut self, payload: &[u8], now: Instant) -> Result<(), Ended> {
        let Some([last, code]) = payload.as_chunks::<4>().0.first_chunk() else {
            return Err(self.end(ErrorCode::FRAME_SIZE_ERROR, "GOAWAY of a wrong size"));
        };
        self.pay_control(now)?;
        let last = u32::from_be_bytes(*last) & frame::STREAM_MASK;
        let code = ErrorCode(u32::from_be_bytes(*code));
        self.is_peer_going = true;
        for key in self.streams.open_keys() {
            let ours = self
                .streams
                .get(key)
                .is_some_and(|stream| !stream.is_remote);
            if ours && key.id > last {
                let failure = Failure {
                    code,
                    remote: true,
                    unprocessed: true,
                    connection_lost: false,
                };
                self.fail_stream(key, failure);
            }
        }
        Ok(())
    }

    /// RFC 9113 6.9.
    pub(super) fn receive_window_update(
        &mut self,
        id: u32,
        payload: &[u8],
        now: Instant,
    ) -> Result<(), Ended> {
        let Ok(increment) = payload.try_into().map(u32::from_be_bytes) else {
            return Err(self.end(ErrorCode::FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size"));
        };
        let increment = i64::from(increment & frame::STREAM_MASK);
        if id == 0 {
            if increment == 0 {
                return Err(self.end(ErrorCode::PROTOCOL_ERROR, "WINDOW_UPDATE of nothing"));
            }
            self.send_window += increment;
            if self.send_window > WINDOW_MAX {
                return Err(self.end(ErrorCode::FLOW_CONTROL_ERROR, "a window above 2^31-1"));
            }
            self.wake_blocked();
            return Ok(());
        }
        self.check_not_idle(id)?;
        let Some(key) = self.streams.find(id) else {
            return Ok(());
        };
        let Some(stream) = self.streams.get_mut(key) else {
            return Ok(());
        };
        stream.send_window += increment;
        if increment == 0 {
            return self.stream_error(id, ErrorCode::PROTOCOL_ERROR, now);
        }
        if stream.send_window > WINDOW_MAX {
            return self.stream_error(id, ErrorCode::FLOW_CONTROL_ERROR, now);
        }
        self.notify_if_window_opened(key);
        Ok(())
    }
}
