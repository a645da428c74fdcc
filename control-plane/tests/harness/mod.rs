//! A real control plane on a free port, and real clients over TLS: what a proxy does, by hand.

// Each test program uses its part of the harness.
#![allow(dead_code)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use prost::Message;
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use weft::app::{self, Options};
use weft_proto::svid::{Expect, ServerVerifier, TrustBundle};
use weft_proto::v1alpha1 as wire;
use weft_proto::v1alpha1::admin_client::AdminClient;
use weft_proto::v1alpha1::control_message::Message as FromControl;
use weft_proto::v1alpha1::discovery_client::DiscoveryClient;
use weft_proto::v1alpha1::identity_client::IdentityClient;
use weft_proto::v1alpha1::proxy_message::Message as ToControl;

/// No condition takes longer to come about.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: orders, namespace: shop}
spec:
  selector: {app: orders}
  ports: [{name: http, port: 80, targetPort: 8080, appProtocol: http}]
---
apiVersion: v1
kind: Service
metadata: {name: stock, namespace: shop}
spec:
  selector: {app: stock}
  ports: [{port: 80, targetPort: web}]
";

/// A control plane that stops with the test.
pub struct Control {
    pub address: SocketAddr,
    pub admin_address: SocketAddr,
    pub directory: Arc<tempfile::TempDir>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<Result<(), app::Error>>,
}

/// A key and its certificate.
pub struct Svid {
    pub key: KeyPair,
    pub chain: Vec<CertificateDer<'static>>,
}

/// An attached proxy.
pub struct Proxy {
    pub sender: mpsc::Sender<wire::ProxyMessage>,
    pub incoming: Streaming<wire::ControlMessage>,
    /// Versions held, as a proxy would say them on its next hello.
    pub held: HashMap<(i32, String), wire::Resource>,
}

impl Control {
    pub async fn start() -> Self {
        Self::start_in(
            Arc::new(tempfile::tempdir().unwrap()),
            Duration::from_secs(3600),
        )
        .await
    }

    pub async fn start_in(directory: Arc<tempfile::TempDir>, svid_lifetime: Duration) -> Self {
        let options = Options {
            data_dir: directory.path().to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            admin: "127.0.0.1:0".parse().unwrap(),
            trust_domain: "weft.local".to_owned(),
            svid_lifetime,
        };
        let bound = app::bind(&options).await.unwrap();
        let address = bound.address().unwrap();
        let admin_address = bound.admin_address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(bound.run(async { drop(stopped.await) }));
        Self {
            address,
            admin_address,
            directory,
            stop: Some(stop),
            served,
        }
    }

    /// Stops it, and gives its data directory back.
    pub async fn stop(mut self) -> Arc<tempfile::TempDir> {
        self.stop.take().unwrap().send(()).unwrap();
        self.served.await.unwrap().unwrap();
        self.directory
    }

    /// The CLI's connection.
    pub async fn admin(&self) -> AdminClient<Channel> {
        let path = self.directory.path().join("weft.sock");
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://local");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        AdminClient::new(channel)
    }

    pub async fn apply(&self, documents: &str) -> u64 {
        let request = wire::ApplyRequest {
            sources: vec![wire::Source {
                name: "test.yaml".to_owned(),
                content: documents.as_bytes().to_vec().into(),
            }],
            dry_run: false,
            namespace: "default".to_owned(),
        };
        let applied = self
            .admin()
            .await
            .apply(request)
            .await
            .unwrap()
            .into_inner();
        assert_eq!(applied.problems, []);
        self.taken_in(applied.revision).await;
        applied.revision
    }

    /// Waits until what was applied is what a proxy gets that connects now. Proxies that are
    /// connected already wait for their own pushes, which not every test acknowledges.
    async fn taken_in(&self, revision: u64) {
        let mut admin = self.admin().await;
        let connected = admin.proxies(wire::ProxiesRequest {}).await.unwrap();
        if connected.into_inner().proxies.is_empty() {
            let request = wire::WaitRequest {
                revision,
                timeout_milliseconds: PATIENCE.as_millis().try_into().unwrap(),
            };
            admin.wait(request).await.unwrap();
        }
    }

    pub async fn token(&self, namespace: &str, account: &str, ttl: u64, uses: u32) -> String {
        let request = wire::CreateTokenRequest {
            namespace: namespace.to_owned(),
            service_account: account.to_owned(),
            ttl_seconds: ttl,
            uses,
        };
        let created = self.admin().await.create_token(request).await.unwrap();
        created.into_inner().token
    }

    /// A channel over TLS, with a certificate or without.
    pub async fn channel(&self, svid: Option<&Svid>) -> Result<Channel, tonic::transport::Error> {
        self.channel_through(self.address, svid).await
    }

    /// A channel to the control plane behind another address.
    pub async fn channel_through(
        &self,
        address: SocketAddr,
        svid: Option<&Svid>,
    ) -> Result<Channel, tonic::transport::Error> {
        let config = tls(&self.directory.path().join("trust-bundle.pem"), svid);
        let connector = TlsConnector::from(Arc::new(config));
        let connect = tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::from(address.ip());
                let stream = connector.connect(name, stream).await?;
                std::io::Result::Ok(TokioIo::new(stream))
            }
        });
        let endpoint = Endpoint::from_static("http://control-plane");
        endpoint.connect_with_connector(connect).await
    }

    pub async fn issue(
        &self,
        svid: Option<&Svid>,
        csr: &[u8],
        token: &str,
    ) -> Result<wire::IssueResponse, Status> {
        let channel = self
            .channel(svid)
            .await
            .map_err(|e| Status::unknown(e.to_string()))?;
        let request = wire::IssueRequest {
            csr: csr.to_vec().into(),
            token: token.to_owned(),
        };
        IdentityClient::new(channel)
            .issue(request)
            .await
            .map(tonic::Response::into_inner)
    }

    /// A certificate of this identity, by a token.
    pub async fn join(&self, namespace: &str, account: &str) -> Svid {
        let token = self.token(namespace, account, 60, 1).await;
        let key = KeyPair::generate().unwrap();
        let csr = csr(
            &key,
            &format!("spiffe://weft.local/ns/{namespace}/sa/{account}"),
        );
        let issued = self.issue(None, &csr, &token).await.unwrap();
        Svid::new(key, &issued)
    }

    pub async fn attach(&self, svid: &Svid, hello: wire::Hello) -> Result<Proxy, Status> {
        self.attach_through(self.address, svid, hello).await
    }

    pub async fn attach_through(
        &self,
        address: SocketAddr,
        svid: &Svid,
        hello: wire::Hello,
    ) -> Result<Proxy, Status> {
        let channel = self
            .channel_through(address, Some(svid))
            .await
            .map_err(|e| Status::unknown(e.to_string()))?;
        let (sender, receiver) = mpsc::channel(16);
        let proxy = ToControl::Hello(hello);
        sender.send(message(proxy)).await.unwrap();
        let mut client = DiscoveryClient::new(channel);
        let incoming = client
            .attach(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        Ok(Proxy {
            sender,
            incoming,
            held: HashMap::new(),
        })
    }

    /// A proxy of `shop/NAME`, with the label `app=NAME`.
    pub async fn proxy(&self, name: &str, instance: &str) -> Proxy {
        let svid = self.join("shop", name).await;
        self.attach(&svid, hello(name, instance)).await.unwrap()
    }
}

impl Svid {
    pub fn new(key: KeyPair, issued: &wire::IssueResponse) -> Self {
        let chain = issued.certificate_chain.iter();
        Self {
            key,
            chain: chain
                .map(|der| CertificateDer::from(der.to_vec()))
                .collect(),
        }
    }
}

pub fn tls(bundle: &Path, svid: Option<&Svid>) -> ClientConfig {
    let roots = CertificateDer::pem_file_iter(bundle)
        .unwrap()
        .map(Result::unwrap);
    let bundle = TrustBundle::new("weft.local", roots.collect())
        .unwrap()
        .shared();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = ServerVerifier::new(bundle, Expect::ControlPlane, provider.clone());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match svid {
        None => builder.with_no_client_auth(),
        Some(svid) => {
            let key = PrivateKeyDer::Pkcs8(svid.key.serialize_der().into());
            builder
                .with_client_auth_cert(svid.chain.clone(), key)
                .unwrap()
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

pub fn csr(key: &KeyPair, uri: &str) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.serialize_request(key).unwrap().der().to_vec()
}

pub fn hello(name: &str, instance: &str) -> wire::Hello {
    wire::Hello {
        workload: name.to_owned(),
        namespace: "shop".to_owned(),
        service_account: name.to_owned(),
        instance: instance.to_owned(),
        labels: HashMap::from([("app".to_owned(), name.to_owned())]),
        address: "127.0.0.1".to_owned(),
        inbound_port: 4143,
        ..wire::Hello::default()
    }
}

fn message(message: ToControl) -> wire::ProxyMessage {
    wire::ProxyMessage {
        message: Some(message),
    }
}

pub fn resource_name(kind: wire::ResourceType, name: &str) -> wire::ResourceName {
    wire::ResourceName {
        r#type: kind.into(),
        name: name.to_owned(),
    }
}

impl Proxy {
    pub async fn send(&self, sent: ToControl) {
        self.sender.send(message(sent)).await.unwrap();
    }

    pub async fn subscribe(&self, names: &[(wire::ResourceType, &str)]) {
        let add = names.iter().map(|(kind, name)| resource_name(*kind, name));
        let subscribe = wire::Subscribe {
            add: add.collect(),
            remove: Vec::new(),
        };
        self.send(ToControl::Subscribe(subscribe)).await;
    }

    pub async fn report(&self, up: &[u32]) {
        let report = wire::PortReport { up: up.to_vec() };
        self.send(ToControl::Ports(report)).await;
    }

    /// The next message, whatever it is.
    pub async fn receive(&mut self) -> Result<FromControl, Status> {
        let next = tokio::time::timeout(PATIENCE, self.incoming.message()).await;
        let next = next.expect("a message in time")?;
        let next = next.ok_or_else(|| Status::unknown("the stream ended"))?;
        Ok(next.message.expect("a message with content"))
    }

    /// The next push, not acknowledged yet.
    pub async fn push(&mut self) -> wire::Push {
        match self.receive().await.unwrap() {
            FromControl::Push(push) => push,
            FromControl::Ask(ask) => panic!("asked {ask:?}, expected a push"),
        }
    }

    pub async fn acknowledge(&mut self, push: &wire::Push, rejected: Vec<wire::Rejection>) {
        for resource in &push.resources {
            let key = (resource.r#type, resource.name.clone());
            if !rejected.iter().any(|r| (r.r#type, r.name.clone()) == key) {
                self.held.insert(key, resource.clone());
            }
        }
        let acknowledge = wire::Acknowledge {
            nonce: push.nonce,
            rejected,
        };
        self.send(ToControl::Acknowledge(acknowledge)).await;
    }

    /// Takes and acknowledges pushes until what it holds of a name is as wanted.
    pub async fn until(
        &mut self,
        kind: wire::ResourceType,
        name: &str,
        wanted: impl Fn(&wire::Resource) -> bool,
    ) -> wire::Resource {
        let key = (i32::from(kind), name.to_owned());
        let held = async {
            loop {
                if let Some(resource) = self.held.get(&key)
                    && wanted(resource)
                {
                    return resource.clone();
                }
                let push = self.push().await;
                self.acknowledge(&push, Vec::new()).await;
            }
        };
        let held = tokio::time::timeout(PATIENCE, held).await;
        held.unwrap_or_else(|_| panic!("{kind:?} {name} did not become as wanted"))
    }

    /// Waits until a cluster has these endpoints, by ID.
    pub async fn until_endpoints(&mut self, cluster: &str, ids: &[&str]) -> wire::Cluster {
        let wanted = |resource: &wire::Resource| endpoint_ids(resource) == ids;
        let found = self
            .until(wire::ResourceType::Cluster, cluster, wanted)
            .await;
        wire::Cluster::decode(found.body).unwrap()
    }

    pub fn known(&self) -> Vec<wire::ResourceVersion> {
        let held = self.held.values();
        held.map(|resource| wire::ResourceVersion {
            r#type: resource.r#type,
            name: resource.name.clone(),
            version: resource.version.clone(),
        })
        .collect()
    }
}

pub fn endpoint_ids(resource: &wire::Resource) -> Vec<String> {
    let cluster = wire::Cluster::decode(resource.body.clone()).unwrap();
    cluster
        .endpoints
        .into_iter()
        .map(|endpoint| endpoint.id)
        .collect()
}
