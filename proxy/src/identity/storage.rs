//! What the identity keeps in the data directory: `instance`, `svid.pem` (the key and its chain in
//! one file, so that they are replaced together) and `trust-bundle.pem`.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use weft_proto::spiffe::InvalidSpiffeId;
use weft_proto::svid::{InvalidSvid, TrustBundle};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::file::{move_aside, read, write};
use super::svid::Svid;
use crate::bootstrap::Settings;

/// A PEM file that is larger is none of ours.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// Why something is no identity for this proxy.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A file can't be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file holds something else.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// No certificate, or too many.
    #[error("a chain of {0} certificates")]
    Chain(usize),
    /// The certificate does not parse.
    #[error("the certificate is not X.509: {0}")]
    Certificate(String),
    /// The certificate is somebody else's.
    #[error("the certificate is of {actual}, and not of {wanted}")]
    OtherIdentity {
        /// Whose.
        actual: String,
        /// Whose it should be.
        wanted: String,
    },
    /// The bundle is another trust domain's.
    #[error("the trust bundle is of the trust domain {actual}, and not of {expected}")]
    OtherTrustDomain {
        /// Whose.
        actual: String,
        /// Whose it should be.
        expected: String,
    },
    /// No SVID, or no bundle.
    #[error(transparent)]
    Svid(Box<InvalidSvid>),
    /// No SPIFFE ID.
    #[error(transparent)]
    SpiffeId(#[from] InvalidSpiffeId),
    /// The chain does not end in the bundle, has expired, or is not of the key.
    #[error("{0}")]
    Tls(#[from] rustls::Error),
    /// The key can't be read or made.
    #[error("{0}")]
    Key(#[from] rcgen::Error),
}

impl From<InvalidSvid> for Unusable {
    fn from(error: InvalidSvid) -> Self {
        Unusable::Svid(Box::new(error))
    }
}

/// The data directory.
#[derive(Debug)]
pub(super) struct Storage {
    directory: PathBuf,
}

impl Storage {
    /// Makes the directory, for its owner alone, if there is none.
    pub(super) fn open(directory: &Path) -> Result<Self, Unusable> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory);
        made.map_err(|error| file_error(directory, error))?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// Made at the first start.
    pub(super) fn instance(&self) -> Result<Arc<str>, Unusable> {
        let path = self.directory.join("instance");
        let content = read(&path, PEM_BYTES_MAX).map_err(|error| file_error(&path, error))?;
        let kept = content.and_then(|content| String::from_utf8(content).ok());
        let is_instance =
            |text: &&str| text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        if let Some(kept) = kept.as_deref().map(str::trim).filter(is_instance) {
            return Ok(kept.into());
        }
        let instance = random_instance();
        write(&path, instance.as_bytes()).map_err(|error| file_error(&path, error))?;
        Ok(instance)
    }

    /// Key and chain of an earlier run. What can't be read is moved aside.
    pub(super) fn load_svid(&self, provider: &CryptoProvider) -> Result<Option<Svid>, Unusable> {
        let path = self.svid_path();
        let Some(content) = read(&path, PEM_BYTES_MAX).map_err(|error| file_error(&path, error))?
        else {
            return Ok(None);
        };
        let loaded = certificates(&content)
            .map_err(|reason| Unusable::Content {
                path: path.clone(),
                reason,
            })
            .and_then(|chain| {
                Svid::new(
                    String::from_utf8_lossy(&content).into_owned(),
                    chain,
                    provider,
                )
            });
        match loaded {
            Ok(svid) => Ok(Some(svid)),
            Err(error) => {
                let _ = move_aside(&path).map_err(|error| file_error(&path, error))?;
                Err(error)
            }
        }
    }

    /// Replaces key and chain at once.
    pub(super) fn store_svid(&self, svid: &Svid) -> Result<(), Unusable> {
        let path = self.svid_path();
        let mut content = first_block(svid.key_pem());
        content.push_str(&encode(svid.chain()));
        write(&path, content.as_bytes()).map_err(|error| file_error(&path, error))
    }

    /// Keeps the bundle that the control plane pushed.
    pub(super) fn store_bundle(&self, bundle: &TrustBundle) -> Result<(), Unusable> {
        let path = self.bundle_path();
        let content = encode(bundle.certificates());
        write(&path, content.as_bytes()).map_err(|error| file_error(&path, error))
    }

    fn svid_path(&self) -> PathBuf {
        self.directory.join("svid.pem")
    }

    fn bundle_path(&self) -> PathBuf {
        self.directory.join("trust-bundle.pem")
    }
}

/// The bundle last pushed; or that of the file that was configured, where it is newer.
pub(super) fn read_bundle(
    settings: &Settings,
    storage: Option<&Storage>,
) -> Result<TrustBundle, Unusable> {
    let configured = settings.trust_bundle.as_path();
    let modified = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified());
    let pushed = storage.map(Storage::bundle_path).filter(|pushed| {
        match (modified(pushed), modified(configured)) {
            (Ok(pushed), Ok(configured)) => pushed >= configured,
            (Ok(_), Err(_)) => true,
            _ => false,
        }
    });
    if let Some(pushed) = pushed {
        match parse_bundle(&pushed, &settings.trust_domain) {
            Ok(bundle) => return Ok(bundle),
            Err(error) => {
                tracing::warn!(%error, "the stored trust bundle can't be used; taking the configured one");
                let _ = move_aside(&pushed).map_err(|error| file_error(&pushed, error))?;
            }
        }
    }
    parse_bundle(configured, &settings.trust_domain)
}

fn parse_bundle(path: &Path, trust_domain: &str) -> Result<TrustBundle, Unusable> {
    let content = read(path, PEM_BYTES_MAX).map_err(|error| file_error(path, error))?;
    let content = content.ok_or_else(|| Unusable::Content {
        path: path.to_owned(),
        reason: "there is no such file; it is a copy of trust-bundle.pem in the control plane's data directory, and --trust-bundle (WEFT_TRUST_BUNDLE) says where it is".to_owned(),
    })?;
    let roots = certificates(&content).map_err(|reason| Unusable::Content {
        path: path.to_owned(),
        reason,
    })?;
    let named = roots.first().and_then(named_trust_domain);
    let trust_domain = named.as_deref().unwrap_or(trust_domain).to_owned();
    TrustBundle::new(&trust_domain, roots).map_err(|error| Unusable::Content {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

/// A root names its trust domain as a URI without a path (X509-SVID 3.2).
fn named_trust_domain(root: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(root).ok()?;
    let names = parsed.subject_alternative_name().ok()??;
    names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::URI(uri) => {
                let domain = uri.strip_prefix("spiffe://")?;
                (!domain.is_empty() && !domain.contains('/')).then(|| domain.to_owned())
            }
            _ => None,
        })
}

/// 128 random bits in hex.
pub(super) fn random_instance() -> Arc<str> {
    format!("{:032x}", rand::random::<u128>()).into()
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err("holds no PEM certificate".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(format!("is not PEM: {error}")),
    }
}

fn encode(certificates: &[CertificateDer<'_>]) -> String {
    let mut pem = String::new();
    for certificate in certificates {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let text = STANDARD.encode(certificate);
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let (line, more) = rest.split_at(rest.len().min(64));
            pem.push_str(line);
            pem.push('\n');
            rest = more;
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

/// A key that was loaded carries its chain's text behind it.
fn first_block(pem: &str) -> String {
    let end = pem.find("-----BEGIN CERTIFICATE-----").unwrap_or(pem.len());
    pem[..end].to_owned()
}

fn file_error(path: &Path, error: io::Error) -> Unusable {
    Unusable::File {
        path: path.to_owned(),
        error,
    }
}
