//! What the tests against real servers share: one converging step without the engine, a real BIND, `dig`.

#![allow(dead_code, unused_imports, reason = "each test uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "this is test code"
)]

mod dig;
mod named;
#[path = "../../../../tests/agents/ports.rs"]
mod ports;
mod primary;
pub(crate) mod rubbish;
mod running;
pub(crate) mod scratch;
pub(crate) mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use dig::{Dig, dig};
pub(crate) use named::{Named, SECRET, files, free};
pub(crate) use primary::{Primary, tools};
pub(crate) use running::Running;
use serde_json::Value;
use shoal_agent::Revision;
use shoal_agent::{
    Applied, Batch, Clock, Edit, Epoch, Fault, Fence, Line, Moment, Observed, Outcome, Scope, Seen, Target,
    Unit, Why,
};
use shoal_dns::{Dns, Key, Node};

#[path = "../../src/fleet.rs"]
pub(crate) mod fleet;

struct Still;

impl Clock for Still {
    fn now(&self) -> Moment {
        0
    }
}

/// A fence that ends at this time of a clock that stands at 0.
pub(crate) fn fence(not_after: Moment) -> Fence {
    Fence { number: 1, not_after, epoch: Epoch(7), clock: Arc::new(Still) }
}

pub(crate) async fn observe(target: &impl Target<Dns>, zone: &str) -> Observed<Dns> {
    target.observe(&Unit::from(zone), Scope::All).await.unwrap()
}

/// The batch that makes `want` of what was seen.
pub(crate) fn batch(seen: &Observed<Dns>, want: &BTreeMap<Key, Node>, because: &Why) -> Option<Batch<Dns>> {
    let mut changes = Vec::new();
    let mut keys: Vec<&Key> = want.keys().chain(seen.seen.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let from = match seen.seen.get(key) {
            Some(Seen::Ours(have) | Seen::There(have)) => Some(have.clone()),
            _ => None,
        };
        let to = want.get(key).cloned();
        if from.as_ref().zip(to.as_ref()).is_some_and(|(from, to)| from == to)
            || (from.is_none() && to.is_none())
        {
            continue;
        }
        let (verb, token) = ("change", String::new());
        changes.push(Edit {
            key: key.clone(),
            verb,
            from,
            to,
            memo: Value::Null,
            token,
            because: because.clone(),
        });
    }
    if changes.is_empty() {
        return None;
    }
    let after = want.iter().map(|(key, node)| (key.clone(), Line::Want(Arc::new(node.clone())))).collect();
    Some(Batch { changes, after, revision: Revision(7) })
}

/// The batch that makes `want` of what was seen, but for some names that are held as they are.
pub(crate) fn keep(seen: &Observed<Dns>, want: &BTreeMap<Key, Node>, held: &[&str]) -> Batch<Dns> {
    let mut batch = batch(seen, want, &Why::Drift).unwrap();
    batch.changes.retain(|edit| !held.contains(&edit.key.to_string().as_str()));
    batch.after.retain(|(key, _)| !held.contains(&key.to_string().as_str()));
    for (key, have) in &seen.seen {
        if let (true, Seen::Ours(have)) = (held.contains(&key.to_string().as_str()), have) {
            batch.after.push((key.clone(), Line::Keep(Arc::new(have.clone()))));
        }
    }
    batch.after.sort_by(|a, b| a.0.cmp(&b.0));
    batch
}

/// One look and one batch; the outcomes by key.
pub(crate) async fn step(
    target: &impl Target<Dns>,
    zone: &str,
    want: &BTreeMap<Key, Node>,
    because: &Why,
) -> Result<BTreeMap<String, Outcome>, Fault> {
    let Some(batch) = batch(&observe(target, zone).await, want, because) else { return Ok(BTreeMap::new()) };
    let applied: Applied<Dns> = target.apply(&Unit::from(zone), &batch, &fence(1)).await?;
    Ok(applied.each.into_iter().map(|(key, outcome)| (key.to_string(), outcome)).collect())
}

/// Steps that must all succeed; how many changes there were.
pub(crate) async fn converge(target: &impl Target<Dns>, zone: &str, want: &BTreeMap<Key, Node>) -> usize {
    let outcomes = step(target, zone, want, &Why::Wanted(Revision(7))).await.unwrap();
    for (key, outcome) in &outcomes {
        assert_eq!(*outcome, Outcome::Done, "{key}");
    }
    let left = step(target, zone, want, &Why::Wanted(Revision(7))).await.unwrap();
    assert!(left.is_empty(), "something is left to do: {left:?}");
    outcomes.len()
}

/// Whether all programs are here; says so if not.
pub(crate) fn here(test: &str, programs: &[&str]) -> bool {
    let paths: Vec<_> =
        std::env::var_os("PATH").map(|p| std::env::split_paths(&p).collect()).unwrap_or_default();
    let missing = programs.iter().find(|program| {
        !paths.iter().chain(&["/usr/sbin".into(), "/sbin".into()]).any(|dir| dir.join(program).exists())
    });
    if let Some(missing) = missing {
        println!("SKIPPED: {test}: {missing} is not installed");
    }
    missing.is_none()
}

/// Waits for a condition that only the file system tells; at most a minute.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    until_async(async || condition()).await;
}

/// Waits for a condition that has to be asked for; at most a minute.
pub(crate) async fn until_async(condition: impl AsyncFn() -> bool) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(120), wait).await.expect("it did not come true");
}
