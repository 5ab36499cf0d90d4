//! The past: which commits wrote where, and what.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use shoal_core::{Change, Key, LogEntry, Range, Revision};
use shoal_store::parts::Where;
use shoal_store::{MAX_PAGE, MAX_PAGE_BYTES, Result};

use crate::keys::{Keys, end_of, revision_of};
use crate::known::{identity, naming};
use crate::link::{Link, first, get, names};
use crate::record::{Entry, Identity, Stored, damaged, parse};

/// How many commits are asked for at once: each may have more than a megabyte.
const AT_ONCE: usize = 32;
/// How many revisions are looked through at once for one that is there: no more than names are asked for.
const LONGEST: usize = 2048;
/// The most commits that a watcher reads at once, and about the most octets.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 8 << 20;

/// The identity, as of now.
pub(crate) async fn head(link: &Link, keys: &Keys) -> Result<(Identity, i64)> {
    let mut answer = link.read("reading the newest revision", vec![get(keys.head())]).await?;
    let at = answer.revision;
    identity(link, keys, answer.one(0)).map(|(identity, _)| (identity, at))
}

/// See [`Store::log`](shoal_store::Store::log).
pub(crate) async fn log(
    link: &Link,
    keys: &Keys,
    range: &Range,
    before: Option<Revision>,
    limit: usize,
) -> Result<Vec<LogEntry>> {
    // What is being carried out is of a higher revision, and not there yet.
    let newest = head(link, keys).await?.0.revision;
    let mut end = before.unwrap_or(Revision(u64::MAX)).min(Revision(newest.0 + 1));
    let limit = limit.min(MAX_PAGE);
    let (mut log, mut bytes) = (Vec::new(), 0);
    let members = match range {
        Range::Naming(member) => naming(link, keys, member.as_str(), "").await?,
        _ => Vec::new(),
    };
    while log.len() < limit {
        let some = (limit - log.len()).min(AT_ONCE);
        let Some((entries, next)) = older(link, keys, range, &members, end, some).await? else { break };
        end = next;
        for entry in entries {
            let changes = changes(link, keys, range, &members, &entry).await?;
            if changes.is_empty() {
                continue; // a deep prefix, and this commit wrote beside it
            }
            bytes += changes.iter().map(|c| c.value.as_ref().map_or(0, |v| v.as_str().len())).sum::<usize>();
            if bytes > MAX_PAGE_BYTES && !log.is_empty() {
                return Ok(log);
            }
            log.push(LogEntry { info: entry.info(), changes });
        }
    }
    Ok(log)
}

/// Commits before `end` that may have written in the range, newest first, and where to go on; `None` at the end.
async fn older(
    link: &Link,
    keys: &Keys,
    range: &Range,
    members: &[Key],
    end: Revision,
    some: usize,
) -> Result<Option<(Vec<Entry>, Revision)>> {
    if end.0 <= 1 {
        return Ok(None);
    }
    if Where::of(range) == Where::All {
        // Numbers stand close together, and where one was skipped the stretch is only shorter.
        let from = Revision(end.0.saturating_sub(some as u64).max(1));
        let found =
            link.read("reading the log", vec![first(keys.entries(from, end), some)]).await?.take(0).kvs;
        if found.is_empty() {
            // Numbers were skipped, maybe many.
            return Ok(Some((Vec::new(), beyond_gap(link, keys, from).await?)));
        }
        let entries = found.iter().rev().map(|kv| parse(&link.place, kv.key(), kv.value()));
        return Ok(Some((entries.collect::<Result<_>>()?, from)));
    }
    // Etcd counts a range to its end, so it is looked in stretches, each longer than the one before: what is looked at in vain
    // is some times what is found.
    let (mut upto, mut stretch) = (end, 64_u64);
    let mut revisions = Vec::new();
    while upto.0 > 1 && revisions.len() < some {
        let from = Revision(upto.0.saturating_sub(stretch).max(1));
        let found = wrote(link, keys, range, members, from, upto, some).await?;
        revisions.extend(found.into_iter().rev());
        (upto, stretch) = (from, stretch.saturating_mul(8));
    }
    revisions.truncate(some);
    let Some(last) = revisions.last().copied() else { return Ok(None) };
    Ok(Some((entries(link, keys, &revisions).await?, last)))
}

/// The end of the commits before `end`: behind the newest of them, or 1. Looked for in stretches, each longer than the one before.
async fn beyond_gap(link: &Link, keys: &Keys, mut end: Revision) -> Result<Revision> {
    let mut stretch = AT_ONCE as u64;
    while end.0 > 1 {
        let from = Revision(end.0.saturating_sub(stretch).max(1));
        let ops = vec![names(keys.entries(from, end), LONGEST)];
        let found = link.read("reading the log", ops).await?.take(0).kvs;
        if let Some(last) = found.last() {
            let revision = keys.of_entry(last.key());
            let revision =
                revision.ok_or_else(|| damaged(&link.place, last.key(), &"its name has no revision"))?;
            return Ok(Revision(revision.0 + 1));
        }
        (end, stretch) = (from, (stretch * 4).min(LONGEST as u64));
    }
    Ok(Revision(1))
}

/// The newest revisions of `from..to` that may have written in the range: some of them at least, if there are some.
async fn wrote(
    link: &Link,
    keys: &Keys,
    range: &Range,
    members: &[Key],
    from: Revision,
    to: Revision,
    some: usize,
) -> Result<BTreeSet<Revision>> {
    let (newest, before) = (Revision(to.0 - 1), Revision(from.0 - 1));
    let version = |key: &Key| (keys.version(key, newest), keys.version(key, before));
    let spans = match (range, Where::of(range)) {
        (Range::Naming(_), _) => members.iter().map(version).collect(),
        (_, Where::Key(key)) => vec![version(&key)],
        (_, Where::Scope(scope) | Where::Within(scope)) => {
            vec![(keys.scope(&scope, newest), keys.scope(&scope, before))]
        }
        (_, Where::All) => Vec::new(),
    };
    let mut revisions = BTreeSet::new();
    for some_spans in spans.chunks(AT_ONCE) {
        let ops = some_spans.iter().map(|span| names(span.clone(), some)).collect();
        let mut answer = link.read("reading who wrote where", ops).await?;
        for n in 0..some_spans.len() {
            revisions.extend(answer.take(n).kvs.iter().filter_map(|kv| revision_of(kv.key())));
        }
    }
    Ok(revisions)
}

/// The commits of these revisions, all of which there are.
async fn entries(link: &Link, keys: &Keys, revisions: &[Revision]) -> Result<Vec<Entry>> {
    let ops = revisions.iter().map(|revision| get(keys.entry(*revision))).collect();
    let mut answer = link.read("reading commits", ops).await?;
    let mut entries = Vec::with_capacity(revisions.len());
    for (n, revision) in revisions.iter().enumerate() {
        let key = keys.entry(*revision);
        let kv = answer.one(n).ok_or_else(|| damaged(&link.place, &key, &"this commit is gone"))?;
        entries.push(parse(&link.place, &key, kv.value())?);
    }
    Ok(entries)
}

/// What a commit wrote in the range, in key order.
async fn changes(
    link: &Link,
    keys: &Keys,
    range: &Range,
    members: &[Key],
    entry: &Entry,
) -> Result<Vec<Change>> {
    let Some(parts) = &entry.parts else {
        let changes = entry.changes.iter().cloned().map(Change::from);
        return Ok(changes.filter(|c| range.contains(&c.key)).collect());
    };
    let firsts = &parts.firsts;
    let holding = |key: &str| firsts.partition_point(|first| first.as_str() <= key).saturating_sub(1);
    let wanted: BTreeSet<usize> = match range {
        Range::All | Range::Concerning(_) => (0..firsts.len()).collect(),
        Range::Key(key) => [holding(key.as_str())].into(),
        Range::Naming(_) => members.iter().map(|key| holding(key.as_str())).collect(),
        Range::Prefix(prefix) => {
            let end = end_of(prefix.clone().into_bytes());
            let to =
                firsts.partition_point(|first| prefix.is_empty() || first.as_str().as_bytes() < &end[..]);
            (holding(prefix)..to).collect()
        }
    };
    let mut changes = Vec::new();
    for n in wanted {
        let stored = part(link, keys, &parts.id, n).await?;
        changes.extend(stored.into_iter().map(Change::from).filter(|c| range.contains(&c.key)));
    }
    Ok(changes)
}

/// A part of a large commit.
async fn part(link: &Link, keys: &Keys, id: &str, n: usize) -> Result<Vec<Stored>> {
    let key = keys.part(id, n);
    let found = link.read("reading a part of a large commit", vec![get(key.clone())]).await?.one(0);
    let found = found.ok_or_else(|| damaged(&link.place, &key, &"a part of a large commit is gone"))?;
    parse(&link.place, &key, found.value())
}

/// The whole of a commit, wherever it stands.
pub(crate) async fn whole(link: &Link, keys: &Keys, entry: Entry) -> Result<LogEntry> {
    if entry.parts.is_none() {
        return Ok(entry.into_log());
    }
    let changes = changes(link, keys, &Range::All, &[], &entry).await?;
    Ok(LogEntry { info: entry.info(), changes })
}

/// Whole commits after `after` and up to `newest`, in order: some, at least one if there is one.
pub(crate) async fn after(
    link: &Link,
    keys: &Keys,
    after: Revision,
    newest: Revision,
) -> Result<Vec<Arc<LogEntry>>> {
    let (mut log, mut bytes, mut from) = (Vec::new(), 0, Revision(after.0 + 1));
    let mut stretch = AT_ONCE as u64;
    while log.len() < BATCH && bytes < BATCH_BYTES && from <= newest {
        // No further than is wanted: etcd counts a range to its end.
        let to = Revision(from.0.saturating_add(stretch).min(newest.0 + 1));
        let ops = vec![first(keys.entries(from, to), AT_ONCE)];
        let found = link.read("reading the log", ops).await?.take(0);
        // Where numbers were skipped it is looked further each time.
        stretch = if found.kvs.is_empty() { stretch.saturating_mul(4) } else { AT_ONCE as u64 };
        from = to;
        for kv in found.kvs {
            bytes += kv.value().len();
            let entry: Entry = parse(&link.place, kv.key(), kv.value())?;
            if found.more {
                from = Revision(entry.revision.0 + 1);
            }
            let more = entry.parts.is_some();
            log.push(Arc::new(whole(link, keys, entry).await?));
            if more {
                return Ok(log); // large enough for one time
            }
        }
    }
    Ok(log)
}

/// What is read of the past while one page is put together.
#[derive(Default)]
pub(crate) struct Past {
    entries: HashMap<Revision, Entry>,
    parts: HashMap<(String, usize), HashMap<Key, Change>>,
    octets: usize,
}

impl Past {
    /// Fetches the commits of these revisions, if they are not there yet.
    pub(crate) async fn fetch(&mut self, link: &Link, keys: &Keys, mut wanted: Vec<Revision>) -> Result<()> {
        if self.octets > BATCH_BYTES {
            *self = Self::default();
        }
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|revision| !self.entries.contains_key(revision));
        for some in wanted.chunks(AT_ONCE) {
            for entry in entries(link, keys, some).await? {
                let changes = entry.changes.iter().map(|c| Change::from(c.clone()));
                self.octets += 256 + changes.map(|c| c.value.map_or(64, |v| v.as_str().len())).sum::<usize>();
                self.entries.insert(entry.revision, entry);
            }
        }
        Ok(())
    }

    /// What a revision wrote at a key; it was fetched.
    pub(crate) async fn change(
        &mut self,
        link: &Link,
        keys: &Keys,
        revision: Revision,
        key: &Key,
    ) -> Result<Change> {
        let missing = || damaged(&link.place, &keys.entry(revision), &format!("it does not tell of {key}"));
        let entry = self.entries.get(&revision).ok_or_else(missing)?;
        let Some(parts) = &entry.parts else {
            let found = entry.changes.iter().cloned().map(Change::from).find(|c| c.key == *key);
            return found.ok_or_else(missing);
        };
        let n = parts.firsts.partition_point(|first| first <= key).saturating_sub(1);
        let name = (parts.id.clone(), n);
        if !self.parts.contains_key(&name) {
            let changes = part(link, keys, &name.0, n).await?.into_iter().map(Change::from);
            let by_key: HashMap<_, _> = changes.map(|c| (c.key.clone(), c)).collect();
            self.octets += 512 << 10;
            self.parts.insert(name.clone(), by_key);
        }
        self.parts.get(&name).and_then(|part| part.get(key)).cloned().ok_or_else(missing)
    }
}
