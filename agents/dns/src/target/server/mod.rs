//! The built-in authoritative server: what the engine tells it is what it answers, a moment later.
//!
//! Nothing stands between a batch and the answers: names are changed in memory, one by one, at a cost that does not
//! grow with the zone. UDP, TCP, EDNS; wildcards, aliases, delegations; no recursion, no DNSSEC.
//!
//! **After a restart** it knows nothing, says so (a complete look at nothing), and is told everything again; making what
//! is not there is no mass change. With `state` it keeps a copy of each zone on disk, at most a little old, and answers
//! from that until it is told better; what it says it has is then what it really answers. Told to stop, it writes them last of
//! all, so a reload goes on where it was.
//!
//! **Until it is started** it opens nothing: a plan looks at what a running server keeps (see `beside`).
//!
//! **Serials** follow the database's revision, and rise with every batch that changes something.
//!
//! **Secondaries** are told of each change and have it at once: what changed, as long as that is known, else the whole zone
//! (`transfer`, `journal`, `notify`). So it may be a hidden primary.
//!
//! **Fencing**: the server is in the same process as its holder, and refuses a lower number than it has seen. Another
//! instance is another server with its own memory.

mod answer;
mod beside;
mod copy;
mod journal;
mod listen;
mod notify;
mod transfer;
mod zone;

pub(super) use zone::wire_name;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::Deserialize;
use shoal_agent::{Applied, Batch, Fault, Fence, Nature, Observed, Outcome, Scope, Seen, Target, Unit};
use tokio::task::JoinHandle;

use answer::Zones;
use copy::Copies;
use listen::Pair;
use notify::Secondary;
use transfer::Access;
pub use transfer::TransferSettings;
use zone::{Stored, ZoneData};

use super::files::zone_of;
use super::serial::newer;
use super::undeclared;
use crate::Dns;
use crate::name::Zone;
use crate::record::{Have, Key};

/// `[agent.server]` in the node's configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerSettings {
    /// Where it answers, by UDP and TCP; port 0 takes a free one. More than one address may be given.
    #[serde(default = "listen")]
    pub listen: Listen,
    /// A directory for copies of the zones, to answer from after a restart; nothing: no copies.
    #[serde(default)]
    pub state: Option<PathBuf>,
    /// Secondaries: who may have whole zones, and who is told of changes.
    #[serde(default)]
    pub transfer: TransferSettings,
}

/// One address or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected an address with a port, like \"127.0.0.1:5300\", or a list of them")]
pub enum Listen {
    /// One.
    One(SocketAddr),
    /// Several.
    Many(Vec<SocketAddr>),
}

fn listen() -> Listen {
    Listen::One(([127, 0, 0, 1], 5300).into())
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { listen: listen(), state: None, transfer: TransferSettings::default() }
    }
}

/// The built-in server.
#[derive(Debug)]
pub struct Server {
    zones: Arc<Zones>,
    secondaries: Vec<Arc<Secondary>>,
    listen: Vec<SocketAddr>,
    state: Option<PathBuf>,
    serving: Mutex<Serving>,
    /// There once it was started: the copies, if it is to keep any.
    started: OnceLock<Option<Arc<Copies>>>,
    /// The highest fencing number seen of each zone.
    fences: Mutex<HashMap<Zone, u64>>,
}

/// What answers.
#[derive(Debug, Default)]
struct Serving {
    addresses: Vec<SocketAddr>,
    tasks: Vec<JoinHandle<()>>,
    /// It was told to stop: it does not begin again.
    stopped: bool,
}

impl Server {
    /// A server of these settings. Opens nothing yet but the file of the key.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(settings: ServerSettings) -> Result<Self, Fault> {
        let listen = match settings.listen {
            Listen::One(one) => vec![one],
            Listen::Many(many) => many,
        };
        let access = Access::new(&settings.transfer)?;
        Ok(Self {
            secondaries: access.notify.iter().copied().map(Secondary::new).collect(),
            zones: Arc::new(Zones::new(access)),
            listen,
            state: settings.state,
            serving: Mutex::default(),
            started: OnceLock::new(),
            fences: Mutex::default(),
        })
    }

    /// Where it answers; empty while it does not.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner).addresses.clone()
    }

    fn copies(&self) -> Option<&Arc<Copies>> {
        self.started.get()?.as_ref()
    }

    fn try_serve(&self) -> bool {
        let serves = self.serve();
        if let Err(fault) = &serves {
            tracing::warn!("{fault}");
        }
        serves.is_ok()
    }

    /// Begins to answer, unless it does.
    fn serve(&self) -> Result<(), Fault> {
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        if !serving.addresses.is_empty() || self.listen.is_empty() {
            return Ok(());
        }
        if serving.stopped {
            return Err(Fault::new("answer DNS questions", "the server was told to stop"));
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Fault::new("answer DNS questions", "there is no running tokio yet"));
        }
        let mut pairs = Vec::new();
        for address in &self.listen {
            let fault = |e: std::io::Error| {
                Fault::new(format!("listen on {address}"), e)
                    .next("see who listens there, or change listen in [agent.server]")
            };
            pairs.push(Pair::bind(*address).map_err(fault)?);
        }
        for pair in pairs {
            let address = pair.address;
            serving
                .tasks
                .extend(pair.serve(&self.zones).map_err(|e| Fault::new(format!("answer on {address}"), e))?);
            serving.addresses.push(address);
            tracing::info!(%address, "answering DNS questions");
        }
        let secondaries = self.secondaries.iter().cloned();
        serving.tasks.extend(secondaries.map(|one| tokio::spawn(one.tell(self.zones.clone()))));
        if let Some(copies) = self.copies() {
            serving.tasks.push(tokio::spawn(copies.clone().keep(self.zones.clone())));
        }
        Ok(())
    }

    /// Refuses a holder that another one came after.
    fn fence(&self, zone: &Zone, fence: &Fence) -> Result<(), Fault> {
        fence.check()?;
        let mut fences = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
        let highest = fences.entry(zone.clone()).or_default();
        if fence.number < *highest {
            let why = format!("claim {} on it is older than {highest}", fence.number);
            return Err(Fault::new(format!("change the zone {zone}"), why));
        }
        *highest = fence.number;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.serving.lock().unwrap_or_else(PoisonError::into_inner).tasks {
            task.abort();
        }
        if let Some(copies) = self.copies() {
            copies.write(&self.zones);
        }
    }
}

impl Target<Dns> for Server {
    fn nature(&self) -> Nature {
        Nature {
            whole: false,
            checks_fence: true,
            marks_own: true,
            sole: true,
            conditional: false,
            shared: false,
        }
    }

    /// One place, wherever it listens: it holds nothing of its own, and is told everything anew.
    fn location(&self, _: &Unit) -> String {
        "built-in server".to_owned()
    }

    /// Reads the copies, and answers from now on if it can. If an address is taken it is tried again with every look
    /// and every batch, and until then every zone is [`unserved`](Have::unserved): another process may be about to end.
    ///
    /// # Errors
    /// A directory of copies that cannot be read.
    async fn start(&self) -> Result<(), Fault> {
        if self.started.get().is_none() {
            let copies = self.state.clone().map(|dir| Copies::open(dir, &self.zones)).transpose()?;
            self.started.get_or_init(|| copies.map(Arc::new));
            self.try_serve();
        }
        Ok(())
    }

    /// Answers no more, frees the addresses and writes the copies: a server that starts after this has all that this one had.
    async fn stop(&self) {
        let tasks = {
            let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
            serving.stopped = true;
            serving.addresses.clear();
            std::mem::take(&mut serving.tasks)
        };
        for task in &tasks {
            task.abort();
        }
        for task in tasks {
            // A socket is closed when its task is gone, and not when it is told to go.
            let _ = task.await;
        }
        if let Some(copies) = self.copies().cloned() {
            let zones = self.zones.clone();
            let _ = tokio::task::spawn_blocking(move || copies.write(&zones)).await;
        }
    }

    async fn observe(&self, unit: &Unit, scope: Scope<'_, Key>) -> Result<Observed<Dns>, Fault> {
        let zone = zone_of(unit)?;
        if self.started.get().is_none() {
            return self.beside(&zone).await;
        }
        let unserved = !self.try_serve();
        let mut seen = BTreeMap::new();
        if let Some(data) = self.zones.get(&zone) {
            let data = data.read().unwrap_or_else(PoisonError::into_inner);
            let ours = |key: Key, node: &crate::Node| {
                let have = Have { unserved: unserved && key.is_apex(), ..Have::of(node.clone()) };
                (key, Seen::Ours(have))
            };
            match scope {
                Scope::All => seen.extend(data.nodes().map(|(key, node)| ours(key, node))),
                Scope::Keys(keys) => {
                    seen.extend(
                        keys.iter().filter_map(|key| Some(ours(key.clone(), &data.at(key.owner())?.node))),
                    );
                }
            }
        }
        Ok(Observed { seen, complete: true })
    }

    async fn apply(&self, unit: &Unit, batch: &Batch<Dns>, fence: &Fence) -> Result<Applied<Dns>, Fault> {
        self.serve()?;
        let zone = zone_of(unit)?;
        self.fence(&zone, fence)?;
        // Made ready before the lock: questions wait only while names are put in their places.
        let mut puts = Vec::with_capacity(batch.changes.len());
        let mut each = Vec::with_capacity(batch.changes.len());
        for edit in &batch.changes {
            let stored = edit.to.clone().map(|node| Stored::new(&edit.key, Arc::new(node))).transpose();
            match stored {
                Ok(stored) => {
                    puts.push((edit.key.owner(), stored.map(Arc::new)));
                    each.push((edit.key.clone(), Outcome::Done));
                }
                Err(why) => {
                    let fault = Fault::new(format!("serve {}", edit.key.name()), why).permanent();
                    each.push((edit.key.clone(), Outcome::Failed(fault)));
                }
            }
        }
        let data = self.zones.get(&zone).unwrap_or_else(|| self.zones.add(ZoneData::new(zone.clone(), 0)));
        {
            let mut data = data.write().unwrap_or_else(PoisonError::into_inner);
            for (owner, stored) in puts {
                data.put(owner, stored);
            }
            // The low half of the revision: RFC 1982 goes round as it does.
            let low = u32::try_from(batch.revision.0 & u64::from(u32::MAX)).unwrap_or_default().max(1);
            let serial = if newer(low, data.serial) { low } else { data.serial.wrapping_add(1).max(1) };
            data.seal(serial).map_err(|why| Fault::new(format!("serve the zone {zone}"), why).permanent())?;
            beside(&mut data, batch, &mut each);
        }
        if let Some(copies) = self.copies() {
            copies.changed(&zone);
        }
        self.secondaries.iter().for_each(|secondary| secondary.changed(&zone));
        Ok(Applied { each, facts: Vec::new() })
    }
}

/// What the batch means for names that it does not change. In a zone that no SOA begins there are none.
fn beside(data: &mut ZoneData, batch: &Batch<Dns>, each: &mut Vec<(Key, Outcome)>) {
    let moved = if data.soa().is_some() {
        // What was refused for want of a zone can be made now.
        std::mem::take(&mut data.refused)
    } else {
        let went = data.clear();
        for (edit, (key, outcome)) in
            batch.changes.iter().zip(&mut *each).filter(|(edit, _)| edit.to.is_some())
        {
            *outcome = Outcome::Failed(undeclared(&data.zone, key));
            data.refused.insert(edit.key.clone());
        }
        went
    };
    super::moved(each, batch, moved);
}

#[cfg(test)]
mod tests;
