//! Composition root: builds every room once, starts them in order, and drains them in order.
//!
//! Each worker is a thread with a current-thread runtime, its own listening sockets, pools and
//! balancer; nothing on a request's way crosses threads. Identity, discovery, admin, DNS and export
//! live on the control thread, which is the one that calls [`run`].

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

use rustix::process::getpriority_process;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id, thread_schedule_policy,
};
use tokio::net::TcpListener as ControlListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::LocalSet;
use tokio::time::{Instant, interval, sleep};
use tracing::{debug, info, warn};

use crate::authorization::Policy;
use crate::bootstrap::{InboundPlaintext, Settings};
use crate::discovery::{self, ApplicationPorts, QUESTIONS_MAX, Question};
use crate::endpoint::WATCH_EVERY;
use crate::http::{ServerLimits, Spent, draining};
use crate::identity::Identity;
use crate::inbound::{self, Inbound};
use crate::listener::{Handed, Listener, Spread, bind};
use crate::model::{Known, Name, Own, Service, ServiceName};
use crate::outbound::{self, Outbound};
use crate::ratelimit::RateLimitServers;
use crate::telemetry::{Gauges, Telemetry, TelemetryOptions};
use crate::{admin, dns, telemetry};

/// How long callers get to learn that this workload takes no more requests, before it tells them
/// itself by GOAWAY and a closed port.
const DEREGISTER_GRACE: Duration = Duration::from_millis(500);
/// How often a worker lets go of what is idle.
const SWEEP: Duration = Duration::from_secs(1);

/// A block of this size is given to the allocator once, at the start.
const HEAP_STEP: usize = 1024 * 1024;

/// Why the proxy could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "cannot listen on {address} ({what}): {source}; is another proxy running, or is WEFT_{variable} wrong?"
    )]
    Listen {
        address: SocketAddr,
        what: &'static str,
        variable: &'static str,
        source: io::Error,
    },
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    #[error("{0}")]
    Telemetry(#[from] telemetry::InvalidOption),
    #[error("{0}")]
    Identity(#[from] crate::identity::Unusable),
    #[error("a worker ended unexpectedly; this is a bug")]
    Worker,
}

/// What every worker gets a share of.
#[derive(Clone)]
struct Shared {
    settings: Arc<Settings>,
    own: Own,
    identity: Identity,
    discovery: discovery::Handle,
    ports: ApplicationPorts,
    telemetry: Telemetry,
    permits: Arc<Semaphore>,
    inbound_drain: watch::Receiver<bool>,
    outbound_drain: watch::Receiver<bool>,
    spent: Spent,
    /// Set once the workload is told to end.
    leaving: Arc<AtomicBool>,
}

/// The sockets of one worker.
struct Sockets {
    outbound: Vec<std::net::TcpListener>,
    inbound: Vec<std::net::TcpListener>,
}

/// Where one worker's connections come from: its own sockets, and the other workers.
struct Connections {
    index: usize,
    sockets: Sockets,
    outbound: Spread,
    inbound: Spread,
    outbound_handed: UnboundedReceiver<Handed>,
    inbound_handed: UnboundedReceiver<Handed>,
    questions: Receiver<Question>,
}

/// Runs the sidecar until it is told to stop and has drained.
pub fn run(settings: Settings) -> Result<(), Error> {
    keep_heap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(LocalSet::new().run_until(start(settings)))
}

/// Has glibc keep the ends of its heaps, up to 2 MiB a thread, instead of giving them back to the kernel and asking for
/// them anew with each of the buffers that bulk is read into. It learns that from the largest block that it has mapped
/// and that was freed (mallopt(3), M_MMAP_THRESHOLD): twice its size is what it keeps. Other allocators learn nothing.
fn keep_heap() {
    drop(std::hint::black_box(Vec::<u8>::with_capacity(HEAP_STEP)));
}

async fn start(settings: Settings) -> Result<(), Error> {
    let settings = Arc::new(settings);
    let identity = Identity::open(&settings)?;
    let discovery = discovery::Handle::open(&settings, &identity);
    let ports = discovery.ports();
    let (telemetry, exporter) = Telemetry::new(telemetry_options(&settings)?);
    let (inbound_drain, inbound_draining) = watch::channel(false);
    let (outbound_drain, outbound_draining) = watch::channel(false);
    telemetry.set_gauges(gauges(&identity, &discovery));
    let shared = Shared {
        own: Own {
            namespace: settings.namespace.as_str().into(),
            workload: settings.workload.as_str().into(),
            zone: settings.zone.as_str().into(),
            ports: own_ports(&settings),
        },
        settings: settings.clone(),
        identity: identity.clone(),
        discovery: discovery.clone(),
        ports: ports.clone(),
        telemetry: telemetry.clone(),
        permits: Arc::new(Semaphore::new(settings.connections_max)),
        inbound_drain: inbound_draining,
        outbound_drain: outbound_draining,
        spent: Spent::default(),
        leaving: Arc::default(),
    };

    let sockets: Vec<Sockets> = (0..settings.workers)
        .map(|_| open_sockets(&settings))
        .collect::<Result<_, _>>()?;
    let (outbound, outbound_handed) = Spread::new(settings.workers);
    let (inbound, inbound_handed) = Spread::new(settings.workers);
    let handed = outbound_handed.into_iter().zip(inbound_handed);
    let stop_requested = Arc::new(Notify::new());
    start_control(&shared, exporter, stop_requested.clone()).await?;
    let (asked, questions): (Vec<_>, Vec<_>) =
        sockets.iter().map(|_| mpsc::channel(QUESTIONS_MAX)).unzip();
    discovery.set_workers(asked);
    let handed = handed.zip(questions);
    let (ended, mut worker_ended) = watch::channel(false);
    for (index, (sockets, (handed, questions))) in sockets.into_iter().zip(handed).enumerate() {
        let (shared, ended) = (shared.clone(), ended.clone());
        let connections = Connections {
            index,
            sockets,
            outbound: outbound.clone(),
            inbound: inbound.clone(),
            outbound_handed: handed.0,
            inbound_handed: handed.1,
            questions,
        };
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                work(shared, connections);
                ended.send_replace(true);
            })?;
    }
    info!(
        workload = %settings.workload,
        namespace = %settings.namespace,
        outbound = ?settings.outbound_listen,
        inbound = ?settings.inbound_listen,
        admin = %settings.admin_listen,
        workers = settings.workers,
        "started"
    );

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stop_requested.notified() => {}
        _ = worker_ended.wait_for(|ended| *ended) => return Err(Error::Worker),
    }
    shared.leaving.store(true, Ordering::Relaxed);
    tokio::select! {
        () = leave(&shared, [(&inbound_drain, &inbound), (&outbound_drain, &outbound)]) => {}
        _ = terminate.recv() => warn!("stopping at once, with connections still open"),
        _ = interrupt.recv() => warn!("stopping at once, with connections still open"),
    }
    telemetry.flush().await;
    Ok(())
}

/// Deregisters first, so that callers go elsewhere by themselves; then, one direction after the other,
/// tells those that are still connected and waits for what is in flight. Our workload may have to call
/// others for what it still serves, so calls to it end before its own do.
async fn leave(shared: &Shared, directions: [(&watch::Sender<bool>, &Spread); 2]) {
    let limit = shared.settings.drain_timeout;
    info!(?limit, "draining");
    shared.discovery.goodbye().await;
    shared.discovery.flush().await;
    sleep(DEREGISTER_GRACE).await;
    let deadline = Instant::now() + limit;
    for (drain, connections) in directions {
        drain.send_replace(true);
        while connections.connections() > 0 {
            if Instant::now() >= deadline {
                let open: usize = directions.iter().map(|(_, of)| of.connections()).sum();
                warn!(open, "the drain's time is over; closing what is still open");
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    info!("drained");
}

/// Everything that is no worker's: on this thread.
async fn start_control(
    shared: &Shared,
    exporter: telemetry::Exporter,
    stop: Arc<Notify>,
) -> Result<(), Error> {
    let Shared {
        settings,
        identity,
        discovery,
        ..
    } = shared;
    let listen = |address, what, variable| {
        move |source| Error::Listen {
            address,
            what,
            variable,
            source,
        }
    };
    tokio::task::spawn_local(exporter.run());
    tokio::task::spawn_local(crate::identity::run(identity.clone(), settings.clone()));
    tokio::task::spawn_local(discovery::run(
        discovery.clone(),
        identity.clone(),
        settings.clone(),
    ));
    let address = settings.admin_listen;
    let socket =
        ControlListener::bind(address)
            .await
            .map_err(listen(address, "admin", "ADMIN_LISTEN"))?;
    tokio::task::spawn_local(admin::serve(socket, hooks(shared, stop)));
    if let Some(first) = settings.dns_listen.first().copied() {
        let lookup = MeshNames {
            discovery: discovery.clone(),
        };
        let served = dns::serve(
            settings.dns_listen.clone(),
            settings.namespace.clone(),
            lookup,
        )
        .await;
        served.map_err(listen(first, "DNS", "DNS_LISTEN"))?;
    }
    Ok(())
}

/// The names that DNS asks discovery for.
struct MeshNames {
    discovery: discovery::Handle,
}

impl dns::Lookup for MeshNames {
    async fn service(&self, name: &ServiceName) -> Known<Service> {
        let known = self.discovery.current().service(name);
        if known != Known::Unknown {
            return known;
        }
        let asked = [Name::Service(name.clone())];
        match self.discovery.resolve(&asked).await {
            Ok(configuration) => configuration.service(name),
            Err(error) => {
                debug!(%error, "whether a DNS name is a service's is unknown");
                Known::Unknown
            }
        }
    }
}

fn hooks(shared: &Shared, stop: Arc<Notify>) -> admin::Hooks {
    let (identity, discovery) = (shared.identity.clone(), shared.discovery.clone());
    let leaving = shared.leaving.clone();
    let ready = move || {
        let mut missing = Vec::new();
        if !identity.ready() {
            missing.push(format!("no identity yet: {}", identity.status()));
        }
        if !discovery.ready() {
            missing.push("no configuration yet".to_owned());
        }
        if leaving.load(Ordering::Relaxed) {
            missing.push("draining".to_owned());
        }
        if missing.is_empty() {
            Ok(())
        } else {
            Err(missing)
        }
    };
    let (telemetry, discovery) = (shared.telemetry.clone(), shared.discovery.clone());
    admin::Hooks {
        ready: Box::new(ready),
        metrics: Box::new(move || telemetry.render()),
        configuration: Box::new(move || discovery.dump()),
        drain: Box::new(move || stop.notify_one()),
        log: Box::new(telemetry::log::set_filter),
    }
}

/// Every port on which this proxy listens.
fn own_ports(settings: &Settings) -> Arc<[u16]> {
    let listens = settings
        .outbound_listen
        .iter()
        .chain(&settings.inbound_listen)
        .chain(&settings.dns_listen);
    listens
        .map(SocketAddr::port)
        .chain([settings.admin_listen.port()])
        .collect()
}

fn open_sockets(settings: &Settings) -> Result<Sockets, Error> {
    let share = settings.workers > 1;
    let open = |addresses: &[SocketAddr], what, variable| -> Result<Vec<_>, Error> {
        let one = |address: &SocketAddr| {
            bind(*address, share).map_err(|source| Error::Listen {
                address: *address,
                what,
                variable,
                source,
            })
        };
        addresses.iter().map(one).collect()
    };
    Ok(Sockets {
        outbound: open(&settings.outbound_listen, "outbound", "OUTBOUND_LISTEN")?,
        inbound: open(&settings.inbound_listen, "inbound", "INBOUND_LISTEN")?,
    })
}

/// One worker, on its own thread.
fn work(shared: Shared, connections: Connections) {
    if shared.settings.workers > 1
        && let Err(error) = wait_for_turns()
    {
        debug!(%error, "a worker interrupts what runs when something arrives for it");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return warn!(%error, "a worker can't start"),
    };
    runtime.block_on(LocalSet::new().run_until(serve(shared, connections)));
}

/// Makes this thread wait for its turn when something arrives for it, instead of taking the core
/// from whoever runs there (`SCHED_BATCH`, sched(7)). Where there are several workers, those who
/// run are mostly other workers, or who is about to send more; so each finds more to do at once.
/// A core that has nothing to do is taken at once either way. A policy that the operator chose stays.
///
/// Fails where the kernel or a sandbox doesn't allow it; nothing else depends on it.
fn wait_for_turns() -> io::Result<()> {
    let given = thread_schedule_policy().map_err(io::Error::other)?;
    if given != ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Other) {
        return Ok(());
    }
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    // The crate sets a niceness too, on a scale of its own. What the operator gave is to stay, so
    // the value that means it is looked for.
    let niceness = getpriority_process(None)?;
    let unchanged = (0..=u8::MAX)
        .map_while(|value| ThreadPriorityValue::try_from(value).ok())
        .map(ThreadPriority::Crossplatform)
        .find(|priority| priority.to_posix(policy) == Ok(niceness))
        .ok_or_else(|| io::Error::other(format!("no priority stands for niceness {niceness}")))?;
    set_thread_priority_and_policy(thread_native_id(), unchanged, policy).map_err(io::Error::other)
}

async fn serve(shared: Shared, connections: Connections) {
    let Shared {
        settings,
        own,
        identity,
        discovery,
        ports,
        telemetry,
        permits,
        inbound_drain,
        outbound_drain,
        spent,
        leaving,
    } = shared;
    let mut limits = ServerLimits::default();
    limits.http1.head_bytes = settings.header_bytes_max;
    limits.http2.header_list_bytes = u32::try_from(settings.header_bytes_max).unwrap_or(u32::MAX);
    let policy = match settings.inbound_plaintext {
        InboundPlaintext::Allow => Policy::Permissive,
        InboundPlaintext::Deny => Policy::Strict,
    };
    let outbound = Rc::new(Outbound::new(outbound::Parts {
        own: own.clone(),
        discovery: discovery.clone(),
        identity: identity.clone(),
        telemetry: telemetry.clone(),
        limits,
        drain: outbound_drain,
        workers: settings.workers,
        spent: spent.clone(),
    }));
    let inbound = Rc::new(Inbound::new(inbound::Parts {
        own,
        instance: identity.instance(),
        address: settings.address,
        policy,
        discovery,
        ports,
        identity,
        telemetry,
        limits,
        drain: inbound_drain.clone(),
        spent,
        leaving,
        worker: (connections.index, settings.workers),
        servers: RateLimitServers::new(&settings.outbound_listen),
    }));

    let Connections {
        index,
        sockets,
        mut outbound_handed,
        mut inbound_handed,
        mut questions,
        ..
    } = connections;
    for socket in sockets.outbound {
        let Ok(listener) = Listener::new(socket, permits.clone()) else {
            return;
        };
        let (outbound, spread) = (outbound.clone(), connections.outbound.clone());
        tokio::task::spawn_local(async move {
            loop {
                if let Some(accepted) = spread.place(index, listener.accept().await) {
                    tokio::task::spawn_local(outbound.clone().serve(accepted));
                }
            }
        });
    }
    for socket in sockets.inbound {
        let Ok(listener) = Listener::new(socket, permits.clone()) else {
            return;
        };
        let (inbound, spread) = (inbound.clone(), connections.inbound.clone());
        let mut drain = inbound_drain.clone();
        tokio::task::spawn_local(async move {
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        if let Some(accepted) = spread.place(index, accepted) {
                            tokio::task::spawn_local(inbound.clone().serve(accepted));
                        }
                    }
                    // The closed port tells callers that come now to go elsewhere.
                    () = draining(&mut drain) => return,
                }
            }
        });
    }
    let (mut sweep, mut watch) = (interval(SWEEP), interval(WATCH_EVERY));
    let mut check = interval(outbound::CHECK_EVERY);
    loop {
        tokio::select! {
            Some(handed) = outbound_handed.recv() => {
                if let Some(accepted) = handed.take() {
                    tokio::task::spawn_local(outbound.clone().serve(accepted));
                }
            }
            Some(handed) = inbound_handed.recv() => {
                if let Some(accepted) = handed.take() {
                    tokio::task::spawn_local(inbound.clone().serve(accepted));
                }
            }
            Some(question) = questions.recv() => {
                tokio::task::spawn_local(outbound.clone().answer(question));
            }
            _ = watch.tick() => outbound.watch(),
            _ = check.tick() => outbound.check_health(),
            _ = sweep.tick() => {
                outbound.sweep();
                inbound.sweep();
            }
        }
    }
}

fn gauges(identity: &Identity, discovery: &discovery::Handle) -> Gauges {
    let (identity, discovery) = (identity.clone(), discovery.clone());
    let expiry = move || {
        let seconds = u64::try_from(identity.not_after()?).ok()?;
        Some(UNIX_EPOCH + Duration::from_secs(seconds))
    };
    Gauges {
        certificate_not_after: Box::new(expiry),
        discovery_connected: Box::new(move || discovery.connected()),
    }
}

fn telemetry_options(settings: &Settings) -> Result<TelemetryOptions, telemetry::InvalidOption> {
    let read = |name: &str| std::env::var(name).ok();
    let Settings {
        workload,
        namespace,
        service_account,
        ..
    } = settings;
    TelemetryOptions::from_environment(
        workload,
        namespace,
        service_account,
        settings.access_log,
        read,
    )
}
