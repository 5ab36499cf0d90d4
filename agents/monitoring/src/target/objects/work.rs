//! One batch: what it touches is written, checked, switched to, and read by the server.

use std::collections::{BTreeMap, BTreeSet};

use shoal_agent::{Applied, Batch, Edit, Fault, Fence, HostName, Outcome};
use tokio::time::{Duration, Instant, sleep};

use super::draft::Draft;
use super::known::Known;
use super::tree::{Generation, Tree};
use super::{Dialect, Objects, each, hosts, key, rests};
use crate::agent::Monitoring;
use crate::item::{Item, Subject};

/// How often a candidate is mended and checked again before the batch is given up.
const ROUNDS: usize = 16;
/// How often the server is asked whether it has read what is new.
const ASKED: Duration = Duration::from_millis(20);

/// What one batch is carried out with.
pub(super) struct Work<'a, D: Dialect> {
    pub(super) objects: &'a Objects<D>,
    pub(super) link: &'a D::Link,
    pub(super) fence: &'a Fence,
}

impl<D: Dialect> Work<'_, D> {
    pub(super) async fn apply(
        &self,
        batch: &Batch<Monitoring>,
        known: &mut Known,
    ) -> Result<Applied<Monitoring>, Fault> {
        let server = known.server;
        for edit in batch.changes.iter().filter(|edit| edit.key.subject == Subject::Server) {
            known.server = edit.to.is_some();
        }
        let rewrites = known.server != server || known.generation.is_none();
        let mut draft = Draft::new(known, D::unit(self.link));
        for edit in &batch.changes {
            let Subject::Host(name) = &edit.key.subject else { continue };
            let host = edit.to.as_ref().and_then(Item::host).cloned();
            let is = draft.known.hosts.get(name);
            // What differs may be a downtime alone.
            let stands = is.is_some_and(|entry| entry.odd.is_none() && Some(&entry.host) == host.as_ref());
            if !stands && (is.is_some() || host.is_some()) {
                draft.put(name, host);
            }
        }
        if (rewrites || !draft.touched.is_empty())
            && let Err(fault) = self.candidate(&mut draft).await
        {
            draft.undo();
            known.server = server;
            return Err(fault);
        }
        let faults = std::mem::take(&mut draft.faults);
        drop(draft);
        known.unsettled = false;
        let current = known.generation.as_ref().map(|generation| generation.name.clone());
        if !self.objects.shows(self.link, &current.unwrap_or_default()).await {
            self.load(batch, known).await?;
        }
        let (told, shows) = self.downtimes(batch, &faults, known).await?;
        let mut applied = each(batch, |name| match name.and_then(|name| faults.get(name)) {
            Some(fault) => Outcome::Failed(fault.clone()),
            None => Outcome::Done,
        });
        if let Some(shows) = shows {
            // What the server was told shows when it next says what it knows.
            let look_again = self.fence.clock.now() + millis(shows);
            for (_, outcome) in applied.each.iter_mut().filter(|(key, _)| told.contains(&key.subject)) {
                if *outcome == Outcome::Done {
                    *outcome = Outcome::Running { memo: serde_json::Value::Null, look_again };
                }
            }
        }
        // Others lost something, too: they are decided on again.
        let others = faults.into_keys().map(|name| key::<D>(Subject::Host(name)));
        let missing = others.filter(|key| batch.changes.iter().all(|edit| edit.key != *key));
        applied.each.extend(missing.map(|key| (key, Outcome::Stale)));
        Ok(applied)
    }

    /// Writes a candidate that the checker accepts, and has `current` lead to it.
    async fn candidate(&self, draft: &mut Draft<'_>) -> Result<(), Fault> {
        let Objects { tree, dialect, .. } = self.objects;
        let before = draft.known.generation.clone().unwrap_or_default();
        for _ in 0..ROUNDS {
            let name = Tree::next(&before);
            let shards = draft.render::<D>();
            let server_file = draft.known.server_file::<D>(draft.known.server.then_some(&*name));
            let (on, from) = (tree.clone(), before.clone());
            let written = move || on.write(&from, &name, &shards, &server_file);
            let candidate = tokio::task::spawn_blocking(written)
                .await
                .map_err(|e| self.objects.fault("write a candidate into", e))?
                .map_err(|e| self.objects.fault("write a candidate into", e))?;
            let path = tree.generation_path(&candidate.name);
            let Err(complaint) = dialect.check(self.link, tree, &path).await? else {
                return self.switch(draft, &before, candidate).await;
            };
            let mended = draft.leave_out_all::<D>(D::blame(&complaint, &path));
            // Of what was not accepted nothing is needed any more.
            self.objects.prepare().await;
            if !mended {
                let errors: Vec<_> = complaint.lines().filter(|line| line.contains("Error")).collect();
                let why = if errors.is_empty() { complaint } else { errors.join("; ") };
                return Err(Fault::new(format!("check what {} is to read", D::NAME), why)
                    .next("if it is about what somebody else configured, correct it there")
                    .permanent());
            }
        }
        let why = format!("{ROUNDS} rounds of leaving out bad definitions did not help");
        Err(Fault::new(format!("check what {} is to read", D::NAME), why))
    }

    async fn switch(
        &self,
        draft: &mut Draft<'_>,
        before: &Generation,
        candidate: Generation,
    ) -> Result<(), Fault> {
        // What the server has read is something to go back to.
        let is_good = self.objects.shows(self.link, &before.name).await;
        self.fence.check()?;
        let tree = &self.objects.tree;
        tree.switch(&candidate, is_good).map_err(|e| self.objects.fault("switch", e))?;
        draft.known.now(tree, candidate).map_err(|e| self.objects.fault("look into", e))
    }

    /// Has the server read what is there, and makes sure that it has; if not, it gets the last good files back.
    async fn load(&self, batch: &Batch<Monitoring>, known: &mut Known) -> Result<(), Fault> {
        let Objects { tree, dialect, .. } = self.objects;
        if !dialect.tells() {
            return tree.settle().map_err(|e| self.objects.fault("tidy", e));
        }
        let goes = |edit: &&Edit<Monitoring>| edit.to.is_none() && edit.from.as_ref().is_some_and(rests);
        // While the server still knows them.
        let leaving: Vec<&HostName> =
            hosts(batch).filter(|(edit, _)| goes(edit)).map(|(_, name)| name).collect();
        dialect.reload(self.link, &leaving).await?;
        let mark =
            known.generation.as_ref().filter(|_| known.server).map(|generation| generation.name.clone());
        let read = self.comes_to_read(mark.as_deref()).await;
        self.fence.check()?;
        if read {
            return tree.settle().map_err(|e| self.objects.fault("tidy", e));
        }
        let back = tree.put_back().map_err(|e| self.objects.fault("put the last good files back into", e))?;
        known.unsettled = true;
        let fault = Fault::new(
            format!("have {} read what is new", D::NAME),
            format!("it has not within {} seconds", dialect.patience().as_secs()),
        );
        if !back {
            return Err(fault.next("see its log; there is nothing earlier to go back to"));
        }
        if let Err(again) = dialect.reload(self.link, &[]).await {
            tracing::warn!("the last good files are back, and {again}");
        }
        Err(fault.next("see its log; the last good files are back in their place"))
    }

    /// Waits until the server has read what bears this mark, or none.
    async fn comes_to_read(&self, wanted: Option<&str>) -> bool {
        let end = Instant::now() + self.objects.dialect.patience();
        loop {
            // One that reads its configuration may not answer meanwhile.
            if self.objects.dialect.has_read(self.link).await.is_ok_and(|mark| mark.as_deref() == wanted) {
                return true;
            }
            if Instant::now() >= end {
                return false;
            }
            sleep(ASKED).await;
        }
    }

    /// Begins and ends downtimes, now that the server knows the hosts. Answers of which, and when that shows.
    async fn downtimes(
        &self,
        batch: &Batch<Monitoring>,
        faults: &BTreeMap<HostName, Fault>,
        known: &mut Known,
    ) -> Result<(BTreeSet<Subject>, Option<Duration>), Fault> {
        let (mut begin, mut end) = (Vec::new(), Vec::new());
        for (edit, name) in
            hosts(batch).filter(|(_, name)| !faults.contains_key(*name) || known.hosts.contains_key(*name))
        {
            let Some(want) = edit.to.as_ref().and_then(Item::host) else { continue };
            if want.rests() {
                begin.push(name);
            } else if edit.from.as_ref().is_some_and(rests) {
                end.push(name);
            }
        }
        if begin.is_empty() && end.is_empty() || !self.objects.dialect.tells() {
            return Ok((BTreeSet::new(), None));
        }
        self.fence.check()?;
        let shows = self.objects.dialect.rest(self.link, &begin, &end).await?;
        begin.iter().for_each(|name| known.told((*name).clone(), true));
        end.iter().for_each(|name| known.told((*name).clone(), false));
        let told = begin.into_iter().chain(end).map(|name| Subject::Host(name.clone()));
        Ok((told.collect(), shows))
    }
}

fn millis(span: Duration) -> shoal_agent::Millis {
    span.as_millis().try_into().unwrap_or(shoal_agent::Millis::MAX / 4)
}
