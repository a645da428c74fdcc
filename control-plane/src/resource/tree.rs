//! YAML and JSON to a tree that remembers where each value was written. Anchors, aliases and tags
//! are refused, so the tree is never larger than the text.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle};

/// How deep collections may nest in a document; one that goes deeper is refused. Kubernetes' own
/// deepest documents, CustomResourceDefinitions, stay below half of it.
pub const DEPTH_MAX: usize = 64;

/// Documents that one file may hold; a file with more is refused.
pub const DOCUMENTS_MAX: u32 = 20_000;

/// Values that one file may hold; a file with more is refused. Enough for 10,000 services.
pub const VALUES_MAX: usize = 500_000;

/// A value and the line it starts on.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub line: u32,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Boolean(bool),
    Integer(i64),
    /// A number that is no 64-bit integer, as it was written.
    Number(String),
    String(String),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub line: u32,
    pub node: Node,
}

/// Why a file is no stream of documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The document it happened in, from 1.
    pub document: u32,
    pub line: u32,
    pub reason: String,
}

impl Node {
    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Mapping(entries) => entries
                .iter()
                .find(|entry| entry.key == key)
                .map(|entry| &entry.node),
            _ => None,
        }
    }

    /// The text, if this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }
}

impl Value {
    /// What it is, for a message.
    pub fn describe(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Sequence(_) => "a list",
            Self::Mapping(_) => "a mapping",
        }
    }
}

/// Reads every document of `text`, numbered from 1. What was complete before the break is given
/// back with it.
pub fn read(text: &str) -> (Vec<(u32, Node)>, Option<Broken>) {
    let mut builder = Builder::default();
    let options = granit_parser::options! { emit_comments: false };
    for event in Parser::new_from_str_with_options(text, options) {
        let taken = match event {
            Ok((event, span)) => builder.take(event, line_of(span.start.line())),
            Err(error) => Err((line_of(error.marker().line()), error.info())),
        };
        if let Err((line, reason)) = taken {
            let broken = Broken {
                document: builder.document.max(1),
                line,
                reason,
            };
            return (builder.documents, Some(broken));
        }
    }
    (builder.documents, None)
}

fn line_of(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}

/// A collection that is not closed yet.
enum Open {
    Sequence(u32, Vec<Node>),
    Mapping(u32, Entries),
}

/// A mapping's entries, the lines of the keys seen, and the key that waits for its value.
#[derive(Default)]
struct Entries {
    entries: Vec<Entry>,
    seen: HashMap<String, u32>,
    key: Option<(String, u32)>,
}

#[derive(Default)]
struct Builder {
    documents: Vec<(u32, Node)>,
    document: u32,
    values: usize,
    open: Vec<Open>,
}

type Taken = Result<(), (u32, String)>;

impl Builder {
    fn take(&mut self, event: Event<'_>, line: u32) -> Taken {
        match event {
            Event::DocumentStart(..) => {
                self.document += 1;
                if self.document > DOCUMENTS_MAX {
                    let reason = format!("more than {DOCUMENTS_MAX} documents in one file");
                    return Err((line, reason));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                refuse_properties(anchor, tag.is_some(), line)?;
                let value = scalar(&text, style);
                self.place(Node { line, value })
            }
            Event::SequenceStart(_, anchor, tag) => {
                refuse_properties(anchor, tag.is_some(), line)?;
                self.open(Open::Sequence(line, Vec::new()), line)
            }
            Event::MappingStart(_, anchor, tag) => {
                refuse_properties(anchor, tag.is_some(), line)?;
                self.open(Open::Mapping(line, Entries::default()), line)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(_) => Err((line, NO_ALIASES.to_owned())),
            _ => Ok(()),
        }
    }

    fn open(&mut self, collection: Open, line: u32) -> Taken {
        if let Some(Open::Mapping(_, Entries { key: None, .. })) = self.open.last() {
            return Err((line, "a key must be a string".to_owned()));
        }
        if self.open.len() == DEPTH_MAX {
            return Err((line, format!("nested more than {DEPTH_MAX} levels deep")));
        }
        self.open.push(collection);
        Ok(())
    }

    fn close(&mut self) -> Taken {
        let node = match self.open.pop() {
            Some(Open::Sequence(line, nodes)) => Node {
                line,
                value: Value::Sequence(nodes),
            },
            Some(Open::Mapping(line, mapping)) => Node {
                line,
                value: Value::Mapping(mapping.entries),
            },
            None => return Ok(()),
        };
        self.place(node)
    }

    fn place(&mut self, node: Node) -> Taken {
        self.values += 1;
        if self.values > VALUES_MAX {
            return Err((
                node.line,
                format!("more than {VALUES_MAX} values in one file"),
            ));
        }
        match self.open.last_mut() {
            None => self.documents.push((self.document, node)),
            Some(Open::Sequence(_, nodes)) => nodes.push(node),
            Some(Open::Mapping(_, mapping)) => match mapping.key.take() {
                Some((key, line)) => mapping.entries.push(Entry { key, line, node }),
                None => mapping.key = Some(key(&mut mapping.seen, node)?),
            },
        }
        Ok(())
    }
}

const NO_ALIASES: &str = "anchors and aliases are not taken; write the value out";

fn refuse_properties(anchor: usize, tagged: bool, line: u32) -> Taken {
    if anchor != 0 {
        return Err((line, NO_ALIASES.to_owned()));
    }
    if tagged {
        return Err((line, "tags are not taken; write the plain value".to_owned()));
    }
    Ok(())
}

/// A key, which must be a string and new to its mapping.
fn key(seen: &mut HashMap<String, u32>, node: Node) -> Result<(String, u32), (u32, String)> {
    let line = node.line;
    let key = match node.value {
        Value::String(key) => key,
        Value::Integer(number) => number.to_string(),
        Value::Boolean(value) => value.to_string(),
        Value::Number(text) => text,
        Value::Null | Value::Sequence(_) | Value::Mapping(_) => {
            return Err((line, "a key must be a string".to_owned()));
        }
    };
    match seen.insert(key.clone(), line) {
        Some(first) => Err((
            line,
            format!("duplicate key {key:?}, first on line {first}"),
        )),
        None => Ok((key, line)),
    }
}

/// Resolves a scalar by YAML 1.2's core schema, of which JSON is a subset.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Boolean(true),
        "false" | "False" | "FALSE" => return Value::Boolean(false),
        ".nan" | ".NaN" | ".NAN" => return Value::Number(text.to_owned()),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let radix = |prefix, radix| {
        let digits = text.strip_prefix(prefix)?;
        i64::from_str_radix(digits, radix).ok()
    };
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Value::Integer(number);
    }
    if unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        if let Ok(number) = text.parse::<i64>() {
            return Value::Integer(number);
        }
        if text.parse::<f64>().is_ok() || matches!(unsigned, ".inf" | ".Inf" | ".INF") {
            return Value::Number(text.to_owned());
        }
    }
    Value::String(text.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn broken(text: &str, document: u32, line: u32, reason: &str) {
        let (_, broken) = read(text);
        let broken = broken.unwrap_or_else(|| panic!("taken: {text}"));
        assert_eq!((broken.document, broken.line), (document, line), "{text}");
        assert!(broken.reason.contains(reason), "{}", broken.reason);
    }

    #[test]
    fn resolves_scalars() {
        for (text, value) in [
            ("~", Value::Null),
            ("true", Value::Boolean(true)),
            ("yes", Value::String("yes".into())),
            ("80", Value::Integer(80)),
            ("-1", Value::Integer(-1)),
            ("0x50", Value::Integer(80)),
            ("1.5", Value::Number("1.5".into())),
            ("1e9", Value::Number("1e9".into())),
            (
                "99999999999999999999",
                Value::Number("99999999999999999999".into()),
            ),
            ("'80'", Value::String("80".into())),
            ("10.0.0.1", Value::String("10.0.0.1".into())),
            ("\"\\ud83d\\ude00\"", Value::String("😀".into())),
        ] {
            let (documents, broken) = read(text);
            assert_eq!(broken, None, "{text}");
            assert_eq!(documents[0].1.value, value, "{text}");
        }
    }

    #[test]
    fn refuses_what_makes_trees_larger_or_unclear() {
        broken("a: &x 1\nb: *x\n", 1, 1, "anchors");
        broken("a: 1\n---\nb: !!str 1\n", 2, 3, "tags");
        broken(
            "a: 1\nb: 2\na: 3\n",
            1,
            3,
            "duplicate key \"a\", first on line 1",
        );
        broken("? [1]\n: 2\n", 1, 1, "a key must be a string");
        let deep = |open: &str, close: &str| {
            format!(
                "{}1{}",
                open.repeat(DEPTH_MAX + 1),
                close.repeat(DEPTH_MAX + 1)
            )
        };
        broken(&deep("[", "]"), 1, 1, "nested more than");
        broken(&deep("{\"a\":", "}"), 1, 1, "nested more than");
        broken("a: b: c\n", 1, 1, "");
        broken("a: *x\n", 1, 1, "");
    }

    #[test]
    fn keeps_lines_and_counts_documents() {
        let (documents, broken) = read("a: 1\n---\n# nothing\n---\nb:\n  c: [1,\n  2]\n");
        assert_eq!(broken, None);
        let numbers: Vec<u32> = documents.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [1, 2, 3]);
        let Value::Sequence(nodes) = &documents[2].1.get("b").unwrap().get("c").unwrap().value
        else {
            panic!("no list");
        };
        assert_eq!(nodes[1].line, 7);
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-{}\\[\\]:,&*!|>'\"%#? \\n\\ta-c0-9]{0,200}") {
            read(&text);
        }
    }
}
