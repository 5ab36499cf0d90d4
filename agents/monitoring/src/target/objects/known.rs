//! What is known of the files: read once, then followed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use shoal_agent::secrets::{SecretRef, Secrets};
use shoal_agent::{Fault, HostName};
use tokio::task::JoinHandle;

use super::Dialect;
use super::file::{self, Around, Own};
use super::tree::{Generation, Piece, Shard, Spare, Stamps, Tree, Written};
use super::vault::Vault;
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
    stamps: Stamps,
    /// Shards in which something is nobody's.
    pub(super) stray: BTreeSet<Shard>,
    pub(super) hosts: BTreeMap<HostName, Entry>,
    shards: BTreeMap<Shard, BTreeSet<HostName>>,
    /// The hosts that name a host, whether the server knows that one or not.
    namers: BTreeMap<HostName, BTreeSet<HostName>>,
    host_groups: BTreeMap<Name, usize>,
    service_groups: BTreeMap<Name, usize>,
    /// How many checks name a secret.
    secrets: BTreeMap<SecretRef, usize>,
    /// What tags define, and the groups that the server has from elsewhere, as its checker said.
    pub(super) own: Own,
    /// The values of secrets that stand there.
    pub(super) vault: Vault,
    /// Whether the server's own item is there.
    pub(super) server: bool,
    /// The server's own file, or that of secrets, is not as it is made.
    pub(super) unlike: bool,
    /// Somebody is at work on it, or was stopped in the middle: it may not be what stands in the files.
    pub(super) unsettled: bool,
    /// The unit of time that it was read with.
    unit: u32,
    /// What the server was told of downtimes and may not have said back yet.
    told: BTreeMap<HostName, (bool, SystemTime)>,
    /// What was reached before, while it is not known that nobody goes back to it.
    pub(super) replaced: Option<Generation>,
    /// Folders that are used again; `None`: what else is there beside what is reached is not known, and is to be swept.
    pub(super) spare: Option<Spare>,
    /// What is no longer reached is being removed, or made ready to be used again.
    pub(super) sweeping: Option<JoinHandle<Option<Spare>>>,
    /// The switch to what is reached is being made durable.
    pub(super) sealing: Option<JoinHandle<io::Result<()>>>,
}

impl Known {
    /// Reads what is not known. A file that is the same costs one `stat`.
    pub(super) fn look<D: Dialect>(&mut self, dialect: &D, tree: &Tree, unit: u32) -> io::Result<()> {
        let generation = tree.look()?;
        let stamps = generation.as_ref().map_or_else(|| Ok(Stamps::new()), |found| tree.stamps(found))?;
        if generation == self.generation && stamps == self.stamps && unit == self.unit && !self.unsettled {
            return Ok(());
        }
        let told = std::mem::take(&mut self.told);
        let (sweeping, sealing) = (self.sweeping.take(), self.sealing.take());
        *self = Self { unit, told, sweeping, sealing, ..Self::default() };
        let mut texts = BTreeMap::new();
        let (mut server, mut vault) = (None, None);
        for &piece in stamps.keys() {
            let Some(generation) = &generation else { break };
            let text = tree.read(generation, piece)?;
            let shard = match piece {
                Piece::Server => {
                    server = Some(text);
                    continue;
                }
                Piece::Vault => {
                    vault = Some(text);
                    continue;
                }
                Piece::Shard(shard) => shard,
            };
            let found = file::read(&text);
            let away = found.hosts.keys().any(|name| Shard::of(name) != shard);
            if found.stray || away {
                self.stray.insert(shard);
            }
            for (name, (host, text)) in found.hosts {
                self.put(name.clone(), Some(Entry { host, odd: None }));
                texts.insert(name, text);
            }
        }
        if let Some(text) = &vault {
            self.vault = Vault::read(text);
        }
        self.odd::<D>(texts, unit);
        if let Some(text) = &server {
            self.own = file::read_server(text);
            self.server = text.contains(D::MARK);
        }
        if let Some(generation) = &generation {
            let mark = self.server.then_some(&*generation.name);
            self.unlike = server.as_ref() != Some(&self.server_file(dialect, mark))
                || vault.as_ref() != Some(&self.vault.text::<D>());
        }
        (self.generation, self.stamps) = (generation, stamps);
        Ok(())
    }

    /// Whether what is reached, and these shards of it, are as they are known. Edits elsewhere are for the next look.
    pub(super) fn holds(
        &self,
        tree: &Tree,
        unit: u32,
        shards: impl Iterator<Item = Shard>,
    ) -> io::Result<bool> {
        Ok(!self.unsettled && unit == self.unit && self.holds_these(tree, shards)?)
    }

    /// The same, while somebody is at work on it.
    pub(super) fn holds_these(
        &self,
        tree: &Tree,
        mut shards: impl Iterator<Item = Shard>,
    ) -> io::Result<bool> {
        let Some(generation) = &self.generation else { return Ok(false) };
        if tree.leads()?.as_ref() != Some(&generation.name) {
            return Ok(false);
        }
        let same = |shard: Shard| -> io::Result<bool> {
            let piece = Piece::Shard(shard);
            Ok(tree.stamp(generation, piece)? == self.stamps.get(&piece).copied())
        };
        shards.try_fold(true, |all, shard| Ok(all && same(shard)?))
    }

    /// Marks what does not stand there as it is made.
    fn odd<D: Dialect>(&mut self, texts: BTreeMap<HostName, String>, unit: u32) {
        let knows = |name: &HostName| self.hosts.contains_key(name);
        let slot = |secret: &SecretRef| self.vault.slot(secret);
        let around = Around { unit, knows: &knows, slot: &slot };
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

    /// The secrets that are named now, as the node has them, and those that cannot be had.
    pub(super) fn secrets(
        &self,
        secrets: &Secrets,
        can_hold: &Result<(), Fault>,
    ) -> (Vault, BTreeMap<SecretRef, Fault>) {
        self.vault.next(self.secrets.keys(), secrets, can_hold)
    }

    /// The hosts whose checks name one of these secrets. Proportional to all hosts, where there is one.
    pub(super) fn naming(&self, secrets: &BTreeSet<SecretRef>) -> Vec<HostName> {
        if secrets.is_empty() {
            return Vec::new();
        }
        let names = |entry: &Entry| entry.host.secrets().any(|secret| secrets.contains(&secret));
        self.hosts.iter().filter(|(_, entry)| names(entry)).map(|(name, _)| name.clone()).collect()
    }

    /// What stands in the files from now on: a generation that differs from the last in what was written, and without these shards.
    pub(super) fn now(&mut self, written: Written, gone: &[Shard], vault: Vault) {
        let Written { generation, stamps, spare, .. } = written;
        self.stamps.extend(stamps);
        for shard in gone {
            self.stamps.remove(&Piece::Shard(*shard));
        }
        // One is kept to be used again. Of several that were replaced nobody keeps count.
        self.spare = spare.filter(|_| self.replaced.is_none());
        self.replaced = self.generation.replace(generation);
        self.vault = vault;
        self.stray.clear();
        self.unlike = false;
        self.unsettled = false;
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
        host.groups.iter().for_each(|group| count(&mut self.host_groups, group, more));
        let services = host.services.values().flat_map(|service| &service.groups);
        services.for_each(|group| count(&mut self.service_groups, group, more));
        host.secrets().for_each(|secret| count(&mut self.secrets, &secret, more));
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
    pub(super) fn server_file<D: Dialect>(&self, dialect: &D, mark: Option<&str>) -> String {
        let host_groups: Vec<&Name> = self.host_groups.keys().collect();
        let service_groups: Vec<&Name> = self.service_groups.keys().collect();
        file::server(dialect, mark, &self.own, [&host_groups, &service_groups])
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

fn count<T: Ord + Clone>(counts: &mut BTreeMap<T, usize>, of: &T, more: bool) {
    let count = counts.entry(of.clone()).or_default();
    *count = if more { *count + 1 } else { count.saturating_sub(1) };
    if *count == 0 {
        counts.remove(of);
    }
}
