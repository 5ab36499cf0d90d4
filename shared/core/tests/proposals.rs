//! Laws of proposals: what is accepted leaves the database whole, and whatever was can be brought back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;
use shoal_core::{
    Change, Document, Edit, Expect, HostId, HostName, Key, Kind, Lifecycle, Member, MemberKind, Prepared,
    Proposal, Refusal, Revision, Row, Scope, TagName, View, prepare, rollback,
};

const HOSTS: [&str; 4] = ["h0", "h1", "h2", "h3"];
const TAGS: [&str; 5] = ["a/t0", "a/t1", "a/t2", "b/t0", "b/t1"];

fn host_key() -> impl Strategy<Value = Key> {
    select(&HOSTS[..]).prop_map(|h| format!("hosts/{h}").parse().unwrap())
}

fn tag_key() -> impl Strategy<Value = Key> {
    select(&TAGS[..]).prop_map(|t| t.parse().unwrap())
}

fn member() -> impl Strategy<Value = Member> {
    let text = prop_oneof![
        3 => select(&HOSTS[..]).prop_map(str::to_owned),
        2 => select(&TAGS[..]).prop_map(|t| format!("@{t}")),
        1 => select(&["select: n == 1", "select: n > 1"][..]).prop_map(str::to_owned),
    ];
    text.prop_map(|t| t.parse().unwrap())
}

fn document() -> impl Strategy<Value = Document> {
    (0..4, prop::option::of(0..4)).prop_map(|(n, over)| {
        Document::from(over.map_or(json!({"n": n}), |w| json!({"n": n, "a": {"w": w}})))
    })
}

fn edit() -> impl Strategy<Value = Edit> {
    let expect = Expect::Any;
    prop_oneof![
        3 => (select(&HOSTS[..]), document()).prop_map(move |(host, document)| Edit::PutHost {
            host: host.parse().unwrap(), id: None, state: None, owner: None, environment: None, expires: None, document, expect,
        }),
        3 => (select(&TAGS[..]), 0..4, prop::option::of(proptest::collection::vec(member(), 0..4)))
            .prop_map(move |(tag, w, members)| Edit::PutTag {
                tag: tag.parse().unwrap(), owner: None, environment: None, expires: None,
                document: Document::from(json!({"w": w})), members, expect,
            }),
        2 => (host_key(), any::<bool>()).prop_map(move |(key, follow)| Edit::Delete { key, follow, expect }),
        1 => (tag_key(), any::<bool>()).prop_map(move |(key, follow)| Edit::Delete { key, follow, expect }),
        2 => (host_key(), host_key()).prop_map(move |(from, to)| Edit::Rename { from, to, expect }),
        1 => (tag_key(), tag_key()).prop_map(move |(from, to)| Edit::Rename { from, to, expect }),
        2 => (select(&TAGS[..]), proptest::collection::vec(member(), 1..3))
            .prop_map(|(tag, members)| Edit::AddMembers { tag: tag.parse().unwrap(), members }),
        1 => (select(&TAGS[..]), member()).prop_map(|(tag, m)| Edit::RemoveMembers { tag: tag.parse().unwrap(), members: vec![m] }),
        1 => (select(&HOSTS[..]), select(&Lifecycle::ALL[..]))
            .prop_map(move |(host, state)| Edit::SetState { host: host.parse().unwrap(), state, expect }),
        1 => (host_key(), 0..3).prop_map(move |(key, n)| Edit::Patch { key, patch: json!({"document": {"n": n}}), expect }),
        1 => Just(Edit::Write {
            key: "schemas/a".parse().unwrap(),
            // Whatever a tag and a host say is fine, but for 3.
            value: Document::from(json!({"tag": {"properties": {"w": {"maximum": 2}}}, "host": {}})),
            expect,
        }),
    ]
}

/// All hosts and tags, so that what follows finds something.
fn everybody() -> Vec<Edit> {
    let (owner, environment, expires, expect) = (None, None, None, Expect::Any);
    let hosts = HOSTS.iter().map(|host| Edit::PutHost {
        host: host.parse().unwrap(),
        id: None,
        state: None,
        owner: owner.clone(),
        environment: environment.clone(),
        expires,
        document: Document::empty(),
        expect,
    });
    let tags = TAGS.iter().map(|tag| Edit::PutTag {
        tag: tag.parse().unwrap(),
        owner: owner.clone(),
        environment: environment.clone(),
        expires,
        document: Document::empty(),
        members: None,
        expect,
    });
    hosts.chain(tags).collect()
}

fn propose(view: &View, edits: Vec<Edit>, ids: &mut u32) -> Result<Prepared, Refusal> {
    prepare(view, &Proposal::new("ann", "because", edits), &mut || {
        *ids += 1;
        HostId(format!("id{ids}"))
    })
}

/// What people wrote: hosts, tags and members.
fn written(view: &View) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> =
        view.hosts().map(|h| (h.name.to_string(), format!("{:?}", h.record()))).collect();
    for tag in view.tags() {
        let members: Vec<Member> = view.direct_members(&tag.name).into_iter().map(|(m, _)| m).collect();
        all.insert(tag.name.to_string(), format!("{:?} {members:?}", tag.record()));
    }
    all
}

/// Nothing dangles, nothing goes in circles, nobody has another's id.
fn whole(view: &View) {
    assert_eq!(view.broken().count(), 0);
    for tag in view.tags() {
        assert_eq!(view.cycle(&tag.name), None);
        for (member, _) in view.direct_members(&tag.name) {
            let there = match (member.kind(), member.as_tag(tag.name.namespace())) {
                (MemberKind::Rule(_), _) => true,
                (_, Some(nested)) => view.tag(&nested).is_some(),
                (_, None) => view.host(member.as_str()).is_some(),
            };
            assert!(there, "{member} of {}", tag.name);
        }
    }
    let mut ids: Vec<&HostId> = view.hosts().map(|h| &h.id).collect();
    ids.sort();
    assert!(ids.windows(2).all(|w| w[0] != w[1]), "{ids:?}");
    for name in HOSTS {
        let host: HostName = name.parse().unwrap();
        if view.host(name).is_none() {
            assert_eq!(view.host_parents(name), Vec::<TagName>::new(), "{host} is gone");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_leaves_the_database_whole(
        proposals in proptest::collection::vec(proptest::collection::vec(edit(), 1..3), 1..25),
        back in any::<proptest::sample::Index>(),
        key in prop_oneof![host_key(), tag_key()],
    ) {
        let (mut view, mut ids, mut past) = (View::new(), 0, vec![View::new()]);
        for edits in std::iter::once(everybody()).chain(proposals) {
            let Ok(prepared) = propose(&view, edits, &mut ids) else { continue };
            // Row by row it is the same commit, on the same conditions.
            let rows = propose(&view, as_rows(&prepared), &mut ids);
            prop_assert_eq!(rows.map(|rows| rows.commit.changes), Ok(prepared.commit.changes.clone()));
            let revision = Revision(view.revision().0 + 1);
            let touched = view.apply(revision, &prepared.commit.changes);
            prop_assert_eq!(touched, prepared.touched);
            whole(&view);
            past.push(view.clone());
        }
        let then = &past[back.index(past.len())];
        let edits = rollback(&view, then, Scope::Everything);
        let prepared = propose(&view, edits.clone(), &mut ids);
        // Only a schema that came in between may stand against it.
        match prepared {
            Ok(prepared) => {
                let mut after = view.clone();
                after.apply(Revision(view.revision().0 + 1), &prepared.commit.changes);
                prop_assert_eq!(written(&after), written(then));
                prop_assert_eq!(rollback(&after, then, Scope::Everything), vec![]);
            }
            Err(refusal) => prop_assert!(refusal.fault().is_some(), "{} {:?}", refusal, edits),
        }
        // One key, from its own rows alone.
        let mut rows = View::new();
        for row in own_rows(then, &key) {
            rows.load(row);
        }
        rows.loaded(then.revision());
        if let Ok(prepared) = propose(&view, rollback(&view, &rows, Scope::Key(&key)), &mut ids) {
            let mut after = view.clone();
            after.apply(Revision(view.revision().0 + 1), &prepared.commit.changes);
            prop_assert_eq!(after.row(&key), then.row(&key));
        }
    }
}

fn as_rows(prepared: &Prepared) -> Vec<Edit> {
    let row = |c: &Change| Edit::Row { key: c.key.clone(), value: c.value.clone(), moved: c.moved.clone() };
    prepared.commit.changes.iter().map(row).collect()
}

/// A few rows of somebody who does not know what he does.
fn rows() -> impl Strategy<Value = Vec<Edit>> {
    let host = |(key, id): (Key, Option<u32>)| {
        let value = id.map(|id| Document::from(json!({"id": format!("id{id}"), "document": {}})));
        Edit::Row { key, value, moved: None }
    };
    let tag = |(key, there): (Key, bool)| Edit::Row {
        key,
        value: there.then(|| Document::from(json!({"document": {}}))),
        moved: None,
    };
    let of = |(tag, member, there): (&str, Member, bool)| {
        let key = Key::member(&tag.parse().unwrap(), &member);
        Edit::Row { key, value: there.then(Document::empty), moved: None }
    };
    let one = prop_oneof![
        1 => (host_key(), prop::option::of(1..6_u32)).prop_map(host),
        1 => (tag_key(), any::<bool>()).prop_map(tag),
        2 => (select(&TAGS[..]), member(), any::<bool>()).prop_map(of),
    ];
    proptest::collection::vec(one, 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rows_of_anybody_leave_the_database_whole(commits in proptest::collection::vec(rows(), 1..40)) {
        let (mut view, mut ids) = (View::new(), 0);
        for edits in std::iter::once(everybody()).chain(commits) {
            let Ok(prepared) = propose(&view, edits, &mut ids) else { continue };
            view.apply(Revision(view.revision().0 + 1), &prepared.commit.changes);
            whole(&view);
        }
    }
}

fn own_rows(view: &View, key: &Key) -> Vec<Row> {
    let members = match key.kind() {
        Kind::Tag(tag) => view.direct_members(&tag).into_iter().map(|(m, _)| Key::member(&tag, &m)).collect(),
        _ => Vec::new(),
    };
    let row = |key: Key| {
        Some(Row { value: Some(view.row(&key)?), revision: view.revision_of(&key)?, key, moved: None })
    };
    std::iter::once(key.clone()).chain(members).filter_map(row).collect()
}
