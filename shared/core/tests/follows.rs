//! What follows from a change of a host or a tag, and what only looks so.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use serde_json::{Value, json};
use shoal_core::access::{Index, Principal};
use shoal_core::{Change, Document, Edit, Expect, Key, Proposal, Revision, View, prepare};

/// Ann writes hosts and the tags of `web/`, and nothing else.
fn database() -> View {
    let host = |id: &str| json!({"id": id});
    let rows = [
        ("access/groups/admins", json!({"members": ["root"]})),
        ("access/rules/hosts", json!({"allow": {"ann": "rw"}})),
        ("access/rules/web", json!({"allow": {"ann": "rw"}})),
        ("facts/free/a", json!({"up": true})),
        ("facts/vm/a", json!({"ip": "192.0.2.1"})),
        ("facts/vm/b", json!({"ip": "192.0.2.2"})),
        ("facts/vm/web/one", json!({"n": 1})),
        ("hosts/a", host("1")),
        ("hosts/b", host("2")),
        ("hosts/dns", host("3")),
        ("lb/gold", json!({"document": {}})),
        ("pauses/agent/dns", json!({"why": "x"})),
        ("pauses/host/a", json!({"why": "x"})),
        ("pauses/tag/web/one", json!({"why": "x"})),
        ("web/one", json!({"document": {}})),
    ];
    let mut view = View::new();
    let changes = rows.map(|(key, row)| Change::put(key.parse().unwrap(), Document::from(row)));
    view.apply(Revision(1), &changes);
    view
}

fn change(key: &str, value: Value, moved: Option<&str>) -> Change {
    let value = Some(value).filter(|value| !value.is_null()).map(Document::from);
    Change { key: key.parse().unwrap(), value, moved: moved.map(|key| key.parse().unwrap()) }
}

fn may(view: &View, mut changes: Vec<Change>) -> Result<(), String> {
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    let judged = Index::of(view).judge(&Principal::person("ann"), view, &changes);
    judged.map(drop).map_err(|denied| denied.wanted)
}

/// A name that is said to have moved is no reason to write what is somebody else's.
#[test]
fn what_is_said_to_have_moved_is_no_way_to_write() {
    let view = database();
    let pause = || json!({"why": "x"});
    let gone = || change("hosts/a", Value::Null, None);
    let renamed = |to: &str| {
        vec![change("hosts/a", Value::Null, Some(to)), change(to, json!({"id": "1"}), Some("hosts/a"))]
    };
    let forged = [
        (vec![gone()], change("pauses/agent/dns", pause(), Some("pauses/host/a"))),
        (vec![gone()], change("pauses/tag/lb/gold", pause(), Some("pauses/host/a"))),
        (vec![gone()], change("facts/vm/b", json!({"up": true}), Some("facts/free/a"))),
        (vec![gone()], change("facts/vm/b", json!({"ip": "192.0.2.1"}), Some("facts/vm/a"))),
        // A rename, and rows that are no part of it: another namespace, another subject, a host that is there already, a tag.
        (renamed("hosts/c"), change("facts/vm/c", json!({"up": true}), Some("facts/free/a"))),
        (renamed("hosts/c"), change("facts/vm/b", json!({"ip": "192.0.2.1"}), Some("facts/vm/a"))),
        (renamed("hosts/b"), change("facts/vm/b", json!({"ip": "192.0.2.1"}), Some("facts/vm/a"))),
        (renamed("hosts/c"), change("pauses/tag/lb/gold", pause(), Some("pauses/host/a"))),
        // The two ends do not name each other.
        (
            vec![gone(), change("hosts/c", json!({"id": "1"}), Some("hosts/a"))],
            change("facts/vm/c", json!({"ip": "192.0.2.1"}), Some("facts/vm/a")),
        ),
        // A host that is called like a namespace.
        (
            vec![change("hosts/dns", Value::Null, None)],
            change("pauses/agent/dns", Value::Null, Some("pauses/host/dns")),
        ),
    ];
    for (mut changes, last) in forged {
        let said = format!("{changes:?} {last:?}");
        changes.push(last);
        assert!(may(&view, changes).is_err(), "{said}");
    }
}

#[test]
fn what_was_known_of_it_goes_along_with_its_name() {
    let view = database();
    let key = |text: &str| -> Key { text.parse().unwrap() };
    let rename = |from: &str, to: &str| Edit::Rename { from: key(from), to: key(to), expect: Expect::Any };
    let delete = |of: &str| Edit::Delete { key: key(of), follow: false, expect: Expect::Any };
    for (edit, some) in [
        (rename("hosts/a", "hosts/c"), "facts/vm/c"),
        (rename("web/one", "web/two"), "pauses/tag/web/two"),
        (delete("hosts/a"), "facts/free/a"),
        (delete("web/one"), "facts/vm/web/one"),
    ] {
        let proposal = Proposal::new("ann", "m", vec![edit.clone()]);
        let changes = prepare(&view, &proposal, &mut || unreachable!()).unwrap().commit.changes;
        assert!(changes.iter().any(|change| change.key.as_str() == some), "{changes:?}");
        assert_eq!(may(&view, changes), Ok(()), "{edit:?}");
    }
}
