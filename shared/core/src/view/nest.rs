//! Walking memberships: from a host up to the tags that contain it, from a tag down to its hosts.
//!
//! Nothing expanded is kept. A host is in few tags, so asking upwards costs those few and is what most questions
//! come down to; asking downwards costs the answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use super::symbol::{HostSym, RuleSym, TagSym};
use super::{Counters, View};
use crate::{HostName, Revision, TagName};

/// How a host comes to be a member of a tag: the shortest way, a name before a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// The nested tags from the tag down to the one that holds the host; empty: the tag itself does.
    pub through: Vec<TagName>,
    /// The rule that selects it; `None`: it is named.
    pub rule: Option<String>,
    /// The revision that made the last link: the member row of the host or the rule.
    pub revision: Revision,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for tag in &self.through {
            write!(f, "@{tag} > ")?;
        }
        match &self.rule {
            Some(rule) => write!(f, "select: {rule}"),
            None => f.write_str("named"),
        }
    }
}

/// The last step of a walk upwards.
#[derive(Clone, Copy, Debug)]
enum Step {
    Named(Revision),
    Selected(RuleSym, Revision),
    Nests(TagSym),
}

impl View {
    /// The hosts that the tag contains, through nesting and rules: existing ones, by name.
    #[must_use]
    pub fn members(&self, tag: &TagName) -> Vec<HostName> {
        let Some(sym) = self.tag_sym(tag.as_str()) else { return Vec::new() };
        let mut names: Vec<HostName> =
            self.down(sym).into_iter().filter_map(|h| Some(self.host_slot(h)?.name.clone())).collect();
        names.sort_unstable();
        names
    }

    /// Whether the tag contains the host, through whatever. Costs the host's tags, not the tag's members.
    #[must_use]
    pub fn contains(&self, tag: &TagName, host: &str) -> bool {
        let (Some(tag), Some(host)) = (self.tag_sym(tag.as_str()), self.host_sym(host)) else { return false };
        self.containing(host).contains(&tag)
    }

    /// Every tag that contains the host, with the shortest reason, by name.
    #[must_use]
    pub fn memberships(&self, host: &str) -> Vec<(TagName, Via)> {
        let Some(sym) = self.host_sym(host) else { return Vec::new() };
        let steps = self.climb(sym);
        let mut all: Vec<(TagName, Via)> = steps
            .keys()
            .filter_map(|tag| Some((self.tag_slot(*tag)?.name.clone(), self.path(&steps, *tag)?)))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Why the tag contains the host, if it does.
    #[must_use]
    pub fn via(&self, tag: &TagName, host: &str) -> Option<Via> {
        let steps = self.climb(self.host_sym(host)?);
        self.path(&steps, self.tag_sym(tag.as_str())?)
    }

    /// The existing tags that name the host in a member row of their own, by name.
    #[must_use]
    pub fn host_parents(&self, host: &str) -> Vec<TagName> {
        self.host_sym(host)
            .and_then(|h| self.host_slot(h))
            .map_or_else(Vec::new, |s| self.existing(s.tags.tags()))
    }

    /// The existing tags that nest the tag, by name.
    #[must_use]
    pub fn tag_parents(&self, tag: &TagName) -> Vec<TagName> {
        let slot = self.tag_sym(tag.as_str()).and_then(|t| self.tag_slot(t));
        slot.map_or_else(Vec::new, |s| self.existing(s.parents.iter()))
    }

    /// The tags below the tag, through whatever nesting, whether or not they exist. Costs them, not their members.
    #[must_use]
    pub fn tags_below(&self, tag: &TagName) -> Vec<TagName> {
        let mut found = BTreeSet::new();
        let mut open: Vec<TagSym> = self.tag_sym(tag.as_str()).into_iter().collect();
        while let Some(slot) = open.pop().and_then(|t| self.tag_slot(t)) {
            open.extend(slot.nested.keys().copied().filter(|t| found.insert(*t)));
        }
        found.into_iter().filter_map(|t| Some(self.tag_slot(t)?.name.clone())).collect()
    }

    /// The tags that name the host, whether or not they exist.
    pub(crate) fn named_in(&self, host: &HostName) -> Vec<TagName> {
        let slot = self.host_sym(host.as_str()).and_then(|h| self.host_slot(h));
        slot.into_iter()
            .flat_map(|s| s.tags.tags())
            .filter_map(|t| Some(self.tag_slot(t)?.name.clone()))
            .collect()
    }

    /// The tags that nest the tag, whether or not they exist.
    pub(crate) fn nested_in(&self, tag: &TagName) -> Vec<TagName> {
        let slot = self.tag_sym(tag.as_str()).and_then(|t| self.tag_slot(t));
        slot.into_iter()
            .flat_map(|s| s.parents.iter())
            .filter_map(|t| Some(self.tag_slot(t)?.name.clone()))
            .collect()
    }

    /// The tag and all that nest it, through whatever.
    pub(crate) fn above(&self, tag: &TagName) -> Vec<TagName> {
        let tags = self.up(self.tag_sym(tag.as_str()).into_iter());
        tags.into_iter().filter_map(|t| Some(self.tag_slot(t)?.name.clone())).collect()
    }

    /// The tags of the same namespace below the tag, whose documents count in it.
    pub(crate) fn nests_own(&self, tag: &TagName) -> Vec<TagName> {
        let Some(top) = self.tag_sym(tag.as_str()) else { return Vec::new() };
        let mut found = BTreeSet::new();
        let mut open = vec![top];
        while let Some(slot) = open.pop().and_then(|t| self.tag_slot(t)) {
            let own = |t: &TagSym| self.tag_slot(*t).is_some_and(|s| s.name.namespace() == tag.namespace());
            open.extend(slot.nested.keys().copied().filter(own).filter(|t| found.insert(*t)));
        }
        found.into_iter().filter_map(|t| Some(self.tag_slot(t)?.name.clone())).collect()
    }

    fn existing(&self, tags: impl Iterator<Item = TagSym>) -> Vec<TagName> {
        let mut names: Vec<TagName> = tags
            .filter_map(|t| self.tag_slot(t).filter(|s| s.tag.is_some()).map(|s| s.name.clone()))
            .collect();
        names.sort();
        names
    }

    /// The first cycle of nested tags that passes through `tag`, as the path from it back to itself.
    #[must_use]
    pub fn cycle(&self, tag: &TagName) -> Option<Vec<TagName>> {
        let start = self.tag_sym(tag.as_str())?;
        let mut from: BTreeMap<TagSym, TagSym> = BTreeMap::new();
        let mut open = VecDeque::from([start]);
        while let Some(here) = open.pop_front() {
            for next in self.tag_slot(here)?.nested.keys().copied() {
                if next == start {
                    let mut path = vec![start, here];
                    while let Some(before) = path.last().filter(|t| **t != start).and_then(|t| from.get(t)) {
                        path.push(*before);
                    }
                    if here == start {
                        path.truncate(2);
                    }
                    path.reverse();
                    return Some(
                        path.into_iter().filter_map(|t| Some(self.tag_slot(t)?.name.clone())).collect(),
                    );
                }
                if next != start && !from.contains_key(&next) {
                    from.insert(next, here);
                    open.push_back(next);
                }
            }
        }
        None
    }

    /// The existing tags that contain an existing host.
    pub(super) fn containing(&self, host: HostSym) -> BTreeSet<TagSym> {
        let Some(slot) = self.host_slot(host).filter(|s| s.host.is_some()) else { return BTreeSet::new() };
        let by_rule = slot.rules.iter().filter_map(|r| self.rules.slot(r)).flat_map(|r| r.tags.iter());
        self.up(slot.tags.tags().chain(by_rule))
    }

    /// These tags and all that nest them, those that exist.
    pub(super) fn up(&self, from: impl Iterator<Item = TagSym>) -> BTreeSet<TagSym> {
        let exists = |t: &TagSym| self.tag_slot(*t).is_some_and(|s| s.tag.is_some());
        let mut open: Vec<TagSym> = from.filter(exists).collect();
        let mut found: BTreeSet<TagSym> = open.iter().copied().collect();
        while let Some(tag) = open.pop() {
            for parent in self.tag_slot(tag).into_iter().flat_map(|s| s.parents.iter()).filter(exists) {
                if found.insert(parent) {
                    open.push(parent);
                }
            }
        }
        Counters::count(&self.counters.sources, found.len());
        found
    }

    /// This tag and all that nest it within its own namespace, along which its document counts.
    pub(super) fn up_own(&self, from: TagSym) -> BTreeSet<TagSym> {
        let namespace = self.tag_slot(from).map_or("", |s| s.name.namespace());
        let own = |t: &TagSym| {
            self.tag_slot(*t).is_some_and(|s| s.tag.is_some() && s.name.namespace() == namespace)
        };
        let mut open = vec![from];
        let mut found = BTreeSet::from([from]);
        while let Some(tag) = open.pop() {
            for parent in self.tag_slot(tag).into_iter().flat_map(|s| s.parents.iter()).filter(own) {
                if found.insert(parent) {
                    open.push(parent);
                }
            }
        }
        found
    }

    /// The existing hosts that an existing tag contains.
    pub(super) fn down(&self, tag: TagSym) -> BTreeSet<HostSym> {
        let mut hosts = BTreeSet::new();
        let mut seen = BTreeSet::from([tag]);
        let mut open = vec![tag];
        while let Some(tag) = open.pop() {
            let Some(slot) = self.tag_slot(tag).filter(|s| s.tag.is_some()) else { continue };
            hosts.extend(slot.hosts.iter().copied());
            for rule in slot.rules.keys().filter_map(|r| self.rules.slot(*r)) {
                hosts.extend(rule.hosts.iter().copied());
            }
            open.extend(slot.nested.keys().copied().filter(|t| seen.insert(*t)));
        }
        Counters::count(&self.counters.sources, hosts.len() + seen.len());
        hosts.retain(|h| self.host_slot(*h).is_some_and(|s| s.host.is_some()));
        hosts
    }

    /// Breadth first from the host upwards: how each tag is first reached.
    fn climb(&self, host: HostSym) -> BTreeMap<TagSym, Step> {
        let mut steps: BTreeMap<TagSym, Step> = BTreeMap::new();
        let Some(slot) = self.host_slot(host).filter(|s| s.host.is_some()) else { return steps };
        let mut open = VecDeque::new();
        let exists = |t: TagSym| self.tag_slot(t).filter(|s| s.tag.is_some());
        for tag in slot.tags.tags() {
            if let Some(revision) = exists(tag).and_then(|_| slot.tags.get(tag)) {
                steps.insert(tag, Step::Named(revision));
                open.push_back(tag);
            }
        }
        for rule in slot.rules.iter() {
            for tag in self.rules.slot(rule).into_iter().flat_map(|r| r.tags.iter()) {
                let Some(revision) = exists(tag).and_then(|s| s.rules.get(&rule)) else { continue };
                steps.entry(tag).or_insert_with(|| {
                    open.push_back(tag);
                    Step::Selected(rule, *revision)
                });
            }
        }
        while let Some(tag) = open.pop_front() {
            for parent in self.tag_slot(tag).into_iter().flat_map(|s| s.parents.iter()) {
                if exists(parent).is_some() && !steps.contains_key(&parent) {
                    steps.insert(parent, Step::Nests(tag));
                    open.push_back(parent);
                }
            }
        }
        Counters::count(&self.counters.sources, steps.len());
        steps
    }

    fn path(&self, steps: &BTreeMap<TagSym, Step>, tag: TagSym) -> Option<Via> {
        let mut through = Vec::new();
        let mut step = steps.get(&tag)?;
        loop {
            match *step {
                Step::Named(revision) => return Some(Via { through, rule: None, revision }),
                Step::Selected(rule, revision) => {
                    let rule = Some(self.rules.slot(rule)?.text.to_string());
                    return Some(Via { through, rule, revision });
                }
                Step::Nests(nested) => {
                    through.push(self.tag_slot(nested)?.name.clone());
                    step = steps.get(&nested)?;
                }
            }
        }
    }
}
