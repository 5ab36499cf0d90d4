//! The invariants.
//!
//! Some are asked of every effect as it lands, some of what engines say of themselves, and some of the world when
//! everything has come to rest. They are judged by the database ([`Oracle`]) and by what really happened, never by what
//! an engine believes.

use std::collections::{BTreeMap, BTreeSet};

use shoal_core::{Change, Key, Status, standing};
use shoal_engine::{Batch, Edit, MaxChange, Moment, Why};

use crate::agent::{ItemKey, Kind, SimAgent, Thing};
use crate::oracle::{Expected, Oracle, Wish};
use crate::store::{Entry, SimStore, time};
use crate::word::Words;
use crate::world::{Landed, World, takes};

/// What went wrong first.
#[derive(Default)]
pub(crate) struct Checker {
    pub(crate) broken: Option<String>,
    pub(crate) oracle: Oracle,
    /// What people agreed to.
    pub(crate) words: Words,
    /// Facts of what was settled, by unit: they have to arrive.
    pub(crate) owed: BTreeMap<Key, BTreeMap<String, Change>>,
    /// Units that the ledger of a restored database speaks of, and that nobody let go by its new epoch yet.
    pub(crate) unknown: BTreeSet<(Kind, String)>,
    /// How often `wait` would have returned.
    pub(crate) waits: u64,
}

/// A batch as it reaches its target.
#[derive(Clone, Copy)]
pub(crate) struct Sent<'a> {
    pub(crate) kind: Kind,
    pub(crate) unit: &'a str,
    pub(crate) batch: &'a Batch<SimAgent>,
    /// It lands after its claim has ended; that it began in time was checked then.
    pub(crate) late: bool,
}

impl Checker {
    /// The first breach counts: what follows is only its wake.
    pub(crate) fn fail(&mut self, why: impl Into<String>) {
        self.broken.get_or_insert_with(|| why.into());
    }

    /// The database is one of an earlier time: what was said and told since is not known any more.
    pub(crate) fn restored(&mut self, words: Words, owed: BTreeMap<Key, BTreeMap<String, Change>>) {
        (self.words, self.owed, self.oracle) = (words, owed, Oracle::default());
    }

    /// The ledger of the unit was written. One that holds nothing knows of no epoch either.
    pub(crate) fn written(&mut self, kind: Kind, unit: &str, ledger: &BTreeMap<ItemKey, Entry>) {
        self.words.written(kind, unit, ledger);
        if ledger.is_empty() {
            self.unknown.remove(&(kind, unit.to_owned()));
        }
    }

    /// Somebody lets the agent go by the database's new epoch.
    pub(crate) fn goes_by_the_epoch(&mut self, kind: Kind) {
        self.unknown.retain(|(of, _)| *of != kind);
    }

    /// Asked before the first effect of a batch begins.
    pub(crate) fn begins(&mut self, sent: Sent<'_>, store: &SimStore) {
        if self.unknown.contains(&(sent.kind, sent.unit.to_owned())) {
            self.fail(format!("unit {} is changed after a restore, and nobody agreed", sent.unit));
        }
        let ledger = store.ledger(sent.kind, sent.unit);
        let agreed = |key: &ItemKey| ledger.get(key).is_some_and(|entry| entry.agreed.is_some());
        if !self.words.has(sent.kind, sent.unit)
            && let Some(edit) = sent.batch.changes.iter().find(|edit| agreed(&edit.key))
        {
            self.fail(format!("{}: nobody agreed to any change of unit {}", edit.key, sent.unit));
        }
        // A line that somebody wrote into a file is none of the unit's items.
        let asked = sent.batch.changes.iter().filter(|edit| ledger.contains_key(&edit.key));
        let asked = asked.filter(|edit| !self.words.cover(sent.kind, &edit.key, edit.to.as_ref()));
        let (mut changed, mut removed, mut stands) = (0, 0, false);
        for edit in asked {
            changed += usize::from(edit.from.is_some() && edit.to.is_some());
            removed += usize::from(edit.to.is_none());
            stands |= edit.to.is_none() && !matches!(edit.because, Why::TagGone(..));
        }
        // What this batch makes was none of the unit's items when the guard was asked.
        let new = |edit: &&Edit<SimAgent>| {
            let creating = ledger.get(&edit.key).is_some_and(|entry| entry.stage.get("creating").is_some());
            creating && edit.from.is_none() && edit.to.is_some()
        };
        let of = ledger.len() - sent.batch.changes.iter().filter(new).count();
        let asks = |edit: &Edit<SimAgent>| !self.words.cover(sent.kind, &edit.key, edit.to.as_ref());
        if takes(sent.kind, sent.batch)
            && sent.batch.changes.iter().any(|edit| edit.key.is_head() && asks(edit))
        {
            // Whoever wants it still.
            let said = self.oracle.at(sent.kind, sent.batch.revision, store);
            (changed, removed) = (0, of);
            stands |= ledger.keys().any(|key| matches!(said.wish(key), Wish::Is(_)));
        }
        if !MaxChange::default().allows(changed + removed, of) {
            self.fail(format!(
                "guard skipped: unit {} of {} items, {changed} to change and {removed} to remove, and nobody agreed",
                sent.unit,
                of
            ));
        }
        if removed > 1 && stands && removed >= of {
            self.fail(format!(
                "guard skipped: all {removed} items of unit {} removed while a tag stands",
                sent.unit
            ));
        }
    }

    /// Asked of everything that really changed.
    pub(crate) fn landed(&mut self, sent: Sent<'_>, landed: &[Landed], world: &World, store: &SimStore) {
        if landed.is_empty() {
            return;
        }
        let ledger = store.ledger(sent.kind, sent.unit);
        let said = self.oracle.at(sent.kind, sent.batch.revision, store);
        for one in landed {
            let entry = ledger.get(&one.key);
            if let Err(why) = judge(sent, one, &said, entry, world) {
                let (key, revision) = (&one.key, sent.batch.revision);
                self.fail(format!("{key}: {why} (decided at revision {revision}; {one:?})"));
            }
        }
    }

    /// Whether `shoal wait` would say that all is as the newest revision wants it; then it must be so.
    pub(crate) fn waited(&mut self, world: &World, store: &SimStore, now: Moment) {
        let head = store.head();
        let reports = store.memory.reports();
        let reports: Vec<Status> =
            reports.into_iter().filter(|s| s.agent.as_str() == world.kind.namespace()).collect();
        let standing = standing(&reports, head.epoch, head.revision, &[], time(now));
        // Who died is named and not waited for: what it had is as it left it.
        if !standing.waiting.is_empty() || !standing.dead.is_empty() {
            return;
        }
        let said = self.oracle.at(world.kind, head.revision, store);
        self.waits += 1;
        let ledger = store.whole_ledger(world.kind);
        // What was tried and is not wanted any more is nobody's for sure until it is done: the engine looks again.
        let doubtful = |key: &ItemKey| {
            // Once it shows as ours it goes at once, and a report of a moment ago cannot say so.
            let tried = ledger
                .get(key)
                .is_some_and(|entry| entry.stage.get("creating").is_some() || entry.last.is_none());
            tried && *said.wish(key) == Wish::Nothing
        };
        for key in keys(&said, world) {
            if let Err(why) = settled(&key, &said, world, now)
                && !world.tampered.contains(&key)
                && !world.late.contains(&key)
                && !doubtful(&key)
                && !world.foreign.contains_key(&key)
                && !said.murky(&key, world.kind)
            {
                let revision = head.revision;
                let say = |s: &Status| format!("{} ({:?})", s.instance, s.units.get(key.unit()));
                let who: Vec<_> = reports.iter().map(say).collect();
                self.fail(format!(
                    "{key}: status says that all is done up to revision {revision}, but {why}; said by {}",
                    who.join(", ")
                ));
            }
        }
    }

    /// Everything that is not as the database says, once all is at rest. With `held`, what people hold, cannot be
    /// understood or was not agreed to is passed over.
    pub(crate) fn rest(
        &mut self,
        world: &World,
        store: &SimStore,
        held: bool,
        now: Moment,
        corrects: bool,
    ) -> Vec<String> {
        let kind = world.kind;
        let said = self.oracle.at(kind, store.head().revision, store);
        let ledger = store.whole_ledger(kind);
        let asking = asking(kind, store, now);
        let known: BTreeSet<&str> = said.items.keys().chain(ledger.keys()).map(ItemKey::unit).collect();
        let mut wrong = Vec::new();
        for (key, told) in self.owed.iter().filter(|(key, _)| is_fact_of(kind, key)) {
            let there = store.newest().row(key);
            // Two units that tell of one host: either may have had the last word.
            if !told.values().any(|fact| fact.value == there) {
                wrong.push(format!("{key}: it is {there:?}, and was told {told:?}"));
            }
        }
        for (key, thing) in &world.foreign {
            if world.slots.get(key).is_none_or(|slot| slot.thing != *thing) {
                wrong.push(format!("{key}: somebody else made it, and it is not as it was"));
            }
        }
        let kept = |key: &ItemKey| {
            let recorded = ledger.get(key).map_or(&[][..], |entry| &entry.from[..]);
            said.is_paused(key, kind, recorded) || said.is_frozen(key) || *said.wish(key) == Wish::Unclear
        };
        let unread = said.has_broken_rows() || !said.frozen.is_empty();
        // A file with anything in it that somebody holds, that may be made from what cannot be read, or that was edited by
        // hand and is only reported, does not go.
        let all = keys(&said, world);
        let holds = |key: &&ItemKey| {
            kept(key)
                || unread && (world.tampered.contains(*key) || said.murky(key, kind))
                || !corrects && world.tampered.contains(*key)
        };
        let keeping: BTreeSet<&str> =
            all.iter().chain(ledger.keys()).filter(holds).map(ItemKey::unit).collect();
        for key in &all {
            let Err(why) = settled(key, &said, world, now) else { continue };
            let recorded = ledger.get(key).map_or(&[][..], |entry| &entry.from[..]);
            let refused = matches!(said.wish(key), Wish::Is(thing) if refuses(thing));
            let excused = world.foreign.contains_key(key)
                || (world.late.contains(key) || world.orphans.contains(key)) && !ledger.contains_key(key)
                // What stands in a file that no tag and no ledger speaks of is nobody's business.
                // Nor what nobody can say that nothing wants.
                || world.tampered.contains(key)
                    && (!corrects || !known.contains(key.unit()) || held && unread)
                || (held || !corrects) && key.is_head() && keeping.contains(key.unit())
                || held
                    && (said.is_paused(key, kind, recorded)
                        || said.is_frozen(key)
                        || said.murky(key, kind)
                        || asking.contains(key.unit())
                        || refused);
            if !excused {
                wrong.push(format!("{key}: {why}"));
            }
        }
        wrong
    }
}

fn is_fact_of(kind: Kind, key: &Key) -> bool {
    key.as_str().strip_prefix("facts/").is_some_and(|rest| rest.starts_with(kind.namespace()))
}

/// Units that wait for a person's word.
fn asking(kind: Kind, store: &SimStore, now: Moment) -> BTreeSet<String> {
    let reports = store.memory.reports();
    let live = reports
        .iter()
        .filter(|s| s.agent.as_str() == kind.namespace() && s.expires.is_none_or(|end| end > time(now)));
    live.flat_map(|s| &s.units)
        .filter(|(_, unit)| unit.held.is_some())
        .map(|(name, _)| name.clone())
        .collect()
}

fn refuses(thing: &Thing) -> bool {
    thing.parts.values().any(|text| text.starts_with("refused"))
}

/// Every item that is there or should be.
fn keys(said: &Expected, world: &World) -> BTreeSet<ItemKey> {
    said.items.keys().chain(world.slots.keys()).cloned().collect()
}

/// Whether what is there is what should be, with the mark that a person holds a host of it while that is so.
fn settled(key: &ItemKey, said: &Expected, world: &World, now: Moment) -> Result<(), String> {
    let slot = world.slots.get(key);
    let marked = |slot: &Thing, wanted: &Thing| {
        world.kind == Kind::Pool && *slot == wanted.marked() && said.is_host_paused(key)
    };
    match (said.wish(key), slot) {
        (Wish::Unclear, _) | (Wish::Nothing, None) => Ok(()),
        (Wish::Nothing, Some(slot)) if slot.foreign => Ok(()),
        (Wish::Nothing, Some(slot)) => Err(format!("it should not be there, and is: {:?}", slot.thing.parts)),
        (Wish::Is(thing), None) => Err(format!("it should be there, and is not: {:?}", thing.parts)),
        (Wish::Is(thing), Some(slot)) if slot.thing != *thing && !marked(&slot.thing, thing) => {
            Err(format!("it should be {:?}, and is {:?}", thing.parts, slot.thing.parts))
        }
        (Wish::Is(_), Some(slot)) if now < slot.ready_at => Err("it is still being built".to_owned()),
        (Wish::Is(_), Some(_)) => Ok(()),
    }
}

/// Whether one thing may have changed so.
fn judge(
    sent: Sent<'_>,
    one: &Landed,
    said: &Expected,
    entry: Option<&Entry>,
    world: &World,
) -> Result<(), String> {
    let recorded = entry.map_or(&[][..], |entry| &entry.from[..]);
    let meant = sent.batch.changes.iter().any(|edit| edit.key == one.key);
    let tampered = world.tampered.contains(&one.key);
    let taken = one.after.is_none() && takes(sent.kind, sent.batch);
    if one.twice {
        return Err("it was made a second time".to_owned());
    }
    if one.before.as_ref().is_some_and(|slot| slot.foreign) {
        return Err("somebody else made it".to_owned());
    }
    // That the database says of what bears Shoal's mark that it should not be, is a reason; that it says nothing, is none.
    let unspoken = entry.is_none() && !said.from.contains_key(&one.key);
    if world.orphans.contains(&one.key) && !world.nature.whole && unspoken {
        return Err("neither the ledger nor the database knows anything of it".to_owned());
    }
    if sent.late {
        return Ok(());
    }
    if !meant && !taken {
        // A file is written from what was seen; what changed since then is lost with any such target.
        return if tampered { Ok(()) } else { Err("nobody meant to change it".to_owned()) };
    }
    if one.before.is_none() && entry.is_none() {
        return Err("it was made before it was written down".to_owned());
    }
    if sent.batch.changes.iter().any(|edit| edit.key == one.key && edit.verb == "remake") {
        let last = entry.and_then(|entry| entry.last.as_ref());
        let as_it_was =
            (one.before.is_none() || tampered) && one.after.is_some() && one.after.as_ref() == last;
        return if as_it_was { Ok(()) } else { Err(format!("it was not put back as it was, {last:?}")) };
    }
    let empty = BTreeMap::new();
    let (before, after) = (
        one.before.as_ref().map_or(&empty, |slot| &slot.thing.parts),
        one.after.as_ref().map_or(&empty, |thing| &thing.parts),
    );
    // Whoever read the database anew does not know of a row that could be read before, nor whose part it was, nor that it
    // was what nobody could make anything of.
    let murky = said.murky(&one.key, sent.kind);
    // Least of all what another life of the database made of it.
    let lost = murky && tampered;
    let stood = |part: &&String| !lost && !after.contains_key(*part) && said.stands(&one.key, part);
    if let Some(part) = before.keys().find(|part| !taken && stood(part)) {
        return Err(format!("the part of {part} went without a reason"));
    }
    if let Some(part) = before.keys().find(|part| said.frozen.contains(*part)) {
        return Err(format!("it was changed while {part} cannot be understood"));
    }
    if *said.wish(&one.key) == Wish::Unclear && !murky {
        return Err("it was changed while nobody can say what it should be".to_owned());
    }
    if said.is_paused(&one.key, sent.kind, recorded) && !murky {
        // Of what stands, the mark alone, and only while it is a host that is paused.
        let marked = one.before.as_ref().map(|slot| slot.thing.marked());
        let marks = sent.kind == Kind::Pool && marked.is_some() && one.after == marked;
        if marks && !said.is_paused_whole(&one.key, sent.kind, recorded) {
            return Ok(());
        }
        return Err("it was changed while it is paused".to_owned());
    }
    if taken {
        return Ok(());
    }
    let wanted = match (said.wish(&one.key), &one.after) {
        (Wish::Is(thing), Some(after)) => thing == after,
        (Wish::Nothing, None) => true,
        _ => false,
    };
    if !wanted && !said.has_broken_rows() {
        return Err(format!("it should be {:?}", said.wish(&one.key)));
    }
    Ok(())
}
