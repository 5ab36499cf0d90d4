//! What proposals become, and why they are refused.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

use serde_json::{Value, json};
use shoal_core::{
    Document, Edit, Expect, HostId, Key, Member, Prepared, Proposal, Refusal, Revision, Row, TagName, View,
    prepare,
};

struct Fleet {
    view: View,
    ids: u32,
}

impl Fleet {
    fn new(edits: Vec<Edit>) -> Self {
        let mut fleet = Self { view: View::new(), ids: 0 };
        fleet.change(edits);
        fleet
    }

    fn propose(&mut self, edits: Vec<Edit>) -> Result<Prepared, Refusal> {
        let ids = &mut self.ids;
        let mut new_id = || {
            *ids += 1;
            HostId(format!("id{ids}"))
        };
        prepare(&self.view, &Proposal::new("ann", "because", edits), &mut new_id)
    }

    /// Does it, as a store would.
    fn change(&mut self, edits: Vec<Edit>) -> Prepared {
        let prepared = self.propose(edits).unwrap_or_else(|refusal| panic!("{refusal}"));
        let revision = Revision(self.view.revision().0 + 1);
        self.view.apply(revision, &prepared.commit.changes);
        prepared
    }

    /// Why it is refused: code, place and text.
    fn refused(&mut self, edits: Vec<Edit>) -> String {
        let refusal = self.propose(edits).err().map(|r| {
            let key = r.key().map(|k| k.to_string()).unwrap_or_default();
            format!("{} {key}\n{r}", r.code())
        });
        refusal.unwrap_or_else(|| "not refused".to_owned())
    }
}

fn host(name: &str, document: Value) -> Edit {
    Edit::PutHost {
        host: name.parse().unwrap(),
        id: None,
        state: None,
        owner: None,
        environment: None,
        expires: None,
        document: Document::from(document),
        expect: Expect::Any,
    }
}

fn tag(name: &str, document: Value, members: &[&str]) -> Edit {
    Edit::PutTag {
        tag: name.parse().unwrap(),
        owner: None,
        environment: None,
        expires: None,
        document: Document::from(document),
        members: Some(of(members)),
        expect: Expect::Any,
    }
}

fn of(members: &[&str]) -> Vec<Member> {
    members.iter().map(|m| m.parse().unwrap()).collect()
}

fn add(tag: &str, members: &[&str]) -> Edit {
    Edit::AddMembers { tag: tag.parse().unwrap(), members: of(members) }
}

fn remove(tag: &str, members: &[&str]) -> Edit {
    Edit::RemoveMembers { tag: tag.parse().unwrap(), members: of(members) }
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn delete(text: &str) -> Edit {
    Edit::Delete { key: key(text), follow: false, expect: Expect::Any }
}

fn rename(from: &str, to: &str) -> Edit {
    Edit::Rename { from: key(from), to: key(to), expect: Expect::Any }
}

fn patch(text: &str, patch: Value) -> Edit {
    Edit::Patch { key: key(text), patch, expect: Expect::Any }
}

fn write(text: &str, value: Value) -> Edit {
    Edit::Write { key: key(text), value: Document::from(value), expect: Expect::Any }
}

fn schema() -> Edit {
    let weight = json!({"type": "integer", "minimum": 0, "maximum": 256});
    let tag = json!({"type": "object", "properties": {"weight": weight, "mode": {"enum": ["http", "tcp"]},
        "max": {"type": "integer"}}, "additionalProperties": false});
    let host = json!({"type": "object", "properties": {"weight": {"type": ["integer", "string"]}}, "additionalProperties": false});
    write("schemas/lb", json!({"tag": tag, "host": host}))
}

fn small() -> Fleet {
    Fleet::new(vec![
        host("web1", json!({"site": "x"})),
        host("web2", json!({"site": "y"})),
        tag("lb/web", json!({"weight": 1}), &["@eu", "web2"]),
        tag("lb/eu", json!({}), &["web1"]),
        tag("tags/x", json!({}), &["select: site == 'x'", "@lb/web"]),
        write("facts/vm/web1", json!({"up": true})),
        write("pauses/host/web1", json!({"why": "moving it"})),
    ])
}

fn rows(prepared: &Prepared) -> String {
    let line = |c: &shoal_core::Change| {
        let moved = c.moved.as_ref().map(|k| format!(" (moved: {k})")).unwrap_or_default();
        format!("{} = {}{moved}", c.key, c.value.as_ref().map_or("-", |v| v.as_str()))
    };
    prepared.commit.changes.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn refusals_name_thing_place_and_way_out() {
    let mut fleet = small();
    fleet.change(vec![schema()]);
    let expect = |expect| Edit::SetState { host: "web1".parse().unwrap(), state: Default::default(), expect };
    let tries = vec![
        vec![add("lb/web", &["web9"])],
        vec![add("lb/nope", &["web1"])],
        vec![add("lb/eu", &["@web"])],
        vec![add("lb/eu", &["@tags/x"])],
        vec![add("lb/eu", &["@eu"])],
        vec![add("lb/eu", &["select: site =="])],
        vec![remove("lb/eu", &["web2"])],
        vec![tag("lb/new", json!({"wieght": 1}), &[])],
        vec![tag("lb/new", json!({"weight": "1"}), &[])],
        vec![host("web1", json!({"lb": {"weight": -1.5}}))],
        vec![host("web1", json!({"lb": {"weight": "high"}}))],
        vec![host("web1", json!([]))],
        vec![host("web1", json!({})), host("web1", json!({"a": 1}))],
        vec![delete("lb/eu")],
        vec![delete("hosts/web9")],
        vec![rename("hosts/web1", "hosts/web2")],
        vec![rename("hosts/web1", "lb/web1")],
        vec![patch("hosts/web1", json!({"colour": "red"}))],
        vec![patch("hosts/web1", json!({"id": "other"}))],
        vec![patch("hosts/web1", json!({"state": "gone"}))],
        vec![expect(Expect::At(Revision(7)))],
        vec![expect(Expect::Absent)],
        vec![write("schemas/lb", json!({"tag": {"type": "objekt"}}))],
        vec![write("schemas/lb", json!({"tag": {"$ref": "https://example.com/x"}}))],
        vec![write("pauses/host/web1", json!({"because": "x"}))],
        vec![write("hosts/web1", json!({}))],
        vec![host("big", json!({"a": "x".repeat(2 << 20)}))],
    ];
    let all: Vec<String> = tries.into_iter().map(|edits| fleet.refused(edits)).collect();
    insta::assert_snapshot!(all.join("\n\n"), @r#"
unknown-member lb/web/members/web9
lb/web cannot have the member web9: there is no such host; make it first or in the same commit, or mend the name

missing lb/nope
lb/nope does not exist: mend the name, or make it first

cycle lb/eu
lb/eu would contain itself: lb/eu > lb/web > lb/eu; leave one of these links out

cycle lb/eu
lb/eu would contain itself: lb/eu > tags/x > lb/web > lb/eu; leave one of these links out

cycle lb/eu
lb/eu would contain itself: lb/eu > lb/eu; leave one of these links out

bad-rule lb/eu/members/select: site ==
lb/eu: the rule "site ==" does not compile: column 8: Syntax error: it ends too early
  site ==
         ^

no-member lb/eu/members/web2
web2 is no member of lb/eu by name, so it cannot be taken out; `shoal members lb/eu` shows who is

tag-breaks-schema lb/new
the document of lb/new breaks the schema of lb: at /wieght: expected no such field, found "wieght"; mend that field (`shoal get schemas/lb` shows what it may be)

tag-breaks-schema lb/new
the document of lb/new breaks the schema of lb: at /weight: expected integer, found "1"; mend that field (`shoal get schemas/lb` shows what it may be)

override-breaks-schema hosts/web1
what web1 overrides under "lb" breaks the schema of lb: at /weight: expected integer or string, found -1.5; mend or remove that field (`shoal get schemas/lb` shows what it may be)

effective-breaks-schema lb/eu
what lb/eu says of web1 would break the schema of lb: at /weight: expected integer, found "high" (said by hosts/web1 at revision 3); mend it there (`shoal get schemas/lb` shows what it may be)

form hosts/web1
hosts/web1 is not of the right form: its document is a map

twice hosts/web1
hosts/web1 is put twice in one commit: leave one of the two out

nested lb/eu
lb/eu is nested in lb/web: take it out of them first, or delete it there too (--follow, ?follow)

missing hosts/web9
hosts/web9 does not exist: mend the name, or make it first

exists hosts/web2
hosts/web2 exists already (revision 1): choose another name, or change what is there

kind hosts/web1
hosts/web1: only a host can be renamed to a host, and a tag to a tag of the same namespace

form hosts/web1
hosts/web1 is not of the right form: unknown field `colour`, expected one of `id`, `state`, `owner`, `environment`, `expires`, `document`

id hosts/web1
web1 cannot have the id other: its id is id1, and ids never change; leave the id out

form hosts/web1
hosts/web1 is not of the right form: unknown variant `gone`, expected one of `requested`, `placed`, `building`, `active`, `draining`, `retired`, `failed`

stale hosts/web1
hosts/web1 changed: you saw revision 7, it is now at 1; read it again and decide anew

exists hosts/web1
hosts/web1 exists already (revision 1): choose another name, or change what is there

bad-schema schemas/lb
the schema of lb cannot be used: its "tag": at /type: expected one of ["array","boolean","integer","null","number","object","string"], or array, found "objekt"; publish one that is JSON Schema, draft 2020-12

bad-schema schemas/lb
the schema of lb cannot be used: its "tag" refers to something outside of itself, or to nothing: a schema stands alone; publish one that is JSON Schema, draft 2020-12

form pauses/host/web1
pauses/host/web1 is not of the right form: unknown field `because`, expected `why` at line 1 column 10

kind hosts/web1
hosts/web1: hosts, tags and members have edits of their own

too-large hosts/big
hosts/big is too large: 2097201 octets, at most 1048576 fit; split it, or keep what is large elsewhere and say here where
"#);
    let silent = |author: &str, message: &str| {
        let proposal = Proposal::new(author, message, vec![]);
        prepare(&fleet.view, &proposal, &mut || HostId("x".into())).unwrap_err()
    };
    assert_eq!((silent(" ", "m"), silent("a", "\n")), (Refusal::NoAuthor, Refusal::NoMessage));
}

#[test]
fn a_rename_takes_everything_along() {
    let mut fleet = small();
    let done = fleet.change(vec![rename("hosts/web1", "hosts/www1")]);
    insta::assert_snapshot!(rows(&done), @r#"
facts/vm/web1 = - (moved: facts/vm/www1)
facts/vm/www1 = {"up":true} (moved: facts/vm/web1)
hosts/web1 = - (moved: hosts/www1)
hosts/www1 = {"id":"id1","state":"active","document":{"site":"x"}} (moved: hosts/web1)
lb/eu/members/web1 = -
lb/eu/members/www1 = {}
pauses/host/web1 = - (moved: pauses/host/www1)
pauses/host/www1 = {"why":"moving it"} (moved: pauses/host/web1)
"#);
    assert_eq!(fleet.view.host("www1").unwrap().id, HostId("id1".into()));
    let done = fleet.change(vec![rename("lb/eu", "lb/europe")]);
    insta::assert_snapshot!(rows(&done), @r#"
lb/eu = - (moved: lb/europe)
lb/eu/members/www1 = -
lb/europe = {"document":{}} (moved: lb/eu)
lb/europe/members/www1 = {}
lb/web/members/@eu = -
lb/web/members/@europe = {}
"#);
    assert!(fleet.view.contains(&"lb/web".parse().unwrap(), "www1"));
    insta::assert_snapshot!(fleet.refused(vec![add("lb/web", &["web1"])]), @r"
unknown-member lb/web/members/web1
lb/web cannot have the member web1: there is no such host, it was renamed to hosts/www1; make it first or in the same commit, or mend the name
");
}

#[test]
fn a_delete_leaves_nothing_that_names_it() {
    let mut fleet = small();
    insta::assert_snapshot!(rows(&fleet.change(vec![delete("hosts/web1")])), @r"
facts/vm/web1 = -
hosts/web1 = -
lb/eu/members/web1 = -
");
    let follow = Edit::Delete { key: key("lb/eu"), follow: true, expect: Expect::Any };
    insta::assert_snapshot!(rows(&fleet.change(vec![follow])), @r"
lb/eu = -
lb/web/members/@eu = -
");
}

#[test]
fn edits_build_on_each_other_in_any_order_of_reference() {
    let mut fleet = Fleet::new(vec![]);
    let edits = vec![
        tag("lb/web", json!({}), &["@eu", "web1"]),
        tag("lb/eu", json!({}), &["web2"]),
        host("web1", json!({})),
        host("web2", json!({})),
        rename("hosts/web2", "hosts/web3"),
        patch("hosts/web3", json!({"document": {"a": {"b": 1}}, "owner": "ops"})),
        patch("lb/eu", json!({"members": ["web1"]})),
    ];
    insta::assert_snapshot!(rows(&fleet.change(edits)), @r#"
hosts/web1 = {"id":"id1","state":"active","document":{}}
hosts/web2 = - (moved: hosts/web3)
hosts/web3 = {"id":"id2","state":"active","owner":"ops","document":{"a":{"b":1}}} (moved: hosts/web2)
lb/eu = {"document":{}}
lb/eu/members/web1 = {}
lb/web = {"document":{}}
lb/web/members/@eu = {}
lb/web/members/web1 = {}
"#);
    // What stands already changes nothing, and rests on nothing.
    let again =
        fleet.propose(vec![patch("hosts/web3", json!({"owner": "ops"})), add("lb/eu", &["web1"])]).unwrap();
    assert!(again.commit.changes.is_empty() && again.commit.pre.is_empty(), "{:?}", again.commit);
}

#[test]
fn what_was_read_is_stated() {
    let mut fleet = small();
    fleet.change(vec![schema()]);
    let mut pre = |edits| {
        let prepared = fleet.propose(edits).unwrap();
        prepared.commit.pre.iter().map(|p| format!("{p:?}")).collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(pre(vec![add("lb/eu", &["web2"])]), @r#"
At("hosts/web2", Revision(1))
Exists("lb/eu")
Unchanged(Key("lb/eu"), Revision(2))
Unchanged(Key("schemas/lb"), Revision(2))
"#);
    insta::assert_snapshot!(pre(vec![host("web1", json!({"lb": {"weight": 3}}))]), @r#"
At("hosts/web1", Revision(1))
Unchanged(Key("lb/eu"), Revision(2))
Unchanged(Key("lb/web"), Revision(2))
Unchanged(Key("schemas/lb"), Revision(2))
Unchanged(Naming("@eu"), Revision(2))
Unchanged(Naming("@lb/eu"), Revision(2))
Unchanged(Naming("@lb/web"), Revision(2))
Unchanged(Naming("@web"), Revision(2))
Unchanged(Naming("web1"), Revision(2))
"#);
    insta::assert_snapshot!(pre(vec![add("tags/x", &["@lb/eu"])]), @r#"
Exists("lb/eu")
Exists("tags/x")
Unchanged(Naming("@tags/x"), Revision(2))
Unchanged(Naming("@x"), Revision(2))
"#);
    insta::assert_snapshot!(pre(vec![write("facts/vm/web1", json!({"up": false}))]), @"");
}

#[test]
fn a_new_schema_locks_nobody_out() {
    let mut fleet = small();
    fleet.change(vec![
        tag("lb/old", json!({"wieght": 1, "max": 3}), &["web1"]),
        host("web2", json!({"lb": {"weihgt": 2}, "site": "y"})),
    ]);
    let done = fleet.change(vec![schema()]);
    let warnings: Vec<String> =
        done.warnings.iter().map(|w| format!("{} {}: {}", w.code, w.key, w.text)).collect();
    insta::assert_snapshot!(warnings.join("\n"), @r#"
breaks-schema lb/old: the document of lb/old breaks the new schema: at /wieght: expected no such field, found "wieght"
breaks-schema lb/web: what lb/web says of web2 breaks the new schema: at /weihgt: expected no such field, found "weihgt"
breaks-schema hosts/web2: what web2 overrides under "lb" breaks the new schema: at /weihgt: expected no such field, found "weihgt"
"#);
    // What is not touched stays as it is, and may be joined; what is touched has to be right.
    fleet.change(vec![patch("hosts/web2", json!({"document": {"lb": null}}))]);
    fleet.change(vec![add("lb/old", &["web2"])]);
    fleet.change(vec![patch("hosts/web1", json!({"owner": "ops"}))]);
    fleet.change(vec![patch("lb/old", json!({"owner": "ops"}))]);
    insta::assert_snapshot!(fleet.refused(vec![patch("lb/old", json!({"document": {"max": 4}}))]), @r#"
tag-breaks-schema lb/old
the document of lb/old breaks the schema of lb: at /wieght: expected no such field, found "wieght"; mend that field (`shoal get schemas/lb` shows what it may be)
"#);
    fleet.change(vec![patch("lb/old", json!({"document": {"wieght": null, "weight": 1}}))]);
}

#[test]
fn a_nested_document_is_checked_where_it_ends_up() {
    let mut fleet = small();
    // Any field goes by itself; together there may be only one.
    let either = json!({"maxProperties": 1});
    fleet.change(vec![write("schemas/lb", json!({"tag": either}))]);
    let refused = fleet.refused(vec![patch("lb/eu", json!({"document": {"mode": "tcp"}}))]);
    insta::assert_snapshot!(refused, @r#"
effective-breaks-schema lb/web
what lb/web says of web1 would break the schema of lb: at the whole document: expected at most 1 fields, found {"mode":"tcp","weight":1}; mend it there (`shoal get schemas/lb` shows what it may be)
"#);
    let tagged: TagName = "lb/web".parse().unwrap();
    assert!(fleet.view.effective(&tagged, Some(&"web1".parse().unwrap())).is_some());
}

#[test]
fn disagreeing_tags_are_a_warning() {
    let mut fleet = small();
    let done = fleet.change(vec![
        tag("lb/us", json!({"mode": "tcp"}), &["web1"]),
        patch("lb/eu", json!({"document": {"mode": "http"}})),
        add("lb/web", &["@us"]),
    ]);
    let warnings: Vec<String> = done.warnings.iter().map(|w| w.text.clone()).collect();
    insta::assert_snapshot!(warnings.join("\n"), @r#"lb/web has no one answer at /mode for web1: lb/eu says "http", lb/us says "tcp""#);
}

#[test]
fn rows_that_cannot_be_read_are_survived() {
    let mut view = View::new();
    for (key, value) in
        [("hosts/a", "[]"), ("lb/x", "7"), ("lb/x/members/a", "{}"), ("lb/y/members/select: ==", "{}")]
    {
        let value = Document::parse(value).ok();
        view.load(Row { key: key.parse().unwrap(), value, revision: Revision(1), moved: None });
    }
    view.loaded(Revision(1));
    let broken: Vec<&str> = view.broken().map(|(key, _)| key.as_str()).collect();
    assert_eq!(broken, ["hosts/a", "lb/x", "lb/y/members/select: =="]);
}

/// Others may write some other host all the time: much at once does not rest on all hosts staying as they are.
#[test]
fn what_changes_many_hosts_rests_on_those_alone() {
    let many = |value: u32| (0..300).map(|n| host(&format!("h{n}"), json!({"n": value}))).collect::<Vec<_>>();
    let mut fleet = Fleet::new(many(1));
    let prepared = fleet.propose(many(2)).unwrap();
    assert_eq!(prepared.commit.pre.len(), 300);
    assert!(
        prepared.commit.pre.iter().all(|pre| matches!(pre, shoal_core::Pre::At(..))),
        "{:?}",
        prepared.commit.pre
    );
}

/// What other rules leave open is said, once: a protected tag nests one that is not.
#[test]
fn rules_that_leave_a_protected_tag_open_are_warned_of() {
    let mut fleet = small();
    fleet.change(vec![
        tag("lb/inner", json!({}), &["web1"]),
        tag("lb/outer", json!({}), &["@inner"]),
        tag("dns/other", json!({}), &["@lb/inner"]),
    ]);
    let protect =
        |of: &str, protected: bool| write(&format!("access/rules/{of}"), json!({"protected": protected}));
    let mut said = |edits: Vec<Edit>| {
        let done = fleet.change(edits);
        done.warnings.iter().map(|w| format!("{} {}", w.code, w.key)).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(said(vec![protect("lb/outer", true)]), "nests-unprotected lb/outer");
    // It is known by now.
    assert_eq!(said(vec![protect("hosts", false)]), "");
    assert_eq!(said(vec![protect("lb/inner", true), protect("dns/other", true)]), "");
    // Whatever takes the protection away.
    let both = "nests-unprotected dns/other, nests-unprotected lb/outer";
    assert_eq!(said(vec![protect("lb/inner", false)]), both);
    assert_eq!(said(vec![protect("lb/inner", true)]), "");
    let gone = Edit::Delete {
        key: "access/rules/lb/inner".parse().unwrap(),
        follow: false,
        expect: shoal_core::Expect::Any,
    };
    assert_eq!(said(vec![gone]), both);
}
