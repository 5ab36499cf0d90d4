//! One host changes, in files that a whole fleet stands in.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::{Value, json};
use shoal_agent::secrets::Secrets;
use shoal_agent::{Batch, Clock, Edit, Epoch, Fence, Moment, Outcome, Target as _, Unit, Why, command};
use shoal_core::Revision;
use shoal_monitoring::{Have, Item, Key, Monitoring, Server, Servers, Settings, Subject};
use shoal_tests::binaries;
use shoal_tests::figure::Figure;
use shoal_tests::swarm::repository;

use crate::fleet;

/// How many hosts change, one after the other.
const CHANGES: u32 = 20;

struct Still;

impl Clock for Still {
    fn now(&self) -> Moment {
        0
    }
}

fn edit(key: Key, from: Option<Item>, to: Item) -> Edit<Monitoring> {
    let verb = if from.is_some() { "update" } else { "create" };
    let (memo, token, because) = (Value::Null, String::new(), Why::Wanted(Revision(1)));
    Edit { key, verb, from: from.map(Have::from), to: Some(to), memo, token, because }
}

async fn apply(servers: &Servers, server: Server, changes: Vec<Edit<Monitoring>>) -> Result<()> {
    let batch = Batch { changes, after: Vec::new(), revision: Revision(1) };
    let fence = Fence { number: 1, not_after: Moment::MAX, epoch: Epoch(1), clock: Arc::new(Still) };
    let applied =
        servers.apply(&Unit::from(server.name()), &batch, &fence).await.map_err(|why| anyhow!("{why}"))?;
    let bad = applied.each.iter().find(|(_, outcome)| *outcome != Outcome::Done);
    ensure!(bad.is_none(), "{bad:?}");
    Ok(())
}

/// What a change took.
#[derive(Default)]
struct Took {
    /// By the clock, each, in milliseconds.
    times: Vec<f64>,
    /// Of the processor, one, in milliseconds, without the processes that it starts.
    cpu: f64,
    /// By the clock, what was measured beside each, in milliseconds.
    beside: Vec<f64>,
}

/// Writes a fleet, then changes hosts of it, and measures `beside` after each.
async fn change(
    servers: &Servers,
    server: Server,
    hosts: u32,
    mut beside: impl FnMut() -> Result<()>,
) -> Result<Took> {
    let all = fleet::items(server, hosts)?;
    let mut changes: Vec<_> =
        all.into_iter().map(|(name, item)| edit(fleet::key(server, name), None, item)).collect();
    if server != Server::Prometheus {
        changes.insert(0, edit(Key { server, subject: Subject::Server }, None, Item::Server));
    }
    apply(servers, server, changes).await?;
    let mut took = Took::default();
    for n in (0..CHANGES).map(|n| n * 7 % hosts) {
        let key = fleet::key(server, fleet::name(n)?);
        let change = edit(key, Some(fleet::item(server, n, 0)?), fleet::item(server, n, 1)?);
        let (start, before) = (Instant::now(), fleet::all_cpu());
        apply(servers, server, vec![change]).await?;
        took.times.push(start.elapsed().as_secs_f64() * 1e3);
        took.cpu += (fleet::all_cpu() - before) * 1e3 / f64::from(CHANGES);
        let start = Instant::now();
        beside()?;
        took.beside.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(took)
}

/// Nagios: written, checked, and switched to. By a checker that does nothing, beside what that takes and what the disk takes to keep a
/// file and a folder; and by the real one, beside what it takes alone.
pub(crate) async fn nagios(hosts: u32) -> Result<()> {
    let (times, cpu, floor, disk) = nothing(hosts).await?;
    let left = middle(times.clone()) - floor;
    let mut line = Figure::median("monitoring_nagios_one_host", "ms", times)
        .hosts(hosts)
        .beside("of it processor time", cpu)
        .beside("of it a checker that does nothing", floor)
        .beside("what is left beside that checker", left)
        .beside("the disk keeps a file, then its folder", disk)
        .goal(1.0);
    match binaries::system("nagios4") {
        None => fleet::skipped("nagios4 -v beside it", "nagios4 is not installed"),
        Some(program) => {
            let (change, check) = checked(hosts, &program.display().to_string()).await?;
            line = line.beside("the same with nagios4 -v", change).beside("nagios4 -v", check);
        }
    }
    line.print();
    Ok(())
}

fn open(dir: &Path, check: &[&str]) -> Result<(Servers, std::path::PathBuf)> {
    let config = configure(dir)?;
    let at = dir.join("nagios/shoal");
    let settings = json!({"nagios": {"directory": at, "config": config, "check": check, "tell": false}});
    let settings: Settings = serde_json::from_value(settings)?;
    let (_, servers) = settings.open(Secrets::default()).map_err(|why| anyhow!("{why}"))?;
    Ok((servers, config))
}

/// What a change takes by a checker that does nothing: each, of it processor time, such a checker, and what the disk takes.
async fn nothing(hosts: u32) -> Result<(Vec<f64>, f64, f64, f64)> {
    let dir = tempfile::Builder::new().prefix("shoal-bench-").tempdir().context("a scratch folder")?;
    let (servers, _) = open(dir.path(), &["true"])?;
    let keep = || -> Result<()> {
        let file = std::fs::File::create(dir.path().join("kept"))?;
        std::io::Write::write_all(&mut &file, &[b'#'; 4096])?;
        file.sync_all()?;
        Ok(std::fs::File::open(dir.path())?.sync_all()?)
    };
    let Took { times, cpu, beside } = change(&servers, Server::Nagios, hosts, keep).await?;
    let started = Instant::now();
    for _ in 0..CHANGES {
        let done = command::run(&["true".to_owned()], &[], Duration::from_secs(10)).await;
        done.map_err(|why| anyhow!("{why}"))?;
    }
    let nothing = started.elapsed().as_secs_f64() * 1e3 / f64::from(CHANGES);
    Ok((times, cpu, nothing, middle(beside)))
}

/// What a change takes by the real checker, and what that one takes alone, right after.
async fn checked(hosts: u32, program: &str) -> Result<(f64, f64)> {
    let dir = tempfile::Builder::new().prefix("shoal-bench-").tempdir().context("a scratch folder")?;
    let (servers, config) = open(dir.path(), &[program, "-v", "{config}"])?;
    let alone = || -> Result<()> {
        let done = std::process::Command::new(program).arg("-v").arg(&config).output()?;
        ensure!(done.status.success(), "nagios4 -v refuses what was written");
        Ok(())
    };
    let Took { times, beside, .. } = change(&servers, Server::Nagios, hosts, alone).await?;
    Ok((middle(times), middle(beside)))
}

fn middle(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The example's configuration of Nagios, in this folder.
fn configure(dir: &Path) -> Result<std::path::PathBuf> {
    std::fs::create_dir_all(dir.join("nagios/shoal"))?;
    for file in ["nagios.cfg", "library.cfg"] {
        let text = std::fs::read_to_string(repository().join("deploy/example/monitoring").join(file))?;
        let text = text.replace("@OUT@", &dir.display().to_string());
        // Nobody starts it, and its checker does not look at them.
        let text = text.replace("@USER@", "root").replace("@GROUP@", "root");
        std::fs::write(dir.join("nagios").join(file), text)?;
    }
    Ok(dir.join("nagios/nagios.cfg"))
}

/// Prometheus, which sees the file by itself.
pub(crate) async fn prometheus(hosts: u32) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("shoal-bench-").tempdir().context("a scratch folder")?;
    let settings: Settings = serde_json::from_value(json!({"prometheus": {"directory": dir.path()}}))?;
    let (_, servers) = settings.open(Secrets::default()).map_err(|why| anyhow!("{why}"))?;
    let Took { times, cpu, .. } = change(&servers, Server::Prometheus, hosts, || Ok(())).await?;
    Figure::median("monitoring_targets_one_host", "ms", times)
        .hosts(hosts)
        .beside("of it processor time", cpu)
        .goal(5.0)
        .print();
    Ok(())
}
