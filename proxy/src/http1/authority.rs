//! Authorities: a host, perhaps a port (RFC 9110 4.2.3, RFC 3986 3.2).

use http::uri::Authority;

use super::Refusal;

/// Of an authority that can't be one.
pub(crate) const NO_AUTHORITY: Refusal =
    Refusal::Malformed("the authority is not HOST or HOST:PORT");

/// RFC 9110 4.2.3 and 4.2.4: a host, perhaps a port, and no user information.
pub(crate) fn check_authority(octets: &[u8]) -> Result<(), Refusal> {
    if is_plain_authority(octets) {
        return Ok(());
    }
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
    let host = octets
        .iter()
        .take_while(|octet| IN_HOST[usize::from(**octet)]);
    let (host, port) = octets.split_at(host.count());
    let is_port = match port.split_first() {
        None => true,
        Some((b':', digits)) => {
            (1..=4).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
        }
        Some(_) => false,
    };
    !host.is_empty() && is_port
}

/// Letters, digits, dots and dashes.
static IN_HOST: [bool; 256] = {
    let mut known = [false; 256];
    let mut octet = 0;
    while octet < known.len() {
        let is_known = (octet as u8).is_ascii_alphanumeric();
        known[octet] = is_known || octet as u8 == b'.' || octet as u8 == b'-';
        octet += 1;
    }
    known
};
