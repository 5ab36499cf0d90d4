//! Members that are not what their group says by now, where it says `drift: replace`: others take their places, within the budget.
//!
//! What a machine was made of is what its maker reports of it; what it needs stands on its host, as it was placed. Of a machine that nobody
//! reports of, nobody knows that it is otherwise. A slot's disks are no reason: they outlive the machine. A new one that does not come up holds up all further ones: so a bad image costs as many
//! machines as the budget lets go at once.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shoal_core::{Document, Fact, Lifecycle, View};
use shoal_machine::{Disk, Machine, NAMESPACE, Network, Spec, Wish, Word, place};

use super::{Act, Work};
use crate::member;
use crate::ranges::Ranges;
use crate::read::{Group, Member};
use crate::victims::Seat;

impl Work<'_> {
    /// Has others take the places of those that are not what the group says.
    pub(super) fn renew(&mut self, wanted: usize) {
        if !self.group.renews {
            return;
        }
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
    if member.document.field(place::SIZE).is_some_and(|size| size != json!(group.spec.size)) {
        return Some("its group says another `size` by now".to_owned());
    }
    let facts = view.facts(member.host.as_str());
    let made = facts.iter().find(|fact| fact.namespace.as_str() == NAMESPACE)?;
    let own = member.document.field(NAMESPACE).unwrap_or_default();
    let image = said(&own, &group.made, "image").or_else(|| text(&member.document, "image"));
    let provider = said(&own, &group.made, "provider");
    differs(made, "image", image)
        .or_else(|| differs(made, "provider", provider))
        .or_else(|| rewired(view, group, ranges, site, member, made))
}

/// Whether its networks or its own disks are others than its host and its group say by now.
fn rewired(
    view: &View,
    group: &Group,
    ranges: &Ranges,
    site: Option<&str>,
    member: &Member,
    made: &Fact,
) -> Option<String> {
    let host = view.host(member.host.as_str())?;
    let said = view.effective_document(&group.tag, Some(&host.name))?;
    let now = Machine::new(&said.document.to::<Spec>().ok()?, host).ok()?;
    if let Some(had) = made_of::<Vec<Network>>(made, "networks") {
        // Where they have the slot's addresses they stand on the host, as its group said when it was made.
        let drawn = member::networks(group, ranges, site, &member.document);
        if had != now.networks || drawn.is_some_and(|drawn| drawn != had) {
            return Some("its group says other `networks` by now".to_owned());
        }
    }
    let had = made_of::<BTreeMap<Word, Disk>>(made, "disks")?;
    let same = had.iter().collect::<BTreeMap<_, _>>() == now.own_disks();
    (!same).then(|| "its group says other `disks` by now".to_owned())
}

/// What its maker says that it was made of; `None`: nothing that can be understood.
fn made_of<T: DeserializeOwned>(made: &Fact, field: &str) -> Option<T> {
    serde_json::from_value(made.document.field(field)?).ok()
}

/// What the host says of itself as a machine, else what its group says of all.
fn said(own: &Value, group: &Document, field: &str) -> Option<String> {
    own.get(field).and_then(Value::as_str).map(str::to_owned).or_else(|| text(group, field))
}

fn text(document: &Document, field: &str) -> Option<String> {
    document.text(field).map(std::borrow::Cow::into_owned)
}

fn differs(made: &Fact, field: &str, wanted: Option<String>) -> Option<String> {
    let (is, wanted) = (text(&made.document, field)?, wanted?);
    (is != wanted).then(|| format!("its {field} is {is}, and its group says {wanted} by now"))
}
