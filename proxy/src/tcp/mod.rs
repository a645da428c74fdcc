//! Opaque bytes: the two directions of a stream, whatever carries them, and the relay between two
//! streams. Half-close and reset of one side become half-close and reset of the other.

mod bulk;
mod first_bytes;
mod io;
mod read_ahead;
mod relay;
mod stream;

pub use first_bytes::{Detected, FirstBytes, client_first, either_first};
pub use io::TlsStream;
pub use read_ahead::ReadAhead;
pub use relay::{Relayed, relay};
pub use stream::{Reader, Receiver, Sender, StreamError, Writer, split, split_tls};
