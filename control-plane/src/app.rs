//! Composition root of `weft serve`: builds every room once, starts and stops them in order.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use weft_proto::v1alpha1::admin_server::AdminServer;
use weft_proto::v1alpha1::discovery_server::DiscoveryServer;
use weft_proto::v1alpha1::identity_server::IdentityServer;

use crate::admin;
use crate::ca::{self, Authority, ServingIdentity};
use crate::grpc::{self, AdminService, DiscoveryService, IdentityService, Renewals};
use crate::registry::Resolver;
use crate::store::{self, Store};
use crate::subscription::{Encode, Subscriptions};
use crate::telemetry::{Metrics, start_log};

/// How often a connection is probed, and how long the answer may take: a proxy whose machine is gone
/// is withdrawn after their sum.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// See [`KEEPALIVE_INTERVAL`].
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// Requests at a time on one connection; further ones wait.
const STREAMS_MAX: u32 = 64;
/// Bytes of an `Admin` request. A larger one is refused.
const ADMIN_BYTES_MAX: usize = 64 << 20;
/// Bytes of a message from a proxy: the names it holds, at most.
const PROXY_BYTES_MAX: usize = 32 << 20;
/// Handshaken connections that wait to be served.
const ACCEPTED_MAX: usize = 64;
/// How often the extra roots are read again.
const ROOTS_TICK: Duration = Duration::from_secs(5);
/// How often expired tokens are swept.
const SWEEP_TICK: Duration = Duration::from_secs(3600);
/// How long requests may take to finish when the control plane stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// What `weft serve` is told.
#[derive(Clone, Debug)]
pub struct Options {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub trust_domain: String,
    pub svid_lifetime: Duration,
}

/// Why it doesn't serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Authority(#[from] ca::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(
        "can't listen on {address} for {what}: {source}; is another weft serve running? choose another with {flag}"
    )]
    Listen {
        what: &'static str,
        address: String,
        flag: &'static str,
        source: io::Error,
    },
    #[error("can't set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error(
        "can't read the host's DNS configuration: {0}; ExternalName services need /etc/resolv.conf"
    )]
    Dns(String),
    #[error("can't wait for signals: {0}")]
    Signals(io::Error),
    #[error("{0} stopped by itself; this is a bug")]
    Stopped(&'static str),
}

/// Every room, built and not yet started.
struct App {
    store: Store,
    authority: Arc<Authority>,
    identity: Arc<ServingIdentity>,
    subscriptions: Subscriptions,
    renewals: Arc<Renewals>,
    metrics: Arc<Metrics>,
    resolver: Resolver,
    tls: Arc<rustls::ServerConfig>,
}

/// Every socket, bound.
struct Listeners {
    proxies: TcpListener,
    admin: TcpListener,
    local: UnixListener,
    socket: PathBuf,
}

/// Serves until SIGTERM or SIGINT.
pub async fn serve(options: Options) -> Result<(), Error> {
    start_log();
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let bound = bind(&options).await?;
    eprintln!(
        "weft: trust domain {}, data in {}\nweft: proxies on {}, HTTP on {}, CLI on {}",
        options.trust_domain,
        options.data_dir.display(),
        bound.address().unwrap_or(options.listen),
        bound.admin_address().unwrap_or(options.admin),
        bound.listeners.socket.display(),
    );
    bound.run(stop).await
}

/// A control plane whose sockets are bound, and that does not serve yet.
pub struct Bound {
    app: App,
    listeners: Listeners,
}

/// Opens the data directory and binds every socket.
pub async fn bind(options: &Options) -> Result<Bound, Error> {
    raise_descriptor_limit();
    ca::create_directory(&options.data_dir)?;
    Ok(Bound {
        app: App::build(options)?,
        listeners: Listeners::bind(options).await?,
    })
}

impl Bound {
    /// Where proxies connect to.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listeners.proxies.local_addr()
    }

    /// Where the HTTP of probes and metrics is.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.listeners.admin.local_addr()
    }

    /// Serves until `stop` is done.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) -> Result<(), Error> {
        self.app.run(self.listeners, stop).await
    }
}

impl App {
    fn build(options: &Options) -> Result<Self, Error> {
        // First of all, since the store's lock keeps a second control plane off the directory.
        let store = Store::open(&options.data_dir)?;
        let authority = Authority::open(
            &options.data_dir,
            &options.trust_domain,
            options.svid_lifetime,
        )?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let identity = Arc::new(ServingIdentity::issue(&authority, provider.clone())?);
        let bundle = authority.bundle().shared();
        let tls = grpc::tls(bundle.clone(), identity.clone(), provider)?;
        let metrics = Arc::new(Metrics::default());
        let roots = bundle.load().certificates().to_vec();
        let encode = Encode {
            whole: grpc::encode,
            change: grpc::encode_change,
        };
        let subscriptions =
            Subscriptions::new(&options.trust_domain, roots, encode, metrics.clone());
        Ok(Self {
            store,
            authority: Arc::new(authority),
            identity,
            subscriptions,
            renewals: Arc::new(Renewals::default()),
            metrics,
            resolver: Resolver::from_system().map_err(Error::Dns)?,
            tls,
        })
    }

    async fn run(
        self,
        listeners: Listeners,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<(), Error> {
        let socket = listeners.socket.clone();
        let (stopping, stopped) = watch::channel(false);
        let (mut background, mut servers) = (JoinSet::new(), JoinSet::new());
        let app = Arc::new(self);
        app.start_background(&mut background);
        app.start_servers(listeners, stopped, &mut background, &mut servers);
        let outcome = tokio::select! {
            () = stop => Ok(()),
            _ = background.join_next() => Err(Error::Stopped("a background task")),
            _ = servers.join_next() => Err(Error::Stopped("a server")),
        };
        // The dispatcher first: proxies that lose their streams one after the other must not be
        // withdrawn from those that still have theirs.
        background.shutdown().await;
        stopping.send_replace(true);
        eprintln!("weft: stopping");
        let drained = async { while servers.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, drained).await.is_err() {
            tracing::warn!("requests did not finish within {STOP_TIMEOUT:?}");
            servers.shutdown().await;
        }
        // It is gone already where the directory is.
        let _ = std::fs::remove_file(&socket);
        outcome
    }

    /// Starts what follows the store, DNS and the clock.
    fn start_background(self: &Arc<Self>, background: &mut JoinSet<()>) {
        // Watched first and read second, so that nothing is missed in between.
        let watch = self.store.watch();
        self.subscriptions.load(&self.store.snapshot());
        let app = self.clone();
        background.spawn(async move { app.subscriptions.dispatch(app.store.clone(), watch).await });
        let app = self.clone();
        background.spawn(async move { app.subscriptions.follow_dns(&app.resolver).await });
        background.spawn(renew_own(self.authority.clone(), self.identity.clone()));
        let subscriptions = self.subscriptions.clone();
        background.spawn(follow_roots(self.authority.clone(), subscriptions));
        background.spawn(sweep(self.store.clone()));
    }

    /// Starts to let connections in, and to answer them.
    fn start_servers(
        &self,
        listeners: Listeners,
        stopped: watch::Receiver<bool>,
        background: &mut JoinSet<()>,
        servers: &mut JoinSet<()>,
    ) {
        let admin_service = AdminService {
            store: self.store.clone(),
            authority: self.authority.clone(),
            subscriptions: self.subscriptions.clone(),
            renewals: self.renewals.clone(),
        };
        let discovery = DiscoveryService {
            subscriptions: self.subscriptions.clone(),
            renewals: self.renewals.clone(),
            stopping: stopped.clone(),
        };
        let issuer = IdentityService {
            authority: self.authority.clone(),
            store: self.store.clone(),
            renewals: self.renewals.clone(),
            metrics: self.metrics.clone(),
        };
        let (connections, accepted) = mpsc::channel(ACCEPTED_MAX);
        let (tls, metrics) = (self.tls.clone(), self.metrics.clone());
        background.spawn(grpc::accept_tls(
            listeners.proxies,
            tls,
            connections,
            metrics,
        ));
        let proxies = server()
            .add_service(DiscoveryServer::new(discovery).max_decoding_message_size(PROXY_BYTES_MAX))
            .add_service(IdentityServer::new(issuer))
            .add_service(admin_server(admin_service.clone()))
            .serve_with_incoming_shutdown(ReceiverStream::new(accepted), until(stopped.clone()));
        servers.spawn(report("proxies", proxies));
        let (connections, accepted) = mpsc::channel(ACCEPTED_MAX);
        background.spawn(grpc::accept_local(listeners.local, connections));
        let local = server()
            .add_service(admin_server(admin_service))
            .serve_with_incoming_shutdown(ReceiverStream::new(accepted), until(stopped.clone()));
        servers.spawn(report("the CLI", local));
        let router = admin::router(self.metrics.clone(), stopped.clone());
        servers.spawn(admin::serve(listeners.admin, router, stopped));
    }
}

async fn report(what: &str, server: impl Future<Output = Result<(), tonic::transport::Error>>) {
    if let Err(error) = server.await {
        tracing::error!(%error, "the server for {what} failed");
    }
}

/// A thousand proxies are more connections than the usual soft limit of descriptors; the hard one is
/// there for those who ask.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "can't raise the limit of open files");
    }
}

fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(STREAMS_MAX))
}

fn admin_server(service: AdminService) -> AdminServer<AdminService> {
    AdminServer::new(service)
        .max_decoding_message_size(ADMIN_BYTES_MAX)
        .max_encoding_message_size(usize::MAX)
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // When the sender is gone, the server is to stop too.
    let _ = stopped.wait_for(|stopping| *stopping).await;
}

async fn renew_own(authority: Arc<Authority>, identity: Arc<ServingIdentity>) {
    loop {
        tokio::time::sleep(identity.renewal_delay(SystemTime::now())).await;
        if let Err(error) = identity.renew(&authority) {
            tracing::error!(%error, "can't renew the control plane's certificate");
        }
    }
}

async fn follow_roots(authority: Arc<Authority>, subscriptions: Subscriptions) {
    loop {
        tokio::time::sleep(ROOTS_TICK).await;
        match authority.bundle().reload() {
            Ok(false) => {}
            Ok(true) => {
                let bundle = authority.bundle().shared();
                let roots = bundle.load().certificates().to_vec();
                tracing::info!(roots = roots.len(), "the trust bundle changed");
                subscriptions.set_roots(roots);
            }
            Err(error) => tracing::error!(%error, "the trust bundle stays as it was"),
        }
    }
}

async fn sweep(store: Store) {
    loop {
        let store_to_sweep = store.clone();
        let swept = tokio::task::spawn_blocking(move || {
            grpc::sweep_tokens(&store_to_sweep, SystemTime::now())
        });
        match swept.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(%error, "can't sweep expired tokens"),
            Err(error) => tracing::error!(%error, "can't sweep expired tokens"),
        }
        tokio::time::sleep(SWEEP_TICK).await;
    }
}

impl Listeners {
    async fn bind(options: &Options) -> Result<Self, Error> {
        let socket = options.data_dir.join("weft.sock");
        Ok(Self {
            proxies: bind_tcp("proxies", options.listen, "--listen").await?,
            admin: bind_tcp("HTTP", options.admin, "--admin").await?,
            local: bind_local(&socket).await?,
            socket,
        })
    }
}

async fn bind_tcp(
    what: &'static str,
    address: SocketAddr,
    flag: &'static str,
) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| Error::Listen {
        what,
        address: address.to_string(),
        flag,
        source,
    })
}

/// Binds the socket of the CLI. One that a killed control plane left behind is removed; one that
/// somebody listens on is not.
async fn bind_local(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::Listen {
        what: "the CLI",
        address: path.display().to_string(),
        flag: "--data-dir",
        source,
    };
    if path.exists() {
        if UnixStream::connect(path).await.is_ok() {
            return Err(failed(io::ErrorKind::AddrInUse.into()));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    // The directory is 0700, so nobody else can connect before the mode is set.
    let listener = UnixListener::bind(path).map_err(failed)?;
    use std::os::unix::fs::PermissionsExt;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(failed)?;
    Ok(listener)
}
