//! Amazon Route 53, in hosted zones that others write into as well.
//!
//! **What is Shoal's** is a record set, and the ledger says which. Others may have their own under the same name, sets of the same type with
//! another identifier too, and anywhere else in the zone. Start of authority and name servers belong to the hosted zone.
//!
//! **A look** at a whole zone pages through it; one that breaks off is none. Single names are read one by one.
//!
//! **A change** goes in a batch, which is done as a whole or not at all, with what it was made from as its condition: see [`batch`].
//! Where a batch is refused, those that the answer names are taken out ([`blame`]), else halves of it find them ([`Halves`]), and the others
//! are made.
//!
//! **Until the name servers have it** ([`spread`]) a name waits, and everything else goes on.
//!
//! **Fencing**: the service checks no number. No change is sent after the claim's end, neither after a wait for the pace nor again by the
//! SDK, and a stale holder's change is refused unless the world is as that holder saw it.
//!
//! **A call without an answer** is not made again, but looked for: made twice, a creation would meet what it made itself, and take it for
//! somebody else's.
//!
//! **Calls** are as few as can be and no faster than the configuration says: the account has five a second.

mod batch;
mod blame;
mod list;
mod name;
mod sets;
mod settings;
mod spread;
mod zones;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aws_sdk_route53::types::{ChangeBatch, ChangeInfo, ChangeStatus, ResourceRecordSet};
use aws_sdk_route53::{Client, Config};
use shoal_agent::{
    Applied, Batch, Edit, Fault, Fence, Moment, Nature, Observed, Outcome, Scope, Seen, Target, Unit,
};
use shoal_aws::{AwsSettings, Failed, Halves, Kind, OnlyWhenRefused, Pace, while_held};
use tokio::sync::OnceCell;

use batch::Work;
use blame::Blame;
use sets::Place;
pub use settings::Route53Settings;
use spread::Spreading;

use super::files::zone_of;
use crate::Dns;
use crate::agent::{CONFIRM, Submitted};
use crate::name::Zone;
use crate::record::{Have, Key, Node, Spread};

/// More names than this are not read one by one: the whole zone is.
const FEW: usize = 5;
/// How many calls may go at once after a pause.
const BURST: u32 = 5;

/// Hosted zones of an account.
pub struct Route53 {
    settings: Route53Settings,
    aws: AwsSettings,
    client: OnceCell<Client>,
    pace: Pace,
    zones: std::sync::Mutex<HashMap<Zone, String>>,
    spreading: Spreading,
    /// From which end halves of a batch are tried next.
    turn: AtomicBool,
}

impl std::fmt::Debug for Route53 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Route53({:?})", self.settings)
    }
}

/// Why a batch was not made.
enum Unmade {
    /// These of it cannot be, and nothing was done.
    Blamed(BTreeMap<usize, Blame>),
    /// Something of it cannot be, and nobody knows what. Nothing was done.
    Some(Fault),
    /// It, and whatever comes after it.
    All(Fault),
}

impl Route53 {
    /// The target of these settings. Touches nothing yet.
    ///
    /// # Errors
    /// Settings that cannot work.
    pub fn open(settings: Route53Settings, aws: AwsSettings) -> Result<Self, Fault> {
        settings.check()?;
        aws.check()?;
        let pace = Pace::new(settings.rate, BURST);
        let (client, zones, spreading, turn) = Default::default();
        Ok(Self { settings, aws, client, pace, zones, spreading, turn })
    }

    /// The client, once the pace allows a call.
    async fn client(&self) -> Result<&Client, Fault> {
        self.pace.turn().await;
        self.client
            .get_or_try_init(|| async { Ok(Client::new(&Box::pin(self.aws.load("dns")).await?)) })
            .await
    }

    fn place<'a>(&'a self, zone: &'a Zone, id: &'a str) -> Place<'a> {
        Place { zone, id, settings: &self.settings }
    }

    /// How far the change that a name waits for has come. Asked for once for all names of one change.
    async fn spread(&self, change: &str) -> Result<bool, Fault> {
        let what = || format!("ask Route 53 about the change {change}");
        let answer = Box::pin(self.client().await?.get_change().id(change).send()).await;
        let everywhere = match answer {
            Ok(answer) => answer.change_info.is_none_or(|info| info.status == ChangeStatus::Insync),
            Err(error) => match Failed::of(&error) {
                // It is not known for ever.
                failed if failed.kind == Kind::Missing => true,
                failed => return Err(failed.fault(what())),
            },
        };
        if everywhere {
            self.spreading.everywhere(change);
        }
        Ok(everywhere)
    }

    /// Asks about the changes that these names wait for. What is still under way, by name.
    async fn under_way(
        &self,
        names: Vec<(Key, spread::Waiting)>,
    ) -> Result<BTreeMap<Key, spread::Waiting>, Fault> {
        let mut asked: HashMap<String, bool> = HashMap::new();
        let mut under = BTreeMap::new();
        for (key, waiting) in names {
            let everywhere = match asked.get(&waiting.change) {
                _ if waiting.everywhere => true,
                Some(known) => *known,
                None => {
                    let everywhere = self.spread(&waiting.change).await?;
                    asked.insert(waiting.change.clone(), everywhere);
                    everywhere
                }
            };
            if !everywhere {
                under.insert(key, waiting);
            }
        }
        Ok(under)
    }

    /// Makes all of this work, or finds out which of it cannot be made.
    async fn make(
        &self,
        place: Place<'_>,
        work: Vec<Work<'_>>,
        fence: &Fence,
        each: &mut Vec<(Key, Outcome)>,
    ) {
        let mut parts = batch::pack(work);
        parts.reverse();
        let mut halves = Halves::begin(&self.turn);
        let mut given_up = Vec::new();
        let all = |part: &[Work<'_>], outcome: &Outcome| -> Vec<(Key, Outcome)> {
            part.iter().map(|one| (one.edit.key.clone(), outcome.clone())).collect()
        };
        while let Some(mut part) = parts.pop() {
            let sent = match fence.check() {
                Ok(()) => self.send(place, &part, fence).await,
                Err(fault) => Err(Unmade::All(fault)),
            };
            match sent {
                Ok(info) => {
                    halves.went();
                    self.made(&part, &info, fence, each);
                }
                Err(Unmade::Blamed(blamed)) => {
                    halves.went();
                    for (at, blame) in blamed.into_iter().rev() {
                        let one = part.remove(at);
                        match self.judge(place, one, blame).await {
                            Ok(again) => parts.push(vec![again]),
                            Err(outcome) => each.push(outcome),
                        }
                    }
                    if !part.is_empty() {
                        parts.push(part);
                    }
                }
                Err(Unmade::Some(fault)) if halves.refused(&fault.why) && part.len() > 1 => {
                    parts.extend(halves.split(part));
                }
                Err(Unmade::Some(fault)) if part.len() > 1 => given_up.push((part, fault)),
                Err(Unmade::Some(fault)) => each.extend(all(&part, &Outcome::Failed(fault))),
                Err(Unmade::All(fault)) => {
                    let failed = Outcome::Failed(fault);
                    each.extend(all(&part, &failed));
                    each.extend(parts.drain(..).flat_map(|part| all(&part, &failed)));
                }
            }
        }
        for (part, fault) in given_up {
            each.extend(all(&part, &Outcome::Failed(halves.given_up(fault))));
        }
    }

    /// One batch.
    async fn send(&self, place: Place<'_>, part: &[Work<'_>], fence: &Fence) -> Result<ChangeInfo, Unmade> {
        let what = || format!("change {} in the hosted zone {} at Route 53", names(part), place.id);
        let changes = part.iter().flat_map(|one| one.changes.iter().cloned()).collect();
        let batch = ChangeBatch::builder().comment("Shoal").set_changes(Some(changes)).build();
        let batch = batch.map_err(|error| Unmade::Some(Fault::new(what(), error).permanent()))?;
        let client = self.client().await.map_err(Unmade::All)?;
        self.spreading.forget(part.iter().map(|one| &one.edit.key));
        let call = client
            .change_resource_record_sets()
            .hosted_zone_id(place.id)
            .change_batch(batch)
            .customize()
            .config_override(Config::builder().retry_classifier(OnlyWhenRefused));
        let error = match while_held(fence, &what(), Box::pin(call.send())).await.map_err(Unmade::All)? {
            Ok(answer) => {
                let unsaid = || {
                    Fault::new(what(), "it does not say which change it is; whether it was done is looked at")
                };
                return answer.change_info.ok_or_else(|| Unmade::All(unsaid()));
            }
            Err(error) => error,
        };
        let failed = Failed::of(&error);
        let mut messages = vec![failed.message.clone()];
        if let Some(refused) = error.as_service_error() {
            use aws_sdk_route53::operation::change_resource_record_sets::ChangeResourceRecordSetsError as Refused;
            if let Refused::InvalidChangeBatch(refused) = refused {
                messages.extend(refused.messages().iter().cloned());
            }
        }
        let raw = error.raw_response().and_then(|raw| raw.body().bytes()).map(String::from_utf8_lossy);
        messages.extend(raw.iter().flat_map(|body| blame::messages_of(body)));
        let refused = failed.is("InvalidChangeBatch") || messages.len() > 1;
        let blamed = if refused { blame::blamed(&messages, part) } else { BTreeMap::new() };
        Err(match failed.kind {
            _ if !blamed.is_empty() => Unmade::Blamed(blamed),
            _ if refused => Unmade::Some(Fault::new(what(), messages.join("; ")).permanent()),
            Kind::Invalid => Unmade::Some(failed.fault(what())),
            Kind::Missing if !failed.is("NoSuchHostedZone") => {
                Unmade::Some(failed.fault(what()).next("make it, or correct what the tag says of it"))
            }
            Kind::Missing => {
                self.forget(place.zone);
                Unmade::All(failed.fault(what()))
            }
            _ => Unmade::All(failed.fault(what())),
        })
    }

    /// What was taken: done, or on its way.
    fn made(&self, part: &[Work<'_>], info: &ChangeInfo, fence: &Fence, each: &mut Vec<(Key, Outcome)>) {
        let change = info.id.trim_start_matches("/change/");
        if info.status == ChangeStatus::Insync {
            each.extend(part.iter().map(|one| (one.edit.key.clone(), Outcome::Done)));
            return;
        }
        self.spreading.begun(change, part.iter().map(|one| (one.edit.key.clone(), one.edit.to.clone())));
        let now = fence.clock.now();
        let running = |one: &Work<'_>| (one.edit.key.clone(), running(change, one.edit.to.is_none(), now));
        each.extend(part.iter().map(running));
    }

    /// What becomes of one that was taken out of its batch: it is tried once more by itself, or it is not.
    async fn judge<'a>(
        &self,
        place: Place<'_>,
        one: Work<'a>,
        blame: Blame,
    ) -> Result<Work<'a>, (Key, Outcome)> {
        let key = &one.edit.key;
        let told = |outcome| (key.clone(), outcome);
        let what = || format!("change {} in the hosted zone {} at Route 53", key.name(), place.id);
        match blame {
            Blame::Stale => Err(told(Outcome::Stale)),
            Blame::Differs if one.looked => Err(told(Outcome::Stale)),
            Blame::Bad(why) => Err(told(Outcome::Failed(
                Fault::new(what(), why)
                    .next("correct the record; the rest of its batch is made without it")
                    .permanent(),
            ))),
            Blame::Differs => {
                // The same may be written otherwise there.
                let raw = self.name(place, key).await.map_err(|fault| told(Outcome::Failed(fault)))?;
                if !is_what_was_seen(place, one.edit, &raw) {
                    return Err(told(Outcome::Stale));
                }
                Work::of(place, one.edit, Some(&raw))
                    .map_err(|why| told(Outcome::Failed(Fault::new(what(), why).permanent())))
            }
        }
    }

    /// Asks about what an earlier process began.
    async fn confirm(
        &self,
        edit: &Edit<Dns>,
        asked: &mut HashMap<String, Result<bool, Fault>>,
        fence: &Fence,
    ) -> Outcome {
        let Some(memo) = Submitted::of(&edit.memo) else { return Outcome::Done };
        if !asked.contains_key(&memo.change) {
            asked.insert(memo.change.clone(), self.spread(&memo.change).await);
        }
        match asked.get(&memo.change) {
            Some(Ok(false)) => {
                self.spreading.begun(&memo.change, [(edit.key.clone(), edit.to.clone())]);
                let memo = Submitted { asked: false, ..memo }.memo();
                Outcome::Running { memo, look_again: fence.clock.now() + millis(spread::SOON) }
            }
            Some(Err(fault)) => Outcome::Failed(fault.clone()),
            // What went leaves nothing that says so: that it did is remembered, and it is looked at for the last time.
            Some(Ok(true)) | None if edit.to.is_none() => {
                let memo = Submitted { asked: true, ..memo }.memo();
                Outcome::Running { memo, look_again: fence.clock.now() }
            }
            Some(Ok(true)) | None => Outcome::Done,
        }
    }
}

/// What waits for a change, made just now; `gone`: one that took it out.
fn running(change: &str, gone: bool, now: Moment) -> Outcome {
    let until = now + millis(spread::KEPT);
    let memo = Submitted { change: change.to_owned(), until, asked: false, gone };
    Outcome::Running { memo: memo.memo(), look_again: now + millis(spread::SOON) }
}

fn millis(time: Duration) -> Moment {
    Moment::try_from(time.as_millis()).unwrap_or(Moment::MAX)
}

/// Whether all that an edit was made from stands there, however it is written.
fn is_what_was_seen(place: Place<'_>, edit: &Edit<Dns>, raw: &[ResourceRecordSet]) -> bool {
    let there: Vec<_> = raw.iter().filter_map(|set| place.told(set)).map(|(_, set)| set).collect();
    edit.from.iter().flat_map(|have| have.records.sets.iter()).all(|set| there.contains(set))
}

/// The names of a batch, for people.
fn names(part: &[Work<'_>]) -> String {
    const TOLD: usize = 3;
    let mut names: Vec<String> = part.iter().take(TOLD).map(|one| one.edit.key.name()).collect();
    if part.len() > TOLD {
        names.push(format!("{} more", part.len() - TOLD));
    }
    names.join(", ")
}

impl Target<Dns> for Route53 {
    fn nature(&self) -> Nature {
        Nature { shared: true, conditional: true, ..Nature::default() }
    }

    fn location(&self, unit: &Unit) -> String {
        let kind = if self.settings.private { "private" } else { "public" };
        let id = Zone::parse(&unit.0).ok().and_then(|zone| self.settings.zone(&zone).map(str::to_owned));
        let id = id.map(|id| format!(" {id}")).unwrap_or_default();
        let role = self.aws.role_arn.as_ref().map(|role| format!(" as {role}")).unwrap_or_default();
        let at = self.aws.endpoint.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
        format!("{kind} hosted zones{id} of Route 53{role}{at}")
    }

    async fn observe(&self, unit: &Unit, scope: Scope<'_, Key>) -> Result<Observed<Dns>, Fault> {
        let zone = zone_of(unit)?;
        let id = self.hosted(&zone).await?;
        let place = self.place(&zone, &id);
        let waiting = match scope {
            Scope::All => self.spreading.of_zone(zone.as_str()),
            Scope::Keys(keys) => {
                keys.iter().filter_map(|key| Some((key.clone(), self.spreading.of(key)?))).collect()
            }
        };
        let (stay, gone): (Vec<_>, Vec<_>) = waiting.iter().partition(|(_, waiting)| waiting.node.is_some());
        let settled: HashSet<Key> = stay.into_iter().map(|(key, _)| key.clone()).collect();
        // What this look is the first to know to have gone from everywhere is read by the next one.
        let gone = gone.into_iter().filter(|(_, waiting)| !waiting.everywhere);
        let mut gone: HashSet<Key> = gone.map(|(key, _)| key.clone()).collect();
        let under = self.under_way(waiting).await?;
        gone.retain(|key| !under.contains_key(key));
        let mut nodes: BTreeMap<Key, Node> = match scope {
            // What is still on its way is as it was sent: nothing has to be read to wait on.
            Scope::Keys(keys) => {
                let known = |key: &Key| under.contains_key(key) || gone.contains(key);
                let rest: Vec<&Key> = keys.iter().filter(|key| !known(key)).collect();
                match rest.len() {
                    0 => BTreeMap::new(),
                    1..=FEW => self.some(place, &rest).await?,
                    _ => self.all(place).await?,
                }
            }
            Scope::All => self.all(place).await?,
        };
        let mut seen = BTreeMap::new();
        for (key, waiting) in under {
            let records = nodes.remove(&key).or_else(|| waiting.node.clone()).unwrap_or_default();
            let what = format!("the change {} (PENDING) of Route 53", waiting.change);
            let spread = Spread::Under { what, pause: waiting.pause() };
            seen.insert(key, Seen::There(Have { spread, ..Have::of(records) }));
        }
        for key in gone.into_iter().filter(|key| !nodes.contains_key(key)) {
            seen.insert(key, Seen::There(Have { spread: Spread::Done, ..Have::of(Node::default()) }));
        }
        let there = |(key, records)| {
            let spread = if settled.contains(&key) { Spread::Done } else { Spread::Unknown };
            (key, Seen::There(Have { spread, ..Have::of(records) }))
        };
        seen.extend(nodes.into_iter().map(there));
        Ok(Observed { seen, complete: true })
    }

    async fn apply(&self, unit: &Unit, batch: &Batch<Dns>, fence: &Fence) -> Result<Applied<Dns>, Fault> {
        let zone = zone_of(unit)?;
        let id = self.hosted(&zone).await?;
        let place = self.place(&zone, &id);
        let mut each = Vec::with_capacity(batch.changes.len());
        let mut work = Vec::with_capacity(batch.changes.len());
        let mut asked = HashMap::new();
        for edit in &batch.changes {
            if edit.verb == CONFIRM {
                let outcome = self.confirm(edit, &mut asked, fence).await;
                each.push((edit.key.clone(), outcome));
                continue;
            }
            match Work::of(place, edit, None) {
                Ok(one) if one.changes.is_empty() => each.push((edit.key.clone(), Outcome::Done)),
                Ok(one) => work.push(one),
                Err(why) => {
                    let fault = Fault::new(format!("write {} to Route 53", edit.key.name()), why).permanent();
                    each.push((edit.key.clone(), Outcome::Failed(fault)));
                }
            }
        }
        self.make(place, work, fence, &mut each).await;
        Ok(Applied { each, facts: Vec::new() })
    }
}
