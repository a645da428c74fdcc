//! HTTP/1 as a sans-I/O engine (RFC 9112): bytes to heads and body pieces, heads and body pieces to
//! bytes. It refuses whatever could be read in two ways, because a message that two parsers frame
//! differently is how requests are smuggled (RFC 9112 11.2).

mod authority;
mod decode;
mod encode;
mod head;
mod parse;
#[cfg(test)]
mod tests;

pub(crate) use authority::{NO_AUTHORITY, check_authority};
pub use decode::{BodyDecoder, Decoded};
pub use encode::{BodyEncoder, write_request, write_response};
pub use head::{Reading, ReceivedRequest, ReceivedResponse, receive_request, receive_response};

/// What one message may cost. At the limit the message is refused with [`Refusal::TooLarge`] or
/// [`Refusal::TargetTooLarge`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a start line with its header section, and of a trailer section.
    pub head_bytes: usize,
    /// Header fields in a section.
    pub headers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 64 * 1024,
            headers: 256,
        }
    }
}

/// Why bytes are no message that is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// RFC 9112 forbids it, or it could be read in two ways.
    #[error("{0}")]
    Malformed(&'static str),
    /// A limit of [`Limits`] is reached.
    #[error("{0}")]
    TooLarge(&'static str),
    /// [`Limits::head_bytes`] is reached within the request line (RFC 9112 3).
    #[error("the request target is too large")]
    TargetTooLarge,
}

/// How the end of a body is known (RFC 9112 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    None,
    /// Content-Length.
    Exactly(u64),
    /// Transfer-Encoding: chunked.
    Chunked,
    /// Responses only: until the server closes.
    UntilClose,
}
