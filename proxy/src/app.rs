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
use std::time::Duration;

use tokio::net::TcpListener as ControlListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::LocalSet;
use tokio::time::{Instant, interval, sleep, timeout};
use tracing::{info, warn};

use crate::authorization::Policy;
use crate::bootstrap::{InboundPlaintext, Settings};
use crate::discovery::{self, ApplicationPorts};
use crate::http::{ServerLimits, draining};
use crate::identity::Identity;
use crate::inbound::{Inbound, Parts};
use crate::listener::{Listener, bind};
use crate::model::Own;
use crate::outbound::Outbound;
use crate::telemetry::Telemetry;
use crate::{admin, dns, telemetry};

/// How long callers get to learn that this workload takes no more requests, before it tells them
/// itself by GOAWAY and a closed port.
const DEREGISTER_GRACE: Duration = Duration::from_millis(500);
/// How often a worker lets go of what is idle.
const SWEEP: Duration = Duration::from_secs(1);

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
    Identity(#[from] crate::identity::Error),
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
    drain: watch::Receiver<bool>,
}

/// The sockets of one worker.
struct Sockets {
    outbound: Vec<std::net::TcpListener>,
    inbound: Vec<std::net::TcpListener>,
}

/// Runs the sidecar until it is told to stop and has drained.
pub fn run(settings: Settings) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(LocalSet::new().run_until(start(settings)))
}

async fn start(settings: Settings) -> Result<(), Error> {
    let settings = Arc::new(settings);
    let identity = Identity::open(&settings)?;
    let ports = ApplicationPorts::new();
    let discovery = discovery::Handle::open(&settings, &identity);
    let (telemetry, exporter) = telemetry::start(&settings);
    let (drain, draining) = watch::channel(false);
    let shared = Shared {
        own: Own {
            namespace: settings.namespace.as_str().into(),
            workload: settings.workload.as_str().into(),
            ports: own_ports(&settings),
        },
        settings: settings.clone(),
        identity: identity.clone(),
        discovery: discovery.clone(),
        ports: ports.clone(),
        telemetry: telemetry.clone(),
        permits: Arc::new(Semaphore::new(settings.connections_max)),
        drain: draining,
    };

    let sockets: Vec<Sockets> = (0..settings.workers)
        .map(|_| open_sockets(&settings))
        .collect::<Result<_, _>>()?;
    let stop_requested = Arc::new(Notify::new());
    let leaving = Arc::new(AtomicBool::new(false));
    start_control(&shared, exporter, stop_requested.clone(), leaving.clone()).await?;
    let (ended, mut worker_ended) = watch::channel(false);
    for (index, sockets) in sockets.into_iter().enumerate() {
        let (shared, ended) = (shared.clone(), ended.clone());
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                work(shared, sockets);
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
    leaving.store(true, Ordering::Relaxed);
    tokio::select! {
        () = leave(&shared, &drain) => {}
        _ = terminate.recv() => warn!("stopping at once, with connections still open"),
        _ = interrupt.recv() => warn!("stopping at once, with connections still open"),
    }
    telemetry.flush().await;
    Ok(())
}

/// Deregisters first, so that callers go elsewhere by themselves; then tells those that are still
/// connected; then waits for what is in flight.
async fn leave(shared: &Shared, drain: &watch::Sender<bool>) {
    let limit = shared.settings.drain_timeout;
    info!(?limit, "draining");
    shared.discovery.goodbye().await;
    sleep(DEREGISTER_GRACE).await;
    drain.send_replace(true);
    let all = shared.settings.connections_max;
    let deadline = Instant::now() + limit;
    while shared.permits.available_permits() + idle_accepts(shared) < all {
        if Instant::now() >= deadline {
            let open = all - shared.permits.available_permits();
            warn!(open, "the drain's time is over; closing what is still open");
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    info!("drained");
}

/// Each listener that still accepts holds one permit for the connection it waits for.
fn idle_accepts(shared: &Shared) -> usize {
    shared.settings.workers * shared.settings.outbound_listen.len()
}

/// Everything that is no worker's: on this thread.
async fn start_control(
    shared: &Shared,
    exporter: telemetry::Exporter,
    stop: Arc<Notify>,
    leaving: Arc<AtomicBool>,
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
        shared.ports.clone(),
        settings.clone(),
    ));
    let address = settings.admin_listen;
    let socket =
        ControlListener::bind(address)
            .await
            .map_err(listen(address, "admin", "ADMIN_LISTEN"))?;
    tokio::task::spawn_local(admin::serve(socket, hooks(shared, stop, leaving)));
    if !settings.dns_listen.is_empty() {
        let addresses = settings.dns_listen.clone();
        let first = addresses[0];
        let lookup = DnsLookup {
            discovery: discovery.clone(),
        };
        let served = dns::serve(addresses, settings.namespace.clone(), lookup).await;
        served.map_err(listen(first, "DNS", "DNS_LISTEN"))?;
    }
    Ok(())
}
