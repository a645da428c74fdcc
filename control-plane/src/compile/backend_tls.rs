//! The TLS that proxies speak to endpoints without a sidecar, as a BackendTLSPolicy says.

use rustls_pki_types::CertificateDer;

use super::{BackendTls, Catalog, Protocol};
use crate::resource::{BackendRoots, BackendTlsPolicy, Service, ServicePort};

/// Why CA certificates can't be had, in the words of the `ResolvedRefs` condition.
pub(super) struct CaProblem {
    pub reason: &'static str,
    pub message: String,
}

/// The roots that a policy names, as far as they are there, and what is wrong with the other references.
pub(super) fn roots(
    catalog: &Catalog,
    policy: &BackendTlsPolicy,
) -> (Vec<CertificateDer<'static>>, Vec<CaProblem>) {
    let (mut roots, mut problems) = (Vec::new(), Vec::new());
    let BackendRoots::References(references) = &policy.roots else {
        return (roots, problems);
    };
    let namespace = &policy.metadata.namespace;
    for reference in references {
        if (reference.group.as_str(), reference.kind.as_str()) != ("", "ConfigMap") {
            let kind = format!("{}/{}", reference.group, reference.kind);
            problems.push(CaProblem {
                reason: "InvalidKind",
                message: format!("CA certificates can't be in a {kind}, only in a ConfigMap"),
            });
            continue;
        }
        match catalog.config_map(namespace, &reference.name) {
            Some(map) => roots.extend(map.roots.iter().cloned()),
            None => problems.push(CaProblem {
                reason: "InvalidCACertificateRef",
                message: format!(
                    "there is no ConfigMap {namespace}/{} with ca.crt",
                    reference.name
                ),
            }),
        }
    }
    (roots, problems)
}

/// What the policy in force on a port of a service asks for.
pub(super) fn compile(catalog: &Catalog, service: &Service, port: u16) -> Option<BackendTls> {
    let policy = catalog.backend_tls_policy(service, port)?;
    let (roots, problems) = roots(catalog, policy);
    let metadata = &policy.metadata;
    let is_system = policy.roots == BackendRoots::System;
    let problems = problems.iter().map(|problem| problem.message.as_str());
    let invalid = (roots.is_empty() && !is_system).then(|| problems.collect::<Vec<_>>().join("; "));
    Some(BackendTls {
        policy: format!("BackendTLSPolicy/{}/{}", metadata.namespace, metadata.name),
        hostname: policy.hostname.clone(),
        roots,
        subject_alt_names: policy.subject_alt_names.clone(),
        invalid,
    })
}

/// What clients speak to a port, where its document says it. On a port that asks for TLS a policy has the
/// proxies speak it, and then clients speak whatever they like.
pub(super) fn spoken(catalog: &Catalog, service: &Service, port: &ServicePort) -> Option<Protocol> {
    let named = Protocol::of(port.app_protocol.as_ref());
    let has_policy = || catalog.backend_tls_policy(service, port.port).is_some();
    named.filter(|protocol| *protocol != Protocol::Tls || !has_policy())
}
