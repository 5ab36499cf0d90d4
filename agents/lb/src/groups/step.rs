//! How a target serves, and how it leaves: deregistered, which the group calls draining; gone when its connections are, or the group's delay
//! is over; then that is written down as a fact.
//!
//! What was decided stands in the item's memo, in the ledger. A target that is gone leaves nothing to look at, so what is still to be
//! reported of it is known from the memo alone: a stop at any moment goes on from there.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use shoal_agent::{At, HostName, Moment, Step, Value};

use super::{Groups, Hosts};
use crate::agent::Lb;
use crate::item::{Have, Item, Key};

/// Takes a target out of work.
pub(crate) const DRAIN: &str = "drain";
/// Says that it has drained.
pub(crate) const FINISH: &str = "finish";

/// What is remembered of a target that leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Leaving {
    /// Whose it was.
    pub(crate) hosts: Hosts,
    /// It was deregistered, and the group lets it go by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) until: Option<Moment>,
    /// It could not be spared, and is asked about again then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spared: Option<Moment>,
    /// It has drained, and that was written down.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) drained: bool,
}

impl Leaving {
    /// What an item remembers.
    pub(crate) fn of(memo: &Value) -> Option<Self> {
        serde_json::from_value(memo.clone()).ok()
    }

    pub(crate) fn memo(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// What is remembered of a target whose hosts' facts say that it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Told {
    told: BTreeSet<HostName>,
}

impl Told {
    /// Whether the facts of all these were written.
    pub(crate) fn is(memo: &Value, hosts: &Hosts) -> bool {
        let told = serde_json::from_value(memo.clone()).ok();
        told.is_some_and(|told: Self| told.told.iter().eq(hosts.keys()))
    }

    #[cfg(any(feature = "elbv2", test))]
    pub(crate) fn memo(hosts: &Hosts) -> Value {
        serde_json::to_value(Self { told: hosts.keys().cloned().collect() }).unwrap_or_default()
    }
}

/// What to do next about one item.
pub(crate) fn step(groups: &Groups, key: &Key, at: &At<'_, Lb>, now: Moment) -> Step {
    match (at.want, at.have) {
        (Some(Item::Group(want)), Some(Have::Group(have))) => {
            if have.keeps.is_some_and(|least| least != Some(want.least)) {
                // Nothing of it is in AWS: the least number is kept by who changes the group, and forgotten when that ends.
                return Step::Run { verb: "keep", memo: Value::Null };
            }
            let differs = have.differs(want);
            if differs.is_empty() {
                return Step::rest();
            }
            let why = format!(
                "{} says otherwise than its target group, where {}: change the one or the other; its targets come and go meanwhile",
                key.pool,
                differs.join("; ")
            );
            Step::Hold { why }
        }
        // It was not looked at yet.
        (Some(Item::Group(_)), _) => Step::Rest { look_again: Some(now.saturating_add(groups.look)) },
        (Some(Item::Member(want)), Some(Have::Member(have))) => {
            let told = Told::is(at.memo, &want.hosts);
            match (have.draining, told) {
                (false, true) => Step::rest(),
                (false, false) => Step::act("report"),
                (true, _) => Step::act("return"),
            }
        }
        (None, _) if key.at.is_some() => leaves(groups, key, at, now),
        _ => at.by_default(),
    }
}

/// What to do next about a target that nobody wants any more.
fn leaves(groups: &Groups, key: &Key, at: &At<'_, Lb>, now: Moment) -> Step {
    let leaving = Leaving::of(at.memo);
    let last = at.last.or_else(|| at.tried.last().copied());
    let fresh = || match last {
        Some(Item::Member(member)) => {
            Some(Leaving { hosts: member.hosts.clone(), until: None, spared: None, drained: false })
        }
        _ => None,
    };
    let Some(Have::Member(have)) = at.have else {
        // It is gone. Of one that was never seen there is nothing to say.
        let known = at.last.is_some() || leaving.is_some();
        return match leaving.or_else(fresh).filter(|leaving| known && !leaving.drained) {
            Some(leaving) => Step::Act { verb: FINISH, memo: leaving.memo() },
            None => Step::rest(),
        };
    };
    let Some(leaving) = leaving.filter(|leaving| !leaving.drained).or_else(fresh) else {
        return Step::act(DRAIN);
    };
    let memo = leaving.memo();
    match leaving {
        Leaving { until: Some(until), hosts, .. } if have.draining => {
            let why = format!("draining of {}, {}", names(&hosts, key), left(until, now));
            let look = now.saturating_add(groups.look);
            Step::Wait { until: Some(if until > now { until.min(look) } else { look }), why, memo }
        }
        Leaving { spared: Some(again), hosts, .. } if !have.draining && now < again => {
            let why =
                format!("{} to have a target to spare before {} may leave", key.pool, names(&hosts, key));
            Step::Wait { until: Some(again), why, memo }
        }
        _ => Step::Act { verb: DRAIN, memo },
    }
}

fn left(until: Moment, now: Moment) -> String {
    match until.saturating_sub(now).saturating_add(999) / 1000 {
        left if left > 0 => format!("at most {left} s"),
        _ => "longer than the delay of its group".to_owned(),
    }
}

fn names(hosts: &Hosts, key: &Key) -> String {
    let names: Vec<&str> = hosts.keys().map(HostName::as_str).collect();
    match (&names[..], &key.at) {
        ([], Some(at)) => at.to_string(),
        _ => names.join(" and "),
    }
}
