//! Killed between any two steps of a write, with a full disk, without its tools: a real server is right in the end, and
//! nothing is left lying about.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code")]

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::scratch::Scratch;
use common::{Primary, dig, files, here, tools};
use shoal_core::Edit;
use shoal_dns::target::ServerKind;

const ZONE: &str = "example.com";

fn fleet(address: &str) -> String {
    format!(
        "{{host: web1.example.com, document: {{address: {address}}}}}\n---\n\
         {{tag: dns/example.com, document: {{soa: {{primary: web1}}}}, members: [web1.example.com]}}"
    )
}

/// A command whose words are run first, and which then kills who called it. The agent runs no shell in between.
fn kills(first: &[String]) -> Vec<String> {
    let script = "\"$@\"; kill -9 $PPID";
    let words = ["sh", "-c", script, "sh"].map(str::to_owned);
    words.into_iter().chain(if first.is_empty() { vec!["true".to_owned()] } else { first.to_vec() }).collect()
}

/// The configuration, with one command in place of another.
fn with(config: &str, field: &str, command: &[String]) -> String {
    let line = |line: &str| {
        if line.starts_with(&format!("{field} = ")) {
            format!("{field} = {command:?}")
        } else {
            line.to_owned()
        }
    };
    config.lines().map(line).collect::<Vec<_>>().join("\n")
}

struct Case {
    primary: Primary,
    scratch: Scratch,
    good: String,
}

impl Case {
    async fn new(kind: ServerKind) -> Self {
        let primary = Primary::start(kind);
        let good = format!("claim = '3s'\n{}", primary.config());
        let scratch = Scratch::new(&good);
        scratch.apply(&fleet("192.0.2.1")).await;
        Self { primary, scratch, good }
    }

    fn configure(&self, config: &str) {
        fs::write(self.scratch.path().join("dns.toml"), config).unwrap();
    }

    /// Runs until it is killed.
    fn dies(&self, field: &str, command: &[String]) {
        self.configure(&with(&self.good, field, command));
        let mut run = self.scratch.command(&["--once", "--wait", "30s"]);
        let output = run.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.signal(), Some(9), "{field} {command:?}: {said}");
    }

    /// Runs to its end as it should be; the killed one's claim has to run out first.
    fn converges(&self) {
        self.configure(&self.good);
        let (code, said) = self.scratch.run(&["--once", "--wait", "30s"]);
        assert_eq!(code, 0, "{said}");
    }
}

/// `field` is the command in which the agent is killed, after it has done what it should if `done`.
async fn killed_while_writing(kind: ServerKind, field: &str, done: bool) {
    let case = Case::new(kind).await;
    let settings = case.primary.settings();
    let command = |known: bool| {
        kills(&match (field, done) {
            (_, false) => Vec::new(),
            ("check", _) => settings.check.clone(),
            ("reload", _) if known => settings.reload.clone(),
            _ => settings.add.clone(),
        })
    };
    // The zone's first file, then a change of it.
    for (known, address) in [(false, "192.0.2.1"), (true, "192.0.2.2")] {
        if known && field == "add" {
            break;
        }
        case.scratch.apply(&fleet(address)).await;
        case.dies(field, &command(known));
        let left = files(&case.primary.zones());
        assert!(left.iter().any(|name| name.starts_with('.')), "{left:?}");
        case.converges();
        assert_eq!(case.primary.web1(), [address]);
        assert_eq!(files(&case.primary.zones()), ["example.com.zone"]);
    }
}

async fn killed_while_removing(kind: ServerKind, done: bool) {
    let case = Case::new(kind).await;
    case.converges();
    let key = "dns/example.com".parse().unwrap();
    case.scratch.commit(vec![Edit::Delete { key, follow: false, expect: Default::default() }]).await;
    case.dies("remove", &kills(&if done { case.primary.settings().remove } else { Vec::new() }));
    assert_eq!(files(&case.primary.zones()), ["example.com.zone"]);
    case.converges();
    assert_eq!(dig(case.primary.address, "example.com SOA").status(), "REFUSED");
    assert!(files(&case.primary.zones()).is_empty());
}

macro_rules! killed {
    ($($name:ident => $run:ident($($argument:expr),*);)*) => {
        /// BIND.
        mod bind {
            killed! { @ Bind $($name => $run($($argument),*);)* }
        }
        /// NSD.
        mod nsd {
            killed! { @ Nsd $($name => $run($($argument),*);)* }
        }
        /// Knot.
        mod knot {
            killed! { @ Knot $($name => $run($($argument),*);)* }
        }
    };
    (@ $kind:ident $($name:ident => $run:ident($($argument:expr),*);)*) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            use super::*;
            let kind = ServerKind::$kind;
            if here(&format!("{kind:?}: {}", stringify!($name)), tools(kind)) {
                $run(kind, $($argument),*).await;
            }
        }
    )*};
}

killed! {
    killed_with_a_candidate => killed_while_writing("check", false);
    killed_with_a_checked_candidate => killed_while_writing("check", true);
    killed_before_the_reload => killed_while_writing("reload", false);
    killed_after_the_reload => killed_while_writing("reload", true);
    killed_before_the_zone_is_added => killed_while_writing("add", false);
    killed_after_the_zone_is_added => killed_while_writing("add", true);
    killed_before_the_zone_is_removed => killed_while_removing(false);
    killed_before_the_file_is_removed => killed_while_removing(true);
    killed_between_link_and_rename => between_link_and_rename();
    killed_after_the_last_good_file_came_back => after_the_last_good_file_came_back();
    a_tool_that_is_missing_is_named_with_its_package => without_its_tools();
}

/// Between steps that run no command there is nothing to kill in: what a kill there leaves is put there.
async fn between_link_and_rename(kind: ServerKind) {
    let case = Case::new(kind).await;
    let (file, new, good) =
        (case.primary.file(ZONE), hidden(&case.primary, "new"), hidden(&case.primary, "good"));
    // The first file: an empty link beside a candidate.
    fs::write(&new, "half").unwrap();
    fs::write(&good, "").unwrap();
    case.converges();
    assert_eq!(files(&case.primary.zones()), ["example.com.zone"]);
    // A change, and nothing to change: in both the old file is in place, and known to be good.
    for address in ["192.0.2.2", "192.0.2.2"] {
        case.scratch.apply(&fleet(address)).await;
        fs::write(&new, "half").unwrap();
        fs::hard_link(&file, &good).unwrap();
        case.converges();
        assert_eq!(case.primary.web1(), [address]);
        assert_eq!(files(&case.primary.zones()), ["example.com.zone"]);
    }
}

/// The new file was not served, the last good one is back, and its reload never came.
async fn after_the_last_good_file_came_back(kind: ServerKind) {
    let mut case = Case::new(kind).await;
    case.converges();
    // NSD adds a zone that it has with success, and then it would be waited for beyond the claim's end.
    case.good = with(&case.good, "add", &[]);
    case.scratch.apply(&fleet("192.0.2.2")).await;
    // The first time it fails, the second time it kills.
    let mark = case.scratch.path().join("mark").display().to_string();
    let script = "test -e \"$0\" && kill -9 $PPID; touch \"$0\"; exit 1";
    case.dies("reload", &["sh", "-c", script, &mark].map(str::to_owned));
    assert!(fs::read_to_string(case.primary.file(ZONE)).unwrap().contains("192.0.2.1"));
    case.converges();
    assert_eq!(case.primary.web1(), ["192.0.2.2"]);
    assert_eq!(files(&case.primary.zones()), ["example.com.zone"]);
}

fn hidden(primary: &Primary, end: &str) -> PathBuf {
    primary.zones().join(format!(".{ZONE}.zone.{end}"))
}

/// A small file system of its own; gone when dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        let options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(at).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(at))
    }

    fn grow(&self) {
        let options = ["-o", "remount,size=4m"];
        assert!(Command::new("mount").args(options).arg(self.0).status().unwrap().success());
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // A lazy one, so that whatever still has a file open is no obstacle.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_the_old_file_stays() {
    if !here("on_a_full_disk_the_old_file_stays", &["named", "rndc", "named-checkzone", "dig", "mount"]) {
        return;
    }
    let case = Case::new(ServerKind::Bind).await;
    let zones = case.primary.zones();
    let Some(disk) = Disk::mount(&zones) else {
        println!("SKIPPED: on_a_full_disk_the_old_file_stays: no file system may be mounted here");
        return;
    };
    case.converges();
    let before = fs::read_to_string(case.primary.file(ZONE)).unwrap();
    let record = |n: u8| format!("{{name: x{n}, type: TXT, data: '{}'}}", "x".repeat(5_000));
    let statics = format!("static: [{}]", (0..20).map(record).collect::<Vec<_>>().join(", "));
    let large = fleet("192.0.2.2")
        .replace("{soa: {primary: web1}}", &format!("{{soa: {{primary: web1}}, {statics}}}"));
    case.scratch.apply(&large).await;
    case.configure(&case.good);
    let (code, said) = case.scratch.run(&["--once"]);
    assert!(code == 1 && said.contains("No space left on device"), "{code} {said}");
    assert!(case.scratch.status().await.contains("No space left on device"));
    assert_eq!(
        (fs::read_to_string(case.primary.file(ZONE)).unwrap(), files(&zones)),
        (before, vec!["example.com.zone".to_owned()])
    );
    assert_eq!(case.primary.web1(), ["192.0.2.1"]);
    disk.grow();
    case.converges();
    assert_eq!(case.primary.web1(), ["192.0.2.2"]);
}

/// A tool that is missing is named with its package.
async fn without_its_tools(kind: ServerKind) {
    let case = Case::new(kind).await;
    let nowhere = case.scratch.path().join("nowhere");
    let (server, found) = match kind {
        ServerKind::Bind => ("BIND", [("named-checkzone", "bind9-utils"), ("rndc", "bind9-utils")]),
        ServerKind::Nsd => ("NSD", [("nsd-checkzone", "nsd"), ("nsd-control", "nsd")]),
        ServerKind::Knot => ("Knot", [("kzonecheck", "knot-dnssecutils"), ("knotc", "knot")]),
    };
    for (field, (tool, package)) in ["check", "reload"].into_iter().zip(found) {
        let command = [nowhere.join(tool).display().to_string(), "{zone}".to_owned()];
        case.configure(&with(&with(&case.good, field, &command), "add", &[]));
        let (code, said) = case.scratch.run(&["--once"]);
        let why = format!(
            "{tool} is not installed: it comes with {server}, on Debian and Ubuntu in the package {package}"
        );
        assert!(code == 1 && said.contains(&why), "{code} {said}");
    }
    case.converges();
    assert_eq!(files(&case.primary.zones()), ["example.com.zone"]);
}
