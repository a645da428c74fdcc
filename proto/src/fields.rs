//! Header fields that are the proxies' own.

/// What one sidecar tells the other of a stream begins so.
pub const HOP_PREFIX: &str = "weft-hop-";

/// Fields that frame a message, belong to one connection (RFC 9110 7.6.1), or are the mesh's own word.
/// `host` is among them: it is the request's authority.
const PROXY_FIELDS: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "weft-fault",
];

/// Whether no policy may set or remove a field, because that could split one message into two or speak in
/// the mesh's name. `name` is in lower case. The control plane refuses it, and the proxy rejects it.
pub fn is_proxy_field(name: &str) -> bool {
    name.starts_with(HOP_PREFIX) || PROXY_FIELDS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_proxies_own() {
        let check = |name: &str, expect: bool| assert_eq!(is_proxy_field(name), expect, "{name}");
        check("content-length", true);
        check("host", true);
        check("weft-hop-port", true);
        check("weft-fault", true);
        check("x-content-length", false);
        check("weft-hop", false);
        check("traceparent", false);
    }
}
