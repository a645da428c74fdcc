//! The spans of a trace as a tree.

use std::collections::BTreeMap;
use std::fmt;

/// One side of one hop.
#[derive(Clone, Debug, Default)]
pub(super) struct Span {
    pub service: String,
    pub name: String,
    pub id: String,
    /// Empty, or of a span that nobody exported: a root.
    pub parent: String,
    pub start_nanoseconds: u64,
    pub end_nanoseconds: u64,
    /// Of the side that was called; otherwise of the one that calls.
    pub server: bool,
    pub attributes: BTreeMap<String, String>,
}

impl Span {
    /// The SPIFFE ID of the other side, as this side authenticated it.
    fn peer(&self) -> Option<String> {
        let ids = self.attributes.values();
        ids.into_iter()
            .find(|value| value.starts_with("spiffe://"))
            .cloned()
    }

    fn milliseconds(&self) -> f64 {
        let nanoseconds = self.end_nanoseconds.saturating_sub(self.start_nanoseconds);
        std::time::Duration::from_nanos(nanoseconds).as_secs_f64() * 1000.0
    }
}

/// One sidecar calling another, by the identities that each authenticated of the other.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub caller: String,
    pub called: String,
}

impl fmt::Display for Hop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { caller, called } = self;
        write!(
            f,
            "the called sidecar saw {caller}, and its caller saw {called}"
        )
    }
}

/// The hops of a trace, in order of time: wherever a called side's span and its caller's each name
/// a peer.
pub(super) fn hops(spans: &[Span]) -> Vec<Hop> {
    let mut called: Vec<&Span> = spans.iter().collect();
    called.sort_by_key(|span| span.start_nanoseconds);
    called
        .into_iter()
        .filter(|span| span.server)
        .filter_map(|span| {
            let caller = |other: &&Span| other.id == span.parent && !other.server;
            let parent = spans.iter().find(caller)?;
            Some(Hop {
                caller: span.peer()?,
                called: parent.peer()?,
            })
        })
        .collect()
}

/// Draws the spans under their parents, each with its service and how long it took.
pub(super) fn draw(spans: &[Span]) -> String {
    let mut roots: Vec<&Span> = spans
        .iter()
        .filter(|span| !spans.iter().any(|other| other.id == span.parent))
        .collect();
    roots.sort_by_key(|span| span.start_nanoseconds);
    let mut out = String::new();
    for root in roots {
        draw_below(root, spans, 0, &mut out);
    }
    out
}

fn draw_below(span: &Span, spans: &[Span], depth: usize, out: &mut String) {
    let branch = match depth {
        0 => String::new(),
        _ => format!("{}└ ", "  ".repeat(depth - 1)),
    };
    let what = format!("{branch}{} {}", span.service, span.name);
    out.push_str(&format!("{what:<56} {:>8.2} ms\n", span.milliseconds()));
    // A span is its own parent in no honest trace; one that says so ends here.
    if depth >= spans.len() {
        return;
    }
    let mut below: Vec<&Span> = spans
        .iter()
        .filter(|other| other.parent == span.id)
        .collect();
    below.sort_by_key(|span| span.start_nanoseconds);
    for child in below {
        draw_below(child, spans, depth + 1, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_children_under_their_parents() {
        let span = |id: &str, parent: &str, start| Span {
            service: format!("s{id}"),
            name: "GET".to_owned(),
            id: id.to_owned(),
            parent: parent.to_owned(),
            start_nanoseconds: start,
            end_nanoseconds: start + 1_500_000,
            ..Span::default()
        };
        let drawn = draw(&[span("c", "a", 3), span("a", "gone", 1), span("b", "a", 2)]);
        let lines: Vec<&str> = drawn
            .lines()
            .map(|line| line.split("  ").next().unwrap_or(""))
            .collect();
        assert_eq!(lines, ["sa GET", "└ sb GET", "└ sc GET"]);
        assert!(drawn.contains("1.50 ms"));
    }

    #[test]
    fn tells_hops_from_applications() {
        let span = |id: &str, parent: &str, server, peer: &str| Span {
            id: id.to_owned(),
            parent: parent.to_owned(),
            server,
            attributes: BTreeMap::from([("peer".to_owned(), format!("spiffe://{peer}"))]),
            ..Span::default()
        };
        let spans = [
            span("a", "", false, "orders"),
            span("b", "a", true, "web"),
            span("c", "b", false, "pricing"),
            span("d", "c", true, "orders"),
        ];
        let hop = |caller: &str, called: &str| Hop {
            caller: format!("spiffe://{caller}"),
            called: format!("spiffe://{called}"),
        };
        assert_eq!(
            hops(&spans),
            [hop("web", "orders"), hop("orders", "pricing")]
        );
    }
}
