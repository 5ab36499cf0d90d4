//! A view that was taken back is the view of then, and can be followed from there.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;
use shoal_core::{Key, Kind, Revision, Row, Stood, Tombstone, View};

use super::excerpt::{History, history};
use super::model::Model;
use super::{check, fresh, generate};

fn stood(history: &History, at: usize, newest: usize) -> Stood {
    let (then, now) = (&history[at], &history[newest]);
    let since = now.values().filter(|row| row.revision > Revision(at as u64));
    let rows: Vec<(Key, Option<Row>)> =
        since.map(|row| (row.key.clone(), then.get(&row.key).cloned())).collect();
    let of = |key: &Key| match key.kind() {
        Kind::Tag(tag) | Kind::Member(tag, _) => Some(tag),
        _ => None,
    };
    let tags: BTreeSet<_> = rows.iter().filter_map(|(key, _)| of(key)).collect();
    let last = |tag: &_| {
        then.values().filter(|row| of(&row.key).as_ref() == Some(tag)).map(|row| row.revision).max()
    };
    let tags = tags.into_iter().map(|tag| (tag.clone(), last(&tag).unwrap_or_default())).collect();
    Stood { rows, tags }
}

fn equal(view: &View, rows: &BTreeMap<Key, Row>, all: &BTreeMap<Key, Row>) {
    check(view, &fresh(rows, view.revision()), &Model::of(rows.values()));
    for key in all.keys() {
        let row = rows.get(key);
        let grave = row.filter(|row| row.value.is_none());
        let grave = grave.map(|row| Tombstone { revision: row.revision, moved: row.moved.clone() });
        assert_eq!(view.tombstone(key), grave.as_ref());
        assert_eq!(view.revision_of(key), row.filter(|row| row.value.is_some()).map(|row| row.revision));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_view_taken_back_is_the_view_of_then(commits in generate::commits(), which: Index) {
        let history = history(&commits);
        let newest = commits.len();
        let at = which.index(newest + 1);
        let (then, now) = (&history[at], &history[newest]);
        let mut followed = View::new();
        for (changes, at) in commits.iter().zip(1..) {
            followed.apply(Revision(at), changes);
        }
        for view in [fresh(now, Revision(newest as u64)), followed] {
            let mut back = view.undone(Revision(at as u64), &stood(&history, at, newest)).unwrap();
            prop_assert_eq!(back.revision(), Revision(at as u64));
            equal(&back, then, now);
            equal(&view, now, now);
            for (changes, at) in commits.iter().zip(1..).skip(at) {
                back.apply(Revision(at), changes);
            }
            equal(&back, now, now);
        }
    }
}
