//! Our server, and a client of another implementation.

use std::pin::Pin;
use std::task::Poll;

use futures_util::future::join_all;
use http::{Request, StatusCode, Version};
use tokio::task::spawn_local;

use super::*;
use crate::http2::Refused;
use crate::model::RequestHead;
use crate::multiplex::{Accepted, StreamReceiver, StreamSender};

/// Answers as planned.
pub(super) fn serve(
    mut io: DuplexStream,
    plans: Rc<Vec<Plan>>,
    seen: mpsc::UnboundedSender<SeenRequest>,
) {
    spawn_local(async move {
        let multiplex = Multiplex::new(Role::Server, Limits::default());
        let accept = |accepted: Accepted<'_>| {
            let head = accepted.head.take().expect("nobody took it yet");
            let stream = (accepted.receiver, accepted.sender);
            spawn_local(answer(head, stream, plans.clone(), seen.clone()));
        };
        multiplex.drive(&mut io, accept).await;
    });
}

async fn answer(
    head: Result<RequestHead, Refused>,
    (mut receiver, mut sender): (StreamReceiver, StreamSender),
    plans: Rc<Vec<Plan>>,
    requests: mpsc::UnboundedSender<SeenRequest>,
) {
    let head = head.expect("nothing is wrong");
    let at = head.path[1..].parse().expect("a number");
    let plan: &Plan = &plans[at];
    let read = async {
        let (_, seen) = read(&mut receiver).await;
        let request = SeenRequest {
            plan: at,
            method: head.method,
            authority: head.authority.expect("an authority").to_string(),
            headers: HeaderMap::from(&head.headers),
            seen,
        };
        let _ = requests.send(request);
    };
    let down = async {
        for _ in 0..plan.informational {
            let _ = sender.respond(&response(103, &HeaderMap::new()), false);
        }
        let head = response(200, &plan.answer);
        let is_whole = plan.down.is_none();
        if sender.respond(&head, is_whole).is_ok() && !is_whole {
            let _ = send(&mut sender, &plan.down).await;
        }
    };
    if plan.is_early {
        tokio::join!(read, down);
    } else {
        read.await;
        down.await;
    }
}

fn response(status: u16, headers: &HeaderMap) -> ResponseHead {
    ResponseHead {
        status: StatusCode::from_u16(status).unwrap(),
        version: Version::HTTP_2,
        upgrade: None,
        headers: Fields::from(headers),
    }
}

/// Sends all plans' requests at once, and checks what comes back.
pub(super) async fn ask_theirs(io: DuplexStream, plans: Rc<Vec<Plan>>, window: u32) {
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(window)
        .max_frame_size(16_384 + window)
        .handshake(io)
        .await
        .expect("a handshake");
    let driver = spawn_local(connection);
    let all = plans.iter().enumerate().map(|(at, plan)| {
        let client = client.clone();
        async move {
            let seen = exchange_one(client, at, plan).await;
            check_response(plan, &seen);
        }
    });
    join_all(all).await;
    drop(client);
    driver
        .await
        .expect("no panic")
        .expect("no connection error");
}

async fn exchange_one(
    client: h2::client::SendRequest<Bytes>,
    at: usize,
    plan: &Plan,
) -> SeenResponse {
    let mut head = Request::builder()
        .method(plan.method.clone())
        .uri(format!("http://a.b:80/{at}"))
        .body(())
        .unwrap();
    *head.headers_mut() = plan.headers.clone();
    let mut client = client.ready().await.expect("room");
    let is_whole = plan.up.is_none();
    let (mut response, stream) = client.send_request(head, is_whole).expect("room");
    let up = async {
        if !is_whole {
            let _ = send_h2(stream, &plan.up).await;
        }
    };
    let down = async {
        let mut informational = 0;
        let head = std::future::poll_fn(|cx| {
            while let Poll::Ready(Some(Ok(_))) = response.poll_informational(cx) {
                informational += 1;
            }
            Pin::new(&mut response).poll(cx)
        });
        let head = head.await;
        match head {
            Ok(head) => SeenResponse {
                informational,
                status: head.status().as_u16(),
                headers: head.headers().clone(),
                seen: read_h2(head.into_body()).await,
            },
            Err(error) => SeenResponse {
                informational,
                status: 0,
                headers: HeaderMap::new(),
                seen: Seen {
                    content: Vec::new(),
                    trailers: HeaderMap::new(),
                    ended: Err(error.reason().map_or(u32::MAX, u32::from)),
                },
            },
        }
    };
    tokio::join!(up, down).1
}
