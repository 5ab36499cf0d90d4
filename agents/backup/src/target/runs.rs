//! Runs: what goes on by itself, for hours maybe, while the engine goes on with everything else.
//!
//! A run is written down before it begins, and what became of it when it has ended; in between it tells how far it is. It takes its
//! places first, all at once or none: one of the host (two never back up one host at once, whichever process or machine they are on), one
//! of its physical machine, one of the repository; what changes a repository takes all of those. While it holds them it renews them,
//! and it stops itself when it cannot. Hundreds may wait: of each repository only as many ask the database as may run.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use shoal_agent::secrets::Secrets;
use shoal_agent::{Base, Fault, HostName, Moment, Place, Unit};
use tokio::sync::{Notify, Semaphore, watch};

use super::program::{Caller, Stop, stopped};
use super::records::Records;
use super::settings::Settings;
use super::{backup, proof, upkeep};
use crate::agent::Backup;
use crate::item::{Begun, Item, Key, Last, Record, Running};
use crate::name::Label;
use crate::step;

/// How long a place is held without being renewed.
const LEASE: Duration = Duration::from_secs(60);
/// How long to wait until places are asked for again.
const AGAIN: Duration = Duration::from_secs(2);

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
    queues: BTreeMap<Label, Semaphore>,
    woken: Mutex<BTreeSet<Unit>>,
    wake: Notify,
    stop: watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct Live {
    said: String,
    stop: watch::Sender<Option<String>>,
}

/// One run, for what does it.
pub(crate) struct Run<'w> {
    pub(crate) work: &'w Work,
    pub(crate) key: &'w Key,
    /// The last good backup before it.
    pub(crate) last: Option<Last>,
}

impl Run<'_> {
    /// Tells how far it is.
    pub(crate) fn say(&self, said: &str) {
        if let Some(live) = self.work.live().get_mut(self.key) {
            said.clone_into(&mut live.said);
        }
    }
}

/// What a run has found out.
enum Found {
    Backup(Last),
    Nothing,
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

    /// Where a host's files are on this machine; `None`: they are its own.
    pub(crate) fn root(&self, host: &HostName) -> Result<Option<PathBuf>, Fault> {
        if let Some(root) = self.settings.roots.get(host.as_str()) {
            return Ok(Some(root.clone()));
        }
        let own = self.settings.host.clone().unwrap_or_else(super::node_name);
        if own == host.as_str() {
            return Ok(None);
        }
        let why = format!("its files are not here: this machine is {own}");
        Err(Fault::new(format!("back up {host}"), why).next(format!(
            "run shoal-backup --host self on {host}, or set `host` or `roots` in this node's configuration"
        )))
    }

    /// What runs of it, in this process or in another one of this node.
    pub(crate) fn running(&self, key: &Key, record: &Record) -> Option<Running> {
        if let Some(live) = self.live().get(key) {
            return Some(Running { said: live.said.clone() });
        }
        let begun = record.begun.as_ref().filter(|_| self.records.is_locked(key))?;
        Some(Running { said: format!("{} since {}, in another process", begun.verb, step::time(begun.at)) })
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
        let Some(lock) = self.records.lock(key)? else {
            return Err(Fault::new(what, "another process of this node is at it"));
        };
        let begun = Begun { run: uuid::Uuid::now_v7().to_string(), verb: verb.to_owned(), at: now };
        let stop = watch::Sender::new(None);
        let listen = stop.subscribe();
        let live = Live { said: "begins".to_owned(), stop: stop.clone() };
        match self.live().entry(key.clone()) {
            Entry::Occupied(_) => return Err(Fault::new(what, "one that is ending is still under way")),
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
            drop(lock);
            work.live().remove(&key);
            let unit = shoal_agent::Agent::unit(&Backup::default(), &key);
            work.woken.lock().unwrap_or_else(PoisonError::into_inner).insert(unit);
            work.wake.notify_one();
        });
        Ok(begun)
    }

    async fn go(&self, key: &Key, begun: &Begun, stop: watch::Sender<Option<String>>, mut listen: Stop) {
        let found = self.with_places(key, begun, &stop, &mut listen).await;
        let (ended, cut) = (jiff::Timestamp::now().as_millisecond(), stop.borrow().clone());
        if let Err(fault) = &found {
            tracing::warn!(item = %key, "{fault}");
        }
        let noted = self.change(key, |record| {
            record.begun = None;
            record.told = false;
            let proof = [step::TEST, step::CHECK].contains(&begun.verb.as_str());
            let track = if proof { &mut record.proof } else { &mut record.main };
            match found {
                Ok(Found::Backup(last)) => {
                    track.succeeded(begun.at, ended);
                    record.last = Some(last);
                }
                Ok(Found::Nothing) => track.succeeded(begun.at, ended),
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
        stop: &watch::Sender<Option<String>>,
        listen: &mut Stop,
    ) -> Result<Found, Fault> {
        let record =
            self.records.read(key).map_err(|why| Fault::new(format!("read what is kept of {key}"), why))?;
        let Some(record) = record else {
            return Err(Fault::new(format!("{} {key}", begun.verb), "it is gone"));
        };
        let run = Run { work: self, key, last: record.last.clone() };
        let mut places = self.places(&run, &record, begun, listen).await?;
        let found = {
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

    async fn carry_out(
        &self,
        run: &Run<'_>,
        record: &Record,
        begun: &Begun,
        stop: &mut Stop,
    ) -> Result<Found, Fault> {
        match (&record.item, begun.verb.as_str()) {
            (Item::Backup(job), step::BACK_UP) => backup::run(run, job, begun, stop).await.map(Found::Backup),
            (Item::Backup(job), _) => proof::run(run, job, begun, stop).await.map(|()| Found::Nothing),
            (Item::Upkeep(item), step::PRUNE) => {
                upkeep::prune(run, item, stop).await.map(|()| Found::Nothing)
            }
            (Item::Upkeep(item), _) => upkeep::check(run, item, stop).await.map(|()| Found::Nothing),
        }
    }

    /// Takes the places of a run: all of them or none, until there are some.
    async fn places(
        &self,
        run: &Run<'_>,
        record: &Record,
        begun: &Begun,
        stop: &mut Stop,
    ) -> Result<Vec<Place>, Fault> {
        let repository = run.key.repository();
        let Some(queue) = self.queues.get(repository) else {
            return self.caller(repository, false).map(|_| Vec::new());
        };
        let parallel = self.settings.repositories.get(repository).map_or(1, |one| one.parallel.max(1));
        let name = format!("repository/{repository}");
        run.say(&format!("waits for one of {parallel} places at {repository}"));
        let wanted = match (run.key, &record.item) {
            (Key::Backup { host, .. }, Item::Backup(job)) => vec![
                (format!("host/{host}"), 1, 1),
                (format!("box/{}", job.on), self.settings.per_box.max(1), 1),
                (name, parallel, 1),
            ],
            // What is exclusive in the repository has it alone here, too.
            _ => vec![(name, parallel, parallel)],
        };
        let ended = || Fault::new(format!("{} {}", begun.verb, run.key), ENDS);
        loop {
            let tried = {
                let turn = tokio::select! {
                    turn = queue.acquire() => turn.map_err(|_| ended())?,
                    why = stopped(stop) => return Err(Fault::new(format!("{} {}", begun.verb, run.key), why)),
                };
                let tried = self.try_places(&wanted, run).await;
                if let Ok(Some(places)) = tried {
                    drop(turn);
                    return Ok(places);
                }
                tried
            };
            if let Err(fault) = tried {
                run.say(&fault.to_string());
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                why = stopped(stop) => return Err(Fault::new(format!("{} {}", begun.verb, run.key), why)),
            }
        }
    }

    async fn try_places(
        &self,
        wanted: &[(String, u32, u32)],
        run: &Run<'_>,
    ) -> Result<Option<Vec<Place>>, Fault> {
        let mut places = Vec::new();
        for (name, of, count) in wanted {
            for _ in 0..*count {
                match self.base.place("backup", name, *of, LEASE).await {
                    Ok(Some(place)) => places.push(place),
                    other => {
                        for place in places {
                            place.release().await;
                        }
                        if matches!(other, Ok(None)) {
                            run.say(&format!("waits for one of {of} places: {name}"));
                        }
                        return other.map(|_| None);
                    }
                }
            }
        }
        Ok(Some(places))
    }
}

/// Why what runs is ended when the agent is.
const ENDS: &str = "the agent ends, or takes over another configuration";

/// Renews places; when that fails for as long as they last, tells the run to stop.
async fn keep(places: &mut [Place], stop: &watch::Sender<Option<String>>) -> std::convert::Infallible {
    let mut held = Instant::now();
    loop {
        tokio::time::sleep(LEASE / 4).await;
        let now = Instant::now();
        let mut lost = None;
        for place in places.iter_mut() {
            lost = lost.or(place.renew().await.err());
        }
        match lost {
            None => held = now,
            Some(fault) if held.elapsed() >= LEASE * 3 / 4 => {
                stop.send_replace(Some(fault.to_string()));
            }
            Some(fault) => tracing::warn!("{fault}; tried again"),
        }
    }
}
