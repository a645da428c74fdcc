//! A client and a server connected to each other: whatever happens in whatever order, each octet
//! arrives where it belongs, nobody waits forever, and nothing is held beyond the windows.

use std::collections::BTreeSet;

use super::*;
use crate::http2::OUTPUT_MAX;

/// What is asked for and answered on one stream.
#[derive(Clone, Debug)]
struct Plan {
    up: usize,
    down: usize,
    up_trailers: bool,
    down_trailers: bool,
    informational: u8,
}

/// Something that happens; which stream and how much is taken from the numbers as far as they fit.
#[derive(Clone, Debug)]
enum Step {
    Open,
    Send(Role, usize, usize),
    /// Bytes go from this side to the other.
    Move(Role, usize),
    Read(Role, usize, usize),
    Reset(Role, usize),
    /// Both halves.
    Drop(Role, usize),
    /// The server doesn't want the rest of a request.
    DropReceiver(usize),
}

/// A stream as one of its sides holds it.
struct End {
    key: Key,
    content: Bytes,
    sent: usize,
    has_trailers: bool,
    is_sent: bool,
    expected: Bytes,
    received: usize,
    heads: u8,
    trailers: bool,
    is_received: bool,
    can_read: bool,
    can_write: bool,
    failed: bool,
    is_receiver_dropped: bool,
    is_dropped: bool,
}

struct Side {
    role: Role,
    engine: Connection,
    input: BytesMut,
    ends: Vec<End>,
    now: Instant,
}

/// What this side sends on a stream: no two of them have the same octets at the same places.
fn content(from: Role, id: u32, length: usize) -> Bytes {
    let first = id as usize * 7 + if from == Role::Client { 0 } else { 101 };
    let octet = |at: usize| (at ^ (at >> 8) ^ (at >> 16)).wrapping_add(first) as u8;
    (0..length).map(octet).collect()
}

impl Side {
    fn new(role: Role, limits: Limits, now: Instant) -> Self {
        Self {
            role,
            engine: Connection::new(role, limits),
            input: BytesMut::new(),
            ends: Vec::new(),
            now,
        }
    }

    fn hold(&mut self, key: Key, plan: &Plan) {
        let up = content(Role::Client, key.id, plan.up);
        let down = content(Role::Server, key.id, plan.down);
        let (content, expected, has_trailers) = match self.role {
            Role::Client => (up, down, plan.up_trailers),
            Role::Server => (down, up, plan.down_trailers),
        };
        self.ends.push(End {
            key,
            content,
            expected,
            sent: 0,
            has_trailers,
            is_sent: false,
            received: 0,
            heads: 0,
            trailers: false,
            is_received: false,
            can_read: true,
            can_write: true,
            failed: false,
            is_receiver_dropped: false,
            is_dropped: false,
        });
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        // Every step takes its time, so a server lets windows grow.
        self.now += Duration::from_micros(100);
        let received = self.engine.receive(&mut self.input, self.now);
        assert_eq!(received, Ok(()), "{:?}", self.role);
        self.take_notices();
    }

    /// Only who is told that something can be done tries again.
    fn take_notices(&mut self) {
        while let Some(notice) = self.engine.notice() {
            let end = self.ends.iter_mut().find(|end| end.key == notice.key);
            if let Some(end) = end {
                end.can_read |= notice.readable;
                end.can_write |= notice.writable;
            }
        }
    }

    fn send(&mut self, at: usize, most: usize) {
        let end = &mut self.ends[at];
        if !end.can_write || end.is_sent || end.failed || end.is_dropped {
            return;
        }
        let length = most.min(end.content.len() - end.sent);
        let mut content = end.content.slice(end.sent..end.sent + length);
        if self.engine.send_data(end.key, &mut content).is_err() {
            end.failed = true;
            return;
        }
        end.sent += length - content.len();
        end.can_write = content.is_empty();
        if end.sent == end.content.len() {
            end.is_sent = true;
            let ended = if end.has_trailers {
                self.engine.send_trailers(end.key, &fields(&[("a", "b")]))
            } else {
                self.engine.send_end(end.key)
            };
            ended.expect("just sent on it");
        }
    }

    fn read(&mut self, at: usize, pieces: usize) {
        let end = &mut self.ends[at];
        for _ in 0..pieces {
            if !end.can_read || end.is_received || end.is_receiver_dropped || end.is_dropped {
                return;
            }
            match self.engine.take(end.key) {
                Taken::Piece(Piece::Head(_)) => end.heads += 1,
                Taken::Piece(Piece::Data(data)) => {
                    let rest = &end.expected[end.received..];
                    assert!(rest.starts_with(&data), "{:?} at {}", end.key, end.received);
                    end.received += data.len();
                }
                Taken::Piece(Piece::Trailers(trailers)) => {
                    assert_eq!(trailers, fields(&[("a", "b")]));
                    end.trailers = true;
                }
                Taken::End => end.is_received = true,
                Taken::Failed(_) => {
                    end.failed = true;
                    return;
                }
                Taken::Pending => end.can_read = false,
            }
        }
    }

    fn drop_end(&mut self, at: usize) {
        let end = &mut self.ends[at];
        if !end.is_dropped {
            end.is_dropped = true;
            if !end.is_receiver_dropped {
                self.engine.drop_receiver(end.key);
            }
            self.engine.drop_sender(end.key);
        }
    }

    /// A server doesn't hold what is over; a client may still read it.
    fn drop_what_is_over(&mut self) {
        for at in 0..self.ends.len() {
            let end = &self.ends[at];
            let is_complete = end.is_sent && end.is_received;
            if is_complete || self.engine.failure(end.key).is_some() {
                self.drop_end(at);
            }
        }
    }

    /// What is held is within the windows.
    fn check_bounds(&self, limits: &Limits) {
        let held = |end: &End| {
            let stream = self.engine.streams.get(end.key);
            stream.map_or(0, |stream| stream.pieces.iter().map(Piece::len).sum())
        };
        let window = limits.connection_window.max(65_535) as usize;
        let all: usize = self.ends.iter().map(held).sum();
        assert!(all <= window, "{all} of {window}");
        // A client keeps to what it announced; a server lets windows grow.
        let window = match self.role {
            Role::Client => limits.stream_window,
            Role::Server => limits.over(Duration::MAX).stream_window,
        };
        let window = window.max(65_535) as usize;
        for end in &self.ends {
            assert!(held(end) <= window, "{:?}: {}", end.key, held(end));
        }
        let waiting = self.engine.output().len();
        assert!(waiting <= OUTPUT_MAX + 64 * 1024, "{waiting} bytes wait");
    }

    /// Everything was given back.
    fn check_no_leak(&mut self, limits: &Limits) {
        for at in 0..self.ends.len() {
            self.drop_end(at);
        }
        let engine = &self.engine;
        assert_eq!(engine.streams.held_count(), 0);
        assert_eq!((engine.local_open, engine.remote_open), (0, 0));
        let window = i64::from(limits.connection_window).max(65_535);
        assert_eq!(engine.receive_window + i64::from(engine.taken), window);
    }
}

struct Pair {
    client: Side,
    server: Side,
    plans: Vec<Plan>,
    opened: usize,
    /// Streams of which not everything arrives, in either direction and from the client only.
    broken: BTreeSet<u32>,
    unwanted: BTreeSet<u32>,
}

impl Pair {
    fn side(&mut self, role: Role) -> &mut Side {
        match role {
            Role::Client => &mut self.client,
            Role::Server => &mut self.server,
        }
    }

    fn plan(&self, id: u32) -> &Plan {
        &self.plans[id as usize / 2]
    }

    fn open(&mut self) {
        if self.opened == self.plans.len() || self.client.engine.room() == 0 {
            return;
        }
        let plan = self.plans[self.opened].clone();
        self.opened += 1;
        let key = self.client.engine.open(&request("POST"), |_| {}, false);
        self.client.hold(key.unwrap(), &plan);
    }

    fn carry(&mut self, from: Role, most: usize) -> usize {
        let sender = self.side(from);
        let mut bytes = Vec::new();
        let mut slices = [std::io::IoSlice::new(&[]); 3];
        let count = sender.engine.output().slices(&mut slices);
        slices[..count]
            .iter()
            .for_each(|slice| bytes.extend_from_slice(slice));
        bytes.truncate(most);
        sender.engine.sent(bytes.len());
        sender.take_notices();
        match from {
            Role::Client => self.server.receive(&bytes),
            Role::Server => self.client.receive(&bytes),
        }
        self.accept();
        bytes.len()
    }

    fn accept(&mut self) {
        while let Some(incoming) = self.server.engine.accept() {
            let plan = self.plan(incoming.key.id).clone();
            self.server.hold(incoming.key, &plan);
            for _ in 0..plan.informational {
                let _ = self
                    .server
                    .engine
                    .respond(incoming.key, &response(103), false);
            }
            let _ = self
                .server
                .engine
                .respond(incoming.key, &response(200), false);
        }
    }

    fn step(&mut self, step: &Step) {
        self.server.drop_what_is_over();
        let pick = |side: &Side, which: usize| match side.ends.len() {
            0 => None,
            count => Some(which % count),
        };
        match *step {
            Step::Open => self.open(),
            Step::Move(from, most) => {
                self.carry(from, most);
            }
            Step::Send(role, which, most) => {
                let side = self.side(role);
                if let Some(at) = pick(side, which) {
                    side.send(at, most);
                }
            }
            Step::Read(role, which, pieces) => {
                let side = self.side(role);
                if let Some(at) = pick(side, which) {
                    side.read(at, pieces);
                }
            }
            Step::Reset(role, which) | Step::Drop(role, which) => {
                let side = self.side(role);
                let Some(at) = pick(side, which) else {
                    return;
                };
                let key = side.ends[at].key;
                match step {
                    Step::Reset(..) => side.engine.reset(key, ErrorCode::CANCEL),
                    _ => side.drop_end(at),
                }
                self.broken.insert(key.id);
            }
            Step::DropReceiver(which) => {
                let Some(at) = pick(&self.server, which) else {
                    return;
                };
                let end = &mut self.server.ends[at];
                if !end.is_dropped && !end.is_receiver_dropped {
                    end.is_receiver_dropped = true;
                    self.server.engine.drop_receiver(end.key);
                    self.unwanted.insert(end.key.id);
                }
            }
        }
    }

    /// Everybody does what they can, until nobody can do anything.
    fn settle(&mut self) {
        loop {
            let before = self.progress();
            self.open();
            for role in [Role::Client, Role::Server] {
                while self.carry(role, 30_000) > 0 {}
                let side = self.side(role);
                for at in 0..side.ends.len() {
                    side.read(at, 1000);
                    side.send(at, 50_000);
                    // Whoever has answered wants nothing more.
                    let end = &side.ends[at];
                    if end.is_receiver_dropped && (end.is_sent || end.failed) {
                        side.drop_end(at);
                    }
                }
                side.take_notices();
                self.server.drop_what_is_over();
            }
            if before == self.progress() {
                return;
            }
        }
    }

    fn progress(&self) -> (usize, Vec<(usize, usize, bool, bool)>) {
        let ends = self.client.ends.iter().chain(&self.server.ends);
        let state = |end: &End| (end.sent, end.received, end.is_sent, end.is_received);
        let waiting = self.client.engine.output().len() + self.server.engine.output().len();
        (waiting, ends.map(state).collect())
    }

    fn check_complete(&self) {
        for end in &self.client.ends {
            let plan = self.plan(end.key.id);
            if self.broken.contains(&end.key.id) {
                assert!(end.received <= plan.down && end.sent <= plan.up);
                continue;
            }
            let failure = self.client.engine.failure(end.key);
            if failure.is_some_and(|failure| failure.code == ErrorCode::REFUSED_STREAM) {
                // Streams that were reset before anybody accepted them still count for a while.
                let taken = self
                    .server
                    .ends
                    .iter()
                    .any(|taken| taken.key.id == end.key.id);
                assert!(!taken && !self.broken.is_empty(), "{:?}", end.key);
                continue;
            }
            let seen = (end.is_received, end.received, end.trailers, end.heads);
            let expected = (true, plan.down, plan.down_trailers, plan.informational + 1);
            assert_eq!(seen, expected, "{:?} {:?}", end.key, failure);
            let is_unwanted = self.unwanted.contains(&end.key.id);
            assert!(end.is_sent || is_unwanted, "{:?}: {}", end.key, end.sent);
        }
        for end in &self.server.ends {
            let plan = self.plan(end.key.id);
            if self.broken.contains(&end.key.id) || self.unwanted.contains(&end.key.id) {
                continue;
            }
            let seen = (end.is_received, end.received, end.trailers, end.is_sent);
            let expected = (true, plan.up, plan.up_trailers, true);
            assert_eq!(seen, expected, "{:?}", end.key);
        }
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    let size = || prop_oneof![Just(0), 1..100_usize, 1..20_000_usize, 1..200_000_usize];
    let all = (size(), size(), any::<bool>(), any::<bool>(), 0..3_u8);
    all.prop_map(
        |(up, down, up_trailers, down_trailers, informational)| Plan {
            up,
            down,
            up_trailers,
            down_trailers,
            informational,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let role = || prop_oneof![Just(Role::Client), Just(Role::Server)];
    let which = 0..16_usize;
    let most = prop_oneof![1..50_usize, 1..40_000_usize];
    prop_oneof![
        3 => Just(Step::Open),
        8 => (role(), which.clone(), most.clone()).prop_map(|(r, w, m)| Step::Send(r, w, m)),
        8 => (role(), most).prop_map(|(r, m)| Step::Move(r, m)),
        4 => (role(), which.clone(), 1..5_usize).prop_map(|(r, w, n)| Step::Read(r, w, n)),
        1 => (role(), which.clone()).prop_map(|(r, w)| Step::Reset(r, w)),
        1 => (role(), which.clone()).prop_map(|(r, w)| Step::Drop(r, w)),
        1 => which.prop_map(Step::DropReceiver),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let windows = (
        prop_oneof![2..100_u32, 100..300_000_u32],
        prop_oneof![2..100_000_u32, 100_000..2_000_000_u32],
        1..8_u32,
        1..1_000_000_u32,
    );
    windows.prop_map(
        |(stream_window, connection_window, streams, stream_window_max)| Limits {
            streams,
            stream_window,
            stream_window_max,
            connection_window,
            resets: 1 << 20,
            control_frames: 1 << 20,
            ..Limits::default()
        },
    )
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn two_engines_understand_each_other(
        limits in (limits(), limits()),
        plans in prop::collection::vec(plan(), 1..12),
        steps in prop::collection::vec(step(), 0..300),
        is_first_awaited in any::<bool>(),
    ) {
        let now = Instant::now();
        // Small windows carry little at a time.
        let most = |limits: &Limits| 200 * limits.stream_window as usize;
        let mut plans = plans;
        for plan in &mut plans {
            plan.up = plan.up.min(most(&limits.1));
            plan.down = plan.down.min(most(&limits.0));
        }
        let mut pair = Pair {
            client: Side::new(Role::Client, limits.0, now),
            server: Side::new(Role::Server, limits.1, now),
            plans,
            opened: 0,
            broken: BTreeSet::new(),
            unwanted: BTreeSet::new(),
        };
        // Otherwise a client opens what a server refuses, which is its right.
        if is_first_awaited || limits.1.streams < 12 {
            pair.carry(Role::Server, 1000);
        }
        for step in &steps {
            pair.step(step);
            pair.client.check_bounds(&limits.0);
            pair.server.check_bounds(&limits.1);
        }
        pair.settle();
        pair.check_complete();
        pair.client.check_no_leak(&limits.0);
        pair.server.check_no_leak(&limits.1);
        pair.server.engine.go_away();
        pair.settle();
        prop_assert!(pair.client.engine.is_over() && pair.server.engine.is_over());
    }
}
