//! What the node keeps of its runs: one small file for each item, written whole, and a lock that is held while one runs, and says how far
//! it is.
//!
//! A file is a memory and no authority: lost, it is begun anew, from the facts where they know the item, and the next backup is made
//! because none is known.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use shoal_agent::{Fault, HostName, Seen, Unit, files};

use super::settings::Settings;
use crate::agent::REPOSITORY;
use crate::item::{Key, Record};
use crate::name::Label;

/// What a file of one ends with.
const ENDING: &str = ".json";

/// The folder with all of them.
#[derive(Debug)]
pub(crate) struct Records {
    state: PathBuf,
}

impl Records {
    pub(crate) fn new(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    /// The folder for what concerns a host.
    pub(crate) fn of_host(&self, host: &HostName) -> PathBuf {
        self.state.join("hosts").join(host.as_str())
    }

    fn folder(&self, unit: &Unit) -> Result<PathBuf, Fault> {
        let bad = |why: String| Fault::new(format!("find what is kept of {unit}"), why).permanent();
        match unit.0.strip_prefix(REPOSITORY) {
            Some(_) => Ok(self.state.join("repositories")),
            None => Ok(self.of_host(&unit.0.parse().map_err(|e| bad(format!("{e}")))?)),
        }
    }

    /// The file of an item. Every part of its name was parsed.
    pub(crate) fn path(&self, key: &Key) -> PathBuf {
        match key {
            Key::Backup { host, policy, repository } => {
                self.of_host(host).join(format!("{policy}@{repository}{ENDING}"))
            }
            Key::Upkeep { repository } => {
                self.state.join("repositories").join(format!("{repository}{ENDING}"))
            }
        }
    }

    /// The items of a unit that are kept.
    pub(crate) fn keys(&self, unit: &Unit) -> Result<Vec<Key>, Fault> {
        let folder = self.folder(unit)?;
        if !folder.exists() && self.state.is_dir() {
            return Ok(Vec::new());
        }
        let names = files::names::<String>(&folder)?;
        let host = unit.0.parse::<HostName>().ok();
        let key = |name: &String| {
            let stem = name.strip_suffix(ENDING).filter(|stem| !stem.starts_with('.'))?;
            match (&host, stem.split_once('@')) {
                (Some(host), Some((policy, repository))) => Some(Key::Backup {
                    host: host.clone(),
                    policy: policy.parse().ok()?,
                    repository: repository.parse().ok()?,
                }),
                (None, None) => {
                    let repository: Label = stem.parse().ok()?;
                    (unit.0.strip_prefix(REPOSITORY) == Some(repository.as_str()))
                        .then_some(Key::Upkeep { repository })
                }
                _ => None,
            }
        };
        Ok(names.iter().filter_map(key).collect())
    }

    /// What is kept of an item; `Ok(None)`: nothing.
    pub(crate) fn read(&self, key: &Key) -> Result<Option<Record>, String> {
        let path = self.path(key);
        match files::read(&path) {
            Seen::Nothing if self.state.is_dir() => Ok(None),
            Seen::Nothing => Err(format!("the folder {} is not there", self.state.display())),
            Seen::Unknown(why) => Err(why),
            Seen::There(text) | Seen::Ours(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|e| format!("{}: {e}; remove it, and it is begun anew", path.display())),
        }
    }

    /// Writes it; `None` removes it.
    pub(crate) fn write(&self, key: &Key, record: Option<&Record>) -> Result<(), Fault> {
        let path = self.path(key);
        let what = || format!("write {}", path.display());
        if let (Some(_), Some(folder)) = (record, path.parent()) {
            fs::create_dir_all(folder).map_err(|e| Fault::new(what(), e))?;
        }
        let text = record.map(serde_json::to_string_pretty).transpose().map_err(|e| Fault::new(what(), e))?;
        files::put(&path, text.as_deref())?;
        if record.is_none() {
            let _ = fs::remove_file(self.lock_path(key));
        }
        Ok(())
    }

    fn lock_path(&self, key: &Key) -> PathBuf {
        let mut path = self.path(key).into_os_string();
        path.push(".lock");
        path.into()
    }

    /// What the process on this node that runs it [says](tell) of it, which may be nothing; `None`: none runs it.
    pub(crate) fn under_way(&self, key: &Key) -> Option<String> {
        let mut file = File::open(self.lock_path(key)).ok()?;
        if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
            return None;
        }
        let mut said = Vec::new();
        // What cannot be read was not said. Behind the first line stands what is left of longer words.
        let _ = file.read_to_end(&mut said);
        let line = said.split(|octet| *octet == b'\n').next().unwrap_or_default();
        Some(String::from_utf8_lossy(line).into_owned())
    }

    /// Says that this process runs it, for as long as the answer lives; `None`: another one does.
    pub(crate) fn lock(&self, key: &Key) -> Result<Option<File>, Fault> {
        let path = self.lock_path(key);
        let failed = |e: std::io::Error| Fault::new(format!("lock {}", path.display()), e);
        // What stands in it is the word of who has it.
        let file = File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Ok(None);
        }
        file.set_len(0).map_err(failed)?;
        Ok(Some(file))
    }
}

/// Says in a lock that is held how far the run is, for the other processes of this node.
pub(crate) fn tell(lock: &File, said: &str) {
    // All at once, so that nobody reads half of it; of a longer word that stood there before, what is left is another line. What cannot be
    // written is not said: the run goes on.
    let _ = lock.write_all_at(format!("{said}\n").as_bytes(), 0);
}

/// The runs of a host that are not known to be good, as far as this node knows. For who restores: without the records there are marks in
/// the repository.
pub(crate) fn doubted(settings: &Settings, host: &HostName) -> BTreeSet<String> {
    let records = Records::new(&settings.state);
    let keys = records.keys(&Unit::from(host.as_str())).unwrap_or_default();
    let all = keys.iter().filter_map(|key| records.read(key).ok().flatten());
    all.flat_map(|record| record.unsure).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_says_is_heard_on_the_node_while_it_lasts() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("repositories")).unwrap();
        let (records, key) = (Records::new(dir.path()), Key::Upkeep { repository: "main".parse().unwrap() });
        assert_eq!(records.under_way(&key), None);
        let lock = records.lock(&key).unwrap().unwrap();
        assert!(records.lock(&key).unwrap().is_none(), "one at a time");
        assert_eq!(records.under_way(&key).as_deref(), Some(""));
        for said in ["backing up: 9 %, 1 of 11 MiB", "makes dumps", "backing up: 10 %, 1 of 11 MiB"] {
            tell(&lock, said);
            assert!(records.lock(&key).unwrap().is_none(), "who asks takes nothing away");
            assert_eq!(records.under_way(&key).as_deref(), Some(said));
        }
        drop(lock);
        assert_eq!(records.under_way(&key), None);
        let _next = records.lock(&key).unwrap().unwrap();
        assert_eq!(records.under_way(&key).as_deref(), Some(""), "that was the last one's word");
    }
}
