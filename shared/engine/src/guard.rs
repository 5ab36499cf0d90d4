//! The guard against mass changes: what needs a person's word before it goes.
//!
//! Of the changes that are ready, these have to be asked for:
//!
//! * what only another version of the agent wants, always;
//! * all of them, when they would change or remove more than a share of the unit's items and more than
//!   [`MaxChange::ALWAYS`](crate::MaxChange::ALWAYS), or remove every one of several items while a tag still stands.
//!
//! What is asked for has a digest: the keys with exactly the changes, the creation that each item stems from, and the last
//! approval that was used. An approval that repeats it lets exactly these through, this once: the ledger keeps that they
//! were agreed to, so that a stop half way does not ask again, and that the approval is spent, so that the same changes at
//! another time do. One that nothing is left for is spent as well. The digest stays as it is for as long as the hold does.

use shoal_core::Hold;

use sha2::{Digest, Sha256};

use crate::agent::Agent;
use crate::decide::{Context, hex};
use crate::item::{Kind, Planned};
use crate::options::MaxChange;
use crate::target::Why;
use crate::unit::State;

/// What the guard says of the changes that are ready.
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

/// Looks at what is ready.
pub(crate) fn gate<A: Agent>(ctx: &Context<'_, A>, unit: &State<A>) -> Gate<A::Key> {
    if let Some(epoch) = unit.other_epoch {
        let digest = format!("{:016x}", ctx.fleet.epoch().0);
        if ctx.fleet.approval(ctx.agent.namespace(), None) != Some(digest.as_str()) {
            let why = format!(
                "the database was restored or made anew (epoch {:016x}, before {:016x}): what it says may be old",
                ctx.fleet.epoch().0,
                epoch.0
            );
            return Gate::Ask(unit.ready.iter().cloned().collect(), hold(unit, &unit.ready, digest, why));
        }
    }
    let mut changed = 0;
    let mut removed = 0;
    let mut stands = false;
    let mut new_logic = Vec::new();
    for (key, planned) in unit.ready.iter().filter_map(|key| Some((key, planned(unit, key)?))) {
        if unit.agreed(key).is_some_and(|agreed| *agreed == planned.digest()) {
            continue;
        }
        if matches!(planned.because, Why::NewLogic { .. }) {
            new_logic.push(key.clone());
        }
        match planned.kind() {
            Kind::Create => {}
            Kind::Update => changed += 1,
            Kind::Remove => {
                removed += 1;
                stands |= !matches!(planned.because, Why::TagGone(..));
            }
        }
    }
    let limit = limit(ctx, unit);
    let of = unit.entries;
    let why = if !limit.allows(changed + removed, of) {
        format!("it would change {changed} and remove {removed} of {of} items, more than {limit}")
    } else if removed > 1 && removed >= of && stands {
        format!("it would remove all {of} items while their tag still stands")
    } else if !new_logic.is_empty() {
        format!("another version of the agent decides differently about {} unchanged items", new_logic.len())
    } else {
        return Gate::Open;
    };
    let all = !limit.allows(changed + removed, of) || (removed > 1 && removed >= of && stands);
    let asking = if all { unit.ready.iter().cloned().collect() } else { new_logic };
    let digest = digest(unit, &asking);
    if ctx.fleet.approval(ctx.agent.namespace(), Some(&unit.name)) == Some(digest.as_str()) {
        return Gate::Agreed(asking, digest);
    }
    let hold = hold(unit, &asking, digest, why);
    Gate::Ask(asking, hold)
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

fn digest<A: Agent>(unit: &State<A>, keys: &[A::Key]) -> String {
    let mut hash = Sha256::new();
    hash.update(unit.pages.spent());
    for key in keys {
        let change = planned(unit, key).map(Planned::digest).unwrap_or_default();
        // An item that was made anew is another one, also where a ledger that fell empty knows of no approval any more.
        let made = unit.items.get(key).and_then(|item| item.entry.as_ref()).map_or("", |entry| &entry.token);
        hash.update(format!("{}\0{key}\0{change}\0{made}\n", unit.name));
    }
    hex(&hash.finalize()[..8])
}

fn hold<'k, A: Agent>(
    unit: &State<A>,
    keys: impl IntoIterator<Item = &'k A::Key>,
    digest: String,
    why: String,
) -> Hold {
    let (mut create, mut update, mut remove) = (0, 0, 0);
    let mut sample = Vec::new();
    for key in keys {
        let Some(planned) = planned(unit, key) else { continue };
        match planned.kind() {
            Kind::Create => create += 1,
            Kind::Update => update += 1,
            Kind::Remove => remove += 1,
        }
        if sample.len() < SAMPLE {
            sample.push(format!("{} {key}: {}", planned.verb, planned.because));
        }
    }
    Hold { digest, why, create, update, remove, of: unit.entries as u64, sample }
}
