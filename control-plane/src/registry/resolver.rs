//! Asks DNS.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;

/// How long one question may take, over all of the resolver's tries.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);
/// How long "there is no such name" is believed where DNS doesn't say it.
const NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// What DNS said of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It resolves to these, none when the name doesn't exist.
    Addresses {
        addresses: BTreeSet<IpAddr>,
        ttl: Duration,
    },
    /// No answer, or one that means nothing.
    Failed,
}

/// The host's resolvers.
pub struct Resolver {
    inner: TokioResolver,
}

impl Resolver {
    /// Reads the host's configuration (`/etc/resolv.conf`, `/etc/hosts`).
    pub fn from_system() -> Result<Self, String> {
        let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // When to ask again is `ExternalNames`' to say, from the TTLs; a second cache would hide them.
        builder.options_mut().cache_size = 0;
        let inner = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { inner })
    }

    /// Looks up the addresses of both families.
    pub async fn resolve(&self, host: &str) -> Answer {
        let absolute = format!("{}.", host.trim_end_matches('.'));
        let lookup = self.inner.lookup_ip(absolute);
        match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
            Ok(Ok(found)) => Answer::Addresses {
                addresses: found.iter().collect(),
                ttl: found
                    .valid_until()
                    .saturating_duration_since(Instant::now()),
            },
            Ok(Err(error)) if error.is_nx_domain() || error.is_no_records_found() => {
                Answer::Addresses {
                    addresses: BTreeSet::new(),
                    ttl: NEGATIVE_TTL,
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(host, %error, "can't resolve an external name");
                Answer::Failed
            }
            Err(_) => {
                tracing::warn!(host, "no answer from DNS for an external name");
                Answer::Failed
            }
        }
    }
}
