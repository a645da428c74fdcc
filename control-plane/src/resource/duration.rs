//! Durations as Gateway API writes them (GEP-2257): `1h30m`, `500ms`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::fields::{Field, Fields};

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Digits of one part.
const DIGITS_MAX: usize = 5;
/// Parts of a duration.
const PARTS_MAX: usize = 4;

/// Reads a field that holds one.
pub(super) fn read(field: &Field<'_>) -> Option<Duration> {
    let text = field.checked(|text| parse(text).map(drop))?;
    parse(&text).ok()
}

/// Reads a field that holds one within a range.
pub(super) fn read_within(
    fields: &mut Fields<'_>,
    name: &str,
    range: RangeInclusive<Duration>,
) -> Option<Duration> {
    within(&fields.take(name)?, range)
}

/// Reads one within a range.
pub(super) fn within(field: &Field<'_>, range: RangeInclusive<Duration>) -> Option<Duration> {
    let time = read(field)?;
    if range.contains(&time) {
        return Some(time);
    }
    let (shortest, longest) = (format(*range.start()), format(*range.end()));
    field.problem(format!("is not within {shortest} to {longest}"));
    None
}

/// Reads `^([0-9]{1,5}(h|m|s|ms)){1,4}$`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration such as 10s, 1m30s or 500ms (GEP-2257)");
    let mut rest = text;
    let mut milliseconds = 0;
    let mut parts = 0;
    while !rest.is_empty() && parts < PARTS_MAX {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let letters = after.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, after) = after.split_at(letters);
        let known = UNITS.iter().find(|(name, _)| *name == unit);
        let (Some((_, factor)), 1..=DIGITS_MAX) = (known, digits) else {
            return Err(wrong());
        };
        milliseconds += number.parse::<u64>().map_err(|_| wrong())? * factor;
        rest = after;
        parts += 1;
    }
    if parts == 0 || !rest.is_empty() {
        return Err(wrong());
    }
    Ok(Duration::from_millis(milliseconds))
}

/// Writes what [`parse`] reads as the same. Hours beyond five digits can't come from there.
pub(super) fn format(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (unit, factor) in UNITS {
        let count = rest / factor;
        if count > 0 {
            text.push_str(&format!("{count}{unit}"));
            rest %= factor;
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let check = |text: &str, expect: Option<&str>| {
            let seen = parse(text).ok().map(format);
            assert_eq!(seen.as_deref(), expect, "{text}");
        };
        check("10s", Some("10s"));
        check("90s", Some("1m30s"));
        check("1h1m1s1ms", Some("1h1m1s1ms"));
        check("0s", Some("0s"));
        check("99999ms", Some("1m39s999ms"));
        check("1s1s", Some("2s"));
        check("", None);
        check("10", None);
        check("s", None);
        check("-1s", None);
        check("1.5s", None);
        check("100000s", None);
        check("1s1s1s1s1s", None);
        check("1d", None);
        check("1 s", None);
    }
}
