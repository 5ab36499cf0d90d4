//! Small fleets and commits, made at random so that names meet often.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use shoal_core::{Change, Document};

pub(crate) const HOSTS: [&str; 4] = ["h0", "h1", "h2", "h3"];
/// A tag only nests those after it: what a checked commit leaves has no cycles.
pub(crate) const TAGS: [&str; 7] = ["a/t0", "b/t0", "a/t1", "a/t2", "b/t1", "a/t3", "b/t2"];
const RULES: [&str; 10] = [
    "site == 'x'",
    "site == 'y' && cpus > 1",
    "cpus > 1",
    "has(host.role)",
    "state == 'draining'",
    "facts.vm.up",
    "owner == 'ann' || cpus == 2",
    "name == 'h1' && site != 'x'",
    "size(host) > 1",
    "site in ['x', 'z'] && !has(host.role)",
];

fn document() -> impl Strategy<Value = String> {
    let field = prop_oneof![
        select(
            &[
                "\"site\":\"x\"",
                "\"site\":\"y\"",
                "\"site\":\"z\"",
                "\"cpus\":1",
                "\"cpus\":2",
                "\"cpus\":\"two\"",
                "\"role\":[1]"
            ][..]
        ),
        select(&["\"a\":{\"v\":1}", "\"a\":{\"w\":{\"p\":2}}", "\"a\":3", "\"b\":{\"v\":null}"][..]),
    ];
    proptest::collection::vec(field, 0..4).prop_map(|fields| {
        let mut names = std::collections::BTreeMap::new();
        for field in fields {
            names.insert(field.split(':').next().unwrap_or_default().to_owned(), field);
        }
        format!("{{{}}}", names.into_values().collect::<Vec<_>>().join(","))
    })
}

fn layer() -> impl Strategy<Value = String> {
    let value = select(&["1", "2", "\"s\"", "[1]", "{}", "{\"p\":1}", "{\"p\":2,\"q\":3}"][..]);
    proptest::collection::btree_map(select(&["v", "w"][..]), value, 0..3).prop_map(|map| {
        let fields: Vec<String> = map.into_iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        format!("{{{}}}", fields.join(","))
    })
}

fn value(text: String) -> Option<Document> {
    Document::parse(&text).ok()
}

fn change() -> impl Strategy<Value = (String, Option<Document>)> {
    let host =
        (select(&HOSTS[..]), document(), select(&["active", "draining"][..]), select(&["ann", "bob"][..]))
            .prop_map(|(name, document, state, owner)| {
                let row =
                    format!(r#"{{"id":"{name}","state":"{state}","owner":"{owner}","document":{document}}}"#);
                (format!("hosts/{name}"), value(row))
            });
    let tag = (select(&TAGS[..]), layer())
        .prop_map(|(name, d)| (name.to_owned(), value(format!("{{\"document\":{d}}}"))));
    let nested = (0..TAGS.len(), 0..TAGS.len()).prop_map(|(i, j)| {
        let (outer, inner) = if i == j { (0, 1) } else { (i.min(j), i.max(j)) };
        (format!("{}/members/@{}", TAGS[outer], TAGS[inner]), value("{}".into()))
    });
    let named = (select(&TAGS[..]), select(&HOSTS[..]))
        .prop_map(|(tag, host)| (format!("{tag}/members/{host}"), value("{}".into())));
    let rule = (select(&TAGS[..]), select(&RULES[..]))
        .prop_map(|(tag, rule)| (format!("{tag}/members/select: {rule}"), value("{}".into())));
    let fact = (
        select(&HOSTS[..]),
        select(&["{\"up\":true}", "{\"up\":false}", "{}"][..]),
        select(&["vm", "v"][..]),
    )
        .prop_map(|(host, fact, namespace)| (format!("facts/{namespace}/{host}"), value(fact.into())));
    let schema = select(&["{\"tag\":true}", "{\"tag\":true,\"host\":true}"][..])
        .prop_map(|schema| ("schemas/a".to_owned(), value(schema.into())));
    let row = prop_oneof![4 => host, 3 => tag, 3 => nested, 3 => named, 2 => rule, 1 => fact, 1 => schema];
    (row, prop::bool::weighted(0.25)).prop_map(|((key, value), gone)| (key, value.filter(|_| !gone)))
}

/// Commits as a store would give them: one change a key, in key order. The first makes every tag and host and links
/// many of them, so that the few changes of each later one meet something.
pub(crate) fn commits() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let first = proptest::collection::vec(change(), 15..30).prop_map(|links| {
        let tags = TAGS.iter().map(|t| ((*t).to_owned(), value(r#"{"document":{"v":0}}"#.into())));
        let host =
            |h: &&str| (format!("hosts/{h}"), value(format!(r#"{{"id":"{h}","document":{{"site":"x"}}}}"#)));
        tags.chain(HOSTS.iter().map(host)).chain(links.into_iter().filter(|(_, v)| v.is_some())).collect()
    });
    let later = proptest::collection::vec(proptest::collection::vec(change(), 1..4), 1..10);
    (first, later).prop_map(|(first, later): (Vec<_>, Vec<Vec<_>>)| {
        std::iter::once(first)
            .chain(later)
            .map(|rows| {
                let rows: BTreeMap<String, Option<Document>> = rows.into_iter().collect();
                let change =
                    |(key, value): (String, _)| Change { key: key.parse().unwrap(), value, moved: None };
                rows.into_iter().map(change).collect()
            })
            .collect()
    })
}
