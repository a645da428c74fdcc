//! An application that gets more than it can do, simulated: seeded, by a clock of its own. It does so many things
//! at once, and what is more waits within it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::gate::{Arrival, Gate};
use crate::model::{Concurrency, Priority};

/// What the application is like.
#[derive(Clone, Copy, Debug)]
struct Application {
    /// Things it does at once.
    workers: usize,
    service: Service,
}

/// How long one thing takes.
#[derive(Clone, Copy, Debug)]
enum Service {
    Always(f64),
    /// Mostly short, at times long.
    Exponential(f64),
    /// Two kinds of things.
    Mixed(f64, f64),
}

impl Service {
    fn mean(self) -> f64 {
        match self {
            Self::Always(mean) | Self::Exponential(mean) => mean,
            Self::Mixed(short, long) => 0.9 * short + 0.1 * long,
        }
    }

    fn draw(self, random: &mut StdRng) -> f64 {
        match self {
            Self::Always(time) => time,
            Self::Exponential(mean) => -mean * (1.0 - random.random::<f64>()).ln(),
            Self::Mixed(short, long) => match random.random_bool(0.1) {
                true => long,
                false => short,
            },
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
enum Event {
    Arrives,
    /// This request is done in the application.
    Done(usize),
    /// This request has waited for its turn as long as it may.
    Expires(usize),
}

struct Request {
    priority: Priority,
    arrived: f64,
    admitted: f64,
    is_out: bool,
}

#[derive(Debug, Default)]
struct Seen {
    arrived: usize,
    refused: usize,
    /// How long each took that was answered, important or not.
    high: Vec<f64>,
    normal: Vec<f64>,
    high_refused: usize,
    most_in_flight: u32,
}

impl Seen {
    fn goodput(&self) -> usize {
        self.high.len() + self.normal.len()
    }

    fn high_p99(&mut self) -> f64 {
        self.high.sort_by(f64::total_cmp);
        self.high[self.high.len() * 99 / 100]
    }
}

/// Seconds that are simulated, and those before anything is counted.
const LASTS: f64 = 60.0;
const WARMS_UP: f64 = 10.0;

/// Requests come at random, so many times as often as the application can do them; a tenth is important.
fn simulate(application: Application, load: f64, policy: &Concurrency, seed: u64) -> Seen {
    let start = Instant::now();
    let clock = |at: f64| start + Duration::from_secs_f64(at);
    let mut random = StdRng::seed_from_u64(seed);
    let rate = load * application.workers as f64 / application.service.mean();
    let mut gate = Gate::<usize>::new(start);
    let mut events = BinaryHeap::new();
    let mut order = 0_u64;
    let mut requests: Vec<Request> = Vec::new();
    let (mut busy, mut waiting) = (0, VecDeque::new());
    let mut seen = Seen::default();
    // Times in nanoseconds, so that they have an order.
    let mut plan = |events: &mut BinaryHeap<_>, at: f64, event: Event| {
        order += 1;
        events.push(Reverse(((at * 1e9) as u64, order, Planned(event))));
    };
    plan(&mut events, 0.0, Event::Arrives);
    while let Some(Reverse((at, _, Planned(event)))) = events.pop() {
        let now = at as f64 / 1e9;
        if now > LASTS {
            break;
        }
        let counts = |arrived: f64| arrived >= WARMS_UP;
        let mut admitted = Vec::new();
        match event {
            Event::Arrives => {
                let gap = -(1.0 - random.random::<f64>()).ln() / rate;
                plan(&mut events, now + gap, Event::Arrives);
                let number = requests.len();
                let priority = match random.random_bool(0.1) {
                    true => Priority::High,
                    false => Priority::Normal,
                };
                requests.push(Request {
                    priority,
                    arrived: now,
                    admitted: now,
                    is_out: false,
                });
                seen.arrived += usize::from(counts(now));
                match gate.arrive(priority, policy, clock(now), || number) {
                    Arrival::Admitted => admitted.push(number),
                    Arrival::Waits(longest) => {
                        let until = now + longest.as_secs_f64();
                        plan(&mut events, until, Event::Expires(number));
                    }
                    Arrival::Refused => {
                        requests[number].is_out = true;
                        seen.refused += usize::from(counts(now));
                        seen.high_refused += usize::from(counts(now) && priority == Priority::High);
                    }
                }
            }
            Event::Expires(number) => {
                let request = &mut requests[number];
                if !request.is_out {
                    request.is_out = true;
                    gate.retain(|one| *one != number);
                    seen.refused += usize::from(counts(request.arrived));
                    let high = request.priority == Priority::High;
                    seen.high_refused += usize::from(counts(request.arrived) && high);
                }
            }
            Event::Done(number) => {
                let request = &requests[number];
                if counts(request.arrived) {
                    let took = now - request.arrived;
                    match request.priority {
                        Priority::High => seen.high.push(took),
                        _ => seen.normal.push(took),
                    }
                }
                let latency = Duration::from_secs_f64(now - request.admitted);
                gate.finished(Some(latency), policy, clock(now));
                busy -= 1;
                if let Some(next) = waiting.pop_front() {
                    busy += 1;
                    let time = application.service.draw(&mut random);
                    plan(&mut events, now + time, Event::Done(next));
                }
            }
        }
        while let Some(number) = gate.next(policy) {
            match requests[number].is_out {
                true => gate.gone(),
                false => admitted.push(number),
            }
        }
        for number in admitted {
            let request = &mut requests[number];
            (request.admitted, request.is_out) = (now, true);
            if busy < application.workers {
                busy += 1;
                let time = application.service.draw(&mut random);
                plan(&mut events, now + time, Event::Done(number));
            } else {
                waiting.push_back(number);
            }
        }
        if counts(now) {
            seen.most_in_flight = seen.most_in_flight.max(gate.in_flight());
        }
    }
    seen
}

/// Ordered by time and order alone.
#[derive(Clone, Copy, Debug)]
struct Planned(Event);

impl PartialEq for Planned {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Planned {}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

const APPLICATIONS: [Application; 6] = [
    Application {
        workers: 4,
        service: Service::Always(0.010),
    },
    Application {
        workers: 4,
        service: Service::Exponential(0.010),
    },
    Application {
        workers: 16,
        service: Service::Always(0.010),
    },
    Application {
        workers: 16,
        service: Service::Exponential(0.020),
    },
    Application {
        workers: 64,
        service: Service::Exponential(0.050),
    },
    Application {
        workers: 16,
        service: Service::Mixed(0.005, 0.100),
    },
];

fn enforced() -> Concurrency {
    Concurrency {
        enforced: true,
        ..Concurrency::default()
    }
}

/// Three times as much as can be done: nearly all of what can be done is, and what is important is done in time.
#[test]
fn overload_by_three() {
    for application in APPLICATIONS {
        for seed in 1..=3 {
            let capacity = application.workers as f64 / application.service.mean();
            let capacity = capacity * (LASTS - WARMS_UP);
            let unloaded = simulate(application, 0.1, &enforced(), seed).high_p99();
            let mut seen = simulate(application, 3.0, &enforced(), seed);
            let goodput = seen.goodput() as f64 / capacity;
            let slower = seen.high_p99() / unloaded;
            println!(
                "{application:?} {seed}: goodput {goodput:.3}, p99 of the important {slower:.2} times \
                 unloaded, refused of them {}, most at once {}",
                seen.high_refused, seen.most_in_flight
            );
            assert!(goodput >= 0.85, "{application:?} {seed}: {goodput}");
            assert!(slower <= 3.0, "{application:?} {seed}: {slower}");
            // A probe may be short of room for a moment.
            let refused = seen.high_refused as f64 / seen.high.len() as f64;
            assert!(refused <= 0.001, "{application:?} {seed}: {refused}");
        }
    }
}

#[test]
fn nothing_is_refused_below_what_can_be_done() {
    for application in APPLICATIONS {
        for seed in 1..=3 {
            let seen = simulate(application, 0.8, &enforced(), seed);
            assert_eq!(
                seen.refused, 0,
                "{application:?} {seed} of {}",
                seen.arrived
            );
        }
    }
}

/// Without a limit everything waits in the application, longer and longer: what the others are compared with.
#[test]
fn observing_holds_nothing_back() {
    let application = APPLICATIONS[2];
    let seen = simulate(application, 3.0, &Concurrency::default(), 1);
    assert_eq!(seen.refused, 0);
    assert!(seen.most_in_flight > 10_000, "{}", seen.most_in_flight);
}
