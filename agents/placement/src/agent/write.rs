//! What is written: why a machine is where it is, or why it is nowhere, and what each box has given out.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::{Value, json};
use shoal_core::{Document, Edit, Epoch, Expect, HostId, Key, MAX_ROW};

use super::read::Known;
use crate::choose::{Decision, Explanation, Reason, Refusal, Request};

/// So many of the rooms that were not taken are named.
const NAMED: usize = 3;

/// The fact about a machine that has a place.
#[derive(Serialize)]
pub(super) struct Fact<'a> {
    #[serde(rename = "box")]
    room: &'a str,
    points: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback: Option<&'a String>,
    /// The next best, had it been the only one.
    over: BTreeMap<&'a str, u32>,
    /// Why not elsewhere: for each reason how many rooms.
    not: BTreeMap<String, usize>,
    /// With how many it was planned.
    #[serde(skip_serializing_if = "is_one")]
    together: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_one(number: &usize) -> bool {
    *number <= 1
}

impl<'a> Fact<'a> {
    pub(super) fn new(decision: &'a Decision, explained: &'a Explanation, together: usize) -> Self {
        let others = explained.would_do.iter().filter(|(room, _)| *room != decision.room).take(NAMED);
        Self {
            room: &decision.room,
            points: decision.points.total(),
            fallback: decision.fallback.as_ref(),
            over: others.map(|(room, points)| (room.as_str(), points.total())).collect(),
            not: reasons(&explained.counts),
            together,
        }
    }

    pub(super) fn room(&self) -> &str {
        self.room
    }

    pub(super) fn value(&self) -> Result<Value, String> {
        serde_json::to_value(self).map_err(|e| e.to_string())
    }

    /// The same in one line.
    pub(super) fn why(&self) -> String {
        let mut parts = vec![format!("{} points", self.points)];
        if self.together > 1 {
            parts.push(format!("planned with {} others", self.together - 1));
        }
        let over: Vec<String> = self.over.iter().map(|(room, points)| format!("{room} {points}")).collect();
        if !over.is_empty() {
            parts.push(format!("others: {}", over.join(", ")));
        }
        parts.extend(self.not.iter().map(|(why, count)| format!("not {count}: {why}")));
        parts.join("; ")
    }
}

/// The fact about a machine that has none.
pub(super) fn no_room(refusal: &Refusal) -> Value {
    json!({"no_room": reasons(&refusal.counts)})
}

pub(super) fn reasons(counts: &BTreeMap<Reason, usize>) -> BTreeMap<String, usize> {
    counts.iter().map(|(reason, count)| (reason.to_string(), *count)).collect()
}

/// A life of the database, as `shoal approve` writes it.
pub(super) fn life(epoch: Epoch) -> String {
    format!("{:016x}", epoch.0)
}

pub(super) fn edit(key: Key, value: &Value) -> Result<Edit, String> {
    let value = Document::of(value).map_err(|e| e.to_string())?;
    Ok(Edit::Write { key, value, expect: Expect::Any })
}

/// What boxes are about to promise, or to take back.
#[derive(Default)]
pub(super) struct Promises {
    more: BTreeMap<String, Vec<(Request, HostId)>>,
    less: BTreeMap<String, Vec<String>>,
    count: usize,
    /// How many octets the facts about rooms come to that promise more.
    octets: HashMap<String, usize>,
}

/// What a promise takes in a room's fact, in octets, at most: the names twice, the id twice, and signs.
fn octets(to: &Request, id: &HostId) -> usize {
    let needs = serde_json::to_string(&to.needs).map_or(0, |text| text.len());
    2 * to.name.len() + 3 * id.0.len() + needs + 32
}

impl Promises {
    /// Whether one promise more still fits the fact about a room: a row has an end.
    pub(super) fn fits(&mut self, room: &str, known: &Known, to: &Request, id: &HostId) -> bool {
        let now = self.octets.entry(room.to_owned()).or_insert_with(|| known.octets());
        let then = *now + octets(to, id);
        if then <= MAX_ROW {
            *now = then;
        }
        then <= MAX_ROW
    }

    pub(super) fn promise(&mut self, room: String, to: Request, id: HostId) {
        self.count += 1;
        self.more.entry(room).or_default().push((to, id));
    }

    /// Takes back what a room has promised under this key.
    pub(super) fn forget(&mut self, room: String, key: String) {
        self.count += 1;
        self.less.entry(room).or_default().push(key);
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// The rooms of which something changes, as they are from then on.
    pub(super) fn kept(&self, rooms: &HashMap<String, Known>, epoch: Epoch) -> Vec<(String, Known)> {
        let mut names: Vec<&String> = self.more.keys().chain(self.less.keys()).collect();
        names.sort_unstable();
        names.dedup();
        let mut kept = Vec::new();
        for name in names {
            let Some(known) = rooms.get(name) else { continue };
            let mut known = known.clone();
            for key in self.less.get(name).into_iter().flatten() {
                known.promised.forget(key);
            }
            for (request, id) in self.more.get(name).into_iter().flatten() {
                known.promised.promise(request.name.clone(), id.clone(), request.needs.clone());
            }
            known.promised.epoch = Some(life(epoch));
            kept.push((name.clone(), known));
        }
        kept
    }
}
