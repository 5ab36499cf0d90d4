//! Servers that read files of objects: what Nagios and Icinga have in common.
//!
//! All hosts stand in a folder that is Shoal's, in shards ([`tree`]). A batch writes what it touches as a candidate beside what is
//! there, has the server's own checker accept all of it together with the rest of the server's configuration, and then lets the server
//! have it in one step. The server is told to read it, and has to show that it did; if it does not, it gets the last good files back.
//! In which language, and how the server is spoken to, a [`Dialect`] says.
//!
//! **Stopped anywhere**, the next look tells the truth: a candidate is reached by nothing, and whether the server has read
//! what is there the server itself shows. While it has not, the server's item is not as anybody wants it.
//!
//! **A server that does not run** has the new files, which were checked, and reads them when it starts. Until then the batch counts as failed.
//!
//! **Downtimes** carry a comment of Shoal's, and no others are touched.
//!
//! **Fencing**: a file checks no number. Nothing is switched after the claim's end; a stale holder that was stopped between
//! that check and the switch is the window that is left.

mod draft;
mod file;
mod known;
mod tree;
mod vault;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, SystemTime};

use shoal_agent::secrets::Secrets;
use shoal_agent::{Applied, Batch, Edit, Fault, Fence, HostName, Observed, Outcome, Scope, Seen, owner};
use tokio::sync::Mutex;

pub(super) use draft::{Blame, Kind};
pub(super) use file::{Around, file};
pub(super) use known::SETTLES;
use known::{Entry, Known};
pub(super) use tree::Tree;
pub(super) use vault::Slot;
use work::Work;

use crate::agent::Monitoring;
use crate::define::Definition;
use crate::item::{Have, Host, Item, Key, Subject};
use crate::name::Name;
use crate::target::Server;

/// How Shoal's downtimes are told from others.
pub(super) const COMMENT: &str = "draining or paused (Shoal)";
/// How long a downtime lasts if nobody ends it, in seconds: a year. One that ends is set again at the next look.
pub(super) const LASTS: u64 = 365 * 24 * 3600;

/// Which hosts have a downtime of Shoal's, and when the server said so.
pub(super) type Downtimes = (BTreeSet<HostName>, SystemTime);

/// What one kind of server does otherwise than another: its language, its checker, and how it is spoken to.
pub(super) trait Dialect: Debug + Send + Sync + 'static {
    /// Which server it is.
    const SERVER: Server;
    /// What people call it.
    const NAME: &'static str;
    /// What its files end with.
    const ENDING: &'static str;
    /// What stands in the server's own file if it bears a mark.
    const MARK: &'static str;
    /// What is known of the server's own configuration, read anew for every look and every batch.
    type Link: Send + Sync;

    /// Shoal's folder.
    fn folder(&self) -> &Path;
    /// How long the check may take, and the server to read what is new.
    fn patience(&self) -> Duration;
    /// Whether the server is told anything: if not, files are all there is.
    fn tells(&self) -> bool;
    /// Reads the server's own configuration.
    ///
    /// # Errors
    /// It cannot be read, or the server could not do what is needed.
    fn link(&self) -> Result<Self::Link, Fault>;
    /// How many seconds its unit of time has.
    fn unit(link: &Self::Link) -> u32;

    /// Appends a host's objects.
    fn objects(out: &mut String, name: &HostName, host: &Host, around: &Around<'_>);
    /// What the file of secrets is called.
    const SECRETS: &'static str;
    /// Appends what a tag defines.
    fn definition(&self, out: &mut String, name: &Name, definition: &Definition);
    /// Why what a tag defines cannot be had at this server, if so.
    fn refuses(&self, name: &Name, definition: &Definition) -> Option<Fault>;
    /// Appends the mark that the server shows once it has read it, and the groups.
    fn server_file(out: &mut String, mark: Option<&str>, host_groups: &[&Name], service_groups: &[&Name]);
    /// Appends the values of secrets, each with its name and number.
    fn secrets(out: &mut String, all: &[(&str, Slot, &str)]);
    /// Whether the server would read secrets.
    ///
    /// # Errors
    /// It would not, and what to do about it.
    fn holds_secrets(&self, link: &Self::Link, tree: &Tree) -> Result<(), Fault>;
    /// What a complaint of the checker blames, and with which words. `candidate` is the folder that it read.
    fn blame(complaint: &str, candidate: &Path) -> BTreeMap<Blame, String>;

    /// Writes what the checker reads besides this candidate, before the disk is waited for: a file system that is being synced may
    /// keep whoever makes a file waiting.
    ///
    /// # Errors
    /// It could not be written.
    fn before_check(&self, _link: &Self::Link, _tree: &Tree, _candidate: &Path) -> Result<(), Fault> {
        Ok(())
    }
    /// Whether the server's checker accepts its configuration with this candidate in it; what it said if not.
    fn check(
        &self,
        link: &Self::Link,
        tree: &Tree,
        candidate: &Path,
    ) -> impl Future<Output = Result<Result<(), String>, Fault>> + Send;
    /// The mark of what the server has read.
    ///
    /// # Errors
    /// It does not say.
    fn has_read(&self, link: &Self::Link) -> impl Future<Output = Result<Option<String>, Fault>> + Send;
    /// The hosts with a downtime of Shoal's; `None`: the server does not say.
    fn downtimes(&self, link: &Self::Link) -> impl Future<Output = Option<Downtimes>> + Send;
    /// Ends the downtimes of hosts that are about to leave, and has the server read what is there.
    fn reload(
        &self,
        link: &Self::Link,
        leaving: &[&HostName],
    ) -> impl Future<Output = Result<(), Fault>> + Send;
    /// Begins and ends downtimes. Answers how long it may take until they show; `None`: they do.
    fn rest(
        &self,
        link: &Self::Link,
        begin: &[&HostName],
        end: &[&HostName],
    ) -> impl Future<Output = Result<Option<Duration>, Fault>> + Send;
}

/// A server that reads files of objects.
#[derive(Debug)]
pub(super) struct Objects<D> {
    dialect: D,
    tree: Tree,
    secrets: Secrets,
    known: Mutex<Known>,
}

impl<D: Dialect> Objects<D> {
    pub(super) fn new(dialect: D, secrets: Secrets) -> Self {
        let tree = Tree::new(dialect.folder(), D::ENDING, D::SECRETS);
        Self { tree, dialect, secrets, known: Mutex::default() }
    }

    pub(super) fn location(&self) -> String {
        format!("objects for {} in {}", D::NAME, self.dialect.folder().display())
    }

    /// Removes what an agent that was killed left behind.
    pub(super) async fn prepare(&self) {
        let read = match (self.dialect.link(), self.tree.look()) {
            (Ok(link), Ok(Some(current))) => self.shows(&link, &current.name).await,
            _ => false,
        };
        // What there is to go back to is needed until the server is known to have read what is there.
        let settled = if read { self.tree.settle() } else { Ok(()) };
        let tidied = settled.and_then(|()| self.tree.sweep());
        if let Err(error) = tidied {
            tracing::debug!("{} was not tidied: {error}", self.dialect.folder().display());
        }
    }

    /// Whether the server is known to have read this generation, or nobody would tell it to.
    async fn shows(&self, link: &D::Link, generation: &str) -> bool {
        !self.dialect.tells()
            || self.dialect.has_read(link).await.is_ok_and(|mark| mark.as_deref() == Some(generation))
    }

    /// What is there: of these hosts alone, where their files are as they are known, at no price of the others.
    pub(super) async fn look(&self, scope: Scope<'_, Key>) -> Result<Observed<Monitoring>, Fault> {
        let link = self.dialect.link()?;
        let mut known = self.known.lock().await;
        let unit = D::unit(&link);
        let asked = match hosts_alone(scope) {
            None => None,
            Some(names) => {
                let shards = names.iter().map(|name| tree::Shard::of(name));
                let holds = known.holds(&self.tree, unit, shards);
                Some(names).filter(|_| matches!(holds, Ok(true)))
            }
        };
        if asked.is_none() {
            known.look(&self.dialect, &self.tree, unit).map_err(|e| self.fault("look into", e))?;
        }
        let said = if self.dialect.tells() { self.dialect.downtimes(&link).await } else { None };
        let downtimes = known.downtimes(said);
        let host = |(name, entry): (&HostName, &Entry)| {
            let downtime = downtimes.as_ref().map(|hosts| hosts.contains(name));
            let have =
                Have { odd: entry.odd.is_some(), downtime, ..Have::from(Item::Host(entry.host.clone())) };
            (key::<D>(Subject::Host(name.clone())), Seen::Ours(have))
        };
        if let Some(names) = asked {
            let there = names.into_iter().filter_map(|name| known.hosts.get_key_value(name));
            return Ok(Observed { seen: there.map(host).collect(), complete: true });
        }
        let mut seen: BTreeMap<_, _> = known.hosts.iter().map(host).collect();
        for ((kind, name), definition) in &known.own.definitions {
            let have = Have::from(Item::Definition(definition.clone()));
            seen.insert(key::<D>(Subject::Definition(*kind, name.clone())), Seen::Ours(have));
        }
        if let (true, Some(generation)) = (known.server, &known.generation) {
            let unread = !self.shows(&link, &generation.name).await;
            let (secrets, _) = known.secrets(&self.secrets, &self.dialect.holds_secrets(&link, &self.tree));
            let odd = unread || known.unlike || !known.stray.is_empty() || secrets != known.vault;
            let have = Have { odd, ..Have::from(Item::Server) };
            seen.insert(key::<D>(Subject::Server), Seen::Ours(have));
        }
        Ok(Observed { seen, complete: true })
    }

    pub(super) async fn change(
        &self,
        batch: &Batch<Monitoring>,
        fence: &Fence,
    ) -> Result<Applied<Monitoring>, Fault> {
        fence.check()?;
        let link = self.dialect.link()?;
        let kind = owner::Kind {
            what: D::SERVER.folder(),
            files: "objects",
            page: "docs/agents/monitoring.md, One folder, one database",
        };
        owner::claim(self.dialect.folder(), fence.epoch, &kind)?;
        let mut known = self.known.lock().await;
        let shards = hosts(batch).map(|(_, name)| tree::Shard::of(name));
        let holds = known.holds(&self.tree, D::unit(&link), shards);
        if !holds.map_err(|e| self.fault("look into", e))? {
            known.look(&self.dialect, &self.tree, D::unit(&link)).map_err(|e| self.fault("look into", e))?;
        }
        if batch.changes.iter().any(|edit| !is_from(edit, &known)) {
            return Ok(each(batch, |_| Outcome::Stale));
        }
        let work = Work { objects: self, link: &link, fence };
        work.apply(batch, &mut known).await
    }

    fn fault(&self, verb: &str, why: impl ToString) -> Fault {
        Fault::new(format!("{verb} the {} {}", D::SERVER.folder(), self.dialect.folder().display()), why)
    }
}

/// The hosts that are asked for, where nothing else is.
fn hosts_alone(scope: Scope<'_, Key>) -> Option<Vec<&HostName>> {
    let Scope::Keys(keys) = scope else { return None };
    let hosts = keys.iter().map(|key| match &key.subject {
        Subject::Host(name) => Some(name),
        Subject::Server | Subject::Definition(..) | Subject::Rules(_) => None,
    });
    hosts.collect()
}

/// Whether what is there is what the change was decided from.
fn is_from(edit: &Edit<Monitoring>, known: &Known) -> bool {
    let from = edit.from.as_ref();
    match &edit.key.subject {
        Subject::Server => from.is_some() == known.server,
        Subject::Definition(kind, name) => {
            let is = known.own.definitions.get(&(*kind, name.clone()));
            is == from.and_then(|have| have.item.definition())
        }
        // There are none, and the agent wants none there.
        Subject::Rules(_) => true,
        Subject::Host(name) => {
            let entry = known.hosts.get(name);
            entry.map(|entry| &entry.host) == from.and_then(|have| have.item.host())
        }
    }
}

/// Whether it had a downtime of Shoal's, as far as is known.
fn rests(have: &Have) -> bool {
    have.downtime.unwrap_or_else(|| have.item.host().is_some_and(|host| host.rests()))
}

fn hosts(batch: &Batch<Monitoring>) -> impl Iterator<Item = (&Edit<Monitoring>, &HostName)> {
    batch.changes.iter().filter_map(|edit| match &edit.key.subject {
        Subject::Host(name) => Some((edit, name)),
        Subject::Server | Subject::Definition(..) | Subject::Rules(_) => None,
    })
}

fn key<D: Dialect>(subject: Subject) -> Key {
    Key { server: D::SERVER, subject }
}

/// An outcome for each change, from what it is about.
fn each(batch: &Batch<Monitoring>, outcome: impl Fn(&Subject) -> Outcome) -> Applied<Monitoring> {
    let one = |edit: &Edit<Monitoring>| (edit.key.clone(), outcome(&edit.key.subject));
    Applied { each: batch.changes.iter().map(one).collect(), facts: Vec::new() }
}
