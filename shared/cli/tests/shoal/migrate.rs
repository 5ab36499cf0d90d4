//! `shoal migrate` on real files: killed amid, gone on with, refused, and the same answers from both sides.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use shoal_core::{Change, Commit, Document, Epoch};
use shoal_store::{ClaimAnswer, ClaimRequest, ManualClock, MemoryStore, Store, migrate};
use shoal_store_sqlite::{SqliteDraft, SqliteStore};

use crate::program::{shoal, text};

/// How many commits the large database has.
const COMMITS: u64 = 12_000;

/// A commit of a host that changes again and again, which is in a zone from its first one on.
fn commit(n: u64) -> Commit {
    let host = n % 40;
    let put = |key: String, value: String| Change::put(key.parse().unwrap(), Document::trusted(&value));
    let note = "x".repeat(200);
    let mut changes = vec![put(
        format!("hosts/h{host:02}.example.com"),
        format!("{{\"id\":\"h{host}\",\"document\":{{\"n\":{n},\"note\":\"{note}\"}}}}"),
    )];
    if n == 0 {
        changes.push(put("dns/example.com".to_owned(), "{\"document\":{\"ttl\":60}}".to_owned()));
    }
    if n < 40 {
        changes.push(put(format!("dns/example.com/members/h{host:02}.example.com"), "{}".to_owned()));
    }
    Commit {
        idempotency: Some(format!("key {n}")),
        ..Commit::new(format!("user{}", n % 7), format!("the {n}th"), changes)
    }
}

/// A database with a long history, made in memory and copied into a file: that is faster.
async fn large(path: &Path) {
    let store = MemoryStore::with(Epoch(0x0123_4567_89ab_cdef), Arc::new(ManualClock::new()));
    for n in 0..COMMITS {
        store.commit(commit(n)).await.unwrap();
    }
    let draft = SqliteDraft::open(path, store.head().await.unwrap().epoch).await.unwrap();
    migrate(store.whole().unwrap(), &draft, &mut |_| {}).await.unwrap();
}

/// How far the file is.
fn revision(path: &Path) -> Option<u64> {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let connection = rusqlite::Connection::open_with_flags(path, flags).ok()?;
    let newest = connection.query_row("SELECT max(id) >> 20 FROM changes", [], |row| row.get::<_, i64>(0));
    newest.ok().map(i64::unsigned_abs)
}

fn copy(from: &str, to: &str) -> Output {
    shoal("memory:", &["migrate", "--from", from, "--to", to])
}

/// Ends the command with `kill -9` once the copy has come so far.
fn killed(from: &str, to: &str, path: &Path, wanted: u64) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_shoal"))
        .args(["migrate", "--from", from, "--to", to])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while revision(path).is_none_or(|upto| upto < wanted) {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it could be killed");
        assert!(begun.elapsed() < Duration::from_secs(120), "it did not come to revision {wanted}");
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_copy_that_is_killed_goes_on_and_answers_as_the_source() {
    let dir = tempfile::tempdir().unwrap();
    let (source, path) = (dir.path().join("shoal.db"), dir.path().join("moved.db"));
    large(&source).await;
    let (from, to) = (format!("sqlite:{}", source.display()), format!("sqlite:{}", path.display()));
    let mut before = 0;
    for wanted in [1, COMMITS / 4, COMMITS / 2] {
        killed(&from, &to, &path, wanted);
        let upto = revision(&path).unwrap();
        assert!(upto >= before && upto < COMMITS, "{upto}");
        before = upto;
    }
    // Half of it is no database to anybody.
    let third = dir.path().join("third.db").display().to_string();
    for line in [
        &["get", "hosts"][..],
        &["put", "web1.example.com", "-m", "x"],
        &["database", "verify"],
        &["database", "backup", &third],
        &["migrate", "--from", &to, "--to", &format!("sqlite:{third}")],
    ] {
        let run = shoal(&to, line);
        let said = text(&run.stderr);
        assert_eq!(run.status.code(), Some(1), "{line:?}: {said}");
        assert!(said.contains("unfinished copy") && said.contains("`shoal migrate`"), "{line:?}: {said}");
    }
    let server = Command::new("timeout")
        .args(["60", env!("CARGO_BIN_EXE_shoal"), "--store", &to, "serve", "--listen", "127.0.0.1:0"])
        .args(["--access", "off"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&server.stderr);
    assert_eq!(server.status.code(), Some(1), "{said}");
    assert!(said.contains("unfinished copy") && said.contains("`shoal migrate`"), "{said}");
    // Nor to another source.
    let other = format!("sqlite:{}", dir.path().join("other.db").display());
    assert!(shoal(&other, &["put", "web1.example.com", "-m", "x"]).status.success());
    let wrong = copy(&other, &to);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("another database than this one"), "{}", text(&wrong.stderr));
    assert!(revision(&path).unwrap() >= before, "it was touched");

    let done = shoal("memory:", &["migrate", "--from", &from, "--to", &to, "-o", "json"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    let value: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&value["commits"], &value["revision"]), (&COMMITS.into(), &COMMITS.into()));
    assert_eq!((&value["epoch"], &value["rows"]), (&"0123456789abcdef".into(), &81.into()));
    assert_eq!(value["idempotency_keys"], COMMITS);
    for line in [
        &["log"][..],
        &["log", "-n", "500", "--before", "9000", "-o", "json"],
        &["log", "dns/example.com", "h07.example.com", "-n", "1000", "-o", "json"],
        &["show", "4711", "-o", "json"],
        &["blame", "h07.example.com"],
        &["blame", "dns/example.com", "-o", "json"],
        &["diff", "100", "11000"],
        &["get", "h07.example.com", "--revision", "5000", "-o", "json"],
        &["members", "dns/example.com", "--revision", "20"],
        &["rollback", "h07.example.com", "--to", "300", "--plan"],
        &["rollback", "--all", "--to", "5000", "--plan"],
        &["export"],
        &["export", "--revision", "6000"],
        &["search", "n > 11980", "--revision", "11990"],
    ] {
        let (here, there) = (shoal(&from, line), shoal(&to, line));
        assert!(here.status.code() == Some(0) || here.status.code() == Some(3), "{line:?}");
        assert!(!here.stdout.is_empty(), "{line:?}");
        assert_eq!(there, here, "{line:?}");
    }
    let sound = shoal(&to, &["database", "verify"]);
    assert!(sound.status.success(), "{}", text(&sound.stderr));
    // It goes on where the source stopped, which nobody changed.
    let next = shoal(&to, &["rollback", "h07.example.com", "--to", "300", "-m", "as it was"]);
    let said = text(&next.stdout);
    assert!(next.status.success() && said.contains(&format!("revision {}", COMMITS + 1)), "{said}");
    assert_eq!(revision(&source), Some(COMMITS));
}

#[test]
fn places_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| format!("sqlite:{}", dir.path().join(name).display());
    let (from, taken) = (at("shoal.db"), at("taken.db"));
    for store in [&from, &taken] {
        assert!(shoal(store, &["put", "web1.example.com", "-m", "x"]).status.success());
    }
    let before = std::fs::read(dir.path().join("taken.db")).unwrap();
    std::fs::write(dir.path().join("text"), "not a database ".repeat(100)).unwrap();
    std::fs::write(dir.path().join("nothing.db"), "").unwrap();
    let cases = [
        ("http://127.0.0.1:1".to_owned(), at("a.db"), 2, "is a server"),
        (from.clone(), "unix:/run/shoal.sock".to_owned(), 2, "name the database itself"),
        (from.clone(), "https://h1,https://h2".to_owned(), 2, "sqlite:PATH on the machine where the file is"),
        ("memory:".to_owned(), at("a.db"), 2, "is gone when this command ends"),
        (from.clone(), "memory:".to_owned(), 2, "is gone when this command ends"),
        (at("none.db"), at("a.db"), 1, "there is no database at"),
        (at("nothing.db"), at("a.db"), 1, "there is no database at"),
        (from.clone(), taken, 1, "holds a database already (revision 1), and nothing is replaced"),
        (from.clone(), from.clone(), 1, "holds a database already"),
        (from.clone(), at("text"), 1, "is not a SQLite database"),
        (from.clone(), at("no/folder/a.db"), 1, "mkdir -p"),
        (from.clone(), "nonsense".to_owned(), 1, "is not a store"),
    ];
    for (from, to, code, word) in &cases {
        let run = copy(from, to);
        let said = text(&run.stderr);
        assert_eq!((run.status.code(), text(&run.stdout)), (Some(*code), ""), "{from} {to}: {said}");
        assert!(said.contains(word), "{from} {to}: {said}");
    }
    if !cfg!(feature = "etcd") {
        let run = copy(&from, "etcd://h1/x");
        assert!(text(&run.stderr).contains("--features etcd"), "{}", text(&run.stderr));
    }
    for none in ["a.db", "none.db"] {
        assert!(!dir.path().join(none).exists(), "{none} was made");
    }
    assert_eq!(std::fs::read(dir.path().join("taken.db")).unwrap(), before);
}

/// While an agent works the copy is kept up, and finished when it has stopped.
#[tokio::test]
async fn a_source_in_use_is_copied_and_not_finished() {
    let dir = tempfile::tempdir().unwrap();
    let (source, path) = (dir.path().join("shoal.db"), dir.path().join("moved.db"));
    let (from, to) = (format!("sqlite:{}", source.display()), format!("sqlite:{}", path.display()));
    let store = SqliteStore::open(&source).await.unwrap();
    for n in 0..10 {
        store.commit(commit(n)).await.unwrap();
    }
    let ttl = Some(Duration::from_secs(600));
    let want = ClaimRequest { name: "unit/dns/example.com".into(), of: 1, holder: "ns1 42".into(), ttl };
    let ClaimAnswer::Granted(claim) = store.claim(&want).await.unwrap() else { panic!("it is taken") };
    let busy = copy(&from, &to);
    let said = text(&busy.stderr);
    assert_eq!((busy.status.code(), text(&busy.stdout)), (Some(4), ""), "{said}");
    assert!(said.contains("ns1 42 holds unit/dns/example.com"), "{said}");
    assert!(said.contains("everything up to revision 10 is copied"), "{said}");
    assert_eq!(shoal(&to, &["get", "hosts"]).status.code(), Some(1));
    store.commit(commit(10)).await.unwrap();
    store.release(&claim).await.unwrap();
    let done = copy(&from, &to);
    let said = text(&done.stdout);
    assert!(done.status.success(), "{}", text(&done.stderr));
    assert!(said.contains("as of revision 11, compared: 11 commits"), "{said}");
    assert!(said.contains(&format!("let nobody write to {from}")), "{said}");
    let again = copy(&from, &to);
    assert_eq!(again.status.code(), Some(1));
    assert!(text(&again.stderr).contains("holds a database already"), "{}", text(&again.stderr));
}
