//! A batch of changes of one pool: at run time, in the file, and by a reload where it has to be.

use std::collections::{BTreeMap, BTreeSet};

use shoal_agent::{Applied, Batch, Edit, Fault, Fence, HostName, Outcome, TagName, owner};

use super::live::Backend;
use super::words::standing;
use super::{Haproxy, live, render};
use crate::agent::Lb;
use crate::item::{Pool, Server, Standing};
use crate::leave::{FINISH, LOOK, Leaving, Told};
use crate::target::changes::{self, Do, Each};
use crate::target::facts::Report;
use crate::target::file::{self, Line, Said};

const KIND: owner::Kind<'static> =
    owner::Kind { what: "folder of pools", files: "pools", page: "docs/agents/lb.md" };

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
        let of_pool = changes::of_pool(batch);
        if let Some(Edit { to: None, .. }) = of_pool {
            return self.remove(name, batch, fence).await;
        }
        let Some(pool) = changes::pool_of(batch, self.pool(name)?) else {
            let facts = self.facts(name, &changes::report_no_pool(batch)).await?;
            return Ok(changes::no_pool(batch, facts));
        };
        self.language.takes(name, &pool)?;
        let mut each = Each::new();
        let live = self.keep_least(name, &pool, batch, &mut each).await?;
        // Of a reload that was never ended, and of a file that was edited before somebody's reload, only another one tells what runs.
        let anew = !self.settings.runtime
            || self.unsettled(name)?.is_some()
            || batch.changes.iter().any(changes_kind);
        let edited = || Ok::<_, Fault>(self.said(name)?.is_some_and(|said| !said.whole));
        let mut loads = self.settings.tell && (anew || of_pool.is_some() && edited()?);
        if self.settings.tell && !loads {
            let form = match live {
                Some(live) => live.form,
                None => live::form(&self.stats, &render::variable(name)).await?,
            };
            loads = form != Some(render::form(&pool));
        }
        let told = self.reloads.moment();
        if self.settings.tell && !loads {
            fence.check()?;
            self.at_run_time(name, &pool, batch, fence, &mut each).await?;
        }
        // In effect; from here on it may take as long as the pool is large.
        let servers = match self.said(name)? {
            Some(said) => said.servers,
            // Somebody took the file away: whoever is at work stays there, whether this batch is about them or not.
            None => self.as_it_runs(name, &pool).await?,
        };
        let mut after = Said { pool, whole: true, servers };
        changes::enter_all(&mut after, batch, &each);
        self.put(name, &after, loads).await?;
        if self.settings.tell && !loads && self.reloads.any_since(&told) {
            // For another pool: the new process may have read this one's file as it was, and have heard nothing.
            self.reload(name, self.reloads.coming()).await?;
        }
        if batch.changes.iter().any(|edit| matches!(Do::of(edit), Do::Finish)) {
            self.close_left_behind(name, batch, fence).await?;
        }
        let facts = self.facts(name, &changes::report(batch, &each)).await?;
        Ok(changes::applied(batch, each, fence, facts))
    }

    /// The servers that HAProxy has in a pool whose file is gone. Where it runs with this form of the pool, that is put in place at
    /// once: what comes next may need a reload, and what else is gone may not allow one.
    async fn as_it_runs(&self, name: &str, pool: &Pool) -> Result<BTreeMap<HostName, Line>, Fault> {
        let Some(live) = self.live(name).await?.filter(|live| live.there) else { return Ok(BTreeMap::new()) };
        let servers = live.as_it_runs();
        if live.form == Some(render::form(pool)) {
            let said = Said { pool: pool.clone(), whole: true, servers: servers.clone() };
            self.place(name, Some(&file::text(&self.language, name, &said))).await?;
        }
        Ok(servers)
    }

    /// Puts the file in place and, where that has to be, makes HAProxy read it; else what stood there stands there again.
    async fn put(&self, name: &str, after: &Said, loads: bool) -> Result<(), Fault> {
        let coming = loads.then(|| self.reloads.coming());
        let text = file::text(&self.language, name, after);
        let found = self.stands(name)?;
        let good = if loads { self.keep_good(name)? } else { None };
        let placed = match found.as_ref() == Some(&text) {
            true => Ok(()),
            false => self.place(name, Some(&text)).await,
        };
        let Some(coming) = coming else { return placed };
        let loaded = match placed {
            Ok(()) => self.reload(name, coming).await,
            Err(fault) => Err(fault),
        };
        match loaded {
            Ok(()) => self.settled(name),
            Err(fault) => {
                self.go_back(name, good.as_deref(), [found.as_deref(), Some(&text)])?;
                Err(fault)
            }
        }
    }

    /// Refuses to take a server out of work that the pool cannot do without. Answers what HAProxy said of the pool, where it was asked:
    /// of its servers only where not all who are to leave can be spared, because that takes as long as the pool is large.
    async fn keep_least(
        &self,
        name: &str,
        pool: &Pool,
        batch: &Batch<Lb>,
        each: &mut Each,
    ) -> Result<Option<Backend>, Fault> {
        let leaving = changes::leaving(batch);
        if leaving == 0 || !self.settings.tell {
            return Ok(None);
        }
        let variable = render::variable(name);
        let summary = live::summary(&self.stats, name, &variable).await?;
        if summary.at_work.saturating_sub(pool.least) >= leaving {
            return Ok(Some(summary));
        }
        let live = live::backend(&self.stats, name, &variable).await?;
        let spare = live.at_work.saturating_sub(pool.least);
        changes::keep_least(batch, spare, each, |host| {
            live.servers.get(host).is_some_and(|running| running.serves)
        });
        Ok(Some(live))
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
        let told = edits.filter_map(|edit| {
            let commands = self.language.commands(name, pool, edit, edit.key.host.as_ref()?);
            (!commands.is_empty()).then_some((edit, commands))
        });
        let (edits, groups): (Vec<_>, Vec<_>) = told.unzip();
        let answers = self.stats.tell(&groups, &render::variable(name)).await?;
        for (edit, said) in edits.into_iter().zip(answers) {
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
                let command = format!("shutdown sessions server {name}/{host}");
                live::ask_old(&self.master, pid, &command).await?;
            }
        }
        Ok(())
    }

    /// The pool goes as a whole, with one reload: what goes on in the process before ends by itself.
    ///
    /// Its file is kept beside until it is written down what became of its servers: it is all that tells whose they were.
    async fn remove(&self, name: &str, batch: &Batch<Lb>, fence: &Fence) -> Result<Applied<Lb>, Fault> {
        let stands = self.stands(name)?;
        // Where its file is gone already, HAProxy and the batch still name servers.
        let live = self.live(name).await?;
        let there = stands.is_some() || live.as_ref().is_some_and(|live| live.there);
        let told = batch.changes.iter().any(|edit| edit.key.host.is_none() && Told::is(&edit.memo));
        if told && !there {
            self.settled(name)?;
            return Ok(changes::removed(batch, &BTreeSet::new(), Vec::new(), None));
        }
        let before = match self.unsettled(name)?.filter(|_| stands.is_none()) {
            Some(text) => file::read(&self.language, name, &text).ok(),
            None => self.said(name)?,
        };
        if there {
            self.take_away(name, stands.as_deref()).await?;
        }
        let named = batch.changes.iter().filter_map(|edit| edit.key.host.clone());
        let kept = before.into_iter().flat_map(|said| said.servers.into_keys());
        let running = live.into_iter().flat_map(|live| live.servers.into_keys());
        let report = Report { hosts: kept.chain(running).chain(named).collect(), ..Report::default() };
        let facts = self.facts(name, &report).await?;
        let later = self.unsettled(name)?.map(|_| fence.clock.now());
        Ok(changes::removed(batch, &report.hosts, facts, later))
    }

    /// Takes a pool's file away, if it has one, and makes HAProxy do without.
    async fn take_away(&self, name: &str, found: Option<&str>) -> Result<(), Fault> {
        let coming = self.reloads.coming();
        let has_file = found.is_some();
        let good = if has_file { self.keep_good(name)? } else { None };
        let placed = if has_file { self.place(name, None).await } else { Ok(()) };
        let loaded = match placed {
            Ok(()) if self.settings.tell => self.reload(name, coming).await,
            placed => placed,
        };
        match loaded {
            Ok(()) if self.settings.tell => Ok(()),
            Ok(()) => self.settled(name),
            Err(fault) if has_file => {
                self.go_back(name, good.as_deref(), [found, None])?;
                Err(fault)
            }
            Err(fault) => Err(fault),
        }
    }
}

/// Whether a server is to become a backup or none any more: HAProxy takes that from its files alone.
pub(super) fn changes_kind(edit: &Edit<Lb>) -> bool {
    // Of one that was made and not looked at since, what it was made as says it.
    let made = |standing: &Standing| standing.running().map(|runs| runs.backup);
    let runs = standing(edit).and_then(|standing| standing.backup.or_else(|| made(standing)));
    matches!((Do::of(edit), runs), (Do::Put(Server { backup, .. }), Some(runs)) if *backup != runs)
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
