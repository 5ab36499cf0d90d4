//! One batch: what it touches is written, checked, switched to, and read by the server.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use shoal_agent::{Applied, Batch, Edit, Fault, Fence, HostName, Outcome};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Duration, Instant, sleep};

use super::draft::Draft;
use super::known::Known;
use super::tree::{Generation, Piece, Shard, Spare, Texts, Tree, Written};
use super::vault::Vault;
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
        let mut rewrites = known.generation.is_none();
        for edit in batch.changes.iter().filter(|edit| edit.key.subject == Subject::Server) {
            known.server = edit.to.is_some();
            rewrites |= known.unlike || self.rotated(known);
        }
        rewrites |= known.server != server;
        let mut draft = Draft::new(known, D::unit(self.link));
        self.take(batch, &mut draft);
        let faults = if rewrites || draft.defines() || !draft.touched.is_empty() {
            match self.candidate(&mut draft).await {
                Ok(true) => {}
                Ok(false) => {
                    draft.undo();
                    known.unsettled = true;
                    known.server = server;
                    return Ok(each(batch, |_| Outcome::Stale));
                }
                Err(fault) => {
                    draft.undo();
                    known.server = server;
                    return Err(fault);
                }
            }
            std::mem::take(&mut draft.faults)
        } else {
            BTreeMap::new()
        };
        drop(draft);
        known.unsettled = false;
        let done = self.show(batch, &faults, known).await;
        // Whatever came of it, what was switched to is durable before anybody hears of it.
        self.sealed(known).await?;
        done
    }

    /// What is wanted, into the draft.
    fn take(&self, batch: &Batch<Monitoring>, draft: &mut Draft<'_>) {
        for edit in &batch.changes {
            match &edit.key.subject {
                Subject::Server | Subject::Rules(_) => {}
                Subject::Definition(kind, name) => {
                    let definition = edit.to.as_ref().and_then(Item::definition).cloned();
                    draft.define((*kind, name.clone()), definition);
                }
                Subject::Host(name) => {
                    let host = edit.to.as_ref().and_then(Item::host).cloned();
                    let is = draft.known.hosts.get(name);
                    // What differs may be a downtime alone.
                    let stands =
                        is.is_some_and(|entry| entry.odd.is_none() && Some(&entry.host) == host.as_ref());
                    if !stands && (is.is_some() || host.is_some()) {
                        draft.put(name, host);
                    }
                }
            }
        }
    }

    /// Whether the node has other values of secrets than what stands there.
    fn rotated(&self, known: &Known) -> bool {
        let can_hold = self.objects.dialect.holds_secrets(self.link, &self.objects.tree);
        known.secrets(&self.objects.secrets, &can_hold).0 != known.vault
    }

    /// Has the server read what stands there, and says what became of the batch.
    async fn show(
        &self,
        batch: &Batch<Monitoring>,
        faults: &BTreeMap<Subject, Fault>,
        known: &mut Known,
    ) -> Result<Applied<Monitoring>, Fault> {
        let current = known.generation.as_ref().map(|generation| generation.name.clone());
        if !self.objects.shows(self.link, &current.unwrap_or_default()).await {
            self.load(batch, known).await?;
        } else if !self.objects.dialect.tells() {
            self.settle(known).await?;
        }
        let (told, shows) = self.downtimes(batch, faults, known).await?;
        let mut applied = each(batch, |subject| match faults.get(subject) {
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
        let others = faults.keys().map(|subject| key::<D>(subject.clone()));
        let missing = others.filter(|key| batch.changes.iter().all(|edit| edit.key != *key));
        applied.each.extend(missing.map(|key| (key, Outcome::Stale)));
        Ok(applied)
    }

    /// Writes a candidate that the checker accepts, and has `current` lead to it; `false` if somebody has edited what is to be replaced.
    async fn candidate(&self, draft: &mut Draft<'_>) -> Result<bool, Fault> {
        let Objects { tree, dialect, secrets, .. } = self.objects;
        let before = draft.known.generation.clone().unwrap_or_default();
        swept(draft.known).await;
        draft.leave_out_undefinable(dialect);
        draft.keep_what_is_named();
        let can_hold = dialect.holds_secrets(self.link, tree);
        for _ in 0..ROUNDS {
            // Each takes as long as the checker does.
            self.fence.check()?;
            let turn = tree.turn().map_err(|e| self.objects.fault("write a candidate into", e))?;
            let Some(turn) = turn else {
                return Err(self.objects.fault("write a candidate into", "another instance is at it"));
            };
            let (mut vault, missing) = draft.known.secrets(secrets, &can_hold);
            if !missing.is_empty() {
                draft.leave_out_without(&missing);
                vault = draft.known.secrets(secrets, &can_hold).0;
            }
            let moved = draft.known.vault.moved(&vault).cloned().collect();
            draft.rewrite(&moved);
            let is = draft.known.holds_these(tree, draft.touched.iter().copied());
            if !before.name.is_empty() && !is.map_err(|e| self.objects.fault("look into", e))? {
                return Ok(false);
            }
            let name = Tree::next(&before);
            let texts = self.texts(draft, &vault, &name);
            // What else is there is known again once this is reached.
            let spare = draft.known.spare.take();
            let mut written = write(tree, &before, name, texts, spare)
                .await
                .map_err(|e| self.objects.fault("write a candidate into", e))?;
            let path = tree.generation_path(&written.generation.name);
            self.fence.check()?;
            dialect.before_check(self.link, tree, &path)?;
            // The checker reads what was written, whether it is on the disk or not: both at the same time. The disk begins first, as to
            // start a process takes about as long as a sync.
            let syncing = written.unsynced().parts(tree.folder()).into_iter().map(spawn_blocking).collect();
            let checked = dialect.check(self.link, tree, &path).await;
            synced(syncing).await.map_err(|e| self.objects.fault("sync a candidate in", e))?;
            let Err(complaint) = checked? else {
                self.switch(draft, &before, written, vault).await?;
                return Ok(true);
            };
            let complaint = vault.hide(&complaint);
            let mended = draft.leave_out_all::<D>(D::blame(&complaint, &path));
            // Of what was not accepted nothing is needed any more.
            drop(turn);
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

    fn texts(&self, draft: &Draft<'_>, vault: &Vault, name: &str) -> Texts {
        let shards = draft.render::<D>(vault);
        let known = &*draft.known;
        let text = Some(vault.text::<D>());
        let same = *vault == known.vault && !known.unlike;
        let (vault, if_no_vault) = if same { (None, text) } else { (text, None) };
        let server = known.server_file(&self.objects.dialect, known.server.then_some(name));
        Texts { shards, server, vault, if_no_vault }
    }

    async fn switch(
        &self,
        draft: &mut Draft<'_>,
        before: &Generation,
        written: Written,
        vault: Vault,
    ) -> Result<(), Fault> {
        // What the server has read is something to go back to, if there is anybody to tell.
        let is_good = self.objects.dialect.tells() && self.objects.shows(self.link, &before.name).await;
        self.fence.check()?;
        let tree = &self.objects.tree;
        tree.switch(&written.generation, is_good).map_err(|e| self.objects.fault("switch", e))?;
        let on = tree.clone();
        draft.known.sealing = Some(spawn_blocking(move || on.seal()));
        let gone: Vec<Shard> = draft
            .touched
            .iter()
            .filter(|shard| !written.stamps.contains_key(&Piece::Shard(**shard)))
            .copied()
            .collect();
        draft.known.now(written, &gone, vault);
        Ok(())
    }

    /// Waits until what was switched to is durable.
    async fn sealed(&self, known: &mut Known) -> Result<(), Fault> {
        let Some(sealing) = known.sealing.take() else { return Ok(()) };
        done(sealing).await.map_err(|e| self.objects.fault("make a switch durable in", e))
    }

    /// The server has what is there: what was before may go in its own time, or is used again.
    async fn settle(&self, known: &mut Known) -> Result<(), Fault> {
        self.sealed(known).await?;
        let tree = self.objects.tree.clone();
        tree.settle().map_err(|e| self.objects.fault("tidy", e))?;
        swept(known).await;
        let now = known.generation.clone().unwrap_or_default();
        let before = known.replaced.take();
        if let (Some(spare), Some(before)) = (&mut known.spare, before) {
            spare.keep(before, &now);
        }
        if known.spare.as_ref().is_none_or(|spare| spare.lacks_some_of(&now)) {
            let spare = known.spare.take();
            known.sweeping = Some(spawn_blocking(move || tidied(&tree, &now, spare)));
        }
        Ok(())
    }

    /// Has the server read what is there, and makes sure that it has; if not, it gets the last good files back.
    async fn load(&self, batch: &Batch<Monitoring>, known: &mut Known) -> Result<(), Fault> {
        let Objects { tree, dialect, .. } = self.objects;
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
            return self.settle(known).await;
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
        faults: &BTreeMap<Subject, Fault>,
        known: &mut Known,
    ) -> Result<(BTreeSet<Subject>, Option<Duration>), Fault> {
        let (mut begin, mut end) = (Vec::new(), Vec::new());
        for (edit, name) in hosts(batch)
            .filter(|(edit, name)| !faults.contains_key(&edit.key.subject) || known.hosts.contains_key(*name))
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

/// Waits until what is no longer reached is gone or ready: what is being removed must not be a new candidate.
async fn swept(known: &mut Known) {
    if let Some(sweeping) = known.sweeping.take() {
        // It has said itself what failed.
        known.spare = sweeping.await.ok().flatten();
    }
}

/// Removes what nothing reaches, where it is not known what that is, and else makes ready what is still missing to be used again. What there
/// is of it then; `None`: that is not known.
fn tidied(tree: &Tree, now: &Generation, spare: Option<Spare>) -> Option<Spare> {
    let done = match spare {
        Some(spare) => tree.provide(now, spare),
        None => tree.sweep().map(|swept| swept.then(|| Spare::beside(now))),
    };
    done.unwrap_or_else(|error| {
        tracing::debug!("{} was not tidied: {error}", tree.folder().display());
        None
    })
}

/// Writes a generation. A few small files right here, as a switch is made: nobody waits for the disk.
async fn write(
    tree: &Tree,
    before: &Generation,
    name: String,
    texts: Texts,
    spare: Option<Spare>,
) -> io::Result<Written> {
    if texts.are_few() {
        return tree.write(before, &name, &texts, spare);
    }
    let (on, before) = (tree.clone(), before.clone());
    done(spawn_blocking(move || on.write(&before, &name, &texts, spare))).await
}

/// Waits until each of these is synced, or failed: then nobody is at work on any of them.
async fn synced(syncing: Vec<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    let mut all = Ok(());
    for one in syncing {
        let one = done(one).await;
        all = all.and(one);
    }
    all
}

async fn done<T>(work: JoinHandle<io::Result<T>>) -> io::Result<T> {
    work.await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

fn millis(span: Duration) -> shoal_agent::Millis {
    span.as_millis().try_into().unwrap_or(shoal_agent::Millis::MAX / 4)
}
