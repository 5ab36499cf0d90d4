//! Members that are not what their group says by now, where it says `drift: replace`: others take their places, within the budget.
//!
//! What a machine was made of is what its maker reports of it; what it needs stands on its host, as it was placed. Of a machine that nobody
//! reports of, nobody knows that it is otherwise. A slot's disks are no reason: they outlive the machine. A new one that does not come up holds up all further ones: so a bad image costs as many
//! machines as the budget lets go at once.
//!
//! What a member's own host says goes before what its group says, as it does for whoever makes the machine: so another one is what both ask for.
//! A host can say by itself, too, whether it is replaced. One whose documents make no machine stays: nobody could make another of them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use shoal_core::{Fact, Host, Lifecycle, View};
use shoal_machine::place::{Named, SIZE};
use shoal_machine::{Disk, Drift, Machine, NAMESPACE, Network, Spec, Wish, Word};

use super::{Act, Work};
use crate::member;
use crate::ranges::Ranges;
use crate::read::{Group, Member};
use crate::victims::Seat;

impl Work<'_> {
    /// Has others take the places of those that are not what the group says.
    pub(super) fn renew(&mut self, wanted: usize) {
        let sources = self.group.spec.replace.sources;
        let stands = |seat: &Seat<'_>| seat.member.is_well(sources) && !self.touched.contains(&seat.slot);
        let seats = self.seats();
        let old: Vec<(u32, &Member, String)> = seats
            .iter()
            .filter(|seat| stands(seat))
            .filter_map(|seat| Some((seat.slot, seat.member, self.outdated(seat)?)))
            .collect();
        let (budget, of) = (&self.group.spec.budget, old.len());
        let floor = wanted.min(budget.min_healthy as usize);
        for (slot, member, why) in old {
            let missing = seats.len().saturating_sub(self.well);
            if missing >= budget.at_once as usize || self.well <= floor {
                let why = format!(
                    "waiting: {of} of its members are not what it says ({}: {why}), and {missing} others are not up; {} are well",
                    member.host, self.well
                );
                return self.wait(None, why, false);
            }
            if self.is_kept(&member.host, member.paused.as_ref()) {
                continue;
            }
            if !self.step(slot, &member.host, Act::Drain(Wish::Replaced), why) {
                return;
            }
            self.out += 1;
            self.well -= 1;
        }
    }

    /// In what a member is not what its group says; `None`: in nothing that is known.
    fn outdated(&self, seat: &Seat<'_>) -> Option<String> {
        let site = self.group.state.slots.get(&seat.slot).and_then(|of| of.site.as_deref());
        outdated(self.view, self.group, self.ranges, site, seat.member)
    }
}

fn outdated(
    view: &View,
    group: &Group,
    ranges: &Ranges,
    site: Option<&str>,
    member: &Member,
) -> Option<String> {
    if member.state != Some(Lifecycle::Active) {
        return None;
    }
    let host = view.host(member.host.as_str())?;
    if !is_renewed(view, group, host) {
        return None;
    }
    let said = view.effective_document(&group.tag, Some(&host.name))?;
    let now = Machine::new(&said.document.to::<Spec>().ok()?, host).ok()?;
    if now.size != group.spec.size {
        return Some("its group says another `size` by now".to_owned());
    }
    let facts = view.facts(member.host.as_str());
    let made = facts.iter().find(|fact| fact.namespace.as_str() == NAMESPACE)?;
    // Its host has the group's size, and the machine was there before.
    if made_of::<Named>(made, SIZE).is_some_and(|had| had != now.size) {
        return Some("it was made with another `size`".to_owned());
    }
    differs(made, "image", Some(&now.image))
        .or_else(|| differs(made, "provider", now.provider.as_ref()))
        .or_else(|| rewired(group, ranges, site, member, made, &now))
}

/// Whether another takes its place where it is not what it is to be: its own host's word goes before its group's.
fn is_renewed(view: &View, group: &Group, host: &Host) -> bool {
    #[derive(Deserialize)]
    struct Own {
        drift: Option<Drift>,
    }
    let own = view.override_of(host, NAMESPACE).and_then(|own| serde_json::from_str::<Own>(own).ok());
    own.and_then(|own| own.drift).map_or(group.renews, |drift| drift == Drift::Replace)
}

/// Whether its networks or its own disks are others than its host and its group say by now.
fn rewired(
    group: &Group,
    ranges: &Ranges,
    site: Option<&str>,
    member: &Member,
    made: &Fact,
    now: &Machine,
) -> Option<String> {
    if let Some(had) = made_of::<Vec<Network>>(made, "networks") {
        // Where they have the slot's addresses they stand on the host, as its group said when it was made.
        let drawn = member::networks(group, ranges, site, &member.document);
        if had != now.networks || drawn.is_some_and(|drawn| drawn != had) {
            return Some("its group or its host says other `networks` by now".to_owned());
        }
    }
    let had = made_of::<BTreeMap<Word, Disk>>(made, "disks")?;
    let same = had.iter().collect::<BTreeMap<_, _>>() == now.own_disks();
    (!same).then(|| "its group or its host says other `disks` by now".to_owned())
}

/// What its maker says that it was made of; `None`: nothing that can be understood.
fn made_of<T: DeserializeOwned>(made: &Fact, field: &str) -> Option<T> {
    serde_json::from_value(made.document.field(field)?).ok()
}

fn differs(made: &Fact, field: &str, wanted: Option<&Word>) -> Option<String> {
    let (is, wanted) = (made.document.text(field)?, wanted?);
    (is != wanted.as_str()).then(|| format!("its {field} is {is}, and is to be {wanted} by now"))
}
