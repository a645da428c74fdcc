//! The relay between two streams.

use super::{Receiver, Sender, StreamError, bulk};

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
pub async fn relay(
    downstream: (Receiver<'_>, Sender<'_>),
    upstream: (Receiver<'_>, Sender<'_>),
) -> Relayed {
    let mut relayed = Relayed::default();
    let (mut down_in, mut down_out) = downstream;
    let (mut up_in, mut up_out) = upstream;
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

async fn copy(
    from: &mut Receiver<'_>,
    to: &mut Sender<'_>,
    count: &mut u64,
) -> Result<(), StreamError> {
    if let (Receiver::Tcp(from), Sender::Tcp(to)) = (&mut *from, &mut *to) {
        return Ok(bulk::copy(from, to, count).await?);
    }
    while let Some(data) = from.next().await? {
        *count += data.len() as u64;
        to.send(data).await?;
    }
    to.finish().await
}
