//! What a change of a pool means, whatever the load balancer: what is to be done, what the file says then, and what became of it.

use std::collections::{BTreeMap, BTreeSet};

use shoal_agent::{Applied, Batch, Change, Edit, Fault, Fence, HostName, Moment, Outcome};

use super::facts::Report;
use super::file::{Kept, Line, Said};
use crate::agent::Lb;
use crate::item::{Item, Key, Pool, Server};
use crate::leave::{DRAIN_VERB, FINISH, Leaving, Told};

/// What became of each change so far.
pub(super) type Each = BTreeMap<Key, Outcome>;

/// What is to be done about one server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Do<'b> {
    Put(&'b Server),
    Drain,
    Finish,
    Remove,
}

impl<'b> Do<'b> {
    pub(super) fn of(edit: &'b Edit<Lb>) -> Self {
        match &edit.to {
            Some(Item::Server(server)) => Self::Put(server),
            _ if edit.verb == DRAIN_VERB => Self::Drain,
            _ if edit.verb == FINISH => Self::Finish,
            _ => Self::Remove,
        }
    }
}

/// The change of the pool as a whole, if there is one.
pub(super) fn of_pool(batch: &Batch<Lb>) -> Option<&Edit<Lb>> {
    batch.changes.iter().find(|edit| edit.key.host.is_none())
}

/// What the pool is to be: as it is wanted now, or as its file says. `None`: it has neither.
pub(super) fn pool_of(batch: &Batch<Lb>, stands: Option<Pool>) -> Option<Pool> {
    match (of_pool(batch).and_then(|edit| edit.to.as_ref()), stands) {
        (Some(Item::Pool(pool)), _) => Some(pool.clone()),
        (_, stands) => stands,
    }
}

/// Refuses those that the pool cannot do without: `spare` may go, of those that do its work.
pub(super) fn keep_least(
    batch: &Batch<Lb>,
    mut spare: u32,
    each: &mut Each,
    serves: impl Fn(&HostName) -> bool,
) {
    for edit in batch.changes.iter().filter(|edit| edit.to.is_none()) {
        if !edit.key.host.as_ref().is_some_and(&serves) {
            continue;
        }
        match spare.checked_sub(1) {
            Some(rest) => spare = rest,
            None => drop(each.insert(edit.key.clone(), Outcome::Stale)),
        }
    }
}

/// Whether anybody is to leave.
pub(super) fn anybody_leaves(batch: &Batch<Lb>) -> bool {
    leaving(batch) > 0
}

/// How many are to leave.
pub(super) fn leaving(batch: &Batch<Lb>) -> u32 {
    let leave = batch.changes.iter().filter(|edit| edit.key.host.is_some() && edit.to.is_none());
    u32::try_from(leave.count()).unwrap_or(u32::MAX)
}

/// Enters the changes of servers of which nothing became yet.
pub(super) fn enter_all(said: &mut Said, batch: &Batch<Lb>, each: &Each) {
    for edit in batch.changes.iter().filter(|edit| !each.contains_key(&edit.key)) {
        if let Some(host) = &edit.key.host {
            enter(said, host, Do::of(edit));
        }
    }
}

fn enter(said: &mut Said, host: &HostName, what: Do<'_>) {
    match what {
        Do::Put(server) => {
            let kept = Kept { host: host.clone(), server: server.clone(), draining: false };
            said.servers.insert(host.clone(), Line::Made(kept));
        }
        Do::Drain => {
            if let Some(Line::Made(kept)) = said.servers.get_mut(host) {
                kept.draining = true;
            }
        }
        Do::Finish => {}
        Do::Remove => drop(said.servers.remove(host)),
    }
}

/// What is to be reported of hosts that begin to serve or have drained.
pub(super) fn report(batch: &Batch<Lb>, each: &Each) -> Report {
    let mut report = Report::default();
    for edit in batch.changes.iter().filter(|edit| !each.contains_key(&edit.key)) {
        let Some(host) = &edit.key.host else { continue };
        match Do::of(edit) {
            Do::Put(_) if Told::is(&edit.memo) => continue,
            // Once more when it is gone: of several pools that it leaves at once, each may have drained before the others said so,
            // and the last one to remove it sees that.
            Do::Finish | Do::Remove => drop(report.drained.insert(host.clone())),
            Do::Put(_) | Do::Drain => {}
        }
        report.hosts.insert(host.clone());
    }
    report
}

/// What is to be reported where there is no pool: whoever was in it has left it.
pub(super) fn report_no_pool(batch: &Batch<Lb>) -> Report {
    let gone = batch.changes.iter().filter(|edit| edit.to.is_none());
    let hosts: BTreeSet<HostName> = gone.filter_map(|edit| edit.key.host.clone()).collect();
    Report { drained: hosts.clone(), hosts }
}

/// What became of a batch.
pub(super) fn applied(batch: &Batch<Lb>, mut each: Each, fence: &Fence, facts: Vec<Change>) -> Applied<Lb> {
    let outcome =
        |edit: &Edit<Lb>| (edit.key.clone(), each.remove(&edit.key).unwrap_or_else(|| done(edit, fence)));
    Applied { each: batch.changes.iter().map(outcome).collect(), facts }
}

/// What became of a batch that took the whole pool away with these hosts; `later`: when to look again, because that has to be written
/// down first.
pub(super) fn removed(
    batch: &Batch<Lb>,
    hosts: &BTreeSet<HostName>,
    facts: Vec<Change>,
    later: Option<Moment>,
) -> Applied<Lb> {
    let outcome = |edit: &Edit<Lb>| {
        let outcome = match (later, &edit.key.host) {
            _ if edit.to.is_some() => Outcome::Stale,
            (Some(look_again), None) => Outcome::Running { memo: Told::memo(), look_again },
            _ => Outcome::Done,
        };
        (edit.key.clone(), outcome)
    };
    let mut each: Vec<_> = batch.changes.iter().map(outcome).collect();
    let named: BTreeSet<&HostName> = batch.changes.iter().filter_map(|edit| edit.key.host.as_ref()).collect();
    if let Some(first) = batch.changes.first() {
        let others = hosts.iter().filter(|host| !named.contains(host));
        let key = |host: &HostName| Key { host: Some(host.clone()), ..first.key.clone() };
        each.extend(others.map(|host| (key(host), Outcome::Stale)));
    }
    Applied { each, facts }
}

/// Without a pool there is nothing that a server could be in.
pub(super) fn no_pool(batch: &Batch<Lb>, facts: Vec<Change>) -> Applied<Lb> {
    let outcome = |edit: &Edit<Lb>| {
        let fault = Fault::new(format!("{} {}", edit.verb, edit.key), "its pool has no file yet");
        let outcome = if edit.to.is_none() { Outcome::Done } else { Outcome::Failed(fault) };
        (edit.key.clone(), outcome)
    };
    Applied { each: batch.changes.iter().map(outcome).collect(), facts }
}

/// What became of a change that went well.
fn done(edit: &Edit<Lb>, fence: &Fence) -> Outcome {
    let now = fence.clock.now();
    match (Do::of(edit), Leaving::of(&edit.memo)) {
        (Do::Drain, Some(leaving)) => Outcome::Running { memo: leaving.memo(), look_again: now },
        (Do::Finish, Some(leaving)) => {
            Outcome::Running { memo: Leaving { drained: true, ..leaving }.memo(), look_again: now }
        }
        // What was reported is remembered together with the report.
        (Do::Put(_), _) if edit.key.host.is_some() && !Told::is(&edit.memo) => {
            Outcome::Running { memo: Told::memo(), look_again: now }
        }
        _ => Outcome::Done,
    }
}
