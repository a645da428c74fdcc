//! The static table (RFC 7541 Appendix A), and what is known of names when they are sent.

use http::HeaderName;

use super::lookup::hash;
use super::{ENTRY_OVERHEAD, Field, Name};
use crate::model::{FieldValue, Kinds};

/// What to do with the values of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// One that repeats belongs into the table.
    Usual,
    /// The next one is another, so none does.
    Changing,
    /// None may be guessed with the help of the table (RFC 7541 7.1.3).
    Secret,
    /// A short one is a secret, because it could be guessed; a long one is not.
    Cookie,
}

use Policy::{Changing, Cookie, Secret, Usual};

/// An entry of the static table.
pub(super) struct StaticEntry {
    pub(super) name: &'static str,
    value: &'static str,
    pub(super) field: Field,
    /// See RFC 7541 4.1.
    pub(super) size: usize,
    pub(super) policy: Policy,
}

const fn pseudo(kind: Name, name: &'static str, value: &'static str) -> StaticEntry {
    of(kind, name, value, Usual)
}

const fn line(name: &'static str, value: &'static str, policy: Policy) -> StaticEntry {
    let kind = Name::Regular(HeaderName::from_static(name), Kinds::of(name));
    of(kind, name, value, policy)
}

const fn of(kind: Name, name: &'static str, value: &'static str, policy: Policy) -> StaticEntry {
    StaticEntry {
        name,
        value,
        field: Field {
            name: kind,
            value: FieldValue::from_static(value),
        },
        size: name.len() + value.len() + ENTRY_OVERHEAD,
        policy,
    }
}

/// The entries, from index 1 on.
pub(super) static ENTRIES: [StaticEntry; 61] = [
    pseudo(Name::Authority, ":authority", ""),
    pseudo(Name::Method, ":method", "GET"),
    pseudo(Name::Method, ":method", "POST"),
    pseudo(Name::Path, ":path", "/"),
    pseudo(Name::Path, ":path", "/index.html"),
    pseudo(Name::Scheme, ":scheme", "http"),
    pseudo(Name::Scheme, ":scheme", "https"),
    pseudo(Name::Status, ":status", "200"),
    pseudo(Name::Status, ":status", "204"),
    pseudo(Name::Status, ":status", "206"),
    pseudo(Name::Status, ":status", "304"),
    pseudo(Name::Status, ":status", "400"),
    pseudo(Name::Status, ":status", "404"),
    pseudo(Name::Status, ":status", "500"),
    line("accept-charset", "", Usual),
    line("accept-encoding", "gzip, deflate", Usual),
    line("accept-language", "", Usual),
    line("accept-ranges", "", Usual),
    line("accept", "", Usual),
    line("access-control-allow-origin", "", Usual),
    line("age", "", Changing),
    line("allow", "", Usual),
    line("authorization", "", Secret),
    line("cache-control", "", Usual),
    line("content-disposition", "", Usual),
    line("content-encoding", "", Usual),
    line("content-language", "", Usual),
    line("content-length", "", Changing),
    line("content-location", "", Usual),
    line("content-range", "", Changing),
    line("content-type", "", Usual),
    line("cookie", "", Cookie),
    line("date", "", Changing),
    line("etag", "", Changing),
    line("expect", "", Usual),
    line("expires", "", Changing),
    line("from", "", Usual),
    line("host", "", Usual),
    line("if-match", "", Changing),
    line("if-modified-since", "", Changing),
    line("if-none-match", "", Changing),
    line("if-range", "", Changing),
    line("if-unmodified-since", "", Changing),
    line("last-modified", "", Changing),
    line("link", "", Usual),
    line("location", "", Usual),
    line("max-forwards", "", Usual),
    line("proxy-authenticate", "", Usual),
    line("proxy-authorization", "", Secret),
    line("range", "", Usual),
    line("referer", "", Usual),
    line("refresh", "", Usual),
    line("retry-after", "", Usual),
    line("server", "", Usual),
    line("set-cookie", "", Changing),
    line("strict-transport-security", "", Usual),
    line("transfer-encoding", "", Usual),
    line("user-agent", "", Usual),
    line("vary", "", Usual),
    line("via", "", Usual),
    line("www-authenticate", "", Usual),
];

/// Names outside the static table whose values change with each message.
const ALSO_CHANGING: [&str; 9] = [
    "b3",
    "grpc-timeout",
    "traceparent",
    "tracestate",
    "x-amzn-trace-id",
    "x-b3-parentspanid",
    "x-b3-spanid",
    "x-b3-traceid",
    "x-request-id",
];

/// Places for names; a power of two, so few share one that no search is long.
const PLACES: usize = 256;

/// The names above by their hashes: the index of a name's first entry, or where it stands behind the
/// table; zero is a free place.
static PLACED: [u8; PLACES] = place_names();

const fn place_names() -> [u8; PLACES] {
    let mut places = [0; PLACES];
    let mut index = 1;
    while index <= ENTRIES.len() + ALSO_CHANGING.len() {
        let octets = text(index).as_bytes();
        if octets[0] != b':' {
            let mut place = hash(0, octets) as usize % PLACES;
            while places[place] != 0 {
                place = (place + 1) % PLACES;
            }
            places[place] = index as u8;
        }
        index += 1;
    }
    places
}

const fn text(index: usize) -> &'static str {
    if index <= ENTRIES.len() {
        ENTRIES[index - 1].name
    } else {
        ALSO_CHANGING[index - 1 - ENTRIES.len()]
    }
}

/// What is known of a regular name, given its hash: its index, if it has one, and its policy.
pub(super) fn known(name: &str, hash: u32) -> (Option<usize>, Policy) {
    let mut place = hash as usize % PLACES;
    loop {
        match usize::from(PLACED[place]) {
            0 => return (None, Usual),
            index if text(index) == name => {
                return match ENTRIES.get(index - 1) {
                    Some(line) => (Some(index), line.policy),
                    None => (None, Changing),
                };
            }
            _ => place = (place + 1) % PLACES,
        }
    }
}

/// The index of the entry with this value among those with the name whose first entry is `first`.
pub(super) fn find(first: usize, value: &[u8]) -> Option<usize> {
    let name = text(first);
    let same = ENTRIES
        .iter()
        .skip(first - 1)
        .take_while(|line| line.name == name);
    let mut values = same.map(|line| line.value.as_bytes());
    values
        .position(|known| known == value)
        .map(|place| first + place)
}
