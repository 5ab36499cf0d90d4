//! Server and agent are killed at random while the fleet changes; the end is as if it had been made in one go. Everything
//! that is said, and all that the agent does, goes through that server.
//!
//! The guard is on. What piles up while the agent is dead may be more than it lets through; somebody then looks at what is
//! held and agrees to exactly that, and now and then so much is changed at once that this must happen.

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
use shoal_tests::wait;

/// How often something is killed; half as often again where there is more time (`SHOAL_LONG`).
fn kills() -> u32 {
    if std::env::var_os("SHOAL_LONG").is_some_and(|long| !long.is_empty()) { 150 } else { 100 }
}

/// After so many kills everything is changed at once.
const UPHEAVAL: u32 = 25;

/// More hosts than these do not come.
const CROWD: usize = 60;

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
    let began = Instant::now();
    let mut chaos = Chaos::new(seed)?;
    for n in 1.. {
        if chaos.kills >= kills() {
            break;
        }
        chaos.live_and_kill()?;
        if n % UPHEAVAL == 0 {
            chaos.upheaval()?;
        }
    }
    let mut swarm = chaos.swarm;
    swarm.server_answers()?;
    let agreed = chaos.agreed + swarm.converged_with_consent()?;
    println!(
        "{} kills ({} of the server), {} changes, agreed to {agreed} times, in {:?}",
        chaos.kills,
        chaos.server_kills,
        chaos.changes,
        began.elapsed()
    );
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

/// A swarm, and those who change its fleet and kill its processes.
struct Chaos {
    swarm: Swarm,
    random: StdRng,
    /// Hosts that came and are still there.
    fleet: Vec<String>,
    next: u32,
    kills: u32,
    /// How many of them met the server.
    server_kills: u32,
    changes: u32,
    /// How often somebody agreed to what was held.
    agreed: u32,
}

impl Chaos {
    /// The example fleet, served.
    fn new(seed: u64) -> Result<Self> {
        let dir = repository().join("deploy/example");
        let mut swarm = Swarm::new(&ZONES.map(str::to_owned).into())?;
        swarm.start_server()?;
        swarm.start_agent()?;
        let files = ["hosts.yaml", "tags.yaml", "dns.yaml"].map(|file| dir.join(file).display().to_string());
        swarm.shoal(&[
            "apply",
            "-f",
            &files[0],
            "-f",
            &files[1],
            "-f",
            &files[2],
            "-m",
            "the example fleet",
        ])?;
        swarm.converged()?;
        let random = StdRng::seed_from_u64(seed);
        Ok(Self {
            swarm,
            random,
            fleet: Vec::new(),
            next: 0,
            kills: 0,
            server_kills: 0,
            changes: 0,
            agreed: 0,
        })
    }

    /// The fleet changes for a while; then the server or the agent is killed and started again.
    fn live_and_kill(&mut self) -> Result<()> {
        // An agent that follows a killed one first waits its claim out: some live longer than that, some do not.
        let (agent, began) = (self.random.random_bool(0.4), Instant::now());
        let life = Duration::from_millis(self.random.random_range(0..if agent { 2000 } else { 200 }));
        while {
            self.change()?;
            began.elapsed() < life
        } {
            self.pause(250);
        }
        if agent {
            self.agreed += self.swarm.approve()?;
            self.kill_agent()?;
            return self.swarm.start_agent();
        }
        // In the middle of what is said to it and of what the agent asks; now and then after it.
        let within = Duration::from_millis(self.random.random_range(0..150));
        self.swarm.server_blinks(within)?;
        self.change()?;
        self.kills += 1;
        self.server_kills += 1;
        self.swarm.server_is_back()
    }

    fn kill_agent(&mut self) -> Result<()> {
        self.swarm.agent_lives()?;
        self.swarm.kill_agent();
        self.kills += 1;
        Ok(())
    }

    fn pause(&mut self, most: u64) {
        std::thread::sleep(Duration::from_millis(self.random.random_range(0..most)));
    }

    /// Everybody gets another address while the agent is dead. That is too much to go without asking; the agent holds it,
    /// also after it was killed once more, until somebody agrees, and is killed while it does what was agreed to.
    fn upheaval(&mut self) -> Result<()> {
        while self.fleet.len() < CROWD / 2 {
            self.arrival()?;
        }
        let begin = self.random.random_range(0..80);
        self.everybody_moves(begin)?;
        self.agreed += self.swarm.converged_with_consent()?;
        self.kill_agent()?;
        self.everybody_moves(begin + 37)?;
        for _ in 0..2 {
            self.swarm.start_agent()?;
            let swarm = &self.swarm;
            wait::until("a hold", wait::PATIENCE, || {
                let held = swarm.held()?;
                ensure!(held.contains_key("example.com"), "held is {held:?}");
                Ok(())
            })?;
            self.kill_agent()?;
        }
        self.swarm.start_agent()?;
        let (swarm, mut agreed) = (&self.swarm, 0);
        wait::until("something to agree to", wait::PATIENCE, || {
            agreed += swarm.approve()?;
            ensure!(agreed > 0, "nothing is held");
            Ok(())
        })?;
        self.agreed += agreed;
        self.pause(300);
        self.kill_agent()?;
        self.swarm.start_agent()
    }

    /// One commit in which every host of ours is active and has an address of its own.
    fn everybody_moves(&mut self, by: usize) -> Result<()> {
        let host = |(n, name): (usize, &String)| {
            let address = 20 + (n + by) % 80;
            format!("host: {name}\nstate: active\ndocument: {{address: 203.0.113.{address}}}\n")
        };
        let text: Vec<String> = self.fleet.iter().enumerate().map(host).collect();
        let file = self.swarm.dir().join("moves.yaml");
        std::fs::write(&file, text.join("---\n"))?;
        self.changes += 1;
        self.swarm.shoal(&["apply", "-f", &file.display().to_string(), "-m", "everybody moves"])?;
        Ok(())
    }

    /// A host comes.
    fn arrival(&mut self) -> Result<()> {
        self.next += 1;
        let name = format!("chaos{}.nyc.example.com", self.next);
        let address = self.address();
        self.swarm.shoal(&["put", &format!("hosts/{name}"), &address, "-m", "one more"])?;
        self.swarm.shoal(&["tag", "tags/nyc", &format!("+{name}"), "-m", "where it is"])?;
        self.fleet.push(name);
        Ok(())
    }

    fn address(&mut self) -> String {
        format!("address=203.0.113.{}", self.random.random_range(100..250))
    }

    /// One change that people make: a host comes, moves to another address, gets another name, joins or leaves a tag, drains, goes.
    fn change(&mut self) -> Result<()> {
        self.changes += 1;
        let kind = match self.fleet.len() {
            0..4 => 0,
            CROWD.. => 6,
            _ => self.random.random_range(0..7),
        };
        if kind < 2 {
            return self.arrival();
        }
        let at = self.random.random_range(0..self.fleet.len());
        let host = format!("hosts/{}", self.fleet[at]);
        match kind {
            2 => {
                let address = self.address();
                self.swarm.shoal(&["put", &host, &address, "-m", "another address"])?;
            }
            3 => {
                self.next += 1;
                let name = format!("moved{}.nyc.example.com", self.next);
                self.swarm.shoal(&["mv", &host, &format!("hosts/{name}"), "-m", "another name"])?;
                self.fleet[at] = name;
            }
            4 => {
                let serves = format!("+{}", self.fleet[at]);
                self.swarm.shoal(&["tag", "dns/www", &serves, "-m", "it serves"])?;
            }
            5 => {
                let state = ["active", "draining", "retired", "failed"][self.random.random_range(0..4)];
                self.swarm.shoal(&["put", &host, "--state", state, "-m", "its life"])?;
            }
            _ => {
                self.fleet.swap_remove(at);
                self.swarm.shoal(&["rm", &host, "-m", "gone"])?;
            }
        }
        Ok(())
    }
}

/// A seed that no other run has.
fn by_chance() -> u64 {
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::from(now.subsec_nanos()) << 20 | u64::from(std::process::id())
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
