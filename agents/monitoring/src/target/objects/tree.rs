//! The files on disk, and the one step in which the server gets others.
//!
//! ```text
//! current -> gens/1f3c…            what the server reads: replaced in one step
//! good    -> gens/1f2a…            what to go back to, while it is not known that the server has read `current`
//! gens/1f3c…/server.cfg            the mark and the groups (.cfg for Nagios, .conf for Icinga)
//! gens/1f3c…/7 -> ../../sets/7-1f3c…
//! sets/7-1f3c…/a.cfg               the hosts of one shard
//! ```
//!
//! A host is in one of 256 shards, by its name. A change writes the shards that it touches; what else is in their sets is
//! linked, and all other sets stay. Nothing that `current` or `good` reach is ever written into.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use shoal_agent::HostName;

use crate::target::fold;

/// More files than this are synced all at once.
const FEW: usize = 8;
/// How many sets there are, and how many shards a set has.
const SIXTEEN: u8 = 16;

/// One of 256 shards: which set, and which of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Shard(u8);

impl Shard {
    /// Where a host is. The same for ever.
    pub(super) fn of(host: &HostName) -> Self {
        Self(fold(host))
    }

    fn set(self) -> u8 {
        self.0 / SIXTEEN
    }
}

/// Tells one version of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u64, SystemTime, u64);

/// What `current` leads to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Generation {
    /// Its name, which is also its mark.
    pub(super) name: String,
    /// The name of each of its sets.
    pub(super) sets: BTreeMap<u8, String>,
}

/// The folder.
#[derive(Clone, Debug)]
pub(in crate::target) struct Tree {
    folder: PathBuf,
    /// What its files end with.
    ending: &'static str,
}

impl Tree {
    pub(super) fn new(folder: &Path, ending: &'static str) -> Self {
        Self { folder: folder.to_owned(), ending }
    }

    /// A file of one shard in a set.
    fn file(&self, set: &str, shard: Shard) -> PathBuf {
        self.set(set).join(format!("{:x}.{}", shard.0 % SIXTEEN, self.ending))
    }

    /// The server's own file in a generation.
    fn server_file(&self, generation: &str) -> PathBuf {
        self.generation_path(generation).join(format!("server.{}", self.ending))
    }

    /// What the server reads.
    pub(in crate::target) fn current(&self) -> PathBuf {
        self.folder.join("current")
    }

    /// The main configuration that reads a candidate.
    pub(in crate::target) fn check_file(&self) -> PathBuf {
        self.folder.join("check.cfg")
    }

    fn good(&self) -> PathBuf {
        self.folder.join("good")
    }

    pub(super) fn generation_path(&self, name: &str) -> PathBuf {
        self.folder.join("gens").join(name)
    }

    fn set(&self, name: &str) -> PathBuf {
        self.folder.join("sets").join(name)
    }

    /// What `current` leads to; nothing if there is none yet.
    pub(super) fn look(&self) -> io::Result<Option<Generation>> {
        // A folder that is gone is not one without hosts.
        fs::metadata(&self.folder)?;
        let Some(name) = self.leads_to(&self.current())? else { return Ok(None) };
        let mut sets = BTreeMap::new();
        for entry in fs::read_dir(self.generation_path(&name))? {
            let entry = entry?;
            let set = entry.file_name().to_str().and_then(|name| u8::from_str_radix(name, 16).ok());
            if let Some(set) = set.filter(|set| *set < SIXTEEN) {
                let target = fs::read_link(entry.path())?;
                let target = target.file_name().and_then(|name| name.to_str());
                sets.insert(set, target.unwrap_or_default().to_owned());
            }
        }
        Ok(Some(Generation { name, sets }))
    }

    fn leads_to(&self, link: &Path) -> io::Result<Option<String>> {
        match fs::read_link(link) {
            Ok(target) => Ok(target.file_name().and_then(|name| name.to_str()).map(str::to_owned)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The shards of a generation that are there.
    pub(super) fn shards(&self, generation: &Generation) -> io::Result<BTreeMap<Shard, Stamp>> {
        self.follow(generation, None, BTreeMap::new())
    }

    /// The same, where those of the generation before are known: what is in the same set is the same.
    pub(super) fn follow(
        &self,
        generation: &Generation,
        before: Option<&Generation>,
        mut found: BTreeMap<Shard, Stamp>,
    ) -> io::Result<BTreeMap<Shard, Stamp>> {
        let is_same = |set: &u8| {
            let (old, new) = (before.and_then(|before| before.sets.get(set)), generation.sets.get(set));
            new.is_some() && old == new
        };
        found.retain(|shard, _| is_same(&shard.set()));
        for (&set, name) in generation.sets.iter().filter(|(set, _)| !is_same(set)) {
            for at in 0..SIXTEEN {
                let shard = Shard(set * SIXTEEN + at);
                if let Some(stamp) = self.stamp(name, shard)? {
                    found.insert(shard, stamp);
                }
            }
        }
        Ok(found)
    }

    fn stamp(&self, set: &str, shard: Shard) -> io::Result<Option<Stamp>> {
        use std::os::unix::fs::MetadataExt as _;
        match fs::metadata(self.file(set, shard)) {
            Ok(meta) => Ok(Some(Stamp(meta.ino(), meta.modified()?, meta.size()))),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// The text of a shard.
    pub(super) fn read(&self, generation: &Generation, shard: Shard) -> io::Result<String> {
        let Some(set) = generation.sets.get(&shard.set()) else { return Ok(String::new()) };
        let octets = fs::read(self.file(set, shard))?;
        Ok(String::from_utf8_lossy(&octets).into_owned())
    }

    /// The text of the server's own file.
    pub(super) fn read_server(&self, generation: &Generation) -> io::Result<String> {
        fs::read_to_string(self.server_file(&generation.name))
    }

    /// The name of a generation that comes after this one.
    pub(super) fn next(before: &Generation) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Above the last, so that two never have one name; the clock is only a start.
        let least = u128::from_str_radix(&before.name, 16).map_or(0, |last| last + 1);
        format!("{:016x}", now.as_nanos().max(least))
    }

    /// Writes a generation that has these shards (empty text: without that one) instead of what `before` has, and all else
    /// as `before` has it. Synced, and reached by nothing yet.
    pub(super) fn write(
        &self,
        before: &Generation,
        name: &str,
        shards: &BTreeMap<Shard, String>,
        server_file: &str,
    ) -> io::Result<Generation> {
        let name = name.to_owned();
        let mut made = Generation { name: name.clone(), sets: before.sets.clone() };
        let mut written = Written::default();
        let touched: BTreeSet<u8> = shards.keys().map(|shard| shard.set()).collect();
        for set in touched {
            let new = format!("{set:x}-{name}");
            written.folder(self.set(&new))?;
            let mut any = false;
            for at in 0..SIXTEEN {
                let shard = Shard(set * SIXTEEN + at);
                let path = self.file(&new, shard);
                any |= match (shards.get(&shard), before.sets.get(&set)) {
                    (Some(text), _) if text.is_empty() => false,
                    (Some(text), _) => written.file(path, text).map(|()| true)?,
                    (None, Some(old)) => present(fs::hard_link(self.file(old, shard), path))?,
                    (None, None) => false,
                };
            }
            if any {
                made.sets.insert(set, new)
            } else {
                made.sets.remove(&set)
            };
        }
        let folder = self.generation_path(&name);
        written.folder(folder.clone())?;
        for (set, name) in &made.sets {
            symlink(Path::new("../../sets").join(name), folder.join(format!("{set:x}")))?;
        }
        written.file(self.server_file(&made.name), server_file)?;
        written.sync(&self.folder)?;
        Ok(made)
    }

    /// Writes the main configuration that reads a candidate.
    pub(in crate::target) fn write_check_file(&self, text: &str) -> io::Result<()> {
        let mut written = Written::default();
        // It may name where secrets are; it holds none that the server's own file does not.
        present(fs::remove_file(self.check_file()))?;
        written.file(self.check_file(), text)
    }

    /// Has `current` lead to this generation, in one step. What it leads to now is remembered as good unless something is already.
    pub(super) fn switch(&self, to: &Generation, is_good: bool) -> io::Result<()> {
        if is_good && let Some(name) = self.leads_to(&self.current())? {
            match symlink(Path::new("gens").join(name), self.good()) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                linked => linked?,
            }
        }
        let next = self.folder.join("next");
        present(fs::remove_file(&next))?;
        symlink(Path::new("gens").join(&to.name), &next)?;
        fs::rename(next, self.current())?;
        fs::File::open(&self.folder)?.sync_all()
    }

    /// Has `current` lead to the last good generation again; `false` where there is none.
    pub(super) fn put_back(&self) -> io::Result<bool> {
        let back = present(fs::rename(self.good(), self.current()))?;
        fs::File::open(&self.folder)?.sync_all()?;
        Ok(back)
    }

    /// The server has read `current`: whatever it does not reach goes.
    pub(super) fn settle(&self) -> io::Result<()> {
        present(fs::remove_file(self.good()))?;
        self.sweep()
    }

    /// Removes what neither `current` nor `good` reach: candidates of an agent that was killed, and what was before.
    pub(super) fn sweep(&self) -> io::Result<()> {
        let mut keep: BTreeSet<OsString> = BTreeSet::new();
        for link in [self.current(), self.good()] {
            let Some(name) = self.leads_to(&link)? else { continue };
            for entry in fs::read_dir(self.generation_path(&name))? {
                if let Ok(target) = fs::read_link(entry?.path()) {
                    keep.extend(target.file_name().map(ToOwned::to_owned));
                }
            }
            keep.insert(name.into());
        }
        for kind in ["gens", "sets"] {
            let entries = match fs::read_dir(self.folder.join(kind)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                let name = entry.file_name();
                // What Shoal did not make has no such name.
                let hex = |text: &str| text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
                let ours = name.to_str().is_some_and(|text| match text.split_once('-') {
                    Some((set, of)) => set.len() == 1 && hex(of),
                    None => hex(text),
                });
                if ours && !keep.contains(&name) {
                    fs::remove_dir_all(entry.path())?;
                }
            }
        }
        Ok(())
    }
}

/// Files that were written and may have to be synced.
#[derive(Default)]
struct Written {
    files: Vec<fs::File>,
    folders: Vec<PathBuf>,
    count: usize,
}

impl Written {
    /// A new file that the server may read, whatever the umask.
    fn file(&mut self, path: PathBuf, text: &str) -> io::Result<()> {
        let mut file = fs::File::create_new(path)?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        file.write_all(text.as_bytes())?;
        self.count += 1;
        if self.count <= FEW {
            self.files.push(file);
        }
        Ok(())
    }

    fn folder(&mut self, path: PathBuf) -> io::Result<()> {
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        self.folders.push(path);
        Ok(())
    }

    /// Each file and folder by itself, or the file system once.
    fn sync(&self, folder: &Path) -> io::Result<()> {
        if self.count > FEW {
            return rustix::fs::syncfs(fs::File::open(folder)?).map_err(io::Error::from);
        }
        for file in &self.files {
            file.sync_all()?;
        }
        let parents = ["gens", "sets"].map(|name| folder.join(name));
        for path in self.folders.iter().chain(&parents).filter(|path| path.is_dir()) {
            fs::File::open(path)?.sync_all()?;
        }
        Ok(())
    }
}

/// Whether there was something.
fn present(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_writes_its_shards_and_links_the_rest() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path(), "cfg");
        assert_eq!(tree.look().unwrap(), None);
        let all: BTreeMap<Shard, String> = (0..=255).map(|n| (Shard(n), format!("# {n}\n"))).collect();
        let write = |before: &Generation, shards: &BTreeMap<Shard, String>| {
            tree.write(before, &Tree::next(before), shards, "# server\n").unwrap()
        };
        let first = write(&Generation::default(), &all);
        tree.switch(&first, false).unwrap();
        assert_eq!(tree.look().unwrap().as_ref(), Some(&first));
        let before = tree.shards(&first).unwrap();
        assert_eq!(before.len(), 256);
        let one = BTreeMap::from([(Shard(0x7a), "# new\n".to_owned()), (Shard(0x7b), String::new())]);
        let second = write(&first, &one);
        // Nobody has seen it yet.
        assert_eq!(tree.look().unwrap().as_ref(), Some(&first));
        tree.sweep().unwrap();
        assert!(!tree.generation_path(&second.name).exists(), "a candidate that nothing reaches goes");
        let second = write(&first, &one);
        tree.switch(&second, true).unwrap();
        let after = tree.shards(&second).unwrap();
        assert_eq!(after.len(), 255);
        assert_eq!(after.iter().filter(|(shard, stamp)| before[shard] != **stamp).count(), 1);
        assert_eq!(tree.read(&second, Shard(0x7a)).unwrap(), "# new\n");
        // Back, and forward for good.
        assert!(tree.put_back().unwrap());
        assert_eq!(tree.look().unwrap().as_ref(), Some(&first));
        assert!(!tree.put_back().unwrap());
        tree.switch(&second, true).unwrap();
        tree.settle().unwrap();
        assert!(!tree.put_back().unwrap());
        let count = |kind: &str| fs::read_dir(dir.path().join(kind)).unwrap().count();
        assert_eq!((count("gens"), count("sets")), (1, 16));
        assert_eq!(
            fs::metadata(tree.generation_path(&second.name).join("server.cfg")).unwrap().mode() & 0o777,
            0o644
        );
    }
}
