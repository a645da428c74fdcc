//! The control plane's own X509-SVID, renewed while it serves.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rcgen::KeyPair;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;
use weft_proto::spiffe::SpiffeId;

use super::{Authority, Error};

/// The certificate that new connections are greeted with.
#[derive(Debug)]
pub struct ServingIdentity {
    id: SpiffeId,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    key: Arc<CertifiedKey>,
    not_after: SystemTime,
}

impl ServingIdentity {
    /// Issues the first certificate.
    pub fn issue(authority: &Authority, provider: Arc<CryptoProvider>) -> Result<Self, Error> {
        let id = SpiffeId::control_plane(authority.trust_domain())?;
        let current = certify(authority, &id, &provider)?;
        Ok(Self {
            id,
            provider,
            current: ArcSwap::from_pointee(current),
        })
    }

    /// Puts a new certificate, of a new key, in the place of the old.
    pub fn renew(&self, authority: &Authority) -> Result<(), Error> {
        let next = certify(authority, &self.id, &self.provider)?;
        self.current.store(Arc::new(next));
        Ok(())
    }

    /// End of the certificate in use.
    pub fn not_after(&self) -> SystemTime {
        self.current.load().not_after
    }

    /// How long to wait with the next renewal: half of what is left, so that several fail before
    /// the last one matters.
    pub fn renewal_delay(&self, now: SystemTime) -> Duration {
        let left = self.not_after().duration_since(now).unwrap_or_default();
        (left / 2).max(Duration::from_secs(1))
    }
}

impl ResolvesServerCert for ServingIdentity {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().key.clone())
    }
}

fn certify(
    authority: &Authority,
    id: &SpiffeId,
    provider: &CryptoProvider,
) -> Result<Current, Error> {
    let key = KeyPair::generate()
        .map_err(|error| Error::crypto("make the control plane's key", &error))?;
    let issued = authority.sign(&key, id, SystemTime::now())?;
    let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let signing = provider
        .key_provider
        .load_private_key(private)
        .map_err(|error| Error::crypto("use the control plane's key", &error))?;
    Ok(Current {
        key: Arc::new(CertifiedKey::new(vec![issued.certificate], signing)),
        not_after: issued.not_after,
    })
}
