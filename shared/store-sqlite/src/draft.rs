//! A file that is being made from another database.
//!
//! It has the tables of every database, filled by the same code, and in the place of the mark that says whose a file is (SQLite's `application_id`)
//! another one: whoever opens it as a database refuses it, an older Shoal as somebody else's. The last transaction puts the right mark there.
//! So nothing else need be kept of how far it is: that is its newest revision, and which database it is made from its epoch says.
//!
//! Every part is one transaction, synced like a commit, and on the condition that the file is as this process left it. Its newest revision
//! does not say that alone: what stands beside the history is copied without moving it. So who takes the file up writes a random number where a database
//! has its last fencing number, of which a draft has none, and whoever finds another one there was overtaken.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, TransactionBehavior, params};
use shoal_core::{Epoch, LogEntry, Revision};
use shoal_store::parts::{occupied, of_another, out_of_order, overtaken, validate_query};
use shoal_store::{
    Claim, Draft, Fut, LedgerPage, MAX_PAGE, Page, Piece, Query, Result, Retry, Stand, StoreError, Whole,
};

use crate::fault::Stop;
use crate::open::{
    Options, absolute, connect, create, is_empty, look, make, marks, random_epoch, recognise, wal,
};
use crate::read::int;
use crate::transact::Tx;
use crate::{blocking, claims, ledger, log, read, schema, whole};

/// Octets of pages that the connection keeps.
const CACHE: i64 = 32 << 20;
/// How to be rid of one.
pub(crate) const REMOVE: &str = "remove the file, with what stands beside it (-wal, -shm)";

/// A file that is being made from another database; see [`Draft`].
#[derive(Clone)]
pub struct SqliteDraft(Arc<Mutex<File>>);

/// The file, and how it was left.
struct File {
    place: PathBuf,
    connection: Connection,
    upto: Revision,
    /// What this process wrote there when it took the file up.
    mine: i64,
}

impl SqliteDraft {
    /// Opens the file `path` for a copy of the database of this epoch: one that is not there, or empty, or the unfinished copy of that
    /// database. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a file that is something else, and otherwise as for
    /// [`SqliteStore::open`](crate::SqliteStore::open).
    pub async fn open(path: impl AsRef<Path>, of: Epoch) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let file = blocking(move || File::open(&path, of)).await?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    /// Runs `f` on the file, beside the runtime's own threads.
    fn with<T: Send + 'static>(
        &self,
        attempted: &'static str,
        f: impl FnOnce(&mut File) -> Result<T, Stop> + Send + 'static,
    ) -> Fut<'_, Result<T>> {
        let file = Arc::clone(&self.0);
        Box::pin(blocking(move || {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            let done = f(&mut file);
            done.map_err(|stop| stop.at(&file.place, attempted))
        }))
    }

    fn reading<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Connection) -> Result<T, Stop> + Send + 'static,
    ) -> Fut<'_, Result<T>> {
        self.with("reading", move |file| f(&file.connection))
    }

    fn writing(
        &self,
        f: impl FnOnce(&mut Tx<'_>, &Path) -> Result<(), Stop> + Send + 'static,
    ) -> Fut<'_, Result<()>> {
        self.with("writing", move |file| file.within(f))
    }
}

impl File {
    fn open(path: &Path, of: Epoch) -> Result<Self> {
        let place = absolute(path)?;
        look(&place)?;
        make(&place);
        let failed = |stop: Stop| stop.at(&place, "opening the copy");
        let opened = connect(&place, &Options::default(), CACHE, true);
        let mut connection = opened.map_err(|error| failed(error.into()))?;
        let (upto, mine) = identify(&mut connection, &place, of).map_err(failed)?;
        Ok(Self { place, connection, upto, mine })
    }

    /// Runs `f` in one transaction, if the file is as this process left it.
    fn within(&mut self, f: impl FnOnce(&mut Tx<'_>, &Path) -> Result<(), Stop>) -> Result<(), Stop> {
        let moment = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let upto = {
            let mut tx = Tx::new(&moment)?;
            let as_left = tx.head.revision == self.upto && maker(&moment)? == self.mine;
            if marks(&moment)?.0 != schema::DRAFT || !as_left {
                return Err(overtaken(&self.place.display().to_string()).into());
            }
            f(&mut tx, &self.place)?;
            tx.head.revision
        };
        moment.commit()?;
        self.upto = upto;
        Ok(())
    }
}

/// Who took the draft up last.
fn maker(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("SELECT claimed FROM meta", [], |row| row.get(0))
}

/// Makes sure that the file is a draft of this database, which from now on is made by this process; makes one in an empty file. Answers how
/// far it is, and what says that it is made by this process.
fn identify(connection: &mut Connection, place: &Path, of: Epoch) -> Result<(Revision, i64), Stop> {
    // One moment: another process may be making the tables between two questions.
    let moment = connection.transaction()?;
    let (application, version) = marks(&moment)?;
    let new = application == 0 && version == 0 && is_empty(&moment)?;
    moment.finish()?;
    if new {
        wal(connection)?;
        create(connection, schema::DRAFT, of)?;
    }
    draft_of(connection, place, of)?;
    wal(connection)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    let mine = random_epoch()?.0.cast_signed();
    // Once more, for somebody may just have finished it.
    let moment = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let upto = draft_of(&moment, place, of)?;
    moment.execute("UPDATE meta SET claimed = ?1", [mine])?;
    moment.commit()?;
    Ok((upto, mine))
}

/// That this is a draft of this database. Answers how far it is.
fn draft_of(connection: &Connection, place: &Path, of: Epoch) -> Result<Revision, Stop> {
    let (application, version) = marks(connection)?;
    let shown = place.display().to_string();
    if application == schema::APPLICATION && version == schema::VERSION {
        return Err(occupied(&shown, read::head(connection)?.revision).into());
    }
    if application != schema::DRAFT {
        // Whosever it is, it is none that is known.
        recognise(place, application, version)?;
    }
    if version != schema::VERSION {
        return Err(StoreError::Invalid(format!(
            "{shown} is an unfinished copy by another version of Shoal (its tables are of version {version}, this program knows \
             {}): go on with that one, or {REMOVE}",
            schema::VERSION
        ))
        .into());
    }
    let head = read::head(connection)?;
    if head.epoch != of {
        return Err(of_another(&shown, head.epoch, of, REMOVE).into());
    }
    Ok(head.revision)
}

impl Whole for SqliteDraft {
    fn stand(&self) -> Fut<'_, Result<Stand>> {
        // No number was given out in it.
        self.reading(|c| Ok(Stand { head: read::head(c)?, fence: 0, busy: false }))
    }

    fn history(&self, after: Revision) -> Fut<'_, Result<Vec<Arc<LogEntry>>>> {
        self.reading(move |c| log::after(c, after))
    }

    fn rows(&self, query: &Query) -> Fut<'_, Result<Page>> {
        let query = query.clone();
        self.reading(move |c| {
            let limit = validate_query(&query)?;
            read::page(c, &query, limit)
        })
    }

    fn ledger_rows(&self, after: Option<&str>) -> Fut<'_, Result<LedgerPage>> {
        let after = after.map(str::to_owned);
        self.reading(move |c| ledger::page(c, "", after.as_deref(), MAX_PAGE))
    }

    fn retries(&self, after: u64) -> Fut<'_, Result<Vec<(u64, Retry)>>> {
        self.reading(move |c| whole::retries(c, after))
    }

    fn held(&self) -> Fut<'_, Result<Vec<Claim>>> {
        self.reading(|c| claims::list(c, ""))
    }
}

impl Draft for SqliteDraft {
    fn take(&self, piece: Piece) -> Fut<'_, Result<()>> {
        self.writing(move |tx, place| match piece {
            Piece::Commits(commits) => take_commits(tx, place, commits),
            Piece::Retries(retries) => take_retries(tx, &retries),
            Piece::Ledger(rows) => take_ledger(tx, &rows),
            Piece::Claims(claims) => take_claims(tx, &claims),
        })
    }

    fn clear(&self) -> Fut<'_, Result<()>> {
        self.writing(|tx, _| {
            for table in ["remembered", "ledger", "claims"] {
                tx.connection.execute(&format!("DELETE FROM {table}"), [])?;
            }
            Ok(())
        })
    }

    fn finish(&self, upto: Revision, fence: u64) -> Fut<'_, Result<()>> {
        self.writing(move |tx, place| {
            if tx.head.revision != upto {
                return Err(overtaken(&place.display().to_string()).into());
            }
            let fence = i64::try_from(fence).unwrap_or(i64::MAX);
            tx.connection.execute("UPDATE meta SET claimed = ?1", [fence])?;
            tx.connection.pragma_update(None, "application_id", schema::APPLICATION)?;
            Ok(())
        })
    }
}

fn take_commits(tx: &mut Tx<'_>, place: &Path, commits: Vec<Arc<LogEntry>>) -> Result<(), Stop> {
    for entry in commits {
        let (asked, newest) = (entry.info.revision, tx.head.revision);
        if asked <= newest {
            return Err(out_of_order(&place.display().to_string(), asked, newest).into());
        }
        tx.write(Arc::unwrap_or_clone(entry))?;
    }
    Ok(())
}

fn take_retries(tx: &Tx<'_>, retries: &[Retry]) -> Result<(), Stop> {
    let sql = "INSERT INTO remembered (key, digest, revision, changed) VALUES (?1, ?2, ?3, ?4)";
    let mut sql = tx.connection.prepare_cached(sql)?;
    for retry in retries {
        let changed = i64::try_from(retry.changed).unwrap_or(i64::MAX);
        sql.execute(params![retry.key, retry.digest, int(retry.revision), changed])?;
    }
    Ok(())
}

fn take_ledger(tx: &Tx<'_>, rows: &[(String, Vec<u8>)]) -> Result<(), Stop> {
    let mut sql = tx.connection.prepare_cached("INSERT INTO ledger (key, value) VALUES (?1, ?2)")?;
    for (key, value) in rows {
        sql.execute(params![key, value])?;
    }
    Ok(())
}

fn take_claims(tx: &Tx<'_>, claims: &[Claim]) -> Result<(), Stop> {
    // Without an end it does not matter in which boot it was made.
    let sql = "INSERT INTO claims (name, slot, holder, number, boot) VALUES (?1, ?2, ?3, ?4, '')";
    let mut sql = tx.connection.prepare_cached(sql)?;
    for claim in claims {
        sql.execute(params![claim.name, claim.slot, claim.holder, claim.number.cast_signed()])?;
    }
    Ok(())
}
