//! Who is made: for slots that nobody has, and in the places of those that are gone.

use shoal_core::{Host, HostName, Lifecycle, MAX_ROW};

use super::{Act, Work, leaves};
use crate::holder;
use crate::member;
use crate::ranges::{Held, RANGES};
use crate::read::called;
use crate::spec::MOST;
use crate::state::{BEFORE, FULL, Slot};
use crate::victims;

impl Work<'_> {
    /// Makes so many more.
    pub(super) fn grow(&mut self, more: usize, why: &str) {
        if more > 0 && !self.group.missing.is_empty() {
            let missing: Vec<&str> = self.group.missing.iter().map(|tag| tag.as_str()).collect();
            let why = format!(
                "held: its members are to be in {}, which is not there: make that first",
                missing.join(", ")
            );
            return self.wait(None, why, true);
        }
        let mut made = 0;
        let mut octets = self.state.octets();
        for slot in self.group.spec.slots.first..=self.group.spec.slots.first.saturating_add(2 * MOST) {
            if made >= more {
                return;
            }
            if self.state.slots.contains_key(&slot) || self.touched.contains(&slot) {
                continue;
            }
            let host = match self.group.spec.name(slot) {
                Ok(host) => host,
                Err(why) => return self.wait(None, format!("held: slot {slot}: {why}"), true),
            };
            // What is refused for one is refused for the next, and only so many are looked for one by one.
            if self.is_kept(&host, None) {
                return;
            }
            let stands = self.view.host(host.as_str());
            match stands.map(|host| host.state) {
                None | Some(Lifecycle::Retired) => {}
                Some(state) => {
                    let why = format!(
                        "held: slot {slot} is passed over: there is a host {host} that is {state} and has no slot here; it has this one if it \
                         says `placement: {{group: {}, slot: {slot}}}`",
                        self.group.tag
                    );
                    self.wait(Some(&host), why, true);
                    continue;
                }
            }
            if let Some((range, what, by)) = self.left(slot) {
                let why = format!(
                    "held: slot {slot} is passed over: {what} of {RANGES}/{range} stands as held for it by {by}, whose machine may live; if that \
                     is gone: `shoal range free {range} {what}`"
                );
                self.wait(Some(&host), why, true);
                continue;
            }
            if octets > FULL {
                let why = format!(
                    "held: what is remembered of it fills a row ({octets} octets of {MAX_ROW}): make another group beside it"
                );
                return self.wait(None, why, true);
            }
            if !self.make(slot, &host, stands, false, why) {
                return;
            }
            octets += self.state.slots.get(&slot).map_or(0, Slot::octets);
            made += 1;
        }
    }

    /// What a slot that nobody has still holds for somebody who is not known to be gone, and of which range: its group was there before, say,
    /// and was deleted together with the host.
    fn left(&self, slot: u32) -> Option<(String, String, HostName)> {
        let lives = |held: &Held| holder::state(self.view, &held.host) != Some(Lifecycle::Retired);
        self.ranges.left(&self.group.tag, slot, lives)
    }

    /// Has a machine made for a slot.
    pub(super) fn make(
        &mut self,
        slot: u32,
        host: &HostName,
        stands: Option<&Host>,
        again: bool,
        why: &str,
    ) -> bool {
        if self.steps.len() >= self.at.most {
            self.more = true;
            return false;
        }
        let group = self.group;
        let shares = group.spec.sites();
        // Whoever takes it over finds its disks there, and nowhere else.
        let room = self.state.slots.get(&slot).and_then(|of| of.room.clone());
        let had = self.state.slots.get(&slot).and_then(|of| of.site.clone());
        // Who leaves is as good as gone.
        let stays = |(slot, of): (&u32, &'_ Slot)| {
            (!group.members.get(slot).is_some_and(leaves)).then(|| of.site.clone())
        };
        let sites: Vec<Option<String>> = self.state.slots.iter().filter_map(stays).collect();
        let chosen = || victims::site(&group.spec, &sites, self.at.seed, host.as_str()).map(str::to_owned);
        let site = had.filter(|site| shares.contains_key(site.as_str())).or_else(chosen);
        let by = Held { group: group.tag.clone(), slot, field: String::new(), host: host.clone() };
        // A stranger's leftovers are not taken over.
        let before = stands.filter(|_| again).map(|host| &host.document);
        let pinned = room.as_ref().map(|room| called(self.view, room));
        let at = member::Place { site: site.as_deref(), room: pinned.as_deref() };
        let document = match member::document(group, self.ranges, &by, at, before) {
            Ok(document) => document,
            Err(why) => {
                if !again {
                    self.ranges.give_back(&group.tag, slot);
                }
                self.wait(Some(host), format!("held: slot {slot} of {}: {why}", group.tag), true);
                return false;
            }
        };
        let place = site.as_ref().map(|site| format!(", in {site}")).unwrap_or_default();
        // A host that was deleted is written anew under another id, and its slot's disks know the old one.
        let mut before = self.state.slots.get(&slot).map(|of| of.before.clone()).unwrap_or_default();
        if again && stands.is_none() && !group.spec.slots.disks.is_empty() {
            before.extend(self.state.slots.get(&slot).and_then(|of| of.id.clone()));
            before.drain(..before.len().saturating_sub(BEFORE));
        }
        let id = stands.map(|host| host.id.clone());
        let make = Act::Make { stands: stands.map(|host| host.revision), document, again };
        self.step(slot, host, make, format!("{why}{place}"));
        self.state.slots.insert(
            slot,
            Slot { host: host.clone(), id, site, failed: None, gone: false, fresh: true, room, before },
        );
        true
    }
}
