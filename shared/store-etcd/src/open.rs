//! Opening a database, making one, and giving it another life.

use etcd_client::Txn;
use shoal_core::{Epoch, Revision};
use shoal_store::{Result, StoreError};

use crate::Missing;
use crate::history;
use crate::keys::{Keys, end_of};
use crate::large::{settle, sweep};
use crate::link::{Link, Pause, absent, get, names, none, put, unmoved};
use crate::record::{Identity, VERSION, write};

/// What may be read of a head whatever its version.
#[derive(serde::Deserialize)]
struct Mark {
    shoal: u32,
}

/// Sees whose the database is and which version, and makes it where there is none and `missing` says so.
pub(crate) async fn open(link: &Link, keys: &Keys, name: &str, missing: Missing) -> Result<Identity> {
    let ask = format!("opening the database {name:?}");
    let mut answer = link.at_first(&ask, Txn::new().and_then(vec![get(keys.head())])).await?;
    let Some(found) = answer.one(0) else {
        if missing == Missing::Refuse {
            return Err(StoreError::Invalid(format!(
                "{} holds no database {name:?}: mend the address, or the name behind its slash",
                link.place
            )));
        }
        return make(link, keys, name).await;
    };
    let version = serde_json::from_slice(found.value()).map(|Mark { shoal }| shoal);
    match version {
        Ok(VERSION) => {
            // A reader who may not write still reads.
            if let Err(error) = sweep(link, keys).await {
                tracing::debug!(%error, "abandoned parts were not cleared away");
            }
            crate::record::parse(&link.place, found.key(), found.value())
        }
        Ok(newer) => Err(StoreError::Invalid(format!(
            "{}: the database {name:?} is of version {newer}, and this program knows version {VERSION}: use a \
             newer Shoal",
            link.place
        ))),
        Err(_) => Err(foreign(link, name)),
    }
}

fn foreign(link: &Link, name: &str) -> StoreError {
    StoreError::Invalid(format!(
        "{}: the keys under {name:?} are of another program; name another database behind the address: \
         etcd://HOST/NAME",
        link.place
    ))
}

async fn make(link: &Link, keys: &Keys, name: &str) -> Result<Identity> {
    let head = Identity { shoal: VERSION, epoch: random_epoch(), revision: Revision(0), remembered: 0 };
    let prefix = format!("{name}/").into_bytes();
    let all = (prefix.clone(), end_of(prefix));
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
        let next = Identity { epoch, ..head };
        let same = vec![unmoved(keys.head(), at), absent(keys.applying_commit())];
        let txn = Txn::new().when(same).and_then(vec![put(keys.head(), write(&next)?)]);
        match link.once("beginning another epoch", txn).await {
            Ok(answer) if answer.done => return Ok(epoch),
            Err(error) if error.is_transient() => pause.after(error).await?,
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        if history::head(link, keys).await?.0.epoch == epoch {
            return Ok(epoch);
        }
    }
}

/// Random, never 0.
fn random_epoch() -> Epoch {
    Epoch(rand::random_range(1..=u64::MAX))
}
