//! HTTP/2 (RFC 9113): settings and limits of both roles, and the way between HTTP/2's heads and the
//! heads that the rest of the proxy speaks.

mod head;

pub use head::{receive_request, receive_response, send_request, send_response, send_tunnel};

/// Limits of one HTTP/2 connection; what arrives beyond one is answered as RFC 9113 says.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Streams that a peer may have open; one more is refused with REFUSED_STREAM.
    pub streams: u32,
    /// Bytes of a decoded header list; a larger one is answered with 431 or reset.
    pub header_list_bytes: u32,
    /// Bytes that a peer may send on a stream before the other side has taken them.
    pub stream_window: u32,
    /// The same for the whole connection; the bound of what it can make us hold.
    pub connection_window: u32,
    /// Bytes of a stream that wait for the peer's window; the writer waits beyond.
    pub send_buffer_bytes: usize,
    /// Streams that a peer opened and reset before we looked at them (rapid reset,
    /// CVE-2023-44487); one more ends the connection with ENHANCE_YOUR_CALM.
    pub pending_resets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 1024,
            header_list_bytes: 64 * 1024,
            stream_window: 256 * 1024,
            connection_window: 32 * 1024 * 1024,
            send_buffer_bytes: 64 * 1024,
            pending_resets: 100,
        }
    }
}

impl Limits {
    /// For the role that accepts streams.
    pub fn server(&self) -> h2::server::Builder {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(self.streams)
            .max_header_list_size(self.header_list_bytes)
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_send_buffer_size(self.send_buffer_bytes)
            .max_pending_accept_reset_streams(self.pending_resets)
            .enable_connect_protocol();
        builder
    }

    /// For the role that opens streams.
    pub fn client(&self) -> h2::client::Builder {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(self.streams as usize)
            .max_header_list_size(self.header_list_bytes)
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_send_buffer_size(self.send_buffer_bytes);
        builder
    }
}
