//! The pure agent: tags under `dns/` into names with records.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shoal_agent::{Agent, At, Blocked, Desired, Known, Look, Moment, Seen, Source, Step, Unit};

use crate::merge;
use crate::offer::Offers;
use crate::rdata::Rtype;
use crate::record::{Have, Key, Node, Spread};
use crate::spec::{Override, Spec};

/// The DNS agent. It serves members that are active or draining.
#[derive(Clone, Copy, Debug, Default)]
pub struct Dns;

impl Agent for Dns {
    type Spec = Spec;
    type Key = Key;
    type Item = Node;
    type Have = Have;

    fn namespace(&self) -> &str {
        "dns"
    }

    fn overrides(&self) -> Option<schemars::Schema> {
        Some(schemars::schema_for!(Override))
    }

    fn unit(&self, key: &Key) -> Unit {
        Unit::from(key.zone())
    }

    fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<Key>, Blocked> {
        let offers = Offers::of(from, None)?;
        let records = offers.records.into_iter().map(|offer| offer.key);
        let keys: BTreeSet<Key> = records.chain(offers.faults.into_iter().map(|fault| fault.key)).collect();
        Ok(keys.into_iter().collect())
    }

    fn desired(
        &self,
        key: &Key,
        from: &[Source<'_, Spec>],
        _look: &dyn Look,
    ) -> Result<Desired<Node>, Blocked> {
        merge::decide(key, from)
    }

    fn made(&self, item: &Node) -> Option<Have> {
        Some(Have::of(item.clone()))
    }

    fn part(&self, key: &Key, have: &Have, known: Known<'_, Node>) -> Seen<Have> {
        have.part(key, &known)
    }

    fn takes_unit(&self, key: &Key, have: &Have, to: Option<&Node>) -> bool {
        let begins = |node: &Node| node.set(Rtype::SOA).is_some();
        key.is_apex() && begins(&have.records) && !to.is_some_and(begins)
    }

    fn step(&self, key: &Key, at: At<'_, Self>, now: Moment) -> Step {
        match at
            .have
            .and_then(|have| have.foreign_set(&Known { want: at.want, last: at.last, tried: at.tried }))
        {
            Some(rtype) => Step::Clash {
                why: format!("{} has a {rtype} record already that Shoal did not make", key.name()),
            },
            None => spreading(&at, now).unwrap_or_else(|| at.by_default()),
        }
    }
}

/// What is taken and has not come everywhere is waited for; after a restart it is asked about once more, by what was remembered.
fn spreading(at: &At<'_, Dns>, now: Moment) -> Option<Step> {
    if at.want.is_none() && at.have.is_none_or(|have| have.records.sets.is_empty()) {
        return going(at, now);
    }
    let have = at.have.filter(|have| at.want.is_some_and(|want| **have == *want))?;
    match &have.spread {
        Spread::Under { what, pause } => Some(under_way(what, *pause, at.memo, now)),
        Spread::Done => None,
        Spread::Unknown => {
            let memo = Submitted::of(at.memo).filter(|memo| !memo.asked && now < memo.until)?;
            Some(Step::Run { verb: CONFIRM, memo: Submitted { asked: true, ..memo }.memo() })
        }
    }
}

/// The same of what was taken out. It leaves nothing behind that a look would show, so that it went is remembered before it is looked at
/// for the last time. Each step keeps what the first one wrote down: the guard counted the removal then, and does not once more.
fn going(at: &At<'_, Dns>, now: Moment) -> Option<Step> {
    let memo = Submitted::of(at.memo).filter(|memo| memo.gone);
    match (at.have.map(|have| &have.spread), memo) {
        (Some(Spread::Under { what, pause }), _) => Some(under_way(what, *pause, at.memo, now)),
        (Some(Spread::Done), memo) => Some(Step::Wait {
            until: Some(now.saturating_add(1)),
            why: "a last look at what is gone from all name servers".to_owned(),
            memo: memo.map_or_else(|| at.memo.clone(), |memo| Submitted { asked: true, ..memo }.memo()),
        }),
        (_, Some(memo)) if !memo.asked && now < memo.until => {
            Some(Step::Run { verb: CONFIRM, memo: at.memo.clone() })
        }
        // The zone itself stays there.
        (Some(Spread::Unknown), Some(_)) => Some(Step::Act { verb: "remove", memo: at.memo.clone() }),
        _ => None,
    }
}

fn under_way(what: &str, pause: Duration, memo: &Value, now: Moment) -> Step {
    Step::Wait {
        until: Some(now.saturating_add(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX))),
        why: format!("{what} to reach all name servers"),
        memo: memo.clone(),
    }
}

/// What is called asking a service, after a restart, how far a change has come.
pub(crate) const CONFIRM: &str = "confirm";

/// What an item remembers of a change that a service took and spreads by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Submitted {
    /// The change, as the service calls it.
    pub(crate) change: String,
    /// When nobody asks about it any more.
    pub(crate) until: Moment,
    /// Whether it was asked about after a restart, or is known to have come everywhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) asked: bool,
    /// Whether it took out all that was Shoal's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) gone: bool,
}

impl Submitted {
    pub(crate) fn of(memo: &Value) -> Option<Self> {
        Self::deserialize(memo).ok()
    }

    pub(crate) fn memo(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
