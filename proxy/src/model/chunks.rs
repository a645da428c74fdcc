//! Where small copies live.

use bytes::{Bytes, BytesMut};

/// Copies, one behind the other in chunks that their slices share, so that there is one allocation
/// for many of them. A chunk whose slices are all gone is used again.
#[derive(Debug)]
pub(crate) struct Chunks {
    current: BytesMut,
    chunk_bytes: usize,
}

impl Chunks {
    pub fn new(chunk_bytes: usize) -> Self {
        Self {
            current: BytesMut::new(),
            chunk_bytes,
        }
    }

    /// Copies `octets`. What is larger than a chunk gets an allocation of its own, so a slice never
    /// holds more in memory than the larger of a chunk and itself.
    pub fn copy(&mut self, octets: &[u8]) -> Bytes {
        if octets.is_empty() {
            return Bytes::new();
        }
        if octets.len() > self.chunk_bytes {
            return Bytes::copy_from_slice(octets);
        }
        if self.current.capacity() < octets.len() && !self.current.try_reclaim(octets.len()) {
            self.current = BytesMut::with_capacity(self.chunk_bytes);
        }
        self.current.extend_from_slice(octets);
        self.current.split().freeze()
    }
}
