//! How a connection ends: in order (RFC 9113 6.8), because the peer broke a rule or used up its budget
//! (5.4.1, 10.5), or because the bytes ended; and how it is found out whether the peer is there.

use std::time::Instant;

use super::Role;
use super::connection::{Connection, Ended, Going};
use super::frame::{self, ErrorCode, STREAM_MASK};
use super::stream::{Failure, Stream};

/// Answers that we owe the peer (ACKs, resets) and that it doesn't read; more end the connection.
const REPLIES_MAX: usize = 64 * 1024;
/// Marks the PING that asks whether a GOAWAY has arrived.
const GOING_AWAY: [u8; 8] = *b"weft-end";

impl Connection {
    /// Tells the peer to open no more streams; those that are open go on (RFC 9113 6.8).
    pub fn go_away(&mut self) {
        if self.going != Going::Not || self.ended.is_some() {
            return;
        }
        match self.role {
            Role::Server => {
                self.going = Going::Announced;
                let out = self.output.frame();
                frame::put_go_away(out, STREAM_MASK, ErrorCode::NO_ERROR);
                frame::put_ping(out, false, GOING_AWAY);
            }
            // The peer opens none anyway.
            Role::Client => self.going_for_good(),
        }
    }

    fn going_for_good(&mut self) {
        self.going = Going::Last(self.last_remote);
        let out = self.output.frame();
        frame::put_go_away(out, self.last_remote, ErrorCode::NO_ERROR);
    }

    /// Ends the connection with what is on it.
    pub fn end(&mut self, code: ErrorCode, why: &'static str) -> Ended {
        if let Some(ended) = self.ended {
            return ended;
        }
        // RFC 9113 6.8: what was said before is never taken back.
        let last = match self.going {
            Going::Last(last) => last,
            Going::Not | Going::Announced => self.last_remote,
        };
        frame::put_go_away(self.output.frame(), last, code);
        self.finish(Ended { code, why }, false)
    }

    /// The bytes ended; `why` says how.
    pub fn lost(&mut self, why: &'static str) -> Ended {
        if let Some(ended) = self.ended {
            return ended;
        }
        let ended = Ended {
            code: ErrorCode::INTERNAL_ERROR,
            why,
        };
        self.finish(ended, true)
    }

    fn finish(&mut self, ended: Ended, remote: bool) -> Ended {
        self.ended = Some(ended);
        for key in self.streams.open_keys() {
            let never_left =
                |stream: &Stream| !stream.is_remote && !self.output.has_sent(stream.head_at);
            let unprocessed = self.streams.get(key).is_some_and(never_left);
            let failure = Failure {
                code: ended.code,
                remote,
                unprocessed,
                connection_lost: remote,
            };
            self.fail_stream(key, failure);
        }
        ended
    }

    /// Asks the peer whether it is there. The number is reached by [`Self::pings_answered`] once it
    /// has said so.
    pub fn ping(&mut self) -> u64 {
        self.pings_sent += 1;
        let payload = self.pings_sent.to_be_bytes();
        frame::put_ping(self.output.frame(), false, payload);
        self.pings_sent
    }

    pub fn pings_answered(&self) -> u64 {
        self.pings_answered
    }

    /// An ACK of a PING arrived.
    pub(super) fn pong(&mut self, payload: [u8; 8]) {
        if payload == GOING_AWAY {
            if self.going == Going::Announced {
                self.going_for_good();
            }
            return;
        }
        let number = u64::from_be_bytes(payload);
        if number <= self.pings_sent {
            self.pings_answered = self.pings_answered.max(number);
        }
    }

    /// We owe the peer an answer of this many bytes.
    pub(super) fn count_reply(&mut self, bytes: usize) {
        self.replies += bytes;
    }

    /// A peer that makes us answer and doesn't read the answers is sent away.
    pub(super) fn check_replies(&mut self) -> Result<(), Ended> {
        if self.replies > REPLIES_MAX {
            return Err(self.end(ErrorCode::ENHANCE_YOUR_CALM, "answers are not read"));
        }
        Ok(())
    }

    /// Pays for something that costs us and gets the peer nothing.
    pub(super) fn pay_control(&mut self, now: Instant) -> Result<(), Ended> {
        if self.control_budget.pay(now) {
            return Ok(());
        }
        Err(self.end(ErrorCode::ENHANCE_YOUR_CALM, "too many frames without use"))
    }

    /// Pays for a stream that was begun for nothing.
    pub(super) fn pay_reset(&mut self, now: Instant) -> Result<(), Ended> {
        if self.resets_budget.pay(now) {
            return Ok(());
        }
        Err(self.end(ErrorCode::ENHANCE_YOUR_CALM, "too many streams are reset"))
    }
}
