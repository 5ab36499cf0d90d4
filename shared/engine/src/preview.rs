//! What an agent would want if something were committed. Looks at no target and at no ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use shoal_core::{Change, Revision};

use crate::agent::{Agent, Unit};
use crate::engine::Engine;

/// What would change in what an agent wants.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Preview {
    /// The agent.
    pub agent: String,
    /// The revision it was made on top of.
    pub revision: Revision,
    /// Items that would be wanted otherwise than now, by unit and key.
    pub wishes: Vec<Wish>,
    /// Sources that could not be understood any more, and why.
    pub quarantined: Vec<shoal_core::Quarantined>,
}

impl Preview {
    /// Whether everything would be wanted as it is now.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wishes.is_empty() && self.quarantined.is_empty()
    }
}

/// One item that would be wanted otherwise.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Wish {
    /// Its unit.
    pub unit: String,
    /// Its key.
    pub key: String,
    /// What is wanted now; `None`: nothing.
    pub before: Option<Value>,
    /// What would be wanted; `None`: nothing.
    pub after: Option<Value>,
    /// Why it could not be said what is wanted; the item would stay as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
}

type Wants<A> = BTreeMap<(Unit, <A as Agent>::Key), Result<Arc<<A as Agent>::Item>, String>>;

impl<A: Agent> Engine<A> {
    /// What would change in what is wanted if these changes were committed now. The engine is used up for it: it has
    /// then seen a commit that never was. Costs the fleet once.
    pub fn preview(&mut self, changes: &[Change]) -> Preview {
        let before = self.wants();
        let broken: Vec<_> = self.quarantined().into_iter().map(|q| q.what).collect();
        let revision = self.seen;
        self.apply(Revision(revision.0 + 1), changes);
        let after = self.wants();
        let value = |want: &Result<Arc<A::Item>, String>| match want {
            Ok(item) => serde_json::to_value(&**item).ok(),
            Err(_) => None,
        };
        let mut keys: Vec<_> = before.keys().chain(after.keys()).collect();
        keys.sort();
        keys.dedup();
        let differs = |id: &&&(Unit, A::Key)| before.get(id) != after.get(id);
        let wish = |id: &(Unit, A::Key)| Wish {
            unit: id.0.0.clone(),
            key: id.1.to_string(),
            before: before.get(id).and_then(value),
            after: after.get(id).and_then(value),
            blocked: after.get(id).and_then(|want| want.as_ref().err().cloned()),
        };
        Preview {
            agent: self.namespace.to_string(),
            revision,
            wishes: keys.iter().filter(differs).map(|id| wish(id)).collect(),
            quarantined: self.quarantined().into_iter().filter(|q| !broken.contains(&q.what)).collect(),
        }
    }

    fn wants(&self) -> Wants<A> {
        let ctx = self.context();
        let mut wants = BTreeMap::new();
        for unit in self.units.values().filter(|unit| self.selected(unit)) {
            for (key, item) in unit.items.iter() {
                let want = match (ctx.frozen(item), ctx.wanted(key, item)) {
                    (Some(why), _) => Some(Err(why)),
                    (None, Ok(wanted)) => wanted.item.map(Ok),
                    (None, Err(unclear)) => Some(Err(unclear.to_string())),
                };
                if let Some(want) = want {
                    wants.insert((unit.name.clone(), key.clone()), want);
                }
            }
        }
        wants
    }
}
