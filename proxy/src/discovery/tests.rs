//! Against a control plane's gRPC port over real TLS, played by the test message by message.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::v1alpha1::discovery_server::{Discovery, DiscoveryServer};
use weft_proto::v1alpha1::proxy_message::Message;
use weft_proto::v1alpha1::{self as wire, ResourceType, control_message};

use super::*;
use crate::identity::testing::{Authority, CONTROL_PLANE, Issuer, Server, settings};
use crate::model::{Known, Name, ServicePort};

const PATIENCE: Duration = Duration::from_secs(20);

/// The control plane's end of one stream.
struct Session {
    incoming: Streaming<wire::ProxyMessage>,
    outgoing: mpsc::Sender<Result<wire::ControlMessage, Status>>,
}

impl Session {
    async fn receive(&mut self) -> Message {
        let message = tokio::time::timeout(PATIENCE, self.incoming.message()).await;
        message
            .expect("a message in time")
            .unwrap()
            .unwrap()
            .message
            .unwrap()
    }

    async fn send(&self, message: control_message::Message) {
        self.outgoing
            .send(Ok(wire::ControlMessage {
                message: Some(message),
            }))
            .await
            .unwrap();
    }

    async fn push(&mut self, nonce: u64, resources: Vec<wire::Resource>) -> wire::Acknowledge {
        self.send(control_message::Message::Push(wire::Push {
            nonce,
            resources,
        }))
        .await;
        loop {
            if let Message::Acknowledge(acknowledge) = self.receive().await {
                assert_eq!(acknowledge.nonce, nonce);
                return acknowledge;
            }
        }
    }
}

struct Attach(mpsc::Sender<Session>);

#[tonic::async_trait]
impl Discovery for Attach {
    type AttachStream = ReceiverStream<Result<wire::ControlMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<wire::ProxyMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let (outgoing, receiver) = mpsc::channel(16);
        let session = Session {
            incoming: request.into_inner(),
            outgoing,
        };
        self.0
            .send(session)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// A proxy's discovery and identity, and the control plane they talk to.
struct Rig {
    directory: tempfile::TempDir,
    authority: Arc<Authority>,
    sessions: mpsc::Receiver<Session>,
    attach: mpsc::Sender<Session>,
    server: Option<Server>,
    address: SocketAddr,
    handle: Handle,
    identity: Identity,
    tasks: Vec<JoinHandle<()>>,
}

impl Rig {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let (attach, sessions) = mpsc::channel(4);
        let server = serve(&authority, &attach, "127.0.0.1:0").await;
        let address = server.address;
        let settings = Arc::new(settings(directory.path(), &authority, &address.to_string()));
        let identity = Identity::open(&settings).unwrap();
        let handle = Handle::open(&settings, &identity);
        let tasks = vec![
            tokio::spawn(crate::identity::run(identity.clone(), settings.clone())),
            tokio::spawn(run(handle.clone(), identity.clone(), settings)),
        ];
        let server = Some(server);
        Self {
            directory,
            authority,
            sessions,
            attach,
            server,
            address,
            handle,
            identity,
            tasks,
        }
    }

    async fn session(&mut self) -> (Session, wire::Hello) {
        let session = tokio::time::timeout(PATIENCE, self.sessions.recv()).await;
        let mut session = session.expect("a stream in time").unwrap();
        match session.receive().await {
            Message::Hello(hello) => (session, hello),
            other => panic!("{other:?} instead of a hello"),
        }
    }

    async fn wait(&self, done: impl Fn(&Handle) -> bool) {
        let waited = async {
            while !done(&self.handle) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited)
            .await
            .expect("in time");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn serve(authority: &Arc<Authority>, attach: &mpsc::Sender<Session>, at: &str) -> Server {
    let life = Duration::from_secs(3600);
    let issuer = Issuer {
        authority: authority.clone(),
        life,
        issued: Arc::new(Mutex::default()),
    };
    let routes = issuer
        .routes()
        .add_service(DiscoveryServer::new(Attach(attach.clone())));
    Server::start(authority, CONTROL_PLANE, at, routes).await
}

fn resource(kind: ResourceType, name: &str, version: &str, body: Vec<u8>) -> wire::Resource {
    let (name, version) = (name.to_owned(), version.to_owned());
    wire::Resource {
        r#type: kind.into(),
        name,
        version,
        body: body.into(),
        ..wire::Resource::default()
    }
}

fn cluster(name: &str, version: &str, address: &str) -> wire::Resource {
    let endpoint = wire::Endpoint {
        id: "one:9001".to_owned(),
        address: address.to_owned(),
        port: 9001,
        weight: 1,
        ..wire::Endpoint::default()
    };
    let body = wire::Cluster {
        name: name.to_owned(),
        service: name.rsplit_once(':').unwrap().0.to_owned(),
        endpoints: vec![endpoint],
        ..wire::Cluster::default()
    };
    resource(ResourceType::Cluster, name, version, body.encode_to_vec())
}

fn inbound(version: &str, port: u16) -> wire::Resource {
    let port = wire::InboundPort {
        port: port.into(),
        ..wire::InboundPort::default()
    };
    let body = wire::Inbound {
        ports: vec![port],
        ..wire::Inbound::default()
    };
    resource(ResourceType::Inbound, "self", version, body.encode_to_vec())
}

fn port(text: &str) -> ServicePort {
    text.parse().unwrap()
}

fn asked(message: Message) -> HashSet<String> {
    match message {
        Message::Subscribe(subscribe) => subscribe.add.into_iter().map(|name| name.name).collect(),
        other => panic!("{other:?} instead of a subscription"),
    }
}

fn set(names: &[&str]) -> HashSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test]
async fn hello_subscribe_push_and_acknowledge() {
    let mut rig = Rig::start().await;
    let (mut session, hello) = rig.session().await;
    assert_eq!(
        (hello.workload.as_str(), hello.namespace.as_str()),
        ("orders", "shop")
    );
    assert_eq!(hello.instance, *rig.identity.instance());
    assert_eq!(hello.named_ports["http"], 9001);
    assert_eq!(asked(session.receive().await), set(&["self", "weft.test"]));
    assert!(!rig.handle.ready());

    let application = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listening = application.local_addr().unwrap().port();
    session
        .send(control_message::Message::Push(wire::Push {
            nonce: 1,
            resources: vec![inbound("i1", listening)],
        }))
        .await;
    let (mut acknowledged, mut up) = (false, Vec::new());
    while !acknowledged || up.is_empty() {
        match session.receive().await {
            Message::Acknowledge(acknowledge) => acknowledged = acknowledge.rejected.is_empty(),
            Message::Ports(report) => up = report.up,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(up, [u32::from(listening)]);
    assert!(rig.handle.ready());
    drop(application);
    match session.receive().await {
        Message::Ports(report) => assert!(report.up.is_empty()),
        other => panic!("{other:?} instead of a report that the port is down"),
    }

    let names = [
        Name::Cluster(port("shop/stock:80")),
        Name::Route(port("shop/stock:80")),
    ];
    let resolve = tokio::spawn({
        let handle = rig.handle.clone();
        async move { handle.resolve(&names).await }
    });
    assert_eq!(asked(session.receive().await), set(&["shop/stock:80"]));
    let absent = resource(ResourceType::Route, "shop/stock:80", "", Vec::new());
    let before = rig.handle.current();
    assert!(rig.handle.is_current(&before));
    let pushed = vec![cluster("shop/stock:80", "c1", "10.0.0.1"), absent];
    assert!(session.push(2, pushed).await.rejected.is_empty());
    let resolved = resolve.await.unwrap().unwrap();
    assert!(rig.handle.is_current(&resolved));
    assert!(rig.handle.is_current(&rig.handle.current()));
    assert!(!rig.handle.is_current(&before), "two resources came");
    assert!(matches!(
        resolved.cluster(&port("shop/stock:80")),
        Known::Present(_)
    ));
    assert!(matches!(
        resolved.route(&port("shop/stock:80")),
        Known::Absent
    ));
}

#[tokio::test]
async fn one_bad_resource_hurts_only_itself() {
    let mut rig = Rig::start().await;
    let (mut session, _) = rig.session().await;
    session.receive().await;
    rig.wait(Handle::connected).await;
    let names = ["a/a:1", "a/b:1"].map(|name| Name::Cluster(port(name)));
    let resolve = tokio::spawn({
        let (handle, names) = (rig.handle.clone(), names.clone());
        async move { handle.resolve(&names).await }
    });
    assert_eq!(asked(session.receive().await), set(&["a/a:1", "a/b:1"]));
    let good = vec![
        cluster("a/a:1", "a1", "10.0.0.1"),
        cluster("a/b:1", "b1", "10.0.0.1"),
    ];
    session.push(1, good).await;
    resolve.await.unwrap().unwrap();

    let mixed = vec![
        cluster("a/a:1", "a2", "not an IP"),
        cluster("a/b:1", "b2", "10.0.0.2"),
    ];
    let acknowledge = session.push(2, mixed).await;
    let [rejection] = &acknowledge.rejected[..] else {
        panic!("{acknowledge:?}")
    };
    assert_eq!(
        (rejection.name.as_str(), rejection.version.as_str()),
        ("a/a:1", "a2")
    );
    assert_eq!(rejection.field, "endpoints[0].address");
    let current = rig.handle.current();
    let address = |name: &str| match current.cluster(&port(name)) {
        Known::Present(cluster) => {
            let first = cluster.endpoints.iter().next().unwrap();
            first.address.ip().to_string()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(
        (address("a/a:1").as_str(), address("a/b:1").as_str()),
        ("10.0.0.1", "10.0.0.2")
    );

    session
        .send(control_message::Message::Ask(wire::Ask {
            id: 7,
            question: Some(wire::ask::Question::Config(wire::ConfigQuestion {})),
        }))
        .await;
    match session.receive().await {
        Message::Answer(answer) => {
            let document: serde_json::Value = serde_json::from_str(&answer.json).unwrap();
            let rejected = &document["resources"][0]["rejected"];
            assert_eq!(
                (answer.id, &rejected["field"]),
                (7, &"endpoints[0].address".into())
            );
            let endpoint = &document["configuration"]["clusters"]["a/b:1"]["endpoints"][0];
            assert_eq!(endpoint["address"], "10.0.0.2:9001");
        }
        other => panic!("{other:?} instead of an answer"),
    }

    let never = Name::Cluster(port("a/c:1"));
    let resolve = tokio::spawn({
        let handle = rig.handle.clone();
        async move { handle.resolve(&[never]).await }
    });
    session.receive().await;
    session
        .push(3, vec![cluster("a/c:1", "c1", "nor this")])
        .await;
    let error = resolve.await.unwrap().unwrap_err();
    assert!(matches!(error, Unavailable::Rejected { .. }), "{error}");
}

#[tokio::test]
async fn a_reconnect_and_a_restart_say_what_is_known() {
    let mut rig = Rig::start().await;
    let (mut session, hello) = rig.session().await;
    assert!(hello.known.is_empty());
    session.receive().await;
    session.push(1, vec![inbound("i1", 9001)]).await;
    drop(session);
    rig.server = None;
    rig.wait(|handle| !handle.connected()).await;
    let unknown = [Name::Cluster(port("a/a:1"))];
    let error = rig.handle.resolve(&unknown).await.unwrap_err();
    assert!(matches!(error, Unavailable::Disconnected(_)), "{error}");

    let known = |hello: &wire::Hello| -> Vec<(String, String)> {
        hello
            .known
            .iter()
            .map(|known| (known.name.clone(), known.version.clone()))
            .collect()
    };
    let at = rig.address.to_string();
    rig.server = Some(serve(&rig.authority, &rig.attach, &at).await);
    let (mut session, hello) = rig.session().await;
    assert_eq!(known(&hello), [("self".to_owned(), "i1".to_owned())]);
    assert_eq!(asked(session.receive().await), set(&["weft.test"]));
    rig.wait(Handle::connected).await;

    // It drains, and says so again after the stream broke.
    rig.handle.goodbye().await;
    assert!(matches!(session.receive().await, Message::Goodbye(_)));
    drop(session);
    let (mut session, _) = rig.session().await;
    asked(session.receive().await);
    assert!(matches!(session.receive().await, Message::Goodbye(_)));

    let stored = rig.directory.path().join("data/resources");
    rig.wait(|_| stored.exists()).await;
    let settings = settings(rig.directory.path(), &rig.authority, &at);
    let identity = Identity::open(&settings).unwrap();
    let again = Handle::open(&settings, &identity);
    assert!(identity.ready() && again.ready());
    assert_eq!(
        again.current().inbound.as_ref().unwrap().ports[0].port,
        9001
    );
}

#[tokio::test]
async fn a_changed_cluster_outlives_a_restart() {
    let mut rig = Rig::start().await;
    let (mut session, hello) = rig.session().await;
    assert!(hello.takes_changes);
    session.receive().await;
    session.push(1, vec![inbound("i1", 9001)]).await;
    let name = Name::Cluster(port("a/a:1"));
    let resolve = tokio::spawn({
        let (handle, name) = (rig.handle.clone(), name.clone());
        async move { handle.resolve(&[name]).await }
    });
    while !matches!(session.receive().await, Message::Subscribe(_)) {}
    session
        .push(2, vec![cluster("a/a:1", "c1", "10.0.0.1")])
        .await;
    resolve.await.unwrap().unwrap();

    let change = |base: &str, version: &str| {
        let other = wire::Endpoint {
            id: "two:9001".to_owned(),
            address: "10.0.0.2".to_owned(),
            port: 9001,
            weight: 1,
            ..wire::Endpoint::default()
        };
        let change = wire::ClusterChange {
            upserted: vec![other],
            ..wire::ClusterChange::default()
        };
        wire::Resource {
            base_version: base.to_owned(),
            change: change.encode_to_vec().into(),
            ..resource(ResourceType::Cluster, "a/a:1", version, Vec::new())
        }
    };
    let acknowledge = session.push(3, vec![change("c0", "c9")]).await;
    assert!(acknowledge.rejected[0].whole_wanted);
    let acknowledge = session.push(4, vec![change("c1", "c2")]).await;
    assert!(acknowledge.rejected.is_empty(), "{acknowledge:?}");
    rig.handle.flush().await;

    let settings = settings(
        rig.directory.path(),
        &rig.authority,
        &rig.address.to_string(),
    );
    let identity = Identity::open(&settings).unwrap();
    let again = Handle::open(&settings, &identity);
    let (Known::Present(restored), Known::Present(before)) = (
        again.current().cluster(&port("a/a:1")),
        rig.handle.current().cluster(&port("a/a:1")),
    ) else {
        panic!("it is held");
    };
    assert_eq!((restored.endpoints.len(), &restored), (2, &before));
    let (known, _) = again.begin();
    assert!(known.iter().any(|known| known.version == "c2"));
}

#[tokio::test]
async fn a_pushed_trust_bundle_reaches_the_identity() {
    let mut rig = Rig::start().await;
    let (mut session, _) = rig.session().await;
    session.receive().await;
    let next = Authority::new();
    let bundle = |domain: &str| {
        let roots = vec![
            rig.authority.root().to_vec().into(),
            next.root().to_vec().into(),
        ];
        let body = wire::TrustBundle {
            trust_domain: domain.to_owned(),
            roots,
        }
        .encode_to_vec();
        resource(ResourceType::TrustBundle, "weft.test", domain, body)
    };
    let acknowledge = session.push(1, vec![bundle("other.test")]).await;
    assert_eq!(acknowledge.rejected[0].field, "trust_domain");
    assert!(
        session
            .push(2, vec![bundle("weft.test")])
            .await
            .rejected
            .is_empty()
    );
    assert_eq!(rig.identity.status()["trust_bundle_roots"], 2);
}
