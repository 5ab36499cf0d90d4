//! What a program that chooses says of itself: plans, reports, and how it ends.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;
use shoal_core::{Behind, Epoch, Hold, MAX_BEHIND, Namespace, Quarantined, Revision, Status, UnitStatus};
use shoal_engine::{Moment, Sizes, Verdict};

use super::{Choice, Chosen};

/// What `--plan` prints as JSON.
#[derive(Serialize)]
pub(super) struct Plan<'a> {
    agent: &'a str,
    revision: Revision,
    chosen: &'a [Chosen],
    behind: &'a [Behind],
    quarantined: &'a [Quarantined],
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<&'a Hold>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'a [String],
}

impl<'a> Plan<'a> {
    pub(super) fn new(agent: &'a str, revision: Revision, choice: &'a Choice) -> Self {
        let Choice { chosen, behind, quarantined, hold, notes, .. } = choice;
        Self { agent, revision, chosen, behind, quarantined, hold: hold.as_ref(), notes }
    }

    /// The same for people.
    pub(super) fn text(&self) -> String {
        let mut out = format!("{} at revision {}\n", self.agent, self.revision);
        for chosen in self.chosen {
            let _ = writeln!(out, "  {chosen}");
        }
        for Behind { key, why, .. } in self.behind {
            let _ = writeln!(out, "  . {key}: {why}");
        }
        for Quarantined { what, why, since } in self.quarantined {
            let _ = writeln!(out, "quarantined {what} since revision {since}: {why}; it is left as it is");
        }
        if let Some(hold) = self.hold {
            let _ = writeln!(out, "held: {}\nagree with digest {}", hold.why, hold.digest);
        }
        if self.chosen.is_empty() && self.behind.is_empty() && self.hold.is_none() {
            out.push_str("nothing to choose\n");
        }
        for note in self.notes {
            let _ = writeln!(out, "  - {note}");
        }
        out
    }
}

/// How things stand, as `--once` ends.
pub(super) fn verdict(choice: &Choice) -> Verdict {
    if choice.more {
        Verdict::Busy
    } else if choice.held > 0 || choice.hold.is_some() || !choice.quarantined.is_empty() {
        Verdict::Held
    } else if choice.behind.is_empty() {
        Verdict::Converged
    } else {
        Verdict::Waiting
    }
}

pub(super) fn sizes(choice: &Choice) -> Sizes {
    let queue = if choice.more { choice.behind.len() } else { 0 };
    Sizes { items: choice.items, behind: choice.behind.len(), queue, left_out: 0 }
}

/// What is held and of no one host, such as a group that calls a person: what began since `before`, and what is over. Of hosts there may be many, and the report
/// names them.
pub(super) fn holds<'c>(before: &'c Choice, now: &'c Choice) -> (Vec<&'c Behind>, Vec<&'c Behind>) {
    let held = |one: &&Behind| one.hosts.is_empty() && one.why.starts_with("held:");
    let same = |one: &Behind, other: &Behind| one.key == other.key && one.why == other.why;
    let begun = now.behind.iter().filter(held).filter(|one| !before.behind.iter().any(|was| same(was, one)));
    let is_held = |key: &str| now.behind.iter().filter(held).any(|one| one.key == key);
    let over = before.behind.iter().filter(held).filter(|was| !is_held(&was.key));
    (begun.collect(), over.collect())
}

/// Who reports, and until when its word is good.
pub(super) struct Speaker<'a> {
    pub(super) agent: &'a Namespace,
    pub(super) instance: &'a str,
    pub(super) epoch: Epoch,
    pub(super) now: Moment,
    /// `None`: it ended on purpose, and this is its last word.
    pub(super) expires: Option<Moment>,
}

/// What is said to the store. The whole fleet is one unit, of the agent's name.
pub(super) fn status(
    speaker: &Speaker<'_>,
    seen: Revision,
    choice: &Choice,
    failing: Option<&str>,
) -> Status {
    let time = |at: Moment| jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let mut behind = choice.behind.clone();
    behind.sort_by(|a, b| (a.since, &a.key).cmp(&(b.since, &b.key)));
    behind.truncate(MAX_BEHIND);
    let unit = UnitStatus {
        items: choice.items as u64,
        behind,
        behind_total: choice.behind.len() as u64,
        held_total: choice.held as u64,
        held: choice.hold.clone(),
        failing: failing.map(str::to_owned),
        ..UnitStatus::default()
    };
    let mut quarantined = choice.quarantined.clone();
    quarantined.truncate(MAX_BEHIND);
    Status {
        agent: speaker.agent.clone(),
        instance: speaker.instance.to_owned(),
        epoch: speaker.epoch,
        seen,
        at: time(speaker.now),
        expires: speaker.expires.map(time),
        units: BTreeMap::from([(speaker.agent.to_string(), unit)]),
        quarantined,
        quarantined_total: choice.quarantined.len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_of_no_one_host_begins_and_is_over_once() {
        let behind = |key: &str, why: &str, since: u64| Behind {
            key: key.to_owned(),
            since: Revision(since),
            why: why.to_owned(),
            hosts: Vec::new(),
        };
        let choice = |behind: Vec<Behind>| Choice { behind, ..Choice::default() };
        let of_host = Behind {
            hosts: vec!["web1.example.com".parse().unwrap()],
            ..behind("web1.example.com", "held: paused: x", 1)
        };
        let waits = behind("vm/web", "waiting: others", 1);
        let none = choice(vec![of_host, waits]);
        let (three, again) = (behind("vm/web", "held: 3 of 5", 1), behind("vm/web", "held: 3 of 5", 2));
        let four = behind("vm/web", "held: 4 of 5", 2);
        let (one, two, more) = (choice(vec![three.clone()]), choice(vec![again]), choice(vec![four.clone()]));
        assert_eq!(holds(&Choice::default(), &none), (vec![], vec![]));
        assert_eq!(holds(&none, &one), (vec![&three], vec![]));
        assert_eq!(holds(&one, &two), (vec![], vec![]));
        assert_eq!(holds(&two, &more), (vec![&four], vec![]));
        assert_eq!(holds(&more, &none), (vec![], vec![&four]));
    }
}
