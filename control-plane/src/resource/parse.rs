//! From the bytes of files to resources and problems.

use std::collections::BTreeMap;
use std::fmt;

use super::fields::{Field, FieldProblem, Findings};
use super::tree::{self, Node, Value};
use super::{
    Key, Kind, Resource, RouteKind, backend_tls_policy, backend_traffic_policy, config_map,
    endpoint_slice, fault_injection_policy, inbound_policy, metadata, outbound_policy,
    reference_grant, route, service, traffic_policy,
};

/// Bytes that one file may have; a larger one is refused before it is read.
pub const SOURCE_BYTES_MAX: usize = 4 << 20;

/// Bytes that the files of one apply may have together; more are refused.
pub const SOURCES_BYTES_MAX: usize = 16 << 20;

/// Problems that are told; what comes after is left out.
pub const PROBLEMS_MAX: usize = 100;

/// A file as it was read.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the user named it, `-` for standard input.
    pub name: String,
    pub content: Vec<u8>,
}

/// Where a resource was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub file: String,
    /// From 1.
    pub document: u32,
    /// Of the document's first line, from 1.
    pub line: u32,
}

/// Something that is wrong with a document, or a notice about one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problem {
    pub file: String,
    /// From 1; 0 when the problem is the whole file's.
    pub document: u32,
    /// The object, as far as the document says which.
    pub object: Option<Key>,
    /// `spec.ports[0].port`; empty when the problem is the whole document's.
    pub field: String,
    pub reason: String,
    /// From 1; 0 when unknown.
    pub line: u32,
}

/// What is in a set of files. When there are problems nothing of it may be applied.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    pub resources: Vec<(Origin, Resource)>,
    /// Notices: documents and references of kinds that weft leaves alone.
    pub skipped: Vec<Problem>,
    pub problems: Vec<Problem>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if self.document > 0 {
            write!(f, ": document {}", self.document)?;
        }
        if let Some(object) = &self.object {
            write!(f, " ({object})")?;
        }
        if !self.field.is_empty() {
            write!(f, ": {}", self.field)?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Parses and validates every document of every source. Documents without a namespace get
/// `default_namespace`.
pub fn parse(sources: &[Source], default_namespace: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let bytes: usize = sources.iter().map(|source| source.content.len()).sum();
    if bytes > SOURCES_BYTES_MAX {
        parsed.problems.push(Problem {
            file: sources[0].name.clone(),
            reason: format!(
                "the files have {bytes} bytes together, at most {SOURCES_BYTES_MAX} are taken at once"
            ),
            ..Problem::default()
        });
        return parsed;
    }
    for source in sources {
        parse_source(source, default_namespace, &mut parsed);
    }
    refuse_duplicates(&mut parsed);
    parsed.problems.truncate(PROBLEMS_MAX);
    parsed
}

fn parse_source(source: &Source, default_namespace: &str, parsed: &mut Parsed) {
    let whole_file = |document, line, reason| Problem {
        file: source.name.clone(),
        document,
        line,
        reason,
        ..Problem::default()
    };
    let size = source.content.len();
    if size > SOURCE_BYTES_MAX {
        let reason = format!("{size} bytes, at most {SOURCE_BYTES_MAX} are taken; split the file");
        parsed.problems.push(whole_file(0, 0, reason));
        return;
    }
    let text = match std::str::from_utf8(&source.content) {
        Ok(text) => text,
        Err(error) => {
            let before = &source.content[..error.valid_up_to()];
            let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
            let line = u32::try_from(line).unwrap_or_default();
            let reason = "neither YAML nor JSON: not UTF-8".to_owned();
            parsed.problems.push(whole_file(0, line, reason));
            return;
        }
    };
    let (documents, broken) = tree::read(text);
    for (number, node) in &documents {
        Reader {
            origin: Origin {
                file: source.name.clone(),
                document: *number,
                line: node.line,
            },
            default_namespace,
            parsed,
        }
        .document(node);
    }
    if let Some(broken) = broken {
        let reason = format!("neither YAML nor JSON that weft takes: {}", broken.reason);
        let problem = whole_file(broken.document, broken.line, reason);
        parsed.problems.push(problem);
    }
}

/// Reads one document of a file into [`Parsed`].
struct Reader<'a> {
    origin: Origin,
    default_namespace: &'a str,
    parsed: &'a mut Parsed,
}

/// What a document's `apiVersion` and `kind` make of it.
enum Sort {
    Ours(Kind),
    List,
    Foreign,
    Refused { field: &'static str, reason: String },
}

impl Reader<'_> {
    fn document(&mut self, node: &Node) {
        match &node.value {
            Value::Null => {}
            Value::Mapping(_) => self.object(node, "", true),
            other => {
                let found = other.describe();
                let reason = format!("a document must be a mapping, not {found}");
                self.problem("", reason, node.line);
            }
        }
    }

    fn object(&mut self, node: &Node, path: &str, may_be_list: bool) {
        let text = |key| node.get(key).and_then(Node::as_str).unwrap_or_default();
        match sort(text("apiVersion"), text("kind")) {
            Sort::Ours(Kind::ConfigMap) if !config_map::holds_ca(node) => {
                self.skip(node, path, "a ConfigMap without ca.crt, left alone");
            }
            Sort::Ours(kind) => self.resource(kind, node, path),
            Sort::List if may_be_list => match node.get("items").map(|items| &items.value) {
                Some(Value::Sequence(items)) => {
                    for (index, item) in items.iter().enumerate() {
                        self.object(item, &format!("items[{index}]"), false);
                    }
                }
                _ => self.problem("items", "must be a list".to_owned(), node.line),
            },
            Sort::List => self.problem(path, "a List in a List".to_owned(), node.line),
            Sort::Foreign => self.skip(node, path, "not a kind of the mesh, left alone"),
            Sort::Refused { field, reason } => {
                let field = if path.is_empty() {
                    field.to_owned()
                } else {
                    format!("{path}.{field}")
                };
                self.problem(&field, reason, node.line);
            }
        }
    }

    /// Says that a document is none of ours.
    fn skip(&mut self, node: &Node, path: &str, why: &str) {
        let kind = node.get("kind").and_then(Node::as_str).unwrap_or_default();
        let name = node
            .get("metadata")
            .and_then(|metadata| metadata.get("name"));
        let name = name.and_then(Node::as_str).unwrap_or_default();
        let reason = format!("{kind} {name}: {why}");
        let notice = self.finding(None, path.to_owned(), reason, node.line);
        self.parsed.skipped.push(notice);
    }

    fn resource(&mut self, kind: Kind, node: &Node, path: &str) {
        let findings = Findings::default();
        let decoded = decode(
            kind,
            &Field::root(node, path, &findings),
            self.default_namespace,
        );
        let object = object_key(kind, node, self.default_namespace);
        let add = |into: Vec<FieldProblem>| -> Vec<Problem> {
            into.into_iter()
                .map(|found| self.finding(object.clone(), found.field, found.reason, found.line))
                .collect()
        };
        let notices = add(findings.notices.into_inner());
        let problems = add(findings.problems.into_inner());
        self.parsed.skipped.extend(notices);
        if let (Some(resource), true) = (decoded, problems.is_empty()) {
            let origin = Origin {
                line: node.line,
                ..self.origin.clone()
            };
            self.parsed.resources.push((origin, resource));
        }
        self.parsed.problems.extend(problems);
    }

    fn problem(&mut self, field: &str, reason: String, line: u32) {
        let problem = self.finding(None, field.to_owned(), reason, line);
        self.parsed.problems.push(problem);
    }

    fn finding(&self, object: Option<Key>, field: String, reason: String, line: u32) -> Problem {
        Problem {
            file: self.origin.file.clone(),
            document: self.origin.document,
            object,
            field,
            reason,
            line,
        }
    }
}

/// Reads a document of a kind that is ours.
fn decode(kind: Kind, field: &Field<'_>, default_namespace: &str) -> Option<Resource> {
    let mut fields = field.mapping()?;
    fields.ignore(&["apiVersion", "kind", "status"]);
    let metadata = metadata::decode(kind, &mut fields, default_namespace);
    // The rest is read also where the metadata is wrong, to find all problems at once.
    let stand_in = metadata.clone().unwrap_or_default();
    let resource = match kind {
        Kind::Service => service::decode(stand_in, &mut fields).map(Resource::Service),
        Kind::EndpointSlice => {
            endpoint_slice::decode(stand_in, &mut fields).map(Resource::EndpointSlice)
        }
        Kind::BackendTlsPolicy => {
            backend_tls_policy::decode(stand_in, &mut fields).map(Resource::BackendTlsPolicy)
        }
        Kind::ConfigMap => config_map::decode(stand_in, &mut fields).map(Resource::ConfigMap),
        Kind::BackendTrafficPolicy => backend_traffic_policy::decode(stand_in, &mut fields)
            .map(Resource::BackendTrafficPolicy),
        Kind::TrafficPolicy => {
            traffic_policy::decode(stand_in, &mut fields).map(Resource::TrafficPolicy)
        }
        Kind::FaultInjectionPolicy => fault_injection_policy::decode(stand_in, &mut fields)
            .map(Resource::FaultInjectionPolicy),
        Kind::InboundPolicy => {
            inbound_policy::decode(stand_in, &mut fields).map(Resource::InboundPolicy)
        }
        Kind::OutboundPolicy => {
            outbound_policy::decode(stand_in, &mut fields).map(Resource::OutboundPolicy)
        }
        Kind::ReferenceGrant => {
            reference_grant::decode(stand_in, &mut fields).map(Resource::ReferenceGrant)
        }
        Kind::HttpRoute => {
            route::decode(RouteKind::Http, stand_in, &mut fields).map(Resource::Route)
        }
        Kind::GrpcRoute => {
            route::decode(RouteKind::Grpc, stand_in, &mut fields).map(Resource::Route)
        }
        Kind::TlsRoute => route::decode(RouteKind::Tls, stand_in, &mut fields).map(Resource::Route),
        Kind::TcpRoute => route::decode(RouteKind::Tcp, stand_in, &mut fields).map(Resource::Route),
    };
    fields.finish();
    metadata.and(resource)
}

/// The object that a document is about, as far as it says so.
fn object_key(kind: Kind, node: &Node, default_namespace: &str) -> Option<Key> {
    let metadata = node.get("metadata")?;
    let namespace = metadata.get("namespace").and_then(Node::as_str);
    let name = metadata.get("name").and_then(Node::as_str)?;
    Some(Key::new(kind, namespace.unwrap_or(default_namespace), name))
}

fn sort(api_version: &str, kind: &str) -> Sort {
    let refused = |field, reason| Sort::Refused { field, reason };
    if api_version.is_empty() {
        return refused("apiVersion", "is required, and must be a string".to_owned());
    }
    if kind.is_empty() {
        return refused("kind", "is required, and must be a string".to_owned());
    }
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    if group.is_empty() && kind == "List" {
        return Sort::List;
    }
    let served: &[&str] = match (group, kind) {
        ("", "Service" | "ConfigMap") => &["v1"],
        ("discovery.k8s.io", "EndpointSlice") => &["v1", "v1beta1"],
        ("gateway.networking.k8s.io", "HTTPRoute" | "ReferenceGrant") => &["v1", "v1beta1"],
        ("gateway.networking.k8s.io", "GRPCRoute" | "TCPRoute") => &["v1", "v1alpha2"],
        ("gateway.networking.x-k8s.io", "XBackendTrafficPolicy") => &["v1alpha1"],
        ("weft.dev", "OutboundPolicy" | "TrafficPolicy") => &["v1alpha1"],
        ("weft.dev", "FaultInjectionPolicy" | "InboundPolicy") => &["v1alpha1"],
        ("gateway.networking.k8s.io", "BackendTLSPolicy") => &["v1", "v1alpha3"],
        ("gateway.networking.k8s.io", "TLSRoute") => &["v1", "v1alpha3", "v1alpha2"],
        ("gateway.networking.k8s.io", "Gateway" | "GatewayClass" | "ListenerSet" | "UDPRoute")
        | ("gateway.networking.x-k8s.io", "XListenerSet" | "XMesh") => return Sort::Foreign,
        ("weft.dev" | "gateway.networking.k8s.io" | "gateway.networking.x-k8s.io", _) => {
            let reason = format!("{kind} ({group}) is not supported yet by this version of weft");
            return refused("kind", reason);
        }
        _ => return Sort::Foreign,
    };
    match Kind::parse(kind) {
        Some(kind) if served.contains(&version) => Sort::Ours(kind),
        _ => {
            let wanted = if group.is_empty() {
                served[0].to_owned()
            } else {
                format!("{group}/{}", served[0])
            };
            refused(
                "apiVersion",
                format!("{api_version:?} is not served for {kind}: write {wanted}"),
            )
        }
    }
}

fn refuse_duplicates(parsed: &mut Parsed) {
    let mut seen: BTreeMap<Key, Origin> = BTreeMap::new();
    for (origin, resource) in &parsed.resources {
        let key = resource.key();
        match seen.get(&key) {
            None => {
                seen.insert(key, origin.clone());
            }
            Some(first) => parsed.problems.push(Problem {
                file: origin.file.clone(),
                document: origin.document,
                object: Some(key),
                field: "metadata.name".to_owned(),
                reason: format!(
                    "the same object is in {}, document {}, line {}",
                    first.file, first.document, first.line
                ),
                line: origin.line,
            }),
        }
    }
}

/// Reads back a document that [`Resource::to_json`] made.
pub fn from_stored(text: &str) -> Result<Resource, String> {
    let source = Source {
        name: String::new(),
        content: text.as_bytes().to_vec(),
    };
    let mut parsed = parse(&[source], "");
    match (parsed.resources.pop(), parsed.problems.first()) {
        (Some((_, resource)), None) => Ok(resource),
        (_, Some(problem)) => Err(format!("{}: {}", problem.field, problem.reason)),
        (None, None) => Err("no document of a kind known here".to_owned()),
    }
}
