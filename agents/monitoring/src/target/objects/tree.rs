//! The files on disk, and the one step in which the server gets others.
//!
//! ```text
//! current -> gens/1f3c…            what the server reads: replaced in one step
//! good    -> gens/1f2a…            what to go back to, while it is not known that the server has read `current`
//! gens/1f3c…/server.cfg            what tags define, the mark and the groups (.cfg for Nagios, .conf for Icinga)
//! gens/1f3c…/secrets.resource      the values of secrets, for the server's group alone (secrets.conf for Icinga)
//! gens/1f3c…/7 -> ../../sets/7-1f3c…
//! sets/7-1f3c…/a.cfg               the hosts of one shard
//! ```
//!
//! A host is in one of 256 shards, by its name. A change writes the shards that it touches; what else is in their sets is
//! linked, and all other sets stay. Nothing that `current` or `good` reach is ever written into.
//!
//! **Power loss**: a generation is synced whole before `current` leads to it, while the checker reads it; what was before goes only
//! after the switch is durable.

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
/// How a file of secrets is called before it is in its generation.
const SECRETS_NEXT: &str = ".shoal-secrets-";
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

/// A file of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Piece {
    /// The server's own.
    Server,
    /// The values of secrets.
    Vault,
    /// The hosts of a shard.
    Shard(Shard),
}

/// Tells one version of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp(u64, SystemTime, u64);

/// Which version of each file there is.
pub(super) type Stamps = BTreeMap<Piece, Stamp>;

impl Stamp {
    fn of(meta: &fs::Metadata) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(Self(meta.ino(), meta.modified()?, meta.size()))
    }
}

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
    /// What the file of secrets is called.
    vault: &'static str,
}

impl Tree {
    pub(super) fn new(folder: &Path, ending: &'static str, vault: &'static str) -> Self {
        Self { folder: folder.to_owned(), ending, vault }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of secrets in a generation.
    fn vault_file(&self, generation: &str) -> PathBuf {
        self.generation_path(generation).join(self.vault)
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

    /// The files of a generation that are there.
    pub(super) fn stamps(&self, generation: &Generation) -> io::Result<Stamps> {
        let mut found = Stamps::new();
        let shards = (0..=u8::MAX).map(|shard| Piece::Shard(Shard(shard)));
        for piece in [Piece::Server, Piece::Vault].into_iter().chain(shards) {
            if let Some(stamp) = self.stamp(generation, piece)? {
                found.insert(piece, stamp);
            }
        }
        Ok(found)
    }

    /// Which version of a file a generation has; `None`: it has no such file.
    pub(super) fn stamp(&self, generation: &Generation, piece: Piece) -> io::Result<Option<Stamp>> {
        let Some(path) = self.piece(generation, piece) else { return Ok(None) };
        match fs::metadata(path) {
            Ok(meta) => Stamp::of(&meta).map(Some),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn piece(&self, generation: &Generation, piece: Piece) -> Option<PathBuf> {
        Some(match piece {
            Piece::Server => self.server_file(&generation.name),
            Piece::Vault => self.vault_file(&generation.name),
            Piece::Shard(shard) => self.file(generation.sets.get(&shard.set())?, shard),
        })
    }

    /// The text of a file.
    pub(super) fn read(&self, generation: &Generation, piece: Piece) -> io::Result<String> {
        let Some(path) = self.piece(generation, piece) else { return Ok(String::new()) };
        Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
    }

    /// The name of what `current` leads to.
    pub(super) fn leads(&self) -> io::Result<Option<String>> {
        self.leads_to(&self.current())
    }

    /// The name of a generation that comes after this one.
    pub(super) fn next(before: &Generation) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        // Above the last, so that two never have one name; the clock is only a start.
        let least = u128::from_str_radix(&before.name, 16).map_or(0, |last| last + 1);
        format!("{:016x}", now.as_nanos().max(least))
    }

    /// Writes a generation that has these files (empty text: without that shard) instead of what `before` has, and all else
    /// as `before` has it. Reached by nothing yet, and not synced.
    pub(super) fn write(&self, before: &Generation, name: &str, texts: &Texts) -> io::Result<Written> {
        let name = name.to_owned();
        let made = Generation { name: name.clone(), sets: before.sets.clone() };
        let mut written = Written { generation: made, ..Written::default() };
        let touched: BTreeSet<u8> = texts.shards.keys().map(|shard| shard.set()).collect();
        for set in touched {
            let new = format!("{set:x}-{name}");
            written.folder(self.set(&new))?;
            let mut any = false;
            for at in 0..SIXTEEN {
                let shard = Shard(set * SIXTEEN + at);
                let path = self.file(&new, shard);
                any |= match (texts.shards.get(&shard), before.sets.get(&set)) {
                    (Some(text), _) if text.is_empty() => false,
                    (Some(text), _) => written.file(Piece::Shard(shard), path, text, 0o644).map(|()| true)?,
                    (None, Some(old)) => present(fs::hard_link(self.file(old, shard), path))?,
                    (None, None) => false,
                };
            }
            if any {
                written.generation.sets.insert(set, new)
            } else {
                written.generation.sets.remove(&set)
            };
        }
        written.folder(self.generation_path(&name))?;
        for (set, target) in &written.generation.sets {
            let link = self.generation_path(&name).join(format!("{set:x}"));
            symlink(Path::new("../../sets").join(target), link)?;
        }
        written.file(Piece::Server, self.server_file(&name), &texts.server, 0o644)?;
        let vault = self.vault_file(&name);
        let linked = match &texts.vault {
            None => present(fs::hard_link(self.vault_file(&before.name), &vault))?,
            Some(_) => false,
        };
        if let (false, Some(text)) = (linked, texts.vault.as_ref().or(texts.if_no_vault.as_ref())) {
            // Made in the folder itself, whose group it may inherit.
            let next = self.folder.join(format!("{SECRETS_NEXT}{name}"));
            written.file(Piece::Vault, next.clone(), text, 0o640)?;
            self.give(&next)?;
            fs::rename(next, vault)?;
        }
        let parents = ["gens", "sets"].map(|name| self.folder.join(name));
        written.folders.extend(parents.into_iter().filter(|path| path.is_dir()));
        Ok(written)
    }

    /// A file for the group of the folder: the server's.
    fn give(&self, path: &Path) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let group = fs::metadata(&self.folder)?.gid();
        if fs::metadata(path)?.gid() == group {
            Ok(())
        } else {
            std::os::unix::fs::chown(path, None, Some(group))
        }
    }

    /// Writes the main configuration that reads a candidate.
    pub(in crate::target) fn write_check_file(&self, text: &str) -> io::Result<()> {
        // It may name where secrets are; it holds none that the server's own file does not.
        let path = self.check_file();
        present(fs::remove_file(&path))?;
        new_file(&path, text, 0o644).map(drop)
    }

    /// Has `current` lead to this generation, which is synced, in one step; durable once it is [sealed](Self::seal). What it leads to
    /// now is remembered as good unless something is already.
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
        fs::rename(next, self.current())
    }

    /// Makes a switch durable. Until then nothing that was there before may go.
    pub(super) fn seal(&self) -> io::Result<()> {
        fs::File::open(&self.folder)?.sync_all()
    }

    /// Has `current` lead to the last good generation again; `false` where there is none.
    pub(super) fn put_back(&self) -> io::Result<bool> {
        let back = present(fs::rename(self.good(), self.current()))?;
        fs::File::open(&self.folder)?.sync_all()?;
        Ok(back)
    }

    /// The server has read `current`: there is no going back, and whatever it does not reach may be [swept](Self::sweep).
    pub(super) fn settle(&self) -> io::Result<()> {
        present(fs::remove_file(self.good())).map(drop)
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
        // What stands there was on its way into a candidate.
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(SECRETS_NEXT)) {
                fs::remove_file(entry.path())?;
            }
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

/// The texts of a generation's files.
#[derive(Debug, Default)]
pub(super) struct Texts {
    pub(super) shards: BTreeMap<Shard, String>,
    pub(super) server: String,
    /// `None`: as before.
    pub(super) vault: Option<String>,
    /// What to write in its place where there was none before.
    pub(super) if_no_vault: Option<String>,
}

/// A generation that was written and has to be synced.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) generation: Generation,
    /// The files that are not those of the generation before.
    pub(super) stamps: Stamps,
    files: Vec<fs::File>,
    folders: Vec<PathBuf>,
}

/// A new file of this mode, whatever the umask.
fn new_file(path: &Path, text: &str, mode: u32) -> io::Result<fs::File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    // Nobody else may open it before it has its mode.
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}

impl Written {
    fn file(&mut self, piece: Piece, path: PathBuf, text: &str, mode: u32) -> io::Result<()> {
        let file = new_file(&path, text, mode)?;
        self.stamps.insert(piece, Stamp::of(&file.metadata()?)?);
        if self.files.len() <= FEW {
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

    /// What to sync: it may be done while others read the files.
    pub(super) fn unsynced(&mut self) -> Unsynced {
        Unsynced { files: std::mem::take(&mut self.files), folders: std::mem::take(&mut self.folders) }
    }
}

/// Files and folders that are to be synced before anything leads to them.
pub(super) struct Unsynced {
    files: Vec<fs::File>,
    folders: Vec<PathBuf>,
}

impl Unsynced {
    /// Each file and folder by itself, all at the same time, so that they wait for the disk once; many, the file system once.
    pub(super) fn sync(self, folder: &Path) -> io::Result<()> {
        if self.files.len() > FEW {
            return rustix::fs::syncfs(fs::File::open(folder)?).map_err(io::Error::from);
        }
        let folders = self.folders.iter().map(fs::File::open).collect::<io::Result<Vec<_>>>()?;
        std::thread::scope(|scope| {
            let syncs: Vec<_> =
                self.files.iter().chain(&folders).map(|file| scope.spawn(|| file.sync_all())).collect();
            syncs.into_iter().try_for_each(|sync| match sync.join() {
                Ok(synced) => synced,
                Err(_) => Err(io::Error::other("a thread that syncs ended")),
            })
        })
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

    fn texts(shards: &BTreeMap<Shard, String>) -> Texts {
        let (server, none) = ("# server\n".to_owned(), Some("# no secrets\n".to_owned()));
        Texts { shards: shards.clone(), server, vault: None, if_no_vault: none }
    }

    #[test]
    fn a_change_writes_its_shards_and_links_the_rest() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let tree = Tree::new(dir.path(), "cfg", "secrets.resource");
        assert_eq!(tree.look().unwrap(), None);
        let all: BTreeMap<Shard, String> = (0..=255).map(|n| (Shard(n), format!("# {n}\n"))).collect();
        let write = |before: &Generation, shards: &BTreeMap<Shard, String>| {
            let mut written = tree.write(before, &Tree::next(before), &texts(shards)).unwrap();
            written.unsynced().sync(tree.folder()).unwrap();
            written
        };
        let first = write(&Generation::default(), &all).generation;
        tree.switch(&first, false).unwrap();
        assert_eq!(tree.look().unwrap().as_ref(), Some(&first));
        let before = tree.stamps(&first).unwrap();
        assert_eq!(before.len(), 258);
        let one = BTreeMap::from([(Shard(0x7a), "# new\n".to_owned()), (Shard(0x7b), String::new())]);
        let second = write(&first, &one).generation;
        // Nobody has seen it yet.
        assert_eq!(tree.look().unwrap().as_ref(), Some(&first));
        tree.sweep().unwrap();
        assert!(!tree.generation_path(&second.name).exists(), "a candidate that nothing reaches goes");
        let Written { generation: second, stamps: made, .. } = write(&first, &one);
        tree.switch(&second, true).unwrap();
        tree.seal().unwrap();
        let after = tree.stamps(&second).unwrap();
        assert_eq!(after.len(), 257);
        // What is not the same is what it says that it wrote: the shard and the server's own file.
        let differ: Stamps =
            after.iter().filter(|(at, is)| before[at] != **is).map(|(a, b)| (*a, *b)).collect();
        assert_eq!(differ, made);
        assert_eq!(differ.keys().collect::<Vec<_>>(), [&Piece::Server, &Piece::Shard(Shard(0x7a))]);
        assert_eq!(tree.read(&second, Piece::Shard(Shard(0x7a))).unwrap(), "# new\n");
        // Back, and forward for good.
        assert!(tree.put_back().unwrap());
        assert_eq!(tree.look().unwrap().as_ref(), Some(&first));
        assert!(!tree.put_back().unwrap());
        tree.switch(&second, true).unwrap();
        tree.settle().unwrap();
        tree.sweep().unwrap();
        assert!(!tree.put_back().unwrap());
        let count = |kind: &str| fs::read_dir(dir.path().join(kind)).unwrap().count();
        assert_eq!((count("gens"), count("sets")), (1, 16));
        let mode =
            |name: &str| fs::metadata(tree.generation_path(&second.name).join(name)).unwrap().mode() & 0o777;
        assert_eq!((mode("server.cfg"), mode("secrets.resource")), (0o644, 0o640));
    }
}
