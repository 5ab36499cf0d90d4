//! Which hosts each rule selects, and which rules a change of a host can touch.
//!
//! A rule is indexed under every field that it reads. Under a field it stands with the literals that another field
//! must have for the rule to hold (`site == "rdu3" && cpus > 8`), if it names any, else alone. So a host whose
//! `cpus` changed asks the rules on `cpus` for its own site, and no others. Rules of equal text are kept once,
//! whatever tags they stand in.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet, Vector};

use super::host::{Fact, Host};
use super::symbol::{Few, HostSym, RuleSym, TagSym};
use crate::Revision;
use crate::select::{ALL_FACTS, BadRule, Field, Rule, Subject, WHOLE};

/// Stands for every rule: what a new host asks.
const EVERY: &str = "*";

/// One rule of the view.
#[derive(Clone, Debug)]
pub(crate) struct RuleSlot {
    pub(crate) text: Arc<str>,
    /// What does not compile selects nobody; the view lists its rows as broken.
    pub(crate) rule: Result<Arc<Rule>, BadRule>,
    /// Whom it selects, whether or not the host exists still.
    pub(crate) hosts: OrdSet<HostSym>,
    /// For whom it cannot be evaluated.
    pub(crate) unsure: OrdSet<HostSym>,
    /// The tags it stands in; none: it is not kept up to date.
    pub(crate) tags: Few<TagSym>,
    /// The newest revision that wrote or deleted a row by which it stands, or stood, in a tag.
    pub(crate) linked: Revision,
}

#[derive(Clone, Debug, Default)]
struct Index {
    alone: Few<RuleSym>,
    by_literal: BTreeMap<Field, BTreeMap<String, Few<RuleSym>>>,
}

/// All rules of a view.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleBook {
    by_text: OrdMap<Arc<str>, RuleSym>,
    rules: Vector<Arc<RuleSlot>>,
    index: OrdMap<Field, Arc<Index>>,
    /// Every rule that a row ever held, by [`RuleSlot::linked`].
    by_link: OrdSet<(Revision, RuleSym)>,
}

/// What of a host may have changed.
#[derive(Debug)]
pub(crate) enum Changed {
    /// It is new.
    Everything,
    /// These.
    Fields(BTreeSet<Field>),
}

impl RuleBook {
    pub(crate) fn slot(&self, rule: RuleSym) -> Option<&RuleSlot> {
        self.rules.get(rule.0 as usize).map(|r| &**r)
    }

    pub(super) fn slot_mut(&mut self, rule: RuleSym) -> Option<&mut RuleSlot> {
        self.rules.get_mut(rule.0 as usize).map(Arc::make_mut)
    }

    /// The rule of this text, if any row ever held it.
    pub(crate) fn find(&self, text: &str) -> Option<RuleSym> {
        self.by_text.get(text).copied()
    }

    /// Whether the rule selects the host; `None`: it cannot be evaluated for it.
    pub(crate) fn selects(&self, sym: RuleSym, subject: &Subject<'_>) -> Option<bool> {
        match self.slot(sym).map(|s| &s.rule) {
            Some(Ok(rule)) => rule.judge(subject).ok(),
            _ => Some(false),
        }
    }

    /// The rule of this text, compiled if it is new.
    pub(crate) fn intern(&mut self, text: &str) -> RuleSym {
        if let Some(known) = self.by_text.get(text) {
            return *known;
        }
        let sym = RuleSym(u32::try_from(self.rules.len()).unwrap_or(u32::MAX));
        let text: Arc<str> = text.into();
        self.by_text.insert(text.clone(), sym);
        let rule = Rule::compile(&text).map(Arc::new);
        let (hosts, unsure) = (OrdSet::new(), OrdSet::new());
        let (tags, linked) = (Few::default(), Revision(0));
        self.rules.push_back(Arc::new(RuleSlot { text, rule, hosts, unsure, tags, linked }));
        sym
    }

    /// A row by which the rule stands or stood in a tag was written or deleted.
    pub(crate) fn linked(&mut self, sym: RuleSym, revision: Revision) {
        let Some(slot) = self.slot_mut(sym).filter(|slot| slot.linked < revision) else { return };
        let before = std::mem::replace(&mut slot.linked, revision);
        self.by_link.remove(&(before, sym));
        self.by_link.insert((revision, sym));
    }

    /// The rules, also such as stand in no tag any more, of which a row was written or deleted after `revision`.
    pub(crate) fn linked_after(&self, revision: Revision) -> impl Iterator<Item = RuleSym> + '_ {
        let after = (Revision(revision.0.saturating_add(1)), RuleSym(0));
        self.by_link.range(after..).map(|(_, rule)| *rule)
    }

    /// Puts the rule into a tag. Answers whether it was in none before, and must be asked for every host.
    pub(crate) fn add(&mut self, sym: RuleSym, tag: TagSym) -> bool {
        let Some(slot) = self.slot_mut(sym) else { return false };
        let fresh = slot.tags.as_slice().is_empty();
        slot.tags.insert(tag);
        if fresh {
            self.reindex(sym, true);
        }
        fresh
    }

    /// Takes the rule out of a tag. Answers whom it selected or could not be evaluated for, if it stands in none any more.
    pub(crate) fn drop(&mut self, sym: RuleSym, tag: TagSym) -> Option<OrdSet<HostSym>> {
        let slot = self.slot_mut(sym)?;
        if !slot.tags.remove(tag) || !slot.tags.as_slice().is_empty() {
            return None;
        }
        let hosts = std::mem::take(&mut slot.hosts).union(std::mem::take(&mut slot.unsure));
        self.reindex(sym, false);
        Some(hosts)
    }

    fn reindex(&mut self, sym: RuleSym, add: bool) {
        let Some(Ok(rule)) = self.slot(sym).map(|s| s.rule.clone()) else { return };
        let put = |few: &mut Few<RuleSym>| if add { few.insert(sym) } else { few.remove(sym) };
        for field in rule.reads().chain([EVERY]) {
            let mut index = self.index.get(field).map(|i| Index::clone(i)).unwrap_or_default();
            match rule.needs() {
                Some((needed, literals)) => {
                    let values = index.by_literal.entry(needed.clone()).or_default();
                    for literal in literals {
                        put(values.entry(literal.clone()).or_default());
                    }
                    values.retain(|_, rules| !rules.as_slice().is_empty());
                    index.by_literal.retain(|_, values| !values.is_empty());
                }
                None => {
                    put(&mut index.alone);
                }
            }
            self.index.insert(field.into(), Arc::new(index));
        }
    }

    /// The rules that could select the host now, of those that read what changed.
    pub(crate) fn candidates(&self, changed: &Changed, subject: &Subject<'_>) -> BTreeSet<RuleSym> {
        let mut found = BTreeSet::new();
        let mut ask = |field: &str| {
            let Some(index) = self.index.get(field) else { return };
            found.extend(index.alone.iter());
            for (needed, values) in &index.by_literal {
                let rules = subject.literal(needed).and_then(|literal| values.get(&*literal));
                found.extend(rules.into_iter().flat_map(Few::iter));
            }
        };
        match changed {
            Changed::Everything => ask(EVERY),
            Changed::Fields(fields) => fields.iter().for_each(|f| ask(f)),
        }
        found
    }

    /// Whether the rule reads any of what changed.
    pub(crate) fn reads(&self, sym: RuleSym, changed: &Changed) -> bool {
        match (self.slot(sym).map(|s| &s.rule), changed) {
            (Some(Ok(_)), Changed::Everything) => true,
            (Some(Ok(rule)), Changed::Fields(fields)) => rule.reads().any(|f| fields.contains(f)),
            _ => false,
        }
    }

    /// Notes the answer of a rule.
    pub(crate) fn note(&mut self, sym: RuleSym, host: HostSym, selected: Option<bool>) {
        let Some(slot) = self.slot_mut(sym) else { return };
        for (hosts, is) in [(&mut slot.hosts, selected == Some(true)), (&mut slot.unsure, selected.is_none())]
        {
            if is {
                hosts.insert(host)
            } else {
                hosts.remove(&host)
            };
        }
    }
}

impl Changed {
    /// What differs between two states of a host, by the names that rules read under.
    pub(crate) fn between(old: (&Host, &[Fact]), new: (&Host, &[Fact])) -> Self {
        let mut fields: BTreeSet<Field> = BTreeSet::new();
        let (was, is) = (old.0, new.0);
        let envelope = [
            ("@name", was.name != is.name),
            ("@state", was.state != is.state),
            ("@owner", was.owner != is.owner),
            ("@environment", was.environment != is.environment),
            (WHOLE, was.document != is.document),
        ];
        fields
            .extend(envelope.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| Field::from(name)));
        if was.document != is.document {
            let (was, is) = (was.document.fields(), is.document.fields());
            fields.extend(differing(&was, &is).map(|name| Field::from(&**name)));
        }
        let text = |facts: &[Fact]| -> Vec<(Cow<'_, str>, String)> {
            facts.iter().map(|f| (Cow::Owned(f.namespace.to_string()), f.document.to_string())).collect()
        };
        if old.1 != new.1 {
            fields.insert(ALL_FACTS.into());
            let (was, is) = (text(old.1), text(new.1));
            fields.extend(differing(&was, &is).map(|name| Field::from(format!("{ALL_FACTS}.{name}"))));
        }
        Self::Fields(fields)
    }

    pub(crate) fn is_nothing(&self) -> bool {
        matches!(self, Self::Fields(fields) if fields.is_empty())
    }
}

/// Names whose value differs, or that only one side has.
fn differing<'n, T: PartialEq>(
    was: &'n [(Cow<'_, str>, T)],
    is: &'n [(Cow<'_, str>, T)],
) -> impl Iterator<Item = &'n Cow<'n, str>> {
    let was_map: BTreeMap<&str, &T> = was.iter().map(|(n, v)| (&**n, v)).collect();
    let is_names: BTreeSet<&str> = is.iter().map(|(n, _)| &**n).collect();
    let changed: Vec<&Cow<'n, str>> =
        is.iter().filter(|(n, v)| was_map.get(&**n) != Some(&v)).map(|(n, _)| n).collect();
    let gone: Vec<&Cow<'n, str>> =
        was.iter().filter(|(n, _)| !is_names.contains(&**n)).map(|(n, _)| n).collect();
    changed.into_iter().chain(gone)
}
