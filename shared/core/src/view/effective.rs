//! What a tag says of a member.
//!
//! The layers, weakest first: the tags of the same namespace nested in the tag through which the host is a member,
//! deeper ones before shallower ones (the longest way counts, so that a tag always wins over what it nests);
//! the tag itself; the host's override. Maps merge; lists and scalars, `null` too, replace. Tags of another namespace contribute members and
//! no document. Two tags of equal depth that disagree about a path are a [`Conflict`], unless a stronger layer decides;
//! the later name is used meanwhile, so that the outcome is the same everywhere.
//!
//! Members with the same layers and no override share one document in memory: compare with
//! [`Document::same`]. Merged documents are kept for as long as they are asked for, at most [`MAX_CACHE`] of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::host::{Host, Tag};
use super::symbol::{HostSym, TagSym};
use super::{Counters, View};
use crate::{Document, HostName, Key, Revision, TagName};

/// The most merged documents that are kept.
const MAX_CACHE: usize = 8192;

/// Who said a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// A tag, or a host for an override.
    pub key: Key,
    /// The revision that wrote its row.
    pub revision: Revision,
}

/// Tags of equal depth that disagree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Conflict {
    /// Where, as a JSON pointer.
    pub path: String,
    /// Who says what; the last is used.
    pub between: Vec<Said>,
}

/// Who says what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Said {
    /// Who.
    #[serde(flatten)]
    pub origin: Origin,
    /// What.
    pub value: Value,
}

/// An effective document with its origins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Effective {
    /// The document.
    pub value: Value,
    /// For each leaf (scalar, list or empty map), by JSON pointer, who said it.
    pub origins: BTreeMap<String, Origin>,
    /// What is not agreed upon.
    pub conflicts: Vec<Conflict>,
    /// The newest revision of what made it.
    pub revision: Revision,
}

/// An effective document, without origins.
#[derive(Clone, Debug)]
pub struct EffectiveDocument {
    /// The document, shared among members for whom it is the same by construction.
    pub document: Document,
    /// What is not agreed upon; mostly empty.
    pub conflicts: Arc<Vec<Conflict>>,
    /// The newest revision of what made it: tags, member rows and rules on the way, the host's row and facts.
    pub revision: Revision,
}

/// Merged documents by the documents they are made of.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<HashMap<MadeOf, Arc<Merged>>>);

/// Addresses and depths of the documents that were merged.
type MadeOf = Box<[(usize, u32)]>;

#[derive(Debug)]
struct Merged {
    document: Document,
    value: Value,
    conflicts: Arc<Vec<Conflict>>,
    /// Keeps the addresses in the cache's key taken.
    _from: Vec<Document>,
}

struct Layers<'v> {
    /// Weakest first, with the depth below the tag.
    tags: Vec<(u32, &'v Tag)>,
    over: Option<(&'v Host, &'v str)>,
    revision: Revision,
}

impl View {
    /// What the tag says of the member, with origins; without a member, its own document. `None`: there is no such
    /// tag, or the host is not in it. Costs tens of µs; [`View::effective_document`] is cheaper.
    #[must_use]
    pub fn effective(&self, tag: &TagName, member: Option<&HostName>) -> Option<Effective> {
        let layers = self.layers(tag, member.map(HostName::as_str))?;
        let mut effective = Effective {
            value: Value::Object(Map::new()),
            origins: BTreeMap::new(),
            conflicts: vec![],
            revision: layers.revision,
        };
        let origin = |tag: &Tag| Origin { key: Key::tag(&tag.name), revision: tag.revision };
        for group in layers.tags.chunk_by(|a, b| a.0 == b.0) {
            let group: Vec<(Origin, Value)> =
                group.iter().map(|(_, t)| (origin(t), t.document.value())).collect();
            effective.layer(group);
        }
        if let Some((host, raw)) = layers.over {
            let origin = Origin { key: Key::host(&host.name), revision: host.revision };
            effective.layer(vec![(origin, serde_json::from_str(raw).unwrap_or_default())]);
        }
        Some(effective)
    }

    /// What the tag says of the member; without a member, its own document. `None` as in [`View::effective`].
    #[must_use]
    pub fn effective_document(&self, tag: &TagName, member: Option<&HostName>) -> Option<EffectiveDocument> {
        let layers = self.layers(tag, member.map(HostName::as_str))?;
        let revision = layers.revision;
        if let ([(_, only)], None) = (&layers.tags[..], layers.over) {
            return Some(EffectiveDocument {
                document: only.document.clone(),
                conflicts: Arc::default(),
                revision,
            });
        }
        let merged = self.merged(&layers.tags);
        let Some((_, raw)) = layers.over else {
            let (document, conflicts) = (merged.document.clone(), merged.conflicts.clone());
            return Some(EffectiveDocument { document, conflicts, revision });
        };
        Counters::count(&self.counters.documents, 1);
        let over: Value = serde_json::from_str(raw).unwrap_or_default();
        let mut conflicts = merged.conflicts.clone();
        if !conflicts.is_empty() {
            settle(Arc::make_mut(&mut conflicts), &over);
        }
        let mut value = merged.value.clone();
        merge(&mut value, over);
        Some(EffectiveDocument { document: Document::from(value), conflicts, revision })
    }

    /// What all tags of a namespace that contain the host say of it together, as if one more tag nested them all: those that no
    /// other of them nests are of equal depth. The host's override comes last. `shape` brings each document into the form in
    /// which they are merged. `None`: there is no such host; one that is in no tag of the namespace has its override alone.
    #[must_use]
    pub fn effective_in(
        &self,
        namespace: &str,
        host: &HostName,
        shape: impl Fn(&mut Value),
    ) -> Option<Effective> {
        let sym = self.host_sym(host.as_str())?;
        let slot = self.host_slot(sym)?;
        let row = slot.host.as_deref()?;
        let mut tags: Vec<(u32, &Tag)> = self
            .depths_in(namespace, sym)
            .into_iter()
            .filter_map(|(tag, depth)| Some((depth, self.tag_slot(tag)?.tag.as_deref()?)))
            .collect();
        tags.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
        let said = tags.iter().map(|(_, tag)| tag.revision);
        let revision = said.chain([row.revision]).max().unwrap_or_default();
        let mut effective = Effective {
            value: Value::Object(Map::new()),
            origins: BTreeMap::new(),
            conflicts: Vec::new(),
            revision,
        };
        let shaped = |mut value: Value| {
            shape(&mut value);
            value
        };
        for group in tags.chunk_by(|a, b| a.0 == b.0) {
            let origin = |tag: &Tag| Origin { key: Key::tag(&tag.name), revision: tag.revision };
            let group = group.iter().map(|(_, tag)| (origin(tag), shaped(tag.document.value())));
            effective.layer(group.collect());
        }
        if let Some(raw) = self.override_of(row, namespace) {
            let origin = Origin { key: Key::host(&row.name), revision: row.revision };
            effective.layer(vec![(origin, shaped(serde_json::from_str(raw).unwrap_or_default()))]);
        }
        Some(effective)
    }

    /// The tags of a namespace that contain the host, and how far each is below one that no other of them nests, by the longest way.
    fn depths_in(&self, namespace: &str, host: HostSym) -> BTreeMap<TagSym, u32> {
        let own = |tag: &TagSym| self.tag_slot(*tag).is_some_and(|s| s.name.namespace() == namespace);
        let around: Vec<TagSym> = self.containing(host).into_iter().filter(own).collect();
        let mut depths: BTreeMap<TagSym, u32> = around.iter().map(|tag| (*tag, 0)).collect();
        // As long as ways grow; a cycle, which no checked commit makes, ends it too.
        for _ in 0..around.len() {
            let mut moved = false;
            for below in &around {
                let parents = self.tag_slot(*below).into_iter().flat_map(|slot| slot.parents.iter());
                let deepest = parents.filter_map(|parent| depths.get(&parent)).max().map_or(0, |d| d + 1);
                if let Some(depth) = depths.get_mut(below).filter(|depth| **depth < deepest) {
                    (*depth, moved) = (deepest, true);
                }
            }
            if !moved {
                break;
            }
        }
        depths
    }

    fn merged(&self, tags: &[(u32, &Tag)]) -> Arc<Merged> {
        let key: MadeOf = tags.iter().map(|(depth, tag)| (tag.document.address(), *depth)).collect();
        let mut cache = self.cache.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(merged) = cache.get(&key) {
            return merged.clone();
        }
        Counters::count(&self.counters.documents, tags.len());
        let mut value = Value::Object(Map::new());
        let mut conflicts = Vec::new();
        for group in tags.chunk_by(|a, b| a.0 == b.0) {
            let origin = |tag: &Tag| Origin { key: Key::tag(&tag.name), revision: tag.revision };
            let group: Vec<(Origin, Value)> =
                group.iter().map(|(_, t)| (origin(t), t.document.value())).collect();
            group.iter().for_each(|(_, layer)| settle(&mut conflicts, layer));
            conflicts.extend(clashes(&group));
            group.into_iter().for_each(|(_, layer)| merge(&mut value, layer));
        }
        let from = tags.iter().map(|(_, tag)| tag.document.clone()).collect();
        let document = Document::from(value.clone());
        let merged = Arc::new(Merged { document, value, conflicts: Arc::new(conflicts), _from: from });
        if cache.len() >= MAX_CACHE {
            cache.clear();
        }
        cache.insert(key, merged.clone());
        merged
    }

    fn layers(&self, tag: &TagName, member: Option<&str>) -> Option<Layers<'_>> {
        let top = self.tag_sym(tag.as_str())?;
        let own = self.tag_slot(top)?.tag.as_deref()?;
        let Some(member) = member else {
            return Some(Layers { tags: vec![(0, own)], over: None, revision: own.revision });
        };
        let sym = self.host_sym(member)?;
        let slot = self.host_slot(sym)?;
        let host = slot.host.as_deref()?;
        let reached = self.between(top, sym)?;
        let mut tags: Vec<(u32, &Tag)> = reached
            .depths
            .iter()
            .filter_map(|(tag, depth)| Some((*depth, self.tag_slot(*tag)?.tag.as_deref()?)))
            .collect();
        tags.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
        let over = self.override_of(host, tag.namespace()).map(|raw| (host, raw));
        let said = tags.iter().map(|(_, t)| t.revision).chain(slot.facts().iter().map(|f| f.revision));
        let revision = said.chain([reached.revision, host.revision]).max().unwrap_or_default();
        Some(Layers { tags, over, revision })
    }

    /// The tags between a tag and a host that it contains. Costs the host's tags.
    fn between(&self, top: TagSym, host: HostSym) -> Option<Reached> {
        let around = self.containing(host);
        if !around.contains(&top) {
            return None;
        }
        let links: Vec<(TagSym, TagSym)> = around
            .iter()
            .flat_map(|below| {
                let parents = self.tag_slot(*below).map(|s| s.parents.clone()).unwrap_or_default();
                let parents: Vec<TagSym> = parents.iter().filter(|p| around.contains(p)).collect();
                parents.into_iter().map(|parent| (parent, *below))
            })
            .collect();
        let mut inside = BTreeSet::from([top]);
        let mut depths = BTreeMap::from([(top, 0)]);
        let namespace = self.tag_slot(top)?.name.namespace();
        let is_own = |t: TagSym| self.tag_slot(t).is_some_and(|s| s.name.namespace() == namespace);
        // The longest way in a graph of at most so many tags; a cycle, which no checked commit makes, ends it too.
        for _ in 0..around.len() {
            let mut moved = false;
            for (parent, below) in &links {
                if inside.contains(parent) {
                    moved |= inside.insert(*below);
                }
                let Some(depth) = depths.get(parent).map(|d| d + 1).filter(|_| is_own(*below)) else {
                    continue;
                };
                if *below != top && depths.get(below).is_none_or(|d| *d < depth) {
                    depths.insert(*below, depth);
                    moved = true;
                }
            }
            if !moved {
                break;
            }
        }
        let mut revision = Revision(0);
        for (parent, below) in links.iter().filter(|(parent, _)| inside.contains(parent)) {
            let made = self.tag_slot(*parent).and_then(|s| s.nested.get(below));
            revision = revision.max(made.copied().unwrap_or_default());
        }
        for (tag, slot) in inside.iter().filter_map(|t| Some((*t, self.tag_slot(*t)?))) {
            let named = self.host_slot(host).and_then(|h| h.tags.get(tag));
            let rules = self.host_slot(host).into_iter().flat_map(|h| h.rules.iter());
            let selected = rules.filter_map(|r| slot.rules.get(&r).copied()).max();
            revision = revision.max(named.max(selected).unwrap_or_default());
        }
        Some(Reached { depths, revision })
    }
}

struct Reached {
    /// The tags of the top's own namespace, by how far they are below it at most.
    depths: BTreeMap<TagSym, u32>,
    /// The newest of the member rows on the way.
    revision: Revision,
}

impl Effective {
    /// Lays tags of equal depth over what there is.
    fn layer(&mut self, group: Vec<(Origin, Value)>) {
        group.iter().for_each(|(_, layer)| settle(&mut self.conflicts, layer));
        self.conflicts.extend(clashes(&group));
        for (origin, layer) in group {
            let mut paths = Vec::new();
            leaves(&layer, &mut String::new(), &mut paths);
            for path in paths {
                // An empty map says nothing where there is a map already.
                let adds = layer.pointer(&path).is_none_or(|v| !v.is_object())
                    || self.value.pointer(&path).is_none_or(|v| !v.is_object());
                if adds {
                    self.origins.retain(|p, _| !within(p, &path) && !within(&path, p));
                    self.origins.insert(path, origin.clone());
                }
            }
            merge(&mut self.value, layer);
        }
        self.origins.remove("");
    }
}

/// Lays `over` over `base`: maps merge, everything else replaces.
pub(crate) fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (name, value) in over {
                match base.get_mut(&name) {
                    Some(there) => merge(there, value),
                    None => {
                        base.insert(name, value);
                    }
                }
            }
        }
        (base, over) => *base = over,
    }
}

/// JSON pointers of all leaves: scalars, lists, empty maps.
pub(crate) fn leaves(value: &Value, at: &mut String, out: &mut Vec<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (name, value) in map {
                let before = at.len();
                at.push('/');
                at.push_str(&escape(name));
                leaves(value, at, out);
                at.truncate(before);
            }
        }
        _ => out.push(at.clone()),
    }
}

/// A name as a part of a JSON pointer.
pub(crate) fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// Whether `path` is `of` or lies within it.
fn within(path: &str, of: &str) -> bool {
    path.strip_prefix(of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Drops the conflicts that a stronger layer decides.
fn settle(conflicts: &mut Vec<Conflict>, stronger: &Value) {
    if conflicts.is_empty() {
        return;
    }
    let mut paths = Vec::new();
    leaves(stronger, &mut String::new(), &mut paths);
    conflicts.retain(|c| !paths.iter().any(|p| !p.is_empty() && (within(&c.path, p) || within(p, &c.path))));
}

/// The paths at which layers of equal strength say different things.
fn clashes(group: &[(Origin, Value)]) -> Vec<Conflict> {
    let mut at: BTreeMap<String, BTreeSet<usize>> = BTreeMap::new();
    for (i, (_, a)) in group.iter().enumerate() {
        for (j, (_, b)) in group.iter().enumerate().skip(i + 1) {
            clash(a, b, &mut String::new(), &mut |path| at.entry(path).or_default().extend([i, j]));
        }
    }
    let said = |path: &str, i: usize| {
        let (origin, value) = group.get(i)?;
        Some(Said { origin: origin.clone(), value: value.pointer(path).cloned().unwrap_or_default() })
    };
    at.into_iter()
        .map(|(path, who)| Conflict { between: who.iter().filter_map(|i| said(&path, *i)).collect(), path })
        .collect()
}

fn clash(a: &Value, b: &Value, at: &mut String, found: &mut impl FnMut(String)) {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            for (name, a) in a {
                if let Some(b) = b.get(name) {
                    let before = at.len();
                    at.push('/');
                    at.push_str(&escape(name));
                    clash(a, b, at, found);
                    at.truncate(before);
                }
            }
        }
        _ if a != b => found(at.clone()),
        _ => {}
    }
}
