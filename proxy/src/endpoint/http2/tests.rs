//! Who gets a share of which connection, when many ask at once or nobody waits for it any more.

use std::sync::Arc;

use futures_util::future::join_all;
use http::{Method, Version};
use rustls::ClientConfig;
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};

use super::*;
use crate::model::{Fields, RequestHead, Text};
use crate::multiplex::Accepted;

/// A proxy without an identity.
struct Nobody;

impl Credentials for Nobody {
    fn client_config(&self, _: &SpiffeId) -> Option<Arc<ClientConfig>> {
        None
    }

    fn generation(&self) -> u64 {
        0
    }

    fn not_after(&self) -> Option<i64> {
        None
    }
}

fn pool(streams_per_connection: u32) -> Rc<Pool<Nobody>> {
    let limits = Limits {
        streams_per_connection,
        ..Limits::default()
    };
    Rc::new(Pool::new(Nobody, Rc::default(), limits))
}

async fn listen() -> (TcpListener, Peer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, Peer::Server(Server::plain(address)))
}

/// An application that takes so many streams of one connection and ends none. Counts its connections.
fn serve(listener: TcpListener, streams: u32) -> Rc<Cell<u32>> {
    let connections = Rc::<Cell<u32>>::default();
    let counted = connections.clone();
    spawn_local(async move {
        while let Ok((mut io, _)) = listener.accept().await {
            counted.set(counted.get() + 1);
            let limits = http2::Limits {
                streams,
                ..http2::Limits::default()
            };
            spawn_local(async move {
                let mut held = Vec::new();
                let connection = Multiplex::new(Role::Server, limits);
                let hold = |accepted: Accepted<'_>| {
                    held.push((accepted.receiver, accepted.sender));
                };
                connection.drive(&mut io, hold).await
            });
        }
    });
    connections
}

/// Five requests at once, none of which ends before all have begun.
async fn five_at_once(pool: &Rc<Pool<Nobody>>, peer: &Peer) {
    let head = RequestHead {
        method: Method::GET,
        scheme: Some(Text::from_static("http")),
        authority: Some(Text::from_static("a.b")),
        path: Text::from_static("/"),
        version: Version::HTTP_2,
        upgrade: None,
        headers: Fields::new(),
    };
    let all = (0..5).map(|_| async {
        let share = pool.share(peer).await.expect("a connection");
        let opened = share.connection().open(&head, |_| {}, true);
        (opened.expect("room for a stream"), share)
    });
    join_all(all).await;
}

/// Begins a connection for somebody who then waits no longer, and sees how that ends.
async fn abandon(pool: &Rc<Pool<Nobody>>, peer: &Peer) {
    assert!(pool.share(peer).now_or_never().is_none());
    let attempt = pool.peers.borrow().get(peer).and_then(|connections| {
        let connecting = connections.connecting.as_ref();
        connecting.cloned()
    });
    let _ = attempt.expect("an attempt").await;
}

#[tokio::test]
async fn a_burst_gets_as_many_connections_as_the_peer_has_room_for_its_streams() {
    let burst = async {
        let (listener, peer) = listen().await;
        let connections = serve(listener, 2);
        five_at_once(&pool(128), &peer).await;
        assert_eq!(connections.get(), 3);
    };
    LocalSet::new().run_until(burst).await;
}

#[tokio::test]
async fn a_burst_keeps_to_the_streams_of_one_connection() {
    let burst = async {
        let (listener, peer) = listen().await;
        let connections = serve(listener, 1000);
        five_at_once(&pool(2), &peer).await;
        assert_eq!(connections.get(), 3);
    };
    LocalSet::new().run_until(burst).await;
}

#[tokio::test]
async fn a_peer_that_takes_no_streams_is_connected_to_once() {
    let asked = async {
        let (listener, peer) = listen().await;
        let connections = serve(listener, 0);
        let refused = pool(128).share(&peer).await.expect_err("no room");
        assert_eq!(refused.fault, Fault::Overload);
        assert!(refused.unprocessed);
        assert_eq!(connections.get(), 1);
    };
    LocalSet::new().run_until(asked).await;
}

#[tokio::test]
async fn an_attempt_that_failed_for_nobody_fails_nobody_later() {
    let asked = async {
        let (listener, peer) = listen().await;
        let pool = pool(128);
        let close = async { drop(listener.accept().await.expect("a connection")) };
        tokio::join!(abandon(&pool, &peer), close);
        let connections = serve(listener, 1000);
        pool.share(&peer).await.expect("an attempt of its own");
        assert_eq!(connections.get(), 1);
    };
    LocalSet::new().run_until(asked).await;
}

#[tokio::test]
async fn an_attempt_that_failed_for_nobody_leaves_nothing() {
    let asked = async {
        let (listener, peer) = listen().await;
        let pool = pool(128);
        let close = async { drop(listener.accept().await.expect("a connection")) };
        tokio::join!(abandon(&pool, &peer), close);
        pool.sweep();
        assert!(pool.peers.borrow().is_empty());
    };
    LocalSet::new().run_until(asked).await;
}

#[tokio::test]
async fn a_connection_made_for_nobody_is_kept_as_an_idle_one() {
    let asked = async {
        let (listener, peer) = listen().await;
        let connections = serve(listener, 1000);
        let pool = pool(128);
        abandon(&pool, &peer).await;
        assert!(pool.share_open(&peer).is_some());
        assert_eq!(connections.get(), 1);
    };
    LocalSet::new().run_until(asked).await;
}

#[test]
fn the_silent_are_asked_less_and_less_often() {
    let mut silence = Silence::default();
    let mut asked = Vec::new();
    let mut turn = |number: u32, received: u64| {
        let asks;
        (silence, asks) = silence.turn(received);
        if asks {
            asked.push(number);
        }
    };
    (0..=100).for_each(|number| turn(number, 7));
    (101..=103).for_each(|number| turn(number, u64::from(number)));
    (104..=107).for_each(|number| turn(number, 103));
    assert_eq!(asked, [1, 3, 7, 15, 31, 63, 104, 106]);
}
