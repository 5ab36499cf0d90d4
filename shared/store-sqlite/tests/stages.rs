//! Large commits, which are written in slices: whole or not there at all, whoever looks and whatever dies, and in nobody's way.
//!
//! Other processes are this test again, told by the environment what to be.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what helps tests fails as tests do")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use shoal_core::{Change, Commit, Document, LogEntry, Pre, Range, Revision};
use shoal_store::{Feed, Filter, MemoryStore, Query, Store, StoreError};
use shoal_store_sqlite::{Options, SqliteStore, backup, restore, verify};
use support::shim::Shim;
use support::{integrity, key};

/// Changes of the large commit, and of one slice of it.
const LARGE: u64 = 600;
const SLICE: u32 = 40;
/// Points at which its writer is killed.
const CUTS: i64 = 24;

fn of(author: &str, n: u64, changes: Vec<Change>) -> Commit {
    Commit { idempotency: Some(format!("{author} {n}")), ..Commit::new(author, n.to_string(), changes) }
}

fn value(n: u64) -> Document {
    Document::parse(&format!(
        "{{\"id\":\"{n}\",\"document\":{{\"fill\":\"{}\"}}}}",
        "x".repeat((n as usize * 37) % 400)
    ))
    .unwrap()
}

/// The `n`th small commit of a writer: rows beside those of the large one, and one of the same scopes.
fn small(writer: &str, n: u64) -> Commit {
    let at = |place: String| Change::put(key(&place), value(n));
    of(writer, n, vec![at(format!("hosts/{writer}")), at(format!("tags/a/members/{writer}"))])
}

/// The `n`th large commit: hosts, and a member row for each.
fn large(n: u64) -> Commit {
    let host = |i: u64| Change::put(key(&format!("hosts/large{i:04}")), value(i + n));
    let member = |i: u64| Change::put(key(&format!("tags/a/members/large{i:04}")), value(n));
    of("large", n, (0..LARGE / 2).flat_map(|i| [host(i), member(i)]).collect())
}

fn sorted(mut commit: Commit) -> Vec<Change> {
    commit.changes.sort_by(|a, b| a.key.cmp(&b.key));
    commit.changes
}

async fn open(path: &Path) -> SqliteStore {
    SqliteStore::open_with(path, Options::default().slices_of(SLICE)).await.unwrap()
}

/// Everything that was committed, the oldest first.
async fn log(store: &SqliteStore) -> Vec<LogEntry> {
    let (mut all, mut before) = (Vec::new(), None);
    loop {
        let page = store.log(&Range::All, before, 1000).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.info.revision);
        all.extend(page);
    }
    all.reverse();
    all
}

async fn rows(store: &dyn Store, range: Range) -> usize {
    store.read(&Query::new(range)).await.unwrap().rows.len()
}

/// How many rows of the large commit are seen, by each way there is.
async fn seen(store: &dyn Store) -> [usize; 4] {
    let member = |name: &str| Range::Naming(name.parse().unwrap());
    [
        rows(store, Range::Prefix("hosts/large".into())).await,
        rows(store, Range::Prefix("tags/a/members/large".into())).await,
        // The first and the last that are written.
        rows(store, member("large0001")).await * LARGE as usize / 2,
        store.log(&Range::Key(key("hosts/large0001")), None, 9).await.unwrap().len() * LARGE as usize / 2,
    ]
}

/// A question to the file behind the store's back.
fn ask(path: &Path, sql: &str) -> Option<i64> {
    rusqlite::Connection::open(path).unwrap().query_row(sql, [], |row| row.get(0)).unwrap()
}

fn is_staged(path: &Path) -> bool {
    ask(path, "SELECT staged FROM meta").is_some()
}

/// Members stand here without their tag: nobody above the store looks at what is committed.
fn assert_sound(path: &Path) {
    let verified = verify(path, &mut |_, _| {}).unwrap();
    let damage: Vec<_> =
        verified.damage.iter().filter(|one| !one.what.contains("does not exist")).take(3).collect();
    assert!(damage.is_empty(), "{damage:?}");
}

async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(90), "{what}: not after 90 s");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Another process: the first test of this file again, told by the environment what to do instead.
fn other(role: &str, path: &Path, writes: i64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_writer_leaves_nothing_to_be_seen", "--nocapture", "--test-threads=1"])
        .env("SHOAL_TEST_ROLE", role)
        .env("SHOAL_TEST_PATH", path)
        .env("SHOAL_TEST_WRITES", writes.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn said(child: &mut Child) -> Vec<String> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines.filter_map(|line| line.strip_prefix("said ").map(str::to_owned)).collect()
}

fn say(what: &str) {
    // One write, so that lines do not mix.
    std::io::stdout().write_all(format!("\nsaid {what}\n").as_bytes()).unwrap();
}

/// What the other processes do.
async fn other_process(role: &str) {
    let path = std::env::var("SHOAL_TEST_PATH").unwrap();
    let writes: i64 = std::env::var("SHOAL_TEST_WRITES").unwrap().parse().unwrap();
    let shim = Shim::register("life");
    shim.forget();
    let options = Options::vfs("life").checkpoint_after(100).slices_of(SLICE);
    let store = SqliteStore::open_with(&path, options).await.unwrap();
    let head = store.head().await.unwrap().revision;
    shim.live_for(writes);
    match role {
        // A large commit, and small ones beside it for as long as it takes.
        "large" => {
            let whole = tokio::spawn({
                let store = store.clone();
                async move { store.commit_at(large(0), Revision(head.0 + 300)).await.unwrap() }
            });
            for n in 0.. {
                if n >= 5 && whole.is_finished() {
                    break;
                }
                store.commit(small("beside", n)).await.unwrap();
                say(&format!("small {n}"));
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
            let done = whole.await.unwrap();
            assert!(!done.replayed);
            say(&format!("large {}", done.revision));
            say(&format!("writes {}", writes - shim.life()));
        }
        // Looks and commits, until the large commit is there.
        "neighbour" => {
            for n in 0.. {
                let parts = seen(&store).await;
                assert!(parts.iter().all(|part| [0, LARGE as usize / 2].contains(part)), "{parts:?}");
                if parts[0] > 0 {
                    break;
                }
                let done = store.commit(small("neighbour", n)).await.unwrap();
                // Only the large commit may have come since, and then it is there.
                let head = store.head().await.unwrap().revision;
                assert!(
                    head == done.revision || head > done.revision && seen(&store).await[0] > 0,
                    "{head:?}"
                );
                say(&format!("small {n}"));
            }
        }
        "rival" => {
            let done = store.commit(large(1)).await.unwrap();
            say(&format!("large {}", done.revision));
        }
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_writer_leaves_nothing_to_be_seen() {
    if let Ok(role) = std::env::var("SHOAL_TEST_ROLE") {
        return other_process(&role).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let fresh = |name: &str| folder.path().join(name);
    // Once to its end: how many writes it takes.
    drop(open(&fresh("whole.db")).await);
    let mut whole = other("large", &fresh("whole.db"), i64::MAX);
    let writes: i64 = said(&mut whole).last().unwrap().strip_prefix("writes ").unwrap().parse().unwrap();
    assert!(whole.wait().unwrap().success());
    let (mut staged, mut done) = (0, 0);
    for cut in 1..=CUTS {
        let path = fresh(&format!("cut{cut}.db"));
        drop(open(&path).await);
        let mut child = other("large", &path, writes * cut / CUTS);
        let said = said(&mut child);
        child.wait().unwrap();
        let small_ones = said.iter().filter(|line| line.starts_with("small ")).count();
        // As it was left: nothing of it is seen, by whatever reads the file.
        assert_sound(&path);
        staged += i32::from(is_staged(&path));
        let copy = fresh(&format!("copy{cut}.db"));
        backup(&path, &copy).unwrap();
        assert!(!is_staged(&copy));
        assert_sound(&copy);

        let store = open(&path).await;
        let before = log(&store).await;
        let (large_ones, rest): (Vec<_>, Vec<_>) = before.iter().partition(|e| e.info.author == "large");
        assert!(rest.len() == small_ones || rest.len() == small_ones + 1, "{} of {small_ones}", rest.len());
        for (n, entry) in (0..).zip(&rest) {
            assert_eq!(entry.changes, sorted(small("beside", n)));
        }
        let acknowledged = said.iter().any(|line| line.starts_with("large "));
        assert!(large_ones.len() == 1 || !acknowledged, "it was acknowledged");
        assert!(large_ones.iter().all(|entry| entry.changes == sorted(large(0))));
        let expected = if large_ones.is_empty() { 0 } else { LARGE as usize / 2 };
        assert_eq!(seen(&store).await, [expected; 4]);
        assert_eq!(
            store.head().await.unwrap().revision,
            before.last().map_or(Revision(0), |e| e.info.revision)
        );
        until("what is left is cleared away", || !is_staged(&path)).await;
        assert_sound(&path);
        // The same again: done once.
        let again = store.commit(large(0)).await.unwrap();
        assert_eq!(again.replayed, !large_ones.is_empty());
        done += i32::from(again.replayed);
        assert_eq!(seen(&store).await, [LARGE as usize / 2; 4]);
        assert_eq!(log(&SqliteStore::open(&copy).await.unwrap()).await, before);
        drop(store);
        assert_sound(&path);
        integrity(&path);
        assert!(!is_staged(&path));
    }
    println!("{CUTS} kills: {staged} left something, {done} were done");
    assert!(staged > CUTS as i32 / 2, "only {staged} were killed in the middle");
}

/// Other processes read and commit between the slices, and see all of it or nothing; watches tell whole commits in order;
/// the file is sound and can be copied at any moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_commit_is_seen_whole_by_neighbours_and_watches() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    // So small that there is time to look.
    let store = SqliteStore::open_with(&path, Options::default().slices_of(3)).await.unwrap();
    let second = open(&path).await;
    store.commit(small("first", 0)).await.unwrap();
    let head = store.head().await.unwrap();
    let mut watches = [store.watch(Filter::all(), head), second.watch(Filter::all(), head)];
    for watch in &mut watches {
        assert_eq!(watch.next().await, Some(Ok(Feed::Upto(head.revision))));
    }
    let mut neighbour = other("neighbour", &path, i64::MAX);
    let mut lines = BufReader::new(neighbour.stdout.take().unwrap()).lines();
    // It is at work.
    lines.find(|line| line.as_ref().unwrap().starts_with("said small 3"));
    let whole = tokio::spawn({
        let store = store.clone();
        async move { store.commit(large(0)).await.unwrap() }
    });
    let (mut looks, mut staged) = (0, 0);
    while !whole.is_finished() {
        staged += i32::from(is_staged(&path));
        let parts = seen(&store).await;
        assert!(parts.iter().all(|part| [0, LARGE as usize / 2].contains(part)), "{parts:?}");
        assert_sound(&path);
        let copy = folder.path().join(format!("copy{looks}.db"));
        backup(&path, &copy).unwrap();
        assert!(!is_staged(&copy));
        if looks == 0 {
            let to = folder.path().join("restored.db");
            let done = restore(&copy, &to, false).unwrap();
            let restored = open(&to).await;
            assert_eq!(restored.head().await.unwrap(), done.head);
            assert_eq!(log(&restored).await.last().unwrap().info.revision, done.head.revision);
            assert_sound(&to);
        }
        looks += 1;
    }
    assert!(staged > 0, "nobody looked in the middle");
    let done = whole.await.unwrap();
    assert_eq!(done.changed, LARGE as usize);
    let rest = lines.filter(|line| line.as_ref().unwrap().starts_with("said small ")).count();
    assert!(neighbour.wait().unwrap().success());
    assert!(rest > 3, "only {rest} commits of the neighbour beside it");
    store.commit(small("last", 0)).await.unwrap();
    let all = log(&store).await;
    for watch in &mut watches {
        for expected in all.iter().skip(1) {
            let heard = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap();
            let Some(Ok(Feed::Commit(entry))) = heard else { panic!("{heard:?}") };
            assert_eq!((entry.info.revision, &entry.changes), (expected.info.revision, &expected.changes));
        }
    }
    assert_eq!(all.iter().filter(|entry| entry.changes == sorted(large(0))).count(), 1);
}

/// Two processes with a large commit each: one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_commits_of_two_processes_take_turns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let store = open(&path).await;
    let mut rival = other("rival", &path, i64::MAX);
    let own = store.commit(large(0)).await.unwrap();
    let said = said(&mut rival);
    assert!(rival.wait().unwrap().success());
    let others: Vec<u64> = said.iter().filter_map(|l| l.strip_prefix("large ")?.parse().ok()).collect();
    let all = log(&store).await;
    let mut found: Vec<_> = all.iter().map(|e| (e.info.revision.0, e.changes.len())).collect();
    found.retain(|(revision, changes)| {
        *changes != LARGE as usize || ![own.revision.0, others[0]].contains(revision)
    });
    assert!(found.is_empty() && all.len() == 2, "{found:?}");
    assert_sound(&path);
}

/// The same large commit asked for twice at once, as by who did not hear the answer: done once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_commit_that_is_asked_for_twice_is_done_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let (store, second) = (open(&path).await, open(&path).await);
    let (one, two) = tokio::join!(store.commit(large(0)), second.commit(large(0)));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.revision, one.changed), (two.revision, two.changed));
    assert!(one.replayed != two.replayed, "{one:?}, {two:?}");
    assert_eq!(log(&store).await.len(), 1);
    // The same key for something else.
    let other = Commit { message: "another".into(), ..large(0) };
    assert!(matches!(store.commit(other).await, Err(StoreError::Reused { .. })));
    assert_sound(&path);
}

/// Whatever comes between the slices, the end is as if all that was done had been done one after the other, in the order of the
/// revisions: held against the store in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_beside_a_large_commit_equals_some_order() {
    let (mut refused, mut begun_anew) = (0, 0);
    for round in 0..8u64 {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder.path().join("shoal.db")).await;
        store.commit(small("beside", 0)).await.unwrap();
        let seen = store.head().await.unwrap().revision;
        let mut whole = large(round);
        whole.pre = match round % 4 {
            0 => vec![Pre::Unchanged(Range::Prefix("facts/".into()), seen)],
            1 => vec![Pre::Absent(key("facts/vm/x")), Pre::Exists(key("hosts/beside"))],
            2 => vec![Pre::At(key("hosts/beside"), seen)],
            _ => vec![],
        };
        let running = tokio::spawn({
            let (store, whole) = (store.clone(), whole.clone());
            async move { store.commit(whole).await }
        });
        let mut done = Vec::new();
        for n in 1..1000 {
            if running.is_finished() {
                break;
            }
            // Rows that the large one writes, to the same or to another value; and what it rests on, late.
            let at = format!("hosts/large{:04}", n * 7 % (LARGE / 2));
            let same = if n % 2 == 0 { n * 7 % (LARGE / 2) + round } else { n };
            let mut changes = vec![Change::put(key(&at), value(same))];
            if round % 4 == 3 && n < 3 {
                begun_anew += 1;
            } else {
                changes[0].key = key(&format!("hosts/other{n}"));
            }
            if round < 4 && n == 6 {
                changes.push(Change::put(key("facts/vm/x"), value(n)));
                changes.push(Change::put(key("hosts/beside"), value(n)));
            }
            let commit = of("between", n, changes);
            done.push((store.commit(commit.clone()).await.unwrap(), commit));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        match running.await.unwrap() {
            Ok(answer) => done.push((answer, whole)),
            Err(StoreError::Conflict { .. }) => {
                refused += 1;
                assert!(!is_staged(&folder.path().join("shoal.db")));
                assert_eq!(rows(&store, Range::Prefix("tags/a/members/large".into())).await, 0);
            }
            Err(error) => panic!("{error}"),
        }
        done.sort_by_key(|(answer, _)| answer.revision);
        let memory = MemoryStore::new();
        memory.commit(small("beside", 0)).await.unwrap();
        for (answer, mut commit) in done {
            // Of revisions that are others there.
            commit.pre.retain(|pre| !matches!(pre, Pre::At(..) | Pre::Unchanged(..)));
            let expected = memory.commit(commit).await.unwrap();
            assert_eq!(answer.changed, expected.changed, "round {round}");
        }
        let all = |rows: Vec<shoal_core::Row>| rows.into_iter().map(|r| (r.key, r.value)).collect::<Vec<_>>();
        let query = Query { tombstones: true, ..Query::new(Range::All) };
        let read = (store.read(&query).await.unwrap().rows, memory.read(&query).await.unwrap().rows);
        assert_eq!(all(read.0), all(read.1), "round {round}");
        assert_sound(&folder.path().join("shoal.db"));
    }
    assert!(refused >= 2 && begun_anew >= 2, "{refused} were refused, {begun_anew} rows written");
}

/// What is refused in the middle leaves nothing behind, and takes no more room each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_in_the_middle_gives_its_room_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let store = Arc::new(open(&path).await);
    store.commit(small("beside", 0)).await.unwrap();
    let mut pages = Vec::new();
    for round in 1..=4 {
        let seen = store.head().await.unwrap().revision;
        let running = tokio::spawn({
            let store = Arc::clone(&store);
            let whole = Commit { pre: vec![Pre::At(key("hosts/beside"), seen)], ..large(round) };
            async move { store.commit(whole).await }
        });
        // The members are written last.
        let members = if round % 2 == 0 { 1 + round as i64 } else { 0 };
        let written = || is_staged(&path) && ask(&path, "SELECT count(*) FROM naming") > Some(members);
        until("some of it is written", written).await;
        let broke = store.commit(small("beside", round)).await.unwrap();
        let Err(StoreError::Conflict { pre, actual }) = running.await.unwrap() else { panic!("it was done") };
        assert_eq!((pre, actual), (Pre::At(key("hosts/beside"), seen), Some(broke.revision)));
        assert_eq!(ask(&path, "SELECT count(*) FROM changes"), Some(2 + 2 * round as i64));
        assert_eq!(ask(&path, "SELECT count(*) FROM naming"), Some(1));
        assert_eq!(ask(&path, "SELECT count(*) FROM versions"), Some(2 + 2 * round as i64));
        assert!(!is_staged(&path));
        assert_sound(&path);
        pages.push(ask(&path, "PRAGMA page_count").unwrap());
    }
    // Done at last, it takes no more room than where it was done at once.
    let fresh = folder.path().join("fresh.db");
    open(&fresh).await.commit(large(5)).await.unwrap();
    store.commit(large(5)).await.unwrap();
    pages.push(ask(&path, "PRAGMA page_count").unwrap());
    let enough = ask(&fresh, "PRAGMA page_count").unwrap() + 8;
    assert!(pages.iter().all(|count| *count <= enough), "{pages:?}, {enough} are enough");
    // One that cannot be done from the start writes nothing at all.
    let before = ask(&path, "PRAGMA data_version");
    let whole = Commit { pre: vec![Pre::At(key("hosts/beside"), Revision(1))], ..large(9) };
    assert!(matches!(store.commit(whole).await, Err(StoreError::Conflict { .. })));
    assert_eq!(ask(&path, "PRAGMA data_version"), before);
}

/// While somebody lives who may write it, its revision is waited for; once nobody does, it is cleared away and the others go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_passes_the_revision_of_a_large_commit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let store = open(&path).await;
    let mut child = other("large", &path, 200);
    said(&mut child);
    assert!(!child.wait().unwrap().success() && is_staged(&path), "it died in the middle");
    // As its writer would.
    let turn = std::fs::File::open(folder.path().join("shoal.db-wal")).unwrap();
    turn.lock().unwrap();
    let staged = ask(&path, "SELECT staged FROM meta").unwrap().unsigned_abs();
    let mut n = 0;
    while store.head().await.unwrap().revision.0 < staged - 1 {
        store.commit(small("others", n)).await.unwrap();
        n += 1;
    }
    assert!(n > 200, "only {n} fitted before it");
    let mut next = tokio::spawn({
        let store = store.clone();
        async move { store.commit(small("late", 0)).await }
    });
    let waited = tokio::time::timeout(Duration::from_millis(300), &mut next).await;
    assert!(waited.is_err(), "it passed: {waited:?}");
    assert!(is_staged(&path));
    drop(turn);
    let done = next.await.unwrap().unwrap();
    assert_eq!((done.revision.0, is_staged(&path)), (staged, false));
    assert_sound(&path);
}

/// What the lock for writers is held for does not grow with the commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_is_held_for_no_more_than_a_slice() {
    const CHANGES: u64 = 8000;
    let shim = Shim::register("holds");
    shim.forget();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let store = SqliteStore::open_with(&path, Options::vfs("holds")).await.unwrap();
    let hosts = |n: u64| Change::put(key(&format!("hosts/h{n:05}")), value(n * 10 + 400));
    let mut longest = Vec::new();
    for count in [2 * CHANGES / 8, CHANGES] {
        shim.longest_hold();
        let changes = (0..count).map(|n| hosts(n + count)).collect();
        store.commit(of("a", count, changes)).await.unwrap();
        longest.push(shim.longest_hold());
    }
    assert!(longest[1] < 2 << 20 && longest[1] < 2 * longest[0], "octets at once: {longest:?}");
    let log = store.log(&Range::All, None, 1).await.unwrap();
    assert_eq!(log[0].changes.len() as u64, CHANGES);
}

/// A disk that fills up in the middle: refused, and nothing of it is seen or stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fills_up_in_the_middle_loses_nothing() {
    let shim = Shim::register("fills");
    shim.forget();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shoal.db");
    let options = Options::vfs("fills").checkpoint_after(50).slices_of(SLICE);
    let store = SqliteStore::open_with(&path, options).await.unwrap();
    store.commit(small("beside", 0)).await.unwrap();
    shim.set_room(300_000);
    let refused = store.commit(large(0)).await;
    assert!(matches!(&refused, Err(StoreError::Full { .. })), "{refused:?}");
    assert_eq!(seen(&store).await, [0; 4]);
    shim.set_room(i64::MAX);
    store.commit(small("beside", 1)).await.unwrap();
    let begun = Instant::now();
    let mut n = 2;
    while is_staged(&path) && begun.elapsed() < Duration::from_secs(60) {
        store.commit(small("beside", n)).await.unwrap();
        n += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!is_staged(&path), "it is cleared away when there is room again");
    assert!(!store.commit(large(0)).await.unwrap().replayed);
    assert_eq!(seen(&store).await, [LARGE as usize / 2; 4]);
    assert_sound(&path);
}
