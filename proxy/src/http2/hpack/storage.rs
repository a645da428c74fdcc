//! Where decoded names and values live.

use bytes::{Bytes, BytesMut};
use http::HeaderName;

use super::lookup::hash;
use super::{Malformed, Name};
use crate::model::Kinds;

/// Values, one behind the other in chunks that their slices share, so that there is one allocation
/// for many of them. A chunk whose slices are all gone is used again.
#[derive(Debug)]
pub(super) struct Chunks {
    current: BytesMut,
    chunk_bytes: usize,
}

impl Chunks {
    pub(super) fn new(chunk_bytes: usize) -> Self {
        Self {
            current: BytesMut::new(),
            chunk_bytes,
        }
    }

    /// Copies `octets`. What is larger than a chunk gets an allocation of its own, so a slice never
    /// holds more in memory than the larger of a chunk and itself.
    pub(super) fn copy(&mut self, octets: &[u8]) -> Bytes {
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

/// Places for names that came as literals; what an idle connection keeps is 32 names at most.
const NAMES: usize = 32;
/// Octets of the longest name that is remembered.
const NAME_MAX: usize = 64;

/// Names that came as literals lately, so that one that comes with each message is made once.
#[derive(Debug, Default)]
pub(super) struct Names([Option<(HeaderName, Kinds)>; NAMES]);

impl Names {
    /// The name that `octets` are (RFC 9113 8.2.1, 8.3).
    pub(super) fn name(&mut self, octets: &[u8]) -> Result<Name, Malformed> {
        if octets.first() == Some(&b':') {
            return pseudo(octets);
        }
        if octets.len() > NAME_MAX {
            return regular(octets).map(Name::regular);
        }
        let slot = &mut self.0[hash(0, octets) as usize % NAMES];
        if let Some((known, kind)) = slot
            && known.as_str().as_bytes() == octets
        {
            return Ok(Name::Regular(known.clone(), *kind));
        }
        let name = regular(octets)?;
        let kind = Kinds::of(name.as_str());
        *slot = Some((name.clone(), kind));
        Ok(Name::Regular(name, kind))
    }
}

fn pseudo(octets: &[u8]) -> Result<Name, Malformed> {
    match octets {
        b":method" => Ok(Name::Method),
        b":scheme" => Ok(Name::Scheme),
        b":authority" => Ok(Name::Authority),
        b":path" => Ok(Name::Path),
        b":protocol" => Ok(Name::Protocol),
        b":status" => Ok(Name::Status),
        _ => Err(Malformed("an unknown pseudo-header field")),
    }
}

fn regular(octets: &[u8]) -> Result<HeaderName, Malformed> {
    let malformed = Malformed("a field name that is no lowercase token");
    // The `http` crate takes a quotation mark for a token's character, RFC 9110 5.6.2 does not.
    if octets.contains(&b'"') {
        return Err(malformed);
    }
    HeaderName::from_lowercase(octets).map_err(|_| malformed)
}
