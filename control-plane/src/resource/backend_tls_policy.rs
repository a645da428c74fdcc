//! `BackendTLSPolicy` (gateway.networking.k8s.io): the TLS that proxies speak to endpoints of a Service which
//! have no sidecar (GEP-1897, GEP-3155).

use serde_json::{Value, json};

use super::fields::{Field, Fields};
use super::policy_target::{self, ServiceTarget};
use super::{Metadata, names};

/// References to CA certificates; more are refused (Gateway API's limit).
const CA_REFS_MAX: usize = 8;
/// Names that a certificate may be for; more are refused (Gateway API's limit).
const SUBJECT_ALT_NAMES_MAX: usize = 5;
/// Characters of a URI; a longer one is refused (Gateway API's limit).
const URI_CHARACTERS_MAX: usize = 253;

/// How a backend proves whom it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTlsPolicy {
    pub metadata: Metadata,
    /// Never empty, each once.
    pub targets: Vec<ServiceTarget>,
    pub roots: BackendRoots,
    /// The server name asked for. The certificate must be for it where no name is listed below.
    pub hostname: String,
    /// The certificate must be for one of them.
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// Who signs the certificates of the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendRoots {
    /// Whoever the system of the proxy trusts.
    System,
    /// Certificates in objects of the policy's namespace. Never empty.
    References(Vec<CaReference>),
}

/// An object that is to hold CA certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaReference {
    pub group: String,
    pub kind: String,
    pub name: String,
}

/// A name that a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SubjectAltName {
    /// May begin with `*.`
    Hostname(String),
    Uri(String),
}

impl BackendTlsPolicy {
    pub(super) fn to_json(&self) -> Value {
        let mut validation = json!({"hostname": self.hostname});
        match &self.roots {
            BackendRoots::System => validation["wellKnownCACertificates"] = "System".into(),
            BackendRoots::References(references) => {
                let references = references.iter().map(|reference| {
                    json!({"group": reference.group, "kind": reference.kind, "name": reference.name})
                });
                validation["caCertificateRefs"] = references.collect();
            }
        }
        if !self.subject_alt_names.is_empty() {
            let names = self.subject_alt_names.iter().map(|name| match name {
                SubjectAltName::Hostname(name) => json!({"type": "Hostname", "hostname": name}),
                SubjectAltName::Uri(uri) => json!({"type": "URI", "uri": uri}),
            });
            validation["subjectAltNames"] = names.collect();
        }
        let targets = self.targets.iter().map(ServiceTarget::to_json);
        json!({"targetRefs": targets.collect::<Vec<_>>(), "validation": validation})
    }
}

/// Reads `spec`.
pub(super) fn decode(metadata: Metadata, document: &mut Fields<'_>) -> Option<BackendTlsPolicy> {
    let mut fields = document.require("spec")?.mapping()?;
    let targets = policy_target::targets(&mut fields);
    let validation = fields.require("validation");
    fields.refuse(&["options"]);
    fields.finish();
    let field = validation?;
    let mut fields = field.mapping()?;
    let roots = roots(&field, &mut fields);
    let hostname = fields
        .require("hostname")
        .and_then(|field| field.checked(names::precise_hostname));
    let names = match fields.take("subjectAltNames") {
        Some(field) => field.sequence(SUBJECT_ALT_NAMES_MAX),
        None => Vec::new(),
    };
    let subject_alt_names = names.iter().filter_map(subject_alt_name).collect();
    fields.finish();
    Some(BackendTlsPolicy {
        metadata,
        targets: targets?,
        roots: roots?,
        hostname: hostname?,
        subject_alt_names,
    })
}

fn roots(validation: &Field<'_>, fields: &mut Fields<'_>) -> Option<BackendRoots> {
    let references = fields.take("caCertificateRefs");
    let references = references.map_or_else(Vec::new, |field| field.sequence(CA_REFS_MAX));
    let well_known = fields.take("wellKnownCACertificates");
    match (well_known, references.is_empty()) {
        (Some(field), true) if field.string()? == "System" => Some(BackendRoots::System),
        (Some(field), true) => {
            field.problem("must be System");
            None
        }
        (None, false) => {
            let references: Option<Vec<_>> = references.iter().map(ca_reference).collect();
            Some(BackendRoots::References(references?))
        }
        (Some(field), false) => {
            field.problem("cannot be set beside caCertificateRefs");
            None
        }
        (None, true) => {
            validation.problem("one of caCertificateRefs, wellKnownCACertificates is needed");
            None
        }
    }
}

fn ca_reference(item: &Field<'_>) -> Option<CaReference> {
    let mut fields = item.mapping()?;
    let reference = policy_target::local_reference(&mut fields);
    fields.finish();
    let (group, kind, name) = reference?;
    Some(CaReference { group, kind, name })
}

fn subject_alt_name(item: &Field<'_>) -> Option<SubjectAltName> {
    let mut fields = item.mapping()?;
    let kind = fields.require("type")?;
    let name = match kind.string()?.as_str() {
        "Hostname" => {
            let name = fields.require("hostname")?.checked(names::hostname);
            name.map(SubjectAltName::Hostname)
        }
        "URI" => fields.require("uri")?.checked(uri).map(SubjectAltName::Uri),
        other => {
            kind.problem(format!("{other:?} is none of Hostname, URI"));
            None
        }
    };
    fields.finish();
    name
}

fn uri(uri: &str) -> Result<(), String> {
    let characters = uri.chars().count();
    if characters > URI_CHARACTERS_MAX {
        return Err(format!(
            "{characters} characters, at most {URI_CHARACTERS_MAX} are taken"
        ));
    }
    let scheme = uri.split_once(':').map_or("", |(scheme, _)| scheme);
    let first = scheme
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic());
    let others = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
    if !first || !scheme.chars().all(others) || !uri.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!("{uri:?} is no URI"));
    }
    Ok(())
}
