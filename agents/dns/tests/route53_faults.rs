//! A stand-in for Route 53 that refuses, throttles, falls silent and takes its time.

#![cfg(feature = "route53")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;
#[path = "common/hosted.rs"]
mod hosted;

use common::until_async;
use hosted::{Hosted, Moto, daemon, run, scratch};
use serde_json::json;

const ZONE: &str = "example.com";
const WAIT: [&str; 3] = ["--once", "--wait", "120s"];

/// A zone with so many addresses, and more static records.
fn fleet(count: usize, more: &str) -> String {
    let records: String = (0..count)
        .map(|n| format!("    - {{name: h{n}, type: A, data: 10.0.{}.{}}}\n", n / 250, n % 250))
        .collect();
    format!(
        "tag: dns/{ZONE}\ndocument:\n  soa: {{primary: ns9.example.net.}}\n  ttl: 60\n  static:\n{records}{more}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_record_is_left_out_and_its_batch_goes_on() {
    let Some(moto) = Moto::start("a_bad_record_is_left_out_and_its_batch_goes_on") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let scratch = scratch(&moto, "");
    // One that the answer names by its value, and one that it does not name at all.
    let bad = "    - {name: bad1, type: TXT, data: unlawful}\n    - {name: bad2, type: CAA, data: '0 issue \"unspeakable\"'}\n";
    scratch.apply(&fleet(64, bad)).await;
    moto.reset();
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("bad1.example.com") && said.contains("unlawful"), "the record is named: {said}");
    assert!(said.contains("bad2.example.com"), "{said}");
    assert_eq!(hosted.all().len(), 64, "all the others are there: {said}");
    // 1 with both, then halves of 65: 2 * log2(65) at the most; each of the two may be tried once more.
    let calls = moto.calls("ChangeResourceRecordSets");
    assert!(calls <= 18, "{calls}");
    // Corrected, it is made.
    scratch.apply(&fleet(64, "    - {name: bad1, type: TXT, data: lawful}\n")).await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!((code, hosted.all().len()), (0, 65), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn throttled_it_goes_more_slowly_and_comes_through() {
    let Some(moto) = Moto::start("throttled_it_goes_more_slowly_and_comes_through") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let scratch = scratch(&moto, "");
    scratch.apply(&fleet(20, "")).await;
    moto.reset();
    moto.fault("ChangeResourceRecordSets", "throttle", 2);
    moto.fault("ChangeResourceRecordSets", "prior", 1);
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!((code, hosted.all().len()), (0, 20), "{said}");
    assert_eq!(moto.calls("ChangeResourceRecordSets"), 4, "each was tried again");
    // Others use up the account's share: 2 calls a second. What is begun comes to its end all the same.
    moto.set(&json!({"rate": 2, "burst": 2}));
    scratch.apply(&fleet(2_500, "")).await;
    moto.reset();
    let (code, said) = run(&scratch, &moto, &WAIT);
    moto.set(&json!({"rate": 0}));
    assert_eq!((code, hosted.all().len()), (0, 2_500), "{said}");
    let log = moto.state()["log"].clone();
    let throttled = log.as_array().unwrap().iter().filter(|call| call["note"] == "throttle").count();
    assert!(throttled > 0, "it was throttled: {log}");
    // Asked at the configured rate, it is not throttled at all.
    scratch.configure(&hosted::configuration(&moto, "[agent.route53]\nrate = 2\n"));
    moto.set(&json!({"rate": 3, "burst": 6}));
    scratch.apply(&fleet(2_500, "    - {name: new, type: A, data: 192.0.2.1}\n")).await;
    moto.reset();
    let (code, said) = run(&scratch, &moto, &WAIT);
    moto.set(&json!({"rate": 0}));
    let log = moto.state()["log"].clone();
    assert!(
        code == 0 && log.as_array().unwrap().iter().all(|call| call["status"] == 200),
        "{code} {said} {log}"
    );
}

/// How many seconds lie between the first change that was not throttled and the last one, and how many there were.
fn changes(moto: &Moto) -> (f64, usize) {
    let state = moto.state();
    let calls = state["log"].as_array().unwrap().iter();
    let changes = calls.filter(|call| call["action"] == "ChangeResourceRecordSets");
    let taken = changes.filter(|call| call["note"] != "throttle");
    let at: Vec<f64> = taken.map(|call| call["at"].as_f64().unwrap()).collect();
    (at[at.len() - 1] - at[0], at.len())
}

/// Once throttled, it does not go on at full speed when the call came through: all that follows waits for its turn.
#[tokio::test(flavor = "multi_thread")]
async fn throttled_once_it_goes_more_slowly_from_then_on() {
    let Some(moto) = Moto::start("throttled_once_it_goes_more_slowly_from_then_on") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let scratch = scratch(&moto, "");
    // Halves of the batch find the one that no answer names: a dozen calls, one after the other.
    let bad = "    - {name: bad, type: CAA, data: '0 issue \"unspeakable\"'}\n";
    let mut spans = Vec::new();
    for (count, throttled) in [(64, false), (128, true)] {
        scratch.apply(&fleet(count, bad)).await;
        moto.reset();
        if throttled {
            moto.fault("ChangeResourceRecordSets", "throttle", 1);
        }
        let (code, said) = run(&scratch, &moto, &["--once"]);
        assert_eq!((code, hosted.all().len()), (1, count), "{said}");
        let (span, calls) = changes(&moto);
        assert!(calls >= 12, "{calls} calls: {said}");
        spans.push(span);
    }
    // The SDK goes on with fewer calls a second than it had made, which were few, and adds to them by and by: ten take more than a
    // second, however fast they are answered. Where nothing was throttled they take a fifth of that, unless the machine is busy.
    let (quick, slow) = (spans[0], spans[1]);
    assert!(slow > 0.8, "{slow} s after it was throttled, {quick} s where it was not");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_costs_nothing() {
    let Some(moto) = Moto::start("an_answer_that_is_lost_costs_nothing") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let scratch = scratch(&moto, "");
    // Done, unanswered, and asked again: then it is there already.
    scratch.apply(&fleet(30, "")).await;
    moto.fault("ChangeResourceRecordSets", "lost", 1);
    let (code, said) = run(&scratch, &moto, &WAIT);
    assert_eq!((code, hosted.all().len()), (0, 30), "{said}");
    // Done, and answered with an error until nobody asks any more.
    scratch.apply(&fleet(31, "")).await;
    moto.fault("ChangeResourceRecordSets", "broken", 4);
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert!(code != 2 && code != 3, "{said}");
    moto.reset();
    let (code, said) = run(&scratch, &moto, &WAIT);
    assert_eq!((code, hosted.all().len()), (0, 31), "{said}");
    // What was made so is Shoal's: it can be changed and taken out.
    scratch.apply(&fleet(28, "    - {name: h30, type: A, data: 192.0.2.30}\n")).await;
    let (code, said) = run(&scratch, &moto, &WAIT);
    let all = hosted.all();
    assert!(
        code == 0 && all.contains(&"h30.example.com. A 60 192.0.2.30".to_owned()),
        "{code} {said} {all:?}"
    );
    assert_eq!(all.len(), 29);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_in_a_call_it_knows_its_own_again() {
    let Some(moto) = Moto::start("killed_in_a_call_it_knows_its_own_again") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let scratch = scratch(&moto, "");
    scratch.apply(&fleet(5, "")).await;
    moto.reset();
    moto.fault_with(&json!({"action": "ChangeResourceRecordSets", "kind": "slow", "seconds": 1.0}));
    let killed = daemon(&scratch, &moto);
    until_async(async || moto.calls("ChangeResourceRecordSets") == 1).await;
    drop(killed);
    until_async(async || hosted.all().len() == 5).await;
    let (code, said) = run(&scratch, &moto, &WAIT);
    assert_eq!((code, moto.calls("ChangeResourceRecordSets")), (0, 1), "it was made, and by Shoal: {said}");
    scratch.apply(&fleet(4, "    - {name: h4, type: A, data: 192.0.2.4}\n")).await;
    let (code, said) = run(&scratch, &moto, &WAIT);
    assert!(
        code == 0 && hosted.all().contains(&"h4.example.com. A 60 192.0.2.4".to_owned()),
        "{code} {said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn until_it_is_in_sync_it_waits_and_a_restart_goes_on_waiting() {
    let Some(moto) = Moto::start("until_it_is_in_sync_it_waits") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let scratch = scratch(&moto, "");
    scratch.apply(&fleet(3, "")).await;
    moto.set(&json!({"pending": 3600}));
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!((code, hosted.all().len()), (5, 3), "made, and waited for: {said}");
    let (code, said) = run(&scratch, &moto, &["--plan"]);
    assert!(code == 3 && said.contains("confirm") && said.contains("example.com/h0"), "{code} {said}");
    // Another process asks about what the first one began, and says what it waits for.
    moto.reset();
    let running = daemon(&scratch, &moto);
    until_async(async || scratch.status().await.contains("(PENDING) of Route 53 to reach all name servers"))
        .await;
    assert!(moto.calls("GetChange") >= 1);
    assert_eq!(moto.calls("ChangeResourceRecordSets"), 0, "nothing is done twice");
    // Another name does not wait for it.
    scratch.apply(&fleet(3, "    - {name: new, type: A, data: 192.0.2.1}\n")).await;
    until_async(async || hosted.all().len() == 4).await;
    moto.set(&json!({"pending": 0}));
    until_async(async || scratch.status().await.contains("\"behind\":[]")).await;
    drop(running);
    // And with --wait it is waited for.
    moto.set(&json!({"pending": 3}));
    scratch.apply(&fleet(3, "    - {name: new, type: A, data: 192.0.2.2}\n")).await;
    moto.reset();
    let (code, said) = run(&scratch, &moto, &WAIT);
    assert_eq!(code, 0, "{said}");
    assert!(moto.calls("GetChange") >= 1 && moto.calls("ChangeResourceRecordSets") == 1, "{}", moto.state());
    // What goes is waited for as well.
    scratch.apply(&fleet(3, "")).await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!((code, hosted.all().len()), (5, 3), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_goes_is_waited_for_over_a_restart() {
    let Some(moto) = Moto::start("a_name_that_goes_is_waited_for_over_a_restart") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let scratch = scratch(&moto, "");
    // Under one of the names that go, others have something as well.
    hosted.change(ZONE, "CREATE both TXT 600 \"somebody's\"");
    scratch.apply(&fleet(3, "    - {name: both, type: A, data: 192.0.2.1}\n")).await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!((code, hosted.all().len()), (0, 5), "{said}");
    moto.set(&json!({"pending": 3600}));
    scratch.apply(&fleet(2, "")).await;
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!((code, hosted.all().len()), (5, 3), "{said}");
    // Every other process asks about the change, and waits as the first one did.
    for _ in 0..2 {
        moto.reset();
        let (code, said) = run(&scratch, &moto, &["--once"]);
        assert!(code == 5 && said.contains("example.com/h2"), "{code} {said}");
        assert!(moto.calls("GetChange") > 0, "{said}");
        assert_eq!(moto.calls("ChangeResourceRecordSets"), 0, "nothing is done twice: {said}");
    }
    let (code, said) = run(&scratch, &moto, &["--plan"]);
    assert!(code == 3 && said.contains("confirm example.com/h2"), "{code} {said}");
    assert!(said.contains("confirm example.com/both"), "{said}");
    moto.set(&json!({"pending": 0}));
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!((code, hosted.all().len()), (0, 3), "{said}");
    // Then it is forgotten: nobody asks any more.
    moto.reset();
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!((code, moto.calls("GetChange")), (0, 0), "{said}");
    // The process that took it out, and goes on, reads the zone when it begins and the name once, when it is gone everywhere.
    moto.set(&json!({"pending": 3}));
    scratch.apply(&fleet(1, "")).await;
    moto.reset();
    let (code, said) = run(&scratch, &moto, &WAIT);
    let calls = moto.state()["calls"].clone();
    assert!(code == 0 && moto.calls("GetChange") > 0, "{code} {said} {calls}");
    assert_eq!(
        (&calls["ChangeResourceRecordSets"], &calls["ListResourceRecordSets"]),
        (&json!(1), &json!(2))
    );
    moto.reset();
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert_eq!((code, moto.calls("GetChange")), (0, 0), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_breaks_off_removes_nothing() {
    let Some(moto) = Moto::start("a_look_that_breaks_off_removes_nothing") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let scratch = scratch(&moto, "");
    scratch.apply(&fleet(700, "")).await;
    assert_eq!(run(&scratch, &moto, &WAIT).0, 0);
    // The second page cannot be read, however often it is asked for.
    moto.reset();
    moto.fault_with(&json!({"action": "ListResourceRecordSets", "kind": "error", "after": 1, "times": 1000}));
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert!(code == 1 && said.contains("list the records of example.com"), "{code} {said}");
    assert_eq!(moto.calls("ChangeResourceRecordSets"), 0);
    moto.reset();
    assert_eq!(hosted.all().len(), 700);
    // Nobody may.
    moto.fault("*", "deny", 1000);
    let (code, said) = run(&scratch, &moto, &["--once"]);
    assert!(code == 1 && said.contains("AccessDenied") && said.contains("[agent.route53]"), "{code} {said}");
}

/// The files below a folder that hold this text.
fn holding(folder: &std::path::Path, text: &str) -> Vec<std::path::PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(at) = folders.pop() {
        for path in std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read(&path).unwrap().windows(text.len()).any(|part| part == text.as_bytes()) {
                found.push(path);
            }
        }
    }
    found
}

/// The keys that AWS is asked with are in nothing that the agent says or keeps, whatever becomes of a call.
#[tokio::test(flavor = "multi_thread")]
async fn no_key_of_aws_is_said_or_kept() {
    const KEY: &str = "pl4nted-secret-access-key";
    let Some(moto) = Moto::start("no_key_of_aws_is_said_or_kept") else { return };
    let hosted = Hosted::public(&moto, ZONE);
    let scratch = scratch(&moto, "");
    let mut said = String::new();
    let mut run = |args: &[&str]| {
        let mut command = scratch.command(args);
        command.envs(moto.environment()).env("AWS_SECRET_ACCESS_KEY", KEY).env("SHOAL_LOG", "debug");
        let output = command.output().unwrap();
        said += &String::from_utf8_lossy(&[output.stdout, output.stderr].concat());
        output.status.code().unwrap()
    };
    scratch.apply(&fleet(10, "    - {name: bad, type: TXT, data: unlawful}\n")).await;
    run(&["--plan", "--output", "json"]);
    moto.fault("ChangeResourceRecordSets", "throttle", 1);
    assert_eq!(run(&["--once"]), 1, "one record is refused");
    scratch.apply(&fleet(11, "")).await;
    moto.fault("ChangeResourceRecordSets", "broken", 4);
    run(&["--once"]);
    moto.reset();
    assert_eq!((run(&WAIT), hosted.all().len()), (0, 11));
    // Nobody answers.
    scratch.configure(
        "[agent.aws]\nendpoint = 'http://127.0.0.1:9'\nregion = 'us-east-1'\n[agent.route53]\nrate = 500\n",
    );
    assert_ne!(run(&["--once"]), 0);
    assert!(said.contains("unlawful"), "{said}");
    assert!(!said.contains(KEY) && !scratch.status().await.contains(KEY), "{said}");
    assert!(!holding(scratch.path(), "unlawful").is_empty(), "it is looked for where things are kept");
    assert_eq!(holding(scratch.path(), KEY), Vec::<std::path::PathBuf>::new());
}
