//! Purging, with real restic: a file goes only when a snapshot that stays has exactly it, and comes back octet for octet.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, reason = "this is test code")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde_json::json;
use support::{HOST, Mounted, Scratch, here, repository, tree};

/// A folder of logs, each an hour older than the one before, that may be purged.
fn logs(scratch: &Scratch, count: u64, more: &str) -> Vec<String> {
    fs::create_dir_all(scratch.path("logs/old")).unwrap();
    let names: Vec<String> =
        (0..count).map(|n| format!("logs/{}log {n}", if n % 2 == 0 { "old/" } else { "" })).collect();
    for (n, name) in (0..).zip(&names) {
        let text: String = (0..400 + n).map(|line| format!("{n} {line} something happened\n")).collect();
        fs::write(scratch.path(name), text).unwrap();
        aged(scratch, name, n);
    }
    scratch.configure(&format!("purge = [{:?}]\n{}{more}", scratch.text("logs"), unseen()), "");
    names
}

/// Where the first process cannot be looked into, as in some containers, the configuration has to say that this is so.
fn unseen() -> &'static str {
    match fs::metadata("/proc/1/fd/0") {
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => "unseen = true\n",
        _ => "",
    }
}

fn aged(scratch: &Scratch, name: &str, hours: u64) {
    let then = SystemTime::now() - Duration::from_secs(hours * 3_600);
    fs::File::options().write(true).open(scratch.path(name)).unwrap().set_modified(then).unwrap();
}

fn is_there(scratch: &Scratch, name: &str) -> bool {
    scratch.path(name).exists()
}

/// A policy of the logs alone.
async fn policy(scratch: &Scratch, purge: serde_json::Value) {
    scratch.policy(json!({"paths": [scratch.text("logs")], "purge": purge, "keep": {"last": 1}})).await;
}

#[tokio::test]
async fn what_is_old_and_backed_up_goes_and_comes_back_also_long_after() {
    if !here("purge") {
        return;
    }
    let scratch = Scratch::new();
    let names = logs(&scratch, 120, "");
    let before = tree(&scratch.path("logs"));
    policy(&scratch, json!({"older_than": "10h"})).await;
    scratch.converge();
    for (n, name) in names.iter().enumerate() {
        // The tenth is an hour boundary, give or take.
        assert!(n == 10 || is_there(&scratch, name) == (n < 10), "{name}");
    }
    let archive = scratch.snapshots()[0].clone();
    let fact = &scratch.fact().await["nightly@main"];
    assert!(fact["held"][&archive].is_string(), "{fact}");
    // What is left is much less than it was, and that is no fault; of two snapshots the last is kept, and the archive.
    for night in 1..4 {
        scratch.age(48);
        scratch.upkeep_due("main");
        scratch.converge();
        assert!(scratch.snapshots().contains(&archive), "night {night}");
    }
    assert_eq!(scratch.snapshots().len(), 2, "the archive, and the last one");
    scratch.restic(&["restore", &archive, "--target", &scratch.text("out")]);
    let out = scratch.path("out").join(scratch.text("logs").trim_start_matches('/'));
    assert_eq!(tree(&out), before);
    // The policy says how long.
    policy(&scratch, json!({"older_than": "10h", "archived": "1h"})).await;
    scratch.age_held(2).await;
    scratch.age(48);
    scratch.converge();
    scratch.upkeep_due("main");
    scratch.converge();
    assert_eq!(scratch.snapshots().len(), 1);
}

#[tokio::test]
async fn nothing_goes_that_another_repository_of_the_policy_lacks() {
    if !here("purge") {
        return;
    }
    let scratch = Scratch::new();
    let names = logs(&scratch, 6, "");
    // It is not there: as where its file system is not mounted.
    let table = format!(
        "[agent.repositories.offsite]\nurl = {:?}\npassword = \"secret:restic\"",
        scratch.path("offsite")
    );
    scratch.configure(&format!("purge = [{:?}]\n{}", scratch.text("logs"), unseen()), &table);
    let policy = |older_than: &str| json!({"paths": [scratch.text("logs")], "repositories": ["main", "offsite"], "purge": {"older_than": older_than}});
    scratch.policy(policy("150m")).await;
    let said = scratch.fails_with("there is no good backup in offsite yet");
    assert!(!scratch.snapshots().is_empty(), "it is in main");
    assert!(names.iter().all(|name| is_there(&scratch, name)), "{said}");
    // It goes when both have it, and both hold it.
    repository::lay(&scratch.path("offsite"));
    scratch.record_in(HOST, "nightly@offsite", |record| record["main"]["failures"] = json!(0));
    scratch.converge();
    let left = || names.iter().map(|name| is_there(&scratch, name)).collect::<Vec<_>>();
    assert_eq!(left(), [true, true, true, false, false, false]);
    let fact = scratch.fact().await;
    for name in ["nightly@main", "nightly@offsite"] {
        let last = fact[name]["snapshot"].as_str().unwrap();
        assert!(fact[name]["held"][last].is_string(), "{name}: {fact}");
    }
    // What only main has stays, and what both have goes.
    fs::write(scratch.path("logs/late"), "something happened\n").unwrap();
    aged(&scratch, "logs/late", 7);
    scratch.policy(policy("30m")).await;
    scratch.age(48);
    scratch.converge();
    assert_eq!(left(), [true, false, false, false, false, false]);
    assert!(is_there(&scratch, "logs/late"));
    assert!(scratch.restic(&["ls", "latest"]).contains("/logs/late"), "main has it");
}

#[tokio::test]
async fn what_is_not_exactly_what_the_snapshot_has_stays() {
    if !here("purge") {
        return;
    }
    let scratch = Scratch::new();
    // Between the backup and the purge something happens: as restic lists the snapshot.
    let meddle = scratch.path("meddle.sh");
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in\nls) sh \"$0.once\"; : >\"$0.once\";;\n\
         restore) case \"$*\" in *'log 24'*) echo more >>'{}';; esac;;\nesac\nexec restic \"$@\"\n",
        scratch.text("logs/old/log 24")
    );
    fs::write(&meddle, script).unwrap();
    fs::set_permissions(&meddle, fs::Permissions::from_mode(0o755)).unwrap();
    let names = logs(&scratch, 26, &format!("restic = [{:?}]", scratch.text("meddle.sh")));
    let at = |n: usize| scratch.text(&names[n]);
    let lines = [
        // Other octets with the same size and time; longer; younger.
        format!(
            "touch -r '{0}' '{0}.t'; sed -i 's/something/anythings/' '{0}'; touch -r '{0}.t' '{0}'",
            at(13)
        ),
        format!("echo more >>'{0}'; touch -d '14 hours ago' '{0}'", at(14)),
        format!("touch '{}'", at(15)),
        // Another name for it elsewhere; a link in its place; another file in its place; a folder on the way that is a link.
        format!("ln '{}' '{}'", at(16), scratch.text("hard")),
        format!("mv '{0}' '{1}'; ln -s '{1}' '{0}'", at(17), scratch.text("soft")),
        format!("rm '{0}'; mkfifo '{0}'", at(19)),
    ];
    fs::write(scratch.path("meddle.sh.once"), lines.join("\n")).unwrap();
    // Somebody writes to it still.
    let open = fs::File::options().append(true).open(scratch.path(&names[21])).unwrap();
    let mut writer = Command::new("sleep")
        .arg("600")
        .stdout(open)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    policy(&scratch, json!({"older_than": "12h30m"})).await;
    let said = scratch.fails_with("purge failed");
    assert!(said.contains("log 13 has the size and time that snapshot"), "{said}");
    for n in [13, 14, 15, 16, 21, 24] {
        assert!(is_there(&scratch, &names[n]), "{}", names[n]);
    }
    for n in [17, 19] {
        assert!(fs::symlink_metadata(scratch.path(&names[n])).is_ok(), "{}", names[n]);
    }
    assert!(fs::read_to_string(scratch.path("hard")).unwrap().len() > 1_000);
    assert!(fs::read_to_string(scratch.path("soft")).unwrap().len() > 1_000);
    for n in [18, 20, 22, 23, 25] {
        assert!(!is_there(&scratch, &names[n]), "{}: {said}", names[n]);
    }
    // It goes once nobody writes to it.
    writer.kill().unwrap();
    writer.wait().unwrap();
    scratch.fails();
    assert!(!is_there(&scratch, &names[21]));
    assert!(scratch.fact().await["nightly@main"]["purge_failed"]["why"].as_str().unwrap().contains("log 13"));
}

#[tokio::test]
async fn a_folder_on_the_way_that_is_a_link_leads_nowhere() {
    if !here("purge") {
        return;
    }
    let scratch = Scratch::new();
    let meddle = scratch.path("meddle.sh");
    let (old, away) = (scratch.text("logs/old"), scratch.text("away"));
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = ls ] && [ ! -e '{away}' ]; then mv '{old}' '{away}'; ln -s '{away}' '{old}'; fi\nexec restic \"$@\"\n"
    );
    fs::write(&meddle, script).unwrap();
    fs::set_permissions(&meddle, fs::Permissions::from_mode(0o755)).unwrap();
    logs(&scratch, 20, &format!("restic = [{:?}]", scratch.text("meddle.sh")));
    policy(&scratch, json!({"older_than": "30m"})).await;
    scratch.converge();
    assert_eq!(tree(&scratch.path("away")).len(), 10, "all of them stay");
    assert_eq!(fs::read_dir(scratch.path("logs")).unwrap().count(), 1, "the others went");
}

#[tokio::test]
async fn a_snapshot_that_was_forgotten_justifies_nothing() {
    if !here("purge") {
        return;
    }
    let scratch = Scratch::new();
    // A person forgets the snapshot while the last file is compared.
    let meddle = scratch.path("meddle.sh");
    let script = "#!/bin/sh\n[ \"$1\" = restore ] || exec restic \"$@\"\nrestic \"$@\" || exit\n\
                  restic forget -q \"$2\"\n";
    fs::write(&meddle, script).unwrap();
    fs::set_permissions(&meddle, fs::Permissions::from_mode(0o755)).unwrap();
    let names = logs(&scratch, 6, &format!("restic = [{:?}]", scratch.text("meddle.sh")));
    policy(&scratch, json!({"older_than": "30m"})).await;
    let said = scratch.fails();
    assert!(said.contains("is gone from main") || said.contains("no matching ID"), "{said}");
    assert!(names.iter().all(|name| is_there(&scratch, name)), "{said}");
}

#[tokio::test]
async fn what_cannot_be_read_back_stays() {
    if !here("purge") {
        return;
    }
    let scratch = Scratch::new();
    let names = logs(&scratch, 6, "");
    scratch.policy(json!({"paths": [scratch.text("logs")]})).await;
    scratch.converge();
    // All that is in the packs is broken by now, and the next backup, which reads none of it, builds on that.
    for (path, octets) in tree(&scratch.path("repo/data")) {
        let path = scratch.path("repo/data").join(path);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let broken: Vec<u8> =
            octets.iter().enumerate().map(|(n, o)| if n % 64 == 9 { o ^ 1 } else { *o }).collect();
        fs::write(&path, broken).unwrap();
    }
    fs::write(scratch.path("logs/new"), "new").unwrap();
    scratch.age(48);
    scratch.policy(json!({"paths": [scratch.text("logs")], "purge": {"older_than": "30m"}})).await;
    let said = scratch.fails_with("purge failed");
    assert_eq!(scratch.snapshots().len(), 2);
    assert!(names.iter().all(|name| is_there(&scratch, name)), "{said}");
}

#[tokio::test]
async fn without_the_nodes_word_nothing_goes() {
    if !here("purge") {
        return;
    }
    let scratch = Scratch::new();
    let names = logs(&scratch, 4, "");
    scratch.configure("purge = [\"/somewhere/else\"]", "");
    policy(&scratch, json!({"older_than": "30m"})).await;
    scratch.fails_with("no path of the policy may be purged here");
    assert!(names.iter().all(|name| is_there(&scratch, name)));
    assert_eq!(scratch.snapshots().len(), 1, "it is backed up all the same");
    if !unseen().is_empty() {
        scratch.configure(&format!("purge = [{:?}]", scratch.text("logs")), "");
        scratch.fails_with("what other processes have open cannot be seen");
        assert!(names.iter().all(|name| is_there(&scratch, name)));
    }
}

#[tokio::test]
async fn killed_in_between_it_goes_on_and_nothing_is_lost() {
    if !here("purge") {
        return;
    }
    let scratch = Scratch::new();
    // The agent is killed as it compares one file or another.
    let kill = scratch.path("kill.sh");
    let script = "#!/bin/sh\nif [ \"$1\" = restore ] && [ -e \"$0.at\" ]; then\n\
                  if [ -s \"$0.at\" ]; then : >\"$0.at\"; else rm \"$0.at\"; kill -9 $PPID; exit 1; fi\n\
                  fi\nexec restic \"$@\"\n";
    fs::write(&kill, script).unwrap();
    fs::set_permissions(&kill, fs::Permissions::from_mode(0o755)).unwrap();
    logs(&scratch, 230, &format!("restic = [{:?}]", scratch.text("kill.sh")));
    let before = tree(&scratch.path("logs"));
    policy(&scratch, json!({"older_than": "30m"})).await;
    // At the first batch, then at the second.
    for at in ["", "one more"] {
        fs::write(scratch.path("kill.sh.at"), at).unwrap();
        let output = scratch.command(&["--once", "--wait", "90s"]).output().unwrap();
        assert!(output.status.code().is_none(), "killed: {output:?}");
        scratch.release_claims().await;
    }
    assert!(tree(&scratch.path("logs")).len() < before.len(), "the first batch went");
    scratch.converge();
    assert_eq!(tree(&scratch.path("logs")).len(), 1);
    scratch.age(48);
    scratch.upkeep_due("main");
    scratch.converge();
    // All that went is in the snapshots that are held.
    for (n, id) in scratch.snapshots().iter().enumerate() {
        scratch.restic(&["restore", id, "--target", &scratch.text(&format!("out{n}"))]);
    }
    let inner = scratch.text("logs");
    let mut all = std::collections::BTreeMap::new();
    for n in 0..scratch.snapshots().len() {
        all.extend(tree(&scratch.path(&format!("out{n}")).join(inner.trim_start_matches('/'))));
    }
    assert_eq!(all, before);
}

#[tokio::test]
async fn as_much_goes_as_is_to_be_free_and_no_more_oldest_first() {
    if !here("purge") {
        return;
    }
    let scratch = Scratch::new();
    fs::create_dir_all(scratch.path("logs")).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=4m", "none"])
        .arg(scratch.path("logs"))
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("SKIPPED: purge: no file system can be mounted here");
        return;
    }
    let _mounted = Mounted(scratch.path("logs"));
    let names: Vec<String> = (0..9).map(|n| format!("logs/log {n}")).collect();
    for (n, name) in (1..).zip(&names) {
        fs::write(scratch.path(name), vec![n as u8; if n == 1 { 900 } else { 300 } << 10]).unwrap();
        aged(&scratch, name, n);
    }
    // It is full to the last octet.
    let rest = fs::write(scratch.path("logs/rest"), vec![7; 4 << 20]);
    assert!(rest.is_err());
    assert!(fs::metadata(scratch.path("logs/rest")).unwrap().size() > 0);
    scratch.configure(&format!("purge = [{:?}]\n{}", scratch.text("logs"), unseen()), "");
    policy(&scratch, json!({"keep_free": 35})).await;
    scratch.converge();
    let left: Vec<bool> = names.iter().map(|name| is_there(&scratch, name)).collect();
    assert_eq!(left, [true, true, true, true, false, false, false, false, false]);
    // What cannot be freed is said.
    policy(&scratch, json!({"keep_free": 90})).await;
    scratch.age(48);
    let open = fs::File::open(scratch.path(&names[0])).unwrap();
    let mut reader = Command::new("sleep")
        .arg("600")
        .stdin(open)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    scratch.fails_with("90 % are to be");
    scratch.fails_and_reports("90 % are to be").await;
    reader.kill().unwrap();
    reader.wait().unwrap();
    assert!(is_there(&scratch, &names[0]), "somebody reads it");
    let status = scratch.status().await;
    assert!(status.contains(&format!("{HOST} nightly@main")), "{status}");
}
