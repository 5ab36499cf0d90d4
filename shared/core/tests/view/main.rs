//! The laws of the view, held against a model that recomputes everything from the rows each time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "it is a test")]

mod around;
mod cost;
mod excerpt;
mod generate;
mod model;
mod search;
mod undo;

use std::collections::BTreeMap;

use proptest::prelude::*;
use shoal_core::{Change, HostName, Key, Revision, Row, TagName, Tombstone, Touched, View};

use generate::{HOSTS, TAGS};
use model::Model;

/// What a pair of tag and host looks like from outside.
type Seen = BTreeMap<(String, String), (serde_json::Value, String, Revision)>;

fn tags() -> Vec<TagName> {
    TAGS.iter().map(|t| t.parse().unwrap()).collect()
}

fn hosts() -> Vec<HostName> {
    HOSTS.iter().map(|h| h.parse().unwrap()).collect()
}

/// Every member's effective document, host row and revision.
fn seen(view: &View) -> Seen {
    let mut all = Seen::new();
    for tag in tags() {
        for host in view.members(&tag) {
            let cheap = view.effective_document(&tag, Some(&host)).unwrap();
            let row = format!("{:?} {:?}", view.host(host.as_str()), view.facts(host.as_str()));
            all.insert((tag.to_string(), host.to_string()), (cheap.document.value(), row, cheap.revision));
        }
    }
    all
}

/// What is not known of each pair.
fn doubts(view: &View) -> BTreeMap<(TagName, HostName), String> {
    let pairs = tags().into_iter().flat_map(|tag| hosts().into_iter().map(move |host| (tag.clone(), host)));
    let doubt = |(tag, host): (TagName, HostName)| {
        let doubt = view.doubt(&tag, host.as_str())?.to_string();
        assert!(view.doubtful(&tag).contains(&host));
        Some(((tag, host), doubt))
    };
    pairs.filter_map(doubt).collect()
}

fn fresh(rows: &BTreeMap<Key, Row>, revision: Revision) -> View {
    let mut view = View::new();
    rows.values().rev().for_each(|row| view.load(row.clone()));
    view.loaded(revision);
    view
}

fn check(view: &View, fresh: &View, model: &Model) {
    assert_eq!(seen(view), seen(fresh));
    assert_eq!(doubts(view), doubts(fresh));
    for tag in tags() {
        let members: Vec<String> = view.members(&tag).iter().map(ToString::to_string).collect();
        assert_eq!(members, model.members(&tag), "members of {tag}");
        assert_eq!(view.direct_members(&tag), fresh.direct_members(&tag));
        assert_eq!(view.tag(&tag), fresh.tag(&tag));
        assert_eq!(view.tag_revision(&tag), fresh.tag_revision(&tag));
        assert_eq!(view.tag_parents(&tag), fresh.tag_parents(&tag));
        for host in hosts() {
            let contains = members.contains(&host.to_string());
            assert_eq!(view.contains(&tag, host.as_str()), contains, "{tag} {host}");
            let full = view.effective(&tag, Some(&host));
            assert_eq!(
                full.as_ref().map(|e| e.value.clone()),
                model.effective(&tag, &host),
                "{tag} of {host}"
            );
            let cheap = view.effective_document(&tag, Some(&host));
            assert_eq!(cheap.as_ref().map(|e| e.document.value()), full.as_ref().map(|e| e.value.clone()));
            assert_eq!(
                cheap.as_ref().map(|e| (*e.conflicts).clone()),
                full.as_ref().map(|e| e.conflicts.clone())
            );
            assert_eq!(view.via(&tag, host.as_str()).is_some(), contains);
            for (path, origin) in full.iter().flat_map(|e| &e.origins) {
                let value = full.as_ref().and_then(|e| e.value.pointer(path));
                assert_eq!(model.said(&origin.key, path, &tag), value.cloned(), "{path} of {tag} {host}");
            }
        }
    }
    for host in hosts() {
        assert_eq!(view.host(host.as_str()), fresh.host(host.as_str()));
        assert_eq!(view.facts(host.as_str()), fresh.facts(host.as_str()));
        assert_eq!(view.host_parents(host.as_str()), fresh.host_parents(host.as_str()));
        assert_eq!(view.memberships(host.as_str()).len(), fresh.memberships(host.as_str()).len());
    }
    assert_eq!(view.broken().collect::<Vec<_>>(), fresh.broken().collect::<Vec<_>>());
}

/// Every pair that looks different is named. A newer revision alone is no difference: a tag's owner changed.
fn covers(touched: &Touched, before: &Seen, after: &Seen) {
    for pair in before.keys().chain(after.keys()) {
        let looks = |seen: &Seen| seen.get(pair).map(|(document, row, _)| (document.clone(), row.clone()));
        if looks(before) != looks(after) {
            let (tag, host) = (pair.0.parse().unwrap(), pair.1.parse().unwrap());
            assert!(
                touched.has(&tag, &host),
                "{pair:?}: {:?} -> {:?}, {touched:?}",
                before.get(pair),
                after.get(pair)
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn following_commits_equals_loading_the_rows(commits in generate::commits()) {
        let mut view = View::new();
        let mut rows: BTreeMap<Key, Row> = BTreeMap::new();
        let snapshot = view.clone();
        for (at, changes) in commits.iter().enumerate() {
            let revision = Revision(at as u64 + 1);
            let (before, unsure) = (seen(&view), doubts(&view));
            let kept = view.clone();
            let touched = view.apply(revision, changes);
            for Change { key, value, moved } in changes {
                let row = Row { key: key.clone(), value: value.clone(), revision, moved: moved.clone() };
                rows.insert(key.clone(), row);
            }
            let after = seen(&view);
            covers(&touched, &before, &after);
            let now = doubts(&view);
            for (tag, host) in unsure.keys().chain(now.keys()) {
                let pair = (tag.clone(), host.clone());
                assert!(unsure.contains_key(&pair) == now.contains_key(&pair) || touched.has(tag, host), "{pair:?} {touched:?}");
            }
            assert_eq!(seen(&kept), before, "a clone stays as it was");
            check(&view, &fresh(&rows, revision), &Model::of(rows.values()));
            for row in rows.values() {
                let grave = row.value.is_none().then(|| Tombstone { revision: row.revision, moved: row.moved.clone() });
                assert_eq!(view.tombstone(&row.key), grave.as_ref());
                assert_eq!(view.revision_of(&row.key), row.value.as_ref().map(|_| row.revision));
            }
        }
        assert_eq!(seen(&snapshot), Seen::new());
    }
}

/// Of several rules that cannot be evaluated, one is named: the same one in whatever order the rows came.
#[test]
fn the_doubt_does_not_depend_on_what_came_first() {
    let rule = "select: cpus > 1";
    let mut rows: Vec<(String, &str)> = vec![
        ("hosts/h0".into(), r#"{"id":"h0","document":{"cpus":"many"}}"#),
        ("a/t1".into(), "{}"),
        ("a/t1/members/@b/t2".into(), "{}"),
        (format!("a/t1/members/{rule}"), "{}"),
        (format!("a/t1/members/{rule} || cpus > 2"), "{}"),
        ("b/t2".into(), "{}"),
        (format!("b/t2/members/{rule}"), "{}"),
    ];
    let mut told = std::collections::BTreeSet::new();
    for _ in 0..rows.len() {
        rows.rotate_left(1);
        for reversed in [false, true] {
            let mut rows: Vec<Row> = rows
                .iter()
                .map(|(key, value)| Row {
                    key: key.parse().unwrap(),
                    value: Some(shoal_core::Document::parse(value).unwrap()),
                    revision: Revision(1),
                    moved: None,
                })
                .collect();
            if reversed {
                rows.reverse();
            }
            let mut view = View::new();
            rows.into_iter().for_each(|row| view.load(row));
            view.loaded(Revision(1));
            told.insert(doubts(&view));
        }
    }
    assert_eq!(told.len(), 1, "{told:#?}");
    assert!(told.iter().all(|doubts| doubts.len() >= 2), "{told:#?}");
}
