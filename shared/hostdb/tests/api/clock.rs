//! A clock that is set forth and back an hour under a running server: the order of commits, claims, and what had ended by it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use serde_json::{Value, json};
use shoal_client::certificates::{Authority, Wish};
use shoal_client::{Access, HttpStore, Options};
use shoal_core::{Document, Edit, Expect, Proposal};
use shoal_hostdb::credentials::{hash_password, new_token};
use shoal_store::{Database, Store, StoreError};
use shoal_store_sqlite::SqliteStore;
use tokio::process::Command;

use crate::faults::{client, get, put, store};
use crate::harness::{Events, PATIENCE};
use crate::process::{Program, asking, command};

/// libfaketime, which comes with the program `faketime`.
fn faketime() -> Option<String> {
    let out = std::process::Command::new("faketime").args(["-f", "+0", "env"]).output().ok()?;
    let text = String::from_utf8(out.stdout).ok()?;
    text.lines().find_map(|line| line.strip_prefix("LD_PRELOAD=")).map(str::to_owned)
}

/// The clock of a program that is started with it.
struct Clock {
    library: String,
    dir: tempfile::TempDir,
}

impl Clock {
    /// One that is right; `None`: it cannot be had here.
    fn new() -> Option<Self> {
        let clock = Self { library: faketime()?, dir: tempfile::tempdir().unwrap() };
        clock.set("+0");
        Some(clock)
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("clock")
    }

    /// Sets it to so many seconds from the right time.
    fn set(&self, seconds: &str) {
        // At once: half of it would be another time.
        let fresh = self.dir.path().join("fresh");
        std::fs::write(&fresh, seconds).unwrap();
        std::fs::rename(fresh, self.file()).unwrap();
    }

    fn rules(&self, mut program: Command) -> Command {
        // What a person sets is the wall clock; the time since the boot goes on.
        program.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", self.file());
        program.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        program.env("DONT_FAKE_MONOTONIC", "1");
        program
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_an_hour_changes_no_order_and_no_claim() {
    let Some(clock) = Clock::new() else {
        println!("SKIPPED: a_clock_that_is_set_back_an_hour…: faketime is not installed");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let server = Program::of(clock.rules(command(&store(dir.path()), &["--listen", "127.0.0.1:0"]))).await;
    let (client, url) = (client(), &server.url);
    let claim = async |holder: &str| {
        let want = json!({"name": "unit/dns/x", "of": 1, "holder": holder, "ttl": {"secs": 2, "nanos": 0}});
        client
            .post(format!("{url}/api/v2/store/claim"))
            .json(&want)
            .send()
            .await
            .unwrap()
            .json::<Value>()
            .await
            .unwrap()
    };
    assert!(put(&client, url, "a.example.com", &json!({})).await.unwrap().0 < 300);
    let held = claim("one").await;
    assert!(held.to_string().contains("Granted"), "{held}");
    clock.set("-3600");
    assert!(put(&client, url, "b.example.com", &json!({})).await.unwrap().0 < 300);
    let (_, log) = get(url, "/api/v2/commits").await;
    let entries: Vec<(u64, jiff::Timestamp)> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| (e["revision"].as_u64().unwrap(), e["time"].as_str().unwrap().parse().unwrap()))
        .collect();
    let [(second, late), (first, early)] = entries[..] else { panic!("{log}") };
    // The clock was really set back, and the order is that of revisions.
    assert!(second > first && early.duration_since(late).as_mins() >= 59, "{log}");
    let taken = claim("two").await;
    assert!(taken.to_string().contains("Taken"), "the other's claim is not over: {taken}");
    let begun = std::time::Instant::now();
    while !claim("two").await.to_string().contains("Granted") {
        assert!(begun.elapsed() < PATIENCE, "it is over after its time, and not an hour later");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A database in this folder in which `root` administers, with a token of theirs that ends in half an hour and one that ends in two,
/// and the password `correct horse` of `ann`.
async fn with_people(dir: &Path) -> (String, String) {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(dir.join("shoal.db")).await.unwrap());
    let database = Database::open(store).await.unwrap();
    let write = |key: &str, value: Value| Edit::Write {
        key: key.parse().unwrap(),
        value: Document::from(value),
        expect: Expect::Any,
    };
    let (brief, long) = (new_token().unwrap(), new_token().unwrap());
    let token = |hash: &str, minutes: i64| {
        let expires = Timestamp::now() + SignedDuration::from_mins(minutes);
        json!({"owner": "root", "hash": hash, "created": Timestamp::now(), "expires": expires})
    };
    let password = hash_password("correct horse").unwrap().0;
    let edits = vec![
        write("access/groups/admins", json!({"members": ["root"]})),
        write("access/users/ann", json!({"password": password})),
        write(&format!("access/tokens/{}", brief.id), token(&brief.hash.0, 30)),
        write(&format!("access/tokens/{}", long.id), token(&long.hash.0, 120)),
    ];
    database.transact(Proposal::new("setup", "setup", edits)).await.unwrap();
    (brief.text, long.text)
}

/// The program, asking who may do what, on the database of this folder.
fn guarded(dir: &Path) -> Command {
    asking(&store(dir), &["--listen", "127.0.0.1:0"])
}

/// Whether a token is taken.
async fn taken(server: &Program, token: &str) -> bool {
    let asked =
        client().get(format!("{}/api/v2/whoami", server.url)).bearer_auth(token).send().await.unwrap();
    let status = asked.status();
    let said = asked.text().await.unwrap();
    let refused = status == StatusCode::UNAUTHORIZED && said.contains("the token has expired");
    assert!(status == StatusCode::OK || refused, "{status}: {said}");
    !refused
}

async fn write(server: &Program, token: &str, host: &str) {
    let put = client().put(format!("{}/api/v2/hosts/{host}?message=because", server.url)).bearer_auth(token);
    let answer = put.json(&json!({})).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

async fn behind(server: &Program, token: &str) -> i64 {
    let asked = client().get(format!("{}/metrics", server.url)).bearer_auth(token).send().await.unwrap();
    let text = asked.text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix("shoal_hostdb_clock_behind_seconds "));
    value.expect(&text).parse().unwrap()
}

#[tokio::test]
async fn what_had_ended_stays_out_when_the_clock_is_set_back_an_hour() {
    let Some(clock) = Clock::new() else {
        println!("SKIPPED: what_had_ended_stays_out…: faketime is not installed");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (brief, long) = with_people(dir.path()).await;
    let mut server = Program::of(clock.rules(guarded(dir.path()))).await;
    assert!(taken(&server, &brief).await && taken(&server, &long).await);
    let watch =
        |token: &str| client().get(format!("{}/api/v2/watch?prefix=hosts/", server.url)).bearer_auth(token);
    let (mut watched, mut other) = (Events::open(watch(&long)).await, Events::open(watch(&brief)).await);
    write(&server, &long, "a.example.com").await;
    assert_eq!(watched.next_named("commit").await.data["changes"][0]["key"], "hosts/a.example.com");
    assert_eq!(other.next_named("commit").await.data["changes"][0]["key"], "hosts/a.example.com");

    clock.set("+3600");
    assert!(!taken(&server, &brief).await && taken(&server, &long).await);
    assert_eq!(behind(&server, &long).await, 0);
    write(&server, &long, "b.example.com").await;

    clock.set("+0");
    assert!(!taken(&server, &brief).await, "it had ended, and does not begin again");
    assert!(taken(&server, &long).await, "it has not ended, by either time");
    assert!((3_500..=3_600).contains(&behind(&server, &long).await));
    let said = async { while !server.line().await.contains("behind a time that was seen") {} };
    tokio::time::timeout(PATIENCE, said).await.expect("it is logged");
    // Who says a password has a session that begins now, and not one that has ended already.
    let login = client().post(format!("{}/api/v2/sessions", server.url));
    let began = login.json(&json!({"user": "ann", "password": "correct horse"})).send().await.unwrap();
    let began: Value = began.json().await.unwrap();
    assert!(taken(&server, began["token"].as_str().unwrap()).await, "{began}");
    write(&server, &long, "c.example.com").await;
    for host in ["b", "c"] {
        let commit = watched.next_named("commit").await;
        assert_eq!(commit.data["changes"][0]["key"], format!("hosts/{host}.example.com"));
    }

    // The newest commits say how late it was; the very last of them was made by the clock that was set back.
    server.child.kill().await.unwrap();
    let server = Program::of(clock.rules(guarded(dir.path()))).await;
    assert!(!taken(&server, &brief).await && taken(&server, &long).await);
    clock.set("+7300");
    assert!(!taken(&server, &long).await, "it ends when it was meant to");
}

/// The same for who shows a certificate.
#[tokio::test]
async fn a_certificate_that_had_ended_stays_out_when_the_clock_is_set_back() {
    let Some(clock) = Clock::new() else {
        println!("SKIPPED: a_certificate_that_had_ended…: faketime is not installed");
        return;
    };
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new().unwrap());
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, &authority.pem).unwrap();
    let (cert, key) = authority.server(&["127.0.0.1"]).unwrap().write(dir.path(), "server").unwrap();
    let (cert, key, authorities) =
        (cert.display().to_string(), key.display().to_string(), ca.display().to_string());
    let listen = ["--listen", "https://127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key];
    let demands = ["--client-ca", &authorities, "--client-cert", "required"];
    let server = Program::of(clock.rules(command("memory:", &[&listen[..], &demands].concat()))).await;
    let brief = Wish { common: Some("agent-dns"), ends: Ok(Duration::from_secs(1800)), ..Wish::default() };
    let long = Wish { common: Some("agent-lb"), ends: Ok(Duration::from_secs(7200)), ..Wish::default() };
    let [brief, long] = [(brief, "brief"), (long, "long")]
        .map(|(wish, name)| authority.issue(&wish).unwrap().write(dir.path(), name).unwrap());
    // Each time by a connection of its own.
    let comes_in = async |(cert, key): &(PathBuf, PathBuf)| {
        let access = Access {
            ca: Some(ca.clone()),
            cert: Some(cert.clone()),
            key: Some(key.clone()),
            ..Access::default()
        };
        let store = HttpStore::with(&server.url, Options { access, ..Options::default() }).unwrap();
        match store.head().await {
            Ok(_) => true,
            Err(StoreError::Denied { why, .. }) if why.contains("expired") => false,
            Err(other) => panic!("{other}"),
        }
    };
    assert!(comes_in(&brief).await && comes_in(&long).await);
    clock.set("+3600");
    assert!(!comes_in(&brief).await && comes_in(&long).await);
    clock.set("+0");
    assert!(!comes_in(&brief).await && comes_in(&long).await);
}
