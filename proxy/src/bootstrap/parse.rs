//! Values that clap has no parser for.

/// `a=b`; the value may be empty.
pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// `http=9001`.
pub(super) fn parse_named_port(text: &str) -> Result<(String, u16), String> {
    let (name, port) = parse_pair(text).map_err(|_| "expected NAME=PORT".to_owned())?;
    match port.parse() {
        Ok(port) if port != 0 => Ok((name, port)),
        _ => Err(format!(
            "`{port}` is no port; expected NAME=PORT, 1 to 65535"
        )),
    }
}

/// `65536`, `64KiB` or `1MiB`.
pub(super) fn parse_bytes(text: &str) -> Result<usize, String> {
    let (digits, unit) = match (text.strip_suffix("KiB"), text.strip_suffix("MiB")) {
        (Some(digits), _) => (digits, 1024),
        (_, Some(digits)) => (digits, 1024 * 1024),
        _ => (text, 1),
    };
    let number = digits.trim().parse::<usize>().ok();
    number
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "expected a number of bytes, such as 65536, 64KiB or 1MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, expect: Option<usize>| {
            assert_eq!(parse_bytes(text).ok(), expect, "{text}");
        };
        check("65536", Some(65536));
        check("64KiB", Some(65536));
        check("1 MiB", Some(1 << 20));
        check("1KB", None);
        check("-1", None);
        check("", None);
        check("99999999999999999999MiB", None);
    }

    #[test]
    fn pairs_and_ports() {
        let check = |text: &str, pair: bool, port: bool| {
            assert_eq!(parse_pair(text).is_ok(), pair, "{text}");
            assert_eq!(parse_named_port(text).is_ok(), port, "{text}");
        };
        check("http=9001", true, true);
        check("app=", true, false);
        check("http=0", true, false);
        check("http=65536", true, false);
        check("=1", false, false);
        check("app", false, false);
    }
}
