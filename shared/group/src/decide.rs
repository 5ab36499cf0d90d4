//! What is to be done next for a group: a function of what stands in the database and of the time.
//!
//! * **A slot is its member's until the host is `retired`.** Whoever made the machine says so, or a person, or (where the group says `quarantine`) the
//!   time. Only then another takes the slot over: the same host, under the same name, with the same numbers and addresses.
//! * **Members go in two steps.** They drain with a named reason, and are forgotten when they are retired.
//! * **Members that are not what the group says by now** are replaced one after the other, where it says so.
//! * **Several at once** is no failure of machines: a person is called where more than a share looks dead, and nothing is done while it does. It is
//!   over with its cause, whoever or whatever ended that: nobody has to agree to what is so no longer.
//! * **One group that is refused** hinders nobody else: after a few refusals nothing more is tried for it.
//!
//! Nothing is written here. What a step rests on is for whoever commits it: the tag, the hosts, and that no fact of placement changed.

mod grow;
mod renew;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use shoal_core::{Document, HostName, Lifecycle, Revision, View};
use shoal_machine::Wish;

use crate::ranges::Ranges;
use crate::read::{Group, Member};
use crate::size::{Size, size};
use crate::state::State;
use crate::victims::{self, Seat};

/// Where what is to be written about so many of a group is refused, nothing more is done for it before a person was there.
const REFUSED: usize = 3;

/// When, and with what besides, it is decided.
#[derive(Clone, Copy, Debug)]
pub struct At<'a> {
    /// The time.
    pub now: Timestamp,
    /// What the group's metric measured; `None`: nobody looked.
    pub measured: Option<&'a Result<f64, String>>,
    /// Breaks ties.
    pub seed: u64,
    /// So many steps at most.
    pub most: usize,
    /// Hosts about which nothing can be written, and why.
    pub refused: Option<&'a BTreeMap<HostName, String>>,
}

/// What is to be done, and how things stand.
#[derive(Clone, Debug)]
pub struct Decision {
    /// How many are wanted, and why.
    pub size: Size,
    /// What is to be done, all of it in one commit.
    pub steps: Vec<Step>,
    /// What is to be remembered from then on.
    pub state: State,
    /// What waits, and for what.
    pub waits: Vec<Wait>,
    /// Whether there is more to do once this is done.
    pub more: bool,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Of which slot.
    pub slot: u32,
    /// To whom.
    pub host: HostName,
    /// What.
    pub act: Act,
    /// Why.
    pub why: String,
}

/// What is done.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// The host is `requested`, with this document, and a member of the group's tag and of those that members get at birth.
    Make {
        /// The revision of the host that stands there and is made anew; `None`: nothing stands there.
        stands: Option<Revision>,
        /// What it says.
        document: Document,
        /// Whether it takes the slot over from a predecessor.
        again: bool,
    },
    /// It drains, and is destroyed then, for this reason.
    Drain(Wish),
    /// It is `retired`: it counts as gone.
    Retire,
    /// It stays: a reason to be destroyed that a group gave it, and of which nothing came, is taken back.
    Keep,
    /// The slot is given up with all that it has; the host is retired.
    Release,
}

/// What waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Who; `None`: the group.
    pub host: Option<HostName>,
    /// Why.
    pub why: String,
    /// Whether a person is waited for.
    pub held: bool,
}

/// Decides. What it takes of ranges is taken for whoever is decided for after it.
///
/// Costs time in proportion to the members, and for those that go to the square of their number.
#[must_use]
pub fn decide(view: &View, group: &Group, ranges: &mut Ranges, at: &At<'_>) -> Decision {
    let mut work = Work {
        view,
        group,
        ranges,
        at,
        state: group.state.clone(),
        steps: Vec::new(),
        waits: Vec::new(),
        touched: BTreeSet::new(),
        refused: BTreeSet::new(),
        out: 0,
        well: 0,
        more: false,
    };
    let sources = group.spec.replace.sources;
    work.well = group.members.values().filter(|member| member.is_well(sources)).count();
    work.out = group.members.values().filter(|member| is_out(member)).count();
    let before = work.state.clone();
    let active = u32::try_from(work.well).unwrap_or(u32::MAX);
    let mut size = size(&group.spec, &mut work.state, active, at.measured, at.now);
    if group.expires.is_some_and(|end| end <= at.now) {
        let why = "its time is over".to_owned();
        size = Size { wanted: 0, why, by_document: false, waits: false, ahead: Vec::new() };
    }
    if let Some(why) = &group.paused {
        work.state = before;
        work.wait(None, format!("held: paused: {why}"), true);
        return work.decided(size);
    }
    work.stamp();
    if let Some(why) = work.alarm() {
        work.wait(None, why, true);
        return work.decided(size);
    }
    let wanted = size.wanted as usize;
    let kept = work.shrink(wanted, &size.why);
    work.replace();
    work.keep();
    work.renew(wanted);
    work.grow(wanted.saturating_sub(kept), &size.why);
    work.decided(size)
}

/// Whether it is out of service for a while.
fn is_out(member: &Member) -> bool {
    member.state == Some(Lifecycle::Draining) || member.state == Some(Lifecycle::Retired) && !leaves(member)
}

/// Whether it leaves for good: its slot does not count any more.
fn leaves(member: &Member) -> bool {
    member.wish == Some(Wish::Shrunk)
        && matches!(member.state, Some(Lifecycle::Draining | Lifecycle::Retired))
}

struct Work<'a> {
    view: &'a View,
    group: &'a Group,
    ranges: &'a mut Ranges,
    at: &'a At<'a>,
    state: State,
    steps: Vec<Step>,
    waits: Vec<Wait>,
    /// Slots for which something is done already.
    touched: BTreeSet<u32>,
    /// Hosts about which nothing can be written, as far as it was tried.
    refused: BTreeSet<HostName>,
    /// How many are out of service.
    out: usize,
    /// How many serve.
    well: usize,
    more: bool,
}

impl<'a> Work<'a> {
    fn decided(self, size: Size) -> Decision {
        let Self { steps, state, waits, more, .. } = self;
        Decision { size, steps, state, waits, more }
    }

    fn wait(&mut self, host: Option<&HostName>, why: String, held: bool) {
        self.waits.push(Wait { host: host.cloned(), why, held });
    }

    /// Does something, if it may.
    fn step(&mut self, slot: u32, host: &HostName, act: Act, why: String) -> bool {
        if self.steps.len() >= self.at.most {
            self.more = true;
            return false;
        }
        self.touched.insert(slot);
        self.steps.push(Step { slot, host: host.clone(), act, why });
        true
    }

    /// Whether nothing may be written about the host; it is named then. Nor about any other, once enough of the group were refused.
    fn is_kept(&mut self, host: &HostName, paused: Option<&String>) -> bool {
        if let Some(why) = paused {
            self.wait(Some(host), format!("held: paused: {why}"), true);
            return true;
        }
        let Some(why) = self.at.refused.and_then(|refused| refused.get(host)) else {
            return self.refused.len() >= REFUSED;
        };
        self.refused.insert(host.clone());
        self.wait(Some(host), format!("held: what is to be written about it is refused: {why}"), true);
        true
    }

    /// Since when each looks dead.
    fn stamp(&mut self) {
        for (slot, member) in &self.group.members {
            let Some(of) = self.state.slots.get_mut(slot) else { continue };
            let reported = member.is_reported(self.group.spec.replace.sources);
            match member.state {
                // Nobody who makes machines ever heard of it, so nobody will say that it is gone.
                None if member.unmade && !of.gone => {
                    let since = self.at.now.duration_since(*of.failed.get_or_insert(self.at.now));
                    let since = Duration::try_from(since).unwrap_or_default();
                    let quarantine = self.group.spec.replace.quarantine;
                    of.gone = quarantine.is_some_and(|quarantine| since >= quarantine.0);
                }
                Some(Lifecycle::Draining | Lifecycle::Retired) | None => {}
                Some(state) if state == Lifecycle::Failed || state == Lifecycle::Active && reported => {
                    of.failed.get_or_insert(self.at.now);
                }
                Some(_) => of.failed = None,
            }
        }
    }

    /// Why a person is called: too many look dead at once.
    fn alarm(&self) -> Option<String> {
        let stands =
            |member: &Member| !matches!(member.state, None | Some(Lifecycle::Requested | Lifecycle::Retired));
        let all: Vec<_> = self.group.members.iter().filter(|(_, member)| stands(member)).collect();
        let is_dead = |slot: &u32| self.state.slots.get(slot).is_some_and(|of| of.failed.is_some());
        let dead: Vec<&str> =
            all.iter().filter(|(slot, _)| is_dead(slot)).map(|(_, member)| member.host.as_str()).collect();
        let share = u64::from(self.group.spec.replace.alarm);
        if dead.len() < 2 || dead.len() as u64 * 100 <= share * all.len() as u64 {
            return None;
        }
        let some = dead.iter().take(3).copied().collect::<Vec<_>>().join(", ");
        let more = if dead.len() > 3 { ", …" } else { "" };
        Some(format!(
            "held: {} of {} look dead at once ({some}{more}), more than {share} %: nothing is replaced, made or taken away while \
             they do. Look what they have in common; set those to `retired` that are gone, mend the others, or raise `replace.alarm`",
            dead.len(),
            all.len()
        ))
    }

    fn seats(&self) -> Vec<Seat<'a>> {
        let group = self.group;
        let seats = group.members.iter().filter(|(_, member)| !leaves(member));
        let site = |slot: &u32, member: &'a Member| {
            group.state.slots.get(slot).and_then(|of| of.site.as_deref()).or(member.lies[2].as_deref())
        };
        seats.map(|(slot, member)| Seat { slot: *slot, member, site: site(slot, member) }).collect()
    }

    /// Takes away what is too much, and forgets who is gone for good. Says how many slots still count.
    fn shrink(&mut self, wanted: usize, why: &str) -> usize {
        for (slot, member) in self.group.members.iter().filter(|(_, member)| leaves(member)) {
            match member.state {
                Some(Lifecycle::Retired) if !member.promised => self.release(*slot, member, "it is gone"),
                Some(Lifecycle::Retired) => {
                    self.wait(Some(&member.host), "waiting: its room is given back first".to_owned(), false);
                }
                _ => self.wait(Some(&member.host), "waiting: it leaves, and drains".to_owned(), false),
            }
        }
        let mut seats = self.seats();
        let mut kept: BTreeSet<u32> = BTreeSet::new();
        while seats.len() > wanted {
            let picked = victims::pick(&seats, &self.group.spec, |seat| !kept.contains(&seat.slot));
            let Some((at, first)) = picked else { break };
            let Seat { slot, member, .. } = seats[at];
            if self.is_kept(&member.host, member.paused.as_ref()) {
                kept.insert(slot);
                continue;
            }
            let why = format!("{wanted} are wanted ({why}), and {first}");
            match self.victim(slot, member, wanted, why) {
                Some(true) => {
                    seats.remove(at);
                }
                // Others may go all the same.
                Some(false) => {
                    kept.insert(slot);
                }
                None => break,
            }
        }
        seats.len()
    }

    /// Has one go; `None`: no more now.
    fn victim(&mut self, slot: u32, member: &Member, wanted: usize, why: String) -> Option<bool> {
        let host = &member.host;
        if member.gone {
            self.release(slot, member, &why);
            return Some(true);
        }
        match member.state? {
            Lifecycle::Retired if member.promised => {
                self.wait(Some(host), "waiting: its room is given back first".to_owned(), false);
                return Some(false);
            }
            Lifecycle::Retired => self.release(slot, member, &why),
            // Nobody has made anything of it. One that has its room still was made once.
            Lifecycle::Requested if !member.promised => self.release(slot, member, &why),
            Lifecycle::Requested | Lifecycle::Draining | Lifecycle::Failed => {
                return self.step(slot, host, Act::Drain(Wish::Shrunk), why).then_some(true);
            }
            Lifecycle::Placed | Lifecycle::Building | Lifecycle::Active => {
                let floor = wanted.min(self.group.spec.budget.min_healthy as usize);
                let well = member.is_well(self.group.spec.replace.sources);
                let at_once = self.group.spec.budget.at_once as usize;
                if self.out >= at_once || well && self.well <= floor {
                    let budget = match self.out >= at_once {
                        true => format!("`at_once: {at_once}`"),
                        false => format!("`min_healthy: {}`", self.group.spec.budget.min_healthy),
                    };
                    let why = format!(
                        "waiting: {why}; {} are out of service, {} are well, and its budget is {budget}",
                        self.out, self.well
                    );
                    self.wait(Some(host), why, false);
                    return None;
                }
                if !self.step(slot, host, Act::Drain(Wish::Shrunk), why) {
                    return None;
                }
                self.out += 1;
                self.well -= usize::from(well);
            }
        }
        Some(true)
    }

    fn release(&mut self, slot: u32, member: &Member, why: &str) {
        if self.is_kept(&member.host, member.paused.as_ref()) {
            return;
        }
        if self.step(slot, &member.host, Act::Release, why.to_owned()) {
            self.state.slots.remove(&slot);
            self.ranges.give_back(&self.group.tag, slot);
        }
    }

    /// Has others take the places of those that failed.
    fn replace(&mut self) {
        let replace = &self.group.spec.replace;
        for Seat { slot, member, .. } in self.seats() {
            if self.touched.contains(&slot) {
                continue;
            }
            let host = &member.host;
            let failed = self.state.slots.get(&slot).and_then(|of| of.failed);
            let since =
                failed.map(|then| Duration::try_from(self.at.now.duration_since(then)).unwrap_or_default());
            match (member.state, since) {
                (None, _) if member.gone => self.succeed(slot, host),
                (None, _) => self.lost(slot, member),
                (Some(Lifecycle::Retired), _) if member.promised => {
                    self.wait(Some(host), "waiting: its room is given back first".to_owned(), false);
                }
                (Some(Lifecycle::Retired), _) => {
                    let Some(before) = self.view.host(host.as_str()) else { continue };
                    if !self.is_kept(host, member.paused.as_ref()) {
                        self.make(slot, host, Some(before), true, "its predecessor is gone");
                    }
                }
                (Some(Lifecycle::Draining), Some(since)) if member.wish == Some(Wish::Replaced) => {
                    let over = replace.quarantine.is_some_and(|quarantine| since >= quarantine.0);
                    if over && !self.is_kept(host, member.paused.as_ref()) {
                        let why = format!("it failed {since:.0?} ago, and its quarantine is over");
                        self.step(slot, host, Act::Retire, why);
                    } else {
                        self.wait(
                            Some(host),
                            "waiting: it failed, and is replaced when it is gone".to_owned(),
                            false,
                        );
                    }
                }
                (Some(Lifecycle::Failed | Lifecycle::Active), Some(since)) => {
                    self.failed(slot, member, since);
                }
                _ => {}
            }
        }
    }

    /// Takes back why members were to be destroyed that are active: somebody had them stay. Else whoever drains one later, for a repair, would
    /// lose it. What only people say (`unneeded`) is theirs: they may be about to drain it.
    fn keep(&mut self) {
        for (slot, member) in &self.group.members {
            let said = matches!(member.wish, Some(Wish::Shrunk | Wish::Replaced));
            let stays = said && member.state == Some(Lifecycle::Active) && !self.touched.contains(slot);
            if stays && !self.is_kept(&member.host, member.paused.as_ref()) {
                let why = "it is active, so it is not to be destroyed when it drains next".to_owned();
                self.step(*slot, &member.host, Act::Keep, why);
            }
        }
    }

    fn failed(&mut self, slot: u32, member: &Member, since: Duration) {
        let replace = &self.group.spec.replace;
        let host = &member.host;
        let reported = || member.reports.iter().map(|of| of.as_str()).collect::<Vec<_>>().join(" and ");
        let what = match member.state {
            Some(Lifecycle::Active) => format!("{} report it dead", reported()),
            _ => "it failed".to_owned(),
        };
        if !replace.failed {
            return self.wait(Some(host), format!("held: {what}, and its group replaces nobody"), true);
        }
        if since < replace.after.0 {
            let left = replace.after.0.saturating_sub(since);
            return self.wait(Some(host), format!("waiting: {what}; it is replaced in {left:.0?}"), false);
        }
        if self.out >= self.group.spec.budget.at_once as usize {
            let budget = &self.group.spec.budget;
            let why = format!(
                "waiting: {what}; {} others are out of service, and its budget is `at_once: {}`",
                self.out, budget.at_once
            );
            return self.wait(Some(host), why, false);
        }
        if self.is_kept(host, member.paused.as_ref()) {
            return;
        }
        if self.step(slot, host, Act::Drain(Wish::Replaced), format!("{what} {since:.0?} ago")) {
            self.out += 1;
        }
    }

    /// Has another take over from one whose host is deleted, and whose machine is gone.
    fn succeed(&mut self, slot: u32, host: &HostName) {
        if let Some(other) = self.view.host(host.as_str()) {
            let why = format!(
                "held: the machine that had slot {slot} of {} is gone, and another host, which is {}, is called {host} by now: delete it, or \
                 give it another name",
                self.group.tag, other.state
            );
            return self.wait(Some(host), why, true);
        }
        if !self.is_kept(host, None) {
            self.make(slot, host, None, true, "its host is deleted, and its machine is gone");
        }
    }

    fn lost(&mut self, slot: u32, member: &Member) {
        let host = &member.host;
        let never = if member.unmade { ", though it was never seen with a room" } else { "" };
        let id = self.state.slots.get(&slot).and_then(|of| of.id.as_ref());
        let id = id.map(|id| format!(", `id: {}`", id.0)).unwrap_or_default();
        let why = format!(
            "held: its host is deleted, and it may live{never}: it keeps slot {slot} of {}. If it is gone, write a host {host} with \
             `state: retired`{id}",
            self.group.tag
        );
        self.wait(Some(host), why, true);
    }
}
