//! Machines by systemd-nspawn: each boots its own systemd on a layer over a base tree that they share, in a network namespace of its own.
//!
//! A machine is a folder, `<state>/machines/<host>`, with its mark in it (`machine.json`: the order that it was made from). The folder is
//! made beside and takes its place in one step, mark included, and goes the same way; so at no moment is there something of ours without
//! a mark, and what was cut off lies under a name that no host has. Whether a machine runs is asked of the kernel: some process of this
//! system names its folder in its command line. Nothing else is remembered, so nothing can be forgotten when the agent is killed.
//!
//! A machine that somebody else made, and that a person gives to Shoal, gets the mark where it stands: a folder with its whole system in
//! `root`. It has no layer, and nothing in it reports in; it is up when it runs.
//!
//! It runs in a session of its own, or as a unit where systemd is the first process, and goes on when the agent ends. Its layer is
//! mounted in a mount namespace of its own: the mount is gone with it.
//!
//! A base tree is only read. Who is root in a machine has fewer capabilities than who is root on the box, and is the same user: such
//! machines keep services apart, not enemies.

mod disks;
mod folder;
mod network;
mod processes;
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use shoal_agent::{Fault, HostId, HostName};
use shoal_machine::{Machine, Volume, Word};

use super::provider::{Doing, Listed, Order, Provider};
use crate::item::{Given, Have, Stage};
use folder::Folder;
use processes::Ending;

/// `[agent.nspawn]` of the node's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The base trees, by the names that documents have for them: folders with a system in it that has systemd.
    #[serde(default)]
    pub images: BTreeMap<Word, PathBuf>,
    /// The networks, by the names that documents have for them.
    #[serde(default)]
    pub networks: BTreeMap<Word, Bridge>,
    /// Where the machines are.
    #[serde(default = "state")]
    pub state: PathBuf,
    /// How long a machine may take to stop before it is killed.
    #[serde(default = "stop", deserialize_with = "duration")]
    pub stop: Duration,
}

/// A network that machines can be in.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bridge {
    /// The bridge that their interfaces are put on. It is there already.
    pub bridge: Word,
}

fn state() -> PathBuf {
    "/var/lib/shoal/vm".into()
}

fn stop() -> Duration {
    Duration::from_secs(30)
}

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    shoal_agent::span(&String::deserialize(from)?).map_err(serde::de::Error::custom)
}

/// Machines by systemd-nspawn.
#[derive(Debug)]
pub struct Nspawn {
    settings: Settings,
    folder: Folder,
    /// Which folder it was started with: before that, one that is missing was never made.
    began: OnceLock<String>,
    /// Machines that were told to stop. Forgotten with the agent: the next one tells them again, which ends them at once.
    ending: Mutex<BTreeMap<HostId, Ending>>,
}

impl Nspawn {
    /// By these settings. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn new(settings: Settings) -> Result<Self, String> {
        // They become options of a mount, which has no way to write these.
        let plain = |path: &Path| {
            let text = path.to_str().unwrap_or(",");
            path.is_absolute() && !text.contains([',', ':', '\\']) && !text.contains(char::is_control)
        };
        if let Some(bad) =
            settings.images.values().chain([&settings.state]).find(|path| !plain(path.as_path()))
        {
            return Err(format!(
                "{} is no absolute path without commas, colons and backslashes",
                bad.display()
            ));
        }
        if let Some(long) = settings.networks.values().find(|one| one.bridge.as_str().len() > 15) {
            return Err(format!(
                "{} is no name of a bridge: an interface has at most 15 characters",
                long.bridge
            ));
        }
        let folder = Folder::new(&settings.state);
        Ok(Self { settings, folder, began: OnceLock::new(), ending: Mutex::default() })
    }

    /// The base tree of an image.
    fn image(&self, machine: &Machine) -> Result<&Path, Fault> {
        let name = &machine.image;
        let what = || format!("find the image {name}");
        let path = self.settings.images.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.settings.images.keys().map(Word::as_str).collect();
            Fault::new(what(), format!("the configuration names none; it has {}", names.join(", ")))
                .permanent()
        })?;
        if !path.join("usr").is_dir() {
            return Err(Fault::new(what(), format!("there is no system in {}", path.display())));
        }
        Ok(path)
    }

    /// The bridges of its networks, in their order.
    fn bridges(&self, machine: &Machine) -> Result<Vec<&str>, Fault> {
        let bridge = |name: &Word| {
            let one = self.settings.networks.get(name).ok_or_else(|| {
                Fault::new(format!("find the network {name}"), "the configuration names none").permanent()
            })?;
            Ok(one.bridge.as_str())
        };
        machine.networks.iter().map(|network| bridge(&network.name)).collect()
    }

    async fn listed(&self, of: Option<&BTreeSet<HostId>>) -> Result<Listed, Fault> {
        let mut listed = Listed::default();
        let mut running = processes::running(self.folder.machines())?;
        if self.began.get().is_none() && !self.folder.is_there() && running.is_empty() {
            return Ok(listed);
        }
        let found = self.folder.all()?;
        (listed.foreign, listed.unseen) = (found.foreign, found.unseen);
        for name in &listed.foreign {
            running.remove(&processes::directory(&self.folder.machines().join(name)));
        }
        for order in found.ours {
            let place = self.folder.of(&order.host);
            let runs = running.remove(&processes::directory(&place)).is_some();
            if of.is_some_and(|of| !of.contains(&order.id)) {
                continue;
            }
            let stage = match runs {
                false => Stage::Stopped,
                true if !folder::is_layered(&place) || folder::has_reported(&place, &order.token) => {
                    Stage::Up
                }
                true => Stage::Starting,
            };
            let strayed = match stage {
                Stage::Up => network::strayed(&order.id, &order.machine.networks).await,
                _ => Vec::new(),
            };
            let Order { id, host, machine, .. } = order;
            listed
                .ours
                .push((id, Have { host, machine, stage, strayed, given: Given::default(), leaving: None }));
        }
        // Where the folder of all is not mounted, say, no machine is gone for that.
        if self.began.get().is_some() && self.folder.id().ok().as_ref() != Some(&self.began.get().cloned()) {
            let machines = self.folder.machines().display();
            listed.unseen.push(format!("{machines} is not what it was: is its disk mounted?"));
        }
        let lost = |place: &String| format!("a machine runs, and its folder cannot be found: {place}");
        listed.unseen.extend(running.keys().map(lost));
        Ok(listed)
    }

    async fn made(&self, order: &Order) -> Result<(), Fault> {
        self.image(&order.machine)?;
        self.bridges(&order.machine)?;
        self.folder.make(order)
    }

    fn stranger(&self, host: &HostName) -> Result<Option<Have>, Fault> {
        if !self.folder.could_be_ours(host)? {
            return Ok(None);
        }
        let runs = processes::of(&self.folder.of(host))?.is_some();
        Ok(Have::unmarked(host.clone(), if runs { Stage::Up } else { Stage::Stopped }))
    }

    async fn booted(&self, id: &HostId) -> Result<(), Fault> {
        let order = self.known(id)?;
        let place = self.folder.of(&order.host);
        let image = if folder::is_layered(&place) { Some(self.image(&order.machine)?) } else { None };
        let bridges = self.bridges(&order.machine)?;
        if processes::of(&place)?.is_some() {
            return Ok(());
        }
        self.forget(id);
        network::up(id, &order.machine.networks, &bridges).await?;
        folder::forget_report(&place)?;
        session::start(&order, image, &place, self.folder.disks()).await
    }

    /// Whether a machine that is told to stop has.
    fn stops(&self, id: &HostId) -> Result<bool, Fault> {
        let Some(order) = self.folder.find(id)? else { return Ok(true) };
        let mut all = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        let ending = all.entry(id.clone()).or_default();
        let ended = processes::ends(&self.folder.of(&order.host), ending, self.settings.stop)?;
        if ended {
            all.remove(id);
        }
        Ok(ended)
    }

    /// That it was told to stop says nothing of its next run.
    fn forget(&self, id: &HostId) {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    async fn corrected(&self, id: &HostId, machine: &Machine) -> Result<(), Fault> {
        let mut order = self.known(id)?;
        self.bridges(machine)?;
        processes::end(&self.folder.of(&order.host), self.settings.stop).await?;
        (order.machine.networks, order.machine.size) = (machine.networks.clone(), machine.size.clone());
        self.folder.write(&order)
    }

    async fn destroyed(&self, id: &HostId) -> Result<(), Fault> {
        let Some(order) = self.folder.find(id)? else { return Ok(()) };
        let place = self.folder.of(&order.host);
        // It has stopped, or somebody started it since.
        processes::end(&place, self.settings.stop).await?;
        network::down(id).await?;
        session::ungroup(id);
        let gone = self.folder.unmark(&order)?;
        let removed = tokio::task::spawn_blocking(move || folder::remove(&gone)).await;
        removed.map_err(|e| Fault::new(format!("remove {}", place.display()), e))?
    }

    fn known(&self, id: &HostId) -> Result<Order, Fault> {
        let none = || Fault::new(format!("find the machine of {id}"), "it is not there");
        self.folder.find(id)?.ok_or_else(none)
    }
}

impl Provider for Nspawn {
    fn name(&self) -> &'static str {
        "nspawn"
    }

    fn location(&self) -> String {
        let state = self.settings.state.display();
        // The ledger keeps it: what is missing from another folder of this name is not gone.
        match self.began.get().cloned().or_else(|| self.folder.id().ok().flatten()) {
            Some(id) => format!("machines in {state} ({id})"),
            None => format!("machines in {state}"),
        }
    }

    fn start(&self) -> Doing<'_, ()> {
        Box::pin(async {
            let id = self.folder.begin()?;
            self.began.get_or_init(|| id);
            Ok(())
        })
    }

    fn list<'a>(&'a self, of: Option<&'a BTreeSet<HostId>>) -> Doing<'a, Listed> {
        Box::pin(self.listed(of))
    }

    fn create<'a>(&'a self, order: &'a Order) -> Doing<'a, ()> {
        Box::pin(self.made(order))
    }

    fn found<'a>(&'a self, host: &'a HostName) -> Doing<'a, Option<Have>> {
        Box::pin(async { self.stranger(host) })
    }

    fn adopt<'a>(&'a self, order: &'a Order) -> Doing<'a, ()> {
        Box::pin(async {
            self.bridges(&order.machine)?;
            self.folder.adopt(order)
        })
    }

    fn boot<'a>(&'a self, id: &'a HostId) -> Doing<'a, ()> {
        Box::pin(self.booted(id))
    }

    fn stop<'a>(&'a self, id: &'a HostId, _: Option<&'a Machine>) -> Doing<'a, bool> {
        Box::pin(async { self.stops(id) })
    }

    fn keeps_disks(&self) -> bool {
        true
    }

    fn inherit<'a>(&'a self, id: &'a HostId, before: &'a [HostId], volume: &'a Volume) -> Doing<'a, ()> {
        Box::pin(async move { self.folder.inherit(id, before, volume) })
    }

    fn discard<'a>(&'a self, id: &'a HostId, volume: &'a Volume) -> Doing<'a, ()> {
        Box::pin(async move {
            let (folder, of, slot) = (self.folder.clone(), id.clone(), volume.clone());
            let removed = tokio::task::spawn_blocking(move || folder.discard(&of, &slot)).await;
            removed.map_err(|e| Fault::new(format!("remove the disks of {volume}"), e))?
        })
    }

    fn correct<'a>(&'a self, id: &'a HostId, machine: &'a Machine) -> Doing<'a, ()> {
        Box::pin(self.corrected(id, machine))
    }

    fn destroy<'a>(&'a self, id: &'a HostId) -> Doing<'a, ()> {
        Box::pin(self.destroyed(id))
    }
}

/// A short name that follows from the id alone, for what has no room for more: control groups, interfaces, network namespaces.
fn short(id: &HostId) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(id.0.as_bytes());
    digest.iter().take(5).map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn a_folder_that_is_not_mounted_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("vm");
        let nspawn = || {
            let (images, networks) = (BTreeMap::new(), BTreeMap::new());
            Nspawn::new(Settings { images, networks, state: state.clone(), stop: stop() }).unwrap()
        };
        let one = nspawn();
        one.start().await.unwrap();
        assert_eq!(one.list(None).await.unwrap().unseen.len(), 0);
        let (machines, aside) = (state.join("machines"), dir.path().join("aside"));
        fs::rename(&machines, &aside).unwrap();
        one.list(None).await.unwrap_err();
        fs::create_dir(&machines).unwrap();
        let unseen = one.list(None).await.unwrap().unseen;
        assert!(unseen.len() == 1 && unseen[0].contains("is its disk mounted?"), "{unseen:?}");
        // Started on what is there now, it is elsewhere, which a person has to agree to.
        let other = nspawn();
        other.start().await.unwrap();
        assert_ne!(other.location(), one.location());
        fs::remove_dir_all(&machines).unwrap();
        fs::rename(&aside, &machines).unwrap();
        assert_eq!(one.list(None).await.unwrap().unseen.len(), 0);
        let again = nspawn();
        assert_eq!(again.location(), one.location());
    }
}
