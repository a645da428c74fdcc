//! Reading typed values out of a tree: every field is asked for by name, and what nobody asked for
//! is a problem. Each problem carries the exact path and line.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::tree::{Entry, Node, Value};

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    pub field: String,
    pub reason: String,
    pub line: u32,
}

/// Collects the problems and notices of one document.
#[derive(Debug, Default)]
pub struct Findings {
    pub problems: RefCell<Vec<FieldProblem>>,
    pub notices: RefCell<Vec<FieldProblem>>,
}

/// A value with its path.
#[derive(Clone, Debug)]
pub struct Field<'a> {
    pub node: &'a Node,
    pub path: String,
    findings: &'a Findings,
}

/// A mapping whose fields are taken one by one.
#[derive(Debug)]
pub struct Fields<'a> {
    path: String,
    line: u32,
    entries: Vec<Option<&'a Entry>>,
    findings: &'a Findings,
}

impl<'a> Field<'a> {
    /// The value of a whole document.
    pub fn root(node: &'a Node, path: &str, findings: &'a Findings) -> Self {
        Self {
            node,
            path: path.to_owned(),
            findings,
        }
    }

    /// Says what is wrong with this value.
    pub fn problem(&self, reason: impl Into<String>) {
        self.findings.problems.borrow_mut().push(FieldProblem {
            field: self.path.clone(),
            reason: reason.into(),
            line: self.node.line,
        });
    }

    /// Says that this value is left alone.
    pub fn notice(&self, reason: impl Into<String>) {
        self.findings.notices.borrow_mut().push(FieldProblem {
            field: self.path.clone(),
            reason: reason.into(),
            line: self.node.line,
        });
    }

    fn wrong_type(&self, wanted: &str) {
        let found = self.node.value.describe();
        self.problem(format!("must be {wanted}, not {found}"));
    }

    pub fn mapping(&self) -> Option<Fields<'a>> {
        match &self.node.value {
            Value::Mapping(entries) => Some(Fields {
                path: self.path.clone(),
                line: self.node.line,
                entries: entries.iter().map(Some).collect(),
                findings: self.findings,
            }),
            _ => {
                self.wrong_type("a mapping");
                None
            }
        }
    }

    /// The items of a list of at most `max`; a longer one is a problem.
    pub fn sequence(&self, max: usize) -> Vec<Self> {
        let Value::Sequence(nodes) = &self.node.value else {
            self.wrong_type("a list");
            return Vec::new();
        };
        if nodes.len() > max {
            self.problem(format!("{} items, at most {max} are taken", nodes.len()));
            return Vec::new();
        }
        let item = |(index, node)| Self {
            node,
            path: format!("{}[{index}]", self.path),
            findings: self.findings,
        };
        nodes.iter().enumerate().map(item).collect()
    }

    pub fn string(&self) -> Option<String> {
        match &self.node.value {
            Value::String(text) => Some(text.clone()),
            _ => {
                self.wrong_type("a string");
                None
            }
        }
    }

    /// A string that `check` has nothing against.
    pub fn checked(&self, check: impl FnOnce(&str) -> Result<(), String>) -> Option<String> {
        let text = self.string()?;
        match check(&text) {
            Ok(()) => Some(text),
            Err(reason) => {
                self.problem(reason);
                None
            }
        }
    }

    pub fn boolean(&self) -> Option<bool> {
        match self.node.value {
            Value::Boolean(value) => Some(value),
            _ => {
                self.wrong_type("true or false");
                None
            }
        }
    }

    pub fn integer(&self, range: RangeInclusive<i64>) -> Option<i64> {
        let Value::Integer(number) = self.node.value else {
            self.wrong_type("an integer");
            return None;
        };
        if range.contains(&number) {
            return Some(number);
        }
        let (first, last) = range.into_inner();
        self.problem(format!("{number} is not within {first} to {last}"));
        None
    }

    /// A number, with a fraction or without.
    pub fn number(&self, least: f64, most: f64) -> Option<f64> {
        let number = match &self.node.value {
            Value::Integer(number) => *number as f64,
            Value::Number(text) => text.parse().unwrap_or(f64::NAN),
            _ => {
                self.wrong_type("a number");
                return None;
            }
        };
        if (least..=most).contains(&number) {
            return Some(number);
        }
        self.problem(format!("{number} is not within {least} to {most}"));
        None
    }

    pub fn port(&self) -> Option<u16> {
        self.integer(1..=65535)
            .and_then(|number| u16::try_from(number).ok())
    }

    /// A mapping of strings to strings, each checked.
    pub fn string_map(
        &self,
        check: impl Fn(&str, &str) -> Result<(), String>,
    ) -> BTreeMap<String, String> {
        let Value::Mapping(entries) = &self.node.value else {
            self.wrong_type("a mapping");
            return BTreeMap::new();
        };
        let mut map = BTreeMap::new();
        for entry in entries {
            let field = Field {
                node: &entry.node,
                path: format!("{}[{}]", self.path, entry.key),
                findings: self.findings,
            };
            if let Some(value) = field.checked(|value| check(&entry.key, value)) {
                map.insert(entry.key.clone(), value);
            }
        }
        map
    }

    /// Whether it says nothing: an empty list, mapping or string, `false` or 0.
    fn is_blank(&self) -> bool {
        match &self.node.value {
            Value::Null | Value::Boolean(false) | Value::Integer(0) => true,
            Value::String(text) => text.is_empty(),
            Value::Sequence(nodes) => nodes.is_empty(),
            Value::Mapping(entries) => entries.is_empty(),
            _ => false,
        }
    }
}

impl<'a> Fields<'a> {
    fn child(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// The field of this name; a null counts as absent, as in Kubernetes.
    pub fn take(&mut self, name: &str) -> Option<Field<'a>> {
        let path = self.child(name);
        let named = |entry: &&mut Option<&Entry>| entry.is_some_and(|entry| entry.key == name);
        let entry = self.entries.iter_mut().find(named)?.take()?;
        (entry.node.value != Value::Null).then_some(Field {
            node: &entry.node,
            path,
            findings: self.findings,
        })
    }

    /// A number of things.
    pub fn count(&mut self, name: &str, range: RangeInclusive<u32>) -> Option<u32> {
        let (least, most) = range.into_inner();
        let field = self.take(name)?;
        let count = field.integer(i64::from(least)..=i64::from(most))?;
        u32::try_from(count).ok()
    }

    /// As [`Fields::take`], and a problem when it is not there.
    pub fn require(&mut self, name: &str) -> Option<Field<'a>> {
        let field = self.take(name);
        if field.is_none() {
            self.findings.problems.borrow_mut().push(FieldProblem {
                field: self.child(name),
                reason: "is required".to_owned(),
                line: self.line,
            });
        }
        field
    }

    /// Takes fields that mean nothing to weft, whatever they hold.
    pub fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.take(name);
        }
    }

    /// Refuses fields that would mean something, unless they are blank.
    pub fn refuse(&mut self, names: &[&str]) {
        for name in names {
            if let Some(field) = self.take(name)
                && !field.is_blank()
            {
                field.problem("not supported yet by this version of weft");
            }
        }
    }

    /// Takes a field that may only hold the value which is the default here anyway.
    pub fn only(&mut self, name: &str, value: &str) {
        if let Some(field) = self.take(name)
            && let Some(text) = field.string()
            && text != value
        {
            field.problem(format!(
                "{text:?} is not supported yet by this version of weft, only {value:?} is"
            ));
        }
    }

    /// What is left was not known to anybody.
    pub fn finish(self) {
        for entry in self.entries.iter().copied().flatten() {
            self.findings.problems.borrow_mut().push(FieldProblem {
                field: self.child(&entry.key),
                reason: "unknown field".to_owned(),
                line: entry.line,
            });
        }
    }
}
