//! Who this workload is: its key, its X509-SVID and the trust bundle, and the TLS configurations made
//! of them. The key never leaves the process but into the data directory.

mod connect;
mod file;
mod renew;
mod status;
mod storage;
mod svid;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;
use weft_proto::spiffe::SpiffeId;
use weft_proto::svid::{ClientVerifier, Expect, ServerVerifier, SharedTrustBundle, TrustBundle};

use crate::bootstrap::Settings;

pub use connect::explain;
pub(crate) use connect::{GRPC_BYTES_MAX, connect};
pub(crate) use file::{move_aside, read, write};
pub use renew::run;
pub use status::Status;
use storage::Storage;
pub use storage::Unusable;
use svid::Svid;

/// The application protocol of the hop.
const ALPN_HOP: &[u8] = b"weft/1";
/// Expected peers with a ready configuration. Beyond it the cache starts over, which costs a few
/// microseconds a peer.
const CLIENT_CONFIGS_MAX: usize = 4096;

/// A cheap handle; every clone sees the same identity.
#[derive(Clone, Debug)]
pub struct Identity {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    provider: Arc<CryptoProvider>,
    /// Who this workload asks to be.
    wanted: Arc<SpiffeId>,
    instance: Arc<str>,
    bundle: SharedTrustBundle,
    storage: Option<Storage>,
    current: ArcSwapOption<Current>,
    changed: watch::Sender<u64>,
    /// What `changed` says, for the many who only look: each request does, and takes no lock for it.
    generation: AtomicU64,
    /// Held while `current` and `bundle` change together.
    change: Mutex<()>,
    last_error: Mutex<Option<String>>,
}

/// One certificate under one bundle, and what is made of the two.
#[derive(Debug)]
struct Current {
    svid: Svid,
    server: Arc<ServerConfig>,
    clients: Mutex<HashMap<SpiffeId, Arc<ClientConfig>>>,
}

impl Identity {
    /// Reads the trust bundle and, from the data directory, what an earlier run left: a certificate
    /// that is still good makes the proxy ready without a control plane.
    pub fn open(settings: &Settings) -> Result<Self, Unusable> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let storage = settings
            .data_dir
            .as_deref()
            .map(Storage::open)
            .transpose()?;
        let bundle = storage::read_bundle(settings, storage.as_ref())?;
        let wanted = SpiffeId::new(
            bundle.trust_domain(),
            &settings.namespace,
            &settings.service_account,
        )?;
        let instance = match &storage {
            Some(storage) => storage.instance()?,
            None => storage::random_instance(),
        };
        let identity = Self {
            shared: Arc::new(Shared {
                provider,
                wanted: Arc::new(wanted),
                instance,
                bundle: bundle.shared(),
                storage,
                current: ArcSwapOption::empty(),
                changed: watch::Sender::new(0),
                generation: AtomicU64::new(0),
                change: Mutex::new(()),
                last_error: Mutex::new(None),
            }),
        };
        identity.load();
        Ok(identity)
    }

    /// For connections that sidecars make to this one. None without a certificate that is valid now.
    pub fn server_config(&self) -> Option<Arc<ServerConfig>> {
        Some(self.valid()?.server.clone())
    }

    /// For a connection to the sidecar of `expected`; anybody else fails the handshake. None without
    /// a certificate that is valid now.
    pub fn client_config(&self, expected: &SpiffeId) -> Option<Arc<ClientConfig>> {
        let current = self.valid()?;
        let mut clients = current
            .clients
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = clients.get(expected) {
            return Some(config.clone());
        }
        let expect = Expect::Exactly(expected.clone());
        let config = Arc::new(self.client(expect, Some(&current.svid), ALPN_HOP).ok()?);
        if clients.len() >= CLIENT_CONFIGS_MAX {
            clients.clear();
        }
        clients.insert(expected.clone(), config.clone());
        Some(config)
    }

    /// End of the certificate's validity, in seconds since 1970.
    pub fn not_after(&self) -> Option<i64> {
        Some(self.shared.current.load().as_ref()?.svid.not_after())
    }

    /// Grows with every new certificate and every new bundle.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::Acquire)
    }

    /// Who this workload is, by the certificate it holds.
    pub fn spiffe_id(&self) -> Option<Arc<SpiffeId>> {
        let held = self.shared.current.load().is_some();
        held.then(|| self.shared.wanted.clone())
    }

    /// The trust domain that this proxy belongs to.
    pub fn trust_domain(&self) -> &str {
        self.shared.wanted.trust_domain()
    }

    /// Tells of each new [`generation`](Self::generation).
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared.changed.subscribe()
    }

    /// Whether there is a certificate that is valid now.
    pub fn ready(&self) -> bool {
        self.valid().is_some()
    }

    /// Names this instance of the workload; the same over restarts with one data directory.
    pub fn instance(&self) -> Arc<str> {
        self.shared.instance.clone()
    }

    /// The certificate, the instance and the last error, for the admin port.
    pub fn status(&self) -> serde_json::Value {
        serde_json::to_value(Status::of(self)).unwrap_or_default()
    }

    /// Puts another trust bundle in force. One of another trust domain is refused.
    pub fn update_bundle(&self, bundle: TrustBundle) -> Result<(), Unusable> {
        let shared = &self.shared;
        if bundle.trust_domain() != self.trust_domain() {
            return Err(Unusable::OtherTrustDomain {
                actual: bundle.trust_domain().to_owned(),
                expected: self.trust_domain().to_owned(),
            });
        }
        let _change = shared.change.lock().unwrap_or_else(PoisonError::into_inner);
        if shared.bundle.load().certificates() == bundle.certificates() {
            return Ok(());
        }
        if let Some(storage) = &shared.storage {
            storage.store_bundle(&bundle)?;
        }
        shared.bundle.store(Arc::new(bundle));
        // The same certificate, but nothing that was decided by the bundle before.
        let current = shared.current.load_full();
        let svid = current.map(|current| current.svid.clone());
        self.publish(svid)
    }

    /// Puts a new certificate in force, once it is known to be good under the bundle.
    fn adopt(&self, svid: Svid, bundle: Option<TrustBundle>) -> Result<(), Unusable> {
        if let Some(bundle) = bundle {
            self.update_bundle(bundle)?;
        }
        let shared = &self.shared;
        svid.check(&shared.wanted, &shared.bundle, &shared.provider)?;
        if let Some(storage) = &shared.storage {
            storage.store_svid(&svid)?;
        }
        let _change = shared.change.lock().unwrap_or_else(PoisonError::into_inner);
        self.publish(Some(svid))
    }

    fn load(&self) {
        let shared = &self.shared;
        let Some(storage) = &shared.storage else {
            return;
        };
        let loaded = storage
            .load_svid(&shared.provider)
            .and_then(|svid| match svid {
                Some(svid) => {
                    svid.check(&shared.wanted, &shared.bundle, &shared.provider)?;
                    self.publish(Some(svid))
                }
                None => Ok(()),
            });
        if let Err(error) = loaded {
            tracing::warn!(%error, "the stored certificate can't be used; asking for a new one");
        }
    }

    fn publish(&self, svid: Option<Svid>) -> Result<(), Unusable> {
        let current = match svid {
            Some(svid) => Some(Arc::new(Current {
                server: Arc::new(self.server(&svid)?),
                clients: Mutex::new(HashMap::new()),
                svid,
            })),
            None => None,
        };
        self.shared.current.store(current);
        self.shared.changed.send_modify(|generation| {
            *generation += 1;
            self.shared.generation.store(*generation, Ordering::Release);
        });
        Ok(())
    }

    fn valid(&self) -> Option<Arc<Current>> {
        let current = self.shared.current.load_full()?;
        (current.svid.not_after() > unix_now()).then_some(current)
    }

    /// Without resumption: a ticket could let a peer in after its certificate ended, and the few
    /// connections between two sidecars live long.
    fn server(&self, svid: &Svid) -> Result<ServerConfig, Unusable> {
        let shared = &self.shared;
        let provider = shared.provider.clone();
        let verifier = ClientVerifier::new(shared.bundle.clone(), true, provider.clone());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified())));
        config.alpn_protocols = vec![ALPN_HOP.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn client(
        &self,
        expect: Expect,
        svid: Option<&Svid>,
        alpn: &[u8],
    ) -> Result<ClientConfig, rustls::Error> {
        let shared = &self.shared;
        let provider = shared.provider.clone();
        let verifier = ServerVerifier::new(shared.bundle.clone(), expect, provider.clone());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match svid {
            Some(svid) => builder
                .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified()))),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(config)
    }

    fn set_error(&self, error: Option<String>) {
        let mut last = self
            .shared
            .last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = error;
    }
}

/// Seconds since 1970 by the wall clock, which is what certificates are written in.
fn unix_now() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
