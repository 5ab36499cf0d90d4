//! The pure agent: tags under `dns/` into names with records.

use std::collections::BTreeSet;

use shoal_agent::{Agent, At, Blocked, Desired, Known, Look, Moment, Seen, Source, Step, Unit};

use crate::merge;
use crate::offer::Offers;
use crate::rdata::Rtype;
use crate::record::{Have, Key, Node};
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

    fn step(&self, key: &Key, at: At<'_, Self>, _now: Moment) -> Step {
        match at
            .have
            .and_then(|have| have.foreign_set(&Known { want: at.want, last: at.last, tried: at.tried }))
        {
            Some(rtype) => Step::Clash {
                why: format!("{} has a {rtype} record already that Shoal did not make", key.name()),
            },
            None => at.by_default(),
        }
    }
}

#[cfg(test)]
mod tests;
