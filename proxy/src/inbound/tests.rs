//! Connections from whoever isn't welcome, over real sockets.

use std::io;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{interval, timeout};

use super::*;
use crate::bootstrap::AccessLog;
use crate::identity::testing::{Authority, settings};
use crate::listener::{Listener, bind};
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

/// A client of a connection that `policy` decides on, on its way to the application.
async fn intercepted(policy: Policy, application: SocketAddr) -> TcpStream {
    let socket = bind((Ipv4Addr::LOCALHOST, 0).into(), false).unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener::new(socket, Arc::new(Semaphore::new(1))).unwrap();
    let client = TcpStream::connect(address).await.unwrap();
    let accepted = Accepted {
        original_destination: Some(application),
        ..listener.accept().await
    };
    spawn_local(inbound(policy).serve(accepted));
    client
}

/// All that a client gets until the end, be it in order or not.
async fn rest(client: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = timeout(PATIENCE, client.read_to_end(&mut bytes)).await;
    // A reset is an end as well.
    let _ = read.expect("an end");
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn the_application_sees_nothing_of_who_may_not_reach_it() {
    let story = async {
        let application = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = application.local_addr().unwrap();
        // Both wait for the server's first word. The one that may was last, so the other had its time.
        let mut stranger = intercepted(Policy::Strict, address).await;
        let mut welcome = intercepted(Policy::Permissive, address).await;
        let (mut server, _) = application.accept().await.unwrap();
        server.write_all(b"hi").await.unwrap();
        let mut greeting = [0; 2];
        let greeted = timeout(PATIENCE, welcome.read_exact(&mut greeting)).await;
        greeted.expect("a greeting").unwrap();
        stranger.write_all(b"\0\0\0\x08opaque\r\n").await.unwrap();
        assert_eq!(rest(&mut stranger).await, "");
        let mut speaker = intercepted(Policy::Strict, address).await;
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        speaker.write_all(request).await.unwrap();
        let told = rest(&mut speaker).await;
        assert!(
            told.starts_with("HTTP/1.1 403 ") && told.contains("not_authorized"),
            "{told}"
        );
        let another = application.into_std().unwrap().accept();
        assert_eq!(another.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    };
    LocalSet::new().run_until(story).await;
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
