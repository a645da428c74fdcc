//! Until when an identity is trusted, certificates that it renewed since it connected included.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::SystemTime;

use weft_proto::spiffe::SpiffeId;

/// The latest end of the certificates issued to each identity, as long as it is ahead. A stream of
/// discovery outlives the certificate that it was opened with only as long as its identity keeps
/// renewing.
#[derive(Debug, Default)]
pub struct Renewals {
    ends: Mutex<Ends>,
}

#[derive(Debug, Default)]
struct Ends {
    by_identity: HashMap<SpiffeId, SystemTime>,
    /// The size at which those that are over are swept, so that sweeping costs little each time.
    sweep_at: usize,
}

impl Renewals {
    /// Notes a certificate that was issued.
    pub fn record(&self, id: &SpiffeId, not_after: SystemTime) {
        let mut ends = self.ends.lock().expect("no code panics under this lock");
        let end = ends.by_identity.entry(id.clone()).or_insert(not_after);
        *end = (*end).max(not_after);
        if ends.by_identity.len() >= ends.sweep_at {
            let now = SystemTime::now();
            ends.by_identity.retain(|_, end| *end > now);
            ends.sweep_at = 2 * ends.by_identity.len() + 64;
        }
    }

    /// The end of the trust in a peer that showed a certificate until `not_after`.
    pub fn trusted_until(&self, id: &SpiffeId, not_after: SystemTime) -> SystemTime {
        let ends = self.ends.lock().expect("no code panics under this lock");
        let renewed = ends.by_identity.get(id).copied();
        renewed.map_or(not_after, |end| end.max(not_after))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn trust_reaches_to_the_latest_renewal() {
        let renewals = Renewals::default();
        let now = SystemTime::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        let id: SpiffeId = "spiffe://weft.local/ns/shop/sa/orders".parse().unwrap();
        let other: SpiffeId = "spiffe://weft.local/ns/shop/sa/stock".parse().unwrap();
        assert_eq!(renewals.trusted_until(&id, at(30)), at(30));
        renewals.record(&id, at(60));
        renewals.record(&id, at(50));
        assert_eq!(renewals.trusted_until(&id, at(30)), at(60));
        assert_eq!(renewals.trusted_until(&id, at(90)), at(90));
        assert_eq!(renewals.trusted_until(&other, at(30)), at(30));
    }

    #[test]
    fn what_is_over_is_swept() {
        let renewals = Renewals::default();
        let past = SystemTime::now() - Duration::from_secs(1);
        for index in 0..1000 {
            let id = format!("spiffe://weft.local/ns/shop/sa/s{index}");
            renewals.record(&id.parse().unwrap(), past);
        }
        assert!(renewals.ends.lock().unwrap().by_identity.len() < 100);
    }
}
