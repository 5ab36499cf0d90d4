//! What was written to everybody who watches everything: through a server of ours on etcd, with a connection each, beside etcd's own watches, which share
//! connections or have one each.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use etcd_client::WatchOptions;
use shoal_core::Document;
use shoal_store::Store;
use shoal_tests::crowd::host;
use shoal_tests::figure::Figure;
use shoal_tests::served::Delivered;
use shoal_tests::server::Server;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::etcd::Etcd;
use crate::{NAME, Options};

/// Writes that one alone hears of, and that many do.
const ALONE: u32 = 1_000;
const AMONG: u32 = 100;
/// What every plain watcher watches.
const WATCHED: &str = "watched/";
const PATIENCE: Duration = Duration::from_secs(60);
/// Of etcd's processor time for each, in percent.
const GOAL: f64 = 25.0;

pub(crate) async fn measure(etcd: &Etcd, store: &dyn Store, dir: &Path, options: &Options) -> Result<()> {
    let server = Server::start(dir, &etcd.address(NAME))?;
    let sizes = [
        ("server_cpu_for_1_watcher_of_etcd", "commit_to_1_watcher_server", 1, ALONE),
        (
            "server_cpu_for_each_of_1k_watchers_of_etcd",
            "commit_to_last_of_1k_watchers_server",
            options.watchers,
            AMONG,
        ),
    ];
    for (cost, time, watchers, writes) in sizes {
        let shared = plain(etcd, watchers, etcd.clients.len(), writes).await?;
        let own = plain(etcd, watchers, watchers as usize, writes).await?;
        let ours = Delivered::of(&server, store, watchers, writes).await?;
        let figure = Figure::median(cost, "%", vec![ours.cpu / own.cpu * 100.0])
            .hosts(options.hosts)
            .beside("watchers", f64::from(watchers))
            .beside("server's for each, us", ours.cpu)
            .beside("etcd's, a connection each, us", own.cpu)
            .beside("etcd's, over 16 connections, us", shared.cpu)
            .beside("of etcd's over 16 connections, %", ours.cpu / shared.cpu * 100.0);
        // What the commit itself costs is shared by all who hear of it.
        let figure = if watchers > 1 { figure.goal(GOAL) } else { figure };
        figure.print();
        let median = |values| Figure::median("", "us", values).value;
        Figure::median(time, "us", ours.times)
            .hosts(options.hosts)
            .beside("watchers", f64::from(watchers))
            .beside("etcd, a connection each", median(own.times))
            .beside("etcd, over 16 connections", median(shared.times))
            .print();
    }
    Ok(())
}

/// The same of etcd itself: so many watchers over so many connections, and so many puts of a host's row.
pub(crate) async fn plain(etcd: &Etcd, watchers: u32, connections: usize, writes: u32) -> Result<Delivered> {
    let mut clients = Vec::new();
    for _ in 0..connections.min(watchers as usize) {
        clients.push(etcd.connect().await?);
    }
    let (heard, mut news) = mpsc::unbounded_channel();
    let mut tasks = JoinSet::new();
    for n in 0..watchers as usize {
        let (heard, at) = (heard.clone(), n % clients.len());
        let mut stream = clients[at].watch(WATCHED, Some(WatchOptions::new().with_prefix())).await?;
        tasks.spawn(async move {
            while let Ok(Some(message)) = stream.message().await {
                if !message.events().is_empty() && heard.send(Instant::now()).is_err() {
                    break;
                }
            }
        });
    }
    // What opening them left to do is not theirs.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut client, mut times, before) = (etcd.client(0), Vec::new(), etcd.usage()?.cpu);
    for serial in 0..writes {
        let row = host(0, serial)?;
        let value = row.value.as_ref().map_or("", Document::as_str);
        client.put(format!("{WATCHED}{}", row.key), value, None).await?;
        let answered = Instant::now();
        let mut last = answered;
        for _ in 0..watchers {
            let at = tokio::time::timeout(PATIENCE, news.recv()).await.context("a put was not heard")?;
            last = last.max(at.context("nobody watches any more")?);
        }
        times.push((last - answered).as_secs_f64() * 1e6);
    }
    let cpu = etcd.usage()?.cpu.saturating_sub(before).as_secs_f64() * 1e6;
    Ok(Delivered { times, cpu: cpu / (f64::from(writes) * f64::from(watchers)) })
}
