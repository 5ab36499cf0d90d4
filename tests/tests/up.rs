//! `deploy/up` as a person runs it: it comes up, says what to try, what it says works, and a second start goes on.

#![allow(clippy::print_stdout, reason = "what cannot run says so")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shoal_tests::process::{Process, output};
use shoal_tests::swarm::repository;
use shoal_tests::{binaries, pages, wait};

/// Runs `deploy/up` on this state, with machines (`yes`) or without (`no`), until it says that it is up.
fn up(state: &Path, machines: &str) -> Result<Process> {
    let mut command = Command::new(repository().join("deploy/up"));
    command.env("SHOAL_STATE", state).env("SHOAL_MACHINES", machines).env_remove("SHOAL_STORE");
    let log = state.with_extension("log");
    let said = || std::fs::read_to_string(&log).unwrap_or_default().matches("Shoal is up").count();
    let before = said();
    let dir = state.parent().context("a folder")?;
    let mut process = Process::start("state", dir, &mut command)?;
    wait::until("deploy/up", Duration::from_secs(900), || {
        if let Err(ended) = process.alive() {
            return Ok(Err(ended));
        }
        ensure!(said() > before, "not up:\n{}", process.tail());
        Ok(Ok(()))
    })??;
    Ok(process)
}

/// Runs a line as somebody would who sourced the file that `deploy/up` names.
fn shell(state: &Path, line: &str) -> Result<String> {
    output(Command::new("bash").args(["-euc", &format!(". {}/env; {line}", state.display())]), &[0])
}

#[test]
fn it_comes_up_and_goes_on() -> Result<()> {
    let missing = ["dig", "curl", "flock"].into_iter().find(|tool| binaries::system(tool).is_none());
    if let Some(tool) = missing {
        println!("SKIPPED: it_comes_up_and_goes_on: {tool} is not installed");
        return Ok(());
    }
    let dir = tempfile::Builder::new().prefix("shoal-up-").tempdir()?;
    let state = dir.path().join("state");
    let www = "dig @127.0.0.1 -p $dns +short www.example.com | sort";
    let mut first = up(&state, "no")?;
    ensure!(said(&state)?.contains("no machines are made: SHOAL_MACHINES=no"), "{}", first.tail());
    let ports = shell(&state, "echo $dns $http")?;
    let before = shell(&state, www)?;
    ensure!(before.lines().count() == 5, "www.example.com is {before:?}");
    let one = before.lines().next().context("an address")?;
    let back = shell(&state, &format!("dig @127.0.0.1 -p $dns +short -x {one}"))?;
    ensure!(back.trim_end().ends_with(".example.com."), "{one} is {back:?}");
    let host =
        shell(&state, "curl -fsS -K $curlrc http://127.0.0.1:$http/api/v2/hosts/web1.ams.example.com")?;
    // Nobody else on this machine gets in, nor reads the token.
    let stranger =
        "curl -sS -o /dev/null -w '%{http_code}' http://127.0.0.1:$http/api/v2/hosts; stat -c ' %a' $curlrc";
    ensure!(shell(&state, stranger)?.trim() == "401 600", "a stranger gets in");
    ensure!(host.contains("web1.ams.example.com"), "{host}");
    shell(&state, "shoal tag tags/web -web1.ams.example.com -m 'web1 is being replaced' && shoal wait")?;
    let after = shell(&state, www)?;
    ensure!(after.lines().count() == 4, "www.example.com is {after:?}");
    // A schema that came after what it is about would not have checked it.
    let since = |key: &str| -> Result<u64> {
        let log = shell(&state, &format!("shoal log -o json {key}"))?;
        let log: Vec<serde_json::Value> = serde_json::from_str(&log).context("a log")?;
        log.last().and_then(|first| first["revision"].as_u64()).context("a first commit")
    };
    let fleet = since("dns/www")?;
    for schema in ["schemas/dns", "schemas/motd"] {
        ensure!(since(schema)? < fleet, "the fleet was committed before {schema}");
    }
    let status = stop(&mut first)?;
    ensure!(status == Some(0), "stopped by a signal, it ended with {status:?}");
    // Nothing that it started keeps the lock from the next one.
    output(Command::new("flock").arg("-n").arg(state.join("lock")).arg("true"), &[0])?;

    let mut second = up(&state, "no")?;
    ensure!(shell(&state, www)? == after, "a second start forgot a change");
    ensure!(shell(&state, "echo $dns $http")? == ports, "a second start is elsewhere");
    // The map's example, on what is up.
    for block in pages::blocks(&repository().join("docs/architecture.md"))? {
        pages::run(&format!(". {}/env\n{block}", state.display()), dir.path(), &[])?;
    }
    // What waits for a person does not keep it from coming up: they need it for that.
    shell(&state, "shoal pause dns/www -m 'not now' && shoal tag tags/web -web2.ams.example.com -m 'later'")?;
    stop(&mut second)?;
    let mut third = up(&state, "no")?;
    ensure!(third.tail().contains("something waits for you"), "{}", third.tail());
    stop(&mut third).map(drop)
}

/// All that `deploy/up` said.
fn said(state: &Path) -> Result<String> {
    std::fs::read_to_string(state.with_extension("log")).context("what it said")
}

/// Removes what a test made with `deploy/up`, however the test ends.
struct Removed<'a>(&'a Path);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let _ = down(self.0);
    }
}

fn down(state: &Path) -> Result<String> {
    output(Command::new(repository().join("deploy/down")).env("SHOAL_STATE", state), &[0])
}

/// Why no machine boots here.
fn no_machines() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it is not root".to_owned());
    }
    let tools = ["systemd-nspawn", "ip", "unshare", "dpkg-query", "dig", "curl", "flock"];
    if let Some(tool) = tools.into_iter().find(|tool| binaries::system(tool).is_none()) {
        return Some(format!("{tool} is not installed"));
    }
    let unshare = Command::new("unshare").args(["--mount", "--net", "true"]).stderr(Stdio::null()).status();
    let may = unshare.is_ok_and(|status| status.success());
    (!may).then(|| "this root may not make namespaces and mounts".to_owned())
}

/// The bridge that the machines are on, as the kernel shows it.
fn bridge(state: &Path) -> Result<PathBuf> {
    let config = std::fs::read_to_string(state.join("vm.toml")).context("the agent's configuration")?;
    let name = config.split_once("bridge = \"").and_then(|(_, rest)| rest.split_once('"'));
    Ok(Path::new("/sys/class/net").join(name.context("a bridge")?.0))
}

/// The network namespaces that a bridge leads to.
fn namespaces(bridge: &Path) -> Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(bridge.join("brif")).context("what is on the bridge")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let of = name.get(2..12).with_context(|| format!("{name} is no machine's"))?;
        all.push(Path::new("/run/netns").join(format!("shoal-vm-{of}")));
    }
    Ok(all)
}

/// How many processes were started for machines of this state.
fn supervisors(state: &Path) -> Result<usize> {
    let begins = format!("--directory={}/vm/machines/", state.display());
    let lines = std::fs::read_dir("/proc")?.flatten().map(|process| process.path().join("cmdline"));
    let lines = lines.filter_map(|line| std::fs::read(line).ok());
    Ok(lines
        .filter(|line| line.split(|octet| *octet == 0).any(|word| word.starts_with(begins.as_bytes())))
        .count())
}

/// As root where systemd-nspawn works, the fleet has machines that boot; stopped, nothing of them runs, and removed, nothing is left.
#[test]
fn machines_boot_and_are_gone_at_the_end() -> Result<()> {
    if let Some(why) = no_machines() {
        println!("SKIPPED: machines_boot_and_are_gone_at_the_end: {why}");
        return Ok(());
    }
    let dir = tempfile::Builder::new().prefix("shoal-up-").tempdir()?;
    let state = dir.path().join("state");
    let _removed = Removed(&state);
    let mut first = up(&state, "yes")?;
    ensure!(!said(&state)?.contains("no machines are made"), "{}", first.tail());
    ensure!(!said(&state)?.contains("not as they should be"), "{}", said(&state)?);
    // Of the whole fleet nothing is left to do, boxes that machines are on included.
    shell(&state, "shoal wait")?;
    // The first tutorial, on what is up: it makes a second machine, and destroys it.
    for block in pages::blocks(&repository().join("docs/tutorials/first.md"))? {
        pages::run(&format!(". {}/env\n{block}", state.display()), dir.path(), &[])?;
    }
    let host = shell(&state, "shoal get demo-1.example.com")?;
    ensure!(host.contains("state: active"), "{host}");
    let bridge = bridge(&state)?;
    let networks = namespaces(&bridge)?;
    ensure!(networks.len() == 1 && networks[0].exists(), "{networks:?}");
    ensure!(supervisors(&state)? == 1, "{} machines run", supervisors(&state)?);
    let stopped = || -> Result<()> {
        ensure!(supervisors(&state)? == 0, "a machine runs still");
        ensure!(!bridge.exists() && !networks[0].exists(), "its network is there still");
        Ok(())
    };
    let status = stop(&mut first)?;
    ensure!(status == Some(0), "stopped by a signal, it ended with {status:?}");
    stopped()?;

    let mut second = up(&state, "yes")?;
    let ask =
        "curl --noproxy '*' -fsS --max-time 5 http://$(dig @127.0.0.1 -p $dns +short demo-1.example.com)/";
    let answer = wait::until("the machine", wait::PATIENCE, || shell(&state, ask))?;
    ensure!(answer.contains("This is demo-1.example.com"), "{answer}");
    shell(&state, "shoal wait")?;
    let refused = down(&state).err().context("it was removed while it ran")?.to_string();
    ensure!(refused.contains("deploy/up runs on"), "{refused}");
    stop(&mut second)?;
    stopped()?;
    down(&state)?;
    ensure!(!state.exists(), "something is left");
    Ok(())
}

/// What is not done is told by its reason; how long one of many looks waited says nothing of how long all waited.
#[test]
fn what_is_lacking_is_told_without_the_time_of_one_look() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("shoal-up-").tempdir()?;
    let log = dir.path().join("wait.log");
    let lacking = |said: &str, how: &str| -> Result<String> {
        std::fs::write(&log, said)?;
        let line = format!(". deploy/lib.sh; lacking {} {how}", log.display());
        output(Command::new("bash").current_dir(repository()).args(["-euo", "pipefail", "-c", &line]), &[0])
    };
    let units = "  placement/placement:\n    a since revision 2: no room\n    b since revision 3: no room\n";
    let said = format!("error: revision 14 is not done after 5 s:\n{units}");
    ensure!(lacking(&said, "")? == "a since revision 2: no room\n", "{}", lacking(&said, "")?);
    let all = lacking(&said, "all")?;
    ensure!(all == format!("error: revision 14 is not done:\n{units}"), "{all}");
    let other = "error: the database cannot be opened\n";
    ensure!(lacking(other, "")? == other, "{}", lacking(other, "")?);
    Ok(())
}

/// What `deploy/down` removes has names that anything may have.
#[test]
fn a_folder_with_something_else_in_it_is_left_alone() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("shoal-up-").tempdir()?;
    let state = dir.path().join("state");
    let mine = state.join("log/mine");
    std::fs::create_dir_all(state.join("log"))?;
    std::fs::write(&mine, "precious")?;
    let mut command = Command::new(repository().join("deploy/up"));
    with_server(&mut command, dir.path(), "#!/bin/sh\n")?;
    let said = output(&mut command, &[0]).err().context("it came up there")?.to_string();
    ensure!(said.contains("something in it that is not from deploy/up"), "{said}");
    let said = down(&state).err().context("it was removed")?.to_string();
    ensure!(said.contains("is not from deploy/up") && mine.exists(), "{said}");
    Ok(())
}

/// Each setting that is read is explained, and what is removed is told.
#[test]
fn both_say_what_they_do() -> Result<()> {
    let ask = |script: &str, word: &str| {
        let mut command = Command::new(repository().join(script));
        output(command.arg(word), &[0])
    };
    let page = std::fs::read_to_string(repository().join("docs/tutorials/first.md"))?;
    let help = ask("deploy/up", "--help")?;
    for setting in ["SHOAL_STATE", "SHOAL_MACHINES", "SHOAL_PROFILE", "SHOAL_BINARIES", "SHOAL_AUTHOR"] {
        ensure!(help.contains(&format!("\n  {setting} ")), "{help}");
        ensure!(page.contains(&format!("\n| `{setting}` | ")), "the page lacks {setting}");
    }
    ensure!(ask("deploy/down", "--help")?.contains("\n  SHOAL_STATE "), "deploy/down");
    for script in ["deploy/up", "deploy/down"] {
        let said = ask(script, "--halp").err().context("it took any word")?.to_string();
        ensure!(said.contains("--help"), "{said}");
    }
    let dir = tempfile::Builder::new().prefix("shoal-up-").tempdir()?;
    let state = dir.path().join("state");
    std::fs::create_dir(&state)?;
    std::fs::write(state.join("lock"), "")?;
    let said = down(&state)?;
    ensure!(said.contains("is removed, ") && !state.exists(), "{said}");
    Ok(())
}

/// A server that runs and does not answer ends it, with what it said last.
#[test]
fn a_server_that_is_silent_is_not_waited_for() -> Result<()> {
    let dir = tempfile::Builder::new().prefix("shoal-up-").tempdir()?;
    let mut command = Command::new(repository().join("deploy/up"));
    with_server(&mut command, dir.path(), "#!/bin/sh\necho I will not listen\nexec sleep 600\n")?;
    let said = output(&mut command, &[0]).err().context("it came up without a server")?.to_string();
    ensure!(said.contains("I will not listen") && said.contains("does not answer"), "{said}");
    ensure!(said.contains("exit status: 1"), "{said}");
    Ok(())
}

/// Ctrl-C reaches the servers too, which end by themselves; that is no failure, also where a script started all of it.
#[test]
fn what_is_stopped_says_so_and_no_more() -> Result<()> {
    let server = "#!/bin/sh\nexec env --default-signal=INT sh -c \
                  'trap \"exit 0\" INT TERM; echo I run; while :; do sleep 0.1; done'\n";
    for start in ["exec \"$0\"", "trap '' INT; exec \"$0\""] {
        let dir = tempfile::Builder::new().prefix("shoal-up-").tempdir()?;
        let mut command = Command::new("bash");
        command.args(["-c", start]).arg(repository().join("deploy/up"));
        with_server(&mut command, dir.path(), server)?;
        let mut process = Process::start("up", dir.path(), &mut command)?;
        let log = dir.path().join("state/log/hostdb.log");
        wait::until("the server", wait::PATIENCE, || {
            let said = std::fs::read_to_string(&log).map_err(|e| e.to_string())?;
            if said.contains("I run") { Ok(()) } else { Err(said) }
        })?;
        output(Command::new("kill").args(["-INT", "--", &format!("-{}", process.id())]), &[0])?;
        let ended = wait::until("the end", wait::PATIENCE, || match process.alive() {
            Ok(()) => Err("it runs"),
            Err(ended) => Ok(ended.to_string()),
        })?;
        ensure!(ended.ends_with("exit status: 0:\nstopping"), "{start}: {ended}");
    }
    Ok(())
}

/// A cargo that builds nothing, a command that says a token, and this for a server.
fn with_server(command: &mut Command, dir: &Path, server: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let command_line = "#!/bin/sh\necho token\n";
    for (name, text) in [
        ("cargo/bin/cargo", "#!/bin/sh\n"),
        ("target/debug/shoal", command_line),
        ("target/debug/shoal-hostdb", server),
    ] {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().context("a folder")?)?;
        std::fs::write(&path, text)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    }
    command.env("SHOAL_STATE", dir.join("state"));
    command.env("CARGO_HOME", dir.join("cargo")).env("CARGO_TARGET_DIR", dir.join("target"));
    command.env_remove("SHOAL_BINARIES");
    Ok(())
}

/// What Ctrl-C does; nothing is left behind.
fn stop(up: &mut Process) -> Result<Option<i32>> {
    Ok(up.terminate(wait::PATIENCE)?.code())
}
