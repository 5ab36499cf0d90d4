//! What should be, worked out anew from the database: the judge of all that engines do.
//!
//! It asks the same agents the same questions, but in the plainest way there is: for one revision, over everything,
//! without a memory. An engine that does less work must come to the same.

use std::collections::{BTreeMap, BTreeSet};

use shoal_core::{Host, HostName, Key, Revision, TagName, View};
use shoal_engine::{Agent, Look, Source};

use crate::agent::{ItemKey, Kind, SimAgent, Spec, Thing, part_name};
use crate::store::SimStore;

/// A source: a tag, or a tag with one member.
pub(crate) type Origin = (TagName, Option<HostName>);

/// What one item should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Is(Thing),
    Nothing,
    /// The agent cannot say: it stays as it is.
    Unclear,
}

/// What all items of one agent should be, by one revision.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    pub(crate) items: BTreeMap<ItemKey, Wish>,
    /// Which sources feed an item.
    pub(crate) from: BTreeMap<ItemKey, Vec<Origin>>,
    /// Sources that cannot be understood.
    pub(crate) frozen: BTreeSet<String>,
    /// Hosts with such a source.
    frozen_hosts: BTreeSet<String>,
    /// Whether a tag itself is such a source.
    frozen_tag: bool,
    /// Hosts and tags whose rows cannot be read, pauses.
    broken: BTreeSet<Key>,
    paused: BTreeSet<String>,
    /// What all of it was worked out from; it knows what was renamed, and to what.
    view: View,
    /// Hosts that items read beside their own.
    beside: BTreeSet<String>,
}

struct Hosts<'v>(&'v View);

impl Look for Hosts<'_> {
    fn host(&self, name: &str) -> Option<&Host> {
        self.0.host(name)
    }
}

/// What the database says should be.
pub(crate) fn expected(agent: &SimAgent, view: &View) -> Expected {
    let mut all = Expected {
        broken: view.broken().map(|(key, _)| key.clone()).collect(),
        paused: view
            .plain("pauses/")
            .filter_map(|(key, _)| Some(key.as_str().strip_prefix("pauses/")?.to_owned()))
            .collect(),
        view: view.clone(),
        ..Expected::default()
    };
    let mut specs: BTreeMap<String, Spec> = BTreeMap::new();
    for tag in view.tags_in(agent.namespace()) {
        let members = view.members(&tag.name).into_iter().map(Some);
        for member in std::iter::once(None).chain(members) {
            let host = member.as_ref().and_then(|name| view.host(name.as_str()));
            if member.is_some() && !host.is_some_and(|host| agent.serves(host.state)) {
                continue;
            }
            let name = part_name(&tag.name, member.as_ref());
            match feed(agent, view, &tag.name, host) {
                Some((spec, keys)) => {
                    all.beside.extend(spec.beside.clone());
                    specs.insert(name, spec);
                    for key in keys {
                        all.from.entry(key).or_default().push((tag.name.clone(), member.clone()));
                    }
                }
                None => {
                    all.frozen.insert(name);
                    all.frozen_tag |= member.is_none();
                    all.frozen_hosts.extend(member.map(|m| m.to_string()));
                }
            }
        }
    }
    for (key, from) in &all.from {
        let source =
            |(tag, host): &'_ Origin| Some((part_name(tag, host.as_ref()), tag.clone(), host.clone()));
        let named: Vec<_> = from.iter().filter_map(source).collect();
        let sources: Vec<_> = named
            .iter()
            .filter_map(|(name, tag, host)| {
                let host = host.as_ref().and_then(|name| view.host(name.as_str()));
                Some(Source { tag, spec: specs.get(name)?, host, facts: &[], revision: Revision(0) })
            })
            .collect();
        let wish = match agent.desired(key, &sources, &Hosts(view)) {
            Ok(desired) => desired.item.map_or(Wish::Nothing, Wish::Is),
            Err(_) => Wish::Unclear,
        };
        all.items.insert(key.clone(), wish);
    }
    all
}

/// What one source says, and which items it feeds; `None`: it cannot be understood.
fn feed(
    agent: &SimAgent,
    view: &View,
    tag: &TagName,
    host: Option<&Host>,
) -> Option<(Spec, BTreeSet<ItemKey>)> {
    let effective = view.effective_document(tag, host.map(|h| &h.name))?;
    let spec: Spec = effective.document.to().ok()?;
    let keys = agent.keys(&Source { tag, spec: &spec, host, facts: &[], revision: Revision(0) }).ok()?;
    Some((spec, keys.into_iter().collect()))
}

impl Expected {
    /// What this item should be.
    pub(crate) fn wish(&self, key: &ItemKey) -> &Wish {
        self.items.get(key).unwrap_or(&Wish::Nothing)
    }

    /// Whether the database says that this part of the item is to stay.
    pub(crate) fn stands(&self, key: &ItemKey, part: &str) -> bool {
        self.frozen.contains(part)
            || match self.wish(key) {
                Wish::Is(thing) => thing.parts.contains_key(part),
                Wish::Nothing => false,
                Wish::Unclear => {
                    let from = self.from.get(key).map_or(&[][..], Vec::as_slice);
                    from.iter().any(|(tag, host)| part_name(tag, host.as_ref()) == part)
                }
            }
    }

    /// Whether a row that the item may come from cannot be read.
    pub(crate) fn murky(&self, key: &ItemKey, kind: Kind) -> bool {
        self.broken.iter().any(|row| match row.kind() {
            shoal_core::Kind::Host(host) => {
                key.is_shared() || key.name() == host.as_str() || self.beside.contains(host.as_str())
            }
            shoal_core::Kind::Tag(tag) => tag.namespace() == kind.namespace() || tag.namespace() == "tags",
            _ => false,
        })
    }

    /// Whether what stands in the item, or may feed it, comes from a source that cannot be understood.
    pub(crate) fn is_frozen(&self, key: &ItemKey) -> bool {
        if self.frozen.is_empty() {
            return false;
        }
        if key.is_fixed() {
            return self.frozen_tag;
        }
        key.is_shared() || self.frozen_hosts.contains(key.name())
    }

    /// Whether somebody holds the item, as the ledger or the sources link it to what is paused.
    pub(crate) fn is_paused(&self, key: &ItemKey, kind: Kind, ledger: &[(String, Option<String>)]) -> bool {
        self.holds(key, kind, ledger, true)
    }

    /// Whether somebody holds the item otherwise than by one of its hosts.
    pub(crate) fn is_paused_whole(
        &self,
        key: &ItemKey,
        kind: Kind,
        ledger: &[(String, Option<String>)],
    ) -> bool {
        self.holds(key, kind, ledger, false)
    }

    /// Whether somebody holds a host that feeds the item, whatever else of it is held.
    pub(crate) fn is_host_paused(&self, key: &ItemKey) -> bool {
        let mut hosts = self.from.get(key).into_iter().flatten().filter_map(|(_, host)| host.as_ref());
        hosts.any(|host| self.names(host.as_str()).any(|name| self.paused.contains(&format!("host/{name}"))))
    }

    fn holds(&self, key: &ItemKey, kind: Kind, ledger: &[(String, Option<String>)], hosts: bool) -> bool {
        if self.paused.is_empty() {
            return false;
        }
        let one = |tag: &str, host: Option<&str>| {
            self.paused.contains(&format!("tag/{tag}"))
                || host.filter(|_| hosts).is_some_and(|host| {
                    self.names(host).any(|name| self.paused.contains(&format!("host/{name}")))
                })
        };
        let mut from = self.from.get(key).into_iter().flatten();
        self.paused.contains(&format!("agent/{}", kind.namespace()))
            || from.any(|(tag, host)| one(tag.as_str(), host.as_ref().map(HostName::as_str)))
            || ledger.iter().any(|(tag, host)| one(tag, host.as_deref()))
    }

    /// The host's name, and those that it was given since.
    fn names(&self, host: &str) -> impl Iterator<Item = String> {
        let next = |name: &String| {
            let grave = self.view.tombstone(&format!("hosts/{name}").parse().ok()?)?;
            Some(grave.moved.as_ref()?.as_str().strip_prefix("hosts/")?.to_owned())
        };
        std::iter::successors(Some(host.to_owned()), next).take(16)
    }

    /// Whether any row of the database cannot be read.
    pub(crate) fn has_broken_rows(&self) -> bool {
        !self.broken.is_empty()
    }
}

/// Remembers what was worked out, for the newest few revisions.
#[derive(Default)]
pub(crate) struct Oracle {
    known: BTreeMap<(Kind, Revision), std::rc::Rc<Expected>>,
}

impl Oracle {
    pub(crate) fn at(&mut self, kind: Kind, revision: Revision, store: &SimStore) -> std::rc::Rc<Expected> {
        if self.known.len() > 64 {
            self.known.clear();
        }
        self.known
            .entry((kind, revision))
            .or_insert_with(|| std::rc::Rc::new(expected(&SimAgent::of(kind), store.view(revision))))
            .clone()
    }
}
