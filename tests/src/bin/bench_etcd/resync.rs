//! What travels after a cut: between the server and etcd, and between an agent and the server.
//!
//! Both links are cut at once for longer than anybody stays patient, changes are made, and etcd forgets its history, as it does after some
//! minutes. A longer cut with as many changes costs the same. What is counted is all that comes back over each link, beside what was changed and what there is.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use etcd_client::{Client, GetOptions};
use shoal_core::{Document, Revision};
use shoal_store::Store;
use shoal_tests::crowd::{commit, host_with};
use shoal_tests::figure::Figure;
use shoal_tests::link::Link;
use shoal_tests::{dns, shape, wait};

use crate::etcd::Etcd;
use crate::swarm::Swarm;
use crate::{NAME, Options};

/// Who was cut off asks again at growing intervals.
const PATIENCE: Duration = Duration::from_secs(120);
/// What else is asked for comes soon.
const AFTER: Duration = Duration::from_secs(3);
/// How many commits are asked for at once: their answer must not be too large for a client.
const TOGETHER: u64 = 500;
/// So many times what stands in etcd of the changes may travel: they are told in another form, and somebody says that he is there.
const GOAL: f64 = 2.0;

pub(crate) async fn measure(etcd: &Etcd, store: &dyn Store, swarm: &Swarm, options: &Options) -> Result<()> {
    let from = store.head().await?.revision;
    let began = Instant::now();
    swarm.to_etcd.cut();
    swarm.to_server.cut();
    let (name, address, documents) = changes(store, options).await?;
    let to = store.head().await?.revision;
    let mut client = etcd.client(0);
    let logged = logged(&mut client, from, to).await?;
    forget(&mut client).await?;
    tokio::time::sleep(Duration::from_secs(options.cut).saturating_sub(began.elapsed())).await;

    let told = healed(&swarm.to_etcd, || {
        let at = swarm.server.metric("shoal_hostdb_revision")?;
        ensure!(at >= to.0 as f64, "the server is at revision {at} of {to}");
        Ok(())
    });
    let server = told.await?;
    let told = healed(&swarm.to_server, || {
        let says = dns::ask(swarm.dns, &name, "A")?;
        ensure!(says.contains(&address), "{name} is {says:?}, and not {address}");
        Ok(())
    });
    let agent = told.await?;
    let count = f64::from(options.changes);
    let one = logged as f64 / count;
    for (figure, (octets, seconds), whole) in [
        ("resync_octets_to_server_for_each_change", server, swarm.read.0),
        ("resync_octets_to_agent_for_each_change", agent, swarm.read.1),
    ] {
        Figure::median(figure, "octets", vec![octets as f64 / count])
            .hosts(options.hosts)
            .on("etcd")
            .beside("changes", count)
            .beside("each in etcd's log", one)
            .beside("each document", documents as f64 / count)
            .beside("all that was read at the start", whole as f64)
            .beside("seconds since the cut was healed", seconds)
            .goal(GOAL * one)
            .print();
    }
    Ok(())
}

/// Gives hosts other addresses, each once where there are enough of them; answers the last with its address, and how large the documents are.
async fn changes(store: &dyn Store, options: &Options) -> Result<(String, String, usize)> {
    let (mut last, mut documents) = ((0, String::new()), 0);
    for n in 0..options.changes {
        let at = n.wrapping_mul(7919) % options.hosts;
        let address = format!("10.201.{}.{}", (n >> 8) & 255, n & 255);
        let change = host_with(at, "address", address.clone().into())?;
        documents += change.value.as_ref().map_or("", Document::as_str).len();
        store.commit(commit(vec![change])).await?;
        last = (at, address);
    }
    Ok((shape::host(last.0)?.to_string(), last.1, documents))
}

/// How many octets the commits after `from` take in etcd.
async fn logged(client: &mut Client, from: Revision, to: Revision) -> Result<usize> {
    let name = |revision: u64| format!("{NAME}/log/{revision:016x}");
    let (mut all, mut next) = (0, from.0 + 1);
    while next <= to.0 {
        let end = (next + TOGETHER).min(to.0 + 1);
        let answer = client.get(name(next), Some(GetOptions::new().with_range(name(end)))).await?;
        all += answer.kvs().iter().map(|kv| kv.value().len()).sum::<usize>();
        next = end;
    }
    Ok(all)
}

/// Has etcd forget what was before now.
async fn forget(client: &mut Client) -> Result<()> {
    let answer = client.get(format!("{NAME}/log"), None).await?;
    let now = answer.header().context("an answer without a header")?.revision();
    client.compact(now, None).await?;
    Ok(())
}

/// Heals the link, waits for what shows that all is there, and answers how much came over it, and after how many seconds it was there.
async fn healed(link: &Link, mut there: impl FnMut() -> Result<()>) -> Result<(u64, f64)> {
    let (before, began) = (link.back(), Instant::now());
    link.heal();
    wait::until("what was missed", PATIENCE, &mut there)?;
    let took = began.elapsed().as_secs_f64();
    tokio::time::sleep(AFTER).await;
    Ok((link.back() - before, took))
}
