//! `deploy/up` as a person runs it: it comes up, says what to try, what it says works, and a second start goes on.

#![allow(clippy::print_stdout, reason = "what cannot run says so")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shoal_tests::process::{Process, output};
use shoal_tests::swarm::repository;
use shoal_tests::{binaries, pages, wait};

/// Runs `deploy/up` on this state until it says that it is up.
fn up(state: &Path) -> Result<Process> {
    let mut command = Command::new(repository().join("deploy/up"));
    command.env("SHOAL_STATE", state).env_remove("SHOAL_STORE");
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
    let mut first = up(&state)?;
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

    let mut second = up(&state)?;
    ensure!(shell(&state, www)? == after, "a second start forgot a change");
    ensure!(shell(&state, "echo $dns $http")? == ports, "a second start is elsewhere");
    // The map's example, on what is up.
    for block in pages::blocks(&repository().join("docs/architecture.md"))? {
        pages::run(&format!(". {}/env\n{block}", state.display()), dir.path(), &[])?;
    }
    // What waits for a person does not keep it from coming up: they need it for that.
    shell(&state, "shoal pause dns/www -m 'not now' && shoal tag tags/web -web2.ams.example.com -m 'later'")?;
    stop(&mut second)?;
    let mut third = up(&state)?;
    ensure!(third.tail().contains("something waits for you"), "{}", third.tail());
    stop(&mut third).map(drop)
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
    Ok(())
}

/// What Ctrl-C does; nothing is left behind.
fn stop(up: &mut Process) -> Result<Option<i32>> {
    Ok(up.terminate(wait::PATIENCE)?.code())
}
