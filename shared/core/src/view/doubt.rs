//! What is not known of memberships: a rule that cannot be evaluated for a host says neither yes nor no.

use std::collections::BTreeSet;
use std::fmt;

use super::View;
use super::symbol::{HostSym, TagSym};
use crate::select::Subject;
use crate::{HostName, TagName};

/// Why it is not known whether, or with which document, a host is in a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// The tag that the rule stands in.
    pub tag: TagName,
    /// The rule's text.
    pub rule: String,
    /// Why it cannot be evaluated.
    pub why: String,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tag, rule, why } = self;
        write!(f, "the rule {rule:?} in {tag} cannot be evaluated for it: {why}")
    }
}

impl View {
    /// Why it is not known what the host is in the tag, where that is so: a rule there or in a tag that it nests cannot be
    /// evaluated, and no other way makes the host a member of the tag that the rule stands in.
    #[must_use]
    pub fn doubt(&self, tag: &TagName, host: &str) -> Option<Doubt> {
        let sym = self.host_sym(host)?;
        let slot = self.host_slot(sym).filter(|slot| !slot.unsure.as_slice().is_empty())?;
        let subject = Subject::new(slot.host.as_deref()?, slot.facts());
        let top = self.tag_sym(tag.as_str())?;
        let sure = self.containing(sym);
        let counts = |holder: &TagSym| {
            // Of a member, only documents are left to doubt, and those count within one namespace.
            let known = sure.contains(holder);
            let reached = || self.up([*holder].into_iter()).contains(&top);
            let says = || !sure.contains(&top) || self.up_own(*holder).contains(&top);
            !known && reached() && says()
        };
        // The first by name, so that whoever follows the database and whoever reads it anew say the same.
        let mut unsure: Vec<_> = slot.unsure.iter().filter_map(|rule| self.rules.slot(rule)).collect();
        unsure.sort_unstable_by_key(|rule| &rule.text);
        unsure.into_iter().find_map(|rule| {
            let holders = rule.tags.iter().filter(counts).filter_map(|holder| self.tag_slot(holder));
            let tag = holders.map(|slot| &slot.name).min()?;
            let why = rule.rule.as_ref().ok()?.judge(&subject).err()?;
            Some(Doubt { tag: tag.clone(), rule: rule.text.to_string(), why })
        })
    }

    /// The hosts of which it is not known what they are in the tag, by name.
    #[must_use]
    pub fn doubtful(&self, tag: &TagName) -> Vec<HostName> {
        let hosts = self.tag_sym(tag.as_str()).map(|sym| self.unsure_below(sym)).unwrap_or_default();
        let names = hosts.into_iter().filter_map(|host| Some(self.host_slot(host)?.name.clone()));
        let mut names: Vec<HostName> =
            names.filter(|host| self.doubt(tag, host.as_str()).is_some()).collect();
        names.sort_unstable();
        names
    }

    /// Existing hosts that a rule of the tag, or of one that it nests, cannot be evaluated for.
    pub(super) fn unsure_below(&self, tag: TagSym) -> BTreeSet<HostSym> {
        let mut hosts = BTreeSet::new();
        let mut seen = BTreeSet::from([tag]);
        let mut open = vec![tag];
        while let Some(tag) = open.pop() {
            let Some(slot) = self.tag_slot(tag).filter(|slot| slot.tag.is_some()) else { continue };
            for rule in slot.rules.keys().filter_map(|rule| self.rules.slot(*rule)) {
                hosts.extend(rule.unsure.iter().copied());
            }
            open.extend(slot.nested.keys().copied().filter(|tag| seen.insert(*tag)));
        }
        hosts
    }

    /// The existing tags that may contain the host, as far as it is not known.
    pub(super) fn maybe_containing(&self, host: HostSym) -> BTreeSet<TagSym> {
        let Some(slot) = self.host_slot(host).filter(|slot| !slot.unsure.as_slice().is_empty()) else {
            return BTreeSet::new();
        };
        self.up(slot.unsure.iter().filter_map(|rule| self.rules.slot(rule)).flat_map(|rule| rule.tags.iter()))
    }
}
