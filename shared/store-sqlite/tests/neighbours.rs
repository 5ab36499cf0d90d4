//! Several processes on one file: they hear of each other's commits, and never hold one claim together.
//!
//! The other process is this test binary again, told by the environment what to do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "what helps tests fails as tests do, and other processes say what they did"
)]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures::StreamExt;
use shoal_core::{Document, Edit, Epoch, Expect, Proposal, Range, Revision};
use shoal_store::conformance::Counted;
use shoal_store::{ClaimAnswer, ClaimRequest, Database, Feed, Filter, Head, Store};
use shoal_store_sqlite::SqliteStore;
use support::{commit, key};

const COMMITS: u64 = 300;
const TURNS: u64 = 60;

/// Another process: the first test of this file again, told by the environment what to do instead.
fn neighbour(role: &str, name: &str, path: &Path) -> Child {
    neighbour_heard(role, name, path, Stdio::null())
}

fn neighbour_heard(role: &str, name: &str, path: &Path, said: Stdio) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "commits_of_others_are_heard", "--nocapture"])
        .env("SHOAL_TEST_ROLE", role)
        .env("SHOAL_TEST_NAME", name)
        .env("SHOAL_TEST_PATH", path)
        .stdout(said)
        .spawn()
        .unwrap()
}

fn want(holder: &str) -> ClaimRequest {
    ClaimRequest { name: "unit/x".into(), of: 1, holder: holder.into(), ttl: Some(Duration::from_secs(600)) }
}

/// What the other processes do.
async fn neighbour_process(role: &str) {
    let (name, path) = (std::env::var("SHOAL_TEST_NAME").unwrap(), std::env::var("SHOAL_TEST_PATH").unwrap());
    let store = SqliteStore::open(path).await.unwrap();
    match role {
        "commit" => {
            for n in 0..COMMITS {
                store.commit(commit(&name, n)).await.unwrap();
            }
        }
        "commit and say" => {
            for n in 0..COMMITS {
                let done = store.commit(commit(&name, n)).await.unwrap();
                println!("committed {}", done.revision);
            }
        }
        "commit once" => drop(store.commit(commit(&name, 0)).await.unwrap()),
        "claim" => take_turns(&store, &name).await,
        "claim and die" => {
            let ClaimAnswer::Granted(_) = store.claim(&want(&name)).await.unwrap() else { panic!("taken") };
            std::process::abort();
        }
        other => panic!("{other}"),
    }
}

/// Takes the claim again and again; each time it adds one to a row that only the holder may write. Two holders at
/// once would both read the same number, or be fenced.
async fn take_turns(store: &SqliteStore, name: &str) {
    let mut turns = 0;
    while turns < TURNS {
        let ClaimAnswer::Granted(claim) = store.claim(&want(name)).await.unwrap() else {
            tokio::task::yield_now().await;
            continue;
        };
        let page = store.ledger("count", None, 1).await.unwrap();
        let count =
            page.rows.first().map_or(0, |(_, v)| u64::from_le_bytes(v.as_slice().try_into().unwrap()));
        let row =
            shoal_store::LedgerWrite { key: "count".into(), value: Some((count + 1).to_le_bytes().to_vec()) };
        store.write_ledger(vec![row], &claim).await.unwrap();
        store.release(&claim).await.unwrap();
        turns += 1;
    }
}

/// Every commit of three writing processes is heard, in order, each once, without anybody asking.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_others_are_heard() {
    if let Ok(role) = std::env::var("SHOAL_TEST_ROLE") {
        return neighbour_process(&role).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let mut watch = store.watch(Filter::all(), store.head().await.unwrap());
    assert!(matches!(watch.next().await, Some(Ok(Feed::Upto(Revision(0))))));
    let mut others: Vec<_> = (0..3).map(|n| neighbour("commit", &format!("p{n}"), &path)).collect();
    // And one's own among them.
    let own = store.clone();
    let own = tokio::spawn(async move {
        for n in 0..COMMITS {
            own.commit(commit("own", n)).await.unwrap();
        }
    });
    let mut heard = 0;
    while heard < 4 * COMMITS {
        let next = tokio::time::timeout(Duration::from_secs(60), watch.next()).await;
        match next.unwrap_or_else(|_| panic!("only {heard} commits were heard")) {
            Some(Ok(Feed::Commit(entry))) => {
                heard += 1;
                assert_eq!(entry.info.revision, Revision(heard));
                assert_eq!(entry.changes.len(), 3);
            }
            Some(Ok(Feed::Upto(_))) => {}
            other => panic!("{other:?}"),
        }
    }
    own.await.unwrap();
    for other in &mut others {
        assert!(other.wait().unwrap().success());
    }
}

/// What was acknowledged to another process is known here from that moment on, whether the file is asked or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_were_told_is_known_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let mut watch = store.watch(Filter::all(), store.head().await.unwrap());
    assert!(matches!(watch.next().await, Some(Ok(Feed::Upto(Revision(0))))));
    let mut other = neighbour_heard("commit and say", "p", &path, Stdio::piped());
    let mut known = 0;
    for line in BufReader::new(other.stdout.take().unwrap()).lines() {
        // What the test program says of itself may stand before it.
        let line = line.unwrap();
        let Some((_, revision)) = line.rsplit_once("committed ") else { continue };
        let (told, newest) = (revision.parse().unwrap(), store.newest().await.unwrap());
        assert!(newest.revision >= Revision(told), "{newest:?} is older than what was told: {told}");
        known += 1;
        // And one's own among them.
        if known % 10 == 0 {
            let done = store.commit(commit("own", known)).await.unwrap();
            assert!(store.newest().await.unwrap().revision >= done.revision);
        }
    }
    assert!(other.wait().unwrap().success());
    assert_eq!(known, COMMITS);
}

/// What a reader of the file saw is never newer than what is then said to be the newest, also while its commit is under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_seen_in_the_file_is_known() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("shoal.db")).await.unwrap();
    let mut watch = store.watch(Filter::all(), store.head().await.unwrap());
    assert!(matches!(watch.next().await, Some(Ok(Feed::Upto(Revision(0))))));
    let own = store.clone();
    let writes = tokio::spawn(async move {
        for n in 0..COMMITS {
            own.commit(commit("own", n)).await.unwrap();
        }
    });
    while !writes.is_finished() {
        let seen = store.head().await.unwrap();
        let newest = store.newest().await.unwrap();
        assert!(newest.revision >= seen.revision, "{seen:?} was seen, and then {newest:?} is the newest");
    }
    writes.await.unwrap();
    assert_eq!(store.newest().await.unwrap().revision, Revision(COMMITS));
}

/// What another process commits wakes those whom it concerns, and nobody else; also when both commit at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_others_wake_those_concerned() {
    const WATCHERS: usize = 200;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let head = store.head().await.unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let mut counts = Vec::new();
    for n in 0..WATCHERS {
        // The last one watches what the others write.
        let range = if n == WATCHERS - 1 { Range::hosts() } else { Range::Key(key(&format!("dns/z{n}"))) };
        let filter = Filter { ranges: vec![range], progress: Duration::from_secs(3600) };
        let (mut watch, count) = Counted::new(store.watch(filter, head));
        counts.push((count, watch.asleep()));
        let tell = tell.clone();
        tokio::spawn(async move {
            while let Some(Ok(feed)) = watch.next().await {
                let _ = tell.send((n, feed));
            }
        });
    }
    for _ in 0..WATCHERS {
        assert!(matches!(told.recv().await.unwrap().1, Feed::Upto(_)));
    }
    // Those who were just told may still be on their way back to sleep.
    let awake = || counts.iter().any(|(_, asleep)| !asleep.load(Ordering::SeqCst));
    while awake() || counts.iter().map(|(count, _)| count.swap(0, Ordering::SeqCst)).sum::<usize>() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut others: Vec<_> = (0..2).map(|n| neighbour("commit", &format!("p{n}"), &path)).collect();
    for n in 0..COMMITS {
        store.commit(commit("own", n)).await.unwrap();
    }
    for n in 1..=3 * COMMITS {
        let heard = tokio::time::timeout(Duration::from_secs(60), told.recv()).await.unwrap().unwrap();
        let (who, Feed::Commit(entry)) = heard else { panic!("{heard:?}") };
        assert_eq!((who, entry.info.revision, entry.changes.len()), (WATCHERS - 1, Revision(n), 1));
    }
    for other in &mut others {
        assert!(other.wait().unwrap().success());
    }
    let woken = counts.iter().filter(|(count, _)| count.load(Ordering::SeqCst) > 0).count();
    assert_eq!(woken, 1, "of {WATCHERS}");
}

/// Who writes the `n`th of many commits.
fn writer(n: u64) -> &'static str {
    match n {
        700 => "once",
        n if n % 7 == 0 => "seldom",
        _ => "often",
    }
}

/// Who comes back after a long time, to a database that was opened anew, is told what concerns it and is where the others are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filtered_watch_is_taken_up_far_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let start = {
        let store = SqliteStore::open(&path).await.unwrap();
        let start = store.head().await.unwrap();
        for n in 0..1500 {
            store.commit(commit(writer(n), n)).await.unwrap();
        }
        start
    };
    let store = SqliteStore::open(&path).await.unwrap();
    let deep = || Range::Prefix("dns/example.com/members/seldom".into());
    let filters: [(Vec<Range>, &[&str], usize); 6] = [
        (vec![Range::Key(key("hosts/seldom"))], &["seldom"], 1),
        (vec![Range::Naming("seldom".parse().unwrap()), Range::Key(key("hosts/seldom"))], &["seldom"], 2),
        (vec![deep(), Range::Key(key("lb/seldom"))], &["seldom"], 2),
        (vec![deep(), Range::Key(key("hosts/once"))], &["seldom", "once"], 1),
        (vec![Range::Key(key("hosts/never"))], &[], 0),
        (vec![Range::Prefix("lb/".into())], &["seldom", "often", "once"], 1),
    ];
    for (ranges, writers, each) in filters {
        let mut watch = store.watch(Filter::of(ranges), start);
        for n in (0..1500).filter(|n| writers.contains(&writer(*n))) {
            let heard = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap();
            let Some(Ok(Feed::Commit(entry))) = heard else { panic!("{heard:?}") };
            assert_eq!((entry.info.revision, entry.changes.len()), (Revision(n + 1), each));
        }
        assert_eq!(watch.next().await, Some(Ok(Feed::Upto(Revision(1500)))));
    }
}

/// Two handles in one process: the slower way to the same file is as good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_handle_hears_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let (one, two) = (SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap());
    let start = one.head().await.unwrap();
    assert_eq!(two.head().await.unwrap(), start);
    let mut watch = two.watch(Filter::of(vec![Range::hosts()]), start);
    assert!(matches!(watch.next().await, Some(Ok(Feed::Upto(_)))));
    for n in 0..50 {
        let done = one.commit(commit("w", n)).await.unwrap();
        let heard = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap();
        let Some(Ok(Feed::Commit(entry))) = heard else { panic!("{heard:?}") };
        assert_eq!((entry.info.revision, entry.changes.len()), (done.revision, 1));
    }
    // The watch goes on when its own store is let go.
    drop(two);
    one.commit(commit("w", 50)).await.unwrap();
    assert!(matches!(watch.next().await, Some(Ok(Feed::Commit(_)))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_hold_across_processes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let mut others: Vec<_> = (0..2).map(|n| neighbour("claim", &format!("p{n}"), &path)).collect();
    take_turns(&store, "own").await;
    for other in &mut others {
        assert!(other.wait().unwrap().success(), "a neighbour was fenced, or failed otherwise");
    }
    let page = store.ledger("count", None, 1).await.unwrap();
    let count = u64::from_le_bytes(page.rows[0].1.as_slice().try_into().unwrap());
    assert_eq!(count, 3 * TURNS, "two held it at once");
    // One that dies keeps it until it ends: nobody else gets it.
    assert!(!neighbour("claim and die", "dead", &path).wait().unwrap().success());
    let answer = store.claim(&want("own")).await.unwrap();
    assert!(matches!(answer, ClaimAnswer::Taken { look_again: Some(_), .. }), "{answer:?}");
}

/// A claim with an end does not outlive the boot it was made in; one without does.
#[tokio::test]
async fn a_reboot_ends_claims() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let store = SqliteStore::open(&path).await.unwrap();
    let kept = ClaimRequest { name: "slot/1".into(), ttl: None, ..want("a") };
    for want in [want("a"), kept.clone()] {
        assert!(matches!(store.claim(&want).await.unwrap(), ClaimAnswer::Granted(_)));
    }
    drop(store);
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.execute("UPDATE claims SET boot = 'an earlier one'", []).unwrap();
    drop(connection);
    let store = SqliteStore::open(&path).await.unwrap();
    let held: Vec<_> = store.claims("").await.unwrap().into_iter().map(|c| c.name).collect();
    assert_eq!(held, ["slot/1"]);
    assert!(matches!(store.claim(&want("b")).await.unwrap(), ClaimAnswer::Granted(c) if c.number > 2));
    assert!(matches!(
        store.claim(&ClaimRequest { holder: "b".into(), ..kept }).await.unwrap(),
        ClaimAnswer::Taken { look_again: None, .. }
    ));
}

/// A restored backup gets another epoch, and whoever watches, also in another process, is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_epoch_resets_watches() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let (one, two) = (SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap());
    let done = one.commit(commit("w", 0)).await.unwrap();
    let old = one.head().await.unwrap();
    let mut watches = [one.watch(Filter::all(), old), two.watch(Filter::all(), old)];
    for watch in &mut watches {
        assert_eq!(watch.next().await, Some(Ok(Feed::Upto(done.revision))));
    }
    let epoch = one.new_epoch().await.unwrap();
    assert!(epoch != old.epoch && epoch != Epoch(0));
    let new = Head { epoch, revision: done.revision };
    for watch in &mut watches {
        let told = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap();
        assert_eq!(told, Some(Ok(Feed::Reset(new))));
    }
    assert_eq!(two.head().await.unwrap(), new);
    drop((one, two, watches));
    assert_eq!(SqliteStore::open(&path).await.unwrap().head().await.unwrap(), new);
}

/// What one store remembers of an idempotency key, the next one that opens the file does, too.
#[tokio::test]
async fn retries_are_known_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let first = SqliteStore::open(&path).await.unwrap().commit(commit("w", 0)).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&path).await.unwrap());
    let again = store.commit(commit("w", 0)).await.unwrap();
    assert!(again.replayed && again.revision == first.revision);
}

/// A database that is kept open goes on after another process has written, also where one thread does everything.
#[tokio::test]
async fn a_database_goes_on_after_a_neighbours_commit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let store = Arc::new(SqliteStore::open(&path).await.unwrap());
    let database = Database::open(store).await.unwrap();
    for n in 0..40 {
        let host = format!("h{n}.example.com");
        let edit = Edit::Write {
            key: key(&format!("pauses/host/{host}")),
            value: Document::parse(r#"{"why":"x"}"#).unwrap(),
            expect: Expect::default(),
        };
        let done = database.transact(Proposal::new("ann", "why not", vec![edit]));
        let done = tokio::time::timeout(Duration::from_secs(60), done).await.expect("it goes on").unwrap();
        assert_eq!(done.committed.revision, Revision(2 * n + 1));
        // Blocks the only thread, as tests do.
        assert!(neighbour("commit once", &format!("w{n}"), &path).wait().unwrap().success());
    }
}

/// An error of one reading ends the watches that there are; those that are begun anew hear of neighbours as before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_that_failed_can_be_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let (one, two) = (SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap());
    let soon = Duration::from_secs(60);
    let mut after = two.head().await.unwrap();
    for round in 0..3 {
        let mut watch = two.watch(Filter::all(), after);
        assert!(matches!(watch.next().await, Some(Ok(Feed::Upto(_)))), "round {round}");
        let done = one.commit(commit("w", round)).await.unwrap();
        let told = tokio::time::timeout(soon, watch.next()).await.expect("it hears of the neighbour");
        assert!(matches!(told, Some(Ok(Feed::Commit(entry))) if entry.info.revision == done.revision));
        after.revision = done.revision;
        // Closing the connection wakes who listens.
        let change = |sql: &str| rusqlite::Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        change("ALTER TABLE meta RENAME TO elsewhere");
        let told = tokio::time::timeout(soon, watch.next()).await.expect("it fails");
        assert!(matches!(told, Some(Err(_))), "{told:?}");
        change("ALTER TABLE elsewhere RENAME TO meta");
    }
}

/// Nobody goes on with a file that is not the database any more: what is committed there would be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_was_taken_away_is_told_and_not_written_to() {
    for (away, put) in [(&["", "-wal", "-shm"][..], true), (&[""], true), (&[""], false), (&["-wal"], false)]
    {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shoal.db");
        let named = |name: &str, rest: &str| folder.path().join(format!("{name}{rest}"));
        let (watched, quiet) =
            (SqliteStore::open(&path).await.unwrap(), SqliteStore::open(&path).await.unwrap());
        let head = watched.commit(commit("w", 0)).await.unwrap();
        let after = watched.head().await.unwrap();
        let mut watch = watched.watch(Filter::all(), after);
        assert_eq!(watch.next().await, Some(Ok(Feed::Upto(head.revision))));
        drop(SqliteStore::open(named("new.db", "")).await.unwrap());
        for rest in away {
            std::fs::rename(named("shoal.db", rest), named("old.db", rest)).unwrap();
        }
        if put {
            std::fs::rename(named("new.db", ""), &path).unwrap();
        }
        let gone = |error: shoal_store::StoreError| {
            let said = error.to_string();
            assert!(
                said.contains("moved, removed or replaced") && said.contains("shoal.db"),
                "{away:?}: {said}"
            );
        };
        let told = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.expect("the watch ends");
        gone(told.unwrap().unwrap_err());
        gone(quiet.commit(commit("w", 1)).await.unwrap_err());
        gone(quiet.head().await.unwrap_err());
        gone(watched.watch(Filter::all(), after).next().await.unwrap().unwrap_err());
        // Also when it is back: nobody knows what happened to it.
        if !put {
            for rest in away {
                std::fs::rename(named("old.db", rest), named("shoal.db", rest)).unwrap();
            }
            gone(watched.commit(commit("w", 2)).await.unwrap_err());
        }
    }
}

#[tokio::test]
async fn who_waits_for_another_process_holds_up_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let store = SqliteStore::open(&path).await.unwrap();
    // So that the next one would be done at once.
    store.commit(commit("w0", 0)).await.unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    let mut held = Vec::new();
    // A commit that holds the thread up does so each time, and a machine that stalls does not.
    for n in 1..=8 {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let waiting = tokio::spawn({
            let store = store.clone();
            async move { store.commit(commit("w0", n)).await }
        });
        // One thread has both the commit and this.
        let begun = Instant::now();
        let mut longest = Duration::ZERO;
        while begun.elapsed() < Duration::from_millis(400) {
            let tick = Instant::now();
            tokio::time::sleep(Duration::from_millis(1)).await;
            longest = longest.max(tick.elapsed());
        }
        assert!(!waiting.is_finished(), "the other process has the file to itself");
        other.execute_batch("ROLLBACK").unwrap();
        waiting.await.unwrap().unwrap();
        if longest < Duration::from_millis(200) {
            return;
        }
        held.push(longest);
    }
    panic!("held up for {held:?}");
}
