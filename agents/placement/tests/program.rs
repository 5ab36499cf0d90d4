//! The program itself: it plans, places once, runs as a daemon, and says how things stand.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by it")]
#![cfg(feature = "agent")]

mod database;

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use database::{host, open, put};
use serde_json::{Value, json};
use shoal_core::{Lifecycle, Proposal};
use shoal_store::Database;

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn program(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-placement"));
    command.args(args).arg("--store").arg(format!("sqlite:{}", dir.join("shoal.db").display()));
    command.env_remove("NOTIFY_SOCKET").env_remove("SHOAL_STORE");
    command
}

fn run(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = program(dir, args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

async fn fleet(dir: &Path) -> Database {
    let database = open(&dir.join("shoal.db")).await;
    let rules = json!({"group": "vm/a", "apart": [{"tag": "vm/a", "level": "box"}]});
    let machine = json!({"size": {"cpu": 2}, "placement": rules});
    let edits = vec![
        host("box1.example.com", Lifecycle::Active, &json!({"box": {"capacity": {"cpu": 4}}})),
        host("box2.example.com", Lifecycle::Active, &json!({"box": {"capacity": {"cpu": 4}}})),
        host("m1.example.com", Lifecycle::Requested, &machine),
        host("m2.example.com", Lifecycle::Requested, &machine),
        host("m3.example.com", Lifecycle::Requested, &machine),
    ];
    put(&database, edits).await;
    database
}

#[tokio::test(flavor = "multi_thread")]
async fn it_plans_writing_nothing_and_then_does_just_that() {
    let dir = tempfile::tempdir().unwrap();
    let database = fleet(dir.path()).await;
    let before = database.store().head().await.unwrap().revision;
    let (code, planned, log) = run(dir.path(), &["--plan", "--output", "json"]);
    assert_eq!(code, 3, "{planned}{log}");
    assert_eq!(database.store().head().await.unwrap().revision, before);
    let planned: Value = serde_json::from_str(&planned).unwrap();
    let (code, text, _) = run(dir.path(), &["--plan"]);
    assert_eq!(code, 3);
    assert!(text.contains("place m1.example.com on box") && text.contains(". m"), "{text}");
    // One of three has no box of its own: it waits, and the exit code says so.
    let (code, _, log) = run(dir.path(), &["--once"]);
    assert_eq!(code, 5, "{log}");
    let end = Instant::now() + Duration::from_secs(90);
    let placed = loop {
        let view = database.view();
        let placed: Vec<(String, String)> = view
            .hosts()
            .filter(|host| host.state == Lifecycle::Placed)
            .map(|host| {
                let fact = view.facts(host.name.as_str())[0].document.text("box").unwrap().into_owned();
                (host.name.to_string(), format!("on {fact}"))
            })
            .collect();
        if placed.len() == 2 {
            break placed;
        }
        assert!(Instant::now() < end, "{placed:?} {log}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    for chosen in planned["chosen"].as_array().unwrap() {
        let said = (chosen["host"].as_str().unwrap().to_owned(), chosen["with"].as_str().unwrap().to_owned());
        assert!(placed.contains(&said), "{said:?} {placed:?}");
    }
    let reports = database.store().reports().await.unwrap();
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!((report.agent.as_str(), report.expires), ("placement", None));
    assert_eq!(report.units["placement"].behind_total, 1);
    // Rules that nobody understands are refused from now on, where they are written.
    let wrong = host("m4.example.com", Lifecycle::Requested, &json!({"placement": {"aparted": []}}));
    let refused = database.transact(Proposal::new("ann", "a slip", vec![wrong])).await;
    assert!(refused.unwrap_err().to_string().contains("placement"));
    // What is done for one host alone, and what would be if a file were committed.
    assert_eq!(run(dir.path(), &["--plan", "--host", "m1.example.com"]).0, 0);
    assert_eq!(run(dir.path(), &["--plan", "--host", "none.example.com"]).0, 2);
    assert_eq!(run(dir.path(), &["--plan", "--tag", "placement/x"]).0, 2);
    let file = dir.path().join("change.yaml");
    std::fs::write(&file, "host: box3.example.com\ndocument: {box: {capacity: {cpu: 4}}}\n").unwrap();
    let (code, text, log) = run(dir.path(), &["--preview", file.to_str().unwrap()]);
    assert_eq!(code, 3, "{text}{log}");
    assert!(text.contains("on box3.example.com"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_places_what_comes_shows_itself_and_ends_when_told() {
    let dir = tempfile::tempdir().unwrap();
    let database = fleet(dir.path()).await;
    let log = dir.path().join("log");
    let mut command = program(dir.path(), &["--listen", "127.0.0.1:0", "--name", "here"]);
    let mut daemon = Killed(command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap());
    let mut address = String::new();
    until("it says where it listens", || {
        let text = std::fs::read_to_string(&log).unwrap();
        let said = text.split_once("bound=").and_then(|(_, rest)| rest.split_once([' ', '\n']));
        address = said.map(|(bound, _)| bound.to_owned()).unwrap_or_default();
        !address.is_empty()
    })
    .await;
    until("two have a place", || placed(&database) == 2).await;
    let shown = |start: &str, end: &str| {
        let text = get(&address, "/metrics").unwrap_or_default();
        text.lines().any(|line| line.starts_with(start) && line.contains("placement") && line.ends_with(end))
    };
    until("metrics say so", || {
        shown("shoal_behind{", "} 1") && shown("shoal_changes_total{cause=\"intent\",verb=\"place\"", "} 2")
    })
    .await;
    assert!(get(&address, "/readyz").unwrap().starts_with("HTTP/1.0 200"));
    // A box comes, and who waited gets room without another word.
    put(
        &database,
        vec![host("box3.example.com", Lifecycle::Active, &json!({"box": {"capacity": {"cpu": 4}}}))],
    )
    .await;
    until("the third has a place", || placed(&database) == 3).await;
    let told = Command::new("kill").args(["-TERM", &daemon.0.id().to_string()]).status().unwrap();
    assert!(told.success());
    assert!(daemon.0.wait().unwrap().success());
    let reports = database.store().reports().await.unwrap();
    let [report] = &reports[..] else { panic!("{reports:?}") };
    assert!(report.instance.starts_with("here/"));
    assert_eq!(report.expires, Some(report.at), "it said that it was stopped on purpose");
    assert_eq!(report.units["placement"].behind_total, 0);
}

fn placed(database: &Database) -> usize {
    database.view().hosts().filter(|host| host.state == Lifecycle::Placed).count()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(90);
    while !holds() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn get(address: &str, path: &str) -> Option<String> {
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_are_answered_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let database = fleet(dir.path()).await;
    assert_eq!(run(dir.path(), &["--once"]).0, 5);
    let before = database.store().head().await.unwrap().revision;
    // Each box has 2 of 4 free, and the two machines may not meet: neither box may die.
    let (code, text, log) = run(dir.path(), &["capacity"]);
    assert_eq!(code, 4, "{text}{log}");
    assert!(text.contains("free in open boxes together: cpu 4"), "{text}");
    assert!(text.contains("cpu 2: 2 more (2 there)"), "{text}");
    assert!(text.contains("if box1.example.com dies, 1 of its machines have no room"), "{text}");
    let (code, text, _) =
        run(dir.path(), &["capacity", "--only-free", "--size", "cpu=1", "--output", "json"]);
    let answer: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &answer["fits"]), (0, &json!([{"size": {"cpu": 1}, "more": 4, "there": 0}])));
    let (code, text, _) = run(dir.path(), &["evacuate", "box1.example.com"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("0 would move, 1 have no room") && text.contains("vm/a is on the box"), "{text}");
    // With another box there is somewhere to go; and who stood against the rules is sent there.
    let on = "box1.example.com";
    let beside = json!({"size": {"cpu": 1}, "box": on, "placement": {"on": on, "group": "vm/a"}});
    let third = json!({"box": {"capacity": {"cpu": 1}}});
    put(&database, vec![host("box3.example.com", Lifecycle::Active, &third)]).await;
    put(&database, vec![host("old.example.com", Lifecycle::Active, &beside)]).await;
    let (code, text, log) = run(dir.path(), &["evacuate", "box2.example.com", "--output", "json"]);
    assert_eq!(code, 4, "{text}{log}");
    let (code, text, log) = run(dir.path(), &["rebalance", "--plan", "--least", "100"]);
    assert_eq!(code, 3, "{text}{log}");
    assert!(text.contains("from box1.example.com to "), "{text}");
    assert_eq!(run(dir.path(), &["rebalance"]).0, 2);
    // What is no box is told why, and which there are.
    let boxes = "; boxes are box1.example.com, box2.example.com, box3.example.com";
    for (name, why) in [
        ("none.example.com", "there is no host of that name"),
        ("m1.example.com", "that host is no box"),
        ("old.example.com", "that host is no box, it is on box1.example.com"),
    ] {
        let (code, _, log) = run(dir.path(), &["evacuate", name]);
        assert_eq!(code, 1, "{log}");
        assert!(log.contains(&format!("evacuate {name}: {why}{boxes}")), "{log}");
    }
    // The two boxes and the old machine's host were the last to be written.
    assert_eq!(database.store().head().await.unwrap().revision.0, before.0 + 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_boxes_none_is_said_to_have_room() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    put(&database, vec![host("a.example.com", Lifecycle::Active, &json!({}))]).await;
    let (code, text, log) = run(dir.path(), &["capacity", "--size", "cpu=1"]);
    assert_eq!(code, 0, "{text}{log}");
    assert!(text.starts_with("there are no boxes: ") && text.lines().count() == 1, "{text}");
    let (code, _, log) = run(dir.path(), &["evacuate", "a.example.com"]);
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("that host is no box; there are no boxes: "), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_availability_zone_is_not_called_a_box() {
    let dir = tempfile::tempdir().unwrap();
    let database = open(&dir.path().join("shoal.db")).await;
    let zone = host("zone1.example.com", Lifecycle::Active, &json!({"box": {"zone": true}}));
    put(&database, vec![zone, host("a.example.com", Lifecycle::Active, &json!({}))]).await;
    assert_eq!(run(dir.path(), &["evacuate", "zone1.example.com"]).0, 0);
    let says = |why: &str| {
        let (code, _, log) = run(dir.path(), &["evacuate", "a.example.com"]);
        assert_eq!(code, 1, "{log}");
        assert!(log.contains(&format!("evacuate a.example.com: that host is {why}")), "{log}");
    };
    says("no availability zone; availability zones are zone1.example.com");
    let other = host("box1.example.com", Lifecycle::Active, &json!({"box": {"capacity": {"cpu": 1}}}));
    put(&database, vec![other]).await;
    says("neither a box nor an availability zone; boxes are box1.example.com; availability zones are zone1");
}
