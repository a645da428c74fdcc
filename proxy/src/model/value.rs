//! Field values (RFC 9110 5.5).

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use super::Chunks;

/// Long values that are soon over share chunks of this many octets. A head's values are copied one after the other, so
/// it holds one chunk at most beyond what it is made of.
const PASSING_CHUNK: usize = 1024;

thread_local! {
    static PASSING: RefCell<Chunks> = RefCell::new(Chunks::new(PASSING_CHUNK));
}

/// Octets that fit into the value itself: as many as make it no larger than the slice that it may be instead.
const SHORT_MAX: usize = 37;

/// A field's value: any octets but control characters, the tab excepted. Nearly all values are short. Those are copied,
/// because to share octets that several threads might hold takes two locked additions, each as dear as forty copies
/// of a word; longer ones are shared.
#[derive(Clone)]
pub struct FieldValue(Octets);

#[derive(Clone)]
enum Octets {
    Short {
        octets: [u8; SHORT_MAX],
        /// At most [`SHORT_MAX`].
        length: u8,
        is_sensitive: bool,
    },
    Shared {
        octets: Bytes,
        is_sensitive: bool,
    },
}

/// There is a control character among the octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a field value with a control character")]
pub struct NotValue;

const fn is_control(octet: u8) -> bool {
    // Nothing is skipped where the answer is known, so that it can be asked of many octets at once.
    (octet < b' ') & (octet != b'\t') | (octet == 0x7f)
}

/// Whether there is a control character among the octets.
fn has_control(octets: &[u8]) -> bool {
    any_octet(octets, is_control)
}

/// Whether all octets are visible ASCII; of these no value has control characters.
pub(super) fn is_visible(octets: &[u8]) -> bool {
    !any_octet(octets, |octet| !octet.is_ascii_graphic())
}

/// Whether an octet is such a one. Sixteen are looked at in a step, since none of those ends the search; the last ones
/// come first, all together, in the place of each of the rest by itself.
pub(crate) fn any_octet(octets: &[u8], is_such: impl Fn(u8) -> bool) -> bool {
    if let Some(last) = octets.last_chunk::<16>() {
        let mut steps = octets.as_chunks::<16>().0.iter();
        return any_of(last, &is_such) || steps.any(|step| any_of(step, &is_such));
    }
    match (octets.first_chunk::<8>(), octets.last_chunk::<8>()) {
        (Some(first), Some(last)) => any_of(first, &is_such) | any_of(last, &is_such),
        _ => octets.iter().any(|octet| is_such(*octet)),
    }
}

#[inline(always)]
fn any_of<const N: usize>(octets: &[u8; N], is_such: &impl Fn(u8) -> bool) -> bool {
    octets
        .iter()
        .fold(false, |seen, octet| seen | is_such(*octet))
}

impl FieldValue {
    /// A value that is known when this is compiled.
    ///
    /// # Panics
    ///
    /// When there is a control character in it.
    pub const fn from_static(text: &'static str) -> Self {
        let octets = text.as_bytes();
        let mut short = [0; SHORT_MAX];
        let mut at = 0;
        while at < octets.len() {
            assert!(!is_control(octets[at]), "a control character");
            if at < SHORT_MAX {
                short[at] = octets[at];
            }
            at += 1;
        }
        Self(if octets.len() <= SHORT_MAX {
            Octets::Short {
                octets: short,
                length: octets.len() as u8,
                is_sensitive: false,
            }
        } else {
            Octets::Shared {
                octets: Bytes::from_static(octets),
                is_sensitive: false,
            }
        })
    }

    /// Copies octets.
    pub fn from_bytes(octets: &[u8]) -> Result<Self, NotValue> {
        Self::made_of(octets, Bytes::copy_from_slice)
    }

    /// Copies a text.
    pub fn from_text(text: &str) -> Result<Self, NotValue> {
        Self::from_bytes(text.as_bytes())
    }

    /// Copies octets of a message on its way. Many of those share one allocation, which lasts as long as the longest
    /// of them.
    pub fn passing(octets: &[u8]) -> Result<Self, NotValue> {
        Self::made_of(octets, |octets| {
            PASSING.with_borrow_mut(|passing| passing.copy(octets))
        })
    }

    /// Copies octets: into the value, or if they are many, as `copy` does.
    pub fn made_of(octets: &[u8], copy: impl FnOnce(&[u8]) -> Bytes) -> Result<Self, NotValue> {
        if has_control(octets) {
            return Err(NotValue);
        }
        let mut short = [0; SHORT_MAX];
        Ok(Self(match short.get_mut(..octets.len()) {
            Some(room) => {
                room.copy_from_slice(octets);
                Octets::Short {
                    octets: short,
                    // It fits, so it is at most 37.
                    length: octets.len() as u8,
                    is_sensitive: false,
                }
            }
            None => Octets::Shared {
                octets: copy(octets),
                is_sensitive: false,
            },
        }))
    }

    /// Its octets.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Octets::Short { octets, length, .. } => {
                octets.get(..usize::from(*length)).unwrap_or_default()
            }
            Octets::Shared { octets, .. } => octets,
        }
    }

    /// It as text, if it is of visible ASCII, blanks and tabs alone.
    pub fn to_str(&self) -> Result<&str, NotAscii> {
        match std::str::from_utf8(self.as_bytes()) {
            Ok(text) if text.is_ascii() => Ok(text),
            _ => Err(NotAscii),
        }
    }

    /// How many octets it has.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it must never get into a table of compression (RFC 7541 7.1.3).
    pub fn is_sensitive(&self) -> bool {
        match &self.0 {
            Octets::Short { is_sensitive, .. } | Octets::Shared { is_sensitive, .. } => {
                *is_sensitive
            }
        }
    }

    /// Says whether it [is sensitive](Self::is_sensitive).
    pub fn set_sensitive(&mut self, is: bool) {
        match &mut self.0 {
            Octets::Short { is_sensitive, .. } | Octets::Shared { is_sensitive, .. } => {
                *is_sensitive = is;
            }
        }
    }
}

/// A value has octets beyond ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a field value with octets beyond ASCII")]
pub struct NotAscii;

impl FromStr for FieldValue {
    type Err = NotValue;

    fn from_str(text: &str) -> Result<Self, NotValue> {
        Self::from_text(text)
    }
}

impl From<u64> for FieldValue {
    fn from(number: u64) -> Self {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number);
        let mut octets = [0; SHORT_MAX];
        // A number has twenty digits at most.
        octets[..digits.len()].copy_from_slice(digits.as_bytes());
        Self(Octets::Short {
            octets,
            length: digits.len() as u8,
            is_sensitive: false,
        })
    }
}

/// As the crates have it that tests compare with.
#[cfg(test)]
impl From<&http::HeaderValue> for FieldValue {
    fn from(value: &http::HeaderValue) -> Self {
        let mut own = Self::from_bytes(value.as_bytes()).unwrap();
        own.set_sensitive(value.is_sensitive());
        own
    }
}

impl PartialEq for FieldValue {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for FieldValue {}

impl PartialEq<str> for FieldValue {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for FieldValue {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl PartialEq<[u8]> for FieldValue {
    fn eq(&self, other: &[u8]) -> bool {
        self.as_bytes() == other
    }
}

impl fmt::Debug for FieldValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_sensitive() {
            return f.write_str("Sensitive");
        }
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn octets_of_any_number() {
        for length in [0, 1, SHORT_MAX - 1, SHORT_MAX, SHORT_MAX + 1, 4096] {
            let octets: Vec<u8> = (0..length).map(|at| b'a' + (at % 26) as u8).collect();
            let made = [
                FieldValue::from_bytes(&octets).unwrap(),
                FieldValue::passing(&octets).unwrap(),
                FieldValue::from_static(String::from_utf8(octets.clone()).unwrap().leak()),
                FieldValue::from(&HeaderValue::from_bytes(&octets).unwrap()),
            ];
            for value in made {
                assert_eq!(value.as_bytes(), octets);
                assert_eq!((value.len(), value.is_empty()), (length, length == 0));
                assert_eq!(value.to_str().unwrap().as_bytes(), octets);
                assert_eq!(value.clone(), value);
                assert!(!value.is_sensitive());
            }
        }
        assert!(size_of::<FieldValue>() <= size_of::<HeaderValue>());
    }

    #[test]
    fn control_characters() {
        let check = |octet: u8, is_value: bool, is_ascii: bool| {
            for (length, place) in [1, 7, 8, 9, 37, 38, 100]
                .into_iter()
                .flat_map(|length| (0..length).map(move |place| (length, place)))
            {
                let mut octets = vec![b'a'; length];
                octets[place] = octet;
                let value = FieldValue::from_bytes(&octets);
                assert_eq!(value.is_ok(), is_value, "{octet} at {place} of {length}");
                assert_eq!(HeaderValue::from_bytes(&octets).is_ok(), is_value);
                let visible = octet.is_ascii_graphic();
                assert_eq!(
                    is_visible(&octets),
                    visible,
                    "{octet} at {place} of {length}"
                );
                if let Ok(value) = value {
                    assert_eq!(value.to_str().is_ok(), is_ascii, "{octet}");
                }
            }
        };
        for octet in 0..=255 {
            match octet {
                b'\t' | b' '..=b'~' => check(octet, true, true),
                0x80..=0xff => check(octet, true, false),
                _ => check(octet, false, false),
            }
        }
    }

    #[test]
    fn sensitive_ones_are_not_shown() {
        for text in ["secret", &"secret".repeat(20)] {
            let mut value: FieldValue = text.parse().unwrap();
            assert_eq!(format!("{value:?}"), format!("{text:?}"));
            value.set_sensitive(true);
            assert!(value.is_sensitive() && value.clone().is_sensitive());
            assert_eq!(format!("{value:?}"), "Sensitive");
        }
        assert_eq!(FieldValue::from(u64::MAX), "18446744073709551615");
        assert_eq!(FieldValue::from(0), "0");
    }
}
