//! Nagios 4: object files that it reads, its own checker, and its command file.
//!
//! All hosts stand in a folder that is Shoal's, in shards ([`tree`]). A batch writes what it touches as a candidate beside what is
//! there, has `nagios -v` accept all of it together with the rest of the server's configuration, and then lets the server have it in
//! one step. The server is told to read it, and has to show that it did; if it does not, it gets the last good files back.
//!
//! **Stopped anywhere**, the next look tells the truth: a candidate is reached by nothing, and whether the server has read
//! what is there shows in its own cache of objects. While it has not, the server's item is not as anybody wants it.
//!
//! **A server that does not run** has the new files, which were checked, and reads them when it starts. Until then the batch counts as failed.
//!
//! **Downtimes** are told through the command file and seen in the status file. They carry a comment of Shoal's, and no others are touched.
//!
//! **Fencing**: a file checks no number. Nothing is switched after the claim's end; a stale holder that was stopped between
//! that check and the switch is the window that is left.

mod draft;
mod known;
mod live;
mod render;
mod settings;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use shoal_agent::{Applied, Batch, Edit, Fault, Fence, HostName, Observed, Outcome, Seen, command, owner};
use tokio::sync::Mutex;

use draft::Draft;
use known::Known;
use live::Untold;
use settings::MainConfig;
pub use settings::NagiosSettings;
use tree::{Generation, Tree};

use crate::agent::Monitoring;
use crate::item::{Have, Item, Key, Subject};
use crate::target::Server;

/// How often a candidate is mended and checked again before the batch is given up.
const ROUNDS: usize = 16;

/// A Nagios server.
#[derive(Debug)]
pub struct Nagios {
    settings: NagiosSettings,
    tree: Tree,
    known: Mutex<Known>,
}

impl Nagios {
    /// The target of these settings. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(settings: NagiosSettings) -> Result<Self, Fault> {
        settings.verify()?;
        Ok(Self { tree: Tree::new(&settings.directory), settings, known: Mutex::default() })
    }

    pub(super) fn location(&self) -> String {
        format!("objects for Nagios in {}", self.settings.directory.display())
    }

    /// Removes what an agent that was killed left behind.
    pub(super) fn prepare(&self) {
        let read = || {
            let main = MainConfig::read(&self.settings.config).ok()?;
            let current = self.tree.look().ok()??;
            Some(live::mark(&main.cache)? == current.name)
        };
        // What there is to go back to is needed until the server is known to have read what is there.
        let tidied = if read() == Some(true) { self.tree.settle() } else { self.tree.sweep() };
        if let Err(error) = tidied {
            tracing::debug!("{} was not tidied: {error}", self.settings.directory.display());
        }
    }

    pub(super) async fn look(&self) -> Result<Observed<Monitoring>, Fault> {
        let main = MainConfig::read(&self.settings.config)?;
        let mut known = self.known.lock().await;
        known.look(&self.tree, main.unit).map_err(|e| self.fault("look into", e))?;
        let downtimes = known.downtimes(live::downtimes(&main.status));
        let mut seen = BTreeMap::new();
        for (name, entry) in &known.hosts {
            let downtime = downtimes.as_ref().map(|hosts| hosts.contains(name));
            let have =
                Have { odd: entry.odd.is_some(), downtime, ..Have::from(Item::Host(entry.host.clone())) };
            seen.insert(key(Subject::Host(name.clone())), Seen::Ours(have));
        }
        if let (true, Some(generation)) = (known.server, &known.generation) {
            let unread = live::mark(&main.cache).as_ref() != Some(&generation.name);
            let have = Have { odd: unread || !known.stray.is_empty(), ..Have::from(Item::Server) };
            seen.insert(key(Subject::Server), Seen::Ours(have));
        }
        Ok(Observed { seen, complete: true })
    }

    pub(super) async fn change(
        &self,
        batch: &Batch<Monitoring>,
        fence: &Fence,
    ) -> Result<Applied<Monitoring>, Fault> {
        fence.check()?;
        let main = MainConfig::read(&self.settings.config)?;
        let kind = owner::Kind {
            what: "folder of Nagios objects",
            files: "objects",
            page: "docs/agents/monitoring.md, One folder, one database",
        };
        owner::claim(&self.settings.directory, fence.epoch, &kind)?;
        let mut known = self.known.lock().await;
        known.look(&self.tree, main.unit).map_err(|e| self.fault("look into", e))?;
        if batch.changes.iter().any(|edit| !is_from(edit, &known)) {
            return Ok(each(batch, |_| Outcome::Stale));
        }
        let work = Work { nagios: self, main: &main, fence };
        work.apply(batch, &mut known).await
    }

    fn fault(&self, verb: &str, why: impl ToString) -> Fault {
        Fault::new(format!("{verb} the folder of Nagios objects {}", self.settings.directory.display()), why)
    }
}

/// Whether what is there is what the change was decided from.
fn is_from(edit: &Edit<Monitoring>, known: &Known) -> bool {
    let from = edit.from.as_ref();
    match &edit.key.subject {
        Subject::Server => from.is_some() == known.server,
        // Nagios has none, and the agent wants none there.
        Subject::Rules(_) => true,
        Subject::Host(name) => {
            let entry = known.hosts.get(name);
            entry.map(|entry| &entry.host) == from.and_then(|have| have.item.host())
        }
    }
}

/// What one batch is carried out with.
struct Work<'a> {
    nagios: &'a Nagios,
    main: &'a MainConfig,
    fence: &'a Fence,
}

impl Work<'_> {
    async fn apply(
        &self,
        batch: &Batch<Monitoring>,
        known: &mut Known,
    ) -> Result<Applied<Monitoring>, Fault> {
        let server = known.server;
        for edit in batch.changes.iter().filter(|edit| edit.key.subject == Subject::Server) {
            known.server = edit.to.is_some();
        }
        let rewrites = known.server != server || known.generation.is_none();
        let mut draft = Draft::new(known, self.main.unit);
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
        if known.generation.as_ref().map(|generation| &generation.name)
            != live::mark(&self.main.cache).as_ref()
        {
            self.load(batch, known).await?;
        }
        let told = self.downtimes(batch, &faults, known).await?;
        let mut applied = each(batch, |name| match name.and_then(|name| faults.get(name)) {
            Some(fault) => Outcome::Failed(fault.clone()),
            None => Outcome::Done,
        });
        // What the server was told shows when it next says what it knows.
        let shows = self.fence.clock.now() + millis(self.main.says + known::SETTLES);
        for (_, outcome) in applied.each.iter_mut().filter(|(key, _)| told.contains(&key.subject)) {
            let memo = serde_json::Value::Null;
            if *outcome == Outcome::Done {
                *outcome = Outcome::Running { memo, look_again: shows };
            }
        }
        // Others lost something, too: they are decided on again.
        let others = faults.into_keys().map(|name| key(Subject::Host(name)));
        let missing = others.filter(|key| batch.changes.iter().all(|edit| edit.key != *key));
        applied.each.extend(missing.map(|key| (key, Outcome::Stale)));
        Ok(applied)
    }

    /// Writes a candidate that the checker accepts, and has `current` lead to it.
    async fn candidate(&self, draft: &mut Draft<'_>) -> Result<(), Fault> {
        let Nagios { tree, settings, .. } = self.nagios;
        let before = draft.known.generation.clone().unwrap_or_default();
        for _ in 0..ROUNDS {
            let name = Tree::next(&before);
            let shards = draft.render();
            let server_file = draft.known.server_file(draft.known.server.then_some(&*name));
            let (on, from) = (tree.clone(), before.clone());
            let written = move || on.write(&from, &name, &shards, &server_file);
            let candidate = tokio::task::spawn_blocking(written)
                .await
                .map_err(|e| self.nagios.fault("write a candidate into", e))?
                .map_err(|e| self.nagios.fault("write a candidate into", e))?;
            let path = tree.generation_path(&candidate.name);
            let Err(complaint) = self.check(&path).await? else {
                return self.switch(draft, &before, candidate);
            };
            let mended = draft.blame(&complaint, &path);
            // Of what was not accepted nothing is needed any more.
            self.nagios.prepare();
            if !mended {
                let why =
                    complaint.lines().filter(|line| line.starts_with("Error")).collect::<Vec<_>>().join("; ");
                let why = if why.is_empty() { complaint } else { why };
                return Err(Fault::new(
                    format!("check what Nagios is to read with {:?}", settings.check.join(" ")),
                    why,
                )
                .next("if it is about what somebody else configured, correct it there")
                .permanent());
            }
        }
        let why = format!("{ROUNDS} rounds of leaving out bad definitions did not help");
        Err(Fault::new("check what Nagios is to read", why))
    }

    /// Whether the server's checker accepts its configuration with this candidate in it; what it said if not.
    async fn check(&self, candidate: &Path) -> Result<Result<(), String>, Fault> {
        let Nagios { tree, settings, .. } = self.nagios;
        let text = self.main.with(&tree.current(), candidate)?;
        tree.write_check_file(&text).map_err(|e| self.nagios.fault("write the file to check into", e))?;
        let file = tree.check_file();
        let places = [("{config}", &*file.to_string_lossy())];
        Ok(command::run(&settings.check, &places, settings.patience()).await)
    }

    fn switch(&self, draft: &mut Draft<'_>, before: &Generation, candidate: Generation) -> Result<(), Fault> {
        self.fence.check()?;
        let tree = &self.nagios.tree;
        // What the server has read is something to go back to.
        let is_good = live::mark(&self.main.cache).as_ref() == Some(&before.name);
        tree.switch(&candidate, is_good).map_err(|e| self.nagios.fault("switch", e))?;
        draft.known.now(tree, candidate).map_err(|e| self.nagios.fault("look into", e))
    }

    /// Has the server read what is there, and makes sure that it has; if not, it gets the last good files back.
    async fn load(&self, batch: &Batch<Monitoring>, known: &mut Known) -> Result<(), Fault> {
        let Nagios { tree, settings, .. } = self.nagios;
        let goes = |edit: &&Edit<Monitoring>| edit.to.is_none() && edit.from.as_ref().is_some_and(rests);
        // While the server still knows them.
        let mut commands: Vec<String> =
            hosts(batch).filter(|(edit, _)| goes(edit)).map(|(_, name)| live::no_downtime(name)).collect();
        commands.push(live::restart());
        self.tell(&commands, "have Nagios read what is new").await?;
        let mark =
            known.generation.as_ref().filter(|_| known.server).map(|generation| generation.name.clone());
        let read = live::has_read(&self.main.cache, mark.as_deref(), settings.patience()).await;
        self.fence.check()?;
        if read {
            return tree.settle().map_err(|e| self.nagios.fault("tidy", e));
        }
        let back = tree.put_back().map_err(|e| self.nagios.fault("put the last good files back into", e))?;
        known.unsettled = true;
        let fault = Fault::new(
            "have Nagios read what is new",
            format!("it has not within {} seconds", settings.within),
        );
        if !back {
            return Err(fault.next("see its log; there is nothing earlier to go back to"));
        }
        if let Err(again) = self.tell(&[live::restart()], "have Nagios read the last good files").await {
            tracing::warn!("{again}");
        }
        Err(fault.next("see its log; the last good files are back in their place"))
    }

    /// Begins and ends downtimes, now that the server knows the hosts.
    async fn downtimes(
        &self,
        batch: &Batch<Monitoring>,
        faults: &BTreeMap<HostName, Fault>,
        known: &mut Known,
    ) -> Result<BTreeSet<Subject>, Fault> {
        let mut commands = Vec::new();
        let mut told = Vec::new();
        for (edit, name) in
            hosts(batch).filter(|(_, name)| !faults.contains_key(*name) || known.hosts.contains_key(*name))
        {
            let Some(want) = edit.to.as_ref().and_then(Item::host) else { continue };
            if want.draining {
                commands.extend(live::downtime(name));
            } else if edit.from.as_ref().is_some_and(rests) {
                commands.push(live::no_downtime(name));
            } else {
                continue;
            }
            told.push((name, want.draining));
        }
        if commands.is_empty() {
            return Ok(BTreeSet::new());
        }
        self.fence.check()?;
        self.tell(&commands, "tell Nagios of downtimes").await?;
        told.iter().for_each(|(name, draining)| known.told((*name).clone(), *draining));
        Ok(told.into_iter().map(|(name, _)| Subject::Host(name.clone())).collect())
    }

    async fn tell(&self, commands: &[String], what: &str) -> Result<(), Fault> {
        let path = &self.main.commands;
        live::tell(path, commands).await.map_err(|untold| match untold {
            Untold::Down => Fault::new(what, format!("it does not run: nobody reads {}", path.display()))
                .next("start it; it reads what is there, which was checked, and this is tried again"),
            Untold::Failed(error) => Fault::new(what, format!("{}: {error}", path.display()))
                .next("see that the agent's user is in the group that may write there"),
        })
    }
}

fn millis(span: std::time::Duration) -> shoal_agent::Millis {
    span.as_millis().try_into().unwrap_or(shoal_agent::Millis::MAX / 4)
}

/// Whether it had a downtime of Shoal's, as far as is known.
fn rests(have: &Have) -> bool {
    have.downtime.unwrap_or_else(|| have.item.host().is_some_and(|host| host.draining))
}

fn hosts(batch: &Batch<Monitoring>) -> impl Iterator<Item = (&Edit<Monitoring>, &HostName)> {
    batch.changes.iter().filter_map(|edit| match &edit.key.subject {
        Subject::Host(name) => Some((edit, name)),
        Subject::Server | Subject::Rules(_) => None,
    })
}

fn key(subject: Subject) -> Key {
    Key { server: Server::Nagios, subject }
}

/// An outcome for each change, from the host that it is about.
fn each(batch: &Batch<Monitoring>, outcome: impl Fn(Option<&HostName>) -> Outcome) -> Applied<Monitoring> {
    let one = |edit: &Edit<Monitoring>| {
        let host = match &edit.key.subject {
            Subject::Host(name) => Some(name),
            Subject::Server | Subject::Rules(_) => None,
        };
        (edit.key.clone(), outcome(host))
    };
    Applied { each: batch.changes.iter().map(one).collect(), facts: Vec::new() }
}
