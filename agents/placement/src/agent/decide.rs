//! Chooses for those that wait, and says what is to be committed.
//!
//! One that waits alone is placed by itself; many are planned together ([`Fleet::plan`](crate::choose::Fleet::plan)), and of the plan as many are committed
//! as fit into one commit: the next pass plans the rest anew, from what stands then.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use shoal_agent::Fault;
use shoal_agent::chooser::{Choice, Chooser, Chosen, Measured, World};
use shoal_core::access::Manifest;
use shoal_core::{
    Behind, Edit, Expect, Hold, HostName, Key, Lifecycle, Namespace, Pre, Quarantined, Range, Revision,
    Schema, View,
};
use shoal_group::Groups;

use super::groups::Grouped;
use super::measure::Prometheus;
use super::read::{Again, Gone, NAMESPACE, Rules, Standing};
use super::write::{Fact, Promises, edit, life, no_room};
use crate::choose::{Decision, Fault as Choosing, Policy, Refusal, Request};

/// What the node's configuration says, under `[agent]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How to choose. All instances are to have the same.
    pub policy: Policy,
    /// The Prometheus that is asked what metrics of groups say: `http://127.0.0.1:9090`. Without one, such groups stay as they are.
    pub prometheus: Option<String>,
    /// Namespaces, besides those of Shoal's own agents, in whose tags members of groups may be born.
    pub members: BTreeSet<Namespace>,
}

/// The namespaces of Shoal's own agents in whose tags members of groups are.
const BORN: [&str; 6] = ["backup", "dns", "lb", "monitoring", "tags", "vm"];

/// The agent.
#[derive(Debug, Default)]
pub struct Placement {
    policy: Policy,
    prometheus: Option<Prometheus>,
    members: BTreeSet<Namespace>,
}

impl Placement {
    /// One that chooses as the configuration says.
    ///
    /// # Errors
    /// The address of Prometheus is none.
    pub fn new(settings: Settings) -> Result<Self, Fault> {
        let Settings { policy, prometheus, members } = settings;
        Ok(Self { policy, prometheus: prometheus.as_deref().map(Prometheus::open).transpose()?, members })
    }
}

/// What tags of the namespace say: nothing. Groups are tags of the namespace `vm`.
#[derive(Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// A machine that waits.
type Waiting = (HostName, Request, Revision);

/// Where those go for which there is room, and for which there is none; by name.
#[derive(Default)]
struct Planned {
    placed: BTreeMap<String, Decision>,
    refused: BTreeMap<String, Refusal>,
}

impl Chooser for Placement {
    fn namespace(&self) -> &'static str {
        NAMESPACE
    }

    fn schema(&self) -> Schema {
        Schema {
            tag: schemars::schema_for!(Nothing).to_value(),
            host: Some(schemars::schema_for!(Rules).to_value()),
            agent: Some(NAMESPACE.to_owned()),
            writes: Some(Manifest {
                host_fields: ["state".to_owned(), shoal_machine::NAMESPACE.to_owned()].into(),
                makes_hosts: true,
                members: BORN
                    .iter()
                    .filter_map(|name| name.parse().ok())
                    .chain(self.members.clone())
                    .collect(),
                ..Manifest::default()
            }),
        }
    }

    fn look(&self, view: &View) -> impl Future<Output = Measured> + Send {
        let groups = self.prometheus.as_ref().map(|_| Groups::read(view).groups).unwrap_or_default();
        let metrics = groups.into_iter().filter_map(|group| group.spec.metric);
        let queries: BTreeSet<String> = metrics.map(|metric| metric.query).collect();
        async move {
            match &self.prometheus {
                Some(prometheus) => prometheus.measure(queries).await,
                None => Measured::new(),
            }
        }
    }

    fn decide(&self, world: &World<'_>) -> Result<Choice, Fault> {
        let doing = |why: String| Fault::new("choose rooms", why);
        let standing = Standing::read(world.view, self.policy.clone()).map_err(|e| doing(e.to_string()))?;
        let seed = self.policy.seed;
        Draft::new(world, standing).and_then(|draft| draft.choose(seed)).map_err(doing)
    }
}

/// A choice while it is made.
struct Draft<'a> {
    world: &'a World<'a>,
    namespace: Namespace,
    standing: Standing,
    promises: Promises,
    /// How many are placed again where they were.
    again: usize,
    groups: Groups,
    /// How many steps groups take.
    grouped: usize,
    choice: Choice,
}

impl<'a> Draft<'a> {
    fn new(world: &'a World<'a>, standing: Standing) -> Result<Self, String> {
        let namespace: Namespace = NAMESPACE.parse().map_err(|e| format!("{NAMESPACE}: {e}"))?;
        let items = standing.rooms.values().map(|known| known.promised.holds.len()).sum();
        let choice = Choice { quarantined: standing.trouble.clone(), items, ..Choice::default() };
        // Who asks for one host alone has nothing done for groups.
        let groups = if world.only.is_none() { Groups::read(world.view) } else { Groups::default() };
        Ok(Self {
            world,
            namespace,
            standing,
            promises: Promises::default(),
            again: 0,
            groups,
            grouped: 0,
            choice,
        })
    }

    fn choose(mut self, seed: u64) -> Result<Choice, String> {
        let waiting = std::mem::take(&mut self.standing.waiting);
        let asked = |(host, ..): &Waiting| self.world.only.is_none_or(|only| only == host);
        let waiting: Vec<Waiting> = waiting.into_iter().filter(asked).collect();
        let mut again = std::mem::take(&mut self.standing.again);
        again.retain(|host, _| self.world.only.is_none_or(|only| only == host));
        if let Some(why) = self.held() {
            for (host, Again { revision, .. }) in &again {
                self.behind(host, *revision, format!("held: {why}"), true);
            }
            for (host, _, since) in &waiting {
                self.behind(host, *since, format!("held: {why}"), true);
            }
            self.groups_held(seed, &why)?;
            return Ok(self.choice);
        }
        let about = self.groups(seed)?;
        // One that a group lets go is placed no more.
        again.retain(|host, _| !about.contains(host));
        let waiting: Vec<Waiting> = waiting.into_iter().filter(|(host, ..)| !about.contains(host)).collect();
        let (paused, mut waiting): (Vec<Waiting>, Vec<Waiting>) =
            waiting.into_iter().partition(|(host, ..)| self.paused(&format!("host/{host}")).is_some());
        for (host, _, since) in &paused {
            let why = self.paused(&format!("host/{host}")).unwrap_or_default();
            self.behind(host, *since, format!("held: paused: {why}"), true);
        }
        again.retain(|host, again| !self.refused(host, again.revision));
        waiting.retain(|(host, _, since)| !self.refused(host, *since));
        self.forget();
        for (host, again) in again {
            self.once_more(&host, &again);
        }
        // Instances begin at different machines, so that they meet less often.
        let first = self.world.instance % waiting.len().max(1) as u64;
        waiting.rotate_left(usize::try_from(first).unwrap_or(0));
        self.place(waiting)?;
        self.bare();
        self.written()
    }

    /// Why nothing at all may be chosen.
    fn held(&mut self) -> Option<String> {
        if let Some(why) = self.paused(&format!("agent/{NAMESPACE}")) {
            return Some(format!("paused: {why}"));
        }
        if let Some(why) = &self.standing.blind {
            return Some(why.clone());
        }
        let digest = life(self.world.epoch);
        let rooms = self.standing.rooms.values().filter_map(|known| known.promised.epoch.clone());
        let groups = self.groups.groups.iter().filter_map(|group| group.stood.as_ref()?.epoch.clone());
        let before = rooms.chain(groups).filter(|then| *then != digest).min()?;
        let approved = Key::approval(&self.namespace, None).ok().and_then(|key| self.world.view.row(&key));
        if approved.and_then(|row| row.text("digest").map(|text| text == digest)) == Some(true) {
            return None;
        }
        let why = format!(
            "the database was restored or made anew (epoch {digest}, before {before}): machines that were placed since the backup \
             stand where it does not say; see that they do in `facts/{NAMESPACE}`"
        );
        self.choice.hold = Some(Hold {
            digest,
            why: why.clone(),
            create: self.standing.waiting.len() as u64,
            update: 0,
            remove: 0,
            of: self.choice.items as u64,
            sample: Vec::new(),
        });
        Some(why)
    }

    /// What groups do. Says for whom.
    fn groups(&mut self, seed: u64) -> Result<BTreeSet<HostName>, String> {
        let groups = std::mem::take(&mut self.groups);
        let grouped = Grouped::decide(self.world, groups, seed, &life(self.world.epoch))?;
        let about = grouped.about();
        let Grouped { written, chosen, behind, held, quarantined, notes, more } = grouped;
        self.grouped = chosen.len();
        self.choice.edits.extend(written.edits);
        self.choice.pre.extend(written.pre);
        self.choice.about.extend(written.about);
        self.choice.chosen.extend(chosen);
        self.choice.behind.extend(behind);
        self.choice.quarantined.extend(quarantined);
        self.choice.notes = notes;
        self.choice.held += held;
        // Who was made is placed next.
        self.choice.more |= more || self.grouped > 0;
        Ok(about)
    }

    /// Names the groups for which something would be done.
    fn groups_held(&mut self, seed: u64, why: &str) -> Result<(), String> {
        let groups = std::mem::take(&mut self.groups);
        let grouped = Grouped::decide(self.world, groups, seed, &life(self.world.epoch))?;
        // What stands in their way by itself stands there still.
        self.choice.behind.extend(grouped.behind);
        self.choice.held += grouped.held;
        for chosen in grouped.chosen {
            let host: HostName = chosen.host.parse().map_err(|e: shoal_core::BadName| e.to_string())?;
            let since = self.world.view.host(&chosen.host).map_or(Revision(0), |host| host.revision);
            self.behind(&host, since, format!("held: {why}"), true);
        }
        Ok(())
    }

    /// How much of what may go into one commit is taken.
    fn taken(&self) -> usize {
        self.promises.len() + self.again + self.grouped
    }

    fn paused(&self, scope: &str) -> Option<String> {
        let key: Key = format!("pauses/{scope}").parse().ok()?;
        let row = self.world.view.row(&key)?;
        let why = row.text("why").map(std::borrow::Cow::into_owned).filter(|why| !why.is_empty());
        Some(why.map_or_else(|| scope.to_owned(), |why| format!("{scope}: {why}")))
    }

    /// Names those that have nowhere to go if their box dies. They stay where they are.
    fn bare(&mut self) {
        for (machine, room) in std::mem::take(&mut self.standing.bare) {
            let host = machine.parse::<HostName>().ok();
            if self.world.only.is_some_and(|only| host.as_ref() != Some(only)) {
                continue;
            }
            let since = self.world.view.host(&machine).map_or(Revision(0), |host| host.revision);
            let why = format!("waiting: if {room} died, there would be no room for it elsewhere");
            self.choice.behind.push(Behind { key: machine, since, why, hosts: host.into_iter().collect() });
        }
    }

    /// Whether nothing may be written about the host; it is named then.
    fn refused(&mut self, host: &HostName, since: Revision) -> bool {
        let Some(why) = self.world.refused.and_then(|refused| refused.get(host)) else { return false };
        let why = format!("what is to be written about it is refused: {why}");
        self.choice.quarantined.push(Quarantined { what: host.to_string(), why, since });
        true
    }

    fn behind(&mut self, host: &HostName, since: Revision, why: String, held: bool) {
        self.choice.held += usize::from(held);
        self.choice.behind.push(Behind { key: host.to_string(), since, why, hosts: vec![host.clone()] });
    }

    /// Gives back what machines had that are gone.
    fn forget(&mut self) {
        if self.world.only.is_some() {
            return;
        }
        for Gone { room, key, host, revision } in std::mem::take(&mut self.standing.gone) {
            // A box that is to be placed itself: what is said of it as a machine goes into the same fact, and first.
            let both = self.world.view.host(&room).is_some_and(|is| is.state == Lifecycle::Requested);
            if both || self.refused(&host, revision.unwrap_or(Revision(0))) {
                continue;
            }
            if self.taken() >= self.world.most {
                self.choice.more = true;
                break;
            }
            self.choice.about.push(host.clone());
            self.choice.pre.extend(revision.map(|revision| Pre::At(Key::host(&host), revision)));
            let why =
                if revision.is_some() { "it is retired" } else { "its host is deleted, and it is destroyed" };
            self.choice.chosen.push(Chosen {
                host: host.to_string(),
                verb: "forget",
                with: format!("on {room}"),
                why: why.to_owned(),
            });
            self.promises.forget(room, key);
        }
    }

    /// What is requested again goes where it was: that room is its own until somebody says that it is gone.
    fn once_more(&mut self, host: &HostName, Again { room, not, revision }: &Again) {
        if let Some(why) = self.paused(&format!("host/{host}")) {
            return self.behind(host, *revision, format!("held: paused: {why}"), true);
        }
        if let Some(why) = not {
            let first = "set its state to `retired`, which gives that room back, and then to `requested`";
            return self.behind(
                host,
                *revision,
                format!("waiting: it has room on {room}, which {why}: {first}"),
                false,
            );
        }
        if self.taken() >= self.world.most {
            self.choice.more = true;
            return self.behind(host, *revision, "waiting: others are placed first".to_owned(), false);
        }
        self.again += 1;
        self.choice.about.push(host.clone());
        let state = Lifecycle::Placed;
        self.choice.edits.push(Edit::SetState { host: host.clone(), state, expect: Expect::Any });
        self.choice.pre.push(Pre::At(Key::host(host), *revision));
        self.choice.chosen.push(Chosen {
            host: host.to_string(),
            verb: "place",
            with: format!("on {room}"),
            why: "it has had that room since it was placed before".to_owned(),
        });
    }

    fn place(&mut self, waiting: Vec<Waiting>) -> Result<(), String> {
        let mut left = self.world.most.saturating_sub(self.taken());
        // Explained as things stand before: what is placed in this pass is what it is compared with in the next.
        let mut before = self.standing.fleet.clone();
        let Planned { mut placed, mut refused } = self.planned(&waiting)?;
        let together = placed.len();
        for (host, request, revision) in waiting {
            match (placed.remove(&request.name), refused.remove(&request.name)) {
                (Some(decision), _) if left > 0 => {
                    let id = self.world.view.host(host.as_str()).map(|is| is.id.clone());
                    let id = id.ok_or_else(|| format!("{host} waits, and there is no such host"))?;
                    let known = self.standing.rooms.get(&decision.room);
                    if !known.is_some_and(|known| self.promises.fits(&decision.room, known, &request, &id)) {
                        // The next pass finds the room closed.
                        self.choice.more |= !self.choice.chosen.is_empty();
                        let why = format!("waiting: what {} has given out fills a row", decision.room);
                        self.behind(&host, revision, why, false);
                        continue;
                    }
                    left -= 1;
                    let explained = before.explain(&request).map_err(|e| e.to_string())?;
                    let fact = Fact::new(&decision, &explained, together);
                    self.promise(&host, revision, &fact)?;
                    self.promises.promise(decision.room, request, id);
                }
                (None, Some(refusal)) => {
                    let said = self.of_machine(&host, no_room(&refusal))?;
                    let fact = Key::fact(&self.namespace, host.as_str()).map_err(|e| e.to_string())?;
                    let news = self.world.view.row(&fact).is_none_or(|row| row.value() != said);
                    if news && left > 0 {
                        left -= 1;
                        self.choice.about.push(host.clone());
                        self.choice.edits.push(edit(fact, &said)?);
                        self.choice.pre.push(Pre::At(Key::host(&host), revision));
                    } else {
                        self.choice.more |= news;
                    }
                    self.behind(&host, revision, format!("waiting: {refusal}"), false);
                }
                _ => {
                    self.choice.more = true;
                    self.behind(&host, revision, "waiting: others are placed first".to_owned(), false);
                }
            }
        }
        Ok(())
    }

    fn promise(&mut self, host: &HostName, revision: Revision, fact: &Fact<'_>) -> Result<(), String> {
        let key = Key::fact(&self.namespace, host.as_str()).map_err(|e| e.to_string())?;
        self.choice.about.push(host.clone());
        self.choice.edits.push(edit(key, &self.of_machine(host, fact.value()?)?)?);
        let state = Lifecycle::Placed;
        self.choice.edits.push(Edit::SetState { host: host.clone(), state, expect: Expect::Any });
        self.choice.pre.push(Pre::At(Key::host(host), revision));
        self.choice.chosen.push(Chosen {
            host: host.to_string(),
            verb: "place",
            with: format!("on {}", fact.room()),
            why: fact.why(),
        });
        Ok(())
    }

    /// The fact about a machine; where it is a box, too, with what it has given out.
    fn of_machine(&self, host: &HostName, said: Value) -> Result<Value, String> {
        match (self.standing.rooms.get(host.as_str()), said) {
            (Some(known), Value::Object(said)) => known.fact(said),
            (_, said) => Ok(said),
        }
    }

    fn planned(&mut self, waiting: &[Waiting]) -> Result<Planned, String> {
        let mut planned = Planned::default();
        if let [(_, request, _)] = waiting {
            let name = request.name.clone();
            match self.standing.fleet.place(request) {
                Ok(decision) => planned.placed.extend([(name, decision)]),
                Err(Choosing::Refused(refusal)) => planned.refused.extend([(name, refusal)]),
                Err(Choosing::Invalid(invalid)) => return Err(invalid.to_string()),
            }
            return Ok(planned);
        }
        let requests: Vec<Request> = waiting.iter().map(|(_, request, _)| request.clone()).collect();
        let plan = self.standing.fleet.plan(&requests).map_err(|e| e.to_string())?;
        planned.placed.extend(plan.placed.into_iter().map(|d| (d.machine.clone(), d)));
        planned.refused.extend(plan.refused.into_iter().map(|r| (r.machine.clone(), r)));
        Ok(planned)
    }

    /// The choice, with what the boxes hold from then on, and what it rests on.
    fn written(mut self) -> Result<Choice, String> {
        let (epoch, namespace) = (self.world.epoch, &self.namespace);
        for (room, known) in self.promises.kept(&self.standing.rooms, epoch) {
            let key = Key::fact(namespace, &room).map_err(|e| e.to_string())?;
            let value = known.fact(known.own.clone())?;
            self.choice.edits.push(edit(key, &value)?);
            let host: HostName = room.parse().map_err(|e| format!("{room}: {e}"))?;
            self.choice.pre.push(Pre::At(Key::host(&host), known.revision));
        }
        if !self.choice.edits.is_empty() {
            let facts = Range::Prefix(format!("facts/{NAMESPACE}/"));
            self.choice.pre.push(Pre::Unchanged(facts, self.world.view.revision()));
        }
        self.choice.quarantined.sort_by(|a, b| (a.since, &a.what).cmp(&(b.since, &b.what)));
        self.choice.message = match &self.choice.chosen[..] {
            [] => "what stands in the way, and what is known of groups".to_owned(),
            [one] => one.to_string(),
            some if self.grouped == 0 => format!("rooms for {} machines", some.len()),
            some => format!("{} of groups, rooms for {} machines", self.grouped, some.len() - self.grouped),
        };
        Ok(self.choice)
    }
}
