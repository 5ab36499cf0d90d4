//! What stood of one host and one tag at an old revision, without reading all that stood then.
//!
//! A view of now is nearly right for any revision of late. Of what it says of one host and one tag only some rows count: the
//! host's own and its facts, the rows that name it, the tags that these lead up to with the rows that nest them, their namespaces' schemas,
//! and the rules that select the host. The view knows when each of these was written last, also of what was deleted since. What was written later than
//! the revision asked for is forgotten in a copy of the view, and read from the store as it stood then.
//!
//! [`Excerpting`] decides what to read, and does not read: its caller asks the store ([`Excerpting::wants`]) and hands in
//! what there was ([`Excerpting::take`]), a few rounds of it.
//!
//! Guarantees:
//!
//! * An [`Excerpt`] answers as the view freshly loaded at that revision would.
//! * Cost follows the host's and the tag's own surroundings and the rules that were written since, not what else changed since, nor
//!   the size of the fleet.
//!
//! Assumptions: the view was loaded with tombstones, is of the same life of the database as the rows, and is not older than the revision.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use super::effective::Effective;
use super::host::{Host, Tag};
use super::nest::Via;
use super::rules::Changed;
use super::symbol::{Few, HostSym, Links, RuleSym, TagSym};
use super::{Counters, Known, View};
use crate::select::Subject;
use crate::{FACTS, HostName, Key, Member, Namespace, Range, Revision, Row, TagName};

/// What the database says of one host and one tag, as of one revision. A clone is the same one.
#[derive(Clone, Debug)]
pub struct Excerpt {
    view: Arc<View>,
    host: Option<HostName>,
    tag: Option<TagName>,
}

impl Excerpt {
    /// Out of a view of that revision.
    #[must_use]
    pub fn of(view: Arc<View>, host: Option<HostName>, tag: Option<TagName>) -> Self {
        Self { view, host, tag }
    }

    /// As of when.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.view.revision
    }

    /// The host, if it exists.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        self.view.host(self.host.as_ref()?.as_str())
    }

    /// The rows around the host: see [`View::around`].
    #[must_use]
    pub fn around(&self) -> Vec<Row> {
        self.host.as_ref().map_or_else(Vec::new, |host| self.view.around(host))
    }

    /// The tag's own row, if it exists.
    #[must_use]
    pub fn tag(&self) -> Option<&Tag> {
        self.view.tag(self.tag.as_ref()?)
    }

    /// Every tag that contains the host, with the shortest reason, by name.
    #[must_use]
    pub fn memberships(&self) -> Vec<(TagName, Via)> {
        self.host.as_ref().map_or_else(Vec::new, |host| self.view.memberships(host.as_str()))
    }

    /// What the tag says of the host, with origins; where no host was asked about, the tag's own document. `None` as in
    /// [`View::effective`].
    #[must_use]
    pub fn effective(&self) -> Option<Effective> {
        self.view.effective(self.tag.as_ref()?, self.host.as_ref())
    }

    /// The existing tags that nest the tag, by name.
    #[must_use]
    pub fn parents(&self) -> Vec<TagName> {
        self.tag.as_ref().map_or_else(Vec::new, |tag| self.view.tag_parents(tag))
    }
}

/// An [`Excerpt`] that is being worked out.
#[derive(Debug)]
pub struct Excerpting {
    view: View,
    /// What the caller asked for.
    asked: (Option<HostName>, Option<TagName>),
    host: Option<HostSym>,
    tag: Option<TagSym>,
    /// Whether the host's own rows are as they stand in the view.
    same: bool,
    stage: Stage,
    /// The tags whose rows were asked for last.
    round: Vec<TagSym>,
    reached: BTreeSet<TagSym>,
    namespaces: BTreeSet<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Host,
    Rules,
    Tags,
    Done,
}

impl View {
    /// Begins to work out what stood of a host and a tag at `at`, which must not be newer than the view.
    #[must_use]
    pub fn excerpt(&self, at: Revision, host: Option<HostName>, tag: Option<TagName>) -> Excerpting {
        let mut view = self.clone();
        view.revision = at;
        Excerpting {
            host: host.as_ref().and_then(|host| self.host_sym(host.as_str())),
            tag: tag.as_ref().and_then(|tag| self.tag_sym(tag.as_str())),
            view,
            asked: (host, tag),
            same: true,
            stage: Stage::Host,
            round: Vec::new(),
            reached: BTreeSet::new(),
            namespaces: BTreeSet::new(),
        }
    }

    /// Whether what the view says of the key, none included, is what stood there at `at`.
    fn stood(&self, key: &Key, at: Revision) -> bool {
        // Of a row that was not understood the last good one is in force here, and none where all is read anew.
        let grave = self.graves.get(key).is_none_or(|grave| grave.revision <= at);
        grave && !self.broken.contains_key(key) && self.revision_of(key).is_none_or(|written| written <= at)
    }

    /// The keys of all facts that were ever reported about a host. Costs a look-up for each namespace that ever lost a fact.
    fn fact_keys(&self, host: &HostName) -> Vec<Key> {
        let key = |namespace: &Namespace| Key::fact(namespace, host.as_str()).ok();
        let mut keys: Vec<Key> =
            self.facts(host.as_str()).iter().filter_map(|fact| key(&fact.namespace)).collect();
        let mut from = format!("{FACTS}/");
        while let Some((next, _)) =
            self.graves.range::<_, str>((Bound::Included(&*from), Bound::Unbounded)).next()
        {
            let rest = next.as_str().strip_prefix(FACTS).and_then(|rest| rest.strip_prefix('/'));
            let Some((namespace, _)) = rest.and_then(|rest| rest.split_once('/')) else { break };
            keys.extend(
                namespace.parse().ok().and_then(|ns| key(&ns)).filter(|k| self.graves.contains_key(k)),
            );
            // '0' comes right after '/'.
            from = format!("{FACTS}/{namespace}0");
        }
        keys
    }
}

impl Excerpting {
    /// What has to be read as of the revision, all of it, without tombstones, and be handed to [`Excerpting::take`] before this is asked again.
    /// Nothing: it is worked out.
    pub fn wants(&mut self) -> Vec<Range> {
        loop {
            let wants = match self.stage {
                Stage::Host => self.of_host(),
                Stage::Rules => self.of_rules(),
                Stage::Tags => self.of_tags(),
                Stage::Done => return Vec::new(),
            };
            if !wants.is_empty() {
                return wants;
            }
        }
    }

    /// A row that stood then.
    pub fn take(&mut self, row: Row) {
        let view = &mut self.view;
        let Some((tag, member)) = row.key.as_member() else {
            view.put(&row.key, row.value.as_ref(), row.moved, row.revision);
            return;
        };
        // Names that no row of the view holds cannot come from its own past.
        let Some(name) = tag.parse::<TagName>().ok() else { return };
        let Some(sym) = view.tag_sym(tag) else { return };
        match member.parse().ok().and_then(|member: Member| view.known(&name, &member)) {
            Some(Known::Host(host)) => {
                if let Some(slot) = view.host_slot_mut(host) {
                    slot.tags.insert(sym, row.revision);
                }
            }
            Some(Known::Tag(nested)) => {
                if let Some(slot) = view.tag_slot_mut(sym) {
                    slot.nested.insert(nested, row.revision);
                }
                if let Some(slot) = view.tag_slot_mut(nested) {
                    slot.parents.insert(sym);
                }
            }
            Some(Known::Rule(rule)) => {
                if let Some(slot) = view.tag_slot_mut(sym) {
                    slot.rules.insert(rule, row.revision);
                }
                if let Some(slot) = view.rules.slot_mut(rule) {
                    slot.tags.insert(sym);
                }
            }
            None => {}
        }
    }

    /// What was worked out, once nothing is wanted any more.
    #[must_use]
    pub fn done(self) -> Excerpt {
        let (host, tag) = self.asked;
        Excerpt { view: Arc::new(self.view), host, tag }
    }

    fn at(&self) -> Revision {
        self.view.revision
    }

    /// Forgets what stands at the key, and wants what stood there, unless that is the same.
    fn want(&mut self, key: Key, wants: &mut Vec<Range>) -> bool {
        let at = self.at();
        if self.view.stood(&key, at) {
            return false;
        }
        self.view.put(&key, None, None, at);
        self.view.graves.remove(&key);
        wants.push(Range::Key(key));
        true
    }

    /// The host's row, its facts, and the rows that name it.
    fn of_host(&mut self) -> Vec<Range> {
        self.stage = Stage::Rules;
        let (Some(name), Some(sym)) = (self.asked.0.clone(), self.host) else { return Vec::new() };
        let mut wants = Vec::new();
        let keys: Vec<Key> = std::iter::once(Key::host(&name)).chain(self.view.fact_keys(&name)).collect();
        for key in keys {
            self.same &= !self.want(key, &mut wants);
        }
        // When a row that names it was last deleted is not kept for each host: this is always read.
        if let Some(slot) = self.view.host_slot_mut(sym) {
            slot.tags = Links::default();
        }
        wants.push(Range::Naming(Member::host(&name)));
        wants
    }

    /// The rows of the rules that select the host, as far as they may have been others.
    fn of_rules(&mut self) -> Vec<Range> {
        self.stage = Stage::Tags;
        let Some(sym) = self.host else { return Vec::new() };
        let lately: BTreeSet<RuleSym> = self.view.rules.linked_after(self.at()).collect();
        let now = self.select(sym, &lately);
        let mut wants = Vec::new();
        for rule in now.iter().filter(|rule| lately.contains(rule)) {
            let Some(slot) = self.view.rules.slot_mut(rule) else { continue };
            wants.push(Range::Naming(Member::rule(&slot.text)));
            for tag in std::mem::take(&mut slot.tags).iter() {
                if let Some(slot) = self.view.tag_slot_mut(tag) {
                    slot.rules.remove(&rule);
                }
            }
        }
        if let Some(slot) = self.view.host_slot_mut(sym) {
            (slot.rules, slot.unsure) = (now, Few::default());
        }
        wants
    }

    /// The rules that select the host as it was, of those that stand in a tag and those that may have then.
    fn select(&self, sym: HostSym, lately: &BTreeSet<RuleSym>) -> Few<RuleSym> {
        let mut now = Few::default();
        let Some(slot) = self.view.host_slot(sym) else { return now };
        let Some(host) = slot.host.as_deref() else { return now };
        let rules = &self.view.rules;
        let subject = Subject::new(host, slot.facts());
        let mut ask = lately.clone();
        if self.same {
            now = slot.rules.clone();
        } else {
            Counters::count(&self.view.counters.documents, 1);
            ask.extend(rules.candidates(&Changed::Everything, &subject));
        }
        Counters::count(&self.view.counters.rules, ask.len());
        for rule in ask {
            if rules.selects(rule, &subject) == Some(true) {
                now.insert(rule);
            } else {
                now.remove(rule);
            }
        }
        now
    }

    /// The rows of the tags further up, and by which those are nested.
    fn of_tags(&mut self) -> Vec<Range> {
        let next = if self.reached.is_empty() { self.first_tags() } else { self.next_tags() };
        self.round = next.into_iter().filter(|tag| self.reached.insert(*tag)).collect();
        if self.round.is_empty() {
            self.stage = Stage::Done;
        }
        let (mut wants, at) = (Vec::new(), self.at());
        for sym in self.round.clone() {
            let Some(slot) = self.view.tag_slot(sym) else { continue };
            let (name, linked) = (slot.name.clone(), slot.linked);
            self.want(Key::tag(&name), &mut wants);
            if self.namespaces.insert(name.namespace().to_owned())
                && let Ok(namespace) = name.namespace().parse()
            {
                self.want(Key::schema(&namespace), &mut wants);
            }
            if linked <= at {
                continue;
            }
            // What the parents say of it counts only where it names them.
            if let Some(slot) = self.view.tag_slot_mut(sym) {
                slot.parents = Few::default();
            }
            // As tags of its own namespace write it, and as others do.
            wants.push(Range::Naming(Member::nested(&name, name.namespace())));
            wants.push(Range::Naming(Member::nested(&name, "")));
        }
        wants
    }

    /// The tag that was asked for, and those that name or select the host.
    fn first_tags(&self) -> Vec<TagSym> {
        let slot = self.host.and_then(|sym| self.view.host_slot(sym)).filter(|slot| slot.host.is_some());
        let named = slot.into_iter().flat_map(|slot| slot.tags.tags());
        let rules = slot.into_iter().flat_map(|slot| slot.rules.iter());
        let selecting = rules.filter_map(|rule| self.view.rules.slot(rule)).flat_map(|rule| rule.tags.iter());
        self.tag.into_iter().chain(named).chain(selecting).collect()
    }

    /// Those that nest one of the last round; of such as did not exist, only for who asked for it.
    fn next_tags(&self) -> Vec<TagSym> {
        let slots = self.round.iter().filter_map(|sym| Some((*sym, self.view.tag_slot(*sym)?)));
        let counts = slots.filter(|(sym, slot)| slot.tag.is_some() || Some(*sym) == self.tag);
        counts.flat_map(|(_, slot)| slot.parents.iter()).collect()
    }
}
