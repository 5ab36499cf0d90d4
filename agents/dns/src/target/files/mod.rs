//! Zone files for BIND, NSD, Knot, or any server that reads them.
//!
//! A zone is one file, owned whole. A batch writes it once: candidate in the same directory, the consumer's own
//! checker, fsync, rename, fsync of the directory, reload, and the question to the server which serial it now serves.
//! If any step after the rename fails, the last good file goes back.
//!
//! **Stopped anywhere**, the next look tells the truth. The last good file stays as a hard link beside the new one
//! until the server is known to serve the new one; while that link exists, or the server serves another serial than the
//! file has, the zone itself is [`unserved`](crate::Have::unserved), which is not what anybody wants, so the engine acts.
//!
//! **A zone goes** from the server first: its file stands until the server is known not to serve it, and what is served
//! without a file is there all the same.
//!
//! **One directory is one database's** ([`shoal_agent::owner`]): no other writes there.
//!
//! **Fencing**: a file cannot check a number. No file is replaced after the claim's end; a stale holder that was stopped
//! between that check and the rename is the window that is left.

pub(super) mod ask;
mod file;
mod kind;
mod settings;
mod watch;
mod weigh;
mod write;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use shoal_agent::{Applied, Batch, Epoch, Fault, Fence, Nature, Observed, Scope, Seen, Target, Unit, owner};
use tokio::sync::Mutex;

use file::{Files, Known};
pub use kind::ServerKind;
pub use settings::{ZoneFileSettings, ZoneFileTable};

use crate::Dns;
use crate::name::Zone;
use crate::record::{Have, Key};

/// How long a file that is left behind may be that of somebody who is still at work.
const LEFT: Duration = Duration::from_secs(3600);

/// A server that reads zone files.
#[derive(Debug)]
pub struct ZoneFiles {
    settings: Box<ZoneFileSettings>,
    files: Files,
    /// What is known of each zone's file; locked while somebody works on it.
    zones: std::sync::Mutex<HashMap<Zone, Arc<Mutex<Known>>>>,
    watch: watch::Watch,
    /// Held by whoever has the server told of a zone: Knot hears one at a time.
    telling: Mutex<()>,
}

impl ZoneFiles {
    /// The target of these settings. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(settings: ZoneFileSettings) -> Result<Self, Fault> {
        settings.check()?;
        let files = Files::new(&settings);
        let watch = watch::Watch::new(settings.directory.clone());
        Ok(Self {
            settings: Box::new(settings),
            files,
            zones: std::sync::Mutex::default(),
            watch,
            telling: Mutex::default(),
        })
    }

    fn known(&self, zone: &Zone) -> Arc<Mutex<Known>> {
        let mut zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        zones.entry(zone.clone()).or_default().clone()
    }

    fn sweep(&self) {
        if let Err(error) = self.files.sweep(LEFT) {
            tracing::debug!("{} was not tidied: {error}", self.settings.directory.display());
        }
    }

    /// The zones that were looked at and whose file is another one by now.
    fn edited(&self, hint: &watch::Hint) -> Vec<Unit> {
        let zones = self.zones.lock().unwrap_or_else(PoisonError::into_inner);
        let meant = zones.iter().filter(|(zone, _)| hint.means(&self.files.name(zone)));
        let edited = |zone: &Zone, known: &Mutex<Known>| match known.try_lock() {
            Ok(known) => self.files.differs(zone, &known),
            Err(_) => {
                // Somebody works on it: most likely it is we who wrote.
                self.watch.again(self.files.name(zone));
                false
            }
        };
        meant.filter(|(zone, known)| edited(zone, known)).map(|(zone, _)| Unit::from(zone.as_str())).collect()
    }
}

/// Makes the directory this database's, unless it is another's.
fn claim(directory: &Path, epoch: Epoch) -> Result<(), Fault> {
    let page = "docs/agents/dns.md, One directory, one database";
    owner::claim(directory, epoch, &owner::Kind { what: "zone directory", files: "zone files", page })
}

/// The zone of a unit.
pub(crate) fn zone_of(unit: &Unit) -> Result<Zone, Fault> {
    Zone::parse(&unit.0).map_err(|why| Fault::new(format!("work on the zone {unit}"), why).permanent())
}

impl Target<Dns> for ZoneFiles {
    fn nature(&self) -> Nature {
        Nature {
            whole: true,
            checks_fence: false,
            marks_own: true,
            sole: false,
            conditional: false,
            shared: false,
        }
    }

    fn location(&self, _: &Unit) -> String {
        let directory = &self.settings.directory;
        let whole = std::path::absolute(directory);
        format!("zone files in {}", whole.as_ref().unwrap_or(directory).display())
    }

    async fn observe(&self, unit: &Unit, scope: Scope<'_, Key>) -> Result<Observed<Dns>, Fault> {
        let zone = zone_of(unit)?;
        let known = self.known(&zone);
        let mut known = known.lock().await;
        self.files.look(&zone, &mut known).await?;
        let served = match self.settings.server {
            // Also without a file: a zone is gone when nobody serves it any more.
            Some(server) => ask::serial(server, &zone, self.settings.answer_within()).await,
            None => ask::Answer::Silence,
        };
        known.served = served.serial();
        let unserved = known.pending || known.file.odd.is_some() || served.contradicts(known.file.serial);
        Ok(observed(&zone, &known, unserved, scope, self.settings.adopts(&zone)))
    }

    async fn start(&self) -> Result<(), Fault> {
        self.sweep();
        Ok(())
    }

    async fn woken(&self) -> Vec<Unit> {
        loop {
            let Ok(hint) = tokio::time::timeout(LEFT, self.watch.next()).await else {
                self.sweep();
                continue;
            };
            let edited = self.edited(&hint);
            if !edited.is_empty() {
                return edited;
            }
        }
    }

    async fn apply(&self, unit: &Unit, batch: &Batch<Dns>, fence: &Fence) -> Result<Applied<Dns>, Fault> {
        let zone = zone_of(unit)?;
        let known = self.known(&zone);
        let mut known = known.lock().await;
        let telling = &self.telling;
        write::Work { zone: &zone, settings: &self.settings, files: &self.files, fence, telling }
            .apply(batch, &mut known)
            .await
    }
}

fn observed(zone: &Zone, known: &Known, unserved: bool, scope: Scope<'_, Key>, adopt: bool) -> Observed<Dns> {
    let ours = known.file.ours || adopt;
    let apex = Key::apex(zone);
    let seen = |key: &Key| {
        let records = known.records(key)?.clone();
        let have = Have { unserved: unserved && *key == apex, ..Have::of(records) };
        Some((key.clone(), if ours { Seen::Ours(have) } else { Seen::There(have) }))
    };
    let seen: BTreeMap<_, _> = match scope {
        Scope::All => known.file.nodes.keys().chain([&apex]).filter_map(seen).collect(),
        // The zone itself is always told: whether the file is served shows there.
        Scope::Keys(keys) => keys.iter().chain([&apex]).filter_map(seen).collect(),
    };
    Observed { seen, complete: true }
}
