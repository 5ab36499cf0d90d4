//! The example as a program of its own: what it does, what it says, and how it exits.

#![allow(clippy::unwrap_used, reason = "a test that cannot set its world up has failed")]

use std::path::Path;
use std::process::{Command, Output};

use shoal_core::{Change, Commit, Document, Revision, Status};
use shoal_store::{ClaimRequest, Store};
use shoal_store_sqlite::SqliteStore;

struct World {
    dir: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("motd")).unwrap();
        let config = format!("[agent]\ndir = {:?}\n", dir.path().join("motd"));
        std::fs::write(dir.path().join("motd.toml"), config).unwrap();
        Self { dir, runtime: tokio::runtime::Runtime::new().unwrap() }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.path("shoal.db").display())
    }

    /// Writes rows; `null` deletes.
    fn commit(&self, rows: &[(&str, serde_json::Value)]) {
        let changes = rows
            .iter()
            .map(|(key, value)| Change {
                key: key.parse().unwrap(),
                value: (!value.is_null()).then(|| Document::from(value.clone())),
                moved: None,
            })
            .collect();
        self.runtime.block_on(async {
            let store = SqliteStore::open(self.path("shoal.db")).await.unwrap();
            let commit = Commit::new("ann", "test", changes);
            store.commit(commit).await.unwrap();
        });
    }

    fn run(&self, args: &[&str]) -> Output {
        self.run_with("motd.toml", args)
    }

    fn run_with(&self, config: &str, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_shoal-example"))
            .args(["--store", &self.url(), "--config"])
            .arg(self.path(config))
            .args(args)
            .output()
            .unwrap()
    }

    fn code(&self, args: &[&str]) -> i32 {
        let output = self.run(args);
        eprintln!("{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.status.code().unwrap()
    }

    /// What it prints, as one text, and its exit code.
    fn says(&self, args: &[&str]) -> (i32, String) {
        self.says_with("motd.toml", args)
    }

    fn says_with(&self, config: &str, args: &[&str]) -> (i32, String) {
        let output = self.run_with(config, args);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&said).into_owned())
    }

    fn head(&self) -> Revision {
        self.runtime.block_on(async {
            SqliteStore::open(self.path("shoal.db")).await.unwrap().head().await.unwrap().revision
        })
    }

    fn reports(&self) -> Vec<Status> {
        self.runtime.block_on(async {
            SqliteStore::open(self.path("shoal.db")).await.unwrap().reports().await.unwrap()
        })
    }

    fn motd(&self, host: &str) -> Option<String> {
        std::fs::read_to_string(self.path("motd").join(host)).ok()
    }
}

fn host(n: u32) -> serde_json::Value {
    serde_json::json!({"id": format!("h{n}"), "state": "active", "document": {}})
}

fn seeded() -> World {
    let world = World::new();
    world.commit(&[
        ("hosts/web1.example.com", host(1)),
        ("hosts/web2.example.com", host(2)),
        ("motd/all", serde_json::json!({"document": {"banner": "be kind"}})),
        ("motd/all/members/web1.example.com", serde_json::json!({})),
        ("motd/all/members/web2.example.com", serde_json::json!({})),
    ]);
    world
}

#[test]
fn once_makes_it_so_and_then_there_is_nothing_to_do() {
    let world = seeded();
    assert_eq!(world.code(&["--plan"]), 3);
    assert_eq!(world.motd("web1.example.com"), None, "a plan writes nothing");
    assert_eq!(world.code(&["--once"]), 0);
    assert_eq!(world.motd("web1.example.com").unwrap(), "web1.example.com: be kind\n");
    let made = |name: &str| Path::new(&world.path("motd")).join(name).metadata().unwrap().modified().unwrap();
    let before = made("web1.example.com");
    assert_eq!(world.code(&["--plan"]), 0);
    assert_eq!(world.code(&["--once"]), 0);
    assert_eq!(made("web1.example.com"), before);
}

#[test]
fn what_changes_follows_and_what_is_foreign_stays() {
    let world = seeded();
    std::fs::write(world.path("motd").join("web2.example.com"), "by hand\n").unwrap();
    assert_eq!(world.code(&["--once"]), 4, "a clash is held");
    assert_eq!(world.motd("web1.example.com").unwrap(), "web1.example.com: be kind\n");
    assert_eq!(world.motd("web2.example.com").unwrap(), "by hand\n");
    world.commit(&[
        ("motd/all/members/web1.example.com", serde_json::Value::Null),
        ("motd/all/members/web2.example.com", serde_json::Value::Null),
    ]);
    assert_eq!(world.code(&["--once"]), 0);
    assert_eq!(world.motd("web1.example.com"), None);
    assert_eq!(world.motd("web2.example.com").unwrap(), "by hand\n");
}

#[test]
fn drift_is_corrected() {
    let world = seeded();
    assert_eq!(world.code(&["--once"]), 0);
    std::fs::write(world.path("motd").join("web1.example.com"), "scribble\n").unwrap();
    let plan = world.run(&["--plan", "--output", "json"]);
    let plan: serde_json::Value = serde_json::from_slice(&plan.stdout).unwrap();
    assert_eq!(plan["units"][0]["steps"][0]["because"], "drift", "{plan}");
    assert_eq!(world.code(&["--once"]), 0);
    assert_eq!(world.motd("web1.example.com").unwrap(), "web1.example.com: be kind\n");
}

#[test]
fn every_exit_code_is_told() {
    let world = seeded();
    assert_eq!(world.code(&["--plan"]), 3, "changes pending");
    assert_eq!(world.code(&["--once"]), 0, "converged");
    assert_eq!(world.code(&["--plan"]), 0, "nothing to do");
    assert_eq!(world.code(&["--plan", "--once"]), 2, "usage");
    std::fs::write(world.path("motd").join("web3.example.com"), "by hand\n").unwrap();
    world.commit(&[
        ("hosts/web3.example.com", host(3)),
        ("motd/all/members/web3.example.com", serde_json::json!({})),
    ]);
    assert_eq!(world.code(&["--once"]), 4, "a clash is held");
    // Somebody else works on the unit.
    world.runtime.block_on(async {
        let store = SqliteStore::open(world.path("shoal.db")).await.unwrap();
        let ttl = Some(std::time::Duration::from_secs(600));
        let want = ClaimRequest { name: "unit/motd/files".into(), of: 1, holder: "another".into(), ttl };
        store.claim(&want).await.unwrap();
    });
    let (code, said) = world.says(&["--once"]);
    assert!(code == 5 && said.contains("another instance works on it"), "still waiting: {code}: {said}");
    // A plan asks nobody.
    assert_eq!(world.code(&["--plan"]), 4, "all that is left is held");
    std::fs::remove_dir_all(world.path("motd")).unwrap();
    let (code, said) = world.says(&["--plan"]);
    assert!(code == 1 && said.contains("look into"), "failed: {code}: {said}");
}

#[test]
fn what_never_answers_is_named_and_not_waited_for_without_end() {
    let world = seeded();
    // Nobody ever writes into it, so reading it does not end.
    let pipe = world.path("motd").join("web1.example.com");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for mode in ["--plan", "--once"] {
        let begun = std::time::Instant::now();
        let (code, said) = world.says(&[mode, "--wait", "5s"]);
        assert!(
            code == 5 && said.contains("look at files") && said.contains("--wait"),
            "{mode}: {code}: {said}"
        );
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{mode}: {:?}", begun.elapsed());
    }
}

#[test]
fn a_preview_tells_and_writes_nothing() {
    let world = seeded();
    assert_eq!(world.code(&["--once"]), 0);
    let before = world.head();
    let change = "host: web3.example.com\n---\ntag: motd/all\ndocument: {banner: be brief}\n\
                  members: [web2.example.com, web3.example.com]\n";
    std::fs::write(world.path("change.yaml"), change).unwrap();
    let file = world.path("change.yaml").display().to_string();
    let (code, said) = world.says(&["--preview", &file]);
    let lines = ["- files web1.example.com", "~ files web2.example.com", "+ files web3.example.com"];
    assert!(code == 3 && lines.iter().all(|line| said.contains(line)), "{code}: {said}");
    let output = world.run(&["--preview", &file, "--output", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["wishes"].as_array().unwrap().len(), 3, "{json}");
    assert_eq!((world.head(), world.motd("web3.example.com")), (before, None), "nothing is written");
    std::fs::write(world.path("change.yaml"), "host: web3.example.com\n").unwrap();
    assert_eq!(world.code(&["--preview", &file]), 0, "nobody wants anything of it");
    // What a listing prints.
    std::fs::write(world.path("change.yaml"), "- host: web3.example.com\n- edit: delete\n  key: motd/all\n")
        .unwrap();
    let (code, said) = world.says(&["--preview", &file]);
    assert!(code == 3 && said.contains("- files web1.example.com"), "{code}: {said}");
    std::fs::write(world.path("change.yaml"), "host: web3.example.com\nstat: active\n").unwrap();
    let (code, said) = world.says(&["--preview", &file]);
    assert!(code == 2 && said.contains("change.yaml") && said.contains("stat"), "{code}: {said}");
}

#[test]
fn a_tag_selects_the_units_that_it_feeds() {
    let world = seeded();
    let (code, said) = world.says(&["--plan", "--tag", "other"]);
    assert!(code == 2 && said.contains("no such tag") && said.contains("shoal get motd/`"), "{code}: {said}");
    world.commit(&[("motd/other", serde_json::json!({"document": {"banner": "be brief"}}))]);
    for (tag, code) in [("all", 3), ("motd/all", 3), ("motd/other", 0), ("no tag", 2)] {
        assert_eq!(world.code(&["--plan", "--tag", tag]), code, "{tag}");
    }
    assert_eq!(world.code(&["--once", "--tag", "other"]), 0);
    assert_eq!(world.motd("web1.example.com"), None);
    assert_eq!(world.code(&["--once", "--tag", "other", "--tag", "all"]), 0);
    assert!(world.motd("web1.example.com").is_some());
}

#[test]
fn a_mass_change_is_held_unless_its_share_is_allowed() {
    let world = seeded();
    let names: Vec<String> = (3..=20).map(|n| format!("web{n}.example.com")).collect();
    for (n, name) in names.iter().enumerate() {
        let member = format!("motd/all/members/{name}");
        let row = host(100 + u32::try_from(n).unwrap());
        world.commit(&[(&format!("hosts/{name}"), row), (&member, serde_json::json!({}))]);
    }
    assert_eq!(world.code(&["--once"]), 0);
    world.commit(&[("motd/all", serde_json::json!({"document": {"banner": "be quick"}}))]);
    let (code, said) = world.says(&["--plan"]);
    assert!(code == 4 && said.contains("agree with digest"), "{code}: {said}");
    // Why it is held is said once, and not of each of its items, nor in the log, too.
    assert_eq!(said.matches("it would change").count(), 1, "{said}");
    assert_eq!(said.matches(" not now: held, see below\n").count(), 20, "{said}");
    let (code, said) = world.says(&["--once"]);
    assert!(code == 4 && said.contains("shoal approve"), "{code}: {said}");
    assert!(said.matches("it would change").count() <= 2 && !said.contains("item=\"\""), "{said}");
    assert!(world.motd("web3.example.com").unwrap().contains("be kind"));
    assert_eq!(world.code(&["--once", "--max-change", "500%"]), 2);
    assert_eq!(world.code(&["--once", "--max-change", "100%"]), 0);
    assert!(world.motd("web3.example.com").unwrap().contains("be quick"));
}

#[test]
fn its_name_is_in_its_reports() {
    let world = seeded();
    assert_eq!(world.code(&["--once", "--name", "node7"]), 0);
    let reports = world.reports();
    assert!(reports.iter().any(|report| report.instance.starts_with("node7/")), "{reports:?}");
}

#[test]
fn without_a_configuration_it_says_which_file_and_what_to_write() {
    let world = seeded();
    let output = Command::new(env!("CARGO_BIN_EXE_shoal-example"))
        .args(["--store", &world.url(), "--plan"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let wanted = ["/etc/shoal/example.toml", "[agent]\n", "dir = "];
    assert!(output.status.code() == Some(2) && wanted.iter().all(|text| said.contains(text)), "{said}");
}

#[test]
fn a_host_selects_the_units_that_it_feeds_and_self_is_this_machine() {
    let world = seeded();
    let node = Command::new("uname").arg("-n").output().unwrap().stdout;
    let node = String::from_utf8(node).unwrap().trim().to_lowercase();
    let alike = format!("{}.elsewhere.example.com", node.split('.').next().unwrap());
    world.commit(&[(&format!("hosts/{alike}"), host(9)), ("hosts/idle.example.com", host(8))]);
    let (code, said) = world.says(&["--plan", "--host", "self"]);
    assert!(code == 2 && said.contains(&node) && said.contains(&format!("--host {alike}")), "{code}: {said}");
    let (code, said) = world.says(&["--once", "--host", "web9.example.com"]);
    assert!(code == 2 && said.contains("no host web9.example.com"), "{code}: {said}");
    assert_eq!(world.code(&["--plan", "--host", "no host"]), 2);
    // One that feeds no unit leaves all of them alone.
    assert_eq!(world.code(&["--once", "--host", "idle.example.com"]), 0);
    assert_eq!(world.motd("web1.example.com"), None);
    world.commit(&[
        (&format!("hosts/{node}"), host(10)),
        (&format!("motd/all/members/{node}"), serde_json::json!({})),
    ]);
    // The unit is taken whole, or the other hosts' files would be taken for gone.
    assert_eq!(world.code(&["--once", "--host", "self"]), 0);
    assert!(world.motd(&node).is_some() && world.motd("web1.example.com").is_some());
}

#[test]
fn what_was_made_since_the_backup_stays_until_a_person_agrees() {
    let world = seeded();
    assert_eq!(world.code(&["--once"]), 0);
    let (db, copy) = (world.path("shoal.db"), world.path("copy.db"));
    shoal_store_sqlite::backup(&db, &copy).unwrap();
    world.commit(&[
        ("motd/all", serde_json::json!({"document": {"banner": "be brief"}})),
        ("motd/all/members/web2.example.com", serde_json::Value::Null),
        ("hosts/web3.example.com", host(3)),
        ("motd/all/members/web3.example.com", serde_json::json!({})),
    ]);
    assert_eq!(world.code(&["--once"]), 0);
    let made = |world: &World| ["web1", "web2", "web3"].map(|n| world.motd(&format!("{n}.example.com")));
    let before = made(&world);
    let restored = shoal_store_sqlite::restore(&copy, &db, true).unwrap();
    let (code, said) = world.says(&["--once"]);
    assert!(code == 4 && said.contains("restored"), "{code}: {said}");
    assert_eq!(made(&world), before, "nobody agreed to anything");
    let digest = format!("{:016x}", restored.head.epoch.0);
    world.commit(&[("approvals/motd", serde_json::json!({"digest": digest}))]);
    assert_eq!(world.code(&["--once"]), 0);
    let [one, two, three] = made(&world);
    assert_eq!(one.unwrap(), "web1.example.com: be kind\n");
    assert_eq!(two.unwrap(), "web2.example.com: be kind\n");
    assert_eq!(three, before[2], "the backup knows nothing of it, so it may be anybody's");
}

#[test]
fn started_with_the_configuration_of_another_folder_it_changes_nothing_in_either() {
    let world = seeded();
    let path = |name: &str| world.path(name).display().to_string();
    let one = format!("[agent]\ndir = {:?}\n", world.path("one"));
    std::fs::write(world.path("one.toml"), one).unwrap();
    std::fs::create_dir(world.path("one")).unwrap();
    let theirs = world.path("one").join("web1.example.com");
    std::fs::write(&theirs, "somebody's\n").unwrap();
    let run = |config: &str, mode: &str| world.says_with(config, &[mode]);
    let kept = || std::fs::read_to_string(&theirs).unwrap() == "somebody's\n";
    assert_eq!(run("motd.toml", "--once").0, 0, "the mistake");
    for mode in ["--plan", "--once", "--once"] {
        let (code, said) = run("one.toml", mode);
        assert!(code == 4 && kept(), "{mode} {code}: {said}");
        let (from, to) = (path("motd"), path("one"));
        let told = [format!("location, files in {from}"), format!("for files in {to}")];
        assert!(told.iter().all(|told| said.contains(told)), "{said}");
        assert!(said.contains("shoal approve motd/files"), "{said}");
    }
    let reports = world.reports();
    let hold = reports.iter().find_map(|report| report.units.get("files")?.held.clone()).unwrap();
    assert_eq!((hold.create, hold.update), (1, 1), "what an approval would let go");
    // Nothing was forgotten: with the other one it goes on, to the end.
    world.commit(&[("motd/all/members/web2.example.com", serde_json::Value::Null)]);
    assert_eq!(run("one.toml", "--once").0, 4);
    assert_eq!(run("motd.toml", "--once").0, 0);
    assert_eq!((world.motd("web2.example.com"), kept()), (None, true));
    // Where a person says so, it goes on with the other one.
    assert_eq!(run("one.toml", "--once").0, 4);
    let reports = world.reports();
    let hold = reports.iter().find_map(|report| report.units.get("files")?.held.clone()).unwrap();
    world.commit(&[("approvals/motd/files", serde_json::json!({"digest": hold.digest}))]);
    assert_eq!(run("one.toml", "--once").0, 0);
    assert_eq!(std::fs::read_to_string(&theirs).unwrap(), "web1.example.com: be kind\n");
    assert_eq!(run("motd.toml", "--once").0, 4);
}

#[test]
fn a_mistyped_path_is_told_and_not_filled() {
    let world = seeded();
    let typo = world.path("shaol.db");
    std::fs::write(world.path("change.yaml"), "host: web3.example.com\n").unwrap();
    let change = world.path("change.yaml").display().to_string();
    for mode in [&["--plan"][..], &["--once"], &["--preview", &change]] {
        let output = Command::new(env!("CARGO_BIN_EXE_shoal-example"))
            .args(["--store", &format!("sqlite:{}", typo.display()), "--config"])
            .arg(world.path("motd.toml"))
            .args(mode)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{mode:?}: {said}");
        assert!(said.contains("there is no database at") && said.contains("--store"), "{mode:?}: {said}");
        assert!(!typo.exists(), "{mode:?} made it");
    }
    std::fs::write(&typo, "").unwrap();
    for mode in [&["--plan"][..], &["--once"], &["--preview", &change]] {
        let output = Command::new(env!("CARGO_BIN_EXE_shoal-example"))
            .args(["--store", &format!("sqlite:{}", typo.display()), "--config"])
            .arg(world.path("motd.toml"))
            .args(mode)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(1) && said.contains("not even a database"), "{mode:?}: {said}");
        assert_eq!(std::fs::metadata(&typo).unwrap().len(), 0, "{mode:?} made one of it");
    }
}

#[test]
fn the_program_says_what_it_is_wherever_its_store_is_named() {
    let run = |arg: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_shoal-example"));
        command.args(arg).env("SHOAL_STORE", "sqlite:/nonexistent/shoal.db").output().unwrap()
    };
    let version = run(&["--version"]);
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("shoal-example "), "{version:?}");
    for what in ["man", "bash", "fish", "zsh"] {
        let page = run(&["--generate", what]);
        assert!(
            page.status.success() && String::from_utf8_lossy(&page.stdout).contains("shoal-example"),
            "{page:?}"
        );
    }
    // What was not printed whole is a failure.
    let mut plan = Command::new(env!("CARGO_BIN_EXE_shoal-example"));
    plan.args(["--generate", "man"]).stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(plan.status().unwrap().code(), Some(1));
}
