//! Our client, and a server of another implementation.

use futures_util::future::join_all;
use http::{Request, Response, Version};
use tokio::task::spawn_local;

use super::*;
use crate::model::{RequestHead, Text};

/// Sends all plans' requests at once, and checks what comes back.
pub(super) async fn ask(mut io: DuplexStream, plans: Rc<Vec<Plan>>, limits: Limits) {
    let multiplex = Multiplex::new(Role::Client, limits);
    let driver = multiplex.clone();
    let driver = spawn_local(async move { driver.drive(&mut io, |_| panic!("a push")).await });
    let all = plans.iter().enumerate().map(|(at, plan)| {
        let multiplex = multiplex.clone();
        async move {
            let seen = exchange_one(&multiplex, at, plan).await;
            check_response(plan, &seen);
        }
    });
    join_all(all).await;
    multiplex.ping().await.expect("the server is there");
    multiplex.go_away();
    drop(multiplex);
    let ended = driver.await.expect("no panic");
    assert!(
        ended.is_none_or(|ended| ended.code == ErrorCode::INTERNAL_ERROR),
        "{ended:?}"
    );
}

async fn exchange_one(multiplex: &Rc<Multiplex>, at: usize, plan: &Plan) -> SeenResponse {
    let head = RequestHead {
        method: plan.method.clone(),
        scheme: Some(Text::from_static("http")),
        authority: Some(Text::from_static("a.b:80")),
        path: Text::try_from(format!("/{at}").as_str()).unwrap(),
        version: Version::HTTP_2,
        upgrade: None,
        headers: Fields::from(&plan.headers),
    };
    let is_whole = plan.up.is_none();
    let (mut sender, mut receiver) = multiplex.open(&head, |_| {}, is_whole).expect("room");
    let up = async {
        if !is_whole {
            let _ = send(&mut sender, &plan.up).await;
        }
    };
    let ((), (mut heads, seen)) = tokio::join!(up, read(&mut receiver));
    // A reset may overtake the head that was to follow an informational one.
    let last = heads.pop_if(|head| !head.status.is_informational());
    SeenResponse {
        informational: heads.len() as u8,
        status: last.as_ref().map_or(0, |head| head.status.as_u16()),
        headers: last
            .map(|head| HeaderMap::from(&head.headers))
            .unwrap_or_default(),
        seen,
    }
}

/// A server that answers as planned.
pub(super) fn serve_theirs(
    io: DuplexStream,
    plans: Rc<Vec<Plan>>,
    seen: mpsc::UnboundedSender<SeenRequest>,
) {
    spawn_local(async move {
        let mut connection = h2::server::handshake(io).await.expect("a handshake");
        while let Some(Ok((request, respond))) = connection.accept().await {
            spawn_local(answer(request, respond, plans.clone(), seen.clone()));
        }
    });
}

async fn answer(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    plans: Rc<Vec<Plan>>,
    seen: mpsc::UnboundedSender<SeenRequest>,
) {
    let (head, stream) = request.into_parts();
    let at = head.uri.path()[1..].parse().expect("a number");
    let plan: &Plan = &plans[at];
    let read = async {
        let request = SeenRequest {
            plan: at,
            method: head.method,
            authority: head.uri.authority().expect("an authority").to_string(),
            headers: head.headers,
            seen: read_h2(stream).await,
        };
        let _ = seen.send(request);
    };
    let down = async {
        for _ in 0..plan.informational {
            let head = Response::builder().status(103).body(()).unwrap();
            let _ = respond.send_informational(head);
        }
        let mut head = Response::new(());
        *head.headers_mut() = plan.answer.clone();
        if let Ok(stream) = respond.send_response(head, plan.down.is_none())
            && !plan.down.is_none()
        {
            let _ = send_h2(stream, &plan.down).await;
        }
    };
    if plan.is_early {
        tokio::join!(read, down);
    } else {
        read.await;
        down.await;
    }
}
