//! Whether the application listens, and where. Its sockets are read from the kernel's table: a
//! connection made to find out would be one that the application sees.

use std::cell::Cell;
use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::listeners::Listeners;
use super::{Handle, listeners};
use crate::model::Configuration;

/// How often the table is read while there are ports to watch.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// A cheap handle on what was seen last.
#[derive(Clone, Debug)]
pub struct ApplicationPorts {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Where other sidecars reach this one.
    own: IpAddr,
    /// Ports that the workload's own settings name.
    named: BTreeSet<u16>,
    seen: Mutex<Seen>,
    /// Grows with every change of what was seen, and with every poll.
    changes: AtomicU64,
    up: watch::Sender<BTreeSet<u16>>,
}

#[derive(Debug, Default)]
struct Seen {
    read_at: Option<Instant>,
    listeners: Listeners,
    /// Ports that `Inbound` names.
    watched: BTreeSet<u16>,
    /// Refused a connection since the last poll.
    refused: HashSet<u16>,
    /// Bound to `[::]` and yet refused IPv4: `IPV6_V6ONLY`, which the table doesn't tell.
    six_only: HashSet<u16>,
}

/// The last answer that a worker got about a port that is watched, until anything that was seen changes: nearly every
/// request asks for the same, and workers would wait for each other.
#[derive(Debug, Default)]
pub struct LatestPort(Cell<Option<Found>>);

#[derive(Clone, Copy, Debug)]
struct Found {
    changes: u64,
    port: u16,
    own: IpAddr,
    address: SocketAddr,
}

impl ApplicationPorts {
    pub(super) fn new(own: IpAddr, named: impl IntoIterator<Item = u16>) -> Self {
        let shared = Shared {
            own,
            named: named.into_iter().collect(),
            seen: Mutex::default(),
            changes: AtomicU64::new(0),
            up: watch::Sender::default(),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Where to connect for the application's `port`, which the caller reached at `own`. None when
    /// nothing listens there. What listens on loopback alone is reached where a service or the workload's settings name
    /// the port: else it was never meant for callers from elsewhere, who only say its number.
    pub fn address_of(&self, port: u16, own: IpAddr) -> Option<SocketAddr> {
        self.latest_address_of(&LatestPort::default(), port, own)
    }

    /// The same, by what the worker was told last where that still holds.
    pub fn latest_address_of(
        &self,
        latest: &LatestPort,
        port: u16,
        own: IpAddr,
    ) -> Option<SocketAddr> {
        // Read before it is looked: what changes meanwhile makes the answer an old one.
        let changes = self.shared.changes.load(Ordering::Acquire);
        if let Some(found) = latest.0.get()
            && (found.changes, found.port, found.own) == (changes, port, own)
        {
            return Some(found.address);
        }
        let mut seen = self.lock();
        let is_watched = seen.watched.contains(&port);
        if !is_watched && !seen.is_fresh() {
            seen.read();
            self.changed();
        }
        let is_named = is_watched || self.shared.named.contains(&port);
        let address = seen.address_of(port, own, is_named)?;
        latest.0.set(is_watched.then_some(Found {
            changes,
            port,
            own,
            address,
        }));
        Some(address)
    }

    /// The application refused a connection to this port: it counts as down until the next poll.
    pub fn refused(&self, port: u16) {
        let mut seen = self.lock();
        let six = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let four = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let only_six = seen.listeners.contains(&six) && !seen.listeners.contains(&four);
        if !only_six || !seen.six_only.insert(port) {
            seen.refused.insert(port);
        }
        self.publish(&seen);
    }

    /// The watched ports that take connections now, each time they change.
    pub(super) fn up(&self) -> watch::Receiver<BTreeSet<u16>> {
        self.shared.up.subscribe()
    }

    /// Looks at the ports that the configuration names.
    pub(super) fn poll(&self, configuration: &Configuration) {
        let inbound = configuration.inbound.iter();
        let ports = inbound.flat_map(|inbound| &inbound.ports);
        self.watch(ports.map(|known| known.port).collect());
    }

    fn watch(&self, watched: BTreeSet<u16>) {
        let mut seen = self.lock();
        seen.watched = watched;
        if !seen.watched.is_empty() {
            seen.read();
            seen.refused.clear();
        }
        self.publish(&seen);
    }

    fn publish(&self, seen: &Seen) {
        self.changed();
        let own = self.shared.own;
        let watched = seen.watched.iter().copied();
        let up = watched
            .filter(|port| seen.address_of(*port, own, true).is_some())
            .collect();
        self.shared.up.send_if_modified(|before| {
            let changed = *before != up;
            *before = up;
            changed
        });
    }

    /// What workers were told holds no more.
    fn changed(&self) {
        self.shared.changes.fetch_add(1, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.shared
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn is_fresh(&self) -> bool {
        self.read_at.is_some_and(|at| at.elapsed() < POLL_INTERVAL)
    }

    fn read(&mut self) {
        match listeners::read() {
            Ok(listeners) => self.listeners = listeners,
            Err(error) => {
                tracing::warn!(%error, "cannot read which ports the application listens on");
            }
        }
        let listeners = &self.listeners;
        let any_six = |port: &u16| listeners.contains(&(Ipv6Addr::UNSPECIFIED, *port).into());
        self.six_only.retain(any_six);
        self.read_at = Some(Instant::now());
    }

    fn address_of(&self, port: u16, own: IpAddr, is_named: bool) -> Option<SocketAddr> {
        if self.refused.contains(&port) {
            return None;
        }
        let at = |ip: IpAddr| self.listeners.contains(&SocketAddr::new(ip, port));
        let any_four = at(Ipv4Addr::UNSPECIFIED.into());
        let any_six = at(Ipv6Addr::UNSPECIFIED.into());
        let any_own = match own {
            IpAddr::V4(_) => any_four || any_six && !self.six_only.contains(&port),
            IpAddr::V6(_) => any_six,
        };
        let local = |ip: IpAddr| Some(SocketAddr::new(ip, port));
        if any_own || at(own) {
            local(own)
        } else if any_four || is_named && at(Ipv4Addr::LOCALHOST.into()) {
            local(Ipv4Addr::LOCALHOST.into())
        } else if any_six || is_named && at(Ipv6Addr::LOCALHOST.into()) {
            local(Ipv6Addr::LOCALHOST.into())
        } else {
            None
        }
    }
}

/// Polls for as long as it runs.
pub(super) async fn run(ports: &ApplicationPorts, handle: &Handle) {
    let mut interval = tokio::time::interval(POLL_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut changed = handle.changed();
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            // The handle outlives this; a closed channel would only end the watching.
            changed = changed.changed() => if changed.is_err() { return },
        }
        ports.poll(&handle.current());
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use socket2::{Domain, Socket, Type};

    use super::*;

    fn four(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn where_a_real_listener_is_reached() {
        let check_as = |is_named: bool, bind: &str, own: &str, expect: Option<&str>| {
            let listener = TcpListener::bind((bind, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let ports = ApplicationPorts::new(four(own), is_named.then_some(port));
            let found = ports
                .address_of(port, four(own))
                .map(|address| address.ip());
            assert_eq!(found, expect.map(four), "{bind} at {own}, {is_named}");
        };
        let check = |bind: &str, own: &str, expect| check_as(true, bind, own, expect);
        let check_unnamed = |bind: &str, own: &str, expect| check_as(false, bind, own, expect);
        check("127.0.0.1", "127.0.0.1", Some("127.0.0.1"));
        check("127.0.0.1", "10.9.8.7", Some("127.0.0.1"));
        check("127.0.0.2", "127.0.0.2", Some("127.0.0.2"));
        // Somebody else may happen to listen on this port of another address; not every time.
        let found_elsewhere = || {
            let listener = TcpListener::bind("127.0.0.2:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let ports = ApplicationPorts::new(four("127.0.0.3"), [port]);
            ports.address_of(port, four("127.0.0.3")).is_some()
        };
        assert!((0..10).any(|_| !found_elsewhere()));
        check("0.0.0.0", "10.9.8.7", Some("10.9.8.7"));
        check("0.0.0.0", "fd00::7", Some("127.0.0.1"));
        check_unnamed("127.0.0.1", "127.0.0.1", Some("127.0.0.1"));
        check_unnamed("127.0.0.1", "10.9.8.7", None);
        check_unnamed("0.0.0.0", "10.9.8.7", Some("10.9.8.7"));
        check_unnamed("0.0.0.0", "fd00::7", Some("127.0.0.1"));
        if TcpListener::bind("[::1]:0").is_ok() {
            check("::", "10.9.8.7", Some("10.9.8.7"));
            check("::", "fd00::7", Some("fd00::7"));
            check("::1", "10.9.8.7", Some("::1"));
            check_unnamed("::1", "10.9.8.7", None);
        }
    }

    #[test]
    fn a_port_goes_up_and_down() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ports = ApplicationPorts::new(four("127.0.0.1"), []);
        let up = ports.up();
        let latest = LatestPort::default();
        let address = || ports.latest_address_of(&latest, port, four("127.0.0.1"));
        let there = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        ports.watch(BTreeSet::from([port]));
        assert!(up.borrow().contains(&port));
        assert_eq!((address(), address()), (Some(there), Some(there)));
        let elsewhere = ports.latest_address_of(&latest, port, four("127.0.0.2"));
        assert_eq!(elsewhere, Some(there));
        ports.refused(port);
        assert!(up.borrow().is_empty());
        assert_eq!(address(), None);
        ports.watch(BTreeSet::from([port]));
        assert!(up.borrow().contains(&port));
        assert_eq!(address(), Some(there));
        drop(listener);
        ports.watch(BTreeSet::from([port]));
        assert!(up.borrow().is_empty());
        assert_eq!(address(), None);
    }

    #[test]
    fn a_socket_of_ipv6_alone_is_reached_by_ipv6() {
        let Ok(socket) = Socket::new(Domain::IPV6, Type::STREAM, None) else {
            return;
        };
        socket.set_only_v6(true).unwrap();
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        if socket.bind(&any.into()).is_err() {
            return;
        }
        socket.listen(1).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        let ports = ApplicationPorts::new(four("10.9.8.7"), []);
        ports.watch(BTreeSet::from([port]));
        ports.refused(port);
        let found = ports.address_of(port, four("10.9.8.7"));
        assert_eq!(found, Some((Ipv6Addr::LOCALHOST, port).into()));
    }
}
