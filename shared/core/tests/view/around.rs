//! A view of the rows around a host says of it what the whole view says.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use shoal_core::{Document, Key, Revision, Row, TagName, Via, View};

use super::excerpt::history;
use super::{fresh, generate, hosts, tags};

/// By which tags a host is contained, how far down, and whether by a rule: of several ways of equal length any may be named.
fn ways(all: Vec<(TagName, Via)>) -> Vec<(TagName, usize, bool)> {
    all.into_iter().map(|(tag, via)| (tag, via.through.len(), via.rule.is_some())).collect()
}

/// The view with one more tag, which nests all of the namespace that contain the host.
fn with_a_top(rows: &BTreeMap<Key, Row>, at: Revision, top: &TagName, nested: &[&TagName]) -> View {
    let mut rows = rows.clone();
    let mut put = |key: String| {
        let key: Key = key.parse().unwrap();
        let row = Row { key: key.clone(), value: Some(Document::empty()), revision: at, moved: None };
        rows.insert(key, row);
    };
    put(top.to_string());
    nested.iter().for_each(|tag| put(format!("{top}/members/@{}", tag.key())));
    fresh(&rows, at)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rows_around_a_host_are_enough(commits in generate::commits(), to: Index) {
        let history = history(&commits);
        let newest = to.index(commits.len()) + 1;
        let (rows, at) = (&history[newest], Revision(newest as u64));
        let whole = fresh(rows, at);
        for host in hosts() {
            let around = whole.around(&host);
            prop_assert!(around.is_sorted_by(|a, b| a.key < b.key), "{around:?}");
            for row in &around {
                prop_assert_eq!(Some(row.revision), rows.get(&row.key).map(|row| row.revision));
            }
            let small = fresh(&around.into_iter().map(|row| (row.key.clone(), row)).collect(), at);
            let name = host.as_str();
            prop_assert_eq!(small.host(name), whole.host(name));
            if whole.host(name).is_none() {
                prop_assert_eq!(small.tags().count(), 0);
                continue;
            }
            prop_assert_eq!(small.facts(name), whole.facts(name));
            prop_assert_eq!(ways(small.memberships(name)), ways(whole.memberships(name)));
            for tag in tags() {
                prop_assert_eq!(small.effective(&tag, Some(&host)), whole.effective(&tag, Some(&host)), "{} of {}", tag, host);
                prop_assert_eq!(small.doubt(&tag, name), whole.doubt(&tag, name));
            }
            for namespace in ["a", "b", "c"] {
                let all = whole.effective_in(namespace, &host, |_| {}).unwrap();
                prop_assert_eq!(small.effective_in(namespace, &host, |_| {}).unwrap(), all);
            }
        }
    }

    #[test]
    fn all_tags_of_a_namespace_say_what_one_that_nests_them_says(commits in generate::commits()) {
        let history = history(&commits);
        let (rows, at) = (history.last().unwrap(), Revision(commits.len() as u64));
        let whole = fresh(rows, at);
        for (host, namespace) in hosts().into_iter().flat_map(|host| [(host.clone(), "a"), (host, "b")]) {
            if whole.host(host.as_str()).is_none() {
                continue;
            }
            let all = whole.effective_in(namespace, &host, |_| {}).unwrap();
            let in_it = whole.memberships(host.as_str());
            let nested: Vec<&TagName> =
                in_it.iter().map(|(tag, _)| tag).filter(|tag| tag.namespace() == namespace).collect();
            if nested.is_empty() {
                continue;
            }
            let top: TagName = format!("{namespace}/top").parse().unwrap();
            let one = with_a_top(rows, at, &top, &nested).effective(&top, Some(&host)).unwrap();
            prop_assert_eq!((all.value, all.origins, all.conflicts), (one.value, one.origins, one.conflicts));
        }
    }
}
