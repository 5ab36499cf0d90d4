//! The database at one revision, in memory and indexed: hosts, tags, who is a member of what and why, what a
//! tag says of a member, and what a commit touches.
//!
//! Guarantees:
//!
//! * A view that followed commits by [`View::apply`] answers as one freshly loaded from the rows would.
//! * [`Touched`] names every pair of tag and host whose membership, effective document or host row differs between
//!   before and after. It may name a pair that turns out equal.
//! * Cost follows what is touched. A change of one host costs its own tags and the rules that read what changed,
//!   in a fleet of any size; a change of a tag's document costs its members.
//! * A clone costs the same however large the fleet is, and shares all memory until one of the two changes: a
//!   server answers from a snapshot while the next commit is applied, and a proposal is tried on a copy.
//!
//! Assumptions: rows come from a store, whose commits were checked by [`prepare`](crate::prepare). What was not is
//! survived: a row that cannot be read leaves the last good one in force and is listed by [`View::broken`]; a
//! cycle of tags is walked once around; a tag without a row of its own has no members and contains nobody.

mod around;
mod doubt;
mod effective;
mod excerpt;
mod fields;
mod groups;
mod host;
mod names;
mod nest;
mod rules;
mod search;
mod symbol;
#[cfg(test)]
mod tests;
mod touched;
mod undo;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use imbl::{OrdMap, OrdSet, Vector};

pub use doubt::Doubt;
pub use effective::{Conflict, Effective, EffectiveDocument, Origin, Said};
pub(crate) use effective::{escape, leaves};
pub use excerpt::{Excerpt, Excerpting};
pub use groups::Contents;
pub use host::{Broken, Fact, Host, Plain, Tag, Tombstone, host_row, tag_row};
pub use nest::Via;
pub use search::{Hits, Unsure};
pub use touched::Touched;
pub use undo::Stood;

use crate::schema::{Checker, Checkers};
use crate::select::{Rule, Subject};
use crate::{BadName, Document, HostName, Key, Kind, Member, Namespace, Revision, Row, TagName};
use effective::Cache;
use rules::{Changed, RuleBook};
use symbol::{Few, HostSym, Links, RuleSym, TagSym};

/// The database at one revision. See the module.
#[derive(Clone, Debug, Default)]
pub struct View {
    revision: Revision,
    host_names: names::Names,
    hosts: Vector<HostSlot>,
    tag_names: OrdMap<TagName, TagSym>,
    tags: Vector<Arc<TagSlot>>,
    rules: RuleBook,
    plain: OrdMap<Key, Plain>,
    tag_facts: OrdMap<String, Arc<Vec<Fact>>>,
    graves: OrdMap<Key, Tombstone>,
    broken: OrdMap<Key, Broken>,
    overrides: OrdMap<Namespace, bool>,
    /// The newest revision that wrote or deleted a row below `access/`.
    access: Revision,
    counters: Arc<Counters>,
    cache: Arc<Cache>,
    checkers: Arc<Checkers>,
    fields: fields::Fields,
    /// Hosts that tags name, of rows that are still being loaded: most rows are such, and are put in place together.
    loading: Vec<(TagSym, HostSym, Revision)>,
}

#[derive(Clone, Debug)]
struct HostSlot {
    name: HostName,
    host: Option<Arc<Host>>,
    /// Tags that name it, whether or not it or they exist.
    tags: Links,
    /// Rules that select it.
    rules: Few<RuleSym>,
    /// Rules that cannot be evaluated for it.
    unsure: Few<RuleSym>,
    facts: Option<Arc<Vec<Fact>>>,
}

#[derive(Clone, Debug)]
struct TagSlot {
    name: TagName,
    tag: Option<Arc<Tag>>,
    hosts: OrdSet<HostSym>,
    nested: OrdMap<TagSym, Revision>,
    rules: OrdMap<RuleSym, Revision>,
    parents: Few<TagSym>,
    /// The newest revision that wrote or deleted a row by which another tag nests it.
    linked: Revision,
    /// The newest revision that wrote or deleted its row or one of its members.
    changed: Revision,
}

/// What a view has done since it was made, clones included: the law of proportional cost reads it.
#[derive(Debug, Default)]
pub struct Counters {
    rules: AtomicU64,
    sources: AtomicU64,
    documents: AtomicU64,
}

impl Counters {
    /// Rules evaluated, each for one host.
    #[must_use]
    pub fn rules_evaluated(&self) -> u64 {
        self.rules.load(Ordering::Relaxed)
    }

    /// Tags and members looked at while walking memberships.
    #[must_use]
    pub fn sources_visited(&self) -> u64 {
        self.sources.load(Ordering::Relaxed)
    }

    /// Documents parsed or scanned.
    #[must_use]
    pub fn documents_parsed(&self) -> u64 {
        self.documents.load(Ordering::Relaxed)
    }

    fn count(counter: &AtomicU64, n: usize) {
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }
}

impl View {
    /// The empty database at revision 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one row of the initial paging, in any order, tombstones included. Ends with [`View::loaded`].
    pub fn load(&mut self, row: Row) {
        let Row { key, value, revision, moved } = row;
        if let (Some((tag, member)), true) = (key.as_member(), value.is_some())
            && let Some((tag, host)) = self.plain_link(tag, member)
        {
            self.loading.push((tag, host, revision));
            return;
        }
        self.put(&key, value.as_ref(), moved, revision);
    }

    /// All rows have been loaded, as of `revision`. Asks every rule for every host: this is where loading costs.
    pub fn loaded(&mut self, revision: Revision) {
        self.revision = revision;
        self.put_loaded();
        for at in 0..self.hosts.len() {
            self.ask_rules(symbol_of(at), &Changed::Everything);
        }
    }

    /// The newest revision it holds.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Nothing that concerns it happened up to `revision`.
    pub fn skip(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The host of this name, in whatever state.
    #[must_use]
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.shared_host(name).map(|h| &**h)
    }

    /// The host of this name, to keep beyond the view.
    #[must_use]
    pub fn shared_host(&self, name: &str) -> Option<&Arc<Host>> {
        self.host_slot(self.host_sym(name)?)?.host.as_ref()
    }

    /// All hosts, in no particular order.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        self.hosts.iter().filter_map(|slot| slot.host.as_deref())
    }

    /// What is reported about a host, whether it exists or not, by namespace.
    #[must_use]
    pub fn facts(&self, host: &str) -> &[Fact] {
        self.host_sym(host).and_then(|sym| self.host_slot(sym)).map_or(&[], HostSlot::facts)
    }

    /// The tag's own row.
    #[must_use]
    pub fn tag(&self, tag: &TagName) -> Option<&Tag> {
        self.tag_slot(self.tag_sym(tag.as_str())?)?.tag.as_deref()
    }

    /// The tags of one namespace, by name.
    pub fn tags_in(&self, namespace: &str) -> impl Iterator<Item = &Tag> {
        let first = format!("{namespace}/");
        self.tag_names
            .range::<_, str>((std::ops::Bound::Included(&*first.clone()), std::ops::Bound::Unbounded))
            .take_while(move |(name, _)| name.as_str().starts_with(&first))
            .filter_map(|(_, sym)| self.tag_slot(*sym)?.tag.as_deref())
    }

    /// All tags, by name.
    pub fn tags(&self) -> impl Iterator<Item = &Tag> {
        self.tag_names.iter().filter_map(|(_, sym)| self.tag_slot(*sym)?.tag.as_deref())
    }

    /// The namespaces that hold tags, in order.
    #[must_use]
    pub fn namespaces(&self) -> Vec<String> {
        let mut all: Vec<String> = self.tags().map(|t| t.name.namespace().to_owned()).collect();
        all.dedup();
        all.sort();
        all
    }

    /// A tag's own members as they are written, by text, with the revision that made each.
    #[must_use]
    pub fn direct_members(&self, tag: &TagName) -> Vec<(Member, Revision)> {
        let Some(sym) = self.tag_sym(tag.as_str()) else { return Vec::new() };
        let Some(slot) = self.tag_slot(sym) else { return Vec::new() };
        let hosts = slot.hosts.iter().filter_map(|host| {
            let host = self.host_slot(*host)?;
            Some((Member::host(&host.name), host.tags.get(sym)?))
        });
        let nested = slot
            .nested
            .iter()
            .filter_map(|(t, r)| Some((Member::nested(&self.tag_slot(*t)?.name, tag.namespace()), *r)));
        let rules =
            slot.rules.iter().filter_map(|(rule, r)| Some((Member::rule(&self.rules.slot(*rule)?.text), *r)));
        let mut all: Vec<_> = hosts.chain(nested).chain(rules).collect();
        all.sort();
        all
    }

    /// The schema that a namespace's agent published.
    #[must_use]
    pub fn schema(&self, namespace: &Namespace) -> Option<&Plain> {
        self.plain.get(&Key::schema(namespace))
    }

    /// One row of a schema, a pause, an approval, or what decides who may do what.
    #[must_use]
    pub fn plain_row(&self, key: &Key) -> Option<&Plain> {
        self.plain.get(key)
    }

    /// The newest revision that wrote or deleted something that decides who may do what.
    #[must_use]
    pub fn access_changed(&self) -> Revision {
        self.access
    }

    /// The rows of schemas, pauses, approvals and `access/` whose keys start with `prefix` (`pauses/`), by key.
    pub fn plain<'v>(&'v self, prefix: &'v str) -> impl Iterator<Item = (&'v Key, &'v Plain)> {
        self.plain
            .range::<_, str>((std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded))
            .take_while(move |(key, _)| key.as_str().starts_with(prefix))
    }

    /// What is left of a deleted or renamed row, until the key is written again.
    #[must_use]
    pub fn tombstone(&self, key: &Key) -> Option<&Tombstone> {
        self.graves.get(key)
    }

    /// Rows that could not be understood, by key.
    pub fn broken(&self) -> impl Iterator<Item = (&Key, &Broken)> {
        self.broken.iter()
    }

    /// The newest revision that wrote or deleted the tag's own row or one of its member rows; `None`: there is no such
    /// tag.
    #[must_use]
    pub fn tag_revision(&self, tag: &TagName) -> Option<Revision> {
        self.tag_slot(self.tag_sym(tag.as_str())?).filter(|s| s.tag.is_some()).map(|s| s.changed)
    }

    /// The compiled schema of a namespace; `None`: it has none.
    #[must_use]
    pub fn checker(&self, namespace: &Namespace) -> Option<Result<Arc<Checker>, String>> {
        self.schema(namespace).map(|row| self.checkers.of(&row.document))
    }

    /// The key's row as a store keeps it. Costs writing it again.
    #[must_use]
    pub fn row(&self, key: &Key) -> Option<Document> {
        match key.kind() {
            Kind::Host(name) => Document::of(&self.host(name.as_str())?.record()).ok(),
            Kind::Tag(tag) => Document::of(&self.tag(&tag)?.record()).ok(),
            Kind::Member(tag, member) => self.member_revision(&tag, &member).map(|_| Document::empty()),
            Kind::Fact(ns, subject) => {
                self.facts_about(&subject).iter().find(|f| f.namespace == ns).map(|f| f.document.clone())
            }
            Kind::Schema(_) | Kind::Pause(_) | Kind::Approval(..) | Kind::Access(_) => {
                self.plain.get(key).map(|p| p.document.clone())
            }
        }
    }

    /// What is reported about a host or a tag, or about what can be neither.
    #[must_use]
    pub fn facts_about(&self, subject: &str) -> &[Fact] {
        let of_host = if subject.contains('/') { &[] } else { self.facts(subject) };
        if of_host.is_empty() {
            self.tag_facts.get(subject).map_or(&[], |facts| facts.as_slice())
        } else {
            of_host
        }
    }

    /// Whether the key has a row now.
    #[must_use]
    pub fn exists(&self, key: &Key) -> bool {
        self.revision_of(key).is_some()
    }

    /// The revision that last wrote the key's row, if there is one.
    #[must_use]
    pub fn revision_of(&self, key: &Key) -> Option<Revision> {
        match key.kind() {
            Kind::Host(name) => self.host(name.as_str()).map(|h| h.revision),
            Kind::Tag(tag) => self.tag(&tag).map(|t| t.revision),
            Kind::Member(tag, member) => self.member_revision(&tag, &member),
            Kind::Fact(ns, subject) => {
                self.facts_about(&subject).iter().find(|f| f.namespace == ns).map(|f| f.revision)
            }
            Kind::Schema(_) | Kind::Pause(_) | Kind::Approval(..) | Kind::Access(_) => {
                self.plain.get(key).map(|p| p.revision)
            }
        }
    }

    /// What the host says under the namespace's name, as JSON text, where the namespace's schema lets hosts override
    /// (or there is no schema) and it is a map.
    #[must_use]
    pub fn override_of<'h>(&self, host: &'h Host, namespace: &str) -> Option<&'h str> {
        if self.overrides.get(namespace) == Some(&false) { None } else { host.under(namespace) }
    }

    fn host_sym(&self, name: &str) -> Option<HostSym> {
        self.host_names.find(name, |sym| self.host_slot(sym).is_some_and(|slot| slot.name.as_str() == name))
    }

    fn tag_sym(&self, name: &str) -> Option<TagSym> {
        self.tag_names.get(name).copied()
    }

    fn host_slot(&self, sym: HostSym) -> Option<&HostSlot> {
        self.hosts.get(sym.0 as usize)
    }

    fn tag_slot(&self, sym: TagSym) -> Option<&TagSlot> {
        self.tags.get(sym.0 as usize).map(|t| &**t)
    }

    fn host_slot_mut(&mut self, sym: HostSym) -> Option<&mut HostSlot> {
        self.hosts.get_mut(sym.0 as usize)
    }

    fn tag_slot_mut(&mut self, sym: TagSym) -> Option<&mut TagSlot> {
        self.tags.get_mut(sym.0 as usize).map(Arc::make_mut)
    }

    fn intern_host(&mut self, name: &HostName) -> HostSym {
        if let Some(sym) = self.host_sym(name.as_str()) {
            return sym;
        }
        let sym = symbol_of(self.hosts.len());
        self.host_names.insert(name.as_str(), sym);
        let name = name.clone();
        self.hosts.push_back(HostSlot {
            name,
            host: None,
            tags: Links::default(),
            rules: Few::default(),
            unsure: Few::default(),
            facts: None,
        });
        sym
    }

    fn intern_tag(&mut self, name: &TagName) -> TagSym {
        if let Some(sym) = self.tag_sym(name.as_str()) {
            return sym;
        }
        let sym = TagSym(symbol_of(self.tags.len()).0);
        self.tag_names.insert(name.clone(), sym);
        self.tags.push_back(Arc::new(TagSlot {
            name: name.clone(),
            tag: None,
            hosts: OrdSet::new(),
            nested: OrdMap::new(),
            rules: OrdMap::new(),
            parents: Few::default(),
            linked: Revision(0),
            changed: Revision(0),
        }));
        sym
    }

    /// Asks the rules that read what changed whether they select the host now.
    fn ask_rules(&mut self, sym: HostSym, changed: &Changed) {
        let Some(slot) = self.host_slot(sym) else { return };
        let (had, doubted) = (slot.rules.clone(), slot.unsure.clone());
        let (mut now, mut unsure) = (had.clone(), doubted.clone());
        if let Some(host) = slot.host.clone() {
            let facts = slot.facts.clone();
            let subject = Subject::new(&host, facts.as_deref().map_or(&[], |f| f.as_slice()));
            let mut ask = self.rules.candidates(changed, &subject);
            ask.extend(had.iter().chain(doubted.iter()).filter(|rule| self.rules.reads(*rule, changed)));
            Counters::count(&self.counters.documents, 1);
            Counters::count(&self.counters.rules, ask.len());
            for rule in ask {
                let selects = self.rules.selects(rule, &subject);
                if selects == Some(true) {
                    now.insert(rule)
                } else {
                    now.remove(rule)
                };
                if selects.is_none() {
                    unsure.insert(rule)
                } else {
                    unsure.remove(rule)
                };
            }
        } else {
            (now, unsure) = (Few::default(), Few::default());
        }
        if now.as_slice() == had.as_slice() && unsure.as_slice() == doubted.as_slice() {
            return;
        }
        let answer = |yes: &Few<RuleSym>, none: &Few<RuleSym>, rule| {
            if none.contains(rule) { None } else { Some(yes.contains(rule)) }
        };
        let all = [&had, &doubted, &now, &unsure];
        let all: BTreeSet<RuleSym> = all.into_iter().flat_map(Few::iter).collect();
        for rule in all {
            let is = answer(&now, &unsure, rule);
            if is != answer(&had, &doubted, rule) {
                self.rules.note(rule, sym, is);
            }
        }
        if let Some(slot) = self.host_slot_mut(sym) {
            (slot.rules, slot.unsure) = (now, unsure);
        }
    }

    /// Asks one rule for every host: it is new.
    fn ask_everybody(&mut self, rule: RuleSym) {
        let Some(Ok(compiled)) = self.rules.slot(rule).map(|s| s.rule.clone()) else { return };
        let answers: Vec<(HostSym, Option<bool>)> = (0..self.hosts.len())
            .map(symbol_of)
            .filter_map(|sym| Some((sym, self.asks(self.host_slot(sym)?, &compiled))))
            .filter(|(_, selects)| *selects != Some(false))
            .collect();
        for (sym, selects) in answers {
            self.rules.note(rule, sym, selects);
            if let Some(slot) = self.host_slot_mut(sym) {
                if selects.is_some() { &mut slot.rules } else { &mut slot.unsure }.insert(rule);
            }
        }
    }

    /// Whether the rule selects the host; `None`: it cannot be evaluated for it.
    fn asks(&self, slot: &HostSlot, rule: &Rule) -> Option<bool> {
        let Some(host) = slot.host.as_deref() else { return Some(false) };
        Counters::count(&self.counters.documents, 1);
        let subject = Subject::new(host, slot.facts());
        if !rule.could_hold(&subject) {
            return Some(false);
        }
        Counters::count(&self.counters.rules, 1);
        rule.judge(&subject).ok()
    }

    fn member_revision(&self, tag: &TagName, member: &Member) -> Option<Revision> {
        let sym = self.tag_sym(tag.as_str())?;
        let slot = self.tag_slot(sym)?;
        match self.known(tag, member)? {
            Known::Host(host) => self.host_slot(host)?.tags.get(sym),
            Known::Tag(nested) => slot.nested.get(&nested).copied(),
            Known::Rule(rule) => slot.rules.get(&rule).copied(),
        }
    }

    fn known(&self, tag: &TagName, member: &Member) -> Option<Known> {
        if let Some(nested) = member.as_tag(tag.namespace()) {
            return self.tag_sym(nested.as_str()).map(Known::Tag);
        }
        match member.kind() {
            crate::MemberKind::Rule(text) => self.rules.find(text).map(Known::Rule),
            _ => self.host_sym(member.as_str()).map(Known::Host),
        }
    }

    fn known_or_new(&mut self, tag: &TagName, member: &Member) -> Result<Known, BadName> {
        if let Some(nested) = member.as_tag(tag.namespace()) {
            return Ok(Known::Tag(self.intern_tag(&nested)));
        }
        match member.kind() {
            crate::MemberKind::Rule(text) => Ok(Known::Rule(self.rules.intern(text))),
            _ => Ok(Known::Host(self.intern_host(&member.as_str().parse()?))),
        }
    }
}

/// A member by its symbol.
#[derive(Clone, Copy, Debug)]
enum Known {
    Host(HostSym),
    Tag(TagSym),
    Rule(RuleSym),
}

impl HostSlot {
    fn facts(&self) -> &[Fact] {
        self.facts.as_ref().map_or(&[], |f| f.as_slice())
    }
}

fn symbol_of(at: usize) -> HostSym {
    // Four thousand million names would not fit the memory of any machine that runs this.
    HostSym(u32::try_from(at).unwrap_or(u32::MAX))
}

/// Whether a schema's row lets hosts override anything.
#[must_use]
pub fn allows_override(schema: &Document) -> bool {
    schema.raw("host").is_some_and(|raw| raw != "null")
}
