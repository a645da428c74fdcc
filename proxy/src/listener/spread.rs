//! Which worker serves a connection. The kernel spreads connections by a hash, so that a few long ones
//! may well all be one worker's; here each goes to the worker that has the fewest.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::Accepted;

/// The workers, seen by the listeners of one kind. What one hands to another waits in a queue that
/// the limit of all connections bounds.
#[derive(Clone, Debug)]
pub struct Spread {
    workers: Arc<[Worker]>,
}

#[derive(Debug)]
struct Worker {
    connections: Arc<AtomicUsize>,
    handed: UnboundedSender<Handed>,
}

/// A connection on its way to another worker, free of the one that accepted it.
#[derive(Debug)]
pub struct Handed {
    stream: TcpStream,
    peer: SocketAddr,
    original_destination: Option<SocketAddr>,
    held: Held,
}

/// What a connection holds for as long as it lives: its place among all connections, and among its
/// worker's.
#[derive(Debug)]
pub struct Held {
    _permit: OwnedSemaphorePermit,
    place: Option<Place>,
}

#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Place {
    fn new(connections: &Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(connections.clone())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Held {
    pub(super) fn new(permit: OwnedSemaphorePermit) -> Self {
        Self {
            _permit: permit,
            place: None,
        }
    }
}

impl Spread {
    /// For so many workers; each gets one of the receivers.
    pub fn new(workers: usize) -> (Self, Vec<UnboundedReceiver<Handed>>) {
        let (workers, receivers): (Vec<_>, Vec<_>) = (0..workers)
            .map(|_| {
                let (handed, receiver) = unbounded_channel();
                let connections = Arc::default();
                (
                    Worker {
                        connections,
                        handed,
                    },
                    receiver,
                )
            })
            .unzip();
        let workers = workers.into();
        (Self { workers }, receivers)
    }

    /// How many connections there are, with those on their way from one worker to another.
    pub fn connections(&self) -> usize {
        let load = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        self.workers.iter().map(load).sum()
    }

    /// Gives the connection back that `own`, who accepted it, is to serve; hands it to the one with
    /// the fewest connections otherwise.
    pub fn place(&self, own: usize, mut accepted: Accepted) -> Option<Accepted> {
        let load = |index: usize| self.workers[index].connections.load(Ordering::Relaxed);
        let least = (0..self.workers.len()).min_by_key(|index| load(*index));
        let chosen = least.filter(|least| load(*least) < load(own));
        let chosen = chosen.unwrap_or(own);
        let worker = &self.workers[chosen];
        accepted.held.place = Some(Place::new(&worker.connections));
        if chosen == own {
            return Some(accepted);
        }
        let Accepted {
            stream,
            peer,
            original_destination,
            held,
        } = accepted;
        let handed = Handed {
            stream: stream.into_std().ok()?,
            peer,
            original_destination,
            held,
        };
        // A worker ends with the process only, and its connections with it.
        let _ = worker.handed.send(handed);
        None
    }
}

impl Handed {
    /// Takes the connection into this worker's runtime; none when it is gone already.
    pub fn take(self) -> Option<Accepted> {
        let stream = tokio::net::TcpStream::from_std(self.stream).ok()?;
        Some(Accepted {
            stream,
            peer: self.peer,
            original_destination: self.original_destination,
            held: self.held,
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    /// What is served where when `accepting` accept one connection each, one after the other; of
    /// `closed`, each is closed before the connection of that number comes.
    async fn check(
        workers: usize,
        accepting: &[usize],
        closed: &[(usize, usize)],
        expect: &[usize],
    ) {
        let (spread, mut receivers) = Spread::new(workers);
        let permits = Arc::new(Semaphore::new(100));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut served: Vec<Option<(usize, Accepted)>> = Vec::new();
        for (at, own) in accepting.iter().enumerate() {
            for (_, gone) in closed.iter().filter(|(before, _)| *before == at) {
                served[*gone] = None;
            }
            let _client = tokio::net::TcpStream::connect(address).await.unwrap();
            let (stream, peer) = listener.accept().await.unwrap();
            let permit = permits.clone().acquire_owned().await.unwrap();
            let accepted = Accepted {
                stream,
                peer,
                original_destination: None,
                held: Held::new(permit),
            };
            let kept = spread.place(*own, accepted).map(|kept| (*own, kept));
            let handed = || {
                let mut each = receivers.iter_mut().enumerate();
                each.find_map(|(to, queue)| Some((to, queue.try_recv().ok()?.take()?)))
            };
            served.push(kept.or_else(handed));
        }
        let mut counts = vec![0; workers];
        for (worker, _) in served.iter().flatten() {
            counts[*worker] += 1;
        }
        assert_eq!(counts, expect, "{accepting:?} {closed:?}");
        let left: usize = counts.iter().sum();
        assert_eq!(permits.available_permits(), 100 - left);
        assert_eq!(spread.connections(), left);
        for (worker, count) in spread.workers.iter().zip(counts) {
            assert_eq!(worker.connections.load(Ordering::Relaxed), count);
        }
    }

    #[tokio::test]
    async fn the_one_with_the_fewest_serves() {
        check(1, &[0, 0, 0], &[], &[3]).await;
        check(2, &[0, 0, 0, 0], &[], &[2, 2]).await;
        check(2, &[1, 1, 0, 1], &[], &[2, 2]).await;
        check(3, &[2; 9], &[], &[3, 3, 3]).await;
    }

    #[tokio::test]
    async fn who_lost_connections_gets_the_next() {
        // The first and the third are worker 0's.
        check(2, &[0, 0, 0, 0, 1, 1], &[(4, 0), (4, 2)], &[2, 2]).await;
        check(2, &[0, 0, 0, 0, 0, 0], &[(4, 1), (4, 3)], &[2, 2]).await;
    }
}
