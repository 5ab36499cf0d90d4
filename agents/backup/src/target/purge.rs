//! Purging: files of the host that are backed up are removed from it, oldest first. A removed file is nowhere but in a snapshot.
//!
//! So one goes only when all of this is so:
//!
//! * the node's configuration lets its folder be purged, and no part of its path is a link;
//! * the last good snapshot in *each* repository of the policy has it, with this size and this time, and what restic gives back of it
//!   is what stands in the file, octet for octet;
//! * those snapshots are held: retention passes them over, and the database says so already;
//! * it is a plain file with one name, nobody has it open, and it is at the end what it was before it was compared.
//!
//! What is about to go is taken off the sizes that the next backup is measured against ([`less`]), before it goes; what then stays is given
//! back to them, or each purge that fails would make it easier to take an empty source for a good one. Between the last look and the
//! removal lies a system call; who opens the file in it writes into nothing, as with any program that rotates logs.

mod less;

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, fstatvfs, openat, openat2, statat, unlinkat};
use shoal_agent::{Fault, HostName};

use self::less::Whose;
use super::backup::{list, text, words};
use super::program::{Caller, SHORT, Stop, failed};
use super::proof::Node;
use super::runs::{Run, Site as Where};
use super::sources::place;
use super::{facts, settings::Settings, sources};
use crate::item::{Job, Key, Purge};
use crate::name::AbsPath;
use crate::restore::escaped;

/// The most files of one run; what is left follows in the next.
const MOST: usize = 1_000;
/// So many are compared, then removed together,
const BATCH: usize = 200;
/// of so many octets: there has to be room for them in the agent's own folder.
const ROOM: u64 = 64 << 20;

/// How a purge ended.
pub(crate) enum Purged {
    /// There is nothing left to purge.
    All,
    /// These are to be held first, then it goes on; none: it goes on as it is.
    Again(Vec<(Key, String)>),
}

/// A repository of the policy, with its last good snapshot.
struct Holder {
    key: Key,
    restic: Caller,
    snapshot: String,
    limit: std::time::Duration,
}

impl Holder {
    fn gone(&self) -> Fault {
        let why = format!("snapshot {} is gone from {}", self.snapshot, self.key.repository());
        Fault::new("remove files that are backed up", why).next("they stay until the next good backup")
    }
}

/// A file that was found to be held exactly.
struct Found {
    path: PathBuf,
    folder: OwnedFd,
    file: File,
    was: Was,
}

impl Found {
    /// Whether it is what it was, under its name.
    fn is_as_then(&self) -> bool {
        let own = Was::of(&self.file).is_ok_and(|now| now == self.was);
        let named = self
            .path
            .file_name()
            .and_then(|name| statat(self.folder.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).ok());
        own && named.is_some_and(|stat| (stat.st_dev, stat.st_ino) == (self.was.dev, self.was.ino))
    }

    fn unlink(&self) -> io::Result<()> {
        let name = self.path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(unlinkat(self.folder.as_fd(), name, AtFlags::empty())?)
    }
}

/// Removes files until one cannot be removed. Answers those that stay, and why.
fn take(batch: &[Found], unlink: impl Fn(&Found) -> io::Result<()>) -> (Vec<&Found>, Option<Fault>) {
    let (mut stay, mut why) = (Vec::new(), None);
    for one in batch {
        if why.is_some() || !one.is_as_then() {
            stay.push(one);
        } else if let Err(e) = unlink(one) {
            stay.push(one);
            why = Some(Fault::new(format!("remove {}", one.path.display()), e));
        }
    }
    (stay, why)
}

/// What a file was like.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Was {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
    links: u64,
    plain: bool,
}

impl Was {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.len(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
            links: meta.nlink(),
            plain: meta.is_file(),
        })
    }

    /// Whether it is a plain file with one name, as the snapshot has it.
    fn is(&self, node: &Node) -> bool {
        let then = (node.mtime.as_second(), i64::from(node.mtime.subsec_nanosecond()));
        self.plain && self.links == 1 && self.size == node.size && self.mtime == then
    }
}

/// Purges.
///
/// # Errors
/// It may not, cannot be sure, or could not free as much as is to be; and what is odd about a file, which stays.
pub(crate) async fn run(run: &Run<'_>, job: &Job, stop: &mut Stop) -> Result<Purged, Fault> {
    let (Key::Backup { host, .. }, Some(purge)) = (run.key, &job.purge) else { return Ok(Purged::All) };
    let what = format!("purge {host} of what is backed up");
    let site = Site::new(run, job, host, &what)?;
    run.say("looks for files that may be purged");
    let holders = holders(run, host, purge, &what).await?;
    let mut nodes = candidates(&site, purge, &holders, stop).await?;
    let more = nodes.len() > MOST;
    nodes.truncate(MOST);
    if nodes.is_empty() {
        return site.free_enough(purge, &what).map(|()| Purged::All);
    }
    let told = run.work.told(host).await?;
    let is_held = |one: &Holder| match &one.key {
        Key::Backup { policy, repository, .. } => {
            facts::held(&told[facts::name(policy, repository)]).contains_key(&one.snapshot)
        }
        Key::Upkeep { .. } => false,
    };
    if !holders.iter().all(is_held) {
        return Ok(Purged::Again(holders.into_iter().map(|one| (one.key, one.snapshot)).collect()));
    }
    let folder = run.work.records.of_host(host).join("purge");
    let (mut gone, mut odd) = (0, None);
    for batch in batches(&nodes) {
        run.say(&format!("purges: {gone} of {} files are removed", nodes.len()));
        let mut same = Vec::new();
        for node in batch {
            let pending = same.iter().map(|(_, one): &(&Node, Found)| one.was.size).sum();
            match look(node, purge, pending) {
                Ok(Some(found)) => same.push((node, found)),
                Ok(None) => {}
                Err(e) => tracing::debug!("{} is not purged: {e}", node.path),
            }
        }
        for holder in &holders {
            let compared = compare(&folder, holder, &mut same, stop).await;
            sources::clear(&folder)?;
            odd = compared?.or(odd);
        }
        let batch = same.into_iter().map(|(_, one)| one).collect();
        gone += site.remove(run, batch, &holders, stop).await?;
    }
    tracing::info!(item = %run.key, "purged {gone} files of {host}, which are in {} repositories", holders.len());
    if let Some(why) = odd {
        return Err(Fault::new(what, why).next("it stays; see what is wrong with it, or with the repository"));
    }
    if more && gone > 0 {
        return Ok(Purged::Again(Vec::new()));
    }
    site.free_enough(purge, &what).map(|()| Purged::All)
}

/// The policy's repositories, this one first. Each has to have a good snapshot.
async fn holders(run: &Run<'_>, host: &HostName, purge: &Purge, what: &str) -> Result<Vec<Holder>, Fault> {
    let Key::Backup { policy, repository, .. } = run.key else { return Ok(Vec::new()) };
    let mut holders = Vec::new();
    for repository in [repository].into_iter().chain(&purge.also) {
        let (host, policy, repository) = (host.clone(), policy.clone(), repository.clone());
        let restic = run.work.caller(&repository, false)?;
        let key = Key::Backup { host, policy, repository };
        let record = run.work.records.read(&key).map_err(|why| Fault::new(what, why))?;
        let Some(last) = record.and_then(|record| record.last) else {
            let why = format!("there is no good backup in {} yet", key.repository());
            return Err(Fault::new(what, why));
        };
        holders.push(Holder { key, restic, snapshot: last.snapshot, limit: run.work.settings.limit });
    }
    Ok(holders)
}

/// Files that all of the snapshots have and that the host has as well, from the oldest on.
async fn candidates(
    site: &Site<'_>,
    purge: &Purge,
    holders: &[Holder],
    stop: &mut Stop,
) -> Result<Vec<Node>, Fault> {
    let before = purge.older_than.map(|age| Timestamp::now().as_millisecond() - age);
    let young = |node: &Node| before.is_none_or(|before| node.mtime.as_millisecond() >= before);
    let mut all: BTreeMap<String, Node> = BTreeMap::new();
    for (n, holder) in holders.iter().enumerate() {
        let (mut here, mut known) = (BTreeMap::new(), false);
        let args = words(&["ls", "--json", "--no-lock", &holder.snapshot]);
        let ended = holder
            .restic
            .lines(&args, SHORT, stop, |line| {
                let Ok(node) = serde_json::from_str::<Node>(line) else {
                    known = known || line.contains(&holder.snapshot);
                    return;
                };
                let wanted = match n {
                    0 => site.may(&node.path) && (purge.keep_free.is_some() || !young(&node)) && there(&node),
                    _ => all
                        .get(&node.path)
                        .is_some_and(|one| (one.size, one.mtime) == (node.size, node.mtime)),
                };
                if node.kind == "file" && wanted {
                    here.insert(node.path.clone(), node);
                }
            })
            .await?;
        if ended.code != Some(0) {
            return Err(failed("list the files of a snapshot", &ended));
        }
        // restic passes over a snapshot that is not there.
        if !known {
            return Err(holder.gone());
        }
        all = here;
    }
    let mut nodes: Vec<Node> = all.into_values().collect();
    nodes.sort_by(|a, b| (a.mtime, &a.path).cmp(&(b.mtime, &b.path)));
    Ok(nodes)
}

/// Whether the host has it still, by a first look.
fn there(node: &Node) -> bool {
    fs::symlink_metadata(&node.path).is_ok_and(|meta| meta.is_file() && meta.len() == node.size)
}

/// Opens a file that is to go and may; `None`: it need not, or is not as the snapshot has it.
fn look(node: &Node, purge: &Purge, pending: u64) -> io::Result<Option<Found>> {
    let path = PathBuf::from(&node.path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let folder = openat2(CWD, parent, flags, Mode::empty(), resolve)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(openat(&folder, name, flags, Mode::empty())?);
    let was = Was::of(&file)?;
    let age = Timestamp::now().as_millisecond() - node.mtime.as_millisecond();
    let old = purge.older_than.is_some_and(|older| age > older);
    let needed = |share: u8| Ok::<_, io::Error>(too_full(&file, share, pending)?.is_some());
    if !was.is(node) || !(old || purge.keep_free.map_or(Ok(false), needed)?) {
        return Ok(None);
    }
    Ok(Some(Found { path, folder, file, was }))
}

/// What share of the file system is free, in percent, if that is less than this.
fn too_full(of: &File, share: u8, pending: u64) -> io::Result<Option<u64>> {
    let stat = fstatvfs(of)?;
    let size = stat.f_blocks.saturating_mul(stat.f_frsize).max(1);
    let free = stat.f_bavail.saturating_mul(stat.f_frsize).saturating_add(pending);
    let percent = u128::from(free) * 100 / u128::from(size);
    Ok((percent < u128::from(share)).then_some(u64::try_from(percent).unwrap_or(100)))
}

/// Files in their order, so many at a time that there is room for copies of them. One that is larger is alone.
fn batches(nodes: &[Node]) -> Vec<&[Node]> {
    let (mut all, mut from, mut octets) = (Vec::new(), 0, 0);
    for (n, node) in nodes.iter().enumerate() {
        octets += node.size;
        if n > from && (octets > ROOM || n - from >= BATCH) {
            all.push(&nodes[from..n]);
            (from, octets) = (n, node.size);
        }
    }
    all.extend((from < nodes.len()).then(|| &nodes[from..]));
    all
}

/// Leaves the files that restic gives back octet for octet as they are. Answers what is odd about another.
async fn compare(
    folder: &Path,
    holder: &Holder,
    batch: &mut Vec<(&Node, Found)>,
    stop: &mut Stop,
) -> Result<Option<String>, Fault> {
    let mut equal: Vec<bool> = Vec::new();
    match batch.as_slice() {
        [] => return Ok(None),
        [(node, found)] if node.size > ROOM => equal.push(streamed(holder, node, found, stop).await?),
        several => {
            sources::make(folder)?;
            let mut args = words(&["restore", &holder.snapshot, "--target", &text(folder)]);
            args.extend(several.iter().flat_map(|(node, _)| ["--include".to_owned(), escaped(&node.path)]));
            let ended = holder.restic.lines(&args, SHORT, stop, |_| {}).await?;
            if ended.code != Some(0) {
                let what = format!("read files back from {} to compare them", holder.key.repository());
                return Err(failed(&what, &ended));
            }
            for (node, found) in several {
                let copy = File::open(folder.join(node.path.trim_start_matches('/')));
                equal.push(copy.is_ok_and(|copy| same(&copy, &found.file, found.was.size).unwrap_or(false)));
            }
        }
    }
    let (mut equal, mut odd) = (equal.into_iter(), None);
    batch.retain(|(node, found)| {
        let equal = equal.next().unwrap_or(false);
        if !equal {
            let unchanged = Was::of(&found.file).is_ok_and(|now| now == found.was);
            let (path, id, at) = (&node.path, &holder.snapshot, holder.key.repository());
            let why = match unchanged {
                true => {
                    format!("{path} has the size and time that snapshot {id} in {at} has, and not its octets")
                }
                false => format!("{path} was written to while it was compared"),
            };
            odd = Some(why);
        }
        equal
    });
    Ok(odd)
}

/// Whether a large file is what restic gives back of it.
async fn streamed(holder: &Holder, node: &Node, found: &Found, stop: &mut Stop) -> Result<bool, Fault> {
    let (mut at, mut equal, mut own) = (0_u64, true, vec![0; 1 << 16]);
    let args = words(&["dump", &holder.snapshot, &node.path]);
    let ended = holder
        .restic
        .octets(&args, holder.limit, stop, |octets| {
            for part in octets.chunks(own.len().max(1)) {
                let own = &mut own[..part.len()];
                equal = equal && found.file.read_exact_at(own, at).is_ok() && own == part;
                at += part.len() as u64;
            }
        })
        .await?;
    match ended.code {
        Some(0) => Ok(equal && at == found.was.size),
        _ => Err(failed(&format!("read {} back from {}", node.path, holder.key.repository()), &ended)),
    }
}

/// Whether two files of this size are equal.
fn same(one: &File, other: &File, size: u64) -> io::Result<bool> {
    let (mut a, mut b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut at = 0;
    while at < size {
        let part = usize::try_from((size - at).min(1 << 16)).unwrap_or(1 << 16);
        one.read_exact_at(&mut a[..part], at)?;
        other.read_exact_at(&mut b[..part], at)?;
        if a[..part] != b[..part] {
            return Ok(false);
        }
        at += part as u64;
    }
    Ok(one.metadata()?.len() == size)
}

/// Where a policy's paths are, and which may be purged.
struct Site<'s> {
    /// Where the host's files are; `None`: as they are.
    root: Option<PathBuf>,
    /// Each path of the policy that may be purged, and where it is.
    paths: Vec<(&'s AbsPath, PathBuf)>,
}

impl<'s> Site<'s> {
    fn new(run: &Run<'_>, job: &'s Job, host: &HostName, what: &str) -> Result<Self, Fault> {
        let Where::Here(root) = run.work.site(host)? else {
            return Err(Fault::new(what, "its files are on another machine")
                .next("run shoal-backup --host self there"));
        };
        let settings: &Settings = &run.work.settings;
        let may = |path: &&AbsPath| settings.purge.iter().any(|folder| path.is_in(folder.as_str()));
        let paths: Vec<_> =
            job.paths.iter().filter(may).map(|path| (path, place(root.as_deref(), path))).collect();
        if paths.is_empty() {
            let next =
                "add the folders to `purge` in this node's configuration, or take `purge` out of the policy";
            return Err(Fault::new(what, "no path of the policy may be purged here").next(next));
        }
        Ok(Self { root, paths })
    }

    fn may(&self, path: &str) -> bool {
        !path.chars().any(char::is_control)
            && self.paths.iter().any(|(_, at)| Path::new(path).starts_with(at))
    }

    /// Removes files that were compared. Answers how many.
    async fn remove(
        &self,
        run: &Run<'_>,
        batch: Vec<Found>,
        holders: &[Holder],
        stop: &mut Stop,
    ) -> Result<usize, Fault> {
        if batch.is_empty() {
            return Ok(0);
        }
        let what = "remove files that are backed up";
        for holder in holders {
            if !list(&holder.restic, &[], stop).await?.iter().any(|one| one.id == holder.snapshot) {
                return Err(holder.gone());
            }
        }
        let unseen = run.work.settings.unseen;
        let open = tokio::task::spawn_blocking(move || open_files(unseen)).await;
        let open = open.map_err(|e| Fault::new(what, e))?.map_err(|e| {
            Fault::new(what, format!("what other processes have open cannot be seen: {e}"))
                .next("let the agent be root, or give it CAP_SYS_PTRACE; or see `unseen` in the manual")
        })?;
        let gone = |one: &Found| !open.contains(&(one.was.dev, one.was.ino)) && one.is_as_then();
        let batch: Vec<Found> = batch.into_iter().filter(gone).collect();
        let whose = less::whose(run, holders);
        self.expect(run, &batch, &whose)?;
        let (stay, why) = take(&batch, Found::unlink);
        let count = batch.len() - stay.len();
        if !stay.is_empty() {
            self.give_back(run, stay, &whose)?;
        }
        why.map_or(Ok(count), Err)
    }

    /// Writes down that the next backups will find so much less, before it is so: no smaller source is a fault for that.
    fn expect(&self, run: &Run<'_>, batch: &[Found], whose: &[Whose]) -> Result<(), Fault> {
        for (n, one) in whose.iter().enumerate() {
            let less = one.less(self, batch);
            let noted =
                run.work.change(&one.key, |record| record.last.iter_mut().for_each(|last| less.off(last)));
            if let Err(fault) = noted {
                // Nothing is removed, so nothing is to be missing.
                self.give_back(run, batch, &whose[..n])?;
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Takes that back for files that were not removed.
    fn give_back<'f>(
        &self,
        run: &Run<'_>,
        stay: impl IntoIterator<Item = &'f Found> + Clone,
        whose: &[Whose],
    ) -> Result<(), Fault> {
        for one in whose {
            let less = one.less(self, stay.clone());
            run.work.change(&one.key, |record| record.last.iter_mut().for_each(|last| less.back(last)))?;
        }
        Ok(())
    }

    /// Whether as much is free as is to be.
    fn free_enough(&self, purge: &Purge, what: &str) -> Result<(), Fault> {
        let Some(share) = purge.keep_free else { return Ok(()) };
        for (path, at) in &self.paths {
            let file = File::open(at).map_err(|e| Fault::new(what, format!("{path}: {e}")))?;
            let full = too_full(&file, share, 0).map_err(|e| Fault::new(what, format!("{path}: {e}")))?;
            if let Some(free) = full {
                let why = format!("{free} % of the file system of {path} is free, and {share} % are to be");
                let next =
                    "nothing more of it can go: it is in use, or in no good backup, or not the policy's";
                return Err(Fault::new(what, why).next(next));
            }
        }
        Ok(())
    }
}

/// Every file that another process of this machine has open. Processes whose files cannot be seen are an error, or passed over.
fn open_files(unseen: bool) -> io::Result<HashSet<(u64, u64)>> {
    let (mut all, own) = (HashSet::new(), std::process::id().to_string());
    // It ended meanwhile, or may not be looked into.
    let passed = |e: &io::Error| {
        e.kind() == io::ErrorKind::NotFound
            || e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
            || (unseen && e.kind() == io::ErrorKind::PermissionDenied)
    };
    for process in fs::read_dir("/proc")? {
        let name = process?.file_name();
        let is_one =
            name.to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()) && name != own);
        if !is_one {
            continue;
        }
        let about = |e: io::Error| io::Error::new(e.kind(), format!("process {}: {e}", name.display()));
        let files = match fs::read_dir(Path::new("/proc").join(&name).join("fd")) {
            Ok(files) => files,
            Err(e) if passed(&e) => continue,
            Err(e) => return Err(about(e)),
        };
        for file in files {
            let meta = file.and_then(|file| fs::metadata(file.path()));
            match meta {
                Ok(meta) => _ = all.insert((meta.dev(), meta.ino())),
                Err(e) if passed(&e) => {}
                Err(e) => return Err(about(e)),
            }
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
