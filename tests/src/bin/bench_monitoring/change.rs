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
use shoal_tests::figure::Figure;
use shoal_tests::swarm::repository;
use shoal_tests::{binaries, figure};

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

/// Writes a fleet, then changes hosts of it; what each change took, in milliseconds of the clock, and of the processor.
async fn change(servers: &Servers, server: Server, hosts: u32) -> Result<(Vec<f64>, f64)> {
    let all = fleet::items(server, hosts)?;
    let mut changes: Vec<_> =
        all.into_iter().map(|(name, item)| edit(fleet::key(server, name), None, item)).collect();
    if server != Server::Prometheus {
        changes.insert(0, edit(Key { server, subject: Subject::Server }, None, Item::Server));
    }
    apply(servers, server, changes).await?;
    let mut times = Vec::new();
    let before = fleet::all_cpu();
    for n in (0..CHANGES).map(|n| n * 7 % hosts) {
        let key = fleet::key(server, fleet::name(n)?);
        let change = edit(key, Some(fleet::item(server, n, 0)?), fleet::item(server, n, 1)?);
        let start = Instant::now();
        apply(servers, server, vec![change]).await?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok((times, (fleet::all_cpu() - before) * 1e3 / f64::from(CHANGES)))
}

/// Nagios: written, checked by a checker that does nothing, and switched to; beside what the real one takes.
pub(crate) async fn nagios(hosts: u32) -> Result<()> {
    let dir = tempfile::Builder::new().prefix("shoal-bench-").tempdir().context("a scratch folder")?;
    let config = configure(dir.path())?;
    let at = dir.path().join("nagios/shoal");
    let settings = json!({"nagios": {"directory": at, "config": config, "check": ["true"], "tell": false}});
    let settings: Settings = serde_json::from_value(settings)?;
    let (_, servers) = settings.open(Secrets::default()).map_err(|why| anyhow!("{why}"))?;
    let (times, cpu) = change(&servers, Server::Nagios, hosts).await?;
    let started = Instant::now();
    for _ in 0..CHANGES {
        let done = command::run(&["true".to_owned()], &[], Duration::from_secs(10)).await;
        done.map_err(|why| anyhow!("{why}"))?;
    }
    let nothing = started.elapsed().as_secs_f64() * 1e3 / f64::from(CHANGES);
    let mut line = Figure::median("monitoring_nagios_one_host", "ms", times)
        .hosts(hosts)
        .beside("of it processor time", cpu)
        .beside("of it a checker that does nothing", nothing)
        .goal(1.0);
    match binaries::system("nagios4") {
        None => fleet::skipped("nagios4 -v beside it", "nagios4 is not installed"),
        Some(program) => {
            let mut accepted = true;
            let checked = figure::seconds(|| {
                let done = std::process::Command::new(program).arg("-v").arg(&config).output();
                accepted = done.is_ok_and(|done| done.status.success());
            });
            ensure!(accepted, "nagios4 -v refuses what was written");
            line = line.beside("nagios4 -v", checked * 1e3);
        }
    }
    line.print();
    Ok(())
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
    let (times, cpu) = change(&servers, Server::Prometheus, hosts).await?;
    Figure::median("monitoring_targets_one_host", "ms", times)
        .hosts(hosts)
        .beside("of it processor time", cpu)
        .goal(5.0)
        .print();
    Ok(())
}
