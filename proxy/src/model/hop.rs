//! The headers by which one sidecar tells the other what a stream is (see `proto/README.md`).

use std::time::Duration;

use http::{HeaderName, HeaderValue, Version};
use weft_proto::fields::HOP_PREFIX;

use super::{Fields, Protocol, Text};

const PORT: HeaderName = HeaderName::from_static("weft-hop-port");
const PROTOCOL: HeaderName = HeaderName::from_static("weft-hop-protocol");
const INSTANCE: HeaderName = HeaderName::from_static("weft-hop-instance");
const SOURCE: HeaderName = HeaderName::from_static("weft-hop-source");
const TIMEOUT: HeaderName = HeaderName::from_static("weft-hop-timeout");
const ROUTE: HeaderName = HeaderName::from_static("weft-hop-route");
const NO_HOST: HeaderName = HeaderName::from_static("weft-hop-no-host");
const UNPROCESSED: HeaderName = HeaderName::from_static("weft-hop-unprocessed");
const UPGRADED: HeaderName = HeaderName::from_static("weft-hop-upgraded");

/// What every stream of the hop says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The application's port.
    pub port: u16,
    /// What the application is to be spoken with.
    pub protocol: Protocol,
    /// Within HTTP/1: the client spoke HTTP/1.0.
    pub version_10: bool,
    /// The HTTP/1.0 request named no host.
    pub no_host: bool,
    /// Who is expected to answer.
    pub instance: Text,
    /// The calling workload's name, for telemetry alone.
    pub source: Text,
    /// The route by which the request was sent; empty: none.
    pub route: Text,
    /// How long somebody waits for the answer, where that is known.
    pub timeout: Option<Duration>,
}

impl Hop {
    /// Hands on the header fields that say it.
    pub fn each_field(&self, put: &mut dyn FnMut(&HeaderName, &[u8])) {
        let protocol = if self.version_10 {
            "http/1.0"
        } else {
            self.protocol.as_str()
        };
        let mut digits = itoa::Buffer::new();
        put(&PORT, digits.format(self.port).as_bytes());
        put(&PROTOCOL, protocol.as_bytes());
        put(&INSTANCE, self.instance.as_bytes());
        put(&SOURCE, self.source.as_bytes());
        if self.no_host {
            put(&NO_HOST, b"1");
        }
        if !self.route.is_empty() {
            put(&ROUTE, self.route.as_bytes());
        }
        if let Some(timeout) = self.timeout {
            let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            put(&TIMEOUT, digits.format(milliseconds).as_bytes());
        }
    }

    /// Takes it off a request. The error is what is missing or wrong.
    pub fn take(headers: &mut Fields) -> Result<Hop, &'static str> {
        let (mut port, mut word) = (None, None);
        let (mut instance, mut source, mut no_host) = (None, None, false);
        let (mut route, mut timeout) = (None, None);
        // One look at each field: they are all taken away, whether they mean anything here or not.
        headers.retain(|name, value| {
            let Some(what) = name.as_str().strip_prefix(HOP_PREFIX) else {
                return true;
            };
            let text = || value.to_str().ok();
            match what {
                "port" => port = port.or_else(|| text()?.parse().ok()),
                "protocol" => word = word.or_else(|| protocol(text()?)),
                "instance" => instance = instance.take().or(Text::from_value(value.clone()).ok()),
                "source" => source = source.take().or(Text::from_value(value.clone()).ok()),
                "route" => route = route.take().or(Text::from_value(value.clone()).ok()),
                "timeout" => timeout = timeout.or_else(|| text()?.parse().ok()),
                "no-host" => no_host = true,
                _ => {}
            }
            false
        });
        let port = port.filter(|port| *port != 0);
        let (protocol, version_10) = word.ok_or("weft-hop-protocol is missing or unknown")?;
        Ok(Hop {
            port: port.ok_or("weft-hop-port is missing or no port")?,
            protocol,
            version_10,
            no_host,
            instance: instance.ok_or("weft-hop-instance is missing")?,
            source: source.unwrap_or_default(),
            route: route.unwrap_or_default(),
            timeout: timeout.map(Duration::from_millis),
        })
    }

    /// The version in which the application is to be spoken with.
    pub fn version(&self) -> Version {
        match (self.protocol, self.version_10) {
            (Protocol::Http2, _) => Version::HTTP_2,
            (_, true) => Version::HTTP_10,
            (_, false) => Version::HTTP_11,
        }
    }
}

/// The protocol that a word of the hop means, and whether the client spoke HTTP/1.0.
fn protocol(word: &str) -> Option<(Protocol, bool)> {
    match word {
        "http/1.0" => Some((Protocol::Http1, true)),
        "http/1.1" => Some((Protocol::Http1, false)),
        "h2" => Some((Protocol::Http2, false)),
        "tcp" => Some((Protocol::Tcp, false)),
        "tls" => Some((Protocol::Tls, false)),
        _ => None,
    }
}

/// The protocol that the application is to be spoken with, before the rest of what the hop says is taken off.
pub fn protocol_of(headers: &Fields) -> Option<Protocol> {
    let word = headers.get(&PROTOCOL)?.to_str().ok()?;
    protocol(word).map(|(protocol, _)| protocol)
}

fn is_hop(name: &HeaderName) -> bool {
    name.as_str().starts_with(HOP_PREFIX)
}

/// Removes whatever an application may have put there, so that nothing can be forged or seen.
pub fn strip(headers: &mut Fields) {
    headers.retain(|name, _| !is_hop(name));
}

/// Marks an answer to a stream that was not handed to the application.
pub fn mark_unprocessed(headers: &mut Fields, reason: &'static str) {
    headers.set(UNPROCESSED, HeaderValue::from_static(reason));
}

/// The reason, where an answer carries the mark.
pub fn unprocessed(headers: &Fields) -> Option<&str> {
    headers
        .get(&UNPROCESSED)
        .and_then(|value| value.to_str().ok())
}

/// Marks an answer after which both sides speak the upgraded protocol; without the mark, a 2xx to an
/// extended CONNECT is the application's ordinary answer.
pub fn mark_upgraded(headers: &mut Fields) {
    headers.set(UPGRADED, HeaderValue::from_static("1"));
}

/// Whether an answer carries the mark.
pub fn is_upgraded(headers: &Fields) -> bool {
    headers.contains(&UPGRADED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_taken_off_whole() {
        let hop = Hop {
            port: 8080,
            protocol: Protocol::Http1,
            version_10: true,
            no_host: true,
            instance: Text::from_static("i-1"),
            source: Text::from_static("web"),
            route: Text::from_static("HTTPRoute/shop/orders"),
            timeout: Some(Duration::from_millis(1500)),
        };
        let mut headers = Fields::new();
        headers.append("x".parse().unwrap(), HeaderValue::from_static("kept"));
        headers.append(
            "weft-hop-upgraded".parse().unwrap(),
            HeaderValue::from_static("forged"),
        );
        hop.each_field(&mut |name, value| {
            headers.append(name.clone(), HeaderValue::from_bytes(value).unwrap());
        });
        assert_eq!(Hop::take(&mut headers), Ok(hop));
        assert_eq!(headers.len(), 1);
        assert!(Hop::take(&mut headers).is_err());
    }
}
