//! One run: the world is started, clients use it, things go wrong, all is healed, and what was seen is judged.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use shoal_client::HttpStore;
use shoal_store::Store as _;
use shoal_tests::binaries::system;
use shoal_tests::wait;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::balancer::{self, ASKERS};
use crate::checks::Logged;
use crate::clients::{Client, ZONES, alone, commit, store, watch, zone};
use crate::enough::{Troubles, enough, is_crossed, jumps};
use crate::schedule::{Fault, LONG, What, draw, kinds};
use crate::seen::{Answer, Board, Seen, Taken};
use crate::world::{CLIENTS, World};
use crate::{Engine, Options, checks, ending};

/// Watches of everything; each goes the way of a client.
const WATCHERS: usize = 2;
/// How long what clients have begun may take once all is healed: longer than each waits for anything.
const LAST: Duration = Duration::from_secs(90);
/// How many violations are shown.
const SHOWN: usize = 20;

/// Runs it, says how it went, and answers the exit code.
pub(crate) fn run(options: &Options) -> ExitCode {
    let engine = if options.store == Engine::Etcd { "etcd" } else { "sqlite" };
    if options.store == Engine::Etcd && system("etcd").is_none() {
        println!("etcd is not installed (apt install etcd-server)");
        return ExitCode::from(77);
    }
    let title = format!("chaos: seed {}, {:?} on {engine}", options.seed, options.length);
    match live(options) {
        Ok((summary, wrong)) if wrong.is_empty() => {
            println!("{title}, {summary}: ok");
            ExitCode::SUCCESS
        }
        Ok((summary, wrong)) => {
            wrong.iter().take(SHOWN).for_each(|what| println!("VIOLATION: {what}"));
            println!("{title}, {summary}: {} violations", wrong.len());
            ExitCode::FAILURE
        }
        Err(why) => {
            println!("{title}: it did not come to its end: {why:#}");
            ExitCode::FAILURE
        }
    }
}

/// What was done, and what of it must not have happened.
fn live(options: &Options) -> Result<(String, Vec<String>)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut world = World::start(&runtime, options)?;
    let outcome = go_wrong(&mut world, &runtime, options);
    if !outcome.as_ref().is_ok_and(|(_, wrong)| wrong.is_empty()) {
        println!("what every process said is in {}", world.keep().display());
    }
    outcome
}

fn go_wrong(world: &mut World, runtime: &Runtime, options: &Options) -> Result<(String, Vec<String>)> {
    let direct = HttpStore::new(&world.direct())?;
    let mut rows = (0..ZONES).map(|n| zone(n, 1)).collect::<Result<Vec<_>>>()?;
    if let Some(balancer) = world.balancer() {
        rows.extend(balancer.rows()?);
    }
    runtime.block_on(direct.commit(commit("the fleet", Vec::new(), rows))).context("the fleet")?;
    let from = runtime.block_on(direct.head()).context("the newest revision")?;
    let board = Arc::new(Board::new());
    let mut watchers: Vec<JoinHandle<()>> = Vec::new();
    for watcher in 0..WATCHERS {
        let follows = watch(watcher, store(&world.addresses(watcher))?, Arc::clone(&board), from);
        watchers.push(runtime.spawn(follows));
    }
    let mut clients = Vec::new();
    for (n, number) in (0..CLIENTS).zip(1..) {
        let each = world.each(n).iter().map(|address| alone(address)).collect::<Result<Vec<_>>>()?;
        let client = Client::new(number, options.seed, store(&world.addresses(n))?, each, Arc::clone(&board));
        clients.push(runtime.spawn(client.live()));
    }
    let (askers, people) = balanced(world, runtime, options.seed, &board)?;
    let cast = world.cast();
    let faults = draw(options.seed, options.length, &cast);
    let counts = trouble(world, &faults, options.length, &board);
    let kinds = if options.length >= LONG { kinds(&cast) } else { BTreeSet::new() };
    let troubles = Troubles { counts, kinds, servers: cast.servers };
    board.stop();
    let ended = runtime.block_on(async { tokio::time::timeout(LAST, join_all(clients)).await });
    for client in ended.with_context(|| format!("clients do not end within {LAST:?}"))? {
        client.context("a client")?.context("a client")?;
    }
    let mut asked = 0;
    for asker in askers {
        let (good, bad) = runtime.block_on(asker).context("who asks the balancer")?;
        asked += good;
        bad.into_iter().for_each(|why| board.wrong(why));
    }
    if let Some(people) = people {
        runtime.block_on(people).context("who changes the pool")?.context("who changes the pool")?;
        ensure!(asked > 0, "no request of the balancer was answered, so this run says nothing of any");
    }
    ending::converged(world)?;
    let log = runtime.block_on(ending::log(&direct))?;
    let to = log.last().map_or(0, |commit| commit.revision);
    wait::until("the watches", wait::PATIENCE, || {
        let seen = board.seen();
        let far = |watcher: &usize| {
            seen.watched.get(watcher).and_then(|gave| gave.last()).is_some_and(|last| *last >= to)
        };
        let behind: Vec<usize> = (0..WATCHERS).filter(|watcher| !far(watcher)).collect();
        ensure!(behind.is_empty(), "{behind:?} have not seen {to}");
        Ok(())
    })?;
    watchers.iter().for_each(JoinHandle::abort);
    let files = ending::is_as_from_scratch(world, runtime, &direct)?;
    let ledger = runtime.block_on(ending::ledger(&direct))?;
    let mut seen = std::mem::take(&mut *board.seen());
    let mut wrong = std::mem::take(&mut seen.wrong);
    for (watcher, gave) in &seen.watched {
        wrong.extend(checks::watched(*watcher, gave, &log, from.revision.0, to));
    }
    wrong.extend(judged(&seen, &log, &ledger, &troubles));
    for (kind, times) in &troubles.counts {
        println!("{times:4} {kind}");
    }
    let crossed = seen.registers.values().filter(|moments| is_crossed(moments)).count();
    println!("{crossed:4} registers were read at another server than they were written at");
    println!("{:4} leaps in the time that commits bear", jumps(&log));
    println!("{:4} times somebody was told that there is no room", seen.full.len());
    let balanced = format!("{asked} requests of the balancer");
    Ok((format!("{}, {balanced}", summary(&seen, &troubles.counts, log.len(), files)), wrong))
}

/// What of all that was seen must not be.
fn judged(seen: &Seen, log: &[Logged], ledger: &BTreeMap<String, u64>, troubles: &Troubles) -> Vec<String> {
    let mut wrong = checks::commits(&seen.said, log);
    wrong.extend(checks::ids(&seen.taken, log));
    wrong.extend(checks::holders(&seen.grants));
    wrong.extend(checks::stale(&seen.grants, &seen.writes, ledger, log));
    wrong.extend(checks::room(&seen.full, &seen.filled));
    wrong.extend(checks::registers(&seen.registers));
    wrong.extend(enough(seen, log, troubles));
    wrong
}

/// Those who ask the balancer, and who changes its pool.
type Balanced = (Vec<JoinHandle<(u64, Vec<String>)>>, Option<JoinHandle<Result<()>>>);

/// Has the balancer asked all the time, once it answers, and its pool changed.
fn balanced(world: &World, runtime: &Runtime, seed: u64, board: &Arc<Board>) -> Result<Balanced> {
    let Some(balancer) = world.balancer() else { return Ok((Vec::new(), None)) };
    let port = balancer.port();
    wait::until("the load balancer", wait::PATIENCE, || runtime.block_on(balancer::ask(port)))?;
    let askers = (0..ASKERS).map(|_| runtime.spawn(balancer::asks(port, Arc::clone(board)))).collect();
    let people = Arc::clone(balancer).people(seed, store(&world.addresses(0))?, Arc::clone(board));
    Ok((askers, Some(runtime.spawn(people))))
}

/// Does to the world what was drawn for it. Answers how often each kind was done.
fn trouble(world: &mut World, faults: &[Fault], length: Duration, board: &Board) -> BTreeMap<String, u32> {
    let begins = faults.iter().map(|fault| (fault.at, true, fault.what));
    let ends = faults.iter().map(|fault| (fault.until, false, fault.what));
    let mut all: Vec<(Duration, bool, What)> = begins.chain(ends).collect();
    all.sort_by_key(|(at, begins, _)| (*at, *begins));
    let (began, mut counts) = (Instant::now(), BTreeMap::new());
    for (at, begins, what) in all {
        std::thread::sleep(at.saturating_sub(began.elapsed()));
        for death in world.deaths() {
            board.wrong(death);
        }
        if begins && what == What::Disk {
            board.fills();
        }
        let done = if begins { world.begin(what) } else { world.end(what) };
        if !begins && what == What::Disk {
            board.empties();
        }
        match done {
            Ok(()) => *counts.entry(what.to_string()).or_default() += u32::from(begins),
            Err(why) => board.wrong(format!("{what}: {why:#}")),
        }
    }
    std::thread::sleep(length.saturating_sub(began.elapsed()));
    for death in world.deaths() {
        board.wrong(death);
    }
    counts
}

fn summary(seen: &Seen, counts: &BTreeMap<String, u32>, log: usize, files: usize) -> String {
    let is = |wanted: fn(&Answer) -> bool| seen.said.iter().filter(|said| wanted(&said.answer)).count();
    let done = is(|answer| matches!(answer, Answer::Done(_)));
    let [refused, full, unknown] = [
        is(|answer| *answer == Answer::Refused),
        is(|answer| *answer == Answer::Full),
        is(|answer| *answer == Answer::Unknown),
    ];
    let fenced = seen.writes.iter().filter(|write| write.taken == Taken::Fenced).count();
    format!(
        "{} faults, {done} commits acknowledged, {refused} refused, {full} without room, {unknown} not answered, {log} in the log, {} reads ({} from memory) in {} registers, \
         {} IDs, {} claims, {fenced} of {} writes under them refused, {files} files",
        counts.values().sum::<u32>(),
        seen.reads,
        seen.views,
        seen.registers.len(),
        seen.taken.len(),
        seen.grants.len(),
        seen.writes.len(),
    )
}
