//! Authorities: a host, perhaps a port (RFC 9110 4.2.3, RFC 3986 3.2).

use http::uri::Authority;

use super::Refusal;
use crate::model::any_octet;

/// Of an authority that can't be one.
pub(crate) const NO_AUTHORITY: Refusal =
    Refusal::Malformed("the authority is not HOST or HOST:PORT");

/// RFC 9110 4.2.3 and 4.2.4: a host, perhaps a port, and no user information.
pub(crate) fn check_authority(octets: &[u8]) -> Result<(), Refusal> {
    if is_plain_authority(octets) {
        return Ok(());
    }
    check_unusual(octets)
}

fn check_unusual(octets: &[u8]) -> Result<(), Refusal> {
    let text = std::str::from_utf8(octets).map_err(|_| NO_AUTHORITY)?;
    if text.contains('@') {
        return Err(Refusal::Malformed("the authority holds user information"));
    }
    let authority = text.parse::<Authority>().map_err(|_| NO_AUTHORITY)?;
    let port = text.get(authority.host().len()..).unwrap_or_default();
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        Some("") => Ok(()),
        Some(digits)
            if digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok() =>
        {
            Ok(())
        }
        _ => Err(NO_AUTHORITY),
    }
}

/// Letters, digits, dots and dashes with a port of up to four digits: what nearly every authority is,
/// and plainly right.
fn is_plain_authority(octets: &[u8]) -> bool {
    let port_at = octets.len().saturating_sub(5);
    let colon = octets[port_at..].iter().rposition(|octet| *octet == b':');
    let host = match colon {
        None => octets,
        Some(at) => {
            let (host, port) = octets.split_at(port_at + at);
            if port.len() == 1 || !port[1..].iter().all(u8::is_ascii_digit) {
                return false;
            }
            host
        }
    };
    !host.is_empty() && !any_octet(host, |octet| !is_in_host(octet))
}

/// Letters, digits, dots and dashes.
fn is_in_host(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() | (octet == b'.') | (octet == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_ones() {
        let check = |text: &str, expect: bool| {
            assert_eq!(is_plain_authority(text.as_bytes()), expect, "{text:?}");
        };
        check("a", true);
        check("Orders-1.shop.svc.cluster.local", true);
        check("orders:1", true);
        check("orders.shop:8080", true);
        check("a:123", true);
        check("orders:65535", false);
        check("", false);
        check(":80", false);
        check("a:", false);
        check("a:8o", false);
        check("a:b:80", false);
        check("a_b", false);
        check("me@orders", false);
        check("[::1]:80", false);
        check("orders.shop.svc.cluster.loc\u{e4}l", false);
    }

    proptest! {
        /// Who is let through quickly is let through slowly too, and looked at octet by octet is plain.
        #[test]
        fn plain_ones_are_right(text in "[a9.:@_-]{0,40}") {
            let (host, port) = text.split_once(':').unwrap_or((&text, "1"));
            let is_plain = !host.is_empty()
                && host.bytes().all(|octet| b"a9.-".contains(&octet))
                && (1..=4).contains(&port.len())
                && port.bytes().all(|octet| octet == b'9' || octet == b'1');
            prop_assert_eq!(is_plain_authority(text.as_bytes()), is_plain);
            prop_assert!(!is_plain || check_unusual(text.as_bytes()).is_ok());
        }
    }
}
