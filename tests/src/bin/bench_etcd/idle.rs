//! A swarm that has nothing to do: what its programs use, and which keys of etcd are written meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use etcd_client::{Client, WatchOptions};
use shoal_tests::figure::Figure;

use crate::etcd::Etcd;
use crate::swarm::{Swarm, mib};
use crate::{NAME, Options};

/// What says that somebody is there.
const HEARTBEATS: [&str; 2] = ["claim", "report"];
/// All else that a database has; decision 9 says what each is.
const OTHERS: [&str; 16] = [
    "log", "draft", "row", "version", "naming", "scope", "last", "done", "order", "part", "stage", "alive",
    "turn", "applying", "ledger", "other",
];
/// Of one core, in percent.
const GOAL: f64 = 1.0;

pub(crate) async fn measure(etcd: &Etcd, swarm: &mut Swarm, options: &Options) -> Result<()> {
    swarm.settle();
    let span = Duration::from_secs(options.idle.max(1));
    let (mut client, seconds) = (etcd.client(0), span.as_secs_f64());
    let (before, of_etcd, from) = (swarm.usage()?, etcd.usage()?.cpu, revision(&mut client).await?);
    let written = written(&mut client, span).await?;
    let (after, of_etcd) = (swarm.usage()?, etcd.usage()?.cpu.saturating_sub(of_etcd));
    let revisions = revision(&mut client).await? - from;
    let share = |used: Duration| used.as_secs_f64() / seconds * 100.0;
    let used = |n: usize| after[n].1.cpu.saturating_sub(before[n].1.cpu);
    let all = (0..after.len()).map(used).sum();
    let mut cpu = Figure::median("idle_cpu_of_server_and_agents", "%", vec![share(all)]).hosts(options.hosts);
    let total = after.iter().map(|(_, used)| mib(*used)).sum();
    let mut memory =
        Figure::median("idle_memory_of_server_and_agents", "MiB", vec![total]).hosts(options.hosts);
    for (n, &(name, now)) in after.iter().enumerate() {
        cpu = cpu.beside(name, share(used(n)));
        memory = memory.beside(name, mib(now));
    }
    cpu.beside("etcd", share(of_etcd)).beside("seconds", seconds).goal(GOAL).print();
    memory.beside("etcd", mib(etcd.usage()?)).print();
    let count = |kind: &str| f64::from(written.get(kind).copied().unwrap_or(0));
    let other = OTHERS.iter().map(|kind| count(kind)).sum();
    let mut else_written = Figure::median("idle_writes_that_are_no_heartbeats", "keys", vec![other]);
    for kind in OTHERS.into_iter().filter(|kind| count(kind) > 0.0) {
        else_written = else_written.beside(kind, count(kind));
    }
    else_written.hosts(options.hosts).beside("seconds", seconds).goal(0.0).print();
    let mut beats = Figure::median(
        "idle_heartbeats",
        "keys/min",
        vec![HEARTBEATS.iter().map(|kind| count(kind)).sum::<f64>() / seconds * 60.0],
    );
    for kind in HEARTBEATS {
        beats = beats.beside(kind, count(kind) / seconds * 60.0);
    }
    beats.hosts(options.hosts).beside("etcd's revisions", revisions as f64 / seconds * 60.0).print();
    Ok(())
}

/// How often keys of each kind are written or removed in this time.
async fn written(client: &mut Client, span: Duration) -> Result<BTreeMap<&'static str, u32>> {
    let prefix = format!("{NAME}/");
    let mut stream = client.watch(prefix.as_str(), Some(WatchOptions::new().with_prefix())).await?;
    let until = tokio::time::Instant::now() + span;
    let mut kinds: BTreeMap<&'static str, u32> = BTreeMap::new();
    while let Ok(message) = tokio::time::timeout_at(until, stream.message()).await {
        let message = message?.context("etcd ended the watch")?;
        for key in message.events().iter().filter_map(|event| event.kv()) {
            *kinds.entry(kind(key.key().get(prefix.len()..).unwrap_or_default())).or_default() += 1;
        }
    }
    Ok(kinds)
}

/// Of which kind a key is: what it begins with.
fn kind(key: &[u8]) -> &'static str {
    let first = key.split(|b| *b == b'/').next().unwrap_or_default();
    let known = HEARTBEATS.into_iter().chain(OTHERS).find(|kind| kind.as_bytes() == first);
    known.unwrap_or("other")
}

/// Etcd's own.
async fn revision(client: &mut Client) -> Result<i64> {
    let answer = client.get(format!("{NAME}/log"), None).await?;
    Ok(answer.header().context("an answer without a header")?.revision())
}
