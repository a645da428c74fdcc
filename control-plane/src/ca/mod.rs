//! The trust domain's certificate authority: its root, what it issues, and to whom.
//!
//! A workload is attested once by a join token ([`Token`]) and from then on by the certificate it
//! already has. What is signed is checked first ([`SigningRequest`]). The room knows neither the
//! store nor gRPC: where tokens are kept and how requests arrive is its callers' to say.

mod authority;
mod bundle;
mod file;
mod request;
mod serving;
mod token;

pub use authority::{Authority, Issued, LIFETIME_MAX, LIFETIME_MIN};
pub use bundle::{Bundle, ROOTS_MAX};
pub use file::create_directory;
pub use request::{CSR_BYTES_MAX, Refused, SigningRequest};
pub use serving::ServingIdentity;
pub use token::{TTL_MAX, Token, TokenKey, TokenRecord, TokenRefused};

use std::path::PathBuf;

/// Why the authority can't work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory or a file in it can't be used.
    #[error("can't {doing} {}: {source}; {advice}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
        advice: &'static str,
    },
    /// A file is there and says something that can't be right.
    #[error("{}: {reason}; {advice}", path.display())]
    Content {
        path: PathBuf,
        reason: String,
        advice: &'static str,
    },
    /// The cryptography library refused.
    #[error("can't {doing}: {reason}")]
    Crypto { doing: &'static str, reason: String },
    /// A lifetime outside the limits.
    #[error(
        "a certificate lifetime of {asked:?} is not possible: choose one from {LIFETIME_MIN:?} to {LIFETIME_MAX:?}"
    )]
    Lifetime { asked: std::time::Duration },
    /// The trust domain can't be part of a SPIFFE ID.
    #[error(transparent)]
    TrustDomain(#[from] weft_proto::spiffe::InvalidSpiffeId),
}

impl Error {
    fn crypto(doing: &'static str, reason: &dyn std::fmt::Display) -> Self {
        Self::Crypto {
            doing,
            reason: reason.to_string(),
        }
    }
}
