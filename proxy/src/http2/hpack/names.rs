//! Where decoded names live.

use http::HeaderName;

use super::lookup::hash;
use super::{Malformed, Name};
use crate::model::Kinds;

/// Places for names that came as literals; what an idle connection keeps is 32 names at most.
const NAMES: usize = 32;
/// Octets of the longest name that is remembered.
const NAME_MAX: usize = 64;

/// Names that the `http` crate doesn't know and that come all the time. A clone of one that is there from the start counts
/// nothing; one of a name that was read counts its holders, for any threads.
static USUAL: [HeaderName; 12] = [
    HeaderName::from_static("weft-hop-stream"),
    HeaderName::from_static("weft-hop-timeout"),
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("grpc-timeout"),
    HeaderName::from_static("grpc-encoding"),
    HeaderName::from_static("grpc-accept-encoding"),
    HeaderName::from_static("grpc-status"),
    HeaderName::from_static("grpc-message"),
    HeaderName::from_static("x-request-id"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-proto"),
];

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
    let usual = USUAL.iter().find(|name| name.as_str().as_bytes() == octets);
    if let Some(name) = usual {
        return Ok(name.clone());
    }
    let malformed = Malformed("a field name that is no lowercase token");
    // The `http` crate takes a quotation mark for a token's character, RFC 9110 5.6.2 does not.
    if octets.contains(&b'"') {
        return Err(malformed);
    }
    HeaderName::from_lowercase(octets).map_err(|_| malformed)
}
