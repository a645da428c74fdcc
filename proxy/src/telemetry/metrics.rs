//! Counters by label set. A thread keeps its own table from labels to counters that it alone adds to, so a record of a
//! known series takes no lock, not even the one that an atomic addition takes of the memory; only a series' first record
//! on a thread does. Whoever reads adds up what the threads have.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use foldhash::fast::RandomState;

use super::record::{ConnectionRecord, Direction, Party, RequestCount};
use crate::model::{Fault, ServiceName};

/// Label sets held at once; what comes after is added to one series that says `other`, and counted
/// in `weft_series_overflow_total`.
pub(super) const SERIES_MAX: usize = 2_000;
/// Entries of a thread's table; at this size it is emptied and fills again from the shared one.
pub(super) const THREAD_SERIES_MAX: usize = 4 * SERIES_MAX;
/// Upper bounds of the duration histogram in seconds; a sidecar's own share is under a millisecond.
pub(super) const DURATION_BOUNDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Requests and connections count in series of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    Request,
    Connection,
}

/// Labels as a record holds them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Labels<'r> {
    pub kind: Kind,
    pub direction: Direction,
    pub source: Side<'r>,
    pub destination: Side<'r>,
    pub route: &'r str,
    pub status: u16,
    pub grpc_status: Option<u16>,
    pub fault: Option<Fault>,
    pub tls: bool,
    /// What came after the limit.
    pub overflow: bool,
}

/// Who sent or who serves. The texts are shared with who made them, so those that are the same are mostly the same
/// allocation, and nothing else of them is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Side<'r> {
    pub namespace: &'r Arc<str>,
    pub workload: &'r Arc<str>,
    pub service: Option<&'r ServiceName>,
}

/// The same labels, owned by their series.
#[derive(Debug)]
struct OwnedLabels {
    kind: Kind,
    direction: Direction,
    source: Party<'static>,
    destination: Party<'static>,
    route: String,
    status: u16,
    grpc_status: Option<u16>,
    fault: Option<Fault>,
    tls: bool,
    overflow: bool,
}

/// One label set. Series live as long as the proxy.
#[derive(Debug)]
pub(super) struct Series {
    owner: u64,
    labels: OwnedLabels,
    /// Of each thread that counted in it: the workers, and the control thread.
    counts: Mutex<Vec<(ThreadId, Arc<Counts>)>>,
}

/// What one thread counted in a series.
#[derive(Debug, Default)]
struct Counts {
    count: Counter,
    duration_buckets: [Counter; DURATION_BOUNDS.len() + 1],
    duration_nanoseconds: Counter,
    bytes_up: Counter,
    bytes_down: Counter,
    retries: Counter,
}

/// A number that one thread adds to and others read.
#[derive(Debug, Default)]
struct Counter(AtomicU64);

/// What all threads counted in a series.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    pub count: u64,
    pub duration_buckets: [u64; DURATION_BOUNDS.len() + 1],
    pub duration_nanoseconds: u64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub retries: u64,
}

/// Every number of this proxy.
#[derive(Debug)]
pub(super) struct Metrics {
    /// Tells the series of one instance from those of another in a thread's table.
    id: u64,
    /// Seeded by the process, so that nobody outside can choose labels whose hashes collide.
    hasher: RandomState,
    /// Keyed by the labels' hash; the few that share a hash stand in one list.
    series: Mutex<Table>,
    series_max: usize,
    pub overflow: AtomicU64,
    pub spans_dropped: AtomicU64,
    pub access_log_dropped: AtomicU64,
    /// By port and worker: limit, in flight, exceeded.
    pub concurrency: Mutex<BTreeMap<(u16, usize), [u64; 3]>>,
    /// Of rate limit servers, by what they said.
    pub rate_limit_answers: Mutex<BTreeMap<&'static str, u64>>,
    /// Failed, passed.
    pub health_checks: [AtomicU64; 2],
    refused: [[AtomicU64; Fault::ALL.len()]; 2],
    open: [Arc<AtomicI64>; 2],
}

#[derive(Debug, Default)]
struct Table {
    by_hash: HashMap<u64, Vec<Arc<Series>>>,
    len: usize,
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub struct ConnectionGauge(Arc<AtomicI64>);

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// What a thread has counted in.
#[derive(Default)]
struct Known {
    by_hash: HashMap<u64, Counted, RandomState>,
    /// What each direction counted in last, which mostly is the next one's too: its labels would be compared after they
    /// were found by their hash as well.
    last: [Option<Counted>; 2],
}

/// A series, and the thread's own counters of it.
#[derive(Clone)]
struct Counted {
    series: Arc<Series>,
    counts: Arc<Counts>,
}

/// Whose labels are empty.
static NOBODY: LazyLock<Party<'static>> = LazyLock::new(Party::default);

static NEXT_ID: AtomicU64 = AtomicU64::new(0);

impl Metrics {
    pub(super) fn new(series_max: usize) -> Self {
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            hasher: RandomState::default(),
            series: Mutex::default(),
            series_max,
            overflow: AtomicU64::new(0),
            spans_dropped: AtomicU64::new(0),
            access_log_dropped: AtomicU64::new(0),
            concurrency: Mutex::default(),
            rate_limit_answers: Mutex::default(),
            health_checks: std::array::from_fn(|_| AtomicU64::new(0)),
            refused: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            open: [Arc::default(), Arc::default()],
        }
    }

    pub(super) fn add_request(&self, request: &RequestCount<'_>) {
        let labels = Labels {
            kind: Kind::Request,
            direction: request.direction,
            source: Side::of(&request.source),
            destination: Side::of(&request.destination),
            route: request.route.unwrap_or_default(),
            status: request.status,
            grpc_status: request.grpc_status,
            fault: request.fault,
            tls: request.tls,
            overflow: false,
        };
        self.with_counts(&labels, |counts| {
            counts.count.add(1);
            counts.add_duration(request.duration);
            counts.bytes_up.add(request.request_bytes);
            counts.bytes_down.add(request.response_bytes);
            counts.retries.add(u64::from(request.retries));
        });
    }

    pub(super) fn add_connection(&self, record: &ConnectionRecord) {
        let labels = Labels {
            kind: Kind::Connection,
            direction: record.direction,
            source: Side::of(&record.source),
            destination: Side::of(&record.destination),
            route: record.route.as_deref().unwrap_or_default(),
            status: 0,
            grpc_status: None,
            fault: record.fault,
            tls: record.tls,
            overflow: false,
        };
        self.with_counts(&labels, |counts| {
            counts.count.add(1);
            counts.bytes_up.add(record.bytes_up);
            counts.bytes_down.add(record.bytes_down);
        });
    }

    pub(super) fn add_refused(&self, direction: Direction, fault: Fault) {
        self.refused[direction as usize][fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self, direction: Direction, fault: Fault) -> u64 {
        self.refused[direction as usize][fault as usize].load(Ordering::Relaxed)
    }

    pub(super) fn open_connection(&self, direction: Direction) -> ConnectionGauge {
        let gauge = self.open[direction as usize].clone();
        gauge.fetch_add(1, Ordering::Relaxed);
        ConnectionGauge(gauge)
    }

    pub(super) fn connections_open(&self, direction: Direction) -> i64 {
        self.open[direction as usize].load(Ordering::Relaxed)
    }

    /// Every series, in no order.
    pub(super) fn all(&self) -> Vec<Arc<Series>> {
        let table = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        table.by_hash.values().flatten().cloned().collect()
    }

    fn with_counts(&self, labels: &Labels<'_>, add: impl FnOnce(&Counts)) {
        KNOWN.with_borrow_mut(|known| {
            let last = &mut known.last[labels.direction as usize];
            if let Some(Counted { series, counts }) = last
                && self.counts(series, labels)
            {
                return add(counts);
            }
            let counted = self.find(&mut known.by_hash, labels);
            if counted.series.labels.overflow {
                self.overflow.fetch_add(1, Ordering::Relaxed);
            }
            add(&counted.counts);
            *last = Some(counted);
        });
    }

    /// The series of these labels, by the thread's own table where it is known there.
    fn find(&self, known: &mut HashMap<u64, Counted, RandomState>, labels: &Labels<'_>) -> Counted {
        let hash = self.hasher.hash_one((self.id, labels));
        let found = known
            .get(&hash)
            .filter(|counted| self.serves(&counted.series, labels));
        if let Some(counted) = found {
            return counted.clone();
        }
        let series = self.find_or_create(hash, labels);
        let counts = series.counts_of_thread();
        let counted = Counted { series, counts };
        if known.len() >= THREAD_SERIES_MAX {
            known.clear();
        }
        known.insert(hash, counted.clone());
        counted
    }

    /// Labels that once came after the limit stay there: no series ever goes.
    fn serves(&self, series: &Series, labels: &Labels<'_>) -> bool {
        self.counts(series, labels) || self.counts(series, &labels.other())
    }

    /// Whether the series is ours, and of these very labels. A thread may count for several.
    fn counts(&self, series: &Series, labels: &Labels<'_>) -> bool {
        series.owner == self.id && series.labels.borrow() == *labels
    }

    fn find_or_create(&self, hash: u64, labels: &Labels<'_>) -> Arc<Series> {
        let mut table = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(series) = table.find(hash, labels) {
            return series;
        }
        if table.len < self.series_max {
            return table.insert(hash, Series::new(self.id, labels));
        }
        let other = labels.other();
        let hash = self.hasher.hash_one((self.id, &other));
        match table.find(hash, &other) {
            Some(series) => series,
            None => table.insert(hash, Series::new(self.id, &other)),
        }
    }
}

impl Table {
    fn find(&self, hash: u64, labels: &Labels<'_>) -> Option<Arc<Series>> {
        let same = self.by_hash.get(&hash)?;
        same.iter()
            .find(|series| series.labels.borrow() == *labels)
            .cloned()
    }

    fn insert(&mut self, hash: u64, series: Series) -> Arc<Series> {
        let series = Arc::new(series);
        self.by_hash.entry(hash).or_default().push(series.clone());
        self.len += 1;
        series
    }
}

impl Labels<'_> {
    /// The series for what comes after the limit.
    fn other(&self) -> Labels<'static> {
        Labels {
            kind: self.kind,
            direction: self.direction,
            source: Side::of(&NOBODY),
            destination: Side::of(&NOBODY),
            route: "",
            status: 0,
            grpc_status: None,
            fault: None,
            tls: false,
            overflow: true,
        }
    }
}

impl<'r> Side<'r> {
    fn of(party: &'r Party) -> Self {
        Self {
            namespace: &party.namespace,
            workload: &party.workload,
            service: party.service.as_deref(),
        }
    }

    fn to_party(self) -> Party<'static> {
        Party {
            namespace: Cow::Owned(self.namespace.clone()),
            workload: Cow::Owned(self.workload.clone()),
            service: self.service.cloned().map(Cow::Owned),
        }
    }
}

impl OwnedLabels {
    fn borrow(&self) -> Labels<'_> {
        Labels {
            kind: self.kind,
            direction: self.direction,
            source: Side::of(&self.source),
            destination: Side::of(&self.destination),
            route: &self.route,
            status: self.status,
            grpc_status: self.grpc_status,
            fault: self.fault,
            tls: self.tls,
            overflow: self.overflow,
        }
    }
}

impl Series {
    fn new(owner: u64, labels: &Labels<'_>) -> Self {
        Self {
            owner,
            labels: OwnedLabels {
                kind: labels.kind,
                direction: labels.direction,
                source: labels.source.to_party(),
                destination: labels.destination.to_party(),
                route: labels.route.to_owned(),
                status: labels.status,
                grpc_status: labels.grpc_status,
                fault: labels.fault,
                tls: labels.tls,
                overflow: labels.overflow,
            },
            counts: Mutex::default(),
        }
    }

    pub(super) fn labels(&self) -> Labels<'_> {
        self.labels.borrow()
    }

    /// What was counted up to now.
    pub(super) fn numbers(&self) -> Numbers {
        let all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut numbers = Numbers::default();
        for (_, counts) in all.iter() {
            numbers.count += counts.count.get();
            let buckets = numbers.duration_buckets.iter_mut();
            for (sum, bucket) in buckets.zip(&counts.duration_buckets) {
                *sum += bucket.get();
            }
            numbers.duration_nanoseconds += counts.duration_nanoseconds.get();
            numbers.bytes_up += counts.bytes_up.get();
            numbers.bytes_down += counts.bytes_down.get();
            numbers.retries += counts.retries.get();
        }
        numbers
    }

    /// The counters that only this thread adds to.
    fn counts_of_thread(&self) -> Arc<Counts> {
        let thread = thread::current().id();
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, counts)) = all.iter().find(|(other, _)| *other == thread) {
            return counts.clone();
        }
        let counts = Arc::<Counts>::default();
        all.push((thread, counts.clone()));
        counts
    }
}

impl Counts {
    fn add_duration(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = DURATION_BOUNDS.partition_point(|bound| *bound < seconds);
        self.duration_buckets[bucket].add(1);
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.duration_nanoseconds.add(nanoseconds);
    }
}

impl Counter {
    /// To be called by the counter's own thread alone: an addition between the two halves would be lost.
    fn add(&self, more: u64) {
        let sum = self.get().wrapping_add(more);
        self.0.store(sum, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for ConnectionGauge {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
