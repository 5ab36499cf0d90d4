//! The view as simply as it can be said: everything from the rows, each time, by walking down.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use shoal_core::{
    Document, Fact, Host, HostName, HostRecord, Key, Kind, MemberKind, Namespace, Revision, Row, Rule,
    Subject, TagName,
};

pub(crate) struct Model {
    rows: BTreeMap<Key, (Document, Revision)>,
}

impl Model {
    pub(crate) fn of<'r>(rows: impl Iterator<Item = &'r Row>) -> Self {
        Self { rows: rows.filter_map(|r| Some((r.key.clone(), (r.value.clone()?, r.revision)))).collect() }
    }

    fn host(&self, name: &HostName) -> Option<Host> {
        let (row, revision) = self.rows.get(&Key::host(name))?;
        let HostRecord { id, state, owner, environment, expires, document } = row.to().unwrap();
        Some(Host {
            name: name.clone(),
            id,
            state,
            owner,
            environment,
            expires,
            revision: *revision,
            document,
        })
    }

    fn facts(&self, name: &HostName) -> Vec<Fact> {
        let facts = self.rows.iter().filter_map(|(key, (document, revision))| match key.kind() {
            Kind::Fact(namespace, subject) if subject == name.as_str() => {
                Some(Fact { namespace, document: document.clone(), revision: *revision })
            }
            _ => None,
        });
        facts.collect()
    }

    fn hosts(&self) -> Vec<HostName> {
        let names = self.rows.keys().filter_map(|key| match key.kind() {
            Kind::Host(name) => Some(name),
            _ => None,
        });
        names.collect()
    }

    fn direct(&self, tag: &TagName, host: &HostName) -> bool {
        self.rows.keys().any(|key| match key.kind() {
            Kind::Member(of, member) if of == *tag => match member.kind() {
                MemberKind::Host(name) => name == host.as_str(),
                MemberKind::Rule(text) => self.host(host).is_some_and(|h| {
                    Rule::compile(text).unwrap().selects(&Subject::new(&h, &self.facts(host)))
                }),
                _ => false,
            },
            _ => false,
        })
    }

    fn nested(&self, tag: &TagName) -> BTreeSet<TagName> {
        let all = self.rows.keys().filter_map(|key| match key.kind() {
            Kind::Member(of, member) if of == *tag => member.as_tag(tag.namespace()),
            _ => None,
        });
        all.filter(|t| self.rows.contains_key(&Key::tag(t))).collect()
    }

    fn contains(&self, tag: &TagName, host: &HostName) -> bool {
        self.rows.contains_key(&Key::tag(tag))
            && self.rows.contains_key(&Key::host(host))
            && (self.direct(tag, host) || self.nested(tag).iter().any(|t| self.contains(t, host)))
    }

    pub(crate) fn members(&self, tag: &TagName) -> Vec<String> {
        self.hosts().iter().filter(|h| self.contains(tag, h)).map(ToString::to_string).collect()
    }

    /// The longest way down from the tag to each tag of its namespace that contains the host.
    fn depths(&self, tag: &TagName, host: &HostName, depth: usize, into: &mut BTreeMap<TagName, usize>) {
        let known = into.entry(tag.clone()).or_insert(depth);
        *known = depth.max(*known);
        for nested in self.nested(tag) {
            if nested.namespace() == tag.namespace() && self.contains(&nested, host) {
                self.depths(&nested, host, depth + 1, into);
            }
        }
    }

    fn over(&self, host: &HostName, namespace: &str) -> Option<Value> {
        let schema = self.rows.get(&Key::schema(&namespace.parse::<Namespace>().unwrap()));
        if schema.is_some_and(|(row, _)| row.value().get("host").is_none()) {
            return None;
        }
        self.host(host)?.field(namespace).filter(Value::is_object)
    }

    pub(crate) fn effective(&self, tag: &TagName, host: &HostName) -> Option<Value> {
        if !self.contains(tag, host) {
            return None;
        }
        let mut depths = BTreeMap::new();
        self.depths(tag, host, 0, &mut depths);
        let mut order: Vec<(usize, TagName)> = depths.into_iter().map(|(t, d)| (d, t)).collect();
        order.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        let mut value = json!({});
        for (_, layer) in order {
            lay(&mut value, self.rows[&Key::tag(&layer)].0.value()["document"].clone());
        }
        if let Some(over) = self.over(host, tag.namespace()) {
            lay(&mut value, over);
        }
        Some(value)
    }

    /// What the row of an origin says at a path.
    pub(crate) fn said(&self, key: &Key, path: &str, tag: &TagName) -> Option<Value> {
        let document = self.rows.get(key)?.0.value()["document"].clone();
        match key.kind() {
            Kind::Host(_) => document.get(tag.namespace())?.pointer(path).cloned(),
            _ => document.pointer(path).cloned(),
        }
    }
}

fn lay(base: &mut Value, over: Value) {
    if base.is_object() && over.is_object() {
        for (name, value) in over.as_object().cloned().unwrap_or_default() {
            lay(&mut base[&name], value);
        }
    } else {
        *base = over;
    }
}
