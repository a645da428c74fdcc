//! Against a gRPC port with real TLS, and real files.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::testing::{Authority, CONTROL_PLANE, Issuer, Server, orders, settings};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);
const PATIENCE: Duration = Duration::from_secs(20);

struct Rig {
    directory: tempfile::TempDir,
    authority: Arc<Authority>,
    issued: Arc<Mutex<Vec<String>>>,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self {
            directory,
            authority: Authority::new(),
            issued: Arc::default(),
        }
    }

    async fn server(&self, id: &str, life: Duration) -> Server {
        let (authority, issued) = (self.authority.clone(), self.issued.clone());
        let issuer = Issuer {
            authority,
            life,
            issued,
        };
        Server::start(&self.authority, id, "127.0.0.1:0", issuer.routes()).await
    }

    fn settings(&self, control_plane: &str) -> Arc<Settings> {
        Arc::new(settings(
            self.directory.path(),
            &self.authority,
            control_plane,
        ))
    }
}

/// Runs the identity until `done`.
async fn run_until(
    identity: &Identity,
    settings: &Arc<Settings>,
    done: impl Fn(&Identity) -> bool,
) {
    let waited = async {
        while !done(identity) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = run(identity.clone(), settings.clone()) => unreachable!("it runs for ever"),
        waited = tokio::time::timeout(PATIENCE, waited) => {
            waited.unwrap_or_else(|_| panic!("waited too long: {}", identity.status()));
        }
    }
}

#[tokio::test]
async fn the_first_certificate_is_kept_over_a_restart() {
    let rig = Rig::new();
    let server = rig.server(CONTROL_PLANE, HOUR).await;
    let settings = rig.settings(&server.address.to_string());
    let identity = Identity::open(&settings).unwrap();
    assert!(!identity.ready() && identity.server_config().is_none());
    assert_eq!(identity.spiffe_id(), None);
    run_until(&identity, &settings, Identity::ready).await;
    assert_eq!(*identity.spiffe_id().unwrap(), orders());
    assert!(identity.not_after().unwrap() > unix_now() + 3000);
    for name in ["svid.pem", "instance"] {
        let path = settings.data_dir.as_ref().unwrap().join(name);
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    drop(server);
    let again = Identity::open(&settings).unwrap();
    assert!(again.ready());
    assert_eq!(again.instance(), identity.instance());
    assert_eq!(again.not_after(), identity.not_after());
}

#[tokio::test]
async fn renewals_go_over_the_certificate_and_not_the_token() {
    let rig = Rig::new();
    let server = rig.server(CONTROL_PLANE, Duration::from_secs(6)).await;
    let settings = rig.settings(&server.address.to_string());
    let identity = Identity::open(&settings).unwrap();
    run_until(&identity, &settings, |_| {
        rig.issued.lock().unwrap().len() >= 2
    })
    .await;
    assert_eq!(rig.issued.lock().unwrap()[..2], ["good", ""]);
    run_until(&identity, &settings, |identity| identity.generation() >= 2).await;
    assert!(identity.ready());
}

#[tokio::test]
async fn a_refusal_is_seen_and_a_better_token_is_read() {
    let rig = Rig::new();
    let server = rig.server(CONTROL_PLANE, HOUR).await;
    let token = rig.directory.path().join("token");
    let mut settings = settings(
        rig.directory.path(),
        &rig.authority,
        &server.address.to_string(),
    );
    settings.token_file = Some(token.clone());
    let settings = Arc::new(settings);
    let identity = Identity::open(&settings).unwrap();
    let says = |expect: &'static str| {
        move |identity: &Identity| identity.status()["last_error"].to_string().contains(expect)
    };
    run_until(&identity, &settings, says("is not there")).await;
    std::fs::write(&token, "bad\n").unwrap();
    run_until(&identity, &settings, says("the token is unknown")).await;
    std::fs::write(&token, "good\n").unwrap();
    run_until(&identity, &settings, Identity::ready).await;
    assert!(identity.status()["last_error"].is_null());
}

#[tokio::test]
async fn somebody_else_is_no_control_plane() {
    let rig = Rig::new();
    let server = rig
        .server("spiffe://weft.test/ns/shop/sa/orders", HOUR)
        .await;
    let settings = rig.settings(&server.address.to_string());
    let identity = Identity::open(&settings).unwrap();
    let refused = |identity: &Identity| {
        let error = identity.status()["last_error"].to_string();
        error.contains("expected spiffe://weft.test/ns/weft-system/sa/control-plane")
    };
    run_until(&identity, &settings, refused).await;
    assert!(rig.issued.lock().unwrap().is_empty());
}

#[tokio::test]
async fn two_sidecars_shake_hands_as_whom_they_expect() {
    let rig = Rig::new();
    let server = rig.server(CONTROL_PLANE, HOUR).await;
    let settings = rig.settings(&server.address.to_string());
    let identity = Identity::open(&settings).unwrap();
    run_until(&identity, &settings, Identity::ready).await;
    assert!(handshake(&identity, &orders()).await.is_ok());
    let other = SpiffeId::new("weft.test", "shop", "stock").unwrap();
    let error = handshake(&identity, &other).await.unwrap_err();
    let reason = explain(&error);
    assert!(
        reason.contains("expected spiffe://weft.test/ns/shop/sa/stock"),
        "{reason}"
    );
    let config = identity.client_config(&other).unwrap();
    assert!(Arc::ptr_eq(
        &config,
        &identity.client_config(&other).unwrap()
    ));
}

async fn handshake(identity: &Identity, expected: &SpiffeId) -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let acceptor = TlsAcceptor::from(identity.server_config().unwrap());
    let connector = TlsConnector::from(identity.client_config(expected).unwrap());
    let tcp = TcpStream::connect(listener.local_addr()?).await?;
    let name = rustls_pki_types::ServerName::try_from("peer").unwrap();
    let accept = async { acceptor.accept(listener.accept().await?.0).await };
    let (connected, accepted) = tokio::join!(connector.connect(name, tcp), accept);
    let (connected, accepted) = (connected?, accepted?);
    assert_eq!(connected.get_ref().1.alpn_protocol(), Some(ALPN_HOP));
    assert!(accepted.get_ref().1.server_name().is_none());
    let certificates = accepted.get_ref().1.peer_certificates().unwrap();
    assert_eq!(
        weft_proto::svid::spiffe_id(&certificates[0]).unwrap(),
        orders()
    );
    Ok(())
}

#[tokio::test]
async fn a_new_bundle_is_a_new_generation_and_is_kept() {
    let rig = Rig::new();
    let server = rig.server(CONTROL_PLANE, HOUR).await;
    let settings = rig.settings(&server.address.to_string());
    let identity = Identity::open(&settings).unwrap();
    run_until(&identity, &settings, Identity::ready).await;
    let generation = identity.generation();
    identity.update_bundle(rig.authority.bundle()).unwrap();
    assert_eq!(
        identity.generation(),
        generation,
        "the same bundle changes nothing"
    );
    let next = Authority::new();
    let both = vec![rig.authority.root(), next.root()];
    identity
        .update_bundle(TrustBundle::new("weft.test", both).unwrap())
        .unwrap();
    assert_eq!(identity.generation(), generation + 1);
    let other = TrustBundle::new("other.test", vec![next.root()]).unwrap();
    assert!(identity.update_bundle(other).is_err());
    let again = Identity::open(&settings).unwrap();
    assert_eq!(again.status()["trust_bundle_roots"], 2);
}

#[test]
fn what_is_stored_and_of_no_use_is_not_used() {
    let check = |spoil: &dyn Fn(&Rig, &Settings)| {
        let rig = Rig::new();
        let settings = rig.settings("127.0.0.1:1");
        std::fs::create_dir_all(settings.data_dir.as_ref().unwrap()).unwrap();
        spoil(&rig, &settings);
        let identity = Identity::open(&settings).unwrap();
        assert!(!identity.ready());
    };
    let store = |settings: &Settings, content: &str| {
        let path = settings.data_dir.as_ref().unwrap().join("svid.pem");
        std::fs::write(path, content).unwrap();
    };
    check(&|_, settings| store(settings, "not PEM"));
    check(&|_, settings| store(settings, ""));
    check(&|rig, settings| store(settings, &rig.authority.pem()));
    check(&|rig, settings| {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let stranger = Authority::new();
        let request = svid::Request::new(&orders()).unwrap();
        let chain = vec![stranger.issue(&orders().to_string(), HOUR).0];
        assert!(
            request.certified(chain, &provider).is_err(),
            "a key that is not the certificate's"
        );
        assert!(!rig.authority.pem().is_empty());
        store(settings, &stranger.pem());
    });
}
