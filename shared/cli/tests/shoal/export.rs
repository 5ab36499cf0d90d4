//! What `shoal export` writes, put to its uses: applied to an empty database, read by git.

use std::path::{Path, PathBuf};
use std::process::Command;

use insta::assert_snapshot;

use crate::fleet::Fleet;
use crate::program::{shoal, text};

#[tokio::test]
async fn what_is_exported_is_restored_equal() {
    let fleet = Fleet::new().await;
    // Names that sort between a tag and its members, facts, a pause, a schema, an approval, an order of fields.
    let docs = "\
tag: dns/web-2
members: [web1.example.com, '@web', 'select: site == ''rdu3''']
---
tag: dns/web.b
owner: net team
expires: 2027-01-31T00:00:00Z
document: {z: 1, a: [1, {b: null}], t: 'no', n: 1.5}
---
edit: write
key: facts/vm/web1.example.com
value: {up: true}
---
edit: write
key: schemas/lb
value: {tag: {type: object}}
---
edit: write
key: approvals/dns/x
value: {digest: '0'}
";
    fleet.ok(&["apply", "-f", &fleet.file("more.yaml", docs), "-m", "more"]).await;
    fleet.ok(&["pause", "web1.example.com", "-m", "disk"]).await;
    let exported = fleet.ok(&["export"]).await;
    assert_snapshot!("export", exported);
    assert!(!exported.contains("approvals/"), "{exported}");
    let other = Fleet::empty();
    other.ok(&["apply", "-f", &other.file("all.yaml", &exported), "-m", "restored"]).await;
    let without_head = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(without_head(&other.ok(&["export"]).await), without_head(&exported));
    // JSON is one list, which is taken as well.
    let json = fleet.ok(&["export", "-o", "json"]).await;
    let third = Fleet::empty();
    third.ok(&["apply", "-f", &third.file("all.json", &json), "-m", "restored"]).await;
    assert_eq!(without_head(&third.ok(&["export"]).await), without_head(&exported));
    assert_eq!(Fleet::empty().ok(&["export", "-o", "json"]).await, "[]\n");
}

#[tokio::test]
async fn some_of_it_or_as_it_was() {
    let fleet = Fleet::new().await;
    fleet.ok(&["put", "web1.example.com", "site=ams1", "-m", "moved"]).await;
    fleet.ok(&["rm", "web2.example.com", "-m", "gone"]).await;
    let then = fleet.ok(&["export", "hosts/", "--revision", "1"]).await;
    assert!(then.contains("site: rdu3") && then.contains("web2.example.com"), "{then}");
    let tag = fleet.ok(&["export", "dns/web", "web1.example.com"]).await;
    assert!(
        tag.contains("tag: dns/web") && tag.contains("- web1.example.com") && tag.contains("site: ams1"),
        "{tag}"
    );
    assert!(!tag.contains("dns/example.com") && !tag.contains("revision: "), "{tag}");
    assert_snapshot!("export_missing", fleet.fails(1, &["export", "lb/"]).await);
}

/// The rows of many pages come out in order, however tags and members lie; nothing is in memory but a page and a tag.
#[tokio::test]
async fn more_than_one_page_is_exported_whole() {
    let fleet = Fleet::empty();
    let mut docs = String::new();
    for n in 0..6_000 {
        docs += &format!("host: h{n:05}.example.com\n---\n");
    }
    let members: Vec<String> = (0..6_000).map(|n| format!("h{n:05}.example.com")).collect();
    for tag in ["t/a", "t/a-b", "t/a-b-c"] {
        docs += &format!("tag: {tag}\nmembers: [{}]\n---\n", members.join(", "));
    }
    fleet.ok(&["apply", "-f", &fleet.file("many.yaml", &docs), "-m", "many"]).await;
    let exported = fleet.ok(&["export"]).await;
    assert_eq!(exported.matches("\nhost: ").count(), 6_000);
    assert_eq!(exported.matches("\n- h").count() + exported.matches("\n  - h").count(), 18_000);
    let other = Fleet::empty();
    other.ok(&["apply", "-f", &other.file("all.yaml", &exported), "-m", "again"]).await;
    let without_head = |text: &str| text.split_once('\n').unwrap().1.to_owned();
    assert_eq!(without_head(&other.ok(&["export"]).await), without_head(&exported));
}

struct Repo {
    dir: tempfile::TempDir,
    store: String,
}

impl Repo {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = format!("sqlite:{}", dir.path().join("shoal.db").display());
        Self { dir, store }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("fleet.git")
    }

    fn shoal(&self, line: &[&str]) -> String {
        let run = shoal(&self.store, line);
        assert!(run.status.success(), "{line:?}: {}", text(&run.stderr));
        text(&run.stdout).to_owned()
    }

    fn export(&self) -> String {
        self.shoal(&["export", "--git", self.path().to_str().unwrap()])
    }

    fn git(&self, line: &[&str]) -> String {
        git(&self.path(), line)
    }
}

fn git(dir: &Path, line: &[&str]) -> String {
    let run = Command::new("git").arg("--git-dir").arg(dir).args(line).output().unwrap();
    assert!(run.status.success(), "{line:?}: {}", text(&run.stderr));
    text(&run.stdout).to_owned()
}

#[test]
fn git_reads_the_history_and_the_next_run_adds_to_it() {
    let repo = Repo::new();
    repo.shoal(&[
        "put",
        "web1.example.com",
        "address=192.0.2.1",
        "note=a long enough text to know it by",
        "-m",
        "first\n\nwith a body",
    ]);
    repo.shoal(&["put", "dns/example.com", "ttl=300", "--member", "web1.example.com", "-m", "a zone"]);
    repo.shoal(&["put", "web2.example.com", "--author", "Bob B. <bob@example.com>", "-m", "second"]);
    assert!(repo.export().contains("3 commits more, up to revision 3"));
    repo.shoal(&["tag", "dns/example.com", "+web2.example.com", "-m", "web2 too"]);
    repo.shoal(&["mv", "web1.example.com", "www.example.com", "-m", "renamed"]);
    repo.shoal(&["rm", "web2.example.com", "-m", "gone"]);
    repo.shoal(&["pause", "dns/example.com", "-m", "wait"]);
    assert!(repo.export().contains("4 commits more, up to revision 7"));
    assert!(repo.export().contains("already"), "nothing is added twice");

    repo.git(&["fsck", "--strict"]);
    let log = repo.git(&["log", "--reverse", "--format=%an <%ae> %s"]);
    assert_eq!(
        log.lines().collect::<Vec<_>>()[..3],
        ["ann <> first", "ann <> a zone", "Bob B. <bob@example.com> second"]
    );
    assert!(repo.git(&["log", "-1", "--format=%B", "HEAD~6"]).contains("with a body\n\nShoal-Revision: 1"));
    // Times are those of the commits.
    let shown: Vec<serde_json::Value> = serde_json::from_str(&repo.shoal(&["log", "-o", "json"])).unwrap();
    let times = repo.git(&["log", "--format=%at"]);
    for (time, entry) in times.lines().zip(&shown) {
        let at: jiff::Timestamp = entry["time"].as_str().unwrap().parse().unwrap();
        assert_eq!(time, at.as_second().to_string());
    }
    // Every file of every revision is what `get` says of it.
    let mut compared = 0;
    for revision in 1..=7_u32 {
        let at = format!("HEAD~{}", 7 - revision);
        for path in repo.git(&["ls-tree", "-r", "--name-only", &at]).lines() {
            let name = path.strip_suffix(".yaml").unwrap();
            let name = name.strip_prefix("hosts/").unwrap_or(name);
            let file = repo.git(&["show", &format!("{at}:{path}")]);
            assert_eq!(
                file,
                repo.shoal(&["get", name, "--revision", &revision.to_string()]),
                "{path} at {revision}"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, 17);
    // What was renamed is seen to be, what was deleted is gone.
    let renamed =
        repo.git(&["log", "--follow", "--name-status", "--format=%s", "--", "hosts/www.example.com.yaml"]);
    assert!(renamed.contains("R0") && renamed.contains("hosts/web1.example.com.yaml"), "{renamed}");
    let files = repo.git(&["ls-tree", "-r", "--name-only", "HEAD"]);
    assert_eq!(files, "dns/example.com.yaml\nhosts/www.example.com.yaml\npauses/tag/dns/example.com.yaml\n");
    // The same history comes to the same commits, in one run or in several.
    let again = repo.dir.path().join("again.git");
    repo.shoal(&["export", "--git", again.to_str().unwrap()]);
    assert_eq!(git(&again, &["rev-parse", "HEAD"]), repo.git(&["rev-parse", "HEAD"]));
    let part = repo.dir.path().join("part.git");
    repo.shoal(&["export", "--revision", "2", "--git", part.to_str().unwrap()]);
    assert_eq!(git(&part, &["rev-parse", "HEAD"]), repo.git(&["rev-parse", "HEAD~5"]));
}

#[test]
fn what_export_did_not_make_is_left_alone() {
    let repo = Repo::new();
    repo.shoal(&["put", "web1.example.com", "-m", "x"]);
    std::fs::create_dir(repo.path()).unwrap();
    let line = ["export", "--git", repo.path().to_str().unwrap()].map(str::to_owned);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    std::fs::write(repo.path().join("mine"), "x").unwrap();
    let refused = shoal(&repo.store, &line);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("left alone"), "{}", text(&refused.stderr));
    assert_eq!(std::fs::read_dir(repo.path()).unwrap().count(), 1);
    // An empty one is taken.
    std::fs::remove_file(repo.path().join("mine")).unwrap();
    repo.export();
    // Somebody else's commit on top is not built upon.
    let tree = repo.git(&["rev-parse", "HEAD^{tree}"]);
    let env = [
        ("GIT_AUTHOR_NAME", "x"),
        ("GIT_AUTHOR_EMAIL", "x"),
        ("GIT_COMMITTER_NAME", "x"),
        ("GIT_COMMITTER_EMAIL", "x"),
    ];
    let args = ["commit-tree", tree.trim(), "-p", "HEAD", "-m", "mine"];
    let made = Command::new("git").arg("--git-dir").arg(repo.path()).args(args).envs(env).output().unwrap();
    repo.git(&["update-ref", "refs/heads/main", text(&made.stdout).trim()]);
    let refused = shoal(&repo.store, &line);
    assert_eq!(refused.status.code(), Some(4));
    assert!(text(&refused.stderr).contains("somebody else wrote it"), "{}", text(&refused.stderr));
    // Neither is another database's history.
    let other = Repo::new();
    other.shoal(&["put", "web1.example.com", "-m", "x"]);
    let refused = shoal(&other.store, &line);
    assert_eq!(refused.status.code(), Some(4));
    assert!(text(&refused.stderr).contains("another life of the database"), "{}", text(&refused.stderr));
}

#[test]
fn a_run_that_is_killed_leaves_whole_commits_and_the_next_goes_on() {
    let repo = Repo::new();
    let docs: String =
        (0..30).map(|n| format!("host: h{n}.example.com\ndocument: {{n: 0}}\n---\n")).collect();
    let file = repo.dir.path().join("fleet.yaml");
    std::fs::write(&file, docs).unwrap();
    repo.shoal(&["apply", "-f", file.to_str().unwrap(), "-m", "fleet"]);
    for n in 1..40 {
        repo.shoal(&["put", "h1.example.com", &format!("n={n}"), "-m", "more"]);
    }
    // A git that dies in the midst of the stream: what it got before is not half a commit.
    let bin = repo.dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let real = String::from_utf8(Command::new("sh").args(["-c", "command -v git"]).output().unwrap().stdout)
        .unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *fast-import*) head -c 9000 | {real} \"$@\" ;; *) exec {real} \"$@\" ;; esac\n",
        real = real.trim()
    );
    std::fs::write(bin.join("git"), script).unwrap();
    std::fs::set_permissions(bin.join("git"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_shoal"))
        .args(["export", "--git", repo.path().to_str().unwrap()])
        .env("SHOAL_STORE", &repo.store)
        .env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()))
        .output()
        .unwrap();
    assert_eq!(run.status.code(), Some(1));
    let said = text(&run.stderr);
    assert!(said.contains("git says") && said.contains("it goes on where it was"), "{said}");
    repo.git(&["fsck", "--strict"]);
    assert!(repo.export().contains("commits more, up to revision 40"));
    repo.git(&["fsck", "--strict"]);
    assert_eq!(repo.git(&["rev-list", "--count", "HEAD"]).trim(), "40");
}
