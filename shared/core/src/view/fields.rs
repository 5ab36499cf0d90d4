//! Hosts by what a field of theirs holds: for searching.
//!
//! A field is indexed when it is first searched by, at the price of one look at every host, and then follows every commit at
//! the price of the hosts that it changes. Nobody who does not search pays anything. A clone shares what was indexed until
//! then; the order is by value, then by host.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use imbl::{OrdMap, OrdSet};

use super::host::{Fact, Host};
use super::symbol::HostSym;
use super::{Counters, HostSlot};
use crate::select::{Field, Literal, Narrow, Subject};

/// How many fields are indexed at most; by another one everybody is asked.
const MAX_FIELDS: usize = 64;

type Index = OrdSet<(Literal, HostSym)>;

/// The fields that were searched by.
#[derive(Debug, Default)]
pub(super) struct Fields(Mutex<OrdMap<Field, Index>>);

impl Clone for Fields {
    fn clone(&self) -> Self {
        Self(Mutex::new(self.lock().clone()))
    }
}

impl Fields {
    fn lock(&self) -> MutexGuard<'_, OrdMap<Field, Index>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A host is another one now.
    pub(super) fn follow(&mut self, sym: HostSym, was: Option<&Host>, is: Option<&Host>) {
        let fields = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if fields.is_empty() {
            return;
        }
        let value = |host: Option<&Host>, field: &str| Subject::new(host?, NO_FACTS).indexed(field);
        let names: Vec<Field> = fields.keys().cloned().collect();
        for field in names {
            let (was, is) = (value(was, &field), value(is, &field));
            if was == is {
                continue;
            }
            if let Some(index) = fields.get_mut(&field) {
                was.map(|value| index.remove(&(value, sym)));
                is.map(|value| index.insert((value, sym)));
            }
        }
    }

    /// The hosts by that field; `None`: too many other fields are indexed.
    fn of<'h>(
        &self,
        field: &Field,
        hosts: impl Iterator<Item = (HostSym, &'h HostSlot)>,
        counters: &Counters,
    ) -> Option<Index> {
        if let Some(index) = self.lock().get(field) {
            return Some(index.clone());
        }
        if self.lock().len() >= MAX_FIELDS {
            return None;
        }
        let mut index = Index::new();
        for (sym, slot) in hosts {
            let Some(host) = slot.host.as_deref() else { continue };
            Counters::count(&counters.documents, 1);
            if let Some(value) = Subject::new(host, NO_FACTS).indexed(field) {
                index.insert((value, sym));
            }
        }
        self.lock().insert(field.clone(), index.clone());
        Some(index)
    }

    /// All whom it can hold for, but no more than `most`; `None`: they are more, or nothing is known of them.
    pub(super) fn candidates(
        &self,
        narrow: &Narrow,
        look: &Look<'_>,
        most: usize,
    ) -> Option<BTreeSet<HostSym>> {
        match narrow {
            Narrow::All(parts) => {
                let (mut best, mut most) = (None, most);
                for part in parts {
                    if let Some(found) = self.candidates(part, look, most) {
                        most = found.len();
                        best = Some(found);
                    }
                }
                best
            }
            Narrow::Any(parts) => {
                let mut all = BTreeSet::new();
                for part in parts {
                    all.extend(self.candidates(part, look, most)?);
                }
                (all.len() <= most).then_some(all)
            }
            Narrow::OneOf(field, _) | Narrow::Between(field, ..) | Narrow::Starts(field, _) => {
                let index = self.of(field, (look.hosts)(), look.counters)?;
                let mut found = BTreeSet::new();
                for sym in within(&index, narrow) {
                    if found.len() >= most {
                        return None;
                    }
                    found.insert(sym);
                }
                Some(found)
            }
        }
    }

    /// Every host, by name, after `after`.
    pub(super) fn by_name(
        &self,
        look: &Look<'_>,
        after: Option<&str>,
    ) -> Option<(Index, Bound<(Literal, HostSym)>)> {
        let index = self.of(&Field::from("@name"), (look.hosts)(), look.counters)?;
        let from = after.map_or(Bound::Unbounded, |name| Bound::Excluded((Literal::text(name), LAST)));
        Some((index, from))
    }
}

/// What an index is made from.
pub(super) struct Look<'a> {
    pub(super) hosts: &'a dyn Fn() -> Box<dyn Iterator<Item = (HostSym, &'a HostSlot)> + 'a>,
    pub(super) counters: &'a Counters,
}

const NO_FACTS: &[Fact] = &[];
const FIRST: HostSym = HostSym(0);
const LAST: HostSym = HostSym(u32::MAX);

/// Whom one part can hold for: those within, and those whose value is of another kind, where it cannot be evaluated.
fn within<'i>(index: &'i Index, narrow: &'i Narrow) -> Box<dyn Iterator<Item = HostSym> + 'i> {
    fn sym((_, sym): &(Literal, HostSym)) -> HostSym {
        *sym
    }
    let exactly = |value: &Literal| index.range((value.clone(), FIRST)..=(value.clone(), LAST)).map(sym);
    match narrow {
        Narrow::OneOf(_, values) => Box::new(values.iter().flat_map(exactly)),
        Narrow::Starts(_, start) => {
            let starts =
                |value: &Literal| matches!(value, Literal::Text(text) if text.starts_with(start.as_str()));
            let from = index.range((Literal::text(start), FIRST)..);
            let inside = from.take_while(move |(value, _)| starts(value)).map(sym);
            Box::new(inside.chain(others(index, Literal::text(""))))
        }
        Narrow::Between(_, from, to) => {
            let (Bound::Included(end) | Bound::Excluded(end)) =
                (if matches!(from, Bound::Unbounded) { to } else { from })
            else {
                return Box::new(index.iter().map(sym));
            };
            let low = match from {
                Bound::Included(value) | Bound::Excluded(value) => Bound::Included((value.clone(), FIRST)),
                Bound::Unbounded => Bound::Included((least(end), FIRST)),
            };
            let high = match to {
                Bound::Included(value) | Bound::Excluded(value) => Bound::Included((value.clone(), LAST)),
                Bound::Unbounded => Bound::Unbounded,
            };
            let inside = index.range((low, high)).take_while(move |(value, _)| value.is_like(end)).map(sym);
            Box::new(inside.chain(others(index, end.clone())))
        }
        Narrow::All(_) | Narrow::Any(_) => Box::new(std::iter::empty()),
    }
}

/// The least value of that kind.
fn least(of: &Literal) -> Literal {
    match of {
        Literal::Truth(_) => Literal::Truth(false),
        Literal::Number(_) => Literal::number(f64::NEG_INFINITY),
        Literal::Text(_) => Literal::text(""),
        Literal::Other => Literal::Other,
    }
}

/// Those whose value is of another kind. Costs what it finds.
fn others(index: &Index, kind: Literal) -> impl Iterator<Item = HostSym> + '_ {
    let kinds = [Literal::Truth(false), Literal::number(0.0), Literal::text(""), Literal::Other];
    let other = kinds.into_iter().filter(move |one| !one.is_like(&kind));
    other.flat_map(|one| {
        let from = (least(&one), FIRST);
        index.range(from..).take_while(move |(value, _)| value.is_like(&one)).map(|(_, sym)| *sym)
    })
}
