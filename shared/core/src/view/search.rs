//! Searching hosts by an expression, page by page, at a price that follows what is found.
//!
//! The parts of the expression that narrow it ([`Narrow`](crate::select::Narrow)) are looked up in an index; what is left is
//! evaluated host by host, by the same evaluator as rules in tags. A page ends when it is full, or when its evaluations cost
//! too much: then it may be short, and still says where the next one begins.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::Look;
use super::{Counters, View, symbol_of};
use crate::docs::HostDoc;
use crate::select::{MAX_STEPS, Rule, Subject};
use crate::{HostName, Revision};

/// How many hosts one page evaluates at most.
const MAX_ASKED: usize = 20_000;
/// How many hosts are named for which the expression could not be evaluated.
const MAX_UNSURE: usize = 20;

/// A page of what a search found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hits {
    /// The revision that all of it is of.
    pub revision: Revision,
    /// The hosts, by name.
    pub items: Vec<HostDoc>,
    /// For how many hosts the expression could not be evaluated: whether they are meant is not known.
    #[serde(default)]
    pub unsure_total: usize,
    /// Some of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsure: Vec<Unsure>,
    /// What `after` is for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<HostName>,
}

/// A host for which the expression could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unsure {
    /// Which.
    pub host: HostName,
    /// Why not.
    pub why: String,
}

impl View {
    /// The hosts that an expression selects, by name, at most `limit` of them after `after`. Costs what the expression's
    /// narrowest part finds, about 5 µs each; without such a part, every host after `after` until the page is full. The
    /// first search by a field costs a look at every host.
    #[must_use]
    pub fn search(&self, rule: &Rule, after: Option<&HostName>, limit: usize) -> Hits {
        let all = || -> Box<dyn Iterator<Item = _> + '_> {
            Box::new(self.hosts.iter().enumerate().map(|(at, slot)| (symbol_of(at), slot)))
        };
        let look = Look { hosts: &all, counters: &self.counters };
        let found = rule.narrow().and_then(|narrow| self.fields.candidates(narrow, &look, self.hosts.len()));
        let after = after.map(HostName::as_str);
        let mut page =
            Paging { hits: Hits { revision: self.revision, ..Hits::default() }, limit, asked: 0, steps: 0 };
        match found {
            Some(found) => {
                let slots = found.into_iter().filter_map(|sym| self.host_slot(sym));
                let mut slots: Vec<_> =
                    slots.filter(|slot| after.is_none_or(|after| slot.name.as_str() > after)).collect();
                slots.sort_unstable_by(|a, b| a.name.cmp(&b.name));
                self.ask_page(rule, slots.into_iter(), &mut page);
            }
            None => match self.fields.by_name(&look, after) {
                Some((index, from)) => {
                    let slots = index.range((from, std::ops::Bound::Unbounded));
                    self.ask_page(rule, slots.filter_map(|(_, sym)| self.host_slot(*sym)), &mut page);
                }
                None => {
                    let mut slots: Vec<_> = self
                        .hosts
                        .iter()
                        .filter(|slot| after.is_none_or(|after| slot.name.as_str() > after))
                        .collect();
                    slots.sort_unstable_by(|a, b| a.name.cmp(&b.name));
                    self.ask_page(rule, slots.into_iter(), &mut page);
                }
            },
        }
        page.hits
    }

    fn ask_page<'v>(&self, rule: &Rule, slots: impl Iterator<Item = &'v super::HostSlot>, page: &mut Paging) {
        let mut last: Option<&HostName> = None;
        for slot in slots {
            let Some(host) = slot.host.as_deref() else { continue };
            if page.is_full() {
                page.hits.next = last.cloned();
                return;
            }
            Counters::count(&self.counters.documents, 1);
            Counters::count(&self.counters.rules, 1);
            let subject = Subject::new(host, slot.facts());
            page.asked += 1;
            page.steps = page.steps.saturating_add(rule.cost(&subject));
            last = Some(&host.name);
            match rule.judge(&subject) {
                Ok(true) => {
                    page.hits.items.push(HostDoc::of(host.name.clone(), host.record(), host.revision));
                }
                Ok(false) => {}
                Err(why) => {
                    page.hits.unsure_total += 1;
                    if page.hits.unsure.len() < MAX_UNSURE {
                        page.hits.unsure.push(Unsure { host: host.name.clone(), why });
                    }
                }
            }
        }
    }
}

struct Paging {
    hits: Hits,
    limit: usize,
    asked: usize,
    steps: u64,
}

impl Paging {
    fn is_full(&self) -> bool {
        self.hits.items.len() >= self.limit || self.asked >= MAX_ASKED || self.steps > 2 * MAX_STEPS
    }
}
