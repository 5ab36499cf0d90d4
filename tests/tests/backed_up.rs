//! A real inventory in front of the backup agent: who is backed up, and which databases are dumped, is what the inventory says.
//!
//! The names are other people's: nothing here talks to them. The agent plans, and runs nothing.
#![allow(clippy::print_stdout, reason = "what cannot run says so")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shoal_tests::process::{Process, output};
use shoal_tests::swarm::repository;
use shoal_tests::wait::PATIENCE;
use shoal_tests::{binaries, wait};

/// What a file that was backed up twice has by now.
const NOW: &str = "what was there\n";

/// How old a good backup may be in a test.
const FRESH: Duration = Duration::from_secs(30);

/// What is to be backed up, read from the inventory alone: a host with a policy, and for policies of databases what is dumped.
fn expected(inventory: &Path) -> Result<BTreeSet<(String, Option<String>)>> {
    let all: Value = serde_json::from_str(&std::fs::read_to_string(inventory)?)?;
    let vars = all["_meta"]["hostvars"].as_object().context("hostvars")?;
    let clients = all["backup_clients"]["hosts"].as_array().context("backup_clients")?;
    let mut found: BTreeSet<_> =
        clients.iter().filter_map(|host| Some((host.as_str()?.to_owned(), None))).collect();
    for (host, vars) in vars {
        let names = vars["dbs_to_backup"].as_array().into_iter().flatten();
        found.extend(names.filter_map(|name| Some((host.clone(), Some(name.as_str()?.to_owned())))));
    }
    Ok(found)
}

#[test]
fn the_backups_of_the_real_fleet_are_planned() -> Result<()> {
    let name = "the_backups_of_the_real_fleet_are_planned";
    let named = std::env::var_os("SHOAL_FLEET").map(PathBuf::from);
    let inventory =
        named.unwrap_or_else(|| repository().join("../shared/data/fedora")).join("inventory.json");
    if !inventory.exists() {
        println!("SKIPPED: {name}: no inventory (SHOAL_FLEET names its folder)");
        return Ok(());
    }
    let expected = expected(&inventory)?;
    ensure!(expected.len() > 40, "the inventory says {} backups", expected.len());
    let dir = tempfile::Builder::new().prefix("shoal-backed-up-").tempdir()?;
    let store = format!("sqlite:{}", dir.path().join("db").display());
    let mapping = repository().join("deploy/example/fedora/mapping.yaml");
    let mut import = Command::new(binaries::binary("shoal")?);
    import.args(["--store", &store, "import", "ansible", "--author", "test"]).arg(&inventory);
    output(import.arg("--mapping").arg(mapping).args(["-m", "the real fleet"]), &[0])?;
    let config = dir.path().join("backup.toml");
    let state = dir.path().join("state");
    std::fs::write(
        &config,
        format!(
            "[agent]\nstate = {state:?}\n[agent.repositories.main]\nurl = \"/nowhere\"\npassword = \"secret:none\"\n"
        ),
    )?;
    let mut plan = Command::new(binaries::binary("shoal-backup")?);
    plan.args(["--store", &store, "--plan", "--output", "json", "--config"]).arg(&config);
    let plan: Value = serde_json::from_str(&output(&mut plan, &[3])?)?;
    ensure!(plan["quarantined"].as_array().is_none_or(Vec::is_empty), "{}", plan["quarantined"]);
    let (mut planned, mut upkeep) = (BTreeSet::new(), 0);
    for step in plan["units"].as_array().into_iter().flatten().flat_map(|unit| unit["steps"].as_array()) {
        for step in step {
            let Some(job) = step["to"]["backup"].as_object() else {
                upkeep += 1;
                continue;
            };
            let host = step["host"].as_str().context("a host")?.to_owned();
            let dumps = job.get("dumps").map(|dumps| &dumps["database"]);
            let name = dumps.and_then(|names| Some(names[0].as_str()?.to_owned()));
            ensure!(name.is_some() || job["paths"] == serde_json::json!(["/etc"]), "{job:?}");
            planned.insert((host, name));
        }
    }
    ensure!(planned == expected, "{:?}", planned.symmetric_difference(&expected).collect::<Vec<_>>());
    ensure!(upkeep == 1 && !state.exists());
    Ok(())
}

#[test]
fn the_command_restores_through_the_agents_program() -> Result<()> {
    if binaries::system("restic").is_none() {
        println!("SKIPPED: the_command_restores_through_the_agents_program: restic is not installed");
        return Ok(());
    }
    let dir = tempfile::Builder::new().prefix("shoal-restored-").tempdir()?;
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("password"), "correct horse\n")?;
    std::fs::create_dir(path("files"))?;
    let config = format!(
        "[secrets]\nrestic = {{ file = {:?} }}\n[agent]\nstate = {:?}\n[agent.repositories.main]\nurl = {:?}\npassword = \"secret:restic\"\n",
        path("password"),
        path("state"),
        path("repo"),
    );
    std::fs::write(path("backup.toml"), config)?;
    let restic = |args: &[&str]| {
        let mut command = Command::new("restic");
        command.arg("-r").arg(path("repo")).arg("--password-file").arg(path("password"));
        // `--time` is in the machine's time zone.
        command.arg("--cache-dir").arg(path("cache")).env("TZ", "UTC");
        output(command.args(args), &[0]).map(drop)
    };
    // As people make one. The agent's own tests begin with one that is made.
    restic(&["init"])?;
    let files = path("files").display().to_string();
    let marks = ["--tag", "shoal", "--tag", "policy:nightly", "--host", "web1.example.com"];
    for (time, text) in [("2025-03-01 12:00:00", "what was there at first\n"), ("2025-03-02 12:00:00", NOW)] {
        std::fs::write(path("files/one file"), text)?;
        restic(&[&["backup", "--time", time][..], &marks[..], &[&*files][..]].concat())?;
    }
    let file = format!("{files}/one file");
    let restore = |at: &[&str], to: &str| -> Result<Command> {
        let mut restore = Command::new(binaries::binary("shoal")?);
        restore.args(["restore", "web1.example.com", &file]).args(at).arg("--to").arg(path(to));
        restore.arg("--config").arg(path("backup.toml"));
        Ok(restore)
    };
    let restored = |to: &str| std::fs::read_to_string(path(to).join(file.trim_start_matches('/')));
    let said = output(&mut restore(&[], "newest")?, &[0])?;
    ensure!(said.contains("nightly") && said.contains("of 2025-03-02 12:00:00Z"), "{said}");
    ensure!(restored("newest")? == NOW);
    // A minute before the second one, and before both.
    let said = output(&mut restore(&["--at", "2025-03-02T13:59:00+02:00"], "first")?, &[0])?;
    ensure!(said.contains("of 2025-03-01 12:00:00Z"), "{said}");
    ensure!(restored("first")? == "what was there at first\n");
    let none = restore(&["--at", "2025-02-28"], "none")?.output()?;
    let said = String::from_utf8_lossy(&none.stderr);
    ensure!(
        none.status.code() == Some(1) && said.contains("none of its snapshots (2) is of 2025-02-28"),
        "{said}"
    );
    ensure!(!path("none").exists());
    Ok(())
}

/// What is older than the policy accepts stands in `shoal status`, with what is wrong, from the moment on that it is so.
#[test]
fn status_shows_what_is_too_old_in_time() -> Result<()> {
    if binaries::system("restic").is_none() {
        println!("SKIPPED: status_shows_what_is_too_old_in_time: restic is not installed");
        return Ok(());
    }
    let dir = tempfile::Builder::new().prefix("shoal-too-old-").tempdir()?;
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("password"), "correct horse\n")?;
    std::fs::create_dir(path("files"))?;
    std::fs::write(path("files/one file"), "what was there\n")?;
    let config = format!(
        "[secrets]\nrestic = {{ file = {:?} }}\n[agent]\nstate = {:?}\nhost = \"web1.example.com\"\n\
         [agent.repositories.main]\nurl = {:?}\npassword = \"secret:restic\"\n",
        path("password"),
        path("state"),
        path("repo"),
    );
    std::fs::write(path("backup.toml"), config)?;
    // Into a repository that is made as people make one, an agent backs up. Its own tests begin with one that is made.
    let mut init = Command::new("restic");
    init.arg("init").arg("-r").arg(path("repo")).arg("--password-file").arg(path("password"));
    output(init.arg("--cache-dir").arg(path("cache")), &[0])?;
    let store = format!("sqlite:{}", path("db").display());
    let change = format!(
        "host: web1.example.com\ndocument: {{}}\n---\ntag: backup/nightly\ndocument:\n  paths: [{:?}]\n  repositories: [main]\n  \
         schedule: {{cron: \"0 1 1 1 *\"}}\n  fresh: {}s\nmembers: [web1.example.com]\n",
        path("files"),
        FRESH.as_secs(),
    );
    std::fs::write(path("change.yaml"), change)?;
    let mut agent = Command::new(binaries::binary("shoal-backup")?);
    agent.args(["--store", &store, "--config"]).arg(path("backup.toml"));
    let _agent = Process::start("shoal-backup", dir.path(), &mut agent)?;
    let shoal = |args: &[&str]| {
        let mut command = Command::new(binaries::binary("shoal")?);
        output(command.args(["--store", &store]).args(args), &[0])
    };
    let change = path("change.yaml").display().to_string();
    shoal(&["apply", "-f", &change, "-m", "a policy", "--author", "test"])?;
    let began = wait::until("it is backed up, and that is told", PATIENCE, || -> Result<Duration> {
        let record = std::fs::read_to_string(path("state/hosts/web1.example.com/nightly@main.json"))?;
        let record: Value = serde_json::from_str(&record)?;
        ensure!(record["told"] == true, "{record}");
        record["main"]["good"].as_u64().map(Duration::from_millis).context("no good one")
    })?;
    let status = || shoal(&["status", "backup"]);
    // Until it is too old there is nothing to be seen of it; a machine that stalls may be late for that.
    wait::until("nothing is wrong", FRESH, || -> Result<()> {
        let status = status()?;
        let old = SystemTime::now().duration_since(UNIX_EPOCH)? > began + FRESH;
        ensure!(old || !status.contains("nightly@main"), "{status}");
        Ok(())
    })?;
    let said = wait::until("it is too old", FRESH + PATIENCE, || -> Result<String> {
        let status = status()?;
        ensure!(status.contains("older than 30s"), "{status}");
        Ok(status)
    })?;
    let late = SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_sub(began + FRESH);
    ensure!(
        said.contains("web1.example.com nightly@main") && said.contains("the last good backup is of"),
        "{said}"
    );
    // By itself, an agent looks at everything every ten minutes.
    ensure!(late < Duration::from_secs(45), "it is shown {late:?} after it was so: {said}");
    Ok(())
}
