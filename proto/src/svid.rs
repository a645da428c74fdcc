//! Checks a peer's X509-SVID (SPIFFE X509-SVID section 5): the chain must end in a root of the
//! trust bundle in force now, the leaf must be valid now and carry exactly one SPIFFE ID of this
//! trust domain. Which ID may do what is the caller's to decide; a client that knows whom it calls
//! says so with [`Expect::Exactly`], and the handshake fails otherwise.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::spiffe::SpiffeId;

/// The roots in force; replaced as a whole when the control plane pushes a new bundle.
#[derive(Debug)]
pub struct TrustBundle {
    trust_domain: String,
    certificates: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
}

/// A [`TrustBundle`] that every verifier reads at each handshake.
pub type SharedTrustBundle = Arc<ArcSwap<TrustBundle>>;

/// Why roots are no trust bundle, or a certificate no SVID.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSvid {
    /// A bundle without a root trusts nobody, so it is refused where it is made.
    #[error("the trust bundle holds no certificate")]
    EmptyBundle,
    /// One of the roots does not parse.
    #[error("certificate {index} of the trust bundle is not a usable X.509 root: {reason}")]
    Root { index: usize, reason: String },
    /// The leaf does not parse.
    #[error("the peer's certificate is not X.509: {0}")]
    Certificate(String),
    /// X509-SVID section 2: exactly one URI SAN.
    #[error("the peer's certificate carries {0} URI names; an X509-SVID carries exactly one")]
    UriNames(usize),
    /// The one URI is no SPIFFE ID of weft's form.
    #[error("{0}")]
    SpiffeId(#[from] crate::spiffe::InvalidSpiffeId),
    /// The certificate is of another trust domain than the bundle.
    #[error("the peer is {id}, of trust domain {} and not {expected}", id.trust_domain())]
    TrustDomain { id: SpiffeId, expected: String },
    /// The chain is fine, but it is somebody else.
    #[error("the peer is {actual}, expected {expected}")]
    OtherPeer {
        actual: Box<SpiffeId>,
        expected: Box<SpiffeId>,
    },
}

impl TrustBundle {
    /// Takes DER certificates, one a root; every one must parse as a trust anchor.
    pub fn new(
        trust_domain: &str,
        certificates: Vec<CertificateDer<'static>>,
    ) -> Result<Self, InvalidSvid> {
        if certificates.is_empty() {
            return Err(InvalidSvid::EmptyBundle);
        }
        let mut roots = RootCertStore::empty();
        for (index, certificate) in certificates.iter().enumerate() {
            let add = roots.add(certificate.clone());
            add.map_err(|error| InvalidSvid::Root {
                index,
                reason: error.to_string(),
            })?;
        }
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            certificates,
            roots: Arc::new(roots),
        })
    }

    /// Whose identities these roots sign.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The roots as DER.
    pub fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// Shares it with the verifiers.
    pub fn shared(self) -> SharedTrustBundle {
        Arc::new(ArcSwap::from_pointee(self))
    }

    /// Whether `id` is of this bundle's trust domain.
    fn owns(&self, id: SpiffeId) -> Result<SpiffeId, InvalidSvid> {
        if id.trust_domain() == self.trust_domain {
            Ok(id)
        } else {
            Err(InvalidSvid::TrustDomain {
                id,
                expected: self.trust_domain.clone(),
            })
        }
    }
}

/// The SPIFFE ID of a certificate. Says nothing of its chain or validity.
pub fn spiffe_id(certificate: &CertificateDer<'_>) -> Result<SpiffeId, InvalidSvid> {
    let not_x509 = |reason: &dyn std::fmt::Display| InvalidSvid::Certificate(reason.to_string());
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| not_x509(&error))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| not_x509(&error))?;
    let uris: Vec<&str> = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris[..] {
        [uri] => Ok(uri.parse()?),
        _ => Err(InvalidSvid::UriNames(uris.len())),
    }
}

/// The end of a certificate's validity, in seconds since 1970.
pub fn not_after(certificate: &CertificateDer<'_>) -> Result<i64, InvalidSvid> {
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|error| InvalidSvid::Certificate(error.to_string()))?;
    Ok(parsed.validity().not_after.timestamp())
}

/// Whom a client expects at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// This one identity.
    Exactly(SpiffeId),
    /// The control plane of the bundle's trust domain.
    ControlPlane,
}

/// A client's check of the server's certificate. Host names play no part.
#[derive(Debug)]
pub struct ServerVerifier {
    bundle: SharedTrustBundle,
    expect: Expect,
    provider: Arc<CryptoProvider>,
}

impl ServerVerifier {
    /// A verifier that reads `bundle` anew at each handshake.
    pub fn new(
        bundle: SharedTrustBundle,
        expect: Expect,
        provider: Arc<CryptoProvider>,
    ) -> Arc<Self> {
        Arc::new(Self {
            bundle,
            expect,
            provider,
        })
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let bundle = self.bundle.load();
        let parsed = rustls::server::ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &bundle.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let actual = spiffe_id(end_entity)
            .and_then(|id| bundle.owns(id))
            .map_err(refused)?;
        let expected = match &self.expect {
            Expect::Exactly(id) => id.clone(),
            Expect::ControlPlane => SpiffeId::control_plane(bundle.trust_domain())
                .map_err(|error| refused(error.into()))?,
        };
        if actual == expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(refused(InvalidSvid::OtherPeer {
                actual: Box::new(actual),
                expected: Box::new(expected),
            }))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// A server's check of the client's certificate: any SVID of the trust domain.
#[derive(Debug)]
pub struct ClientVerifier {
    bundle: SharedTrustBundle,
    required: bool,
    provider: Arc<CryptoProvider>,
}

impl ClientVerifier {
    /// With `required` a client without a certificate fails the handshake; without, it comes
    /// through unauthenticated.
    pub fn new(
        bundle: SharedTrustBundle,
        required: bool,
        provider: Arc<CryptoProvider>,
    ) -> Arc<Self> {
        Arc::new(Self {
            bundle,
            required,
            provider,
        })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let bundle = self.bundle.load();
        let chain = WebPkiClientVerifier::builder_with_provider(
            bundle.roots.clone(),
            self.provider.clone(),
        )
        .build()
        .map_err(|error| Error::General(error.to_string()))?;
        let verified = chain.verify_client_cert(end_entity, intermediates, now)?;
        spiffe_id(end_entity)
            .and_then(|id| bundle.owns(id))
            .map_err(refused)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

fn refused(reason: InvalidSvid) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
}
