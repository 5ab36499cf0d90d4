//! Applying rows to the view, and saying what that touched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::host::{Broken, Fact, Host, Plain, Tag, Tombstone};
use super::rules::Changed;
use super::symbol::{HostSym, RuleSym, TagSym};
use super::{HostSlot, Known, View, allows_override};
use crate::{ACCESS, BadName, Change, Document, HostName, Key, Kind, Namespace, Revision, TagName};

/// What a commit touched, before and after it together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// The revision that touched it.
    pub revision: Revision,
    /// Tags whose own row was made, changed or deleted, or whose namespace's override rule changed.
    pub tags: BTreeSet<TagName>,
    /// Tags of which a row of members was made or deleted.
    pub members: BTreeSet<TagName>,
    /// Hosts whose row was made, changed or deleted.
    pub hosts: BTreeSet<HostName>,
    /// What facts were reported about: hosts and tags, as text.
    pub facts: BTreeSet<String>,
    /// Every tag with the members whose membership, effective document, host row or facts may differ, by name.
    pub pairs: BTreeMap<TagName, Vec<HostName>>,
    /// Rows of schemas, pauses, approvals and `access/` that were written or deleted.
    pub plain: BTreeSet<Key>,
    /// Rows that could not be understood; what stood there before stays in force.
    pub broken: BTreeSet<Key>,
}

impl Touched {
    /// Whether nothing was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self { revision: self.revision, ..Self::default() }
    }

    /// Whether the pair is among those touched.
    #[must_use]
    pub fn has(&self, tag: &TagName, host: &HostName) -> bool {
        self.pairs.get(tag).is_some_and(|hosts| hosts.binary_search(host).is_ok())
    }
}

/// What one change is about, and what must be looked at before and after it.
enum Aim {
    Host(HostSym),
    Tag { tag: TagSym, existence: bool, document: bool },
    Link(TagSym, Known),
    Overrides(String),
}

type Pairs = Vec<(TagSym, HostSym)>;

/// A host as it was before the commit.
type Before = (Option<Arc<Host>>, Option<Arc<Vec<Fact>>>);

impl View {
    /// Applies one whole commit. Cost follows what it touches, not the size of the fleet.
    pub fn apply(&mut self, revision: Revision, changes: &[Change]) -> Touched {
        let mut touched = Touched { revision, ..Touched::default() };
        let aims: Vec<Aim> = changes.iter().filter_map(|c| self.aim(c, &mut touched)).collect();
        let mut pairs = Pairs::new();
        aims.iter().for_each(|aim| self.reach(aim, &mut pairs));
        let hosts = aims.iter().filter_map(|aim| if let Aim::Host(sym) = aim { Some(*sym) } else { None });
        let rows = changes.iter().map(|c| (&c.key, c.value.as_ref(), c.moved.as_ref(), revision));
        self.write(hosts.collect(), rows);
        let broken = |key: &&Key| self.broken.get(*key).is_some_and(|b| b.revision == revision);
        touched.broken = changes.iter().map(|c| &c.key).filter(broken).cloned().collect();
        aims.iter().for_each(|aim| self.reach(aim, &mut pairs));
        self.revision = revision;
        touched.pairs = self.named(pairs);
        touched
    }

    /// Puts rows in place that are of these hosts and of others, and asks the rules that may answer otherwise now.
    pub(super) fn write<'r>(
        &mut self,
        hosts: BTreeSet<HostSym>,
        rows: impl Iterator<Item = (&'r Key, Option<&'r Document>, Option<&'r Key>, Revision)>,
    ) {
        let of = |sym: HostSym| {
            let before = self.host_slot(sym).map(|s| (s.host.clone(), s.facts.clone()));
            (sym, before.unwrap_or_default())
        };
        let before: Vec<(HostSym, Before)> = hosts.into_iter().map(of).collect();
        let mut fresh = Vec::new();
        for (key, value, moved, revision) in rows {
            fresh.extend(self.put(key, value, moved.cloned(), revision));
        }
        for (sym, before) in before {
            let is = self.host_slot(sym).and_then(|slot| slot.host.clone());
            self.fields.follow(sym, before.0.as_deref(), is.as_deref());
            let changed = self.changed(sym, &before);
            if !changed.is_nothing() {
                self.ask_rules(sym, &changed);
            }
        }
        for rule in fresh {
            self.ask_everybody(rule);
        }
    }

    fn changed(&self, sym: HostSym, before: &Before) -> Changed {
        let Some(slot) = self.host_slot(sym) else { return Changed::Everything };
        match (&before.0, &slot.host) {
            (Some(was), Some(is)) => {
                let had = before.1.as_ref().map_or(&[][..], |f| f.as_slice());
                Changed::between((was, had), (is, slot.facts()))
            }
            _ => Changed::Everything,
        }
    }

    /// Notes the change in `touched` and says what has to be looked at.
    fn aim(&mut self, change: &Change, touched: &mut Touched) -> Option<Aim> {
        match change.key.kind() {
            Kind::Host(name) => {
                touched.hosts.insert(name.clone());
                Some(Aim::Host(self.intern_host(&name)))
            }
            Kind::Tag(name) => {
                touched.tags.insert(name.clone());
                let tag = self.intern_tag(&name);
                let was = self.tag_slot(tag).and_then(|s| s.tag.as_deref());
                let is = change.value.as_ref().and_then(|v| Tag::read(name, v, Revision(0)).ok());
                let document = was.map(|t| &t.document) != is.as_ref().map(|t| &t.document);
                Some(Aim::Tag { tag, existence: was.is_some() != change.value.is_some(), document })
            }
            Kind::Member(name, member) => {
                touched.members.insert(name.clone());
                let tag = self.intern_tag(&name);
                Some(Aim::Link(tag, self.known_or_new(&name, &member).ok()?))
            }
            Kind::Fact(_, subject) => {
                touched.facts.insert(subject.clone());
                subject.parse().ok().map(|host| Aim::Host(self.intern_host(&host)))
            }
            Kind::Schema(namespace) => {
                touched.plain.insert(change.key.clone());
                let was = self.overrides.get(&namespace).copied().unwrap_or(true);
                let is = change.value.as_ref().is_none_or(allows_override);
                if was == is {
                    return None;
                }
                touched.tags.extend(self.tags_in(namespace.as_str()).map(|t| t.name.clone()));
                Some(Aim::Overrides(namespace.to_string()))
            }
            Kind::Pause(_) | Kind::Approval(..) | Kind::Access(_) => {
                touched.plain.insert(change.key.clone());
                None
            }
        }
    }

    /// Adds the pairs that an aim reaches in the view as it is now.
    fn reach(&self, aim: &Aim, pairs: &mut Pairs) {
        match aim {
            Aim::Host(host) => {
                let tags = self.containing(*host).into_iter().chain(self.maybe_containing(*host));
                pairs.extend(tags.map(|tag| (tag, *host)));
            }
            Aim::Tag { document: false, existence: false, .. } => {}
            Aim::Tag { tag, existence, .. } => {
                let tags = if *existence { self.up([*tag].into_iter()) } else { self.up_own(*tag) };
                cross(&tags, &self.down(*tag), pairs);
                cross(&tags, &self.unsure_below(*tag), pairs);
            }
            Aim::Link(tag, Known::Host(host)) => {
                let there = self.tag_slot(*tag).is_some_and(|s| s.hosts.contains(host));
                if there && self.host_slot(*host).is_some_and(|s| s.host.is_some()) {
                    pairs.extend(self.up([*tag].into_iter()).into_iter().map(|tag| (tag, *host)));
                }
            }
            Aim::Link(tag, Known::Tag(nested)) => {
                if self.tag_slot(*tag).is_some_and(|s| s.nested.contains_key(nested)) {
                    let tags = self.up([*tag].into_iter());
                    cross(&tags, &self.down(*nested), pairs);
                    cross(&tags, &self.unsure_below(*nested), pairs);
                }
            }
            Aim::Link(tag, Known::Rule(rule)) => {
                if self.tag_slot(*tag).is_some_and(|s| s.rules.contains_key(rule)) {
                    let rule = self.rules.slot(*rule).into_iter();
                    let hosts = rule.flat_map(|r| r.hosts.iter().chain(&r.unsure).copied()).collect();
                    cross(&self.up([*tag].into_iter()), &hosts, pairs);
                }
            }
            Aim::Overrides(namespace) => {
                for tag in self.tags_in(namespace).filter_map(|t| self.tag_sym(t.name.as_str())) {
                    pairs.extend(self.down(tag).into_iter().map(|host| (tag, host)));
                }
            }
        }
    }

    fn named(&self, mut pairs: Pairs) -> BTreeMap<TagName, Vec<HostName>> {
        pairs.sort_unstable();
        pairs.dedup();
        let mut named: BTreeMap<TagName, Vec<HostName>> = BTreeMap::new();
        for of_tag in pairs.chunk_by(|a, b| a.0 == b.0) {
            let Some(tag) = of_tag.first().and_then(|(tag, _)| self.tag_slot(*tag)) else { continue };
            let mut hosts: Vec<HostName> =
                of_tag.iter().filter_map(|(_, host)| Some(self.host_slot(*host)?.name.clone())).collect();
            hosts.sort_unstable();
            named.insert(tag.name.clone(), hosts);
        }
        named
    }

    /// Puts one row in place. Answers a rule that stands in a tag for the first time and has to be asked for
    /// every host.
    pub(crate) fn put(
        &mut self,
        key: &Key,
        value: Option<&Document>,
        moved: Option<Key>,
        revision: Revision,
    ) -> Option<RuleSym> {
        self.broken.remove(key);
        if key.namespace() == ACCESS {
            self.access = self.access.max(revision);
        }
        if value.is_some() {
            self.graves.remove(key);
        } else {
            self.graves.insert(key.clone(), Tombstone { revision, moved });
        }
        if let Some((tag, member)) = key.as_member() {
            return self.put_member(tag, member, value.is_some(), revision).unwrap_or_else(|why| {
                self.broken.insert(key.clone(), Broken { why, revision });
                None
            });
        }
        let put = match key.kind() {
            Kind::Host(name) => self.put_host(&name, value, revision),
            Kind::Tag(name) => self.put_tag(&name, value, revision),
            Kind::Fact(namespace, subject) => {
                self.put_fact(&namespace, &subject, value, revision);
                Ok(())
            }
            Kind::Schema(namespace) => {
                self.put_plain(key, value, revision);
                match value {
                    Some(schema) => self.overrides.insert(namespace, allows_override(schema)),
                    None => self.overrides.remove(&namespace),
                };
                Ok(())
            }
            Kind::Pause(_) | Kind::Approval(..) | Kind::Access(_) | Kind::Member(..) => {
                self.put_plain(key, value, revision);
                Ok(())
            }
        };
        if let Err(why) = put {
            self.broken.insert(key.clone(), Broken { why, revision });
        }
        None
    }

    fn put_host(
        &mut self,
        name: &HostName,
        value: Option<&Document>,
        revision: Revision,
    ) -> Result<(), String> {
        let host = value.map(|v| Host::read(name.clone(), v, revision)).transpose()?;
        let sym = self.intern_host(name);
        if let Some(slot) = self.host_slot_mut(sym) {
            slot.host = host.map(Arc::new);
        }
        Ok(())
    }

    fn put_tag(
        &mut self,
        name: &TagName,
        value: Option<&Document>,
        revision: Revision,
    ) -> Result<(), String> {
        let tag = value.map(|v| Tag::read(name.clone(), v, revision)).transpose()?;
        let sym = self.intern_tag(name);
        if let Some(slot) = self.tag_slot_mut(sym) {
            slot.tag = tag.map(Arc::new);
            slot.changed = slot.changed.max(revision);
        }
        Ok(())
    }

    fn put_plain(&mut self, key: &Key, value: Option<&Document>, revision: Revision) {
        match value {
            Some(document) => self.plain.insert(key.clone(), Plain { document: document.clone(), revision }),
            None => self.plain.remove(key),
        };
    }

    fn put_fact(
        &mut self,
        namespace: &Namespace,
        subject: &str,
        value: Option<&Document>,
        revision: Revision,
    ) {
        let host = if subject.contains('/') { None } else { subject.parse::<HostName>().ok() };
        let host = host.map(|name| self.intern_host(&name));
        let now = match host {
            Some(sym) => self.host_slot(sym).map(HostSlot::facts).unwrap_or_default(),
            None => self.tag_facts.get(subject).map_or(&[][..], |f| f.as_slice()),
        };
        let mut facts: Vec<Fact> = now.iter().filter(|f| &f.namespace != namespace).cloned().collect();
        if let Some(document) = value {
            let fact = Fact { namespace: namespace.clone(), document: document.clone(), revision };
            let at = facts.partition_point(|f| &f.namespace < namespace);
            facts.insert(at, fact);
        }
        let facts = (!facts.is_empty()).then(|| Arc::new(facts));
        match (host.and_then(|sym| self.host_slot_mut(sym)), facts) {
            (Some(slot), facts) => slot.facts = facts,
            (None, Some(facts)) => {
                self.tag_facts.insert(subject.to_owned(), facts);
            }
            (None, None) => {
                self.tag_facts.remove(subject);
            }
        }
    }

    /// A member row that names a host, by symbols, where that needs nothing else to be known.
    pub(super) fn plain_link(&mut self, tag: &str, member: &str) -> Option<(TagSym, HostSym)> {
        // Rows come in order, so it is mostly the tag of the row before.
        let last = self.loading.last().map(|(tag, ..)| *tag);
        let tag = match last.filter(|last| self.tag_slot(*last).is_some_and(|slot| slot.name.as_str() == tag))
        {
            Some(tag) => tag,
            None => self.intern_tag(&tag.parse().ok()?),
        };
        let host = match self.host_sym(member) {
            Some(host) => host,
            None => self.intern_host(&member.parse().ok()?),
        };
        Some((tag, host))
    }

    /// Puts what was loaded in place: each tag's hosts and each host's tags at once.
    pub(super) fn put_loaded(&mut self) {
        let mut links = std::mem::take(&mut self.loading);
        links.sort_unstable_by_key(|(tag, host, _)| (*tag, *host));
        for of_tag in links.chunk_by(|a, b| a.0 == b.0) {
            if let Some(slot) = of_tag.first().and_then(|(tag, ..)| self.tag_slot_mut(*tag)) {
                let newest = of_tag.iter().map(|(.., revision)| *revision).max().unwrap_or_default();
                slot.changed = slot.changed.max(newest);
                slot.hosts.extend(of_tag.iter().map(|(_, host, _)| *host));
            }
        }
        links.sort_unstable_by_key(|(tag, host, _)| (*host, *tag));
        for of_host in links.chunk_by(|a, b| a.1 == b.1) {
            if let Some(slot) = of_host.first().and_then(|(_, host, _)| self.host_slot_mut(*host)) {
                slot.tags.extend(of_host.iter().map(|(tag, _, revision)| (*tag, *revision)));
            }
        }
    }

    /// A member row by symbols. Most rows name a host and a tag that are known: those are looked up without being
    /// parsed again.
    fn link(&mut self, tag: &str, member: &str) -> Result<(TagSym, Known), BadName> {
        if let (Some(tag), Some(host)) = (self.tag_sym(tag), self.host_sym(member)) {
            return Ok((tag, Known::Host(host)));
        }
        let tag: TagName = tag.parse()?;
        Ok((self.intern_tag(&tag), self.known_or_new(&tag, &member.parse()?)?))
    }

    fn put_member(
        &mut self,
        tag: &str,
        member: &str,
        there: bool,
        revision: Revision,
    ) -> Result<Option<RuleSym>, String> {
        let (sym, known) = self.link(tag, member).map_err(|e| e.to_string())?;
        let mut fresh = None;
        if let Some(slot) = self.tag_slot_mut(sym) {
            slot.changed = slot.changed.max(revision);
            match (known, there) {
                (Known::Host(host), true) => slot.hosts.insert(host).map(|_| revision),
                (Known::Host(host), false) => slot.hosts.remove(&host).map(|_| revision),
                (Known::Tag(nested), true) => slot.nested.insert(nested, revision),
                (Known::Tag(nested), false) => slot.nested.remove(&nested),
                (Known::Rule(rule), true) => slot.rules.insert(rule, revision),
                (Known::Rule(rule), false) => slot.rules.remove(&rule),
            };
        }
        match known {
            Known::Host(host) => {
                if let Some(slot) = self.host_slot_mut(host) {
                    if there { slot.tags.insert(sym, revision) } else { slot.tags.remove(sym) }
                }
            }
            Known::Tag(nested) => {
                if let Some(slot) = self.tag_slot_mut(nested) {
                    slot.linked = slot.linked.max(revision);
                    if there {
                        slot.parents.insert(sym)
                    } else {
                        slot.parents.remove(sym)
                    };
                }
            }
            Known::Rule(rule) if there => {
                self.rules.linked(rule, revision);
                fresh = self.rules.add(rule, sym).then_some(rule);
                if let Some(Err(bad)) = self.rules.slot(rule).map(|s| &s.rule) {
                    return Err(bad.to_string());
                }
            }
            Known::Rule(rule) => {
                self.rules.linked(rule, revision);
                for host in self.rules.drop(rule, sym).into_iter().flatten() {
                    if let Some(slot) = self.host_slot_mut(host) {
                        slot.rules.remove(rule);
                        slot.unsure.remove(rule);
                    }
                }
            }
        }
        Ok(fresh)
    }
}

fn cross(tags: &BTreeSet<TagSym>, hosts: &BTreeSet<HostSym>, pairs: &mut Pairs) {
    for tag in tags {
        pairs.extend(hosts.iter().map(|host| (*tag, *host)));
    }
}
