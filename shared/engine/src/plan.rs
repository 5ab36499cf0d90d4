//! What would be done, and why; and why nothing is.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;
use shoal_core::{Hold, HostName, LeftOut, Revision};

use crate::Moment;
use crate::agent::Agent;
use crate::engine::Engine;
use crate::guard::{Gate, Said, falls, gate, takers};
use crate::item::{Kind, Open, Trouble};
use crate::target::Why;
use crate::unit::State;

/// How many differing fields of an item are named.
const MAX_FIELDS: usize = 8;
/// How many items that a change takes with it are named.
const MAX_TAKEN: usize = 10;

/// What one agent would do now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The agent.
    pub agent: String,
    /// The revision it was made at.
    pub revision: Revision,
    /// Unit by unit.
    pub units: Vec<UnitPlan>,
    /// Sources that could not be understood; what they fed stays as it is.
    pub quarantined: Vec<shoal_core::Quarantined>,
}

/// What would be done in one unit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct UnitPlan {
    /// Its name.
    pub unit: String,
    /// How many items the ledger holds.
    pub items: u64,
    /// The changes, in key order, held ones included.
    pub steps: Vec<PlannedStep>,
    /// Items that are not as they should be and about which nothing would be done, and why.
    pub idle: Vec<Idle>,
    /// Sources that were left out of an item.
    pub left_out: Vec<LeftOut>,
    /// What the guard stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// Why nothing is done, where nothing is: `converged`, `guarded`, `paused`, `waiting`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resting: Option<String>,
}

/// One change that would be made.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedStep {
    /// Of which item.
    pub key: String,
    /// What the agent calls it.
    pub verb: String,
    /// What it is.
    pub kind: Kind,
    /// Because of what.
    pub because: Why,
    /// The newest revision that it follows from.
    pub revision: Revision,
    /// The host that it follows from, where one host is at the bottom of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// The fields of the item that differ from what is there, or from what was last wanted.
    pub fields: Vec<String>,
    /// What is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// What should be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
    /// Why it is not done now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Some of the items that go with it, because it takes the whole unit, and that no other change of the plan names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub takes: Vec<String>,
    /// How many these are in all.
    #[serde(skip_serializing_if = "is_zero")]
    pub takes_total: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One item about which nothing would be done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Idle {
    /// Which.
    pub key: String,
    /// Why.
    pub why: String,
}

impl Plan {
    /// Whether any change would be made now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.units.iter().all(|unit| unit.steps.iter().all(|step| step.held.is_some()))
    }

    /// Whether the guard would stop anything.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.units.iter().any(|unit| unit.hold.is_some())
    }
}

impl<A: Agent> Engine<A> {
    /// What would be done now. Costs what is not as it should be.
    #[must_use]
    pub fn plan(&self) -> Plan {
        let units = self.units.values().filter(|unit| self.selected(unit) || unit.backoff.failures > 0);
        Plan {
            agent: self.namespace.to_string(),
            revision: self.seen,
            units: units.map(|unit| self.unit_plan(unit)).collect(),
            quarantined: self.quarantined(),
        }
    }

    fn unit_plan(&self, unit: &State<A>) -> UnitPlan {
        let mut hold = unit.hold.clone();
        let (mut asked, mut kept) = (Vec::new(), BTreeMap::new());
        if !unit.ready.is_empty() {
            let Said { withheld, gate } = gate(&self.context(), unit);
            kept.extend(withheld);
            if let Gate::Ask(keys, asks) = gate {
                (asked, hold) = (keys, Some(asks));
            }
        }
        let planned: Vec<A::Key> = unit.open.keys().cloned().collect();
        let takers: BTreeSet<&A::Key> = takers(&self.context(), unit, &planned).collect();
        let taken = if takers.is_empty() { Vec::new() } else { falls(unit, &planned) };
        let goes = |key: &&A::Key| asked.binary_search(*key).is_err() && !kept.contains_key(*key);
        let going: Vec<A::Key> = unit.ready.iter().filter(goes).cloned().collect();
        let remakes = self.to_remake(unit, &going, Moment::MAX);
        let mut steps = Vec::new();
        let mut idle = Vec::new();
        for (key, open) in unit.open.iter() {
            let guarded = || format!("guard: {}", hold.as_ref().map_or("", |h| h.why.as_str()));
            let held = match &open.trouble {
                _ if asked.binary_search(key).is_ok() => Some(guarded()),
                _ if kept.contains_key(key) => kept.get(key).map(|why| format!("held: {why}")),
                Trouble::Dirty | Trouble::Changing => None,
                other => Some(other.to_string()),
            };
            if remakes.binary_search(key).is_ok() {
                steps.extend(self.remake(unit, key).map(|edit| put_back(edit, unit)));
            }
            match self.step(unit, key, open, held.clone()) {
                Some(mut step) => {
                    if takers.contains(key) {
                        let taken = taken.iter().filter(|one| planned.binary_search(one).is_err());
                        step.takes_total = taken.clone().count() as u64;
                        step.takes = taken.take(MAX_TAKEN).map(ToString::to_string).collect();
                    }
                    steps.push(step);
                }
                None => idle.push(Idle {
                    key: key.to_string(),
                    why: held.unwrap_or_else(|| open.trouble.to_string()),
                }),
            }
        }
        let resting = resting(unit, &steps, &idle, hold.is_some());
        UnitPlan {
            unit: unit.name.0.clone(),
            items: unit.entries as u64,
            steps,
            idle,
            left_out: unit.left_out().collect(),
            hold,
            resting,
        }
    }

    fn step(
        &self,
        unit: &State<A>,
        key: &A::Key,
        open: &Open<A>,
        held: Option<String>,
    ) -> Option<PlannedStep> {
        let planned = open.planned.as_deref()?;
        let value = |v: Result<Value, serde_json::Error>| v.ok();
        let to = planned.to.as_deref().and_then(|to| value(serde_json::to_value(to)));
        let from = planned.from.as_deref().and_then(|have| value(serde_json::to_value(have)));
        let last = planned.last.as_deref().and_then(|last| value(serde_json::to_value(last)));
        let mut fields = Vec::new();
        let before =
            if planned.because.is_strayed() { from.as_ref() } else { last.as_ref().or(from.as_ref()) };
        if let (Some(before), Some(to)) = (before, &to)
            && alike(before, to)
        {
            differing(before, to, String::new(), &mut fields);
        }
        Some(PlannedStep {
            key: key.to_string(),
            verb: planned.verb.to_owned(),
            kind: planned.kind(),
            because: planned.because.clone(),
            revision: planned.revision,
            host: self.host_of(unit, key, &planned.because, planned.revision),
            fields,
            from,
            to,
            held,
            takes: Vec::new(),
            takes_total: 0,
        })
    }

    /// The host at the bottom of a change: the reason's, or else the one whose source is as new as the change.
    fn host_of(&self, unit: &State<A>, key: &A::Key, because: &Why, revision: Revision) -> Option<HostName> {
        match because {
            Why::HostGone(host, _)
            | Why::HostRenamed(host, ..)
            | Why::NotMember(_, host, _)
            | Why::Lifecycle(host, _) => {
                return Some(host.clone());
            }
            _ => {}
        }
        let item = unit.items.get(key)?;
        let newest = |id: &&crate::ledger::SourceId| {
            let host = id.1.as_ref().and_then(|name| self.fleet.host(name.as_str()));
            host.is_some_and(|host| host.revision == revision)
        };
        let only = || item.sources.first().filter(|_| item.sources.len() == 1);
        item.sources.iter().find(newest).or_else(only).and_then(|id| id.1.clone())
    }
}

/// Whether names of fields that differ mean something: what is there may be told in another form than what is wanted.
fn alike(before: &Value, to: &Value) -> bool {
    match (before.as_object(), to.as_object()) {
        (Some(before), Some(to)) => {
            before.is_empty() || to.is_empty() || before.keys().any(|key| to.contains_key(key))
        }
        _ => true,
    }
}

/// What a target lost and what is put back as it was, although it is held.
fn put_back<A: Agent>(edit: crate::Edit<A>, unit: &State<A>) -> PlannedStep {
    let entry = unit.items.get(&edit.key).and_then(|item| item.entry.as_ref());
    PlannedStep {
        key: edit.key.to_string(),
        verb: edit.verb.to_owned(),
        kind: Kind::Create,
        revision: entry.map(|entry| entry.revision).unwrap_or_default(),
        because: edit.because,
        host: None,
        fields: Vec::new(),
        from: None,
        to: edit.to.and_then(|to| serde_json::to_value(to).ok()),
        held: None,
        takes: Vec::new(),
        takes_total: 0,
    }
}

fn resting<A: Agent>(unit: &State<A>, steps: &[PlannedStep], idle: &[Idle], guarded: bool) -> Option<String> {
    if steps.iter().any(|step| step.held.is_none()) {
        return None;
    }
    Some(if unit.backoff.failures > 0 {
        format!("failing: {}", unit.backoff.why)
    } else if guarded {
        "guarded".to_owned()
    } else if let Some(step) = steps.iter().find_map(|step| step.held.clone()) {
        step
    } else if let Some(idle) = idle.first() {
        format!("{}: {}", idle.key, idle.why)
    } else {
        "converged".to_owned()
    })
}

/// The paths at which two values differ.
fn differing(a: &Value, b: &Value, path: String, found: &mut Vec<String>) {
    if a == b || found.len() >= MAX_FIELDS {
        return;
    }
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            for (name, left) in a {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                differing(left, b.get(name).unwrap_or(&Value::Null), path, found);
            }
            for name in b.keys().filter(|name| !a.contains_key(*name)).take(MAX_FIELDS) {
                found.push(if path.is_empty() { name.clone() } else { format!("{path}.{name}") });
            }
        }
        _ if path.is_empty() => {}
        _ => found.push(path),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_named_where_both_are_of_one_form() {
        let (wrapped, wanted) = (json!({"item": {"host": {}}, "downtime": true}), json!({"host": {"a": 1}}));
        assert!(!alike(&wrapped, &wanted));
        assert!(alike(&json!({"host": {"a": 2}}), &wanted) && alike(&json!({}), &wanted));
        assert!(alike(&json!("a"), &json!("b")));
    }
}
