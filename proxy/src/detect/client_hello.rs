//! The parts of a TLS ClientHello (RFC 8446 4.1.2) that say where it wants to go.

/// Longest ClientHello that is looked at, all its records together.
const HELLO_MAX: usize = 32 * 1024;

/// What a client asked for in its first message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// RFC 6066 3.
    pub server_name: Option<String>,
    /// RFC 7301.
    pub alpn: Vec<Vec<u8>>,
}

/// Why bytes are no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    #[error("the first TLS message is no ClientHello")]
    NotHello,
    #[error("a length in the ClientHello points beyond its end")]
    Truncated,
    #[error("the ClientHello is larger than {HELLO_MAX} bytes")]
    TooLarge,
}

/// Reads a ClientHello off the first bytes of a connection; nothing while it isn't complete.
pub fn client_hello(bytes: &[u8]) -> Result<Option<ClientHello>, HelloError> {
    let Some(message) = handshake_message(bytes)? else {
        return Ok(None);
    };
    let mut hello = Cursor(&message);
    hello.take(2 + 32)?;
    hello.vector8()?;
    hello.vector16()?;
    hello.vector8()?;
    let mut found = ClientHello::default();
    if hello.0.is_empty() {
        return Ok(Some(found));
    }
    let mut extensions = Cursor(hello.vector16()?);
    while !extensions.0.is_empty() {
        let kind = extensions.number16()?;
        let body = Cursor(extensions.vector16()?);
        match kind {
            0 => found.server_name = server_name(body)?,
            16 => found.alpn = alpn(body)?,
            _ => {}
        }
    }
    Ok(Some(found))
}

/// Puts the first handshake message together from its records.
fn handshake_message(bytes: &[u8]) -> Result<Option<Vec<u8>>, HelloError> {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        if let [kind, high, middle, low, body @ ..] = &message[..] {
            if *kind != 1 {
                return Err(HelloError::NotHello);
            }
            let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
            if length > HELLO_MAX {
                return Err(HelloError::TooLarge);
            }
            if body.len() >= length {
                return Ok(Some(body[..length].to_vec()));
            }
        }
        let [kind, _, _, high, low, after @ ..] = rest else {
            return Ok(None);
        };
        if *kind != 22 {
            return Err(HelloError::NotHello);
        }
        let length = usize::from(*high) << 8 | usize::from(*low);
        if length == 0 || message.len() > HELLO_MAX {
            return Err(HelloError::TooLarge);
        }
        if after.len() < length {
            return Ok(None);
        }
        message.extend_from_slice(&after[..length]);
        rest = &after[length..];
    }
}

fn server_name(mut extension: Cursor<'_>) -> Result<Option<String>, HelloError> {
    let mut names = Cursor(extension.vector16()?);
    while !names.0.is_empty() {
        let kind = names.take(1)?[0];
        let name = names.vector16()?;
        if kind == 0 {
            return Ok(std::str::from_utf8(name).ok().map(str::to_ascii_lowercase));
        }
    }
    Ok(None)
}

fn alpn(mut extension: Cursor<'_>) -> Result<Vec<Vec<u8>>, HelloError> {
    let mut names = Cursor(extension.vector16()?);
    let mut found = Vec::new();
    while !names.0.is_empty() {
        found.push(names.vector8()?.to_vec());
    }
    Ok(found)
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], HelloError> {
        if self.0.len() < count {
            return Err(HelloError::Truncated);
        }
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }

    fn number16(&mut self) -> Result<u16, HelloError> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Result<&'a [u8], HelloError> {
        let length = self.take(1)?[0];
        self.take(usize::from(length))
    }

    fn vector16(&mut self) -> Result<&'a [u8], HelloError> {
        let length = self.number16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    /// The first flight of a real client.
    fn hello_of(server_name: &str, alpn: &[&[u8]]) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = server_name.to_owned().try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn reads_a_real_clients_hello_at_every_cut() {
        let bytes = hello_of("Orders.Shop", &[b"weft/1", b"h2"]);
        for end in 0..bytes.len() {
            assert_eq!(client_hello(&bytes[..end]), Ok(None), "{end}");
        }
        let hello = client_hello(&bytes).unwrap().unwrap();
        assert_eq!(hello.server_name.as_deref(), Some("orders.shop"));
        assert_eq!(hello.alpn, [b"weft/1".to_vec(), b"h2".to_vec()]);
    }

    #[test]
    fn refuses_what_is_none() {
        assert_eq!(
            client_hello(b"\x17\x03\x03\x00\x01x"),
            Err(HelloError::NotHello)
        );
        assert_eq!(
            client_hello(b"\x16\x03\x03\x00\x04\x02\x00\x00\x00"),
            Err(HelloError::NotHello)
        );
        assert_eq!(
            client_hello(b"\x16\x03\x03\x00\x05\x01\x00\x00\x01\x00"),
            Err(HelloError::Truncated)
        );
        assert_eq!(
            client_hello(b"\x16\x03\x03\x00\x04\x01\xff\xff\xff"),
            Err(HelloError::TooLarge)
        );
    }

    proptest! {
        #[test]
        fn a_damaged_hello_never_panics(position in 0usize..300, value in any::<u8>(), length in 0usize..400) {
            let mut bytes = hello_of("a.b", &[b"h2"]);
            let at = position % bytes.len();
            bytes[at] = value;
            bytes.truncate(length.max(1));
            let _ = client_hello(&bytes);
        }
    }
}
