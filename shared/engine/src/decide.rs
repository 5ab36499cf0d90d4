//! What is to be done about one item: a function of the fleet, the item's sources, the ledger and what was seen.
//!
//! The rules, in the order they are asked:
//!
//! 1. An item with a source that cannot be understood now stays as it is, also when only the ledger still links them.
//! 2. What should be is asked of the agent; where it cannot say, the item stays as it is.
//! 3. What could not be seen is not touched.
//! 4. What is there and neither in the ledger nor marked as ours by a target that can be trusted with it is
//!    foreign: a clash is reported, and nothing is done.
//! 5. A removal needs a reason that the database states now. Without one the item is held.
//! 6. A change that only another version of the agent wants is held until a person agrees.
//! 7. What was last wanted and is not there any more is drift, unless the target or the database began anew; all else is
//!    intended.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use shoal_core::{Host, HostName, Revision};

use crate::agent::{Agent, At, Known, Look, Source, Step};
use crate::counters::Count;
use crate::fleet::Fleet;
use crate::item::{ADOPT, Decision, Item, Kind, Planned, REMOVE, Sight, Trouble};
use crate::ledger::{MAX_TRIED, Move, OtherLife, SourceId, Stage};
use crate::options::{OnDrift, Options};
use crate::sources::Sources;
use crate::target::{Seen, Why};
use crate::{Blocked, Moment};

/// What decisions are made from.
pub(crate) struct Context<'a, A: Agent> {
    pub(crate) agent: &'a A,
    pub(crate) fleet: &'a Fleet,
    pub(crate) sources: &'a Sources<A>,
    pub(crate) options: &'a Options,
    pub(crate) count: &'a Count,
    /// Which other life the unit's ledger is of.
    pub(crate) other_life: Option<&'a OtherLife>,
}

/// What is there and whether it is ours, or what has to come first.
type Owned<'i, A> = Result<Option<(&'i Arc<<A as Agent>::Have>, bool)>, Box<Decision<A>>>;

/// What the sources want of an item.
pub(crate) struct Wanted<A: Agent> {
    pub(crate) item: Option<Arc<A::Item>>,
    pub(crate) left_out: Vec<Blocked>,
    pub(crate) reads: Vec<HostName>,
    /// The newest revision of all that was read.
    pub(crate) revision: Revision,
}

/// What nobody can say of an item, and which other hosts that may depend on: when one of them changes it is asked again.
pub(crate) struct Unclear {
    pub(crate) blocked: Blocked,
    pub(crate) reads: Vec<HostName>,
}

impl std::fmt::Display for Unclear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.blocked.who.join(", "), self.blocked.why)
    }
}

struct Reads<'a> {
    fleet: &'a Fleet,
    names: RefCell<BTreeSet<HostName>>,
}

impl Look for Reads<'_> {
    fn host(&self, name: &str) -> Option<&Host> {
        // A name that is none can never be written either, so there is nothing to wait for.
        self.names.borrow_mut().insert(name.parse().ok()?);
        self.fleet.host(name)
    }
}

impl<A: Agent> Context<'_, A> {
    /// What was wanted when it was last decided on. Left out and read is what is already noted.
    pub(crate) fn known(item: &Item<A>) -> Wanted<A> {
        let (item, revision) = (item.want.clone(), item.revision);
        Wanted { item, left_out: Vec::new(), reads: Vec::new(), revision }
    }

    /// Asks the agent what the item should be.
    pub(crate) fn wanted(&self, key: &A::Key, item: &Item<A>) -> Result<Wanted<A>, Unclear> {
        let looks = Reads { fleet: self.fleet, names: RefCell::default() };
        let mut from = Vec::with_capacity(item.sources.len());
        let mut revision = Revision(0);
        for id @ SourceId(tag, member) in &item.sources {
            let Some(state) = self.sources.get(id) else { continue };
            let Some(spec) = &state.spec else { continue };
            let host = member.as_ref().and_then(|name| self.fleet.host(name.as_str()));
            revision = revision.max(state.revision);
            let facts = host.map_or(&[][..], |host| self.fleet.facts(host.name.as_str()));
            from.push(Source { tag, spec: &**spec, host, facts, revision: state.revision });
        }
        if from.is_empty() {
            return Ok(Wanted { item: None, left_out: Vec::new(), reads: Vec::new(), revision });
        }
        self.count.add(|c| {
            c.desired += 1;
            c.sources += from.len() as u64;
        });
        let desired = self.agent.desired(key, &from, &looks);
        let reads: Vec<_> = looks.names.into_inner().into_iter().collect();
        let desired = match desired {
            Ok(desired) => desired,
            Err(blocked) => return Err(Unclear { blocked, reads }),
        };
        for host in reads.iter().filter_map(|name| self.fleet.host(name.as_str())) {
            revision = revision.max(host.revision);
        }
        // What did not change stays shared with what the ledger holds.
        let share = |new: A::Item| match (&item.want, item.entry.as_ref().and_then(|e| e.last.as_ref())) {
            (Some(old), _) if **old == new => old.clone(),
            (_, Some(last)) if **last == new => last.clone(),
            _ => Arc::new(new),
        };
        Ok(Wanted { item: desired.item.map(share), left_out: desired.left_out, reads, revision })
    }

    /// Why a source of this item cannot be understood now, if one cannot.
    pub(crate) fn frozen(&self, item: &Item<A>) -> Option<String> {
        let recorded = item.entry.iter().flat_map(|entry| &entry.from);
        let unreadable = |SourceId(tag, host): &SourceId| self.fleet.unreadable(tag, host.as_ref());
        if let Some(why) = item.sources.iter().chain(recorded.clone()).find_map(unreadable) {
            return Some(why);
        }
        let state = self.sources.frozen(item.sources.iter().chain(recorded))?;
        Some(format!("{}: {}", state.what, state.why))
    }

    /// Who holds the item as it is, and why.
    pub(crate) fn paused(&self, item: &Item<A>) -> Option<String> {
        let recorded = item.entry.iter().flat_map(|entry| &entry.from);
        let mut sources = item.sources.iter().chain(recorded);
        self.fleet
            .agent_pause(self.agent.namespace())
            .or_else(|| sources.find_map(|SourceId(tag, host)| self.fleet.pause(tag, host.as_ref())))
    }

    /// Decides. `item.want` and `item.reads` are already what `wanted` said.
    pub(crate) fn decide(
        &self,
        key: &A::Key,
        item: &Item<A>,
        wanted: &Wanted<A>,
        now: Moment,
    ) -> Decision<A> {
        let part = self.part(key, item);
        let have = match self.owned(item, part.as_ref().unwrap_or(&item.sight)) {
            Ok(Some((_, false))) if wanted.item.is_none() => return self.doubtful(item, now),
            Ok(Some((have, false))) if !self.adopts(key, wanted, have) => {
                let why = format!("{key} is there already and Shoal did not make it");
                return self.clash(item, wanted, &why, have);
            }
            Ok(have) => have,
            Err(decision) => return *decision,
        };
        let adopts = have.is_some_and(|(have, ours)| !ours || self.adopting(item, have));
        let have = have.map(|(have, _)| have);
        if adopts && self.options.nature.marks_own {
            // Also where it is as it should be: it bears no mark yet.
            return self.act(item, wanted, ADOPT, Value::Null, have.cloned(), now);
        }
        let null = Value::Null;
        let missing = self.missing(item);
        if wanted.item.is_none() && have.is_none() && missing.is_some() {
            let memo = item.entry.as_ref().map_or(Value::Null, |entry| entry.memo.clone());
            return self.act(item, wanted, REMOVE, memo, None, now);
        }
        if let Some(why) = self.kept(key, item, wanted, have.is_some()) {
            return Decision::stay(Trouble::Held(why));
        }
        let entry = item.entry.as_ref();
        let last = entry.and_then(|e| e.last.as_ref());
        let memo = entry.map_or(&null, |e| &e.memo);
        let tried: Vec<&A::Item> = entry.iter().flat_map(|e| e.tried()).map(|one| &**one).collect();
        let (want, last) = (wanted.item.as_deref(), last.map(|l| &**l));
        let at = At { want, last, tried: &tried, have: have.map(|h| &**h), memo };
        self.count.add(|c| c.steps += 1);
        match self.agent.step(key, at, now) {
            Step::Rest { look_again } => Decision::Rest { look_again },
            Step::Wait { until, why, memo } => {
                Decision::Stay { trouble: Trouble::Waiting(why), planned: None, memo: Some(memo), until }
            }
            Step::Hold { why } => Decision::stay(Trouble::Held(why)),
            Step::Clash { why } => {
                let Some(have) = have else { return Decision::stay(Trouble::Held(why)) };
                if !adopts && !self.adopts(key, wanted, have) {
                    return self.clash(item, wanted, &why, have);
                }
                self.act(item, wanted, ADOPT, memo.clone(), Some(have.clone()), now)
            }
            Step::Run { verb, memo } if self.stands(item, wanted) && !adopts => {
                self.run(item, wanted, verb, memo, have.cloned())
            }
            Step::Act { verb: "create", memo } | Step::Run { verb: "create", memo }
                if missing.is_some_and(|last| Some(last) != wanted.item.as_ref()) =>
            {
                self.act(item, wanted, "update", memo, None, now)
            }
            Step::Act { verb, memo } | Step::Run { verb, memo } => {
                let verb = if adopts { ADOPT } else { verb };
                self.act(item, wanted, verb, memo, have.cloned(), now)
            }
        }
    }

    /// What the item was last made as, where it is missing from a unit that is Shoal's alone. That is no removal, nor does it
    /// make a change of it a creation: what has to be agreed to has to be agreed to all the same.
    pub(crate) fn missing<'i>(&self, item: &'i Item<A>) -> Option<&'i Arc<A::Item>> {
        let alone = self.options.nature.whole || self.options.nature.sole;
        let entry = item.entry.as_ref().filter(|entry| alone && entry.stage == Stage::Made)?;
        entry.last.as_ref().filter(|_| matches!(item.sight, Sight::Nothing))
    }

    /// What of that which is there concerns Shoal, where others write beside it.
    pub(crate) fn part(&self, key: &A::Key, item: &Item<A>) -> Option<Sight<A::Have>> {
        let have = item.sight.have().filter(|_| self.options.nature.shared)?;
        let entry = item.entry.as_ref();
        let tried: Vec<&A::Item> = entry.iter().flat_map(|e| e.tried()).map(|one| &**one).collect();
        let last = entry.and_then(|entry| entry.last.as_deref());
        let known = Known { want: item.want.as_deref(), last, tried: &tried };
        if known.want.is_none() && last.is_none() && tried.is_empty() {
            return Some(Sight::Nothing);
        }
        Some(Sight::of(self.agent.part(key, have, known), true))
    }

    /// Whether this change makes more Shoal's than the ledger says, where others write beside it: stopped right after the change,
    /// Shoal would take it for theirs.
    pub(crate) fn gains(&self, key: &A::Key, item: &Item<A>, planned: &Planned<A>, now: Moment) -> bool {
        if !self.options.nature.shared || planned.kind() != Kind::Update {
            return false;
        }
        let last = item.entry.as_ref().and_then(|entry| entry.last.as_deref());
        let (Some(want), Some(last)) = (planned.to.as_deref(), last) else { return true };
        let Some(made) = self.agent.made(want) else { return true };
        let known = Known { want: Some(want), last: Some(last), tried: &[] };
        match self.agent.part(key, &made, known) {
            Seen::Ours(have) | Seen::There(have) => {
                let (want, last) = (Some(want), Some(last));
                let at = At { want, last, tried: &[], have: Some(&have), memo: &planned.memo };
                matches!(self.agent.step(key, at, now), Step::Clash { .. })
            }
            Seen::Nothing | Seen::Unknown(_) => false,
        }
    }

    /// What is there, and whether it is ours.
    fn owned<'i>(&self, item: &'i Item<A>, sight: &'i Sight<A::Have>) -> Owned<'i, A> {
        match sight {
            Sight::Unlooked | Sight::New => Err(Box::new(Decision::Look)),
            Sight::Unknown(why) => Err(Box::new(Decision::stay(Trouble::Unseen(why.clone())))),
            Sight::NotYet(shows) => {
                let trouble = Trouble::Waiting("what was begun does not show yet".to_owned());
                Err(Box::new(Decision::Stay { trouble, planned: None, memo: None, until: Some(*shows) }))
            }
            Sight::Nothing => Ok(None),
            Sight::Ours(have) => Ok(Some((have, true))),
            Sight::There(have) => {
                let ours = item.entry.as_ref().is_some_and(|entry| match &entry.stage {
                    Stage::Made | Stage::Removing { .. } => !self.replaced(item, sight),
                    // It was not there when the attempts began: ours if it is what one of them would have made.
                    Stage::Creating { tried, begun, .. } => {
                        begun.is_some()
                            || tried.iter().any(|one| **have == **one)
                            || self.adopting(item, have) && item.want.is_some()
                    }
                });
                Ok(Some((have, ours)))
            }
        }
    }

    /// Whether it is still exactly what a person gave to Shoal, and that was not changed yet.
    fn adopting(&self, item: &Item<A>, have: &A::Have) -> bool {
        match item.entry.as_ref().map(|entry| &entry.stage) {
            Some(Stage::Creating { adopted: Some(digest), .. }) => *digest == have_digest::<A>(have),
            _ => false,
        }
    }

    /// Whether what was Shoal's is gone, and somebody else's stands in its place: the target marks what is Shoal's, and this
    /// bears no mark.
    pub(crate) fn replaced(&self, item: &Item<A>, sight: &Sight<A::Have>) -> bool {
        let crate::Nature { marks_own, whole, .. } = self.options.nature;
        let known = item.entry.as_ref().is_some_and(|entry| !matches!(entry.stage, Stage::Creating { .. }));
        marks_own && !whole && known && matches!(sight, Sight::There(_))
    }

    /// What nobody wants, is there, and is not known to be Shoal's.
    fn doubtful(&self, item: &Item<A>, now: Moment) -> Decision<A> {
        // What was tried may be what is there, and only not done yet: then a later look shows it.
        let tried = matches!(item.entry.as_ref().map(|e| &e.stage), Some(Stage::Creating { .. }));
        Decision::Rest { look_again: tried.then(|| now.saturating_add(self.options.retry_most)) }
    }

    /// Whether a person said, of exactly this, that Shoal is to have it. Of what was changed since then nobody said so.
    fn adopts(&self, key: &A::Key, wanted: &Wanted<A>, have: &A::Have) -> bool {
        let adoption = self.fleet.adoption(self.agent.namespace(), &self.agent.unit(key));
        let Some((revision, adopt)) = adoption else { return false };
        wanted.revision <= revision
            && wanted.item.as_ref().is_some_and(|want| {
                adopt
                    .get(&key.to_string())
                    .is_some_and(|digest| *digest == clash_digest::<A>(key, have, want))
            })
    }

    fn clash(&self, item: &Item<A>, wanted: &Wanted<A>, why: &str, have: &Arc<A::Have>) -> Decision<A> {
        let way = "it stays as it is: remove it by hand, or take it out of the tag";
        if self.options.nature.whole {
            return Decision::stay(Trouble::Held(format!("{why}; {way}")));
        }
        let trouble = Trouble::Held(format!("{why}; {way}, or let Shoal have it with shoal adopt"));
        let Decision::Act(planned) = self.act(item, wanted, ADOPT, Value::Null, Some(have.clone()), 0) else {
            return Decision::stay(trouble);
        };
        Decision::Stay { trouble, planned: Some(planned), memo: None, until: None }
    }

    fn act(
        &self,
        item: &Item<A>,
        wanted: &Wanted<A>,
        verb: &'static str,
        memo: Value,
        have: Option<Arc<A::Have>>,
        now: Moment,
    ) -> Decision<A> {
        let because = match self.because(item, wanted) {
            Ok(because) => because,
            Err(why) => return Decision::stay(Trouble::Held(why)),
        };
        let planned = Box::new(Planned {
            verb,
            memo,
            from: have,
            to: wanted.item.clone(),
            sources: item.sources.clone(),
            revision: because.revision().unwrap_or(wanted.revision),
            because,
            last: item.entry.as_ref().and_then(|e| e.last.clone()),
        });
        let agreed =
            item.entry.as_ref().and_then(|e| e.agreed.as_ref()).is_some_and(|d| *d == planned.digest());
        let mut until = None;
        let marks = self.only_marks(item, planned.to.as_deref());
        let held = if let Some(why) = self.paused(item).filter(|_| !marks) {
            Some(format!("paused: {why}"))
        } else if self.tried_too_often(item, &planned) {
            until = Some(now.saturating_add(self.options.retry_most));
            Some(format!(
                "{MAX_TRIED} different creations of it were tried, any may still show, and no other is begun before: \
                 if the target shows that none will, take it out of its tag and put it back"
            ))
        } else if planned.because == Why::Drift && self.options.drift == OnDrift::Report && !agreed {
            Some("drift: it was changed behind Shoal's back; it is only reported".to_owned())
        } else {
            None
        };
        match held {
            Some(why) => {
                let trouble = Trouble::Held(why);
                Decision::Stay { trouble, planned: Some(planned), memo: None, until }
            }
            None => Decision::Act(planned),
        }
    }

    /// Whether an attempt at a creation would have to be forgotten for this one, and could not be told from somebody else's.
    fn tried_too_often(&self, item: &Item<A>, planned: &Planned<A>) -> bool {
        let Some(Stage::Creating { tried, .. }) = item.entry.as_ref().map(|entry| &entry.stage) else {
            return false;
        };
        let marks = self.options.nature.marks_own || self.options.nature.whole;
        !marks
            && planned.kind() == Kind::Create
            && tried.len() >= MAX_TRIED
            && !planned.to.as_ref().is_some_and(|to| tried.contains(to))
    }

    /// The reason for a change, from what the database states now.
    pub(crate) fn because(&self, item: &Item<A>, wanted: &Wanted<A>) -> Result<Why, String> {
        let entry = item.entry.as_ref();
        if entry.is_none()
            && item.sight.have().is_some()
            && let Some(what) = self.unread()
        {
            return Err(format!("what it was made from is not known, and {what} cannot be understood"));
        }
        let newest = wanted.revision;
        let logic = self.agent.logic();
        let unchanged = |from: &[SourceId], since: Revision| {
            from.iter().eq(item.sources.iter()) && newest <= since && newest > Revision(0)
        };
        let new_logic = entry
            .filter(|e| e.by != logic && e.last != wanted.item && unchanged(&e.from, e.revision))
            .map(|e| Why::NewLogic { from: e.by, to: logic });
        if let Some(why) = new_logic {
            return Ok(why);
        }
        if wanted.item.is_none() {
            return self.removal(item, newest);
        }
        Ok(match entry {
            Some(entry) if entry.last.is_some() && entry.last == wanted.item => match entry.stage {
                Stage::Made if !entry.changing => self.strayed(),
                Stage::Made | Stage::Creating { .. } | Stage::Removing { .. } => Why::Wanted(newest),
            },
            _ => Why::Wanted(newest),
        })
    }

    /// What may feed any item of this agent, as far as anybody knows.
    fn unread(&self) -> Option<String> {
        let row = self.fleet.unreadable_row(self.agent.namespace()).map(|row| format!("the row {row}"));
        row.or_else(|| self.sources.unread().map(ToString::to_string))
    }

    /// Why something is not as it was last made, where no commit says why.
    pub(crate) fn strayed(&self) -> Why {
        match self.other_life {
            Some(OtherLife { moved: Some(Move { from, to }), .. }) => {
                Why::Moved { from: from.clone(), to: to.clone() }
            }
            Some(OtherLife { epoch: Some(from), .. }) => {
                Why::Restored { from: *from, to: self.fleet.epoch() }
            }
            _ if self.options.nature.sole => Why::Restart,
            _ => Why::Drift,
        }
    }

    fn removal(&self, item: &Item<A>, newest: Revision) -> Result<Why, String> {
        if let Some(first) = item.sources.first() {
            return Ok(Why::Edited(first.to_string(), newest));
        }
        let Some(entry) = &item.entry else {
            return if self.options.nature.whole || self.options.nature.sole {
                // The whole unit is Shoal's: somebody wrote into it, or it kept an old copy.
                Ok(self.strayed())
            } else {
                Err("it is marked as Shoal's, but the ledger does not know it: nothing says that it may go"
                    .to_owned())
            };
        };
        let mut reason = None;
        for SourceId(tag, host) in &entry.from {
            let serves = |state| self.agent.serves(state);
            match self.fleet.gone(tag, host.as_ref(), entry.revision, serves) {
                Some(why) => reason = reason.max_by_revision(why),
                None => {
                    let source = SourceId(tag.clone(), host.clone());
                    return Err(format!(
                        "its source {source} is missing and nothing says that it was deleted: \
                         write it again, or delete it so that it leaves a tombstone"
                    ));
                }
            }
        }
        reason.ok_or_else(|| "the ledger names no source of it".to_owned())
    }
}

trait Newest {
    fn max_by_revision(self, other: Why) -> Self;
}

impl Newest for Option<Why> {
    fn max_by_revision(self, other: Why) -> Self {
        match self {
            Some(one) if one.revision() >= other.revision() => Some(one),
            _ => Some(other),
        }
    }
}

impl Why {
    /// The revision that is the reason, where it is one.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        match self {
            Self::Wanted(r)
            | Self::HostGone(_, r)
            | Self::HostRenamed(_, _, r)
            | Self::TagGone(_, r)
            | Self::NotMember(_, _, r)
            | Self::Lifecycle(_, r)
            | Self::Edited(_, r) => Some(*r),
            Self::Due
            | Self::Drift
            | Self::Restart
            | Self::Restored { .. }
            | Self::Moved { .. }
            | Self::NewLogic { .. } => None,
        }
    }

    /// Whether it is not as it was last made, and no commit says why.
    #[must_use]
    pub fn is_strayed(&self) -> bool {
        matches!(self, Self::Drift | Self::Restart | Self::Restored { .. } | Self::Moved { .. })
    }

    /// One word for metrics: `intended`, `due`, `drift`, `restart`, `restored`, `moved` or `new_logic`.
    #[must_use]
    pub fn cause(&self) -> &'static str {
        match self {
            Self::Due => "due",
            Self::Drift => "drift",
            Self::Restart => "restart",
            Self::Restored { .. } => "restored",
            Self::Moved { .. } => "moved",
            Self::NewLogic { .. } => "new_logic",
            _ => "intended",
        }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Wanted(r) => write!(f, "wanted since revision {r}"),
            Self::Due => f.write_str("its time has come"),
            Self::Drift => f.write_str("drift: it was changed behind Shoal's back"),
            Self::Restart => f.write_str("restart: the target began anew"),
            Self::Restored { from, to } => write!(
                f,
                "the database was restored (epoch {:016x}, before {:016x}) and knows nothing of it",
                to.0, from.0
            ),
            Self::Moved { from, to } => write!(f, "it was made at {from}, and this is {to}"),
            Self::HostGone(host, r) => write!(f, "{host} was deleted in revision {r}"),
            Self::HostRenamed(from, to, r) => write!(f, "{from} was renamed to {to} in revision {r}"),
            Self::TagGone(tag, r) => write!(f, "{tag} was deleted in revision {r}"),
            Self::NotMember(tag, host, r) => write!(f, "{host} is no member of {tag} since revision {r}"),
            Self::Lifecycle(host, r) => write!(f, "the state of {host} is not served since revision {r}"),
            Self::Edited(source, r) => write!(f, "{source} no longer wants it since revision {r}"),
            Self::NewLogic { from, to } => {
                write!(f, "version {to} of the agent decides otherwise than version {from}")
            }
        }
    }
}

impl<A: Agent> Planned<A> {
    /// Names exactly this change.
    pub(crate) fn digest(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.verb);
        hash.update([0]);
        if let Some(to) = &self.to {
            hash.update(serde_json::to_vec(&**to).unwrap_or_default());
        }
        hex(&hash.finalize()[..8])
    }
}

/// What names exactly this thing.
pub(crate) fn have_digest<A: Agent>(have: &A::Have) -> String {
    hex(&Sha256::digest(serde_json::to_vec(have).unwrap_or_default())[..8])
}

/// What names a clash: what is there, and what should be.
pub(crate) fn clash_digest<A: Agent>(key: &A::Key, have: &A::Have, want: &A::Item) -> String {
    let text = |json: Result<Vec<u8>, _>| json.unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update(format!("{key}\0"));
    hash.update(text(serde_json::to_vec(have)));
    hash.update([0]);
    hash.update(text(serde_json::to_vec(want)));
    hex(&hash.finalize()[..8])
}

/// Octets as text.
pub(crate) fn hex(octets: &[u8]) -> String {
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    let mut text = String::with_capacity(2 * octets.len());
    octets.iter().for_each(|octet| text.extend([digit(octet >> 4), digit(octet & 15)]));
    text
}

impl<A: Agent> Decision<A> {
    fn stay(trouble: Trouble) -> Self {
        Self::Stay { trouble, planned: None, memo: None, until: None }
    }
}
