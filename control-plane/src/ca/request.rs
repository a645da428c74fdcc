//! What a proxy asks to have signed, and whether it may be.

use rcgen::{CertificateSigningRequestParams, SanType, SubjectPublicKeyInfo};
use rustls_pki_types::CertificateSigningRequestDer;
use weft_proto::spiffe::{InvalidSpiffeId, SpiffeId};
use x509_parser::prelude::{FromDer, X509CertificationRequest};

/// Longest CSR that is looked at; one of weft's is about 300 bytes.
pub const CSR_BYTES_MAX: usize = 16 * 1024;

/// Why a CSR isn't signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Longer than any that is honest.
    #[error("the CSR has {0} bytes, more than {CSR_BYTES_MAX}")]
    TooLong(usize),
    /// It doesn't parse, or carries what isn't for a proxy to ask for.
    #[error("the CSR is not PKCS#10 as a proxy sends it: {0}")]
    Malformed(String),
    /// Whoever sent it does not hold the key.
    #[error("the CSR's signature is not by the key in it: possession of the key is not proven")]
    Signature,
    /// Only ECDSA P-256, P-384 and Ed25519 are strong, small and quick enough.
    #[error("the CSR's key is {0}; use ECDSA P-256, P-384 or Ed25519")]
    Key(String),
    /// X509-SVID section 2.
    #[error("the CSR asks for {0} subject alternative names; it must ask for exactly one, a URI")]
    Names(usize),
    /// The one URI is no SPIFFE ID.
    #[error("the CSR asks for a name that can't be given: {0}")]
    SpiffeId(#[from] InvalidSpiffeId),
    /// The identity belongs to another trust domain.
    #[error(
        "the CSR asks for {asked}, but this control plane signs for trust domain {trust_domain}"
    )]
    TrustDomain {
        asked: SpiffeId,
        trust_domain: String,
    },
    /// The identity is the control plane's own.
    #[error("the CSR asks for {0}, which is the control plane's own identity")]
    ControlPlane(SpiffeId),
}

/// A CSR whose signature, key and name are right. Whether its sender may have the name is still to
/// be decided, by a token or by the certificate it renews.
#[derive(Debug)]
pub struct SigningRequest {
    spiffe_id: SpiffeId,
    public_key: SubjectPublicKeyInfo,
}

impl SigningRequest {
    /// Checks all that can be checked without knowing who sent it.
    pub fn check(csr: &[u8], trust_domain: &str) -> Result<Self, Refused> {
        if csr.len() > CSR_BYTES_MAX {
            return Err(Refused::TooLong(csr.len()));
        }
        let public_key = public_key(csr)?;
        let der = CertificateSigningRequestDer::from(csr);
        let parsed = CertificateSigningRequestParams::from_der(&der).map_err(|e| match e {
            rcgen::Error::InvalidCertificationRequestSignature => Refused::Signature,
            other => Refused::Malformed(other.to_string()),
        })?;
        let spiffe_id: SpiffeId = match &parsed.params.subject_alt_names[..] {
            [SanType::URI(uri)] => uri.as_str().parse()?,
            names => return Err(Refused::Names(names.len())),
        };
        if spiffe_id.trust_domain() != trust_domain {
            return Err(Refused::TrustDomain {
                asked: spiffe_id,
                trust_domain: trust_domain.to_owned(),
            });
        }
        if Ok(&spiffe_id) == SpiffeId::control_plane(trust_domain).as_ref() {
            return Err(Refused::ControlPlane(spiffe_id));
        }
        Ok(Self {
            spiffe_id,
            public_key,
        })
    }

    /// The identity asked for.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.spiffe_id
    }

    pub(super) fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.public_key
    }
}

/// The key as its own structure says what it is. The algorithm of the signature would not do: it
/// names a hash, not a curve.
fn public_key(csr: &[u8]) -> Result<SubjectPublicKeyInfo, Refused> {
    let (rest, parsed) = X509CertificationRequest::from_der(csr)
        .map_err(|error| Refused::Malformed(error.to_string()))?;
    if !rest.is_empty() {
        return Err(Refused::Malformed(format!(
            "{} bytes follow it",
            rest.len()
        )));
    }
    let info = &parsed.certification_request_info.subject_pki;
    let key = SubjectPublicKeyInfo::from_der(info.raw)
        .map_err(|_| Refused::Key(format!("of algorithm {}", info.algorithm.algorithm)))?;
    let algorithm = rcgen::PublicKeyData::algorithm(&key);
    let allowed = [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
    ];
    if allowed.contains(&algorithm) {
        Ok(key)
    } else {
        Err(Refused::Key(format!("of kind {algorithm:?}")))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    fn uri(text: &str) -> SanType {
        SanType::URI(text.try_into().unwrap())
    }

    fn csr(key: &KeyPair, names: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.serialize_request(key).unwrap().der().to_vec()
    }

    fn check(csr: &[u8], expect: Result<&str, &str>) {
        let got = SigningRequest::check(csr, "weft.local");
        let got = got.map(|request| request.spiffe_id().to_string());
        match (got, expect) {
            (Ok(id), Ok(expect)) => assert_eq!(id, expect),
            (Err(error), Err(expect)) => {
                assert!(
                    error.to_string().contains(expect),
                    "{error}, expected {expect}"
                );
            }
            (got, expect) => panic!("{got:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn names() {
        let key = KeyPair::generate().unwrap();
        let orders = "spiffe://weft.local/ns/shop/sa/orders";
        let stock = "spiffe://weft.local/ns/shop/sa/stock";
        check(&csr(&key, vec![uri(orders)]), Ok(orders));
        check(
            &csr(&key, vec![]),
            Err("asks for 0 subject alternative names"),
        );
        check(&csr(&key, vec![uri(orders), uri(stock)]), Err("asks for 2"));
        let host = SanType::DnsName("orders".try_into().unwrap());
        check(&csr(&key, vec![host]), Err("asks for 1"));
        check(
            &csr(&key, vec![uri("https://weft.local/")]),
            Err("scheme must be spiffe"),
        );
        check(
            &csr(&key, vec![uri("spiffe://evil.example/ns/shop/sa/orders")]),
            Err("signs for trust domain weft.local"),
        );
        check(
            &csr(
                &key,
                vec![uri("spiffe://weft.local/ns/weft-system/sa/control-plane")],
            ),
            Err("the control plane's own identity"),
        );
    }

    #[test]
    fn keys() {
        let orders = "spiffe://weft.local/ns/shop/sa/orders";
        for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).unwrap();
            check(&csr(&key, vec![uri(orders)]), Ok(orders));
        }
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
        check(
            &csr(&key, vec![uri(orders)]),
            Err("use ECDSA P-256, P-384 or Ed25519"),
        );
    }

    #[test]
    fn broken_requests() {
        let key = KeyPair::generate().unwrap();
        let good = csr(&key, vec![uri("spiffe://weft.local/ns/shop/sa/orders")]);
        check(&[], Err("not PKCS#10"));
        check(&vec![0; CSR_BYTES_MAX + 1], Err("more than"));
        check(&[&good[..], &[0]].concat(), Err("1 bytes follow it"));
        let mut forged = good.clone();
        let at = forged.windows(6).position(|w| w == b"orders").unwrap();
        forged[at..at + 6].copy_from_slice(b"victim");
        check(&forged, Err("possession of the key is not proven"));
    }
}
