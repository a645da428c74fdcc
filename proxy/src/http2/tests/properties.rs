//! What holds for all bytes: how they are cut makes no difference, nothing panics, and the output
//! grows with the input only.

use std::collections::BTreeSet;

use super::*;

/// A frame to come, in a few numbers.
type Seed = (u8, u8, u16);

/// Frames of a peer that mostly behaves. A server's streams are those of [`bench`].
fn wire(from: Role, seeds: &[Seed]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut open: Vec<u32> = match from {
        Role::Client => Vec::new(),
        Role::Server => (1..16).step_by(2).collect(),
    };
    let mut next = 1;
    let head = match from {
        Role::Client => POST,
        Role::Server => OK,
    };
    let mut has_head = BTreeSet::new();
    for (kind, which, amount) in seeds {
        let amount = *amount;
        if *kind < 8 && from == Role::Client {
            open.push(next);
            next += 2;
        }
        let Some(at) = (!open.is_empty()).then(|| usize::from(*which) % open.len()) else {
            continue;
        };
        let id = open[at];
        if *kind < 8 || !has_head.contains(&id) {
            let id = if from == Role::Client {
                *open.last().unwrap()
            } else {
                id
            };
            if has_head.insert(id) {
                wire.extend(begin(id, head, *kind, amount));
            }
            continue;
        }
        wire.extend(match kind {
            8..=12 => data(id, OPEN, &vec![*which; usize::from(amount % 5000)]),
            13..=15 => padded(id, OPEN, &vec![*which; usize::from(amount % 300)], *which),
            16 => data(id, OPEN, &[]),
            17 => window(id, u32::from(amount) + 1),
            18 => window(0, u32::from(amount) + 1),
            19 => frame(PING, amount as u8, 0, &[*which; 8]),
            20 => settings(&[(4, u32::from(amount)), (1, u32::from(*which))]),
            21 => frame(PRIORITY, 0, id + 100, &[0; 5]),
            22 => frame(99, *which, id, &vec![0; usize::from(amount % 100)]),
            _ => {
                open.swap_remove(at);
                match kind {
                    23 => rst(id, ErrorCode(u32::from(amount % 16))),
                    24 => headers(id, END, &[("a", "b")]),
                    _ => data(id, END, &vec![*which; usize::from(amount % 3000)]),
                }
            }
        });
    }
    wire
}

/// A head in one frame or in several.
fn begin(id: u32, head: &[(&str, &str)], kind: u8, amount: u16) -> Vec<u8> {
    let block = block(&with(head, &[("x", "y")]));
    if kind < 5 {
        return frame(HEADERS, 4, id, &block);
    }
    let (first, rest) = block.split_at(usize::from(amount) % block.len());
    let (second, third) = rest.split_at(rest.len() / 2);
    [
        frame(HEADERS, 0, id, first),
        frame(CONTINUATION, 0, id, second),
        frame(CONTINUATION, 4, id, third),
    ]
    .concat()
}

fn bench(role: Role) -> Bench {
    let mut bench = Bench::begun(role, Limits::default());
    if role == Role::Client {
        for _ in 0..8 {
            bench.open(&request("POST"), false);
        }
        bench.seen();
    }
    bench
}

/// What is seen of these bytes, cut into pieces of these sizes, over and over.
fn seen(role: Role, bytes: &[u8], sizes: &[usize]) -> (String, Vec<u8>, usize) {
    let mut bench = bench(role);
    let mut rest = bytes;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() && bench.engine.ended().is_none() {
        let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        bench.feed(piece);
        rest = after;
    }
    let output = bench.output();
    (bench.seen(), output, bench.streams.len())
}

/// Bytes that are not what they were.
fn mutated(mut bytes: Vec<u8>, changes: &[(u16, u8, u8)]) -> Vec<u8> {
    for (place, kind, octet) in changes {
        let at = usize::from(*place) % (bytes.len() + 1);
        match kind % 4 {
            0 => bytes.insert(at, *octet),
            1 if at < bytes.len() => {
                bytes.remove(at);
            }
            2 if at < bytes.len() => bytes[at] ^= 1 << (octet % 8),
            _ if at < bytes.len() => bytes[at] = *octet,
            _ => {}
        }
    }
    bytes
}

/// Answers whatever is accepted; the output stays within its bound.
fn feed_and_answer(role: Role, bytes: &[u8], size: usize) {
    let mut bench = bench(role);
    let mut answers = 0;
    for (at, piece) in bytes.chunks(size).enumerate() {
        bench.feed(piece);
        while let Some(incoming) = bench.engine.accept() {
            let key = incoming.key;
            bench.watch(key);
            answers += 100;
            if bench
                .engine
                .respond(key, &response(200), at % 3 == 0)
                .is_ok()
                && at % 3 == 1
            {
                let mut content = Bytes::from_static(b"hello");
                let _ = bench.engine.send_data(key, &mut content);
                let _ = bench.engine.send_end(key);
            }
            if at % 2 == 0 {
                bench.engine.drop_receiver(key);
                bench.engine.drop_sender(key);
            }
        }
        for at in 0..bench.streams.len() {
            let key = bench.streams[at].key;
            while let Taken::Piece(_) = bench.engine.take(key) {}
        }
        while bench.engine.notice().is_some() {}
        // A frame of 9 octets is answered with one of at most 17, and the end is said once.
        let written = bench.engine.output().len();
        assert!(written <= 2 * bytes.len() + answers + 100, "{written}");
    }
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Client), Just(Role::Server)]
}

fn other(role: Role) -> Role {
    match role {
        Role::Client => Role::Server,
        Role::Server => Role::Client,
    }
}

fn seeds() -> impl Strategy<Value = Vec<Seed>> {
    prop::collection::vec((0..27_u8, any::<u8>(), any::<u16>()), 1..60)
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![1..12_usize, 1..3000_usize], 1..20)
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn how_bytes_are_cut_makes_no_difference(role in role(), seeds in seeds(), sizes in sizes()) {
        let bytes = wire(other(role), &seeds);
        let whole = seen(role, &bytes, &[bytes.len().max(1)]);
        let is_fine = !whole.0.starts_with("ended");
        prop_assert!(is_fine, "the peer behaves: {}", whole.0);
        prop_assert_eq!(seen(role, &bytes, &sizes), whole);
    }

    #[test]
    fn nor_where_they_are_wrong(
        role in role(),
        seeds in seeds(),
        sizes in sizes(),
        changes in prop::collection::vec(any::<(u16, u8, u8)>(), 1..6),
    ) {
        let bytes = mutated(wire(other(role), &seeds), &changes);
        let whole = seen(role, &bytes, &[bytes.len().max(1)]);
        prop_assert_eq!(seen(role, &bytes, &sizes), whole);
        feed_and_answer(role, &bytes, sizes[0]);
    }

    #[test]
    fn any_bytes_at_all(
        role in role(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        frames in prop::collection::vec((0..11_u8, any::<u8>(), 0..12_u32, 0..40_usize), 0..40),
        size in 1..100_usize,
    ) {
        feed_and_answer(role, &bytes, size);
        let mut wire = Vec::new();
        for (kind, flags, stream, length) in frames {
            let start = length.min(bytes.len());
            let payload = &bytes[start..bytes.len().min(start + length)];
            wire.extend(frame(kind, flags, stream, payload));
        }
        feed_and_answer(role, &wire, size);
        let mut fresh = Bench::new(role, Limits::default());
        fresh.feed(&bytes).seen();
    }
}
