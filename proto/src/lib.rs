//! The wire between weft's programs.
//!
//! - [`v1alpha1`]: the gRPC services and their messages, from `proto/weft/v1alpha1/*.proto`.
//! - [`fields`]: which header fields are the proxies' own.
//! - [`spiffe`]: SPIFFE IDs as weft forms them.
//! - [`svid`]: how either end of a connection checks the other's X509-SVID.
//!
//! The wire protocol of the hop between two sidecars is described in this crate's `README.md`.

pub mod fields;
pub mod spiffe;
pub mod svid;

/// Generated from the protobuf files.
#[allow(missing_docs, clippy::all, unused_qualifications)]
pub mod v1alpha1 {
    tonic::include_proto!("weft.v1alpha1");
}
