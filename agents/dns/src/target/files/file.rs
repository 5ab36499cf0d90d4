//! The files on disk: looked at, replaced, put back, removed.
//!
//! For a zone whose file is `Z` there may stand beside it `.Z.new`, a candidate (rubbish if nobody works on it), and
//! `.Z.good`, the last file that the server is known to have served (empty where there was none), while that is not known
//! of `Z`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use shoal_agent::{Fault, owner};

use super::settings::ZoneFileSettings;
use crate::name::Zone;
use crate::record::{Key, Node};
use crate::target::zonefile::{self, Rendered, ZoneFile};

/// Tells one version of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    changed: SystemTime,
    size: u64,
}

/// What is known of a zone's file.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The version that was read; `None`: there is no file, or nobody looked.
    pub(super) stamp: Option<Stamp>,
    /// What it holds.
    pub(super) file: Arc<ZoneFile>,
    /// Whether the server may not serve it yet.
    pub(super) pending: bool,
    /// What the server served when last asked.
    pub(super) served: Option<u32>,
    /// Names that could not be written while nothing declared the zone.
    pub(super) refused: BTreeSet<Key>,
    /// Held by whoever writes a candidate, until that has ended.
    pub(super) writing: Arc<tokio::sync::Mutex<()>>,
}

impl Known {
    /// Whether there is a file.
    pub(super) fn exists(&self) -> bool {
        self.stamp.is_some()
    }

    /// The records of a name. A zone that is served without a file is there, and nothing of it can be read.
    pub(super) fn records(&self, key: &Key) -> Option<&Node> {
        static UNREAD: LazyLock<Node> = LazyLock::new(Node::default);
        let unread = !self.exists() && self.served.is_some() && key.is_apex();
        if unread { Some(&UNREAD) } else { self.file.nodes.get(key) }
    }
}

/// The directory of zone files.
#[derive(Clone, Debug)]
pub(super) struct Files {
    directory: PathBuf,
    pattern: String,
}

impl Files {
    pub(super) fn new(settings: &ZoneFileSettings) -> Self {
        Self { directory: settings.directory.clone(), pattern: settings.file.clone() }
    }

    /// The name of the zone's file.
    pub(super) fn name(&self, zone: &Zone) -> String {
        // A zone's name holds no '/', and the pattern was checked: this stays in the directory.
        self.pattern.replace("{zone}", zone.as_str())
    }

    /// The zone's file.
    pub(super) fn path(&self, zone: &Zone) -> PathBuf {
        self.directory.join(self.name(zone))
    }

    /// Its candidate.
    pub(super) fn candidate(&self, zone: &Zone) -> PathBuf {
        self.directory.join(format!(".{}.new", self.name(zone)))
    }

    fn good(&self, zone: &Zone) -> PathBuf {
        self.directory.join(format!(".{}.good", self.name(zone)))
    }

    /// Reads the file again if it is another than the one that is known. Costs one `stat` otherwise.
    pub(super) async fn look(&self, zone: &Zone, known: &mut Known) -> Result<(), Fault> {
        let path = self.path(zone);
        let fault = |e: io::Error| Fault::new(format!("read the zone file {}", path.display()), e);
        // A directory that is gone is not a zone without records.
        fs::metadata(&self.directory).map_err(|e| {
            Fault::new(format!("look into the zone directory {}", self.directory.display()), e)
        })?;
        known.pending = fs::symlink_metadata(self.good(zone)).is_ok();
        let found = stamp(&path).map_err(fault)?;
        if found == known.stamp && (found.is_some() || *known.file == ZoneFile::default()) {
            return Ok(());
        }
        known.file = Arc::new(match found {
            None => ZoneFile::default(),
            Some(_) => {
                let (path, zone) = (path.clone(), zone.clone());
                let read = move || {
                    fs::read(path).map(|octets| zonefile::read(&String::from_utf8_lossy(&octets), &zone))
                };
                tokio::task::spawn_blocking(read)
                    .await
                    .map_err(|e| fault(io::Error::other(e)))?
                    .map_err(fault)?
            }
        });
        known.stamp = found;
        Ok(())
    }

    /// Whether the file is another than the one that is known. Costs one `stat`.
    pub(super) fn differs(&self, zone: &Zone, known: &Known) -> bool {
        stamp(&self.path(zone)).map_or(true, |found| found != known.stamp)
    }

    /// Writes the candidate and syncs it.
    pub(super) fn write(&self, zone: &Zone, text: &Rendered) -> io::Result<()> {
        let written = fs::File::create(self.candidate(zone)).and_then(|mut file| {
            self.open_to_readers(zone, &file)?;
            file.write_all(text.head.as_bytes())?;
            file.write_all(text.body.as_bytes())?;
            file.sync_all()
        });
        // Half a candidate would only take up the room that is missing.
        written.inspect_err(|_| self.discard(zone))
    }

    /// Who may read the zone's file may read the next one. The first one everybody may, whatever the umask: the server is
    /// somebody else.
    fn open_to_readers(&self, zone: &Zone, file: &fs::File) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
        let mode = match fs::metadata(self.path(zone)) {
            Ok(meta) => {
                if file.metadata()?.gid() != meta.gid()
                    && let Err(error) = fchown(file, None, Some(meta.gid()))
                {
                    tracing::debug!(%zone, "the new zone file does not keep the group of the old one: {error}");
                }
                meta.mode() & 0o777
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0o644,
            Err(e) => return Err(e),
        };
        file.set_permissions(fs::Permissions::from_mode(mode))
    }

    /// Puts the candidate in the file's place, keeping that one beside it if it is good.
    pub(super) fn replace(&self, zone: &Zone, is_good: bool) -> io::Result<Option<Stamp>> {
        let (path, good) = (self.path(zone), self.good(zone));
        let kept = if is_good { fs::hard_link(&path, &good) } else { Err(io::ErrorKind::NotFound.into()) };
        let kept = match kept {
            // There is none: an empty one says that the new file is not known to be served.
            Err(e) if e.kind() == io::ErrorKind::NotFound => fs::File::create_new(&good).map(drop),
            kept => kept,
        };
        match kept {
            // One that is still there is older, and known to be good; this file is not.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            kept => kept?,
        }
        fs::rename(self.candidate(zone), &path)?;
        self.sync()?;
        stamp(&path)
    }

    /// The file is served: the last good one is not needed any more.
    pub(super) fn settle(&self, zone: &Zone) -> io::Result<()> {
        unless_absent(fs::remove_file(self.good(zone)))
    }

    /// Makes the zone's file look new: NSD does not read a file again that is of the same time as the one that it read
    /// last, also when it could not load what came between.
    pub(super) fn renew(&self, zone: &Zone) -> io::Result<Option<Stamp>> {
        let path = self.path(zone);
        unless_absent(renew(&path))?;
        stamp(&path)
    }

    /// Puts the last good file back; `false` where there is none.
    pub(super) fn put_back(&self, zone: &Zone) -> io::Result<bool> {
        let good = self.good(zone);
        match fs::metadata(&good) {
            Ok(meta) if meta.len() > 0 => {
                renew(&good)?;
                fs::rename(good, self.path(zone))?;
                self.sync().map(|()| true)
            }
            Ok(_) => Ok(false),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Removes the zone's file and what stands beside it.
    pub(super) fn remove(&self, zone: &Zone) -> io::Result<()> {
        unless_absent(fs::remove_file(self.good(zone)))?;
        unless_absent(fs::remove_file(self.candidate(zone)))?;
        unless_absent(fs::remove_file(self.path(zone)))?;
        self.sync()
    }

    /// Removes a candidate that is not wanted.
    pub(super) fn discard(&self, zone: &Zone) {
        // It would be overwritten by the next one; that it is gone is only tidy.
        let _ = fs::remove_file(self.candidate(zone));
    }

    /// Removes what a killed agent left beside files that are not there, and candidates, if nobody has touched it for
    /// that long. Whoever works on a zone looks after what stands beside its file; this is for zones that nobody wants
    /// any more, or wants as they were.
    pub(super) fn sweep(&self, older: Duration) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?;
        let (before, after) = self.pattern.split_once("{zone}").unwrap_or((&self.pattern, ""));
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let Some(hidden) = name.to_str().and_then(|name| name.strip_prefix('.')) else { continue };
            let (of, candidate) = match (hidden.strip_suffix(".new"), hidden.strip_suffix(".good")) {
                (Some(of), _) => (of, true),
                (None, Some(of)) => (of, false),
                (None, None) => continue,
            };
            let zone = of.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            let ours =
                zone.and_then(|zone| Zone::parse(zone).ok()).is_some_and(|zone| self.name(&zone) == of)
                    || candidate && owner::is_candidate(hidden);
            if !ours || !candidate && fs::symlink_metadata(self.directory.join(of)).is_ok() {
                continue;
            }
            let path = self.directory.join(&name);
            // A link keeps the time of what it leads to; when it was made, the change of the inode tells.
            let changed =
                fs::symlink_metadata(&path).map(|meta| Duration::from_secs(meta.ctime().unsigned_abs()));
            if changed.is_ok_and(|changed| now.saturating_sub(changed) >= older) {
                unless_absent(fs::remove_file(&path))?;
                tracing::info!("removed {}, which an agent that was killed left behind", path.display());
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.directory)?.sync_all()
    }
}

fn renew(path: &Path) -> io::Result<()> {
    fs::File::options().append(true).open(path)?.set_modified(SystemTime::now())
}

fn unless_absent(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    use std::os::unix::fs::MetadataExt;
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(Stamp { inode: meta.ino(), changed: meta.modified()?, size: meta.len() })),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_can_be_read_by_those_who_could_read_the_old_one() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let files = Files::new(&ZoneFileSettings::files(dir.path()));
        let zone = Zone::parse("example.com").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let (candidate, path) = (files.candidate(&zone), files.path(&zone));
        // As a narrow umask makes it.
        fs::write(&candidate, "").unwrap();
        set(&candidate, 0o600);
        let text = zonefile::render(&zone, 1, []);
        files.write(&zone, &text).unwrap();
        files.replace(&zone, true).unwrap();
        assert_eq!(mode(&path), 0o644);
        set(&path, 0o640);
        files.write(&zone, &text).unwrap();
        files.replace(&zone, true).unwrap();
        assert_eq!(mode(&path), 0o640);
    }

    #[test]
    fn only_what_nobody_needs_is_swept_away() {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = ZoneFileSettings::files(dir.path());
        settings.file = "db.{zone}".to_owned();
        let files = Files::new(&settings);
        let stray = [".db.a.example.new", ".db.gone.example.good", ".shoal-database.00000000000000ff.new"];
        let kept = [
            ".db.a.example.good",
            "db.a.example",
            "db.b.new",
            ".other.new",
            ".db.-.new",
            ".profile",
            owner::NAME,
        ];
        for name in stray.iter().chain(&kept) {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        let left = || {
            let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
            names.collect::<std::collections::BTreeSet<_>>()
        };
        files.sweep(Duration::from_secs(3600)).unwrap();
        assert_eq!(left().len(), stray.len() + kept.len());
        files.sweep(Duration::ZERO).unwrap();
        assert_eq!(left(), kept.iter().map(std::ffi::OsString::from).collect());
    }
}
