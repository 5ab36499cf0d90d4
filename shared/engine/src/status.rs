//! What an engine says of itself: how far it is, what is behind since when and why, and whether it is done.

use jiff::Timestamp;
use shoal_core::{
    Behind, Clash, HostName, LeftOut, MAX_BEHIND, MAX_CLASHES, Quarantined, Revision, Status, UnitStatus,
};

use crate::agent::Agent;
use crate::decide::clash_digest;
use crate::effect::Act;
use crate::engine::{Engine, Listing};
use crate::item::{ADOPT, Item, Open, Planned, Trouble};
use crate::ledger::SourceId;
use crate::options::Options;
use crate::unit::{Phase, State};
use crate::{Millis, Moment};

/// Reports are not sent more often than this.
const SOONEST: Millis = 200;

/// When the last report was sent.
#[derive(Default)]
pub(crate) struct Reporter {
    dirty: bool,
    sent: Option<Moment>,
    asked: Option<u64>,
    last_word: bool,
}

impl Reporter {
    pub(crate) fn changed(&mut self) {
        self.dirty = true;
    }

    pub(crate) fn answered(&mut self, id: u64) {
        self.asked.take_if(|asked| *asked == id);
    }

    pub(crate) fn said_last(&self) -> bool {
        self.last_word
    }
}

/// How much there is of everything, in all units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Items that the ledger holds.
    pub items: usize,
    /// Items that are not as they should be.
    pub behind: usize,
    /// Items that wait to be decided on.
    pub queue: usize,
    /// Sources that were left out of an item.
    pub left_out: usize,
}

/// How a whole engine stands, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// There is something to do right now.
    Busy,
    /// Something failed, and nothing else can be done now.
    Failed,
    /// Something is held: by the guard, a pause, a clash, or because it cannot be understood.
    Held,
    /// Something waits.
    Waiting,
    /// Everything is as it should be.
    Converged,
}

impl<A: Agent> Engine<A> {
    /// What is said to the store. Costs what is behind.
    #[must_use]
    pub fn status(&self, now: Moment, last_word: bool) -> Status {
        let at = Timestamp::from_millisecond(now).unwrap_or(Timestamp::UNIX_EPOCH);
        let expires = Timestamp::from_millisecond(now.saturating_add(self.options.ttl)).ok();
        let mut quarantined = self.quarantined();
        let quarantined_total = quarantined.len() as u64;
        quarantined.truncate(MAX_BEHIND);
        let mut units = std::collections::BTreeMap::new();
        let mut unread = self.listing != Listing::Done;
        for unit in self.units.values() {
            // One that may be nobody's here is named when it cannot be found out.
            if self.selected(unit) || self.is_unread(unit) && unit.backoff.failures > 0 {
                units.insert(unit.name.0.clone(), unit_status(unit, self.seen));
            }
            unread |= self.is_unread(unit);
        }
        Status {
            agent: self.namespace.clone(),
            instance: self.said_by(),
            epoch: self.fleet.epoch(),
            seen: if unread { Revision(0) } else { self.seen },
            at,
            expires: match last_word {
                true if self.options.once => None,
                true => Some(at),
                false => expires,
            },
            units,
            quarantined,
            quarantined_total,
        }
    }

    /// Under which name it reports. A single run takes the place of the last one that was asked for the same: its word
    /// stands until then, and nobody would take it back if every run had its own.
    fn said_by(&self) -> String {
        let Options { once, instance, tags, host, .. } = &self.options;
        if !once {
            return instance.clone();
        }
        let name = instance.rsplit_once('/').map_or(instance.as_str(), |(name, _)| name);
        let tags = tags.iter().flatten().map(ToString::to_string);
        let asked = tags.chain(host.iter().map(ToString::to_string)).map(|one| format!(":{one}"));
        format!("{name}/once{}", asked.collect::<String>())
    }

    /// What cannot be understood: rows of the database, and sources. Oldest first, then by name.
    pub(crate) fn quarantined(&self) -> Vec<Quarantined> {
        let mut all = self.fleet.unreadable_rows(self.namespace.as_str(), &self.options);
        let concerns = |id: &SourceId| self.options.concerns(Some(&id.0), id.1.as_ref());
        all.extend(self.sources.quarantined().filter(|(id, _)| concerns(id)).map(|(_, q)| (**q).clone()));
        all.sort_by(|a, b| (a.since, &a.what).cmp(&(b.since, &b.what)));
        all
    }

    /// How it stands: `--once` ends when this is not [`Verdict::Busy`].
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let listing = match &self.listing {
            Listing::Done => Verdict::Converged,
            Listing::Start { fault: true, .. } => Verdict::Failed,
            _ => Verdict::Busy,
        };
        let quarantined = if self.quarantined().is_empty() { Verdict::Converged } else { Verdict::Held };
        let units = self.units.values().filter(|unit| self.selected(unit) || self.is_unread(unit));
        units.map(|unit| self.unit_verdict(unit)).chain([listing, quarantined]).min().unwrap_or(listing)
    }

    fn unit_verdict(&self, unit: &State<A>) -> Verdict {
        if unit.elsewhere && self.options.shares() {
            return Verdict::Converged;
        }
        if unit.backoff.failures > 0 {
            return Verdict::Failed;
        }
        if unit.phase != Phase::Ready {
            return if !unit.backoff.why.is_empty() { Verdict::Waiting } else { Verdict::Busy };
        }
        if !unit.is_quiet() {
            return Verdict::Busy;
        }
        if unit.remakes.values().any(|retry| !retry.why.is_empty()) {
            return Verdict::Failed;
        }
        let open = unit.open.iter().map(|(key, open)| match open.trouble {
            Trouble::Failed(_) | Trouble::Unseen(_) => Verdict::Failed,
            Trouble::Held(_) | Trouble::Blocked(_) => Verdict::Held,
            Trouble::Waiting(_) => Verdict::Waiting,
            Trouble::Dirty | Trouble::Changing if !self.options.write && unit.ready.contains(key) => {
                Verdict::Waiting
            }
            Trouble::Dirty | Trouble::Changing => Verdict::Busy,
        });
        let whole = unit.hold.as_ref().map(|_| Verdict::Held);
        open.chain(whole).min().unwrap_or(Verdict::Converged)
    }

    /// Everything that is not as it should be or was left out, for people: unit, item, why.
    #[must_use]
    pub fn troubles(&self) -> Vec<(String, String, String)> {
        let mut all = Vec::new();
        for unit in self.units.values() {
            let name = || unit.name.0.clone();
            if !unit.backoff.why.is_empty() {
                all.push((name(), String::new(), unit.backoff.why.clone()));
            }
            let open = unit.open.iter().filter(|_| !unit.elsewhere);
            all.extend(open.map(|(key, open)| (name(), key.to_string(), open.trouble.to_string())));
            let why = |l: &LeftOut| format!("left out {}: {}", l.who.join(", "), l.why);
            all.extend(unit.left_out().map(|l| (name(), l.key.clone(), why(&l))));
        }
        all.extend(self.quarantined().into_iter().map(|q| (q.what, String::new(), q.why)));
        all
    }

    /// What waits for a person, unit by unit.
    pub fn holds(&self) -> impl Iterator<Item = (&crate::Unit, &shoal_core::Hold)> {
        self.units.values().filter_map(|unit| Some((&unit.name, unit.hold.as_ref()?)))
    }

    /// Who was left out of which item, unit by unit.
    pub fn left_out(&self) -> impl Iterator<Item = (&crate::Unit, LeftOut)> {
        self.units.values().flat_map(|unit| unit.left_out().map(move |left_out| (&unit.name, left_out)))
    }

    /// Another number whenever [`Self::left_out`] says something else.
    #[must_use]
    pub fn left_out_changes(&self) -> u64 {
        self.left_out_changes
    }

    /// How much there is of everything. Costs the units, and who is left out.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        // What nobody asked for is not known well enough to be counted.
        let all = !self.options.is_narrowed();
        let ours = |unit: &&State<A>| !unit.elsewhere && (all || unit.number().is_some());
        let asked = || self.units.values().filter(ours);
        let sum = |of: fn(&State<A>) -> usize| asked().map(of).sum();
        Sizes {
            items: sum(|u| u.entries),
            behind: sum(|u| u.open.len()),
            queue: sum(|u| u.dirty.len() + u.made.len() + u.sweep.len()),
            left_out: sum(|u| u.left_out.values().map(Vec::len).sum()),
        }
    }

    pub(crate) fn report(&mut self, now: Moment) {
        if !self.options.write || self.next_report().is_none_or(|at| at > now) {
            return;
        }
        let last_word = self.draining;
        let status = Box::new(self.status(now, last_word));
        let id = self.out.send(None, Act::Report(status));
        let reporter = &mut self.reporter;
        (reporter.dirty, reporter.sent, reporter.asked, reporter.last_word) =
            (false, Some(now), Some(id), last_word);
    }

    pub(crate) fn next_report(&self) -> Option<Moment> {
        let reporter = &self.reporter;
        if !self.options.write || reporter.last_word {
            return None;
        }
        if self.draining {
            return self.is_idle().then_some(Moment::MIN);
        }
        if self.seen == Revision(0) && self.listing != Listing::Done {
            return None;
        }
        let Some(sent) = reporter.sent else { return Some(Moment::MIN) };
        let repeat = sent.saturating_add(self.options.ttl / 3);
        if reporter.asked.is_some() || !reporter.dirty {
            return Some(repeat);
        }
        Some(sent.saturating_add(SOONEST))
    }
}

fn unit_status<A: Agent>(unit: &State<A>, seen: Revision) -> UnitStatus {
    if unit.elsewhere {
        // Whoever works on it says how it stands; what a commit woke here is nobody's to decide on.
        return UnitStatus { elsewhere: true, ..UnitStatus::default() };
    }
    // Few are told: the others are not put into words, and a cold unit of 100,000 items has as many behind.
    let mut open: Vec<_> = unit.open.iter().collect();
    let mut total = open.len();
    let oldest = open.iter().map(|(_, open)| open.since).min();
    open.sort_by_key(|(_, open)| open.since);
    open.truncate(MAX_BEHIND);
    let say = |(key, open): (&A::Key, &Open<A>)| Behind {
        key: key.to_string(),
        since: open.since,
        why: open.trouble.to_string(),
        hosts: unit.items.get(key).map(hosts).unwrap_or_default(),
    };
    let mut behind: Vec<Behind> = open.into_iter().map(say).collect();
    let held_total = unit.open.values().filter(|open| matches!(open.trouble, Trouble::Held(_))).count();
    if unit.phase != Phase::Ready || unit.fresh {
        let why = match unit.backoff.why.as_str() {
            "" => "it has not been looked at yet".to_owned(),
            why => why.to_owned(),
        };
        let since = oldest.unwrap_or(seen);
        total += 1;
        behind.push(Behind { key: unit.name.0.clone(), since, why, hosts: Vec::new() });
    } else if let Some(hold) = unit.hold.as_ref().filter(|_| total == 0) {
        // Held although nothing is to be changed: where the ledger speaks of, it stands as it was last made.
        let written = unit.items.values().filter_map(|item| Some(item.entry.as_ref()?.revision));
        let since = written.max().unwrap_or(seen);
        total = 1;
        behind.push(Behind { key: unit.name.0.clone(), since, why: hold.why.clone(), hosts: Vec::new() });
    }
    if unit.facts.are_due() {
        // Whoever hears of them may have something to do: who waits for that would be told too soon that all is done, or,
        // where all else is held, that it waits for a person.
        total += 1;
        let why = "what is to be said of it is not committed yet".to_owned();
        behind.push(Behind { key: unit.name.0.clone(), since: seen, why, hosts: Vec::new() });
    }
    behind.sort_by_key(|b| b.since);
    behind.truncate(MAX_BEHIND);
    let left_out_total: usize = unit.left_out.values().map(Vec::len).sum();
    UnitStatus {
        items: unit.entries as u64,
        behind,
        behind_total: total as u64,
        held_total: held_total as u64,
        left_out: unit.left_out().take(MAX_BEHIND).collect(),
        left_out_total: left_out_total as u64,
        elsewhere: false,
        clashes_total: clashes(unit).count() as u64,
        clashes: clashes(unit).take(MAX_CLASHES).filter_map(|(key, planned)| clash(key, planned)).collect(),
        held: unit.hold.clone(),
        failing: (unit.backoff.failures > 0).then(|| unit.backoff.why.clone()),
    }
}

/// What is there and not Shoal's, where something of Shoal's should be.
fn clashes<A: Agent>(unit: &State<A>) -> impl Iterator<Item = (&A::Key, &Planned<A>)> {
    let held = unit.open.iter().filter(|(_, open)| matches!(open.trouble, Trouble::Held(_)));
    let planned = held.filter_map(|(key, open)| Some((key, open.planned.as_deref()?)));
    planned.filter(|(_, planned)| planned.verb == ADOPT)
}

fn clash<A: Agent>(key: &A::Key, planned: &Planned<A>) -> Option<Clash> {
    let (have, want) = (planned.from.as_deref()?, planned.to.as_deref()?);
    Some(Clash {
        key: key.to_string(),
        there: serde_json::to_value(have).ok()?,
        wanted: serde_json::to_value(want).ok()?,
        digest: clash_digest::<A>(key, have, want),
    })
}

fn hosts<A: Agent>(item: &Item<A>) -> Vec<HostName> {
    let recorded = item.entry.iter().flat_map(|entry| &entry.from);
    let mut hosts: Vec<HostName> =
        item.sources.iter().chain(recorded).filter_map(|id| id.1.clone()).collect();
    hosts.sort();
    hosts.dedup();
    hosts.truncate(3);
    hosts
}
