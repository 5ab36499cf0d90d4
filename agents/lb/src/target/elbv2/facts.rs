//! What is reported of hosts: in which pools they serve, and whether they have drained.
//!
//! The fact of a host speaks of all pools, which may be worked on by several instances at once. That it serves or drains is said by
//! what is known already, for it costs a look at no other group. That it has **drained** is said only after a look at each group that it
//! may be in: those that its fact names, in the database or here, those that showed one of its targets, and those of pools that nobody here
//! ever looked at. Where it drains in another one it is said again a little later, until it does not: whichever of the two is written last then
//! says what is so. What a pool has for which the configuration names no group, nobody knows: it is `unknown` there, and has not drained.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};

use serde_json::{Value, json};
use shoal_agent::{Change, Document, Fault, HostName, TagName};

use super::Elbv2;
use super::cloud::Targets;
use crate::groups::{Endpoint, Hosts, Id};

/// How a host stands in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Drained,
    Draining,
    Unknown,
    Serving,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Draining => "draining",
            Self::Unknown => "unknown",
            Self::Serving => "serving",
        }
    }

    fn of(word: &str) -> Self {
        let all = [Self::Drained, Self::Draining, Self::Serving];
        all.into_iter().find(|state| state.word() == word).unwrap_or(Self::Unknown)
    }
}

/// What is to be reported: a target of this pool, what has become of it, and whose it is.
pub(super) struct News<'a> {
    pub(super) at: &'a Endpoint,
    pub(super) state: State,
    pub(super) hosts: &'a Hosts,
}

/// What is reported.
#[derive(Default)]
pub(super) struct Facts {
    pub(super) changes: Vec<Change>,
    /// Of whom nobody can say whether they have drained, and why.
    pub(super) unknown: BTreeMap<HostName, Fault>,
    /// Who drains in another pool.
    pub(super) draining: BTreeSet<HostName>,
}

/// What a fact says of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pools: BTreeMap<String, State>,
    targets: BTreeSet<Endpoint>,
}

impl Said {
    fn read(fact: &Value) -> Self {
        let pools = fact.get("pools").and_then(Value::as_object).into_iter().flatten();
        let pools = pools.map(|(pool, word)| (pool.clone(), State::of(word.as_str().unwrap_or_default())));
        let targets = fact.get("targets").cloned().and_then(|targets| serde_json::from_value(targets).ok());
        Self { pools: pools.collect(), targets: targets.unwrap_or_default() }
    }

    /// What may be so by this or by that.
    fn or(mut self, other: &Self) -> Self {
        for (pool, state) in &other.pools {
            let known = self.pools.entry(pool.clone()).or_insert(*state);
            *known = (*known).max(*state);
        }
        self.targets.extend(other.targets.iter().cloned());
        self
    }

    /// Whether it drains in another pool than this.
    fn drains_beside(&self, pool: &str) -> bool {
        self.pools.iter().any(|(name, state)| name != pool && *state == State::Draining)
    }

    fn document(&self) -> Document {
        let drained = self.pools.values().all(|state| *state == State::Drained);
        let words: BTreeMap<_, _> = self.pools.iter().map(|(pool, state)| (pool, state.word())).collect();
        Document::from(json!({"drained": drained, "pools": words, "targets": self.targets}))
    }
}

/// How a host stands in a group, if it does, and by which targets.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stands {
    state: Option<State>,
    targets: Vec<Endpoint>,
}

fn stands(targets: &Targets, ids: &BTreeSet<Id>) -> Stands {
    let mut stands = Stands::default();
    for id in ids {
        let end = |port| Endpoint { id: id.clone(), port };
        for (at, health) in targets.range(end(0)..=end(u16::MAX)) {
            let state = if health.draining { State::Draining } else { State::Serving };
            stands.state = stands.state.max(Some(state));
            stands.targets.push(at.clone());
        }
    }
    stands
}

/// The looks at other groups that were made for one batch.
type Looks = BTreeMap<String, Result<(), Fault>>;

impl Elbv2 {
    /// One fact for each host that there is news of. `own`: what the group of this pool holds after what was done.
    pub(super) async fn facts(&self, pool: &str, own: &Targets, news: &[News<'_>]) -> Facts {
        let mut hosts: BTreeMap<&HostName, (BTreeSet<Id>, State)> = BTreeMap::new();
        for one in news {
            for (host, ids) in one.hosts {
                let (known, state) = hosts.entry(host).or_insert_with(|| (BTreeSet::new(), one.state));
                known.extend(ids.iter().cloned());
                known.insert(one.at.id.clone());
                *state = one.state.max(*state);
            }
        }
        let (mut facts, mut looks) = (Facts::default(), Looks::new());
        for (host, (ids, state)) in hosts {
            loop {
                let told = self.all_told().get(host).cloned();
                let said = self.said(pool, own, (host, told.as_ref()), ids.clone(), state, &mut looks).await;
                match said {
                    // Meanwhile something was said of it for another pool, which may count here.
                    Ok(said) if !self.tell(host, told.as_ref(), &said) => {}
                    Ok(said) => {
                        let key = format!("facts/lb/{host}").parse().ok();
                        facts.changes.extend(key.map(|key| Change::put(key, said.document())));
                        if said.drains_beside(pool) {
                            facts.draining.insert(host.clone());
                        }
                        break;
                    }
                    Err(fault) => {
                        facts.unknown.insert(host.clone(), fault);
                        break;
                    }
                }
            }
        }
        facts
    }

    /// Remembers what is reported of a host, if nothing else was since `before`.
    fn tell(&self, host: &HostName, before: Option<&Said>, said: &Said) -> bool {
        let mut all = self.all_told();
        let same = all.get(host) == before;
        if same {
            all.insert(host.clone(), said.clone());
        }
        same
    }

    /// What is so of a host, by these ids and by those that were reported of it before.
    ///
    /// # Errors
    /// It has drained in this pool, and another one where it may serve cannot be looked at.
    async fn said(
        &self,
        pool: &str,
        own: &Targets,
        (host, told): (&HostName, Option<&Said>),
        mut ids: BTreeSet<Id>,
        state: State,
        looks: &mut Looks,
    ) -> Result<Said, Fault> {
        let known = self.known(host, told).await;
        if let (Ok(known), true) = (&known, state != State::Serving) {
            // It may be somebody else by now, and serve as such.
            ids.extend(known.targets.iter().map(|at| at.id.clone()));
        }
        let here = stands(own, &ids);
        // It may have another target there, which stays.
        let state = here.state.map_or(state, |here| here.max(state));
        let ends = state == State::Drained;
        let known = if ends { known? } else { known.unwrap_or_default() };
        let pools = BTreeMap::from([(pool.to_owned(), state)]);
        let mut said = Said { pools, targets: here.targets.into_iter().collect() };
        for name in self.settings.groups.keys().filter(|name| *name != pool) {
            let before = known.pools.get(name).copied().filter(|state| *state != State::Drained);
            match self.elsewhere(name, &ids, before.is_some(), ends, looks).await {
                Ok(there) => {
                    // What was not looked at now may have been so for a moment only.
                    let state = there.state.or(before.filter(|_| !ends));
                    said.pools.extend(state.map(|state| (name.clone(), state)));
                    said.targets.extend(there.targets);
                }
                Err(fault) if ends => return Err(fault),
                Err(_) => said.pools.extend(before.map(|state| (name.clone(), state))),
            }
        }
        let unbound = |(name, state): &(String, State)| {
            *state != State::Drained && name != pool && !self.settings.groups.contains_key(name)
        };
        let unbound = known.pools.into_iter().filter(unbound);
        said.pools.extend(unbound.map(|(name, _)| (name, State::Unknown)));
        Ok(said)
    }

    /// How a host stands in the group of another pool. `named`: something was said of it there. `ends`: it has to be known, so it is looked
    /// at now where it may be there.
    async fn elsewhere(
        &self,
        pool: &str,
        ids: &BTreeSet<Id>,
        named: bool,
        ends: bool,
        looks: &mut Looks,
    ) -> Result<Stands, Fault> {
        let before = self.remembered(pool, ids);
        let look = match &before {
            Some(before) => ends && (named || before.state.is_some()),
            // A line for a pool that nobody has is no reason to know nothing.
            None => named || (ends && self.tagged(pool).await?),
        };
        if !look {
            return Ok(before.unwrap_or_default());
        }
        if !looks.contains_key(pool) {
            let look = self.now(pool).await.map(drop);
            looks.insert(pool.to_owned(), look);
        }
        if let Some(Err(fault)) = looks.get(pool) {
            return Err(fault.clone());
        }
        let unseen =
            || Fault::new(format!("look at the targets of lb/{pool}"), "another look failed meanwhile");
        self.remembered(pool, ids).ok_or_else(unseen)
    }

    /// How a host stood in the group of a pool when that was last looked at.
    fn remembered(&self, pool: &str, ids: &BTreeSet<Id>) -> Option<Stands> {
        let pools = self.pools();
        let seen = pools.get(pool)?.seen.as_ref()?;
        Some(stands(seen, ids))
    }

    async fn now(&self, pool: &str) -> Result<Targets, Fault> {
        let found = self.find(pool, false).await?;
        self.targets(pool, &found).await
    }

    async fn tagged(&self, pool: &str) -> Result<bool, Fault> {
        let tag = TagName::new("lb", pool).map_err(|e| Fault::new(format!("find the pool {pool}"), e))?;
        self.base.tag(&tag).await
    }

    fn all_told(&self) -> MutexGuard<'_, BTreeMap<HostName, Said>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was last reported of a host, by anybody, and here (`told`): that may not stand in the database yet.
    async fn known(&self, host: &HostName, told: Option<&Said>) -> Result<Said, Fault> {
        let fact = self.base.fact("lb", host.as_str()).await?;
        let said = fact.as_ref().map(Said::read).unwrap_or_default();
        Ok(match told {
            Some(told) => said.or(told),
            None => said,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "this is test code")]

    use super::super::cloud::Health;
    use super::*;

    #[test]
    fn a_host_stands_in_a_group_by_any_of_its_ids() {
        let health = |draining| Health { draining, serves: !draining, zone: None };
        let at = |text: &str| Endpoint::try_from(text.to_owned()).unwrap();
        let targets = Targets::from([
            (at("192.0.2.1:80"), health(true)),
            (at("192.0.2.1:81"), health(false)),
            (at("192.0.2.2:80"), health(true)),
            (at("i-01234567:1"), health(false)),
        ]);
        let state = |ids: &[&str]| {
            let ids = ids.iter().map(|id| id.parse().unwrap()).collect();
            let stands = stands(&targets, &ids);
            (stands.state, stands.targets.len())
        };
        assert_eq!(state(&["192.0.2.2"]), (Some(State::Draining), 1));
        assert_eq!(state(&["192.0.2.1"]), (Some(State::Serving), 2));
        assert_eq!(state(&["192.0.2.2", "i-01234567"]), (Some(State::Serving), 2));
        assert_eq!(state(&["192.0.2.3", "i-0123456789"]), (None, 0));
    }

    #[test]
    fn what_was_said_is_read_again_and_the_larger_word_of_two_counts() {
        let fact = json!({
            "drained": false,
            "pools": {"api": "serving", "old": "drained", "odd": "what"},
            "targets": ["192.0.2.1:80"],
        });
        let said = Said::read(&fact);
        assert_eq!(said.pools["odd"], State::Unknown);
        assert_eq!(said.clone().or(&Said::default()), said);
        assert!(!said.drains_beside("web"));
        let other =
            Said::read(&json!({"pools": {"api": "drained", "old": "draining"}, "targets": ["192.0.2.2:80"]}));
        let both = other.or(&said);
        assert_eq!((both.pools["api"], both.pools["old"]), (State::Serving, State::Draining));
        assert!(both.drains_beside("web") && !both.drains_beside("old"));
        assert_eq!(both.targets.len(), 2);
        assert_eq!(Said::read(&json!({"pools": 7, "targets": "x"})), Said::default());
    }
}
