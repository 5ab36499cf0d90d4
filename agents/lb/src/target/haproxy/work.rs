//! A batch of changes of one pool: at run time, in the file, and by a reload where it has to be.

use std::collections::{BTreeMap, BTreeSet};

use shoal_agent::{Applied, Batch, Edit, Fault, Fence, HostName, Outcome, TagName, files, owner};

use super::{ENDING, Haproxy, Language, live, render};
use crate::agent::Lb;
use crate::item::{Have, Item, Key, Pool, Server, Standing};
use crate::leave::{DRAIN_VERB, FINISH, LOOK, Leaving, Told};
use crate::target::facts;
use crate::target::file::{self, Kept, Line, Said};

const KIND: owner::Kind<'static> =
    owner::Kind { what: "folder of pools", files: "pools", page: "docs/agents/lb.md" };

/// What became of each change so far.
type Each = BTreeMap<Key, Outcome>;

/// What is to be done about one server.
#[derive(Clone, Copy, Debug)]
enum Do<'b> {
    Put(&'b Server),
    Drain,
    Finish,
    Remove,
}

impl<'b> Do<'b> {
    fn of(edit: &'b Edit<Lb>) -> Self {
        match &edit.to {
            Some(Item::Server(server)) => Self::Put(server),
            _ if edit.verb == DRAIN_VERB => Self::Drain,
            _ if edit.verb == FINISH => Self::Finish,
            _ => Self::Remove,
        }
    }
}

impl Haproxy {
    /// Makes the changes of a pool.
    pub(in crate::target) async fn apply(
        &self,
        tag: &TagName,
        batch: &Batch<Lb>,
        fence: &Fence,
    ) -> Result<Applied<Lb>, Fault> {
        let name = tag.key();
        fence.check()?;
        owner::claim(&self.settings.directory, fence.epoch, &KIND)?;
        let of_pool = batch.changes.iter().find(|edit| edit.key.host.is_none());
        if let Some(Edit { to: None, .. }) = of_pool {
            return self.remove(name, batch).await;
        }
        let pool = match (of_pool.and_then(|edit| edit.to.as_ref()), self.pool(name)?) {
            (Some(Item::Pool(pool)), _) => pool.clone(),
            (_, Some(pool)) => pool,
            (_, None) => return Ok(no_pool(batch)),
        };
        let mut each = Each::new();
        self.keep_least(name, &pool, batch, &mut each).await?;
        let mut loads = self.settings.tell && (of_pool.is_some() || !self.settings.runtime);
        if self.settings.tell && !loads {
            let form = live::form(&self.stats, &render::variable(name)).await?;
            loads = form != Some(render::form(&pool));
        }
        if self.settings.tell && !loads {
            fence.check()?;
            self.at_run_time(name, &pool, batch, fence, &mut each).await?;
        }
        // In effect; from here on it may take as long as the pool is large.
        let before = self.said(name)?;
        let servers = before.as_ref().map(|said| said.servers.clone()).unwrap_or_default();
        let mut after = Said { pool, whole: true, servers };
        for edit in &batch.changes {
            if let Some(host) = edit.key.host.as_ref().filter(|_| !each.contains_key(&edit.key)) {
                enter(&mut after, host, Do::of(edit));
            }
        }
        self.put(name, before.as_ref(), &after, loads).await?;
        if batch.changes.iter().any(|edit| matches!(Do::of(edit), Do::Finish)) {
            self.close_left_behind(name, batch, fence).await?;
        }
        let facts = self.facts(name, batch, &each)?;
        let outcome =
            |edit: &Edit<Lb>| (edit.key.clone(), each.remove(&edit.key).unwrap_or_else(|| done(edit, fence)));
        Ok(Applied { each: batch.changes.iter().map(outcome).collect(), facts })
    }

    /// Puts the file in place and, where that has to be, makes HAProxy read it; else what stood there stands there again.
    async fn put(&self, name: &str, before: Option<&Said>, after: &Said, loads: bool) -> Result<(), Fault> {
        let coming = loads.then(|| self.reload.coming());
        let text = file::text(&Language, name, after);
        let old = std::fs::read_to_string(self.path(name)).ok();
        if old.as_ref() != Some(&text) {
            self.place(name, Some(&text)).await?;
        }
        let Some(coming) = coming else { return Ok(()) };
        let reloaded = self.reload.run(&self.stats, &self.master, coming).await;
        if reloaded.is_err() && (before.is_none() || old.is_some()) {
            files::put(&self.path(name), old.as_deref())?;
        }
        reloaded
    }

    /// Refuses to take a server out of work that the pool cannot do without.
    async fn keep_least(
        &self,
        name: &str,
        pool: &Pool,
        batch: &Batch<Lb>,
        each: &mut Each,
    ) -> Result<(), Fault> {
        let leaves = |edit: &&Edit<Lb>| edit.key.host.is_some() && edit.to.is_none();
        let leaving: Vec<_> = batch.changes.iter().filter(leaves).collect();
        if leaving.is_empty() {
            return Ok(());
        }
        let Some(live) = self.live(name).await? else { return Ok(()) };
        let mut spare = live.at_work.saturating_sub(pool.least);
        for edit in leaving {
            let serves = |host| live.servers.get(host).is_some_and(|running| running.serves);
            if !edit.key.host.as_ref().is_some_and(serves) {
                continue;
            }
            match spare.checked_sub(1) {
                Some(rest) => spare = rest,
                None => drop(each.insert(edit.key.clone(), Outcome::Stale)),
            }
        }
        Ok(())
    }

    async fn at_run_time(
        &self,
        name: &str,
        pool: &Pool,
        batch: &Batch<Lb>,
        fence: &Fence,
        each: &mut Each,
    ) -> Result<(), Fault> {
        let edits = batch.changes.iter().filter(|edit| !each.contains_key(&edit.key));
        let edits: Vec<_> = edits.filter_map(|edit| Some((edit, edit.key.host.as_ref()?))).collect();
        let groups: Vec<_> = edits.iter().map(|(edit, host)| commands(name, pool, edit, host)).collect();
        let answers = self.stats.tell(&groups, &render::variable(name)).await?;
        for ((edit, _), said) in edits.into_iter().zip(answers) {
            if let Some(outcome) = complaint(edit, &said, fence) {
                each.insert(edit.key.clone(), outcome);
            }
        }
        Ok(())
    }

    /// Closes connections in the processes that a reload left behind, of servers whose deadline has passed.
    async fn close_left_behind(&self, name: &str, batch: &Batch<Lb>, fence: &Fence) -> Result<(), Fault> {
        if !self.settings.tell {
            return Ok(());
        }
        let late = |edit: &&Edit<Lb>| {
            let leaving = Leaving::of(&edit.memo);
            edit.verb == FINISH && leaving.is_some_and(|leaving| leaving.until <= fence.clock.now())
        };
        let hosts: Vec<_> =
            batch.changes.iter().filter(late).filter_map(|edit| edit.key.host.as_ref()).collect();
        if hosts.is_empty() {
            return Ok(());
        }
        for pid in live::old_workers(&self.master.ask("show proc").await?) {
            for host in &hosts {
                self.master.ask(&format!("@!{pid} shutdown sessions server {name}/{host}")).await?;
            }
        }
        Ok(())
    }

    /// The pool goes as a whole, with one reload: what goes on in the process before ends by itself.
    async fn remove(&self, name: &str, batch: &Batch<Lb>) -> Result<Applied<Lb>, Fault> {
        let before = self.said(name)?;
        let old = std::fs::read_to_string(self.path(name)).ok();
        let coming = self.reload.coming();
        if before.is_some() {
            self.place(name, None).await?;
        }
        if self.settings.tell
            && let Err(fault) = self.reload.run(&self.stats, &self.master, coming).await
        {
            files::put(&self.path(name), old.as_deref())?;
            return Err(fault);
        }
        let named: BTreeSet<&HostName> =
            batch.changes.iter().filter_map(|edit| edit.key.host.as_ref()).collect();
        let tag = batch.changes[0].key.pool.clone();
        let hosts: BTreeSet<HostName> =
            before.map(|said| said.servers.into_keys().collect()).unwrap_or_default();
        let facts = facts::of(&Language, &self.settings.directory, ENDING, &hosts, (name, &BTreeSet::new()))?;
        let outcome = |edit: &Edit<Lb>| {
            let outcome = if edit.to.is_none() { Outcome::Done } else { Outcome::Stale };
            (edit.key.clone(), outcome)
        };
        let mut each: Vec<_> = batch.changes.iter().map(outcome).collect();
        let others = hosts.iter().filter(|host| !named.contains(host));
        each.extend(others.map(|host| (Key { pool: tag.clone(), host: Some(host.clone()) }, Outcome::Stale)));
        Ok(Applied { each, facts })
    }

    /// What is to be reported of hosts that begin to serve or have drained.
    fn facts(&self, name: &str, batch: &Batch<Lb>, each: &Each) -> Result<Vec<shoal_agent::Change>, Fault> {
        let (mut hosts, mut drained) = (BTreeSet::new(), BTreeSet::new());
        for edit in batch.changes.iter().filter(|edit| !each.contains_key(&edit.key)) {
            let Some(host) = &edit.key.host else { continue };
            match Do::of(edit) {
                Do::Put(_) if Told::is(&edit.memo) => continue,
                Do::Remove => continue,
                Do::Finish => drop(drained.insert(host.clone())),
                Do::Put(_) | Do::Drain => {}
            }
            hosts.insert(host.clone());
        }
        facts::of(&Language, &self.settings.directory, ENDING, &hosts, (name, &drained))
    }
}

/// Without a pool there is nothing that a server could be in.
fn no_pool(batch: &Batch<Lb>) -> Applied<Lb> {
    let outcome = |edit: &Edit<Lb>| {
        let fault = Fault::new(format!("{} {}", edit.verb, edit.key), "its pool has no file yet");
        let outcome = if edit.to.is_none() { Outcome::Done } else { Outcome::Failed(fault) };
        (edit.key.clone(), outcome)
    };
    Applied { each: batch.changes.iter().map(outcome).collect(), facts: Vec::new() }
}

fn standing(edit: &Edit<Lb>) -> Option<&Standing> {
    match &edit.from {
        Some(Have::Server(standing)) => Some(standing),
        _ => None,
    }
}

/// Enters a change into what the file says.
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

/// What HAProxy is told of a server.
fn commands(name: &str, pool: &Pool, edit: &Edit<Lb>, host: &HostName) -> Vec<String> {
    let at = format!("{name}/{host}");
    match Do::of(edit) {
        Do::Drain => vec![format!("set server {at} state drain")],
        Do::Finish => vec![format!("shutdown sessions server {at}")],
        Do::Remove => vec![format!("set server {at} state maint"), format!("del server {at}")],
        Do::Put(server) if standing(edit).is_some_and(|standing| standing.known) => vec![
            format!("set server {at} addr {} port {}", server.address, server.port),
            format!("set server {at} weight {}", server.weight),
            format!("set server {at} state ready"),
        ],
        Do::Put(server) => {
            let (socket, options) = (render::socket(server), render::options(pool, server.weight));
            let mut all = vec![format!("add server {at} {socket} {options}")];
            all.extend(pool.check.is_some().then(|| format!("enable health {at}")));
            all.push(format!("set server {at} state ready"));
            all
        }
    }
}

/// What a complaint of HAProxy means; nothing: all went well.
fn complaint(edit: &Edit<Lb>, said: &str, fence: &Fence) -> Option<Outcome> {
    let gone = said.contains("No such server");
    match Do::of(edit) {
        _ if said.is_empty() => None,
        Do::Drain | Do::Finish | Do::Remove if gone => None,
        // Some connection of it is still open, or is kept for later: it is not long.
        Do::Remove if said.contains("connections") => {
            Some(Outcome::Running { memo: edit.memo.clone(), look_again: fence.clock.now() + LOOK })
        }
        Do::Put(_) if gone || said.contains("Already exists") => Some(Outcome::Stale),
        _ => Some(Outcome::Failed(Fault::new(format!("{} {}", edit.verb, edit.key), said))),
    }
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
