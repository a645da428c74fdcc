//! Whether a caller may reach this workload (pure).

use weft_proto::spiffe::SpiffeId;

use crate::model::Fault;

/// What a workload lets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Sidecars, and plaintext from what has none.
    #[default]
    Permissive,
    /// Sidecars only.
    Strict,
}

/// The permission to forward: only this function makes one.
#[derive(Debug)]
pub struct Authorized {
    peer: Option<SpiffeId>,
}

impl Authorized {
    /// Who was let in; nobody known for plaintext.
    pub fn peer(&self) -> Option<&SpiffeId> {
        self.peer.as_ref()
    }
}

/// Decides on a caller whose identity, if it has one, was proven by its handshake.
pub fn decide(peer: Option<&SpiffeId>, policy: Policy) -> Result<Authorized, Fault> {
    match (peer, policy) {
        (None, Policy::Strict) => Err(Fault::NotAuthorized),
        (peer, _) => Ok(Authorized {
            peer: peer.cloned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        let check = |peer: Option<&SpiffeId>, policy: Policy, allowed: bool| {
            assert_eq!(decide(peer, policy).is_ok(), allowed, "{peer:?} {policy:?}");
        };
        let peer = SpiffeId::new("weft.local", "shop", "web").unwrap();
        check(Some(&peer), Policy::Strict, true);
        check(Some(&peer), Policy::Permissive, true);
        check(None, Policy::Permissive, true);
        check(None, Policy::Strict, false);
    }
}
