//! Copies of the zones on disk, to answer from after a restart before the engine has looked.
//!
//! They are zone files as for BIND. They may be a little old, and that is harmless: what is answered from them is also
//! what the engine sees, and puts right. A copy that is not exactly what Shoal wrote is not used.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use shoal_agent::Fault;
use tokio::sync::Notify;

use super::answer::Zones;
use super::zone::{Stored, ZoneData};
use crate::name::Zone;
use crate::target::zonefile::{self, ZoneFile};

/// How long changes are gathered before copies are written.
const GATHER: Duration = Duration::from_secs(1);
/// Writing copies takes at most this share of the time: one in so many.
const SHARE: u32 = 20;
const SUFFIX: &str = ".copy";

/// The directory of copies.
#[derive(Debug)]
pub(super) struct Copies {
    directory: PathBuf,
    changed: Mutex<BTreeSet<Zone>>,
    /// Held while copies are written: the last ones wait for those that are under way.
    writing: Mutex<()>,
    wake: Notify,
}

impl Copies {
    /// Reads all copies into the zones.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub(super) fn open(directory: PathBuf, zones: &Zones) -> Result<Self, Fault> {
        let fault = |e: std::io::Error| {
            Fault::new(format!("read the zone copies in {}", directory.display()), e)
                .next("see that the directory may be read and written, or leave state out of [agent.server]")
        };
        fs::create_dir_all(&directory).map_err(fault)?;
        for entry in fs::read_dir(&directory).map_err(fault)? {
            let entry = entry.map_err(fault)?;
            let name = entry.file_name();
            let Some(zone) = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)) else { continue };
            let Ok(zone) = Zone::parse(zone) else { continue };
            let text = fs::read_to_string(entry.path()).map_err(fault)?;
            if let Some(data) = load(&zone, &text) {
                zones.add(data);
            }
        }
        Ok(Self { directory, changed: Mutex::default(), writing: Mutex::default(), wake: Notify::new() })
    }

    /// Says that a zone's copy is old.
    pub(super) fn changed(&self, zone: &Zone) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(zone.clone());
        self.wake.notify_one();
    }

    /// Writes copies as zones change.
    pub(super) async fn keep(self: Arc<Self>, zones: Arc<Zones>) {
        let mut took = Duration::ZERO;
        loop {
            self.wake.notified().await;
            tokio::time::sleep(GATHER + took * SHARE).await;
            let (copies, zones) = (self.clone(), zones.clone());
            let start = tokio::time::Instant::now();
            // Ends early only with the program.
            let _ = tokio::task::spawn_blocking(move || copies.write(&zones)).await;
            took = start.elapsed();
        }
    }

    /// Writes the copies that are old. One that cannot be written is only older than it should be.
    pub(super) fn write(&self, zones: &Zones) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = std::mem::take(&mut *self.changed.lock().unwrap_or_else(PoisonError::into_inner));
        for zone in changed {
            if let Err(error) = self.one(&zone, zones) {
                tracing::warn!(%zone, "the zone's copy in {} was not written: {error}", self.directory.display());
            }
        }
    }

    fn one(&self, zone: &Zone, zones: &Zones) -> std::io::Result<()> {
        let path = path(&self.directory, zone);
        let Some(data) = zones.get(zone) else { return Ok(()) };
        let (serial, mut nodes) = {
            let data = data.read().unwrap_or_else(PoisonError::into_inner);
            (data.serial, data.nodes().map(|(key, node)| (key, node.clone())).collect::<Vec<_>>())
        };
        if nodes.is_empty() {
            return match fs::remove_file(path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            };
        }
        nodes.sort_by(|a, b| a.0.cmp(&b.0));
        let text = zonefile::render(zone, serial, nodes.iter().map(|(key, node)| (key, &**node)));
        let new = self.directory.join(format!(".{zone}{SUFFIX}.new"));
        let written = fs::File::create(&new).and_then(|mut file| {
            file.write_all(text.head.as_bytes())?;
            file.write_all(text.body.as_bytes())?;
            file.sync_all()
        });
        written.and_then(|()| fs::rename(&new, path)).inspect_err(|_| {
            // Half a copy would only take up the room that is missing.
            let _ = fs::remove_file(&new);
        })
    }
}

/// Where a zone's copy stands.
fn path(directory: &Path, zone: &Zone) -> PathBuf {
    directory.join(format!("{zone}{SUFFIX}"))
}

/// What a zone's copy holds, if there is one and it is whole. Opens and writes nothing else.
pub(super) fn peek(directory: &Path, zone: &Zone) -> Result<Option<ZoneFile>, Fault> {
    let path = path(directory, zone);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(zonefile::read(&text, zone)).filter(|file| file.intact && file.serial.is_some())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Fault::new(format!("read the zone copy {}", path.display()), e)),
    }
}

/// The zone of a copy, if it is whole.
fn load(zone: &Zone, text: &str) -> Option<ZoneData> {
    let file = zonefile::read(text, zone);
    if !file.intact {
        tracing::warn!(%zone, "the zone's copy is damaged and not used");
        return None;
    }
    let mut data = ZoneData::new(zone.clone(), 0);
    for (key, node) in file.nodes {
        let stored = Stored::new(&key, Arc::new(node)).ok()?;
        data.put(key.owner(), Some(Arc::new(stored)));
    }
    data.seal(file.serial?).ok()?;
    data.soa().is_some().then_some(data)
}
