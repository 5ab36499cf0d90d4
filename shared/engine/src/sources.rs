//! Which sources there are, and which items each feeds.
//!
//! A source is a tag, or a tag with one member. When one is touched, [`Sources::refresh`] asks the agent which keys
//! it feeds now; the keys it fed before and feeds now are what a commit makes dirty, and nothing else.
//!
//! A source that cannot be understood is *frozen*: what it fed before stays recorded, and those items are held
//! as they are. Specs are parsed once for all members that share an effective document.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use shoal_core::{Document, HostName, Quarantined, Revision, TagName};

use crate::agent::{Agent, Source};
use crate::counters::Count;
use crate::fleet::Fleet;
use crate::ledger::SourceId;

/// How many different effective documents of one tag are kept parsed.
const SPECS_PER_TAG: usize = 64;

/// What is known of one source.
pub(crate) struct State<A: Agent> {
    /// What it feeds; while frozen, what it fed before.
    keys: Vec<A::Key>,
    /// Its document as the agent reads it; `None` while nothing could ever be read.
    pub(crate) spec: Option<Arc<A::Spec>>,
    /// The newest revision of what it was made from.
    pub(crate) revision: Revision,
    /// Why it cannot be understood now.
    pub(crate) frozen: Option<Arc<Quarantined>>,
}

type Parsed<A> = (Document, Arc<<A as Agent>::Spec>);

/// All sources of one agent.
pub(crate) struct Sources<A: Agent> {
    /// By tag and member. In no order: whoever goes through them sorts.
    by: BTreeMap<TagName, HashMap<Option<HostName>, State<A>>>,
    /// Those that cannot be understood now.
    frozen: BTreeMap<SourceId, Arc<Quarantined>>,
    specs: BTreeMap<TagName, Vec<Parsed<A>>>,
}

/// What a refreshed source fed before and feeds now.
pub(crate) struct Fed<K> {
    pub(crate) before: Vec<K>,
    pub(crate) now: Vec<K>,
    /// Whether it was or is frozen: items that the ledger alone links to it are to be decided on too.
    pub(crate) thawed_or_frozen: bool,
}

impl<A: Agent> Sources<A> {
    pub(crate) fn new() -> Self {
        Self { by: BTreeMap::new(), frozen: BTreeMap::new(), specs: BTreeMap::new() }
    }

    pub(crate) fn get(&self, id: &SourceId) -> Option<&State<A>> {
        self.by.get(&id.0)?.get(&id.1)
    }

    /// All that are known, in no order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = SourceId> {
        self.by.keys().flat_map(|tag| self.of_tag(tag))
    }

    /// The sources of one tag that are known now, itself included, in no order.
    pub(crate) fn of_tag(&self, tag: &TagName) -> impl Iterator<Item = SourceId> {
        let members = self.by.get(tag).into_iter().flat_map(HashMap::keys);
        members.map(move |host| SourceId(tag.clone(), host.clone()))
    }

    fn take(&mut self, SourceId(tag, host): &SourceId) -> Option<State<A>> {
        let members = self.by.get_mut(tag)?;
        let old = members.remove(host);
        if members.is_empty() {
            self.by.remove(tag);
        }
        old
    }

    fn put(&mut self, SourceId(tag, host): &SourceId, state: State<A>) {
        self.by.entry(tag.clone()).or_default().insert(host.clone(), state);
    }

    /// Why one of these cannot be understood now.
    pub(crate) fn frozen<'i>(&self, mut ids: impl Iterator<Item = &'i SourceId>) -> Option<&Quarantined> {
        if self.frozen.is_empty() {
            return None;
        }
        ids.find_map(|id| self.frozen.get(id)).map(|q| &**q)
    }

    /// One that never could be understood: which items it feeds is not known.
    pub(crate) fn unread(&self) -> Option<&SourceId> {
        self.frozen.keys().find(|id| self.get(id).is_none_or(|state| state.spec.is_none()))
    }

    /// Those that cannot be understood now.
    pub(crate) fn quarantined(&self) -> impl Iterator<Item = (&SourceId, &Arc<Quarantined>)> {
        self.frozen.iter()
    }

    /// Forgets specs of tags that changed, so that old documents are not kept alive.
    pub(crate) fn forget_specs(&mut self, tag: &TagName) {
        self.specs.remove(tag);
    }

    /// Asks the agent what this source feeds now.
    pub(crate) fn refresh(&mut self, agent: &A, fleet: &Fleet, id: &SourceId, count: &Count) -> Fed<A::Key> {
        let (before, old) = self.take(id).map_or((Vec::new(), None), |s| (s.keys, Some((s.spec, s.frozen))));
        if !self.frozen.is_empty() {
            self.frozen.remove(id);
        }
        let (spec, frozen) = old.unwrap_or_default();
        match self.read(agent, fleet, id, count) {
            None => Fed { before, now: Vec::new(), thawed_or_frozen: frozen.is_some() },
            Some(Ok(state)) => {
                let now = state.keys.clone();
                self.put(id, state);
                Fed { before, now, thawed_or_frozen: frozen.is_some() }
            }
            Some(Err((why, revision))) => {
                let since = frozen.map_or(revision, |q| q.since);
                let frozen = Arc::new(Quarantined { what: id.to_string(), why, since });
                self.frozen.insert(id.clone(), frozen.clone());
                self.put(id, State { keys: before.clone(), spec, revision, frozen: Some(frozen) });
                Fed { now: before.clone(), before, thawed_or_frozen: true }
            }
        }
    }

    /// The source as it is now; `None`: there is nothing to ask the agent about.
    fn read(
        &mut self,
        agent: &A,
        fleet: &Fleet,
        SourceId(tag, member): &SourceId,
        count: &Count,
    ) -> Option<Result<State<A>, (String, Revision)>> {
        let host = match member {
            Some(name) => Some(fleet.host(name.as_str()).filter(|host| agent.serves(host.state))?),
            None => None,
        };
        let least = host.map_or(Revision(0), |host| host.revision);
        let facts = host.map_or(&[][..], |host| fleet.facts(host.name.as_str()));
        if let Some(why) = host.and_then(|host| fleet.doubt(tag, &host.name)) {
            return Some(Err((why, least)));
        }
        let (document, revision) = match fleet.effective(tag, member.as_ref())? {
            Ok((document, revision)) => (document, revision.max(least)),
            Err(why) => return Some(Err((why, least))),
        };
        let said = self.spec(tag, &document, count).map_err(|e| format!("its document: {e}"));
        Some(
            said.and_then(|spec| {
                count.add(|c| c.keys += 1);
                let mut keys = agent
                    .keys(&Source { tag, spec: &spec, host, facts, revision })
                    .map_err(|blocked| blocked.why)?;
                keys.sort_unstable();
                keys.dedup();
                Ok(State { keys, spec: Some(spec), revision, frozen: None })
            })
            .map_err(|why| (why, revision)),
        )
    }

    /// The parsed form of an effective document, shared by all members that have the same one.
    fn spec(
        &mut self,
        tag: &TagName,
        document: &Document,
        count: &Count,
    ) -> Result<Arc<A::Spec>, serde_json::Error> {
        let known = self.specs.entry(tag.clone()).or_default();
        // The last used stands last: a document that many members share is never the one that is forgotten.
        let same = |have: &Document| std::ptr::eq(have.as_str(), document.as_str());
        if let Some(at) = known.iter().rposition(|(have, _)| same(have)) {
            let found = known.remove(at);
            let spec = found.1.clone();
            known.push(found);
            return Ok(spec);
        }
        count.add(|c| c.specs += 1);
        let spec: Arc<A::Spec> = Arc::new(document.to()?);
        if known.len() >= SPECS_PER_TAG {
            known.remove(0);
        }
        known.push((document.clone(), spec.clone()));
        Ok(spec)
    }
}
