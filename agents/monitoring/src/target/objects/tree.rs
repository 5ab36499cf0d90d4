//! The files on disk, and the one step in which the server gets others.
//!
//! ```text
//! current -> gens/1f3c…            what the server reads: replaced in one step
//! good    -> gens/1f2a…            what to go back to, while it is not known that the server has read `current`
//! gens/1f3c…/server.cfg            what tags define, the mark and the groups (.cfg for Nagios, .conf for Icinga)
//! gens/1f3c…/secrets.resource      the values of secrets, for the server's group alone (secrets.conf for Icinga)
//! gens/1f3c…/7 -> ../../sets/7-1f2a…
//! sets/7-1f2a…/a.cfg               the hosts of one shard
//! ```
//!
//! A host is in one of 256 shards, by its name. A change writes the shards that it touches; what else is in their sets is
//! linked, and all other sets stay. Nothing that `current` or `good` reach is ever written into; folders that nothing reaches any more are
//! written into again ([`candidate`]).
//!
//! **Power loss**: a generation is synced whole before `current` leads to it, while the checker reads it; what was before goes, or is used
//! again, only after the switch is durable.

mod candidate;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use shoal_agent::HostName;

pub(super) use candidate::{Spare, Texts, Written};

use crate::target::fold;

/// How a file of secrets is called before it is in its generation.
const SECRETS_NEXT: &str = ".shoal-secrets-";
/// How the configuration that reads a candidate is called, before and after the candidate's name.
const CHECK: &str = "check-";
const CHECK_ENDS: &str = ".cfg";
/// Which file is locked while there are candidates.
const TURN: &str = ".shoal-turn";
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
        self.set(set).join(self.of_shard(shard))
    }

    /// What the file of a shard is called in its set.
    fn of_shard(&self, shard: Shard) -> String {
        format!("{:x}.{}", shard.0 % SIXTEEN, self.ending)
    }

    /// The server's own file in a generation.
    fn server_file(&self, generation: &str) -> PathBuf {
        self.generation_path(generation).join(format!("server.{}", self.ending))
    }

    /// What the server reads.
    pub(in crate::target) fn current(&self) -> PathBuf {
        self.folder.join("current")
    }

    /// The main configuration that reads a candidate: of each its own, so that an instance that does not know that its claim has ended is not
    /// shown what another one is about to do, nor the other way around.
    pub(in crate::target) fn check_file(&self, candidate: &Path) -> PathBuf {
        let name = candidate.file_name().unwrap_or_default().to_string_lossy();
        self.folder.join(format!("{CHECK}{name}{CHECK_ENDS}"))
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

    /// Writes the main configuration that reads a candidate, for nobody who may not read the server's own: the arguments of a module may
    /// hold a password.
    pub(in crate::target) fn write_check_file(
        &self,
        candidate: &Path,
        text: &str,
        own: &Path,
    ) -> io::Result<()> {
        let own = fs::metadata(own)?.permissions().mode();
        let mode = if own & 0o004 == 0 { 0o600 | (own & 0o040) } else { 0o644 };
        let file = self.check_file(candidate);
        new_file(&file, text, mode)?;
        // Whoever may not give it away has the checker read it as themselves.
        if mode == 0o640
            && let Err(why) = self.give(&file)
        {
            tracing::debug!("{} keeps its group: {why}", file.display());
        }
        Ok(())
    }

    /// Removes it again.
    pub(in crate::target) fn remove_check_file(&self, candidate: &Path) -> io::Result<()> {
        present(fs::remove_file(self.check_file(candidate))).map(drop)
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
        // A folder that is used again goes after `good` does, but which of the two a loss of power keeps is the disk's to say.
        let back = self.good().is_dir() && present(fs::rename(self.good(), self.current()))?;
        fs::File::open(&self.folder)?.sync_all()?;
        Ok(back)
    }

    /// The server has read `current`: there is no going back, and whatever it does not reach may be [swept](Self::sweep).
    pub(super) fn settle(&self) -> io::Result<()> {
        present(fs::remove_file(self.good())).map(drop)
    }

    /// The right to have candidates here, for as long as it is kept; `None`: another instance has it. It ends with the process.
    pub(super) fn turn(&self) -> io::Result<Option<fs::File>> {
        let path = self.folder.join(TURN);
        let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(e)) => Err(e),
        }
    }

    /// Removes what neither `current` nor `good` reach: candidates of an agent that was killed, and what was before. Nothing while an
    /// instance has its turn, as a candidate of its may be among them: `false`.
    pub(super) fn sweep(&self) -> io::Result<bool> {
        let Some(_turn) = self.turn()? else { return Ok(false) };
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
        let current = self.leads()?.unwrap_or_default();
        // What stands there was on its way into a candidate, or was to check one that came before.
        let checked = |name: &str| {
            let of = name.strip_prefix(CHECK).and_then(|name| name.strip_suffix(CHECK_ENDS));
            of.is_some_and(|of| is_generation(of) && of < current.as_str())
        };
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(SECRETS_NEXT) || checked(name))
            {
                present(fs::remove_file(entry.path()))?;
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
                let ours = name.to_str().is_some_and(|text| match text.split_once('-') {
                    Some((set, of)) => set.len() == 1 && is_generation(of),
                    None => is_generation(text),
                });
                if ours && !keep.contains(&name) {
                    fs::remove_dir_all(entry.path())?;
                }
            }
        }
        Ok(true)
    }
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

/// Whether it is what generations are called.
fn is_generation(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
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
mod tests;
