//! The ledger: which items Shoal made, from which sources, at which stage.
//!
//! A unit's entries stand in pages of at most some 4 KiB of JSON, in key order, under `<agent>/<unit>/<page>`:
//!
//! ```json
//! {"epoch": 7, "location": "files in /etc/motd.d", "entries": [{"key": "web1", "entry": {"from": [["motd/all", "web1.example.com"]], "revision": 12,
//!   "stage": "made", "last": "…", "token": "…", "by": 1}}]}
//! ```
//!
//! A change rewrites the page of its key and no other, so its cost does not depend on how large the unit is, and
//! a cold unit of 100,000 items is written in some ten thousand rows. A page that grows past [`MAX_PAGE`] is split;
//! both halves are written together. Pages are numbered, and which keys a page holds follows from what is in it.
//!
//! Facts that are due stand beside the pages, see [`Due`].
//!
//! The epoch says which life of the database the entries were made in, and `location`, where the target says it, where what they
//! speak of stands. After a restore the one differs, and where the agent was started with another target the other: then the unit is held, see
//! [`OtherLife`]. A page without a location is of a target that said none, and is taken as it is. `spent`, where it stands, is the last approval that was used: see [`guard`](crate::guard). `removed` says how
//! much went of late without anybody being asked: see [`recent`](crate::recent).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use shoal_core::{Epoch, HostName, Namespace, Revision, TagName};

use crate::agent::Unit;
use crate::effect::LedgerRow;
use crate::facts::Due;
use crate::recent::Recent;
use crate::target::{Fault, Why};
use crate::{Millis, Moment};

/// A page larger than this is split. With what it says beside its entries it fits into one page of SQLite's, so that a change of
/// one item writes one: most of what a change costs the database.
pub(crate) const MAX_PAGE: usize = 3_840;
/// What the parts of a split page aim at: two of them fill a page of SQLite's.
const HALF_PAGE: usize = 1_900;
/// How many different attempts of one creation are remembered. A further one is not made until a look shows one of them:
/// any of them may still succeed, and what is there and was forgotten would be taken for somebody else's. Targets that
/// mark what is Shoal's need no such memory: there the oldest is forgotten.
pub(crate) const MAX_TRIED: usize = 16;

/// A tag, or a tag with one member.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct SourceId(pub(crate) TagName, pub(crate) Option<HostName>);

impl std::fmt::Display for SourceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.1 {
            Some(host) => write!(f, "{}: {host}", self.0),
            None => write!(f, "{}", self.0),
        }
    }
}

/// What is known of one item that Shoal made or is about to make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(bound(deserialize = "I: Deserialize<'de>"))]
pub(crate) struct Entry<I> {
    /// Where it comes from.
    pub(crate) from: Vec<SourceId>,
    /// The newest revision of what it was last decided from.
    pub(crate) revision: Revision,
    /// How far it is.
    pub(crate) stage: Stage<I>,
    /// What was wanted when something was last done about it.
    pub(crate) last: Option<Arc<I>>,
    /// The token of its creation.
    pub(crate) token: String,
    /// What its last step remembered.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(crate) memo: Value,
    /// The [`logic`](crate::Agent::logic) that decided.
    pub(crate) by: u32,
    /// A change of it was begun, and nothing has shown yet what became of it: what differs from `last` is no drift.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) changing: bool,
    /// What changes were to make it of which nothing has shown yet what became of them, newest last, at most [`MAX_TRIED`]: those
    /// that make something Shoal's which `last` does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tried: Vec<Arc<I>>,
    /// The digest of a change that a person agreed to and that is not done yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agreed: Option<String>,
}

impl<I> Entry<I> {
    /// What it may be by now beside what it was last made as.
    pub(crate) fn tried(&self) -> &[Arc<I>] {
        match &self.stage {
            Stage::Creating { tried, .. } => tried,
            _ => &self.tried,
        }
    }
}

/// How far an item is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", bound(deserialize = "I: Deserialize<'de>"))]
pub(crate) enum Stage<I> {
    /// It may or may not exist yet: these were tried.
    Creating {
        /// Every attempt, newest last, at most [`MAX_TRIED`].
        tried: Vec<Arc<I>>,
        /// The target said that it has begun, and when a look is to show it: what is there is ours, whatever it looks like
        /// until it is done, and that a look before then shows nothing says nothing.
        #[serde(default, rename = "shows", skip_serializing_if = "Option::is_none")]
        begun: Option<Moment>,
        /// Somebody else's, that a person gave to Shoal, stood there: the digest of what. As long as exactly that does, and
        /// something is wanted, it is ours.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        adopted: Option<String>,
    },
    /// It was there.
    Made,
    /// It may or may not be gone yet.
    Removing {
        /// Because of what.
        why: Why,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "K: DeserializeOwned, I: DeserializeOwned"))]
struct Line<K, I> {
    key: K,
    entry: Entry<I>,
}

/// What a page says beside its entries.
#[derive(Serialize)]
struct Head<'a> {
    epoch: Epoch,
    #[serde(skip_serializing_if = "str::is_empty")]
    location: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    spent: &'a str,
    #[serde(skip_serializing_if = "Recent::is_empty")]
    removed: &'a Recent,
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "K: DeserializeOwned, I: DeserializeOwned"))]
struct PageIn<K, I> {
    epoch: Epoch,
    #[serde(default)]
    location: String,
    #[serde(default)]
    spent: String,
    #[serde(default)]
    removed: Recent,
    entries: Vec<Line<K, I>>,
}

/// Which page holds which keys, and which pages are to be written.
pub(crate) struct Pages<K> {
    prefix: String,
    /// Where what the entries speak of stands; empty: nobody said.
    location: String,
    /// The digest of the last approval that was used, or that nothing was left for. Every page says it, and it is part of
    /// the next digest: so no approval is good twice.
    spent: String,
    /// What went of late without anybody being asked. What a page says of it may be old; together they say all.
    removed: Recent,
    pages: Vec<(K, u32)>,
    next: u32,
    /// By the first key, as `pages`, so that a page is found without going through all of them.
    dirty: BTreeMap<K, u32>,
    gone: BTreeSet<u32>,
}

/// What a unit's ledger holds.
pub(crate) struct Loaded<K, I> {
    pub(crate) pages: Pages<K>,
    pub(crate) entries: BTreeMap<K, Entry<I>>,
    pub(crate) facts: Due,
    /// What some page was written in and that is not what there is now.
    pub(crate) other_life: OtherLife,
}

/// Which other life a unit's ledger is of: what it says need not be so here and now, and before a person agreed nothing is done by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OtherLife {
    /// Of the database: it was restored.
    pub(crate) epoch: Option<Epoch>,
    /// Of the target: what the ledger speaks of stands elsewhere. What is seen here says nothing of it, so the ledger stays as it is.
    pub(crate) moved: Option<Move>,
}

/// From one location to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    /// Where what the ledger speaks of stands.
    pub(crate) from: String,
    /// Where the agent looks.
    pub(crate) to: String,
}

impl OtherLife {
    /// Whether it is of the life that is.
    pub(crate) fn is_none(&self) -> bool {
        self.epoch.is_none() && self.moved.is_none()
    }
}

impl<K: Ord + Clone> Pages<K> {
    /// No pages yet. `prefix` is `<agent>/<unit>/`.
    pub(crate) fn new(prefix: String) -> Self {
        Self {
            prefix,
            location: String::new(),
            spent: String::new(),
            removed: Recent::default(),
            pages: Vec::new(),
            next: 0,
            dirty: BTreeMap::new(),
            gone: BTreeSet::new(),
        }
    }

    /// The entry of this key changed.
    pub(crate) fn touch(&mut self, key: &K) {
        if self.pages.is_empty() {
            self.pages.push((key.clone(), self.next));
            self.next += 1;
        }
        let at = self.index(key);
        let (first, id) = &self.pages[at];
        if !self.dirty.contains_key(first) {
            self.dirty.insert(first.clone(), *id);
        }
    }

    /// The digest of the approval that is good for nothing more.
    pub(crate) fn spent(&self) -> &str {
        &self.spent
    }

    /// The approval of this digest is good for nothing more.
    pub(crate) fn spend(&mut self, digest: &str) {
        if self.spent != digest {
            digest.clone_into(&mut self.spent);
            self.removed = Recent::default();
            self.touch_all();
        }
    }

    /// What the entries speak of stands there from now on.
    pub(crate) fn move_to(&mut self, location: &str) {
        location.clone_into(&mut self.location);
        self.touch_all();
    }

    /// What went of late without anybody being asked.
    pub(crate) fn removed(&self) -> &Recent {
        &self.removed
    }

    /// One item goes without anybody being asked. Its page is to be written anyway.
    pub(crate) fn count_removed(&mut self, now: Moment, within: Millis) {
        self.removed.add(now, within);
    }

    /// Every page is to be written again.
    pub(crate) fn touch_all(&mut self) {
        self.dirty.extend(self.pages.iter().cloned());
    }

    /// `<agent>/<unit>/`.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Nothing is to be written: this is only a plan.
    pub(crate) fn leave(&mut self) {
        self.dirty.clear();
        self.gone.clear();
    }

    /// Whether anything is to be written.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || !self.gone.is_empty()
    }

    fn index(&self, key: &K) -> usize {
        self.pages.partition_point(|(first, _)| first <= key).saturating_sub(1)
    }

    fn row_key(&self, id: u32) -> String {
        format!("{}{id:08}", self.prefix)
    }

    /// A write of these rows failed: those of pages are still to be written.
    pub(crate) fn again(&mut self, rows: &[String]) {
        let failed: BTreeSet<u32> =
            rows.iter().filter_map(|key| key.rsplit('/').next()?.parse().ok()).collect();
        let there: BTreeSet<u32> = self.pages.iter().map(|(_, id)| *id).collect();
        self.gone.extend(failed.difference(&there));
        self.dirty.extend(self.pages.iter().filter(|(_, id)| failed.contains(id)).cloned());
    }

    /// The rows to write, which are from then on taken for written. `entries` says what stands in a range of keys.
    ///
    /// # Errors
    /// An entry that has no JSON form: the agent's fault.
    pub(crate) fn take<'a, I, F, R>(&mut self, epoch: Epoch, entries: F) -> Result<Vec<LedgerRow>, Fault>
    where
        K: Serialize + 'a,
        I: Serialize + Clone + 'a,
        F: Fn(Option<&K>, Option<&K>) -> R,
        R: Iterator<Item = (&'a K, &'a Entry<I>)>,
    {
        let mut rows = Vec::new();
        let head = Head { epoch, location: &self.location, spent: &self.spent, removed: &self.removed };
        let mut head = serde_json::to_vec(&head).map_err(unwritable)?;
        // The entries come before its closing brace.
        head.pop();
        head.extend(br#","entries":["#);
        for (first, id) in std::mem::take(&mut self.dirty) {
            let Ok(at) = self.pages.binary_search_by(|(key, _)| key.cmp(&first)) else { continue };
            self.take_page(at, id, &head, &entries, &mut rows)?;
        }
        // What went of late would be forgotten with the only page that was to say it.
        let untold = rows.is_empty() && !self.gone.is_empty() && !self.removed.is_empty();
        if let Some((_, id)) = self.pages.last().filter(|_| untold) {
            self.take_page(self.pages.len() - 1, *id, &head, &entries, &mut rows)?;
        }
        let gone = std::mem::take(&mut self.gone);
        rows.extend(gone.into_iter().map(|id| LedgerRow { key: self.row_key(id), value: None }));
        Ok(rows)
    }

    /// The rows of the page at this place, which is split if it grew too large, and goes when nothing is left in it.
    fn take_page<'a, I, F, R>(
        &mut self,
        at: usize,
        id: u32,
        head: &[u8],
        entries: &F,
        rows: &mut Vec<LedgerRow>,
    ) -> Result<(), Fault>
    where
        K: Serialize + 'a,
        I: Serialize + Clone + 'a,
        F: Fn(Option<&K>, Option<&K>) -> R,
        R: Iterator<Item = (&'a K, &'a Entry<I>)>,
    {
        let from = (at > 0).then(|| self.pages[at].0.clone());
        let to = self.pages.get(at + 1).map(|(first, _)| first.clone());
        let parts = split(entries(from.as_ref(), to.as_ref()))?;
        if parts.is_empty() {
            self.pages.remove(at);
            self.gone.insert(id);
            return Ok(());
        }
        for (n, (first, lines)) in parts.into_iter().enumerate() {
            let page = if n == 0 {
                // The first page takes what sorts before all that there was, and pages stay in order.
                if first < self.pages[at].0 {
                    self.pages[at].0 = first;
                }
                id
            } else {
                let new = self.next;
                self.next += 1;
                self.pages.insert(at + n, (first, new));
                new
            };
            let text = [head, &lines, &b"]}"[..]].concat();
            rows.push(LedgerRow { key: self.row_key(page), value: Some(text) });
        }
        Ok(())
    }
}

/// The first key of a page, and its entries as JSON, with commas between.
type Part<K> = (K, Vec<u8>);

/// The entries as lines, in parts of a page each. One part when all fit in a page.
fn split<'a, K, I>(entries: impl Iterator<Item = (&'a K, &'a Entry<I>)>) -> Result<Vec<Part<K>>, Fault>
where
    K: Serialize + Clone + 'a,
    I: Serialize + Clone + 'a,
{
    #[derive(Serialize)]
    struct LineOut<'a, K, I> {
        key: &'a K,
        entry: &'a Entry<I>,
    }
    // All in one text: a piece of memory for each of 100,000 lines costs more than the lines do.
    let (mut text, mut lines) = (Vec::new(), Vec::new());
    for (key, entry) in entries {
        let begin = text.len();
        serde_json::to_writer(&mut text, &LineOut { key, entry }).map_err(unwritable)?;
        lines.push((key, begin..text.len()));
    }
    let limit = if text.len() > MAX_PAGE { HALF_PAGE } else { usize::MAX };
    let mut parts: Vec<Part<K>> = Vec::new();
    let mut size = usize::MAX;
    for (key, line) in lines {
        size = size.saturating_add(line.len());
        match parts.last_mut() {
            Some((_, part)) if size <= limit => {
                part.push(b',');
                part.extend(&text[line]);
            }
            _ => {
                size = line.len();
                let mut part = Vec::with_capacity(HALF_PAGE.min(text.len()) + HALF_PAGE / 8);
                part.extend(&text[line]);
                parts.push((key.clone(), part));
            }
        }
    }
    Ok(parts)
}

fn unwritable(why: serde_json::Error) -> Fault {
    Fault::new("write an item down in the ledger", why)
        .next("keys and items of this agent must have a JSON form")
        .permanent()
}

/// Reads a unit's ledger, in this life of the database and for the target at `location`.
///
/// # Errors
/// A page that cannot be read: then nothing is known of the unit, and nothing is done about it.
pub(crate) fn load<K, I>(
    prefix: &str,
    rows: &[(String, Vec<u8>)],
    epoch: Epoch,
    location: &str,
) -> Result<Loaded<K, I>, Fault>
where
    K: Ord + Clone + DeserializeOwned,
    I: DeserializeOwned,
{
    let mut loaded = Loaded {
        pages: Pages::new(prefix.to_owned()),
        entries: BTreeMap::new(),
        facts: Due::default(),
        other_life: OtherLife::default(),
    };
    location.clone_into(&mut loaded.pages.location);
    for (key, value) in rows {
        let fault = |why: &dyn std::fmt::Display| {
            Fault::new(format!("read the ledger page {key}"), why)
                .next("it was written by another version of this agent, or is damaged; nothing is done until it can be read")
        };
        if loaded.facts.load(key, value).map_err(|e| fault(&e))? {
            continue;
        }
        let id: u32 = key
            .rsplit('/')
            .next()
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| fault(&"its key ends in no number"))?;
        let page: PageIn<K, I> = serde_json::from_slice(value).map_err(|e| fault(&e))?;
        if page.epoch != epoch {
            loaded.other_life.epoch = Some(page.epoch);
        }
        if !page.location.is_empty() && page.location != location && !page.entries.is_empty() {
            // A target that says nothing may be that one, and does not make it forgotten.
            loaded.pages.location.clone_from(&page.location);
            let to = location.to_owned();
            loaded.other_life.moved = (!to.is_empty()).then_some(Move { from: page.location, to });
        }
        if !page.spent.is_empty() {
            loaded.pages.spent = page.spent;
        }
        loaded.pages.removed.learn(page.removed);
        loaded.pages.next = loaded.pages.next.max(id.saturating_add(1));
        let Some(first) = page.entries.first() else { continue };
        loaded.pages.pages.push((first.key.clone(), id));
        loaded.entries.extend(page.entries.into_iter().map(|line| (line.key, line.entry)));
    }
    loaded.pages.pages.sort();
    Ok(loaded)
}

/// What the ledger keys of a unit begin with. A slash in its name is written `%2F`: the pages of `a/b` would else stand among
/// those of `a`.
pub(crate) fn prefix_of(namespace: &Namespace, unit: &Unit) -> String {
    format!("{namespace}/{}/", unit.0.replace('%', "%25").replace('/', "%2F"))
}

/// The unit that a ledger key of `prefix` (`<agent>/`) belongs to.
pub(crate) fn unit_of(prefix: &str, key: &str) -> Option<Unit> {
    let (unit, _) = key.strip_prefix(prefix)?.split_once('/')?;
    Some(Unit(unit.replace("%2F", "/").replace("%25", "%")))
}

#[cfg(test)]
mod tests;
