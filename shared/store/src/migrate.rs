//! A database with all its history, copied into another store.
//!
//! 1. *The history* is copied, commit by commit, at exactly its revisions. It only grows, so this goes on where it stopped: after a
//!    kill, and when more was committed since.
//! 2. *Whether the source rests*: nobody holds a lease in it, no agent lives, nobody commits, no large commit is being written. If somebody does, this ends
//!    here, and is run again after they were stopped; so what takes long is done while everything runs.
//! 3. *What stands beside the history* is copied: idempotency keys, the ledger, claims without an end. It changes, so it is copied from its beginning each
//!    time.
//! 4. *Both sides are read*, all of it, and compared (see `tally`).
//! 5. *The copy is finished*, in one step, if the source still rests. Until then nobody can open it. Then that is looked at once more: so what was
//!    committed before this ends is in the copy, or it is said that it is not.
//!
//! The copy is the same database: it keeps its epoch. So agents go on without asking, and watches and retries go on where they were. That is right only while one of
//! the two is written to, which nothing here can promise for later: whoever runs it lets the source rest.
//!
//! The source is only read. Little memory is needed: some pages, or the largest commit.

mod tally;

use std::sync::Arc;

use shoal_core::{LogEntry, Revision, Status};

use self::tally::Tally;
use crate::{Claim, Clock, Draft, Head, Piece, Stand, StoreError, SystemClock, Whole};

/// How often it is tried to catch up with a source that is written to.
const ROUNDS: usize = 8;
/// How many of those who use the source are named.
const NAMED: usize = 5;
/// Fencing numbers of the copy go on so far above those of the source: further than any that are given out there after it was looked at.
const BEYOND: u64 = 1 << 32;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The history is copied.
    History,
    /// What stands beside it is copied.
    Beside,
    /// The source is read.
    ReadSource,
    /// The copy is read.
    ReadCopy,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// At what.
    pub step: Step,
    /// Up to which revision it is done.
    pub done: Revision,
    /// Out of these; 0: it is not counted.
    pub of: Revision,
}

/// What was copied, as it was read from both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Which database it is, and its newest revision.
    pub head: Head,
    /// How many commits.
    pub commits: u64,
    /// How many changes they have.
    pub changes: u64,
    /// How many rows stand now, tombstones left out.
    pub rows: u64,
    /// How many rows the ledger has.
    pub ledger: u64,
    /// How many idempotency keys are remembered.
    pub retries: u64,
    /// How many claims without an end are held.
    pub claims: u64,
    /// SHA-256 over all of it, in hexadecimal: equal for equal databases, in whatever store.
    pub digest: String,
}

/// Why a copy was not made, or not finished.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The source could not be read.
    #[error("the source cannot be read")]
    Source(#[source] StoreError),
    /// The copy could not be written, or not be read again.
    #[error("the copy cannot be made")]
    Copy(#[source] StoreError),
    /// Somebody uses the source.
    #[error(
        "the source is in use ({}), so the copy is not finished: everything up to revision {upto} is copied. Stop the servers and \
         agents that use it, then run the same command again, which copies only what is new", .by.join(", ")
    )]
    InUse {
        /// Up to where its history is copied.
        upto: Revision,
        /// Who uses it, some of them.
        by: Vec<String>,
    },
    /// Somebody began to use the source while the copy was being finished.
    #[error(
        "the copy is finished, but what was done in the source in the last moment may be missing in it ({why}): let nobody use the \
         copy, remove it, stop the servers and agents that use the source, then run the same command again"
    )]
    Late {
        /// Who, or why that is not known.
        why: String,
    },
    /// The draft was begun from something else.
    #[error(
        "what stands in the place of the copy was not made from this database ({why}): name the database that it was made from, or \
         remove it and begin anew"
    )]
    Other {
        /// What tells them apart.
        why: String,
    },
    /// The two differ although the source rests.
    #[error(
        "the copy is not the same as the source (they differ in {what}), and stays unfinished: remove it and begin anew; if that does \
         not help, check the source with `shoal database verify`"
    )]
    Differs {
        /// In which part.
        what: String,
    },
}

type Result<T> = std::result::Result<T, MigrateError>;

/// Copies what `source` holds into `draft`, or what is still missing there, compares the two, and finishes the copy. `told` hears how far it is.
///
/// Costs a reading and a writing of the whole database, and two more readings.
///
/// # Errors
/// See [`MigrateError`]. But for [`MigrateError::Late`], the draft then stays as it is, and may be gone on with.
pub async fn migrate(source: &dyn Whole, draft: &dyn Draft, told: &mut dyn FnMut(Told)) -> Result<Migrated> {
    let begun = source.stand().await.map_err(MigrateError::Source)?;
    let upto = same_line(source, draft, begun.head).await?;
    let head = history(source, draft, Head { revision: upto, ..begun.head }, told).await?;
    rests(source, head).await?;
    beside(source, draft, head, told).await?;
    let here = Tally::of(source, head.revision, Step::ReadSource, told).await;
    let here = here.map_err(MigrateError::Source)?;
    let there = Tally::of(draft, head.revision, Step::ReadCopy, told).await;
    let there = there.map_err(MigrateError::Copy)?;
    // Before they are compared: what is written to meanwhile differs, and that is no fault of the copy.
    let fence = rests(source, head).await?;
    if let Some(what) = here.differs(&there) {
        return Err(MigrateError::Differs { what });
    }
    draft.finish(head.revision, fence.saturating_add(BEYOND)).await.map_err(MigrateError::Copy)?;
    rested(source, head).await?;
    Ok(here.migrated(head))
}

/// That the source has rested until the copy was finished: between the last look and that there is a moment.
async fn rested(source: &dyn Whole, head: Head) -> Result<()> {
    let why = match rests(source, head).await {
        Ok(_) => return Ok(()),
        Err(MigrateError::InUse { by, .. }) => by.join(", "),
        Err(MigrateError::Source(error)) => format!("the source could not be read any more: {error}"),
        Err(error) => error.to_string(),
    };
    Err(MigrateError::Late { why })
}

/// That what the draft holds is the beginning of what the source holds. Answers how far it is.
async fn same_line(source: &dyn Whole, draft: &dyn Draft, head: Head) -> Result<Revision> {
    let there = draft.stand().await.map_err(MigrateError::Copy)?.head;
    if there.epoch != head.epoch {
        let why = format!("its epoch is {:016x}, not {:016x}", there.epoch.0, head.epoch.0);
        return Err(MigrateError::Other { why });
    }
    let upto = there.revision;
    if upto == Revision(0) {
        return Ok(upto);
    }
    if upto > head.revision {
        let why = format!("it is at revision {upto}, and this database at {}", head.revision);
        return Err(MigrateError::Other { why });
    }
    let before = Revision(upto.0 - 1);
    let first = |found: Vec<Arc<LogEntry>>| found.into_iter().next();
    let here = first(source.history(before).await.map_err(MigrateError::Source)?);
    if here != first(draft.history(before).await.map_err(MigrateError::Copy)?) {
        return Err(MigrateError::Other { why: format!("its revision {upto} is another one") });
    }
    Ok(upto)
}

/// Copies the commits that the draft does not have. Answers how the source stood when it had all of them.
async fn history(
    source: &dyn Whole,
    draft: &dyn Draft,
    mut at: Head,
    told: &mut dyn FnMut(Told),
) -> Result<Head> {
    for _ in 0..ROUNDS {
        let newest = source.stand().await.map_err(MigrateError::Source)?.head;
        if newest.epoch != at.epoch {
            return Err(MigrateError::Other { why: "it was restored meanwhile".to_owned() });
        }
        if at.revision >= newest.revision {
            break;
        }
        while at.revision < newest.revision {
            told(Told { step: Step::History, done: at.revision, of: newest.revision });
            let some = source.history(at.revision).await.map_err(MigrateError::Source)?;
            let Some(last) = some.last().map(|entry| entry.info.revision) else {
                let why = format!("it ends at revision {}, and should at {}", at.revision, newest.revision);
                let place = "the history of the source".to_owned();
                return Err(MigrateError::Source(StoreError::Corrupt { place, why }));
            };
            draft.take(Piece::Commits(some)).await.map_err(MigrateError::Copy)?;
            at.revision = last;
        }
    }
    Ok(at)
}

/// That nobody uses the source, and nothing was committed since `head`. Answers its last fencing number.
async fn rests(source: &dyn Whole, head: Head) -> Result<u64> {
    let (stand, held, said) = look(source).await.map_err(MigrateError::Source)?;
    let now = SystemClock.time();
    let living = said.iter().filter(|status| status.lives(now));
    let mut by: Vec<String> =
        living.map(|status| format!("the agent {} runs as {}", status.agent, status.instance)).collect();
    let leases = held.iter().filter(|claim| claim.ttl.is_some());
    by.extend(leases.map(|claim| format!("{} holds {}", claim.holder, claim.name)));
    if stand.head != head {
        by.push(format!("somebody commits: it is at revision {} by now", stand.head.revision));
    }
    if stand.busy {
        by.push("a large commit is being written".to_owned());
    }
    if by.is_empty() {
        return Ok(stand.fence);
    }
    let more = by.len().saturating_sub(NAMED);
    by.truncate(NAMED);
    if more > 0 {
        by.push(format!("and {more} more"));
    }
    Err(MigrateError::InUse { upto: head.revision, by })
}

/// How the source stands, and who is at work in it.
async fn look(source: &dyn Whole) -> crate::Result<(Stand, Vec<Claim>, Vec<Status>)> {
    let stand = source.stand().await?;
    Ok((stand, source.held().await?, source.said().await?))
}

/// Copies what stands beside the history, from its beginning.
async fn beside(source: &dyn Whole, draft: &dyn Draft, head: Head, told: &mut dyn FnMut(Told)) -> Result<()> {
    told(Told { step: Step::Beside, done: head.revision, of: Revision(0) });
    draft.clear().await.map_err(MigrateError::Copy)?;
    let mut place = 0;
    loop {
        let some = source.retries(place).await.map_err(MigrateError::Source)?;
        let Some((last, _)) = some.last() else { break };
        place = *last;
        let retries = some.into_iter().map(|(_, retry)| retry).collect();
        draft.take(Piece::Retries(retries)).await.map_err(MigrateError::Copy)?;
    }
    let mut after = None;
    loop {
        let page = source.ledger_rows(after.as_deref()).await.map_err(MigrateError::Source)?;
        let Some((last, _)) = page.rows.last() else { break };
        after = Some(last.clone());
        draft.take(Piece::Ledger(page.rows)).await.map_err(MigrateError::Copy)?;
        if !page.more {
            break;
        }
    }
    let held = source.held().await.map_err(MigrateError::Source)?;
    let kept: Vec<_> = held.into_iter().filter(|claim| claim.ttl.is_none()).collect();
    if !kept.is_empty() {
        draft.take(Piece::Claims(kept)).await.map_err(MigrateError::Copy)?;
    }
    Ok(())
}
