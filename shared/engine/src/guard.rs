//! The guard against mass changes: what needs a person's word before it goes.
//!
//! Of the changes that are ready, these have to be asked for:
//!
//! * all of them, and whether or not there are any, when the unit's ledger speaks of another location than the agent runs for;
//! * all of them, when the database is another life of itself than the one that the ledger is of;
//! * what only another version of the agent wants, always;
//! * all of them, when they would change or remove more than a share of the unit's items and more than
//!   [`MaxChange::ALWAYS`](crate::MaxChange::ALWAYS), or remove every one of several items while a tag still stands.
//!
//! What was removed without asking in the last [`Options::max_change_within`](crate::Options::max_change_within) counts
//! together with what is to be removed, until somebody agrees to something: many small removals are a large one.
//!
//! A removal may take several steps (a server drains before it goes). It is asked about and counted with the first: what is being removed and
//! remembers what it did before goes on.
//!
//! One change may take the whole unit with it ([`Agent::takes_unit`]). Then everything of the unit counts as removed, whoever
//! wants it still; and while a person holds any of it, or nobody can say what it should be, it is not done at all.
//!
//! What is asked for has a digest: the keys with exactly the changes, the creation that each item stems from, what else
//! would go, and the last approval that was used. An approval that repeats it lets exactly these through, this once: the
//! ledger keeps that they were agreed to, so that a stop half way does not ask again, and that the approval is spent, so that
//! the same changes at another time do. One that nothing is left for is spent as well. The digest stays as it is for as long
//! as the hold does.

use std::collections::BTreeSet;

use shoal_core::Hold;

use sha2::{Digest, Sha256};

use crate::agent::Agent;
use crate::decide::{Context, hex};
use crate::item::{ADOPT, Item, Kind, Planned, Trouble};
use crate::ledger::{Entry, Move, Stage};
use crate::options::MaxChange;
use crate::target::Why;
use crate::unit::State;

/// What is said of the changes that are ready.
pub(crate) struct Said<K> {
    /// Changes that would take what somebody holds with them, and why they wait.
    pub(crate) withheld: Vec<(K, String)>,
    /// What the guard says of all others.
    pub(crate) gate: Gate<K>,
}

/// What the guard says.
pub(crate) enum Gate<K> {
    /// All may go.
    Open,
    /// A person agreed to these with this digest: they go, and it is to be written down.
    Agreed(Vec<K>, String),
    /// These have to be asked for.
    Ask(Vec<K>, Hold),
}

/// How many of a held batch are shown to people.
const SAMPLE: usize = 10;

/// What the changes that are ready and not agreed to yet come to.
struct Toll<K> {
    changed: usize,
    removed: usize,
    /// How many others are on their way out, a step at a time.
    leaving: usize,
    /// How many went of late, unasked.
    recent: usize,
    /// Of how many.
    of: usize,
    /// A tag stands that wants, or made, some of what is removed.
    stands: bool,
    new_logic: Vec<K>,
    /// What takes the whole unit with it.
    taker: Option<K>,
    /// What goes with it.
    falls: Vec<K>,
}

/// Looks at what is ready.
pub(crate) fn gate<A: Agent>(ctx: &Context<'_, A>, unit: &State<A>) -> Said<A::Key> {
    let mut ready: Vec<A::Key> = unit.ready.iter().cloned().collect();
    if let Some(asks) = elsewhere(ctx, unit).or_else(|| restored(ctx, unit)) {
        let falls = takers(ctx, unit, &ready).next().map_or_else(Vec::new, |_| falls(unit, &ready));
        let hold = hold(ctx, unit, &ready, &falls, of(unit, &ready), asks);
        return Said { withheld: Vec::new(), gate: Gate::Ask(ready, hold) };
    }
    let takers: BTreeSet<A::Key> = takers(ctx, unit, &ready).cloned().collect();
    let mut withheld = Vec::new();
    if let Some(why) = (!takers.is_empty()).then(|| keeps(ctx, unit)).flatten() {
        ready.retain(|key| !takers.contains(key));
        let say = |key: A::Key| {
            let why = format!("{key} takes the whole unit with it, and {why}");
            (key, why)
        };
        withheld.extend(takers.into_iter().map(say));
    }
    Said { gate: weigh(ctx, unit, ready), withheld }
}

/// What a unit in which nothing is to be changed is held for: what stands as it should be is not what the ledger speaks of.
pub(crate) fn asks_as_it_is<A: Agent>(ctx: &Context<'_, A>, unit: &State<A>) -> Option<Hold> {
    Some(hold(ctx, unit, &[], &[], of(unit, &[]), elsewhere(ctx, unit)?))
}

/// The digest of a person's word that what the ledger speaks of stands where the agent runs for now.
pub(crate) fn moves<A: Agent>(ctx: &Context<'_, A>, unit: &State<A>) -> Option<String> {
    let digest = move_digest(unit, unit.other_life.moved.as_ref()?);
    (ctx.fleet.approval(ctx.agent.namespace(), Some(&unit.name)) == Some(&*digest)).then_some(digest)
}

/// The digest of what is asked and the question, where the ledger speaks of another location.
fn elsewhere<A: Agent>(ctx: &Context<'_, A>, unit: &State<A>) -> Option<(String, String)> {
    let moved @ Move { from, to } = unit.other_life.moved.as_ref()?;
    if moves(ctx, unit).is_some() {
        return None;
    }
    let why = format!(
        "this unit was made at another location, {from}, and this run is for {to}: if that is a mistake, start the agent \
         with the configuration of {from} again; if its things are in {to} now (moved, renamed) or are to be, shoal approve {}/{} \
         lets it go on there, and what has their names there is Shoal's from then on",
        ctx.agent.namespace(),
        unit.name
    );
    Some((move_digest(unit, moved), why))
}

/// The same of a ledger from another life of the database.
fn restored<A: Agent>(ctx: &Context<'_, A>, unit: &State<A>) -> Option<(String, String)> {
    let (before, now) = (unit.other_life.epoch?, ctx.fleet.epoch());
    let digest = format!("{:016x}", now.0);
    if ctx.fleet.approval(ctx.agent.namespace(), None) == Some(digest.as_str()) {
        return None;
    }
    let why = format!(
        "the database was restored or made anew (epoch {:016x}, before {:016x}): what it says may be old",
        now.0, before.0
    );
    Some((digest, why))
}

/// Names exactly this move, of a ledger that knows of the same approvals and creations.
fn move_digest<A: Agent>(unit: &State<A>, Move { from, to }: &Move) -> String {
    let entries = unit.items.values().filter_map(|item| item.entry.as_ref());
    // Of a ledger that fell empty and was begun anew, the newest is another one, also where it knows of no approval any more.
    let newest = entries.map(|entry| (entry.revision, &*entry.token)).max().unwrap_or_default();
    let text = [&*unit.name.0, from, to, unit.pages.spent(), &newest.0.to_string(), newest.1].join("\0");
    hex(&Sha256::digest(text)[..8])
}

fn weigh<A: Agent>(ctx: &Context<'_, A>, unit: &State<A>, ready: Vec<A::Key>) -> Gate<A::Key> {
    let Toll { changed, removed, leaving, recent, of, stands, new_logic, taker, falls } =
        toll(ctx, unit, &ready);
    let limit = limit(ctx, unit);
    // Of those that there were before.
    let too_many = !limit.allows(changed + removed + recent, of + recent);
    // The last of them go with those that were let through before.
    let gone = removed + leaving;
    let all = removed > 0 && gone > 1 && gone >= of && stands;
    let why = match (&taker, too_many, all) {
        (Some(key), _, true) => {
            format!(
                "{key} takes the whole unit with it: all {removed} items, while a tag still stands that wants them"
            )
        }
        (Some(key), true, _) => {
            format!("{key} takes the whole unit with it: all {removed} items, more than {limit}")
        }
        (None, true, _) if recent > 0 => format!(
            "it would change {changed} and remove {removed} of {of} items, and {recent} were removed of late without asking: more than {limit}"
        ),
        (None, true, _) => {
            format!("it would change {changed} and remove {removed} of {of} items, more than {limit}")
        }
        (None, _, true) => format!("it would remove all {gone} items while their tag still stands"),
        (_, false, false) if !new_logic.is_empty() => {
            format!(
                "another version of the agent decides differently about {} unchanged items",
                new_logic.len()
            )
        }
        _ => return Gate::Open,
    };
    let (asking, falls) = if too_many || all { (ready, falls) } else { (new_logic, Vec::new()) };
    // A plan has not taken down that a move was agreed to.
    let moves = moves(ctx, unit);
    let spent = moves.as_deref().unwrap_or_else(|| unit.pages.spent());
    let digest = digest(unit, spent, &asking, &falls);
    if ctx.fleet.approval(ctx.agent.namespace(), Some(&unit.name)) == Some(digest.as_str()) {
        return Gate::Agreed(asking, digest);
    }
    let hold = hold(ctx, unit, &asking, &falls, of, (digest, why));
    Gate::Ask(asking, hold)
}

fn toll<A: Agent>(ctx: &Context<'_, A>, unit: &State<A>, ready: &[A::Key]) -> Toll<A::Key> {
    let mut toll = Toll {
        changed: 0,
        removed: 0,
        leaving: 0,
        recent: 0,
        of: of(unit, ready),
        stands: false,
        new_logic: Vec::new(),
        taker: None,
        falls: Vec::new(),
    };
    let mut counted = BTreeSet::new();
    for (key, planned) in ready.iter().filter_map(|key| Some((key, planned(unit, key)?))) {
        // A person said so of each that is adopted.
        let adopted = planned.verb == ADOPT && !takes(ctx, key, planned);
        // Nothing is otherwise after what is due.
        let due = planned.because == Why::Due;
        if due
            || adopted
            || goes_on(unit, key, planned)
            || unit.agreed(key).is_some_and(|agreed| *agreed == planned.digest())
        {
            continue;
        }
        if matches!(planned.because, Why::NewLogic { .. }) {
            toll.new_logic.push(key.clone());
        }
        if takes(ctx, key, planned) {
            toll.taker = Some(key.clone());
            toll.stands |= !matches!(planned.because, Why::TagGone(..));
        }
        match kind(ctx, unit, key, planned) {
            // Only the ledger knows it, and it is not there: it is none of those that could be left.
            Kind::Create => {
                let absent = |item: &&Item<A>| planned.from.is_none() && ctx.missing(item).is_none();
                let item = unit.items.get(key).filter(absent);
                toll.of -= usize::from(item.is_some_and(|item| item.entry.is_some()));
            }
            Kind::Update => toll.changed += 1,
            Kind::Remove => {
                toll.removed += 1;
                counted.insert(key);
                toll.stands |= !matches!(planned.because, Why::TagGone(..));
            }
        }
    }
    if toll.removed > 0 {
        toll.recent = unit.pages.removed().count(unit.now, ctx.options.max_change_within);
        toll.leaving = leaving(unit, &counted, toll.of);
    }
    if toll.taker.is_some() {
        toll.falls = falls(unit, ready);
        toll.of = unit.items.values().filter(|item| stands(item)).count();
        (toll.changed, toll.removed) = (0, toll.of);
        let wanted = |key: &A::Key| unit.items.get(key).is_some_and(|item| item.want.is_some());
        toll.stands |= toll.falls.iter().any(wanted);
    }
    toll
}

/// Whether it is a further step of a removal whose first one was let through: it remembers what that one wrote down, and was counted then.
fn goes_on<A: Agent>(unit: &State<A>, key: &A::Key, planned: &Planned<A>) -> bool {
    let entry = unit.items.get(key).and_then(|item| item.entry.as_ref());
    let begun = |entry: &Entry<A::Item>| {
        let same = entry.memo == planned.memo && !planned.memo.is_null();
        same && matches!(entry.stage, Stage::Removing { .. })
    };
    planned.kind() == Kind::Remove && entry.is_some_and(begun)
}

/// How many are being removed already, beside these: none of them is as it should be. Costs those, where with these they could be
/// all that there is, and nothing otherwise.
fn leaving<A: Agent>(unit: &State<A>, beside: &BTreeSet<&A::Key>, of: usize) -> usize {
    if unit.open.len() + beside.len() < of {
        return 0;
    }
    let leaves = |entry: &Entry<A::Item>| matches!(entry.stage, Stage::Removing { .. });
    let removing =
        |key: &A::Key| unit.items.get(key).and_then(|item| item.entry.as_ref()).is_some_and(leaves);
    unit.open.keys().filter(|key| !beside.contains(key) && removing(key)).count()
}

/// How many items there are: those that the ledger knows, and those that these changes found beside them.
fn of<A: Agent>(unit: &State<A>, ready: &[A::Key]) -> usize {
    let beside = |key: &&A::Key| {
        let item = unit.items.get(*key);
        item.is_some_and(|item| item.entry.is_none() && item.sight.have().is_some())
    };
    unit.entries + ready.iter().filter(beside).count()
}

/// What kind of change it is, also where the target forgot what is to be changed, or what was begun is brought to its end.
fn kind<A: Agent>(ctx: &Context<'_, A>, unit: &State<A>, key: &A::Key, planned: &Planned<A>) -> Kind {
    let item = unit.items.get(key);
    let missing = item.and_then(|item| ctx.missing(item));
    match planned.kind() {
        Kind::Create if missing.is_some_and(|last| Some(last) != planned.to.as_ref()) => Kind::Update,
        Kind::Update if item.is_some_and(|item| ends(item, planned)) => Kind::Create,
        kind => kind,
    }
}

/// Whether what was begun is only brought to its end: what is there is what it was to be, and the ledger does not say yet that it was
/// made. Else creations of which no answer came would be a mass change of what they made themselves.
fn ends<A: Agent>(item: &Item<A>, planned: &Planned<A>) -> bool {
    let begun = |entry: &Entry<A::Item>| match &entry.stage {
        Stage::Creating { adopted, .. } => adopted.is_none(),
        Stage::Made => entry.changing,
        Stage::Removing { .. } => false,
    };
    let there = planned.from.as_ref().zip(planned.to.as_ref());
    item.entry.as_ref().is_some_and(begun) && there.is_some_and(|(have, to)| **have == **to)
}

/// Whether it is there, as far as the ledger or a look knows.
fn stands<A: Agent>(item: &Item<A>) -> bool {
    item.entry.is_some() || item.sight.have().is_some()
}

fn takes<A: Agent>(ctx: &Context<'_, A>, key: &A::Key, planned: &Planned<A>) -> bool {
    planned.from.as_ref().is_some_and(|have| ctx.agent.takes_unit(key, have, planned.to.as_deref()))
}

/// Those of these changes that take the whole unit with them.
pub(crate) fn takers<'k, A: Agent>(
    ctx: &Context<'_, A>,
    unit: &State<A>,
    keys: &'k [A::Key],
) -> impl Iterator<Item = &'k A::Key> {
    keys.iter().filter(|key| planned(unit, key).is_some_and(|planned| takes(ctx, key, planned)))
}

/// What goes with a change that takes the whole unit, beside what these changes remove themselves.
pub(crate) fn falls<A: Agent>(unit: &State<A>, changes: &[A::Key]) -> Vec<A::Key> {
    let goes = |key: &A::Key| {
        let changes = changes.binary_search(key).is_ok();
        changes && planned(unit, key).is_some_and(|planned| planned.kind() == Kind::Remove)
    };
    let left = unit.items.iter().filter(|(key, item)| stands(item) && !goes(key));
    left.map(|(key, _)| key.clone()).collect()
}

/// Why the unit must not go as a whole: a person holds some of it, or nobody can say what it should be.
fn keeps<A: Agent>(ctx: &Context<'_, A>, unit: &State<A>) -> Option<String> {
    unit.items.iter().filter(|(_, item)| stands(item)).find_map(|(key, item)| {
        if let Some(why) = ctx.paused(item) {
            return Some(format!("{key} is paused: {why}"));
        }
        let open = unit.open.get(key).filter(|_| !unit.ready.contains(key))?;
        match &open.trouble {
            trouble @ (Trouble::Held(_) | Trouble::Blocked(_)) => Some(format!("{key} is {trouble}")),
            _ => None,
        }
    })
}

fn planned<'u, A: Agent>(unit: &'u State<A>, key: &A::Key) -> Option<&'u Planned<A>> {
    unit.open.get(key)?.planned.as_deref()
}

/// The largest share that any tag of the unit allows.
fn limit<A: Agent>(ctx: &Context<'_, A>, unit: &State<A>) -> MaxChange {
    let least = ctx.options.max_change;
    let by_tag = &ctx.options.max_change_by_tag;
    if by_tag.is_empty() {
        return least;
    }
    let recorded = unit.items.values().flat_map(|i| i.entry.iter().flat_map(|e| &e.from));
    let tags = unit.items.values().flat_map(|i| &i.sources).chain(recorded).map(|id| &id.0);
    tags.filter_map(|tag| by_tag.get(tag)).copied().fold(least, MaxChange::max)
}

fn digest<A: Agent>(unit: &State<A>, spent: &str, keys: &[A::Key], falls: &[A::Key]) -> String {
    let mut hash = Sha256::new();
    hash.update(spent);
    for key in keys {
        let change = planned(unit, key).map(Planned::digest).unwrap_or_default();
        // An item that was made anew is another one, also where a ledger that fell empty knows of no approval any more.
        let made = unit.items.get(key).and_then(|item| item.entry.as_ref()).map_or("", |entry| &entry.token);
        hash.update(format!("{}\0{key}\0{change}\0{made}\n", unit.name));
    }
    for key in falls {
        hash.update(format!("{}\0{key}\n", unit.name));
    }
    hex(&hash.finalize()[..8])
}

fn hold<A: Agent>(
    ctx: &Context<'_, A>,
    unit: &State<A>,
    keys: &[A::Key],
    falls: &[A::Key],
    of: usize,
    (digest, why): (String, String),
) -> Hold {
    let (mut create, mut update, mut remove) = (0, 0, falls.len() as u64);
    let mut sample = Vec::new();
    for key in keys {
        let Some(planned) = planned(unit, key) else { continue };
        match kind(ctx, unit, key, planned) {
            Kind::Create => create += 1,
            // What falls is counted already.
            Kind::Update if falls.binary_search(key).is_ok() => {}
            Kind::Update => update += 1,
            Kind::Remove => remove += 1,
        }
        if sample.len() < SAMPLE {
            sample.push(format!("{} {key}: {}", planned.verb, planned.because));
        }
    }
    let room = SAMPLE.saturating_sub(sample.len());
    let beside = falls.iter().filter(|key| keys.binary_search(key).is_err());
    sample.extend(beside.take(room).map(|key| format!("{key} goes with it")));
    Hold { digest, why, create, update, remove, of: of as u64, sample }
}
