//! Inputs that the benchmarks share: what a sidecar sees on an ordinary day.

use bytes::Bytes;
use http::{HeaderName, Method, Version};
use weft_proxy::model::{
    Endpoint, FieldValue, Fields, HeaderMatch, PathMatch, RequestHead, Route, RouteMatch, Rule,
    ServicePort, Sidecar, Text, TextMatch, WeightedCluster,
};

/// The fields that a browser's call carries by the time it reaches a sidecar, beside its Host.
pub const FIELDS: [(&str, &str); 12] = [
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.8"),
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0 Safari/537.36",
    ),
    (
        "authorization",
        "Bearer eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.NHVaYe26MbtOYhSKkoKYdFVomg4i8ZJd",
    ),
    ("cookie", "session=4f9c2d7ab81e4a0f; theme=dark"),
    ("cache-control", "no-cache"),
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("x-request-id", "5f0c3b1e-0a55-4c2e-9f3e-1d2c3b4a5f60"),
    (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    ("x-tenant", "t-0"),
];

/// The fields of a unary gRPC call.
pub const GRPC_FIELDS: [(&str, &str); 5] = [
    ("content-type", "application/grpc"),
    ("user-agent", "grpc-go/1.68.0"),
    ("te", "trailers"),
    ("grpc-timeout", "1S"),
    (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
];

/// Header fields as heads carry them.
pub fn fields(of: &[(&'static str, &'static str)]) -> Fields {
    let pairs = of.iter().map(|(name, value)| {
        let name = HeaderName::from_static(name);
        (name, FieldValue::from_static(value))
    });
    pairs.collect()
}

/// A GET with [`FIELDS`].
pub fn request(path: &str) -> RequestHead {
    RequestHead {
        method: Method::GET,
        scheme: Some(Text::from_static("http")),
        authority: Some(Text::from_static("orders.shop")),
        path: Text::try_from(path).unwrap_or_default(),
        version: Version::HTTP_11,
        upgrade: None,
        headers: fields(&FIELDS),
    }
}

/// A unary gRPC call.
pub fn grpc_request() -> RequestHead {
    RequestHead {
        method: Method::POST,
        path: Text::from_static("/shop.v1.Orders/Get"),
        version: Version::HTTP_2,
        headers: fields(&GRPC_FIELDS),
        ..request("")
    }
}

/// The same GET as HTTP/1.1 on the wire.
pub fn request_on_the_wire(path: &str) -> Bytes {
    let mut text = format!("GET {path} HTTP/1.1\r\nHost: orders.shop\r\n");
    for (name, value) in FIELDS {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into()
}

/// By what the rules of a route differ.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// `/orders/N`, exactly.
    Exact,
    /// Everything below `/tenants/N/orders`.
    Prefix,
    /// All below `/api`, each with another value of `x-tenant`.
    Header,
    /// `/users/N/[0-9]+`, as a regular expression.
    Regex,
}

impl Shape {
    pub const ALL: [Self; 4] = [Self::Exact, Self::Prefix, Self::Header, Self::Regex];

    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Prefix => "prefix",
            Self::Header => "header",
            Self::Regex => "regex",
        }
    }

    fn matches(self, number: usize) -> RouteMatch {
        let path = match self {
            Self::Exact => PathMatch::Exact(format!("/orders/{number:05}")),
            Self::Prefix => PathMatch::Prefix(format!("/tenants/{number:05}/orders")),
            Self::Header => PathMatch::Prefix("/api".to_owned()),
            Self::Regex => {
                let pattern = format!("^(?:/users/{number:05}/[0-9]+)$");
                PathMatch::Regex(pattern.parse().expect("a regular expression"))
            }
        };
        let headers = match self {
            Self::Header => vec![HeaderMatch {
                name: HeaderName::from_static("x-tenant"),
                value: TextMatch::Exact(format!("t-{number:05}")),
            }],
            Self::Exact | Self::Prefix | Self::Regex => Vec::new(),
        };
        RouteMatch {
            path: Some(path),
            headers,
            ..RouteMatch::default()
        }
    }

    /// A request that only rule `number` matches; as long as any other rule's, so that how many there are is the only
    /// difference between routes.
    pub fn request(self, number: usize) -> RequestHead {
        let path = match self {
            Self::Exact => format!("/orders/{number:05}?expand=lines"),
            Self::Prefix => format!("/tenants/{number:05}/orders/17/lines?page=2"),
            Self::Header => "/api/orders/17".to_owned(),
            Self::Regex => format!("/users/{number:05}/17"),
        };
        let mut head = request(&path);
        if let (Self::Header, Ok(tenant)) = (self, format!("t-{number:05}").parse()) {
            head.headers
                .set(HeaderName::from_static("x-tenant"), tenant);
        }
        head
    }
}

/// A route of `count` rules.
pub fn route(shape: Shape, count: usize) -> Route {
    let cluster = port("shop/orders:80");
    let rules = (0..count).map(|number| Rule {
        route: "HTTPRoute/shop/orders".into(),
        hop_route: Text::default(),
        rule: number as u32,
        rule_name: None,
        match_index: 0,
        matches: shape.matches(number),
        filters: Vec::new(),
        request_timeout: None,
        backend_request_timeout: None,
        retry: None,
        session: None,
        faults: Default::default(),
        backends: vec![WeightedCluster {
            cluster: cluster.clone(),
            weight: 1,
            invalid: None,
            filters: Vec::new(),
        }],
    });
    Route {
        name: cluster.clone(),
        protocol: None,
        rules: rules.collect::<Vec<_>>().into(),
        default_cluster: cluster.clone(),
        tls_rules: Vec::new(),
        tcp: None,
    }
}

/// The port of a service, from `NAMESPACE/NAME:PORT`.
pub fn port(text: &str) -> ServicePort {
    text.parse().expect("the name of a service's port")
}

/// An endpoint behind its sidecar.
pub fn endpoint(number: usize) -> Endpoint {
    let ip = format!("10.1.{}.{}", number / 250, number % 250);
    let ip = ip.parse().expect("an IP");
    Endpoint {
        id: format!("orders-{number:05}:8080").into(),
        address: std::net::SocketAddr::new(ip, 8080),
        weight: 1,
        zone: "".into(),
        workload: "orders".into(),
        namespace: "shop".into(),
        sidecar: Some(Sidecar {
            spiffe_id: "spiffe://weft.local/ns/shop/sa/orders"
                .parse()
                .expect("an ID"),
            instance: Text::try_from(format!("orders-{number:05}").as_str()).unwrap_or_default(),
            address: std::net::SocketAddr::new(ip, 4143),
        }),
    }
}
