//! Connections from whoever isn't welcome, over real sockets.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::time::{interval, timeout};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

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
