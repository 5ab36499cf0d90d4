//! Claims: a key with a lease for each place. The number is the revision of etcd that made the key: it rises with every
//! holder of whatever claim, and needs no counter.
//!
//! In a copy of another database, and in another life of the same (a restored snapshot), numbers go on above those that were given out before: they count
//! from a base. Claims that came with a copy keep theirs, which are not above that, and stand in their records.

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp};
use shoal_store::{Claim, ClaimAnswer, ClaimRequest, Result};

use crate::history;
use crate::keys::Keys;
use crate::known::{each, identity};
use crate::large::settle;
use crate::link::{Link, Pause, absent, first, get, made, none, unmoved};
use crate::record::{ClaimRecord, damaged, parse, write};

/// A claim as it is kept.
struct Kept {
    claim: Claim,
    lease: i64,
    /// The key, and etcd's revision that last wrote it.
    key: Vec<u8>,
    at: i64,
    /// The number as it is recorded, if it is.
    number: Option<u64>,
}

/// The fencing number of a claim whose key was made at this revision of etcd.
pub(crate) fn number_of(keys: &Keys, record: &ClaimRecord, made: u64) -> u64 {
    record.number.unwrap_or_else(|| keys.base().saturating_add(made))
}

/// The revision of etcd that made the key of this claim; `None`: it is not held. A read: another life of the database may have begun, in
/// which a claim without an end stands, and under another number.
pub(crate) async fn made_at(link: &Link, keys: &Keys, claim: &Claim) -> Result<Option<u64>> {
    let looks = vec![get(keys.head()), get(keys.claim(&claim.name, claim.slot))];
    let mut answer = link.read("looking at a claim", looks).await?;
    // This is what says from where numbers count.
    identity(link, keys, answer.one(0))?;
    let Some(kv) = answer.one(1) else { return Ok(None) };
    let record: ClaimRecord = parse(&link.place, kv.key(), kv.value())?;
    let made = kv.create_revision().unsigned_abs();
    Ok((number_of(keys, &record, made) == claim.number).then_some(made))
}

impl Kept {
    fn of(link: &Link, keys: &Keys, kv: &KeyValue) -> Result<Self> {
        let (name, slot) =
            keys.of_claim(kv.key()).ok_or_else(|| damaged(&link.place, kv.key(), &"it names no claim"))?;
        let record: ClaimRecord = parse(&link.place, kv.key(), kv.value())?;
        let number = number_of(keys, &record, kv.create_revision().unsigned_abs());
        let claim = Claim { name, slot, holder: record.holder, number, ttl: record.ttl };
        let (key, at) = (kv.key().to_vec(), kv.mod_revision());
        Ok(Self { claim, lease: kv.lease(), key, at, number: record.number })
    }
}

/// The held claims whose name starts so, by name and slot.
pub(crate) async fn list(link: &Link, keys: &Keys, prefix: &str) -> Result<Vec<Claim>> {
    // From where their numbers count may have changed.
    history::head(link, keys).await?;
    let mut claims = Vec::new();
    each(link, keys.claims(prefix), None, |kvs| {
        for kv in &kvs {
            claims.push(Kept::of(link, keys, kv)?.claim);
        }
        Ok(true)
    })
    .await?;
    Ok(claims)
}

/// See [`Store::claim`](shoal_store::Store::claim).
pub(crate) async fn claim(link: &Link, keys: &Keys, want: &ClaimRequest) -> Result<ClaimAnswer> {
    let mut pause = Pause::new();
    loop {
        let looks = vec![get(keys.head()), first(keys.places(&want.name), 0)];
        let mut answer = link.read("reading a claim", looks).await?;
        identity(link, keys, answer.one(0))?;
        let at = answer.revision;
        let mut held = Vec::new();
        for kv in answer.take(1).kvs {
            let kept = Kept::of(link, keys, &kv)?;
            held.extend((kept.claim.name == want.name).then_some(kept));
        }
        let free = (0..want.of).find(|slot| held.iter().all(|kept| kept.claim.slot != *slot));
        let answer = if let Some(own) = held.iter().find(|kept| kept.claim.holder == want.holder) {
            renew(link, own, want).await
        } else if let Some(slot) = free {
            take(link, keys, want, slot, at).await
        } else {
            taken(link, held).await
        };
        match answer {
            Ok(Some(answer)) => return Ok(answer),
            // Somebody was faster, or it has just expired.
            Ok(None) => pause.wait().await,
            // It may be ours by now, and then the next look says so.
            Err(error) if error.is_transient() => pause.after(error).await?,
            Err(error) => return Err(error),
        }
    }
}

/// Makes one's own claim last longer; `None` if it is gone by now.
async fn renew(link: &Link, own: &Kept, want: &ClaimRequest) -> Result<Option<ClaimAnswer>> {
    let granted = |claim: &Claim| Some(ClaimAnswer::Granted(Claim { ttl: want.ttl, ..claim.clone() }));
    if own.claim.ttl == want.ttl && own.lease != 0 {
        return Ok(link.renew(own.lease).await?.then(|| granted(&own.claim)).flatten());
    }
    if own.claim.ttl == want.ttl {
        return Ok(granted(&own.claim));
    }
    // For another time: the same key under another lease.
    let held = vec![unmoved(own.key.clone(), own.at)];
    let done = write_claim(link, want, own.number, own.key.clone(), held).await?;
    if done.is_some() && own.lease != 0 {
        link.revoke(own.lease).await;
    }
    Ok(done.and_then(|_| granted(&own.claim)))
}

/// Takes a place that was free at etcd's revision `at`; `None` if somebody was faster.
async fn take(
    link: &Link,
    keys: &Keys,
    want: &ClaimRequest,
    slot: u32,
    at: i64,
) -> Result<Option<ClaimAnswer>> {
    let key = keys.claim(&want.name, slot);
    let (from, to) = keys.places(&want.name);
    let conditions = vec![
        absent(key.clone()),
        // Nor has the same holder just taken another place.
        Compare::mod_revision(from, CompareOp::Less, at + 1).with_range(to),
        // What was decided under the last holder's claim shows before the next one has it.
        none(keys.applying()),
    ];
    match write_claim(link, want, None, key, conditions).await? {
        Some(made) => Ok(Some(ClaimAnswer::Granted(Claim {
            name: want.name.clone(),
            slot,
            holder: want.holder.clone(),
            number: keys.base().saturating_add(made.unsigned_abs()),
            ttl: want.ttl,
        }))),
        None => {
            settle(link, keys).await?;
            Ok(None)
        }
    }
}

/// Writes a claim's key if the conditions hold, with the number that is recorded if one is, and answers etcd's revision of
/// that. An answer that was lost is no harm: who asks again is the holder.
async fn write_claim(
    link: &Link,
    want: &ClaimRequest,
    number: Option<u64>,
    key: Vec<u8>,
    conditions: Vec<Compare>,
) -> Result<Option<i64>> {
    let lease = match want.ttl {
        Some(ttl) => link.grant(ttl).await?,
        None => 0,
    };
    let record = write(&ClaimRecord { holder: want.holder.clone(), ttl: want.ttl, number })?;
    let put = TxnOp::put(key, record, Some(PutOptions::new().with_lease(lease)));
    let answer = link.once("taking a claim", Txn::new().when(conditions).and_then(vec![put])).await?;
    if !answer.done && lease != 0 {
        link.revoke(lease).await;
    }
    Ok(answer.done.then_some(answer.revision))
}

/// All places are taken: by whom, and until when; `None` if one has just expired.
async fn taken(link: &Link, held: Vec<Kept>) -> Result<Option<ClaimAnswer>> {
    let mut look_again = None;
    for kept in held.iter().filter(|kept| kept.lease != 0) {
        let Some(left) = link.left(kept.lease).await? else { return Ok(None) };
        look_again = Some(look_again.map_or(left, |soonest: std::time::Duration| soonest.min(left)));
    }
    Ok(Some(ClaimAnswer::Taken { by: held.into_iter().map(|kept| kept.claim).collect(), look_again }))
}

/// See [`Store::release`](shoal_store::Store::release).
pub(crate) async fn release(link: &Link, keys: &Keys, claim: &Claim) -> Result<()> {
    let Some(at) = made_at(link, keys, claim).await? else { return Ok(()) };
    let key = keys.claim(&claim.name, claim.slot);
    let held = vec![made(key.clone(), at)];
    let txn = Txn::new().when(held).and_then(vec![get(key.clone()), TxnOp::delete(key, None)]);
    let mut answer = link.again("giving a claim back", txn).await?;
    if let Some(kv) = answer.one(0)
        && kv.lease() != 0
    {
        link.revoke(kv.lease()).await;
    }
    Ok(())
}
