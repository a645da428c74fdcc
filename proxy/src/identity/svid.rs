//! A key with its certificate chain.

use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use weft_proto::spiffe::SpiffeId;
use weft_proto::svid::{ClientVerifier, SharedTrustBundle, not_after, spiffe_id};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Unusable;

/// Certificates in one chain; weft's control plane sends one.
const CHAIN_MAX: usize = 8;

/// An X509-SVID and its private key.
#[derive(Clone, Debug)]
pub(super) struct Svid {
    certified: Arc<CertifiedKey>,
    /// PKCS#8, for the data directory.
    key_pem: Arc<str>,
    not_before: i64,
    not_after: i64,
}

/// A new P-256 key and the request to certify it.
#[derive(Debug)]
pub(super) struct Request {
    key: KeyPair,
    /// PKCS#10, DER.
    pub(super) csr: Vec<u8>,
}

impl Request {
    /// Makes the key. The one name in the request is the identity asked for.
    pub(super) fn new(id: &SpiffeId) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
        let csr = params.serialize_request(&key)?.der().to_vec();
        Ok(Self { key, csr })
    }

    /// The key with what the control plane signed for it.
    pub(super) fn certified(
        self,
        chain: Vec<CertificateDer<'static>>,
        provider: &CryptoProvider,
    ) -> Result<Svid, Unusable> {
        Svid::new(self.key.serialize_pem(), chain, provider)
    }
}

impl Svid {
    /// The certificate must be of this key.
    pub(super) fn new(
        key_pem: String,
        chain: Vec<CertificateDer<'static>>,
        provider: &CryptoProvider,
    ) -> Result<Self, Unusable> {
        if chain.len() > CHAIN_MAX {
            return Err(Unusable::Chain(chain.len()));
        }
        let leaf = chain.first().ok_or(Unusable::Chain(0))?;
        let not_after = not_after(leaf)?;
        let not_before = not_before(leaf)?;
        let key = KeyPair::from_pem(&key_pem)?;
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let signing = provider.key_provider.load_private_key(private)?;
        let certified = CertifiedKey::new(chain, signing);
        certified.keys_match()?;
        Ok(Self {
            certified: Arc::new(certified),
            key_pem: key_pem.into(),
            not_before,
            not_after,
        })
    }

    /// Whether a peer under this bundle would take it for `wanted` now.
    pub(super) fn check(
        &self,
        wanted: &SpiffeId,
        bundle: &SharedTrustBundle,
        provider: &Arc<CryptoProvider>,
    ) -> Result<(), Unusable> {
        let (leaf, intermediates) = self.chain().split_first().ok_or(Unusable::Chain(0))?;
        let actual = spiffe_id(leaf)?;
        if actual != *wanted {
            return Err(Unusable::OtherIdentity {
                actual: actual.to_string(),
                wanted: wanted.to_string(),
            });
        }
        let verifier = ClientVerifier::new(bundle.clone(), true, provider.clone());
        verifier.verify_client_cert(leaf, intermediates, UnixTime::now())?;
        Ok(())
    }

    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }

    pub(super) fn key_pem(&self) -> &str {
        &self.key_pem
    }

    pub(super) fn certified(&self) -> CertifiedKey {
        CertifiedKey::clone(&self.certified)
    }

    pub(super) fn not_after(&self) -> i64 {
        self.not_after
    }

    pub(super) fn not_before(&self) -> i64 {
        self.not_before
    }
}

fn not_before(certificate: &CertificateDer<'_>) -> Result<i64, Unusable> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| Unusable::Certificate(error.to_string()))?;
    Ok(parsed.validity().not_before.timestamp())
}
