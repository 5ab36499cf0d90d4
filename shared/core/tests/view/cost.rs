//! Cost follows what is touched: the same counts in a fleet of any size.

use shoal_core::{Change, Document, Key, Range, Revision, Row, View};

/// A fleet where each host is in a zone, a site by rule and a pool that the zone nests.
fn fleet(hosts: usize) -> View {
    let mut view = View::new();
    let mut revision = 0;
    let mut row = |key: String, value: String| {
        revision += 1;
        let value = Document::parse(&value).ok();
        view.load(Row { key: key.parse().unwrap(), value, revision: Revision(revision), moved: None });
    };
    row("dns/zone".into(), r#"{"document":{"ttl":1}}"#.into());
    for site in 0..10 {
        row(format!("site/s{site}"), "{}".into());
        row(format!("site/s{site}/members/select: site == 's{site}'"), "{}".into());
        row(format!("site/s{site}/members/select: site == 's{site}' && cpus > 100"), "{}".into());
        row(format!("dns/pool{site}"), r#"{"document":{"ttl":2}}"#.into());
        row(format!("dns/zone/members/@pool{site}"), "{}".into());
    }
    for host in 0..hosts {
        let site = host % 10;
        row(
            format!("hosts/h{host}"),
            format!(r#"{{"id":"{host}","document":{{"site":"s{site}","cpus":4}}}}"#),
        );
        row(format!("dns/pool{site}/members/h{host}"), "{}".into());
    }
    view.loaded(Revision(revision));
    view
}

/// What a change costs: rules, sources, documents.
fn cost(view: &mut View, change: (&str, Option<&str>)) -> (u64, u64, u64) {
    let counts = |view: &View| {
        let c = view.counters();
        (c.rules_evaluated(), c.sources_visited(), c.documents_parsed())
    };
    let before = counts(view);
    let value = change.1.map(|v| Document::parse(v).unwrap());
    let change = Change { key: change.0.parse().unwrap(), value, moved: None };
    let touched = view.apply(Revision(view.revision().0 + 1), &[change]);
    for (tag, hosts) in &touched.pairs {
        for host in hosts {
            let _ = view.effective_document(tag, Some(host));
        }
    }
    let after = counts(view);
    (after.0 - before.0, after.1 - before.1, after.2 - before.2)
}

#[test]
fn one_change_costs_the_same_in_any_fleet() {
    let costs = |hosts| {
        let mut view = fleet(hosts);
        [
            ("hosts/h7", Some(r#"{"id":"7","document":{"site":"s7","cpus":8}}"#)),
            ("hosts/h7", Some(r#"{"id":"7","document":{"site":"s8","cpus":8}}"#)),
            (
                "hosts/h7",
                Some(r#"{"id":"7","state":"draining","document":{"site":"s8","cpus":8,"dns":{"ttl":9}}}"#),
            ),
            ("hosts/new", Some(r#"{"id":"n","document":{"site":"s1"}}"#)),
            ("dns/pool3/members/new", Some("{}")),
            ("facts/vm/h7", Some(r#"{"up":true}"#)),
            ("dns/pool8/members/h8", None),
            ("hosts/h7", None),
        ]
        .map(|change| cost(&mut view, change))
    };
    let (small, large) = (costs(100), costs(3000));
    assert_eq!(small, large);
    // A change of `cpus` asks the rules on `cpus` for the host's own site: one of ten.
    assert_eq!(small[0].0, 1, "{small:?}");
    assert!(small.iter().all(|c| c.0 <= 4 && c.1 <= 24 && c.2 <= 4), "{small:?}");
}

/// What it takes to say what stood of a host before `later` others changed: ranges read, rules, documents.
fn excerpt(hosts: usize, later: usize) -> (Vec<String>, u64, u64) {
    let mut view = fleet(hosts);
    let put = |key: &str, value: &str| Change::put(key.parse().unwrap(), Document::parse(value).unwrap());
    let (old, then) = (view.clone(), view.revision());
    let mut commit =
        |key: &str, value: &str| drop(view.apply(Revision(view.revision().0 + 1), &[put(key, value)]));
    commit("hosts/h7", r#"{"id":"7","document":{"site":"s8","cpus":8}}"#);
    commit("dns/pool7", r#"{"document":{"ttl":3}}"#);
    commit("dns/other/members/@pool7", "{}");
    for n in 0..later {
        commit(&format!("hosts/h{}", 10 + n), r#"{"id":"x","document":{"site":"s1","cpus":9}}"#);
        commit(&format!("dns/pool{}", n % 7), &format!(r#"{{"document":{{"ttl":{n}}}}}"#));
        commit(&format!("dns/pool{}/members/h{}", n % 7, 20 + n), "{}");
    }
    // The rows of a range as they stood.
    let stood = |range: &Range| -> Vec<Row> {
        let keys: Vec<Key> = match range {
            Range::Key(key) => vec![key.clone()],
            Range::Naming(member) => old.tags().map(|tag| Key::member(&tag.name, member)).collect(),
            other => panic!("{other} is read whole"),
        };
        let row =
            |key: Key| Some(Row { value: old.row(&key), revision: old.revision_of(&key)?, moved: None, key });
        keys.into_iter().filter_map(row).collect()
    };
    let counts = |view: &View| (view.counters().rules_evaluated(), view.counters().documents_parsed());
    let before = counts(&view);
    let mut excerpt = view.excerpt(then, Some("h7".parse().unwrap()), Some("dns/zone".parse().unwrap()));
    let mut read = Vec::new();
    loop {
        let wants = excerpt.wants();
        if wants.is_empty() {
            break;
        }
        read.extend(wants.iter().map(ToString::to_string));
        wants.iter().flat_map(stood).for_each(|row| excerpt.take(row));
    }
    assert_eq!(
        excerpt.done().effective(),
        old.effective(&"dns/zone".parse().unwrap(), Some(&"h7".parse().unwrap()))
    );
    let after = counts(&view);
    (read, after.0 - before.0, after.1 - before.1)
}

#[test]
fn what_stood_of_a_host_costs_the_same_whatever_else_changed() {
    let (small, large) = (excerpt(100, 3), excerpt(3000, 70));
    assert_eq!(small, large);
    assert_eq!(
        small.0,
        ["hosts/h7", "*/members/h7", "dns/pool7", "*/members/@pool7", "*/members/@dns/pool7"]
    );
}
