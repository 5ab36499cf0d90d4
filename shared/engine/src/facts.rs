//! Facts that targets told and that are not committed yet.
//!
//! They stand in the ledger, under `<agent>/<unit>/facts-<n>`, beside the pages: written in one go with what became of the
//! batch that brought them, committed only after that, and taken out when they are committed. So a process that dies
//! in between leaves them to the next one; and what stands in the ledger is never older than what was committed, or the next one
//! would write an old fact over a new one. What is told twice is committed twice, which changes nothing.
//!
//! Facts in an answer that never arrived are lost with it. Nobody knows them but the target, which is not asked again for
//! what a look shows to be done.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shoal_core::{Change, Key};

use crate::effect::LedgerRow;
use crate::target::Fault;

/// What the rows aim at; one fact alone may be larger.
const ROW: usize = 8 * 1024;
/// What the last part of a row's key begins with.
const NAME: &str = "facts-";

/// The facts of one unit that are due.
#[derive(Default)]
pub(crate) struct Due {
    facts: BTreeMap<Key, Change>,
    /// The ledger says something else.
    dirty: bool,
    /// How many rows the ledger may hold.
    rows: usize,
}

#[derive(Serialize)]
struct RowOut<'f> {
    facts: &'f [&'f Change],
}

#[derive(Deserialize)]
struct RowIn {
    facts: Vec<Change>,
}

impl Due {
    /// The target told this.
    pub(crate) fn add(&mut self, fact: Change) {
        self.facts.insert(fact.key.clone(), fact);
        self.dirty = true;
    }

    /// These are committed.
    pub(crate) fn committed(&mut self, facts: &[Change]) {
        for fact in facts {
            if self.facts.get(&fact.key) == Some(fact) {
                self.facts.remove(&fact.key);
                self.dirty = true;
            }
        }
    }

    /// All that may be committed now: nothing that the ledger does not hold yet.
    pub(crate) fn written(&self) -> Vec<Change> {
        if self.dirty { Vec::new() } else { self.facts.values().cloned().collect() }
    }

    /// Whether nothing is due and the ledger says so.
    pub(crate) fn is_settled(&self) -> bool {
        self.facts.is_empty() && !self.dirty
    }

    /// Whether some are not committed yet.
    pub(crate) fn are_due(&self) -> bool {
        !self.facts.is_empty()
    }

    /// Whether the ledger is to be written.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The rows to write, which are from then on taken for written.
    ///
    /// # Errors
    /// A fact that has no JSON form.
    pub(crate) fn take(&mut self, prefix: &str) -> Result<Vec<LedgerRow>, Fault> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(Vec::new());
        }
        let mut parts: Vec<Vec<&Change>> = Vec::new();
        let mut size = ROW;
        for fact in self.facts.values() {
            size += fact.key.as_str().len() + fact.value.as_ref().map_or(0, |value| value.as_str().len());
            match parts.last_mut() {
                Some(part) if size < ROW => part.push(fact),
                _ => {
                    parts.push(vec![fact]);
                    size = 0;
                }
            }
        }
        let row = |(n, value)| LedgerRow { key: format!("{prefix}{NAME}{n:04}"), value };
        let texts = parts.iter().map(|part| serde_json::to_vec(&RowOut { facts: part }));
        let texts = texts.collect::<Result<Vec<_>, _>>().map_err(|e| Fault::new("write down facts", e))?;
        let before = std::mem::replace(&mut self.rows, texts.len());
        let surplus = texts.len()..before;
        Ok(texts.into_iter().map(Some).enumerate().chain(surplus.map(|n| (n, None))).map(row).collect())
    }

    /// A write of these rows failed: they are still to be written.
    pub(crate) fn again(&mut self, rows: &[String]) {
        for n in rows.iter().filter_map(|key| number(key)) {
            self.dirty = true;
            self.rows = self.rows.max(n + 1);
        }
    }

    /// Takes in a row of the ledger if it is one of facts; answers whether it is.
    ///
    /// # Errors
    /// It is one, and cannot be read.
    pub(crate) fn load(&mut self, key: &str, value: &[u8]) -> Result<bool, serde_json::Error> {
        let Some(n) = number(key) else { return Ok(false) };
        let row: RowIn = serde_json::from_slice(value)?;
        self.facts.extend(row.facts.into_iter().map(|fact| (fact.key.clone(), fact)));
        self.rows = self.rows.max(n + 1);
        Ok(true)
    }
}

/// Which row of facts it is.
fn number(key: &str) -> Option<usize> {
    key.rsplit('/').next()?.strip_prefix(NAME)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use shoal_core::Document;

    use super::*;

    fn fact(n: usize, text: &str) -> Change {
        let key = format!("facts/vm/web{n}.example.com").parse().unwrap();
        Change::put(key, Document::from(serde_json::json!({ "text": text })))
    }

    fn write(due: &mut Due, ledger: &mut BTreeMap<String, Vec<u8>>) {
        for row in due.take("vm/a/").unwrap() {
            match row.value {
                Some(value) => ledger.insert(row.key, value),
                None => ledger.remove(&row.key),
            };
        }
    }

    fn read(ledger: &BTreeMap<String, Vec<u8>>) -> Due {
        let mut due = Due::default();
        for (key, value) in ledger {
            assert!(due.load(key, value).unwrap());
        }
        due
    }

    #[test]
    fn facts_are_committed_after_they_are_written_and_leave_the_ledger_then() {
        let (mut due, mut ledger) = (Due::default(), BTreeMap::new());
        for n in 0..500 {
            due.add(fact(n, "0123456789012345678901234567890123456789"));
        }
        assert!(due.written().is_empty());
        write(&mut due, &mut ledger);
        assert!(ledger.len() > 3 && ledger.values().all(|row| row.len() < 3 * ROW));
        let mut other = read(&ledger);
        let all = other.written();
        assert_eq!(all, due.written());
        // One was told anew meanwhile: it is still due.
        other.add(fact(7, "new"));
        other.committed(&all);
        write(&mut other, &mut ledger);
        assert_eq!((ledger.len(), other.written()), (1, vec![fact(7, "new")]));
        other.committed(&[fact(7, "new")]);
        write(&mut other, &mut ledger);
        assert!(ledger.is_empty() && other.is_settled());
    }

    #[test]
    fn rows_that_could_not_be_written_are_written_again() {
        let (mut due, mut ledger) = (Due::default(), BTreeMap::new());
        due.add(fact(1, "a"));
        let keys = |rows: &[LedgerRow]| rows.iter().map(|row| row.key.clone()).collect::<Vec<_>>();
        let rows = due.take("vm/a/").unwrap();
        due.again(&keys(&rows));
        write(&mut due, &mut ledger);
        due.committed(&[fact(1, "a")]);
        let rows = due.take("vm/a/").unwrap();
        assert_eq!(rows[0].value, None);
        due.again(&keys(&rows));
        write(&mut due, &mut ledger);
        assert!(ledger.is_empty());
    }
}
