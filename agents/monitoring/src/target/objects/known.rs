//! What is known of the files: read once, then followed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shoal_agent::HostName;

use super::Dialect;
use super::file::{self, Around};
use super::tree::{Generation, Shard, Stamp, Tree};
use crate::item::Host;
use crate::name::Name;

/// How much later than a command the server has to have spoken for its word to count.
pub(in crate::target) const SETTLES: Duration = Duration::from_secs(2);

/// A host in the files.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) host: Arc<Host>,
    /// How it stands there, if that is not what is made from it.
    pub(super) odd: Option<Arc<str>>,
}

/// What stands in the files.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) generation: Option<Generation>,
    stamps: BTreeMap<Shard, Stamp>,
    /// Shards in which something is nobody's.
    pub(super) stray: BTreeSet<Shard>,
    pub(super) hosts: BTreeMap<HostName, Entry>,
    shards: BTreeMap<Shard, BTreeSet<HostName>>,
    /// The hosts that name a host, whether the server knows that one or not.
    namers: BTreeMap<HostName, BTreeSet<HostName>>,
    host_groups: BTreeMap<Name, usize>,
    service_groups: BTreeMap<Name, usize>,
    /// Groups that the server has from elsewhere, as its checker said.
    pub(super) elsewhere: BTreeSet<(&'static str, Name)>,
    /// Whether the server's own item is there.
    pub(super) server: bool,
    /// Somebody is at work on it, or was stopped in the middle: it may not be what stands in the files.
    pub(super) unsettled: bool,
    /// The unit of time that it was read with.
    unit: u32,
    /// What the server was told of downtimes and may not have said back yet.
    told: BTreeMap<HostName, (bool, SystemTime)>,
}

impl Known {
    /// Reads what is not known. A file that is the same costs one `stat`.
    pub(super) fn look<D: Dialect>(&mut self, tree: &Tree, unit: u32) -> io::Result<()> {
        let generation = tree.look()?;
        let stamps = generation.as_ref().map_or_else(|| Ok(BTreeMap::new()), |found| tree.shards(found))?;
        if generation == self.generation && stamps == self.stamps && unit == self.unit && !self.unsettled {
            return Ok(());
        }
        let (told, elsewhere) = (std::mem::take(&mut self.told), std::mem::take(&mut self.elsewhere));
        *self = Self { unit, told, elsewhere, ..Self::default() };
        let mut texts = BTreeMap::new();
        for &shard in stamps.keys() {
            let Some(generation) = &generation else { break };
            let found = file::read(&tree.read(generation, shard)?);
            let away = found.hosts.keys().any(|name| Shard::of(name) != shard);
            if found.stray || away {
                self.stray.insert(shard);
            }
            for (name, (host, text)) in found.hosts {
                self.put(name.clone(), Some(Entry { host, odd: None }));
                texts.insert(name, text);
            }
        }
        self.odd::<D>(texts, unit);
        self.server = match &generation {
            Some(generation) => tree.read_server(generation)?.contains(D::MARK),
            None => false,
        };
        (self.generation, self.stamps) = (generation, stamps);
        Ok(())
    }

    /// Marks what does not stand there as it is made.
    fn odd<D: Dialect>(&mut self, texts: BTreeMap<HostName, String>, unit: u32) {
        let knows = |name: &HostName| self.hosts.contains_key(name);
        let around = Around { unit, knows: &knows };
        let odd: Vec<(HostName, String)> = texts
            .into_iter()
            .filter(|(name, text)| !file::is_as_made::<D>(name, &self.hosts[name].host, text, &around))
            .collect();
        for (name, text) in odd {
            if let Some(entry) = self.hosts.get_mut(&name) {
                entry.odd = Some(text.into());
            }
        }
    }

    /// What stands in the files from now on.
    pub(super) fn now(&mut self, tree: &Tree, generation: Generation) -> io::Result<()> {
        self.stamps = tree.follow(&generation, self.generation.as_ref(), std::mem::take(&mut self.stamps))?;
        self.generation = Some(generation);
        self.stray.clear();
        self.unsettled = false;
        Ok(())
    }

    /// Puts a host in, or takes it out.
    pub(super) fn put(&mut self, name: HostName, entry: Option<Entry>) {
        if let Some(old) = self.hosts.remove(&name) {
            self.count(&old.host, false);
            for other in old.host.others() {
                if let Some(namers) = self.namers.get_mut(other) {
                    namers.remove(&name);
                    if namers.is_empty() {
                        self.namers.remove(other);
                    }
                }
            }
        }
        let shard = self.shards.entry(Shard::of(&name)).or_default();
        let Some(entry) = entry else {
            shard.remove(&name);
            return;
        };
        shard.insert(name.clone());
        self.count(&entry.host, true);
        for other in entry.host.others() {
            self.namers.entry(other.clone()).or_default().insert(name.clone());
        }
        self.hosts.insert(name, entry);
    }

    fn count(&mut self, host: &Host, more: bool) {
        let of = |counts: &mut BTreeMap<Name, usize>, group: &Name| {
            let count = counts.entry(group.clone()).or_default();
            *count = if more { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                counts.remove(group);
            }
        };
        host.groups.iter().for_each(|group| of(&mut self.host_groups, group));
        let services = host.services.values().flat_map(|service| &service.groups);
        services.for_each(|group| of(&mut self.service_groups, group));
    }

    /// The hosts of a shard.
    pub(super) fn in_shard(&self, shard: Shard) -> impl Iterator<Item = &HostName> {
        self.shards.get(&shard).into_iter().flatten()
    }

    /// The hosts that name this one.
    pub(super) fn namers(&self, name: &HostName) -> impl Iterator<Item = &HostName> {
        self.namers.get(name).into_iter().flatten()
    }

    /// The file of the server, with this mark or none.
    pub(super) fn server_file<D: Dialect>(&self, mark: Option<&str>) -> String {
        let ours =
            |kind: &'static str| move |name: &&Name| !self.elsewhere.contains(&(kind, (*name).clone()));
        let host_groups: Vec<&Name> = self.host_groups.keys().filter(ours("host")).collect();
        let service_groups: Vec<&Name> = self.service_groups.keys().filter(ours("service")).collect();
        D::server_file(mark, &host_groups, &service_groups)
    }

    /// The server was told of a downtime.
    pub(super) fn told(&mut self, host: HostName, downtime: bool) {
        self.told.insert(host, (downtime, SystemTime::now()));
    }

    /// Which hosts have a downtime, by what the server says and what it was told since; `None`: it says nothing.
    pub(super) fn downtimes(
        &mut self,
        said: Option<(BTreeSet<HostName>, SystemTime)>,
    ) -> Option<BTreeSet<HostName>> {
        let (mut hosts, at) = said?;
        self.told.retain(|_, (_, told)| *told + SETTLES > at);
        for (host, (downtime, _)) in &self.told {
            if *downtime {
                hosts.insert(host.clone());
            } else {
                hosts.remove(host);
            }
        }
        Some(hosts)
    }
}
