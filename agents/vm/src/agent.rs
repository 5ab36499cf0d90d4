//! The pure agent: members of tags under `vm/` that have a place into machines of that place.

use std::collections::BTreeSet;

use shoal_agent::{
    Agent, At, Blocked, Desired, Fact, Holder, Host, HostName, Lifecycle, Look, Millis, Moment, Source, Step,
    Unit, Why,
};
use shoal_core::access::Manifest;
use shoal_machine::{Care, DESTROY, Life, Machine, NAMESPACE, Spec, place};

use crate::item::{Have, Item, Key};
use crate::step;

/// Whose facts say whether a host has drained.
const BALANCERS: &str = "lb";

/// The agent. Its unit is the box or zone that machines were placed on.
#[derive(Clone, Debug)]
pub struct Vm {
    /// The boxes and zones where it makes machines. What stands elsewhere is another instance's.
    pub rooms: BTreeSet<HostName>,
    /// How long a machine may take to be made, or started, and to report in before its host has failed, in milliseconds.
    pub starting: Millis,
    /// How long a machine that was asked for may be there and not be seen, in milliseconds: for so long it is not taken for gone.
    pub unseen: Millis,
}

impl Agent for Vm {
    type Spec = Spec;
    type Key = Key;
    type Item = Item;
    type Have = Have;

    fn namespace(&self) -> &str {
        NAMESPACE
    }

    fn overrides(&self) -> Option<schemars::Schema> {
        Some(schemars::schema_for!(Spec))
    }

    fn writes(&self) -> Option<Manifest> {
        Some(Manifest { host_fields: ["state".to_owned()].into(), ..Manifest::default() })
    }

    fn serves(&self, state: Lifecycle) -> bool {
        !matches!(state, Lifecycle::Requested | Lifecycle::Retired)
    }

    fn unit(&self, key: &Key) -> Unit {
        Unit::from(key.room.as_str())
    }

    fn reaches(&self, unit: &Unit) -> bool {
        self.rooms.iter().any(|room| room.as_str() == unit.0)
    }

    fn keys(&self, from: &Source<'_, Spec>) -> Result<Vec<Key>, Blocked> {
        let blocked = |why: String| Blocked::new(from.name(), why);
        let Some(host) = from.host else {
            return match from.spec.destroy {
                None => Ok(Vec::new()),
                Some(_) => {
                    Err(blocked(format!("`{DESTROY}` is for one host to say of itself, and not for a tag")))
                }
            };
        };
        // One that was placed nowhere is nobody's here.
        let Some(room) = place::room(host, from.facts) else { return Ok(Vec::new()) };
        let room: HostName =
            room.parse().map_err(|e| blocked(format!("the box where it was placed: {e}")))?;
        Ok(vec![Key { room, id: host.id.clone() }])
    }

    fn desired(&self, _: &Key, from: &[Source<'_, Spec>], _: &dyn Look) -> Result<Desired<Item>, Blocked> {
        let mut wanted: Option<(String, Item)> = None;
        for source in from {
            let Some(host) = source.host else { continue };
            let item =
                item(source.spec, host, source.facts).map_err(|why| Blocked::new(source.name(), why))?;
            match &wanted {
                None => wanted = Some((source.name(), item)),
                Some((_, first)) if *first == item => {}
                Some((first, _)) => {
                    return Err(Blocked {
                        who: vec![first.clone(), source.name()],
                        why: "these tags make different machines of it: give one of them the word, or override it on the host"
                            .to_owned(),
                    });
                }
            }
        }
        Ok(Desired { item: wanted.map(|(_, item)| item), left_out: Vec::new() })
    }

    fn lets_go(&self, key: &Key, because: &Why, look: &dyn Look) -> Result<(), String> {
        let retired = |host: &Host| host.id == key.id && host.state == Lifecycle::Retired;
        let way = "to destroy a machine, drain its host and say why (`vm: {destroy: unneeded}`), or delete the host";
        match (because, look.holder(&key.id)) {
            // Deleted, also where another host has its name by now.
            (_, Holder::Nobody) | (Why::HostGone(..), Holder::Unknown) => Ok(()),
            (_, Holder::Host(host, facts)) if retired(host) || placed_elsewhere(key, facts) => Ok(()),
            (Why::Lifecycle(name, _), Holder::Unknown) if look.host(name.as_str()).is_some_and(retired) => {
                Ok(())
            }
            _ => Err(format!("{because}, which is no reason to destroy a machine; {way}")),
        }
    }

    fn stands(&self, last: &Item, want: &Item) -> bool {
        last.machine == want.machine
    }

    fn step(&self, _: &Key, at: At<'_, Self>, now: Moment) -> Step {
        step::step(&at, now, self.starting, self.unseen)
    }
}

fn item(spec: &Spec, host: &Host, facts: &[Fact]) -> Result<Item, String> {
    let life = Life::of(host)?;
    let leaves = life.state == Lifecycle::Draining;
    Ok(Item {
        host: host.name.clone(),
        machine: Machine::new(spec, host).map_err(|why| why.to_string())?,
        care: Care::new(spec).map_err(|why| why.to_string())?,
        life,
        stands: place::given(facts).is_none(),
        since: (leaves || life.state == Lifecycle::Placed).then_some(host.revision),
        drained: drained(facts).filter(|_| leaves),
    })
}

/// Whether placement gave the machine another box than this. That it has none, or says itself that it stands elsewhere, is not that.
fn placed_elsewhere(key: &Key, facts: &[Fact]) -> bool {
    place::given(facts).is_some_and(|room| room != key.room.as_str())
}

/// Whether all load balancers that report of a host say that it has drained. What they say and nobody understands is not that.
fn drained(facts: &[Fact]) -> Option<bool> {
    let fact = facts.iter().find(|fact| fact.namespace.as_str() == BALANCERS)?;
    Some(fact.document.field("drained").and_then(|drained| drained.as_bool()).unwrap_or(false))
}

#[cfg(test)]
mod tests;
