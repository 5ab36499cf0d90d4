//! Server and agent are killed at random while the fleet changes; the end is as if it had been made in one go.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use shoal_tests::binaries::binary;
use shoal_tests::bind::Bind;
use shoal_tests::process::output;
use shoal_tests::swarm::{Swarm, repository};

/// How often something is killed; half as often again where time does not matter (`SHOAL_LONG`).
fn kills() -> u32 {
    if std::env::var_os("SHOAL_LONG").is_some_and(|long| !long.is_empty()) { 150 } else { 100 }
}

const ZONES: [&str; 6] = [
    "example.com",
    "example.org",
    "2.0.192.in-addr.arpa",
    "100.51.198.in-addr.arpa",
    "113.0.203.in-addr.arpa",
    "8.b.d.0.1.0.0.2.ip6.arpa",
];

#[test]
fn killed_a_hundred_times_it_ends_as_if_made_from_scratch() -> Result<()> {
    if !Bind::is_there() {
        println!("SKIPPED: killed_a_hundred_times_it_ends_as_if_made_from_scratch: BIND is not installed");
        return Ok(());
    }
    let seed = std::env::var("SHOAL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(by_chance);
    println!("SHOAL_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let dir = repository().join("deploy/example");
    let mut swarm = Swarm::new(&ZONES.map(str::to_owned).into())?;
    // Nobody is there to approve what piles up while the agent is dead.
    swarm.without_guard()?;
    swarm.start_server()?;
    swarm.start_agent()?;
    let files = ["hosts.yaml", "tags.yaml", "dns.yaml"].map(|file| dir.join(file).display().to_string());
    swarm.shoal(&["apply", "-f", &files[0], "-f", &files[1], "-f", &files[2], "-m", "the example fleet"])?;
    swarm.converged()?;

    let (mut fleet, mut next) = (Vec::new(), 0);
    for _ in 0..kills() {
        // An agent that follows a killed one first waits its lease out: some live longer than that, some do not.
        let (agent, began) = (random.random_bool(0.4), Instant::now());
        let life = Duration::from_millis(random.random_range(0..if agent { 5000 } else { 200 }));
        while {
            change(&swarm, &mut random, &mut fleet, &mut next)?;
            began.elapsed() < life
        } {
            std::thread::sleep(Duration::from_millis(random.random_range(0..300)));
        }
        if agent {
            swarm.kill_agent();
            swarm.start_agent()?;
        } else {
            swarm.kill_server();
            swarm.start_server()?;
        }
    }
    swarm.server_answers()?;
    swarm.converged()?;
    swarm.answers_for_every_host()?;
    let (broken, clean) = (records(&swarm.zones())?, from_scratch(&swarm)?);
    ensure!(broken.keys().eq(clean.keys()), "other zones: {:?} and {:?}", broken.keys(), clean.keys());
    for (zone, records) in &clean {
        let have = &broken[zone];
        let (more, less): (Vec<_>, Vec<_>) =
            (have.difference(records).collect(), records.difference(have).collect());
        ensure!(more.is_empty() && less.is_empty(), "{zone} has {more:#?} too much and lacks {less:#?}");
    }
    Ok(())
}

/// A seed that no other run has.
fn by_chance() -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::from(now.subsec_nanos()) << 20 | u64::from(std::process::id())
}

/// One change that people make: a host comes, moves to another address, gets another name, joins or leaves a tag, drains, goes.
fn change(swarm: &Swarm, random: &mut StdRng, fleet: &mut Vec<String>, next: &mut u32) -> Result<()> {
    let kind = if fleet.len() < 4 { 0 } else { random.random_range(0..7) };
    let at = if fleet.is_empty() { 0 } else { random.random_range(0..fleet.len()) };
    let address = format!("address=203.0.113.{}", random.random_range(100..250));
    match kind {
        0 | 1 => {
            *next += 1;
            let name = format!("chaos{next}.nyc.example.com");
            swarm.shoal(&["put", &format!("hosts/{name}"), &address, "-m", "one more"])?;
            swarm.shoal(&["tag", "tags/nyc", &format!("+{name}"), "-m", "where it is"])?;
            fleet.push(name);
        }
        2 => {
            drop(swarm.shoal(&[
                "put",
                &format!("hosts/{}", fleet[at]),
                &address,
                "-m",
                "another address",
            ])?);
        }
        3 => {
            *next += 1;
            let name = format!("moved{next}.nyc.example.com");
            swarm.shoal(&[
                "mv",
                &format!("hosts/{}", fleet[at]),
                &format!("hosts/{name}"),
                "-m",
                "another name",
            ])?;
            fleet[at] = name;
        }
        4 => drop(swarm.shoal(&["tag", "dns/www", &format!("+{}", fleet[at]), "-m", "it serves"])?),
        5 => {
            let state = ["active", "draining", "retired", "failed"][random.random_range(0..4)];
            swarm.shoal(&["put", &format!("hosts/{}", fleet[at]), "--state", state, "-m", "its life"])?;
        }
        _ => {
            let gone = fleet.swap_remove(at);
            swarm.shoal(&["rm", &format!("hosts/{gone}"), "-m", "gone"])?;
        }
    }
    Ok(())
}

/// The zones that an agent makes of the same documents in an empty database and an empty folder.
fn from_scratch(swarm: &Swarm) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let dir = swarm.dir().join("scratch");
    let zones = dir.join("zones");
    std::fs::create_dir_all(&zones)?;
    let store = format!("sqlite:{}", dir.join("shoal.db").display());
    let listed: Value = serde_json::from_str(&swarm.shoal(&["get", "tags", "-o", "json"])?)?;
    let names = listed.as_array().context("a list of tags")?.iter().filter_map(|tag| tag["tag"].as_str());
    let each: Vec<&str> = ["get"].into_iter().chain(names).chain(["-o", "json"]).collect();
    let (hosts, tags) =
        (dir.join("hosts.json").display().to_string(), dir.join("tags.json").display().to_string());
    std::fs::write(&hosts, anew(&swarm.shoal(&["get", "hosts", "-o", "json"])?)?)?;
    std::fs::write(&tags, anew(&swarm.shoal(&each)?)?)?;
    let mut apply = Command::new(binary("shoal")?);
    output(
        apply.env("SHOAL_AUTHOR", "tests").args([
            "--store",
            &store,
            "apply",
            "-f",
            &hosts,
            "-f",
            &tags,
            "-m",
            "all at once",
        ]),
        &[0],
    )?;
    let config = dir.join("dns.toml");
    std::fs::write(
        &config,
        format!("[agent.bind]\ndirectory = {zones:?}\nfile = \"{{zone}}\"\nreload = []\n"),
    )?;
    let mut agent = Command::new(binary("shoal-dns")?);
    output(agent.args(["--store", &store, "--once", "--config"]).arg(&config), &[0])?;
    records(&zones)
}

/// Documents as they are written for a database that never had them: without the revision that each was read at.
fn anew(text: &str) -> Result<String> {
    let mut documents: Value = serde_json::from_str(text)?;
    for document in documents.as_array_mut().context("a list of documents")? {
        document.as_object_mut().context("a document")?.remove("revision");
    }
    Ok(documents.to_string())
}

/// The records of each zone file, one a line, without comments and without the serial, which says how often a file was written.
fn records(dir: &Path) -> Result<BTreeMap<String, BTreeSet<String>>> {
    let mut zones = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().context("a name")?.to_string_lossy().into_owned();
        if !ZONES.contains(&name.as_str()) {
            continue;
        }
        let mut text =
            Command::new(shoal_tests::binaries::system("named-compilezone").context("named-compilezone")?);
        let lines = output(text.args(["-q", "-i", "none", "-o", "-", &name]).arg(&path), &[0])?;
        let lines = lines.lines().map(|line| {
            let mut words: Vec<&str> = line.split_whitespace().collect();
            if words.get(3) == Some(&"SOA") {
                words[6] = "SERIAL";
            }
            words.join(" ")
        });
        zones.insert(name, lines.collect());
    }
    Ok(zones)
}
