//! Figures of the load-balancer agent: how long it takes until HAProxy has one server's new weight, in a pool of 5,000 servers beside one of
//! 50: from the acknowledged commit through the program as it runs; and from the batch that the engine gives the target once it
//! has seen the commit, at run time and by a reload.
//!
//! The same pools stand beside each other in one HAProxy, and take turns. What is in effect is what HAProxy's own socket says,
//! asked again and again; what one such question takes stands beside the figure, as the least that it can show.

mod haproxy;
mod whole;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use clap::Parser;
use serde_json::{Value, json};
use shoal_agent::{Batch, Clock, Edit, Epoch, Fence, Moment, Target as _, Unit, Why};
use shoal_core::Revision;
use shoal_lb::{Balancer, Have, Item, Key, Lb, Server, Settings};
use shoal_tests::binaries;
use shoal_tests::figure::Figure;

use haproxy::Haproxy;

/// How many servers the pools have.
const POOLS: [(&str, u32); 2] = [("large", 5_000), ("small", 50)];
/// How often a server's weight is changed at run time, in each.
const CHANGES: u16 = 101;
/// The same by a reload.
const RELOADS: u16 = 11;
/// How long one change may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The weight that all servers begin with.
const WEIGHT: u16 = 200;
/// Which server is changed. By name it is one of the last, so HAProxy goes through most of a pool to find it.
const WHO: u32 = 7;
/// One that HAProxy finds at the other end: what is left between the pools then is not of looking for it.
const OTHER: u32 = 0;

/// Measures a change in a large pool beside one in a small pool.
#[derive(Parser)]
struct Options {}

#[tokio::main]
async fn main() -> Result<()> {
    run(Options::parse()).await
}

async fn run(Options {}: Options) -> Result<()> {
    let Some(program) = binaries::system("haproxy") else {
        return skipped("haproxy is not installed (apt install haproxy)");
    };
    let dir = tempfile::Builder::new().prefix("shoal-bench-").tempdir().context("a scratch folder")?;
    let apart = dir.path().join("whole");
    std::fs::create_dir(&apart)?;
    let [large_whole, small_whole] = whole::measure(&program, &apart).await?;
    let haproxy = Haproxy::start(&program, dir.path())?;
    let balancer = open(&program, dir.path(), true)?;
    for (pool, servers) in POOLS {
        apply(&balancer, pool, whole(pool, servers)?).await?;
    }
    let [large, small] = both(&haproxy, &balancer, WHO, CHANGES).await?;
    let [large_other, small_other] = both(&haproxy, &balancer, OTHER, CHANGES).await?;
    let asked = |pool, who| (0..CHANGES).map(|_| ask(&haproxy, pool, who)).collect::<Result<Vec<f64>>>();
    let [asked_large, asked_small] = [asked("large", WHO)?, asked("small", WHO)?];
    let [asked_large_other, asked_small_other] = [asked("large", OTHER)?, asked("small", OTHER)?];
    let by_reload = open(&program, dir.path(), false)?;
    let [large_reload, small_reload] = both(&haproxy, &by_reload, WHO, RELOADS).await?;
    let middle = |times| Figure::median("", "ms", times).value;
    let [asked_large, asked_small] = [asked_large, asked_small].map(middle);
    Figure::median("lb_commit_in_effect_pool_of_5000", "ms", large_whole)
        .beside("in a pool of 50", middle(small_whole))
        .beside("one question to HAProxy", asked_large)
        .beside("one question to HAProxy, in a pool of 50", asked_small)
        .goal(1.5)
        .print();
    Figure::median("lb_change_in_effect_pool_of_5000", "ms", large)
        .beside("in a pool of 50", middle(small))
        .beside("by a reload", middle(large_reload))
        .beside("by a reload, in a pool of 50", middle(small_reload))
        .beside("one question to HAProxy", asked_large)
        .beside("one question to HAProxy, in a pool of 50", asked_small)
        .goal(1.5)
        .print();
    Figure::median("lb_change_in_effect_pool_of_5000_other_end", "ms", large_other)
        .beside("in a pool of 50", middle(small_other))
        .beside("one question to HAProxy", middle(asked_large_other))
        .beside("one question to HAProxy, in a pool of 50", middle(asked_small_other))
        .goal(1.5)
        .print();
    Ok(())
}

#[allow(clippy::print_stderr, reason = "what cannot be measured says so")]
fn skipped(why: &str) -> Result<()> {
    eprintln!("SKIPPED: figures of the load balancer: {why}");
    Ok(())
}

/// The target as the agent has it, changing servers at run time or not.
fn open(program: &Path, dir: &Path, runtime: bool) -> Result<Balancer> {
    let (program, own) = (program.display().to_string(), dir.join("haproxy.cfg"));
    let settings: Settings = serde_json::from_value(json!({"haproxy": {
        "directory": dir.join("pools"), "stats": dir.join("admin.sock"), "master": dir.join("master.sock"),
        "check": [program, "-c", "-q", "-f", own, "{pools}"], "within": PATIENCE.as_secs(), "runtime": runtime,
    }}))?;
    Ok(settings.open().map_err(|why| anyhow!("{why}"))?.1)
}

struct Still;

impl Clock for Still {
    fn now(&self) -> Moment {
        0
    }
}

async fn apply(balancer: &Balancer, pool: &str, changes: Vec<Edit<Lb>>) -> Result<()> {
    let batch = Batch { changes, after: Vec::new(), revision: Revision(1) };
    let fence = Fence { number: 1, not_after: Moment::MAX, epoch: Epoch(1), clock: Arc::new(Still) };
    let applied = balancer.apply(&Unit::from(pool), &batch, &fence).await.map_err(|why| anyhow!("{why}"))?;
    let failed = applied.each.iter().find(|(_, outcome)| format!("{outcome:?}").starts_with("Failed"));
    ensure!(failed.is_none(), "{failed:?}");
    Ok(())
}

/// The name of a pool's server.
fn host(pool: &str, n: u32) -> String {
    format!("{pool}{n}.example.com")
}

/// Its address. Nobody asks these, so nothing has to answer there.
fn address(n: u32) -> String {
    format!("127.1.{}.{}", n / 250, n % 250 + 1)
}

fn server(n: u32, weight: u16) -> Result<Server> {
    Ok(Server { address: address(n).parse()?, port: 80, weight, backup: false, drain: 60 })
}

fn edit(pool: &str, n: Option<u32>, from: Option<Item>, to: Item) -> Result<Edit<Lb>> {
    let host = n.map(|n| host(pool, n).parse()).transpose()?;
    let key = Key { pool: format!("lb/{pool}").parse()?, host, at: None };
    let verb = if from.is_some() { "update" } else { "create" };
    // That the host serves is known already, so nothing is reported.
    let (memo, token, because) = (json!({"told": true}), String::new(), Why::Wanted(Revision(1)));
    Ok(Edit { key, verb, from: from.map(Have::from), to: Some(to), memo, token, because })
}

/// A pool with all its servers.
fn whole(pool: &str, servers: u32) -> Result<Vec<Edit<Lb>>> {
    let form: Value = json!({"pool": {
        "protocol": "http", "balance": "round_robin", "slow_start": 0, "least": 1, "frontends": []}});
    let servers = (0..servers).map(|n| edit(pool, Some(n), None, Item::Server(server(n, WEIGHT)?)));
    std::iter::once(edit(pool, None, None, serde_json::from_value(form)?)).chain(servers).collect()
}

/// Changes one server of each pool so often, by turns: what each took until it was in effect, in milliseconds.
async fn both(haproxy: &Haproxy, balancer: &Balancer, who: u32, times: u16) -> Result<[Vec<f64>; 2]> {
    let mut took = [Vec::new(), Vec::new()];
    for weight in 1..=times {
        let before = if weight == 1 { WEIGHT } else { weight - 1 };
        for ((pool, _), took) in POOLS.iter().zip(&mut took) {
            took.push(change(haproxy, balancer, (pool, who), [before, weight]).await?);
        }
    }
    // As it was, for who measures next.
    for (pool, _) in POOLS {
        change(haproxy, balancer, (pool, who), [times, WEIGHT]).await?;
    }
    Ok(took)
}

/// Changes the server's weight from the first to the second: what it took until it was in effect, in milliseconds.
async fn change(
    haproxy: &Haproxy,
    balancer: &Balancer,
    (pool, who): (&str, u32),
    [before, weight]: [u16; 2],
) -> Result<f64> {
    let (from, to) = (Item::Server(server(who, before)?), Item::Server(server(who, weight)?));
    let batch = vec![edit(pool, Some(who), Some(from), to)?];
    let question = format!("get weight {pool}/{}", host(pool, who));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let seen = scope.spawn(|| -> Result<f64> {
            spin(haproxy, &question, weight, begun)?;
            Ok(begun.elapsed().as_secs_f64() * 1e3)
        });
        let handle = tokio::runtime::Handle::current();
        tokio::task::block_in_place(|| handle.block_on(apply(balancer, pool, batch)))?;
        seen.join().map_err(|_| anyhow!("asking HAProxy panicked"))?
    })
}

/// Asks again and again until HAProxy has this weight.
fn spin(haproxy: &Haproxy, question: &str, weight: u16, begun: Instant) -> Result<()> {
    // While it reloads, nobody answers for a moment.
    while !haproxy.ask(question).is_ok_and(|said| said.starts_with(&format!("{weight} "))) {
        ensure!(begun.elapsed() < PATIENCE, "the weight {weight} has no effect: {question}");
    }
    Ok(())
}

/// What one question about the server takes, in milliseconds: HAProxy goes through the pool until it finds it.
fn ask(haproxy: &Haproxy, pool: &str, who: u32) -> Result<f64> {
    let begun = Instant::now();
    haproxy.ask(&format!("get weight {pool}/{}", host(pool, who)))?;
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}
