//! Laws that hold for every history, tried on random ones.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner, contextualize_config};
use shoal_core::{Change, Commit, Document, Pre, Range, Revision};

use super::model::{Expected, Model};
use super::rows::rows;
use super::watches::{next, next_commit};
use super::{Factory, commit, key, put};
use crate::{Claim, ClaimAnswer, ClaimRequest, Feed, Filter, Query, Store, StoreError};

/// Histories of one run of a property.
const CASES: u32 = 24;

/// A change of one of few keys, to one of few values: so that they meet.
const KEYS: [&str; 9] = [
    "hosts/a",
    "hosts/b",
    "dns/x",
    "dns/x/members/a",
    "dns/x/members/b",
    "lb/x/members/a",
    "lb/x/members/@tags/t",
    "facts/vm/lb/x",
    "facts/vm/lb/y",
];

/// Ranges that hold them, and some that hold nothing.
pub(super) fn ranges() -> Vec<Range> {
    let prefixes =
        ["", "hosts/", "dns/", "dns/x/", "dns/x/members/", "facts/vm/lb/", "lb/x/members/@tags/", "none/"];
    let mut ranges: Vec<_> = prefixes.iter().map(|p| Range::Prefix((*p).into())).collect();
    ranges.extend(["hosts/a", "dns/x/members/b", "lb/none"].map(|k| Range::Key(key(k))));
    ranges.extend(["a", "b", "@tags/t"].map(|m| Range::Naming(m.parse().unwrap())));
    ranges.push(Range::All);
    // The last: nothing rests on it.
    ranges.push(Range::Concerning("a".parse().unwrap()));
    ranges
}

/// A precondition, with revisions as shares of the history so far, in percent.
#[derive(Clone, Debug)]
enum Draft {
    At(usize, u64),
    Exists(usize),
    Absent(usize),
    Unchanged(usize, u64),
}

#[derive(Clone, Debug)]
struct Step {
    changes: Vec<(usize, Option<u64>)>,
    pre: Option<Draft>,
    retry: Option<u8>,
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..KEYS.len(), prop::option::weighted(0.75, 0..3u64));
    let changes = prop::collection::btree_map(0..KEYS.len(), change.prop_map(|(_, v)| v), 0..4);
    let pre = prop_oneof![
        (0..KEYS.len(), 0..=100u64).prop_map(|(k, at)| Draft::At(k, at)),
        (0..KEYS.len()).prop_map(Draft::Exists),
        (0..KEYS.len()).prop_map(Draft::Absent),
        (0..ranges().len() - 1, 50..=100u64).prop_map(|(r, at)| Draft::Unchanged(r, at)),
    ];
    let parts = (changes, prop::option::weighted(0.3, pre), prop::option::weighted(0.3, 0..4u8));
    parts.prop_map(|(changes, pre, retry)| Step { changes: changes.into_iter().collect(), pre, retry })
}

impl Step {
    fn commit(&self, model: &Model) -> Commit {
        let at = |share: u64| model.numbers[(model.newest() * share as usize) / 100];
        let mut commit = commit(self.changes.iter().map(|(k, value)| match value {
            Some(n) => put(KEYS[*k], *n),
            None => Change::delete(key(KEYS[*k])),
        }));
        commit.idempotency = self.retry.map(|n| format!("retry {n}"));
        commit.pre.extend(self.pre.as_ref().map(|pre| match pre {
            Draft::At(k, share) => Pre::At(key(KEYS[*k]), at(*share)),
            Draft::Exists(k) => Pre::Exists(key(KEYS[*k])),
            Draft::Absent(k) => Pre::Absent(key(KEYS[*k])),
            Draft::Unchanged(r, share) => Pre::Unchanged(ranges().swap_remove(*r), at(*share)),
        }));
        commit
    }
}

/// The same chance in every run, unless `PROPTEST_RNG_SEED` gives another; `PROPTEST_CASES` gives another number of cases.
pub(super) fn runner() -> TestRunner {
    TestRunner::new(contextualize_config(Config {
        cases: CASES,
        rng_seed: RngSeed::Fixed(1),
        ..Config::default()
    }))
}

/// Draws histories and holds each against `law`. Not proptest's own loop, because the law is asynchronous;
/// shrinking is left out, since the histories are short.
async fn each_history<F: Future<Output = ()>>(law: impl Fn(usize, Vec<Step>) -> F) {
    let mut runner = runner();
    let strategy = prop::collection::vec(step(), 1..40);
    for case in 0..runner.config().cases as usize {
        let history = strategy.new_tree(&mut runner).expect("a history").current();
        law(case, history).await;
    }
}

/// Commits every step and checks each answer against the model.
async fn play(store: &dyn Store, history: &[Step]) -> Model {
    let mut model = Model::new(store.head().await.unwrap().revision);
    for (n, step) in history.iter().enumerate() {
        let commit = step.commit(&model);
        let answer = store.commit(commit.clone()).await;
        let before = model.newest();
        let expected = model.commit(&commit, answer.as_ref().ok().map(|d| d.revision));
        let place =
            format!("step {n} of {history:#?}\n{commit:?}\nanswered {answer:?}, expected {expected:?}");
        match (&answer, expected) {
            (Ok(done), Expected::Done { revision, changed, replayed }) => {
                assert_eq!((done.changed, done.replayed), (changed, replayed), "{place}");
                assert_eq!(done.revision, model.numbers[revision], "{place}");
                assert!(model.newest() == before || model.numbers[before] < done.revision, "{place}");
            }
            (Err(StoreError::Conflict { pre, .. }), Expected::Conflict(at)) => {
                assert_eq!(*pre, commit.pre[at], "{place}");
            }
            (Err(StoreError::Reused { .. }), Expected::Reused) => {}
            _ => panic!("{place}"),
        }
    }
    model
}

/// A history of this many steps, drawn by chance and the same each time, that the database answers as it should.
pub(super) async fn some_history(store: &dyn Store, steps: usize) {
    let strategy = prop::collection::vec(step(), steps..=steps);
    let history = strategy.new_tree(&mut runner()).expect("a history").current();
    play(store, &history).await;
}

/// Reads at every revision, logs of every range and answers of every commit are the model's.
pub async fn histories_equal_the_model(new: Factory) {
    each_history(|case, history| async move {
        let store = new().await;
        let model = play(&*store, &history).await;
        for (n, at) in model.numbers.iter().enumerate() {
            for range in ranges() {
                for tombstones in [false, true] {
                    let limit = 1 + case % 5;
                    let query = Query { at: Some(*at), after: None, limit, tombstones, range: range.clone() };
                    let found = rows(&*store, query).await;
                    assert_eq!(found, model.rows(n, &range, tombstones), "{range} at {at} of {history:#?}");
                }
            }
        }
        for range in ranges() {
            let expected: Vec<_> = (1..=model.newest())
                .rev()
                .map(|n| (model.numbers[n], model.changes(n, std::slice::from_ref(&range))))
                .filter(|(_, changes)| !changes.is_empty())
                .collect();
            let log = store.log(&range, None, 1000).await.unwrap();
            let found: Vec<_> = log.into_iter().map(|e| (e.info.revision, e.changes)).collect();
            assert_eq!(found, expected, "the log of {range} of {history:#?}");
        }
    })
    .await;
}

/// A watch from any revision, through any filter, tells exactly the history after it: whether it began before,
/// amid or after the commits.
pub async fn watches_equal_the_history(new: Factory) {
    each_history(|case, history| async move {
        let store = new().await;
        let all = ranges();
        let ranges: Vec<_> = (0..=case % 3).map(|n| all[(case + n * 5) % all.len()].clone()).collect();
        let filter = Filter { ranges: ranges.clone(), progress: Duration::from_millis(1) };
        let start = store.head().await.unwrap();
        let mut early = store.watch(filter.clone(), start);
        assert_eq!(next(&mut early).await, Feed::Upto(start.revision));
        let model = play(&*store, &history).await;
        let newest = store.head().await.unwrap();
        for (round, from) in [0, model.newest() / 2, model.newest()].into_iter().enumerate() {
            let position = crate::Head { revision: model.numbers[from], ..newest };
            let mut late = store.watch(filter.clone(), position);
            let watches: Vec<_> = if round == 0 { vec![&mut early, &mut late] } else { vec![&mut late] };
            for watch in watches {
                let (mut told, mut seen) = (Vec::new(), Revision(0));
                while seen < newest.revision {
                    match next(watch).await {
                        Feed::Commit(entry) => {
                            assert!(entry.info.revision > seen, "in order, and not before what was said");
                            seen = entry.info.revision;
                            told.push((seen, entry.changes.clone()));
                        }
                        Feed::Upto(revision) => {
                            assert!(revision >= seen);
                            seen = revision;
                        }
                        Feed::Reset(head) => panic!("{head:?}"),
                    }
                }
                let expected: Vec<_> = (from + 1..=model.newest())
                    .map(|n| (model.numbers[n], model.changes(n, &ranges)))
                    .filter(|(_, changes)| !changes.is_empty())
                    .collect();
                assert_eq!(told, expected, "{ranges:?} after {from} of {history:#?}");
            }
        }
    })
    .await;
}

/// Many writers race for each of many rows: exactly one wins each, the watch tells the winners in order, and
/// every loser is told of a conflict.
pub async fn one_of_many_wins(new: Factory) {
    const WRITERS: usize = 8;
    const ROUNDS: usize = 20;
    let store = new().await;
    let mut watch = store.watch(Filter::all(), store.head().await.unwrap());
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = store.handle();
            tokio::spawn(async move {
                let mut won = Vec::new();
                for round in 0..ROUNDS {
                    let row = key(&format!("lb/r{round:02}"));
                    let mut commit =
                        commit([Change::put(row.clone(), Document::trusted(&writer.to_string()))]);
                    commit.pre = vec![Pre::Absent(row)];
                    match store.commit(commit).await {
                        Ok(done) => won.push((done.revision, writer)),
                        Err(StoreError::Conflict { actual: Some(_), .. }) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
                won
            })
        })
        .collect();
    let mut won = Vec::new();
    for task in tasks {
        won.extend(task.await.unwrap());
    }
    won.sort_unstable();
    assert_eq!(won.len(), ROUNDS);
    for (revision, writer) in won {
        let entry = next_commit(&mut watch).await;
        assert_eq!(entry.info.revision, revision);
        assert_eq!(entry.changes[0].value.as_ref().unwrap().as_str(), writer.to_string());
    }
}

/// Random claims, renewals and releases: the holders are the model's, each in the lowest free place, and every new
/// holder's number is above all that were given out for the name.
pub async fn claims_equal_the_model(new: Factory) {
    let mut runner = runner();
    // Name, holder, places, and whether to release instead.
    let step = (0..2usize, 0..4usize, 1..4u32, prop::bool::weighted(0.4));
    let strategy = prop::collection::vec(step, 1..60);
    for _ in 0..runner.config().cases {
        let steps = strategy.new_tree(&mut runner).expect("steps").current();
        let store = new().await;
        let mut held: BTreeMap<(String, u32), Claim> = BTreeMap::new();
        let mut last = BTreeMap::new();
        for (n, (name, holder, of, release)) in steps.iter().enumerate() {
            let place = format!("step {n} of {steps:?}");
            let (name, holder) = (format!("unit/{name}"), format!("h{holder}"));
            let own = held.values().find(|c| c.name == name && c.holder == holder).cloned();
            if *release {
                if let Some(own) = own {
                    store.release(&own).await.unwrap();
                    held.remove(&(own.name, own.slot));
                }
            } else {
                let free = (0..*of).find(|slot| !held.contains_key(&(name.clone(), *slot)));
                let want = ClaimRequest { name: name.clone(), of: *of, holder: holder.clone(), ttl: None };
                match (store.claim(&want).await.unwrap(), own, free) {
                    (ClaimAnswer::Granted(claim), Some(own), _) => assert_eq!(claim, own, "{place}"),
                    (ClaimAnswer::Granted(claim), None, Some(slot)) => {
                        assert_eq!((claim.slot, &claim.holder), (slot, &holder), "{place}");
                        let before = last.insert(name.clone(), claim.number);
                        assert!(before.is_none_or(|before| before < claim.number), "{place}");
                        held.insert((name, slot), claim);
                    }
                    (ClaimAnswer::Taken { by, look_again: None }, None, None) => {
                        let all: Vec<_> = held.values().filter(|c| c.name == name).cloned().collect();
                        assert_eq!(by, all, "{place}");
                    }
                    (answer, ..) => panic!("{place}: {answer:?}"),
                }
            }
            let all: Vec<_> = held.values().cloned().collect();
            assert_eq!(store.claims("unit/").await.unwrap(), all, "{place}");
        }
    }
}
