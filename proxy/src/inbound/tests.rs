//! Connections from whoever isn't welcome, over real sockets.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use super::*;
use crate::bootstrap::AccessLog;
use crate::identity::testing::{Authority, settings};
use crate::telemetry::TelemetryOptions;

const PATIENCE: Duration = Duration::from_secs(20);

/// The inbound side of a workload that has no identity and no configuration yet.
fn inbound(policy: Policy) -> Rc<Inbound> {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path(), &Authority::new(), "127.0.0.1:1");
    let identity = Identity::open(&settings).unwrap();
    let discovery = discovery::Handle::open(&settings, &identity);
    let options = TelemetryOptions::from_environment("a", "shop", "a", AccessLog::Off, |_| None);
    Rc::new(Inbound::new(Parts {
        own: Own {
            namespace: "shop".into(),
            workload: "orders".into(),
            zone: "".into(),
            ports: [4143].into(),
        },
        instance: identity.instance(),
        address: settings.address,
        policy,
        ports: discovery.ports(),
        discovery,
        identity,
        telemetry: Telemetry::new(options.unwrap()).0,
        limits: ServerLimits::default(),
        drain: watch::channel(false).1,
        spent: Spent::default(),
        leaving: Arc::default(),
        worker: (0, 1),
        servers: RateLimitServers::new(&[]),
    }))
}

#[tokio::test]
async fn a_hello_that_comes_byte_by_byte_gains_no_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (mut reader, _writer) = split(listener.accept().await.unwrap().0, BytesMut::new());
    let limit = Duration::from_millis(300);
    // A record of 16 KiB, and in it a ClientHello as long.
    client
        .write_all(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc")
        .await
        .unwrap();
    let drips = async {
        let mut drips = interval(limit / 10);
        while client.write_all(b"\x03").await.is_ok() {
            drips.tick().await;
        }
    };
    tokio::select! {
        offered = timeout(PATIENCE, offers_hop(&mut reader, Instant::now() + limit)) => {
            assert_eq!(offered, Ok(None));
        }
        () = drips => panic!("the connection ended by itself"),
    }
}

#[tokio::test]
async fn what_listens_on_loopback_alone_is_for_callers_where_it_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut inbound = Rc::into_inner(inbound(Policy::Permissive)).unwrap();
    inbound.address = [10, 9, 8, 7].into();
    let own = SocketAddr::new(inbound.address, port);
    assert_eq!(inbound.application(port), Ok(own));
    assert_eq!(inbound.application(4143), Err(Fault::Loop));
}
