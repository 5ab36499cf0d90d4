//! What differs between two documents, and who said each value of one.
//!
//! Both go by path, as a JSON pointer, and take lists whole, as merging does: a list with another order is another list.
//! The usual libraries answer with RFC 6902 operations, which name positions in lists and leave out the old
//! values.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::view::{escape, leaves};

/// One place where two documents differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The place, as a JSON pointer; empty: the whole.
    pub path: String,
    /// What stood there; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// What stands there; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// Where two documents differ, by path. `None` is a document that does not exist.
#[must_use]
pub fn diff(old: Option<&Value>, new: Option<&Value>) -> Vec<Difference> {
    let mut found = Vec::new();
    walk(old, new, &mut String::new(), &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn walk(old: Option<&Value>, new: Option<&Value>, at: &mut String, found: &mut Vec<Difference>) {
    if old == new {
        return;
    }
    let (Some(Value::Object(was)), Some(Value::Object(is))) = (old, new) else {
        found.push(Difference { path: at.clone(), old: old.cloned(), new: new.cloned() });
        return;
    };
    for name in was.keys().chain(is.keys().filter(|n| !was.contains_key(*n))) {
        let before = at.len();
        at.push('/');
        at.push_str(&escape(name));
        walk(was.get(name), is.get(name), at, found);
        at.truncate(before);
    }
}

/// Who last said each value of a document, found from the newest version backwards.
///
/// Begun with the newest version and fed with older ones until [`Blame::is_done`]: it reads no more of the history than it
/// needs. `T` says who: a revision, or a whole commit's information.
#[derive(Clone, Debug)]
pub struct Blame<T> {
    open: BTreeMap<String, Value>,
    settled: Vec<Line<T>>,
    by: T,
}

/// One value and who said it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line<T> {
    /// The place, as a JSON pointer.
    pub path: String,
    /// What stands there.
    pub value: Value,
    /// Who last changed it.
    pub by: T,
}

impl<T: Clone> Blame<T> {
    /// Begins with the newest version and who wrote it.
    #[must_use]
    pub fn new(by: T, newest: &Value) -> Self {
        let mut paths = Vec::new();
        leaves(newest, &mut String::new(), &mut paths);
        let open = paths.into_iter().filter_map(|p| newest.pointer(&p).cloned().map(|v| (p, v))).collect();
        Self { open, settled: Vec::new(), by }
    }

    /// Takes the next older version; `None`: it did not exist then.
    pub fn older(&mut self, by: T, version: Option<&Value>) {
        let newer = std::mem::replace(&mut self.by, by);
        let stands = |path: &String, value: &Value| version.and_then(|v| v.pointer(path)) == Some(value);
        let open = std::mem::take(&mut self.open);
        let (open, settled): (BTreeMap<_, _>, BTreeMap<_, _>) =
            open.into_iter().partition(|(p, v)| stands(p, v));
        self.open = open;
        let line = |(path, value)| Line { path, value, by: newer.clone() };
        self.settled.extend(settled.into_iter().map(line));
    }

    /// Whether older versions can add nothing.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.open.is_empty()
    }

    /// Every value with who said it, by path. What no older version contradicted was said by the oldest that was given.
    #[must_use]
    pub fn lines(mut self) -> Vec<Line<T>> {
        let by = &self.by;
        self.settled.extend(self.open.into_iter().map(|(path, value)| Line { path, value, by: by.clone() }));
        self.settled.sort_by(|a, b| a.path.cmp(&b.path));
        self.settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_go_by_path() {
        let old = json!({"a": {"b": 1, "c": [1, 2]}, "gone": {"x": 1}, "same": 1, "o/p": 1});
        let new = json!({"a": {"b": 2, "c": [2, 1]}, "new": null, "same": 1, "o/p": {"q": 1}});
        let lines: Vec<String> = diff(Some(&old), Some(&new))
            .iter()
            .map(|d| {
                let text = |v: &Option<Value>| v.as_ref().map_or("-".to_owned(), ToString::to_string);
                format!("{} {} {}", d.path, text(&d.old), text(&d.new))
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r#"
/a/b 1 2
/a/c [1,2] [2,1]
/gone {"x":1} -
/new - null
/o~1p 1 {"q":1}
"#);
        assert_eq!(diff(None, Some(&old))[0].path, "");
        assert_eq!(diff(Some(&old), Some(&old)), []);
    }

    #[test]
    fn blame_finds_the_last_to_change_each_value() {
        let versions = [
            (4, Some(json!({"a": 1, "b": {"c": 2, "d": 3}}))),
            (3, Some(json!({"a": 1, "b": {"c": 2}}))),
            (2, None),
            (1, Some(json!({"a": 1, "b": {"c": 2, "d": 3}}))),
        ];
        let mut blame = Blame::new(versions[0].0, versions[0].1.as_ref().unwrap());
        let mut read = 1;
        for (by, version) in &versions[1..] {
            if blame.is_done() {
                break;
            }
            blame.older(*by, version.as_ref());
            read += 1;
        }
        let lines: Vec<(String, i32)> = blame.lines().into_iter().map(|l| (l.path, l.by)).collect();
        assert_eq!(lines, [("/a".to_owned(), 3), ("/b/c".to_owned(), 3), ("/b/d".to_owned(), 4)]);
        assert_eq!(read, 3, "what came before it was deleted is not read");
    }
}
