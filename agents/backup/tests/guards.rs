//! What must never push a good copy out, with real restic: sources that are missing, unmounted or much smaller, files that cannot be read,
//! and retention that would take the last good one.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod support;

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};
use shoal_backup::Keep;
use shoal_backup::retention::Snapshot;
use support::{HOST, Scratch, here};

/// When snapshots were made, in three weeks over the end of a year: several in an hour, and on both sides of midnight and of a week's end.
const TIMES: [(&str, &[&str]); 13] = [
    ("2024-12-18", &["04:00", "04:30", "16:10"]),
    ("2024-12-22", &["23:10", "23:50"]),
    ("2024-12-23", &["00:10", "12:00"]),
    ("2024-12-25", &["05:00", "06:00", "06:30", "07:00"]),
    ("2024-12-29", &["22:00", "23:59"]),
    ("2024-12-30", &["00:00", "01:30"]),
    ("2024-12-31", &["23:30"]),
    ("2025-01-01", &["00:20", "00:40", "13:00"]),
    ("2025-01-04", &["10:00", "10:59", "11:00"]),
    ("2025-01-05", &["23:59"]),
    ("2025-01-06", &["00:00", "08:15", "08:45", "20:00"]),
    ("2025-01-07", &["03:00", "03:10", "04:10", "05:50", "22:00"]),
    ("2025-01-08", &["07:59", "08:00", "08:30", "09:05", "09:20"]),
];

#[tokio::test]
async fn a_source_that_is_not_as_it_should_be_is_a_fault_and_no_backup() {
    if !here("guards") {
        return;
    }
    let scratch = Scratch::new();
    scratch.fill("big", 120, 3);
    let (files, big) = (scratch.text("files"), scratch.text("big"));
    scratch.policy(json!({"paths": [files, big], "fresh": "26h"})).await;
    scratch.converge();
    let good = scratch.snapshots();
    assert_eq!(good.len(), 1);

    // One of two is missing: restic itself would report success.
    fs::rename(scratch.path("big"), scratch.path("away")).unwrap();
    scratch.age(48);
    scratch.fails_with(&format!("{big} is missing"));
    // An empty folder in its place is what a file system leaves that is not mounted.
    fs::create_dir(scratch.path("big")).unwrap();
    let said = scratch.fails_with("at the last good backup it had");
    assert!(said.contains("raise `shrink`"), "{said}");
    scratch.fails_and_reports("older than 26h").await;
    assert_eq!(scratch.snapshots(), good, "nothing was made");
    let fact = &scratch.fact().await["nightly@main"];
    assert!(fact["failed"]["why"].as_str().unwrap().contains(&big), "{fact}");
    assert_eq!(fact["snapshot"], json!(good[0]));
    assert!(fact["unsure"].is_null(), "what never came to restic left nothing to be unsure of: {fact}");

    // What has to be mounted and is not.
    scratch.policy(json!({"mounted": [files]})).await;
    scratch.fails_with(&format!("{files} is not mounted"));
    // What is meant goes when a person says so.
    scratch.policy(json!({"paths": [files, big], "shrink": 100})).await;
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 2);
}

#[tokio::test]
async fn only_folders_that_the_node_allows_are_backed_up() {
    if !here("guards") {
        return;
    }
    let scratch = Scratch::new();
    scratch.configure("allow = [\"/srv\"]", "");
    scratch.policy(json!({})).await;
    scratch.fails_with("may not be backed up from here");
    assert!(scratch.snapshots().is_empty());
}

/// What restic itself would keep of the host's snapshots by these rules, and remove: their ids, in order.
fn by_restic(scratch: &Scratch, keep: &Value) -> (Vec<String>, Vec<String>) {
    let rule = |(rule, much): (&String, &Value)| match much.as_str() {
        Some(span) => format!("--keep-{rule}={span}"),
        None => format!("--keep-{rule}={much}"),
    };
    let rules: Vec<String> = keep.as_object().unwrap().iter().map(rule).collect();
    let mut args = vec!["forget", "--dry-run", "--json", "--host", HOST, "--group-by", "host,paths"];
    args.extend(rules.iter().map(String::as_str));
    let text = scratch.restic(&args);
    let text = text.lines().find(|line| line.starts_with('[')).unwrap();
    let groups: Vec<Value> = serde_json::from_str(text).unwrap();
    let ids = |what: &str| {
        let all = groups[0][what].as_array().unwrap();
        let mut ids: Vec<_> = all.iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    (ids("keep"), ids("remove"))
}

/// The same rules, as the agent has them.
fn rules(keep: &Value) -> Keep {
    let count = |rule: &str| u32::try_from(keep[rule].as_u64().unwrap_or(0)).unwrap();
    let millis = |span| i64::try_from(shoal_agent::span(span).unwrap().as_millis()).unwrap();
    Keep {
        last: count("last"),
        hourly: count("hourly"),
        daily: count("daily"),
        weekly: count("weekly"),
        monthly: count("monthly"),
        yearly: count("yearly"),
        within: keep["within"].as_str().map(millis),
    }
}

/// Makes the snapshots of [`TIMES`], of this folder, a few at once.
fn history(scratch: &Scratch, folder: &str) {
    let times: Vec<String> = TIMES
        .iter()
        .flat_map(|(day, times)| times.iter().map(move |time| format!("{day} {time}:00")))
        .collect();
    let backup = ["backup", "-q", "--host", HOST, "--tag", "shoal", "--tag", "policy:nightly"];
    std::thread::scope(|scope| {
        for part in times.chunks(times.len().div_ceil(3)) {
            scope.spawn(move || {
                for time in part {
                    scratch.restic(&[&backup[..], &["--time", time, folder][..]].concat());
                }
            });
        }
    });
}

#[tokio::test]
async fn by_hours_weeks_and_spans_the_same_is_kept_as_by_restic() {
    if !here("guards") {
        return;
    }
    let scratch = Scratch::new();
    let folder = scratch.text("little");
    fs::create_dir(&folder).unwrap();
    fs::write(scratch.path("little/one"), "little").unwrap();
    history(&scratch, &folder);
    let listed: Vec<Value> =
        serde_json::from_str(&scratch.restic(&["snapshots", "--json", "--no-lock"])).unwrap();
    let snapshot = |one: &Value| Snapshot {
        id: one["id"].as_str().unwrap().to_owned(),
        time: one["time"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond(),
        incomplete: false,
    };
    let all: Vec<Snapshot> = listed.iter().map(snapshot).collect();
    let good = all.iter().max_by_key(|one| one.time).unwrap().id.clone();
    // Of the last each rule keeps some that no other does.
    let mixed = json!({"hourly": 5, "weekly": 3, "within": "10h"});
    for keep in [
        json!({"hourly": 6}),
        json!({"hourly": 12}),
        json!({"weekly": 2}),
        json!({"weekly": 3}),
        json!({"within": "30h"}),
        json!({"within": "336h"}),
        mixed.clone(),
    ] {
        let (kept, gone) = by_restic(&scratch, &keep);
        assert!(kept.len() >= 2 && !gone.is_empty(), "{keep}: {kept:?} {gone:?}");
        let mut ours = rules(&keep).superfluous(&all, &good, &BTreeSet::new());
        ours.sort();
        assert_eq!(ours, gone, "{keep}");
    }
    // By a policy, and in the repository. The backups were another node's: the facts know which is good, and none is due.
    let (kept, _) = by_restic(&scratch, &mixed);
    let schedule = json!({"cron": "0 1 1 1 *"});
    scratch.policy(json!({"paths": [folder], "schedule": schedule, "keep": mixed})).await;
    let now = jiff::Timestamp::now().to_string();
    scratch.tell(HOST, json!({"nightly@main": {"good": now, "snapshot": good, "restored": "never"}})).await;
    scratch.converge();
    let mut left = scratch.snapshots();
    left.sort();
    assert_eq!(left, kept);
}

#[tokio::test]
async fn retention_keeps_what_the_rules_keep_and_always_the_last_good_one() {
    if !here("guards") {
        return;
    }
    let scratch = Scratch::new();
    scratch.policy(json!({})).await;
    scratch.converge();
    // Two years of nights, and one of another host that nobody knows to be good.
    let files = scratch.text("files");
    let tags = ["--tag", "shoal", "--tag", "policy:nightly"];
    let old = |host: &str, time: &str| {
        let at = ["--host", host, "--time", time];
        scratch.restic(&[&["backup", "-q"], &tags[..], &at[..], &[files.as_str()][..]].concat());
    };
    for (month, days) in [("2025-01", [1, 9, 20]), ("2025-08", [2, 3, 4]), ("2026-10", [7, 8, 31])] {
        for day in days {
            old(HOST, &format!("{month}-{day:02} 03:00:00"));
        }
    }
    old("web9.example.com", "2025-01-01 03:00:00");
    old("web9.example.com", "2025-01-02 03:00:00");
    let keep = json!({"last": 2, "daily": 3, "monthly": 3, "yearly": 9});
    let (kept, gone) = by_restic(&scratch, &keep);
    assert!(!gone.is_empty() && kept.len() >= 4, "{kept:?} {gone:?}");
    scratch.policy(json!({"keep": keep})).await;
    scratch.converge();
    let mut left = scratch.snapshots();
    let others: Vec<String> = serde_json::from_str::<Vec<Value>>(&scratch.restic(&[
        "snapshots",
        "--json",
        "--host",
        "web9.example.com",
    ]))
    .unwrap()
    .iter()
    .map(|one| one["id"].as_str().unwrap().to_owned())
    .collect();
    assert_eq!(others.len(), 2, "of a host of which none is known to be good, all stay");
    left.retain(|id| !others.contains(id));
    left.sort();
    assert_eq!(left, kept, "as restic itself would");
    // Newer ones that nobody knows to be good do not push the good one out.
    let good = scratch.fact().await["nightly@main"]["snapshot"].clone();
    for minute in 10..14 {
        old(HOST, &format!("2027-01-01 03:{minute}:00"));
    }
    scratch.upkeep_due("main");
    scratch.policy(json!({"keep": {"last": 1}})).await;
    scratch.converge();
    let left = scratch.snapshots();
    assert!(left.contains(&good.as_str().unwrap().to_owned()), "{left:?} without {good}");
    scratch.restic(&["check"]);
}

#[tokio::test]
async fn without_credentials_for_it_nothing_is_removed() {
    if !here("guards") {
        return;
    }
    let scratch = Scratch::new();
    let path = scratch.path("backup.toml");
    let text = fs::read_to_string(&path).unwrap().replace("[agent.repositories.main.removal]", "");
    fs::write(path, text).unwrap();
    let files = scratch.text("files");
    for day in ["2025-01-01", "2025-01-02"] {
        let at = format!("{day} 03:00:00");
        let tags = ["--tag", "shoal", "--tag", "policy:nightly", "--host", HOST];
        scratch.restic(&[&["backup", "-q", "--time", &at][..], &tags[..], &[files.as_str()][..]].concat());
    }
    scratch.policy(json!({"keep": {"last": 1}})).await;
    scratch.fails_with("no credentials that may remove");
    assert_eq!(scratch.snapshots().len(), 3, "two of them are superfluous, and stay");
}

/// Each backup that lacks something is tried again at its next time and not before, and takes the place of no good one.
#[tokio::test]
async fn what_lacks_files_pushes_no_good_copy_out() {
    if !here("guards") {
        return;
    }
    let scratch = Scratch::new();
    scratch.policy(json!({})).await;
    scratch.converge();
    let good = scratch.snapshots();
    // A pattern that leaves out all there is: restic takes it, and reports success.
    scratch.policy(json!({"excludes": ["*"]})).await;
    for bad in 1..=2 {
        scratch.age(48);
        let said = scratch.fails();
        assert!(said.contains("the snapshot has no file"), "{said}");
        assert_eq!(scratch.snapshots().len(), 1 + bad, "one for each time on the schedule");
    }
    let fact = &scratch.fact().await["nightly@main"];
    assert_eq!(fact["snapshot"], json!(good[0]));
    assert_eq!(fact["unsure"].as_array().unwrap().len(), 2, "{fact}");
    // Who restores gets the good one, though others are newer.
    let (code, said) = scratch.restore(&[HOST], "restored");
    assert_eq!(code, 0, "{said}");
    scratch.assert_restored("files", "restored");
    scratch.age(48);
    scratch.policy(json!({"keep": {"last": 2}})).await;
    scratch.upkeep_due("main");
    scratch.converge();
    scratch.upkeep_due("main");
    scratch.converge();
    let left = scratch.snapshots();
    assert!(left.contains(&good[0]) && left.len() == 2, "{left:?} of {good:?} and a newer one");
}

#[tokio::test]
async fn what_restic_would_not_follow_is_refused() {
    if !here("guards") {
        return;
    }
    let scratch = Scratch::new();
    std::os::unix::fs::symlink(scratch.path("files"), scratch.path("link")).unwrap();
    scratch.policy(json!({"paths": [scratch.text("link")]})).await;
    let said = scratch.fails_with("it is a link");
    assert!(said.contains(&scratch.text("files")), "{said}");
    assert!(scratch.snapshots().is_empty());
    // A folder that is left out by its path is not measured: that it is empty now means nothing.
    scratch.fill("files/cache", 400, 2);
    scratch
        .policy(json!({"paths": [scratch.text("files")], "excludes": [scratch.text("files/cache")]}))
        .await;
    scratch.converge();
    fs::remove_dir_all(scratch.path("files/cache")).unwrap();
    scratch.age(48);
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 2);
}
