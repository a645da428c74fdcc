//! The headers by which one sidecar tells the other what a stream is (see `proto/README.md`).

use http::{HeaderMap, HeaderName, HeaderValue, Version};

use super::Protocol;

const PREFIX: &str = "weft-hop-";
const PORT: HeaderName = HeaderName::from_static("weft-hop-port");
const PROTOCOL: HeaderName = HeaderName::from_static("weft-hop-protocol");
const INSTANCE: HeaderName = HeaderName::from_static("weft-hop-instance");
const SOURCE: HeaderName = HeaderName::from_static("weft-hop-source");
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
    pub instance: String,
    /// The calling workload's name, for telemetry alone.
    pub source: String,
}

impl Hop {
    /// The header fields that say it.
    pub fn fields(&self) -> Vec<(HeaderName, HeaderValue)> {
        let protocol = if self.version_10 {
            "http/1.0"
        } else {
            self.protocol.as_str()
        };
        let text = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        let mut fields = Vec::with_capacity(5);
        fields.push((PORT, HeaderValue::from(self.port)));
        fields.push((PROTOCOL, HeaderValue::from_static(protocol)));
        fields.push((INSTANCE, text(&self.instance)));
        fields.push((SOURCE, text(&self.source)));
        if self.no_host {
            fields.push((NO_HOST, HeaderValue::from_static("1")));
        }
        fields
    }

    /// Takes it off a request. The error is what is missing or wrong.
    pub fn take(headers: &mut HeaderMap) -> Result<Hop, &'static str> {
        let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let port = text(&PORT)
            .and_then(|port| port.parse().ok())
            .filter(|port| *port != 0);
        let port = port.ok_or("weft-hop-port is missing or no port")?;
        let word = text(&PROTOCOL).ok_or("weft-hop-protocol is missing")?;
        let protocol = match word {
            "http/1.0" | "http/1.1" => Protocol::Http1,
            "h2" => Protocol::Http2,
            "tcp" => Protocol::Tcp,
            "tls" => Protocol::Tls,
            _ => return Err("weft-hop-protocol is unknown"),
        };
        let hop = Hop {
            port,
            protocol,
            version_10: word == "http/1.0",
            no_host: headers.contains_key(NO_HOST),
            instance: text(&INSTANCE)
                .ok_or("weft-hop-instance is missing")?
                .to_owned(),
            source: text(&SOURCE).unwrap_or_default().to_owned(),
        };
        strip(headers);
        Ok(hop)
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

/// Removes whatever an application may have put there, so that nothing can be forged or seen.
pub fn strip(headers: &mut HeaderMap) {
    let forged = |name: &&HeaderName| name.as_str().starts_with(PREFIX);
    if headers.keys().any(|name| forged(&name)) {
        let names: Vec<HeaderName> = headers.keys().filter(forged).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// Marks an answer to a stream that was not handed to the application.
pub fn mark_unprocessed(headers: &mut HeaderMap, reason: &'static str) {
    headers.insert(UNPROCESSED, HeaderValue::from_static(reason));
}

/// The reason, where an answer carries the mark.
pub fn unprocessed(headers: &HeaderMap) -> Option<&str> {
    headers
        .get(UNPROCESSED)
        .and_then(|value| value.to_str().ok())
}

/// Marks an answer after which both sides speak the upgraded protocol; without the mark, a 2xx to an
/// extended CONNECT is the application's ordinary answer.
pub fn mark_upgraded(headers: &mut HeaderMap) {
    headers.insert(UPGRADED, HeaderValue::from_static("1"));
}

/// Whether an answer carries the mark.
pub fn is_upgraded(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADED)
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
            instance: "i-1".into(),
            source: "web".into(),
        };
        let mut headers = HeaderMap::new();
        headers.insert("x", HeaderValue::from_static("kept"));
        headers.insert("weft-hop-upgraded", HeaderValue::from_static("forged"));
        headers.extend(hop.fields());
        assert_eq!(Hop::take(&mut headers), Ok(hop));
        assert_eq!(headers.len(), 1);
        assert!(Hop::take(&mut headers).is_err());
    }
}
