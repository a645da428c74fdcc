//! SPIFFE IDs: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Namespace and service account of the control plane's own identity.
pub const CONTROL_PLANE_NAMESPACE: &str = "weft-system";
/// See [`CONTROL_PLANE_NAMESPACE`].
pub const CONTROL_PLANE_SERVICE_ACCOUNT: &str = "control-plane";
/// Service account, in [`CONTROL_PLANE_NAMESPACE`], of a remote CLI.
pub const OPERATOR_SERVICE_ACCOUNT: &str = "operator";

/// An identity in the mesh, in the one form that weft issues (SPIFFE-ID section 2). A clone is the
/// same one: every request carries its caller's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId(Arc<Parts>);

#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Parts {
    trust_domain: String,
    namespace: Arc<str>,
    service_account: String,
}

/// Why a text is not a SPIFFE ID of this form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a SPIFFE ID of the form spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT: {reason}"
)]
pub struct InvalidSpiffeId {
    text: String,
    reason: &'static str,
}

impl SpiffeId {
    /// Puts an ID together from its parts; each must be a valid path segment (SPIFFE-ID 2.2), the
    /// trust domain at most 255 bytes of lower-case letters, digits, dots, dashes and underscores.
    pub fn new(
        trust_domain: &str,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, InvalidSpiffeId> {
        let invalid = |reason| InvalidSpiffeId {
            text: format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"),
            reason,
        };
        if trust_domain.is_empty() || trust_domain.len() > 255 {
            return Err(invalid("the trust domain must have 1 to 255 bytes"));
        }
        let trust_domain_byte =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        if !trust_domain.bytes().all(trust_domain_byte) {
            return Err(invalid(
                "the trust domain may hold a-z, 0-9, '.', '-' and '_' only",
            ));
        }
        for segment in [namespace, service_account] {
            if !is_segment(segment) {
                return Err(invalid(
                    "a segment must have 1 to 253 bytes of letters, digits, '.', '-' and '_', and not be '.' or '..'",
                ));
            }
        }
        Ok(Self(Arc::new(Parts {
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.into(),
            service_account: service_account.to_owned(),
        })))
    }

    /// The control plane's own identity.
    pub fn control_plane(trust_domain: &str) -> Result<Self, InvalidSpiffeId> {
        Self::new(
            trust_domain,
            CONTROL_PLANE_NAMESPACE,
            CONTROL_PLANE_SERVICE_ACCOUNT,
        )
    }

    /// The part whose roots sign this identity.
    pub fn trust_domain(&self) -> &str {
        &self.0.trust_domain
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.0.namespace
    }

    /// The namespace, for whoever keeps it.
    pub fn shared_namespace(&self) -> Arc<str> {
        self.0.namespace.clone()
    }

    /// The service account.
    pub fn service_account(&self) -> &str {
        &self.0.service_account
    }
}

fn is_segment(segment: &str) -> bool {
    (1..=253).contains(&segment.len())
        && segment != "."
        && segment != ".."
        && segment
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.0.trust_domain, self.0.namespace, self.0.service_account
        )
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffeId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason| InvalidSpiffeId {
            text: text.to_owned(),
            reason,
        };
        let rest = text
            .strip_prefix("spiffe://")
            .ok_or_else(|| invalid("the scheme must be spiffe"))?;
        let parts: Vec<&str> = rest.split('/').collect();
        match parts[..] {
            [trust_domain, "ns", namespace, "sa", service_account] => {
                Self::new(trust_domain, namespace, service_account)
            }
            _ => Err(invalid("the path must be /ns/NAMESPACE/sa/SERVICE-ACCOUNT")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_it_prints() {
        let id = SpiffeId::new("weft.local", "shop", "orders").unwrap();
        assert_eq!(id.to_string(), "spiffe://weft.local/ns/shop/sa/orders");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn refuses_other_forms() {
        for text in [
            "",
            "https://weft.local/ns/a/sa/b",
            "spiffe://weft.local/ns/a/sa",
            "spiffe://weft.local/ns/a/sa/b/c",
            "spiffe://weft.local/ns/../sa/b",
            "spiffe://weft.local/ns//sa/b",
            "spiffe://Weft.Local/ns/a/sa/b",
            "spiffe:///ns/a/sa/b",
            "spiffe://weft.local/ns/a b/sa/b",
            "spiffe://weft.local/ns/a/sa/b?c",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
