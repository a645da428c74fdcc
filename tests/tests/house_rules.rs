//! The house rules, read from the sources: who imports whom, where protobuf and clocks may be, what
//! things may be called, and how long they may get. The reasons stand beside each table.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest file, its tests included; most are a third of this.
const FILE_LINES_MAX: usize = 650;
/// Length above which a function is an exception.
const FUNCTION_LINES_USUAL: usize = 70;
/// Longest exception, and how many of a thousand functions may be one.
const FUNCTION_LINES_MAX: usize = 120;
const FUNCTION_EXCEPTIONS_PER_MILLE: usize = 20;

/// A room and the rooms it may import; any room may import itself.
type Rooms = &'static [(&'static str, &'static [&'static str])];

/// From the top down. `app` puts everything together and nobody imports it; the two stories never
/// know each other; what decides (route, balance, authorization) knows plain data only, so that it
/// can be tested and asked without a network.
const PROXY: Rooms = &[
    (
        "app",
        &[
            "inbound",
            "outbound",
            "endpoint",
            "discovery",
            "ratelimit",
            "listener",
            "identity",
            "dns",
            "http",
            "tcp",
            "multiplex",
            "admin",
            "interception",
            "route",
            "balance",
            "admission",
            "authorization",
            "telemetry",
            "bootstrap",
            "model",
            "detect",
            "http1",
            "http2",
        ],
    ),
    (
        "inbound",
        &[
            "endpoint",
            "discovery",
            "ratelimit",
            "listener",
            "identity",
            "http",
            "tcp",
            "multiplex",
            "admission",
            "authorization",
            "telemetry",
            "bootstrap",
            "model",
            "detect",
            "http1",
            "http2",
        ],
    ),
    (
        "outbound",
        &[
            "endpoint",
            "discovery",
            "listener",
            "identity",
            "http",
            "tcp",
            "multiplex",
            "route",
            "balance",
            "telemetry",
            "bootstrap",
            "model",
            "detect",
            "http1",
            "http2",
        ],
    ),
    (
        "endpoint",
        &[
            "listener",
            "identity",
            "http",
            "tcp",
            "multiplex",
            "balance",
            "telemetry",
            "bootstrap",
            "model",
            "detect",
            "http1",
            "http2",
        ],
    ),
    (
        "discovery",
        &["identity", "telemetry", "bootstrap", "model"],
    ),
    // It speaks another protocol's protobuf, as discovery does ours.
    ("ratelimit", &["model"]),
    ("listener", &["telemetry", "bootstrap", "model", "detect"]),
    ("identity", &["telemetry", "bootstrap", "model"]),
    // DNS asks through a trait of its own, so it needs no discovery.
    ("dns", &["telemetry", "bootstrap", "model"]),
    // An upgraded request goes on as bytes, which is tcp's trade.
    (
        "http",
        &[
            "tcp",
            "multiplex",
            "telemetry",
            "bootstrap",
            "model",
            "detect",
            "http1",
            "http2",
        ],
    ),
    (
        "tcp",
        &[
            "multiplex",
            "telemetry",
            "bootstrap",
            "model",
            "detect",
            "http2",
        ],
    ),
    // Where the HTTP/2 engine meets a socket; streams of it are what http and tcp carry.
    ("multiplex", &["model", "http1", "http2"]),
    ("admin", &["telemetry", "bootstrap", "model"]),
    ("interception", &["bootstrap", "model"]),
    ("route", &["model"]),
    ("balance", &["model"]),
    // Which requests a limit is about is said as in routes.
    ("admission", &["route", "model"]),
    ("authorization", &["model"]),
    ("telemetry", &["bootstrap", "model"]),
    ("bootstrap", &["model"]),
    ("detect", &["model"]),
    ("http1", &["model"]),
    // Both engines refuse a head with the same word, `http1::Refusal`.
    ("http2", &["model", "http1"]),
    ("model", &[]),
];

/// A change walks down this list. `ca` stands alone; `cli` knows the resources and its own client.
const CONTROL_PLANE: Rooms = &[
    (
        "app",
        &[
            "grpc",
            "admin",
            "subscription",
            "compile",
            "registry",
            "store",
            "ca",
            "resource",
            "telemetry",
            "cli",
        ],
    ),
    ("cli", &["resource"]),
    (
        "grpc",
        &[
            "subscription",
            "compile",
            "registry",
            "store",
            "ca",
            "resource",
            "telemetry",
        ],
    ),
    (
        "admin",
        &["subscription", "registry", "store", "ca", "telemetry"],
    ),
    (
        "subscription",
        &["compile", "store", "registry", "resource", "telemetry"],
    ),
    // The endpoints that compile takes are plain values of the registry.
    ("compile", &["resource", "registry"]),
    ("registry", &["resource", "telemetry"]),
    ("store", &["resource", "telemetry"]),
    ("ca", &[]),
    ("resource", &[]),
    ("telemetry", &[]),
];

/// Where generated protobuf types may be named: the edges. Inside there are validated types only.
const PROTOBUF_EDGES: &[&str] = &[
    "proxy/src/discovery/",
    "proxy/src/identity/",
    "control-plane/src/grpc/",
    // Hands the generated servers to tonic.
    "control-plane/src/app.rs",
    "control-plane/src/cli/client.rs",
    "proto/",
    "proxy/src/ratelimit.rs",
];

/// Values in, values out: no sockets, no tasks, no clock.
const PURE_ROOMS: &[&str] = &[
    "proxy/src/route/",
    "proxy/src/authorization/",
    "proxy/src/http1/",
    "proxy/src/http2/",
    "proxy/src/model/",
    "control-plane/src/compile/",
    "control-plane/src/resource/",
];
const IMPURE: &[&str] = &[
    "tokio::",
    "Instant::now",
    "SystemTime::now",
    "std::net::Tcp",
];

/// A name that says nothing invites everything.
const FORBIDDEN_NAMES: &[&str] = &["manager", "handler", "helper", "util", "common", "misc"];

struct Source {
    /// From the workspace's root, with slashes.
    path: String,
    text: String,
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("tests/ lies in the root").to_owned()
}

/// Every Rust source of these crates.
fn sources(crates: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for name in crates {
        walk(&root().join(name).join("src"), &mut found);
    }
    assert!(!found.is_empty(), "no sources in {crates:?}");
    found
}

fn walk(directory: &Path, found: &mut Vec<Source>) {
    let entries =
        fs::read_dir(directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    for entry in entries {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("UTF-8");
            let relative = path.strip_prefix(root()).expect("below the root");
            let path = relative.to_string_lossy().replace('\\', "/");
            found.push(Source { path, text });
        }
    }
}

/// The text without what follows `//` on a line.
fn without_comments(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or("");
        let _ = writeln!(code, "{line}");
    }
    code
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The places where `word` stands for itself.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).filter_map(move |(at, _)| {
        let before = at.checked_sub(1).map(|i| text.as_bytes()[i]);
        let after = text.as_bytes().get(at + word.len()).copied();
        let alone = !before.is_some_and(is_word) && !after.is_some_and(is_word);
        alone.then_some(at)
    })
}

fn identifier(text: &str) -> &str {
    let end = text.bytes().position(|b| !is_word(b));
    &text[..end.unwrap_or(text.len())]
}

/// The first segments after a `path::`, a `{group}` opened.
fn heads(rest: &str) -> Vec<&str> {
    let Some(group) = rest.strip_prefix('{') else {
        return vec![identifier(rest)];
    };
    let (mut depth, mut start, mut found) = (0, true, Vec::new());
    for (at, byte) in group.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => break,
            b'}' => depth -= 1,
            b',' if depth == 0 => start = true,
            _ if start && is_word(byte) => {
                found.push(identifier(&group[at..]));
                start = false;
            }
            _ => {}
        }
    }
    found
}

/// The first names that a file takes from its crate's root.
fn imports(source: &Source, depth: usize) -> Vec<String> {
    let code = without_comments(&source.text);
    let mut found = Vec::new();
    for at in words(&code, "crate") {
        if let Some(rest) = code[at..].strip_prefix("crate::") {
            found.extend(heads(rest).into_iter().map(str::to_owned));
        }
    }
    // `super` as often as the file lies deep is the root too. Test modules are one deeper.
    let code = code.split("#[cfg(test)]").next().unwrap_or("");
    let to_root = "super::".repeat(depth);
    for at in words(code, "super") {
        let before = code[..at].ends_with("::");
        if let Some(rest) = code[at..].strip_prefix(&to_root).filter(|_| !before) {
            found.extend(heads(rest).into_iter().map(str::to_owned));
        }
    }
    found
}

/// Breaches of a crate's table of who imports whom.
fn import_breaches(name: &str, rooms: Rooms, sources: &[Source]) -> Vec<String> {
    let mut breaches = Vec::new();
    for source in sources {
        let inside = source.path.strip_prefix(&format!("{name}/src/"));
        let inside = inside.expect("of this crate");
        let room = inside
            .split('/')
            .next()
            .unwrap_or("")
            .trim_end_matches(".rs");
        if room == "main" || room == "lib" {
            continue;
        }
        let Some((_, allowed)) = rooms.iter().find(|(known, _)| *known == room) else {
            breaches.push(format!(
                "{}: the room `{room}` is not in the table",
                source.path
            ));
            continue;
        };
        let depth = inside.split('/').filter(|part| *part != "mod.rs").count();
        for import in imports(source, depth) {
            let is_room = rooms.iter().any(|(known, _)| *known == import);
            if is_room && import != room && !allowed.contains(&import.as_str()) {
                breaches.push(format!(
                    "{}: `{room}` must not import `{import}`",
                    source.path
                ));
            }
        }
    }
    breaches
}

#[track_caller]
fn none(breaches: &[String]) {
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn who_imports_whom() {
    let mut breaches = import_breaches("proxy", PROXY, &sources(&["proxy"]));
    breaches.extend(import_breaches(
        "control-plane",
        CONTROL_PLANE,
        &sources(&["control-plane"]),
    ));
    none(&breaches);
}

#[test]
fn a_breach_is_seen() {
    let check = |path: &str, text: &str, expect: usize| {
        let source = Source {
            path: path.to_owned(),
            text: text.to_owned(),
        };
        let seen = import_breaches("proxy", PROXY, &[source]);
        assert_eq!(seen.len(), expect, "{path}: {text}: {seen:?}");
    };
    check("proxy/src/route/mod.rs", "use crate::model::Route;", 0);
    check("proxy/src/route/mod.rs", "use crate::endpoint::Pool;", 1);
    check(
        "proxy/src/route/mod.rs",
        "use crate::{model::{Route, tcp}, tcp::{A, B}, http};",
        2,
    );
    check("proxy/src/route/mod.rs", "use super::tcp::Relay;", 1);
    check("proxy/src/route/select.rs", "use super::tcp;", 0);
    check(
        "proxy/src/route/select.rs",
        "use super::super::tcp::Relay;",
        1,
    );
    check(
        "proxy/src/inbound/mod.rs",
        "fn a() { crate::outbound::run() }",
        1,
    );
    check(
        "proxy/src/inbound/mod.rs",
        "// use crate::outbound::run;",
        0,
    );
    check("proxy/src/tcp/mod.rs", "use crate::app::App;", 1);
    check("proxy/src/cupboard/mod.rs", "", 1);
}

#[test]
fn neither_program_knows_the_other() {
    for (name, other) in [
        ("proxy", "weft.workspace"),
        ("control-plane", "weft-proxy.workspace"),
    ] {
        let manifest =
            fs::read_to_string(root().join(name).join("Cargo.toml")).expect("a manifest");
        let named = |line: &str| line.starts_with(other) || line.contains("path = \"../");
        let breaches: Vec<_> = manifest
            .lines()
            .filter(|l| named(l))
            .map(str::to_owned)
            .collect();
        none(&breaches);
    }
}

#[test]
fn protobuf_stops_at_the_edge() {
    let mut breaches = Vec::new();
    for source in sources(&["proxy", "control-plane"]) {
        let edge = PROTOBUF_EDGES
            .iter()
            .any(|edge| source.path.starts_with(edge));
        let code = without_comments(&source.text);
        let wire = |module: &str| {
            words(&code, module).next().is_some() && code.contains(&format!("weft_proto::{module}"))
        };
        if !edge && (wire("v1alpha1") || wire("ratelimit")) {
            breaches.push(format!("{}: protobuf inside", source.path));
        }
    }
    none(&breaches);
}

#[test]
fn what_is_pure_stays_pure() {
    let mut breaches = Vec::new();
    for source in sources(&["proxy", "control-plane"]) {
        // A test has to begin its time somewhere.
        let is_test = source.path.contains("/tests/") || source.path.ends_with("/tests.rs");
        let is_pure = PURE_ROOMS.iter().any(|room| source.path.starts_with(room));
        if is_pure && !is_test {
            let code = without_comments(&source.text);
            let seen = IMPURE.iter().filter(|word| code.contains(**word));
            breaches.extend(seen.map(|word| format!("{}: {word}", source.path)));
        }
    }
    none(&breaches);
}

#[test]
fn nothing_is_unsafe_or_left_open() {
    let mut breaches = Vec::new();
    for source in sources(&["proto", "proxy", "control-plane", "tests", "benches"]) {
        let code = without_comments(&source.text);
        for word in ["unsafe", "todo!", "unimplemented!"] {
            if code.contains(&format!("{word} ")) || code.contains(&format!("{word}(")) {
                breaches.push(format!("{}: {word}", source.path));
            }
        }
        for word in ["TODO", "FIXME", "XXX", "HACK"] {
            if words(&source.text, word).next().is_some() {
                breaches.push(format!("{}: {word}", source.path));
            }
        }
    }
    none(&breaches);
}

#[test]
fn names_say_something() {
    let mut breaches = Vec::new();
    for source in sources(&["proto", "proxy", "control-plane", "tests", "benches"]) {
        let forbidden = |name: &str| {
            let parts = name
                .split('_')
                .map(|p| p.trim_end_matches('s').to_ascii_lowercase());
            parts
                .into_iter()
                .any(|p| FORBIDDEN_NAMES.contains(&p.as_str()))
        };
        let parts = source.path.trim_end_matches(".rs").split('/');
        if parts.clone().any(forbidden) {
            breaches.push(format!("{}: its name says nothing", source.path));
        }
        for keyword in ["struct ", "enum ", "trait ", "mod ", "type "] {
            for (at, _) in source.text.match_indices(keyword) {
                let name = identifier(&source.text[at + keyword.len()..]);
                let declared = source.text[..at].ends_with(['\n', ' ', ')']);
                let last_word = FORBIDDEN_NAMES.iter().any(|forbidden| {
                    let lower = name.to_ascii_lowercase();
                    lower.trim_end_matches('s').ends_with(forbidden)
                });
                let starts_line = source.text[..at].lines().last().is_none_or(|line| {
                    line.trim().is_empty() || line.trim_start().starts_with("pub")
                });
                if declared && starts_line && last_word {
                    breaches.push(format!("{}: `{name}` says nothing", source.path));
                }
            }
        }
    }
    none(&breaches);
}

#[test]
fn limits_say_what_happens_at_them() {
    let mut breaches = Vec::new();
    for source in sources(&["proxy", "control-plane"]) {
        let lines: Vec<&str> = source.text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let declared = line
                .trim_start_matches("pub ")
                .trim_start_matches("pub(crate) ");
            let Some(rest) = declared.strip_prefix("const ") else {
                continue;
            };
            let name = identifier(rest);
            let limit = ["_MAX", "MAX_", "_LIMIT", "_TIMEOUT"]
                .iter()
                .any(|part| name.contains(part));
            let mut above = lines[..at]
                .iter()
                .rev()
                .skip_while(|line| line.starts_with("#["));
            let documented = above.next().is_some_and(|line| line.starts_with("///"));
            if limit && !documented {
                breaches.push(format!("{}:{}: `{name}` has no doc", source.path, at + 1));
            }
        }
    }
    none(&breaches);
}

#[test]
fn files_and_functions_stay_short() {
    let (mut breaches, mut long, mut functions) = (Vec::new(), Vec::new(), 0);
    for source in sources(&["proto", "proxy", "control-plane", "tests", "benches"]) {
        let lines: Vec<&str> = source.text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            breaches.push(format!("{}: {} lines", source.path, lines.len()));
        }
        for (at, length) in function_lengths(&lines) {
            functions += 1;
            let place = format!("{}:{}: {length} lines", source.path, at + 1);
            if length > FUNCTION_LINES_MAX {
                breaches.push(place);
            } else if length > FUNCTION_LINES_USUAL {
                long.push(place);
            }
        }
    }
    if long.len() * 1000 > functions * FUNCTION_EXCEPTIONS_PER_MILLE {
        breaches.push(format!("{} of {functions} functions are long:", long.len()));
        breaches.extend(long);
    }
    none(&breaches);
}

/// Where each function begins and how many lines it has; rustfmt closes it at its own indentation.
fn function_lengths(lines: &[&str]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indentation = &line[..line.len() - code.len()];
        let qualifiers = ["pub ", "pub(crate) ", "pub(super) ", "const ", "async "];
        let mut rest = code;
        while let Some(next) = qualifiers.iter().find_map(|q| rest.strip_prefix(q)) {
            rest = next;
        }
        if !rest.starts_with("fn ") || code.ends_with(['}', ';']) {
            continue;
        }
        let close = format!("{indentation}}}");
        if let Some(length) = lines[at..].iter().position(|line| **line == close) {
            found.push((at, length + 1));
        }
    }
    found
}
