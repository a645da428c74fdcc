//! The relay between two streams.

use std::collections::VecDeque;

use futures_util::FutureExt;

use super::stream::DIRECT_READ;
use super::{Receiver, Sender, StreamError, bulk};

/// Bytes that are gathered for one write; what a direction holds at most, with a piece that was larger.
const TOGETHER_MAX: usize = DIRECT_READ;

/// What a relay carried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Relayed {
    /// Bytes from the downstream to the upstream.
    pub up: u64,
    /// Bytes from the upstream to the downstream.
    pub down: u64,
    /// Whether one side ended with a reset.
    pub reset: bool,
}

/// Copies both ways until both directions have ended. When one side is reset, the other is reset
/// too, at once.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` would keep its arguments beside what they are moved to, in every idle connection"
)]
pub fn relay<'a>(
    (mut down_in, mut down_out): (Receiver<'a>, Sender<'a>),
    (mut up_in, mut up_out): (Receiver<'a>, Sender<'a>),
) -> impl Future<Output = Relayed> {
    async move {
        let mut relayed = Relayed::default();
        let ended = {
            let Relayed { up, down, .. } = &mut relayed;
            let there = copy(&mut down_in, &mut up_out, up);
            let back = copy(&mut up_in, &mut down_out, down);
            tokio::try_join!(there, back)
        };
        if ended.is_err() {
            relayed.reset = true;
            down_out.reset();
            up_out.reset();
        }
        relayed
    }
}

async fn copy(
    from: &mut Receiver<'_>,
    to: &mut Sender<'_>,
    count: &mut u64,
) -> Result<(), StreamError> {
    if let (Receiver::Tcp(from), Sender::Tcp(to)) = (&mut *from, &mut *to)
        && from.socket().is_some()
        && to.socket().is_some()
    {
        // Boxed, because a stream of HTTP/2 would carry its room for nothing.
        return Ok(Box::pin(bulk::copy(from, to, count)).await?);
    }
    let mut pieces = VecDeque::new();
    let mut next = from.next().await;
    loop {
        // What came together is sent together, and before whatever ended it.
        let mut bytes = 0;
        let ended = loop {
            match next {
                Ok(Some(data)) => {
                    bytes += data.len();
                    pieces.push_back(data);
                }
                Ok(None) => break Some(Ok(())),
                Err(error) => break Some(Err(error)),
            }
            if bytes >= TOGETHER_MAX {
                break None;
            }
            match from.next().now_or_never() {
                Some(another) => next = another,
                None => break None,
            }
        };
        *count += bytes as u64;
        to.send(&mut pieces).await?;
        match ended {
            Some(Ok(())) => return to.finish().await,
            Some(Err(error)) => return Err(error),
            None => next = from.next().await,
        }
    }
}
