//! A certificate authority, and a control plane's gRPC port, for tests: real certificates, real TLS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa,
    KeyPair, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tower::ServiceExt;
use weft_proto::spiffe::SpiffeId;
use weft_proto::svid::{ClientVerifier, TrustBundle};
use weft_proto::v1alpha1 as wire;
use weft_proto::v1alpha1::identity_server::{Identity, IdentityServer};

use crate::bootstrap::{AccessLog, InboundPlaintext, Settings};

/// A root of the trust domain `weft.test`, which its certificate names.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Arc<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.subject_alt_names = vec![SanType::URI("spiffe://weft.test".try_into().unwrap())];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Arc::new(Self { issuer })
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        TrustBundle::new("weft.test", vec![self.root()]).unwrap()
    }

    /// A certificate for `id` of a key of its own.
    pub(crate) fn issue(
        &self,
        id: &str,
        life: Duration,
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        limit(&mut params, life);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (
            certificate.der().clone(),
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
    }

    fn sign(&self, csr: &[u8], life: Duration) -> Result<CertificateDer<'static>, rcgen::Error> {
        let csr = CertificateSigningRequestDer::from(csr);
        let mut request = CertificateSigningRequestParams::from_der(&csr)?;
        limit(&mut request.params, life);
        Ok(request.signed_by(&self.issuer)?.der().clone())
    }
}

fn limit(params: &mut CertificateParams, life: Duration) {
    let now = SystemTime::now();
    params.not_before = now.into();
    params.not_after = (now + life).into();
}

/// Issues to whoever has the token `good`, or a certificate.
pub(crate) struct Issuer {
    pub(crate) authority: Arc<Authority>,
    pub(crate) life: Duration,
    pub(crate) issued: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl Identity for Issuer {
    async fn issue(
        &self,
        request: Request<wire::IssueRequest>,
    ) -> Result<Response<wire::IssueResponse>, Status> {
        let authenticated = request.extensions().get::<Authenticated>().is_some();
        let message = request.into_inner();
        if !authenticated && message.token != "good" {
            return Err(Status::permission_denied("the token is unknown"));
        }
        let certificate = self.authority.sign(&message.csr, self.life);
        let certificate = certificate.map_err(|e| Status::invalid_argument(e.to_string()))?;
        self.issued.lock().unwrap().push(message.token);
        Ok(Response::new(wire::IssueResponse {
            certificate_chain: vec![certificate.to_vec().into()],
            trust_bundle: Some(wire::TrustBundle {
                trust_domain: "weft.test".to_owned(),
                roots: vec![self.authority.root().to_vec().into()],
            }),
        }))
    }
}

impl Issuer {
    pub(crate) fn routes(self) -> Routes {
        Routes::new(IdentityServer::new(self))
    }
}

/// Marks a request over a connection with a client's certificate.
#[derive(Clone)]
pub(crate) struct Authenticated;

/// A gRPC port with mTLS; dropping it closes the port and every connection.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _connections: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(authority: &Authority, id: &str, at: &str, routes: Routes) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = ClientVerifier::new(authority.bundle().shared(), false, provider.clone());
        let (certificate, key) = authority.issue(id, Duration::from_secs(3600));
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let address = listener.local_addr().unwrap();
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, acceptor, routes));
        Self {
            address,
            _connections: connections,
        }
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, routes: Routes) {
    let mut connections = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, routes) = (acceptor.clone(), routes.clone());
        connections.spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else {
                return;
            };
            let authenticated = tls.get_ref().1.peer_certificates().is_some();
            let service = hyper::service::service_fn(move |request: http::Request<_>| {
                let mut request = request.map(tonic::body::Body::new);
                if authenticated {
                    request.extensions_mut().insert(Authenticated);
                }
                routes.clone().oneshot(request)
            });
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

pub(crate) const CONTROL_PLANE: &str = "spiffe://weft.test/ns/weft-system/sa/control-plane";

/// Settings of the workload `orders` with its files in `directory`.
pub(crate) fn settings(
    directory: &std::path::Path,
    authority: &Authority,
    control_plane: &str,
) -> Settings {
    let trust_bundle = directory.join("ca.pem");
    std::fs::write(&trust_bundle, authority.pem()).unwrap();
    Settings {
        control_plane: control_plane.to_owned(),
        trust_bundle,
        trust_domain: "not.this".to_owned(),
        token_file: None,
        token: Some("good".to_owned()),
        workload: "orders".to_owned(),
        namespace: "shop".to_owned(),
        service_account: "orders".to_owned(),
        labels: [("app".to_owned(), "orders".to_owned())].into(),
        address: [127, 0, 0, 1].into(),
        inbound_port: 4143,
        ports: [("http".to_owned(), 9001)].into(),
        zone: String::new(),
        data_dir: Some(directory.join("data")),
        outbound_listen: Vec::new(),
        inbound_listen: Vec::new(),
        admin_listen: ([127, 0, 0, 1], 0).into(),
        dns_listen: Vec::new(),
        log: "info".to_owned(),
        access_log: AccessLog::Off,
        workers: 1,
        drain_timeout: Duration::from_secs(1),
        inbound_plaintext: InboundPlaintext::Allow,
        connections_max: 16,
        header_bytes_max: 65536,
    }
}

pub(crate) fn orders() -> SpiffeId {
    SpiffeId::new("weft.test", "shop", "orders").unwrap()
}
