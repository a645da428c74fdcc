//! The field lines of a head or a trailer section, in their order.
//!
//! A flat list and not a map: a message has a dozen fields, most are only passed on, and comparing a
//! name costs a byte for the registered ones. So reading a head costs one allocation for all of its
//! fields and looking one up costs no hash.

use std::cell::RefCell;
use std::fmt;

use http::HeaderName;
use weft_proto::fields::HOP_PREFIX;

use super::FieldValue;

/// Room that is made with the first line: 1,008 bytes, about the most that glibc hands out again without a search.
const USUAL: usize = 14;
/// Lists that a thread keeps for the next heads, instead of giving their room back: as many as 128 streams at a time
/// have. With [`SPARE_LINES_MAX`] that is 1.2 MiB at the very most, and a quarter of it usually.
const SPARE_MAX: usize = 256;
/// A longer list's room is given back.
const SPARE_LINES_MAX: usize = 64;

type Line = (HeaderName, FieldValue);

thread_local! {
    static SPARE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// What kinds of names somebody looks for in every message, as a set. Most messages have few of them, so a list that
/// knows which saves its readers nearly all the looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(u16);

impl Kinds {
    /// Any other name.
    pub const OTHER: Self = Self(0);
    /// Fields of one HTTP/1 connection (RFC 9113 8.2.2), but for `te`.
    pub const CONNECTION: Self = Self(1);
    pub const TE: Self = Self(1 << 1);
    pub const COOKIE: Self = Self(1 << 2);
    pub const HOST: Self = Self(1 << 3);
    pub const CONTENT_LENGTH: Self = Self(1 << 4);
    pub const CONTENT_TYPE: Self = Self(1 << 5);
    /// `traceparent` and `tracestate`.
    pub const TRACE: Self = Self(1 << 6);
    /// `b3` and `x-b3-...`.
    pub const B3: Self = Self(1 << 7);
    /// What sidecars say to each other.
    pub const HOP: Self = Self(1 << 8);
    /// What a sidecar says of an answer: `weft-fault` and `weft-no-retry`.
    pub const VERDICT: Self = Self(1 << 9);
    /// `grpc-status`.
    pub const GRPC_STATUS: Self = Self(1 << 10);

    /// What a name is; it is in lower case.
    pub const fn of(name: &str) -> Self {
        match name.as_bytes() {
            b"te" => Self::TE,
            b"host" => Self::HOST,
            b"cookie" => Self::COOKIE,
            b"content-type" => Self::CONTENT_TYPE,
            b"content-length" => Self::CONTENT_LENGTH,
            b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding"
            | b"upgrade" => Self::CONNECTION,
            b"traceparent" | b"tracestate" => Self::TRACE,
            b"b3" => Self::B3,
            b"weft-fault" | b"weft-no-retry" => Self::VERDICT,
            b"grpc-status" => Self::GRPC_STATUS,
            octets if begins(octets, b"x-b3-") => Self::B3,
            octets if begins(octets, HOP_PREFIX.as_bytes()) => Self::HOP,
            _ => Self::OTHER,
        }
    }

    fn add(&mut self, others: Self) {
        self.0 |= others.0;
    }
}

const fn begins(octets: &[u8], prefix: &[u8]) -> bool {
    let mut at = 0;
    while at < prefix.len() && at < octets.len() && octets[at] == prefix[at] {
        at += 1;
    }
    at == prefix.len()
}

/// Names with values. A name may stand there several times (RFC 9110 5.3); its lines keep their order.
#[derive(Clone, Default)]
pub struct Fields {
    lines: Vec<Line>,
    /// What the lines are, and those that were taken away.
    kinds: Kinds,
}

/// What a field can be looked up by. Text must be in lower case.
pub trait FieldName {
    /// Whether it is this name.
    fn names(&self, name: &HeaderName) -> bool;
}

impl FieldName for HeaderName {
    fn names(&self, name: &HeaderName) -> bool {
        self == name
    }
}

impl FieldName for str {
    fn names(&self, name: &HeaderName) -> bool {
        self == name.as_str()
    }
}

impl Fields {
    /// None yet; allocates nothing.
    pub const fn new() -> Self {
        Self {
            lines: Vec::new(),
            kinds: Kinds::OTHER,
        }
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether there may be lines of one of these kinds; if not, there are none.
    pub fn may_have(&self, kinds: Kinds) -> bool {
        self.kinds.0 & kinds.0 != 0
    }

    /// The first value of this name.
    pub fn get(&self, name: &(impl FieldName + ?Sized)) -> Option<&FieldValue> {
        let (_, value) = self.lines.iter().find(|(known, _)| name.names(known))?;
        Some(value)
    }

    /// Every value of this name, in their order.
    pub fn get_all(&self, name: &(impl FieldName + ?Sized)) -> impl Iterator<Item = &FieldValue> {
        let same = move |(known, _): &&Line| name.names(known);
        self.lines.iter().filter(same).map(|(_, value)| value)
    }

    /// Whether the name is there.
    pub fn contains(&self, name: &(impl FieldName + ?Sized)) -> bool {
        self.get(name).is_some()
    }

    /// Adds a line at the end.
    pub fn append(&mut self, name: HeaderName, value: FieldValue) {
        let kind = Kinds::of(name.as_str());
        self.append_known(name, kind, value);
    }

    /// The same for a name that is known to be of this kind.
    pub fn append_known(&mut self, name: HeaderName, kind: Kinds, value: FieldValue) {
        self.kinds.add(kind);
        if self.lines.capacity() == 0 {
            let spare = SPARE.with_borrow_mut(Vec::pop);
            self.lines = spare.unwrap_or_else(|| Vec::with_capacity(USUAL));
        }
        self.lines.push((name, value));
    }

    /// Makes this the only line of its name: in the place of the first one, or at the end.
    pub fn set(&mut self, name: HeaderName, value: FieldValue) {
        let Some(first) = self.lines.iter().position(|(known, _)| *known == name) else {
            return self.append(name, value);
        };
        self.lines[first].1 = value;
        let mut index = 0;
        self.lines.retain(|(known, _)| {
            index += 1;
            index <= first + 1 || *known != name
        });
    }

    /// Takes away every line of this name; the first value is returned.
    pub fn remove(&mut self, name: &(impl FieldName + ?Sized)) -> Option<FieldValue> {
        let first = self.lines.iter().position(|(known, _)| name.names(known))?;
        let (_, value) = self.lines.remove(first);
        self.lines.retain(|(known, _)| !name.names(known));
        Some(value)
    }

    /// Keeps only the lines for which this holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&HeaderName, &FieldValue) -> bool) {
        self.lines.retain(|(name, value)| keep(name, value));
    }

    /// The lines in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &FieldValue)> {
        self.lines.iter().map(|(name, value)| (name, value))
    }

    /// The names of the lines, in their order.
    pub fn names(&self) -> impl Iterator<Item = &HeaderName> {
        self.lines.iter().map(|(name, _)| name)
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.lines == other.lines
    }
}

impl Eq for Fields {}

impl Drop for Fields {
    fn drop(&mut self) {
        if !(1..=SPARE_LINES_MAX).contains(&self.lines.capacity()) {
            return;
        }
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        // At the very end of a thread there is nothing left to keep them in.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(lines);
            }
        });
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Extend<(HeaderName, FieldValue)> for Fields {
    fn extend<T: IntoIterator<Item = (HeaderName, FieldValue)>>(&mut self, lines: T) {
        for (name, value) in lines {
            self.append(name, value);
        }
    }
}

impl<'f> IntoIterator for &'f Fields {
    type Item = (&'f HeaderName, &'f FieldValue);
    type IntoIter = std::iter::Map<std::slice::Iter<'f, Line>, fn(&'f Line) -> Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.lines.iter().map(|(name, value)| (name, value))
    }
}

impl FromIterator<(HeaderName, FieldValue)> for Fields {
    fn from_iter<T: IntoIterator<Item = (HeaderName, FieldValue)>>(lines: T) -> Self {
        let mut fields = Self::new();
        fields.extend(lines);
        fields
    }
}

/// As the crates have it that tests compare with.
#[cfg(test)]
impl From<&Fields> for http::HeaderMap {
    fn from(fields: &Fields) -> Self {
        let mut map = Self::new();
        for (name, value) in fields {
            let mut theirs = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            theirs.set_sensitive(value.is_sensitive());
            map.append(name, theirs);
        }
        map
    }
}

#[cfg(test)]
impl From<&http::HeaderMap> for Fields {
    fn from(map: &http::HeaderMap) -> Self {
        let lines = map
            .iter()
            .map(|(name, value)| (name.clone(), FieldValue::from(value)));
        lines.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        let line = |line: &str| {
            let (name, value) = line.split_once('=').unwrap();
            (name.parse().unwrap(), value.parse().unwrap())
        };
        text.split_whitespace().map(line).collect()
    }

    #[test]
    fn kinds_of_names() {
        let check = |name: &'static str, expect: Kinds| {
            let mut fields = Fields::new();
            fields.append(HeaderName::from_static(name), FieldValue::from_static("1"));
            let all = Kinds(u16::MAX);
            assert_eq!(fields.may_have(all), expect != Kinds::OTHER, "{name}");
            assert_eq!(fields.may_have(expect), expect != Kinds::OTHER, "{name}");
            assert!(!fields.may_have(Kinds(!expect.0)), "{name}");
        };
        check("te", Kinds::TE);
        check("host", Kinds::HOST);
        check("cookie", Kinds::COOKIE);
        check("content-type", Kinds::CONTENT_TYPE);
        check("content-length", Kinds::CONTENT_LENGTH);
        check("connection", Kinds::CONNECTION);
        check("keep-alive", Kinds::CONNECTION);
        check("proxy-connection", Kinds::CONNECTION);
        check("transfer-encoding", Kinds::CONNECTION);
        check("upgrade", Kinds::CONNECTION);
        check("traceparent", Kinds::TRACE);
        check("tracestate", Kinds::TRACE);
        check("b3", Kinds::B3);
        check("x-b3-flags", Kinds::B3);
        check("weft-hop-any", Kinds::HOP);
        check("weft-fault", Kinds::VERDICT);
        check("weft-no-retry", Kinds::VERDICT);
        check("grpc-status", Kinds::GRPC_STATUS);
        check("weft-hop", Kinds::OTHER);
        check("x-b3", Kinds::OTHER);
        check("accept", Kinds::OTHER);
    }

    #[test]
    fn lines_keep_their_order() {
        let check = |before: &str, change: fn(&mut Fields), expect: &str| {
            let mut seen = fields(before);
            change(&mut seen);
            assert_eq!(seen, fields(expect), "{before}");
        };
        let value = FieldValue::from_static;
        let x = || HeaderName::from_static("x");
        check(
            "",
            |f| f.set("x".parse().unwrap(), "9".parse().unwrap()),
            "x=9",
        );
        check(
            "a=1 x=2 b=3 x=4 c=5",
            |f| f.set("x".parse().unwrap(), "9".parse().unwrap()),
            "a=1 x=9 b=3 c=5",
        );
        check("a=1 x=2 b=3 x=4", |f| drop(f.remove("x")), "a=1 b=3");
        check("a=1", |f| drop(f.remove("x")), "a=1");
        check(
            "x=1 a=2 x=3",
            |f| f.retain(|_, value| value != "1"),
            "a=2 x=3",
        );
        let mut several = fields("x=1 a=2 x=3");
        assert_eq!(several.get_all("x").collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!(several.get(&x()), Some(&value("1")));
        assert_eq!(several.remove(&x()), Some(value("1")));
        assert!(!several.contains("x") && several.len() == 1 && !several.is_empty());
        assert_eq!(format!("{several:?}"), r#"{"a": "2"}"#);
    }
}
