//! Examples; the laws are in the crate's `tests/view.rs`.

use super::*;
use crate::Change;

fn row(key: &str, value: &str, revision: u64) -> Row {
    Row {
        key: key.parse().unwrap(),
        value: Some(Document::parse(value).unwrap()),
        revision: Revision(revision),
        moved: None,
    }
}

fn view(rows: &[(&str, &str)]) -> View {
    let mut view = View::new();
    for (at, (key, value)) in rows.iter().enumerate() {
        view.load(row(key, value, at as u64 + 1));
    }
    view.loaded(Revision(rows.len() as u64));
    assert_eq!(view.broken().count(), 0);
    view
}

fn small() -> View {
    view(&[
        ("hosts/a", r#"{"id":"1","document":{"site":"x","lb":{"weight":5}}}"#),
        ("hosts/b", r#"{"id":"2","document":{"site":"y"}}"#),
        ("lb/web", r#"{"document":{"weight":1,"check":{"path":"/"}}}"#),
        ("lb/eu", r#"{"document":{"check":{"port":81}}}"#),
        ("lb/us", r#"{"document":{"check":{"port":82}}}"#),
        ("tags/x", r#"{"document":{"ignored":true}}"#),
        ("lb/web/members/@eu", "{}"),
        ("lb/web/members/@us", "{}"),
        ("lb/web/members/@tags/x", "{}"),
        ("lb/eu/members/a", "{}"),
        ("lb/us/members/a", "{}"),
        ("tags/x/members/select: site == 'y'", "{}"),
    ])
}

#[test]
fn a_rule_that_cannot_be_evaluated_is_a_doubt_unless_the_host_is_in_anyway() {
    let mut view = view(&[
        ("hosts/a", r#"{"id":"1","document":{"mem":"much"}}"#),
        ("hosts/b", r#"{"id":"2","document":{}}"#),
        ("lb/top", r#"{"document":{}}"#),
        ("lb/big", r#"{"document":{}}"#),
        ("tags/big", r#"{"document":{}}"#),
        ("lb/top/members/@big", "{}"),
        ("tags/big/members/select: mem > 4", "{}"),
        ("lb/big/members/@tags/big", "{}"),
    ]);
    let doubts = |view: &View, tag: &str| {
        let tag: TagName = tag.parse().unwrap();
        assert_eq!(view.doubt(&tag, "b"), None);
        let doubt = view.doubt(&tag, "a").map(|doubt| doubt.to_string());
        assert_eq!(view.doubtful(&tag).len(), usize::from(doubt.is_some()));
        doubt.unwrap_or_default()
    };
    for tag in ["tags/big", "lb/big", "lb/top"] {
        assert!(doubts(&view, tag).starts_with("the rule \"mem > 4\" in tags/big cannot be evaluated"));
    }
    // Named further up: only what comes through the rule alone is in doubt, and from another namespace no document does.
    let put = |key: &str| Change { key: key.parse().unwrap(), value: Some(Document::empty()), moved: None };
    view.apply(Revision(20), &[put("lb/top/members/a")]);
    assert_eq!((doubts(&view, "lb/top"), doubts(&view, "lb/big").is_empty()), (String::new(), false));
    view.apply(Revision(21), &[put("tags/big/members/a")]);
    assert_eq!(doubts(&view, "lb/big"), "");
}

#[test]
fn effective_documents_have_origins_and_conflicts() {
    let view = small();
    let web: TagName = "lb/web".parse().unwrap();
    let a = view.effective(&web, Some(&"a".parse().unwrap())).unwrap();
    insta::assert_json_snapshot!(a, @r#"
{
  "value": {
    "check": {
      "port": 82,
      "path": "/"
    },
    "weight": 5
  },
  "origins": {
    "/check/path": {
      "key": "lb/web",
      "revision": 3
    },
    "/check/port": {
      "key": "lb/us",
      "revision": 5
    },
    "/weight": {
      "key": "hosts/a",
      "revision": 1
    }
  },
  "conflicts": [
    {
      "path": "/check/port",
      "between": [
        {
          "key": "lb/eu",
          "revision": 4,
          "value": 81
        },
        {
          "key": "lb/us",
          "revision": 5,
          "value": 82
        }
      ]
    }
  ],
  "revision": 11
}
"#);
    let b = view.effective_document(&web, Some(&"b".parse().unwrap())).unwrap();
    assert!(b.document.same(&view.tag(&web).unwrap().document));
    assert_eq!(b.revision, Revision(12));
}

#[test]
fn memberships_say_why() {
    let view = small();
    let why = |host: &str| {
        view.memberships(host).iter().map(|(tag, via)| format!("{tag}: {via}")).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(why("a"), @r"
lb/eu: named
lb/us: named
lb/web: @lb/eu > named
");
    insta::assert_snapshot!(why("b"), @r"
lb/web: @tags/x > select: site == 'y'
tags/x: select: site == 'y'
");
    assert_eq!(view.cycle(&"lb/web".parse().unwrap()), None);
}

#[test]
fn a_cycle_is_found_with_its_path() {
    let rows = [
        ("t/a", "{}"),
        ("t/b", "{}"),
        ("t/c", "{}"),
        ("t/a/members/@b", "{}"),
        ("t/b/members/@c", "{}"),
        ("t/c/members/@a", "{}"),
    ];
    let view = view(&rows);
    let path = view.cycle(&"t/b".parse().unwrap()).unwrap();
    assert_eq!(path.iter().map(TagName::as_str).collect::<Vec<_>>(), ["t/b", "t/c", "t/a", "t/b"]);
}

#[test]
fn a_rule_searches_hosts() {
    let view = small();
    let found = |rule: &str| {
        let hits = view.search(&Rule::compile(rule).unwrap(), None, 10);
        hits.items.iter().map(|h| h.host.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(found("site == 'y'"), ["b"]);
    assert_eq!(found("site != 'z'"), ["a", "b"]);
    assert_eq!(found("has(host.lb)"), ["a"]);
}
