//! Opening a database, making one, and giving it another life.

use etcd_client::{Txn, TxnOp};
use jiff::Timestamp;
use shoal_core::{Epoch, Revision};
use shoal_store::parts::unfinished;
use shoal_store::{Result, StoreError};

use crate::Missing;
use crate::keys::Keys;
use crate::known::each;
use crate::large::{settle, sweep};
use crate::limits::try_out;
use crate::link::{Link, Pause, absent, clear, get, names, none, put, unmoved};
use crate::record::{ClaimRecord, Identity, PLAIN, VERSION, write};

/// What may be read of a head whatever its version.
#[derive(serde::Deserialize)]
struct Mark {
    shoal: u32,
}

/// Sees whose the database is and which version, and makes it where there is none and `missing` says so.
pub(crate) async fn open(link: &Link, keys: &Keys, name: &str, missing: Missing) -> Result<Identity> {
    let ask = format!("opening the database {name:?}");
    let looks = vec![get(keys.head()), get(Keys::of_draft(name).head())];
    let mut answer = link.at_first(&ask, Txn::new().and_then(looks)).await?;
    let Some(found) = answer.one(0) else {
        if answer.one(1).is_some() {
            return Err(unfinished(&shown(link, name), &remove(name)));
        }
        if missing == Missing::Refuse {
            return Err(StoreError::Invalid(format!(
                "{} holds no database {name:?}: mend the address, or the name behind its slash",
                link.place
            )));
        }
        return make(link, keys, name).await;
    };
    match version(found.value()) {
        Ok(PLAIN | VERSION) => {
            // A reader who may not write still reads.
            if let Err(error) = sweep(link, keys).await {
                tracing::debug!(%error, "abandoned parts were not cleared away");
            }
            crate::record::parse(&link.place, found.key(), found.value())
        }
        Ok(newer) => Err(too_new(link, name, newer)),
        Err(_) => Err(foreign(link, name)),
    }
}

/// Of which version a head is.
pub(crate) fn version(head: &[u8]) -> Result<u32, serde_json::Error> {
    serde_json::from_slice(head).map(|Mark { shoal }| shoal)
}

/// What errors call a database.
pub(crate) fn shown(link: &Link, name: &str) -> String {
    format!("{}: {name:?}", link.place)
}

/// How to be rid of what stands under a name.
pub(crate) fn remove(name: &str) -> String {
    format!("remove it (etcdctl del --prefix {name}/)")
}

pub(crate) fn too_new(link: &Link, name: &str, version: u32) -> StoreError {
    StoreError::Invalid(format!(
        "{}: the database {name:?} is of version {version}, and this program knows version {VERSION}: use a newer Shoal",
        link.place
    ))
}

pub(crate) fn foreign(link: &Link, name: &str) -> StoreError {
    StoreError::Invalid(format!(
        "{}: the keys under {name:?} are of another program; name another database behind the address: \
         etcd://HOST/NAME",
        link.place
    ))
}

async fn make(link: &Link, keys: &Keys, name: &str) -> Result<Identity> {
    let (epoch, revision) = (random_epoch(), Revision(0));
    let head = Identity { shoal: PLAIN, epoch, revision, remembered: 0, base: 0, nonce: 0 };
    try_out(link, keys).await?;
    let all = keys.all();
    let txn = Txn::new()
        .when(vec![none(all.clone())])
        .and_then(vec![put(keys.head(), write(&head)?)])
        .or_else(vec![get(keys.head()), names(all, 1)]);
    let mut answer = link.again(&format!("making the database {name:?}"), txn).await?;
    match answer.one(0) {
        // Somebody else has just made it, or we have and the answer was lost.
        Some(found) => crate::record::parse(&link.place, found.key(), found.value()),
        None if answer.done => Ok(head),
        None => Err(foreign(link, name)),
    }
}

/// Gives the database another life.
pub(crate) async fn new_epoch(link: &Link, keys: &Keys) -> Result<Epoch> {
    let epoch = random_epoch();
    let mut pause = Pause::new();
    loop {
        settle(link, keys).await?;
        let mut answer = link.read("reading the epoch", vec![get(keys.head())]).await?;
        let (head, at) = crate::known::identity(link, keys, answer.one(0))?;
        // Also after an attempt whose answer was lost.
        if head.epoch == epoch {
            end_claims(link, keys, at).await?;
            return Ok(epoch);
        }
        let next = Identity { shoal: VERSION, epoch, base: beyond(head.base), ..head };
        let same = vec![unmoved(keys.head(), at), absent(keys.applying_commit())];
        // What lies in a snapshot to be done was answered in the life before, or given up.
        let ops = vec![put(keys.head(), write(&next)?), clear(keys.queue())];
        let txn = Txn::new().when(same).and_then(ops);
        match link.once("beginning another epoch", txn).await {
            Err(error) if error.is_transient() => pause.after(error).await?,
            Err(error) => return Err(error),
            Ok(_) => {}
        }
    }
}

/// What fencing numbers count from in another life: above all that were given out in any before. How many those were is not known, because a
/// snapshot is older than its etcd was at its end, and one may be restored twice; but no etcd makes a thousand revisions a millisecond. The clock
/// of this machine is believed: after the second restore of one snapshot it must be ahead of what it was at the first, so docs/etcd.md says to set it.
fn beyond(base: u64) -> u64 {
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0);
    base.saturating_add(1 << 32).max(now << 10)
}

/// Ends the leased claims that were made before etcd's revision `at`: their holders are of the life that ended. The others have another number
/// already, because the base rose; but for those that came with a copy.
async fn end_claims(link: &Link, keys: &Keys, at: i64) -> Result<()> {
    let mut claims = Vec::new();
    each(link, keys.claims(""), None, |kvs| {
        claims.extend(kvs.into_iter().filter(|kv| kv.create_revision() < at));
        Ok(true)
    })
    .await?;
    for kv in claims {
        let record: ClaimRecord = crate::record::parse(&link.place, kv.key(), kv.value())?;
        let op = match (kv.lease(), record.number) {
            (0, None) => continue,
            (0, Some(_)) => put(kv.key().to_vec(), write(&ClaimRecord { number: None, ..record })?),
            _ => TxnOp::delete(kv.key().to_vec(), None),
        };
        let same = vec![unmoved(kv.key().to_vec(), kv.mod_revision())];
        link.again("ending a claim", Txn::new().when(same).and_then(vec![op])).await?;
    }
    Ok(())
}

/// Random, never 0.
fn random_epoch() -> Epoch {
    Epoch(rand::random_range(1..=u64::MAX))
}
