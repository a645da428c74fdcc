//! `ConfigMap` (v1), as far as it holds the certificates of a CA: a BackendTLSPolicy refers to one. A
//! ConfigMap without is left alone.

use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};

use super::Metadata;
use super::fields::Fields;
use super::tree::Node;

/// Where the certificates are (Gateway API, BackendTLSPolicy: caCertificateRefs).
pub(super) const CA_KEY: &str = "ca.crt";

/// Bytes of the certificates; more are refused.
const CA_BYTES_MAX: usize = 256 << 10;

/// The certificates of a CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMap {
    pub metadata: Metadata,
    /// PEM, as it was written.
    text: String,
    /// Never empty.
    pub roots: Vec<CertificateDer<'static>>,
}

impl ConfigMap {
    /// `data`, without what weft does not read.
    pub(super) fn to_json(&self) -> Value {
        json!({CA_KEY: self.text})
    }
}

/// Whether a document is one that is read here.
pub(super) fn holds_ca(document: &Node) -> bool {
    let data = document.get("data");
    data.is_some_and(|data| data.get(CA_KEY).is_some())
}

/// Reads `data`.
pub(super) fn decode(metadata: Metadata, document: &mut Fields<'_>) -> Option<ConfigMap> {
    document.ignore(&["binaryData", "immutable"]);
    let data = document.require("data")?;
    // What else is in it is for others.
    let field = data.mapping()?.require(CA_KEY)?;
    let text = field.string()?;
    if text.len() > CA_BYTES_MAX {
        let bytes = text.len();
        field.problem(format!("{bytes} bytes, at most {CA_BYTES_MAX} are taken"));
        return None;
    }
    let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match roots {
        Ok(roots) if roots.is_empty() => {
            field.problem("holds no certificate in PEM");
            None
        }
        Ok(roots) => {
            for (number, root) in roots.iter().enumerate() {
                if let Err(error) = RootCertStore::empty().add(root.clone()) {
                    field.problem(format!("certificate {} is no root: {error}", number + 1));
                }
            }
            Some(ConfigMap {
                metadata,
                text,
                roots,
            })
        }
        Err(error) => {
            field.problem(format!("is not PEM: {error}"));
            None
        }
    }
}
