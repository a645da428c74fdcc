//! What two applications speak with each other.

use std::fmt;

/// An application protocol, as far as the mesh tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.0 or HTTP/1.1 in the clear.
    Http1,
    /// HTTP/2 in the clear, with prior knowledge (gRPC among it).
    Http2,
    /// The application's own TLS, passed through as it is.
    Tls,
    /// Anything else: opaque bytes, in which the server may speak first.
    Tcp,
}

impl Protocol {
    /// Whether requests are seen in it, and not bytes alone.
    pub fn is_http(self) -> bool {
        matches!(self, Protocol::Http1 | Protocol::Http2)
    }

    /// The word for it on the hop, in metrics and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Http1 => "http/1.1",
            Protocol::Http2 => "h2",
            Protocol::Tls => "tls",
            Protocol::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
