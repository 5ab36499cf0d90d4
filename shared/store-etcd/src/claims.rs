//! Claims: a key with a lease for each place. The number is the revision of etcd that made the key: it rises with every
//! holder of whatever claim, and needs no counter.

use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, Txn, TxnOp};
use shoal_store::{Claim, ClaimAnswer, ClaimRequest, Result};

use crate::keys::Keys;
use crate::known::each;
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
}

impl Kept {
    fn of(link: &Link, keys: &Keys, kv: &KeyValue) -> Result<Self> {
        let (name, slot) =
            keys.of_claim(kv.key()).ok_or_else(|| damaged(&link.place, kv.key(), &"it names no claim"))?;
        let ClaimRecord { holder, ttl } = parse(&link.place, kv.key(), kv.value())?;
        let claim = Claim { name, slot, holder, number: kv.create_revision().unsigned_abs(), ttl };
        Ok(Self { claim, lease: kv.lease(), key: kv.key().to_vec(), at: kv.mod_revision() })
    }
}

/// The held claims whose name starts so, by name and slot.
pub(crate) async fn list(link: &Link, keys: &Keys, prefix: &str) -> Result<Vec<Claim>> {
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
        let answer = link.read("reading a claim", vec![first(keys.places(&want.name), 0)]).await;
        let mut answer = answer?;
        let at = answer.revision;
        let mut held = Vec::new();
        for kv in answer.take(0).kvs {
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
    let done = write_claim(link, want, own.key.clone(), held).await?;
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
    match write_claim(link, want, key, conditions).await? {
        Some(number) => Ok(Some(ClaimAnswer::Granted(Claim {
            name: want.name.clone(),
            slot,
            holder: want.holder.clone(),
            number: number.unsigned_abs(),
            ttl: want.ttl,
        }))),
        None => {
            settle(link, keys).await?;
            Ok(None)
        }
    }
}

/// Writes a claim's key if the conditions hold, and answers etcd's revision of that. An answer that was lost is no
/// harm: who asks again is the holder.
async fn write_claim(
    link: &Link,
    want: &ClaimRequest,
    key: Vec<u8>,
    conditions: Vec<Compare>,
) -> Result<Option<i64>> {
    let lease = match want.ttl {
        Some(ttl) => link.grant(ttl).await?,
        None => 0,
    };
    let record = write(&ClaimRecord { holder: want.holder.clone(), ttl: want.ttl })?;
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
    let key = keys.claim(&claim.name, claim.slot);
    let held = vec![made(key.clone(), claim.number)];
    let txn = Txn::new().when(held).and_then(vec![get(key.clone()), TxnOp::delete(key, None)]);
    let mut answer = link.again("giving a claim back", txn).await?;
    if let Some(kv) = answer.one(0)
        && kv.lease() != 0
    {
        link.revoke(kv.lease()).await;
    }
    Ok(())
}
