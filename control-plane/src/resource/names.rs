//! What names, labels and host names may look like (Kubernetes: Object Names and IDs, Labels).

/// A DNS label: namespaces and port names. `first_letter` asks for RFC 1035's, which services have.
pub fn label(text: &str, first_letter: bool) -> Result<(), String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let bytes = text.as_bytes();
    let fine = (1..=63).contains(&bytes.len())
        && bytes.iter().copied().all(inner)
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
        && !(first_letter && bytes[0].is_ascii_digit());
    let start = if first_letter {
        "a letter"
    } else {
        "a letter or digit"
    };
    fine.then_some(()).ok_or_else(|| {
        format!(
            "{text:?} must be 1 to 63 of a-z, 0-9 and '-', begin with {start} and not end with '-'"
        )
    })
}

/// A DNS subdomain: names of most objects, host names.
pub fn subdomain(text: &str) -> Result<(), String> {
    let fine = text.len() <= 253 && text.split('.').all(|part| label(part, false).is_ok());
    fine.then_some(()).ok_or_else(|| {
        format!("{text:?} must be labels of a-z, 0-9 and '-' joined by '.', at most 253 characters")
    })
}

/// What names of headers and cookies are made of (RFC 9110 5.6.2).
pub fn token(name: &str, bytes_max: usize) -> Result<(), String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if !(1..=bytes_max).contains(&name.len()) {
        return Err(format!("must have 1 to {bytes_max} bytes"));
    }
    match name.bytes().all(token) {
        true => Ok(()),
        false => Err(format!("{name:?} is no cookie's or header's name")),
    }
}

/// Gateway API's Hostname: RFC 1123, no address, a star only as the whole first label.
pub fn hostname(name: &str) -> Result<(), String> {
    subdomain(name.strip_prefix("*.").unwrap_or(name))?;
    if name.parse::<std::net::IpAddr>().is_ok() {
        return Err(format!("{name:?} is an address, not a host name"));
    }
    Ok(())
}

/// Gateway API's PreciseHostname: one host.
pub fn precise_hostname(name: &str) -> Result<(), String> {
    match name.contains('*') {
        true => Err("must be one host, without a star".to_owned()),
        false => hostname(name),
    }
}

/// A label's key and value.
pub fn label_pair(key: &str, value: &str) -> Result<(), String> {
    qualified(key)?;
    (value.is_empty() || is_label_text(value))
        .then_some(())
        .ok_or_else(|| format!("{value:?} is no label value: at most 63 of A-Z, a-z, 0-9, '-', '_' and '.', with a letter or digit at both ends"))
}

/// An annotation's key; its value may be any text.
pub fn annotation_pair(key: &str, _value: &str) -> Result<(), String> {
    qualified(key)
}

fn qualified(key: &str) -> Result<(), String> {
    let (prefix, name) = key
        .rsplit_once('/')
        .map_or((None, key), |(p, n)| (Some(p), n));
    if let Some(prefix) = prefix {
        subdomain(prefix).map_err(|reason| format!("key {key:?}: {reason}"))?;
    }
    is_label_text(name).then_some(()).ok_or_else(|| {
        format!("key {key:?} must be NAME or DOMAIN/NAME, NAME at most 63 of A-Z, a-z, 0-9, '-', '_' and '.'")
    })
}

fn is_label_text(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
        && bytes
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_names_apart() {
        for (text, as_label, as_1035, as_subdomain) in [
            ("orders", true, true, true),
            ("1orders", true, false, true),
            ("a.b-c.d", false, false, true),
            ("", false, false, false),
            ("-a", false, false, false),
            ("a-", false, false, false),
            ("A", false, false, false),
            ("a..b", false, false, false),
        ] {
            assert_eq!(label(text, false).is_ok(), as_label, "{text}");
            assert_eq!(label(text, true).is_ok(), as_1035, "{text}");
            assert_eq!(subdomain(text).is_ok(), as_subdomain, "{text}");
        }
        assert!(label(&"a".repeat(63), true).is_ok());
        assert!(label(&"a".repeat(64), true).is_err());
    }

    #[test]
    fn checks_labels() {
        for (key, value, fine) in [
            ("app", "orders", true),
            ("app", "", true),
            ("kubernetes.io/service-name", "orders", true),
            ("a/b/c", "x", false),
            ("", "x", false),
            ("app", "a b", false),
            ("app", "-x", false),
        ] {
            assert_eq!(label_pair(key, value).is_ok(), fine, "{key}={value}");
        }
    }
}
