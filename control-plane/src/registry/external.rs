//! The addresses of external host names, and when to ask DNS for them again. Pure: the time is
//! handed in, the asking is [`super::Resolver`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Answer;

/// Host names that are resolved at a time. A service with a further one has no endpoints.
pub const HOSTS_MAX: usize = 4096;
/// A name is not asked for again before this, whatever its TTL.
const REFRESH_MIN: Duration = Duration::from_secs(2);
/// A name is asked for again after this, whatever its TTL.
const REFRESH_MAX: Duration = Duration::from_secs(300);
/// Addresses that DNS doesn't confirm any more are used for so long after their TTL: a failing
/// resolver should not take down what it once resolved.
const STALE_MAX: Duration = Duration::from_secs(3600);

/// What is known of a host name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolution<'a> {
    /// DNS has not answered yet.
    Pending,
    /// These; none when it doesn't exist or could not be resolved for too long.
    Known(&'a BTreeSet<IpAddr>),
}

#[derive(Clone, Debug)]
struct Host {
    addresses: BTreeSet<IpAddr>,
    answered: bool,
    /// DNS is asked and has not answered.
    asked: bool,
    refresh_at: Instant,
    usable_until: Instant,
}

/// Every external host name that somebody subscribes to.
#[derive(Clone, Debug, Default)]
pub struct ExternalNames {
    hosts: BTreeMap<String, Host>,
}

impl ExternalNames {
    /// What is known of `host`.
    pub fn get(&self, host: &str) -> Resolution<'_> {
        match self.hosts.get(host) {
            Some(found) if found.answered => Resolution::Known(&found.addresses),
            _ => Resolution::Pending,
        }
    }

    /// Makes the wanted names the ones that are resolved: new ones are due at once, others are
    /// forgotten. Returns those that are due; each is then not due again until its answer is
    /// recorded.
    pub fn due(&mut self, wanted: &BTreeSet<String>, now: Instant) -> Vec<String> {
        self.hosts.retain(|host, _| wanted.contains(host));
        for host in wanted {
            if self.hosts.len() < HOSTS_MAX && !self.hosts.contains_key(host) {
                let fresh = Host {
                    addresses: BTreeSet::new(),
                    answered: false,
                    asked: false,
                    refresh_at: now,
                    usable_until: now,
                };
                self.hosts.insert(host.clone(), fresh);
            }
        }
        let mut due = Vec::new();
        for (name, host) in &mut self.hosts {
            if host.refresh_at <= now && !host.asked {
                host.asked = true;
                due.push(name.clone());
            }
        }
        due
    }

    /// Records what DNS answered. True when the addresses changed, or were not known before.
    pub fn record(&mut self, name: &str, answer: Answer, now: Instant) -> bool {
        let Some(host) = self.hosts.get_mut(name) else {
            return false;
        };
        host.asked = false;
        let before = host.answered.then(|| host.addresses.clone());
        match answer {
            Answer::Addresses { addresses, ttl } => {
                let ttl = ttl.clamp(REFRESH_MIN, REFRESH_MAX);
                host.addresses = addresses;
                host.refresh_at = now + ttl;
                host.usable_until = now + ttl + STALE_MAX;
            }
            Answer::Failed => {
                host.refresh_at = now + REFRESH_MIN;
                if host.usable_until <= now {
                    host.addresses.clear();
                }
            }
        }
        host.answered = true;
        before.as_ref() != Some(&host.addresses)
    }
}

#[cfg(test)]
impl ExternalNames {
    /// `host` as DNS answered it, for tests of what is made of the addresses; when they were asked
    /// for doesn't matter there.
    pub(crate) fn resolved(host: &str, addresses: &[&str]) -> Self {
        let now = Instant::now();
        let mut names = Self::default();
        names.due(&[host.to_owned()].into(), now);
        let answer = Answer::Addresses {
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            ttl: REFRESH_MIN,
        };
        names.record(host, answer, now);
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn addresses(list: &[&str], ttl: u64) -> Answer {
        Answer::Addresses {
            addresses: list.iter().map(|ip| ip.parse().unwrap()).collect(),
            ttl: Duration::from_secs(ttl),
        }
    }

    fn known(names: &ExternalNames, host: &str) -> Option<Vec<String>> {
        match names.get(host) {
            Resolution::Pending => None,
            Resolution::Known(addresses) => {
                Some(addresses.iter().map(ToString::to_string).collect())
            }
        }
    }

    #[test]
    fn follows_ttls_within_bounds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut names = ExternalNames::default();
        let both = wanted(&["a.example", "b.example"]);
        assert_eq!(names.due(&both, start), ["a.example", "b.example"]);
        assert_eq!(known(&names, "a.example"), None);
        assert!(names.due(&both, at(60)).is_empty(), "asked already");
        assert!(names.record("a.example", addresses(&["192.0.2.1"], 10), start));
        assert!(names.record("b.example", addresses(&["192.0.2.2"], 100_000), start));
        assert!(!names.record("a.example", addresses(&["192.0.2.1"], 10), start));
        assert_eq!(names.due(&both, at(9)), Vec::<String>::new());
        assert_eq!(names.due(&both, at(10)), ["a.example"]);
        assert_eq!(names.due(&both, at(300)), ["b.example"]);
        assert!(!names.record("a.example", Answer::Failed, at(300)));
        assert_eq!(names.due(&both, at(302)), ["a.example"]);
        assert!(names.due(&wanted(&[]), at(301)).is_empty());
        assert_eq!(known(&names, "a.example"), None);
    }

    #[test]
    fn keeps_the_last_good_for_a_bounded_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut names = ExternalNames::default();
        names.due(&wanted(&["a.example"]), start);
        names.record("a.example", addresses(&["192.0.2.1"], 10), start);
        assert!(!names.record("a.example", Answer::Failed, at(10)));
        assert_eq!(known(&names, "a.example").unwrap(), ["192.0.2.1"]);
        assert!(names.record("a.example", Answer::Failed, at(3610)));
        assert_eq!(known(&names, "a.example").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_name_that_never_resolved_is_known_to_have_nothing() {
        let start = Instant::now();
        let mut names = ExternalNames::default();
        names.due(&wanted(&["a.example"]), start);
        assert!(names.record("a.example", Answer::Failed, start));
        assert_eq!(known(&names, "a.example").unwrap(), Vec::<String>::new());
    }
}
