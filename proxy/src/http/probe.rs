//! Requests that the proxy makes by itself.

use bytes::{Bytes, BytesMut};
use http::StatusCode;

use super::exchange::{fault_of, grpc_status};
use super::{Piece, Unanswered, Upstream};
use crate::model::{Fault, RequestHead};

/// Bytes of an answer that are looked at; the rest is not waited for.
const ANSWER_BYTES_MAX: usize = 4096;

/// What was answered.
#[derive(Debug)]
pub struct Answered {
    pub status: StatusCode,
    pub grpc_status: Option<u16>,
    /// Set when a sidecar made the answer.
    pub fault: Option<Fault>,
    /// As much of it as is looked at.
    pub body: Bytes,
}

/// Sends a request with a body that is there, and reads its answer.
pub async fn probe(
    head: &mut RequestHead,
    body: Bytes,
    upstream: &mut Upstream,
) -> Result<Answered, Unanswered> {
    let (mut sink, mut answer) = upstream.send(head, body.is_empty()).await?;
    // An upstream that takes no more of it says why in its answer, or ends.
    if !body.is_empty() && sink.data(body).await.is_ok() {
        let _ = sink.finish(crate::model::Fields::new()).await;
    }
    let _ = sink.flush().await;
    let head = loop {
        let head = answer.next_head().await?;
        if !head.status.is_informational() {
            break head;
        }
    };
    let mut answered = Answered {
        status: head.status,
        grpc_status: grpc_status(&head.headers),
        fault: fault_of(&head.headers),
        body: Bytes::new(),
    };
    let lost = || Unanswered::late(Fault::UpstreamReset);
    let mut body = answer.body().ok_or_else(lost)?;
    let mut read = BytesMut::new();
    while read.len() < ANSWER_BYTES_MAX {
        match body.next().await.map_err(|_| lost())? {
            Piece::Data(data) => read.extend_from_slice(&data),
            Piece::End(trailers) => {
                answered.grpc_status = grpc_status(&trailers).or(answered.grpc_status);
                break;
            }
        }
    }
    read.truncate(ANSWER_BYTES_MAX);
    answered.body = read.freeze();
    Ok(answered)
}
