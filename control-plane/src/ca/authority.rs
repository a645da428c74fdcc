//! The root and what it signs.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use weft_proto::spiffe::SpiffeId;
use weft_proto::svid;

use super::bundle::{encode_certificate, pem_certificates};
use super::{Bundle, Error, SigningRequest, file};

/// How long the root is valid.
const ROOT_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Shortest life of a certificate: less leaves no time to renew it.
pub const LIFETIME_MIN: Duration = Duration::from_secs(30);
/// Longest life of a certificate: there is no revocation, so a stolen one must die by itself.
pub const LIFETIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// The most that a certificate is dated back, for peers whose clock is behind.
const BACKDATE_MAX: Duration = Duration::from_secs(5 * 60);

/// The trust domain's certificate authority.
pub struct Authority {
    trust_domain: String,
    issuer: Issuer<'static, KeyPair>,
    root_not_after: SystemTime,
    svid_lifetime: Duration,
    bundle: Bundle,
}

/// A signed certificate.
#[derive(Clone, Debug)]
pub struct Issued {
    pub certificate: CertificateDer<'static>,
    pub not_after: SystemTime,
}

impl Authority {
    /// Opens the authority of a data directory; the first time, creates its root.
    pub fn open(
        directory: &Path,
        trust_domain: &str,
        svid_lifetime: Duration,
    ) -> Result<Self, Error> {
        SpiffeId::control_plane(trust_domain)?;
        if !(LIFETIME_MIN..=LIFETIME_MAX).contains(&svid_lifetime) {
            return Err(Error::Lifetime {
                asked: svid_lifetime,
            });
        }
        let key = open_key(&directory.join("ca-key.pem"), &directory.join("ca.pem"))?;
        let root = open_root(&directory.join("ca.pem"), trust_domain, &key)?;
        let root_not_after = end_of(&root)?;
        let issuer = Issuer::from_ca_cert_der(&root, key)
            .map_err(|error| Error::crypto("use the root certificate", &error))?;
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            issuer,
            root_not_after,
            svid_lifetime,
            bundle: Bundle::open(directory, trust_domain, root)?,
        })
    }

    /// Whose identities it signs.
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The trust bundle of its trust domain.
    pub fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// When the root, and with it everything, expires.
    pub fn root_not_after(&self) -> SystemTime {
        self.root_not_after
    }

    /// How long what it signs is valid.
    pub fn svid_lifetime(&self) -> Duration {
        self.svid_lifetime
    }

    /// Signs what [`SigningRequest::check`] found right.
    pub fn issue(&self, request: &SigningRequest) -> Result<Issued, Error> {
        self.sign(request.public_key(), request.spiffe_id(), SystemTime::now())
    }

    pub(super) fn sign(
        &self,
        public_key: &impl PublicKeyData,
        id: &SpiffeId,
        now: SystemTime,
    ) -> Result<Issued, Error> {
        let not_after = (now + self.svid_lifetime).min(self.root_not_after);
        let uri = id
            .to_string()
            .try_into()
            .map_err(|error| Error::crypto("write the SPIFFE ID", &error))?;
        let mut params = base(now, self.svid_lifetime / 10, not_after);
        params.is_ca = IsCa::ExplicitNoCa;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(public_key, &self.issuer)
            .map_err(|error| Error::crypto("sign the certificate", &error))?;
        Ok(Issued {
            certificate: certificate.der().clone(),
            not_after,
        })
    }
}

fn base(now: SystemTime, backdate: Duration, not_after: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (now - backdate.min(BACKDATE_MAX)).into();
    params.not_after = not_after.into();
    params.distinguished_name = DistinguishedName::new();
    let mut serial: [u8; 16] = rand::random();
    // Positive and without a leading zero byte (RFC 5280 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

/// The root's key. It is written before the first certificate, so a certificate without a key means
/// that the key was lost.
fn open_key(path: &Path, root: &Path) -> Result<KeyPair, Error> {
    if let Some(text) = file::read(path)? {
        file::require_private(path)?;
        return KeyPair::from_pem(&text).map_err(|error| Error::Content {
            path: path.to_owned(),
            reason: format!("not a usable private key: {error}"),
            advice: "restore it from a backup, or start with a new data directory",
        });
    }
    if root.exists() {
        return Err(Error::Content {
            path: path.to_owned(),
            reason: format!("the key of {} is missing", root.display()),
            advice: "restore it from a backup, or start with a new data directory",
        });
    }
    let key = KeyPair::generate().map_err(|error| Error::crypto("make the root's key", &error))?;
    file::write(path, key.serialize_pem().as_bytes(), file::PRIVATE)?;
    Ok(key)
}

fn open_root(
    path: &Path,
    trust_domain: &str,
    key: &KeyPair,
) -> Result<CertificateDer<'static>, Error> {
    let Some(text) = file::read(path)? else {
        let root = create_root(trust_domain, key)?;
        file::write(path, encode_certificate(&root).as_bytes(), file::PUBLIC)?;
        return Ok(root);
    };
    let invalid = |reason: String, advice| Error::Content {
        path: path.to_owned(),
        reason,
        advice,
    };
    let root = pem_certificates(&text)
        .next()
        .unwrap_or_else(|| Err("it holds no PEM certificate".to_owned()))
        .map_err(|reason| invalid(reason, "restore it from a backup"))?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&root)
        .map_err(|error| invalid(error.to_string(), "restore it from a backup"))?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
        return Err(invalid(
            "the certificate is not of the key in ca-key.pem".to_owned(),
            "restore both from the same backup",
        ));
    }
    let expected = root_uri(trust_domain);
    let names = parsed.subject_alternative_name().ok().flatten();
    let of_domain = names.is_some_and(|names| {
        let uri = x509_parser::extensions::GeneralName::URI(&expected);
        names.value.general_names.contains(&uri)
    });
    if !of_domain {
        return Err(invalid(
            format!("the root is not of the trust domain {trust_domain}"),
            "give the --trust-domain that it was made for, or another --data-dir",
        ));
    }
    Ok(root)
}

/// A root names its trust domain, without a path (X509-SVID 3.2).
fn root_uri(trust_domain: &str) -> String {
    format!("spiffe://{trust_domain}")
}

fn create_root(trust_domain: &str, key: &KeyPair) -> Result<CertificateDer<'static>, Error> {
    let now = SystemTime::now();
    let mut params = base(now, BACKDATE_MAX, now + ROOT_LIFETIME);
    params
        .distinguished_name
        .push(DnType::CommonName, format!("weft root of {trust_domain}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let uri = root_uri(trust_domain)
        .try_into()
        .map_err(|error| Error::crypto("write the trust domain", &error))?;
    params.subject_alt_names = vec![SanType::URI(uri)];
    let root = params
        .self_signed(key)
        .map_err(|error| Error::crypto("sign the root", &error))?;
    Ok(root.der().clone())
}

fn end_of(certificate: &CertificateDer<'_>) -> Result<SystemTime, Error> {
    let seconds = svid::not_after(certificate)
        .map_err(|error| Error::crypto("read the root certificate", &error))?;
    let seconds = u64::try_from(seconds).unwrap_or(0);
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn refused(directory: &Path, trust_domain: &str, lifetime: Duration, expect: &str) {
        let error = Authority::open(directory, trust_domain, lifetime).err();
        let error = error.expect("must be refused").to_string();
        assert!(error.contains(expect), "{error}");
    }

    #[test]
    fn the_root_outlives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let first = Authority::open(path, "weft.local", DAY).unwrap();
        let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode();
        assert_eq!(mode("ca-key.pem") & 0o777, 0o600);
        let second = Authority::open(path, "weft.local", DAY).unwrap();
        let roots =
            |authority: &Authority| authority.bundle().shared().load().certificates().to_vec();
        assert_eq!(roots(&first), roots(&second));
        refused(
            path,
            "other.local",
            DAY,
            "not of the trust domain other.local",
        );
        refused(path, "Not A Domain", DAY, "trust domain may hold");
        refused(
            path,
            "weft.local",
            Duration::from_secs(29),
            "choose one from 30s",
        );
        let key = path.join("ca-key.pem");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        refused(path, "weft.local", DAY, "readable by others (mode 0640)");
        fs::remove_file(&key).unwrap();
        refused(path, "weft.local", DAY, "is missing");
    }

    #[test]
    fn an_svid_is_of_its_root_and_its_time() {
        let directory = tempfile::tempdir().unwrap();
        let lifetime = Duration::from_secs(30);
        let authority = Authority::open(directory.path(), "weft.local", lifetime).unwrap();
        let id: SpiffeId = "spiffe://weft.local/ns/shop/sa/orders".parse().unwrap();
        let now = SystemTime::now();
        let key = KeyPair::generate().unwrap();
        let issued = authority.sign(&key, &id, now).unwrap();
        assert_eq!(svid::spiffe_id(&issued.certificate), Ok(id));
        assert_eq!(issued.not_after, now + lifetime);
        let (_, parsed) = x509_parser::parse_x509_certificate(&issued.certificate).unwrap();
        let life =
            parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp();
        assert!((33..=34).contains(&life), "{life}");
        let shared = authority.bundle().shared();
        let root = shared.load().certificates()[0].clone();
        let (_, root) = x509_parser::parse_x509_certificate(&root).unwrap();
        parsed.verify_signature(Some(root.public_key())).unwrap();
        assert!(!parsed.is_ca());
    }

    #[test]
    fn a_second_root_is_trusted_without_a_restart() {
        let [ours, theirs] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let authority = Authority::open(ours.path(), "weft.local", DAY).unwrap();
        Authority::open(theirs.path(), "weft.local", DAY).unwrap();
        assert!(!authority.bundle().reload().unwrap());
        let extra = ours.path().join("extra-roots.pem");
        fs::copy(theirs.path().join("ca.pem"), &extra).unwrap();
        assert!(authority.bundle().reload().unwrap());
        let shared = authority.bundle().shared();
        assert_eq!(shared.load().certificates().len(), 2);
        let written = fs::read_to_string(ours.path().join("trust-bundle.pem")).unwrap();
        assert_eq!(written.matches("BEGIN CERTIFICATE").count(), 2);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        fs::write(&extra, broken).unwrap();
        assert!(authority.bundle().reload().is_err());
        assert_eq!(shared.load().certificates().len(), 2);
    }
}
