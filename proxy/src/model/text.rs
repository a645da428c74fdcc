//! Short texts that came over the wire.

use std::fmt;
use std::ops::Deref;

use super::FieldValue;
use super::value::is_visible;

/// Visible ASCII: a path, an authority, a scheme. A short one allocates nothing, and the octets of a long one are shared
/// by its clones.
#[derive(Clone, PartialEq, Eq)]
pub struct Text(FieldValue);

/// The octets are not all visible ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotText;

impl Text {
    /// A text that is known when this is compiled; all of it must be visible ASCII.
    pub const fn from_static(text: &'static str) -> Self {
        Self(FieldValue::from_static(text))
    }

    /// Copies octets of a message on its way, as [`FieldValue::passing`] does.
    pub fn passing(octets: &[u8]) -> Result<Self, NotText> {
        let value = FieldValue::passing(octets).map_err(|_| NotText)?;
        Self::from_value(value)
    }

    /// Takes a field's value.
    pub fn from_value(value: FieldValue) -> Result<Self, NotText> {
        is_visible(value.as_bytes())
            .then_some(Self(value))
            .ok_or(NotText)
    }

    /// Its octets.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// It as a field's value.
    pub fn to_value(&self) -> FieldValue {
        self.0.clone()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        // Checked when it was made, so the empty text never stands for another.
        std::str::from_utf8(self.0.as_bytes()).unwrap_or_default()
    }
}

impl Default for Text {
    fn default() -> Self {
        Self::from_static("")
    }
}

impl TryFrom<&str> for Text {
    type Error = NotText;

    fn try_from(text: &str) -> Result<Self, NotText> {
        FieldValue::from_text(text)
            .map_err(|_| NotText)
            .and_then(Self::from_value)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.0.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_ascii_only() {
        let check = |text: &str, expect: bool| {
            assert_eq!(Text::try_from(text).is_ok(), expect, "{text:?}");
            let passing = Text::passing(text.as_bytes());
            assert_eq!(passing.is_ok(), expect, "{text:?}");
            if let Ok(passing) = passing {
                assert_eq!(&*passing, text);
            }
        };
        check("", true);
        check("/a?b=c%20~!", true);
        check("a b", false);
        check("a\tb", false);
        check("a\u{7f}", false);
        check("ä", false);
    }
}
