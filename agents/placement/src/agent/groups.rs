//! Groups: what [`shoal_group`] decides, as a part of a choice.
//!
//! All groups are decided for before anybody is placed, and go into the same commit: it rests on that no fact of placement was written
//! meanwhile, and who has which slot, number and address stands in such facts alone.

use std::collections::BTreeSet;

use shoal_agent::chooser::{Chosen, World};
use shoal_core::{Behind, HostName, Quarantined};
use shoal_group::{Act, At, Decision, Group, Groups, Step, Written, decide, written, written_of};

/// What is done for all groups.
#[derive(Default)]
pub(super) struct Grouped {
    pub(super) written: Written,
    pub(super) chosen: Vec<Chosen>,
    pub(super) behind: Vec<Behind>,
    /// How many of those a person holds.
    pub(super) held: usize,
    pub(super) quarantined: Vec<Quarantined>,
    pub(super) notes: Vec<String>,
    pub(super) more: bool,
}

impl Grouped {
    /// Decides for all groups; no more steps than `world.most`.
    pub(super) fn decide(
        world: &World<'_>,
        mut groups: Groups,
        seed: u64,
        epoch: &str,
    ) -> Result<Self, String> {
        let mut this = Self { quarantined: std::mem::take(&mut groups.trouble), ..Self::default() };
        for group in &groups.groups {
            let left = world.most.saturating_sub(this.chosen.len());
            let measured = group.spec.metric.as_ref().and_then(|metric| world.measured.get(&metric.query));
            let at = At { now: world.now, measured, seed, most: left, refused: world.refused };
            let decision = decide(world.view, group, &mut groups.ranges, &at);
            this.written.and(written(world.view, group, &decision, epoch)?);
            this.told(world, group, decision);
        }
        this.written.and(written_of(world.view, &groups.ranges)?);
        Ok(this)
    }

    fn told(&mut self, world: &World<'_>, group: &Group, decision: Decision) {
        self.notes.push(note(group, &decision));
        let Decision { steps, waits, more, .. } = decision;
        self.more |= more;
        self.chosen.extend(steps.into_iter().map(|step| chosen(group, step)));
        for wait in waits {
            self.held += usize::from(wait.held);
            let since = wait.host.as_ref().and_then(|host| world.view.host(host.as_str()));
            self.behind.push(Behind {
                key: wait.host.as_ref().map_or_else(|| group.tag.to_string(), ToString::to_string),
                since: since.map_or(group.revision, |host| host.revision),
                why: wait.why,
                hosts: wait.host.into_iter().collect(),
            });
        }
    }

    /// The hosts for which something is done.
    pub(super) fn about(&self) -> BTreeSet<HostName> {
        self.written.about.iter().cloned().collect()
    }
}

fn chosen(group: &Group, step: Step) -> Chosen {
    let verb = match &step.act {
        Act::Make { again: false, .. } => "make",
        Act::Make { again: true, .. } => "remake",
        Act::Drain(_) => "drain",
        Act::Keep => "keep",
        Act::Retire => "retire",
        Act::Release => "release",
    };
    let with = match &step.act {
        Act::Drain(wish) => {
            format!("as slot {} of {}, to be destroyed: {}", step.slot, group.tag, worded(*wish))
        }
        _ => format!("as slot {} of {}", step.slot, group.tag),
    };
    Chosen { host: step.host.to_string(), verb, with, why: step.why }
}

fn worded(wish: shoal_machine::Wish) -> &'static str {
    shoal_machine::Reason::Wish(wish).as_str()
}

/// How many are wanted, and what comes if all goes on as it is.
fn note(group: &Group, decision: &Decision) -> String {
    let size = &decision.size;
    let mut note =
        format!("{}: {} wanted ({}), {} there", group.tag, size.wanted, size.why, group.members.len());
    for (after, count) in &size.ahead {
        note += &format!(", then {count} in {after:.0?}");
    }
    note
}
