//! Backups and restores with real restic: what is made, what is told, and what comes back.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod support;

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{HOST, Scratch, here, repository, tamper, tree};

#[tokio::test]
async fn what_is_backed_up_comes_back_octet_for_octet() {
    if !here("restic") {
        return;
    }
    let scratch = Scratch::new();
    scratch.policy(json!({"fresh": "26h", "verify": {"restore": "720h", "sample": 5}})).await;
    // A plan writes nothing, not even a folder.
    let (code, said) = scratch.run(&["--plan"]);
    assert_eq!(code, 3, "{said}");
    assert!(!scratch.path("state").exists());
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 1);
    let fact = &scratch.fact().await["nightly@main"];
    assert_eq!(fact["snapshot"], json!(scratch.snapshots()[0]), "{fact}");
    assert!(fact["bytes"].as_u64().unwrap() > 100_000 && fact["files"] == json!(30), "{fact}");
    assert!(fact["restored"] != json!("never"), "the restore test ran: {fact}");
    let (code, said) = scratch.run(&["--plan"]);
    assert_eq!(code, 0, "{said}");
    // Nothing is due: nothing is made.
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 1);
    let before = now();
    let (code, said) = scratch.restore(&[HOST], "one");
    assert_eq!(code, 0, "{said}");
    scratch.assert_restored("files", "one");

    // As of a time; one file alone; never over something.
    scratch.fill("files", 31, 2);
    scratch.age(48);
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 2);
    let (code, said) = scratch.restore(&[HOST], "two");
    assert_eq!(code, 0, "{said}");
    scratch.assert_restored("files", "two");
    let one = scratch.text("files/file 1");
    let (code, said) = scratch.restore(&[HOST, &one, "--at", &before], "three");
    assert_eq!(code, 0, "{said}");
    let three = scratch.path("three");
    let old = fs::read(three.join(one.trim_start_matches('/'))).unwrap();
    let first = scratch.path("one").join(one.trim_start_matches('/'));
    assert_eq!(old, fs::read(first).unwrap());
    assert_eq!(tree(&three).len(), 1, "one file was asked for");
    let (code, said) = scratch.restore(&[HOST], "one");
    assert!(code == 1 && said.contains("not empty"), "{said}");
    let (code, said) = scratch.restore(&["web2.example.com"], "four");
    assert!(code == 1 && said.contains("nothing of it"), "{said}");
}

/// The time as restic's snapshots have it, between two of them.
fn now() -> String {
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let out = std::process::Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output().unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn dumps_are_backed_up_and_half_of_one_is_not() {
    if !here("restic") {
        return;
    }
    let scratch = Scratch::new();
    let dump = "[agent.dumps]\nsql = [\"sh\", \"-c\", \"seq 1000; echo $0\", \"{name}\"]\n\
                bad = [\"sh\", \"-c\", \"seq 1000; exit 3\"]\n";
    scratch.configure("", dump);
    scratch.policy(json!({"dumps": {"sql": ["koji", "bodhi"]}})).await;
    scratch.converge();
    let listed = scratch.restic(&["ls", "latest"]);
    assert!(listed.contains("/sql.koji") && listed.contains("/sql.bodhi"), "{listed}");
    let (code, said) = scratch.restore(&[HOST], "out");
    assert_eq!(code, 0, "{said}");
    let held = tree(&scratch.path("out"));
    let koji = held.iter().find(|(path, _)| path.ends_with("sql.koji")).unwrap().1;
    assert!(String::from_utf8_lossy(koji).ends_with("1000\nkoji\n"));
    assert!(
        !scratch.path("state/hosts").join(HOST).join("spool/nightly@main").exists(),
        "it is cleared away"
    );
    scratch.policy(json!({"dumps": {"bad": []}})).await;
    scratch.age(48);
    scratch.fails_with("make the dump bad");
    assert_eq!(scratch.snapshots().len(), 1);
}

#[tokio::test]
async fn a_host_that_leaves_keeps_its_snapshots() {
    if !here("restic") {
        return;
    }
    let scratch = Scratch::new();
    scratch.policy(json!({})).await;
    scratch.converge();
    scratch.edit(json!([{"edit": "delete", "key": format!("backup/nightly/members/{HOST}")}])).await;
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 1);
    let (code, said) = scratch.restore(&[HOST], "out");
    assert_eq!(code, 0, "{said}");
    scratch.assert_restored("files", "out");
}

#[tokio::test]
async fn another_hosts_files_are_not_these() {
    if !here("restic") {
        return;
    }
    let scratch = Scratch::new();
    scratch.policy(json!({})).await;
    scratch
        .edit(json!([
            {"edit": "put_host", "host": "web2.example.com", "document": {}},
            {"edit": "put_tag", "tag": "backup/nightly",
             "document": {"paths": [scratch.text("files")], "repositories": ["main"]},
             "members": [HOST, "web2.example.com"]},
        ]))
        .await;
    scratch.fails_with("back up web2.example.com: its files are not here");
    assert_eq!(scratch.snapshots().len(), 1, "only its own");
}

#[tokio::test]
async fn a_test_of_restoring_that_finds_a_difference_is_a_fault_and_proves_nothing() {
    if !here("restic") {
        return;
    }
    let scratch = Scratch::new();
    scratch.policy(json!({})).await;
    scratch.converge();
    // A file has other octets than the snapshot, and the size and time that stand there: as if what comes back were not what was backed up.
    let file = scratch.path("files/file 1");
    tamper(&file);
    scratch.policy(json!({"verify": {"restore": "720h", "sample": 40}})).await;
    let said = scratch.fails_with("restored otherwise");
    assert!(said.contains(&format!("{} was restored otherwise", file.display())), "{said}");
    let fact = scratch.fails_and_tells(HOST, |fact| fact["nightly@main"]["restore_failed"].is_object()).await;
    let fact = &fact["nightly@main"];
    assert!(fact["restore_failed"]["why"].as_str().unwrap().contains("restored otherwise"), "{fact}");
    assert_eq!(fact["restored"], json!("never"), "{fact}");
    // It was this file alone.
    tamper(&file);
    scratch.record(|record| record["proof"]["failures"] = json!(0));
    scratch.converge();
    let fact = &scratch.fact().await["nightly@main"];
    assert!(fact["restored"] != json!("never") && fact["restore_failed"].is_null(), "{fact}");
    assert_eq!(scratch.snapshots().len(), 1);
}

#[tokio::test]
async fn a_repository_that_is_away_keeps_nothing_out_of_the_other_one() {
    if !here("restic") {
        return;
    }
    let scratch = Scratch::new();
    let far = |url: &str| {
        let table = format!("[agent.repositories.far]\nurl = {url:?}\npassword = \"secret:restic\"");
        scratch.configure("answer = \"1s\"", &table);
    };
    // It takes connections, and never answers.
    let away = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    far(&format!("rest:http://{}/", away.local_addr().unwrap()));
    scratch.policy(json!({"repositories": ["main", "far"]})).await;
    let fact = scratch
        .fails_and_tells(HOST, |fact| {
            fact["nightly@main"]["good"].is_string() && fact["nightly@far"]["failed"].is_object()
        })
        .await;
    assert!(fact["nightly@main"]["failed"].is_null() && fact["nightly@far"]["good"].is_null(), "{fact}");
    let why = fact["nightly@far"]["failed"]["why"].as_str().unwrap();
    assert!(why.contains("use the repository far") && why.contains("longer than 1 s"), "{why}");
    let made = scratch.snapshots();
    let good = fact["nightly@main"]["snapshot"].as_str().unwrap();
    assert!(made.iter().any(|id| id == good), "{good} is not in {made:?}");
    // Nor from who needs the files.
    let began = Instant::now();
    let (code, said) = scratch.restore(&[HOST], "out");
    assert!(code == 0 && said.contains("note: far:"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(120), "it took {:?}: {said}", began.elapsed());
    scratch.assert_restored("files", "out");
    // It is back, elsewhere, which a person says: what it lacks is made up for, there alone.
    repository::lay(&scratch.path("far"));
    far(&scratch.text("far"));
    scratch.record_in(HOST, "nightly@far", |record| record["main"]["failures"] = json!(0));
    let said = scratch.fails_with("made at another location");
    let (_, digest) = said.rsplit_once("digest=\"").unwrap();
    let digest = json!({"digest": digest.split('"').next().unwrap()});
    let key = "approvals/backup/@far";
    scratch.edit(json!([{"edit": "write", "key": key, "value": digest}])).await;
    scratch.converge();
    let fact = scratch.fact().await;
    assert!(fact["nightly@far"]["good"].is_string() && fact["nightly@far"]["failed"].is_null(), "{fact}");
    assert_eq!(scratch.snapshots(), made);
    let (code, said) = scratch.restore(&[HOST, "--repository", "far"], "from far");
    assert_eq!(code, 0, "{said}");
    scratch.assert_restored("files", "from far");
}

#[tokio::test]
async fn a_check_reads_the_share_that_the_policy_says() {
    if !here("restic") {
        return;
    }
    let scratch = Scratch::new();
    // restic, which writes down what it is called with.
    let script = format!("echo \"$*\" >>'{}'; exec restic \"$@\"", scratch.text("calls"));
    let restic = ["setpriv", "--pdeathsig", "INT", "sh", "-c", script.as_str(), "sh"];
    scratch.configure(&format!("restic = {restic:?}"), "");
    let checks = || -> Vec<String> {
        let calls = fs::read_to_string(scratch.path("calls")).unwrap();
        calls.lines().filter(|call| call.starts_with("check")).map(str::to_owned).collect()
    };
    scratch.policy(json!({})).await;
    scratch.converge();
    assert_eq!(checks(), Vec::<String>::new(), "none is asked for");
    let mut called = Vec::new();
    for (read, words) in [(5, "check --read-data-subset=5%"), (100, "check --read-data"), (0, "check")] {
        scratch.policy(json!({"verify": {"check": "0 5 * * *", "read": read}})).await;
        scratch.upkeep_due("proof");
        scratch.converge();
        called.push(words);
        assert_eq!(checks(), called);
    }
    // That a pack is gone is seen without reading any.
    let packs = tree(&scratch.path("repo/data"));
    let (pack, _) = packs.iter().max_by_key(|(_, octets)| octets.len()).unwrap();
    fs::remove_file(scratch.path("repo/data").join(pack)).unwrap();
    scratch.upkeep_due("proof");
    let said = scratch.fails_with("check failed");
    assert!(said.contains("repository contains errors"), "{said}");
    assert!(checks().len() > 3 && checks()[3..].iter().all(|call| call == "check"), "{:?}", checks());
}
