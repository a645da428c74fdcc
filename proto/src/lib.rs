//! The wire between weft's programs.
//!
//! - [`v1alpha1`]: the gRPC services and their messages, from `proto/weft/v1alpha1/*.proto`.
//! - [`ratelimit`]: what rate limit servers are asked.
//! - [`fields`]: which header fields are the proxies' own.
//! - [`spiffe`]: SPIFFE IDs as weft forms them.
//! - [`svid`]: how either end of a connection checks the other's X509-SVID.
//!
//! The wire protocol of the hop between two sidecars is described in this crate's `README.md`.

pub mod fields;
pub mod spiffe;
pub mod svid;

/// The part of Envoy's rate limit protocol that weft speaks, generated from its protobuf file.
#[allow(missing_docs, clippy::all, unused_qualifications)]
pub mod ratelimit {
    tonic::include_proto!("envoy.service.ratelimit.v3");
}

/// Generated from the protobuf files.
#[allow(missing_docs, clippy::all, unused_qualifications)]
pub mod v1alpha1 {
    tonic::include_proto!("weft.v1alpha1");
}
