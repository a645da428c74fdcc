//! The headers by which one sidecar tells the other what a stream is (see `proto/README.md`).

use std::cell::RefCell;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, Version};
use weft_proto::fields::HOP_PREFIX;

use super::{FieldValue, Fields, Kinds, Protocol, Text};

/// All that mostly stays the same from one stream to the next, so that it is one entry of the connection's tables.
const STREAM: HeaderName = HeaderName::from_static("weft-hop-stream");
const TIMEOUT: HeaderName = HeaderName::from_static("weft-hop-timeout");
const UNPROCESSED: HeaderName = HeaderName::from_static("weft-hop-unprocessed");
const UPGRADED: HeaderName = HeaderName::from_static("weft-hop-upgraded");

thread_local! {
    /// Where it is put together what a stream says.
    static SAID: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What every stream of the hop says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The application's port.
    pub port: u16,
    /// What the application is to be spoken with.
    pub protocol: Protocol,
    /// Within HTTP/1: the client spoke HTTP/1.0.
    pub version_10: bool,
    /// The request named no host.
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
        SAID.with_borrow_mut(|said| {
            said.clear();
            // No text has a blank in it.
            said.extend_from_slice(b"port=");
            said.extend_from_slice(digits.format(self.port).as_bytes());
            said.extend_from_slice(b" protocol=");
            said.extend_from_slice(protocol.as_bytes());
            said.extend_from_slice(b" instance=");
            said.extend_from_slice(self.instance.as_bytes());
            said.extend_from_slice(b" source=");
            said.extend_from_slice(self.source.as_bytes());
            if !self.route.is_empty() {
                said.extend_from_slice(b" route=");
                said.extend_from_slice(self.route.as_bytes());
            }
            if self.no_host {
                said.extend_from_slice(b" no-host");
            }
            put(&STREAM, said);
        });
        if let Some(timeout) = self.timeout {
            let milliseconds = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
            put(&TIMEOUT, digits.format(milliseconds).as_bytes());
        }
    }

    /// The version that the client spoke, as far as the application is spoken with in it.
    pub fn version(&self) -> Version {
        match (self.protocol, self.version_10) {
            (Protocol::Http2, _) => Version::HTTP_2,
            (_, true) => Version::HTTP_10,
            (_, false) => Version::HTTP_11,
        }
    }
}

/// Reads what a stream said of itself, but for its timeout. The error is what is missing or wrong; words that mean
/// nothing here are passed over.
impl FromStr for Hop {
    type Err = &'static str;

    fn from_str(said: &str) -> Result<Self, Self::Err> {
        let (mut port, mut spoken, mut no_host) = (None, None, false);
        let (mut instance, mut source, mut route) = (None, None, None);
        for word in said.split(' ') {
            match word.split_once('=').unwrap_or((word, "")) {
                ("port", value) => port = value.parse().ok(),
                ("protocol", value) => spoken = protocol(value),
                ("instance", value) => instance = Text::try_from(value).ok(),
                ("source", value) => source = Text::try_from(value).ok(),
                ("route", value) => route = Text::try_from(value).ok(),
                ("no-host", _) => no_host = true,
                _ => {}
            }
        }
        let port = port.filter(|port| *port != 0);
        let (protocol, version_10) = spoken.ok_or("the protocol is missing or unknown")?;
        Ok(Hop {
            port: port.ok_or("the port is missing or none")?,
            protocol,
            version_10,
            no_host,
            instance: instance.ok_or("the instance is missing")?,
            source: source.unwrap_or_default(),
            route: route.unwrap_or_default(),
            timeout: None,
        })
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

/// What a stream says of itself, as [`Hop`] is read from it.
pub fn said(headers: &Fields) -> Option<&FieldValue> {
    headers.get(&STREAM)
}

/// See [`Hop::timeout`].
pub fn timeout(headers: &Fields) -> Option<Duration> {
    let milliseconds = headers.get(&TIMEOUT)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_millis(milliseconds))
}

/// Removes whatever an application may have put there, so that nothing can be forged or seen.
pub fn strip(headers: &mut Fields) {
    if headers.may_have(Kinds::HOP) {
        headers.retain(|name, _| !name.as_str().starts_with(HOP_PREFIX));
    }
}

/// Marks an answer to a stream that was not handed to the application.
pub fn mark_unprocessed(headers: &mut Fields, reason: &'static str) {
    headers.set(UNPROCESSED, FieldValue::from_static(reason));
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
    headers.set(UPGRADED, FieldValue::from_static("1"));
}

/// Whether an answer carries the mark.
pub fn is_upgraded(headers: &Fields) -> bool {
    headers.contains(&UPGRADED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop() -> Hop {
        Hop {
            port: 8080,
            protocol: Protocol::Http1,
            version_10: true,
            no_host: true,
            instance: Text::from_static("i-1"),
            source: Text::from_static("web"),
            route: Text::from_static("HTTPRoute/shop/orders"),
            timeout: None,
        }
    }

    #[test]
    fn what_is_said_is_heard() {
        let check = |hop: Hop| {
            let mut headers = Fields::new();
            headers.append("x".parse().unwrap(), FieldValue::from_static("kept"));
            let forged = FieldValue::from_static("forged");
            headers.append("weft-hop-upgraded".parse().unwrap(), forged);
            hop.each_field(&mut |name, value| {
                headers.append(name.clone(), FieldValue::from_bytes(value).unwrap());
            });
            let said_of_it = said(&headers).unwrap().to_str().unwrap();
            let heard = said_of_it.parse::<Hop>().unwrap();
            let timeout = timeout(&headers);
            assert_eq!(Hop { timeout, ..heard }, hop);
            strip(&mut headers);
            assert_eq!(headers.len(), 1);
            assert_eq!(said(&headers), None);
        };
        check(hop());
        check(Hop {
            timeout: Some(Duration::from_millis(1500)),
            ..hop()
        });
        check(Hop {
            version_10: false,
            no_host: false,
            protocol: Protocol::Http2,
            source: Text::default(),
            route: Text::default(),
            ..hop()
        });
    }

    #[test]
    fn what_is_no_hop_is_refused() {
        let check = |said: &str, expect: Result<u16, &str>| {
            let heard = said.parse::<Hop>().map(|hop| hop.port);
            assert_eq!(heard, expect, "{said}");
        };
        check("port=1 protocol=h2 instance=i", Ok(1));
        check("instance=i later=2 more protocol=h2 port=1", Ok(1));
        check(
            "port=0 protocol=h2 instance=i",
            Err("the port is missing or none"),
        );
        check(
            "port=65536 protocol=h2 instance=i",
            Err("the port is missing or none"),
        );
        check(
            "port=1 protocol=h3 instance=i",
            Err("the protocol is missing or unknown"),
        );
        check("port=1 protocol=h2", Err("the instance is missing"));
        check("", Err("the protocol is missing or unknown"));
    }
}
