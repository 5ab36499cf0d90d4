//! Cases about copies: a database with all its history, made anew in another place.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use shoal_core::{Change, Commit, Document, Epoch, LogEntry, Pre, Range, Revision, Status};

use super::cut::{Cut, Slices};
use super::properties::{ranges, some_history};
use super::rows::rows;
use super::watches::next_commit;
use super::{Factory, Made, commit, delete, key, put};
use crate::{
    Claim, ClaimAnswer, ClaimRequest, Draft, Filter, Head, LedgerWrite, ManualClock, MemoryDraft,
    MemoryStore, MigrateError, Migrated, Piece, Query, Result, Store, StoreError, Whole, migrate,
};

/// What a place answers with.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + 'a>>;

/// Somewhere that a copy is made, opened anew for each attempt: as a command does that is run again.
pub trait Place {
    /// Opens it for a copy of this database.
    fn draft(&self, of: Epoch) -> Answer<'_, Box<dyn Draft>>;
    /// Opens it as everybody else does, who makes no database where there is none.
    fn open(&self) -> Answer<'_, Arc<dyn Store>>;
}

/// Makes a place where nothing is yet.
pub type Places = fn() -> Box<dyn Place>;

/// A place in memory.
#[derive(Default)]
pub struct MemoryPlace(Mutex<Option<MemoryDraft>>);

impl MemoryPlace {
    fn opened(&self, of: Epoch) -> Result<Box<dyn Draft>> {
        let mut there = self.0.lock().expect("nobody panicked");
        let draft = match &*there {
            Some(draft) => draft.again(of)?,
            None => MemoryDraft::new(of),
        };
        *there = Some(draft.clone());
        Ok(Box::new(draft))
    }

    fn made(&self) -> Result<Arc<dyn Store>> {
        let there = self.0.lock().expect("nobody panicked");
        let nothing = || StoreError::Invalid("there is nothing".to_owned());
        let store = there.as_ref().ok_or_else(nothing)?.store()?;
        Ok(Arc::new(store))
    }
}

impl Place for MemoryPlace {
    fn draft(&self, of: Epoch) -> Answer<'_, Box<dyn Draft>> {
        Box::pin(std::future::ready(self.opened(of)))
    }

    fn open(&self) -> Answer<'_, Arc<dyn Store>> {
        Box::pin(std::future::ready(self.made()))
    }
}

/// So many rows are more than some stores write at once.
const MANY: usize = 1100;

/// A commit of everything that commits may have, under an idempotency key.
fn full() -> Commit {
    let mut full = commit([put("hosts/web1", 1), Change::put(key("lb/null"), Document::trusted("null"))]);
    full.author = "bob".into();
    full.principal = Some("token 7".into());
    full.origin = Some("192.0.2.7:4711".into());
    full.message = "a new machine\n\nwith two lines".into();
    full.idempotency = Some("full".into());
    full
}

/// One that was given an intent, and changes nothing.
fn nothing() -> Commit {
    let mut nothing = commit([put("hosts/web1", 1)]);
    (nothing.idempotency, nothing.intent) = (Some("nothing".into()), Some("i".into()));
    nothing
}

/// A history with one of everything in it, and what stands beside it. Answers the claim that stays.
async fn life(store: &dyn Store, steps: usize, many: usize) -> Claim {
    some_history(store, steps).await;
    store.commit(full()).await.unwrap();
    store.commit(nothing()).await.unwrap();
    let (old, new) = (key("hosts/web1"), key("hosts/web2"));
    let mut moved = Change::put(new.clone(), Document::trusted("{\"n\":1}"));
    moved.moved = Some(old.clone());
    let mut left = Change::delete(old);
    left.moved = Some(new);
    store.commit(commit([left, moved])).await.unwrap();
    let large = format!("\"{}\"", "x".repeat(200_000));
    store.commit(commit([Change::put(key("lb/large"), Document::trusted(&large))])).await.unwrap();
    store.commit(commit([delete("lb/null")])).await.unwrap();
    // Where numbers are skipped, they stay so.
    let least = Revision(store.head().await.unwrap().revision.0 + 700);
    store.commit_at(commit([put("facts/vm/lb/x", 5)]), least).await.unwrap();
    let all = (0..many).map(|n| match n % 3 {
        0 => put(&format!("hosts/h{n:05}"), 0),
        1 => put(&format!("dns/x/members/h{:05}", n - 1), 0),
        _ => put(&format!("lb/h{n:05}"), 0),
    });
    store.commit(commit(all)).await.unwrap();
    store.commit(commit([put("dns/x", 9), put("hosts/h00000", 9), delete("lb/h00002")])).await.unwrap();
    let kept = claim(store, "slot/kafka/1", None).await;
    let rows = (0..40).map(|n| LedgerWrite { key: format!("dns/x/{n:04}"), value: Some(vec![n; 9_000]) });
    store.write_ledger(rows.collect(), &kept).await.unwrap();
    // One that was given out and is not held any more.
    let gone = claim(store, "unit/dns/x", Some(Duration::from_secs(60))).await;
    store.release(&gone).await.unwrap();
    kept
}

async fn claim(store: &dyn Store, name: &str, ttl: Option<Duration>) -> Claim {
    let want = ClaimRequest { name: name.into(), of: 1, holder: "broker 1".into(), ttl };
    match store.claim(&want).await.unwrap() {
        ClaimAnswer::Granted(claim) => claim,
        ClaimAnswer::Taken { by, .. } => panic!("{by:?}"),
    }
}

fn whole(store: &dyn Store) -> &dyn Whole {
    store.whole().expect("it can be copied")
}

async fn copy(source: &dyn Whole, draft: &dyn Draft) -> Result<Migrated, MigrateError> {
    migrate(source, draft, &mut |_| {}).await
}

/// Copies all of it into the place, and opens that.
async fn copied(source: &dyn Store, place: &dyn Place) -> (Migrated, Arc<dyn Store>) {
    let head = source.head().await.unwrap();
    let draft = place.draft(head.epoch).await.unwrap();
    let migrated = copy(whole(source), &*draft).await.unwrap();
    drop(draft);
    assert_eq!(migrated.head, head);
    assert_eq!(source.head().await.unwrap(), head, "the source was changed");
    (migrated, place.open().await.unwrap())
}

/// Every commit, oldest first.
async fn log(store: &dyn Store, range: &Range, limit: usize) -> Vec<LogEntry> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = store.log(range, before, limit).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.info.revision);
        all.extend(page);
    }
    all.reverse();
    all
}

async fn ledger(store: &dyn Store) -> Vec<(String, Vec<u8>)> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = store.ledger("", after.as_deref(), 7).await.unwrap();
        after = page.rows.last().map(|(key, _)| key.clone());
        all.extend(page.rows);
        if !page.more {
            return all;
        }
    }
}

/// Compares all that two databases answer: what stands and stood, in every range and by whatever page, what was done, and what stands
/// beside it.
async fn compare(here: &dyn Store, there: &dyn Store) {
    let head = here.head().await.unwrap();
    assert_eq!(there.head().await.unwrap(), head);
    let commits = log(here, &Range::All, 1000).await;
    // Each revision, and where some were skipped one between.
    let mut times: Vec<_> = commits.iter().map(|entry| entry.info.revision).collect();
    times.extend(commits.iter().map(|entry| Revision(entry.info.revision.0 - 1)));
    times.sort_unstable();
    times.dedup();
    for range in ranges() {
        for limit in [1000, 3] {
            let expected = log(here, &range, limit).await;
            assert_eq!(log(there, &range, limit).await, expected, "the log of {range}");
        }
        for at in &times {
            let query = Query { at: Some(*at), tombstones: true, ..Query::new(range.clone()) };
            let expected = rows(here, query.clone()).await;
            assert_eq!(rows(there, query).await, expected, "{range} at revision {at}");
        }
    }
    let query = Query { limit: 17, ..Query::new(Range::All) };
    assert_eq!(rows(there, query.clone()).await, rows(here, query).await);
    let mut watch = there.watch(Filter::all(), Head { revision: Revision(0), ..head });
    for expected in &commits {
        assert_eq!(next_commit(&mut watch).await, *expected);
    }
    assert_eq!(ledger(there).await, ledger(here).await);
    assert_eq!(there.claims("").await.unwrap(), here.claims("").await.unwrap());
}

/// That a copy goes on where the source stopped.
async fn goes_on(store: &dyn Store, kept: &Claim, fence: u64) {
    let head = store.head().await.unwrap();
    let done = store.commit(full()).await.unwrap();
    assert!(done.replayed && done.revision <= head.revision && done.changed == 2, "{done:?}");
    assert!(store.commit(nothing()).await.unwrap().replayed);
    let other = Commit { message: "something else".into(), ..full() };
    assert!(matches!(store.commit(other).await, Err(StoreError::Reused { .. })));
    // Preconditions know the history.
    let stands = rows(store, Query::new(Range::Key(key("dns/x")))).await.remove(0);
    let mut next = commit([put("dns/x", 10)]);
    next.pre = vec![
        Pre::At(key("dns/x"), stands.revision),
        Pre::Absent(key("lb/null")),
        Pre::Unchanged(Range::namespace("dns"), head.revision),
        kept.held(),
    ];
    let done = store.commit(next).await.unwrap();
    assert!(done.revision > head.revision && !done.replayed);
    let mut late = commit([put("dns/x", 11)]);
    late.pre = vec![Pre::Unchanged(Range::namespace("dns"), head.revision)];
    assert!(matches!(store.commit(late).await, Err(StoreError::Conflict { .. })));
    // Who holds a claim holds it by the same number, and whoever comes has a higher one than anybody before.
    let again = claim(store, &kept.name, None).await;
    assert_eq!(again, *kept);
    let row = LedgerWrite { key: "dns/x/more".into(), value: Some(b"1".to_vec()) };
    store.write_ledger(vec![row.clone()], kept).await.unwrap();
    let lease = claim(store, "unit/dns/x", Some(Duration::from_secs(60))).await;
    assert!(lease.number > fence && lease.number > kept.number, "{lease:?} {fence}");
    store.write_ledger(vec![row.clone()], &lease).await.unwrap();
    let mut held = commit([put("dns/x", 12)]);
    held.pre = vec![lease.held(), kept.held()];
    store.commit(held.clone()).await.unwrap();
    store.release(&lease).await.unwrap();
    store.release(kept).await.unwrap();
    assert!(store.claims("").await.unwrap().is_empty());
    for lost in [&lease, kept] {
        let fenced = store.write_ledger(vec![row.clone()], lost).await;
        assert!(matches!(fenced, Err(StoreError::Fenced { .. })), "{fenced:?}");
    }
    assert!(matches!(store.commit(held).await, Err(StoreError::Fenced { .. })));
    let next = claim(store, &kept.name, None).await;
    assert!(next.number > lease.number);
    let all = log(store, &Range::All, 1000).await;
    assert!(all.is_sorted_by(|a, b| a.info.revision < b.info.revision));
}

/// A copy answers everything as the source does, at every revision, and goes on where that stopped.
pub async fn copies_are_the_same(new: Factory, places: Places) {
    let source = new().await;
    let kept = life(&*source, 24, MANY).await;
    let fence = whole(&*source).stand().await.unwrap().fence;
    assert!(fence >= kept.number);
    let place = places();
    let (migrated, store) = copied(&*source, &*place).await;
    let log = log(&*source, &Range::All, 1000).await;
    let changes: usize = log.iter().map(|entry| entry.changes.len()).sum();
    let stand = rows(&*source, Query::new(Range::All)).await.len();
    assert_eq!((migrated.commits, migrated.changes), (log.len() as u64, changes as u64));
    assert_eq!((migrated.rows, migrated.ledger, migrated.claims), (stand as u64, 40, 1));
    assert!(migrated.retries >= 2 && migrated.digest.len() == 64, "{migrated:?}");
    compare(&*source, &*store).await;
    assert!(store.reports().await.unwrap().is_empty());
    // What is finished is a database like any other, and nothing is copied over it.
    let Err(error) = place.draft(migrated.head.epoch).await else { panic!("it was taken for a draft") };
    assert!(error.to_string().contains("holds a database already"), "{error}");
    // And a copy of the copy is the same again.
    let second = MemoryPlace::default();
    let (again, _) = copied(&*store, &second).await;
    assert_eq!(again, migrated);
    goes_on(&*store, &kept, fence).await;
}

/// That nobody can use what is not finished, and that it says what to do.
async fn refused(place: &dyn Place) {
    let Err(error) = place.open().await else { panic!("half of a copy was opened") };
    let said = error.to_string();
    assert!(matches!(error, StoreError::Invalid(_)), "{said}");
    assert!(said.contains("unfinished copy") && said.contains("`shoal migrate`"), "{said}");
}

/// Killed between any two pages, it goes on where it stopped, and is the same then; until it is finished nobody can open it.
pub async fn copies_go_on_after_a_kill(new: Factory, places: Places) {
    let source = new().await;
    let kept = life(&*source, 6, MANY).await;
    let fence = whole(&*source).stand().await.unwrap().fence;
    let slices = Slices::of(whole(&*source));
    let head = source.head().await.unwrap();
    let commits = log(&*source, &Range::All, 1000).await.len();
    let (mut cuts, mut last) = (0, None);
    for pages in 0.. {
        let place = places();
        let draft = place.draft(head.epoch).await.unwrap();
        let cut = Cut::after(pages, &*draft);
        match copy(&slices, &cut).await {
            Err(MigrateError::Copy(StoreError::Unavailable { .. })) => cuts += 1,
            Ok(_) => {
                last = Some(place);
                break;
            }
            Err(error) => panic!("{error}"),
        }
        drop(draft);
        refused(&*place).await;
        let draft = place.draft(head.epoch).await.unwrap();
        let begun = draft.stand().await.unwrap().head.revision;
        assert!(pages == 0 || begun > Revision(0), "nothing was kept of {pages} pages");
        let counting = Cut::after(usize::MAX, &*draft);
        let migrated = copy(&slices, &counting).await.unwrap();
        assert_eq!(counting.commits(), commits - pages.min(commits), "it goes on after {pages} pages");
        drop(draft);
        let store = place.open().await.unwrap();
        assert_eq!(migrated.head, store.head().await.unwrap());
        assert_eq!(log(&*store, &Range::All, 1000).await, log(&*source, &Range::All, 1000).await);
        assert_eq!(ledger(&*store).await, ledger(&*source).await);
        assert_eq!(store.claims("").await.unwrap(), source.claims("").await.unwrap());
    }
    // Each commit; clearing, some keys, three pages of the ledger, the claims, the end.
    assert!(cuts >= commits + 8, "{cuts} with {commits} commits");
    let place = last.expect("one that was not cut");
    let store = place.open().await.unwrap();
    compare(&*source, &*store).await;
    goes_on(&*store, &kept, fence).await;
}

/// While somebody uses the source it is copied and not finished; what comes until it rests is copied then.
pub async fn copies_wait_until_the_source_rests(new: Factory, places: Places) {
    let source = new().await;
    let kept = life(&*source, 6, 10).await;
    let (place, head) = (places(), source.head().await.unwrap());
    let attempt = async || {
        let draft = place.draft(head.epoch).await.unwrap();
        copy(whole(&*source), &*draft).await
    };
    let lease = claim(&*source, "unit/dns/y", Some(Duration::from_secs(60))).await;
    let Err(MigrateError::InUse { upto, by }) = attempt().await else { panic!("it was finished") };
    assert_eq!((upto, by), (head.revision, vec!["broker 1 holds unit/dns/y".to_owned()]));
    refused(&*place).await;
    // Meanwhile it goes on, also with what was copied first: rows, the ledger, a claim, a key.
    source.commit(commit([put("dns/x", 77)])).await.unwrap();
    let mut known = commit([put("dns/x", 78)]);
    known.idempotency = Some("late".into());
    let known = source.commit(known).await.unwrap();
    let gone = LedgerWrite { key: "dns/x/0000".into(), value: None };
    source.write_ledger(vec![gone], &lease).await.unwrap();
    source.release(&lease).await.unwrap();
    // An agent that says that it lives.
    let lives = |seconds| Status {
        agent: "dns".parse().unwrap(),
        instance: "a".into(),
        epoch: head.epoch,
        seen: Revision(1),
        at: Timestamp::now(),
        expires: Some(Timestamp::now() + SignedDuration::from_secs(seconds)),
        units: Default::default(),
        quarantined: Vec::new(),
        quarantined_total: 0,
    };
    source.report(lives(60)).await.unwrap();
    let Err(MigrateError::InUse { upto, by }) = attempt().await else { panic!("it was finished") };
    assert_eq!((upto, by), (known.revision, vec!["the agent dns runs as a".to_owned()]));
    refused(&*place).await;
    source.report(lives(0)).await.unwrap();
    let migrated = attempt().await.unwrap();
    assert_eq!((migrated.ledger, migrated.head.revision), (39, known.revision));
    let store = place.open().await.unwrap();
    compare(&*source, &*store).await;
    let mut late = commit([put("dns/x", 78)]);
    late.idempotency = Some("late".into());
    assert!(store.commit(late).await.unwrap().replayed);
    assert_eq!(claim(&*store, &kept.name, None).await, kept);
    assert!(store.reports().await.unwrap().is_empty());
}

/// A database in memory of this epoch, in which somebody wrote.
async fn written(epoch: u64, author: &str) -> Made {
    let store = MemoryStore::with(Epoch(epoch), Arc::new(ManualClock::new()));
    for n in 0..4 {
        let commit = Commit { author: author.into(), ..commit([put("lb/a", n)]) };
        store.commit(commit).await.unwrap();
    }
    Made::new(store, ())
}

/// What was begun from one database is not gone on with from another, not even from one of the same epoch.
pub async fn copies_of_others_are_refused(new: Factory, places: Places) {
    let other = new().await;
    let (place, ann, bob) = (places(), written(7, "ann").await, written(7, "bob").await);
    let draft = place.draft(Epoch(7)).await.unwrap();
    let slices = Slices::of(whole(&*ann));
    let cut = copy(&slices, &Cut::after(2, &*draft)).await;
    assert!(matches!(cut, Err(MigrateError::Copy(_))), "{cut:?}");
    drop(draft);
    let epoch = other.head().await.unwrap().epoch;
    let Err(error) = place.draft(epoch).await else { panic!("another database was taken") };
    assert!(error.to_string().contains("another database than this one"), "{error}");
    let draft = place.draft(Epoch(7)).await.unwrap();
    let wrong = copy(whole(&*other), &*draft).await.unwrap_err().to_string();
    assert!(wrong.contains("not made from this database"), "{wrong}");
    let wrong = copy(whole(&*bob), &*draft).await.unwrap_err().to_string();
    assert!(wrong.contains("its revision 2 is another one"), "{wrong}");
    let empty = MemoryStore::with(Epoch(7), Arc::new(ManualClock::new()));
    let wrong = copy(whole(&empty), &*draft).await.unwrap_err().to_string();
    assert!(wrong.contains("it is at revision 2, and this database at 0"), "{wrong}");
    refused(&*place).await;
    // Two at once: the one that came last goes on alone.
    let second = place.draft(Epoch(7)).await.unwrap();
    let slices = Slices::of(whole(&*ann));
    copy(&slices, &Cut::after(1, &*second)).await.unwrap_err();
    let late = draft.take(Piece::Commits(whole(&*ann).history(Revision(2)).await.unwrap())).await;
    assert!(matches!(late, Err(StoreError::Invalid(_))), "{late:?}");
    drop(draft);
    copy(whole(&*ann), &*second).await.unwrap();
    drop(second);
    compare(&*ann, &*place.open().await.unwrap()).await;
}

/// Who has copied all of it, and sleeps before the end, does not finish what somebody else took up and cleared meanwhile: that moved no revision.
pub async fn copies_are_finished_by_who_took_them_up_last(new: Factory, places: Places) {
    let source = new().await;
    life(&*source, 3, 10).await;
    let (all, place, head) = (whole(&*source), places(), source.head().await.unwrap());
    let slow = place.draft(head.epoch).await.unwrap();
    let mut upto = Revision(0);
    while upto < head.revision {
        let some = all.history(upto).await.unwrap();
        upto = some.last().expect("commits up to the newest").info.revision;
        slow.take(Piece::Commits(some)).await.unwrap();
    }
    let rows = all.ledger_rows(None).await.unwrap().rows;
    slow.take(Piece::Ledger(rows)).await.unwrap();
    let second = place.draft(head.epoch).await.unwrap();
    second.clear().await.unwrap();
    let fence = all.stand().await.unwrap().fence;
    let retries = all.retries(0).await.unwrap().into_iter().map(|(_, retry)| retry).collect();
    let late = [
        slow.take(Piece::Retries(retries)).await,
        slow.clear().await,
        slow.finish(head.revision, fence).await,
    ];
    for answer in late {
        assert!(matches!(answer, Err(StoreError::Invalid(_))), "{answer:?}");
    }
    drop(slow);
    refused(&*place).await;
    let migrated = copy(all, &*second).await.unwrap();
    assert_eq!((migrated.head, migrated.ledger), (head, 40));
    drop(second);
    compare(&*source, &*place.open().await.unwrap()).await;
}

/// What is committed in the last moment, after the source was looked at, is not in the copy, and does not pass unsaid.
pub async fn copies_tell_of_what_came_too_late(new: Factory, places: Places) {
    let source = new().await;
    life(&*source, 3, 10).await;
    let (place, head) = (places(), source.head().await.unwrap());
    let draft = place.draft(head.epoch).await.unwrap();
    let late = Cut::late(&*draft, &*source);
    let Err(MigrateError::Late { why }) = copy(whole(&*source), &late).await else { panic!("it passed") };
    let newest = source.head().await.unwrap().revision;
    assert!(newest > head.revision);
    assert_eq!(why, format!("somebody commits: it is at revision {newest} by now"));
    drop(draft);
    assert_eq!(place.open().await.unwrap().head().await.unwrap(), head);
}
