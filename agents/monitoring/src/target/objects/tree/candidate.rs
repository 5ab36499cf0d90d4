//! Writing a generation beside what is there, into folders of earlier ones where there are any.
//!
//! A generation differs in a few files from the one before it, and hardly more from the one before that. So what was reached before is
//! kept ([`Spare`]), and the next candidate is made of it: its folder takes the new name, and only what in it is not the same file as in
//! the generation that is reached now is replaced. Which those are, the two folders say themselves, by inodes, and nobody's memory: a
//! folder that was taken apart half way is made whole, and one with something strange in it is left alone.
//!
//! **Stopped anywhere**, such a folder is reached by nothing, as any candidate, and goes when an agent begins. **None is used** while there
//! is something to go back to, nor where another generation is reached than the one beside which it was kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use super::{Generation, Piece, SECRETS_NEXT, SIXTEEN, Shard, Stamp, Stamps, Tree, new_file, present};

/// More files than this are synced all at once.
const FEW: usize = 8;
/// More octets than this are written beside the runtime's own threads.
const LITTLE: usize = 256 << 10;

/// What is in a folder, by name: the inode of each.
type Entries = BTreeMap<String, u64>;

/// Folders that nothing reaches, to be used again. Besides what is reached and these, nothing of Shoal's is there.
#[derive(Debug, Default)]
pub(in crate::target::objects) struct Spare {
    /// What is reached.
    beside: String,
    /// What was reached before.
    generation: Option<String>,
    /// Of each set a folder with most of its files.
    sets: BTreeMap<u8, String>,
}

impl Spare {
    /// There are none, and nothing else beside this generation.
    pub(in crate::target::objects) fn beside(now: &Generation) -> Self {
        Self { beside: now.name.clone(), ..Self::default() }
    }

    /// Keeps the folders of a generation that `now` has replaced, and that nobody goes back to.
    pub(in crate::target::objects) fn keep(&mut self, before: Generation, now: &Generation) {
        let gone = before.sets.into_iter().filter(|(set, name)| now.sets.get(set) != Some(name));
        self.sets.extend(gone);
        self.generation = Some(before.name);
    }

    /// Whether changes come one after the other, and there is no folder yet for some set.
    pub(in crate::target::objects) fn lacks_some_of(&self, now: &Generation) -> bool {
        self.generation.is_some() && now.sets.keys().any(|set| !self.sets.contains_key(set))
    }
}

/// The texts of a generation's files.
#[derive(Debug, Default)]
pub(in crate::target::objects) struct Texts {
    pub(in crate::target::objects) shards: BTreeMap<Shard, String>,
    pub(in crate::target::objects) server: String,
    /// `None`: as before.
    pub(in crate::target::objects) vault: Option<String>,
    /// What to write in its place where there was none before.
    pub(in crate::target::objects) if_no_vault: Option<String>,
}

impl Texts {
    /// Whether they are written in less time than it takes to hand them to another thread and back.
    pub(in crate::target::objects) fn are_few(&self) -> bool {
        self.shards.len() <= FEW && self.shards.values().map(String::len).sum::<usize>() <= LITTLE
    }
}

/// A generation that was written and has to be synced.
#[derive(Debug, Default)]
pub(in crate::target::objects) struct Written {
    pub(in crate::target::objects) generation: Generation,
    /// The files that are not those of the generation before.
    pub(in crate::target::objects) stamps: Stamps,
    /// What may be used again once it is reached; `None`: what it leaves behind is to be swept.
    pub(in crate::target::objects) spare: Option<Spare>,
    files: Vec<fs::File>,
    folders: Vec<PathBuf>,
    /// Some folder was made, or found, and is not part of it.
    leaves: bool,
}

impl Tree {
    /// Writes a generation that has these files (empty text: without that shard) instead of what `before` has, and all else
    /// as `before` has it. Reached by nothing yet, and not synced.
    pub(in crate::target::objects) fn write(
        &self,
        before: &Generation,
        name: &str,
        texts: &Texts,
        spare: Option<Spare>,
    ) -> io::Result<Written> {
        let mut spare = self.usable(before, spare)?;
        let generation = Generation { name: name.to_owned(), sets: before.sets.clone() };
        let mut written = Written { generation, ..Written::default() };
        let touched: BTreeSet<u8> = texts.shards.keys().map(|shard| shard.set()).collect();
        let mut new = false;
        for set in touched {
            let again = spare.as_mut().and_then(|spare| spare.sets.remove(&set));
            new |= self.write_set(set, before, texts, again, &mut written)?;
        }
        let again = spare.as_mut().and_then(|spare| spare.generation.take());
        self.write_generation(before, texts, again, &mut written)?;
        written.folders.push(self.folder.join("gens"));
        if new {
            written.folders.push(self.folder.join("sets"));
        }
        // What takes much room, or holds secrets that are no longer in use, does not stay.
        let stays = !written.leaves && texts.vault.is_none() && texts.are_few();
        written.spare = spare.filter(|_| stays).map(|spare| Spare { beside: name.to_owned(), ..spare });
        Ok(written)
    }

    /// What may be written into, now that `before` is known to be reached.
    fn usable(&self, before: &Generation, spare: Option<Spare>) -> io::Result<Option<Spare>> {
        let Some(spare) = spare.filter(|spare| spare.beside == before.name) else { return Ok(None) };
        let settled = self.leads_to(&self.good())?.is_none();
        Ok(settled.then_some(spare))
    }

    /// Writes the folder of one set; whether it is a new one.
    fn write_set(
        &self,
        set: u8,
        before: &Generation,
        texts: &Texts,
        again: Option<String>,
        written: &mut Written,
    ) -> io::Result<bool> {
        let old = before.sets.get(&set);
        let stands = match old {
            Some(old) => list(&self.set(old))?.unwrap_or_default(),
            None => Entries::new(),
        };
        let again = match again.filter(|again| Some(again) != old) {
            Some(name) => {
                let has = like_ours(&self.set(&name), |file| self.is_of_shard(file))?;
                written.leaves |= has.is_none();
                has.map(|has| (name, has))
            }
            None => None,
        };
        let new = again.is_none();
        let (name, has) =
            again.unwrap_or_else(|| (format!("{set:x}-{}", written.generation.name), Entries::new()));
        if new {
            written.folder(self.set(&name))?;
        } else {
            written.folders.push(self.set(&name));
        }
        let mut any = false;
        for at in 0..SIXTEEN {
            let shard = Shard(set * SIXTEEN + at);
            let (path, file) = (self.file(&name, shard), self.of_shard(shard));
            let (is, stood, text) = (has.get(&file), stands.get(&file), texts.shards.get(&shard));
            if text.is_none() && stood.is_some() && is == stood {
                any = true;
                continue;
            }
            if is.is_some() {
                present(fs::remove_file(&path))?;
            }
            any |= match (text, old.filter(|_| stood.is_some())) {
                (Some(text), _) if text.is_empty() => false,
                (Some(text), _) => written.file(Piece::Shard(shard), path, text, 0o644).map(|()| true)?,
                (None, Some(old)) => present(fs::hard_link(self.file(old, shard), path))?,
                (None, None) => false,
            };
        }
        if any {
            written.generation.sets.insert(set, name);
        } else {
            written.generation.sets.remove(&set);
            written.leaves = true;
        }
        Ok(new)
    }

    /// Writes the generation's own folder.
    fn write_generation(
        &self,
        before: &Generation,
        texts: &Texts,
        again: Option<String>,
        written: &mut Written,
    ) -> io::Result<()> {
        let name = written.generation.name.clone();
        let folder = self.generation_path(&name);
        let stands = match before.name.as_str() {
            "" => Entries::new(),
            before => list(&self.generation_path(before))?.unwrap_or_default(),
        };
        let (server, mut has) = (format!("server.{}", self.ending), None);
        if let Some(again) = again.filter(|again| *again != before.name) {
            let path = self.generation_path(&again);
            let ours = |file: &str| is_digit(file) || file == server || file == self.vault;
            has = like_ours(&path, ours)?;
            if has.is_some() && !present(fs::rename(path, &folder))? {
                has = None;
            }
            written.leaves |= has.is_none();
        }
        match has {
            Some(_) => written.folders.push(folder.clone()),
            None => written.folder(folder.clone())?,
        }
        let has = has.unwrap_or_default();
        self.write_links(before, &written.generation, (&stands, &has))?;
        let remove = |file: &str| match has.contains_key(file) {
            true => present(fs::remove_file(folder.join(file))).map(drop),
            false => Ok(()),
        };
        remove(&server)?;
        written.file(Piece::Server, folder.join(&server), &texts.server, 0o644)?;
        let stood = stands.get(self.vault).filter(|_| texts.vault.is_none());
        if stood.is_some() && has.get(self.vault) == stood {
            return Ok(());
        }
        remove(self.vault)?;
        let vault = self.vault_file(&name);
        let linked = match stood {
            Some(_) => present(fs::hard_link(self.vault_file(&before.name), &vault))?,
            None => false,
        };
        if let (false, Some(text)) = (linked, texts.vault.as_ref().or(texts.if_no_vault.as_ref())) {
            // Made in the folder itself, whose group it may inherit.
            let next = self.folder.join(format!("{SECRETS_NEXT}{name}"));
            written.file(Piece::Vault, next.clone(), text, 0o640)?;
            self.give(&next)?;
            fs::rename(next, vault)?;
        }
        Ok(())
    }

    /// Has the folder of a generation lead to its sets. `stands` is what is in the folder of the one before, `has` what is in its own.
    fn write_links(
        &self,
        before: &Generation,
        to: &Generation,
        (stands, has): (&Entries, &Entries),
    ) -> io::Result<()> {
        for set in 0..SIXTEEN {
            let link = format!("{set:x}");
            let (is, stood, target) = (has.get(&link), stands.get(&link), to.sets.get(&set));
            let same = stood.is_some() && target.is_some() && before.sets.get(&set) == target;
            if same && is == stood {
                continue;
            }
            let [old, new] = [before, to].map(|of| self.generation_path(&of.name).join(&link));
            let target = target.map(|name| Path::new("../../sets").join(name));
            if is.is_some() {
                if target.is_some() && fs::read_link(&new).ok() == target {
                    continue;
                }
                present(fs::remove_file(&new))?;
            }
            let Some(target) = target else { continue };
            // The same link once more takes no inode of its own, and costs half as much to make and to remove.
            if !(same && fs::hard_link(old, &new).is_ok()) {
                symlink(target, new)?;
            }
        }
        Ok(())
    }

    /// Makes a folder for each set of what is reached that has none to be used again, with all its files; `None`: another instance is at
    /// work here, or this file system does not say what is needed to use them. Waits for the disk once.
    pub(in crate::target::objects) fn provide(
        &self,
        now: &Generation,
        mut spare: Spare,
    ) -> io::Result<Option<Spare>> {
        let Some(_turn) = self.turn()? else { return Ok(None) };
        if self.leads()?.as_ref() != Some(&now.name) {
            return Ok(None);
        }
        let name = Self::next(now);
        for (set, old) in &now.sets {
            if spare.sets.contains_key(set) {
                continue;
            }
            let Some(stands) = list(&self.set(old))? else { return Ok(None) };
            if !are_inodes(&self.set(old), &stands)? {
                return Ok(None);
            }
            let new = format!("{set:x}-{name}");
            make_folder(&self.set(&new))?;
            for file in stands.keys().filter(|file| self.is_of_shard(file)) {
                let [old, new] = [old, &new].map(|set| self.set(set).join(file));
                present(fs::hard_link(old, new))?;
            }
            spare.sets.insert(*set, new);
        }
        fs::File::open(self.folder.join("sets"))?.sync_all()?;
        Ok(Some(spare))
    }

    /// Whether it is what files of hosts are called.
    fn is_of_shard(&self, file: &str) -> bool {
        let digit = file.strip_suffix(self.ending).and_then(|rest| rest.strip_suffix('.'));
        digit.is_some_and(is_digit)
    }
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
        make_folder(&path)?;
        self.folders.push(path);
        Ok(())
    }

    /// What to sync: it may be done while others read the files.
    pub(in crate::target::objects) fn unsynced(&mut self) -> Unsynced {
        Unsynced { files: std::mem::take(&mut self.files), folders: std::mem::take(&mut self.folders) }
    }
}

/// A part of syncing.
pub(in crate::target::objects) type Part = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Files and folders that are to be synced before anything leads to them.
pub(in crate::target::objects) struct Unsynced {
    files: Vec<fs::File>,
    folders: Vec<PathBuf>,
}

impl Unsynced {
    /// What is to be done. Each file and folder by itself, to be done all at the same time, so that they wait for the disk once; of many,
    /// the file system once.
    pub(in crate::target::objects) fn parts(self, folder: &Path) -> Vec<Part> {
        if self.files.len() > FEW {
            let folder = folder.to_owned();
            let all = move || rustix::fs::syncfs(fs::File::open(folder)?).map_err(io::Error::from);
            return vec![Box::new(all)];
        }
        let files = self.files.into_iter().map(|file| Box::new(move || file.sync_all()) as Part);
        let folders = self.folders.into_iter();
        let folders = folders.map(|path| Box::new(move || fs::File::open(path)?.sync_all()) as Part);
        files.chain(folders).collect()
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
}

/// What is in a folder; `None`: it is gone.
fn list(folder: &Path) -> io::Result<Option<Entries>> {
    let found = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    let one = |entry: io::Result<fs::DirEntry>| {
        entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.ino()))
    };
    found.map(one).collect::<io::Result<Entries>>().map(Some)
}

/// Whether a listing tells which file each is: not on every file system does it.
fn are_inodes(folder: &Path, entries: &Entries) -> io::Result<bool> {
    let Some((name, inode)) = entries.first_key_value() else { return Ok(true) };
    Ok(fs::symlink_metadata(folder.join(name))?.ino() == *inode)
}

/// What is in a folder that is to be used again; `None`: it is gone, or not as Shoal leaves one.
fn like_ours(folder: &Path, is_ours: impl Fn(&str) -> bool) -> io::Result<Option<Entries>> {
    let Some(has) = list(folder)? else { return Ok(None) };
    let fits = has.keys().all(|name| is_ours(name)) && are_inodes(folder, &has)?;
    Ok(fits.then_some(has))
}

/// Whether it is what a shard is called in its set, and a set in its generation.
fn is_digit(text: &str) -> bool {
    text.len() == 1 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
