//! Requests that ask to speak another protocol on their connection: WebSocket and the like, between
//! any two HTTP versions (RFC 9110 7.8, RFC 8441).

use http::{HeaderName, StatusCode};

use super::terms::Alarm;
use super::upstream::Unanswered;
use super::websocket::{self, Translation};
use super::{Failure, Outcome, RequestBody, Responder, Terms, Upstream};
use crate::model::{Fault, FieldValue, Fields, RequestHead, hop};
use crate::tcp::{Relayed, relay};

/// Like [`super::exchange`], for a request with `head.upgrade`. Where the upstream agrees, both
/// sides are relayed until they end, and the deadline counts no longer. `on_hop` says that the client is another sidecar, which wants
/// to be told a switch from an ordinary answer.
pub async fn exchange_upgrade<'d>(
    head: &mut RequestHead,
    body: &mut RequestBody<'d>,
    responder: &mut Option<Responder<'d>>,
    upstream: &mut Upstream,
    on_hop: bool,
    terms: Terms<'_>,
) -> Result<(Outcome, Relayed), Failure> {
    let mut alarm = Alarm::new(terms.deadline);
    let watch = terms.watch();
    let translation = Translation::between(head, upstream);
    translation.prepare(head);
    let sent = upstream.send(head, true).await;
    // Another try may speak another version, and begins with what the client sent.
    translation.take_back(head);
    let (mut request_sink, mut answer) = sent.map_err(Failure::Unanswered)?;
    request_sink
        .flush()
        .await
        .map_err(|_| Failure::Unanswered(broken(Fault::UpstreamReset)))?;

    let mut response = loop {
        let Some(waiting) = responder.as_mut() else {
            return Err(Failure::ClientGone);
        };
        let received = tokio::select! {
            biased;
            received = answer.next_head() => received.map_err(Failure::Unanswered)?,
            () = waiting.gone() => return Err(Failure::ClientGone),
            fault = alarm.rings() => return Err(Failure::Unanswered(Unanswered::late(fault))),
        };
        if !received.status.is_informational() || received.status == StatusCode::SWITCHING_PROTOCOLS
        {
            break received;
        }
        waiting
            .informational(received)
            .await
            .map_err(|_| Failure::ClientGone)?;
    };

    let switches = response.upgrade.is_some();
    if switches && !translation.finish(&mut response) {
        return Err(Failure::Unanswered(broken(Fault::UpstreamProtocol)));
    }
    if switches && on_hop {
        hop::mark_upgraded(&mut response.headers);
    }
    if !switches
        && response.status.is_success()
        && websocket::means_switch(responder.as_ref(), on_hop)
    {
        // RFC 8441 5: a 2xx would tell this client that the switch was made.
        return Err(Failure::Unanswered(broken(Fault::UpstreamProtocol)));
    }
    let Some(client) = responder.take() else {
        return Err(Failure::ClientGone);
    };
    if let Some(change) = terms.change {
        change(&mut response);
    }
    let mut outcome = Outcome::of(&response, watch.read());
    if !switches {
        let _ = request_sink.finish(Fields::new()).await;
        super::exchange::receive_response(response, &mut answer, client, &mut outcome, &mut alarm)
            .await?;
        return Ok((outcome, Relayed::default()));
    }

    let mut client = client
        .respond(response, false)
        .map_err(|_| Failure::ClientGone)?;
    client.flush().await.map_err(|_| Failure::ClientGone)?;
    let Some(mut answer_body) = answer.body() else {
        return Err(Failure::ClientGone);
    };
    let downstream = body.tunnel().zip(client.tunnel());
    let upstream = answer_body.tunnel().zip(request_sink.tunnel());
    let Some((downstream, upstream)) = downstream.zip(upstream) else {
        return Err(Failure::ClientGone);
    };
    let relayed = relay(downstream, upstream).await;
    outcome.response_bytes = relayed.down;
    Ok((outcome, relayed))
}

fn broken(fault: Fault) -> Unanswered {
    Unanswered::late(fault)
}

/// Sets or clears a header.
pub(super) fn set(headers: &mut Fields, name: &'static str, value: Option<&str>) {
    match value.and_then(|value| FieldValue::from_text(value).ok()) {
        Some(value) => headers.set(HeaderName::from_static(name), value),
        None => drop(headers.remove(name)),
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Version};

    use super::*;
    use crate::http::{Body, Http2Upstream};
    use crate::http2::{Limits, Role};
    use crate::model::Text;
    use crate::multiplex::Multiplex;

    #[tokio::test]
    async fn a_handshake_that_failed_can_be_sent_again_as_the_client_sent_it() {
        let connection = Multiplex::new(Role::Client, Limits::default());
        let mut head = RequestHead {
            method: Method::GET,
            scheme: Some(Text::from_static("http")),
            authority: Some(Text::from_static("a.b")),
            path: Text::from_static("/"),
            version: Version::HTTP_11,
            upgrade: None,
            headers: Fields::new(),
        };
        let (_sender, stream) = connection.open(&head, |_| {}, false).expect("room");
        let mut body = RequestBody::new(Body::Http2 { stream });
        head.upgrade = Some("websocket".to_owned());
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        set(&mut head.headers, "sec-websocket-key", Some(key));
        // So that no stream can be opened.
        connection.lose("the application is gone");
        let mut upstream = Upstream::Http2(Http2Upstream {
            connection,
            hop: None,
        });
        let (client, terms) = (&mut None, Terms::default());
        let ended =
            exchange_upgrade(&mut head, &mut body, client, &mut upstream, false, terms).await;
        assert!(matches!(ended, Err(Failure::Unanswered(_))));
        let kept = head.headers.get("sec-websocket-key");
        assert!(kept.is_some_and(|kept| kept.as_bytes() == key.as_bytes()));
    }
}
