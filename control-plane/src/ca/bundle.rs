//! The trust bundle: the own root, and those of `DIR/extra-roots.pem`.
//!
//! A root is rotated by hand in three steps, without a moment in which a peer is refused: put the
//! next root into `extra-roots.pem` (every proxy trusts both from then on), exchange `ca.pem` and
//! `ca-key.pem` for the next ones with the old root in `extra-roots.pem`, and restart; once every
//! certificate of the old root has expired, empty the file. It is read again every few seconds, so
//! that only the exchange needs a restart.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use weft_proto::svid::{SharedTrustBundle, TrustBundle};

use super::{Error, file};

/// Roots in a bundle. A file with more is refused: a rotation needs two.
pub const ROOTS_MAX: usize = 8;

/// Keeps the shared trust bundle and `DIR/trust-bundle.pem` in step with the files.
#[derive(Debug)]
pub struct Bundle {
    extra_file: PathBuf,
    bundle_file: PathBuf,
    root: CertificateDer<'static>,
    trust_domain: String,
    shared: SharedTrustBundle,
}

impl Bundle {
    /// Reads the extra roots and writes `trust-bundle.pem`.
    pub fn open(
        directory: &Path,
        trust_domain: &str,
        root: CertificateDer<'static>,
    ) -> Result<Self, Error> {
        let extra_file = directory.join("extra-roots.pem");
        let bundle_file = directory.join("trust-bundle.pem");
        let bundle = load(&extra_file, trust_domain, &root)?;
        file::write(&bundle_file, encode(&bundle).as_bytes(), file::PUBLIC)?;
        Ok(Self {
            extra_file,
            bundle_file,
            root,
            trust_domain: trust_domain.to_owned(),
            shared: bundle.shared(),
        })
    }

    /// The bundle that verifiers read at each handshake.
    pub fn shared(&self) -> SharedTrustBundle {
        self.shared.clone()
    }

    /// Reads the extra roots again. True when the bundle changed; on an error the one in force
    /// stays in force.
    pub fn reload(&self) -> Result<bool, Error> {
        let next = load(&self.extra_file, &self.trust_domain, &self.root)?;
        if next.certificates() == self.shared.load().certificates() {
            return Ok(false);
        }
        file::write(&self.bundle_file, encode(&next).as_bytes(), file::PUBLIC)?;
        self.shared.store(Arc::new(next));
        Ok(true)
    }
}

fn load(
    extra_file: &Path,
    trust_domain: &str,
    root: &CertificateDer<'static>,
) -> Result<TrustBundle, Error> {
    let invalid = |reason: String| Error::Content {
        path: extra_file.to_owned(),
        reason,
        advice: "the file holds further roots as PEM certificates, and may be missing or empty",
    };
    let mut roots = vec![root.clone()];
    for extra in pem_certificates(&file::read(extra_file)?.unwrap_or_default()) {
        let extra = extra.map_err(invalid)?;
        if !roots.contains(&extra) {
            roots.push(extra);
        }
    }
    if roots.len() > ROOTS_MAX {
        return Err(invalid(format!(
            "{} roots are more than the {ROOTS_MAX} that a trust bundle may hold",
            roots.len()
        )));
    }
    TrustBundle::new(trust_domain, roots).map_err(|error| invalid(error.to_string()))
}

/// The certificates of a PEM text.
pub fn pem_certificates(
    text: &str,
) -> impl Iterator<Item = Result<CertificateDer<'static>, String>> {
    CertificateDer::pem_slice_iter(text.as_bytes())
        .map(|certificate| certificate.map_err(|error| error.to_string()))
}

fn encode(bundle: &TrustBundle) -> String {
    let certificates = bundle.certificates().iter();
    certificates.map(encode_certificate).collect()
}

/// One certificate as PEM (RFC 7468: lines of 64 characters).
pub fn encode_certificate(certificate: &CertificateDer<'_>) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in certificate.chunks(48) {
        for group in line.chunks(3) {
            let byte = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
            let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
            for position in 0..4 {
                let sextet = (bits >> (18 - 6 * position)) & 63;
                let symbol = if position <= group.len() {
                    ALPHABET[sextet as usize]
                } else {
                    b'='
                };
                text.push(char::from(symbol));
            }
        }
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pem_reads_back_whatever_the_length() {
        for length in 1..=200_u8 {
            let certificate = CertificateDer::from((0..length).collect::<Vec<u8>>());
            let text = encode_certificate(&certificate);
            let read: Vec<_> = pem_certificates(&text).collect();
            assert_eq!(read, [Ok(certificate)]);
        }
    }
}
