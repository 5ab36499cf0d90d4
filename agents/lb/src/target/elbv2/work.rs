//! A batch of changes of one pool: registered and deregistered many in one call.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use aws_sdk_elasticloadbalancingv2::types::TargetDescription;
use shoal_agent::{Applied, Batch, Edit, Fault, Fence, Outcome, Place, TagName, Why};
use shoal_aws::Halves;

use super::Elbv2;
use super::cloud::{Found, MOST, Refusal, Targets, described};
use super::facts::{News, State};
use super::lately::set;
use crate::agent::Lb;
use crate::groups::step::{FINISH, Leaving, Told};
use crate::groups::{Endpoint, Hosts, Id};
use crate::item::{Item, Key};

/// How much longer a group is claimed than a call may take.
const MARGIN: Duration = Duration::from_secs(5);
/// How old the claim may be when a call begins, without being renewed.
const YOUNG: Duration = Duration::from_secs(1);
/// How long another pool's change of the same group is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of each change so far.
type Each = BTreeMap<Key, Outcome>;
/// What is asked for in calls.
type Calls = Vec<(Key, TargetDescription)>;

/// One change of a target.
struct Change<'b> {
    edit: &'b Edit<Lb>,
    at: &'b Endpoint,
}

/// The claim on a group: what is seen of it under this was changed by no other agent of the same database.
struct Held {
    place: Place,
    since: Instant,
}

impl Held {
    async fn keep(&mut self) -> Result<(), Fault> {
        if self.since.elapsed() > YOUNG {
            self.since = Instant::now();
            self.place.renew().await?;
        }
        Ok(())
    }
}

impl Elbv2 {
    /// Makes the changes of a pool.
    pub(in crate::target) async fn apply(
        &self,
        tag: &TagName,
        batch: &Batch<Lb>,
        fence: &Fence,
    ) -> Result<Applied<Lb>, Fault> {
        let name = tag.key();
        let mut each = Each::new();
        let mut changes = Vec::new();
        for edit in &batch.changes {
            match &edit.key.at {
                Some(at) => changes.push(Change { edit, at }),
                None => {
                    self.pools().entry(name.to_owned()).or_default().least = match &edit.to {
                        Some(Item::Group(asked)) => Some(asked.least),
                        _ => None,
                    };
                    each.insert(edit.key.clone(), Outcome::Done);
                }
            }
        }
        if changes.is_empty() {
            return Ok(applied(each, Vec::new()));
        }
        // What is only reported needs no claim.
        let reports = |change: &Change<'_>| change.edit.verb == FINISH || change.edit.verb == "report";
        let (found, mut held, mut targets) = match self.begin(name, changes.iter().all(reports), fence).await
        {
            Ok(begun) => begun,
            // Nothing was asked for.
            Err(fault) => {
                let refused =
                    |change: &Change<'_>| (change.edit.key.clone(), Outcome::Refused(fault.clone()));
                each.extend(changes.iter().map(refused));
                return Ok(applied(each, Vec::new()));
            }
        };
        self.change((name, &found), &changes, fence, held.as_mut(), &mut targets, &mut each).await;
        if let Some(held) = held {
            held.place.release().await;
        }
        self.pools().entry(name.to_owned()).or_default().seen = Some(targets.clone());
        let facts = self.report(name, &targets, &changes, &found, fence, &mut each).await;
        Ok(applied(each, facts))
    }

    /// The group, the claim on it, and what is in it under that.
    ///
    /// # Errors
    /// One of these cannot be had, so nothing is begun.
    async fn begin(
        &self,
        name: &str,
        reports: bool,
        fence: &Fence,
    ) -> Result<(Found, Option<Held>, Targets), Fault> {
        fence.check()?;
        let found = self.find(name, false).await?;
        let held = if reports { None } else { Some(self.claim(name, &found).await?) };
        match (self.targets(name, &found).await, held) {
            (Ok(targets), held) => Ok((found, held, targets)),
            (Err(fault), held) => {
                if let Some(held) = held {
                    held.place.release().await;
                }
                Err(fault)
            }
        }
    }

    async fn claim(&self, name: &str, found: &Found) -> Result<Held, Fault> {
        let end = Instant::now() + PATIENCE;
        loop {
            let since = Instant::now();
            let lease = self.settings.limit() + MARGIN;
            let place = self.base.place("lb", &format!("group/{}", found.arn), 1, lease).await?;
            if let Some(place) = place {
                return Ok(Held { place, since });
            }
            if Instant::now() > end {
                let what = format!("change the target group of lb/{name}");
                return Err(Fault::new(what, "another pool's change of the same group goes on"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Decides by what is there what has to be called, calls, and notes what is there after that.
    async fn change(
        &self,
        (name, found): (&str, &Found),
        changes: &[Change<'_>],
        fence: &Fence,
        mut held: Option<&mut Held>,
        targets: &mut Targets,
        each: &mut Each,
    ) {
        let zone = self.settings.groups.get(name).and_then(|binding| binding.zone.as_deref());
        let mut spare = self.spare(name, targets);
        let (mut come, mut go) = (Calls::new(), Calls::new());
        for Change { edit, at } in changes {
            let key = edit.key.clone();
            match (&edit.to, targets.get(at)) {
                // Somebody else was first, or this is not known to be Shoal's: nothing is done about it.
                (Some(_), Some(_)) if edit.from.is_none() => drop(each.insert(key, Outcome::Stale)),
                (Some(_), None) if edit.from.is_some() => drop(each.insert(key, Outcome::Stale)),
                (Some(_), Some(health)) if !health.draining => {}
                (Some(_), _) => come.push((key, described(at, zone))),
                (None, Some(_)) if edit.verb == FINISH => drop(each.insert(key, Outcome::Stale)),
                (None, Some(health)) if !health.draining => {
                    let gone = matches!(edit.because, Why::TagGone(..));
                    let spared = match spare.as_mut().filter(|_| health.serves && !gone) {
                        Some(spare) => (!take(spare)).then(|| self.spared(edit, fence)),
                        None if health.serves && !gone => Some(Outcome::Failed(unsaid(&key))),
                        _ => None,
                    };
                    if let Some(spared) = spared {
                        each.insert(key, spared);
                        continue;
                    }
                    let zone = health.zone.as_deref().filter(|_| matches!(at.id, Id::Ip(_)));
                    go.push((key, described(at, zone)));
                }
                (None, _) => {}
            }
        }
        for (calls, register) in [(come, true), (go, false)] {
            self.call(&found.arn, calls, register, fence, held.as_deref_mut(), each).await;
        }
        let mut lately = self.lately();
        for Change { edit, at } in changes.iter().filter(|change| !each.contains_key(&change.edit.key)) {
            let registered = edit.to.is_some();
            if set(targets, at, registered) {
                lately.entry(found.arn.clone()).or_default().note(at, registered, Instant::now());
            }
        }
    }

    /// How many could leave; `None`: it is not known yet how many have to stay.
    fn spare(&self, name: &str, targets: &Targets) -> Option<usize> {
        let least = self.pools().get(name).and_then(|pool| pool.least)?;
        let at_work = targets.values().filter(|health| health.serves).count();
        Some(at_work.saturating_sub(least as usize))
    }

    /// What becomes of one that cannot be spared.
    fn spared(&self, edit: &Edit<Lb>, fence: &Fence) -> Outcome {
        let now = fence.clock.now();
        let again = now.saturating_add(i64::from(self.settings.look) * 1000);
        let leaving = Leaving::of(&edit.memo).map(|leaving| Leaving { spared: Some(again), ..leaving });
        Outcome::Running {
            memo: leaving.map_or(edit.memo.clone(), |leaving| leaving.memo()),
            look_again: now,
        }
    }

    /// Registers or deregisters all these. One that AWS refuses does not keep the others from it.
    async fn call(
        &self,
        arn: &str,
        calls: Calls,
        register: bool,
        fence: &Fence,
        mut held: Option<&mut Held>,
        each: &mut Each,
    ) {
        let mut parts: Vec<Calls> = calls.chunks(MOST).rev().map(<[_]>::to_vec).collect();
        let mut halves = Halves::begin(&self.turn);
        let mut given_up: Vec<(Calls, Refusal)> = Vec::new();
        let verb = if register { "register" } else { "deregister" };
        while let Some(part) = parts.pop() {
            let ready = match held.as_deref_mut() {
                Some(held) => held.keep().await,
                None => Ok(()),
            };
            let answer = match ready {
                Ok(()) => self.ask(arn, &part, register, fence).await,
                Err(fault) => Err(fault.into()),
            };
            match answer {
                Ok(()) => halves.went(),
                Err(refusal) if refusal.of_some().is_none() || part.len() == 1 => {
                    if let Some(words) = refusal.of_some() {
                        halves.refused(words);
                    }
                    let outcome = |key: &Key| refusal.outcome(&format!("{verb} {key}"), |fault| fault);
                    each.extend(ends(part, outcome));
                }
                Err(refusal) if refusal.of_some().is_some_and(|words| halves.refused(words)) => {
                    parts.extend(halves.split(part));
                }
                Err(refusal) => given_up.push((part, refusal)),
            }
        }
        for (part, refusal) in given_up {
            let outcome =
                |key: &Key| refusal.outcome(&format!("{verb} {key}"), |fault| halves.given_up(fault));
            each.extend(ends(part, outcome));
        }
    }

    /// Makes one call, that takes no longer than the group is claimed.
    async fn ask(
        &self,
        arn: &str,
        part: &[(Key, TargetDescription)],
        register: bool,
        fence: &Fence,
    ) -> Result<(), Refusal> {
        let named: Vec<_> = part.iter().map(|(_, target)| target.clone()).collect();
        let answer = async {
            match register {
                true => self.cloud.register(arn, &named, fence).await,
                false => self.cloud.deregister(arn, &named, fence).await,
            }
        };
        let limit = self.settings.limit();
        tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| {
            let verb = if register { "register" } else { "deregister" };
            let within = limit.as_secs();
            let why =
                format!("no answer within {within} s; whether it was done is not known, and is looked at");
            Err(Refusal::Unanswered(Fault::new(format!("{verb} targets in {arn}"), why)))
        })
    }

    /// Says what became of the changes that were made, and answers the facts of it.
    async fn report(
        &self,
        name: &str,
        targets: &Targets,
        changes: &[Change<'_>],
        found: &Found,
        fence: &Fence,
        each: &mut Each,
    ) -> Vec<shoal_agent::Change> {
        let now = fence.clock.now();
        let made: Vec<_> = changes.iter().filter(|change| !each.contains_key(&change.edit.key)).collect();
        let made: Vec<_> = made.into_iter().filter_map(|change| Some((change, news(change.edit)?))).collect();
        let news = made.iter().map(|(change, (state, hosts))| News { at: change.at, state: *state, hosts });
        let facts = self.facts(name, targets, &news.collect::<Vec<_>>()).await;
        for (Change { edit, .. }, (state, hosts)) in &made {
            let drained = *state == State::Drained;
            let again = drained && hosts.keys().any(|host| facts.draining.contains(host));
            let unknown = || hosts.keys().find_map(|host| facts.unknown.get(host));
            let outcome = match unknown().filter(|_| drained) {
                Some(fault) => Outcome::Failed(fault.clone()),
                // By then it may have drained there as well, and who said so first may be written down last.
                None if again => {
                    let look_again = now.saturating_add(i64::from(self.settings.look) * 1000);
                    Outcome::Running { memo: edit.memo.clone(), look_again }
                }
                None => {
                    let until = Some(now.saturating_add(i64::from(found.group.delay) * 1000));
                    let memo = match state {
                        State::Serving => Told::memo(hosts),
                        _ => Leaving { hosts: hosts.clone(), until, spared: None, drained }.memo(),
                    };
                    Outcome::Running { memo, look_again: now }
                }
            };
            each.insert(edit.key.clone(), outcome);
        }
        for Change { edit, .. } in changes {
            each.entry(edit.key.clone()).or_insert(Outcome::Done);
        }
        facts.changes
    }
}

/// What became of each of these.
fn ends(part: Calls, outcome: impl Fn(&Key) -> Outcome) -> impl Iterator<Item = (Key, Outcome)> {
    part.into_iter().map(move |(key, _)| {
        let outcome = outcome(&key);
        (key, outcome)
    })
}

/// Why none may leave as long as its pool cannot be understood.
fn unsaid(key: &Key) -> Fault {
    let why = "how many targets have to stay is not known: the document of its tag says it";
    Fault::new(format!("deregister {key}"), why).next("correct what is reported of the tag")
}

/// Takes one of those that can be spared, if there is one.
fn take(spare: &mut usize) -> bool {
    match spare.checked_sub(1) {
        Some(rest) => {
            *spare = rest;
            true
        }
        None => false,
    }
}

/// What a change that was made means for whom.
fn news(edit: &Edit<Lb>) -> Option<(State, Hosts)> {
    match &edit.to {
        Some(Item::Member(member)) => Some((State::Serving, member.hosts.clone())),
        Some(_) => None,
        None => {
            let state = if edit.verb == FINISH { State::Drained } else { State::Draining };
            Some((state, Leaving::of(&edit.memo)?.hosts))
        }
    }
}

fn applied(each: Each, facts: Vec<shoal_agent::Change>) -> Applied<Lb> {
    Applied { each: each.into_iter().collect(), facts }
}
