//! Three instances of the DNS agent share thirty zones while the fleet changes and one after the other is killed, stopped for
//! longer than its lease and resumed, or started again.
//!
//! What is seen: who holds which zone, as the store says, some twenty times a second; and who wrote which zone file when, because
//! each instance's `reload` command writes that down under the instance's own name. Then
//!
//! * what a lost instance held is in other hands within twice the lease, and nothing else changes hands but what levels those
//!   who took it;
//! * who comes is given its share and no more, and in the end nobody holds more than one zone more than another;
//! * fencing numbers rise with every holder, and the store takes nothing under a number that is not the newest;
//! * no file is written by who does not hold its zone, but within the window that the target's page names: an instance that
//!   is stopped between its last look at the clock and the rename, and only once for each stop;
//! * at the end every file is what the database says.
//!
//! `SHOAL_SEED` repeats a run, but for what the machine does with time.

#![allow(clippy::print_stdout, reason = "how long it took is said")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shoal_store::{Claim, LedgerWrite, Store as _, StoreError};
use shoal_store_sqlite::SqliteStore;
use shoal_tests::binaries::binary;
use shoal_tests::process::{Process, output};
use shoal_tests::{ports, wait};

const ZONES: usize = 30;
const NAMES: [&str; 3] = ["a", "b", "c"];
const LEASE: Duration = Duration::from_secs(5);
/// Looking at the store and at the clock takes a moment, and so does starting a shell that writes down the time.
const BLUR: u128 = 400;

/// How often somebody is lost, each time the other way; more often where time does not matter (`SHOAL_LONG`).
fn rounds() -> usize {
    if std::env::var_os("SHOAL_LONG").is_some_and(|long| !long.is_empty()) { 12 } else { 4 }
}

/// Who holds each zone, and under which number.
type Holders = BTreeMap<String, Claim>;

/// What the store said, between two moments.
struct Sample {
    from: u128,
    to: u128,
    held: Holders,
}

fn millis() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()
}

fn held_by<'a>(held: &'a Holders, name: &'a str) -> impl Iterator<Item = &'a String> {
    held.iter().filter(move |(_, claim)| claim.holder.starts_with(&format!("{name}/"))).map(|(zone, _)| zone)
}

/// Asks the store again and again who holds what.
struct Watcher {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Watcher {
    fn start(file: &Path) -> Self {
        let (samples, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (told, stopped, file) = (samples.clone(), stop.clone(), file.to_owned());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let store = SqliteStore::open(file).await.context("the database")?;
                while !stopped.load(Ordering::Relaxed) {
                    let from = millis();
                    let claims = store.claims("unit/dns/").await.context("the claims")?;
                    let zone = |claim: Claim| Some((claim.name.strip_prefix("unit/dns/")?.to_owned(), claim));
                    let held = claims.into_iter().filter_map(zone).collect();
                    let sample = Sample { from, to: millis(), held };
                    told.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                    tokio::time::sleep(Duration::from_millis(40)).await;
                }
                Ok(())
            })
        });
        Self { samples, stop, thread: Some(thread) }
    }

    fn now(&self) -> Holders {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.last().map(|sample| sample.held.clone()).unwrap_or_default()
    }

    /// When the first look since this moment that found it so had ended.
    fn first(&self, since: u128, so: impl Fn(&Holders) -> bool) -> Option<u128> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().find(|sample| sample.from >= since && so(&sample.held)).map(|sample| sample.to)
    }

    fn end(mut self) -> Result<Vec<Sample>> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().ok().context("who watches the claims has panicked")??;
        }
        Ok(std::mem::take(&mut *self.samples.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// A server, instances, and the fleet that they serve.
struct World {
    // Before the folder: fields are dropped in order.
    instances: BTreeMap<&'static str, Process>,
    _server: Process,
    watcher: Watcher,
    store: String,
    /// The last address of each zone.
    fleet: BTreeMap<String, String>,
    random: StdRng,
    changes: u32,
    dir: tempfile::TempDir,
}

impl World {
    fn new(seed: u64) -> Result<Self> {
        let dir =
            tempfile::Builder::new().prefix("shoal-instances-").tempdir().context("a scratch folder")?;
        let at = dir.path().display();
        std::fs::create_dir(dir.path().join("zones")).context("a folder for zones")?;
        let log = "echo \"$(date +%s%3N) $1 $2\" >>\"$3\"\n";
        std::fs::write(dir.path().join("log.sh"), log).context("log.sh")?;
        for name in NAMES {
            let config = format!(
                "name = '{name}'\nclaim = '{}s'\n[agent.bind]\ndirectory = '{at}/zones'\nfile = '{{zone}}'\ncheck = []\n\
                 reload = ['/bin/sh', '{at}/log.sh', '{name}', '{{zone}}', '{at}/writes']\n",
                LEASE.as_secs()
            );
            std::fs::write(dir.path().join(format!("{name}.toml")), config).context("a configuration")?;
        }
        let port = ports::free()?;
        let mut command = Command::new(binary("shoal-hostdb")?);
        command.args([
            "--store",
            &format!("sqlite:{at}/shoal.db"),
            "--listen",
            &format!("127.0.0.1:{port}"),
            "--access",
            "off",
        ]);
        let mut server = Process::start("hostdb", dir.path(), &mut command)?;
        let store = format!("http://127.0.0.1:{port}");
        wait::until("the server", wait::PATIENCE, || {
            server.alive()?;
            output(Command::new(binary("shoal")?).args(["--store", &store, "get", "hosts"]), &[0])
        })?;
        let watcher = Watcher::start(&dir.path().join("shoal.db"));
        let random = StdRng::seed_from_u64(seed);
        let (instances, fleet) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { instances, _server: server, watcher, store, fleet, random, changes: 0, dir })
    }

    fn start(&mut self, name: &'static str) -> Result<()> {
        let mut command = Command::new(binary("shoal-dns")?);
        command.args(["--store", &self.store, "--config"]).arg(self.dir.path().join(format!("{name}.toml")));
        self.instances.insert(name, Process::start(name, self.dir.path(), &mut command)?);
        Ok(())
    }

    fn shoal(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(binary("shoal")?);
        output(command.args(["--store", &self.store]).args(args).env("SHOAL_AUTHOR", "tests"), &[0])
    }

    /// Gives these zones other addresses.
    fn change(&mut self, zones: &[usize]) -> Result<()> {
        let mut yaml = String::new();
        for n in zones {
            let (zone, address) =
                (format!("z{n}.example"), format!("198.51.100.{}", self.random.random_range(1..255)));
            let _ = write!(
                yaml,
                "---\ntag: dns/{zone}\ndocument:\n  soa: {{primary: ns1}}\n  static:\n    - {{name: ns1, type: A, data: 192.0.2.53}}\n    \
                 - {{name: www, type: A, data: {address}}}\n"
            );
            self.fleet.insert(zone, address);
        }
        let file = self.dir.path().join("fleet.yaml");
        std::fs::write(&file, yaml).context("fleet.yaml")?;
        self.shoal(&["apply", "-f", &file.display().to_string(), "-m", "the fleet changes"])?;
        self.changes += 1;
        Ok(())
    }

    fn one_change(&mut self) -> Result<()> {
        let n = self.random.random_range(0..ZONES);
        self.change(&[n])
    }

    /// The fleet goes on changing until this is so; answers how long that took.
    fn until(&mut self, what: &str, most: Duration, so: impl Fn(&Holders) -> bool) -> Result<Duration> {
        let began = Instant::now();
        while !so(&self.watcher.now()) {
            if began.elapsed() > most {
                let held = self.watcher.now();
                let counts = NAMES.map(|name| held_by(&held, name).count());
                bail!("{what}: not within {most:?}; {NAMES:?} hold {counts:?} of {ZONES}");
            }
            self.one_change()?;
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(began.elapsed())
    }

    /// Until all that run hold all zones, evenly.
    fn settle(&mut self) -> Result<Duration> {
        let names: Vec<&str> = self.instances.keys().copied().collect();
        self.even(&names)
    }

    /// Until these hold all zones, evenly.
    fn even(&mut self, names: &[&str]) -> Result<Duration> {
        self.until("an even spread", 20 * LEASE, |held| {
            let counts: Vec<usize> = names.iter().map(|name| held_by(held, name).count()).collect();
            let (least, most) = (counts.iter().min(), counts.iter().max());
            counts.iter().sum::<usize>() == ZONES
                && least.zip(most).is_some_and(|(least, most)| most - least <= 1)
        })
    }
}

/// Zones that another process holds now.
fn moved<'a>(before: &'a Holders, after: &Holders) -> BTreeSet<&'a String> {
    let other =
        |(zone, claim): &(&String, &Claim)| after.get(*zone).is_none_or(|now| now.holder != claim.holder);
    before.iter().filter(other).map(|(zone, _)| zone).collect()
}

#[test]
fn instances_share_the_units_and_take_over_what_one_loses() -> Result<()> {
    let seed =
        std::env::var("SHOAL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| rand::rng().random());
    println!("SHOAL_SEED={seed}");
    let mut world = World::new(seed)?;
    world.start("a")?;
    wait::until("the agent's schema", wait::PATIENCE, || world.shoal(&["get", "schemas/dns"]))?;
    world.change(&(0..ZONES).collect::<Vec<_>>())?;
    world.settle()?;
    for name in &NAMES[1..] {
        let before = world.watcher.now();
        world.start(name)?;
        let took = world.settle()?;
        let after = world.watcher.now();
        let share = ZONES.div_ceil(world.instances.len());
        let moved = moved(&before, &after).len();
        println!(
            "{name} came: {moved} of {ZONES} zones moved within {took:?}, an eighth of a share at a time"
        );
        ensure!(moved <= share, "{moved} zones moved to an instance whose share is {share}");
    }
    let (mut stops, mut least) = (Vec::new(), [Duration::MAX; 2]);
    for round in 0..rounds() {
        let took = lose_one(&mut world, round, &mut stops)?;
        least[round % 2] = least[round % 2].min(took);
    }
    // Who takes over late does so each time, and a machine that stalls does not.
    ensure!(
        least.iter().all(|took| *took < 2 * LEASE),
        "in other hands after {least:?} at best, killed and stopped"
    );
    for _ in 0..rounds() {
        wild(&mut world, &mut stops)?;
    }
    let took = world.settle()?;
    world.shoal(&["wait", "--agent", "dns", "--timeout", "60s"])?;
    let held = world.watcher.now();
    let counts = NAMES.map(|name| held_by(&held, name).count());
    println!(
        "at the end {NAMES:?} hold {counts:?} zones, {took:?} after the last fault; {} changes",
        world.changes
    );
    for (zone, address) in &world.fleet {
        let text = std::fs::read_to_string(world.dir.path().join("zones").join(zone))
            .with_context(|| zone.clone())?;
        ensure!(text.contains(address.as_str()), "{zone} is not at {address}:\n{text}");
    }
    judge(world, &stops)
}

/// One is lost for good measure: killed, or stopped until the others have what it had, evenly. Then it is there again.
/// Answers how long it took until the others had what it had.
fn lose_one(
    world: &mut World,
    round: usize,
    stops: &mut Vec<(&'static str, u128, u128)>,
) -> Result<Duration> {
    let name = NAMES[world.random.random_range(0..NAMES.len())];
    let before = world.watcher.now();
    let had: BTreeSet<&String> = held_by(&before, name).collect();
    let (stopped, from) = (round % 2 == 1, millis());
    if stopped {
        world.instances[name].signal("STOP")?;
    } else {
        world.instances.remove(name);
    }
    let others = |held: &Holders| {
        let living = |claim: &Claim| !claim.holder.starts_with(&format!("{name}/"));
        had.iter().all(|zone| held.get(*zone).is_some_and(living))
    };
    world.until("a hand-over", 8 * LEASE, others)?;
    // From what was seen: who changes the fleet meanwhile looks between two changes only.
    let at = world.watcher.first(from, others).context("nobody saw the hand-over")?;
    let handed = Duration::from_millis(u64::try_from(at.saturating_sub(from))?);
    // Who took more than the other gives some of it up again, or one of its own.
    let living: Vec<&str> = NAMES.into_iter().filter(|other| *other != name).collect();
    world.even(&living)?;
    let after = world.watcher.now();
    let all = moved(&before, &after);
    let level: Vec<_> = all.difference(&had).collect();
    ensure!(level.len() <= had.len(), "{name} was lost with {had:?}, and these moved, too: {level:?}");
    let how = if stopped { "stopped" } else { "killed" };
    println!(
        "{name} was {how} with {} zones: in other hands after {handed:?} (the lease is {LEASE:?})",
        had.len()
    );
    if stopped {
        world.instances[name].signal("CONT")?;
        stops.push((name, from, millis()));
    } else {
        world.start(name)?;
    }
    let took = world.settle()?;
    let back = world.watcher.now();
    let moved = moved(&after, &back).len();
    println!("{name} is back: {moved} zones moved within {took:?}");
    ensure!(moved <= ZONES.div_ceil(NAMES.len()), "{moved} zones moved to an instance that came back");
    Ok(handed)
}

/// Whatever comes: nobody waits for anything.
fn wild(world: &mut World, stops: &mut Vec<(&'static str, u128, u128)>) -> Result<()> {
    let name = NAMES[world.random.random_range(0..NAMES.len())];
    let (stopped, long) = (world.random.random_bool(0.6), world.random.random_range(0..6_000));
    let from = millis();
    if stopped {
        world.instances[name].signal("STOP")?;
    } else {
        world.instances.remove(name);
    }
    while millis() - from < long {
        world.one_change()?;
    }
    if stopped {
        world.instances[name].signal("CONT")?;
        stops.push((name, from, millis()));
        Ok(())
    } else {
        world.start(name)
    }
}

/// Of all that was seen: numbers rise, nothing is taken under an old one, and nobody wrote what was not its own.
fn judge(mut world: World, stops: &[(&'static str, u128, u128)]) -> Result<()> {
    world.instances.clear();
    let writes = std::fs::read_to_string(world.dir.path().join("writes")).context("what was written")?;
    let file = world.dir.path().join("shoal.db");
    let samples = world.watcher.end()?;
    let mut newest: BTreeMap<&String, &Claim> = BTreeMap::new();
    let mut old: Vec<&Claim> = Vec::new();
    for (zone, claim) in samples.iter().flat_map(|sample| &sample.held) {
        if let Some(last) = newest.insert(zone, claim).filter(|last| last.number != claim.number) {
            ensure!(last.number < claim.number, "{zone}: {claim:?} came after {last:?}");
            old.push(last);
        }
    }
    ensure!(old.len() > ZONES, "only {} zones ever changed hands", old.len());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = SqliteStore::open(file).await.context("the database")?;
        for claim in &old {
            let row = LedgerWrite {
                key: format!("{}/stale", &claim.name["unit/".len()..]),
                value: Some(b"{}".to_vec()),
            };
            match store.write_ledger(vec![row], claim).await {
                Err(StoreError::Fenced { .. }) => {}
                other => bail!("under {claim:?}, which is not the newest, the store answered {other:?}"),
            }
        }
        Ok(())
    })?;
    let (mut late, mut all) = (Vec::new(), 0);
    for line in writes.lines() {
        let [at, name, zone] = line.split(' ').collect::<Vec<_>>()[..] else { bail!("{line:?}") };
        let at: u128 = at.parse().with_context(|| line.to_owned())?;
        let mut near: Vec<&Sample> =
            samples.iter().filter(|s| s.from <= at + BLUR && at <= s.to + BLUR).collect();
        // Where a machine that stalls kept everybody from asking, what was seen before and after says who had it.
        if near.is_empty() {
            near.extend(samples.iter().rfind(|s| s.to < at));
            near.extend(samples.iter().find(|s| s.from > at));
        }
        let own =
            |s: &Sample| s.held.get(zone).is_some_and(|claim| claim.holder.starts_with(&format!("{name}/")));
        all += 1;
        if !near.into_iter().any(own) {
            late.push((name, zone, at));
        }
    }
    println!(
        "{all} writes, {} of them in the window of a stopped holder; {} stops; {} old numbers refused",
        late.len(),
        stops.len(),
        old.len()
    );
    for (name, zone, at) in &late {
        let resumed = |(who, _, to): &&(&str, u128, u128)| who == name && (*to..*to + 3_000).contains(at);
        ensure!(
            stops.iter().any(|stop| resumed(&stop)),
            "{name} wrote {zone}, which it did not hold, and was not just resumed"
        );
    }
    ensure!(late.len() <= stops.len(), "one stop lets at most one write slip: {late:?}");
    Ok(())
}
