//! Figures of a whole fleet: the view in memory, and a server and a DNS agent as processes on one database.
//!
//! `tests/bench` builds this with optimisation and runs it; each line it prints is a figure in JSON.

mod bind;
mod bulk;
mod dns;
mod http;
mod octodns;
mod view;

use clap::Parser;

/// Measures at fleets of several sizes.
#[derive(Parser)]
struct Options {
    /// Sizes of the fleet, in hosts.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000])]
    hosts: Vec<u32>,
    /// Only this part: `view`, `bulk`, `dns` or `bind`.
    #[arg(long)]
    only: Option<String>,
    /// Where octoDNS is installed, to measure it beside ours.
    #[arg(long)]
    octodns: Option<std::path::PathBuf>,
    /// Measure nothing: write a fleet of the first size into this new database, to look at by other means.
    #[arg(long)]
    fill: Option<std::path::PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(Options::parse()).await
}

async fn run(options: Options) -> anyhow::Result<()> {
    if let (Some(path), Some(hosts)) = (&options.fill, options.hosts.first()) {
        return dns::database(path, *hosts).await;
    }
    let wanted = |part: &str| options.only.as_deref().is_none_or(|only| only == part);
    for hosts in &options.hosts {
        if wanted("view") {
            view::measure(*hosts)?;
        }
        if wanted("bulk") {
            bulk::measure(*hosts).await?;
        }
        if wanted("dns") {
            dns::measure(*hosts).await?;
        }
        if wanted("bind") {
            bind::measure(*hosts).await?;
            octodns::measure(*hosts, options.octodns.as_deref())?;
        }
    }
    Ok(())
}
