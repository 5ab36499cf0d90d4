//! Rules over hosts: whom the view says they select, by its indexes, and whom they select when each host is asked.

use serde_json::{Map, Value, json};
use shoal_core::{Change, Document, Key, Member, Revision, Row, Rule, Subject, TagName, View};

use super::{MOST, in_time};

/// The first line is a rule; each of the next ones is the document of a host, as JSON. Then the documents change places, one
/// by one, and every time the view must say what asking everybody says.
pub fn selectors(data: &[u8]) {
    let text = String::from_utf8_lossy(&data[..data.len().min(MOST)]).into_owned();
    let mut lines = text.lines();
    let rule = lines.next().unwrap_or_default();
    let compiled = in_time("compiling", || Rule::compile(rule));
    let (Ok(rule), Ok(member)) = (compiled, format!("select: {rule}").parse::<Member>()) else { return };
    let documents: Vec<Map<String, Value>> =
        lines.take(4).filter_map(|line| serde_json::from_str(line).ok()).collect();
    let tag: TagName = "tags/chosen".parse().unwrap();
    let mut view = View::new();
    let mut at = 0;
    let mut row = |key: Key, value: Value| {
        at += 1;
        Row { key, value: Some(Document::from(value)), revision: Revision(at), moved: None }
    };
    view.load(row(Key::tag(&tag), json!({})));
    view.load(row(Key::member(&tag, &member), json!({})));
    for (n, document) in documents.iter().enumerate() {
        view.load(row(host(n), record(n, document)));
    }
    view.loaded(Revision(at));
    agrees(&view, &rule, &tag);
    for n in 0..documents.len() {
        at += 1;
        let other = &documents[(n + 1) % documents.len()];
        view.apply(Revision(at), &[Change::put(host(n), record(n, other).into())]);
        agrees(&view, &rule, &tag);
        at += 1;
        let fact = format!("facts/vm/h{n}.example").parse().unwrap();
        view.apply(Revision(at), &[Change::put(fact, Value::Object(other.clone()).into())]);
        agrees(&view, &rule, &tag);
    }
}

fn host(n: usize) -> Key {
    format!("hosts/h{n}.example").parse().unwrap()
}

fn record(n: usize, document: &Map<String, Value>) -> Value {
    let state = if n.is_multiple_of(2) { "active" } else { "draining" };
    json!({"id": n.to_string(), "state": state, "owner": "ann", "document": document})
}

fn agrees(view: &View, rule: &Rule, tag: &TagName) {
    let asked = in_time("asking", || {
        let selects =
            |name: &str| view.host(name).is_some_and(|h| rule.selects(&Subject::new(h, view.facts(name))));
        view.hosts().filter(|h| selects(h.name.as_str())).map(|h| h.name.to_string()).collect::<Vec<_>>()
    });
    let known: Vec<String> = view.members(tag).iter().map(ToString::to_string).collect();
    assert_eq!(known, asked, "{}", rule.text());
}
