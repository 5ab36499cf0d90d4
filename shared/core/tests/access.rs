//! Laws of who may do what, over rules that nobody would write and some that somebody might.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by them")]

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::{Value, json};
use shoal_core::access::{Denied, Facet, Index, Manifest, Principal, Right, Scope, Target, Verb};
use shoal_core::{Change, Document, Key, Range, Revision, View};

const KEYS: [&str; 14] = [
    "hosts/web1",
    "hosts/web2",
    "lb/web",
    "lb/web/members/web1",
    "lb/gold",
    "lb/gold/members/@web",
    "dns/a",
    "dns/a/members/web1",
    "facts/vm/web1",
    "facts/dns/web1",
    "schemas/dns",
    "pauses/host/web1",
    "pauses/tag/lb/gold",
    "approvals/dns/a",
];
const NAMES: [&str; 3] = ["ann", "bob", "root"];

fn right() -> impl Strategy<Value = Right> {
    prop_oneof![Just(Right::None), Just(Right::Ro), Just(Right::Rw)]
}

/// A row of rules, for a namespace or a key, and what it says.
fn rules() -> impl Strategy<Value = (String, Value)> {
    let place = prop::sample::select(vec![
        "hosts",
        "lb",
        "dns",
        "facts",
        "schemas",
        "hosts/web1",
        "lb/web",
        "lb/gold",
        "dns/a",
        "facts/vm",
        "facts/dns",
    ]);
    let who = prop::sample::select(vec!["ann", "bob", "@web", "@net", "*", "agent dns"]);
    let entry = (who, right(), right())
        .prop_map(|(who, data, members)| (who.to_owned(), json!({"data": data, "members": members})));
    let allow = prop::collection::vec(entry, 0..4).prop_map(|all| Value::Object(all.into_iter().collect()));
    (place, allow, prop::option::of(any::<bool>())).prop_map(|(place, allow, protected)| {
        (format!("access/rules/{place}"), json!({"allow": allow, "protected": protected}))
    })
}

fn scope() -> impl Strategy<Value = Scope> {
    let namespaces = prop::sample::subsequence(vec!["hosts", "lb", "dns", "facts", "access"], 0..5);
    let namespaces = namespaces.prop_map(|all| all.into_iter().map(str::to_owned).collect::<BTreeSet<_>>());
    (prop::option::of(namespaces), right(), right(), any::<bool>()).prop_map(
        |(namespaces, data, members, none)| Scope {
            namespaces,
            data,
            members,
            writes: none.then(Manifest::default),
        },
    )
}

fn principals() -> impl Strategy<Value = Principal> {
    prop_oneof![
        prop::sample::select(NAMES.to_vec()).prop_map(Principal::person),
        Just(Principal::agent(&"dns".parse().unwrap())),
        Just(Principal::anonymous()),
        Just(Principal::local("root")),
    ]
}

/// A database with these rules, in which ann and bob are in groups, and everything of [`KEYS`] stands.
fn database(rules: &[(String, Value)]) -> View {
    let mut rows: Vec<(String, Value)> = vec![
        ("access/groups/admins".into(), json!({"members": ["root"]})),
        ("access/groups/web".into(), json!({"members": ["ann", "bob"]})),
        ("access/groups/net".into(), json!({"members": ["bob"]})),
    ];
    for key in KEYS {
        let row = match key.split('/').next() {
            Some("hosts") => json!({"id": key}),
            Some("schemas") => json!({"tag": true, "writes": {"facts": ["vm"], "host_fields": ["place"]}}),
            Some("pauses") => json!({"why": "x"}),
            _ => json!({}),
        };
        rows.push((key.to_owned(), row));
    }
    rows.extend(rules.iter().cloned());
    let mut view = View::new();
    let changes: Vec<Change> = rows
        .into_iter()
        .collect::<std::collections::BTreeMap<_, _>>()
        .into_iter()
        .map(|(key, row)| Change::put(key.parse().unwrap(), Document::from(row)))
        .collect();
    view.apply(Revision(1), &changes);
    view
}

fn keys() -> Vec<Key> {
    KEYS.iter().map(|key| key.parse().unwrap()).collect()
}

/// A no says what refuses it, what was wanted, and what to do.
fn whole(denied: &Denied) -> bool {
    let named = denied.rule.starts_with("access/")
        || denied.rule.starts_with("built-in:")
        || denied.rule.starts_with("schemas/");
    named && !denied.wanted.is_empty() && !denied.hint.is_empty() && !denied.who.is_empty()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_scope_takes_away_and_never_gives(
        rules in prop::collection::vec(rules(), 0..6),
        who in principals(),
        one in scope(),
        write in any::<bool>(),
    ) {
        let (view, verb) = (database(&rules), if write { Verb::Write } else { Verb::Read });
        let index = Index::of(&view);
        let narrow = Principal { scope: one, token: Some("t".into()), ..who.clone() };
        for key in keys() {
            let target = Target::of(&key).unwrap();
            let (wide, thin) = (index.may(&who, verb, target), index.may(&narrow, verb, target));
            prop_assert!(thin.is_err() || wide.is_ok(), "{key}");
            for no in [&wide, &thin].into_iter().filter_map(|answer| answer.as_ref().err()) {
                prop_assert!(whole(no), "{no:?}");
            }
            // The short answer and the one with reasons are one.
            prop_assert_eq!(index.reads(&narrow, target), index.may(&narrow, Verb::Read, target).is_ok());
            let change = [Change::put(key.clone(), Document::from(json!({"id": key.as_str(), "n": 1})))];
            let (wide, thin) = (index.judge(&who, &view, &change), index.judge(&narrow, &view, &change));
            prop_assert!(thin.is_err() || wide.is_ok(), "{key}");
            prop_assert!(thin.as_ref().err().is_none_or(whole), "{thin:?}");
        }
        let token: Key = "access/tokens/x".parse().unwrap();
        let change = [Change::put(token, Document::empty())];
        prop_assert!(index.judge(&narrow, &view, &change).is_err() || index.is_admin(&who));
    }

    /// Who may read a range may read whatever is in it; who may not read something of it may not read the range.
    #[test]
    fn a_range_is_read_whole_or_not_at_all(rules in prop::collection::vec(rules(), 0..6), who in principals(), scope in scope()) {
        let view = database(&rules);
        let index = Index::of(&view);
        let mut ranges = vec![Range::All, Range::Naming("web1".parse().unwrap()), Range::Prefix(String::new())];
        ranges.extend(["hosts/", "lb/", "lb/web/", "lb/web/members/", "lb/g", "l", "dns/", "facts/", "facts/vm/", "facts/v", "schemas/",
            "pauses/", "pauses/tag/", "approvals/", "approvals/dns/"].map(|prefix| Range::Prefix(prefix.into())));
        ranges.extend(keys().into_iter().map(Range::Key));
        for who in [who.clone(), Principal { scope, token: Some("t".into()), ..who }] {
            for range in &ranges {
                let may = index.may_read(&who, range);
                prop_assert!(may.as_ref().err().is_none_or(whole), "{may:?}");
                for key in keys().iter().filter(|key| range.contains(key)) {
                    prop_assert!(may.is_err() || index.reads_row(&who, key), "{} reads {range} and not {key}", who.name);
                }
            }
            for prefix in ["access/", "access/tokens/", "access/users/ann"] {
                let may = index.may_read(&who, &Range::Prefix(prefix.into())).is_ok();
                prop_assert!(!may || index.is_admin(&who));
            }
        }
    }

    /// What is let pass as a whole is let pass row by row; nobody anonymous writes; and what is protected is not written.
    #[test]
    fn a_commit_needs_the_right_to_each_of_its_rows(
        rules in prop::collection::vec(rules(), 0..6),
        who in principals(),
        some in prop::sample::subsequence((0..KEYS.len()).collect::<Vec<_>>(), 1..4),
    ) {
        let view = database(&rules);
        let index = Index::of(&view);
        let changes: Vec<Change> = some.into_iter()
            .map(|at| Change::put(KEYS[at].parse().unwrap(), Document::from(json!({"id": KEYS[at], "n": 1}))))
            .collect();
        if index.judge(&who, &view, &changes).is_ok() {
            prop_assert!(!who.is_anonymous());
            for change in &changes {
                let target = Target::of(&change.key).unwrap();
                prop_assert!(index.judge(&who, &view, std::slice::from_ref(change)).is_ok());
                if !who.name.starts_with("agent ") {
                    prop_assert!(index.may(&who, Verb::Write, target).is_ok(), "{}", change.key);
                }
                let row = ["hosts", "lb", "dns"].contains(&change.key.namespace());
                prop_assert!(!row || index.protected(target).is_none(), "{}", change.key);
            }
        }
    }
}

#[test]
fn the_nearest_row_that_names_somebody_decides() {
    let rules = |key: &str, allow: Value| (format!("access/rules/{key}"), json!({"allow": allow}));
    let view = database(&[
        rules("lb", json!({"ann": "ro", "@web": "rw", "*": "none"})),
        rules("lb/web", json!({"@net": {"members": "rw"}, "@web": {"data": "ro"}})),
    ]);
    let index = Index::of(&view);
    let may = |who: &str, verb, key: &str, facet| {
        let target = Target { namespace: "lb", key: Some(key), facet };
        match index.may(&Principal::person(who), verb, target) {
            Ok(by) => format!("yes {by}"),
            Err(no) => format!("no {}", no.rule),
        }
    };
    // Her own entry goes before her group's; a stranger has only everybody's.
    assert_eq!(
        may("ann", Verb::Write, "gold", Facet::Data),
        "no access/rules/lb: ann has data ro, members ro"
    );
    assert_eq!(
        may("bob", Verb::Write, "gold", Facet::Data),
        "yes access/rules/lb: @web has data rw, members rw"
    );
    assert_eq!(
        may("eve", Verb::Read, "gold", Facet::Data),
        "no access/rules/lb: * has data none, members none"
    );
    // The key's row goes before the namespace's, also where it gives less; of two groups the more generous counts, each for itself.
    assert_eq!(
        may("ann", Verb::Write, "web", Facet::Data),
        "no access/rules/lb/web: @web has data ro, members none"
    );
    assert!(may("bob", Verb::Write, "web", Facet::Members).starts_with("yes access/rules/lb/web: @"));
    assert!(may("bob", Verb::Read, "web", Facet::Data).starts_with("yes access/rules/lb/web: @"));
    assert!(may("bob", Verb::Write, "web", Facet::Data).starts_with("no access/rules/lb/web: @"));
    // Who is not named by the key's row is asked about in the namespace's.
    assert_eq!(
        may("eve", Verb::Read, "web", Facet::Data),
        "no access/rules/lb: * has data none, members none"
    );
    assert!(may("root", Verb::Write, "web", Facet::Data).starts_with("yes access/groups/admins"));
}

/// Everything is no namespace, and none is called so.
#[test]
fn a_token_for_one_namespace_does_not_read_everything() {
    let index = Index::of(&database(&[]));
    for name in ["any", "lb"] {
        let scope = Scope { namespaces: Some([name.to_owned()].into()), ..Scope::default() };
        let who = Principal { scope, token: Some("t".into()), ..Principal::person("ann") };
        assert!(!index.reads_everything(&who), "{name}");
        for range in [Range::All, Range::Prefix(String::new()), Range::Naming("web1".parse().unwrap())] {
            let no = index.may_read(&who, &range).unwrap_err();
            assert!(no.rule == "access/tokens/t: the scope of the token" && whole(&no), "{name}: {no:?}");
        }
    }
    // What is kept from them in a namespace that is called so is a part of everything.
    let rules = |name: &str| database(&[(format!("access/rules/{name}"), json!({"allow": {"*": "none"}}))]);
    for name in ["any", "other"] {
        assert!(!Index::of(&rules(name)).reads_everything(&Principal::person("ann")), "{name}");
    }
}

#[test]
fn rows_that_cannot_be_read_allow_nobody_anything() {
    let view = database(&[
        ("access/rules/lb".into(), json!({"allow": "everybody"})),
        ("access/users/ann".into(), json!([1])),
    ]);
    let index = Index::of(&view);
    let target = Target { namespace: "lb", key: Some("web"), facet: Facet::Data };
    assert!(index.may(&Principal::person("bob"), Verb::Read, target).is_err());
    assert!(index.may(&Principal::person("root"), Verb::Write, target).is_ok());
    assert!(matches!(index.named("ann"), shoal_core::access::Known::Not(_)));
}

#[test]
fn rows_are_checked_when_they_are_written() {
    let view = View::new();
    let write = |key: &str, value: Value| {
        let edit = shoal_core::Edit::Write {
            key: key.parse().unwrap(),
            value: Document::from(value),
            expect: shoal_core::Expect::Any,
        };
        shoal_core::prepare(&view, &shoal_core::Proposal::new("a", "m", vec![edit]), &mut || unreachable!())
            .map(drop)
            .map_err(|e| e.to_string())
    };
    let hash = "0".repeat(64);
    for (key, value) in [
        (
            "access/rules/lb",
            json!({"allow": {"ann": "RW", "@web": {"data": "ro"}, "*": "ro", "agent dns": "ro", "anonymous": "ro"}}),
        ),
        ("access/users/ann", json!({"password": "$argon2id$v=19$x"})),
        ("access/groups/web", json!({"members": ["ann"]})),
        ("access/tokens/1", json!({"owner": "agent dns", "hash": hash, "created": "2026-01-01T00:00:00Z"})),
    ] {
        write(key, value).unwrap();
    }
    for (key, value) in [
        ("access/rules/lb", json!({"allow": {"anonymous": "rw"}})),
        ("access/rules/lb", json!({"allow": {"a b": "rw"}})),
        ("access/rules/lb", json!({"allow": {"ann": "all"}})),
        ("access/rules/lb", json!({"alow": {}})),
        ("access/users/ann", json!({"password": "correct horse"})),
        ("access/groups/web", json!({"members": ["@other"]})),
        ("access/tokens/1", json!({"owner": "ann", "hash": "secret", "created": "2026-01-01T00:00:00Z"})),
        ("access/tokens/1", json!({"owner": "agent Dns", "hash": hash, "created": "2026-01-01T00:00:00Z"})),
        ("access/tokens/1", json!({"owner": "ann", "hash": "(hidden)", "created": "2026-01-01T00:00:00Z"})),
        ("access/reviews/1", json!({})),
    ] {
        let why = write(key, value.clone()).unwrap_err();
        assert!(why.contains(key), "{value}: {why}");
    }
}

/// A secret that was hidden from who writes the row stays what it is.
#[test]
fn what_is_hidden_is_kept() {
    let hash = "ab".repeat(32);
    let row =
        |hash: &str, owner: &str| json!({"owner": owner, "hash": hash, "created": "2026-01-01T00:00:00Z"});
    let view = database(&[("access/tokens/1".into(), row(&hash, "ann"))]);
    let key: Key = "access/tokens/1".parse().unwrap();
    let shown = shoal_core::access::hidden(&key, &view.row(&key).unwrap()).unwrap();
    assert!(!shown.as_str().contains(&hash) && shown.as_str().contains("(hidden)"));
    let edit = shoal_core::Edit::Write {
        key,
        value: Document::from(row("(hidden)", "bob")),
        expect: shoal_core::Expect::Any,
    };
    let proposal = shoal_core::Proposal::new("a", "m", vec![edit]);
    let prepared = shoal_core::prepare(&view, &proposal, &mut || unreachable!()).unwrap();
    assert_eq!(prepared.commit.changes[0].value.as_ref().unwrap().value(), row(&hash, "bob"));
}

/// A right that was taken away stays taken away.
#[test]
fn nothing_of_it_is_rolled_back() {
    let then = database(&[("access/tokens/1".into(), json!({"owner": "ann"}))]);
    let now = database(&[]);
    let key: Key = "access/tokens/1".parse().unwrap();
    assert!(shoal_core::rollback(&now, &then, shoal_core::Scope::Everything).is_empty());
    assert!(shoal_core::rollback(&now, &then, shoal_core::Scope::Key(&key)).is_empty());
}

/// An agent whose manifest says so has hosts made, and takes none of those that stand.
#[test]
fn who_makes_hosts_makes_them_where_nothing_stands_or_is_retired() {
    let writes = json!({"host_fields": ["state"], "makes_hosts": true, "members": ["vm", "lb"]});
    let host = |id: &str, state: &str| json!({"id": id, "state": state, "document": {"a": 1}});
    let view = database(&[
        ("schemas/vm".into(), json!({"tag": true, "writes": writes})),
        ("hosts/gone".into(), host("1", "retired")),
        ("hosts/here".into(), host("2", "active")),
        ("vm/a".into(), json!({})),
    ]);
    let index = Index::of(&view);
    let vm = Principal::agent(&"vm".parse().unwrap());
    let may = |who: &Principal, key: &str, row: Value| {
        let change = Change::put(key.parse().unwrap(), Document::from(row));
        index.judge(who, &view, &[change]).map(drop).map_err(|denied| denied.rule)
    };
    assert_eq!(may(&vm, "hosts/new", host("9", "requested")), Ok(()));
    assert_eq!(may(&vm, "hosts/gone", host("1", "requested")), Ok(()));
    assert_eq!(may(&vm, "vm/a/members/here", json!({})), Ok(()));
    assert_eq!(may(&vm, "lb/web/members/here", json!({})), Ok(()));
    for (key, row) in [
        ("hosts/new", host("9", "active")),
        ("hosts/gone", host("8", "requested")),
        ("hosts/here", json!({"id": "2", "state": "requested", "document": {"a": 2}})),
        ("dns/a/members/here", json!({})),
        ("vm/b", json!({})),
        ("lb/web", json!({"document": {"a": 1}})),
    ] {
        may(&vm, key, row).unwrap_err();
    }
    let away = Change::delete("hosts/gone".parse().unwrap());
    assert!(index.judge(&vm, &view, &[away]).is_err());
    // It puts hosts into tags, and takes out who is retired by then; what else people put there is theirs.
    let nested = may(&vm, "vm/a/members/@b", json!({})).unwrap_err();
    assert!(nested.ends_with("its manifest is about members that are hosts, and @b is none"), "{nested}");
    let put = |key: &str, row: Value| Change::put(key.parse().unwrap(), Document::from(row));
    let out = |key: &str| Change::delete(key.parse().unwrap());
    let all = |changes: &[Change]| index.judge(&vm, &view, changes).map(drop).map_err(|denied| denied.rule);
    assert_eq!(all(&[out("lb/web/members/gone")]), Ok(()));
    let here = json!({"id": "2", "state": "retired", "document": {"a": 1}});
    assert_eq!(all(&[put("hosts/here", here), out("lb/web/members/here")]), Ok(()));
    let serves = all(&[out("lb/web/members/here")]).unwrap_err();
    assert!(serves.ends_with("lets it take out who is retired, and here is not"), "{serves}");
    all(&[put("hosts/gone", host("1", "requested")), out("lb/web/members/gone")]).unwrap_err();
    all(&[out("lb/web/members/@b")]).unwrap_err();
    // Another's manifest says nothing for it, and a token's scope takes away.
    assert!(may(&Principal::agent(&"dns".parse().unwrap()), "hosts/new", host("9", "requested")).is_err());
    let narrow = Scope { writes: Some(Manifest::default()), ..Scope::default() };
    let narrow = Principal { scope: narrow, token: Some("t".into()), ..vm };
    assert!(may(&narrow, "hosts/new", host("9", "requested")).is_err());
    assert!(may(&narrow, "vm/a/members/here", json!({})).is_err());
}
