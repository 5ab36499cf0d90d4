//! Figures of the monitoring agent: what it takes to write the configuration of a fleet, and what one host more changes.
//!
//! Processor time and not the clock, where it is only about computing. Beside it, in the same run: a generator in Python with Jinja
//! templates (`jinja.py`) that writes the same objects, and the server's own checker.

mod change;
mod fleet;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use shoal_monitoring::{Server, text};
use shoal_tests::figure::Figure;
use shoal_tests::swarm::repository;

/// How often each is measured.
const RUNS: usize = 7;

/// Measures at fleets of several sizes.
#[derive(Parser)]
struct Options {
    /// Sizes of the fleet, in hosts, with five services each.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000])]
    hosts: Vec<u32>,
}

#[tokio::main]
async fn main() -> Result<()> {
    run(Options::parse()).await
}

async fn run(options: Options) -> Result<()> {
    for hosts in options.hosts {
        render(hosts)?;
        change::nagios(hosts).await?;
        change::prometheus(hosts).await?;
    }
    Ok(())
}

/// From what is wanted to the text of all files, which nobody has asked for before.
fn render(hosts: u32) -> Result<()> {
    for (figure, server, goal) in [
        ("monitoring_nagios_rendered", Server::Nagios, Some(28.0)),
        ("monitoring_icinga_rendered", Server::Icinga2, None),
        ("monitoring_targets_rendered", Server::Prometheus, Some(5.0)),
    ] {
        let items = fleet::items(server, hosts)?;
        let mut size = 0;
        let mut times = Vec::new();
        for _ in 0..RUNS {
            let before = fleet::cpu();
            size = text(server, &items).len();
            times.push((fleet::cpu() - before) * 1e3);
        }
        let mut line = Figure::median(figure, "ms CPU", times).hosts(hosts);
        line = line.beside("its size in MiB", size as f64 / f64::from(1 << 20));
        if server == Server::Nagios {
            match jinja(hosts)? {
                Some(time) => line = line.beside("a Jinja generator", time * 1e3),
                None => fleet::skipped("a Jinja generator beside it", "python3-jinja2 is not installed"),
            }
        }
        if let Some(goal) = goal.filter(|_| hosts == 10_000) {
            line = line.goal(goal);
        }
        line.print();
    }
    Ok(())
}

/// What the generator takes, in seconds of processor time, for rendering alone; `None`: it is not there.
fn jinja(hosts: u32) -> Result<Option<f64>> {
    let script = repository().join("tests/src/bin/bench_monitoring/jinja.py");
    let done = Command::new("python3").arg(script).arg(hosts.to_string()).output().context("python3")?;
    if done.status.code() == Some(77) {
        return Ok(None);
    }
    ensure!(done.status.success(), "jinja.py: {}", String::from_utf8_lossy(&done.stderr));
    Ok(Some(String::from_utf8_lossy(&done.stdout).trim().parse().context("what jinja.py says")?))
}
