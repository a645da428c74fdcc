//! What was learnt of destinations whose protocol no document names.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::destination::Destination;
use crate::model::ServicePort;

/// How long it counts; a destination may change what it serves.
const REMEMBERED: Duration = Duration::from_secs(600);
/// Destinations remembered; beyond, nothing more is learnt until some are forgotten.
const DESTINATIONS_MAX: usize = 10_000;

/// Destinations at which the server speaks first.
#[derive(Default)]
pub(super) struct Learnt {
    server_first: RefCell<HashMap<Key, Instant>>,
}

#[derive(PartialEq, Eq, Hash)]
enum Key {
    Service(ServicePort),
    Address(SocketAddr),
}

impl Key {
    fn of(destination: &Destination) -> Self {
        match destination {
            Destination::Service(port) => Key::Service((**port).clone()),
            Destination::Endpoint(endpoint) => Key::Address(endpoint.address),
            Destination::Outside(address) => Key::Address(*address),
        }
    }
}

impl Learnt {
    pub(super) fn speaks_first(&self, destination: &Destination) -> bool {
        let learnt = self.server_first.borrow();
        learnt
            .get(&Key::of(destination))
            .is_some_and(|since| since.elapsed() < REMEMBERED)
    }

    pub(super) fn remember_server_first(&self, destination: &Destination) {
        let mut learnt = self.server_first.borrow_mut();
        if learnt.len() < DESTINATIONS_MAX {
            learnt.insert(Key::of(destination), Instant::now());
        }
    }

    pub(super) fn sweep(&self) {
        self.server_first
            .borrow_mut()
            .retain(|_, since| since.elapsed() < REMEMBERED);
    }
}
