//! Whole fleets: server, agent and BIND as processes of their own, and `dig` follows what is said to the database.
#![allow(clippy::print_stdout, reason = "what cannot run says so")]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shoal_tests::bind::Bind;
use shoal_tests::process::output;
use shoal_tests::swarm::{Swarm, repository};
use shoal_tests::{binaries, dns, wait};

/// The folder of a real inventory, where there is one.
fn real_fleet() -> Option<PathBuf> {
    let named = std::env::var_os("SHOAL_FLEET").map(PathBuf::from);
    let dir = named.unwrap_or_else(|| repository().join("../shared/data/fedora"));
    dir.join("inventory.json").exists().then_some(dir)
}

fn skipped(test: &str, why: &str) -> Result<()> {
    println!("SKIPPED: {test}: {why}");
    Ok(())
}

/// The zones that a mapping or a file of documents declares: its `dns/…` tags.
fn zones(text: &str) -> BTreeSet<String> {
    let tags = text
        .split(['{', '\n', ','])
        .filter_map(|part| part.trim().trim_start_matches("- ").strip_prefix("tag: dns/"));
    tags.map(|zone| zone.trim().to_owned()).filter(|zone| zone.contains('.')).collect()
}

#[test]
fn the_real_fleet_is_answered_for() -> Result<()> {
    let name = "the_real_fleet_is_answered_for";
    let Some(dir) = real_fleet() else {
        return skipped(name, "no inventory (SHOAL_FLEET names its folder)");
    };
    if !Bind::is_there() {
        return skipped(name, "BIND is not installed");
    }
    let mapping = repository().join("deploy/example/fedora/mapping.yaml");
    let mut swarm = Swarm::new(&zones(&std::fs::read_to_string(&mapping)?))?;
    swarm.start_server()?;
    swarm.server_answers()?;
    swarm.start_agent()?;
    let (inventory, mapping) = (dir.join("inventory.json"), mapping.display().to_string());
    let inventory = inventory.display().to_string();
    let import = ["import", "ansible", &inventory, "--mapping", &mapping];
    swarm.shoal_fine(&[&import[..], &["--plan"]].concat(), &[3])?;
    swarm.shoal(&[&import[..], &["-m", "the real fleet"]].concat())?;
    swarm.converged()?;
    let asked = swarm.answers_for_every_host()?;
    let expected: Value = serde_json::from_str(&std::fs::read_to_string(&inventory)?)?;
    let vars = expected["_meta"]["hostvars"].as_object().context("hostvars")?;
    let addresses: usize = vars
        .values()
        .map(|v| {
            usize::from(v["eth0_ipv4_ip"].is_string() || v["public_ip"].is_string())
                + usize::from(v["eth0_ipv6_ip"].is_string())
        })
        .sum();
    ensure!(asked == addresses, "{asked} addresses asked for, the inventory has {addresses}");

    // Again: nothing to do, and no commit.
    let before = swarm.shoal(&["log", "-n", "1", "-o", "json"])?;
    swarm.shoal(&[&import[..], &["--plan"]].concat())?;
    swarm.shoal(&[&import[..], &["-m", "again"]].concat())?;
    ensure!(before == swarm.shoal(&["log", "-n", "1", "-o", "json"])?, "a second import made a commit");
    follows(&mut swarm, "fedoraproject.org")
}

#[test]
fn the_example_fleet_is_answered_for() -> Result<()> {
    if !Bind::is_there() {
        return skipped("the_example_fleet_is_answered_for", "BIND is not installed");
    }
    let mut swarm = example()?;
    ensure!(swarm.answers_for_every_host()? >= 40);
    follows(&mut swarm, "example.com")
}

/// `tests/fleet` on the small example makes zones that BIND takes, and says which; with a mapping that makes none, it says that.
#[test]
fn the_script_makes_files_of_an_inventory() -> Result<()> {
    let Some(check) = binaries::system("named-checkzone") else {
        return skipped("the_script_makes_files_of_an_inventory", "named-checkzone is not installed");
    };
    let example = repository().join("deploy/example/ansible");
    let dir = tempfile::Builder::new().prefix("shoal-fleet-").tempdir()?;
    let run = |mapping: &Path, out: &str| {
        let out = dir.path().join(out);
        script(&example, mapping, &out).map(|said| (out, said))
    };
    let mapping = example.join("mapping.yaml");
    let declared = zones(&std::fs::read_to_string(&mapping)?);
    // The second time it changes what changed: nothing.
    for _ in 0..2 {
        let (out, said) = run(&mapping, "made")?;
        let made: BTreeSet<String> = std::fs::read_dir(out.join("zones"))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<_>>()?;
        ensure!(!made.is_empty() && made.is_superset(&declared), "{made:?}, declared are {declared:?}");
        for zone in &made {
            output(Command::new(&check).args(["-i", "local", zone]).arg(out.join("zones").join(zone)), &[0])?;
            ensure!(said.contains(&format!("zones/{zone} ")), "{zone} is not in {said}");
        }
        for folder in ["haproxy", "nginx/pools"] {
            let made = pools(&out.join(folder))?;
            ensure!(made == [("web".to_owned(), 2)], "{folder}: {made:?}");
        }
        for part in [
            "haproxy/web.cfg ",
            "nginx/pools/web.http ",
            "there is no host web3.example.com; left out",
            "backend stats is not there",
        ] {
            ensure!(said.contains(part), "{part:?} is not in {said}");
        }
    }
    let none = dir.path().join("none.yaml");
    std::fs::write(&none, "name: fleet\n")?;
    let (_, said) = run(&none, "nothing")?;
    ensure!(said.contains("zones/: nothing"), "{said}");
    Ok(())
}

/// Runs `tests/fleet`: what it prints.
fn script(inventory: &Path, mapping: &Path, out: &Path) -> Result<String> {
    let mut script = Command::new(repository().join("tests/fleet"));
    script.arg("--inventory").arg(inventory.join("inventory.json")).arg("--mapping").arg(mapping);
    output(script.arg("--out").arg(out).env_remove("SHOAL_STORE"), &[0])
}

/// The pools that stand in a folder that `tests/fleet` made, each with the number of its servers.
fn pools(folder: &Path) -> Result<Vec<(String, usize)>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().context("a name")?.to_string_lossy().into_owned();
        if path.extension().is_some_and(|end| ["cfg", "http", "stream"].iter().any(|one| end == *one)) {
            // With what it was made from: the server that stands where there is none has nothing.
            let servers =
                |line: &&str| line.trim_start().starts_with("server ") && line.contains(" # shoal ");
            all.push((name, std::fs::read_to_string(&path)?.lines().filter(servers).count()));
        }
    }
    all.sort();
    Ok(all)
}

/// nginx's module for streams.
const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// The real pools become files that HAProxy and nginx accept; who is no host of the inventory is reported, and is in none.
#[test]
fn the_real_pools_are_accepted() -> Result<()> {
    let name = "the_real_pools_are_accepted";
    let Some(dir) = real_fleet().filter(|dir| dir.join("haproxy.json").exists()) else {
        return skipped(name, "no haproxy.json beside an inventory (SHOAL_FLEET names its folder)");
    };
    let Some(haproxy) = binaries::system("haproxy") else {
        return skipped(name, "haproxy is not installed");
    };
    let out = tempfile::Builder::new().prefix("shoal-pools-").tempdir()?;
    let mapping = repository().join("deploy/example/fedora/mapping.yaml");
    let said = script(&dir, &mapping, out.path())?;
    let text = |name: &str| std::fs::read_to_string(dir.join(name)).context(name.to_owned());
    let theirs: Value = serde_json::from_str(&text("haproxy.json")?)?;
    let inventory: Value = serde_json::from_str(&text("inventory.json")?)?;
    let is_host = |server: &Value| {
        let name = server["address"].as_str().unwrap_or_default();
        let full =
            if name.contains('.') { name.to_owned() } else { format!("{name}.rdu3.fedoraproject.org") };
        inventory["_meta"]["hostvars"].get(&full).is_some().then_some(full)
    };
    let mut expected = Vec::new();
    for (pool, backend) in theirs["backends"].as_object().context("backends")? {
        let servers = backend["servers"].as_array().context("servers")?;
        let hosts: BTreeSet<String> = servers.iter().filter_map(is_host).collect();
        expected.push((pool.clone(), hosts.len()));
        for server in servers.iter().filter(|server| is_host(server).is_none()) {
            let line = format!("backend {pool}: server {}: ", server["name"].as_str().unwrap_or_default());
            ensure!(said.contains(&line), "{line:?} is not in {said}");
        }
    }
    expected.sort();
    for folder in ["haproxy", "nginx/pools"] {
        let made = pools(&out.path().join(folder))?;
        ensure!(made == expected, "{folder}: {made:?}, expected are {expected:?}");
    }
    if let Some(nginx) = binaries::system("nginx").filter(|_| Path::new(STREAM).exists()) {
        let own = out.path().join("nginx");
        let mut check = Command::new(nginx);
        check.arg("-t").arg("-p").arg(&own).arg("-c").arg(own.join("nginx.conf"));
        output(&mut check, &[0])?;
    } else {
        skipped(&format!("{name} (nginx)"), "nginx or libnginx-mod-stream is not installed")?;
    }
    let mut check = Command::new(haproxy);
    check.args(["-c", "-f"]).arg(out.path().join("haproxy.cfg")).arg("-f").arg(out.path().join("haproxy"));
    output(&mut check, &[0])?;
    Ok(())
}

/// A swarm that serves the example fleet, with agent and command on the file.
fn example() -> Result<Swarm> {
    let dir = repository().join("deploy/example");
    let mut swarm = Swarm::on_the_file(&zones(&std::fs::read_to_string(dir.join("dns.yaml"))?))?;
    swarm.start_server()?;
    swarm.server_answers()?;
    swarm.start_agent()?;
    let files = ["hosts.yaml", "tags.yaml", "dns.yaml"].map(|file| dir.join(file).display().to_string());
    swarm.shoal(&["apply", "-f", &files[0], "-f", &files[1], "-f", &files[2], "-m", "the example fleet"])?;
    swarm.converged()?;
    Ok(swarm)
}

/// Three hosts of a zone that have an IPv4 address, by name.
fn three(swarm: &Swarm, zone: &str) -> Result<Vec<(String, IpAddr)>> {
    let hosts = swarm.hosts()?.into_iter().filter_map(|host| {
        let name = host["host"].as_str()?.to_owned();
        let address = host["document"]["address"].as_str()?.parse().ok()?;
        (name.ends_with(zone) && matches!(host["state"].as_str(), None | Some("active")))
            .then_some((name, address))
    });
    let found: Vec<_> = hosts.take(3).collect();
    ensure!(found.len() == 3, "{zone} has too few hosts: {found:?}");
    Ok(found)
}

/// Retags, renames, drains, retires and deletes; each time the name server says the same as the database.
fn follows(swarm: &mut Swarm, zone: &str) -> Result<()> {
    let hosts = three(swarm, zone)?;
    let (a, b, c) = (&hosts[0], &hosts[1], &hosts[2]);
    let shared = format!("shoal-test.{zone}");

    // Retag: a name of its own for members of a new tag; then another member.
    let document = format!("document={{zone: {zone}, name: shoal-test, ttl: 30}}");
    let file = swarm.dir().join("tag.yaml");
    std::fs::write(
        &file,
        format!("tag: dns/shoal-test\n{}\nmembers: [{}]\n", document.replacen('=', ": ", 1), a.0),
    )?;
    swarm.shoal(&["apply", "-f", &file.display().to_string(), "-m", "one name"])?;
    answers(swarm, &shared, "A", &[a.1.to_string()])?;
    swarm.shoal(&["tag", "dns/shoal-test", &format!("+{}", b.0), "-m", "two"])?;
    answers(swarm, &shared, "A", &[a.1.to_string(), b.1.to_string()])?;
    swarm.shoal(&["tag", "dns/shoal-test", &format!("-{}", a.0), "-m", "one again"])?;
    answers(swarm, &shared, "A", &[b.1.to_string()])?;

    // Rename: the old name goes, the new one and the reverse say so.
    let renamed = format!("renamed-by-a-test.{}", a.0.split_once('.').context("a domain")?.1);
    swarm.shoal(&["mv", &format!("hosts/{}", a.0), &format!("hosts/{renamed}"), "-m", "another name"])?;
    answers(swarm, &renamed, "A", &[a.1.to_string()])?;
    answers(swarm, &a.0, "A", &[])?;
    answers(swarm, &dns::reverse(a.1), "PTR", &[format!("{renamed}.")])?;

    // Drain: it is still there, so it is still answered for. Retire: it is not.
    swarm.shoal(&["put", &format!("hosts/{}", b.0), "--state", "draining", "-m", "drain"])?;
    swarm.converged()?;
    answers(swarm, &b.0, "A", &[b.1.to_string()])?;
    swarm.shoal(&["put", &format!("hosts/{}", b.0), "--state", "retired", "-m", "retire"])?;
    answers(swarm, &b.0, "A", &[])?;
    answers(swarm, &shared, "A", &[])?;

    // Delete.
    swarm.shoal(&["rm", &format!("hosts/{}", c.0), "-m", "gone"])?;
    answers(swarm, &c.0, "A", &[])?;
    answers(swarm, &dns::reverse(c.1), "PTR", &[])?;
    let dug = swarm.bind.dig(&["-x", &a.1.to_string()])?;
    ensure!(dug.trim() == format!("{renamed}."), "dig -x {} says {dug:?}", a.1);

    swarm.converged()?;
    swarm.answers_for_every_host().map(drop)
}

/// Waits until the agent is done, and asserts what the name server then says.
fn answers(swarm: &mut Swarm, name: &str, rtype: &str, expected: &[String]) -> Result<()> {
    swarm.converged()?;
    let expected: BTreeSet<String> = expected.iter().cloned().collect();
    // A reload that was confirmed is visible; one question may still have met the old zone.
    wait::until(&format!("{name} {rtype}"), wait::PATIENCE, || {
        let found = swarm.bind.ask(name, rtype)?;
        ensure!(found == expected, "it says {found:?}, the database says {expected:?}");
        Ok(())
    })
}
