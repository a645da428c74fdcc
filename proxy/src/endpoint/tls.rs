//! TLS to endpoints without a sidecar, as a BackendTLSPolicy asks for it (GEP-1897): who may have signed
//! the certificate, and for which names it must be.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError,
    RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::warn;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::TLS_BUFFER_MAX;
use crate::http::Unanswered;
use crate::identity::explain;
use crate::model::{BackendTls, Fault, Protocol, SubjectAltName};
use crate::tcp::{ReadAhead, TlsStream};

/// A configuration that nothing was connected with for this long is forgotten, with its sessions.
const IDLE: Duration = Duration::from_secs(300);

/// What a connection's other end must prove. One policy's is another's only where it is the same value.
#[derive(Clone, Debug)]
pub(super) struct Proof(Arc<BackendTls>);

impl Proof {
    pub(super) fn of(tls: &Arc<BackendTls>) -> Self {
        Self(tls.clone())
    }
}

impl PartialEq for Proof {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Proof {}

impl Hash for Proof {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// The TLS configurations of one worker.
#[derive(Default)]
pub(super) struct Tls {
    configs: RefCell<HashMap<(Proof, Protocol), Config>>,
}

struct Config {
    client: Arc<ClientConfig>,
    used: Cell<Instant>,
}

impl Tls {
    /// The handshake over a new connection, within `limit`. No byte of a request was sent before it is over.
    pub(super) async fn connect(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        (proof, protocol): (&Proof, Protocol),
        limit: Duration,
    ) -> Result<Box<TlsStream>, Unanswered> {
        let tls = &proof.0;
        if tls.invalid.is_some() {
            return Err(Unanswered::unprocessed(Fault::BackendInvalid));
        }
        let config = self.config(proof, protocol).map_err(|error| {
            warn!(policy = tls.policy, %error, "no TLS configuration can be made of a policy");
            Unanswered::unprocessed(Fault::BackendInvalid)
        })?;
        let stream = ReadAhead::new(stream, BytesMut::new());
        let handshake = TlsConnector::from(config).connect(tls.hostname.clone(), stream);
        let mut stream = match timeout(limit, handshake).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(refused(address, tls, &error)),
            Err(_) => return Err(Unanswered::unprocessed(Fault::ConnectFailed)),
        };
        let (_, session) = stream.get_mut();
        session.set_buffer_limit(Some(TLS_BUFFER_MAX));
        // HTTP/2 over TLS is agreed on, and never taken for granted (RFC 9113 3.2).
        if protocol == Protocol::Http2 && session.alpn_protocol() != Some(b"h2") {
            return Err(Unanswered::unprocessed(Fault::UpstreamProtocol));
        }
        Ok(Box::new(stream))
    }

    fn config(&self, proof: &Proof, protocol: Protocol) -> Result<Arc<ClientConfig>, Error> {
        let key = (proof.clone(), protocol);
        let now = Instant::now();
        if let Some(config) = self.configs.borrow().get(&key) {
            config.used.set(now);
            return Ok(config.client.clone());
        }
        let client = Arc::new(client_config(&proof.0, protocol)?);
        let config = Config {
            client: client.clone(),
            used: Cell::new(now),
        };
        self.configs.borrow_mut().insert(key, config);
        Ok(client)
    }

    pub(super) fn sweep(&self) {
        let now = Instant::now();
        let mut configs = self.configs.borrow_mut();
        configs.retain(|_, config| now.saturating_duration_since(config.used.get()) < IDLE);
    }
}

fn client_config(tls: &BackendTls, protocol: Protocol) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Verifier {
        roots: roots(tls)?,
        names: tls.subject_alt_names.clone(),
        algorithms: provider.signature_verification_algorithms,
    };
    let mut config = client_builder(provider)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = match protocol {
        Protocol::Http1 => vec![b"http/1.1".to_vec()],
        Protocol::Http2 => vec![b"h2".to_vec()],
        Protocol::Tcp | Protocol::Tls => Vec::new(),
    };
    Ok(config)
}

fn client_builder(
    provider: Arc<CryptoProvider>,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()
}

fn roots(tls: &BackendTls) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    if tls.roots.is_empty() {
        let system = rustls_native_certs::load_native_certs();
        let (added, _) = roots.add_parsable_certificates(system.certs);
        if added == 0 {
            let errors: Vec<String> = system.errors.iter().map(ToString::to_string).collect();
            return Err(Error::General(format!(
                "this system has no CA certificates: {}",
                errors.join("; ")
            )));
        }
    }
    for root in &tls.roots {
        roots.add(root.clone())?;
    }
    Ok(roots)
}

/// The check of a backend's certificate.
#[derive(Debug)]
struct Verifier {
    roots: RootCertStore,
    /// Empty: the certificate must be for the name that was asked for.
    names: Vec<SubjectAltName>,
    algorithms: WebPkiSupportedAlgorithms,
}

/// Why a certificate is not the backend's, though its chain is fine.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is for none of the policy's subjectAltNames")]
struct OtherNames;

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        if self.names.is_empty() {
            verify_server_name(&parsed, server_name)?;
        } else if !self
            .names
            .iter()
            .any(|name| is_for(end_entity, &parsed, name))
        {
            let reason = OtherError(Arc::new(OtherNames));
            return Err(Error::InvalidCertificate(CertificateError::Other(reason)));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

fn is_for(der: &CertificateDer<'_>, parsed: &ParsedCertificate<'_>, name: &SubjectAltName) -> bool {
    match name {
        SubjectAltName::Hostname(name) => match name.strip_prefix("*.") {
            None => ServerName::try_from(name.as_str())
                .is_ok_and(|name| verify_server_name(parsed, &name).is_ok()),
            Some(parent) => has_name(der, |found| match found {
                GeneralName::DNSName(found) => found
                    .split_once('.')
                    .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
                _ => false,
            }),
        },
        SubjectAltName::Uri(uri) => has_name(
            der,
            |found| matches!(found, GeneralName::URI(found) if found == uri),
        ),
    }
}

fn has_name(der: &CertificateDer<'_>, is_it: impl Fn(&GeneralName<'_>) -> bool) -> bool {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return false;
    };
    let names = certificate.subject_alternative_name().ok().flatten();
    names.is_some_and(|names| names.value.general_names.iter().any(is_it))
}

fn refused(address: SocketAddr, tls: &BackendTls, error: &std::io::Error) -> Unanswered {
    let inner = error.get_ref();
    let inner = inner.and_then(|inner| inner.downcast_ref::<Error>());
    let fault = match inner {
        Some(Error::InvalidCertificate(_)) => Fault::PeerIdentity,
        // It speaks TLS, and not the protocol within that was asked for (RFC 7301 3.2).
        Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)) => {
            Fault::UpstreamProtocol
        }
        _ => Fault::ConnectFailed,
    };
    let reason = explain(error);
    warn!(%address, policy = tls.policy, reason, "the TLS handshake with a backend failed; the endpoint is left out for a while");
    Unanswered::unprocessed(fault)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, SanType};

    use super::*;

    #[test]
    fn names_of_certificates() {
        let check = |has: &str, wanted: SubjectAltName, expect: bool| {
            let mut params = CertificateParams::default();
            params.subject_alt_names = vec![match has.contains("//") {
                true => SanType::URI(has.try_into().unwrap()),
                false => SanType::DnsName(has.try_into().unwrap()),
            }];
            let key = rcgen::KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            let der = certificate.der();
            let parsed = ParsedCertificate::try_from(der).unwrap();
            assert_eq!(is_for(der, &parsed, &wanted), expect, "{has} {wanted:?}");
        };
        let host = |name: &str| SubjectAltName::Hostname(name.to_owned());
        let uri = |uri: &str| SubjectAltName::Uri(uri.to_owned());
        check("a.test", host("a.test"), true);
        check("a.test", host("b.test"), false);
        check("*.b.test", host("a.b.test"), true);
        check("*.a.test", host("*.a.test"), true);
        check("b.a.test", host("*.a.test"), true);
        check("B.A.test", host("*.a.test"), true);
        check("c.b.a.test", host("*.a.test"), false);
        check("a.test", host("*.a.test"), false);
        check("spiffe://a/b", uri("spiffe://a/b"), true);
        check("spiffe://a/bc", uri("spiffe://a/b"), false);
        check("spiffe://a.test/b", host("a.test"), false);
        check("a.test", uri("a.test"), false);
    }
}
