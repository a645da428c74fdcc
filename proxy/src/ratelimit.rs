//! The client of rate limit servers that speak Envoy's protocol. It reaches them as the application would reach
//! any service: through this proxy's own outbound side, so that discovery, mTLS, balancing and traces are the same.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use weft_proto::ratelimit::rate_limit_descriptor::Entry;
use weft_proto::ratelimit::rate_limit_response::Code;
use weft_proto::ratelimit::rate_limit_service_client::RateLimitServiceClient;
use weft_proto::ratelimit::{RateLimitDescriptor, RateLimitRequest, RateLimitResponse};

use crate::model::GlobalRateLimit;

/// Servers that one worker keeps connections to; with one more, the others are connected to anew.
const SERVERS_MAX: usize = 16;
/// Questions on their way to one server from one worker; more wait, as long as each may.
const QUESTIONS_MAX: usize = 1024;

/// One worker's connections to rate limit servers.
#[derive(Debug)]
pub struct RateLimitServers {
    /// Where our own outbound side listens.
    outbound: Option<SocketAddr>,
    channels: RefCell<HashMap<String, Channel>>,
}

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Pass,
    /// Too many, for so long.
    OverLimit(Duration),
    /// It said nothing in time, or nothing that could be understood.
    Unknown,
}

/// Keys and values of one descriptor.
pub type Pairs = Vec<(String, String)>;

impl RateLimitServers {
    /// `outbound` is where this proxy's own outbound side listens; nobody can be asked where that is nowhere.
    pub fn new(outbound: &[SocketAddr]) -> Self {
        let reachable = |address: &SocketAddr| {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            SocketAddr::new(ip, address.port())
        };
        Self {
            outbound: outbound.first().map(reachable),
            channels: RefCell::default(),
        }
    }

    /// Asks whether a request may pass that these descriptors were made of. `traceparent` is the request's.
    pub async fn ask(
        &self,
        limit: &GlobalRateLimit,
        descriptors: Vec<Pairs>,
        traceparent: Option<&str>,
    ) -> Answer {
        let Some(channel) = self.channel(&limit.authority) else {
            return Answer::Unknown;
        };
        let descriptor = |pairs: Pairs| RateLimitDescriptor {
            entries: pairs
                .into_iter()
                .map(|(key, value)| Entry { key, value })
                .collect(),
        };
        let mut request = tonic::Request::new(RateLimitRequest {
            domain: limit.domain.clone(),
            descriptors: descriptors.into_iter().map(descriptor).collect(),
            hits_addend: 1,
        });
        if let Some(traceparent) = traceparent.and_then(|text| MetadataValue::try_from(text).ok()) {
            request.metadata_mut().insert("traceparent", traceparent);
        }
        let mut client = RateLimitServiceClient::new(channel);
        let asked = timeout(limit.timeout, client.should_rate_limit(request));
        match asked.await {
            Ok(Ok(response)) => read(response.get_ref()),
            Ok(Err(_)) | Err(_) => Answer::Unknown,
        }
    }

    fn channel(&self, authority: &str) -> Option<Channel> {
        let mut channels = self.channels.borrow_mut();
        if let Some(channel) = channels.get(authority) {
            return Some(channel.clone());
        }
        let origin: Uri = format!("http://{authority}").parse().ok()?;
        let endpoint = Endpoint::from_shared(format!("http://{}", self.outbound?)).ok()?;
        let endpoint = endpoint.origin(origin).concurrency_limit(QUESTIONS_MAX);
        let channel = endpoint.connect_lazy();
        if channels.len() >= SERVERS_MAX {
            channels.clear();
        }
        channels.insert(authority.to_owned(), channel.clone());
        Some(channel)
    }
}

fn read(response: &RateLimitResponse) -> Answer {
    match Code::try_from(response.overall_code) {
        Ok(Code::Ok) => Answer::Pass,
        Ok(Code::OverLimit) => {
            let over = response.statuses.iter();
            let over = over.filter(|status| status.code == i32::from(Code::OverLimit));
            let resets = over.filter_map(|status| status.duration_until_reset.as_ref());
            let seconds = resets.filter_map(|time| u64::try_from(time.seconds).ok());
            Answer::OverLimit(Duration::from_secs(seconds.max().unwrap_or(1)))
        }
        Ok(Code::Unknown) | Err(_) => Answer::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use weft_proto::ratelimit::Duration as Reset;
    use weft_proto::ratelimit::rate_limit_response::DescriptorStatus;

    use super::*;

    #[test]
    fn answers() {
        let check = |overall: i32, statuses: &[(i32, Option<i64>)], expect: Answer| {
            let status = |(code, seconds): &(i32, Option<i64>)| DescriptorStatus {
                code: *code,
                duration_until_reset: seconds.map(|seconds| Reset { seconds, nanos: 0 }),
            };
            let response = RateLimitResponse {
                overall_code: overall,
                statuses: statuses.iter().map(status).collect(),
            };
            assert_eq!(read(&response), expect, "{response:?}");
        };
        let over = |seconds| Answer::OverLimit(Duration::from_secs(seconds));
        check(1, &[(1, Some(9))], Answer::Pass);
        check(2, &[(1, Some(9)), (2, Some(3)), (2, Some(5))], over(5));
        check(2, &[(2, None)], over(1));
        check(2, &[(2, Some(-7))], over(1));
        check(2, &[], over(1));
        check(0, &[], Answer::Unknown);
        check(7, &[], Answer::Unknown);
    }

    #[test]
    fn our_own_outbound_side_is_on_this_machine() {
        let check = |listen: &str, expect: &str| {
            let servers = RateLimitServers::new(&[listen.parse().unwrap()]);
            assert_eq!(servers.outbound.unwrap().to_string(), expect);
        };
        check("0.0.0.0:4140", "127.0.0.1:4140");
        check("[::]:4140", "[::1]:4140");
        check("10.0.0.7:4140", "10.0.0.7:4140");
    }
}
