//! What a rule changes about a request or its answer (Gateway API, HTTPRouteFilter).

use http::{HeaderName, StatusCode};

use super::{FieldValue, ServicePort, Text};

/// One filter of a rule or of one of its backends.
#[derive(Clone, Debug)]
pub enum Filter {
    RequestHeaders(HeaderModifier),
    ResponseHeaders(HeaderModifier),
    Redirect(Box<Redirect>),
    Rewrite(Rewrite),
    Mirror(Mirror),
    Cors(Box<Cors>),
}

/// First `set`, then `add`, then `remove`; no name is in two of them.
#[derive(Clone, Debug, Default)]
pub struct HeaderModifier {
    pub set: Vec<(HeaderName, FieldValue)>,
    pub add: Vec<(HeaderName, FieldValue)>,
    pub remove: Vec<HeaderName>,
}

/// The answer sends the client elsewhere. What is absent stays as in the request.
#[derive(Clone, Debug)]
pub struct Redirect {
    pub scheme: Option<Text>,
    pub hostname: Option<Text>,
    pub path: Option<PathModifier>,
    /// Absent: the scheme's own where `scheme` is given, else the service's.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

/// The backend gets another host or path than the client asked for.
#[derive(Clone, Debug)]
pub struct Rewrite {
    pub hostname: Option<Text>,
    pub path: Option<PathModifier>,
}

/// How a path becomes another; the query stays.
#[derive(Clone, Debug)]
pub enum PathModifier {
    Full(Text),
    /// In the place of the prefix that the rule matched.
    Prefix(Text),
}

/// Requests are sent to this cluster too, and its answers are thrown away.
#[derive(Clone, Debug)]
pub struct Mirror {
    pub cluster: ServicePort,
    /// Why the reference doesn't resolve; nothing is mirrored then.
    pub invalid: Option<String>,
    /// This many of [`denominator`](Self::denominator) requests.
    pub numerator: u32,
    /// Never 0.
    pub denominator: u32,
}

/// The answers that browsers ask for (GEP-1767, Fetch standard "HTTP-CORS protocol"). A list may hold
/// `*`, which means any.
#[derive(Clone, Debug, Default)]
pub struct Cors {
    pub allow_origins: Vec<OriginMatch>,
    pub allow_credentials: bool,
    pub allow_methods: Vec<String>,
    pub allow_headers: Vec<String>,
    pub expose_headers: Vec<String>,
    pub max_age_seconds: u32,
}

/// An origin that may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginMatch {
    Any,
    /// `SCHEME://HOST[:PORT]`, in lower case.
    Exact(String),
    /// `SCHEME://*.HOST[:PORT]`: any number of labels in the place of the star.
    Below {
        /// `https://`
        scheme: String,
        /// `.example.com:8443`
        suffix: String,
    },
}

impl Filter {
    /// What it does, in words for people.
    pub fn describe(&self) -> Vec<String> {
        match self {
            Self::RequestHeaders(modifier) => modifier.describe("request"),
            Self::ResponseHeaders(modifier) => modifier.describe("response"),
            Self::Redirect(redirect) => vec![format!("redirect with {}", redirect.status.as_u16())],
            Self::Rewrite(rewrite) => rewrite.describe(),
            Self::Mirror(mirror) => vec![mirror.describe()],
            Self::Cors(_) => vec!["cross-origin requests are answered for (CORS)".to_owned()],
        }
    }
}

impl HeaderModifier {
    fn describe(&self, of: &str) -> Vec<String> {
        let shown = |value: &FieldValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let set = self.set.iter();
        let set = set.map(|(name, value)| format!("{of} header {name} is set to {}", shown(value)));
        let add = self.add.iter();
        let add = add.map(|(name, value)| format!("{of} header {name}: {} is added", shown(value)));
        let remove = self.remove.iter();
        let remove = remove.map(|name| format!("{of} header {name} is removed"));
        set.chain(add).chain(remove).collect()
    }
}

impl Rewrite {
    fn describe(&self) -> Vec<String> {
        let hostname = self.hostname.iter();
        let hostname = hostname.map(|name| format!("host becomes {name}"));
        let path = self.path.iter().map(|path| match path {
            PathModifier::Full(path) => format!("path becomes {path}"),
            PathModifier::Prefix(path) => format!("path prefix becomes {path:?}"),
        });
        hostname.chain(path).collect()
    }
}

impl Mirror {
    fn describe(&self) -> String {
        let share = 100.0 * f64::from(self.numerator) / f64::from(self.denominator);
        match &self.invalid {
            None => format!("mirrored to {} ({share} %)", self.cluster),
            Some(reason) => format!("not mirrored to {}: {reason}", self.cluster),
        }
    }
}
