//! The files of targets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use shoal_agent::secrets::SecretRef;
use shoal_agent::{Batch, Edit, Fault, Fence, HostName, Outcome, Scope, Seen, files};

use super::credentials::{self, Credentials};
use super::open_to_readers;

use crate::agent::Monitoring;
use crate::item::{Have, Item, Key, Scrape, Subject};
use crate::name::Name;
use crate::target::Server;

/// The folder of targets.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    pub(super) directory: PathBuf,
    pub(super) credentials: Credentials,
}

/// How many files there are.
const FILES: u8 = 64;
/// The file that says in which of them there are hosts. Prometheus does not read it.
const LIST: &str = ".shoal-files";

/// A group of targets as Prometheus reads it.
#[derive(Debug, Deserialize)]
struct Group {
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

/// The same, to be written: without copies of what it is made from.
#[derive(Serialize)]
struct Line<'a> {
    targets: [&'a str; 1],
    labels: Labels<'a>,
}

/// Labels, by their names.
struct Labels<'a>(&'a [(&'a str, &'a str)]);

impl Serialize for Labels<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().copied())
    }
}

/// What is scraped of each host of a file.
pub(in crate::target) type Hosts = BTreeMap<HostName, Arc<BTreeMap<Name, Scrape>>>;

impl Targets {
    fn path(&self, file: u8) -> PathBuf {
        self.directory.join(format!("shoal-{file:02x}.json"))
    }

    /// The hosts of a file, and whether all of it is as it would be written.
    fn read(&self, file: u8) -> Result<(Hosts, bool), Fault> {
        match files::read(&self.path(file)) {
            Seen::Nothing => Ok((Hosts::new(), true)),
            Seen::There(text) | Seen::Ours(text) => {
                let hosts = parse(&text);
                let intact = render(&hosts) == text;
                Ok((hosts, intact))
            }
            Seen::Unknown(why) => Err(Fault::new("look at the targets of Prometheus", why)),
        }
    }

    /// Adds what stands in the files to what was seen.
    pub(super) fn look(
        &self,
        scope: Scope<'_, Key>,
        seen: &mut BTreeMap<Key, Seen<Have>>,
    ) -> Result<(), Fault> {
        // A folder that is gone is not one without targets.
        std::fs::metadata(&self.directory).map_err(|e| {
            Fault::new(format!("look into the folder of targets {}", self.directory.display()), e)
        })?;
        let wanted: BTreeSet<u8> = match scope {
            Scope::All => (0..FILES).collect(),
            Scope::Keys(keys) => keys.iter().filter_map(|key| Some(file_of(host(key)?))).collect(),
        };
        if self.asks_for_credentials(scope) && self.credentials.exist() {
            let odd = !self.credentials.are(&self.secrets()?)?;
            let have = Have { odd, ..Have::from(Item::Server) };
            seen.insert(CREDENTIALS, Seen::Ours(have));
        }
        for file in wanted {
            let (hosts, intact) = self.read(file)?;
            for (name, jobs) in hosts {
                let have = Have { odd: !intact, ..Have::from(Item::Targets(jobs)) };
                seen.insert(
                    Key { server: Server::Prometheus, subject: Subject::Host(name) },
                    Seen::Ours(have),
                );
            }
        }
        Ok(())
    }

    fn asks_for_credentials(&self, scope: Scope<'_, Key>) -> bool {
        match scope {
            Scope::All => true,
            Scope::Keys(keys) => keys.contains(&CREDENTIALS),
        }
    }

    /// The secrets that targets name. Reads all files.
    fn secrets(&self) -> Result<BTreeSet<SecretRef>, Fault> {
        let mut all = BTreeSet::new();
        for file in 0..FILES {
            all.extend(self.read(file)?.0.values().flat_map(|jobs| credentials::all_of(jobs)));
        }
        Ok(all)
    }

    /// What became of the credentials, where the batch is about them: after the targets, so that none loses what it needs.
    pub(super) fn authorize(&self, batch: &Batch<Monitoring>, fence: &Fence) -> Option<(Key, Outcome)> {
        let edit = batch.changes.iter().find(|edit| edit.key == CREDENTIALS)?;
        let work = || {
            let wanted = if edit.to.is_some() { self.secrets()? } else { BTreeSet::new() };
            fence.check()?;
            if edit.to.is_some() {
                self.credentials.stand(true)?;
                // What is missing is the fault of the host that needs it.
                self.credentials.put(&wanted, fence)?;
            }
            self.credentials.keep(&wanted, fence)?;
            self.credentials.stand(edit.to.is_some())
        };
        Some((CREDENTIALS, work().map_or_else(Outcome::Failed, |()| Outcome::Done)))
    }

    /// The files in which there are hosts; `None`: it was never said. Of one that is not there it tells whether it was lost.
    fn listed(&self) -> Result<Option<BTreeSet<u8>>, Fault> {
        let what = || format!("look which files of targets there are, {}", self.list().display());
        match files::read(&self.list()) {
            Seen::Nothing => Ok(None),
            Seen::There(text) | Seen::Ours(text) => {
                serde_json::from_str(&text).map(Some).map_err(|e| Fault::new(what(), e))
            }
            Seen::Unknown(why) => Err(Fault::new(what(), why)),
        }
    }

    fn list(&self) -> PathBuf {
        self.directory.join(LIST)
    }

    /// Says in which files there are hosts. One is named before it is written, and no more after it was emptied: what is lost in between is
    /// missed.
    fn say(&self, with: &BTreeSet<u8>, without: &BTreeSet<u8>) -> Result<(), Fault> {
        let listed = match self.listed() {
            Ok(listed) => listed,
            // It is no list any more: it is made anew.
            Err(fault) => {
                tracing::warn!("{fault}");
                None
            }
        };
        let mut now = match &listed {
            Some(listed) => listed.clone(),
            None => {
                let mut some = BTreeSet::new();
                for file in 0..FILES {
                    if !self.read(file)?.0.is_empty() {
                        some.insert(file);
                    }
                }
                some
            }
        };
        now.extend(with);
        now.retain(|file| !without.contains(file));
        if listed.as_ref() == Some(&now) {
            return Ok(());
        }
        let text =
            serde_json::to_string(&now).map_err(|e| Fault::new("say which files of targets there are", e))?;
        files::put(&self.list(), Some(&(text + "\n")))
    }

    /// What stands in all files, as one.
    ///
    /// # Errors
    /// Some of it cannot be read or is lost, or nothing was ever written: this is not a list without targets.
    pub(super) fn all(&self) -> Result<String, Fault> {
        let (mut all, mut any) = (Hosts::new(), false);
        let listed = self.listed()?.unwrap_or_default();
        let mut lost = None;
        for file in 0..FILES {
            let path = self.path(file);
            if path.exists() {
                any = true;
            } else if listed.contains(&file) {
                lost.get_or_insert(path);
            }
            let (mut hosts, intact) = self.read(file)?;
            if !intact {
                let why = format!("{} was edited", self.path(file).display());
                return Err(
                    Fault::new("say what is to be scraped", why).next("wait for the agent to put it right")
                );
            }
            all.append(&mut hosts);
        }
        let what = "say what is to be scraped";
        match lost {
            _ if !any => Err(Fault::new(what, "nothing was written yet")),
            Some(path) => Err(Fault::new(what, format!("{} is lost", path.display()))
                .next("wait for the agent to write it again")),
            None => Ok(render(&all)),
        }
    }

    /// Makes the changes of hosts, but of those that stay; what became of each.
    pub(super) fn change(
        &self,
        batch: &Batch<Monitoring>,
        stays: &BTreeSet<&HostName>,
        fence: &Fence,
    ) -> Vec<(Key, Outcome)> {
        let mut by_file: BTreeMap<u8, Vec<(&Edit<Monitoring>, &HostName)>> = BTreeMap::new();
        for edit in &batch.changes {
            if let Some(name) = host(&edit.key).filter(|name| !stays.contains(name)) {
                by_file.entry(file_of(name)).or_default().push((edit, name));
            }
        }
        let mut each = Vec::with_capacity(batch.changes.len());
        let comes = |edits: &Vec<(&Edit<Monitoring>, &HostName)>| {
            edits.iter().any(|(edit, _)| edit.to.as_ref().is_some_and(|item| item.targets().is_some()))
        };
        let with = by_file.iter().filter(|(_, edits)| comes(edits)).map(|(file, _)| *file).collect();
        let said = fence
            .check()
            .and_then(|()| if by_file.is_empty() { Ok(()) } else { self.say(&with, &BTreeSet::new()) });
        let mut without = BTreeSet::new();
        for (file, edits) in by_file {
            let done = said.clone().and_then(|()| self.change_file(file, &edits, fence));
            let outcome = match done {
                Ok(None) => Err(Outcome::Stale),
                Ok(Some(missing)) => Ok(missing),
                Err(fault) => Err(Outcome::Failed(fault)),
            };
            if outcome.is_ok() && self.read(file).is_ok_and(|(hosts, _)| hosts.is_empty()) {
                without.insert(file);
            }
            each.extend(edits.into_iter().map(|(edit, name)| {
                let outcome = match &outcome {
                    Err(outcome) => outcome.clone(),
                    Ok(missing) => {
                        missing.get(name).map_or(Outcome::Done, |fault| Outcome::Failed(fault.clone()))
                    }
                };
                (edit.key.clone(), outcome)
            }));
        }
        // One that is named and has no hosts is missed where it is lost, and that is all.
        if !without.is_empty()
            && let Err(fault) = fence.check().and_then(|()| self.say(&BTreeSet::new(), &without))
        {
            tracing::warn!("{fault}");
        }
        each
    }

    /// Writes one file; `None` if it is not what the changes were decided from. Answers the hosts of which a job is left out, because
    /// its secret cannot be had.
    fn change_file(
        &self,
        file: u8,
        edits: &[(&Edit<Monitoring>, &HostName)],
        fence: &Fence,
    ) -> Result<Option<BTreeMap<HostName, Fault>>, Fault> {
        let (mut hosts, intact) = self.read(file)?;
        let before = hosts.clone();
        for (edit, name) in edits {
            let from = edit.from.as_ref().and_then(|have| have.item.targets());
            if hosts.get(*name) != from {
                return Ok(None);
            }
        }
        let wanted = edits.iter().filter_map(|(edit, _)| edit.to.as_ref()?.targets());
        let wanted: BTreeSet<SecretRef> = wanted.flat_map(|jobs| credentials::all_of(jobs)).collect();
        let mut missing = BTreeMap::new();
        if !wanted.is_empty() {
            fence.check()?;
            self.credentials.stand(true)?;
            missing = self.credentials.put(&wanted, fence)?;
        }
        let mut left_out = BTreeMap::new();
        for (edit, name) in edits {
            let mut jobs = edit.to.as_ref().and_then(Item::targets).cloned();
            if let Some((less, fault)) =
                jobs.as_ref().and_then(|jobs| without(jobs, before.get(*name), &missing))
            {
                jobs = (!less.is_empty()).then(|| Arc::new(less));
                let what = format!("have {name} scraped: {}", fault.what);
                left_out.insert((*name).clone(), Fault { what, ..fault });
            }
            match jobs {
                Some(jobs) => hosts.insert((*name).clone(), jobs),
                None => hosts.remove(*name),
            };
        }
        if intact && hosts == before && self.path(file).exists() {
            // What differs is a silence alone.
            return Ok(Some(left_out));
        }
        fence.check()?;
        // An empty file stays: that it goes is an event that Prometheus 2 does not always hear.
        files::put(&self.path(file), Some(&render(&hosts)))?;
        open_to_readers(&self.path(file))?;
        Ok(Some(left_out))
    }
}

/// Whether the credentials are as they should be.
const CREDENTIALS: Key = Key { server: Server::Prometheus, subject: Subject::Server };

/// The jobs without those whose secret is missing, which stay as they stood if they did with another one, and why; `None`: nothing is missing.
fn without(
    jobs: &BTreeMap<Name, Scrape>,
    stood: Option<&Arc<BTreeMap<Name, Scrape>>>,
    missing: &BTreeMap<SecretRef, Fault>,
) -> Option<(BTreeMap<Name, Scrape>, Fault)> {
    let lacks = |scrape: &Scrape| credentials::of(scrape).and_then(|secret| missing.get(&secret));
    let fault = jobs.values().find_map(lacks)?.clone();
    let mut less = jobs.clone();
    for (job, _) in jobs.iter().filter(|(_, scrape)| lacks(scrape).is_some()) {
        let before = stood.and_then(|stood| stood.get(job)).filter(|scrape| lacks(scrape).is_none());
        match before {
            Some(scrape) => less.insert(job.clone(), scrape.clone()),
            None => less.remove(job),
        };
    }
    let why = format!("{}; the job that needs it is left out", fault.why);
    Some((less, Fault { why, ..fault }))
}

fn host(key: &Key) -> Option<&HostName> {
    match &key.subject {
        Subject::Host(name) => Some(name),
        Subject::Server | Subject::Definition(..) | Subject::Rules(_) => None,
    }
}

/// Which file a host is in. The same for ever.
fn file_of(host: &HostName) -> u8 {
    crate::target::fold(host) % FILES
}

/// The text of a file: one group a line.
pub(in crate::target) fn render(hosts: &Hosts) -> String {
    let mut out = b"[".to_vec();
    for (name, jobs) in hosts {
        for (job, scrape) in &**jobs {
            out.extend_from_slice(if out.len() == 1 { b"\n" } else { b",\n" });
            let own = [("host", name.as_str()), ("job", job.as_str())];
            let labels = scrape.labels.iter().map(|(label, value)| (label.as_str(), value.as_str()));
            let mut labels: Vec<(&str, &str)> = labels.chain(own).collect();
            labels.sort_unstable();
            // Nothing in it can fail: text alone.
            let _ =
                serde_json::to_writer(&mut out, &Line { targets: [&scrape.target], labels: Labels(&labels) });
        }
    }
    out.extend_from_slice(b"\n]\n");
    String::from_utf8(out).unwrap_or_default()
}

/// Reads a file back. What is no group of Shoal's is not there: what it was is written anew.
fn parse(text: &str) -> Hosts {
    let groups: Vec<serde_json::Value> = serde_json::from_str(text).unwrap_or_default();
    let mut hosts: BTreeMap<HostName, BTreeMap<Name, Scrape>> = BTreeMap::new();
    for group in groups {
        let Ok(Group { targets: [target], mut labels }) = serde_json::from_value(group) else { continue };
        let name = labels.remove("host").and_then(|name| name.parse().ok());
        let job = labels.remove("job").and_then(|job| job.parse().ok());
        if let (Some(name), Some(job)) = (name, job) {
            hosts.entry(name).or_default().insert(job, Scrape { target, labels });
        }
    }
    hosts.into_iter().map(|(name, jobs)| (name, Arc::new(jobs))).collect()
}
