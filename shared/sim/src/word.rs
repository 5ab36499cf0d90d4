//! What people agreed to, change by change: exactly that may go without the guard, and once.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::agent::{ItemKey, Kind, Thing};
use crate::store::Entry;

/// The changes that somebody is asked about: each item, and what it becomes; `None`: it goes.
pub(crate) type Asked = Vec<(String, Option<Value>)>;

/// One change that a person agreed to.
#[derive(Clone)]
struct Word {
    /// What the item becomes; `None`: it goes.
    to: Option<Value>,
    /// Which approval says it.
    digest: String,
    /// The ledger has said that it was agreed to. When it does not any more, it is over.
    noted: bool,
}

/// The words of all people, by unit. A unit of which anybody ever agreed to anything stays here.
#[derive(Clone, Default)]
pub(crate) struct Words(BTreeMap<(Kind, String), BTreeMap<String, Word>>);

impl Words {
    /// Whether anybody ever agreed to anything of this unit.
    pub(crate) fn has(&self, kind: Kind, unit: &str) -> bool {
        self.0.contains_key(&(kind, unit.to_owned()))
    }

    /// Somebody agrees to these changes. What another approval said before and was not begun is agreed to no more.
    pub(crate) fn agree(&mut self, kind: Kind, unit: &str, digest: &str, changes: Asked) {
        let words = self.0.entry((kind, unit.to_owned())).or_default();
        words.retain(|_, word| word.noted || word.digest == digest);
        let word = |to| Word { to, digest: digest.to_owned(), noted: false };
        words.extend(changes.into_iter().map(|(key, to)| (key, word(to))));
    }

    /// Whether somebody agreed to exactly this, and it is not over.
    pub(crate) fn cover(&self, kind: Kind, key: &ItemKey, to: Option<&Thing>) -> bool {
        let to = to.and_then(|thing| serde_json::to_value(thing).ok());
        let words = self.0.get(&(kind, key.unit().to_owned()));
        words.and_then(|words| words.get(&key.0)).is_some_and(|word| word.to == to)
    }

    /// The ledger of the unit was written.
    pub(crate) fn written(&mut self, kind: Kind, unit: &str, ledger: &BTreeMap<ItemKey, Entry>) {
        let Some(words) = self.0.get_mut(&(kind, unit.to_owned())) else { return };
        words.retain(|key, word| {
            let agreed = ledger.get(&ItemKey(key.clone())).is_some_and(|entry| entry.agreed.is_some());
            let over = word.noted && !agreed;
            word.noted |= agreed;
            !over
        });
    }
}
