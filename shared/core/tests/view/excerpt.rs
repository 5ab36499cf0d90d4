//! What stood of one host and one tag is what a view of all that stood then says.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use shoal_core::{Change, Excerpt, Key, Range, Revision, Row, TagName, View};

use super::generate::{self, HOSTS, TAGS};
use super::{fresh, hosts, tags};

/// All rows, tombstones too, as they stood at each revision.
pub(crate) type History = Vec<BTreeMap<Key, Row>>;

pub(crate) fn history(commits: &[Vec<Change>]) -> History {
    let mut all = vec![BTreeMap::new()];
    for (changes, at) in commits.iter().zip(1..) {
        let mut rows = all.last().unwrap().clone();
        for Change { key, value, moved } in changes.iter().cloned() {
            rows.insert(key.clone(), Row { key, value, revision: Revision(at), moved });
        }
        all.push(rows);
    }
    all
}

/// The excerpt, and how many ranges were read for it.
fn excerpt(
    view: &View,
    then: &BTreeMap<Key, Row>,
    at: Revision,
    host: Option<&str>,
    tag: Option<&TagName>,
) -> (Excerpt, usize) {
    let mut excerpt = view.excerpt(at, host.map(|h| h.parse().unwrap()), tag.cloned());
    let mut read = 0;
    loop {
        let wants = excerpt.wants();
        if wants.is_empty() {
            return (excerpt.done(), read);
        }
        read += wants.len();
        let wanted = |range: &Range, row: &&Row| row.value.is_some() && range.contains(&row.key);
        let rows: Vec<Row> =
            wants.iter().flat_map(|range| then.values().filter(|row| wanted(range, row))).cloned().collect();
        rows.into_iter().for_each(|row| excerpt.take(row));
    }
}

/// By which tags a host is contained, how far down, and whether by a rule. Which of several ways of equal length is named is open.
fn ways(all: Vec<(TagName, shoal_core::Via)>) -> Vec<(TagName, usize, bool)> {
    all.into_iter().map(|(tag, via)| (tag, via.through.len(), via.rule.is_some())).collect()
}

fn check(now: &View, then: &BTreeMap<Key, Row>, at: Revision) {
    let whole = fresh(then, at);
    for tag in tags() {
        for name in hosts() {
            let (excerpt, _) = excerpt(now, then, at, Some(name.as_str()), Some(&tag));
            assert_eq!(excerpt.revision(), at);
            assert_eq!(excerpt.host(), whole.host(name.as_str()));
            assert_eq!(excerpt.tag(), whole.tag(&tag));
            assert_eq!(excerpt.effective(), whole.effective(&tag, Some(&name)), "{tag} of {name} at {at}");
            assert_eq!(ways(excerpt.memberships()), ways(whole.memberships(name.as_str())), "{name} at {at}");
            let mut revisions = excerpt.memberships().into_iter().map(|(tag, via)| (tag, via.revision));
            // A way that is given is one that there was.
            assert!(revisions.all(|(_, made)| {
                then.values().any(|row| row.revision == made && row.key.as_member().is_some())
            }));
            assert_eq!(excerpt.parents(), whole.tag_parents(&tag));
        }
        let (alone, _) = excerpt(now, then, at, None, Some(&tag));
        assert_eq!(alone.effective(), whole.effective(&tag, None));
        assert_eq!((alone.parents(), alone.memberships().len()), (whole.tag_parents(&tag), 0));
    }
    for name in HOSTS {
        let (alone, _) = excerpt(now, then, at, Some(name), None);
        assert_eq!(ways(alone.memberships()), ways(whole.memberships(name)));
        assert_eq!(alone.host(), whole.host(name));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_stood_of_a_host_and_a_tag_is_what_all_that_stood_says(commits in generate::commits(), which: Index, to: Index) {
        let history = history(&commits);
        let newest = to.index(commits.len()) + 1;
        let at = which.index(newest + 1);
        let newest = Revision(newest as u64);
        // As well for who followed the commits as for who read everything at the end.
        let loaded = fresh(&history[newest.0 as usize], newest);
        let mut followed = View::new();
        for (changes, at) in commits.iter().zip(1..=newest.0) {
            followed.apply(Revision(at), changes);
        }
        for now in [loaded, followed] {
            check(&now, &history[at], Revision(at as u64));
            prop_assert_eq!(now.revision(), newest, "the view stays as it is");
        }
    }
}

/// Nothing is read but the rows that name the host when nothing that counts changed since.
#[test]
fn what_stands_still_is_not_read() {
    let first =
        ["hosts/h0", "a/t0", "a/t1", "a/t0/members/@t1", "a/t1/members/h0", "a/t1/members/select: true"];
    let mut commits =
        vec![first.map(|key| put(key, if key == "hosts/h0" { r#"{"id":"0"}"# } else { "{}" })).to_vec()];
    commits.push(vec![put("hosts/h1", r#"{"id":"1"}"#), put("a/t1/members/h1", "{}"), put("b/t0", "{}")]);
    let history = history(&commits);
    let now = fresh(&history[2], Revision(2));
    let (_, read) = excerpt(&now, &history[1], Revision(1), Some("h0"), Some(&TAGS[0].parse().unwrap()));
    assert_eq!(read, 1);
}

fn put(key: &str, value: &str) -> Change {
    Change::put(key.parse().unwrap(), shoal_core::Document::parse(value).unwrap())
}

/// Facts of whatever namespace that are gone by now, and of a host whose name another's begins with.
#[test]
fn lost_facts_are_found_in_every_namespace() {
    let facts = ["facts/a/h0", "facts/a-b/h0", "facts/b/h", "facts/b/h0", "facts/b/h00", "facts/vm/h1"];
    let rule = "a/t0/members/select: size(facts) == 3";
    let mut first = vec![put("hosts/h0", r#"{"id":"0"}"#), put("a/t0", "{}"), put(rule, "{}")];
    first.extend(facts.map(|key| put(key, "{}")));
    let commits = [first, facts.map(|key| Change::delete(key.parse().unwrap())).to_vec()];
    let history = history(&commits);
    let now = fresh(&history[2], Revision(2));
    let (excerpt, read) = excerpt(&now, &history[1], Revision(1), Some("h0"), None);
    assert_eq!((ways(excerpt.memberships()).len(), read), (1, 4));
}

/// A rule that came later to a tag that held the host anyway is no part of what stood then.
#[test]
fn what_came_later_is_no_part_of_the_past() {
    let first = vec![put("hosts/h0", r#"{"id":"0"}"#), put("a/t0", "{}"), put("a/t0/members/h0", "{}")];
    let then = vec![put("b/t0", "{}")];
    let later = vec![put("a/t0/members/select: true", "{}"), put("schemas/a", r#"{"tag":true}"#)];
    let history = history(&[first, then, later]);
    check(&fresh(&history[3], Revision(3)), &history[2], Revision(2));
}
