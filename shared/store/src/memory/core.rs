//! Rows and their history in memory.

mod copied;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use shoal_core::{
    Change, Commit, CommitInfo, Committed, Document, Epoch, Key, LogEntry, Range, Revision, Row, Status,
};

use super::claims::Claims;
use crate::parts::{
    Where, digest, scopes, too_many, validate, validate_claim, validate_ledger, validate_query,
};
use crate::{
    Claim, ClaimAnswer, ClaimRequest, Head, LedgerPage, LedgerWrite, MAX_PAGE, MAX_PAGE_BYTES, MAX_REPORTS,
    Page, Query, REMEMBERED, REPORT_GRACE, Result, StoreError,
};

/// A database in memory, without tasks, clocks or locks.
#[derive(Clone, Debug)]
pub struct Memory {
    epoch: Epoch,
    /// Every key that was ever written, with its versions, oldest first.
    rows: BTreeMap<Key, Vec<Version>>,
    /// The member rows that name a member, tombstones included.
    naming: HashMap<Box<str>, BTreeSet<Key>>,
    /// The revisions that wrote in a scope, oldest first.
    scopes: HashMap<String, Vec<Revision>>,
    /// All commits, oldest first. A copy of a database that skipped numbers has their gaps.
    log: Vec<Arc<LogEntry>>,
    remembered: Remembered,
    claims: Claims,
    ledger: BTreeMap<String, Vec<u8>>,
    reports: BTreeMap<(String, String), Status>,
}

#[derive(Clone, Debug)]
pub(super) struct Version {
    pub(super) revision: Revision,
    pub(super) value: Option<Document>,
    moved: Option<Key>,
}

/// The idempotency keys of the newest commits.
#[derive(Clone, Debug, Default)]
struct Remembered {
    by_key: HashMap<Arc<str>, ([u8; 32], Committed)>,
    order: VecDeque<Arc<str>>,
}

impl Memory {
    /// An empty database of this epoch.
    #[must_use]
    pub fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            rows: BTreeMap::new(),
            naming: HashMap::new(),
            scopes: HashMap::new(),
            log: Vec::new(),
            remembered: Remembered::default(),
            claims: Claims::default(),
            ledger: BTreeMap::new(),
            reports: BTreeMap::new(),
        }
    }

    /// The database's identity and newest revision.
    #[must_use]
    pub fn head(&self) -> Head {
        let newest = self.log.last().map_or(Revision(0), |entry| entry.info.revision);
        Head { epoch: self.epoch, revision: newest }
    }

    /// Makes this another life of the database.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// This backup as another life of the database `replaced`: with a new epoch, with no claim that could be held, and with
    /// fencing numbers that were never given out. A backup is a clone.
    #[must_use]
    pub fn restored(&self, replaced: &Self, epoch: Epoch) -> Self {
        Self { epoch, claims: self.claims.restored(&replaced.claims), ..self.clone() }
    }

    /// See [`Store::read`](crate::Store::read).
    ///
    /// # Errors
    /// As there.
    pub fn read(&self, query: &Query) -> Result<Page> {
        let limit = validate_query(query)?;
        let newest = self.head().revision;
        let at = query.at.unwrap_or(newest);
        if at > newest {
            return Err(StoreError::Future { asked: at, newest });
        }
        let mut page = Page { at, rows: Vec::new(), next: None };
        let mut bytes = 0;
        for key in self.keys(&query.range, query.after.as_ref()) {
            let Some(version) = self.version(key, Some(at)) else { continue };
            if version.value.is_none() && !query.tombstones {
                continue;
            }
            bytes += version.value.as_ref().map_or(0, |v| v.as_str().len());
            if page.rows.len() == limit || (bytes > MAX_PAGE_BYTES && !page.rows.is_empty()) {
                page.next = page.rows.last().map(|row| row.key.clone());
                break;
            }
            page.rows.push(Row {
                key: key.clone(),
                value: version.value.clone(),
                revision: version.revision,
                moved: version.moved.clone(),
            });
        }
        Ok(page)
    }

    /// Every key of the range that was ever written, in order.
    fn keys<'a>(&'a self, range: &'a Range, after: Option<&Key>) -> Box<dyn Iterator<Item = &'a Key> + 'a> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        match range {
            Range::Naming(member) => match self.naming.get(member.as_str()) {
                Some(keys) => Box::new(keys.range::<Key, _>((from, Bound::Unbounded))),
                None => Box::new(std::iter::empty()),
            },
            Range::Key(key) => {
                let row = self.rows.get_key_value(key.as_str());
                Box::new(row.map(|(key, _)| key).filter(|key| after.is_none_or(|a| *key > a)).into_iter())
            }
            Range::Concerning(_) => Box::new(self.concerning(range, from)),
            Range::All => Box::new(self.rows.range::<Key, _>((from, Bound::Unbounded)).map(|(key, _)| key)),
            Range::Prefix(prefix) => {
                let from = match after {
                    Some(after) if after.as_str() >= prefix.as_str() => Bound::Excluded(after.as_str()),
                    _ => Bound::Included(prefix.as_str()),
                };
                let rows = self.rows.range::<str, _>((from, Bound::Unbounded)).map(|(key, _)| key);
                Box::new(rows.take_while(move |key| key.as_str().starts_with(prefix.as_str())))
            }
        }
    }

    /// What of `range` comes after `from`, in order; what is not in it is passed over in one step where it stands together.
    fn concerning<'a>(&'a self, range: &'a Range, from: Bound<&Key>) -> impl Iterator<Item = &'a Key> + 'a {
        let mut from = from.map(Key::to_string);
        std::iter::from_fn(move || {
            loop {
                let rest = self.rows.range::<str, _>((from.as_ref().map(String::as_str), Bound::Unbounded));
                let (key, _) = { rest }.next()?;
                let beyond = range.beyond(key);
                from = beyond.map_or_else(|| Bound::Excluded(key.to_string()), Bound::Included);
                if range.contains(key) {
                    return Some(key);
                }
            }
        })
    }

    /// What stood at `key`.
    pub(super) fn version(&self, key: &Key, at: Option<Revision>) -> Option<&Version> {
        let versions = self.rows.get(key.as_str())?;
        let upto = at.map_or(versions.len(), |at| versions.partition_point(|v| v.revision <= at));
        versions[..upto].last()
    }

    /// See [`Store::commit`](crate::Store::commit). `time` is stamped on it; claims are judged by `uptime`.
    ///
    /// # Errors
    /// As there.
    pub fn commit(&mut self, commit: Commit, time: Timestamp, uptime: Duration) -> Result<Committed> {
        let commit = validate(commit)?;
        let print = commit.idempotency.is_some().then(|| digest(&commit));
        if let (Some(key), Some(print)) = (&commit.idempotency, &print)
            && let Some((known, done)) = self.remembered.by_key.get(key.as_str())
        {
            if known != print {
                return Err(StoreError::Reused { key: key.clone(), revision: done.revision });
            }
            return Ok(Committed { replayed: true, ..*done });
        }
        self.check(&commit.pre, uptime)?;
        let changes: Vec<_> = commit.changes.into_iter().filter(|c| !self.stands(c)).collect();
        let mut done = Committed { revision: self.head().revision, changed: changes.len(), replayed: false };
        if !changes.is_empty() {
            done.revision.0 += 1;
            self.write(LogEntry {
                info: CommitInfo {
                    revision: done.revision,
                    author: commit.author,
                    principal: commit.principal,
                    origin: commit.origin,
                    message: commit.message,
                    time: time.round(jiff::Unit::Millisecond).unwrap_or(time),
                },
                changes,
            });
        }
        if let (Some(key), Some(print)) = (commit.idempotency, print) {
            self.remembered.add(key.into(), print, done);
        }
        Ok(done)
    }

    /// Whether the change changes nothing.
    fn stands(&self, change: &Change) -> bool {
        let now = self.version(&change.key, None).and_then(|v| v.value.as_ref());
        now == change.value.as_ref() && change.moved.is_none()
    }

    fn write(&mut self, entry: LogEntry) {
        let revision = entry.info.revision;
        let mut touched = BTreeSet::new();
        for Change { key, value, moved } in &entry.changes {
            touched.extend(scopes(key));
            if let Some((_, member)) = key.as_member() {
                self.naming.entry(member.into()).or_default().insert(key.clone());
            }
            let version = Version { revision, value: value.clone(), moved: moved.clone() };
            self.rows.entry(key.clone()).or_default().push(version);
        }
        for scope in touched {
            self.scopes.entry(scope).or_default().push(revision);
        }
        self.log.push(Arc::new(entry));
    }

    /// How many commits are older than this revision.
    fn older(&self, revision: Revision) -> usize {
        self.log.partition_point(|entry| entry.info.revision < revision)
    }

    /// The commit of this revision, which there is.
    fn entry(&self, revision: Revision) -> &LogEntry {
        &self.log[self.older(revision)]
    }

    /// The newest commit.
    pub(super) fn newest(&self) -> Option<Arc<LogEntry>> {
        self.log.last().cloned()
    }

    /// Whole commits after `after`, in order, at most `limit`.
    #[must_use]
    pub fn after(&self, after: Revision, limit: usize) -> Vec<Arc<LogEntry>> {
        let from = self.log.partition_point(|entry| entry.info.revision <= after);
        self.log[from..].iter().take(limit).cloned().collect()
    }

    /// See [`Store::log`](crate::Store::log).
    #[must_use]
    pub fn log(&self, range: &Range, before: Option<Revision>, limit: usize) -> Vec<LogEntry> {
        let (mut log, mut bytes) = (Vec::new(), 0);
        for revision in self.log_revisions(range, before).take(limit.min(MAX_PAGE)) {
            let entry = self.entry(revision);
            let changes: Vec<_> = entry.changes.iter().filter(|c| range.contains(&c.key)).cloned().collect();
            bytes += changes.iter().map(|c| c.value.as_ref().map_or(0, |v| v.as_str().len())).sum::<usize>();
            if bytes > MAX_PAGE_BYTES && !log.is_empty() {
                break;
            }
            log.push(LogEntry { info: entry.info.clone(), changes });
        }
        log
    }

    /// The revisions below `before` that wrote in the range, newest first.
    pub(super) fn log_revisions<'a>(
        &'a self,
        range: &'a Range,
        before: Option<Revision>,
    ) -> Box<dyn Iterator<Item = Revision> + 'a> {
        let end = before.unwrap_or(Revision(u64::MAX));
        let scope = |scope: &str| {
            let all = self.scopes.get(scope).map_or(&[][..], Vec::as_slice);
            all[..all.partition_point(|r| *r < end)].iter().rev().copied()
        };
        match Where::of(range) {
            Where::All => {
                let wrote = |entry: &&Arc<LogEntry>| {
                    !matches!(range, Range::Concerning(_))
                        || entry.changes.iter().any(|c| range.contains(&c.key))
                };
                let older = self.log[..self.older(end)].iter().rev();
                Box::new(older.filter(wrote).map(|entry| entry.info.revision))
            }
            Where::Key(key) => {
                let all = self.rows.get(key.as_str()).map_or(&[][..], Vec::as_slice);
                Box::new(all.iter().rev().map(|v| v.revision).filter(move |r| *r < end))
            }
            Where::Scope(name) => Box::new(scope(&name)),
            Where::Within(name) => Box::new(
                scope(&name).filter(|r| self.entry(*r).changes.iter().any(|c| range.contains(&c.key))),
            ),
        }
    }

    /// See [`Store::claim`](crate::Store::claim).
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a request that makes no sense.
    pub fn claim(&mut self, want: &ClaimRequest, uptime: Duration) -> Result<ClaimAnswer> {
        validate_claim(want)?;
        Ok(self.claims.claim(want, uptime))
    }

    /// See [`Store::release`](crate::Store::release).
    pub fn release(&mut self, claim: &Claim) {
        self.claims.release(claim);
    }

    /// See [`Store::claims`](crate::Store::claims).
    #[must_use]
    pub fn claims(&self, prefix: &str, uptime: Duration) -> Vec<Claim> {
        self.claims.list(prefix, uptime)
    }

    pub(super) fn is_held(&self, name: &str, number: u64, uptime: Duration) -> bool {
        self.claims.is_held(name, number, uptime)
    }

    /// See [`Store::ledger`](crate::Store::ledger).
    #[must_use]
    pub fn ledger(&self, prefix: &str, after: Option<&str>, limit: usize) -> LedgerPage {
        let from = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut rows =
            self.ledger.range::<str, _>((from, Bound::Unbounded)).take_while(|(k, _)| k.starts_with(prefix));
        let (mut page, mut bytes) = (LedgerPage { rows: Vec::new(), more: false }, 0);
        for (key, value) in rows.by_ref() {
            bytes += value.len();
            if page.rows.len() == limit.clamp(1, MAX_PAGE)
                || (bytes > MAX_PAGE_BYTES && !page.rows.is_empty())
            {
                page.more = true;
                break;
            }
            page.rows.push((key.clone(), value.clone()));
        }
        page
    }

    /// See [`Store::write_ledger`](crate::Store::write_ledger).
    ///
    /// # Errors
    /// As there.
    pub fn write_ledger(&mut self, rows: Vec<LedgerWrite>, held: &Claim, uptime: Duration) -> Result<()> {
        validate_ledger(&rows)?;
        if !self.is_held(&held.name, held.number, uptime) {
            return Err(StoreError::Fenced { name: held.name.clone(), number: held.number });
        }
        for LedgerWrite { key, value } in rows {
            match value {
                Some(value) => self.ledger.insert(key, value),
                None => self.ledger.remove(&key),
            };
        }
        Ok(())
    }

    /// See [`Store::report`](crate::Store::report). `time` decides which older reports are forgotten.
    ///
    /// # Errors
    /// As there.
    pub fn report(&mut self, status: Status, time: Timestamp) -> Result<()> {
        let grace = SignedDuration::try_from(REPORT_GRACE).unwrap_or(SignedDuration::MAX);
        let agent = status.agent.to_string();
        let key = (agent.clone(), status.instance.clone());
        let of_agent = || self.reports.iter().filter(|((a, _), _)| *a == agent);
        if !self.reports.contains_key(&key)
            && of_agent().filter(|(_, s)| s.lives(time)).count() >= crate::MAX_INSTANCES
        {
            return Err(too_many(&status));
        }
        self.reports.insert(key, status);
        self.reports.retain(|_, s| s.expires.is_none_or(|end| time.duration_since(end) < grace));
        let of_agent = self.reports.iter().filter(|((a, _), s)| *a == agent && !s.lives(time));
        let mut ages: Vec<_> = of_agent.map(|(k, s)| (s.at, k.clone())).collect();
        ages.sort();
        for (_, key) in &ages[..ages.len().saturating_sub(MAX_REPORTS)] {
            self.reports.remove(key);
        }
        Ok(())
    }

    /// See [`Store::reports`](crate::Store::reports).
    #[must_use]
    pub fn reports(&self) -> Vec<Status> {
        self.reports.values().cloned().collect()
    }
}

impl Remembered {
    fn add(&mut self, key: Arc<str>, print: [u8; 32], done: Committed) {
        self.by_key.insert(Arc::clone(&key), (print, done));
        self.order.push_back(key);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_backup_is_another_life_without_leases_and_with_new_numbers() {
        let want = |name: &str, ttl: Option<u64>| ClaimRequest {
            name: name.into(),
            of: 1,
            holder: "a".into(),
            ttl: ttl.map(Duration::from_secs),
        };
        let number = |db: &mut Memory, name: &str, ttl| match db.claim(&want(name, ttl), Duration::ZERO) {
            Ok(ClaimAnswer::Granted(claim)) => claim.number,
            other => panic!("{other:?}"),
        };
        let mut db = Memory::new(Epoch(1));
        number(&mut db, "slot/x", None);
        number(&mut db, "unit/x", Some(60));
        let backup = db.clone();
        let newest = number(&mut db, "unit/y", Some(60));
        let mut restored = backup.restored(&db, Epoch(2));
        assert_eq!(restored.head(), Head { epoch: Epoch(2), revision: Revision(0) });
        let held: Vec<_> = restored.claims("", Duration::ZERO).into_iter().map(|c| c.name).collect();
        assert_eq!(held, ["slot/x"]);
        assert!(number(&mut restored, "unit/x", Some(60)) > newest);
    }
}
