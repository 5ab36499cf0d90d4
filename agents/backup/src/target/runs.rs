//! Runs: what goes on by itself, for hours maybe, while the engine goes on with everything else.
//!
//! A run is written down before it begins, and what became of it when it has ended; in between it tells how far it is. It takes its
//! [places](super::places) first: two never back up one host at once, whichever process or machine they are on.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_agent::secrets::Secrets;
use shoal_agent::{Base, Fault, HostName, Millis, Moment, Unit};
use tokio::sync::{Notify, Semaphore, watch};

use super::backup::Made;
use super::places::keep;
use super::program::{Caller, Stop};
use super::purge::Purged;
use super::records::{Records, tell};
use super::settings::Settings;
use super::ssh::Over;
use super::{backup, facts, proof, purge, upkeep};
use crate::agent::Backup;
use crate::item::{Begun, Item, Key, Last, Record, Running};
use crate::name::Label;
use crate::step;

/// All that runs share.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) settings: Settings,
    pub(crate) records: Records,
    secrets: Secrets,
    pub(crate) base: Base,
    live: Mutex<BTreeMap<Key, Live>>,
    /// Held while a record is read, changed and written.
    writing: Mutex<()>,
    pub(crate) queues: BTreeMap<Label, Semaphore>,
    woken: Mutex<BTreeSet<Unit>>,
    wake: Notify,
    stop: watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct Live {
    said: String,
    stop: watch::Sender<Option<String>>,
    /// Held for as long as it lives.
    lock: File,
}

/// Where a host's files are.
pub(crate) enum Site {
    /// On this machine: in this folder, or as they are.
    Here(Option<PathBuf>),
    /// On another one.
    Over(Box<Over>),
}

/// One run, for what does it.
pub(crate) struct Run<'w> {
    pub(crate) work: &'w Work,
    pub(crate) key: &'w Key,
    /// The last good backup before it.
    pub(crate) last: Option<Last>,
    started: Instant,
    /// Whether it may have left a snapshot.
    pub(crate) left: &'w AtomicBool,
}

impl Run<'_> {
    /// For how long it has been going on, in milliseconds. Not by the wall clock, which somebody may set meanwhile.
    pub(crate) fn elapsed(&self) -> Millis {
        since(self.started)
    }

    /// Tells how far it is.
    pub(crate) fn say(&self, said: &str) {
        if let Some(live) = self.work.live().get_mut(self.key) {
            said.clone_into(&mut live.said);
            tell(&live.lock, said);
        }
    }
}

/// What a run has found out.
enum Found {
    /// A good backup.
    Backup(Last),
    /// A snapshot that lacks something, and what.
    Partly(Fault),
    /// Its window closed while it waited for a place.
    Late,
    /// It is done.
    Done,
    /// Another node did it meanwhile: what its facts say.
    Elsewhere(Box<Record>),
    /// These are to be held, and the database is to know it, before it goes on.
    Hold(Vec<(Key, String)>),
}

impl Work {
    pub(crate) fn new(settings: Settings, secrets: Secrets, base: Base) -> Self {
        let places = |(name, one): (&Label, &super::Repository)| {
            (name.clone(), Semaphore::new(one.parallel.max(1) as usize))
        };
        Self {
            queues: settings.repositories.iter().map(places).collect(),
            records: Records::new(&settings.state),
            settings,
            secrets,
            base,
            live: Mutex::default(),
            writing: Mutex::default(),
            woken: Mutex::default(),
            wake: Notify::new(),
            stop: watch::Sender::new(None),
        }
    }

    fn live(&self) -> MutexGuard<'_, BTreeMap<Key, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// restic for a repository, as whoever backs up or, if it is for `removing`, as whoever may remove.
    pub(crate) fn caller(&self, name: &Label, removing: bool) -> Result<Caller, Fault> {
        let what = format!("use the repository {name}");
        let known = self.settings.repositories.get(name).ok_or_else(|| {
            Fault::new(&what, "this node's configuration does not know it")
                .next(format!("write it into [agent.repositories.{name}]"))
        })?;
        let repository = if removing { known.removing() } else { Some(known.clone()) };
        let repository = repository.ok_or_else(|| {
            Fault::new(&what, "this node has no credentials that may remove from it").next(format!(
                "write them into [agent.repositories.{name}.removal], or let another node do it"
            ))
        })?;
        Caller::new(&self.settings.restic, &self.settings.state.join("cache"), &repository, &self.secrets)
    }

    /// restic for a repository, where these files are.
    pub(crate) fn caller_at(&self, name: &Label, site: &Site) -> Result<Caller, Fault> {
        let caller = self.caller(name, false)?;
        Ok(match site {
            Site::Here(_) => caller,
            Site::Over(over) => caller.on(over),
        })
    }

    /// Where a host's files are.
    pub(crate) fn site(&self, host: &HostName) -> Result<Site, Fault> {
        if let Some(root) = self.settings.roots.get(host.as_str()) {
            return Ok(Site::Here(Some(root.clone())));
        }
        let own = self.settings.host.clone().unwrap_or_else(super::node_name);
        if own == host.as_str() {
            return Ok(Site::Here(None));
        }
        if let Some(ssh) = self.settings.ssh.as_ref().filter(|ssh| ssh.reaches(host)) {
            return Ok(Site::Over(Box::new(Over::new(ssh, host))));
        }
        let why = format!("its files are not here: this machine is {own}");
        Err(Fault::new(format!("back up {host}"), why).next(format!(
            "run shoal-backup --host self on {host}, or set `host`, `roots` or `ssh` in this node's configuration"
        )))
    }

    /// What runs of it, in this process or in another one of this node.
    pub(crate) fn running(&self, key: &Key, record: &Record) -> Option<Running> {
        if let Some(live) = self.live().get(key) {
            return Some(Running { said: live.said.clone() });
        }
        let begun = record.begun.as_ref()?;
        let said = self.records.under_way(key)?;
        let since = format!("{} since {}, in another process", begun.verb, step::time(begun.at));
        Some(Running { said: if said.is_empty() { since } else { format!("{said} ({since})") } })
    }

    /// Changes what is kept of an item.
    pub(crate) fn change(&self, key: &Key, change: impl FnOnce(&mut Record)) -> Result<(), Fault> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let what = || format!("read what is kept of {key}");
        let Some(mut record) = self.records.read(key).map_err(|why| Fault::new(what(), why))? else {
            return Err(Fault::new(what(), "it is gone"));
        };
        change(&mut record);
        self.records.write(key, Some(&record))
    }

    /// Removes what runs of an item may have left: dumps, and what was restored as a test.
    pub(crate) fn clear(&self, key: &Key) {
        let Key::Backup { host, policy, repository } = key else { return };
        for kind in ["spool", "test"] {
            let folder = self.records.of_host(host).join(kind).join(format!("{policy}@{repository}"));
            if let Err(fault) = super::sources::clear(&folder) {
                tracing::warn!("{fault}");
            }
        }
    }

    /// Ends a run, and waits for nothing.
    pub(crate) fn cut(&self, key: &Key, why: &str) {
        if let Some(live) = self.live().get(key) {
            live.stop.send_replace(Some(why.to_owned()));
        }
    }

    /// Ends all runs and waits until they have ended, half a minute at most.
    pub(crate) async fn end(&self) {
        let units = {
            let live = self.live();
            live.values().for_each(|live| drop(live.stop.send_replace(Some(ENDS.to_owned()))));
            live.len()
        };
        self.stop.send_replace(Some(ENDS.to_owned()));
        let end = Instant::now() + Duration::from_secs(30);
        while units > 0 && !self.live().is_empty() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Units in which a run has ended.
    pub(crate) async fn ended(&self) -> Vec<Unit> {
        loop {
            let units = std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner));
            if !units.is_empty() {
                return units.into_iter().collect();
            }
            self.wake.notified().await;
        }
    }

    /// Begins a run, which goes on by itself. Answers what it is called.
    pub(crate) fn begin(self: &Arc<Self>, key: &Key, verb: &str, now: Moment) -> Result<Begun, Fault> {
        let what = format!("{verb} {key}");
        let ending = || Fault::new(&what, "one that is ending is still under way");
        if self.live().contains_key(key) {
            return Err(ending());
        }
        let Some(lock) = self.records.lock(key)? else {
            return Err(Fault::new(&what, "another process of this node is at it"));
        };
        let begun = Begun { run: uuid::Uuid::now_v7().to_string(), verb: verb.to_owned(), at: now };
        let stop = watch::Sender::new(None);
        let listen = stop.subscribe();
        let live = Live { said: "begins".to_owned(), stop: stop.clone(), lock };
        match self.live().entry(key.clone()) {
            Entry::Occupied(_) => return Err(ending()),
            Entry::Vacant(place) => _ = place.insert(live),
        }
        let noted = self.change(key, |record| record.begun = Some(begun.clone()));
        if let Err(fault) = noted {
            self.live().remove(key);
            return Err(fault);
        }
        let (work, key, this) = (self.clone(), key.clone(), begun.clone());
        tokio::spawn(async move {
            work.go(&key, &this, stop, listen).await;
            work.live().remove(&key);
            let unit = shoal_agent::Agent::unit(&Backup::default(), &key);
            work.woken.lock().unwrap_or_else(PoisonError::into_inner).insert(unit);
            work.wake.notify_one();
        });
        Ok(begun)
    }

    async fn go(&self, key: &Key, begun: &Begun, stop: watch::Sender<Option<String>>, mut listen: Stop) {
        let (started, left) = (Instant::now(), AtomicBool::new(false));
        let found = self.with_places(key, begun, (started, &left), &stop, &mut listen).await;
        // By the clock that began it: what is written down is held against that one.
        let (ended, cut) = (begun.at.saturating_add(since(started)), stop.borrow().clone());
        match &found {
            Err(fault) | Ok(Found::Partly(fault)) => tracing::warn!(item = %key, "{fault}"),
            Ok(Found::Hold(snapshots)) => self.hold(snapshots, ended),
            Ok(_) => {}
        }
        let noted = self.change(key, |record| {
            record.begun = None;
            record.told = false;
            // What never came to restic left nothing, and is not remembered: a repository that is away would fill the memory.
            if left.load(Ordering::Relaxed) && matches!(found, Err(_) | Ok(Found::Partly(_))) {
                record.doubt(&begun.run);
            }
            let track = record.track(&begun.verb);
            match found {
                Ok(Found::Backup(last)) => {
                    track.succeeded(begun.at, ended);
                    record.last = Some(last);
                }
                Ok(Found::Done) => track.succeeded(begun.at, ended),
                Ok(Found::Elsewhere(known)) => {
                    track.succeeded(known.main.good.unwrap_or(begun.at), ended);
                    record.last = known.last;
                }
                Ok(Found::Partly(fault)) => {
                    track.failed(fault.to_string(), ended);
                    track.partial = Some(begun.at);
                }
                Ok(Found::Hold(_) | Found::Late) => {}
                // It did not fail: it is due as before.
                Err(_) if cut.as_deref() == Some(ENDS) => {}
                Err(fault) => track.failed(fault.to_string(), ended),
            }
        });
        if let Err(fault) = noted {
            tracing::warn!(item = %key, "what became of a run is not written down, and it will be judged: {fault}");
        }
    }

    async fn with_places(
        &self,
        key: &Key,
        begun: &Begun,
        (started, left): (Instant, &AtomicBool),
        stop: &watch::Sender<Option<String>>,
        listen: &mut Stop,
    ) -> Result<Found, Fault> {
        let record =
            self.records.read(key).map_err(|why| Fault::new(format!("read what is kept of {key}"), why))?;
        let Some(record) = record else {
            return Err(Fault::new(format!("{} {key}", begun.verb), "it is gone"));
        };
        let run = Run { work: self, key, last: record.last.clone(), started, left };
        let Some(mut places) = self.places(&run, &record, begun, listen).await? else {
            return Ok(Found::Late);
        };
        let known =
            if begun.verb == step::BACK_UP { self.elsewhere(&run, &record, begun).await } else { None };
        let found = if let Some(known) = known {
            Ok(Found::Elsewhere(Box::new(known)))
        } else {
            let keep = keep(&mut places, stop);
            let work = self.carry_out(&run, &record, begun, listen);
            tokio::select! {
                found = work => found,
                never = keep => match never {},
            }
        };
        for place in places {
            place.release().await;
        }
        found
    }

    /// Whether the repository answers in time. One in a folder of this machine is there or is not.
    async fn answers(&self, run: &Run<'_>, stop: &mut Stop) -> Result<(), Fault> {
        let name = run.key.repository();
        if self.settings.repositories.get(name).is_some_and(super::Repository::is_folder) {
            return Ok(());
        }
        let caller = match run.key {
            Key::Backup { host, .. } => self.caller_at(name, &self.site(host)?)?,
            Key::Upkeep { .. } => self.caller(name, false)?,
        };
        run.say(&format!("asks {name}"));
        caller.answers(name, self.settings.answer, stop).await
    }

    /// Holds snapshots: what cannot be written down is found missing when it is gone on with.
    fn hold(&self, snapshots: &[(Key, String)], now: Moment) {
        for (key, snapshot) in snapshots {
            let held = self.change(key, |record| {
                record.held.insert(snapshot.clone(), now);
                record.told = false;
            });
            if let Err(fault) = held {
                tracing::warn!(item = %key, "{fault}");
            }
        }
    }

    /// What the facts say of a backup that another node made while this one waited for its places, so that it is not due any more.
    async fn elsewhere(&self, run: &Run<'_>, record: &Record, begun: &Begun) -> Option<Record> {
        let (Key::Backup { host, policy, repository }, Item::Backup(job)) = (run.key, &record.item) else {
            return None;
        };
        let all = self.told(host).await.ok()?;
        let mut known = record.clone();
        let now = begun.at.saturating_add(run.elapsed());
        facts::learn(&mut known, &all[facts::name(policy, repository)], now);
        let slot = job.schedule.last(run.key.seed(), now)?;
        let good = known.main.good.filter(|good| *good >= slot)?;
        (record.main.good != Some(good)).then_some(known)
    }

    async fn carry_out(
        &self,
        run: &Run<'_>,
        record: &Record,
        begun: &Begun,
        stop: &mut Stop,
    ) -> Result<Found, Fault> {
        self.answers(run, stop).await?;
        match (&record.item, begun.verb.as_str()) {
            (Item::Backup(job), step::BACK_UP) => Ok(match backup::run(run, job, begun, stop).await? {
                Made::Good(last) => Found::Backup(last),
                Made::Partly(fault) => Found::Partly(fault),
            }),
            (Item::Backup(job), step::PURGE) => Ok(match purge::run(run, job, stop).await? {
                Purged::All => Found::Done,
                Purged::Again(hold) => Found::Hold(hold),
            }),
            (Item::Backup(job), _) => proof::run(run, job, begun, stop).await.map(|()| Found::Done),
            (Item::Upkeep(item), step::PRUNE) => upkeep::prune(run, item, stop).await.map(|()| Found::Done),
            (Item::Upkeep(item), _) => upkeep::check(run, item, stop).await.map(|()| Found::Done),
        }
    }
}

fn since(started: Instant) -> Millis {
    Millis::try_from(started.elapsed().as_millis()).unwrap_or(Millis::MAX)
}

/// Why what runs is ended when the agent is.
pub(crate) const ENDS: &str = "the agent ends, or takes over another configuration";
