//! What the control plane knows, asked for by name at first use and kept up to date by its pushes.
//!
//! `client` holds the stream, `decode` turns what comes over it into the model's types, `publish` puts
//! those in force, `held` has them as they came, `persist` keeps them over a restart, `ports` sees whether the
//! application listens, `questions` has the workers answer what people ask.

mod client;
mod decode;
mod dump;
mod handle;
mod held;
mod listeners;
mod names;
mod persist;
mod ports;
mod publish;
mod questions;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::bootstrap::Settings;
use crate::identity::Identity;

pub use decode::{Decoded, Rejection, decode, decode_change};
pub use handle::{Handle, Unavailable};
pub use ports::{ApplicationPorts, LatestPort};
pub use publish::{Applied, Resources};
pub use questions::{About, QUESTIONS_MAX, Question};

/// Everything of discovery that takes time; runs until it is dropped.
pub async fn run(handle: Handle, identity: Identity, settings: Arc<Settings>) {
    let ports = handle.ports();
    tokio::join!(
        Box::pin(client::run(&handle, &identity, &settings)),
        ports::run(&ports, &handle),
        publish::sweep(&handle),
        persist::run(&handle),
    );
}
