//! The secrets that scrapes are authorised with, each in a file of its own.
//!
//! A target says by a label which secret it needs ([`AUTHORIZATION`]); Prometheus' own configuration says which file that is
//! (`credentials_file`), and reads it for every scrape. So no list of targets holds a secret, and a rotated one needs no reload.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use shoal_agent::secrets::{SecretRef, Secrets};
use shoal_agent::{Fault, Fence};

use crate::item::Scrape;
use crate::name::{AUTHORIZATION, Name};

/// The folder of credentials.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    folder: PathBuf,
    secrets: Secrets,
}

/// The secret that a job is authorised with.
pub(super) fn of(scrape: &Scrape) -> Option<SecretRef> {
    format!("secret:{}", scrape.labels.get(AUTHORIZATION)?).parse().ok()
}

/// The secrets of these jobs.
pub(super) fn all_of(jobs: &BTreeMap<Name, Scrape>) -> impl Iterator<Item = SecretRef> {
    jobs.values().filter_map(of)
}

impl Credentials {
    /// Beside the targets of this folder.
    pub(super) fn new(targets: &Path, secrets: Secrets) -> Self {
        Self { folder: targets.join("credentials"), secrets }
    }

    /// Whether they are there.
    pub(super) fn exist(&self) -> bool {
        self.folder.is_dir()
    }

    fn path(&self, secret: &SecretRef) -> PathBuf {
        self.folder.join(secret.name())
    }

    /// Whether these stand there as the node has them, and no others. One that cannot be read now is left as it stands.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(super) fn are(&self, wanted: &BTreeSet<SecretRef>) -> Result<bool, Fault> {
        let there = self.there()?;
        let names: BTreeSet<String> = wanted.iter().map(|secret| secret.name().to_owned()).collect();
        let is = |secret: &SecretRef| match self.get(secret) {
            Ok(value) => fs::read_to_string(self.path(secret)).is_ok_and(|stands| stands == value),
            Err(_) => true,
        };
        Ok(there.is_subset(&names) && wanted.iter().all(is))
    }

    fn there(&self) -> Result<BTreeSet<String>, Fault> {
        let entries = match fs::read_dir(&self.folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            entries => entries.map_err(|e| self.fault("look into", e))?,
        };
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(|e| self.fault("look into", e))?.file_name();
            names.extend(name.into_string());
        }
        Ok(names)
    }

    /// Has these stand there as the node has them now. Answers those that cannot be had and do not stand there, and why.
    pub(super) fn put(
        &self,
        wanted: &BTreeSet<SecretRef>,
        fence: &Fence,
    ) -> Result<BTreeMap<SecretRef, Fault>, Fault> {
        let mut missing = BTreeMap::new();
        for secret in wanted {
            let path = self.path(secret);
            let value = match self.get(secret) {
                Ok(value) => value,
                Err(_) if path.exists() => continue,
                Err(fault) => {
                    missing.insert(secret.clone(), fault);
                    continue;
                }
            };
            if fs::read_to_string(&path).is_ok_and(|stands| stands == value) {
                continue;
            }
            fence.check()?;
            self.write(&path, &value).map_err(|e| self.fault("write into", e))?;
        }
        Ok(missing)
    }

    /// Removes all but these.
    pub(super) fn keep(&self, wanted: &BTreeSet<SecretRef>, fence: &Fence) -> Result<(), Fault> {
        let names: BTreeSet<&str> = wanted.iter().map(SecretRef::name).collect();
        for name in self.there()?.iter().filter(|name| !names.contains(name.as_str())) {
            fence.check()?;
            fs::remove_file(self.folder.join(name)).map_err(|e| self.fault("tidy", e))?;
        }
        Ok(())
    }

    /// There shall be a folder of them, or none.
    pub(super) fn stand(&self, there: bool) -> Result<(), Fault> {
        let done = match (there, self.exist()) {
            (true, false) => fs::create_dir(&self.folder)
                .and_then(|()| fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o755))),
            (false, true) => fs::remove_dir(&self.folder),
            _ => Ok(()),
        };
        done.map_err(|e| self.fault(if there { "make" } else { "remove" }, e))
    }

    fn write(&self, path: &Path, value: &str) -> io::Result<()> {
        // Made in the folder of targets itself, whose group it may inherit: Prometheus', which alone may read it.
        let parent = self.folder.parent().unwrap_or(&self.folder);
        let next = parent.join(".credentials.next");
        match fs::remove_file(&next) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
        let group = fs::metadata(parent)?.gid();
        if file.metadata()?.gid() != group {
            std::os::unix::fs::fchown(&file, None, Some(group))?;
        }
        file.set_permissions(fs::Permissions::from_mode(0o640))?;
        file.write_all(value.as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, path)?;
        fs::File::open(&self.folder)?.sync_all()
    }

    fn get(&self, secret: &SecretRef) -> Result<String, Fault> {
        let value = self.secrets.get(secret)?;
        if value.expose().chars().any(char::is_control) {
            let why = "it has more than one line, or a control character, which no header carries";
            return Err(Fault::new(format!("take {secret}"), why).permanent());
        }
        Ok(value.expose().to_owned())
    }

    fn fault(&self, verb: &str, why: impl ToString) -> Fault {
        Fault::new(format!("{verb} the folder of credentials {}", self.folder.display()), why)
    }
}
