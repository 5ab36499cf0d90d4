//! What a database says of an old revision, beside what all that stood then says when it is read anew.

use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use shoal_core::{
    Document, Edit, Excerpt, Expect, HostName, Key, Lifecycle, Member, Proposal, Range, Revision, TagName,
    View,
};

use super::properties::runner;
use super::rows::rows;
use super::{Factory, commit, key, put};
use crate::{Database, Query, Store};

/// Names, of which any may be renamed to any other.
const HOSTS: [&str; 4] = ["a", "b", "c", "d"];
const TAGS: [&str; 6] = ["lb/web", "lb/eu", "lb/us", "tags/x", "tags/y", "dns/z"];
const RULES: [&str; 4] = ["select: site == 'x'", "select: cpus > 2", "select: facts.vm.up", "select: true"];
/// Proposals of one history.
const STEPS: usize = 48;
/// Histories.
const CASES: usize = 2;

/// What somebody may want, possible or not: what is refused leaves the database as it is.
fn edit() -> impl Strategy<Value = Edit> {
    let host = || select(&HOSTS[..]).prop_map(|name| name.parse::<HostName>().unwrap());
    let tag = || select(&TAGS[..]).prop_map(|name| name.parse::<TagName>().unwrap());
    let member = || {
        let nested = tag().prop_map(|tag| Member::nested(&tag, ""));
        let rule = select(&RULES[..]).prop_map(|rule| rule.parse().unwrap());
        prop_oneof![3 => host().prop_map(|host| Member::host(&host)), 2 => nested, 1 => rule]
    };
    let documents =
        ["{}", r#"{"site":"x","lb":{"weight":5}}"#, r#"{"site":"y","cpus":4}"#, r#"{"weight":1}"#];
    let document = move || select(documents.to_vec()).prop_map(|text| Document::parse(text).unwrap());
    let row = || prop_oneof![host().prop_map(|host| Key::host(&host)), tag().prop_map(|tag| Key::tag(&tag))];
    let some = [
        ("facts/vm/a", Some(r#"{"up":true}"#)),
        ("facts/vm/b", Some(r#"{"up":true}"#)),
        ("facts/vm/a", None),
        ("schemas/lb", Some(r#"{"tag":true}"#)),
        ("schemas/lb", Some(r#"{"tag":true,"host":true}"#)),
        ("schemas/lb", None),
    ];
    let expect = Expect::Any;
    prop_oneof![
        4 => (host(), document()).prop_map(|(host, document)| put_host(host, document)),
        3 => (tag(), document()).prop_map(|(tag, document)| put_tag(tag, document)),
        4 => (tag(), member()).prop_map(|(tag, member)| Edit::AddMembers { tag, members: vec![member] }),
        2 => (tag(), member()).prop_map(|(tag, member)| Edit::RemoveMembers { tag, members: vec![member] }),
        2 => (row(), row()).prop_map(|(from, to)| Edit::Rename { from, to, expect: Expect::Any }),
        2 => (row(), any::<bool>())
            .prop_map(|(key, follow)| Edit::Delete { key, follow, expect: Expect::Any }),
        1 => host().prop_map(move |host| Edit::SetState { host, state: Lifecycle::Draining, expect }),
        2 => select(some.to_vec()).prop_map(|(at, value)| Edit::Row {
            key: key(at),
            value: value.map(|text| Document::parse(text).unwrap()),
            moved: None,
        }),
    ]
}

fn put_host(host: HostName, document: Document) -> Edit {
    let (id, state, owner, environment, expires) = Default::default();
    Edit::PutHost { host, id, state, owner, environment, expires, document, expect: Expect::Any }
}

fn put_tag(tag: TagName, document: Document) -> Edit {
    let (owner, environment, expires, members) = Default::default();
    Edit::PutTag { tag, owner, environment, expires, document, members, expect: Expect::Any }
}

/// Whatever can be told apart. Of several ways into a tag that are equally long, any may be named.
fn told(excerpt: &Excerpt) -> String {
    let ways = excerpt.memberships();
    let ways: Vec<_> = ways.iter().map(|(tag, via)| (tag, via.through.len(), via.rule.is_some())).collect();
    let (host, tag, effective) = (excerpt.host(), excerpt.tag(), excerpt.effective());
    format!("{} {host:#?} {tag:#?} {effective:#?} {ways:#?} {:#?}", excerpt.revision(), excerpt.parents())
}

/// At every revision, what is taken out of the view of now, and the view with what came since taken back, is what a whole reading of that revision says: for who followed the
/// commits, and for who came later.
pub async fn excerpts_equal_the_whole(new: Factory) {
    let mut runner = runner();
    let mut refused = 0;
    for _ in 0..CASES {
        let store = new().await;
        let followed = Database::open(store.handle()).await.unwrap();
        for _ in 0..STEPS {
            let edits = prop::collection::vec(edit(), 1..3).new_tree(&mut runner).expect("edits").current();
            refused += usize::from(followed.transact(Proposal::new("ann", "because", edits)).await.is_err());
        }
        // Where numbers are skipped there are revisions between commits, too.
        let least = Revision(followed.view().revision().0 + 5);
        let last = store.commit_at(commit([put("pauses/host/a", 1)]), least).await.unwrap();
        store.commit(commit([put("pauses/host/a", 2)])).await.unwrap();
        followed.wait_for(Revision(last.revision.0 + 1)).await;
        let later = Database::open(store.handle()).await.unwrap();
        assert!(followed.view().hosts().count() + followed.view().tags().count() > 0);
        let now = whole(&*store, store.head().await.unwrap().revision).await;
        compare_around(&*store, &now, None).await;
        for at in (0..=last.revision.0).map(Revision) {
            let whole = Arc::new(whole(&*store, at).await);
            for database in [&followed, &later] {
                compare(database, &whole, at).await;
                compare_all(&database.view_at(at).await.unwrap(), &whole);
            }
            compare_around(&*store, &whole, Some(at)).await;
        }
    }
    assert!(refused < CASES * STEPS * 3 / 4, "{refused} were refused");
}

/// All that stood then, read anew.
async fn whole(store: &dyn Store, at: Revision) -> View {
    let mut view = View::new();
    let query = Query { at: Some(at), tombstones: true, ..Query::new(Range::All) };
    rows(store, query).await.into_iter().for_each(|row| view.load(row));
    view.loaded(at);
    view
}

/// Whatever a whole view tells of its rows, and what they come to.
fn compare_all(view: &View, whole: &View) {
    let at = whole.revision();
    assert_eq!(view.revision(), at);
    assert_eq!(view.tags().collect::<Vec<_>>(), whole.tags().collect::<Vec<_>>(), "at revision {at}");
    assert_eq!(view.plain("").collect::<Vec<_>>(), whole.plain("").collect::<Vec<_>>());
    assert_eq!(view.broken().count() + whole.broken().count(), 0);
    for name in HOSTS.map(|name| name.parse::<HostName>().unwrap()) {
        assert_eq!(view.host(name.as_str()), whole.host(name.as_str()));
        assert_eq!(view.facts(name.as_str()), whole.facts(name.as_str()));
        assert_eq!(view.host_parents(name.as_str()), whole.host_parents(name.as_str()));
        assert_eq!(view.tombstone(&Key::host(&name)), whole.tombstone(&Key::host(&name)));
    }
    for tag in TAGS.map(|name| name.parse::<TagName>().unwrap()) {
        assert_eq!(view.members(&tag), whole.members(&tag), "{tag} at revision {at}");
        assert_eq!(view.direct_members(&tag), whole.direct_members(&tag));
        assert_eq!(view.tag_revision(&tag), whole.tag_revision(&tag), "{tag} at revision {at}");
        assert_eq!(view.doubtful(&tag), whole.doubtful(&tag));
        assert_eq!(view.tombstone(&Key::tag(&tag)), whole.tombstone(&Key::tag(&tag)));
        for host in whole.members(&tag) {
            assert_eq!(view.effective(&tag, Some(&host)), whole.effective(&tag, Some(&host)));
        }
    }
}

/// Of the rows around a host, where the store picks them, a view says of it what the whole one says.
async fn compare_around(store: &dyn Store, whole: &View, at: Option<Revision>) {
    for host in HOSTS.map(|name| name.parse::<HostName>().unwrap()) {
        let Some(page) = store.around(&host, at).await.unwrap() else { return };
        assert_eq!((page.at, page.next), (whole.revision(), None));
        assert!(page.rows.is_sorted_by(|a, b| a.key < b.key));
        let (mut view, name) = (View::new(), host.as_str());
        page.rows.into_iter().for_each(|row| view.load(row));
        view.loaded(page.at);
        assert_eq!(view.host(name), whole.host(name), "at revision {}", page.at);
        if whole.host(name).is_none() {
            assert_eq!(view.tags().count(), 0);
            continue;
        }
        assert_eq!(view.facts(name), whole.facts(name));
        let ways = |view: &View| -> Vec<(TagName, usize, bool)> {
            let all = view.memberships(name).into_iter();
            all.map(|(tag, via)| (tag, via.through.len(), via.rule.is_some())).collect()
        };
        assert_eq!(ways(&view), ways(whole), "{host} at revision {}", page.at);
        for tag in TAGS.map(|name| name.parse::<TagName>().unwrap()) {
            assert_eq!(
                view.effective(&tag, Some(&host)),
                whole.effective(&tag, Some(&host)),
                "{tag} of {host}"
            );
            if at.is_none() {
                assert_eq!(view.doubt(&tag, name), whole.doubt(&tag, name));
            }
        }
    }
}

async fn compare(database: &Database, whole: &Arc<View>, at: Revision) {
    // Each host with one tag and the other way round: over the revisions, all meet.
    for n in 0..HOSTS.len().max(TAGS.len()) {
        let turn = n + usize::try_from(at.0).unwrap();
        let host: HostName = HOSTS[n % HOSTS.len()].parse().unwrap();
        let tag: TagName = TAGS[turn % TAGS.len()].parse().unwrap();
        let excerpt = database.excerpt_at(at, Some(&host), Some(&tag)).await.unwrap().expect("little counts");
        let expected = Excerpt::of(whole.clone(), Some(host), Some(tag));
        assert_eq!(told(&excerpt), told(&expected), "at revision {at}");
    }
}
